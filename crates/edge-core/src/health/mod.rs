//! What is wrong with a gateway, and how to mend it: from facts that others gather to one list of findings. The daemon, which
//! tells central, and `edge-agent check` use the same list.

pub mod facts;
pub mod finding;
pub mod report;

mod certificates;
mod clients;
mod host;
mod modules;
mod queues;
mod upstream;

use self::facts::{Facts, Probe};
use self::finding::{CheckId, Finding, Level};

/// One finding for each check that the facts say something about, in the order of [`CheckId::ALL`].
pub fn findings(facts: &Facts) -> Vec<Finding> {
    CheckId::ALL
        .iter()
        .filter_map(|id| {
            let Verdict { level, evidence, mend } = check(*id, facts)?;
            Some(Finding::new(*id, level, &evidence, &mend))
        })
        .collect()
}

/// How a check came out: a [`Finding`] without its id.
struct Verdict {
    level: Level,
    evidence: String,
    mend: String,
}

fn ok(evidence: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Ok, evidence: evidence.into(), mend: String::new() })
}

fn info(evidence: impl Into<String>, mend: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Info, evidence: evidence.into(), mend: mend.into() })
}

fn warn(evidence: impl Into<String>, mend: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Warn, evidence: evidence.into(), mend: mend.into() })
}

fn error(evidence: impl Into<String>, mend: impl Into<String>) -> Option<Verdict> {
    Some(Verdict { level: Level::Error, evidence: evidence.into(), mend: mend.into() })
}

/// What could not be looked at for want of rights says nothing about the thing itself: `data-dir` and `config` have the error.
fn denied(why: &str) -> Option<Verdict> {
    info(format!("not checked: {why}"), "run `edge-agent check` as the user of the daemon, or as root")
}

/// What was found, or the verdict when there is nothing to judge. `failed` words the verdict on what is missing or broken.
fn found<T>(probe: &Probe<T>, failed: impl FnOnce(&str) -> Option<Verdict>) -> Result<&T, Option<Verdict>> {
    match probe {
        Probe::Found(found) => Ok(found),
        Probe::NotAsked => Err(None),
        Probe::Denied(why) => Err(denied(why)),
        Probe::Missing(why) | Probe::Failed(why) => Err(failed(why)),
    }
}

fn check(id: CheckId, facts: &Facts) -> Option<Verdict> {
    match id {
        CheckId::Config => host::config(facts),
        CheckId::ConfigInUse => host::config_in_use(facts),
        CheckId::DataDir => host::data_dir(facts),
        CheckId::Permissions => host::permissions(facts),
        CheckId::Clock => host::clock(facts),
        CheckId::ClockOffset => host::clock_offset(facts),
        CheckId::Disk => host::disk(facts),
        CheckId::Inodes => host::inodes(facts),
        CheckId::Memory => host::memory(facts),
        CheckId::OpenFiles => host::open_files(facts),
        CheckId::Hostname => host::hostname(facts),
        CheckId::Listeners => host::listeners(facts),
        CheckId::Daemon => host::daemon(facts),
        CheckId::DaemonVersion => host::daemon_version(facts),
        CheckId::ModuleKeys => certificates::module_keys(facts),
        CheckId::Ca => certificates::ca(facts),
        CheckId::CaKey => certificates::ca_key(facts),
        CheckId::ServerCertificate => certificates::server(facts),
        CheckId::DeviceCa => certificates::device_ca(facts),
        CheckId::UpstreamCa => certificates::upstream_ca(facts),
        CheckId::Upstream => upstream::configured(facts),
        CheckId::UpstreamEncryption => upstream::encryption(facts),
        CheckId::UpstreamReachable => upstream::reachable(facts),
        CheckId::Link => upstream::link(facts),
        CheckId::LinkBudget => upstream::budget(facts),
        CheckId::Docker => modules::docker(facts),
        CheckId::DockerLogs => modules::docker_logs(facts),
        CheckId::DockerNetwork => modules::docker_network(facts),
        CheckId::DeployPolicy => modules::deploy_policy(facts),
        CheckId::WatchFolder => modules::watch_folder(facts),
        CheckId::Deployment => modules::deployment(facts),
        CheckId::Modules => modules::running(facts),
        CheckId::ModuleHealth => modules::healthy(facts),
        CheckId::ModuleTransport => modules::transport(facts),
        CheckId::Routes => modules::routes(facts),
        CheckId::QueueSpace => queues::space(facts),
        CheckId::Backlog => queues::backlog(facts),
        CheckId::Losses => queues::losses(facts),
        CheckId::Quarantine => queues::quarantine(facts),
        CheckId::Unrouted => queues::unrouted(facts),
        CheckId::StoreDamage => queues::damage(facts),
        CheckId::Connections => clients::connections(facts),
        CheckId::IdentityConflict => clients::conflicts(facts),
        CheckId::Refusals => clients::refusals(facts),
    }
}

/// The first few of a list, and how many more there are.
fn first_of(items: &[String], separator: &str) -> String {
    const SHOWN_MAX: usize = 8;
    let mut text = items.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(separator);
    if items.len() > SHOWN_MAX {
        text.push_str(&format!("{separator}and {} more", items.len() - SHOWN_MAX));
    }
    text
}

/// Bytes as an operator reads them: `63.2 MB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A duration as an operator reads it: `14 min`.
fn duration(secs: u64) -> String {
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests;
