//! The twins of the gateway, its modules and its leaf devices: kept here so that they work without central.
//!
//! Desired sections come whole from central, or from a manifest applied on the gateway itself. A local change holds until
//! central's section changes, in its version or in its content: a central that was restored from a backup gives versions
//! away a second time.

use edge_core::error_chain::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use edge_core::twin::{self, PatchError};
use futures_util::future::BoxFuture;
use schemas::names::{Identity, ModuleId};
use schemas::twin::{Section, Twin};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::state::{Namespace, Saved, State, StateError};

/// Why a reported patch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The patch is wrong.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// It is not on disk.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its sender was removed meanwhile.
    #[error("it was removed")]
    Removed,
}

/// A change of a desired section that its owner is to hear of.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredChange {
    pub version: u64,
    /// From the old section to the new one.
    pub patch: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    twin: Twin,
    /// Version of central's section that was received last.
    central_version: Option<u64>,
    /// Its properties, while a local change replaces them in `twin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    central_properties: Option<Map<String, Value>>,
}

impl Kept {
    /// Whether central's section is the one that was received last.
    fn is_known(&self, section: &Section) -> bool {
        if self.central_version != Some(section.version) {
            return false;
        }
        let is_local = self.twin.desired.version != section.version;
        match &self.central_properties {
            Some(properties) => *properties == section.properties,
            // A local change that an older version saved: what it replaced is not known any more.
            None if is_local => true,
            None => self.twin.desired.properties == section.properties,
        }
    }
}

/// All twins. Cheap to clone.
#[derive(Clone)]
pub struct Twins {
    kept: Arc<Mutex<BTreeMap<Identity, Kept>>>,
    unsent: Arc<Mutex<BTreeSet<Identity>>>,
    reported: Arc<Notify>,
    state: State,
}

impl Twins {
    /// The twins as last saved; every reported section counts as not yet sent.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be used.
    pub fn load(state: State) -> Result<Self, StateError> {
        let mut kept = BTreeMap::new();
        for (key, value) in state.load::<Kept>(Namespace::Twins) {
            match key.parse::<Identity>() {
                Ok(identity) => drop(kept.insert(identity, value)),
                Err(error) => {
                    tracing::error!(key, error = %chain(&error), "a twin with a wrong name was left out")
                }
            }
        }
        let twins = Self {
            kept: Arc::new(Mutex::new(kept)),
            unsent: Arc::default(),
            reported: Arc::default(),
            state,
        };
        twins.all_unsent();
        Ok(twins)
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Identity, Kept>> {
        self.kept.lock().expect("nothing panics while it holds the twins")
    }

    fn unsent(&self) -> MutexGuard<'_, BTreeSet<Identity>> {
        self.unsent.lock().expect("nothing panics while it holds the list")
    }

    /// A twin; an empty one for an identity that has none yet.
    pub fn get(&self, identity: &Identity) -> Twin {
        self.kept().get(identity).map(|kept| kept.twin.clone()).unwrap_or_default()
    }

    /// Merges a patch into a reported section; gives the new version once it is on disk. `is_here` is called while nothing
    /// can be forgotten.
    ///
    /// # Errors
    /// [`ReportError`] when the patch is too large or was not saved, or the sender is not here any more.
    pub async fn report(
        &self,
        identity: &Identity,
        patch: &Map<String, Value>,
        is_here: impl Fn() -> bool,
    ) -> Result<u64, ReportError> {
        let (version, saved) = {
            let mut kept = self.kept();
            if !is_here() {
                return Err(ReportError::Removed);
            }
            let entry = kept.entry(identity.clone()).or_default();
            twin::patch(&mut entry.twin.reported, patch)?;
            (entry.twin.reported.version, self.save(identity, entry))
        };
        self.send_again(identity);
        saved.durable().await?;
        Ok(version)
    }

    /// Replaces a reported section that the daemon itself writes, if it differs.
    pub fn replace_reported(&self, identity: &Identity, properties: Map<String, Value>) {
        {
            let mut kept = self.kept();
            let entry = kept.entry(identity.clone()).or_default();
            if entry.twin.reported.properties == properties {
                return;
            }
            entry.twin.reported.properties = properties;
            entry.twin.reported.version += 1;
            self.save(identity, entry).later();
        }
        self.send_again(identity);
    }

