//! `…/commands/{name}`: runs a command of a device or module, and shows its history.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::method::MethodRequest;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, OfDevice, StrictPath, StrictQuery};
use super::list::Page;
use crate::conformance;
use crate::error::ServiceError;
use crate::lookup::require;
use crate::services::Services;
use crate::store::Store;
use crate::store::commands::{self, Command};

/// Rows of a history.
const HISTORY_MAX: u32 = 100;

/// `/api/devices/{device_id}/commands/{command_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfCommand {
    /// A gateway or device.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// The method; `component*method` for one of a component.
    command_name: String,
}

/// `/api/devices/{device_id}/modules/{module_name}/commands/{command_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfModuleCommand {
    /// Id of the gateway.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    module_name: ModuleId,
    /// The method; `component*method` for one of a component.
    command_name: String,
}

/// What to send, and how long to wait.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct CommandRequest {
    /// Payload that the target gets: any JSON, `null` when left out.
    #[serde(default)]
    request: Value,
    /// Seconds to wait for the target to be connected, 0 to 300; 0 when left out.
    connection_timeout: Option<u64>,
    /// Seconds to wait for the answer, 5 to 300; 30 when left out.
    response_timeout: Option<u64>,
    /// Ours: seconds, 1 to 604800, for which the command waits for a target that is away, at central and on its gateway. With
    /// it the answer is 202 at once, and the history has its end.
    valid_for: Option<u64>,
}

/// A command that was run, or waits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandBody {
    id: String,
    /// As it was given; null when nothing was.
    request: Value,
    /// Seconds that central waited for the target to be connected.
    connection_timeout: u64,
    /// Seconds that central waits for the answer.
    response_timeout: u64,
    #[schema(format = DateTime)]
    requested_time: String,
    /// Of one with `validFor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    valid_until: Option<String>,
    /// When its gateway took it, or the device at central's own listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    taken_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    ended_time: Option<String>,
    /// Status that the target answered with, as HTTP has it: 200 is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_code: Option<i64>,
    /// Payload of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Value>,
    /// Why there is no answer and will be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs a command of a device and gives its answer.
#[utoipa::path(post, path = "/api/devices/{device_id}/commands/{command_name}", tag = "commands",
    params(OfCommand, ApiVersion), request_body = CommandRequest, security(("token" = [])),
    responses((status = 201, body = CommandBody), (status = 202, description = "kept, with `validFor`", body = CommandBody),
        (status = 403, description = "as many wait as may", body = ErrorBody),
        (status = 404, description = "unknown or not connected", body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 504, description = "no answer by the deadline", body = ErrorBody)))]
pub(super) async fn run(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfCommand>,
    Body(command): Body<CommandRequest>,
) -> Answer<(StatusCode, Json<CommandBody>)> {
    call(&services, Identity::device(of.device_id), of.command_name, command).await
}

/// Runs a command of a module and gives its answer.
#[utoipa::path(post, path = "/api/devices/{device_id}/modules/{module_name}/commands/{command_name}",
    tag = "commands", params(OfModuleCommand, ApiVersion), request_body = CommandRequest, security(("token" = [])),
    responses((status = 201, body = CommandBody), (status = 202, description = "kept, with `validFor`", body = CommandBody),
        (status = 403, description = "as many wait as may", body = ErrorBody),
        (status = 404, description = "unknown or not connected", body = ErrorBody), (status = 422, body = ErrorBody),
        (status = 504, description = "no answer by the deadline", body = ErrorBody)))]
pub(super) async fn run_of_module(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModuleCommand>,
    Body(command): Body<CommandRequest>,
) -> Answer<(StatusCode, Json<CommandBody>)> {
    call(&services, Identity::module(of.device_id, of.module_name), of.command_name, command).await
}

