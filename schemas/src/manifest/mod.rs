//! The deployment manifest of a gateway: which modules run, with what, and which way their messages go.
//!
//! It is Azure IoT Edge's deployment manifest (schema versions 1.0 and 1.1 of `$edgeAgent`, 1.0 to 1.3 of `$edgeHub`),
//! read into types that cannot be wrong. Keys are read without regard to case, as IoT Edge does, keys without a meaning
//! here are ignored, and `null` is the same as leaving a key out. What IoT Edge requires only to choose a runtime
//! (`runtime`, `type`, `systemModules`) may be left out: Docker is the only runtime here.
//!
//! [`document`] has the same manifest as its authors write it, for the JSON Schema.

pub mod authorization;
pub mod create_options;
pub mod document;
mod field;
mod image;
mod read;
mod sections;
pub mod warnings;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use authorization::Authorization;
use sections::Current;
use warnings::Warning;

use crate::json::{self, JsonError};
use crate::names::ModuleId;
use crate::redaction::{MARK, find_mark, find_mark_in};

/// The largest document, in bytes. IoT Edge's twins hold 32 KB; a manifest may be larger here, not endless.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A route without a priority comes after every route with one (edgeHub's default).
pub const PRIORITY_DEFAULT: u32 = 2_000_000_000;

/// Where the sections stand in a document, and how errors call them wherever the sections came from.
pub const ROOT: &str = "modulesContent";

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

/// Why a manifest was refused. Nothing secret is ever part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: found {found}; {allowed}")]
pub struct ManifestError {
    /// The field, from the top of the document, its parts joined with dots.
    pub path: String,
    /// What stood there.
    pub found: String,
    /// What may stand there.
    pub allowed: String,
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
            .field("version", &self.version)
            .finish()
    }
}

/// Declares an enum whose words are read without regard to case and printed as IoT Edge writes them.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $type {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As it stands in a manifest.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
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

