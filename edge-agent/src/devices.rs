//! The leaf devices that may connect here: those that central assigned to this gateway, and those added on it.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::link::{Child, Children};
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};

use crate::state::{Room, Saved, State, StateError};

const FROM_CENTRAL: &str = "central";
const ADDED: &str = "added/";
/// Leaf devices of one gateway. IoT Edge allows 100 clients by default.
const ADDED_MAX: usize = 1000;

/// A leaf device with its decoded keys.
#[derive(Clone)]
pub struct Leaf {
    /// Symmetric keys, in the order in which they are tried.
    pub keys: Vec<Vec<u8>>,
    /// A blocked device is known and refused.
    pub is_enabled: bool,
    /// Whether it was added on the gateway itself.
    pub is_local: bool,
}

/// Why a device was not added or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The id is taken.
    #[error("device {0} is there already; remove it first, or choose another id")]
    Exists(DeviceId),
    /// Nobody of that name was added here.
    #[error("device {0} was not added on this gateway; `edge-agent device list` shows who was")]
    Unknown(DeviceId),
    /// The list is full.
    #[error("{ADDED_MAX} devices were added on this gateway already; remove one first")]
    Full,
    /// Not on disk.
    #[error(transparent)]
    State(#[from] StateError),
}

#[derive(Clone, Serialize, Deserialize)]
struct Added {
    key: String,
}

#[derive(Default)]
struct Known {
    /// `None` until central has told once.
    from_central: Option<BTreeMap<DeviceId, Child>>,
    added: BTreeMap<DeviceId, Added>,
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
    /// [`StateError::Value`] when they cannot be read.
    pub fn load(state: State) -> Result<Self, StateError> {
        let mut known = Known::default();
        for (key, value) in state.load::<serde_json::Value>(Room::Devices)? {
            let wrong = |source| StateError::Value { room: "devices", key: key.clone(), source };
            if key == FROM_CENTRAL {
                let list: Children = serde_json::from_value(value).map_err(wrong)?;
                known.from_central = Some(by_id(list));
            } else if let Some(id) = key.strip_prefix(ADDED).and_then(|id| id.parse().ok()) {
                known.added.insert(id, serde_json::from_value(value).map_err(wrong)?);
            }
        }
        Ok(Self { known: Arc::new(RwLock::new(known)), state })
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().expect("nothing panics while it holds the devices"))
    }

    /// A leaf device; `None` when it is unknown. The one added here wins over central's.
    pub fn get(&self, id: &DeviceId) -> Option<Leaf> {
        let decode = |key: &str| STANDARD.decode(key).ok().filter(|key| !key.is_empty());
        self.read(|known| {
            if let Some(added) = known.added.get(id) {
                return Some(Leaf {
                    keys: decode(&added.key).into_iter().collect(),
                    is_enabled: true,
                    is_local: true,
                });
            }
            let child = known.from_central.as_ref()?.get(id)?;
            let keys = [&child.primary_key, &child.secondary_key];
            Some(Leaf {
                keys: keys.into_iter().filter_map(|key| decode(key)).collect(),
                is_enabled: child.enabled,
                is_local: false,
            })
        })
    }

    /// Whether central has told its list at least once.
    pub fn is_told(&self) -> bool {
        self.read(|known| known.from_central.is_some())
    }

    /// Every known id, and whether it was added here.
    pub fn list(&self) -> Vec<(DeviceId, bool)> {
        self.read(|known| {
            let mut all: BTreeMap<DeviceId, bool> =
                known.from_central.iter().flatten().map(|(id, _)| (id.clone(), false)).collect();
            all.extend(known.added.keys().map(|id| (id.clone(), true)));
            all.into_iter().collect()
        })
    }

    /// Takes central's whole list. Gives who may no longer stay, or has other keys now, and when the list is on disk.
    pub fn told(&self, list: Children) -> (Vec<DeviceId>, Saved) {
        let saved = self.state.put(Room::Devices, FROM_CENTRAL, &list);
        let new = by_id(list);
        let mut known = self.known.write().expect("nothing panics while it holds the devices");
        let old = known.from_central.replace(new).unwrap_or_default();
        let new = known.from_central.as_ref().expect("it was just put there");
        let is_gone = |id: &DeviceId, before: &Child| {
            !known.added.contains_key(id)
                && new.get(id).is_none_or(|now| !now.enabled || now.primary_key != before.primary_key)
        };
        let gone = old.iter().filter(|(id, before)| is_gone(id, before)).map(|(id, _)| id.clone()).collect();
        (gone, saved)
    }

    /// Adds a device with a key.
    ///
    /// # Errors
    /// [`DeviceError`]: the id is taken, the list is full, or it was not saved.
    pub async fn add(&self, id: DeviceId, key: &[u8]) -> Result<(), DeviceError> {
        let added = Added { key: STANDARD.encode(key) };
        let saved = {
            let mut known = self.known.write().expect("nothing panics while it holds the devices");
            let is_central = known.from_central.as_ref().is_some_and(|list| list.contains_key(&id));
            if is_central || known.added.contains_key(&id) {
                return Err(DeviceError::Exists(id));
            }
            if known.added.len() >= ADDED_MAX {
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
}

fn by_id(list: Children) -> BTreeMap<DeviceId, Child> {
    list.children.into_iter().map(|child| (child.device_id.clone(), child)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(id: &str, key: &str, enabled: bool) -> Child {
        Child {
            device_id: id.parse().unwrap(),
            primary_key: STANDARD.encode(key),
            secondary_key: String::new(),
            enabled,
        }
    }

    #[tokio::test]
    async fn who_is_blocked_removed_or_has_a_new_key_must_leave_and_who_was_added_here_stays() {
        let dir = tempfile::tempdir().unwrap();
        let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
        assert!(!devices.is_told());
        let ids = ["a", "b", "c", "d"];
        let (gone, _) =
            devices.told(Children { children: ids.iter().map(|id| child(id, "k", true)).collect() });
        assert!(gone.is_empty() && devices.is_told());
        devices.add("here".parse().unwrap(), b"local").await.unwrap();
        let (gone, saved) = devices.told(Children {
            children: vec![child("a", "k", true), child("b", "k", false), child("c", "other", true)],
        });
        saved.durable().await.unwrap();
        let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
        assert_eq!(gone, ["b", "c", "d"]);
        assert_eq!(devices.get(&"here".parse().unwrap()).unwrap().keys, [b"local".to_vec()]);
        assert!(!devices.get(&"b".parse().unwrap()).unwrap().is_enabled);
        assert!(devices.get(&"d".parse().unwrap()).is_none());
        assert!(matches!(devices.add("a".parse().unwrap(), b"x").await, Err(DeviceError::Exists(_))));
        assert!(matches!(devices.remove(&"a".parse().unwrap()).await, Err(DeviceError::Unknown(_))));
    }
}
