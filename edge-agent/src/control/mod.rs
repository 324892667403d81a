//! the daemon's control socket: HTTP over the socket `DATA_DIR/edge-agent.sock`, which the command line speaks.
//!
//! Who may open the socket may command the gateway: it belongs to the daemon's user alone (mode 0600).

pub mod client;
mod devices;
mod facts;
mod identities;
mod quarantine;
mod users;

use edge_core::error_chain::chain;
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use edge_buffer::{Headroom, Lost, Stats};
use edge_core::deploy::desired::Desired;
use edge_core::deploy::observed::{ContainerState, ObservedModule};
use edge_core::deploy::report::ModuleState;
use edge_hub::clients::Clients;
use edge_hub::http_server::{HttpLimits, HttpServer};
use edge_hub::mqtt_server::MqttServer;
use schemas::method::{MethodFailure, MethodRequest};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::authorizer::Authorizer;
use crate::access::passwords::Passwords;
use crate::clock::{now_ms, upstream_offset};
use crate::commands::Commands;
use crate::config::Upstream;
use crate::deployment::deployments::{ApplyError, Deployments, Judgement};
use crate::deployment::reconciler::{Deployment, ReconcilerStatus};
use crate::gateway_service::GatewayService;
use crate::messages::quarantine::Quarantine;
use crate::messages::quarantine::entry::sender_of_tag;
use crate::messages::queues::Queues;
use crate::messages::unrouted::Unrouted;
use crate::upstream::central::LinkStatus;
use crate::upstream::meter::Meter;

/// A manifest may be this large. Azure's limit is 32 KB; ours is what an operator could still read.
const BODY_BYTES_MAX: usize = 8 << 20;
/// The longest wait of `apply`.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Command lines that are answered at once, which the daemon's file budget reserves.
pub(crate) const CONNECTIONS_MAX: usize = 16;

/// Where the socket is.
pub fn socket(data_dir: &FilePath) -> PathBuf {
    data_dir.join("edge-agent.sock")
}

/// The rooms that the command line asks and commands.
pub struct Control {
    pub gateway: DeviceId,
    /// Its name for leaf devices and modules.
    pub hostname: String,
    /// The hub's name in connection strings of leaf devices.
    pub hub_name: String,
    pub clients: Clients,
    /// Leaf devices, local users, and what their clients may do.
    pub authorizer: Authorizer,
    /// Hashes passwords of new users.
    pub passwords: Passwords,
    pub deployments: Arc<Deployments>,
    /// Whether the wanted deployment is in force.
    pub judgement: watch::Receiver<Judgement>,
    /// What the containers do.
    pub reconciler: watch::Receiver<ReconcilerStatus>,
    pub queues: Arc<Queues>,
    /// What went into none of them.
    pub unrouted: Arc<Unrouted>,
    pub commands: Commands,
    /// The MQTT server, for its counts.
    pub server: Arc<MqttServer<GatewayService>>,
    pub quarantine: Arc<Quarantine>,
    /// What the daemon keeps.
    pub state: crate::state::State,
    /// What the link has cost today.
    pub meter: Meter,
    pub upstream: Option<Upstream>,
    /// The link; `None` without an upstream.
    pub link: Option<watch::Receiver<LinkStatus>>,
    /// The manifest in force.
    pub deployment: watch::Receiver<Option<Arc<Deployment>>>,
    /// CRC-32C of edge.toml when the daemon started.
    pub config_crc32c: u32,
}

/// Makes the socket: who calls from now on is answered when [`serve`] runs.
///
/// # Errors
/// When it cannot be made.
pub fn listen(data_dir: &FilePath) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = socket(data_dir);
    // A socket file of a daemon that was killed. Two daemons on one directory are kept apart by the lock of the state.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop`.
