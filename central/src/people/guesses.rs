//! Failed sign-ins: each makes the next one for the same user from the same address wait longer, and many for one user make
//! addresses wait from which that user never signed in. Other users behind the same address do not wait.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edge_core::access::throttle::{Throttle, ThrottleSettings, Turn};

use super::PeopleError;
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
            let turn = throttle.arrive(self.now_ms(), claim.from, &claim.name);
            (turn, throttle.is_known(claim.from, &claim.name))
        };
        match turn {
            Turn::After(0) => {}
            Turn::After(wait_ms) => tokio::time::sleep(Duration::from_millis(wait_ms)).await,
            Turn::Refused => return Err(PeopleError::TooManyFailures),
        }
        Ok(if is_known { Lane::Known } else { Lane::Unknown })
    }

    pub(super) fn succeeded(&self, claim: &Claim) {
        self.of(claim).succeeded(self.now_ms(), claim.from, &claim.name);
    }

    pub(super) fn failed(&self, claim: &Claim) {
        self.of(claim).failed(self.now_ms(), claim.from, &claim.name);
    }

    /// Whether an attempt would have to wait.
    #[cfg(test)]
    pub(super) fn must_wait(&self, claim: &Claim) -> bool {
        self.of(claim).arrive(self.now_ms(), claim.from, &claim.name) != Turn::After(0)
    }
}
