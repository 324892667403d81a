//! How many subscribers there are: of all callers, of one, and of one address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

/// Subscribers at once: enough for the people of a site, few enough that programs get through to the REST API.
pub const ALL_MAX: usize = 100;
/// Of one token or user, who has a page open in each of some tabs.
pub const OF_IDENTITY_MAX: usize = 20;
/// Of one address: a proxy that does not name its clients is one.
pub const OF_ADDRESS_MAX: usize = 60;

/// Who subscribes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscriber {
    /// The token or the user, by a text that is its own.
    pub identity: String,
    pub address: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("as many live streams are open as may be; close a page that shows one")]
    All,
    #[error(
        "this token or user has {OF_IDENTITY_MAX} live streams open already; close a page that shows one"
    )]
    Identity,
    #[error("{OF_ADDRESS_MAX} live streams are open from this address already; close a page that shows one")]
    Address,
}

#[derive(Debug, Default)]
pub struct Shares {
    all: usize,
    identities: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl Shares {
    /// Subscribers of all callers.
    pub fn all(&self) -> usize {
        self.all
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn take(&mut self, of: &Subscriber) -> Result<(), NoPlace> {
        let count = |of: Option<&usize>| of.copied().unwrap_or(0);
        if count(self.identities.get(&of.identity)) >= OF_IDENTITY_MAX {
            return Err(NoPlace::Identity);
        }
        if count(self.addresses.get(&of.address)) >= OF_ADDRESS_MAX {
            return Err(NoPlace::Address);
        }
        if self.all >= ALL_MAX {
            return Err(NoPlace::All);
        }
        self.all += 1;
        *self.identities.entry(of.identity.clone()).or_default() += 1;
        *self.addresses.entry(of.address).or_default() += 1;
        Ok(())
    }

    /// Gives a place back.
    pub fn give_back(&mut self, of: &Subscriber) {
        self.all -= 1;
        release(&mut self.identities, &of.identity);
        release(&mut self.addresses, &of.address);
    }
}

fn release<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(identity: usize, address: u8) -> Subscriber {
        Subscriber { identity: format!("token {identity}"), address: IpAddr::from([192, 0, 2, address]) }
    }

    #[test]
    fn one_caller_and_one_address_leave_places_to_others_and_all_are_given_back() {
        let mut shares = Shares::default();
        let mut taken = Vec::new();
        let mut take = |shares: &mut Shares, of: Subscriber| {
            let result = shares.take(&of);
            if result.is_ok() {
                taken.push(of);
            }
            result
        };
        for _ in 0..OF_IDENTITY_MAX {
            assert_eq!(take(&mut shares, subscriber(1, 1)), Ok(()));
        }
        assert_eq!(take(&mut shares, subscriber(1, 2)), Err(NoPlace::Identity), "from anywhere");
        for identity in 0..OF_ADDRESS_MAX - OF_IDENTITY_MAX {
            assert_eq!(take(&mut shares, subscriber(identity + 2, 1)), Ok(()));
        }
        assert_eq!(take(&mut shares, subscriber(1000, 1)), Err(NoPlace::Address));
        for identity in 0..ALL_MAX - OF_ADDRESS_MAX {
            assert_eq!(take(&mut shares, subscriber(identity + 2000, 2)), Ok(()));
        }
        assert_eq!(take(&mut shares, subscriber(3000, 3)), Err(NoPlace::All));
        taken.iter().for_each(|of| shares.give_back(of));
        assert!(shares.all == 0 && shares.identities.is_empty() && shares.addresses.is_empty());
    }
}
