//! Slows down who guesses: each failed login makes the next one wait longer before it is checked.
//!
//! Two counts are kept: of an identity from one address, and of an identity from wherever. The latter is ignored where the
//! identity has proven itself before, so that nobody is slowed by somebody who guesses its password from elsewhere. An
//! address has no count of its own: whoever guesses there must not keep out others behind the same address.
//!
//! Attempts of one identity from one address are checked one after the other in the order of arrival: opening many
//! connections at once gains nothing.

use std::collections::HashMap;
use std::net::IpAddr;

/// The bounds of a throttle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleSettings {
    /// The wait after the first failure that counts; it doubles with each further one.
    pub first_ms: u64,
    /// The longest wait. Who would have to wait longer is refused unchecked.
    pub longest_ms: u64,
    /// Failures of an identity from wherever that cost nothing yet.
    pub free_failures: u32,
    /// Failures are forgotten by half every so often.
    pub half_life_ms: u64,
    /// Counts that are kept; the one that was not touched for longest goes first.
    pub entries_max: usize,
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            first_ms: 250,
            longest_ms: 5_000,
            free_failures: 20,
            half_life_ms: 60_000,
            entries_max: 10_000,
        }
    }
}

/// When a login may be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// After so many milliseconds; 0 is at once.
    After(u64),
    /// Not at all: it would be longer than the longest wait.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(IpAddr, String),
    Identity(String),
}

#[derive(Debug, Default)]
struct Entry {
    failures: u32,
    failed_ms: u64,
    /// When the next attempt may be checked.
    free_ms: u64,
    touched_ms: u64,
    has_succeeded: bool,
}

/// The failures so far. Its size is bounded.
#[derive(Debug, Default)]
pub struct Throttle {
    settings: ThrottleSettings,
    entries: HashMap<Key, Entry>,
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new(settings: ThrottleSettings) -> Self {
        Self { settings, entries: HashMap::new() }
    }

    /// A login arrives; `claimed` is whom it says it is. Takes its place in the row of verdicts.
    pub fn arrive(&mut self, now_ms: u64, address: IpAddr, claimed: &str) -> Turn {
        let keys = self.counting(address, claimed);
        let at_ms = keys.iter().filter_map(|key| self.entries.get(key)).map(|entry| entry.free_ms).max();
        let at_ms = at_ms.unwrap_or(0).max(now_ms);
        if at_ms - now_ms > self.settings.longest_ms {
            return Turn::Refused;
        }
        // An identity has no row of its own: whoever guesses it from elsewhere would fill it and lock its owner out.
        for key in keys.iter().filter(|key| !matches!(key, Key::Identity(_))) {
            if let Some(entry) = self.entries.get_mut(key) {
                let wait_ms = wait_ms(&self.settings, key, entry, now_ms);
                if wait_ms > 0 {
                    // Whoever arrives next waits behind this one.
                    entry.free_ms = at_ms + wait_ms;
                }
            }
        }
        Turn::After(at_ms - now_ms)
    }

    /// The login was wrong.
    pub fn failed(&mut self, now_ms: u64, address: IpAddr, claimed: &str) {
        let claimed = shortened(claimed);
        for key in [Key::Pair(address, claimed.clone()), Key::Identity(claimed)] {
            self.make_space();
            let settings = &self.settings;
            let entry = self.entries.entry(key.clone()).or_default();
            entry.failures = remembered(settings, entry, now_ms).saturating_add(1);
            (entry.failed_ms, entry.touched_ms) = (now_ms, now_ms);
            let wait_ms = wait_ms(settings, &key, entry, now_ms);
            entry.free_ms = entry.free_ms.max(now_ms + wait_ms);
        }
    }

    /// The login was right: this identity is known from this address.
    pub fn succeeded(&mut self, now_ms: u64, address: IpAddr, claimed: &str) {
        self.make_space();
        // Only the pair is cleared: guesses from other addresses still count for the identity.
        let known = Entry { has_succeeded: true, touched_ms: now_ms, ..Entry::default() };
        self.entries.insert(Key::Pair(address, shortened(claimed)), known);
    }

    /// Whether this identity has proven itself from this address before.
    pub fn is_known(&self, address: IpAddr, claimed: &str) -> bool {
        let pair = Key::Pair(address, shortened(claimed));
        self.entries.get(&pair).is_some_and(|entry| entry.has_succeeded)
    }

    /// The counts that matter for a login.
    fn counting(&self, address: IpAddr, claimed: &str) -> Vec<Key> {
        let claimed = shortened(claimed);
        let pair = Key::Pair(address, claimed.clone());
        if self.entries.get(&pair).is_some_and(|entry| entry.has_succeeded) {
            vec![pair]
        } else {
            vec![pair, Key::Identity(claimed)]
        }
    }