/// The last runs of a device's command, newest first.
#[utoipa::path(get, path = "/api/devices/{device_id}/commands/{command_name}", tag = "commands",
    params(OfCommand, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<CommandBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn history(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfCommand>,
) -> Answer<Json<Page<CommandBody>>> {
    past(&store, Identity::device(of.device_id), of.command_name).await
}

/// The last runs of a module's command, newest first.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/commands/{command_name}",
    tag = "commands", params(OfModuleCommand, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<CommandBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn history_of_module(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfModuleCommand>,
) -> Answer<Json<Page<CommandBody>>> {
    past(&store, Identity::module(of.device_id, of.module_name), of.command_name).await
}

/// Which commands.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RecentQuery {
    /// At most so many, 1 to 100; 100 when left out.
    limit: Option<u32>,
    #[serde(rename = "api-version", default)]
    #[param(value_type = Option<String>)]
    _api_version: Option<String>,
}

/// A command with its name and its target.
#[derive(Serialize, ToSchema)]
pub struct RecentCommand {
    /// What was to be run; of a component, `{component}*{name}`.
    name: String,
    /// The module that was to run it; null for the device itself.
    module: Option<String>,
    #[serde(flatten)]
    command: CommandBody,
}

/// The last commands of a device or gateway and its modules, whatever their names, newest first.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/commands", tag = "ext", params(OfDevice, RecentQuery),
    security(("token" = [])), responses((status = 200, body = Page<RecentCommand>), (status = 404, body = ErrorBody)))]
pub(super) async fn recent(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<RecentQuery>,
) -> Answer<Json<Page<RecentCommand>>> {
    let limit = match query.limit.unwrap_or(HISTORY_MAX) {
        limit @ 1..=HISTORY_MAX => limit,
        limit => {
            let why = format!("limit: found {limit}; write 1 to {HISTORY_MAX}");
            return Err(ApiError::bad_request("InvalidQuery", why));
        }
    };
    let read = move |c: &rusqlite::Connection| {
        require(c, &Identity::device(of.device_id.clone()))?;
        Ok::<_, ServiceError>(commands::recent(c, &of.device_id, limit)?)
    };
    let rows = store.read(read).await?;
    let recent = rows.iter().map(|command| RecentCommand {
        name: command.request.method_name.clone(),
        module: command.target.module.as_ref().map(ToString::to_string),
        command: body(command),
    });
    Ok(Json(Page::whole(recent.collect())))
}

pub(super) async fn call(
    services: &Services,
    target: Identity,
    name: String,
    command: CommandRequest,
) -> Answer<(StatusCode, Json<CommandBody>)> {
    let request = MethodRequest {
        method_name: name,
        payload: command.request,
        response_timeout_in_seconds: command.response_timeout.unwrap_or(30),
        connect_timeout_in_seconds: command.connection_timeout.unwrap_or(0),
    };
    let (of, method, payload) = (target.clone(), request.method_name.clone(), request.payload.clone());
    let check = move |c: &rusqlite::Connection| match conformance::of_target(c, &of)? {
        Some(model) => model.check_command(&method, &payload),
        None => Ok(()),
    };
    // Before the command is stored: a template that is published in between is not seen (decision 0063).
    services.store.read::<_, ServiceError>(check).await?;
    if let Some(valid_for) = command.valid_for {
        let kept = services.waiting_commands.keep(target, request, valid_for).await?;
        return Ok((StatusCode::ACCEPTED, Json(body(&kept))));
    }
    let command = services.commands.call(target, request).await?;
    match &command.outcome {
        Some(Err(failure)) => Err(ApiError::from(failure)),
        _ => Ok((StatusCode::CREATED, Json(body(&command)))),
    }
}

pub(super) async fn past(store: &Store, target: Identity, name: String) -> Answer<Json<Page<CommandBody>>> {
    let rows = store
        .read(move |c| {
            require(c, &target)?;
            Ok::<_, ServiceError>(commands::history(c, &target, &name, HISTORY_MAX)?)
        })
        .await?;
    Ok(Json(Page::whole(rows.iter().map(body).collect())))
}

fn body(command: &Command) -> CommandBody {
    let (answer, error) = match &command.outcome {
        None => (None, None),
        Some(Ok(answer)) => (Some(answer), None),
        Some(Err(failure)) => (None, Some(failure.to_string())),
    };
    CommandBody {
        id: command.id.clone(),
        request: command.request.payload.clone(),
        connection_timeout: command.request.connect_timeout_in_seconds,
        response_timeout: command.request.response_timeout_in_seconds,
        requested_time: rfc3339(command.requested_ms),
        valid_until: command.valid_until_ms.map(rfc3339),
        taken_time: command.taken_ms.map(rfc3339),
        ended_time: command.ended_ms.map(rfc3339),
        response_code: answer.map(|answer| answer.status),
        response: answer.map(|answer| answer.payload.clone()),
        error,
    }
}
