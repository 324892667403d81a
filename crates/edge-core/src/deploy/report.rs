//! What the gateway tells upstream of its deployment, with the names of IoT Edge's reported properties.
//!
//! Environment values, create options and registry logins are left out on purpose, though IoT Edge reports them: the
//! manifest may hold secrets, and a report has more readers than a manifest.

use std::collections::{BTreeMap, BTreeSet};

use schemas::manifest::DesiredStatus;
use schemas::names::ModuleId;
use schemas::status::{
    AgentVersion, DeploymentStatus, EdgeAgentReport, EdgeHubReport, ModuleReport, ModuleSettingsReport,
    NEVER, Platform, RuntimeReport, RuntimeStatus, SystemModuleReport,
};
use schemas::timestamp::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value};

use super::desired::{Desired, DesiredModule};
use super::observed::{ContainerState, Observed, ObservedModule};
use super::restart::{RESTARTS_MAX, RestartStep, Restarts};

/// How a desired section fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its `$version`.
    pub desired_version: u64,
    /// One of [`schemas::status::code`].
    pub code: u16,
    /// For the operator; empty on success.
    pub description: String,
}

/// What the daemon knows of itself and its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub agent_version: String,
    /// What it runs on.
    pub platform: Platform,
}

/// What was seen of the modules, and what was tried.
#[derive(Debug, Clone, Copy)]
pub struct DeploymentProgress<'a> {
    /// The manifest in force.
    pub desired: &'a Desired,
    /// The containers, when they were looked at last.
    pub observed: &'a Observed,
    /// Restarts, and waits after failures.
    pub restarts: &'a Restarts,
    /// The last failure of each module whose steps are tried again.
    pub problems: &'a BTreeMap<ModuleId, String>,
    /// Images that are being pulled.
    pub pulling: &'a BTreeSet<String>,
    /// Why the containers cannot be looked at now.
    pub unseen: Option<&'a str>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// How a module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleState {
    /// In IoT Edge's word.
    pub status: RuntimeStatus,
    /// Why it is so.
    pub reason: String,
    /// When the next step is due, in milliseconds since the Unix epoch; `None` when no time alone leads to one.
    pub next_try_ms: Option<u64>,
    /// Whether its last steps failed: what runs, if anything, is not what the manifest wants.
    pub has_failed: bool,
}

impl DeploymentProgress<'_> {
    /// Every module of the manifest, present or not, and every container that is in none any more.
    pub fn modules(&self) -> BTreeMap<&ModuleId, ModuleState> {
        let desired = self.desired.modules.keys().chain(self.observed.modules.keys());
        desired.map(|id| (id, self.module(id))).collect()
    }

    fn module(&self, id: &ModuleId) -> ModuleState {
        let state =
            |status, reason: String| ModuleState { status, reason, next_try_ms: None, has_failed: false };
        if let Some(why) = self.unseen {
            return state(RuntimeStatus::Unknown, why.to_owned());
        }
        if let Some(unreadable) = self.observed.unreadable.get(id) {
            return state(RuntimeStatus::Unknown, super::plan_texts::unreadable(&unreadable.why));
        }
        let (target, seen) = (self.desired.modules.get(id), self.observed.modules.get(id));
        let held = self.restarts.held(id, self.desired, self.observed, self.now_ms);
        let mut state = match (target, seen) {
            (Some(target), Some(seen)) => how(id, target, seen, self.restarts, self.now_ms),
            (None, _) => state(RuntimeStatus::Unknown, "not in the manifest; it will be removed".to_owned()),
            (Some(target), None) if self.pulling.contains(&target.spec.image) => {
                state(RuntimeStatus::Unknown, format!("image {} is being pulled", target.spec.image))
            }
            (Some(target), None) if target.spec.status == DesiredStatus::Stopped => {
                state(RuntimeStatus::Stopped, "shall not run; no container yet".to_owned())
            }
            (Some(_), None) => state(RuntimeStatus::Unknown, "no container yet".to_owned()),
        };
        if let Some(held) = held {
            let now =
                if state.status == RuntimeStatus::Running { "runs as it was before" } else { &state.reason };
            state.reason = format!("{now}; {held}");
        }
        if let Some(edit) = seen.and_then(|seen| seen.edit.as_ref()) {
            state.reason = format!("{}; {}", state.reason, edit.describe());
        }
        // A step that failed says more than the state that it left.
        let failed = self.restarts.failed(id, self.now_ms);
        let problem = self.problems.get(id).map(String::as_str);
        if failed.is_none() && problem.is_none() {
            return state;
        }
        let problem = problem.unwrap_or("its last step failed");
        state.has_failed = true;
        state.next_try_ms = failed.map(|(_, at_ms)| at_ms).or(state.next_try_ms);
        let tries = failed.map(|(failures, _)| failures).filter(|failures| *failures > 1);
        let tries = tries.map(|failures| format!(" ({failures} tries failed)")).unwrap_or_default();
        if state.status == RuntimeStatus::Running {
            state.reason = format!("runs as it was before: {problem}{tries}");
        } else {
            state.reason = format!("{problem}{tries}");
            if target.is_some_and(|target| target.spec.status == DesiredStatus::Running) {
                state.status = RuntimeStatus::Backoff;
            }
        }
        state
    }
}