    fn make_space(&mut self) {
        if self.entries.len() < self.settings.entries_max {
            return;
        }
        let oldest =
            self.entries.iter().min_by_key(|(_, entry)| entry.touched_ms).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }
}

/// A claim is what a stranger wrote: no more of it is kept than an identity can have.
fn shortened(claimed: &str) -> String {
    // Two names of 128 characters and the slash between them.
    claimed.chars().take(257).collect()
}

fn remembered(settings: &ThrottleSettings, entry: &Entry, now_ms: u64) -> u32 {
    let halvings = now_ms.saturating_sub(entry.failed_ms) / settings.half_life_ms.max(1);
    entry.failures.checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX)).unwrap_or(0)
}

fn wait_ms(settings: &ThrottleSettings, key: &Key, entry: &Entry, now_ms: u64) -> u64 {
    let free = if matches!(key, Key::Pair(..)) { 0 } else { settings.free_failures };
    match remembered(settings, entry, now_ms).saturating_sub(free) {
        0 => 0,
        counted => {
            let factor = 1u64.checked_shl(counted - 1).unwrap_or(u64::MAX);
            settings.first_ms.saturating_mul(factor).min(settings.longest_ms)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn throttle() -> Throttle {
        Throttle::new(ThrottleSettings::default())
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_the_longest_and_time_heals() {
        let mut throttle = throttle();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let Turn::After(wait) = throttle.arrive(now, A, "d") else { panic!("refused") };
            waits.push(wait);
            now += wait;
            throttle.failed(now, A, "d");
        }
        assert_eq!(waits, [0, 250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(throttle.arrive(now + 20 * 60_000, A, "d"), Turn::After(0));
    }

    #[test]
    fn many_attempts_at_once_wait_behind_each_other_and_the_rest_is_refused() {
        let mut throttle = throttle();
        for _ in 0..3 {
            throttle.failed(0, A, "d");
        }
        let turns: Vec<Turn> = (0..100).map(|_| throttle.arrive(0, A, "d")).collect();
        let checked: Vec<&Turn> = turns.iter().filter(|turn| **turn != Turn::Refused).collect();
        assert_eq!(checked, [1000, 2000, 3000, 4000, 5000].map(Turn::After).iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_login_from_another_address_does_not_wait_for_somebody_elses_guesses() {
        let mut throttle = throttle();
        throttle.succeeded(0, B, "d");
        assert!(throttle.is_known(B, "d") && !throttle.is_known(A, "d") && !throttle.is_known(B, "e"));
        for _ in 0..1000 {
            throttle.failed(1, A, "d");
        }
        assert_eq!(throttle.arrive(2, B, "d"), Turn::After(0), "it is known from there");
        assert_ne!(throttle.arrive(2, A, "d"), Turn::After(0));
        // Even an address that was never seen is not locked out: it waits like everybody else.
        assert!(matches!(throttle.arrive(2, IpAddr::from([10, 0, 0, 3]), "d"), Turn::After(..=5_000)));
    }

    #[test]
    fn one_wrong_device_does_not_slow_its_neighbours_behind_the_same_address() {
        let mut throttle = throttle();
        let mut now = 0;
        throttle.succeeded(now, A, "good");
        // An SDK that tries every ten seconds for an hour.
        for _ in 0..360 {
            throttle.failed(now, A, "wrong");
            now += 10_000;
        }
        assert_eq!(throttle.arrive(now, A, "good"), Turn::After(0));
        assert_eq!(
            throttle.arrive(now, A, "new"),
            Turn::After(0),
            "its failures alone stay below what counts"
        );
    }

    proptest! {
        #[test]
        fn no_guesses_from_an_address_make_another_identity_behind_it_wait(
            guesses in prop::collection::vec(("[a-c]", 0u64..2_000), 1..200),
        ) {
            let mut throttle = throttle();
            let mut now = 0;
            for (identity, pause_ms) in guesses {
                now += pause_ms;
                if throttle.arrive(now, A, &identity) != Turn::Refused {
                    throttle.failed(now, A, &identity);
                }
                prop_assert_eq!(throttle.arrive(now, A, "other"), Turn::After(0));
            }
        }
    }

    #[test]
    fn the_memory_of_failures_is_bounded() {
        let mut throttle = Throttle::new(ThrottleSettings { entries_max: 30, ..ThrottleSettings::default() });
        for n in 0..10_000 {
            throttle.failed(n, A, &"x".repeat(usize::try_from(n % 1_000).unwrap()));
            throttle.succeeded(n, B, &n.to_string());
        }
        assert!(throttle.entries.len() <= 30, "{}", throttle.entries.len());
    }
}
