//! Direct methods that the command line calls.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::control::CallRequest;
use schemas::method::{MethodFailure, MethodResponse};
use schemas::names::Identity;

use super::context::Control;
use super::failure::{Failure, shallow};

pub(super) async fn call(
    State(control): State<Arc<Control>>,
    Json(call): Json<CallRequest>,
) -> Result<Json<MethodResponse>, Failure> {
    let target = match call.target.strip_prefix("device/") {
        Some(device) => device.parse().map(Identity::device),
        None => call.target.parse().map(|module| Identity::module(control.gateway.clone(), module)),
    };
    let target =
        target.map_err(|error| Failure(StatusCode::UNPROCESSABLE_ENTITY, format!("target: {error}")))?;
    shallow(&call.request.payload)?;
    match control.commands.call(&target, &call.request).await {
        Ok(response) => Ok(Json(response)),
        Err(failure @ MethodFailure::NotConnected { .. }) => {
            Err(Failure(StatusCode::NOT_FOUND, failure.to_string()))
        }
        Err(failure) => Err(Failure(StatusCode::GATEWAY_TIMEOUT, failure.to_string())),
    }
}
