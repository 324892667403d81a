//! A manifest as it was read: types that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::authorization::Authorization;
use super::error::ManifestError;
use crate::names::ModuleId;

/// A route without a priority comes after every route with one (edgeHub's default).
pub const PRIORITY_DEFAULT: u32 = 2_000_000_000;

/// A whole manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What runs.
    pub edge_agent: EdgeAgent,
    /// Which way messages go.
    pub edge_hub: EdgeHub,
    /// Desired sections of ordinary modules that the manifest writes into their twins.
    pub module_twins: BTreeMap<ModuleId, Map<String, Value>>,
}

/// `$edgeAgent`: the modules, and what it takes to get their images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EdgeAgent {
    /// `1.0` or `1.1`, as written.
    pub schema_version: String,
    /// `runtime.settings.minDockerVersion`; carried, never enforced (IoT Edge does not either).
    pub min_docker_version: String,
    /// `runtime.settings.loggingOptions`; carried: a module's own `HostConfig.LogConfig` is what takes effect.
    pub logging_options: String,
    /// Who to be at which registry, by the name the manifest gives it.
    pub registry_credentials: BTreeMap<String, RegistryCredential>,
    /// `edgeAgent` and `edgeHub` as the manifest has them. They never become containers, because this daemon is both;
    /// so their images are not looked into, and may come from IoT Edge's parent gateway (`$upstream:443/…`).
    pub system_modules: BTreeMap<String, Module>,
    /// The modules that become containers. No name begins with `$`.
    pub modules: BTreeMap<ModuleId, Module>,
    /// What becomes of the deployment when it fails; as the gateway's configuration says when it is left out. Lineside's own: IoT
    /// Edge ignores the key.
    pub failure_policy: Option<FailurePolicy>,
}

/// A login at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredential {
    /// Who.
    pub username: String,
    /// Never printed.
    pub password: String,
    /// The registry's host, with its port if any, for example `ghcr.io`.
    pub address: String,
}

impl fmt::Debug for RegistryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryCredential({} at {}, password not shown)", self.username, self.address)
    }
}

/// A module as it shall be.
#[derive(Clone, PartialEq)]
pub struct Module {
    /// A Docker image reference with a tag or a digest; `:latest` was added if there was neither.
    pub image: String,
    /// Docker's ContainerCreate body, its chunks joined and read; see [`create_options`].
    pub create_options: Map<String, Value>,
    /// A value in them that the engine would refuse. A document with one is refused; a twin's module is not created.
    pub create_options_refused: Option<ManifestError>,
    /// Environment variables; numbers and booleans became text. No name is empty or contains `=`.
    pub env: BTreeMap<String, String>,
    /// Whether it shall run.
    pub status: DesiredStatus,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// Whether its image is fetched.
    pub image_pull_policy: ImagePullPolicy,
    /// Lower ones are started first.
    pub startup_order: u32,
    /// The modules after which it is started, and what each of them must be by then. All are modules of the manifest, and no module
    /// starts after itself by any way; see [`super::start_order`]. Lineside's own: IoT Edge ignores the key.
    pub start_after: BTreeMap<ModuleId, StartCondition>,
    /// The operator's own word for this state of the module.
    pub version: String,
}

/// Environment values and create options often hold secrets: only their names are printed.
impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("image", &self.image)
            .field("create_options", &self.create_options.keys().collect::<Vec<_>>())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("status", &self.status)
            .field("restart_policy", &self.restart_policy)
            .field("image_pull_policy", &self.image_pull_policy)
            .field("startup_order", &self.startup_order)
            .field("start_after", &self.start_after)
            .field("version", &self.version)
            .finish()
    }
}

/// Declares an enum whose values are read without regard to case and printed as IoT Edge writes them.
macro_rules! text_enum {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $type {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As written in a manifest.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

text_enum! {
    /// Whether a module shall run.
    DesiredStatus {
        /// The default.
        Running = "running",
        /// Its container exists and does not run.
        Stopped = "stopped",
        /// Its container exists; whether it runs is left as it is. IoT Edge's other values (`backoff`, `unhealthy`, `failed`) read as
        /// this one: it takes them and has no command for them.
        Unknown = "unknown",
    }
}
text_enum! {
    /// What becomes of a deployment whose modules cannot be created, do not run or do not stay well.
    #[derive(Default)]
    FailurePolicy {
        /// The default: the last verified deployment is put in force again.
        #[default]
        Rollback = "rollback",
        /// It stays in force, and its steps are tried again.
        Hold = "hold",
    }
}

text_enum! {
    /// What is dropped when a queue is full.
    WhenFull {
        /// Its oldest messages, for the newest.
        DropOldest = "drop-oldest",
        /// The new message: it is not taken.
        Refuse = "refuse",
    }
}
text_enum! {
    /// What a module must be before another one is started.
    StartCondition {
        /// Its container runs, or ran if it is never restarted.
        Started = "started",
        /// Its container runs and its health check says that it is well.
        Healthy = "healthy",
        /// Its container ended with code 0. Only for a module with the restart policy `never`.
        Exited = "exited",
    }
}
text_enum! {
    /// When a module is started again.
    RestartPolicy {
        /// It stays as it ended.
        Never = "never",
        /// When it ended with another code than 0.
        OnFailure = "on-failure",
        /// The default: also when its health check fails.
        OnUnhealthy = "on-unhealthy",
        /// Whenever it does not run, and when its health check fails.
        Always = "always",
    }
}
text_enum! {
    /// Whether a module's image is fetched.
    ImagePullPolicy {
        /// The default: before its container is created.
        OnCreate = "on-create",
        /// The image must be there already.
        Never = "never",
    }
}

/// `$edgeHub`: the routes, and how long messages are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeHub {
    /// `1.0` to `1.3`, as written; empty when the manifest has no `$edgeHub`.
    pub schema_version: String,
    /// The routes by name.
    pub routes: BTreeMap<String, Route>,
    /// Routes of the twin that are wrong and were left out, so that the others hold. A document with one is refused.
    pub routes_refused: BTreeMap<String, ManifestError>,
    /// How long a message may wait; `None` is as long as there is space (a negative number in the manifest, or none).
    pub time_to_live_secs: Option<u64>,
    /// What clients may do on free topics, in the order in which it is decided; nothing without it.
    pub authorizations: Vec<Authorization>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Route {
    /// `FROM … INTO …`, as written: edge-core reads it.
    pub query: String,
    /// 0 (first) to 9, or [`PRIORITY_DEFAULT`].
    pub priority: u32,
    /// Overrides [`EdgeHub::time_to_live_secs`].
    pub time_to_live_secs: Option<u64>,
    /// What is dropped when its queue is full; as the gateway's `[buffer]` says when it is left out. Lineside's own.
    #[serde(default)]
    pub full: Option<WhenFull>,
}
