//! The slots of connections: few for those that have proven nothing yet, all others for those that have.
//!
//! ```text
//! accepted ──> unproven ── CONNECT or request proven ──> proven ──> closed
//!    │            └ evicted: a connection of an address that needs the slot more
//!    └ refused
//! ```
//!
//! When there is no slot for one more unproven connection, the address with the most of them loses its oldest. Addresses that have
//! proven themselves come before those that have not. So one host, however many connections it holds, keeps out itself alone,
//! and many unknown hosts keep out no known one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_core::access::rate::Bucket;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Addresses without a connection that are remembered; beyond, those are forgotten that were longest without one.
const REMEMBERED_MAX: usize = 4_096;
/// How long an address is known after it has proven itself last.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// An unproven connection this young is not evicted by another one of its own address: both may be devices that come back
/// together, and the older one is nearer to its end.
const OWN_AGE_MIN: Duration = Duration::from_secs(1);

/// The bounds of a server's slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionSlotLimits {
    /// Connections at once.
    pub connections: usize,
    /// Those of them that have proven nothing.
    pub unproven: usize,
    /// Connections at once of one address.
    pub of_address: usize,
    /// Connections that an address which is not known may open in a second; 0 for no limit.
    pub connects_per_second: u64,
}

/// Why a connection gets no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoConnectionSlot {
    /// All slots are taken by others that come before it.
    Full,
    /// Its address has too many connections.
    OfAddress,
    /// Its address opens them too fast.
    TooFast,
}

/// The slots of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSlots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: ConnectionSlotLimits,
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    proven: usize,
    unproven: HashMap<u64, Unproven>,
    by_address: HashMap<IpAddr, Address>,
    /// Addresses that are not needed are looked for when there are so many.
    forget_at: usize,
    /// Addresses with unproven connections, the one first that loses one first: unknown before known, most before few, oldest
    /// before young.
    ranks: BTreeSet<Rank>,
}

type Rank = (bool, Reverse<usize>, u64);

#[derive(Debug)]
struct Unproven {
    address: IpAddr,
    evict: CancellationToken,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    /// When each unproven one came, by number.
    unproven: BTreeMap<u64, Instant>,
    /// How many more it may open; `None` without a limit.
    rate: Option<Bucket>,
    proven_at: Option<Instant>,
    /// When it had a connection last.
    seen_at: Instant,
}

/// The slot of one connection; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    slots: ConnectionSlots,
    number: u64,
    address: IpAddr,
    /// `None` when the connection has proven itself.
    evicted: Mutex<Option<CancellationToken>>,
    /// Its address is known, or few connections are unproven.
    pub has_time: bool,
}

impl Address {
    fn is_known(&self, now: Instant) -> bool {
        self.proven_at.is_some_and(|at| now.saturating_duration_since(at) < KNOWN_FOR)
    }

    fn rank(&self, now: Instant) -> Option<Rank> {
        let oldest = *self.unproven.first_key_value()?.0;
        Some((self.is_known(now), Reverse(self.unproven.len()), oldest))
    }
}

impl State {
    /// Changes an address, and keeps its rank right.
    fn change<T>(
        &mut self,
        now: Instant,
        address: IpAddr,
        change: impl FnOnce(&mut Address) -> T,
    ) -> Option<T> {
        let entry = self.by_address.get_mut(&address)?;
        // Its rank may be from a time when it was known.
        if let Some((is_known, count, oldest)) = entry.rank(now) {
            self.ranks.remove(&(is_known, count, oldest));
            self.ranks.remove(&(!is_known, count, oldest));
        }
        let changed = change(entry);
        self.ranks.extend(entry.rank(now));
        Some(changed)
    }

    /// Takes an unproven connection out; false when it is not one any more.
    fn settle(&mut self, now: Instant, number: u64) -> Option<Unproven> {
        let unproven = self.unproven.remove(&number)?;
        self.change(now, unproven.address, |address| address.unproven.remove(&number));
        Some(unproven)
    }

    /// Frees space for one more unproven connection of this address; false when others come before it.
    fn evict_for(&mut self, now: Instant, newcomer: IpAddr) -> bool {
        let Some(&(is_known, Reverse(count), oldest)) = self.ranks.first() else { return false };
        let Some(victim) = self.unproven.get(&oldest).map(|unproven| unproven.address) else { return false };
        let entry = &self.by_address[&newcomer];
        let may_evict = if victim == newcomer {
            entry
                .unproven
                .first_key_value()
                .is_some_and(|(_, since)| now.saturating_duration_since(*since) >= OWN_AGE_MIN)
        } else {
            // The newcomer would come first in the ranks otherwise, as the one with the most.
            (is_known, Reverse(count)) <= (entry.is_known(now), Reverse(entry.unproven.len() + 1))
        };
        if may_evict && let Some(evicted) = self.settle(now, oldest) {
            evicted.evict.cancel();
        }
        may_evict
    }

