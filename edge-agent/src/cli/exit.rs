//! The exit codes of the command line.

use edge_hub::tasks::{self, TaskFailure};

use crate::control::client::CallError;

/// Why the process ends with another code than 0.
pub(crate) struct Exit(pub(super) u8, pub(super) anyhow::Error);

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        if error.is::<TaskFailure>() {
            return Self(tasks::EXIT_CODE, error);
        }
        let refused = error
            .downcast_ref::<CallError>()
            .is_some_and(|e| matches!(e, CallError::Refused { status: 422, .. }));
        Self(if refused { 2 } else { 1 }, error)
    }
}
