//! What became of uploads, by their correlation ids. Source: IoT Edge, whose states these are; it forgets them at a restart too.
//!
//! ```text
//! NotStarted ── its turn ──► Running ──► Completed
//!                               └──────► Failed
//! ```

use std::collections::VecDeque;

use serde::Serialize;

/// Uploads that have not ended.
pub const OPEN_MAX: usize = 16;
/// Uploads whose state is kept.
pub const KEPT_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum TaskState {
    NotStarted,
    Running,
    Completed,
    Failed,
    /// No upload has this correlation id: it was forgotten, or there was none.
    Unknown,
}

/// The payload with which uploads and `GetTaskStatus` are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    pub status: TaskState,
    /// What was uploaded, or why it was not; empty before the end.
    pub message: String,
    pub correlation_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{OPEN_MAX} uploads wait or run; request it again when one of them has ended")]
pub struct TooManyUploads;

/// The last uploads, oldest first.
#[derive(Debug, Default)]
pub struct UploadTasks(VecDeque<TaskStatus>);

impl TaskStatus {
    fn has_ended(&self) -> bool {
        matches!(self.status, TaskState::Completed | TaskState::Failed)
    }
}

impl UploadTasks {
    /// Adds one that has not started.
    ///
    /// # Errors
    /// [`TooManyUploads`].
    pub fn add(&mut self, correlation_id: String) -> Result<TaskStatus, TooManyUploads> {
        if self.0.iter().filter(|task| !task.has_ended()).count() >= OPEN_MAX {
            return Err(TooManyUploads);
        }
        if self.0.len() >= KEPT_MAX
            && let Some(oldest) = self.0.iter().position(TaskStatus::has_ended)
        {
            self.0.remove(oldest);
        }
        let task = TaskStatus { status: TaskState::NotStarted, message: String::new(), correlation_id };
        self.0.push_back(task.clone());
        Ok(task)
    }

    /// Changes the state of one; nothing happens when it has ended.
    pub fn set(&mut self, correlation_id: &str, status: TaskState, message: String) {
        let task = self.0.iter_mut().find(|task| task.correlation_id == correlation_id && !task.has_ended());
        if let Some(task) = task {
            (task.status, task.message) = (status, message);
        }
    }

    pub fn get(&self, correlation_id: &str) -> TaskStatus {
        let found = self.0.iter().find(|task| task.correlation_id == correlation_id);
        found.cloned().unwrap_or_else(|| TaskStatus {
            status: TaskState::Unknown,
            message: String::new(),
            correlation_id: correlation_id.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_has_iot_edges_states_and_keeps_its_end() {
        let mut tasks = UploadTasks::default();
        let shown = |task: TaskStatus| serde_json::to_value(task).unwrap();
        let added = shown(tasks.add("1".into()).unwrap());
        assert_eq!(added, json!({"status": "NotStarted", "message": "", "correlationId": "1"}));
        tasks.set("1", TaskState::Running, String::new());
        assert_eq!(tasks.get("1").status, TaskState::Running);
        tasks.set("1", TaskState::Failed, "403".into());
        tasks.set("1", TaskState::Completed, String::new());
        assert_eq!(
            shown(tasks.get("1")),
            json!({"status": "Failed", "message": "403", "correlationId": "1"})
        );
        assert_eq!(shown(tasks.get("2")), json!({"status": "Unknown", "message": "", "correlationId": "2"}));
    }

    #[test]
    fn open_tasks_are_limited_and_the_oldest_that_ended_is_forgotten() {
        let mut tasks = UploadTasks::default();
        for number in 0..OPEN_MAX {
            tasks.add(number.to_string()).unwrap();
        }
        assert_eq!(tasks.add("more".into()), Err(TooManyUploads));
        assert_eq!(tasks.get("more").status, TaskState::Unknown);
        for number in 1..10 * KEPT_MAX {
            tasks.set(&number.to_string(), TaskState::Completed, String::new());
            let _ = tasks.add((OPEN_MAX + number).to_string());
            assert!(tasks.0.len() <= KEPT_MAX);
        }
        assert_eq!(tasks.get("0").status, TaskState::NotStarted, "what runs is never forgotten");
        assert_eq!(tasks.get("1").status, TaskState::Unknown);
    }
}
