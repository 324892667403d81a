//! How many connections each address has, up to a bound.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of one door by address; one entry for each address that has any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's place; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// A place for one more connection of this address; `None` when it has `max` already.
    pub(crate) fn take(&self, address: IpAddr, max: usize) -> Option<AddressPlace> {
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace { addresses: self.clone(), address })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut connections = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_gives_them_back() {
        let (addresses, one, other) = (Addresses::default(), IpAddr::from([1; 4]), IpAddr::from([2; 4]));
        let held: Vec<_> = (0..3).map(|_| addresses.take(one, 3)).collect();
        assert!(held.iter().all(Option::is_some) && addresses.take(one, 3).is_none());
        assert!(addresses.take(other, 3).is_some());
        drop(held);
        assert!(addresses.0.lock().unwrap().is_empty());
        assert!(addresses.take(one, 3).is_some());
    }
}
