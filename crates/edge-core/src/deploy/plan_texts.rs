//! A plan as text: what `edge-agent plan` shows.

use std::fmt;

use schemas::timestamp::rfc3339;

use super::plan::{Action, Plan, Reason, Waiting};
use super::restart::RESTARTS_MAX;

/// One line for each action, then one for each thing that waits.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.actions.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        let modules = self.actions.iter().map(Action::module).chain(self.waiting.iter().map(|w| &w.module));
        let width = modules.map(|module| module.as_str().len()).max().unwrap_or(0);
        for action in &self.actions {
            let (verb, what) = action.texts();
            let line = format!("{verb:<7}  {:<width$}  {what}", action.module().as_str());
            writeln!(f, "{}", line.trim_end())?;
        }
        for Waiting { module, reason } in &self.waiting {
            writeln!(f, "{:<7}  {:<width$}  {reason}", "wait", module.as_str())?;
        }
        Ok(())
    }
}

impl Action {
    fn texts(&self) -> (&'static str, String) {
        let container = |id: &str| format!("container {}", id.get(..12).unwrap_or(id));
        match self {
            Self::Pull { image, .. } => ("pull", format!("image {image}")),
            Self::Create { image, .. } => ("create", format!("image {image}")),
            Self::Prepare { image, .. } => ("prepare", format!("image {image}")),
            Self::Start { container_id: None, .. } => ("start", String::new()),
            Self::Start { container_id: Some(id), .. } => ("start", container(id)),
            Self::Restart { container_id, attempt, .. } => {
                ("restart", format!("{}, {attempt}", container(container_id)))
            }
            Self::Replace { container_id, image, .. } => {
                ("replace", format!("{}, image {image}", container(container_id)))
            }
            Self::Rename { container_id, .. } => ("rename", container(container_id)),
            Self::Update { container_id, restored, .. } => {
                let keys: Vec<String> = restored.keys().map(|key| format!("HostConfig.{key}")).collect();
                ("update", format!("{}, {}", container(container_id), keys.join(", ")))
            }
            Self::Stop { container_id, .. } => ("stop", container(container_id)),
            Self::Remove { container_id, .. } => ("remove", container(container_id)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, what) = self.texts();
        write!(f, "{}", format!("{verb} {} {what}", self.module()).trim_end())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backoff { until_ms, attempt } => {
                write!(f, "until {}: {attempt}", rfc3339(*until_ms))
            }
            Self::Failed { until_ms, failures: 1 } => {
                write!(f, "until {}: the last try failed", rfc3339(*until_ms))
            }
            Self::Failed { until_ms, failures } => {
                write!(f, "until {}: the last {failures} tries failed", rfc3339(*until_ms))
            }
            Self::GivenUp => {
                write!(
                    f,
                    "restarted {RESTARTS_MAX} times; `edge-agent restart` starts it again, and so does another manifest"
                )
            }
            Self::Ended { code } => write!(f, "ended with code {code}; its restart policy leaves it so"),
            Self::Condition(held) => held.fmt(f),
            Self::Paused => f.write_str("its container is paused; unpause it"),
            Self::Restarting => f.write_str("Docker's own restart policy is at work"),
            Self::Unreadable { why } => write!(f, "{}", unreadable(why)),
        }
    }
}

/// What an operator can do about a container that the engine does not describe.
pub(super) fn unreadable(why: &str) -> String {
    format!(
        "the engine does not say how its container is: {why}; if it stays so, remove it with `docker rm -f`"
    )
}
