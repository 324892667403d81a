//! One HTTPS connection of the server: an upgrade to MQTT over WebSocket, or one request to the program's own API.
//!
//! Every wait of such a connection has an end: the handshake and the request's head by the connect timeout, everything
//! else by [`REQUEST_MAX`]. One connection carries one request, so that an idle client holds no slot; the SDKs open one
//! per call anyway.

use edge_core::error_chain::chain;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::{Router, response::IntoResponse as _};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use mqtt::websocket::{self, WebSocket};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::connection_slots::ConnectionSlot;
use crate::http_server::{Ended, RequestTimes, one_request};
use crate::mqtt_server::MqttServer;
use crate::sanitized::Sanitized;
use crate::service::{ClientCert, Service, Transport};
use crate::session;

/// From accepting a connection to the last byte of its answer: a method call may wait 300 s for its target to connect and
/// 300 s for the answer (IoT Hub's limits).
const REQUEST_MAX: Duration = Duration::from_secs(630);

/// Where MQTT over WebSocket is served: the usual path, and IoT Hub's.
const WEBSOCKET_PATHS: [&str; 3] = ["/mqtt", "/$iothub/websocket", "/%24iothub/websocket"];

type Tls = TlsStream<TcpStream>;

/// Who sends a request, as far as the connection tells. An extension of each request that the API gets.
#[derive(Clone)]
pub struct Caller {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What it showed in its TLS handshake.
    pub client_cert: Option<ClientCert>,
    pub(crate) slot: Arc<ConnectionSlot>,
}

impl Caller {
    /// The request was proven to come from somebody who may send it: its connection is not closed for others any more.
    pub fn has_proven(&self) {
        // One that is beyond the bound keeps its unproven slot.
        let _ = self.slot.prove(false);
    }
}

/// Serves a connection: its request, then the session that it was upgraded to.
pub(crate) async fn hold<S: Service>(
    server: Arc<MqttServer<S>>,
    stream: Tls,
    caller: Caller,
    api: Router,
    deadline: Instant,
    stop: CancellationToken,
) {
    let peer = caller.peer;
    let upgrade = Arc::new(Mutex::new(None));
    // Boxed: the future of a session that lasts for months must not keep this one's memory.
    let serving = Box::pin(serve(&server, stream, caller.clone(), api, upgrade.clone(), deadline, &stop));
    tokio::select! {
        () = serving => {}
        () = caller.slot.evicted() => return server.evicted(peer),
    }
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(upgrade) = upgrade else { return };
    match tokio::time::timeout_at(deadline, opened(upgrade)).await {
        Ok(Some((stream, ahead))) => {
            let stream = WebSocket::new(stream, ahead);
            let transport = Transport::Tls(caller.client_cert);
            session::hold(server, stream, peer, transport, caller.slot, deadline, stop).await;
        }
        Ok(None) | Err(_) => debug!(%peer, "connection ended before its WebSocket was open"),
    }
}

/// The connection under an upgrade that was answered, and what was read of it already.
async fn opened(upgrade: OnUpgrade) -> Option<(Tls, Bytes)> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Tls>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

async fn serve<S: Service>(
    server: &MqttServer<S>,
    stream: Tls,
    caller: Caller,
    api: Router,
    upgrade: Arc<Mutex<Option<OnUpgrade>>>,
    deadline: Instant,
    stop: &CancellationToken,
) {
    let peer = caller.peer;
    let api = TowerToHyperService::new(api);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let answered = if WEBSOCKET_PATHS.contains(&request.uri().path()) {
            Err(upgraded(&mut request, &upgrade, peer))
        } else {
            request.extensions_mut().insert(caller.clone());
            Ok(api.call(request))
        };
        async move {
            match answered {
                Ok(answer) => answer.await,
                Err(response) => Ok(response),
            }
        }
    });
    let times = RequestTimes {
        head: deadline.saturating_duration_since(Instant::now()),
        request: REQUEST_MAX,
        finish: server.settings.finish_timeout,
    };
    match one_request(stream, service, &times, stop).await {
        Ended::Answered => {}
        Ended::Failed(error) => debug!(%peer, error = %chain(&error), "HTTPS connection ended"),
        Ended::TookTooLong => warn!(%peer, "request cut: it took too long"),
        Ended::Stopped => info!(%peer, "request cut: the server stops"),
    }
}

/// The answer to a request on a WebSocket's path. One that is upgraded is put into `upgrade`.
fn upgraded(
    request: &mut Request<Incoming>,
    upgrade: &Mutex<Option<OnUpgrade>>,
    peer: SocketAddr,
) -> Response<Body> {
    match websocket::accept(request, Body::empty) {
        Ok(response) => {
            *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(request));
            response
        }
        Err(error) => {
            let why = error.to_string();
            warn!(%peer, "connection refused: no WebSocket for MQTT: {}", Sanitized(&why));
            let body = serde_json::json!({ "message": why }).to_string();
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
    }
}
