//! What each identity uses of what all clients of a server share, against its limits.
//!
//! An identity here is a device, a module, or a local user with all its client ids: a user cannot escape a limit by another
//! client id, nor any client by connecting again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::names::Identity;
use tokio::time::Instant;

/// Identities that are remembered; beyond, those that use nothing are forgotten before another one is entered.
const REMEMBERED: usize = 4_096;
/// Seconds in which one second of waiting is forgiven: in the long run, publishers wait a tenth of the time for an identity.
const FORGIVEN_IN: u32 = 10;

/// The limits of one identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long publishers may wait for room in the queues of the identity's sessions.
    pub publishers_wait: Duration,
}

/// What the identities of one server use.
#[derive(Debug)]
pub(crate) struct Quotas {
    limits: Limits,
    by_identity: Mutex<HashMap<Box<str>, Arc<Usage>>>,
}

/// What one identity uses.
#[derive(Debug)]
pub(crate) struct Usage {
    waited: Mutex<Waited>,
    limits: Limits,
}

/// How long publishers have waited for an identity, less what is forgiven since.
#[derive(Debug)]
struct Waited {
    time: Duration,
    at: Instant,
}

impl Quotas {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, by_identity: Mutex::default() }
    }

    /// The usage of the identity that has a session with this client id.
    pub(crate) fn of_session(&self, client_id: &str) -> Arc<Usage> {
        let user = Identity::of_session(client_id).filter(Identity::is_user);
        self.of(user.as_ref().map_or(client_id, |user| user.device.as_str()))
    }

    fn of(&self, identity: &str) -> Arc<Usage> {
        let mut by_identity = self.lock();
        if let Some(usage) = by_identity.get(identity) {
            return usage.clone();
        }
        if by_identity.len() >= REMEMBERED {
            let now = Instant::now();
            by_identity.retain(|_, usage| Arc::strong_count(usage) > 1 || !usage.is_idle(now));
        }
        let usage = Arc::new(Usage::new(self.limits));
        by_identity.insert(identity.into(), usage.clone());
        usage
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Usage>>> {
        self.by_identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { waited: Mutex::new(Waited { time: Duration::ZERO, at: Instant::now() }), limits }
    }

    fn waited(&self, now: Instant) -> MutexGuard<'_, Waited> {
        let mut waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        waited.time = waited.time.saturating_sub(now.saturating_duration_since(waited.at) / FORGIVEN_IN);
        waited.at = now;
        waited
    }

    /// How much longer publishers may wait for this identity.
    pub(crate) fn wait_left(&self, now: Instant) -> Duration {
        self.limits.publishers_wait.saturating_sub(self.waited(now).time)
    }

    /// Publishers have waited for it.
    pub(crate) fn add_wait(&self, now: Instant, time: Duration) {
        let mut waited = self.waited(now);
        // What is beyond the limit is not held against it for ever.
        waited.time = (waited.time + time).min(self.limits.publishers_wait);
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.waited(now).time.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Quotas {
        Quotas::new(Limits { publishers_wait: Duration::from_secs(10) })
    }

    #[test]
    fn waiting_is_forgiven_at_a_tenth_of_its_pace() {
        let usage = quotas().of_session("d");
        let (now, seconds) = (Instant::now(), Duration::from_secs);
        assert_eq!(usage.wait_left(now), seconds(10));
        usage.add_wait(now, seconds(60));
        assert_eq!(usage.wait_left(now), Duration::ZERO);
        assert_eq!(usage.wait_left(now + seconds(20)), seconds(2));
        assert_eq!(usage.wait_left(now + seconds(620)), seconds(10));
    }

    #[test]
    fn the_client_ids_of_a_user_are_one_identity_and_those_of_devices_are_not() {
        let quotas = quotas();
        let same = |one: &str, other: &str| Arc::ptr_eq(&quotas.of_session(one), &quotas.of_session(other));
        assert!(same("$user:plc/a", "$user:plc/b"));
        assert!(!same("$user:plc/a", "$user:plc2/a") && !same("d1", "d2") && !same("gw/m1", "gw/m2"));
    }

    #[test]
    fn identities_that_use_nothing_are_forgotten_and_others_are_not() {
        let quotas = quotas();
        let held = quotas.of_session("held");
        quotas.of_session("waited-for").add_wait(Instant::now(), Duration::from_secs(1));
        for n in 0..3 * REMEMBERED {
            quotas.of_session(&format!("d{n}"));
        }
        assert!(quotas.lock().len() <= REMEMBERED);
        assert!(Arc::ptr_eq(&held, &quotas.of_session("held")));
        assert!(quotas.of_session("waited-for").wait_left(Instant::now()) < Duration::from_secs(10));
    }
}
