//! Registering a device that enrols itself, and the status of its registration, within one transaction.

use rusqlite::Connection;
use schemas::names::DeviceId;
use schemas::provisioning::{Enrolment, EnrolmentAnswer, RETRY_AFTER_SECS};
use schemas::timestamp::rfc3339;
use serde_json::json;

use super::evidence::Evidence;
use super::placement::place;
use super::proving::{Given, Proven, Site, Source, prove};
use crate::access::admission::NotAdmitted;
use crate::access::authorize::end_claim;
use crate::error::ServiceError;
use crate::new_device::new_device;
use crate::store::devices::{self, Device, X509};
use crate::store::enrollments::{self, EnrollmentRecord};

/// How long a registration is under way while its device waits for approval.
pub(super) const APPROVAL_WAIT_MS: u64 = 10 * 60 * 1000;

pub(super) fn assigning(operation_id: &str) -> EnrolmentAnswer {
    EnrolmentAnswer {
        status: 202,
        retry_after: Some(RETRY_AFTER_SECS),
        body: json!({"operationId": operation_id, "status": "assigning"}),
    }
}

/// A device that was registered.
pub(super) struct Registered {
    pub(super) operation_id: String,
    pub(super) device: Device,
    /// Those whose devices are others now.
    pub(super) gateways: Vec<DeviceId>,
}

pub(super) fn register(
    c: &Connection,
    shown: &Enrolment,
    site: &Site,
    via: Option<&DeviceId>,
) -> Result<Registered, ServiceError> {
    let (id, now_ms) = (&shown.registration_id, site.now_ms);
    let Proven { source, evidence, .. } = prove(c, shown, site, via)?;
    let mut stored = devices::get(c, id)?;
    let mut claimant = None;
    if let Some(claim) = stored.take_if(|device| device.is_claim) {
        claimant = claim.gateway.clone();
        stored = Some(end_claim(c, claim)?);
    }
    let (group, device) = match source {
        Source::Own => (String::new(), stored.clone()),
        Source::Group { id: group, is_edge, auto_approve, given } => {
            // A registered device stays what it is, whatever its group says now.
            let is_gateway = stored.as_ref().filter(|device| device.revision > 0);
            let is_gateway = is_gateway.map_or(is_edge, |device| device.is_gateway);
            let device = stored.clone().unwrap_or_else(|| new_device(id.clone()));
            // Once approved a device stays so, whatever its group asks of later ones.
            let is_waiting = if device.revision == 0 { !auto_approve } else { device.is_waiting };
            let (keys, x509) = match given {
                Given::Keys(keys) => (Some(keys), None),
                Given::Certificate(thumbprint) => {
                    let x509 = X509 { primary: Some(thumbprint.to_string()), ..X509::default() };
                    (device.keys, Some(x509))
                }
            };
            (group, Some(Device { keys, x509, endorsement_key: None, is_gateway, is_waiting, ..device }))
        }
    };
    let mut device =
        device.ok_or_else(|| ServiceError::Stopping(format!("`{id}` was deleted while it enrolled")))?;
    if via.is_some() && device.is_gateway {
        return Err(ServiceError::Wrong(format!(
            "gateway `{id}` enrols at central, not through another gateway"
        )));
    }
    // What an operator registered of it stays as it is.
    if !group.is_empty() {
        device.revision = devices::put(c, &device)?;
    }
    let before = enrollments::enrollment(c, id)?;
    let token_ends_at = before.as_ref().map_or(0, |before| before.token_ends_at);
    let enrollment = EnrollmentRecord {
        group,
        is_group_deleted: false,
        operation_id: format!("{}.{}", site.id_scope, uuid::Uuid::new_v4()),
        // What central has checked itself once, no claim of a gateway takes back (decision 0023).
        is_bound: evidence != Evidence::GatewayClaim || before.as_ref().is_some_and(|before| before.is_bound),
        token_ends_at: match evidence {
            // The newest end that was ever shown: an older token that is sent again moves nobody (decision 0023).
            Evidence::Token { ends_at } => ends_at.max(token_ends_at),
            Evidence::Handshake | Evidence::GatewayClaim => token_ends_at,
        },
        created_ms: before.as_ref().map_or(now_ms, |before| before.created_ms),
        updated_ms: now_ms,
    };
    enrollments::put_enrollment(c, id, &enrollment)?;
    let mut gateways = place(c, &device, via, before.as_ref(), evidence)?;
    gateways.extend(claimant.filter(|claimant| Some(claimant) != via));
    Ok(Registered { operation_id: enrollment.operation_id, device, gateways })
}

pub(super) fn status(
    c: &Connection,
    id: &DeviceId,
    operation_id: &str,
    hub: &str,
    now_ms: u64,
) -> Result<EnrolmentAnswer, ServiceError> {
    let unknown =
        || ServiceError::NotFound(format!("operation `{operation_id}` is not known; register again"));
    let enrollment = enrollments::enrollment(c, id)?.filter(|e| e.operation_id == operation_id);
    let enrollment = enrollment.ok_or_else(unknown)?;
    let device = devices::get(c, id)?.ok_or_else(unknown)?;
    if let Err(why) = device.admission().check() {
        // An operator who is there approves it within minutes; a device that nobody attends to must not hold a place
        // among those that enrol for hours. Its program registers again, as with IoT Central, which does not let it wait at all.
        return if why == NotAdmitted::Waiting
            && now_ms.saturating_sub(enrollment.updated_ms) < APPROVAL_WAIT_MS
        {
            Ok(assigning(operation_id))
        } else {
            Err(ServiceError::NotApproved(format!("`{id}`: {why}")))
        };
    }
    let body = json!({
        "operationId": operation_id,
        "status": "assigned",
        "registrationState": {
            "registrationId": id,
            "createdDateTimeUtc": rfc3339(enrollment.created_ms),
            "assignedHub": hub,
            "deviceId": id,
            "status": "assigned",
            "substatus": "initialAssignment",
            "lastUpdatedDateTimeUtc": rfc3339(enrollment.updated_ms),
            "etag": device.etag(),
        },
    });
    Ok(EnrolmentAnswer { status: 200, retry_after: None, body })
}
