//! The daemon's control socket: HTTP over the socket `DATA_DIR/edge-agent.sock`, which the command line speaks.
//!
//! Who may open the socket may command the gateway: it belongs to the daemon's user alone (mode 0600).

mod call;
pub mod client;
pub mod context;
mod deployment;
mod devices;
mod facts;
mod failure;
mod identities;
mod modules;
mod quarantine;
pub mod socket;
mod status;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{delete, get, post};
use edge_hub::http_server::{HttpLimits, HttpServer};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use self::context::Control;
use self::deployment::WAIT_MAX;

/// A manifest may be this large. Azure's limit is 32 KB; ours is what an operator could still read.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Command lines that are answered at once, which the daemon's file budget reserves.
pub(crate) const CONNECTIONS_MAX: usize = 16;

/// Serves until `stop`.
pub async fn serve(control: Arc<Control>, listener: UnixListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/status", get(status::status))
        .route("/facts", get(facts::facts))
        .route("/refusals", get(facts::refusals))
        .route("/apply", post(deployment::apply))
        .route("/deployment", get(deployment::sections))
        .route("/history", get(deployment::history))
        .route("/rollback", post(deployment::rollback))
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
        .route("/call", post(call::call))
        .route("/modules/{module}/restart", post(modules::restart))
        .route("/modules/{module}/log", get(modules::log))
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
