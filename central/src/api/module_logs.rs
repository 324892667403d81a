//! `/api/ext/devices/{device_id}/modules/{module_name}/logs`: the log of a gateway's module.

use axum::Json;
use axum::extract::State;
use edge_core::module_logs::one_module::{LogLine, LogSelection};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{OfModule, StrictPath, StrictQuery};
use crate::services::Services;

/// Lines where nothing else says which.
const LINES_DEFAULT: u32 = 200;
const LINES_MAX: u32 = 10_000;
/// Severities of syslog.
const LEVEL_MAX: u8 = 7;

/// Which lines of the log are read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct LogParameters {
    /// The last lines, before the other conditions, 1 to 10,000. 200 when no parameter is given; with another one all lines when left
    /// out.
    #[param(minimum = 1, maximum = 10_000)]
    tail: Option<u32>,
    /// Lines that were written after this time: RFC 3339, seconds since 1970, or how long ago (`90s`, `15min`, `2h`, `1d`).
    since: Option<String>,
    /// Lines that were written before this time, as in `since`.
    until: Option<String>,
    /// Lines that match this regular expression.
    regex: Option<String>,
    /// Lines of this severity of syslog alone, 0 to 7. A line names its own at its begin (`<3>`); others have 6.
    #[param(minimum = 0, maximum = 7)]
    log_level: Option<u8>,
}

impl LogParameters {
    fn selection(self) -> Result<LogSelection, ApiError> {
        let wrong = |why: String| Err(ApiError::bad_request("InvalidQuery", why));
        if let Some(tail) = self.tail.filter(|tail| !(1..=LINES_MAX).contains(tail)) {
            return wrong(format!("tail: found {tail}; write 1 to {LINES_MAX}"));
        }
        if let Some(level) = self.log_level.filter(|level| *level > LEVEL_MAX) {
            return wrong(format!("logLevel: found {level}; write 0 to {LEVEL_MAX}"));
        }
        let mut selection = LogSelection {
            tail: self.tail,
            since: self.since,
            until: self.until,
            pattern: self.regex,
            level: self.log_level,
        };
        if selection == LogSelection::default() {
            selection.tail = Some(LINES_DEFAULT);
        }
        Ok(selection)
    }
}

/// A module's log, or a part of it.
#[derive(Serialize, ToSchema)]
pub(super) struct ModuleLog {
    /// In the order in which they were written.
    lines: Vec<ModuleLogLine>,
}

/// A line of a log.
#[derive(Serialize, ToSchema)]
struct ModuleLogLine {
    /// When it was written, in the form of the module if the line begins with its time, else RFC 3339; null when it is not known.
    time: Option<String>,
    /// Severity of syslog, 0 to 7.
    level: u8,
    /// `stdout` or `stderr`.
    stream: String,
    text: String,
}

impl From<LogLine> for ModuleLogLine {
    fn from(line: LogLine) -> Self {
        Self { time: line.timestamp, level: line.loglevel, stream: line.stream, text: line.text }
    }
}

/// Lines of the log of a gateway's module, read from the gateway now. Texts with the form of a secret are hidden.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/modules/{module_name}/logs", tag = "ext",
    params(OfModule, LogParameters), security(("token" = [])),
    responses((status = 200, body = ModuleLog),
        (status = 404, description = "unknown; `DeviceNotConnected`: the gateway is away; `ModuleHasNoContainer`", body = ErrorBody),
        (status = 422, description = "the gateway refuses: the lines are more than an answer can have, or it gives no logs", body = ErrorBody),
        (status = 502, description = "the gateway could not read the log", body = ErrorBody),
        (status = 504, description = "no answer by the deadline", body = ErrorBody)))]
pub(super) async fn get(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModule>,
    StrictQuery(parameters): StrictQuery<LogParameters>,
) -> Answer<Json<ModuleLog>> {
    let selection = parameters.selection()?;
    let lines = services.module_logs.read(&of.device_id, &of.module_name, &selection).await?;
    Ok(Json(ModuleLog { lines: lines.into_iter().map(ModuleLogLine::from).collect() }))
}
