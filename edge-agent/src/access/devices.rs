//! The leaf devices that may connect here: those that central assigned to this gateway, and those added on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::attestation::Attestation;
use edge_core::link::snapshot::{Assembly, OutOfOrder};
use schemas::generation::Generation;
use schemas::link::{CHILDREN_MAX, Child, Children};
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::state::{Namespace, Saved, State, StateError, shaped};

/// Each device that central assigned.
const FROM_CENTRAL: &str = "central/";
/// There once central's list was complete.
const LISTED: &str = "told";
/// central's whole list, as older versions kept it.
const FORMER_LIST: &str = "central";
/// Devices that are saved at once: some of what may wait for the disk.
const SAVED_AT_ONCE: usize = 500;
const BLOCKED: &str = "blocked";
const ADDED: &str = "added/";

#[derive(Debug, Clone)]
pub struct Leaf {
    /// What it must show.
    pub attestation: Attestation,
    /// Whether central lets it in; a blocked device is known and refused.
    pub is_enabled: bool,
    /// Whether it was blocked on this gateway, which holds whatever central says.
    pub is_blocked_here: bool,
    /// Whether it was added on the gateway itself.
    pub is_local: bool,
}

impl Leaf {
    /// Why it may not come in, if so.
    pub fn blocked(&self) -> Option<&'static str> {
        match (self.is_blocked_here, self.is_enabled) {
            (true, _) => Some("it is blocked on this gateway"),
            (false, false) => Some("it is blocked at central"),
            (false, true) => None,
        }
    }
}

/// Why a device was not added, blocked or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The id is taken.
    #[error("device {0} is there already; remove it first, or choose another id")]
    Exists(DeviceId),
    /// Nobody of that name was added here.
    #[error("device {0} was not added on this gateway; `edge-agent device list` shows who was")]
    Unknown(DeviceId),
    /// Nobody of that name is known or blocked.
    #[error("device {0} is not known here; `edge-agent device list` shows who is")]
    Nobody(DeviceId),
    /// The list is full.
    #[error("{CHILDREN_MAX} devices are behind this gateway already; remove one first, here or at central")]
    Full,
    /// The list of blocked devices is full.
    #[error("{CHILDREN_MAX} devices are blocked on this gateway already; unblock one first")]
    BlockedFull,
    #[error(transparent)]
    State(#[from] StateError),
}

/// A device that was added here. Older versions wrote the key alone.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Added {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    thumbprints: Vec<String>,
    #[serde(default)]
    is_ca_signed: bool,
    /// Tells it from earlier ones of its id that were added here. 0 from an older version.
    #[serde(default)]
    generation: u64,
}

impl Added {
    fn of(attestation: &Attestation, generation: u64) -> Self {
        let added = match attestation {
            Attestation::Keys(keys) => {
                Self { key: keys.first().map(|key| STANDARD.encode(key)), ..Self::default() }
            }
            Attestation::Thumbprints(thumbprints) => {
                Self { thumbprints: thumbprints.iter().map(ToString::to_string).collect(), ..Self::default() }
            }
            Attestation::Authority => Self { is_ca_signed: true, ..Self::default() },
        };
        Self { generation, ..added }
    }
}

/// What a device must show, from how it is written in state and on the link.
fn attestation<'a>(
    keys: impl IntoIterator<Item = &'a String>,
    thumbprints: &[String],
    is_ca_signed: bool,
) -> Attestation {
    if is_ca_signed {
        return Attestation::Authority;
    }
    if !thumbprints.is_empty() {
        return Attestation::Thumbprints(thumbprints.iter().filter_map(|text| text.parse().ok()).collect());
    }
    let decode = |key: &String| STANDARD.decode(key).ok().filter(|key| !key.is_empty());
    Attestation::Keys(keys.into_iter().filter_map(decode).collect())
}

#[derive(Default)]
struct Known {
    from_central: BTreeMap<DeviceId, Child>,
    /// Whether central has sent its list once.
    has_list: bool,
    /// The list on disk is that of an older version.
    is_former: bool,
    snapshot: Assembly<DeviceId>,
    added: BTreeMap<DeviceId, Added>,
    blocked: BTreeSet<DeviceId>,
}

impl Known {
    /// How many devices stand behind this gateway.
    fn count(&self) -> usize {
        let from_central = self.from_central.keys();
        self.added.len() + from_central.filter(|id| !self.added.contains_key(*id)).count()
    }

    fn get(&self, id: &DeviceId) -> Option<Leaf> {
        let is_blocked_here = self.blocked.contains(id);
        if let Some(added) = self.added.get(id) {
            let attestation = attestation(&added.key, &added.thumbprints, added.is_ca_signed);
            return Some(Leaf { attestation, is_enabled: true, is_blocked_here, is_local: true });
        }
        let child = self.from_central.get(id)?;
        let keys = [&child.primary_key, &child.secondary_key];
        Some(Leaf {
            attestation: attestation(keys, &child.thumbprints, child.is_ca_signed),
            is_enabled: child.enabled,
            is_blocked_here,
            is_local: false,
        })
    }
}

