//! How a gateway is, as its daemon tells its command line: the body of `GET /status` on the control socket, printed by
//! `edge-agent status --json`.
//!
//! Whoever reads it may be of another version: unknown members are left out, and missing ones have their default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a gateway is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayStatus {
    /// The gateway's device id.
    pub device_id: String,
    /// Its name for leaf devices and modules.
    pub hostname: String,
    /// The daemon's, for example `0.1.0`.
    pub version: String,
    /// `None` without an upstream.
    pub upstream: Option<UpstreamStatus>,
    /// The manifest in force, and how far it is carried out.
    pub deployment: DeploymentState,
    /// The modules of the manifest and all other containers of the gateway, by name.
    pub modules: BTreeMap<String, ModuleState>,
    /// Who is connected.
    pub clients: Vec<ClientState>,
    /// Direct methods that are not done with.
    pub commands: CommandCounts,
    /// The queues on disk.
    pub queues: Vec<QueueState>,
    /// Messages that upstream rejected because of their content.
    pub quarantine: QuarantineState,
    /// What all queues and the quarantine have lost since they were made.
    pub lost_by_cause: LossCounts,
    /// Files of the data directory that were found removed since the daemon started, each with what became of it.
    pub removed_files: Vec<String>,
    /// Lost messages that central does not know of yet.
    #[serde(rename = "lostNotTold")]
    pub lost_unreported: u64,
    /// Messages that no route takes.
    pub unrouted: UnroutedCounts,
    /// Messages that only some of their routes could hold.
    pub acknowledged_and_partly_refused: u64,
    /// Counts of the MQTT server, by name.
    pub mqtt_server: BTreeMap<String, u64>,
}

/// The connection upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpstreamStatus {
    /// `central`, `iot-hub` or `mqtt`.
    pub kind: Option<String>,
    /// `host:port`.
    pub address: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when it is as it is, RFC 3339.
    pub since: String,
    /// Why it is not connected; empty while it is.
    pub why: String,
    /// What the connection has cost today.
    pub budget: BudgetStatus,
    /// How far the gateway's clock is from central's; `None` until central has sent its time.
    pub clock: Option<ClockOffset>,
}

/// What a connection has cost since the beginning of its day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    /// By cause; those that have spent something or have a limit.
    pub spent: BTreeMap<String, SpentBytes>,
    /// When a new day begins, from now.
    pub resets_in_seconds: u64,
}

/// What one cause has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpentBytes {
    /// Bytes of today.
    pub bytes: u64,
    /// Bytes that a day may cost; `None` without a limit.
    pub limit: Option<u64>,
}

/// How far the gateway's clock is from central's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClockOffset {
    /// Milliseconds by which the gateway's clock is ahead; negative if it is behind.
    pub ahead_ms: i64,
    /// How much that may be wrong.
    pub within_ms: u64,
}

/// The manifest in force, and how far it is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentState {
    /// Of the manifest that was looked at last; `None` before there is one.
    pub version: Option<u64>,
    /// Why that one was refused.
    pub problem: Option<String>,
    /// Routes that are left out, with the reason.
    pub routes_refused: Vec<String>,
    /// Parts of the manifest that have no effect, or another one than its author may think.
    pub warnings: Vec<String>,
    /// Everything is as wanted.
    pub settled: bool,
    /// One of [`crate::status::code`].
    pub code: u16,
    /// What went wrong; empty on success.
    pub description: String,
    /// The latest deployment's number in `edge-agent history`; 0 before there is one.
    pub number: u64,
    /// The state of that one, as [`crate::control::PastDeployment::state`]; empty before there is one.
    pub state: String,
    /// Why that one failed.
    pub reason: Option<String>,
    /// The steps that are carried out or wait, as text.
    pub plan: String,
}

/// A module, or another container of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModuleState {
    /// What Docker says of its container, for example `exited (3)`; `None` without one.
    pub state: Option<String>,
    /// As [`crate::status::RuntimeStatus`].
    pub status: String,
    /// Why it is so.
    pub reason: String,
    /// When its next step is tried, RFC 3339; `None` when nothing waits for a time.
    pub next_try: Option<String>,
    /// As [`crate::manifest::DesiredStatus`]; `None` for a container that is in no manifest.
    pub desired_status: Option<String>,
    /// As the manifest names it.
    pub image: Option<String>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
}

/// A client that is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientState {
    /// Its identity, for example `device` or `gateway/module`.
    pub id: String,
    /// RFC 3339.
    pub since: String,
    /// Two clients take its connection from each other.
    pub identity_conflict: Option<IdentityConflict>,
}

