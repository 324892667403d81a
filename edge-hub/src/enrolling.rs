//! What devices that enrol themselves showed when they connected; each of their questions is judged by it anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::enrolment::EnrolmentClaim;
use edge_core::access::secret::Secret;
use schemas::names::Identity;
use schemas::provisioning::{Enrolment, Wish};

use crate::service::{ConnectRequest, Refusal};

/// Devices that may enrol at once. They need seconds; more can wait.
const DEVICES_MAX: usize = 100;
/// Beyond it a device that has shown something and never asked is forgotten, when there is no room.
const AGE_MAX: Duration = Duration::from_secs(300);

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
    let certificates: Vec<&[u8]> = match &request.client_cert {
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
    Ok(Enrolment { id_scope, registration_id, token, certificates, wish: Wish::Prove })
}

/// The devices that enrol at one program's doors.
#[derive(Debug, Default)]
pub struct Enrolling(Mutex<HashMap<Identity, (Instant, Enrolment)>>);

impl Enrolling {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, (Instant, Enrolment)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a device showed and gives its identity; `None` when too many enrol at once.
    pub fn enter(&self, enrolment: Enrolment) -> Option<Identity> {
        let identity = Identity::enrolling(&enrolment.registration_id);
        let mut known = self.lock();
        if known.len() >= DEVICES_MAX && !known.contains_key(&identity) {
            known.retain(|_, (since, _)| since.elapsed() < AGE_MAX);
            if known.len() >= DEVICES_MAX {
                return None;
            }
        }
        known.insert(identity.clone(), (Instant::now(), enrolment));
        Some(identity)
    }

    /// What a device showed, with what it asks for now.
    pub fn asks(&self, who: &Identity, wish: Wish) -> Option<Enrolment> {
        self.lock().get(who).map(|(_, enrolment)| Enrolment { wish, ..enrolment.clone() })
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

    #[test]
    fn a_hundred_devices_may_enrol_at_once() {
        let enrolling = Enrolling::default();
        let enrolment = |n: usize| Enrolment {
            id_scope: "s".into(),
            registration_id: format!("d-{n}").parse().unwrap(),
            token: "t".into(),
            certificates: Vec::new(),
            wish: Wish::Prove,
        };
        let identities: Vec<_> = (0..DEVICES_MAX).map(|n| enrolling.enter(enrolment(n)).unwrap()).collect();
        assert!(enrolling.enter(enrolment(DEVICES_MAX)).is_none());
        assert!(enrolling.enter(enrolment(0)).is_some(), "one that comes again has its place");
        assert_eq!(enrolling.asks(&identities[5], Wish::Register).unwrap().wish, Wish::Register);
        assert!(enrolling.leave(&identities[5]));
        assert!(!enrolling.leave(&"d-6".parse().unwrap()), "a device is not one that enrols");
        assert!(enrolling.enter(enrolment(DEVICES_MAX)).is_some());
    }
}
