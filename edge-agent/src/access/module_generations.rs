//! Which of the modules of its name a module of this gateway is: a number that is another one after each removal. The first one
//! of a name has 0, as all had before there were numbers.
//!
//! The key of a module, its generation id and the fingerprint of its container depend on the number.
//!
//! central numbers modules too, when a manifest adds them, and tells the numbers with the manifest. So a module that was taken out of the
//! manifest and added again while this gateway was offline is known as another one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use schemas::names::{Identity, ModuleId};

use crate::clock::now_ms;
use crate::state::{Namespace, State, shaped};

/// Keys in the devices' namespace of the state, by identity.
const NUMBERS: &str = "module/";
/// Key there of central's numbers.
const OF_CENTRAL: &str = "modules-of-central";

const UNPOISONED: &str = "nothing panics while it holds the numbers";

/// The numbers of the modules whose names were given before. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct ModuleNumbers(Arc<RwLock<BTreeMap<Identity, u64>>>);

/// What gives the numbers, and saves them. Cheap to clone.
#[derive(Clone)]
pub struct ModuleGenerations {
    state: State,
    numbers: ModuleNumbers,
    /// As central sent them last; of a module that was removed since, until central sends others.
    of_central: Arc<RwLock<BTreeMap<ModuleId, u64>>>,
}

impl ModuleNumbers {
    /// The number of the module that has this name, or gets it next.
    pub fn number(&self, module: &Identity) -> u64 {
        let numbers = self.0.read().expect(UNPOISONED);
        numbers.get(module).copied().unwrap_or(0)
    }
}

impl ModuleGenerations {
    /// As last saved.
    pub fn load(state: State) -> Self {
        let stored = state.load::<serde_json::Value>(Namespace::Devices);
        let of_central = stored.iter().find(|(key, _)| key == OF_CENTRAL);
        let of_central =
            of_central.and_then(|(key, numbers)| shaped(Namespace::Devices, key, numbers.clone()));
        let numbers = stored.into_iter().filter_map(|(key, number)| {
            let module = Identity::of_session(key.strip_prefix(NUMBERS)?)?;
            Some((module, shaped(Namespace::Devices, &key, number)?))
        });
        let numbers = ModuleNumbers(Arc::new(RwLock::new(numbers.collect())));
        Self { state, numbers, of_central: Arc::new(RwLock::new(of_central.unwrap_or_default())) }
    }

    /// central's number of a module; `None` if it sent none.
    pub fn of_central(&self, module: &ModuleId) -> Option<u64> {
        self.of_central.read().expect(UNPOISONED).get(module).copied()
    }

    /// The modules of which central means others than it did. Those that are new here are none.
    pub fn replaced(&self, numbers: &BTreeMap<ModuleId, u64>) -> BTreeSet<ModuleId> {
        let known = self.of_central.read().expect(UNPOISONED);
        let is_other =
            |(module, number): &(&ModuleId, &u64)| known.get(*module).is_some_and(|known| known != *number);
        numbers.iter().filter(is_other).map(|(module, _)| module.clone()).collect()
    }

    /// Takes central's numbers over. What follows from them is noted before.
    pub fn take(&self, numbers: &BTreeMap<ModuleId, u64>) {
        let mut known = self.of_central.write().expect(UNPOISONED);
        if *known != *numbers {
            known.clone_from(numbers);
            // Under the lock: the disk gets them in the order of the memory.
            self.state.put(Namespace::Devices, OF_CENTRAL, &*known).later();
        }
    }

    /// The numbers alone, for who lives longer than the state is open.
    pub fn numbers(&self) -> &ModuleNumbers {
        &self.numbers
    }

    /// Notes that a module is removed. Nothing is lost by noting it twice. On disk before all that is saved later.
    pub fn removed(&self, module: &Identity) {
        let mut numbers = self.numbers.0.write().expect(UNPOISONED);
        let number = numbers.entry(module.clone()).or_default();
        // By the clock: it goes on ascending after the state was restored from a backup.
        *number = now_ms().max(*number + 1);
        // Under the lock: the disk gets them in the order of the memory.
        self.state.put(Namespace::Devices, &format!("{NUMBERS}{module}"), number).later();
    }
}
