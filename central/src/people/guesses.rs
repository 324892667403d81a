//! Failed sign-ins: each makes the next one for the same user from the same address wait longer, and many for one user make
//! addresses wait from which that user never signed in. Other users behind the same address do not wait.
//!
//! Attempts for one user from one address are looked at one after the other, in the order in which they came: who knows the password
//! is admitted behind those who guess it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_core::access::throttle::{Throttle, ThrottleSettings, Turn};
use tokio::time::Instant;

use super::error::PeopleError;
use super::password::HashQueue;

/// Who an attempt says it is.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// In lower case.
    pub(super) name: String,
    /// Whether somebody of that name can sign in.
    pub(super) is_user: bool,
    pub(super) from: IpAddr,
}

/// Attempts for one user from one address that wait. With the longest wait of each, the last of them waits for less than clients do.
const WAITING_MAX: usize = 8;
/// After how long an attempt asks for its place again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What counts as one address: of IPv6 the first 64 bits, because whoever has one address has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// Held by the one whose turn it is.
type Line = Arc<tokio::sync::Mutex<()>>;

/// The failures since central started.
#[derive(Debug)]
pub(super) struct Guesses {
    users: Mutex<Throttle>,
    /// Counts of names that nobody has, which wait as others do. Apart, so that names made up push out no count of a user's.
    strangers: Mutex<Throttle>,
    /// Those who wait, by user and address.
    lines: Mutex<HashMap<(IpAddr, String), Line>>,
    since: Instant,
}

impl Default for Guesses {
    fn default() -> Self {
        Self::new(&ThrottleSettings::default())
    }
}

impl Guesses {
    pub(super) fn new(settings: &ThrottleSettings) -> Self {
        let throttle = || Mutex::new(Throttle::new(settings.clone()));
        Self { users: throttle(), strangers: throttle(), lines: Mutex::default(), since: Instant::now() }
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

    /// The line of this user at this address; `None` when it is as long as it may be.
    fn line(&self, claim: &Claim) -> Option<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Lines that nobody holds any more: names that are made up must not fill the map.
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        let line = lines.entry((network(claim.from), claim.name.clone())).or_default();
        // One is that of the map.
        (Arc::strong_count(line) <= WAITING_MAX).then(|| line.clone())
    }

    /// Waits until this attempt may be looked at, and tells whether the user has signed in from there before.
    ///
    /// # Errors
    /// [`PeopleError::TooManyFailures`] when too many wait before it.
    pub(super) async fn turn(&self, claim: &Claim) -> Result<HashQueue, PeopleError> {
        let line = self.line(claim).ok_or(PeopleError::TooManyFailures)?;
        let _turn = line.lock().await;
        loop {
            let (turn, is_known) = {
                let mut throttle = self.of(claim);
                let turn = throttle.arrive(self.now_ms(), network(claim.from), &claim.name);
                (turn, throttle.is_known(network(claim.from), &claim.name))
            };
            match turn {
                Turn::After(wait_ms) => {
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    return Ok(if is_known { HashQueue::Known } else { HashQueue::Unknown });
                }
                // The one before it took its place and left.
                Turn::Refused => tokio::time::sleep(AGAIN_AFTER).await,
            }
        }
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

/// Failures of which each makes the next attempt wait for longer than any test takes.
#[cfg(test)]
pub(super) fn with_long_waits() -> Guesses {
    let hour_ms = 3_600_000;
    Guesses::new(&ThrottleSettings {
        first_ms: hour_ms,
        longest_ms: 10_000 * hour_ms,
        half_life_ms: 10_000 * hour_ms,
        ..ThrottleSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_knows_the_password_is_let_in_behind_those_who_guess_it_at_the_same_address() {
        let settings = ThrottleSettings { first_ms: 5, longest_ms: 20, ..ThrottleSettings::default() };
        let guesses = Arc::new(Guesses::new(&settings));
        let claim = Claim { name: "opal".into(), is_user: true, from: IpAddr::from([192, 0, 2, 1]) };
        let guessing: Vec<_> = (0..WAITING_MAX / 2)
            .map(|_| {
                let (guesses, claim) = (guesses.clone(), claim.clone());
                tokio::spawn(async move {
                    loop {
                        if guesses.turn(&claim).await.is_ok() {
                            guesses.failed(&claim);
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let turn = tokio::time::timeout(Duration::from_secs(60), guesses.turn(&claim)).await;
            assert!(turn.is_ok_and(|turn| turn.is_ok()), "the right password is looked at");
            guesses.succeeded(&claim);
        }
        guessing.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_line_has_an_end() {
        let guesses = with_long_waits();
        let claim = Claim { name: "opal".into(), is_user: true, from: IpAddr::from([192, 0, 2, 1]) };
        (0..20).for_each(|_| guesses.failed(&claim));
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(guesses.turn(&claim))).collect();
        for turn in &mut waiting {
            assert!(futures_util::poll!(turn.as_mut()).is_pending());
        }
        assert!(matches!(guesses.turn(&claim).await, Err(PeopleError::TooManyFailures)));
        drop(waiting);
        assert!(futures_util::poll!(Box::pin(guesses.turn(&claim))).is_pending());
    }

    #[tokio::test]
    async fn all_addresses_of_an_ipv6_network_are_one_and_names_that_nobody_has_are_counted_apart() {
        let guesses = with_long_waits();
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
        let queue = guesses.turn(&claim("admin", true, "192.0.2.1")).await.unwrap();
        assert_eq!(queue, HashQueue::Known, "made-up names pushed out no count of a user's");
    }
}