/// What central sent, in force and on its way to the disk.
#[must_use = "it is promised to central when it is on disk"]
pub struct TakenList {
    state: State,
    /// By key; none for what is gone.
    changes: Vec<(String, Option<Child>)>,
    /// The list is complete for the first time, or since an older version.
    is_first: bool,
    /// The devices that are not here any more, or are others of their ids, but for those that were added here. With their
    /// generations, where central sent them.
    pub left: Vec<(DeviceId, Option<Generation>)>,
}

impl TakenList {
    /// Ends when it is on disk.
    ///
    /// # Errors
    /// [`StateError`] when it did not get there.
    pub async fn durable(self) -> Result<(), StateError> {
        for changes in self.changes.chunks(SAVED_AT_ONCE) {
            let saved = changes.iter().map(|(key, child)| match child {
                Some(child) => self.state.put(Namespace::Devices, key, child),
                None => self.state.remove(Namespace::Devices, key),
            });
            // All of them are handed in before the first is waited for.
            for saved in saved.collect::<Vec<_>>() {
                saved.durable().await?;
            }
        }
        if self.is_first {
            self.state.put(Namespace::Devices, LISTED, &true).durable().await?;
            self.state.remove(Namespace::Devices, FORMER_LIST).durable().await?;
        }
        Ok(())
    }
}

/// All leaf devices. Cheap to clone.
#[derive(Clone)]
pub struct Devices {
    known: Arc<RwLock<Known>>,
    state: State,
}

impl Devices {
    /// The devices as last saved.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be used.
    pub fn load(state: State) -> Result<Self, StateError> {
        let mut known = Known::default();
        for (key, value) in state.load::<serde_json::Value>(Namespace::Devices) {
            if key == FORMER_LIST {
                let Some(list) = shaped::<Children>(Namespace::Devices, &key, value) else { continue };
                for child in list.children {
                    // What has a place of its own was saved later.
                    known.from_central.entry(child.device_id.clone()).or_insert(child);
                }
                (known.has_list, known.is_former) = (true, true);
            } else if key == LISTED {
                known.has_list = true;
            } else if let Some(id) = key.strip_prefix(FROM_CENTRAL).and_then(|id| id.parse().ok()) {
                if let Some(child) = shaped(Namespace::Devices, &key, value) {
                    known.from_central.insert(id, child);
                }
            } else if key == BLOCKED {
                known.blocked = shaped(Namespace::Devices, &key, value).unwrap_or_default();
            } else if let Some(id) = key.strip_prefix(ADDED).and_then(|id| id.parse().ok())
                && let Some(device) = shaped(Namespace::Devices, &key, value)
            {
                known.added.insert(id, device);
            }
        }
        Ok(Self { known: Arc::new(RwLock::new(known)), state })
    }

    fn read<T>(&self, with: impl FnOnce(&Known) -> T) -> T {
        with(&self.known.read().expect("nothing panics while it holds the devices"))
    }

    /// A leaf device; `None` when it is unknown. The one added here wins over central's.
    pub fn get(&self, id: &DeviceId) -> Option<Leaf> {
        self.read(|known| known.get(id))
    }

    /// Whether central has sent its list at least once.
    pub fn has_list(&self) -> bool {
        self.read(|known| known.has_list)
    }

    /// Every known device by id.
    pub fn list(&self) -> Vec<(DeviceId, Leaf)> {
        self.read(|known| {
            let ids: BTreeSet<&DeviceId> = known.from_central.keys().chain(known.added.keys()).collect();
            ids.into_iter().filter_map(|id| Some((id.clone(), known.get(id)?))).collect()
        })
    }

    /// Which of the devices of its id a device is.
    pub fn generation(&self, id: &DeviceId) -> Option<Generation> {
        self.read(|known| match known.added.get(id) {
            Some(added) => Some(Generation::gateway(added.generation)),
            None => known.from_central.get(id)?.generation.map(Generation::central),
        })
    }

    /// Returns true for a device that was added here.
    pub fn is_added(&self, id: &DeviceId) -> bool {
        self.read(|known| known.added.contains_key(id))
    }

    /// Takes central's list, a part of it, or changes of it, which are in force when this returns; the caller then has every
    /// connection authorized again. For one caller at a time, who saves them before the next.
    ///
    /// # Errors
    /// [`OutOfOrder`] for a part that does not follow the one before it: central begins again on a new connection.
    pub fn take_list(&self, list: Children) -> Result<TakenList, OutOfOrder> {
        self.take_list_noting(list, |_| {})
    }