    /// Takes central's desired section. Gives the change when there is one; `Saved` ends when it is on disk. `is_here` is
    /// called while nothing can be forgotten: nothing is taken for somebody who is not here.
    pub fn desired_from_central(
        &self,
        identity: &Identity,
        section: Section,
        is_here: impl Fn() -> bool,
    ) -> (Option<DesiredChange>, Option<Saved>) {
        let mut kept = self.kept();
        if !is_here() {
            return (None, None);
        }
        let entry = kept.entry(identity.clone()).or_default();
        if entry.is_known(&section) {
            return (None, None);
        }
        entry.central_version = Some(section.version);
        entry.central_properties = None;
        let patch = twin::difference(&entry.twin.desired.properties, &section.properties);
        let change = (!patch.is_empty() || entry.twin.desired.version != section.version)
            .then_some(DesiredChange { version: section.version, patch });
        entry.twin.desired = section;
        (change, Some(self.save(identity, entry)))
    }

    /// Replaces a desired section on the gateway itself, one version higher, until central's changes.
    pub fn desired_from_here(
        &self,
        identity: &Identity,
        properties: Map<String, Value>,
    ) -> (Option<DesiredChange>, Saved) {
        let mut kept = self.kept();
        let entry = kept.entry(identity.clone()).or_default();
        let patch = twin::difference(&entry.twin.desired.properties, &properties);
        let mut change = None;
        if !patch.is_empty() {
            let is_centrals = entry.central_version == Some(entry.twin.desired.version);
            entry.twin.desired.version += 1;
            let replaced = std::mem::replace(&mut entry.twin.desired.properties, properties);
            if is_centrals && entry.central_properties.is_none() {
                entry.central_properties = Some(replaced);
            }
            change = Some(DesiredChange { version: entry.twin.desired.version, patch });
        }
        (change, self.save(identity, entry))
    }

    fn save(&self, identity: &Identity, kept: &Kept) -> Saved {
        self.state.put(Namespace::Twins, &identity.to_string(), kept)
    }

    /// Marks a reported section as not sent.
    pub fn send_again(&self, identity: &Identity) {
        self.unsent().insert(identity.clone());
        self.reported.notify_one();
    }

    /// Marks every reported section as not sent: a new link tells central everything.
    pub fn all_unsent(&self) {
        let identities: Vec<Identity> = self
            .kept()
            .iter()
            .filter(|(_, kept)| kept.twin.reported.version > 0)
            .map(|(identity, _)| identity.clone())
            .collect();
        self.unsent().extend(identities);
        self.reported.notify_one();
    }

    /// The identities that have a twin.
    pub fn identities(&self) -> BTreeSet<Identity> {
        self.kept().keys().cloned().collect()
    }

    /// Waits until a reported section is to be sent. For one waiter.
    pub async fn has_unsent(&self) {
        self.reported.notified().await;
    }

    /// Takes the next identity whose reported section central does not have, with that section, of those that may be sent.
    pub fn next_unsent(&self, may_send: impl Fn(&Identity) -> bool) -> Option<(Identity, Section)> {
        let mut unsent = self.unsent();
        // `$edgeAgent`'s first: central takes the sections of modules that it names.
        let is_system = |identity: &&Identity| identity.module.as_ref().is_some_and(ModuleId::is_system);
        let mut ready = unsent.iter().filter(|identity| may_send(identity));
        let first = ready.clone().find(is_system).or_else(|| ready.next());
        let identity = first?.clone();
        unsent.remove(&identity);
        drop(unsent);
        let section = self.get(&identity).reported;
        Some((identity, section))
    }
}

