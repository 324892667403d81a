//! The gateway's report to central: the reported sections of `$edgeAgent` and `$edgeHub`.

use std::sync::Arc;

use edge_core::deploy::desired::Desired;
use edge_core::deploy::report;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::status::HealthReport;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::deployment::deployments::Acceptance;
use crate::deployment::history::History;
use crate::deployment::status::{Deployment, ReconcilerStatus};
use crate::messages::twins::Twins;

/// Keeps the reported sections of `$edgeAgent` and `$edgeHub` true.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) gateway: DeviceId,
    pub(super) host: report::Host,
    pub(super) twins: Twins,
    pub(super) deployment: watch::Receiver<Option<Arc<Deployment>>>,
    pub(super) reconciler: watch::Receiver<ReconcilerStatus>,
    pub(super) acceptance: watch::Receiver<Acceptance>,
    pub(super) health: watch::Receiver<Option<HealthReport>>,
    pub(super) history: History,
}

impl Reporter {
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut history = self.history.watch();
        loop {
            self.report();
            let changed = tokio::select! {
                changed = self.reconciler.changed() => changed,
                changed = self.acceptance.changed() => changed,
                changed = self.health.changed() => changed,
                changed = history.changed() => changed,
                () = stop.cancelled() => return,
            };
            if changed.is_err() {
                // The senders live until the daemon stops.
                return stop.cancelled().await;
            }
        }
    }

    fn report(&mut self) {
        let status = self.reconciler.borrow_and_update().clone();
        let acceptance = self.acceptance.borrow_and_update().clone();
        let health = self.health.borrow_and_update().clone();
        let with_health = |mut section: Map<String, Value>| {
            if let Some(health) = &health {
                let health = serde_json::to_value(health).expect("a report has a JSON form");
                section.insert("health".to_owned(), health);
            }
            if let Some(rollout) = self.history.report() {
                let rollout = serde_json::to_value(rollout).expect("a report has a JSON form");
                section.insert("rollout".to_owned(), rollout);
            }
            report::bounded(section)
        };
        let Some(versions) = acceptance.versions else {
            // What is wrong with a gateway is reported before it has a manifest, too.
            if health.is_some() {
                let agent = Identity::module(self.gateway.clone(), ModuleId::edge_agent());
                self.twins.replace_reported(&agent, with_health(Map::new()));
            }
            return;
        };
        let outcome = |desired_version| match &acceptance.problem {
            Some(problem) => {
                use schemas::status::code;
                let code = if acceptance.is_rolled_back { code::FAILED } else { code::REFUSED };
                report::Outcome { desired_version, code, description: problem.clone() }
            }
            None => report::Outcome {
                desired_version,
                code: status.outcome.code,
                description: status.outcome.description.clone(),
            },
        };
        let identity = |module| Identity::module(self.gateway.clone(), module);
        let in_force = self.deployment.borrow().clone();
        let none = Desired::default();
        let desired = in_force.as_ref().map_or(&none, |deployment| &deployment.desired);
        let agent = outcome(versions.edge_agent);
        let progress = status.progress(desired, now_ms());
        let agent = report::edge_agent(&self.host, &progress, &agent, &acceptance.warnings);
        self.twins.replace_reported(&identity(ModuleId::edge_agent()), with_health(agent));
        let mut hub = outcome(versions.edge_hub);
        if acceptance.problem.is_none() {
            // What Docker does is no fault of the routes.
            (hub.code, hub.description) = if acceptance.routes_refused.is_empty() {
                (schemas::status::code::SUCCESS, String::new())
            } else {
                (schemas::status::code::REFUSED, acceptance.routes_refused.join("\n"))
            };
        }
        self.twins.replace_reported(&identity(ModuleId::edge_hub()), report::edge_hub(&hub));
    }
}

pub(super) fn host() -> report::Host {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let version = release.lines().find_map(|line| line.strip_prefix("VERSION_ID=")).unwrap_or_default();
    report::Host {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: schemas::status::Platform {
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            version: version.trim_matches('"').to_owned(),
        },
    }
}