words! {
    /// Whether a module shall run.
    DesiredStatus {
        /// The default.
        Running = "running",
        /// Its container exists and does not run.
        Stopped = "stopped",
        /// Its container exists; whether it runs is left as it is. IoT Edge's other words (`backoff`, `unhealthy`, `failed`) read as
        /// this one: it takes them and has no command for them.
        Unknown = "unknown",
    }
}
words! {
    /// What gives way when a queue is full.
    WhenFull {
        /// Its oldest messages, for the newest.
        DropOldest = "drop-oldest",
        /// The new message: it is not taken.
        Refuse = "refuse",
    }
}
words! {
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
words! {
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
    /// How long a message may wait; `None` is as long as there is room (a negative number in the manifest, or none).
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
    /// What gives way when its queue is full; as the gateway's `[buffer]` says when it is left out. Lineside's own.
    #[serde(default)]
    pub full: Option<WhenFull>,
}

impl Manifest {
    /// Reads a whole document, `modulesContent` or `content.modulesContent` on top.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field that is wrong, or that holds central's mark of a secret. Route texts are not
    /// looked into here.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        Self::parse_over(&Self::document(text)?, &|_| Map::new())
    }

    /// Reads a document as it will be once it is laid over what the gateway has: flat keys without a whole
    /// `properties.desired` change that, and a part that the document leaves out stays.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse_over(document: &Value, current: Current<'_>) -> Result<Self, ManifestError> {
        refuse_mark(find_mark(document))?;
        let mut sections = Self::sections_over(document, current)?;
        let (agent, hub) = (ModuleId::edge_agent(), ModuleId::edge_hub());
        let edge_agent = match sections.remove(&agent).unwrap_or_else(|| current(&agent)) {
            nothing if nothing.is_empty() => {
                return Err(ManifestError {
                    path: format!("{ROOT}.$edgeAgent"),
                    found: "nothing".into(),
                    allowed: "write an object with properties.desired, which has schemaVersion and modules"
                        .into(),
                });
            }
            section => section,
        };
        let edge_hub = sections.remove(&hub).unwrap_or_else(|| current(&hub));
        let manifest = Self { module_twins: sections, ..Self::from_twins(&edge_agent, &edge_hub)? };
        let mut modules = manifest.edge_agent.modules.values();
        if let Some(refused) = modules.find_map(|module| module.create_options_refused.clone()) {
            return Err(refused);
        }
        match manifest.edge_hub.routes_refused.into_values().next() {
            Some(refused) => Err(refused),
            None => Ok(Self {
                edge_hub: EdgeHub { routes_refused: BTreeMap::new(), ..manifest.edge_hub },
                ..manifest
            }),
        }
    }

    /// Reads the text of a document within its limits of size and nesting; what it says is not looked into.
    ///
    /// # Errors
    /// [`ManifestError`] with the path `manifest`.
    pub fn document(text: &[u8]) -> Result<Value, ManifestError> {
        let refuse =
            |found: String, allowed: String| ManifestError { path: "manifest".into(), found, allowed };
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(refuse(format!("{} bytes", text.len()), format!("{DOCUMENT_BYTES_MAX} are allowed")));
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        json::from_outside(text).map_err(|why| match why {
            JsonError::TooDeep { max } => {
                refuse("JSON nested deeper".into(), format!("{max} levels are allowed"))
            }
            JsonError::Number { .. } | JsonError::Key { .. } => {
                refuse(why.to_string(), "write what can be given back as it is written".into())
            }
            JsonError::Wrong(why) => {
                refuse(format!("text that is not JSON ({why})"), "write a deployment manifest as JSON".into())
            }
        })
    }

    /// Reads the desired sections as they stand in the twins of `$edgeAgent` and `$edgeHub`. An empty `$edgeHub` has
    /// no routes; an empty `$edgeAgent` is an error, because it says nothing about what shall run.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field that is wrong, with the path it would have in a document.
    pub fn from_twins(
        edge_agent: &Map<String, Value>,
        edge_hub: &Map<String, Value>,
    ) -> Result<Self, ManifestError> {
        Ok(Self {
            edge_agent: read::edge_agent(edge_agent)?,
            edge_hub: read::edge_hub(edge_hub)?,
            module_twins: BTreeMap::new(),
        })
    }

    /// Checks that no desired section of `$edgeAgent` or `$edgeHub` holds central's mark of a secret.
    ///
    /// # Errors
    /// [`ManifestError`] for the first field with the mark.
    pub fn check_redaction(
        edge_agent: &Map<String, Value>,
        edge_hub: &Map<String, Value>,
    ) -> Result<(), ManifestError> {
        for (module, members) in [("$edgeAgent", edge_agent), ("$edgeHub", edge_hub)] {
            let path = find_mark_in(members).map(|path| format!("{ROOT}.{module}.properties.desired.{path}"));
            refuse_mark(path)?;
        }
        Ok(())
    }

    /// The desired sections that a document writes into twins, by module; flat keys such as
    /// `properties.desired.modules.sensor` are put where they belong. A module without any is not among them.
    ///
    /// # Errors
    /// [`ManifestError`] when the envelope or a flat key is wrong; what the sections say is not looked into here.
    pub fn sections(document: &Value) -> Result<BTreeMap<ModuleId, Map<String, Value>>, ManifestError> {
        Self::sections_over(document, &|_| Map::new())
    }

    /// As [`Manifest::sections`]. A section that is written by flat keys alone is laid over what its module has now.
    ///
    /// # Errors
    /// As [`Manifest::sections`].
    pub fn sections_over(
        document: &Value,
        current: Current<'_>,
    ) -> Result<BTreeMap<ModuleId, Map<String, Value>>, ManifestError> {
        sections::of(document, current)
    }

    /// What in a document has no effect, or may not be what its author meant.
    pub fn warnings(document: &Value) -> Vec<Warning> {
        warnings::of(document)
    }

    /// Whether a section of the document is written by flat keys alone, as in a layered deployment.
    pub fn has_layer(document: &Value) -> bool {
        sections::has_layer(document)
    }
}

fn refuse_mark(path: Option<String>) -> Result<(), ManifestError> {
    let Some(path) = path else { return Ok(()) };
    Err(ManifestError {
        path: if path.is_empty() { "manifest".into() } else { path },
        found: format!("`{MARK}`, which stands for a secret that viewers are not shown"),
        allowed: "write the secret, or change a manifest that was read with an operator's token".into(),
    })
}
