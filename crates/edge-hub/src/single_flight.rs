//! Work that is done in rounds, one at a time for each key: who comes while a round is under way asks for another one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The keys with a round under way; true when another one is to follow.
#[derive(Debug)]
pub struct SingleFlight<K>(Mutex<HashMap<K, bool>>);

impl<K> Default for SingleFlight<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> SingleFlight<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller must begin: nobody is under way for this key. Whoever is will look again.
    pub fn begin(&self, key: &K) -> bool {
        let mut runs = self.lock();
        match runs.get_mut(key) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                runs.insert(key.clone(), false);
                true
            }
        }
    }

    /// Whether whoever is under way must look again: somebody asked for it, or `wants_to`. Otherwise the key is free.
    pub fn goes_on(&self, key: &K, wants_to: bool) -> bool {
        let mut runs = self.lock();
        match runs.get_mut(key) {
            Some(again) if *again || wants_to => {
                *again = false;
                true
            }
            _ => {
                runs.remove(key);
                false
            }
        }
    }

    /// The round under way was given up by a panic: the next who comes begins.
    pub fn give_up(&self, key: &K) {
        self.lock().remove(key);
    }

    /// The keys with a round under way.
    pub fn running<C: FromIterator<K>>(&self) -> C {
        self.lock().keys().cloned().collect()
    }
}
