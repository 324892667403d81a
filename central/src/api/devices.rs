//! `/api/devices`: the registry.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Asked, At, Body, OfDevice, Paging};
use super::links::ListAddress;
use crate::fleet::{self, Fleet, FleetError, Registration, no_device};
use crate::store::devices::{self, Device};
use crate::store::manifests;

/// A gateway or device, as IoT Central gives it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceBody {
    id: String,
    etag: String,
    display_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    /// Always false: central makes no values up.
    simulated: bool,
    /// False when it is blocked.
    enabled: bool,
    /// Whether it has ever connected.
    provisioned: bool,
    /// `["edge"]` for a gateway.
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    kind: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment_manifest: Option<ManifestOfDevice>,
}

/// The manifest last assigned to a gateway.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ManifestOfDevice {
    id: String,
    /// Missing when the manifest was deleted since.
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
}

/// A wish for a device's registration. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct DeviceWish {
    /// As in the path, when it is given.
    id: Option<String>,
    display_name: Option<String>,
    template: Option<String>,
    enabled: Option<bool>,
    /// Only false: central makes no values up.
    simulated: Option<bool>,
    /// `["edge"]` for a gateway; only at the first registration.
    #[serde(rename = "type")]
    kind: Option<Vec<String>>,
    deployment_manifest: Option<ManifestWish>,
    /// Given back by scripts that changed what they read; not compared.
    #[serde(rename = "etag")]
    _etag: Option<String>,
    /// As etag.
    #[serde(rename = "provisioned")]
    _provisioned: Option<bool>,
}

/// Which manifest a gateway shall have.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct ManifestWish {
    /// Of a stored manifest.
    id: String,
    /// Given back by scripts that changed what they read.
    #[serde(rename = "displayName")]
    _display_name: Option<String>,
}

impl DeviceWish {
    fn registration(self, path_id: &str) -> Result<Registration, ApiError> {
        let wrong = |message: String| Err(ApiError::unprocessable(message));
        if let Some(id) = self.id.filter(|id| id != path_id) {
            return wrong(format!("id: found `{id}`; the path says `{path_id}`"));
        }
        if self.simulated == Some(true) {
            return wrong("simulated: found true; central makes no values up, run a simulated device".into());
        }
        let is_gateway = match self.kind.as_deref() {
            None => None,
            Some(kinds) => match kinds.iter().find(|kind| !matches!(kind.as_str(), "edge" | "gateway")) {
                Some(kind) => return wrong(format!("type: found `{kind}`; allowed are edge and gateway")),
                None => Some(!kinds.is_empty()),
            },
        };
        if let Some(name) =
            self.display_name.as_ref().filter(|name| name.is_empty() || name.chars().count() > 148)
        {
            let length = name.chars().count();
            return wrong(format!("displayName: found {length} characters; write 1 to 148"));
        }
        Ok(Registration {
            display_name: self.display_name,
            template: self.template,
            is_gateway,
            enabled: self.enabled,
            manifest_id: self.deployment_manifest.map(|manifest| manifest.id),
        })
    }
}

fn body(c: &Connection, device: Device) -> Result<DeviceBody, FleetError> {
    let deployment_manifest = match device.manifest_id {
        None => None,
        Some(id) => {
            let display_name = manifests::get(c, &id)?.map(|manifest| manifest.display_name);
            Some(ManifestOfDevice { id, display_name })
        }
    };
    Ok(DeviceBody {
        etag: format!("\"{:x}\"", device.revision),
        display_name: device.display_name,
        template: device.template,
        simulated: false,
        enabled: device.enabled,
        provisioned: device.last_seen_ms.is_some(),
        kind: if device.is_gateway { vec!["edge".into()] } else { Vec::new() },
        deployment_manifest,
        id: device.id.into(),
    })
}

/// Lists gateways and devices by id.
#[utoipa::path(get, path = "/api/devices", tag = "devices", params(Paging), security(("token" = [])),
    responses((status = 200, description = "`value`, and `nextLink` when there may be more", body = Value)))]
pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    Asked(paging): Asked<Paging>,
    address: ListAddress,
) -> Answer<Json<Value>> {
    let (limit, after) = (paging.limit()?, paging.after());
    let bodies = fleet
        .store
        .read(move |c| {
            let devices = devices::list(c, &after, limit)?;
            devices.into_iter().map(|device| body(c, device)).collect::<Result<Vec<_>, FleetError>>()
        })
        .await?;
    let last_id = bodies.last().map(|last| last.id.clone());
    Ok(Json(paging.page(&address, limit, &bodies, last_id.as_deref())))
}

/// One gateway or device.
#[utoipa::path(get, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])),
    responses((status = 200, body = DeviceBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<Json<DeviceBody>> {
    let read = move |c: &Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        body(c, device)
    };
    Ok(Json(fleet.store.read(read).await?))
}

/// Registers a gateway or device, or changes its registration. A new one gets its keys.
#[utoipa::path(put, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion),
    request_body = DeviceWish, security(("token" = [])),
    responses((status = 200, body = DeviceBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    Body(wish): Body<DeviceWish>,
) -> Answer<Json<DeviceBody>> {
    register(&fleet, of, wish, false).await
}

/// Changes a registration; `deploymentManifest` assigns a stored manifest to a gateway.
#[utoipa::path(patch, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion),
    request_body = DeviceWish, security(("token" = [])),
    responses((status = 200, body = DeviceBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    Body(wish): Body<DeviceWish>,
) -> Answer<Json<DeviceBody>> {
    register(&fleet, of, wish, true).await
}

async fn register(
    fleet: &Arc<Fleet>,
    of: OfDevice,
    wish: DeviceWish,
    must_exist: bool,
) -> Answer<Json<DeviceBody>> {
    let registration = wish.registration(of.device_id.as_str())?;
    let device = fleet.register(of.device_id, registration, must_exist).await?;
    Ok(Json(fleet.store.read(move |c| body(c, device)).await?))
}

/// Deletes a gateway or device with its keys, twins and command history, and disconnects it.
#[utoipa::path(delete, path = "/api/devices/{device_id}", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<StatusCode> {
    fleet.remove(of.device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The keys of a gateway or device.
#[utoipa::path(get, path = "/api/devices/{device_id}/credentials", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn credentials(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
) -> Answer<Json<Value>> {
    let read = move |c: &Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        let no_keys =
            || FleetError::NotFound(format!("the keys of `{}` are at its gateway only", of.device_id));
        device.keys.ok_or_else(no_keys)
    };
    let keys = fleet.store.read(read).await?;
    Ok(Json(json!({
        "idScope": fleet.id_scope,
        "symmetricKey": {"primaryKey": keys.primary, "secondaryKey": keys.secondary},
    })))
}

/// The modules of a gateway, without `$edgeAgent` and `$edgeHub`.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn modules(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<Json<Value>> {
    let read = move |c: &Connection| {
        devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        fleet::modules(c, &of.device_id)
    };
    let modules = fleet.store.read(read).await?;
    let value: Vec<Value> = modules
        .iter()
        .filter(|module| !module.is_system())
        .map(|module| json!({"name": module, "displayName": module}))
        .collect();
    Ok(Json(json!({"value": value})))
}
