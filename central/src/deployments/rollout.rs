//! How far a gateway is with the manifest that it was given: one function from both sections of `$edgeAgent` to a state.

use schemas::received_report::{ReceivedModule, ReceivedReport};
use schemas::status::code;
use serde::Serialize;
use utoipa::ToSchema;

/// How far a gateway is. Ordered by how much it needs a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RolloutState {
    /// It refused the manifest, or not all modules run and it says why.
    Failed,
    /// The stored manifest was changed since the gateway was given it.
    OutOfDate,
    /// The gateway has not looked at it yet.
    #[default]
    NotDelivered,
    /// It is being carried out.
    Applying,
    /// All modules are as the manifest wants them.
    Running,
}

impl RolloutState {
    /// All of them, in their order.
    pub const ALL: [Self; 5] =
        [Self::Failed, Self::OutOfDate, Self::NotDelivered, Self::Applying, Self::Running];

    /// As written in JSON and in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::OutOfDate => "outOfDate",
            Self::NotDelivered => "notDelivered",
            Self::Applying => "applying",
            Self::Running => "running",
        }
    }
}

/// How far a gateway is with the manifest that it was given last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolloutProgress {
    /// Never [`RolloutState::OutOfDate`]: that is of the stored manifest.
    pub state: RolloutState,
    /// Why it is so, as the gateway reports it.
    pub reason: Option<String>,
    /// `$version` of the desired section that the gateway looked at last; 0 for none.
    pub taken_version: u64,
}

impl RolloutProgress {
    /// Of a gateway whose desired section of `$edgeAgent` has a version.
    pub fn of(desired_version: u64, desired: &ReceivedReport, reported: &ReceivedReport) -> Self {
        let taken_version = reported.last_desired_version.unwrap_or(0);
        let progress = |state, reason| Self { state, reason, taken_version };
        if taken_version < desired_version {
            return progress(RolloutState::NotDelivered, None);
        }
        let status = &reported.last_desired_status;
        let description = status.description.clone().filter(|text| !text.is_empty());
        if reported.rollout.state.as_deref() == Some("probation") {
            return progress(RolloutState::Applying, Some("its modules are on probation".to_owned()));
        }
        let stopped = stopped_module(desired, reported);
        match (status.code.and_then(|code| u16::try_from(code).ok()), stopped) {
            (Some(code::SUCCESS), None) => progress(RolloutState::Running, None),
            (Some(code::SUCCESS), Some(why)) => progress(RolloutState::Failed, Some(why)),
            (Some(code::UNKNOWN) | None, _) => progress(RolloutState::Applying, description),
            (Some(code), why) => {
                let reason =
                    description.or(why).unwrap_or_else(|| format!("the gateway answered with {code}"));
                progress(RolloutState::Failed, Some(reason))
            }
        }
    }
}

/// The first module that shall run and does not, with its reason.
fn stopped_module(desired: &ReceivedReport, reported: &ReceivedReport) -> Option<String> {
    let mut running_ones = desired.modules.iter().flatten().filter(|(_, module)| module.shall_run());
    let is_stopped = |name: &str| !reported.module(name).is_some_and(ReceivedModule::is_running);
    let (name, _) = running_ones.find(|(name, _)| is_stopped(name))?;
    let module = reported.module(name);
    let why = module.and_then(|module| module.status_description.clone()).filter(|why| !why.is_empty());
    Some(match (why, module.and_then(|module| module.runtime_status.clone())) {
        (Some(why), _) => format!("{name}: {why}"),
        (None, Some(status)) => format!("{name} is {status}"),
        (None, None) => format!("{name} is not reported"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_rollout_follows_from_both_sections_by_the_table() {
        use RolloutState::{Applying, Failed, NotDelivered, Running};
        let of = |version: Value, status: Value, a: Value| {
            let read = |section: Value| ReceivedReport::of(section.as_object().unwrap());
            let desired = read(json!({"modules": {"a": {"status": "running"}, "b": {"status": "stopped"}}}));
            let reported = read(
                json!({"lastDesiredVersion": version, "lastDesiredStatus": status, "modules": {"a": a}}),
            );
            let progress = RolloutProgress::of(4, &desired, &reported);
            (progress.state, progress.reason.unwrap_or_default())
        };
        let running = json!({"runtimeStatus": "running"});
        let crashed = json!({"runtimeStatus": "backoff", "statusDescription": "ended with code 3"});
        #[rustfmt::skip]
        let table = [
            (json!(null), json!(null), running.clone(), NotDelivered, ""),
            (json!(3), json!({"code": 200}), running.clone(), NotDelivered, ""),
            (json!(4), json!({"code": 200}), running.clone(), Running, ""),
            (json!(5), json!({"code": 200}), running.clone(), Running, ""),
            (json!(4), json!({"code": 406, "description": "images are being pulled"}), json!({}), Applying, "images are being pulled"),
            (json!(4), json!({}), json!({}), Applying, ""),
            (json!(4), json!({"code": 500, "description": "a: ended"}), crashed.clone(), Failed, "a: ended"),
            (json!(4), json!({"code": 500}), crashed.clone(), Failed, "a: ended with code 3"),
            (json!(4), json!({"code": 400, "description": "modules.a: no image"}), running.clone(), Failed, "modules.a: no image"),
            (json!(4), json!({"code": 412}), running, Failed, "the gateway answered with 412"),
            // It crashed after the gateway had told that all runs.
            (json!(4), json!({"code": 200}), crashed, Failed, "a: ended with code 3"),
            (json!(4), json!({"code": 200}), json!(null), Failed, "a is not reported"),
        ];
        for (version, status, a, state, reason) in table {
            let given = format!("{version} {status} {a}");
            assert_eq!(of(version, status, a), (state, reason.to_owned()), "{given}");
        }
    }

    #[test]
    fn modules_on_probation_do_not_count_as_running_yet_and_a_rollback_is_a_failure() {
        let of = |code: u64, state: &str| {
            let read = |section: Value| ReceivedReport::of(section.as_object().unwrap());
            let reported = json!({"lastDesiredVersion": 4, "rollout": {"state": state, "versionInForce": 3},
                "lastDesiredStatus": {"code": code, "description": "rolled back to version 3: a ended"}});
            RolloutProgress::of(4, &ReceivedReport::default(), &read(reported)).state
        };
        assert_eq!(of(200, "probation"), RolloutState::Applying);
        assert_eq!(of(200, "verified"), RolloutState::Running);
        assert_eq!(of(500, "rolledBack"), RolloutState::Failed);
    }

    #[test]
    fn a_state_has_one_name_in_queries_and_in_json_and_failures_come_first() {
        for state in RolloutState::ALL {
            assert_eq!(json!(state), state.as_str());
        }
        assert!(RolloutState::ALL.is_sorted());
    }
}
