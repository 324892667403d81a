//! What the list of devices needs of the gateways' reports, read again only when a report or a manifest changes.

use std::collections::HashMap;
use std::sync::Mutex;

use rusqlite::Connection;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::received_report::{ReceivedModule, ReceivedReport};

use crate::deployments::rollout::RolloutProgress;
use crate::diagnosis::device_state::ModuleCounts;
use crate::store::twins::{self, Half};

/// Reports that are kept; a site has fewer gateways. Beyond, all are read again.
const KEPT_MAX: usize = 20_000;

/// What a gateway reports, in short.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayReport {
    /// `None` before it was given a manifest.
    pub modules: Option<ModuleCounts>,
    /// What it found wrong with itself, the first error.
    pub error_finding: Option<String>,
    /// How far it is with its manifest.
    pub rollout: RolloutProgress,
}

impl GatewayReport {
    /// Of both sections of `$edgeAgent`, and the version of the desired one.
    pub fn of(desired_version: u64, desired: &ReceivedReport, reported: &ReceivedReport) -> Self {
        let modules = desired.modules.as_ref().map(|desired| {
            let mut counts = ModuleCounts::default();
            for (name, _) in desired.iter().filter(|(_, module)| module.shall_run()) {
                counts.desired += 1;
                counts.running += u32::from(reported.module(name).is_some_and(ReceivedModule::is_running));
            }
            counts
        });
        let findings = reported.health.iter().flat_map(|health| &health.findings);
        let error = findings.into_iter().find(|finding| finding.level == "error");
        Self {
            modules,
            error_finding: error.map(|finding| finding.evidence.clone()),
            rollout: RolloutProgress::of(desired_version, desired, reported),
        }
    }

    fn read(c: &Connection, gateway: &DeviceId, versions: ReportVersions) -> rusqlite::Result<Self> {
        let desired_version = versions.0.map_or(0, i64::cast_unsigned);
        let (desired, reported) = (section(c, gateway, Half::Desired)?, section(c, gateway, Half::Reported)?);
        Ok(Self::of(desired_version, &desired, &reported))
    }
}

/// A section of a gateway's `$edgeAgent`, as far as it can be read.
///
/// # Errors
/// Those of the store.
pub fn section(c: &Connection, gateway: &DeviceId, half: Half) -> rusqlite::Result<ReceivedReport> {
    let agent = Identity::module(gateway.clone(), ModuleId::edge_agent());
    Ok(ReceivedReport::of(&twins::section(c, &agent, half)?.section.properties))
}

/// The versions of both sections of a gateway's `$edgeAgent`; `None` for one that was never written.
pub type ReportVersions = (Option<i64>, Option<i64>);

/// The reports of gateways, by the versions that they were read at.
#[derive(Debug, Default)]
pub struct ReportCache(Mutex<HashMap<DeviceId, (u64, ReportVersions, GatewayReport)>>);

impl ReportCache {
    /// The report of a gateway's generation at `versions`, which are those of `c`'s moment.
    pub fn get(
        &self,
        c: &Connection,
        gateway: &DeviceId,
        generation: u64,
        versions: ReportVersions,
    ) -> rusqlite::Result<GatewayReport> {
        if versions == (None, None) {
            return Ok(GatewayReport::default());
        }
        let lock = || self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((of, at, report)) = lock().get(gateway)
            && (*of, *at) == (generation, versions)
        {
            return Ok(report.clone());
        }
        // Without the lock: reports of others do not wait for the store.
        let report = GatewayReport::read(c, gateway, versions)?;
        let mut reports = lock();
        if reports.len() >= KEPT_MAX {
            reports.clear();
        }
        reports.insert(gateway.clone(), (generation, versions, report.clone()));
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_module_counts_when_it_is_desired_and_runs_when_its_gateway_says_so() {
        let of = |desired: Value, reported: Value| {
            let read = |section: Value| ReceivedReport::of(section.as_object().unwrap());
            GatewayReport::of(0, &read(desired), &read(reported))
        };
        let desired = json!({"modules": {"a": {"status": "running"}, "b": {}, "c": {"status": "stopped"}}});
        let reported = json!({"modules": {"a": {"runtimeStatus": "running"}, "b": {"runtimeStatus": "backoff"},
            "c": {"runtimeStatus": "running"}, "d": {"runtimeStatus": "running"}}});
        assert_eq!(of(desired.clone(), reported).modules, Some(ModuleCounts { desired: 2, running: 1 }));
        assert_eq!(of(desired, json!({})).modules, Some(ModuleCounts { desired: 2, running: 0 }));
        assert_eq!(of(json!({}), json!({"modules": {"a": {}}})).modules, None);
        let unreadable = of(json!({"modules": 5}), json!({"modules": [], "health": 7}));
        assert_eq!((unreadable.modules, unreadable.error_finding), (None, None));
    }
}
