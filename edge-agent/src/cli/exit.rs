//! The exit codes of the command line.

use std::io::ErrorKind;
use std::process::ExitCode;

use edge_hub::logging;
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

/// Prints what clap has to say instead of running a command: help, the version, or what is wrong with the arguments.
pub(super) fn of_arguments(outcome: &clap::Error) -> ExitCode {
    let code = ExitCode::from(u8::try_from(outcome.exit_code()).unwrap_or(1));
    match outcome.print() {
        Err(error) if !outcome.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            logging::print_error(&format!("edge-agent: writing to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => code,
    }
}
