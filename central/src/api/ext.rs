//! `/api/ext`: what IoT Central has no path for.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::takeovers::Conflict;
use schemas::bag::system;
use schemas::body::decode;
use schemas::json::{DEPTH_MAX, check_text};
use schemas::names::{Identity, ModuleId};
use schemas::received_report::ReceivedReport;
use schemas::status::HealthReport;
use schemas::timestamp::rfc3339;
use schemas::twin::Section;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{OfDevice, StrictPath, StrictQuery};
use super::list::Page;
use super::properties::check_module;
use crate::diagnosis::gateway_report;
use crate::diagnosis::health::{Health, HealthBody};
use crate::error::{ServiceError, no_device};
use crate::lookup::{modules, require};
use crate::mqtt_service::CentralService;
use crate::people::caller::Caller;
use crate::services::Services;
use crate::store::Store;
use crate::store::telemetry_reading::{self, Message};
use crate::store::twins::Half;
use crate::store::{devices, twins};

/// Whether central serves: it writes to its store, as every message and every change needs, reads from it, has space on its
/// disk, and keeps up. The answer may be 2 s old.
#[utoipa::path(get, path = "/api/ext/health", tag = "ext",
    responses((status = 200, body = HealthBody), (status = 503, body = HealthBody)))]
pub(super) async fn health(
    State(services): State<Services>,
    Extension(health): Extension<Arc<Health>>,
) -> (StatusCode, Json<HealthBody>) {
    let report = health.report(&services.store, &services.telemetry).await;
    let status = if report.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report.body.clone()))
}

/// central's MQTT server: who is there, what one client may ask, and what was refused or let go since central started.
#[utoipa::path(get, path = "/api/ext/mqtt-server", tag = "ext", security(("token" = [])),
    responses((status = 200, body = ListenerBody)))]
pub(super) async fn mqtt_server(
    State(services): State<Services>,
    Extension(mqtt_server): Extension<Arc<MqttServer<CentralService>>>,
) -> Json<ListenerBody> {
    let settings = mqtt_server.settings();
    Json(ListenerBody {
        clients: services.clients.connected().len() as u64,
        limits: LimitsBody {
            connections: settings.connections_max as u64,
            connections_per_address: settings.address_connections_max as u64,
            unproven_connections: settings.unproven_max as u64,
            connects_per_second_per_address: settings.address_connects_per_second,
            messages_per_second: settings.messages_per_second,
            bytes_per_second: settings.bytes_per_second,
            subscriptions: settings.filters_max as u64,
            in_flight: settings.in_flight_max as u64,
        },
        counts: mqtt_server
            .counts()
            .all()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
    })
}

/// Connections to central's MQTT server, its limits, and what it refused.
#[derive(Serialize, ToSchema)]
#[schema(as = ListenerBody)]
pub(super) struct ListenerBody {
    /// Number of clients that are connected now.
    clients: u64,
    limits: LimitsBody,
    /// What was refused or let go since central started, by its cause.
    counts: BTreeMap<String, u64>,
}

/// What one client may ask.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LimitsBody {
    connections: u64,
    connections_per_address: u64,
    unproven_connections: u64,
    connects_per_second_per_address: u64,
    messages_per_second: u64,
    bytes_per_second: u64,
    subscriptions: u64,
    in_flight: u64,
}