impl IdentityState for Twins {
    fn identities(&self) -> BTreeSet<Identity> {
        Twins::identities(self)
    }

    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        let gone: Vec<Identity> = {
            let mut kept = self.kept();
            let gone = kept.extract_if(.., |identity, _| removed.covers(identity));
            gone.map(|(identity, _)| identity).collect()
        };
        self.unsent().retain(|identity| !removed.covers(identity));
        // Of those too that are not here: an earlier removal may not have reached the disk.
        let gone = gone.into_iter().chain(removed.iter().cloned()).collect::<BTreeSet<Identity>>();
        Box::pin(async move {
            let keys = gone.iter().map(ToString::to_string);
            Ok(self.state.remove_all(Namespace::Twins, keys).await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn section(version: u64, properties: Value) -> Section {
        Section { version, properties: properties.as_object().unwrap().clone() }
    }

    #[tokio::test]
    async fn a_local_change_holds_until_centrals_section_changes() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let twins = Twins::load(state.clone()).unwrap();
        let sensor: Identity = "gw/sensor".parse().unwrap();
        let (change, _) = twins.desired_from_central(&sensor, section(3, json!({"a": 1})), || true);
        assert_eq!(change.unwrap().version, 3);
        let (change, saved) = twins.desired_from_here(&sensor, json!({"a": 2}).as_object().unwrap().clone());
        assert_eq!(change.unwrap().version, 4);
        saved.durable().await.unwrap();
        let (change, saved) = twins.desired_from_central(&sensor, section(3, json!({"a": 1})), || true);
        assert!(change.is_none() && saved.is_none(), "central said nothing new");
        drop(twins);
        state.close().await;

        let twins = Twins::load(State::open(dir.path()).unwrap()).unwrap();
        assert_eq!(twins.get(&sensor).desired, section(4, json!({"a": 2})));
        let (change, _) = twins.desired_from_central(&sensor, section(4, json!({"b": 1})), || true);
        let change = change.unwrap();
        assert_eq!((change.version, Value::Object(change.patch)), (4, json!({"a": null, "b": 1})));
    }

    #[tokio::test]
    async fn a_section_of_a_version_that_was_seen_with_other_content_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let sensor: Identity = "gw/sensor".parse().unwrap();
        let local = || json!({"a": 9}).as_object().unwrap().clone();
        // Central was restored from a backup, and its operators have changed something else since.
        for has_local_change in [false, true] {
            for is_restarted in [false, true] {
                let mut state = State::open(dir.path()).unwrap();
                let mut twins = Twins::load(state.clone()).unwrap();
                twins.desired_from_central(&sensor, section(6, json!({})), || true);
                twins.desired_from_central(&sensor, section(7, json!({"a": 1})), || true);
                if has_local_change {
                    twins.desired_from_here(&sensor, local()).1.durable().await.unwrap();
                    twins.desired_from_here(&sensor, Map::new()).1.durable().await.unwrap();
                }
                if is_restarted {
                    drop(twins);
                    state.close().await;
                    state = State::open(dir.path()).unwrap();
                    twins = Twins::load(state.clone()).unwrap();
                }
                let (change, _) = twins.desired_from_central(&sensor, section(7, json!({"a": 1})), || true);
                assert!(change.is_none(), "central said nothing new");
                let (change, saved) =
                    twins.desired_from_central(&sensor, section(7, json!({"b": 2})), || true);
                assert_eq!(change.map(|change| change.version), Some(7), "{has_local_change} {is_restarted}");
                saved.unwrap().durable().await.unwrap();
                assert_eq!(twins.get(&sensor).desired, section(7, json!({"b": 2})));
                let (change, _) = twins.desired_from_central(&sensor, section(7, json!({"b": 2})), || true);
                assert!(change.is_none(), "central said nothing new");
                drop(twins);
                state.close().await;
            }
        }
    }

    #[tokio::test]
    async fn a_reported_section_is_sent_until_central_has_it_and_once_more_on_a_new_link() {
        let dir = tempfile::tempdir().unwrap();
        let twins = Twins::load(State::open(dir.path()).unwrap()).unwrap();
        let press: Identity = "press-1".parse().unwrap();
        let patch = json!({"speed": 3}).as_object().unwrap().clone();
        assert_eq!(twins.report(&press, &patch, || true).await.unwrap(), 1);
        assert_eq!(twins.report(&press, &patch, || true).await.unwrap(), 2);
        twins.has_unsent().await;
        assert_eq!(twins.next_unsent(|_| true), Some((press.clone(), section(2, json!({"speed": 3})))));
        assert_eq!(twins.next_unsent(|_| true), None);
        twins.all_unsent();
        assert!(twins.next_unsent(|_| true).is_some());
    }

    #[tokio::test]
    async fn the_daemons_own_report_is_sent_before_the_sections_of_modules_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let twins = Twins::load(State::open(dir.path()).unwrap()).unwrap();
        let patch = json!({"speed": 3}).as_object().unwrap().clone();
        for who in ["a-leaf", "gw/filter", "z-gw/$edgeAgent"] {
            twins.report(&who.parse().unwrap(), &patch, || true).await.unwrap();
        }
        let sent = std::iter::from_fn(|| twins.next_unsent(|_| true)).map(|(who, _)| who.to_string());
        assert_eq!(sent.collect::<Vec<_>>(), ["z-gw/$edgeAgent", "a-leaf", "gw/filter"]);
    }
}
