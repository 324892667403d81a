//! Whether a device that enrols itself may change the gateway that it is behind, and the change.
//!
//! | Is behind another gateway, or behind none | Token | Certificate, at central | Certificate, sent by a gateway |
//! |---|---|---|---|
//! | put there by an operator | no | stays there | no |
//! | never enrolled | yes | yes | yes |
//! | enrolled with a proof that central checked | with a newer token | yes | no |
//! | enrolled with a certificate that a gateway sent | with a newer token | yes | yes |
//!
//! A token passes through the gateway, which may keep and send it again; so one that was used already moves nobody. At central
//! a token leaves a device where an operator put it, too.

use rusqlite::Connection;
use schemas::names::DeviceId;

use crate::enrollment::evidence::Evidence;
use crate::error::ServiceError;
use crate::lookup::check_capacity;
use crate::store::cloud_messages;
use crate::store::devices::Device;
use crate::store::enrollments::EnrollmentRecord;
use crate::store::relationships::{self, Relationship};

/// Name of a relationship that an enrolment made.
const ENROLLED: &str = "enrolled through the gateway";

/// Returns the relationship that puts `device` behind its gateway.
fn relationship_of(c: &Connection, device: &Device) -> Result<Option<Relationship>, ServiceError> {
    let Some(gateway) = &device.gateway else { return Ok(None) };
    let found = relationships::list(c, gateway)?.into_iter().find(|found| found.target == device.id);
    Ok(found)
}

/// Returns true if an operator put `device` behind `gateway`.
pub(crate) fn is_behind_by_operator(
    c: &Connection,
    device: &Device,
    gateway: &DeviceId,
) -> Result<bool, ServiceError> {
    let found = relationship_of(c, device)?;
    Ok(!device.is_claim && found.is_some_and(|found| found.source == *gateway && found.name != ENROLLED))
}

/// Puts a device behind the gateway that it enrolled through, or takes it from behind the one where it enrolled before when it
/// enrols at central. Returns the gateways whose devices changed.
///
/// # Errors
/// [`ServiceError::Forbidden`] when the device may not move; [`ServiceError::Wrong`] if the gateway cannot have more devices.
pub(crate) fn place(
    c: &Connection,
    device: &Device,
    via: Option<&DeviceId>,
    before: Option<&EnrollmentRecord>,
    evidence: Evidence,
) -> Result<Vec<DeviceId>, ServiceError> {
    if device.gateway.as_ref() == via {
        return Ok(via.cloned().into_iter().collect());
    }
    let refused = |why: &str| {
        Err(ServiceError::Forbidden(format!(
            "`{}` may not enrol here: {why}; an operator can put it behind a gateway by a relationship",
            device.id
        )))
    };
    let stored = relationship_of(c, device)?;
    if let Some(stored) = stored.as_ref().filter(|stored| stored.name != ENROLLED) {
        return match via {
            Some(_) => refused(&format!("an operator put it behind gateway `{}`", stored.source)),
            None => Ok(Vec::new()),
        };
    }
    match (evidence, before) {
        (Evidence::Token { ends_at }, Some(before)) if ends_at <= before.token_ends_at => {
            return refused("its token is not newer than the one that it enrolled with elsewhere");
        }
        (Evidence::GatewayClaim, Some(before)) if before.is_bound => {
            return refused("it enrolled elsewhere, with a proof that central checked itself");
        }
        _ => {}
    }
    let mut changed = Vec::new();
    if let Some(stored) = stored {
        relationships::delete(c, &stored.source, &stored.id)?;
        // The gateway before drops the messages that it has taken, so they wait here again (decision 0024).
        cloud_messages::taken_back(c, &device.id)?;
        changed.push(stored.source);
    }
    if let Some(gateway) = via {
        put_behind(c, gateway, &device.id, ENROLLED)?;
        changed.push(gateway.clone());
    }
    Ok(changed)
}

/// Puts a device that is behind no gateway behind this one, by a new relationship.
///
/// # Errors
/// [`ServiceError::Wrong`] if the gateway cannot have more devices; [`ServiceError::Conflict`] when it has a relationship of that id, which is
/// another device's.
pub(crate) fn put_behind(
    c: &Connection,
    gateway: &DeviceId,
    device: &DeviceId,
    name: &str,
) -> Result<(), ServiceError> {
    check_capacity(c, gateway)?;
    let id = format!("to-{device}");
    if relationships::get(c, gateway, &id)?.is_some() {
        return Err(ServiceError::Conflict(format!(
            "gateway `{gateway}` has a relationship `{id}` to another device; delete it"
        )));
    }
    let (name, source, target) = (name.to_owned(), gateway.clone(), device.clone());
    Ok(relationships::put(c, &Relationship { id, name, source, target })?)
}