/// Clients that take one identity's connection from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentityConflict {
    /// In the last five minutes.
    pub takeovers: u64,
    /// Where they connect from.
    pub addresses: Vec<String>,
    /// Clients at different addresses took turns: there are two for certain.
    pub is_proven: bool,
}

/// Direct methods that are not done with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommandCounts {
    /// They wait for their targets.
    pub waiting: u64,
    /// Their targets have them.
    pub running: u64,
    /// Answers that central does not have.
    #[serde(rename = "answersNotTold")]
    pub answers_unreported: u64,
}

/// A queue on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueState {
    /// `upstream` or `inputs/{module}`, with its priority and overflow behaviour.
    pub name: String,
    /// 0 (first) to 9; `None` for routes without one, which come last.
    pub priority: Option<u32>,
    /// `enough`, `evicting` or `refusing`.
    #[serde(rename = "room")]
    pub headroom: String,
    /// Messages that wait.
    pub messages: u64,
    /// Messages taken since the queue was made.
    pub accepted: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the oldest message was taken, RFC 3339.
    pub oldest: Option<String>,
    /// Since the daemon started.
    pub expired: u64,
    /// Since the daemon started.
    pub evicted: u64,
    /// Since the daemon started.
    pub refused: u64,
    /// Since the queue was made.
    pub lost: LossCounts,
    /// Losses that central does not know of yet.
    #[serde(rename = "gaps")]
    pub loss_records: Vec<UnreportedLoss>,
    /// Bytes written to disk for each byte of a message; `None` before the first.
    pub written_per_payload_byte: Option<f64>,
    /// Segment files with damage that are kept for analysis.
    pub damaged_segments_set_aside: u64,
}

/// Lost messages by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LossCounts {
    /// Older than their time to live.
    pub expired: u64,
    /// Removed to free space.
    pub evicted: u64,
    /// Not taken: there was no space.
    pub refused: u64,
    /// Found damaged or missing on disk.
    pub damaged: u64,
    /// Dropped by an operator, or left in a queue that no route leads to.
    pub dropped: u64,
    /// central had them, and was restored from an older backup.
    pub central_restored: u64,
}

impl LossCounts {
    /// Each cause, as it is written, with its count.
    pub fn by_cause(&self) -> [(&'static str, u64); 6] {
        let Self { expired, evicted, refused, damaged, dropped, central_restored } = *self;
        [
            ("central-restored", central_restored),
            ("damaged", damaged),
            ("dropped", dropped),
            ("evicted", evicted),
            ("expired", expired),
            ("refused", refused),
        ]
    }
}

/// A loss that central does not know of yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnreportedLoss {
    /// As in [`LossCounts`].
    pub cause: String,
    /// Whose messages; empty when unknown or of many.
    pub sender: String,
    /// The messages are within these sequences of their queue.
    pub first_sequence: u64,
    /// See `first_sequence`.
    pub last_sequence: u64,
    /// How many.
    pub count: u64,
    /// RFC 3339.
    pub from: String,
    /// RFC 3339.
    pub until: String,
}

/// Messages that upstream rejected because of their content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuarantineState {
    /// Messages that it holds.
    pub messages: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When the oldest was put into it, RFC 3339.
    pub oldest: Option<String>,
    /// Removed to free space, since it was made.
    pub evicted: u64,
    /// Found damaged, since it was made.
    pub damaged: u64,
    /// Dropped by an operator, since it was made.
    pub dropped: u64,
    /// Put back into their queue, since it was made.
    pub replayed: u64,
    /// Losses that central does not know of yet.
    #[serde(rename = "gaps")]
    pub loss_records: Vec<UnreportedLoss>,
}

/// Messages that no route takes: acknowledged and dropped, since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnroutedCounts {
    /// All of them.
    pub messages: u64,
    /// By sender, of those that are counted one by one.
    pub by_sender: BTreeMap<String, u64>,
    /// Of all other senders.
    pub of_other_senders: u64,
}

/// The body of `GET /refusals`, printed by `edge-agent refusals --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusalList {
    /// The clients that were refused last.
    pub refusals: Vec<RefusedClient>,
}

/// A client that the gateway refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedClient {
    /// Who it said it is; empty when it did not say.
    pub identity: String,
    /// Why it was refused.
    pub why: String,
    /// Its address.
    pub from: String,
    /// `MQTT 3.1.1`, `MQTT 5` or `TLS`.
    pub protocol: String,
    /// Fingerprint of the certificate or token that it showed.
    pub proof: Option<String>,
    /// When it was refused first, RFC 3339.
    pub first: String,
    /// When it was refused last, RFC 3339.
    pub last: String,
    /// How often.
    pub count: u64,
}
