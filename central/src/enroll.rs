//! A device that enrols itself: whether it may, what it is registered as, and which hub it is assigned to.
//!
//! A device that an operator registered has keys of its own, and only those enrol it: a group's key never takes over
//! somebody else's device. A device that came by a group comes again by that group only.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::enrolment;
use edge_core::access::proof::Mark;
use edge_hub::service::{Admitted, Refusal};
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};
use schemas::provisioning::{Enrolment, EnrolmentAnswer, RETRY_AFTER_SECS, Wish};
use schemas::timestamp::rfc3339;
use serde_json::json;

use crate::clock::now_ms;
use crate::fleet::{Fleet, FleetError, check_room, new_device};
use crate::store::cloud_messages;
use crate::store::devices::{self, Device, Keys, Relationship};
use crate::store::enrollments::{self, Enrollment, Group};

/// Groups of one site.
pub const GROUPS_MAX: u32 = 100;
/// The name of the relationship that enrolling through a gateway makes.
const ENROLLED: &str = "enrolled through the gateway";

/// By what a device may enrol.
enum Source {
    /// Keys of its own.
    Own,
    /// A group, with the keys derived from it.
    Group(Group, Keys),
}

impl Fleet {
    /// Lets a device in that enrols itself at central's own door.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn admit_enrolling(&self, enrolment: Enrolment) -> Result<Admitted, Refusal> {
        let (shown, scope, now_ms) = (enrolment.clone(), self.id_scope.clone(), now_ms());
        let proven = self.store.read(move |c| prove(c, &shown, &scope, now_ms / 1000)).await;
        let (_, proof) = proven.map_err(|error| match error {
            FleetError::Store(_) => Refusal::Unavailable(error.to_string()),
            error => Refusal::NotAuthorized(error.to_string()),
        })?;
        let identity = self.enrolling.enter(enrolment);
        let identity =
            identity.ok_or_else(|| Refusal::Unavailable("too many devices enrol at once".into()))?;
        Ok(Admitted { identity, proof: Default::default(), ends_at: Some(proof.ends_at()) })
    }

    /// Answers a device that enrols itself, at central's own door or through a gateway.
    pub(crate) async fn enroll(
        self: &Arc<Self>,
        enrolment: Enrolment,
        via: Option<DeviceId>,
    ) -> EnrolmentAnswer {
        let (scope, hub, now_ms) = (self.id_scope.clone(), self.hosts[0].clone(), now_ms());
        let id = enrolment.registration_id.clone();
        let done = match enrolment.wish.clone() {
            Wish::Prove => {
                let read = move |c: &Connection| prove(c, &enrolment, &scope, now_ms / 1000);
                self.store.read(read).await.map(|_| EnrolmentAnswer {
                    status: 200,
                    retry_after: None,
                    body: serde_json::Value::Null,
                })
            }
            Wish::Status { operation_id } => {
                let read = move |c: &Connection| {
                    prove(c, &enrolment, &scope, now_ms / 1000)?;
                    status(c, &enrolment.registration_id, &operation_id, &hub)
                };
                self.store.read(read).await
            }
            Wish::Register => {
                let gateway = via.clone();
                let registered =
                    self.store.submit(move |c| register(c, &enrolment, &scope, gateway.as_ref(), now_ms));
                match registered.await {
                    Ok((operation_id, gateways)) => {
                        tracing::info!(device = %id, gateway = ?via.as_ref().map(DeviceId::as_str), "device enrolled itself");
                        for gateway in &gateways {
                            self.tell_children(gateway);
                        }
                        if let Some(gateway) = &via {
                            self.tell_desired(gateway, Identity::device(id.clone()));
                        }
                        self.send_on_all(id.clone()).await.map(|()| EnrolmentAnswer {
                            status: 202,
                            retry_after: Some(RETRY_AFTER_SECS),
                            body: json!({"operationId": operation_id, "status": "assigning"}),
                        })
                    }
                    Err(error) => Err(error),
                }
            }
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(device = %id, %error, "a device that enrols itself was refused");
            let text = error.to_string();
            match error {
                FleetError::NotFound(_) => EnrolmentAnswer::failure(404, &text),
                FleetError::Forbidden(_) => EnrolmentAnswer::failure(401, &text),
                FleetError::Busy(_) | FleetError::Stopping(_) | FleetError::Store(_) => {
                    EnrolmentAnswer::later(&text)
                }
                _ => EnrolmentAnswer::failure(400, &text),
            }
        })
    }
}

