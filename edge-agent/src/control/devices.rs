//! The control socket's leaf devices: added, shown, blocked, removed.

use edge_core::error_chain::chain;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::attestation::Attestation;
use edge_core::access::sas;
use edge_core::access::thumbprint::{Thumbprint, ThumbprintError};
use schemas::connection_string::ConnectionString;
use schemas::names::{DeviceId, Identity};
use schemas::timestamp::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};

use super::context::Control;
use super::failure::Failure;
use super::identities::{read_id, unfinished, wrong};
use super::users::new_user;
use crate::access::devices::{DeviceError, Leaf};
use crate::clock::now_ms;

fn kind(attestation: &Attestation) -> &'static str {
    match attestation {
        Attestation::Keys(_) => "symmetricKey",
        Attestation::Thumbprints(_) => "x509Thumbprint",
        Attestation::Authority => "x509Ca",
    }
}

fn shown(control: &Control, id: &DeviceId, leaf: &Leaf) -> Value {
    let is_connected = control.clients.is_connected(&Identity::device(id.clone()));
    json!({
        "id": id,
        "addedHere": leaf.is_local,
        "connected": is_connected,
        "attestation": kind(&leaf.attestation),
        "enabled": leaf.blocked().is_none(),
        "blockedHere": leaf.is_blocked_here,
    })
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<Value> {
    let list = control.authorizer.devices.list();
    let devices: Vec<Value> = list.iter().map(|(id, leaf)| shown(&control, id, leaf)).collect();
    Json(json!({"devices": devices}))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let id = read_id(&id)?;
    let leaf = known(&control, &id)?;
    let identity = Identity::device(id.clone());
    let mut answer = shown(&control, &id, &leaf);
    let since_ms = control.clients.connected().into_iter().find(|(who, _)| *who == identity);
    answer["since"] = json!(since_ms.map(|(_, since_ms)| rfc3339(since_ms)));
    if let Attestation::Thumbprints(thumbprints) = &leaf.attestation {
        answer["thumbprints"] = thumbprints.iter().map(ToString::to_string).collect();
    }
    let users = control.authorizer.users.list();
    let its_own = users.into_iter().filter(|(_, user)| user.device.as_ref() == Some(&id));
    answer["users"] = its_own.map(|(name, _)| name.to_string()).collect();
    Ok(Json(answer))
}

fn known(control: &Control, id: &DeviceId) -> Result<Leaf, Failure> {
    control.authorizer.devices.get(id).ok_or_else(|| failure(DeviceError::Nobody(id.clone())))
}

/// How a new device shall prove itself: at most one of these; a key of its own when none is given.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewDevice {
    id: String,
    /// Base64.
    key: Option<String>,
    /// One or two, SHA-1 or SHA-256.
    #[serde(default)]
    x509_thumbprints: Vec<String>,
    #[serde(default)]
    x509_ca: bool,
    /// Whether a local user of its name is made that may publish its telemetry.
    #[serde(default)]
    password: bool,
}

impl NewDevice {
    fn attestation(&self) -> Result<Attestation, Failure> {
        let given = [self.key.is_some(), !self.x509_thumbprints.is_empty(), self.x509_ca];
        if given.iter().filter(|is_given| **is_given).count() > 1 {
            return Err(wrong(
                "give one of a key, thumbprints and x509-ca: a device proves itself in one way".into(),
            ));
        }
        if self.x509_ca {
            return Ok(Attestation::Authority);
        }
        if self.x509_thumbprints.len() > 2 {
            return Err(wrong("thumbprints: a device has a primary and a secondary one".into()));
        }
        if !self.x509_thumbprints.is_empty() {
            let parse = |text: &String| {
                text.parse().map_err(|error: ThumbprintError| wrong(format!("thumbprint: {error}")))
            };
            let thumbprints: Result<Vec<Thumbprint>, Failure> =
                self.x509_thumbprints.iter().map(parse).collect();
            return thumbprints.map(Attestation::Thumbprints);
        }
        match &self.key {
            None => Ok(Attestation::Keys(vec![rand::random::<[u8; 32]>().to_vec()])),
            Some(text) => match STANDARD.decode(text) {
                // The bounds are IoT Hub's for symmetric keys.
                Ok(key) if (16..=64).contains(&key.len()) => Ok(Attestation::Keys(vec![key])),
                _ => Err(wrong("key: it must be base64 of 16 to 64 bytes".into())),
            },
        }
    }
}

