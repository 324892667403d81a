//! `/api/ext/connection` and `/api/ext/devices/{device_id}/join`: what devices and gateways connect with, for who sets them up.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{OfDevice, StrictPath};
use crate::config::Config;
use crate::enrollment::service::Enrollment;
use crate::error::{ServiceError, no_device};
use crate::join;
use crate::store::Store;
use crate::store::devices;

/// Where devices connect.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionBody {
    /// In central's certificate, and what devices sign their tokens for.
    hostname: String,
    /// MQTT over TLS.
    mqtts_port: u16,
    /// MQTT over WebSocket; null when it is off.
    wss_port: Option<u16>,
    /// For devices that enrol themselves.
    id_scope: String,
    /// The certificate authority that devices trust, PEM; null when central's certificate is of another authority (`[tls] cert`).
    ca_pem: Option<String>,
}

/// Where devices connect, and which certificate authority they trust there.
#[utoipa::path(get, path = "/api/ext/connection", tag = "ext", security(("token" = [])),
    responses((status = 200, body = ConnectionBody)))]
pub(super) async fn get(
    State(enrollment): State<Arc<Enrollment>>,
    Extension(config): Extension<Arc<Config>>,
) -> Json<ConnectionBody> {
    let ca_pem = match config.tls.cert {
        None => tokio::fs::read_to_string(config.data_dir.join("ca.pem")).await.ok(),
        Some(_) => None,
    };
    Json(ConnectionBody {
        hostname: config.hostname.clone(),
        mqtts_port: config.mqtt.mqtts.port(),
        wss_port: config.mqtt.wss.map(|address| address.port()),
        id_scope: enrollment.id_scope().to_owned(),
        ca_pem,
    })
}

/// The line of a gateway.
#[derive(Serialize, ToSchema)]
pub(super) struct JoinBody {
    /// For `edge-agent init --join`. It holds the gateway's key.
    line: String,
}

/// The line that joins a gateway to this site, as `central gateway add` prints it.
#[utoipa::path(post, path = "/api/ext/devices/{device_id}/join", tag = "ext", params(OfDevice), security(("token" = [])),
    responses((status = 200, body = JoinBody), (status = 404, body = ErrorBody),
        (status = 409, description = "it is no gateway, or has no key, or devices trust another authority", body = ErrorBody)))]
pub(super) async fn join(
    State(store): State<Store>,
    Extension(config): Extension<Arc<Config>>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<JoinBody>> {
    let read = move |c: &rusqlite::Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        if !device.is_gateway {
            return Err(ServiceError::Conflict(format!("device `{}` is no gateway", device.id)));
        }
        Ok(device)
    };
    let gateway = store.read(read).await?;
    // Reads the authority's file.
    let made = tokio::task::spawn_blocking(move || join::join_token(&config, &gateway, None)).await;
    let join_token = made
        .map_err(|_| ApiError::internal("making the line ended by itself"))?
        .map_err(|error| ApiError::conflict(format!("{error:#}")))?;
    Ok(Json(JoinBody { line: join_token.to_string() }))
}
