//! Which of the modules of its name a module of this gateway is: a number that is another one after each removal. The first one
//! of a name has 0, as all had before there were numbers.
//!
//! The key of a module, its generation id and the fingerprint of its container depend on the number.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use schemas::names::Identity;

use crate::clock::now_ms;
use crate::state::{Room, State, shaped};

/// Keys in the devices' namespace of the state, by identity.
const NUMBERS: &str = "module/";

/// The numbers of the modules whose names were given before. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct ModuleNumbers(Arc<RwLock<BTreeMap<Identity, u64>>>);

/// What gives the numbers, and saves them. Cheap to clone.
#[derive(Clone)]
pub struct ModuleGenerations {
    state: State,
    numbers: ModuleNumbers,
}

impl ModuleNumbers {
    /// The number of the module that has this name, or gets it next.
    pub fn number(&self, module: &Identity) -> u64 {
        let numbers = self.0.read().expect("nothing panics while it holds the numbers");
        numbers.get(module).copied().unwrap_or(0)
    }
}

impl ModuleGenerations {
    /// As last saved.
    pub fn load(state: State) -> Self {
        let stored = state.load::<serde_json::Value>(Room::Devices).into_iter();
        let numbers = stored.filter_map(|(key, number)| {
            let module = Identity::of_session(key.strip_prefix(NUMBERS)?)?;
            Some((module, shaped(Room::Devices, &key, number)?))
        });
        let numbers = ModuleNumbers(Arc::new(RwLock::new(numbers.collect())));
        Self { state, numbers }
    }

    /// The numbers alone, for who lives longer than the state is open.
    pub fn numbers(&self) -> &ModuleNumbers {
        &self.numbers
    }

    /// Notes that a module is removed. Nothing is lost by noting it twice. On disk before all that is saved later.
    pub fn removed(&self, module: &Identity) {
        let mut numbers = self.numbers.0.write().expect("nothing panics while it holds the numbers");
        let number = numbers.entry(module.clone()).or_default();
        // By the clock: it goes on ascending after the state was restored from a backup.
        *number = now_ms().max(*number + 1);
        // Under the lock: the disk gets them in the order of the memory.
        self.state.put(Room::Devices, &format!("{NUMBERS}{module}"), number).later();
    }
}
