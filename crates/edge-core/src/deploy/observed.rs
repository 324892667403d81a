//! What Docker says there is, of the containers that carry this gateway's labels.

use std::collections::BTreeMap;

use schemas::names::ModuleId;

use super::limits::{ContainerResources, Edit};

/// The containers that belong to modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    pub modules: BTreeMap<ModuleId, ObservedModule>,
    /// Containers that were created to replace a module's container and have not got its name yet: a kill left them.
    pub replacements: BTreeMap<ModuleId, ObservedModule>,
    /// Modules of which the engine has a container and does not say how it is. Nothing is done with them.
    pub unreadable: BTreeMap<ModuleId, Unreadable>,
}

/// A container that the engine lists and fails to describe: a damaged one does so for ever, and must hold up no other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    pub container_id: String,
    /// The engine's error text.
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedModule {
    pub container_id: String,
    /// Whether somebody gave the container another name than the daemon did.
    pub is_renamed: bool,
    /// The image it was created from, as the manifest named it then.
    pub image: String,
    /// The engine's id of that image.
    pub image_id: String,
    /// Volumes without a name of their own that the engine made for it.
    pub anonymous_volumes: Vec<String>,
    /// The fingerprint it was created with, from its label.
    pub fingerprint: String,
    /// Its limits as they are.
    pub limits: ContainerResources,
    /// What somebody has changed of them since the container was first seen.
    pub edit: Option<Edit>,
    /// Docker's word for how it is.
    pub state: ContainerState,
    /// Whether its health check says so.
    pub is_unhealthy: bool,
    /// Whether its health check says that it is well.
    pub is_healthy: bool,
    /// Whether it runs and its health check has not said yet how it is.
    pub is_starting: bool,
    /// Whether a process of its last run was killed because memory ran out: its own limit, or the host's.
    pub is_out_of_memory: bool,
    /// When it last started, in milliseconds since the Unix epoch; `None` if never.
    pub started_at_ms: Option<u64>,
    /// When it last ended, in milliseconds since the Unix epoch; `None` if never.
    pub finished_at_ms: Option<u64>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerState {
    #[default]
    Created,
    Running,
    /// Docker's own restart policy is at work.
    Restarting,
    Paused,
    Exited {
        code: i64,
    },
    /// Docker could not remove it.
    Dead,
}

impl ObservedModule {
    /// Whether it has processes that a removal would cut off without a word.
    pub fn is_live(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Restarting | ContainerState::Paused)
    }
}
