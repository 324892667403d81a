//! The end of identities: devices, modules and local users that were removed leave nothing to the next one of their name.
//!
//! ```text
//! noted on disk, refused at the listeners ──► every part of [`IdentityState`] forgets ──► note removed, name free
//!        └── killed in between: the next start goes on from the note
//! ```
//!
//! # Guarantees
//! - An identity that was removed cannot connect again before everything that was kept of it is gone, on disk too.
//! - A connection that was proven before a removal is not admitted after it ([`Removals::is_since`]).

use edge_core::error_chain::chain;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use schemas::generation::Generation;
use schemas::names::{DeviceId, Identity};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

use crate::access::generations::Generations;
use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::access::module_generations::ModuleGenerations;
use crate::access::users::Users;
use crate::state::{Namespace, State};

/// Key in the devices' namespace of the state: the removals that have not ended, as texts of identities.
const PENDING: &str = "removing";
/// When a removal could not be saved, it is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Removals that are remembered by their number: a connection that was proven before the oldest of them was closed long ago.
const REMEMBERED_MAX: usize = 20_000;

#[derive(Default)]
struct Log {
    pending: BTreeSet<Identity>,
    /// How many identities were removed since the start.
    count: u64,
    numbers: HashMap<Identity, u64>,
    oldest: VecDeque<(Identity, u64)>,
}

struct Inner {
    state: State,
    users: Users,
    kept: Vec<Box<dyn IdentityState>>,
    generations: Generations,
    modules: ModuleGenerations,
    log: Mutex<Log>,
    /// Held from before an identity is taken from its list until it is noted, and while a pass runs.
    pass: Arc<tokio::sync::Mutex<()>>,
    failed: Notify,
    /// Modules were removed by the gateway itself.
    local: Notify,
}

/// All removals. Cheap to clone.
#[derive(Clone)]
pub struct Removals(Arc<Inner>);

/// A removal that begins: no pass runs while it is held.
pub struct Removal {
    removals: Removals,
    _pass: OwnedMutexGuard<()>,
}

impl Removals {
    /// The removals that had not ended when the daemon did.
    /// `generations` forget last, when nobody of the removed is connected any more.
    pub fn load(
        state: State,
        users: Users,
        mut kept: Vec<Box<dyn IdentityState>>,
        generations: Generations,
    ) -> Self {
        kept.push(Box::new(generations.clone()));
        let stored = state.load::<serde_json::Value>(Namespace::Devices).into_iter();
        let texts = stored
            .filter(|(key, _)| key == PENDING)
            .find_map(|(_, texts)| crate::state::shaped::<Vec<String>>(Namespace::Devices, PENDING, texts));
        let pending: Vec<Identity> =
            texts.into_iter().flatten().filter_map(|text| Identity::of_session(&text)).collect();
        let removals = Self(Arc::new(Inner {
            modules: ModuleGenerations::load(state.clone()),
            state,
            users,
            kept,
            generations,
            log: Mutex::default(),
            pass: Arc::default(),
            failed: Notify::new(),
            local: Notify::new(),
        }));
        removals.log().enter(pending);
        removals
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().expect("nothing panics while it holds the removals")
    }

    /// Waits until no other removal runs.
    pub async fn begin(&self) -> Removal {
        Removal { _pass: self.0.pass.clone().lock_owned().await, removals: self.clone() }
    }

    /// Which of the devices of its name a message in a queue is of.
    pub fn generations(&self) -> &Generations {
        &self.0.generations
    }

    /// Which of the modules of its name a module is.
    pub fn modules(&self) -> &ModuleGenerations {
        &self.0.modules
    }

    /// Notes that the gateway itself removed modules: central does not know, and tells the next one of a name nothing.
    pub fn removed_here(&self) {
        self.0.local.notify_one();
    }

    /// Ends after [`Removals::removed_here`]. For one waiter.
    pub async fn local(&self) {
        self.0.local.notified().await;
    }

    /// How many identities were removed so far: a connection remembers it from before it was proven.
    pub fn count(&self) -> u64 {
        self.log().count
    }

    /// Returns true when the identity was removed after `count` others.
    pub fn is_since(&self, identity: &Identity, count: u64) -> bool {
        let log = self.log();
        let is_later = |of: &Identity| log.numbers.get(of).is_some_and(|number| *number > count);
        is_later(identity) || is_later(&Identity::device(identity.device.clone()))
    }

    /// Returns true while something of an earlier identity of this name may still be here.
    pub fn is_pending(&self, identity: &Identity) -> bool {
        let log = self.log();
        log.pending.contains(identity) || log.pending.contains(&Identity::device(identity.device.clone()))
    }

