//! What a gateway and central say to each other on their one connection, beside IoT Hub's own dialect.
//!
//! IoT Hub's twin and method topics speak only of the connected identity; a gateway speaks for its modules and leaf
//! devices too, so the link's topics (`$ls/…`, built and read in edge-core's dialect) name the identity. A section
//! travels whole and versioned, so that a lost or repeated message costs a delay, never a fault. A list travels as a snapshot in
//! parts when a connection begins, and then as the present state of what changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cloud_message::CloudMessage;
use crate::generation::Generation;
use crate::method::MethodRequest;
use crate::names::{DeviceId, Identity, ModuleId};
use crate::twin::Section;

/// Leaf devices behind one gateway, at central and on the gateway alike: as many as its MQTT server has connection slots.
pub const CHILDREN_MAX: usize = 10_000;

/// The version of the link that this program speaks.
pub const LINK_VERSION: u32 = 3;
/// The first version of a gateway that takes its devices in parts and as changes.
pub const CHILDREN_IN_PARTS: u32 = 1;
/// The first version of a central that takes generations of messages, and removals of devices that were added on a gateway.
pub const GENERATIONS: u32 = 2;
/// The first version of a gateway that takes the list of commands that it has taken, and reports those that it has lost.
pub const TAKEN_COMMANDS: u32 = 3;

/// The first message of a gateway on a connection. A gateway that sends none is of version 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// See [`LINK_VERSION`].
    pub version: u32,
    /// Asks for central's time under this number. None of an older gateway, and none is answered by an older central.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "asksTime")]
    pub time_request: Option<u64>,
}

/// central's time, in answer to [`Hello::time_request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CentralTime {
    /// Number of the question.
    #[serde(rename = "asksTime")]
    pub time_request: u64,
    /// Milliseconds since the Unix epoch, read between the question's arrival and this answer.
    pub now_ms: u64,
}

/// The leaf devices that may connect through a gateway: all of them on a new connection, in parts, and afterwards those that
/// changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Children {
    /// The devices, as they are now.
    pub children: Vec<Child>,
    /// Whether only these and `removed` changed. Otherwise the list is complete, unless it is a part of a snapshot.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_difference: bool,
    /// Devices that do not stand behind the gateway any more; with differences only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<DeviceId>,
    /// The part of a snapshot that this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotPart>,
}

/// A leaf device as its gateway must know it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// The leaf's id.
    pub device_id: DeviceId,
    /// Base64 symmetric key; empty for a device that proves itself by certificate.
    #[serde(default)]
    pub primary_key: String,
    /// Base64 symmetric key.
    #[serde(default)]
    pub secondary_key: String,
    /// Thumbprints of its certificates, in hexadecimal digits; none for a device with keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thumbprints: Vec<String>,
    /// Whether a certificate that one of the gateway's device authorities gave to it proves it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_ca_signed: bool,
    /// A blocked leaf stays in the list with `false`.
    pub enabled: bool,
    /// Tells the device's stay behind this gateway from earlier ones, of itself or of an earlier device of its id: with another
    /// number, nothing that was kept of it is right. None from an older central.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// A reported section as a gateway tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// The whole section.
    #[serde(flatten)]
    pub section: Section,
    /// Central leaves out what is of an earlier one. No property has such a name.
    #[serde(rename = "$generation", default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// A desired section as central tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// The whole section.
    #[serde(flatten)]
    pub section: Section,
    /// With the section of `$edgeAgent`: which of the modules of each name its manifest means. Empty from an older central.
    #[serde(rename = "$generations", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generations: BTreeMap<ModuleId, u64>,
}

/// A device that was added on a gateway was removed there. What it had to send has been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedDevice {
    /// Free for another device now.
    pub device_id: DeviceId,
    /// Which of the devices that the gateway had by this id.
    pub generation: Generation,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Child({}, enabled: {}, keys not shown)", self.device_id, self.enabled)
    }
}

/// Cloud-to-device messages that operators took back: all of them on a new connection, in several messages when they are many,
/// and afterwards those of the devices concerned. Each holds by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purges {
    /// By device: every message up to this sequence is void.
    pub purged: BTreeMap<DeviceId, u64>,
}

