//! A gateway's report as central reads it: what [`crate::status::EdgeAgentReport`] writes, by a gateway of any version.
//!
//! A gateway may be older, newer, broken or hostile. So unknown members are left out, and what is missing or of another type counts as
//! not reported; a wrong member never hides the others.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::status::HealthReport;

/// The reported section of `$edgeAgent`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivedReport {
    /// The `$version` of the desired section that the gateway looked at last.
    #[serde(deserialize_with = "lenient")]
    pub last_desired_version: Option<u64>,
    /// How that went.
    #[serde(deserialize_with = "lenient")]
    pub last_desired_status: ReceivedStatus,
    /// By name.
    #[serde(deserialize_with = "entries")]
    pub modules: Option<BTreeMap<String, ReceivedModule>>,
    /// What the gateway finds wrong with itself, and whom it refused.
    #[serde(deserialize_with = "lenient")]
    pub health: Option<HealthReport>,
    /// How the last deployment ended, or how far it is.
    #[serde(deserialize_with = "lenient")]
    pub rollout: ReceivedRollout,
    /// Parts of the manifest in force that have no effect, or another one than its author may think.
    #[serde(deserialize_with = "texts")]
    pub manifest_warnings: Vec<String>,
}

/// How the last deployment went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReceivedStatus {
    /// One of [`crate::status::code`].
    #[serde(deserialize_with = "lenient")]
    pub code: Option<u64>,
    /// For the operator.
    #[serde(deserialize_with = "lenient")]
    pub description: Option<String>,
}

/// The last deployment: [`crate::status::RolloutReport`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivedRollout {
    /// `applying`, `probation`, `verified`, `rolledBack`, `held` or `superseded`.
    #[serde(deserialize_with = "lenient")]
    pub state: Option<String>,
    /// The `$version` of the desired section whose modules run.
    #[serde(deserialize_with = "lenient")]
    pub version_in_force: Option<u64>,
}

/// A module, in the desired section or in the reported one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceivedModule {
    /// Whether it shall run: `running` or `stopped`.
    #[serde(deserialize_with = "lenient")]
    pub status: Option<String>,
    /// How it is, as [`crate::status::RuntimeStatus`]. Reported only.
    #[serde(deserialize_with = "lenient")]
    pub runtime_status: Option<String>,
    /// Why it is so. Reported only.
    #[serde(deserialize_with = "lenient")]
    pub status_description: Option<String>,
    /// When its next step is tried. Reported only.
    #[serde(deserialize_with = "lenient")]
    pub next_try_utc: Option<String>,
    /// How often it was started again. Reported only.
    #[serde(deserialize_with = "lenient")]
    pub restart_count: Option<u64>,
    /// What it is made of.
    #[serde(deserialize_with = "lenient")]
    pub settings: ReceivedSettings,
}

impl ReceivedModule {
    /// Whether a desired module shall run.
    pub fn shall_run(&self) -> bool {
        self.status.as_deref() != Some("stopped")
    }

    /// Whether a reported module runs.
    pub fn is_running(&self) -> bool {
        self.runtime_status.as_deref() == Some("running")
    }
}

/// What a module is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReceivedSettings {
    /// As the manifest names it.
    #[serde(deserialize_with = "lenient")]
    pub image: Option<String>,
}

impl ReceivedReport {
    /// Of a section of `$edgeAgent`: the reported one, or the desired one for its modules.
    pub fn of(section: &Map<String, Value>) -> Self {
        // Reading an object cannot fail, since none of its members can.
        Self::deserialize(section).unwrap_or_default()
    }

    /// A module, as far as it is in the section.
    pub fn module(&self, name: &str) -> Option<&ReceivedModule> {
        self.modules.as_ref()?.get(name)
    }
}

/// A value of another type is like none.
fn read<T: DeserializeOwned + Default>(value: Value) -> T {
    match value {
        // serde takes a list for the members of a struct in their order, and no such list is a report.
        Value::Array(_) => T::default(),
        value => T::deserialize(value).unwrap_or_default(),
    }
}

fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(read(Value::deserialize(deserializer)?))
}

