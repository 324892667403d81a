//! Look-ups that several services need: a device that must be registered, the modules of a gateway, its free places.

use std::collections::BTreeSet;

use rusqlite::Connection;
use schemas::link::CHILDREN_MAX;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::Value;

use crate::error::{ServiceError, no_device};
use crate::store::devices::{self, Device};
use crate::store::twins::{self, Half};

/// The device of an identity, which must be registered, and whose module must be known.
///
/// # Errors
/// [`ServiceError::NotFound`].
pub fn require(c: &Connection, of: &Identity) -> Result<Device, ServiceError> {
    let device = devices::get(c, &of.device)?.ok_or_else(|| no_device(&of.device))?;
    match &of.module {
        Some(module) if !modules(c, &of.device)?.contains(module) => Err(ServiceError::NotFound(format!(
            "gateway `{}` has no module `{module}`; assign a manifest that has it",
            of.device
        ))),
        _ => Ok(device),
    }
}

/// The modules of a gateway: those of its manifest, and those that have a twin. `$edgeAgent` and `$edgeHub` included.
///
/// # Errors
/// [`ServiceError::Store`].
pub fn modules(c: &Connection, gateway: &DeviceId) -> Result<BTreeSet<ModuleId>, ServiceError> {
    let agent = Identity::module(gateway.clone(), ModuleId::edge_agent());
    let desired = twins::section(c, &agent, Half::Desired)?.section.properties;
    let in_manifest = desired.get("modules").and_then(Value::as_object);
    let named =
        in_manifest.into_iter().flat_map(|modules| modules.keys()).filter_map(|name| name.parse().ok());
    Ok(twins::modules(c, gateway)?.into_iter().chain(named).collect())
}

/// Returns an error if a gateway has as many devices behind it as it may have.
///
/// # Errors
/// [`ServiceError::Wrong`].
pub(crate) fn check_capacity(c: &Connection, gateway: &DeviceId) -> Result<(), ServiceError> {
    match devices::children_count(c, gateway)? {
        count if count >= CHILDREN_MAX => Err(ServiceError::Wrong(format!(
            "target: gateway `{gateway}` has {count} devices behind it, which is the most that one may have"
        ))),
        _ => Ok(()),
    }
}
