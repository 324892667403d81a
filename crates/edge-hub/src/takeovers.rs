//! Tells two clients of one identity, such as a cloned gateway beside its original, from a client that reconnects.
//!
//! MQTT gives a session to whoever connected last. Two clients with one identity therefore end each other's connection for
//! ever, and each reconnect seems to follow a broken connection. A client whose line broke does not come back to the connection
//! that it left; of two clients, the one that was taken over does.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use schemas::names::Identity;

/// Takeovers are remembered for so long. The slowest reconnecting client, with a pause of 30 s, shows itself in it.
const WINDOW_MS: u64 = 300_000;
/// From one address, so many takeovers within the window are a conflict: it can also be a line that breaks again and again.
const TAKEOVERS_MAX: usize = 4;
/// A conflict that goes on is logged once in so long.
const WARN_EVERY_MS: u64 = 60_000;
/// Identities with takeovers within the window that are remembered.
const IDENTITIES_MAX: usize = 10_000;
/// Takeovers of one identity that are remembered.
const REMEMBERED_MAX: usize = 64;

/// Two clients, as it seems, use one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Takeovers in the last five minutes, at most 64.
    pub takeovers: usize,
    /// Where the connections came from, without repetition.
    pub addresses: Vec<IpAddr>,
    /// Whether clients at different addresses took turns, so that there are two for certain.
    pub is_proven: bool,
    /// When the last takeover was, in milliseconds since the Unix epoch.
    pub last_ms: u64,
}

/// One connection that ended another one of its identity.
#[derive(Debug)]
struct Takeover {
    at_ms: u64,
    older: SocketAddr,
    newer: SocketAddr,
}

#[derive(Debug, Default)]
struct Recent {
    takeovers: VecDeque<Takeover>,
    warned_ms: Option<u64>,
}

impl Recent {
    fn forget_before(&mut self, now_ms: u64) {
        while self.takeovers.front().is_some_and(|first| first.at_ms.saturating_add(WINDOW_MS) < now_ms) {
            self.takeovers.pop_front();
        }
    }

    fn conflict(&self) -> Option<Conflict> {
        // A client was taken over from another address, and came back.
        let is_proven = self.takeovers.iter().enumerate().any(|(at, first)| {
            let is_elsewhere = first.older.ip() != first.newer.ip();
            is_elsewhere
                && self.takeovers.iter().skip(at + 1).any(|later| later.newer.ip() == first.older.ip())
        });
        if !is_proven && self.takeovers.len() < TAKEOVERS_MAX {
            return None;
        }
        let mut addresses: Vec<IpAddr> =
            self.takeovers.iter().flat_map(|takeover| [takeover.older.ip(), takeover.newer.ip()]).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let last_ms = self.takeovers.back()?.at_ms;
        Some(Conflict { takeovers: self.takeovers.len(), addresses, is_proven, last_ms })
    }
}

/// The takeovers of all identities in the last five minutes.
#[derive(Debug, Default)]
pub(crate) struct Takeovers(HashMap<Identity, Recent>);

impl Takeovers {
    /// Notes that a connection ended an older one of its identity. Gives the conflict when it is to be logged.
    pub(crate) fn note(
        &mut self,
        identity: &Identity,
        older: SocketAddr,
        newer: SocketAddr,
        now_ms: u64,
    ) -> Option<Conflict> {
        if self.0.len() >= IDENTITIES_MAX && !self.0.contains_key(identity) {
            self.0.retain(|_, recent| {
                recent.forget_before(now_ms);
                !recent.takeovers.is_empty()
            });
            if self.0.len() >= IDENTITIES_MAX {
                return None;
            }
        }
        let recent = self.0.entry(identity.clone()).or_default();
        recent.forget_before(now_ms);
        if recent.takeovers.len() == REMEMBERED_MAX {
            recent.takeovers.pop_front();
        }
        recent.takeovers.push_back(Takeover { at_ms: now_ms, older, newer });
        let conflict = recent.conflict()?;
        if recent.warned_ms.is_some_and(|warned| now_ms < warned.saturating_add(WARN_EVERY_MS)) {
            return None;
        }
        recent.warned_ms = Some(now_ms);
        Some(conflict)
    }

    /// The conflict over an identity, if there is one.
    pub(crate) fn conflict(&mut self, identity: &Identity, now_ms: u64) -> Option<Conflict> {
        let recent = self.0.get_mut(identity)?;
        recent.forget_before(now_ms);
        recent.conflict()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        format!("{address}:5000").parse().unwrap()
    }

    /// Connects from each address in turn, `pause_ms` apart, each over the one before; the conflicts that were to be logged.
    fn connect(takeovers: &mut Takeovers, addresses: &[&str], pause_ms: u64) -> Vec<Conflict> {
        let identity: Identity = "gw".parse().unwrap();
        let pairs = addresses.windows(2).enumerate();
        let noted = pairs.filter_map(|(n, pair)| {
            takeovers.note(&identity, at(pair[0]), at(pair[1]), 1000 + n as u64 * pause_ms)
        });
        noted.collect()
    }

    #[test]
    fn a_client_that_comes_back_after_another_address_took_its_place_is_one_of_two() {
        let mut takeovers = Takeovers::default();
        let noted = connect(&mut takeovers, &["10.0.0.1", "10.0.0.2", "10.0.0.1"], 30_000);
        assert_eq!(noted.len(), 1);
        assert!(noted[0].is_proven && noted[0].takeovers == 2 && noted[0].addresses.len() == 2, "{noted:?}");
        let identity = "gw".parse().unwrap();
        assert!(takeovers.conflict(&identity, 40_000).is_some());
        assert_eq!(takeovers.conflict(&identity, 40_000 + WINDOW_MS), None, "it is over");
    }

    #[test]
    fn one_reconnect_or_a_move_to_another_address_is_no_conflict() {
        for addresses in [
            &["10.0.0.1", "10.0.0.1"][..],
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"],
        ] {
            assert_eq!(connect(&mut Takeovers::default(), addresses, 1000), [], "{addresses:?}");
        }
        let slow = ["10.0.0.1"; 20];
        assert_eq!(
            connect(&mut Takeovers::default(), &slow, WINDOW_MS / 2),
            [],
            "a line that breaks now and then"
        );
    }

    #[test]
    fn a_fight_behind_one_address_is_logged_once_a_minute() {
        let noted = connect(&mut Takeovers::default(), &["10.0.0.1"; 61], 3000);
        let counts: Vec<_> = noted.iter().map(|conflict| (conflict.takeovers, conflict.is_proven)).collect();
        assert_eq!(counts, [(4, false), (24, false), (44, false)]);
    }
}
