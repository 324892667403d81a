//! `/api/ext`: what IoT Central has no path for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_hub::door::Door;
use edge_hub::takeovers::Conflict;
use schemas::names::{Identity, ModuleId};
use schemas::status::HealthReport;
use schemas::timestamp::rfc3339;
use schemas::twin::Twin;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{Asked, At, OfDevice};
use crate::fleet::{self, Fleet, FleetError, no_device, require};
use crate::health::Health;
use crate::store::telemetry::{self, Message};
use crate::store::twins::Half;
use crate::store::{devices, twins};

/// Whether central serves: it writes to its store, as every message and every change needs, reads from it, has space on its
/// disk, and keeps up. The answer may be 2 s old.
#[utoipa::path(get, path = "/api/ext/health", tag = "ext",
    responses((status = 200, body = Value), (status = 503, body = Value)))]
pub(super) async fn health(
    State(fleet): State<Arc<Fleet>>,
    Extension(health): Extension<Arc<Health>>,
) -> (StatusCode, Json<Value>) {
    let report = health.report(&fleet).await;
    let status = if report.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report.body.clone()))
}

/// central's front door: who is there, what one client may ask, and what was refused or let go since central started.
#[utoipa::path(get, path = "/api/ext/door", tag = "ext", security(("token" = [])),
    responses((status = 200, body = Value)))]
pub(super) async fn door(
    State(fleet): State<Arc<Fleet>>,
    Extension(door): Extension<Arc<Door<Fleet>>>,
) -> Json<Value> {
    let settings = door.settings();
    let counts: serde_json::Map<String, Value> =
        door.counts().all().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    Json(json!({
        "clients": fleet.clients.connected().len(),
        "limits": {
            "connections": settings.connections_max,
            "connectionsPerAddress": settings.address_connections_max,
            "unprovenConnections": settings.unproven_max,
            "connectsPerSecondPerAddress": settings.address_connects_per_second,
            "messagesPerSecond": settings.messages_per_second,
            "bytesPerSecond": settings.bytes_per_second,
            "subscriptions": settings.filters_max,
            "inFlight": settings.in_flight_max,
        },
        "counts": counts,
    }))
}

/// Whether a gateway or device is connected, since when, and through which gateway; of a gateway every module of its manifest,
/// present or not, what the gateway finds wrong with itself, and the clients that it refused last.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/status", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn status(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<Json<Value>> {
    let (device, received, modules, (desired, reported)) = fleet
        .store
        .read(move |c| {
            let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
            let received = telemetry::last_received(c, &device.id)?;
            let modules = fleet::modules(c, &device.id)?;
            let agent = Identity::module(device.id.clone(), ModuleId::edge_agent());
            let desired = twins::section(c, &agent, Half::Desired)?.section.properties;
            let reported = twins::section(c, &agent, Half::Reported)?.section.properties;
            Ok::<_, FleetError>((device, received, modules, (desired, reported)))
        })
        .await?;
    let identity = Identity::device(device.id.clone());
    let since = fleet.connections.since(&identity, device.gateway.as_ref());
    let modules: Vec<Value> = modules
        .into_iter()
        .filter(|module| !module.is_system())
        .map(|name| {
            let module = Identity::module(device.id.clone(), name.clone());
            let since = fleet.connections.since(&module, Some(&device.id));
            let of = |section: &Map<String, Value>| {
                section.get("modules").and_then(|modules| modules.get(name.as_str())).cloned()
            };
            let (wanted, told) = (of(&desired).unwrap_or_default(), of(&reported).unwrap_or_default());
            json!({
                "name": name,
                "connected": since.is_some(),
                "since": since.map(rfc3339),
                "desiredStatus": wanted["status"],
                "status": told["runtimeStatus"].as_str().unwrap_or("notReported"),
                "reason": told["statusDescription"],
                "nextTry": told["nextTryUtc"],
                "restarts": told["restartCount"],
                "image": told["settings"]["image"].as_str().or(wanted["settings"]["image"].as_str()),
            })
        })
        .collect();
    Ok(Json(json!({
        "id": device.id,
        "connected": since.is_some(),
        "since": since.map(rfc3339),
        "lastSeen": device.last_seen_ms.max(received).map(rfc3339),
        "gateway": device.gateway,
        "identityConflict": fleet.clients.conflict(&identity).map(conflict_body),
        "modules": modules,
        "health": health_body(&reported),
    })))
}

/// What a gateway finds wrong with itself, and the clients that it refused last; null of a device, and of a gateway that has not told.
fn health_body(reported: &Map<String, Value>) -> Option<HealthReport> {
    serde_json::from_value(reported.get("health")?.clone()).ok()
}

fn conflict_body(conflict: Conflict) -> Value {
    json!({
        "takeovers": conflict.takeovers,
        "addresses": conflict.addresses,
        "isProven": conflict.is_proven,
        "last": rfc3339(conflict.last_ms),
    })
}

/// Which messages.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MessagesWish {
    /// The id of the last message that is known; 0 when left out.
    #[serde(default)]
    after: i64,
    /// At most so many, 1 to 1000; 100 when left out.
    limit: Option<u32>,
}

/// Stored messages of a device, oldest first; a gateway's list has those of its modules too, with `module`. A page may
/// hold fewer than `limit`; only an empty one is the end.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/messages", tag = "ext", params(OfDevice, MessagesWish),
    security(("token" = [])), responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn messages(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    Asked(wish): Asked<MessagesWish>,
) -> Answer<Json<Value>> {
    let limit = match wish.limit.unwrap_or(100) {
        limit @ 1..=1000 => limit,
        limit => {
            return Err(ApiError::bad_request(
                "InvalidQuery",
                format!("limit: found {limit}; write 1 to 1000"),
            ));
        }
    };
    let page = fleet
        .store
        .read(move |c| {
            devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
            Ok::<_, FleetError>(telemetry::page(c, &of.device_id, wish.after, limit)?)
        })
        .await?;
    let value: Vec<Value> = page.into_iter().map(message_body).collect();
    Ok(Json(json!({"value": value})))
}

fn message_body(message: Message) -> Value {
    let mut body = json!({
        "id": message.id,
        "device": message.device,
        "enqueuedTime": rfc3339(message.enqueued_ms),
        "properties": message.properties,
    });
    if let Some(module) = message.module {
        body["module"] = json!(module);
    }
    // What is nested too deep is shown as bytes, so that every answer can be read again.
    match schemas::json::from_outside::<Value>(&message.body) {
        Ok(json) => body["body"] = json,
        Err(_) => body["bodyBase64"] = STANDARD.encode(&message.body).into(),
    }
    body
}

/// Whose twin.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TwinWish {
    /// A module of the gateway; the device's own twin when left out.
    #[param(value_type = Option<String>)]
    module: Option<ModuleId>,
}

/// Both sections of a twin as the device or module sees them, `$version` included.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/twin", tag = "ext", params(OfDevice, TwinWish),
    security(("token" = [])), responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn twin(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    Asked(wish): Asked<TwinWish>,
) -> Answer<Json<Twin>> {
    let of = Identity { device: of.device_id, module: wish.module };
    let twin = fleet
        .store
        .read(move |c| {
            require(c, &of)?;
            Ok::<_, FleetError>(twins::twin(c, &of)?)
        })
        .await?;
    Ok(Json(twin))
}