fn entries<'de, D, T>(deserializer: D) -> Result<Option<BTreeMap<String, T>>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let Value::Object(members) = Value::deserialize(deserializer)? else { return Ok(None) };
    Ok(Some(members.into_iter().map(|(name, value)| (name, read(value))).collect()))
}

/// What is no text in a list of texts is left out.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let Value::Array(items) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    let text = |item| match item {
        Value::String(text) => Some(text),
        _ => None,
    };
    Ok(items.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(section: Value) -> ReceivedReport {
        ReceivedReport::of(section.as_object().unwrap())
    }

    fn whole() -> Value {
        json!({
            "lastDesiredVersion": 7,
            "lastDesiredStatus": {"code": 500, "description": "image missing"},
            "modules": {"filter": {
                "status": "running", "runtimeStatus": "backoff", "statusDescription": "ended with code 3",
                "nextTryUtc": "2026-11-29T10:00:00Z", "restartCount": 2, "settings": {"image": "acme/filter:1"}
            }},
            "health": {"updated": "2026-11-29T10:00:00Z", "findings": [], "refusals": []},
            "manifestWarnings": ["routes.a: has no effect"],
        })
    }

    #[test]
    fn a_wrong_member_counts_as_not_reported_and_hides_no_other() {
        let is = report(whole());
        assert_eq!(is.module("filter").unwrap().runtime_status.as_deref(), Some("backoff"));
        let paths = [
            "/lastDesiredVersion",
            "/lastDesiredStatus",
            "/lastDesiredStatus/code",
            "/lastDesiredStatus/description",
            "/modules",
            "/modules/filter",
            "/modules/filter/status",
            "/modules/filter/runtimeStatus",
            "/modules/filter/statusDescription",
            "/modules/filter/nextTryUtc",
            "/modules/filter/restartCount",
            "/modules/filter/settings",
            "/modules/filter/settings/image",
            "/health",
            "/health/findings",
            "/manifestWarnings",
        ];
        // What each of the members shows, as text.
        let shown = |report: &ReceivedReport| {
            let module = report.module("filter").cloned().unwrap_or_default();
            [
                format!("{:?}", report.last_desired_version),
                format!("{:?}", report.last_desired_status.code),
                format!("{:?}", report.last_desired_status.description),
                format!("{:?}", module.status),
                format!("{:?}", module.runtime_status),
                format!("{:?}", module.status_description),
                format!("{:?}", module.next_try_utc),
                format!("{:?}", module.restart_count),
                format!("{:?}", module.settings),
                format!("{:?}", report.health),
                format!("{:?}", report.manifest_warnings),
            ]
        };
        let (good, none) = (shown(&is), shown(&ReceivedReport::default()));
        for path in paths {
            for wrong in [json!(null), json!(-1.5), json!("x"), json!([1]), json!({"x": 1}), json!(true)] {
                let mut section = whole();
                *section.pointer_mut(path).unwrap() = wrong.clone();
                let seen = shown(&report(section));
                let own = path.trim_start_matches('/').split('/').next().unwrap();
                for ((seen, good), none) in seen.iter().zip(&good).zip(&none) {
                    // A text in place of another one is read as it is.
                    assert!(seen == good || seen == none || seen.contains("\"x\""), "{path} {wrong}: {seen}");
                }
                let kept = seen.iter().zip(&good).filter(|(seen, good)| seen == good).count();
                let members = match own {
                    "lastDesiredStatus" => 2,
                    "modules" => 6,
                    _ => 1,
                };
                assert!(kept >= good.len() - members, "{path} {wrong}: {seen:?}");
            }
        }
        assert_eq!(report(json!({"modules": 5, "health": 7})), ReceivedReport::default());
    }

    #[test]
    fn what_a_gateway_of_another_version_adds_is_left_out() {
        let mut section = whole();
        section["new"] = json!({"a": 1});
        section["modules"]["filter"]["new"] = json!([1]);
        section["manifestWarnings"] = json!(["routes.a: has no effect", 5]);
        assert_eq!(report(section), report(whole()));
    }
}