/// The reported section of `$edgeAgent`: every module of the manifest in force. To be cut by [`bounded`] with whatever is added.
pub fn edge_agent(
    host: &Host,
    progress: &DeploymentProgress<'_>,
    outcome: &Outcome,
    warnings: &[String],
) -> Map<String, Value> {
    let this_daemon =
        || SystemModuleReport { r#type: "docker".into(), runtime_status: RuntimeStatus::Running };
    let modules =
        progress.desired.modules.iter().map(|(id, target)| (id.clone(), module(id, target, progress)));
    object(&EdgeAgentReport {
        schema_version: "1.0".into(),
        version: AgentVersion { version: host.agent_version.clone() },
        last_desired_version: outcome.desired_version,
        last_desired_status: status(outcome),
        runtime: RuntimeReport { r#type: "docker".into(), platform: host.platform.clone() },
        // IoT Edge reports two system modules; here one program is both.
        system_modules: [("edgeAgent".into(), this_daemon()), ("edgeHub".into(), this_daemon())].into(),
        modules: modules.collect(),
        health: None,
        rollout: None,
        manifest_warnings: warnings.to_vec(),
    })
}

/// The reported section of `$edgeHub`: whether the routes are in force.
pub fn edge_hub(outcome: &Outcome) -> Map<String, Value> {
    bounded(object(&EdgeHubReport {
        schema_version: "1.0".into(),
        last_desired_version: outcome.desired_version,
        last_desired_status: status(outcome),
    }))
}

/// The largest report: central takes 256 KiB of a gateway's own reported section.
pub const REPORT_BYTES_MAX: usize = 240 * 1024;
/// Says in a report what was shortened. Lineside's own; IoT Edge's reports have no bound but the twin's.
const SHORTENED: &str = "reportShortened";
/// What is left of a module when texts alone are not enough.
const BRIEF: [&str; 4] = ["status", "runtimeStatus", "exitCode", "restartCount"];

/// Cuts a report to what central takes, the least needed first, and says so in it: texts, then all but the state of each
/// module, then modules from the end of the list. One that is refused would leave central with the report before it.
pub fn bounded(mut report: Map<String, Value>) -> Map<String, Value> {
    let is_small = |report: &Map<String, Value>| {
        serde_json::to_vec(report).map_or(usize::MAX, |text| text.len()) <= REPORT_BYTES_MAX
    };
    if is_small(&report) {
        return report;
    }
    for chars_max in [4096, 512, 128] {
        report.insert(SHORTENED.into(), format!("texts beyond {chars_max} characters are cut").into());
        report.values_mut().for_each(|value| cut_texts(value, chars_max));
        if is_small(&report) {
            return report;
        }
    }
    let modules = |report: &mut Map<String, Value>, keep: &mut dyn FnMut(&mut Map<String, Value>)| {
        if let Some(Value::Object(modules)) = report.get_mut("modules") {
            keep(modules);
        }
    };
    report.insert(SHORTENED.into(), "only the states of modules are reported".into());
    modules(&mut report, &mut |modules| {
        for module in modules.values_mut().filter_map(Value::as_object_mut) {
            module.retain(|key, _| BRIEF.contains(&key.as_str()));
        }
    });
    let mut left_out = 0;
    while !is_small(&report) {
        let mut is_empty = true;
        modules(&mut report, &mut |modules| {
            // An eighth at a time: the report is written out once for each attempt, not once for each module.
            let keep = modules.len() - modules.len().div_ceil(8);
            let names: Vec<String> = modules.keys().skip(keep).cloned().collect();
            (is_empty, left_out) = (names.is_empty(), left_out + names.len());
            names.iter().for_each(|name| drop(modules.remove(name)));
        });
        let text = format!("only the states of modules are reported, and {left_out} modules are left out");
        report.insert(SHORTENED.into(), text.into());
        // The rest of the report may be too large by itself.
        if is_empty {
            break;
        }
    }
    report
}

fn cut_texts(value: &mut Value, chars_max: usize) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(chars_max) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cut_texts(item, chars_max)),
        Value::Object(members) => members.values_mut().for_each(|value| cut_texts(value, chars_max)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn object(report: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(report) {
        Ok(Value::Object(section)) => section,
        other => unreachable!("a report is an object with text keys, found {other:?}"),
    }
}

fn status(outcome: &Outcome) -> DeploymentStatus {
    DeploymentStatus { code: outcome.code, description: outcome.description.clone() }
}

fn module(id: &ModuleId, target: &DesiredModule, progress: &DeploymentProgress<'_>) -> ModuleReport {
    let time = |at_ms: Option<u64>| at_ms.map_or_else(|| NEVER.to_owned(), rfc3339);
    let (seen, restarts) = (progress.observed.modules.get(id), progress.restarts);
    let state = progress.module(id);
    let exit_code = match seen.map(|seen| seen.state) {
        Some(ContainerState::Exited { code }) => code,
        _ => 0,
    };
    ModuleReport {
        r#type: "docker".into(),
        version: target.spec.version.clone(),
        status: target.spec.status,
        restart_policy: target.spec.restart_policy,
        image_pull_policy: target.spec.image_pull_policy,
        startup_order: target.spec.startup_order,
        settings: ModuleSettingsReport { image: target.spec.image.clone() },
        runtime_status: state.status,
        status_description: state.reason,
        next_try_utc: state.next_try_ms.map(rfc3339),
        exit_code,
        last_start_time_utc: time(seen.and_then(|seen| seen.started_at_ms)),
        last_exit_time_utc: time(seen.and_then(|seen| seen.finished_at_ms)),
        restart_count: restarts.count(id),
        last_restart_time_utc: time(restarts.restarted_at_ms(id)),
    }
}

/// How a module with a container is.
fn how(
    id: &ModuleId,
    target: &DesiredModule,
    seen: &ObservedModule,
    restarts: &Restarts,
    now_ms: u64,
) -> ModuleState {
    let shall_run = target.spec.status == DesiredStatus::Running;
    let next = restarts.next(id, target.spec.restart_policy, seen, now_ms);
    let mut next_try_ms = None;
    let cause = if seen.is_out_of_memory { ", because memory ran out" } else { "" };
    let ended = |code| format!("ended with code {code}{cause}");
    let (status, reason) = match (seen.state, next) {
        (ContainerState::Running, RestartStep::WaitUntil { at_ms, attempt }) if seen.is_unhealthy => {
            next_try_ms = Some(at_ms);
            (RuntimeStatus::Unhealthy, format!("its health check fails; {attempt}"))
        }
        (ContainerState::Running, _) if seen.is_unhealthy => {
            (RuntimeStatus::Unhealthy, "its health check fails".into())
        }
        (ContainerState::Running, _) => (RuntimeStatus::Running, "running".into()),
        (ContainerState::Exited { code }, RestartStep::WaitUntil { at_ms, attempt }) if shall_run => {
            next_try_ms = Some(at_ms);
            (RuntimeStatus::Backoff, format!("{}; {attempt}", ended(code)))
        }
        (ContainerState::Exited { code }, RestartStep::GivenUp) if shall_run => {
            (RuntimeStatus::Failed, format!("{} after {RESTARTS_MAX} restarts", ended(code)))
        }
        (ContainerState::Exited { code: 0 }, _) => (RuntimeStatus::Stopped, "ended with code 0".into()),
        // A module that was stopped on purpose often ends with the code of the signal: that is no failure.
        (ContainerState::Exited { code }, _) if !shall_run => {
            (RuntimeStatus::Stopped, format!("stopped, ended with code {code}"))
        }
        (ContainerState::Exited { code }, _) => (RuntimeStatus::Failed, ended(code)),
        (ContainerState::Created, _) => (RuntimeStatus::Stopped, "never started".into()),
        (ContainerState::Paused, _) => (RuntimeStatus::Stopped, "paused".into()),
        (ContainerState::Restarting, _) => {
            (RuntimeStatus::Stopped, "Docker's own restart policy is at work".into())
        }
        (ContainerState::Dead, _) => (RuntimeStatus::Dead, "dead; it will be created anew".into()),
    };
    ModuleState { status, reason, next_try_ms, has_failed: false }
}

#[cfg(test)]
mod tests;
