//! `…/telemetry/{name}`: the newest value of one name.

use axum::Json;
use axum::extract::State;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ErrorBody};
use super::extract::{ApiVersion, StrictPath};
use crate::error::ServiceError;
use crate::lookup::require;
use crate::store::Store;
use crate::store::last_values;

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
    /// Id of the gateway.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    module_name: ModuleId,
    /// A name at the top of the messages' JSON bodies.
    telemetry_name: String,
}

/// The newest value of a name, by the time at which its message was made.
#[derive(Serialize, ToSchema)]
pub struct LastValue {
    /// The `iothub-creation-time-utc` or `$.ctime` of its message, or when the message was accepted. RFC 3339.
    timestamp: String,
    /// As the device wrote it.
    #[schema(value_type = serde_json::Value)]
    value: Box<RawValue>,
}

/// The last value of one name in a device's messages.
#[utoipa::path(get, path = "/api/devices/{device_id}/telemetry/{telemetry_name}", tag = "telemetry",
    params(OfValue, ApiVersion), security(("token" = [])),
    responses((status = 200, body = LastValue), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfValue>,
) -> Answer<Json<LastValue>> {
    last(&store, Identity::device(of.device_id), None, of.telemetry_name).await
}

/// The last value of one name in a module's messages.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/telemetry/{telemetry_name}",
    tag = "telemetry", params(OfModuleValue, ApiVersion), security(("token" = [])),
    responses((status = 200, body = LastValue), (status = 404, body = ErrorBody)))]
pub(super) async fn get_of_module(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfModuleValue>,
) -> Answer<Json<LastValue>> {
    last(&store, Identity::module(of.device_id, of.module_name), None, of.telemetry_name).await
}

pub(super) async fn last(
    store: &Store,
    of: Identity,
    component: Option<String>,
    name: String,
) -> Answer<Json<LastValue>> {
    let (at_ms, value) = store
        .read(move |c| {
            require(c, &of)?;
            last_values::get(c, &of, component.as_deref(), &name)?
                .ok_or_else(|| ServiceError::NotFound(format!("no message of `{of}` has carried `{name}`")))
        })
        .await?;
    Ok(Json(LastValue { timestamp: rfc3339(at_ms), value }))
}
