//! What devices that enrol themselves showed when they connected; it is checked with each of their requests.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::enrolment::EnrolmentClaim;
use edge_core::access::secret::Secret;
use schemas::names::Identity;
use schemas::provisioning::{Enrolment, EnrolmentRequest};

use crate::service::{ConnectRequest, Refusal};

/// Devices that may enrol at once. They need seconds; more can wait.
const DEVICES_MAX: usize = 100;
/// Those of one address that nobody has proven: central is away, or checks them with each question.
const UNPROVEN_OF_ADDRESS_MAX: usize = 20;
/// Beyond it a device is forgotten when there is no space: it never sent a request, or waits for an operator's approval. It connects again.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Certificates that a device may show, its own and those up to its group's; more makes no chain that anybody has.
const CERTIFICATES_MAX: usize = 8;
/// Their bytes, DER. They travel on the link in one message.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// What a device shows that connects to enrol itself: a token, or the certificates of its TLS handshake.
///
/// # Errors
/// [`Refusal::NotAuthorized`] when it shows more than anybody would look at.
pub fn shown(claim: EnrolmentClaim, request: &ConnectRequest) -> Result<Enrolment, Refusal> {
    let token = request.password.as_ref().and_then(Secret::text).unwrap_or("").to_owned();
    let certificates: Vec<&[u8]> = match request.client_cert() {
        // A device with a key may have a certificate for something else.
        Some(shown) if token.is_empty() => {
            std::iter::once(shown.leaf()).chain(shown.intermediates().iter().map(AsRef::as_ref)).collect()
        }
        _ => Vec::new(),
    };
    let bytes: usize = certificates.iter().map(|der| der.len()).sum();
    if certificates.len() > CERTIFICATES_MAX || bytes > CERTIFICATE_BYTES_MAX {
        let count = certificates.len();
        return Err(Refusal::NotAuthorized(format!(
            "it shows {count} certificates of {bytes} bytes; {CERTIFICATES_MAX} of {CERTIFICATE_BYTES_MAX} are looked at"
        )));
    }
    let certificates = certificates.into_iter().map(|der| STANDARD.encode(der)).collect();
    let EnrolmentClaim { id_scope, registration_id } = claim;
    Ok(Enrolment { id_scope, registration_id, token, certificates, request: EnrolmentRequest::Prove })
}

/// The devices that enrol at one program's MQTT servers.
#[derive(Debug, Default)]
pub struct Enrolling(Mutex<HashMap<Identity, Device>>);

#[derive(Debug)]
struct Device {
    since: Instant,
    enrolment: Enrolment,
    /// Where it comes from, when nobody has proven it.
    unproven_from: Option<IpAddr>,
}

impl Enrolling {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Device>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a device showed and gives its identity; `None` when too many enrol at once. One that is proven takes the
    /// place of the oldest that is not; `unproven_from` is the address of one that nobody has proven, and bounds how many there
    /// are of it.
    pub fn enter(&self, enrolment: Enrolment, unproven_from: Option<IpAddr>) -> Option<Identity> {
        let identity = Identity::enrolling(&enrolment.registration_id);
        let mut known = self.lock();
        if unproven_from.is_some() && !known.contains_key(&identity) {
            let of_address = known.values().filter(|device| device.unproven_from == unproven_from);
            if of_address.count() >= UNPROVEN_OF_ADDRESS_MAX {
                return None;
            }
        }
        if known.len() >= DEVICES_MAX && !known.contains_key(&identity) {
            known.retain(|_, device| device.since.elapsed() < AGE_MAX);
        }
        if known.len() >= DEVICES_MAX && !known.contains_key(&identity) {
            let unproven = known.iter().filter(|(_, device)| device.unproven_from.is_some());
            let oldest = unproven.min_by_key(|(_, device)| device.since).map(|(who, _)| who.clone());
            let oldest = oldest.filter(|_| unproven_from.is_none())?;
            known.remove(&oldest);
        }
        known.insert(identity.clone(), Device { since: Instant::now(), enrolment, unproven_from });
        Some(identity)
    }

    /// The proof that a device connected with, together with its new request.
    pub fn request_of(&self, who: &Identity, request: EnrolmentRequest) -> Option<Enrolment> {
        self.lock().get(who).map(|device| Enrolment { request, ..device.enrolment.clone() })
    }

    /// A connection ended; true when it was one of a device that enrols.
    pub fn leave(&self, who: &Identity) -> bool {
        who.registration_id().is_some() && {
            self.lock().remove(who);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolment(n: usize) -> Enrolment {
        Enrolment {
            id_scope: "s".into(),
            registration_id: format!("d-{n}").parse().unwrap(),
            token: "t".into(),
            certificates: Vec::new(),
            request: EnrolmentRequest::Prove,
        }
    }

    #[test]
    fn a_hundred_devices_may_enrol_at_once() {
        let enrolling = Enrolling::default();
        let identities: Vec<_> =
            (0..DEVICES_MAX).map(|n| enrolling.enter(enrolment(n), None).unwrap()).collect();
        assert!(enrolling.enter(enrolment(DEVICES_MAX), None).is_none());
        assert!(enrolling.enter(enrolment(0), None).is_some(), "one that comes again has its place");
        assert_eq!(
            enrolling.request_of(&identities[5], EnrolmentRequest::Register).unwrap().request,
            EnrolmentRequest::Register
        );
        assert!(enrolling.leave(&identities[5]));
        assert!(!enrolling.leave(&"d-6".parse().unwrap()), "a device is not one that enrols");
        assert!(enrolling.enter(enrolment(DEVICES_MAX), None).is_some());
    }

    #[test]
    fn devices_that_nobody_has_proven_keep_out_neither_proven_ones_nor_those_of_other_addresses() {
        let enrolling = Enrolling::default();
        let from = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        let entered = (0..200).filter(|n| enrolling.enter(enrolment(*n), from(1)).is_some()).count();
        assert_eq!(entered, UNPROVEN_OF_ADDRESS_MAX);
        for last in 2..20 {
            let of_address =
                (0..100).filter(|n| enrolling.enter(enrolment(1_000 * last + n), from(last as u8)).is_some());
            of_address.count();
        }
        assert_eq!(enrolling.lock().len(), DEVICES_MAX);
        for n in 0..DEVICES_MAX {
            assert!(enrolling.enter(enrolment(900_000 + n), None).is_some(), "{n}");
        }
        assert!(enrolling.enter(enrolment(999_999), None).is_none());
    }
}
