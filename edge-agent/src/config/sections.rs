//! Sections of `edge.toml` that are used as they are written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use edge_core::deploy::policy::Policy;
use schemars::JsonSchema;
use schemas::manifest::{FailurePolicy, WhenFull};
use serde::Deserialize;

use super::setting_error::SettingError;

/// Where `[listen] https` is when it is left out. The SDKs know no other port.
pub const HTTPS_DEFAULT: &str = "0.0.0.0:443";

/// `[docker]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSection {
    /// The Docker Engine's socket.
    pub socket: PathBuf,
    /// The modules' network; made when it is missing.
    pub network: String,
}

/// `[deploy]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeploySection {
    /// A folder whose newest manifest is applied.
    pub watch: Option<PathBuf>,
    /// Seconds for which the modules of a deployment are watched before it is verified; one that fails before is rolled back. 0: it is
    /// verified as soon as they run.
    pub probation_secs: u64,
    /// What becomes of a deployment that fails, unless its manifest says: the last verified one is put in force again, or it is held.
    pub failure_policy: FailurePolicy,
    /// What manifests may ask of this host.
    pub policy: Policy,
}

/// `[buffer]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BufferSection {
    /// Bytes of all queues together on disk.
    pub max_bytes: u64,
    /// Seconds after which a message is dropped; for ever when left out.
    pub max_age_secs: Option<u64>,
    /// Bytes that stay free on the disk.
    pub keep_free_bytes: u64,
    /// What is dropped at a limit, unless a route says.
    pub full: WhenFull,
    /// Limits of single queues, by their names in `edge-agent status`.
    pub queues: BTreeMap<String, QueueSection>,
    /// Bytes on disk of messages that upstream rejected because of their content.
    pub quarantine_bytes: u64,
}

/// `[buffer.queues.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSection {
    /// Bytes of this queue on disk; as many as all together when left out.
    pub max_bytes: Option<u64>,
    /// Seconds after which a message in it is dropped; as in `[buffer]` when left out.
    pub max_age_secs: Option<u64>,
}

/// The least that a queue may be limited to: two of the largest messages, with their topics.
const QUEUE_BYTES_MIN: u64 = 1 << 20;

impl BufferSection {
    pub(super) fn check(&self) -> Result<(), SettingError> {
        for (name, queue) in &self.queues {
            let at = format!("[buffer.queues.\"{name}\"]");
            let is_known = name.split_once('/').map_or(name.starts_with("upstream"), |(first, module)| {
                first == "inputs" && !module.is_empty()
            });
            if !is_known {
                return Err(SettingError::new(
                    at,
                    "no such queue; write `upstream`, `inputs/MODULE`, or a name that `edge-agent status` shows",
                ));
            }
            if let Some(bytes) = queue.max_bytes.filter(|bytes| *bytes < QUEUE_BYTES_MIN) {
                let key = format!("{at} max_bytes");
                return Err(SettingError::new(
                    key,
                    format!("found {bytes}; write at least {QUEUE_BYTES_MIN}"),
                ));
            }
        }
        match self.max_bytes {
            bytes if bytes < QUEUE_BYTES_MIN => Err(SettingError::new(
                "[buffer] max_bytes",
                format!("found {bytes}; write at least {QUEUE_BYTES_MIN}"),
            )),
            _ => Ok(()),
        }
    }
}

impl Default for DeploySection {
    fn default() -> Self {
        Self {
            watch: None,
            probation_secs: 30,
            failure_policy: FailurePolicy::Rollback,
            policy: Policy::default(),
        }
    }
}

impl Default for DockerSection {
    fn default() -> Self {
        Self { socket: "/var/run/docker.sock".into(), network: "azure-iot-edge".to_owned() }
    }
}

impl Default for BufferSection {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            max_age_secs: None,
            keep_free_bytes: 64 << 20,
            full: WhenFull::DropOldest,
            queues: BTreeMap::new(),
            quarantine_bytes: 64 << 20,
        }
    }
}