pub async fn serve(control: Arc<Control>, listener: UnixListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/status", get(status))
        .route("/facts", get(facts::facts))
        .route("/refusals", get(facts::refusals))
        .route("/apply", post(apply))
        .route("/deployment", get(deployment))
        .route("/devices", get(devices::list).post(devices::add))
        .route("/devices/{id}", get(devices::show).delete(devices::remove))
        .route("/devices/{id}/block", post(devices::block))
        .route("/devices/{id}/unblock", post(devices::unblock))
        .route("/devices/{id}/token", get(devices::token))
        .route("/users", get(users::list).post(users::add))
        .route("/users/{name}", delete(users::remove))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/{number}", get(quarantine::show).delete(quarantine::drop_one))
        .route("/quarantine/{number}/replay", post(quarantine::replay))
        .route("/call", post(call))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control);
    let limits = HttpLimits {
        connections_max: CONNECTIONS_MAX,
        body_bytes_max: BODY_BYTES_MAX,
        bodies_bytes_max: 2 * BODY_BYTES_MAX,
        request_timeout: WAIT_MAX + Duration::from_secs(60),
        ..HttpLimits::default()
    };
    HttpServer::new("command line", limits).serve_unix(listener, router, stop).await;
}

struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

async fn status(State(control): State<Arc<Control>>) -> Json<Value> {
    let reconciler = control.reconciler.borrow().clone();
    let judgement = control.judgement.borrow().clone();
    let modules = modules(&control, &reconciler);
    let stats = control.queues.stats();
    let (by_sender, of_others) = control.unrouted.all();
    let queues: Vec<Value> = stats
        .iter()
        .map(|queue| {
            json!({
                "name": queue.name,
                "priority": queue.priority,
                "room": match queue.stats.room {
                    Headroom::Enough => "enough",
                    Headroom::Evicting => "evicting",
                    Headroom::Refusing => "refusing",
                },
                "messages": queue.stats.records,
                "accepted": queue.stats.next_sequence - 1,
                "bytes": queue.stats.bytes,
                "oldest": queue.stats.oldest_ms.map(rfc3339),
                "expired": queue.stats.expired,
                "evicted": queue.stats.evicted,
                "refused": queue.stats.refused,
                "lost": {
                    "expired": queue.stats.lost.expired,
                    "evicted": queue.stats.lost.evicted,
                    "damaged": queue.stats.lost.damaged,
                    "refused": queue.stats.lost.refused,
                    "dropped": queue.stats.lost.dropped,
                    "central-restored": queue.stats.lost.restored,
                },
                "gaps": queue.gaps.iter().map(gap_json).collect::<Vec<_>>(),
                "writtenPerPayloadByte": (queue.stats.payload_bytes > 0)
                    .then(|| queue.stats.written_bytes as f64 / queue.stats.payload_bytes as f64),
                "damagedSegmentsSetAside": queue.stats.set_aside,
            })
        })
        .collect();
    let clients: Vec<Value> = control
        .clients
        .connected()
        .into_iter()
        .map(|(identity, since_ms)| {
            let conflict = control.clients.conflict(&identity).map(
                |conflict| json!({"takeovers": conflict.takeovers, "addresses": conflict.addresses, "isProven": conflict.is_proven}),
            );
            json!({"id": identity.to_string(), "since": rfc3339(since_ms), "identityConflict": conflict})
        })
        .collect();
    let link = control.link.as_ref().map(|link| {
        let link = link.borrow().clone();
        let (host, port) = control.upstream.as_ref().map(Upstream::address).unwrap_or_default();
        json!({
            "kind": control.upstream.as_ref().map(Upstream::kind_name),
            "address": format!("{host}:{port}"),
            "connected": link.is_connected,
            "since": rfc3339(link.since_ms),
            "why": link.why,
            "budget": budget(&control.meter),
            "clock": upstream_offset()
                .map(|offset| json!({"aheadMs": offset.ahead_ms, "withinMs": offset.within_ms})),
        })
    });
    let commands = control.commands.counts();
    let set_aside = control.quarantine.stats();
    let quarantine_gaps = control.quarantine.log().gaps();
    let quarantine = json!({
        "messages": set_aside.records,
        "bytes": set_aside.bytes,
        "oldest": set_aside.oldest_ms.map(rfc3339),
        "evicted": set_aside.lost.evicted,
        "damaged": set_aside.lost.damaged,
        "dropped": set_aside.lost.dropped,
        "replayed": control.quarantine.replayed(),
        "gaps": quarantine_gaps.iter().map(gap_json).collect::<Vec<_>>(),
    });
    let not_told = stats.iter().flat_map(|queue| &queue.gaps).chain(&quarantine_gaps);
    let not_told: u64 = not_told.map(|gap| gap.count).sum();
    Json(json!({
        "deviceId": control.gateway,
        "hostname": control.hostname,
        "version": env!("CARGO_PKG_VERSION"),
        "upstream": link,
        "deployment": {
            "version": judgement.versions.map(|versions| versions.edge_agent),
            "problem": judgement.problem,
            "routesRefused": judgement.routes_refused,
            "warnings": judgement.warnings,
            "settled": reconciler.is_settled,
            "code": reconciler.outcome.code,
            "description": reconciler.outcome.description,
            "plan": reconciler.plan,
        },
        "modules": modules,
        "clients": clients,
        "commands": {
            "waiting": commands.waiting,
            "running": commands.running,
            "answersNotTold": commands.untold,
        },
        "queues": queues,
        "quarantine": quarantine,
        "lostByCause": lost_by_cause(stats.iter().map(|queue| &queue.stats).chain([&set_aside])),
        "lostNotTold": not_told,
        "unrouted": {
            "messages": by_sender.values().sum::<u64>() + of_others,
            "bySender": by_sender.iter().map(|(who, count)| (who.to_string(), *count)).collect::<BTreeMap<_, _>>(),
            "ofOtherSenders": of_others,
        },
        "acknowledgedAndPartlyRefused": control.unrouted.partly(),
        "mqttServer": control.server.counts().all().into_iter().collect::<BTreeMap<_, _>>(),
    }))
}

