//! The leaf devices that may connect here: those that central assigned to this gateway, and those added on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::attestation::Attestation;
use schemas::link::{CHILDREN_MAX, Child, Children};
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};

use crate::state::{Room, Saved, State, StateError, shaped};

const FROM_CENTRAL: &str = "central";
const BLOCKED: &str = "blocked";
const ADDED: &str = "added/";

/// A leaf device.
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
    #[error("{CHILDREN_MAX} devices stand behind this gateway already; remove one first, here or at central")]
    Full,
    /// The list of blocked devices is full.
    #[error("{CHILDREN_MAX} devices are blocked on this gateway already; unblock one first")]
    BlockedFull,
    /// Not on disk.
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
}

impl Added {
    fn of(attestation: &Attestation) -> Self {
        match attestation {
            Attestation::Keys(keys) => {
                Self { key: keys.first().map(|key| STANDARD.encode(key)), ..Self::default() }
            }
            Attestation::Thumbprints(thumbprints) => {
                Self { thumbprints: thumbprints.iter().map(ToString::to_string).collect(), ..Self::default() }
            }
            Attestation::Authority => Self { is_ca_signed: true, ..Self::default() },
        }
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
    /// `None` until central has told once.
    from_central: Option<BTreeMap<DeviceId, Child>>,
    added: BTreeMap<DeviceId, Added>,
    blocked: BTreeSet<DeviceId>,
}

impl Known {
    /// How many devices stand behind this gateway.
    fn count(&self) -> usize {
        let from_central = self.from_central.iter().flat_map(BTreeMap::keys);
        self.added.len() + from_central.filter(|id| !self.added.contains_key(*id)).count()
    }

    fn get(&self, id: &DeviceId) -> Option<Leaf> {
        let is_blocked_here = self.blocked.contains(id);
        if let Some(added) = self.added.get(id) {
            let attestation = attestation(&added.key, &added.thumbprints, added.is_ca_signed);
            return Some(Leaf { attestation, is_enabled: true, is_blocked_here, is_local: true });
        }
        let child = self.from_central.as_ref()?.get(id)?;
        let keys = [&child.primary_key, &child.secondary_key];
        Some(Leaf {
            attestation: attestation(keys, &child.thumbprints, child.is_ca_signed),
            is_enabled: child.enabled,
            is_blocked_here,
            is_local: false,
        })
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
        for (key, value) in state.load::<serde_json::Value>(Room::Devices) {
            if key == FROM_CENTRAL {
                known.from_central = shaped::<Children>(Room::Devices, &key, value).map(by_id);
            } else if key == BLOCKED {
                known.blocked = shaped(Room::Devices, &key, value).unwrap_or_default();
            } else if let Some(id) = key.strip_prefix(ADDED).and_then(|id| id.parse().ok())
                && let Some(device) = shaped(Room::Devices, &key, value)
            {
                known.added.insert(id, device);
            }
        }
        Ok(Self { known: Arc::new(RwLock::new(known)), state })
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().expect("nothing panics while it holds the devices"))
    }

    /// A leaf device; `None` when it is unknown. The one added here wins over central's.
    pub fn get(&self, id: &DeviceId) -> Option<Leaf> {
        self.read(|known| known.get(id))
    }

    /// Whether central has told its list at least once.
    pub fn is_told(&self) -> bool {
        self.read(|known| known.from_central.is_some())
    }

    /// Every known device by id.
    pub fn list(&self) -> Vec<(DeviceId, Leaf)> {
        self.read(|known| {
            let ids: BTreeSet<&DeviceId> =
                known.from_central.iter().flat_map(BTreeMap::keys).chain(known.added.keys()).collect();
            ids.into_iter().filter_map(|id| Some((id.clone(), known.get(id)?))).collect()
        })
    }

    /// Takes central's whole list; the caller then has every connection judged anew.
    pub fn told(&self, list: Children) -> Saved {
        let mut known = self.known.write().expect("nothing panics while it holds the devices");
        // Saved under the lock, so that the disk gets the lists in the order of the memory.
        let saved = self.state.put(Room::Devices, FROM_CENTRAL, &list);
        known.from_central = Some(by_id(list));
        saved
    }

    /// Adds a device.
    ///
    /// # Errors
    /// [`DeviceError`]: the id is taken, the list is full, or it was not saved.
    pub async fn add(&self, id: DeviceId, attestation: &Attestation) -> Result<(), DeviceError> {
        let added = Added::of(attestation);
        let saved = {
            let mut known = self.known.write().expect("nothing panics while it holds the devices");
            let is_central = known.from_central.as_ref().is_some_and(|list| list.contains_key(&id));
            if is_central || known.added.contains_key(&id) {
                return Err(DeviceError::Exists(id));
            }
            if known.count() >= CHILDREN_MAX {
                return Err(DeviceError::Full);
            }
            known.added.insert(id.clone(), added.clone());
            self.state.put(Room::Devices, &format!("{ADDED}{id}"), &added)
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
            self.state.remove(Room::Devices, &format!("{ADDED}{id}"))
        };
        Ok(saved.durable().await?)
    }

