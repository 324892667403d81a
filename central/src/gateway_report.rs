//! What the list of devices needs of the gateways' reports, read again only when a report or a manifest changes.

use std::collections::HashMap;
use std::sync::Mutex;

use rusqlite::Connection;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::status::HealthReport;
use serde_json::{Map, Value};

use crate::device_state::ModuleCounts;
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
}

impl GatewayReport {
    /// Of both sections of `$edgeAgent`.
    pub fn of(desired: &Map<String, Value>, reported: &Map<String, Value>) -> Self {
        let modules =
            |section: &Map<String, Value>| section.get("modules").and_then(Value::as_object).cloned();
        let wanted = modules(desired);
        let told = modules(reported).unwrap_or_default();
        let counts = wanted.map(|wanted| {
            let wanted = wanted.iter().filter(|(_, module)| module["status"] != "stopped");
            let mut counts = ModuleCounts::default();
            for (name, _) in wanted {
                counts.wanted += 1;
                let is_running = told.get(name).is_some_and(|module| module["runtimeStatus"] == "running");
                counts.running += u32::from(is_running);
            }
            counts
        });
        Self { modules: counts, error_finding: error_finding(reported) }
    }

    fn read(c: &Connection, gateway: &DeviceId) -> rusqlite::Result<Self> {
        let agent = Identity::module(gateway.clone(), ModuleId::edge_agent());
        let desired = twins::section(c, &agent, Half::Desired)?.section.properties;
        let reported = twins::section(c, &agent, Half::Reported)?.section.properties;
        Ok(Self::of(&desired, &reported))
    }
}

fn error_finding(reported: &Map<String, Value>) -> Option<String> {
    let report: HealthReport = serde_json::from_value(reported.get("health")?.clone()).ok()?;
    report.findings.into_iter().find(|finding| finding.level == "error").map(|finding| finding.evidence)
}

/// The versions of both sections of a gateway's `$edgeAgent`; `None` for one that was never written.
pub type ReportVersions = (Option<i64>, Option<i64>);

/// The reports of gateways, by the versions that they were read at.
#[derive(Debug, Default)]
pub struct GatewayReports(Mutex<HashMap<DeviceId, (u64, ReportVersions, GatewayReport)>>);

impl GatewayReports {
    /// The report of a gateway's generation at `versions`, which are those of `c`'s moment.
    ///
    /// # Errors
    /// SQLite's.
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
        let report = GatewayReport::read(c, gateway)?;
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
    use serde_json::json;

    #[test]
    fn a_module_counts_when_it_is_wanted_and_runs_when_its_gateway_says_so() {
        let of = |desired: Value, reported: Value| {
            GatewayReport::of(desired.as_object().unwrap(), reported.as_object().unwrap())
        };
        let wanted = json!({"modules": {"a": {"status": "running"}, "b": {}, "c": {"status": "stopped"}}});
        let told = json!({"modules": {"a": {"runtimeStatus": "running"}, "b": {"runtimeStatus": "backoff"},
            "c": {"runtimeStatus": "running"}, "d": {"runtimeStatus": "running"}}});
        assert_eq!(of(wanted.clone(), told).modules, Some(ModuleCounts { wanted: 2, running: 1 }));
        assert_eq!(of(wanted, json!({})).modules, Some(ModuleCounts { wanted: 2, running: 0 }));
        assert_eq!(of(json!({}), json!({"modules": {"a": {}}})), GatewayReport::default());
        assert_eq!(of(json!({"modules": 5}), json!({"modules": [], "health": 7})), GatewayReport::default());
    }
}
