//! How many connections each address has, and how fast it opens them, up to bounds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_core::access::rate::Bucket;
use tokio::time::Instant;

/// Addresses without a connection that are remembered for their rate; beyond, those whose rate is whole are forgotten, and
/// those that are not are the bound: each has connected within the last second.
const REMEMBERED_MAX: usize = 4_096;

/// The connections of one door by address.
#[derive(Debug, Clone)]
pub(crate) struct Addresses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connects_per_second: u64,
    since: Instant,
    by_address: Mutex<HashMap<IpAddr, Address>>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    /// How many more it may open; `None` without a limit.
    rate: Option<Bucket>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooMany {
    AtOnce,
    InASecond,
}

/// A connection's place; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// Nobody connected. 0 for no limit.
    pub(crate) fn new(connects_per_second: u64) -> Self {
        let (since, by_address) = (Instant::now(), Mutex::default());
        Self(Arc::new(Inner { connects_per_second, since, by_address }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        self.0.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A place for one more connection of this address.
    ///
    /// # Errors
    /// [`TooMany`] when it has `max` already, or opens them too fast.
    pub(crate) fn take(&self, address: IpAddr, max: usize) -> Result<AddressPlace, TooMany> {
        self.take_at(self.now_ms(), address, max)
    }

    fn take_at(&self, now_ms: u64, address: IpAddr, max: usize) -> Result<AddressPlace, TooMany> {
        let mut by_address = self.lock();
        if by_address.len() >= REMEMBERED_MAX {
            by_address.retain(|_, known| !known.is_forgettable(now_ms));
        }
        let known = by_address.entry(address).or_insert_with(|| Address {
            connections: 0,
            rate: Bucket::new(self.0.connects_per_second, now_ms),
        });
        if known.connections >= max {
            return Err(TooMany::AtOnce);
        }
        if let Some(rate) = &mut known.rate {
            if rate.wait_ms(now_ms) > 0 {
                return Err(TooMany::InASecond);
            }
            rate.take(1, now_ms);
        }
        known.connections += 1;
        Ok(AddressPlace { addresses: self.clone(), address })
    }
}

impl Address {
    fn is_forgettable(&mut self, now_ms: u64) -> bool {
        self.connections == 0 && self.rate.as_mut().is_none_or(|rate| rate.is_full(now_ms))
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let now_ms = self.addresses.now_ms();
        let mut by_address = self.addresses.lock();
        if let Some(known) = by_address.get_mut(&self.address) {
            known.connections -= 1;
            if known.is_forgettable(now_ms) {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_gives_them_back() {
        let (addresses, one, other) = (Addresses::new(0), IpAddr::from([1; 4]), IpAddr::from([2; 4]));
        let held: Vec<_> = (0..3).map(|_| addresses.take(one, 3)).collect();
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(addresses.take(one, 3).err(), Some(TooMany::AtOnce));
        assert!(addresses.take(other, 3).is_ok());
        drop(held);
        assert!(addresses.lock().is_empty());
        assert!(addresses.take(one, 3).is_ok());
    }

    #[test]
    fn an_address_opens_as_many_in_a_second_as_it_may_though_it_closes_them_again() {
        let (addresses, one, other) = (Addresses::new(2), IpAddr::from([1; 4]), IpAddr::from([2; 4]));
        let take = |now_ms, address| addresses.take_at(now_ms, address, 9).err();
        let opened = (0..10).filter(|_| take(10_000, one).is_none()).count();
        assert_eq!(opened, 3, "a second's worth, and one that is owed");
        assert_eq!((take(10_000, one), take(10_000, other)), (Some(TooMany::InASecond), None));
        assert_eq!((take(10_600, one), take(10_600, one)), (None, Some(TooMany::InASecond)));
        // One that has been quiet is not remembered for ever.
        for n in 0..REMEMBERED_MAX as u32 {
            take(13_000, IpAddr::from(n.to_be_bytes()));
        }
        assert!(!addresses.lock().contains_key(&one));
    }
}
