//! What the engine changes of a container that exists (`docker update`), and whether somebody has.
//!
//! Compared with what the container had when it was first seen, not with the manifest: the engine adds to what was requested, and
//! leaves out what this kernel cannot do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The keys of `HostConfig` that the engine changes of a container that exists.
pub const KEYS: [&str; 13] = [
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
];

/// The engine refuses a memory limit above that of memory and swap together, unless both come in one request.
const TOGETHER: [&str; 2] = ["Memory", "MemorySwap"];

/// The limits of a container by their keys in `HostConfig`; those that are not set are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerResources(BTreeMap<String, Value>);

/// What somebody changed of a container's limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// What the engine is to set back.
    pub restored: BTreeMap<String, Value>,
    /// The keys that had no value: the engine takes none away from a container that exists.
    pub lasting: Vec<String>,
}

impl ContainerResources {
    /// Those of a container's `HostConfig`.
    pub fn of(host_config: &Value) -> Self {
        let is_set = |value: &Value| match value {
            Value::Null => false,
            Value::Number(number) => number.as_i64() != Some(0),
            Value::String(text) => !text.is_empty(),
            _ => true,
        };
        let found = KEYS.iter().filter_map(|key| host_config.get(key).map(|value| (*key, value)));
        let set = found.filter(|(_, value)| is_set(value));
        Self(set.map(|(key, value)| (key.to_owned(), value.clone())).collect())
    }

    /// Whether all of these are in force.
    pub fn have(&self, restored: &BTreeMap<String, Value>) -> bool {
        restored.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// What somebody has changed since; `None` when nothing.
    pub fn edit(&self, now: &Self) -> Option<Edit> {
        let changed: Vec<&str> = KEYS.into_iter().filter(|key| self.0.get(*key) != now.0.get(*key)).collect();
        let mut edit = Edit::default();
        for key in &changed {
            match self.0.get(*key) {
                Some(value) => drop(edit.restored.insert((*key).to_owned(), value.clone())),
                None => edit.lasting.push((*key).to_owned()),
            }
        }
        if TOGETHER.iter().any(|key| edit.restored.contains_key(*key)) {
            let both = TOGETHER.iter().filter_map(|key| self.0.get_key_value(*key));
            edit.restored.extend(both.map(|(key, value)| (key.clone(), value.clone())));
        }
        (!changed.is_empty()).then_some(edit)
    }
}

impl Edit {
    /// What it is, for an operator.
    pub fn describe(&self) -> String {
        let list = |keys: &mut dyn Iterator<Item = &String>| {
            keys.map(|key| format!("HostConfig.{key}")).collect::<Vec<_>>().join(", ")
        };
        let restored = list(&mut self.restored.keys());
        let lasting = list(&mut self.lasting.iter());
        match (restored.is_empty(), lasting.is_empty()) {
            (_, true) => format!("somebody changed its container: {restored} is set back"),
            (true, false) => format!(
                "somebody changed its container: Docker does not take {lasting} away; `docker rm -f` has the container created anew"
            ),
            (false, false) => format!(
                "somebody changed its container: {restored} is set back, and Docker does not take {lasting} away; `docker rm -f` has the container created anew"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_had_a_value_is_set_back_and_what_had_none_is_named() {
        let created = json!({"Memory": 64, "MemorySwap": 128, "CpuShares": 0, "CpusetCpus": "", "PidsLimit": 4096,
            "Binds": ["/a:/a"], "NanoCpus": null});
        let limits = ContainerResources::of(&created);
        for (key, value, restored, lasting) in [
            ("Memory", json!(32), json!({"Memory": 64, "MemorySwap": 128}), vec![]),
            ("MemorySwap", json!(-1), json!({"Memory": 64, "MemorySwap": 128}), vec![]),
            ("PidsLimit", json!(9), json!({"PidsLimit": 4096}), vec![]),
            ("PidsLimit", json!(0), json!({"PidsLimit": 4096}), vec![]),
            ("NanoCpus", json!(500), json!({}), vec!["NanoCpus"]),
            ("CpusetCpus", json!("0"), json!({}), vec!["CpusetCpus"]),
        ] {
            let mut now = created.clone();
            now[key] = value;
            let edit = limits.edit(&ContainerResources::of(&now)).unwrap();
            assert_eq!(
                (json!(edit.restored), edit.lasting.clone()),
                (restored, lasting.iter().map(|key| (*key).to_owned()).collect())
            );
            assert!(edit.describe().contains(key), "{}", edit.describe());
        }
        let mut now = created.clone();
        now["Binds"] = json!([]);
        now["CpuShares"] = Value::Null;
        assert_eq!(limits.edit(&ContainerResources::of(&now)), None);
    }
}
