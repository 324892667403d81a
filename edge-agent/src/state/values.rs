//! The values of the state: what each belongs to, a change of one, and all of them in memory.

use std::collections::BTreeMap;

/// What a value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    Twins,
    /// Leaf devices: those that central assigned (one list) and those added here.
    Devices,
    /// The deployment in force.
    Deployment,
    /// How deployments went, restarts of modules, and what images and volumes they had.
    Rollouts,
    /// Commands that run, and answers that central has not acknowledged.
    Commands,
    /// Cloud-to-device messages that wait for their devices, and how others ended.
    CloudMessages,
    /// Local users by name.
    Users,
    /// What the link has cost today.
    Budget,
    /// Reports that central has acknowledged and nothing else keeps.
    Sent,
    /// Which queues are on disk.
    Queues,
}

impl Namespace {
    pub(super) const ALL: [Self; 10] = [
        Self::Twins,
        Self::Devices,
        Self::Deployment,
        Self::Rollouts,
        Self::Commands,
        Self::CloudMessages,
        Self::Users,
        Self::Budget,
        Self::Sent,
        Self::Queues,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Twins => "twins",
            Self::Devices => "devices",
            Self::Deployment => "deployment",
            Self::Rollouts => "rollouts",
            Self::Commands => "commands",
            Self::CloudMessages => "cloud-messages",
            Self::Users => "users",
            Self::Budget => "budget",
            Self::Sent => "sent",
            Self::Queues => "queues",
        }
    }
}

/// A value, or that it is gone.
pub(super) struct Change {
    pub(super) namespace: Namespace,
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

/// Each value by its namespace and key.
pub(super) type Values = BTreeMap<(Namespace, String), Vec<u8>>;
