//! Putting a device behind a gateway, and taking it from there, within one transaction.

use rusqlite::Connection;
use schemas::names::DeviceId;

use crate::access::authorize::adopt_claim;
use crate::error::{ServiceError, no_device, no_relationship};
use crate::lookup::check_capacity;
use crate::store::cloud_messages;
use crate::store::devices::{self};
use crate::store::relationships::{self, Relationship};

/// What an attachment ended.
pub(super) struct Attached {
    /// The gateway that had claimed the target.
    pub(super) claimant: Option<DeviceId>,
    /// The device that the relationship had before.
    pub(super) replaced: Option<DeviceId>,
}

/// As [`Registry::attach`].
///
/// [`Registry::attach`]: super::service::Registry::attach
pub(super) fn attach(c: &Connection, new: &Relationship) -> Result<Attached, ServiceError> {
    let gateway = devices::get(c, &new.source)?.ok_or_else(|| no_device(&new.source))?;
    let mut target = devices::get(c, &new.target)?.ok_or_else(|| no_device(&new.target))?;
    if !gateway.is_gateway {
        return Err(ServiceError::Wrong(format!(
            "source: device `{}` is not a gateway; register it with \"type\": [\"iotEdge\"]",
            gateway.id
        )));
    }
    if target.is_gateway {
        return Err(ServiceError::Wrong(format!("target: device `{}` is a gateway itself", target.id)));
    }
    let claimant = target.gateway.clone().filter(|_| target.is_claim);
    if target.is_claim {
        adopt_claim(c, &mut target)?;
    }
    let same = relationships::get(c, &new.source, &new.id)?;
    let is_attached = same.as_ref().is_some_and(|same| same.target == new.target);
    let replaced = same.map(|same| same.target).filter(|_| !is_attached);
    if let Some(other) = target.gateway.filter(|_| !is_attached) {
        return Err(ServiceError::Conflict(format!(
            "target: device `{}` is behind gateway `{other}`; delete that relationship first",
            target.id
        )));
    }
    check_capacity(c, &new.source)?;
    // Their gateway before drops the messages that it has taken, so they wait here again (decision 0024).
    for moved in replaced.iter().chain((!is_attached).then_some(&new.target)) {
        cloud_messages::taken_back(c, moved)?;
    }
    relationships::put(c, new)?;
    Ok(Attached { claimant, replaced })
}

/// Returns the relationship that ended.
pub(super) fn detach(c: &Connection, at: &DeviceId, id: &str) -> Result<Relationship, ServiceError> {
    let found = relationships::get_at(c, at, id)?.ok_or_else(|| no_relationship(at, id))?;
    relationships::delete(c, &found.source, id)?;
    cloud_messages::taken_back(c, &found.target)?;
    Ok(found)
}