    /// Ends what was noted.
    ///
    /// # Errors
    /// [`RemovalError`]; it is tried again until it succeeds, and the identities are refused until then.
    pub async fn finish(&self) -> Result<(), RemovalError> {
        self.begin().await.finish().await
    }

    /// Removes everything kept of identities for which `is_gone` holds: those that left while nobody noted it.
    ///
    /// # Errors
    /// As [`Removals::finish`].
    pub async fn sweep(&self, is_gone: impl Fn(&Identity) -> bool) -> Result<(), RemovalError> {
        let removal = self.begin().await;
        let kept: BTreeSet<Identity> = self.0.kept.iter().flat_map(|kept| kept.identities()).collect();
        let gone: Vec<Identity> = kept.into_iter().filter(is_gone).collect();
        if !gone.is_empty() {
            tracing::warn!(
                identities = gone.len(),
                "state of identities that are not here any more is removed"
            );
        }
        removal.note(gone);
        removal.finish().await
    }

    /// Tries again what could not be saved, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.0.failed.notified() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                () = stop.cancelled() => return,
            }
            // A failure was logged, and notified again.
            let _ = self.finish().await;
        }
    }
}

impl Removal {
    /// Notes that identities end, before they are taken from the list that lets them in: a kill in between removes what is
    /// kept of somebody whose end was decided. Users that speak for a device end with it.
    pub fn note(&self, identities: impl IntoIterator<Item = Identity>) {
        let identities: Vec<Identity> = identities.into_iter().collect();
        if identities.is_empty() {
            return;
        }
        let users = self.removals.0.users.list().into_iter().filter_map(|(name, user)| {
            let device = Identity::device(user.device?);
            identities.contains(&device).then(|| Identity::account(&name))
        });
        let users: Vec<Identity> = users.collect();
        // Before the removal is on disk: its end must not be, without the number.
        for (identity, module) in identities.iter().filter_map(|of| Some((of, of.module.as_ref()?))) {
            self.removals.0.modules.removed(identity);
            if let Some(number) = self.removals.0.modules.of_central(module) {
                // What queues hold of it is not the next one's.
                self.removals.0.generations.note(identity, Generation::central(number));
            }
        }
        let mut log = self.removals.log();
        log.enter(identities.into_iter().chain(users));
        let texts: Vec<String> = log.pending.iter().map(ToString::to_string).collect();
        // Under the lock: the disk gets the lists in the order of the memory.
        self.removals.0.state.put(Namespace::Devices, PENDING, &texts).later();
    }

    /// As [`Removal::note`], of devices whose generation is known: what queues hold of them is distinguished from what the next ones of
    /// their names send.
    pub fn note_devices(&self, devices: impl IntoIterator<Item = (DeviceId, Option<Generation>)>) {
        let devices = devices.into_iter().map(|(device, generation)| {
            let identity = Identity::device(device);
            if let Some(generation) = generation {
                self.removals.0.generations.note(&identity, generation);
            }
            identity
        });
        let devices: Vec<Identity> = devices.collect();
        self.note(devices);
    }

    /// As [`Removals::finish`].
    ///
    /// # Errors
    /// As there.
    pub async fn finish(self) -> Result<(), RemovalError> {
        let removed: Removed = self.removals.log().pending.iter().cloned().collect();
        if removed.is_empty() {
            return Ok(());
        }
        let ended = self.forget(&removed).await;
        if let Err(error) = &ended {
            tracing::error!(error = %chain(&error), "the state of removed identities could not be removed; it is tried again");
            self.removals.0.failed.notify_one();
        }
        ended
    }

    async fn forget(&self, removed: &Removed) -> Result<(), RemovalError> {
        for kept in &self.removals.0.kept {
            kept.forget(removed).await?;
        }
        for identity in removed.iter() {
            tracing::info!(%identity, "all that was kept of the removed identity is gone");
        }
        // A note that stays behind would remove what the next one of this name has by then: they are refused until it is gone.
        self.removals.0.state.remove(Namespace::Devices, PENDING).durable().await?;
        self.removals.log().pending.clear();
        Ok(())
    }
}

impl Log {
    fn enter(&mut self, identities: impl IntoIterator<Item = Identity>) {
        for identity in identities {
            self.count += 1;
            self.numbers.insert(identity.clone(), self.count);
            self.oldest.push_back((identity.clone(), self.count));
            self.pending.insert(identity);
        }
        while self.oldest.len() > REMEMBERED_MAX {
            let Some((identity, number)) = self.oldest.pop_front() else { break };
            if self.numbers.get(&identity) == Some(&number) {
                self.numbers.remove(&identity);
            }
        }
    }
}
