//! Failed sign-ins: each makes the next one for the same user from the same address wait longer, and many for one user make
//! addresses wait from which that user never signed in. Other users behind the same address do not wait.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edge_core::access::throttle::{Throttle, ThrottleSettings, Turn};

use super::error::PeopleError;
use super::password::Lane;

/// Who an attempt says it is.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// In lower case.
    pub(super) name: String,
    /// Whether somebody of that name can sign in.
    pub(super) is_user: bool,
    pub(super) from: IpAddr,
}

/// What counts as one address: of IPv6 the first 64 bits, because whoever has one address has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// The failures since central started.
#[derive(Debug)]
pub(super) struct Guesses {
    users: Mutex<Throttle>,
    /// Counts of names that nobody has, which wait as others do. Apart, so that names made up push out no count of a user's.
    strangers: Mutex<Throttle>,
    since: Instant,
}

impl Default for Guesses {
    fn default() -> Self {
        let throttle = || Mutex::new(Throttle::new(ThrottleSettings::default()));
        Self { users: throttle(), strangers: throttle(), since: Instant::now() }
    }
}

impl Guesses {
    fn of(&self, claim: &Claim) -> MutexGuard<'_, Throttle> {
        let throttle = if claim.is_user { &self.users } else { &self.strangers };
        throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until this attempt may be looked at, and tells whether the user has signed in from there before.
    ///
    /// # Errors
    /// [`PeopleError::TooManyFailures`] when it would have to wait longer than the longest wait.
    pub(super) async fn turn(&self, claim: &Claim) -> Result<Lane, PeopleError> {
        let (turn, is_known) = {
            let mut throttle = self.of(claim);
            let turn = throttle.arrive(self.now_ms(), network(claim.from), &claim.name);
            (turn, throttle.is_known(network(claim.from), &claim.name))
        };
        match turn {
            Turn::After(0) => {}
            Turn::After(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
            Turn::Refused => return Err(PeopleError::TooManyFailures),
        }
        Ok(if is_known { Lane::Known } else { Lane::Unknown })
    }

    pub(super) fn succeeded(&self, claim: &Claim) {
        self.of(claim).succeeded(self.now_ms(), network(claim.from), &claim.name);
    }

    pub(super) fn failed(&self, claim: &Claim) {
        self.of(claim).failed(self.now_ms(), network(claim.from), &claim.name);
    }

    /// Whether an attempt would have to wait.
    #[cfg(test)]
    pub(super) fn must_wait(&self, claim: &Claim) -> bool {
        self.of(claim).arrive(self.now_ms(), network(claim.from), &claim.name) != Turn::After(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_addresses_of_an_ipv6_network_are_one_and_names_that_nobody_has_are_counted_apart() {
        let guesses = Guesses::default();
        let claim = |name: &str, is_user, from: &str| Claim {
            name: name.to_owned(),
            is_user,
            from: from.parse().unwrap(),
        };
        guesses.failed(&claim("admin", true, "2001:db8::1"));
        assert!(guesses.must_wait(&claim("admin", true, "2001:db8::ffff:2")));
        assert!(!guesses.must_wait(&claim("admin", true, "2001:db8:0:1::1")));
        guesses.succeeded(&claim("admin", true, "192.0.2.1"));
        for number in 0..6_000 {
            guesses.failed(&claim(&format!("name-{number}"), false, "192.0.2.1"));
        }
        let lane = guesses.turn(&claim("admin", true, "192.0.2.1")).await.unwrap();
        assert_eq!(lane, Lane::Known, "made-up names pushed out no count of a user's");
    }
}