pub(super) async fn add(
    State(control): State<Arc<Control>>,
    Json(new): Json<NewDevice>,
) -> Result<Json<Value>, Failure> {
    let id = read_id(&new.id)?;
    if id == control.gateway {
        return Err(wrong(format!("device id: {id} is this gateway's own")));
    }
    let attestation = new.attestation()?;
    if new.password {
        // Looked at before anything is written.
        super::users::check_name(&control, &new.id)?;
    }
    control.authorizer.removals.finish().await.map_err(unfinished)?;
    let earlier = control.authorizer.removals.generations().highest(&Identity::device(id.clone()));
    control.authorizer.devices.add(id.clone(), &attestation, earlier).await.map_err(failure)?;
    tracing::info!(device = %id, attestation = kind(&attestation), "leaf device added");
    let mut answer = json!({
        "id": id,
        "attestation": kind(&attestation),
        "hostName": control.hub_name,
        "gatewayHostName": control.hostname,
        "connectionString": connection_string(&control, &id, &attestation),
    });
    if new.password {
        answer["user"] = new_user(&control, &new.id, None, Some(id)).await?;
    }
    Ok(Json(answer))
}

/// What an Azure SDK takes. One with a certificate is told so, and reads the certificate from its program.
fn connection_string(control: &Control, id: &DeviceId, attestation: &Attestation) -> String {
    match attestation {
        Attestation::Keys(keys) => ConnectionString {
            host_name: control.hub_name.clone(),
            device_id: id.clone(),
            module_id: None,
            shared_access_key: keys.first().cloned().unwrap_or_default(),
            gateway_host_name: Some(control.hostname.clone()),
        }
        .to_string(),
        Attestation::Thumbprints(_) | Attestation::Authority => {
            format!(
                "HostName={};DeviceId={id};x509=true;GatewayHostName={}",
                control.hub_name, control.hostname
            )
        }
    }
}

pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let id = read_id(&id)?;
    let removal = control.authorizer.removals.begin().await;
    if !control.authorizer.devices.is_added(&id) {
        return Err(failure(DeviceError::Unknown(id)));
    }
    let users = control.authorizer.users.of(&id);
    removal.note_devices([(id.clone(), control.authorizer.devices.generation(&id))]);
    let removed = control.authorizer.devices.remove(&id).await;
    control.authorizer.review();
    removed.map_err(failure)?;
    removal.finish().await.map_err(unfinished)?;
    tracing::info!(device = %id, "leaf device removed");
    let users: Vec<String> = users.iter().map(ToString::to_string).collect();
    Ok(Json(json!({"users": users})))
}

pub(super) async fn block(control: State<Arc<Control>>, id: Path<String>) -> Result<Json<Value>, Failure> {
    set_blocked(control, id, true).await
}

pub(super) async fn unblock(control: State<Arc<Control>>, id: Path<String>) -> Result<Json<Value>, Failure> {
    set_blocked(control, id, false).await
}

async fn set_blocked(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
    is_blocked: bool,
) -> Result<Json<Value>, Failure> {
    let id = read_id(&id)?;
    let saved = control.authorizer.devices.block(&id, is_blocked).map_err(failure)?;
    // Before the disk has it: who is blocked is out now.
    control.authorizer.review();
    tracing::info!(device = %id, is_blocked, "leaf device blocked or unblocked on this gateway");
    saved.durable().await.map_err(|error| failure(error.into()))?;
    match control.authorizer.devices.get(&id) {
        Some(leaf) => Ok(Json(shown(&control, &id, &leaf))),
        None => Ok(Json(json!({"id": id, "blockedHere": is_blocked}))),
    }
}

#[derive(Deserialize)]
pub(super) struct TokenQuery {
    valid: u64,
}

/// A SAS token for clients that cannot make one.
pub(super) async fn token(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
    Query(query): Query<TokenQuery>,
) -> Result<Json<Value>, Failure> {
    let id = read_id(&id)?;
    let leaf = known(&control, &id)?;
    let Attestation::Keys(keys) = &leaf.attestation else {
        return Err(Failure(
            StatusCode::CONFLICT,
            format!("device {id} has no key: it proves itself by certificate"),
        ));
    };
    let no_key = || Failure(StatusCode::CONFLICT, format!("device {id} has no key"));
    let key = keys.first().ok_or_else(no_key)?;
    let expires_at = (now_ms() / 1000).saturating_add(query.valid);
    let identity = Identity::device(id);
    let user_name = format!("{}/{identity}/?api-version=2021-04-12", control.hub_name);
    let token = sas::token(&control.hub_name, &identity, key, expires_at);
    Ok(Json(json!({"clientId": identity.to_string(), "userName": user_name, "password": token})))
}

fn failure(error: DeviceError) -> Failure {
    let status = match error {
        DeviceError::Exists(_) | DeviceError::Full | DeviceError::BlockedFull => StatusCode::CONFLICT,
        DeviceError::Unknown(_) | DeviceError::Nobody(_) => StatusCode::NOT_FOUND,
        DeviceError::State(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure(status, chain(&error).to_string())
}
