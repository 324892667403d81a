//! Checks of the way to upstream.

use schemas::timestamp::rfc3339;

use super::facts::{Facts, LinkFailure, Reached};
use super::verdict::{Verdict, error, info, ok, warn};

const WAITS: &str = "telemetry waits on disk";
const FILES: &str = "correct what [upstream] names; the daemon tries again by itself";
const KEY: &str = "copy the gateway's connection string from central into [upstream] and restart edge-agent; at central, see that \
                   the gateway is there and not blocked";
const CA: &str = "copy central's ca.pem to the path of [upstream] ca, and see that the host of the connection string is a name in \
                  central's certificate";
const NETWORK: &str = "see that the host is right, that its name resolves, and that a firewall lets its port through; the daemon \
                       tries again by itself";

pub(super) fn configured(facts: &Facts) -> Option<Verdict> {
    if facts.upstream.is_configured? {
        return ok(facts.upstream.place.clone());
    }
    info(
        "none: telemetry for upstream stays on this gateway",
        "write [upstream] with the connection string that central gave for this gateway",
    )
}

pub(super) fn encryption(facts: &Facts) -> Option<Verdict> {
    if facts.upstream.is_configured != Some(true) {
        return None;
    }
    if facts.upstream.is_encrypted {
        return ok("TLS");
    }
    warn(
        "[upstream] transport = \"plain\": whoever is on the way can read and change what is sent",
        "use TLS: remove transport = \"plain\", and write [upstream] ca",
    )
}

pub(super) fn reachable(facts: &Facts) -> Option<Verdict> {
    let (place, via) = (&facts.upstream.place, &facts.upstream.via);
    match facts.upstream.reached.as_ref()? {
        Reached::Yes => ok(format!("{place} reached{via}")),
        Reached::Unusable(why) => error(format!("{place}: {why}; {WAITS}"), FILES),
        Reached::Untrusted(why) => error(format!("{place} not reached{via}: {why}; {WAITS}"), CA),
        Reached::No(why) => warn(format!("{place} not reached{via}: {why}; {WAITS}"), NETWORK),
    }
}

pub(super) fn link(facts: &Facts) -> Option<Verdict> {
    let link = facts.daemon.as_ref()?.link.as_ref()?;
    let since = rfc3339(link.since_ms);
    if link.is_connected {
        return ok(format!("connected since {since}"));
    }
    if link.why.is_empty() {
        return info("the daemon has just started to connect", "");
    }
    let evidence = format!("not connected since {since}: {}; {WAITS}", link.why);
    match link.failure {
        Some(LinkFailure::NotAuthorized) => error(evidence, KEY),
        Some(LinkFailure::Untrusted) => error(evidence, CA),
        Some(LinkFailure::Files) => error(evidence, FILES),
        Some(LinkFailure::Unreachable) | None => warn(evidence, NETWORK),
    }
}

pub(super) fn budget(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref().filter(|daemon| daemon.link.is_some())?;
    if daemon.budgets_used_up.is_empty() {
        return ok("not used up");
    }
    let hours = daemon.budget_resets_in_secs.div_ceil(3_600);
    warn(
        format!(
            "used up for {}: it waits until a new day begins, within {hours} h",
            daemon.budgets_used_up.join(", ")
        ),
        "wait, or raise the limit in [upstream.budget] and restart edge-agent",
    )
}
