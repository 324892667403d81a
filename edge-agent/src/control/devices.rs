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
use schemas::control::{
    AddedLeafDevice, BlockAnswer, DeviceLogin, LeafDevice, LeafDeviceDetails, LeafDeviceList, NewLeafDevice,
    RemovedLeafDevice, UnknownDevice,
};
use schemas::names::{DeviceId, Identity};
use schemas::timestamp::rfc3339;
use serde::Deserialize;

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

fn shown(control: &Control, id: &DeviceId, leaf: &Leaf) -> LeafDevice {
    LeafDevice {
        id: id.to_string(),
        added_here: leaf.is_local,
        connected: control.clients.is_connected(&Identity::device(id.clone())),
        attestation: kind(&leaf.attestation).to_owned(),
        enabled: leaf.blocked().is_none(),
        blocked_here: leaf.is_blocked_here,
    }
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<LeafDeviceList> {
    let list = control.authorizer.devices.list();
    Json(LeafDeviceList { devices: list.iter().map(|(id, leaf)| shown(&control, id, leaf)).collect() })
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
) -> Result<Json<LeafDeviceDetails>, Failure> {
    let id = read_id(&id)?;
    let leaf = known(&control, &id)?;
    let identity = Identity::device(id.clone());
    let connected = control.clients.connected().into_iter().find(|(who, _)| *who == identity);
    let thumbprints = match &leaf.attestation {
        Attestation::Thumbprints(thumbprints) => thumbprints.iter().map(ToString::to_string).collect(),
        Attestation::Keys(_) | Attestation::Authority => Vec::new(),
    };
    let users = control.authorizer.users.list();
    let its_own = users.into_iter().filter(|(_, user)| user.device.as_ref() == Some(&id));
    Ok(Json(LeafDeviceDetails {
        device: shown(&control, &id, &leaf),
        since: connected.map(|(_, since_ms)| rfc3339(since_ms)),
        thumbprints,
        users: its_own.map(|(name, _)| name.to_string()).collect(),
    }))
}

fn known(control: &Control, id: &DeviceId) -> Result<Leaf, Failure> {
    control.authorizer.devices.get(id).ok_or_else(|| failure(DeviceError::Nobody(id.clone())))
}

fn attestation(new: &NewLeafDevice) -> Result<Attestation, Failure> {
    let given = [new.key.is_some(), !new.x509_thumbprints.is_empty(), new.x509_ca];
    if given.iter().filter(|is_given| **is_given).count() > 1 {
        return Err(wrong(
            "give one of a key, thumbprints and x509-ca: a device proves itself in one way".into(),
        ));
    }
    if new.x509_ca {
        return Ok(Attestation::Authority);
    }
    if new.x509_thumbprints.len() > 2 {
        return Err(wrong("thumbprints: a device has a primary and a secondary one".into()));
    }
    if !new.x509_thumbprints.is_empty() {
        let parse = |text: &String| {
            text.parse().map_err(|error: ThumbprintError| wrong(format!("thumbprint: {error}")))
        };
        let thumbprints: Result<Vec<Thumbprint>, Failure> = new.x509_thumbprints.iter().map(parse).collect();
        return thumbprints.map(Attestation::Thumbprints);
    }
    match &new.key {
        None => Ok(Attestation::Keys(vec![rand::random::<[u8; 32]>().to_vec()])),
        Some(text) => match STANDARD.decode(text) {
            // The bounds are IoT Hub's for symmetric keys.
            Ok(key) if (16..=64).contains(&key.len()) => Ok(Attestation::Keys(vec![key])),
            _ => Err(wrong("key: it must be base64 of 16 to 64 bytes".into())),
        },
    }
}

pub(super) async fn add(
    State(control): State<Arc<Control>>,
    Json(new): Json<NewLeafDevice>,
) -> Result<Json<AddedLeafDevice>, Failure> {
    let id = read_id(&new.id)?;
    if id == control.gateway {
        return Err(wrong(format!("device id: {id} is this gateway's own")));
    }
    let attestation = attestation(&new)?;
    if new.password {
        // Looked at before anything is written.
        super::users::check_name(&control, &new.id)?;
    }
    control.authorizer.removals.finish().await.map_err(unfinished)?;
    let earlier = control.authorizer.removals.generations().highest(&Identity::device(id.clone()));
    control.authorizer.devices.add(id.clone(), &attestation, earlier).await.map_err(failure)?;
    tracing::info!(device = %id, attestation = kind(&attestation), "leaf device added");
    let connection_string = connection_string(&control, &id, &attestation);
    let user =
        if new.password { Some(new_user(&control, &new.id, None, Some(id.clone())).await?) } else { None };
    Ok(Json(AddedLeafDevice {
        id: id.into(),
        attestation: kind(&attestation).to_owned(),
        host_name: control.hub_name.clone(),
        gateway_host_name: control.hostname.clone(),
        connection_string,
        user,
    }))
}

/// What an Azure SDK takes. One with a certificate gets a text that says so, and reads the certificate from its program.
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
) -> Result<Json<RemovedLeafDevice>, Failure> {
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
    Ok(Json(RemovedLeafDevice { users: users.iter().map(ToString::to_string).collect() }))
}

pub(super) async fn block(
    control: State<Arc<Control>>,
    id: Path<String>,
) -> Result<Json<BlockAnswer>, Failure> {
    set_blocked(control, id, true).await
}

pub(super) async fn unblock(
    control: State<Arc<Control>>,
    id: Path<String>,
) -> Result<Json<BlockAnswer>, Failure> {
    set_blocked(control, id, false).await
}

async fn set_blocked(
    State(control): State<Arc<Control>>,
    Path(id): Path<String>,
    is_blocked: bool,
) -> Result<Json<BlockAnswer>, Failure> {
    let id = read_id(&id)?;
    let saved = control.authorizer.devices.block(&id, is_blocked).map_err(failure)?;
    // Before the disk has it: who is blocked is out now.
    control.authorizer.review();
    tracing::info!(device = %id, is_blocked, "leaf device blocked or unblocked on this gateway");
    saved.durable().await.map_err(|error| failure(error.into()))?;
    match control.authorizer.devices.get(&id) {
        Some(leaf) => Ok(Json(BlockAnswer::Known(shown(&control, &id, &leaf)))),
        None => Ok(Json(BlockAnswer::Unknown(UnknownDevice { id: id.into(), blocked_here: is_blocked }))),
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
) -> Result<Json<DeviceLogin>, Failure> {
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
    let password = sas::token(&control.hub_name, &identity, key, expires_at);
    Ok(Json(DeviceLogin { client_id: identity.to_string(), user_name, password }))
}

fn failure(error: DeviceError) -> Failure {
    let status = match error {
        DeviceError::Exists(_) | DeviceError::Full | DeviceError::BlockedFull => StatusCode::CONFLICT,
        DeviceError::Unknown(_) | DeviceError::Nobody(_) => StatusCode::NOT_FOUND,
        DeviceError::State(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure(status, chain(&error).to_string())
}