/// Whether a gateway or device is connected, since when, and through which gateway; of a gateway every module of its manifest,
/// present or not, what the gateway finds wrong with itself, and the clients that it refused last.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/status", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = StatusBody), (status = 404, body = ErrorBody)))]
pub(super) async fn status(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<StatusBody>> {
    let (device, received, modules, (desired, reported)) = services
        .store
        .read(move |c| {
            let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
            let received = telemetry_reading::last_received(c, &device.id)?;
            let modules = modules(c, &device.id)?;
            let (desired, reported) = (
                gateway_report::section(c, &device.id, Half::Desired)?,
                gateway_report::section(c, &device.id, Half::Reported)?,
            );
            Ok::<_, ServiceError>((device, received, modules, (desired, reported)))
        })
        .await?;
    let identity = Identity::device(device.id.clone());
    let since = services.connections.since(&identity, device.gateway.as_ref());
    // They are parts of the gateway's own program, whose state the gateway itself shows.
    let modules = modules.into_iter().filter(|module| !module.is_system()).map(|name| {
        let module = Identity::module(device.id.clone(), name.clone());
        let since = services.connections.since(&module, Some(&device.id));
        let of = |section: &ReceivedReport| section.module(name.as_str()).cloned().unwrap_or_default();
        let (desired, reported) = (of(&desired), of(&reported));
        ModuleStatus {
            name: name.to_string(),
            connected: since.is_some(),
            since: since.map(rfc3339),
            desired_status: desired.status,
            status: reported.runtime_status.unwrap_or_else(|| "notReported".to_owned()),
            reason: reported.status_description,
            next_try: reported.next_try_utc,
            restarts: reported.restart_count,
            image: reported.settings.image.or(desired.settings.image),
        }
    });
    let modules: Vec<ModuleStatus> = modules.collect();
    Ok(Json(StatusBody {
        modules,
        connected: since.is_some(),
        since: since.map(rfc3339),
        // The time of coming or going stays the same while the device is connected and sends.
        last_seen: device.last_seen_ms.max(received).map(rfc3339),
        gateway: device.gateway.map(String::from),
        identity_conflict: services.clients.conflict(&identity).map(ConflictBody::from),
        health: reported.health,
        manifest_warnings: reported.manifest_warnings,
        id: device.id.into(),
    }))
}

/// Where a gateway or device is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusBody {
    id: String,
    connected: bool,
    /// Null while it is not connected.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// Null when it was never heard of.
    #[schema(format = DateTime)]
    last_seen: Option<String>,
    /// The gateway that it is behind; null for gateways and for devices of central's own listener.
    gateway: Option<String>,
    /// Null unless two clients use the identity.
    identity_conflict: Option<ConflictBody>,
    modules: Vec<ModuleStatus>,
    /// Null of a device, and of a gateway that has not reported.
    health: Option<HealthReport>,
    /// Parts of a gateway's manifest in force that have no effect, or another one than its author may think, each with its field.
    manifest_warnings: Vec<String>,
}

/// How a module of a gateway is, by its manifest and by the gateway's report. Texts that the gateway did not tell are null.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ModuleStatus {
    name: String,
    connected: bool,
    /// Null while it is not connected.
    #[schema(format = DateTime)]
    since: Option<String>,
    desired_status: Option<String>,
    /// `notReported` when the gateway has not reported of it.
    status: String,
    /// Why it is so.
    reason: Option<String>,
    /// When the gateway starts it again.
    next_try: Option<String>,
    restarts: Option<u64>,
    image: Option<String>,
}

/// Two clients that take one identity's connection from each other.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ConflictBody {
    takeovers: u64,
    /// Where they connect from.
    addresses: Vec<String>,
    /// Whether they are surely two.
    is_proven: bool,
    #[schema(format = DateTime)]
    last: String,
}

impl From<Conflict> for ConflictBody {
    fn from(conflict: Conflict) -> Self {
        Self {
            takeovers: conflict.takeovers as u64,
            addresses: conflict.addresses.iter().map(ToString::to_string).collect(),
            is_proven: conflict.is_proven,
            last: rfc3339(conflict.last_ms),
        }
    }
}

/// Which messages a list shows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MessagesQuery {
    /// The id of the last message that is known; 0 when left out.
    #[serde(default)]
    after: i64,
    /// At most so many, 1 to 1000; 100 when left out.
    limit: Option<u32>,
    /// `oldest` first when left out. With `newest`, the last `limit` messages.
    #[serde(default)]
    #[param(inline)]
    order: MessageOrder,
}

/// From which end messages are read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum MessageOrder {
    /// Oldest first, from the message behind `after` on.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// Stored messages of a device, oldest first; a gateway's list has those of its modules too, with `module`. A page may
