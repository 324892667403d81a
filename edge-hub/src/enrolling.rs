//! What devices that enrol themselves showed when they connected; each of their questions is judged by it anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use schemas::names::Identity;
use schemas::provisioning::{Enrolment, Wish};

/// Devices that may enrol at once. They need seconds; more can wait.
const DEVICES_MAX: usize = 100;
/// Beyond it a device that has shown something and never asked is forgotten, when there is no room.
const AGE_MAX: Duration = Duration::from_secs(300);

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