/// Every module of the manifest, present or not, and every other container of this gateway.
fn modules(control: &Control, reconciler: &ReconcilerStatus) -> BTreeMap<String, Value> {
    let in_force = control.deployment.borrow().clone();
    let none = Desired::default();
    let desired = in_force.as_ref().map_or(&none, |deployment| &deployment.desired);
    let shown = |(id, state): (&ModuleId, ModuleState)| {
        let observed = reconciler.observed.modules.get(id);
        let wanted = desired.modules.get(id).map(|module| &module.spec);
        let shown = json!({
            "state": observed.map(state_text),
            "status": state.status,
            "reason": state.reason,
            "nextTry": state.next_try_ms.map(rfc3339),
            "desiredStatus": wanted.map(|spec| spec.status),
            "image": observed.map(|observed| &observed.image).or(wanted.map(|spec| &spec.image)),
            "startedAt": observed.and_then(|observed| observed.started_at_ms).map(rfc3339),
            "restarts": reconciler.restarts.count(id),
        });
        (id.to_string(), shown)
    };
    reconciler.progress(desired, now_ms()).modules().into_iter().map(shown).collect()
}

/// What all queues and the quarantine have lost since they were made.
fn lost_by_cause<'a>(stats: impl Iterator<Item = &'a Stats> + Clone) -> Value {
    let sum = |of: fn(&Lost) -> u64| stats.clone().map(|stats| of(&stats.lost)).sum::<u64>();
    json!({
        "expired": sum(|lost| lost.expired),
        "evicted": sum(|lost| lost.evicted),
        "refused": sum(|lost| lost.refused),
        "damaged": sum(|lost| lost.damaged),
        "dropped": sum(|lost| lost.dropped),
        "central-restored": sum(|lost| lost.restored),
    })
}

/// What the link has cost since the day's beginning.
fn budget(meter: &Meter) -> Value {
    let spent: BTreeMap<_, _> = meter
        .spent()
        .into_iter()
        .map(|spent| (spent.cause.name(), json!({"bytes": spent.bytes, "limit": spent.limit})))
        .collect();
    json!({"spent": spent, "resetsInSeconds": meter.resets_in_ms().div_ceil(1000)})
}

/// A loss that central has not been told yet.
fn gap_json(gap: &edge_buffer::Gap) -> Value {
    json!({
        "cause": gap.cause.name(),
        "sender": sender_of_tag(&gap.tag).1,
        "firstSequence": gap.first,
        "lastSequence": gap.last,
        "count": gap.count,
        "from": rfc3339(gap.from_ms),
        "until": rfc3339(gap.until_ms),
    })
}

