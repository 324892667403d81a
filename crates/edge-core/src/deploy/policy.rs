//! What a gateway lets manifests ask of its host: `[deploy.policy]` of edge.toml, and the check of a manifest against it.
//!
//! The default permits everything, as IoT Edge does. Create options are read as the engine reads them: without regard to the
//! case of keys, and with paths normalised. What is unknown or has an unexpected shape is refused where the policy limits it.

mod check;
pub mod paths;
#[cfg(test)]
mod tests;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What `[deploy.policy] host_namespaces` may list.
const NAMESPACES: [&str; 6] = ["pid", "ipc", "uts", "network", "user", "cgroup"];

/// `[deploy.policy]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// `HostConfig.Privileged`.
    pub privileged: bool,
    /// Paths of the host that may be mounted, with what is below them.
    pub host_mounts: Permitted,
    /// Mounts of the engine's socket, or of a directory above it.
    pub docker_socket: bool,
    /// Namespaces of the host, or of another container, that a module may join: `pid`, `ipc`, `uts`, `network`, `user`, `cgroup`.
    pub host_namespaces: Permitted,
    /// Capabilities beyond the engine's default (`CapAdd`).
    pub capabilities: Permitted,
    /// Devices of the host, by path. Device requests and device cgroup rules need `"all"`.
    pub devices: Permitted,
    /// `SecurityOpt` other than `no-new-privileges`, `MaskedPaths` and `ReadonlyPaths`.
    pub security_options: bool,
    /// `Sysctls`, by name.
    pub sysctls: Permitted,
    /// `Runtime`, beside runc.
    pub runtimes: Permitted,
    /// `CgroupParent`, a negative `OomScoreAdj`, `OomKillDisable` and real-time scheduling.
    pub host_resources: bool,
    /// Registries that images may come from, as `host` or `host:port`.
    pub registries: Permitted,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            privileged: true,
            host_mounts: Permitted::All,
            docker_socket: true,
            host_namespaces: Permitted::All,
            capabilities: Permitted::All,
            devices: Permitted::All,
            security_options: true,
            sysctls: Permitted::All,
            runtimes: Permitted::All,
            host_resources: true,
            registries: Permitted::All,
        }
    }
}

/// `"all"`, `"none"`, or a list; a text with commas is a list too, so that an environment variable can give one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// Everything.
    All,
    /// What is listed and nothing else.
    Only(Vec<String>),
}

impl<'de> Deserialize<'de> for Permitted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write \"all\", \"none\" or a list of texts")]
        enum Written {
            Text(String),
            List(Vec<String>),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) if text == "all" => Self::All,
            Written::Text(text) if text == "none" => Self::Only(Vec::new()),
            Written::Text(text) => Self::Only(text.split(',').map(|item| item.trim().to_owned()).collect()),
            Written::List(list) => Self::Only(list),
        })
    }
}

impl Serialize for Permitted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Only(items) => items.serialize(serializer),
        }
    }
}

impl JsonSchema for Permitted {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Permitted".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "items": {"type": "string"},
            "x-type": "`\"all\"`, `\"none\"` or a list of texts",
        })
    }
}

impl Permitted {
    fn is_all(&self) -> bool {
        *self == Self::All
    }

    fn contains(&self, is_it: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::Only(items) => items.iter().any(|item| is_it(item)),
        }
    }

    fn items(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Only(items) => items,
        }
    }
}

/// A setting of the policy that means nothing: a mistyped entry must not look like a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[deploy.policy] {key}: found `{found}`; {allowed}")]
pub struct PolicyError {
    key: &'static str,
    found: String,
    allowed: &'static str,
}

impl Policy {
    /// Checks the settings themselves.
    ///
    /// # Errors
    /// [`PolicyError`] for a relative path, an unknown namespace, a registry with a path, an empty entry, or `all` in a list.
    pub fn validate(&self) -> Result<(), PolicyError> {
        type IsEntry = fn(&str) -> bool;
        let lists: [(&str, &Permitted, IsEntry, &str); 7] = [
            ("host_mounts", &self.host_mounts, |item| item.starts_with('/'), "write absolute paths"),
            ("devices", &self.devices, |item| item.starts_with('/'), "write absolute paths"),
            (
                "host_namespaces",
                &self.host_namespaces,
                |item| NAMESPACES.contains(&item),
                "write pid, ipc, uts, network, user or cgroup",
            ),
            ("registries", &self.registries, |item| !item.contains('/'), "write host or host:port"),
            ("capabilities", &self.capabilities, |_| true, "write names such as NET_RAW"),
            ("sysctls", &self.sysctls, |_| true, "write names such as net.ipv4.ip_forward"),
            ("runtimes", &self.runtimes, |_| true, "write names of runtimes"),
        ];
        for (key, permitted, is_valid, allowed) in lists {
            for item in permitted.items() {
                // These mean something as the whole text only, so in a list they are not what their author means.
                let is_word = ["", "all", "none"].contains(&&*item.to_ascii_lowercase());
                if is_word || !is_valid(item) {
                    return Err(PolicyError { key, found: item.clone(), allowed });
                }
            }
        }
        Ok(())
    }
}
