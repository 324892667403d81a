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
mod verdict;

use self::facts::Facts;
use self::finding::{CheckId, Finding};
use self::verdict::Verdict;

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

#[cfg(test)]
mod tests;
