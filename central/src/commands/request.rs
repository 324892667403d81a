//! The request of a command, and the answers that central gives in place of its target.

use schemas::method::{MethodFailure, MethodRequest};

use crate::error::ServiceError;
use crate::store::commands::{Command, Outcome};

/// The largest request of a method (IoT Hub: 128 KB).
const PAYLOAD_BYTES_MAX: usize = 128 * 1024;

/// The end of a command whose target did not answer by the deadline.
pub(super) fn no_answer(command: &Command) -> Outcome {
    let target = command.target.to_string();
    let seconds = command.request.response_timeout_in_seconds + command.request.connect_timeout_in_seconds;
    Err(match command.gateway {
        // It has the command, perhaps, and says nothing: whether it called the target is not known here.
        Some(_) => MethodFailure::NotReported { target, seconds },
        None => MethodFailure::NoAnswer { target, seconds },
    })
}

/// Checks IoT Hub's limits of a direct method.
///
/// # Errors
/// [`ServiceError::Wrong`] with the field.
pub(super) fn check(request: &MethodRequest) -> Result<(), ServiceError> {
    let wrong = |what: String| Err(ServiceError::Wrong(what));
    let name = &request.method_name;
    if name.is_empty() || name.chars().count() > 100 || name.contains(['/', '#', '+', '?', '\0']) {
        return wrong(format!("command name: found `{name}`; write 1 to 100 characters without / # + ?"));
    }
    let bytes = request.payload.to_string().len();
    if bytes > PAYLOAD_BYTES_MAX {
        return wrong(format!("request: found {bytes} bytes of JSON; {PAYLOAD_BYTES_MAX} are allowed"));
    }
    let (response, connect) = (request.response_timeout_in_seconds, request.connect_timeout_in_seconds);
    if !(5..=300).contains(&response) {
        return wrong(format!("responseTimeout: found {response}; write 5 to 300 seconds"));
    }
    if connect > 300 {
        return wrong(format!("connectionTimeout: found {connect}; write 0 to 300 seconds"));
    }
    Ok(())
}
