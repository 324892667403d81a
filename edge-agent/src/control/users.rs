//! The control socket's MQTT users: added, listed, removed.

use edge_core::error_chain::chain;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::control::{AddedUser, LocalUser, NewUser, UserList};
use schemas::names::{DeviceId, Identity, UserName};
use serde_json::{Value, json};

use super::context::Control;
use super::failure::Failure;
use super::identities::{read_id, unfinished};
use crate::access::users::{User, UserError};

/// The shortest password that is taken. A made one has 24 characters.
const PASSWORD_BYTES_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1024;

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<UserList> {
    let connected = control.clients.connected();
    let connections = |name: &UserName| {
        connected.iter().filter(|(who, _)| who.user_name().as_ref() == Some(name)).count() as u64
    };
    let user = |name: &UserName, device: Option<DeviceId>, anonymous| LocalUser {
        name: name.to_string(),
        device: device.map(String::from),
        anonymous,
        connections: connections(name),
    };
    let users = control.authorizer.users.list();
    let mut users: Vec<LocalUser> =
        users.into_iter().map(|(name, of)| user(&name, of.device.clone(), false)).collect();
    users.extend(control.authorizer.users.anonymous().map(|name| user(name, None, true)));
    Json(UserList { users })
}

pub(super) async fn add(
    State(control): State<Arc<Control>>,
    Json(new): Json<NewUser>,
) -> Result<Json<AddedUser>, Failure> {
    let device = new.device.as_deref().map(read_id).transpose()?;
    if let Some(device) = &device
        && control.authorizer.devices.get(device).is_none()
    {
        let message = format!("device {device} is not known here; `edge-agent device list` shows who is");
        return Err(Failure(StatusCode::NOT_FOUND, message));
    }
    Ok(Json(new_user(&control, &new.name, new.password, device).await?))
}

fn read_name(name: &str) -> Result<UserName, Failure> {
    name.parse().map_err(|error| Failure(StatusCode::UNPROCESSABLE_ENTITY, format!("user name: {error}")))
}

/// Makes sure that a user of this name can be made.
pub(super) fn check_name(control: &Control, name: &str) -> Result<(), Failure> {
    let name = read_name(name)?;
    match control.authorizer.users.get(&name) {
        None => Ok(()),
        Some(_) if control.authorizer.users.anonymous() == Some(&name) => {
            Err(failure(UserError::Anonymous(name)))
        }
        Some(_) => Err(failure(UserError::Exists(name))),
    }
}

/// Adds a user; gives its name and, if it was generated here, its password, which is shown only once.
pub(super) async fn new_user(
    control: &Control,
    name: &str,
    given: Option<String>,
    device: Option<DeviceId>,
) -> Result<AddedUser, Failure> {
    let name = read_name(name)?;
    let made = given.is_none();
    let password = given.unwrap_or_else(|| URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>()));
    if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        let message = format!("password: it must have {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes");
        return Err(Failure(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let hash = control
        .passwords
        .hash(&password)
        .await
        .map_err(|error| Failure(StatusCode::SERVICE_UNAVAILABLE, chain(&error).to_string()))?;
    control.authorizer.removals.finish().await.map_err(unfinished)?;
    control
        .authorizer
        .users
        .add(name.clone(), User { hash, device: device.clone() })
        .await
        .map_err(failure)?;
    tracing::info!(user = %name, device = ?device, "user added");
    Ok(AddedUser {
        name: name.to_string(),
        device: device.map(String::from),
        gateway_host_name: control.hostname.clone(),
        password: made.then_some(password),
    })
}

pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    let name = read_name(&name)?;
    if control.authorizer.users.anonymous() == Some(&name) {
        return Err(failure(UserError::Anonymous(name)));
    }
    let removal = control.authorizer.removals.begin().await;
    if control.authorizer.users.get(&name).is_none() {
        return Err(failure(UserError::Unknown(name)));
    }
    removal.note([Identity::account(&name)]);
    control.passwords.forget(&name);
    control.authorizer.review();
    removal.finish().await.map_err(unfinished)?;
    tracing::info!(user = %name, "user removed");
    Ok(Json(json!({})))
}

fn failure(error: UserError) -> Failure {
    let status = match error {
        UserError::Exists(_) | UserError::Anonymous(_) | UserError::HasPassword(_) | UserError::Full => {
            StatusCode::CONFLICT
        }
        UserError::Unknown(_) => StatusCode::NOT_FOUND,
        UserError::State(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure(status, chain(&error).to_string())
}