/// Whether a device may enrol, and by what.
fn prove(
    c: &Connection,
    shown: &Enrolment,
    id_scope: &str,
    now_secs: u64,
) -> Result<(Source, edge_core::access::sas::Token), FleetError> {
    let id = &shown.registration_id;
    let refused = |why: String| FleetError::Forbidden(format!("`{id}` may not enrol: {why}"));
    if shown.id_scope != id_scope {
        return Err(refused(format!("ID scope `{}` is not this site's", shown.id_scope)));
    }
    let verify = |keys: &[&[u8]]| {
        enrolment::verify(&shown.token, id_scope, id, keys, now_secs)
            .map_err(|error| refused(error.to_string()))
    };
    let device = devices::get(c, id)?;
    let enrollment = enrollments::enrollment(c, id)?;
    if device.as_ref().is_some_and(|device| !device.enabled) {
        return Err(refused("an operator blocked it".into()));
    }
    let is_own = device.is_some() && enrollment.as_ref().is_none_or(|enrollment| enrollment.group.is_empty());
    if let Some(device) = device.filter(|_| is_own) {
        let keys =
            device.keys.ok_or_else(|| refused("it is registered, and its keys are at its gateway".into()))?;
        let keys = [decode(&keys.primary), decode(&keys.secondary)];
        return Ok((Source::Own, verify(&[&keys[0], &keys[1]])?));
    }
    let groups = match &enrollment {
        Some(enrollment) => enrollments::group(c, &enrollment.group)?.into_iter().collect(),
        None => enrollments::groups(c, "", GROUPS_MAX)?,
    };
    let mut derived = Vec::new();
    for group in groups.into_iter().filter(|group| group.enabled) {
        let [primary, secondary] =
            [&group.keys.primary, &group.keys.secondary].map(|key| enrolment::derive_key(&decode(key), id));
        derived.push((group, primary, secondary));
    }
    if derived.is_empty() {
        return Err(refused("no enabled enrolment group would take it".into()));
    }
    let keys: Vec<&[u8]> =
        derived.iter().flat_map(|(_, primary, secondary)| [&primary[..], &secondary[..]]).collect();
    let token = verify(&keys)?;
    let by = |key: &[u8]| Mark::of(key) == token.key;
    let found = derived.into_iter().find(|(_, primary, secondary)| by(primary) || by(secondary));
    let (group, primary, secondary) = found.ok_or_else(|| refused("no group's key made its token".into()))?;
    let keys = Keys { primary: STANDARD.encode(primary), secondary: STANDARD.encode(secondary) };
    Ok((Source::Group(group, keys), token))
}

/// Keys are checked when they are stored.
fn decode(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap_or_default()
}

/// Registers a device; gives the operation, and the gateways whose devices are others now.
fn register(
    c: &Connection,
    shown: &Enrolment,
    id_scope: &str,
    via: Option<&DeviceId>,
    now_ms: u64,
) -> Result<(String, Vec<DeviceId>), FleetError> {
    let id = &shown.registration_id;
    let (source, _) = prove(c, shown, id_scope, now_ms / 1000)?;
    let standing = devices::get(c, id)?;
    let (group, device) = match source {
        Source::Own => (String::new(), standing.clone()),
        Source::Group(group, keys) => {
            let is_gateway = standing.as_ref().map_or(group.is_edge, |device| device.is_gateway);
            let device = standing.clone().unwrap_or_else(|| new_device(id.clone()));
            let revision = device.revision + 1;
            (group.id, Some(Device { keys: Some(keys), is_gateway, revision, ..device }))
        }
    };
    let device =
        device.ok_or_else(|| FleetError::Stopping(format!("`{id}` was deleted while it enrolled")))?;
    if via.is_some() && device.is_gateway {
        return Err(FleetError::Wrong(format!(
            "gateway `{id}` enrols at central, not through another gateway"
        )));
    }
    devices::put(c, &device)?;
    let before = enrollments::enrollment(c, id)?;
    let enrollment = Enrollment {
        group,
        operation_id: format!("{}.{}", id_scope, uuid::Uuid::new_v4()),
        created_ms: before.map_or(now_ms, |before| before.created_ms),
        updated_ms: now_ms,
    };
    enrollments::put_enrollment(c, id, &enrollment)?;
    Ok((enrollment.operation_id, place(c, &device, via)?))
}

/// Puts a device behind the gateway through which it enrolled. One that enrols at central's own door leaves the gateway
/// where it enrolled before; an operator's relationship stays.
fn place(c: &Connection, device: &Device, via: Option<&DeviceId>) -> Result<Vec<DeviceId>, FleetError> {
    let mut changed: Vec<DeviceId> = via.cloned().into_iter().collect();
    if let Some(gateway) = device.gateway.as_ref().filter(|gateway| Some(*gateway) != via) {
        let standing = devices::relationships(c, gateway)?;
        let of_device = standing.iter().find(|relationship| relationship.target == device.id);
        if let Some(of_device) = of_device.filter(|r| via.is_some() || r.name == ENROLLED) {
            devices::delete_relationship(c, gateway, &of_device.id)?;
            cloud_messages::taken_back(c, &device.id)?;
            changed.push(gateway.clone());
        }
    }
    if let Some(gateway) = via.filter(|gateway| device.gateway.as_ref() != Some(*gateway)) {
        check_room(c, gateway)?;
        let (id, name) = (format!("to-{}", device.id), ENROLLED.to_owned());
        let (source, target) = (gateway.clone(), device.id.clone());
        devices::put_relationship(c, &Relationship { id, name, source, target })?;
    }
    Ok(changed)
}

fn status(
    c: &Connection,
    id: &DeviceId,
    operation_id: &str,
    hub: &str,
) -> Result<EnrolmentAnswer, FleetError> {
    let unknown = || FleetError::NotFound(format!("operation `{operation_id}` is not known; register again"));
    let enrollment = enrollments::enrollment(c, id)?.filter(|e| e.operation_id == operation_id);
    let enrollment = enrollment.ok_or_else(unknown)?;
    let device = devices::get(c, id)?.ok_or_else(unknown)?;
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
            "etag": format!("\"{:x}\"", device.revision),
        },
    });
    Ok(EnrolmentAnswer { status: 200, retry_after: None, body })
}