    fn forget(&mut self, now: Instant) {
        if self.by_address.len() < self.forget_at.max(REMEMBERED_MAX) {
            return;
        }
        self.by_address.retain(|_, address| address.connections > 0 || address.is_known(now));
        let mut idle: Vec<(Instant, IpAddr)> = self
            .by_address
            .iter()
            .filter(|(_, address)| address.connections == 0)
            .map(|(at, address)| (address.seen_at, *at))
            .collect();
        if idle.len() >= REMEMBERED_MAX {
            idle.sort_unstable();
            for (_, address) in idle.iter().take(REMEMBERED_MAX / 2) {
                self.by_address.remove(address);
            }
        }
        // Those that are left are looked through again when they are twice as many: each connection pays its share.
        self.forget_at = 2 * self.by_address.len();
    }
}

impl ConnectionSlots {
    pub(crate) fn new(max: ConnectionSlotLimits) -> Self {
        Self(Arc::new(Inner { max, since: Instant::now(), state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for a connection that has proven nothing yet.
    ///
    /// # Errors
    /// [`NoConnectionSlot`].
    pub(crate) fn take(&self, address: IpAddr) -> Result<ConnectionSlot, NoConnectionSlot> {
        self.take_at(Instant::now(), address)
    }

    fn take_at(&self, now: Instant, address: IpAddr) -> Result<ConnectionSlot, NoConnectionSlot> {
        let (max, address) = (&self.0.max, host(address));
        let now_ms =
            u64::try_from(now.saturating_duration_since(self.0.since).as_millis()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        state.forget(now);
        let entry = state.by_address.entry(address).or_insert_with(|| Address {
            connections: 0,
            unproven: BTreeMap::new(),
            rate: Bucket::new(max.connects_per_second, now_ms),
            proven_at: None,
            seen_at: now,
        });
        entry.seen_at = now;
        if entry.connections >= max.of_address {
            return Err(NoConnectionSlot::OfAddress);
        }
        let is_known = entry.is_known(now);
        if let Some(rate) = entry.rate.as_mut().filter(|_| !is_known) {
            if rate.wait_ms(now_ms) > 0 {
                return Err(NoConnectionSlot::TooFast);
            }
            rate.take(1, now_ms);
        }
        let is_full = state.unproven.len() >= max.unproven
            || (state.unproven.len() + state.proven >= max.connections && !state.unproven.is_empty());
        let is_without_place = state.unproven.is_empty() && state.proven >= max.connections && !is_known;
        if is_without_place || (is_full && !state.evict_for(now, address)) {
            return Err(NoConnectionSlot::Full);
        }
        let number = state.next;
        state.next += 1;
        let evicted = CancellationToken::new();
        state.unproven.insert(number, Unproven { address, evict: evicted.clone() });
        state.change(now, address, |entry| {
            entry.connections += 1;
            entry.unproven.insert(number, now);
        });
        let has_time = is_known || state.unproven.len() * 2 <= max.unproven;
        drop(state);
        Ok(ConnectionSlot {
            slots: self.clone(),
            number,
            address,
            evicted: Mutex::new(Some(evicted)),
            has_time,
        })
    }
}

/// What counts as one host: an IPv4 address, or the network of an IPv6 host.
pub(crate) fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // A host has a /64 to itself, and all of its addresses.
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

impl ConnectionSlot {
    /// The connection has proven itself; `takes_over`: it takes the slot of another one of its client. True when it may stay.
    pub(crate) fn prove(&self, takes_over: bool) -> bool {
        self.prove_at(Instant::now(), takes_over)
    }

    fn prove_at(&self, now: Instant, takes_over: bool) -> bool {
        let mut state = self.slots.lock();
        if !state.unproven.contains_key(&self.number) {
            return !self.is_evicted();
        }
        state.change(now, self.address, |address| address.proven_at = Some(now));
        if state.proven >= self.slots.0.max.connections && !takes_over {
            return false;
        }
        state.settle(now, self.number);
        state.proven += 1;
        drop(state);
        *self.evicted_token() = None;
        true
    }

    fn evicted_token(&self) -> MutexGuard<'_, Option<CancellationToken>> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection has proven itself.
    pub(crate) fn is_proven(&self) -> bool {
        self.evicted_token().is_none()
    }

    /// Ends when another connection needs the slot more.
    pub(crate) async fn evicted(&self) {
        let token = self.evicted_token().clone();
        match token {
            Some(token) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Whether another connection has the slot.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted_token().as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.slots.lock();
        let was_proven = state.settle(now, self.number).is_none() && !self.is_evicted();
        state.proven -= usize::from(was_proven);
        let Some(address) = state.by_address.get_mut(&self.address) else { return };
        address.connections -= 1;
        address.seen_at = now;
        if was_proven {
            address.proven_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: ConnectionSlotLimits =
        ConnectionSlotLimits { connections: 20, unproven: 6, of_address: usize::MAX, connects_per_second: 0 };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_host_with_half_open_connections_keeps_out_itself_alone() {
        let (slots, now) = (ConnectionSlots::new(MAX), Instant::now());
        let attacker: Vec<ConnectionSlot> = (0..6).map(|_| slots.take_at(now, address(1)).unwrap()).collect();
        assert_eq!(slots.take_at(now, address(1)).err(), Some(NoConnectionSlot::Full));
        for host in 2..8 {
            let device = slots.take_at(now, address(host)).unwrap();
            assert!(device.prove_at(now, false), "{host}");
            drop(device);
        }
        assert!(attacker[0].is_evicted() && !attacker[0].prove_at(now, false));
        // Its oldest has had its time.
        let later = now + OWN_AGE_MIN;
        let more: Vec<_> = (0..3).map(|_| slots.take_at(later, address(1)).unwrap()).collect();
        assert_eq!(attacker.iter().filter(|slot| slot.is_evicted()).count(), 3, "{}", more.len());
    }

    #[test]
    fn hosts_that_were_never_proven_keep_out_no_known_one() {
        let (slots, now) = (ConnectionSlots::new(MAX), Instant::now());
        assert!(slots.take_at(now, address(1)).unwrap().prove_at(now, false));
        let strangers: Vec<ConnectionSlot> =
            (10..16).map(|host| slots.take_at(now, address(host)).unwrap()).collect();
        let known: Vec<ConnectionSlot> = (0..6).map(|_| slots.take_at(now, address(1)).unwrap()).collect();
        assert!(
            strangers.iter().all(ConnectionSlot::is_evicted) && !known.iter().any(ConnectionSlot::is_evicted)
        );
        assert_eq!(slots.take_at(now, address(20)).err(), Some(NoConnectionSlot::Full));
    }

    #[test]
    fn a_full_server_lets_a_known_address_prove_that_it_takes_over_and_nobody_else_in() {
        let (slots, now) =
            (ConnectionSlots::new(ConnectionSlotLimits { connections: 2, ..MAX }), Instant::now());
        let held: Vec<ConnectionSlot> = (0..2).map(|_| slots.take_at(now, address(1)).unwrap()).collect();
        assert!(held.iter().all(|slot| slot.prove_at(now, false)));
        assert_eq!(slots.take_at(now, address(2)).err(), Some(NoConnectionSlot::Full));
        let (one_more, over) =
            (slots.take_at(now, address(1)).unwrap(), |slot: &ConnectionSlot| slot.prove_at(now, true));
        assert!(!one_more.prove_at(now, false) && over(&one_more));
        drop((held, one_more));
        assert!(slots.take_at(now, address(2)).is_ok());
    }

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_opens_them_as_fast_as_it_may_until_it_is_known() {
        let max =
            ConnectionSlotLimits { of_address: 9, connects_per_second: 2, connections: 100, unproven: 100 };
        let (slots, now) = (ConnectionSlots::new(max), Instant::now());
        let mut held: Vec<ConnectionSlot> = (0..3).map(|_| slots.take_at(now, address(1)).unwrap()).collect();
        assert_eq!(slots.take_at(now, address(1)).err(), Some(NoConnectionSlot::TooFast));
        assert!(held[0].prove_at(now, false));
        held.extend((0..6).map(|_| slots.take_at(now, address(1)).unwrap()));
        assert_eq!(slots.take_at(now, address(1)).err(), Some(NoConnectionSlot::OfAddress));
        // All addresses of an IPv6 host are one.
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let opened = (0..9).filter(|last| slots.take_at(now, v6(*last)).is_ok()).count();
        assert_eq!(opened, 3);
    }

    proptest! {
        #[test]
        fn places_are_counted_right_and_never_more_than_there_are(
            steps in prop::collection::vec((0u8..4, 1u8..5, 0usize..20, 0u64..3_000), 1..200),
        ) {
            let slots = ConnectionSlots::new(MAX);
            let (mut now, mut held) = (Instant::now(), Vec::new());
            for (step, host, index, pause_ms) in steps {
                now += Duration::from_millis(pause_ms);
                match step {
                    0 | 1 => held.extend(slots.take_at(now, address(host)).ok().map(|slot| (slot, false))),
                    2 if index < held.len() => {
                        let (slot, is_proven) = &mut held[index];
                        *is_proven |= slot.prove_at(now, false);
                    }
                    _ if index < held.len() => drop(held.swap_remove(index)),
                    _ => {}
                }
                let state = slots.lock();
                let unproven = held.iter().filter(|(slot, is_proven)| !is_proven && !slot.is_evicted()).count();
                let proven = held.iter().filter(|(_, is_proven)| *is_proven).count();
                prop_assert_eq!((state.unproven.len(), state.proven), (unproven, proven));
                prop_assert!(unproven <= MAX.unproven && proven <= MAX.connections);
                let waiting: usize = state.by_address.values().map(|address| address.unproven.len()).sum();
                prop_assert_eq!(waiting, unproven);
                let with_some = state.by_address.values().filter(|address| !address.unproven.is_empty()).count();
                prop_assert_eq!(state.ranks.len(), with_some);
            }
            drop(held);
            let state = slots.lock();
            prop_assert!(state.by_address.values().all(|address| address.connections == 0));
            prop_assert_eq!((state.unproven.len(), state.proven, state.ranks.len()), (0, 0, 0));
        }
    }
}