    /// As [`Devices::take_list`]; `note` is given [`TakenList::left`] before anybody is admitted by the new list: a key that it
    /// brings is right for the next device of a name, which must not find what the one before it left.
    ///
    /// # Errors
    /// As there.
    pub fn take_list_noting(
        &self,
        list: Children,
        note: impl FnOnce(&[(DeviceId, Option<Generation>)]),
    ) -> Result<TakenList, OutOfOrder> {
        let mut known = self.known.write().expect("nothing panics while it holds the devices");
        let known = &mut *known;
        let key = |id: &DeviceId| format!("{FROM_CENTRAL}{id}");
        let Children { children, is_difference, removed, snapshot } = list;
        let ids = children.iter().map(|child| child.device_id.clone());
        let named = match snapshot {
            Some(part) => known.snapshot.take(part, ids)?,
            None => (!is_difference).then(|| ids.collect()),
        };
        let (mut changes, mut left) = (Vec::new(), Vec::new());
        for child in children {
            let id = child.device_id.clone();
            let before = known.from_central.get(&id);
            if before == Some(&child) && !known.is_former {
                continue;
            }
            if before.is_none() && known.from_central.len() >= CHILDREN_MAX {
                tracing::error!(device = %id, "central assigned more devices than a gateway may have");
                continue;
            }
            // From a central or to a gateway that did not know generations: nothing is known of it.
            let is_another = before.is_some_and(|before| {
                before.generation.is_some()
                    && child.generation.is_some_and(|new| before.generation != Some(new))
            });
            changes.push((key(&id), Some(child.clone())));
            if is_another && !known.added.contains_key(&id) {
                left.push((id.clone(), before.and_then(|before| before.generation).map(Generation::central)));
            }
            known.from_central.insert(id, child);
        }
        let gone: Vec<DeviceId> = match &named {
            Some(named) => known.from_central.keys().filter(|id| !named.contains(*id)).cloned().collect(),
            None => removed,
        };
        for id in gone {
            let before = known.from_central.remove(&id).filter(|_| !known.added.contains_key(&id));
            changes.push((key(&id), None));
            left.extend(before.map(|before| (id, before.generation.map(Generation::central))));
        }
        note(&left);
        let is_first = named.is_some() && (!known.has_list || known.is_former);
        if named.is_some() {
            (known.has_list, known.is_former) = (true, false);
        }
        Ok(TakenList { state: self.state.clone(), changes, is_first, left })
    }

    /// Adds a device. Its number is above `earlier`, that of the last one of its id.
    ///
    /// # Errors
    /// [`DeviceError`]: the id is taken, the list is full, or it was not saved.
    pub async fn add(
        &self,
        id: DeviceId,
        attestation: &Attestation,
        earlier: u64,
    ) -> Result<(), DeviceError> {
        // By the clock, since earlier numbers are forgotten when central knows of the removal.
        let added = Added::of(attestation, now_ms().max(earlier + 1));
        let saved = {
            let mut known = self.known.write().expect("nothing panics while it holds the devices");
            let is_central = known.from_central.contains_key(&id);
            if is_central || known.added.contains_key(&id) {
                return Err(DeviceError::Exists(id));
            }
            if known.count() >= CHILDREN_MAX {
                return Err(DeviceError::Full);
            }
            known.added.insert(id.clone(), added.clone());
            self.state.put(Namespace::Devices, &format!("{ADDED}{id}"), &added)
        };
        Ok(saved.durable().await?)
    }

    /// Removes a device that was added here.
    ///
    /// # Errors
    /// [`DeviceError`]: it was not added here, or the removal was not saved.
    pub async fn remove(&self, id: &DeviceId) -> Result<(), DeviceError> {
        let saved = {
            let mut known = self.known.write().expect("nothing panics while it holds the devices");
            known.added.remove(id).ok_or_else(|| DeviceError::Unknown(id.clone()))?;
            self.state.remove(Namespace::Devices, &format!("{ADDED}{id}"))
        };
        Ok(saved.durable().await?)
    }

    /// Blocks a device on this gateway, or lifts that block. It holds whoever brought the device, also when central
    /// takes it away and gives it back. It is in force at once; the caller then has every connection authorized again.
    ///
    /// # Errors
    /// [`DeviceError`]: nobody of that id is known (for a lifting: or blocked), or it was not saved.
    pub fn block(&self, id: &DeviceId, is_blocked: bool) -> Result<Saved, DeviceError> {
        let mut known = self.known.write().expect("nothing panics while it holds the devices");
        if known.get(id).is_none() && !known.blocked.contains(id) {
            return Err(DeviceError::Nobody(id.clone()));
        }
        match is_blocked {
            true if known.blocked.len() >= CHILDREN_MAX => return Err(DeviceError::BlockedFull),
            true => known.blocked.insert(id.clone()),
            false => known.blocked.remove(id),
        };
        Ok(self.state.put(Namespace::Devices, BLOCKED, &known.blocked))
    }
}

#[cfg(test)]
mod tests;
