//! `…/telemetry/{name}`: the last value of one name.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::error::{Answer, ErrorBody};
use super::extract::{ApiVersion, At};
use crate::fleet::{Fleet, FleetError, require};
use crate::store::telemetry;

/// `/api/devices/{device_id}/telemetry/{telemetry_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfValue {
    /// A gateway or device.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// A name at the top of the messages' JSON bodies.
    telemetry_name: String,
}

/// `/api/devices/{device_id}/modules/{module_name}/telemetry/{telemetry_name}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfModuleValue {
    /// A gateway.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    module_name: ModuleId,
    /// A name at the top of the messages' JSON bodies.
    telemetry_name: String,
}

/// The last value of one name in a device's messages.
#[utoipa::path(get, path = "/api/devices/{device_id}/telemetry/{telemetry_name}", tag = "telemetry",
    params(OfValue, ApiVersion), security(("token" = [])),
    responses((status = 200, description = "`timestamp` and `value`", body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn get(State(fleet): State<Arc<Fleet>>, At(of): At<OfValue>) -> Answer<Json<Value>> {
    last(&fleet, Identity::device(of.device_id), of.telemetry_name).await
}

/// The last value of one name in a module's messages.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/telemetry/{telemetry_name}",
    tag = "telemetry", params(OfModuleValue, ApiVersion), security(("token" = [])),
    responses((status = 200, description = "`timestamp` and `value`", body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn get_of_module(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfModuleValue>,
) -> Answer<Json<Value>> {
    last(&fleet, Identity::module(of.device_id, of.module_name), of.telemetry_name).await
}

async fn last(fleet: &Arc<Fleet>, of: Identity, name: String) -> Answer<Json<Value>> {
    let (at_ms, value) = fleet
        .store
        .read(move |c| {
            require(c, &of)?;
            telemetry::last_value(c, &of, &name)?
                .ok_or_else(|| FleetError::NotFound(format!("no recent message of `{of}` carries `{name}`")))
        })
        .await?;
    Ok(Json(json!({"timestamp": rfc3339(at_ms), "value": value})))
}
