//! Checks of Docker, the deployment and the modules.

use super::facts::{Facts, ModuleFacts, Probe};
use super::verdict::{Verdict, denied, error, first_of, found, info, ok, warn};

pub(super) fn docker(facts: &Facts) -> Option<Verdict> {
    let socket = &facts.docker.socket;
    match &facts.docker.engine {
        Probe::NotProbed => None,
        Probe::Found(engine) => ok(format!("Docker {} answers on {socket}", engine.version)),
        Probe::Missing(why) => error(
            format!("{why}: modules are not supervised"),
            "start Docker (`systemctl start docker`), or name its socket in [docker] socket",
        ),
        Probe::Denied(why) => error(
            format!("{why}: modules are not supervised"),
            "run edge-agent as root, or add its user to the group of the socket (`usermod -aG docker USER`)",
        ),
        Probe::Failed(why) => error(
            format!("{why}: modules are not supervised"),
            "check Docker's log (`journalctl -u docker -n 50`), then restart it (`systemctl restart docker`)",
        ),
    }
}

pub(super) fn docker_logs(facts: &Facts) -> Option<Verdict> {
    let Probe::Found(engine) = &facts.docker.engine else { return None };
    let driver = &engine.logging_driver;
    match (driver.as_str(), engine.logs_are_bounded?) {
        ("json-file", false) => info(
            "logs of containers that are not of this gateway grow without bound: the log driver json-file has no max-size",
            "write {\"log-driver\": \"local\"} into /etc/docker/daemon.json and restart Docker; containers that exist keep \
             theirs until they are made anew",
        ),
        _ => ok(format!("the log driver {driver} is bounded")),
    }
}

pub(super) fn docker_network(facts: &Facts) -> Option<Verdict> {
    let network = &facts.docker.network;
    if *found(&facts.docker.has_network, |_| None).ok()? {
        ok(network.clone())
    } else {
        info(format!("{network} is not there"), "nothing: the daemon makes it with the first module")
    }
}

pub(super) fn deploy_policy(facts: &Facts) -> Option<Verdict> {
    if facts.docker.policy_is_open? {
        return info(
            "none: whoever may deploy is root on this host",
            "write [deploy.policy]: docs/operating/deploy-policy.md",
        );
    }
    ok("[deploy.policy] limits what manifests may ask")
}

pub(super) fn watch_folder(facts: &Facts) -> Option<Verdict> {
    match &facts.docker.watch_folder {
        Probe::NotProbed => None,
        Probe::Found(folder) => ok(folder.clone()),
        Probe::Denied(why) => denied(why),
        Probe::Missing(why) | Probe::Failed(why) => error(
            format!("{why}: manifests there are not applied"),
            "make the folder, or correct [deploy] watch and restart edge-agent",
        ),
    }
}

pub(super) fn deployment(facts: &Facts) -> Option<Verdict> {
    let deployment = &facts.daemon.as_ref()?.deployment;
    // Such a module still runs as the former manifest wanted it.
    let outdated = of_modules(facts, |module| module.has_failed && module.status == "running")?;
    match (deployment.version, &deployment.problem) {
        (None, _) => info(
            "there is no manifest yet",
            "assign one to this gateway at central, or run `edge-agent apply MANIFEST`",
        ),
        (Some(version), Some(problem)) => error(
            format!("version {version} was refused, and what ran before runs on: {problem}"),
            "correct the manifest (`edge-agent plan MANIFEST` checks it) and assign it again",
        ),
        (Some(version), None) if !outdated.is_empty() => error(
            format!("version {version} is not yet in force everywhere: {}", first_of(&outdated, "; ")),
            "see the reason; the daemon tries again at the time shown",
        ),
        (Some(version), None) => ok(format!("version {version} is in force")),
    }
}

fn shown(module: &ModuleFacts) -> String {
    let next = module.next_try.as_ref().map(|at| format!("; next try {at}")).unwrap_or_default();
    format!("module `{}` {}: {}{next}", module.name, module.status, module.reason)
}

fn of_modules(facts: &Facts, is_meant: impl Fn(&ModuleFacts) -> bool) -> Option<Vec<String>> {
    let modules = &facts.daemon.as_ref()?.modules;
    Some(modules.iter().filter(|module| module.shall_run && is_meant(module)).map(shown).collect())
}

pub(super) fn running(facts: &Facts) -> Option<Verdict> {
    let not_running =
        // A module whose image is still being pulled is `unknown`, which is no fault.
        of_modules(facts, |module| !matches!(&*module.status, "running" | "unhealthy" | "unknown"))?;
    if !not_running.is_empty() {
        return error(
            first_of(&not_running, "; "),
            "check its log (`docker logs MODULE`) and `edge-agent list`; the daemon tries again at the time shown",
        );
    }
    let starting = of_modules(facts, |module| module.status == "unknown")?;
    if !starting.is_empty() {
        return info(first_of(&starting, "; "), "wait, and check again");
    }
    let modules = &facts.daemon.as_ref()?.modules;
    let expected = modules.iter().filter(|module| module.shall_run).count();
    ok(format!("{expected} of {expected} run"))
}

pub(super) fn healthy(facts: &Facts) -> Option<Verdict> {
    let unhealthy = of_modules(facts, |module| module.status == "unhealthy")?;
    if unhealthy.is_empty() {
        return ok("no health check fails");
    }
    error(
        first_of(&unhealthy, "; "),
        "see the output of its health check (`docker inspect MODULE`, State.Health) and its log (`docker logs MODULE`)",
    )
}

pub(super) fn transport(facts: &Facts) -> Option<Verdict> {
    let modules = &facts.daemon.as_ref()?.modules;
    let advices = modules.iter().filter_map(|module| {
        let advice = module.amqp.as_ref()?;
        Some(format!("module `{}`: {advice}", module.name))
    });
    let advices: Vec<String> = advices.collect();
    if advices.is_empty() {
        return ok("none is known to begin with AMQP");
    }
    warn(
        first_of(&advices, "; "),
        "follow each message; `docker logs MODULE` shows whether it connects (port 5671 is AMQP's, 8883 is MQTT's)",
    )
}

pub(super) fn routes(facts: &Facts) -> Option<Verdict> {
    let refused = &facts.daemon.as_ref()?.deployment.routes_refused;
    if refused.is_empty() {
        return ok("all are in force");
    }
    error(
        format!("left out: {}", first_of(refused, "; ")),
        "correct them in the manifest; `edge-agent routes test MANIFEST` shows where a message goes",
    )
}