/// How far central has what a gateway's queues hold: by the id of the queue, the sequence up to which all is stored that a
/// gateway sends. It ends before the first message that central refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// Every queue of which central has anything, by its id and the epoch of its sequences: `{id}.{epoch}`, or `{id}` of a
    /// gateway whose queues have no epochs.
    pub queues: BTreeMap<String, u64>,
    /// The highest sequence that central has, of queues of which it refused something below.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub highest: BTreeMap<String, u64>,
    /// Names central's store, the same over a restore from a backup; none of an older central.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Names this opening of central's store, another one after each start: the store may have gone back in time between two. None
    /// of an older central.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<String>,
    /// Whether central has forgotten no epoch of these queues.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_complete: bool,
    /// Whether each log of which central has anything is among the queues with at least its newest epoch, also where older ones
    /// are forgotten: central has nothing of a log that is not named. False from an older central.
    #[serde(default, skip_serializing_if = "is_false")]
    pub names_all_logs: bool,
    /// Version of the link that central speaks; see [`LINK_VERSION`]. 0 from one that does not tell it.
    #[serde(default)]
    pub version: u32,
}

/// What one queue of a gateway has lost since its last report to central.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// The id of the queue, made with it, and the epoch of the numbers: with a loss's number it names the loss for ever.
    pub queue: String,
    /// How the gateway calls it: `upstream`, `inputs/{module}`, with `@3` behind it for priority 3.
    pub name: String,
    /// By number.
    pub losses: Vec<Loss>,
}

/// Messages that were lost for one cause, of one sender. It does not change once it was reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Ascends in its queue.
    pub number: u64,
    /// `expired`, `evicted`, `refused`, `damaged`, `dropped` or `central-restored`; a later gateway may have more of them.
    pub cause: String,
    /// `device` or `device/module`; empty when it is not known, or when more senders lost messages than are kept apart.
    pub sender: String,
    /// The first sequence. Of refused ones, that which it would have got.
    pub first: u64,
    /// The last sequence, likewise.
    pub last: u64,
    /// How many of that range.
    pub count: u64,
    /// When the first was lost, by the gateway's clock, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// When the last was lost, likewise.
    pub until_ms: u64,
    /// Which of the senders of that name. Where a loss is of more than one, the earliest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// A command for somebody behind a gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandDown {
    /// What to call.
    #[serde(flatten)]
    pub request: MethodRequest,
    /// Seconds, from when the gateway takes it, for which it waits for a target that is away. None: it waits for no longer than
    /// the request's connect timeout, and is not kept over a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_in_seconds: Option<u64>,
}

/// The commands that were to wait, that a gateway has taken and that have not ended at central: all of them, once on a new
/// connection, behind those that wait at central. One that the gateway does not know is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenCommands {
    /// Whom each was for, by its id.
    pub commands: BTreeMap<String, Identity>,
}

/// A cloud-to-device message for a device behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageDown {
    /// As its sender gave it.
    #[serde(flatten)]
    pub message: CloudMessage,
    /// Milliseconds, from when the gateway takes it, for which it waits for its device: the clocks of both may differ. None from an
    /// older central: it waits until its expiry by the gateway's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_ms: Option<u64>,
}

/// Which clients of a gateway are connected: all of them on a new connection, in parts, and afterwards whoever came or went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Whether everybody who is not in `clients` is disconnected. True of the first part of a snapshot, too, which a central
    /// that knows no parts then reads right: it takes the other parts for changes.
    pub is_complete: bool,
    /// The part of a snapshot that this is; none for changes, and for a list that is complete in one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotPart>,
    /// Those that connected or disconnected, or all that are connected.
    pub clients: Vec<ClientPresence>,
}

/// Position of a message in a snapshot of a list that is too long for one message. Parts arrive in order, on one connection.
/// With the last part, what no part has named is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPart {
    /// Ascends with each snapshot of a connection; a new one replaces one that was not finished.
    pub generation: u64,
    /// From 0.
    pub part: u32,
    /// Whether no further part follows.
    pub is_last: bool,
}

/// One client's connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientPresence {
    /// Whose.
    pub identity: Identity,
    /// Whether it is connected now.
    pub is_connected: bool,
    /// Since when, in milliseconds since the Unix epoch, by the gateway's clock.
    pub since_ms: u64,
    /// Which of the devices or modules of that name. None from an older gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}