fn state_text(module: &ObservedModule) -> String {
    match module.state {
        ContainerState::Running if module.is_unhealthy => "unhealthy".into(),
        ContainerState::Running => "running".into(),
        ContainerState::Created => "created".into(),
        ContainerState::Restarting => "restarting".into(),
        ContainerState::Paused => "paused".into(),
        ContainerState::Exited { code } => format!("exited ({code})"),
        ContainerState::Dead => "dead".into(),
    }
}

/// Refuses what is nested deeper than may come from outside.
fn shallow(value: &Value) -> Result<(), Failure> {
    let max = schemas::json::DEPTH_MAX;
    if schemas::json::depth(value) > max {
        return Err(Failure(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("JSON is nested deeper than {max} levels"),
        ));
    }
    Ok(())
}

/// The desired sections of `$edgeAgent` and `$edgeHub`, which a layer is laid over. They may hold secrets, as may the manifests
/// that are given to this socket; its file is its owner's alone.
async fn deployment(State(control): State<Arc<Control>>) -> Json<Value> {
    let sections = [ModuleId::edge_agent(), ModuleId::edge_hub()];
    Json(sections.iter().map(|module| (module.to_string(), control.deployments.desired(module))).collect())
}

#[derive(Deserialize)]
struct ApplyQuery {
    wait: Option<u64>,
}

async fn apply(
    State(control): State<Arc<Control>>,
    Query(query): Query<ApplyQuery>,
    Json(document): Json<Value>,
) -> Result<Json<Value>, Failure> {
    shallow(&document)?;
    let (version, changes) = control.deployments.apply(&document).await.map_err(|error| match error {
        ApplyError::Refused(_) => Failure(StatusCode::UNPROCESSABLE_ENTITY, chain(&error).to_string()),
        ApplyError::State(_) | ApplyError::Failed(_) => {
            Failure(StatusCode::SERVICE_UNAVAILABLE, chain(&error).to_string())
        }
    })?;
    for (identity, change) in changes {
        control.clients.send_desired(&identity, change.version, &change.patch);
    }
    let Some(wait) = query.wait else { return Ok(Json(json!({"version": version, "settled": false}))) };
    let wait = Duration::from_secs(wait).min(WAIT_MAX);
    let mut reconciler = control.reconciler.clone();
    let is_settled = |status: &ReconcilerStatus| status.version == Some(version) && status.is_settled;
    match tokio::time::timeout(wait, reconciler.wait_for(is_settled)).await {
        Ok(Ok(_)) => Ok(Json(json!({"version": version, "settled": true}))),
        Ok(Err(_)) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".into())),
        Err(_) => {
            let status = control.reconciler.borrow().clone();
            Err(Failure(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "not all modules run after {} s: {}\n{}",
                    wait.as_secs(),
                    status.outcome.description,
                    status.plan
                ),
            ))
        }
    }
}

#[derive(Deserialize)]
struct Call {
    /// A module of this gateway, or `device/…` for a leaf device.
    target: String,
    #[serde(flatten)]
    request: MethodRequest,
}

async fn call(State(control): State<Arc<Control>>, Json(call): Json<Call>) -> Result<Json<Value>, Failure> {
    let target = match call.target.strip_prefix("device/") {
        Some(device) => device.parse().map(Identity::device),
        None => call.target.parse().map(|module| Identity::module(control.gateway.clone(), module)),
    };
    let target =
        target.map_err(|error| Failure(StatusCode::UNPROCESSABLE_ENTITY, format!("target: {error}")))?;
    shallow(&call.request.payload)?;
    match control.commands.call(&target, &call.request).await {
        Ok(response) => Ok(Json(json!(response))),
        Err(failure @ MethodFailure::NotConnected { .. }) => {
            Err(Failure(StatusCode::NOT_FOUND, failure.to_string()))
        }
        Err(failure) => Err(Failure(StatusCode::GATEWAY_TIMEOUT, failure.to_string())),
    }
}