/// hold fewer than `limit`; only an empty one is the end.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/messages", tag = "ext", params(OfDevice, MessagesQuery),
    security(("token" = [])), responses((status = 200, body = Page<MessageBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn messages(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<MessagesQuery>,
) -> Answer<Json<Page<MessageBody>>> {
    let limit = match query.limit.unwrap_or(100) {
        limit @ 1..=1000 => limit,
        limit => {
            return Err(ApiError::bad_request(
                "InvalidQuery",
                format!("limit: found {limit}; write 1 to 1000"),
            ));
        }
    };
    let page = store
        .read(move |c| {
            devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
            let page = match query.order {
                MessageOrder::Oldest => telemetry_reading::page(c, &of.device_id, query.after, limit)?,
                MessageOrder::Newest => telemetry_reading::newest(c, &of.device_id, query.after, limit)?,
            };
            Ok::<_, ServiceError>(page)
        })
        .await?;
    Ok(Json(Page::whole(page.into_iter().map(message_body).collect())))
}

/// A telemetry message as central stored it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageBody {
    /// Ascends over all devices.
    id: i64,
    device: String,
    /// The module of the gateway that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    /// When it was accepted.
    #[schema(format = DateTime)]
    enqueued_time: String,
    /// Those of its property bag, null for one without a value; null when they cannot be read.
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    properties: Value,
    /// The body as the sender wrote it, when it is JSON: numbers have all their digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    body: Option<Box<RawValue>>,
    /// The bytes of a body that is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(content_encoding = "base64")]
    body_base64: Option<String>,
}

fn message_body(message: Message) -> MessageBody {
    let encoding =
        message.properties.as_ref().and_then(|properties| properties.get(system::CONTENT_ENCODING));
    let body = json_of(encoding.and_then(Value::as_str), &message.body);
    let body_base64 = body.is_none().then(|| STANDARD.encode(&message.body));
    MessageBody {
        id: message.id,
        device: message.device.to_string(),
        module: message.module.map(|module| module.to_string()),
        enqueued_time: rfc3339(message.enqueued_ms),
        properties: serde_json::json!(message.properties),
        body,
        body_base64,
    }
}

/// A body that is JSON, as it is written. One that is nested too deep, or has a number that no double comes near (`1e999`), is none:
/// every answer can be read again by every reader.
fn json_of(encoding: Option<&str>, body: &[u8]) -> Option<Box<RawValue>> {
    let text = decode(encoding, body)?;
    check_text(text.as_bytes(), DEPTH_MAX).ok()?;
    serde_json::from_str::<Value>(&text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whose twin is shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TwinQuery {
    /// A module of the gateway; the device's own twin when left out.
    #[param(value_type = Option<String>)]
    module: Option<ModuleId>,
}

/// Both sections of a twin as the device or module sees them, `$version` included.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/twin", tag = "ext", params(OfDevice, TwinQuery),
    security(("token" = [])), responses((status = 200, body = TwinBody), (status = 404, body = ErrorBody)))]
pub(super) async fn twin(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<TwinQuery>,
) -> Answer<Json<TwinBody>> {
    if let Some(module) = &query.module {
        check_module(&caller, module)?;
    }
    let of = Identity { device: of.device_id, module: query.module };
    let twin = store
        .read(move |c| {
            require(c, &of)?;
            Ok::<_, ServiceError>(twins::twin(c, &of)?)
        })
        .await?;
    Ok(Json(TwinBody { desired: twin.desired.into(), reported: twin.reported.into() }))
}

/// A twin as its device reads it.
#[derive(Serialize, ToSchema)]
pub(super) struct TwinBody {
    desired: SectionBody,
    reported: SectionBody,
}

/// One half of a twin.
#[derive(Serialize, ToSchema)]
struct SectionBody {
    /// Grows by one with every change; 0 when nothing was ever written.
    #[serde(rename = "$version")]
    version: u64,
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, Value>)]
    properties: Map<String, Value>,
}

impl From<Section> for SectionBody {
    fn from(section: Section) -> Self {
        Self { version: section.version, properties: section.properties }
    }
}