    /// Blocks a device on this gateway, or lifts that block. It holds whoever brought the device, also when central
    /// takes it away and gives it back. It is in force at once; the caller then has every connection judged anew.
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
        Ok(self.state.put(Room::Devices, BLOCKED, &known.blocked))
    }
}

fn by_id(list: Children) -> BTreeMap<DeviceId, Child> {
    list.children.into_iter().map(|child| (child.device_id.clone(), child)).collect()
}

#[cfg(test)]
mod tests {
    use edge_core::access::x509::Thumbprint;

    use super::*;

    fn child(id: &str, key: &str, enabled: bool) -> Child {
        Child {
            device_id: id.parse().unwrap(),
            primary_key: STANDARD.encode(key),
            secondary_key: String::new(),
            thumbprints: Vec::new(),
            is_ca_signed: false,
            enabled,
        }
    }

    fn id(text: &str) -> DeviceId {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_central_told_and_what_was_added_here_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let devices = Devices::load(state.clone()).unwrap();
        assert!(!devices.is_told());
        let keys = |key: &[u8]| Attestation::Keys(vec![key.to_vec()]);
        devices.add(id("here"), &keys(b"local")).await.unwrap();
        let thumbprints = Attestation::Thumbprints(vec![Thumbprint::Sha1([7; 20])]);
        devices.add(id("cert"), &thumbprints).await.unwrap();
        devices.add(id("ca"), &Attestation::Authority).await.unwrap();
        let mut by_certificate = child("c", "", true);
        by_certificate.thumbprints = vec!["ab".repeat(32)];
        let children = vec![child("a", "k", true), child("b", "k", false), by_certificate];
        devices.told(Children { children }).durable().await.unwrap();
        assert!(matches!(devices.add(id("a"), &keys(b"x")).await, Err(DeviceError::Exists(_))));
        assert!(matches!(devices.remove(&id("a")).await, Err(DeviceError::Unknown(_))));
        drop(devices);
        state.close().await;

        let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
        assert!(devices.is_told());
        let shows = |who: &str| devices.get(&id(who)).unwrap().attestation;
        assert_eq!(shows("here"), keys(b"local"));
        assert_eq!(shows("cert"), thumbprints);
        assert_eq!(shows("ca"), Attestation::Authority);
        assert_eq!(shows("a"), keys(b"k"));
        assert_eq!(shows("c"), Attestation::Thumbprints(vec![Thumbprint::Sha256([0xab; 32])]));
        assert!(!devices.get(&id("b")).unwrap().is_enabled && devices.get(&id("d")).is_none());
    }

    #[tokio::test]
    async fn as_many_devices_stand_behind_a_gateway_as_its_door_has_places_whoever_brought_them() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let devices = Devices::load(state.clone()).unwrap();
        let children = (1..CHILDREN_MAX).map(|n| child(&format!("leaf-{n}"), "k", true)).collect();
        devices.told(Children { children }).durable().await.unwrap();
        let keys = Attestation::Keys(vec![b"local".to_vec()]);
        devices.add(id("here"), &keys).await.unwrap();
        assert!(matches!(devices.add(id("one-more"), &keys).await, Err(DeviceError::Full)));
        drop(devices);
        state.close().await;
        let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
        assert_eq!(devices.list().len(), CHILDREN_MAX);
    }

    #[tokio::test]
    async fn a_block_on_the_gateway_holds_whatever_central_says_until_it_is_lifted_there() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let devices = Devices::load(state.clone()).unwrap();
        assert!(matches!(devices.block(&id("a"), true), Err(DeviceError::Nobody(_))));
        devices.told(Children { children: vec![child("a", "k", true)] }).durable().await.unwrap();
        devices.block(&id("a"), true).unwrap().durable().await.unwrap();
        devices.told(Children::default()).later();
        devices.told(Children { children: vec![child("a", "new", true)] }).durable().await.unwrap();
        drop(devices);
        state.close().await;
        let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
        let blocked = || devices.get(&id("a")).unwrap().blocked();
        assert_eq!(blocked(), Some("it is blocked on this gateway"));
        devices.block(&id("a"), false).unwrap().durable().await.unwrap();
        assert_eq!(blocked(), None);
    }
}
