//! What the checks look at. Whoever gathers it leaves out what it cannot know: nothing is said about that.

use serde::{Deserialize, Serialize};

/// Refused clients that are reported to central and `check`; `edge-agent refusals` shows all that are kept.
pub const REFUSALS_REPORTED_MAX: usize = 24;

/// What a look at one thing gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Probe<T> {
    #[default]
    NotProbed,
    Found(T),
    /// It is not there.
    Missing(String),
    /// This process may not look.
    Denied(String),
    /// It is there and of no use, or did not answer in time.
    Failed(String),
}

/// Everything that the checks look at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The wall clock, in seconds since the Unix epoch.
    pub now_secs: u64,
    /// Path of edge.toml, and whether it could be read.
    pub config: ConfigFacts,
    /// What files and the kernel say.
    pub host: HostFacts,
    pub certificates: CertificateFacts,
    pub docker: DockerFacts,
    /// The way to upstream.
    pub upstream: UpstreamFacts,
    /// Whether the daemon answers; [`Probe::NotProbed`] when the daemon itself gathers.
    pub answer: Probe<()>,
    /// What only the running daemon knows.
    pub daemon: Option<DaemonFacts>,
    /// The version of the program that gathers.
    pub version: String,
}

#[derive(Debug, Clone, Default)]
pub struct ConfigFacts {
    pub path: String,
    /// Whether it can be used.
    pub read: Probe<()>,
    /// CRC-32C of the file; compared with [`DaemonFacts::config_crc32c`].
    pub crc32c: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// `data_dir`.
    pub data_dir: String,
    /// Whether it can be used.
    pub data_dir_use: Probe<()>,
    /// The first file that other users may use, if any.
    pub public_file: Probe<Option<String>>,
    /// The disk of the data directory.
    pub disk: Probe<DiskFacts>,
    pub memory: Probe<MemoryFacts>,
    pub open_files: Probe<OpenFilesFacts>,
    /// `hostname`.
    pub hostname: String,
    /// The addresses that it resolves to.
    pub hostname_addresses: Probe<Vec<String>>,
    /// Addresses of `[listen]` that cannot be listened on, each with the reason. Checked when no daemon runs.
    pub listeners: Probe<Vec<String>>,
}

#[derive(Debug, Clone, Default)]
pub struct DiskFacts {
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// `[buffer] keep_free_bytes`.
    pub keep_free_bytes: u64,
    /// Files that can still be made.
    pub free_inodes: u64,
    /// Files that it can hold; 0 when the file system has no limit.
    pub total_inodes: u64,
    /// Whether it is mounted for reading only.
    pub is_read_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryFacts {
    pub available_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub struct OpenFilesFacts {
    /// Hard limit of the process; `None` for no limit.
    pub allowed: Option<u64>,
    /// Connections that fit within it; `None` when not even the fewest do.
    pub connections: Option<usize>,
    /// `[listen] connections_max`.
    pub connections_max: usize,
}

/// Keys and certificates. Paths are those of the configuration.
#[derive(Debug, Clone, Default)]
pub struct CertificateFacts {
    /// The secret of the modules' keys.
    pub module_keys: Probe<()>,
    /// `[tls] ca`.
    pub ca: Probe<CaFacts>,
    /// `[tls] ca_key`, and whether it fits `[tls] ca`.
    pub ca_key: Probe<()>,
    /// `[tls] cert` and `key`.
    pub server: Probe<ServerCertificateFacts>,
    /// `[tls] device_ca`, with the path of each.
    pub device_ca: Vec<(String, Probe<CaFacts>)>,
    /// `[upstream] ca`.
    pub upstream_ca: Probe<CaFacts>,
}

/// A file of CA certificates.
#[derive(Debug, Clone, Default)]
pub struct CaFacts {
    pub path: String,
    /// The beginning of the last to begin, in seconds since the Unix epoch.
    pub not_before_secs: u64,
    /// The end of the first to end, in seconds since the Unix epoch.
    pub not_after_secs: u64,
}

#[derive(Debug, Clone, Default)]
pub struct ServerCertificateFacts {
    pub path: String,
    /// Its end, in seconds since the Unix epoch.
    pub not_after_secs: u64,
    /// Whether the gateway's own CA signed it, so that the daemon renews it.
    pub is_own: bool,
    /// Whether it is for two thirds over, and somebody else's.
    pub is_due: bool,
    /// Why the daemon makes a new one, if it does.
    pub renewal: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct DockerFacts {
    pub socket: String,
    pub engine: Probe<EngineFacts>,
    /// `[docker] network`.
    pub network: String,
    /// Whether that network is there.
    pub has_network: Probe<bool>,
    /// Whether `[deploy.policy]` limits manifests.
    pub policy_is_open: Option<bool>,
    /// `[deploy] watch`; not read when it is not set.
    pub watch_folder: Probe<String>,
}

/// What the engine says of itself.
#[derive(Debug, Clone, Default)]
pub struct EngineFacts {
    pub version: String,
    /// The driver of containers' logs.
    pub logging_driver: String,
    /// Whether the daemon.json of the engine bounds logs; `None` if that is not known.
    pub logs_are_bounded: Option<bool>,
}

/// The way to upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamFacts {
    /// Whether one is configured; `None` when the configuration is not known.
    pub is_configured: Option<bool>,
    /// `kind at host:port`.
    pub place: String,
    /// ` through PROXY`, or empty.
    pub via: String,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
    /// Whether `[upstream] ca` is set.
    pub has_ca: bool,
    /// How far it was reached without logging in.
    pub reached: Option<Reached>,
}

/// How far upstream was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// As far as MQTT.
    Yes,
    /// The configuration's own files cannot be used.
    Unusable(String),
    /// What answers is not whom `[upstream] ca` vouches for, or speaks no TLS.
    Untrusted(String),
    No(String),
}

/// What the running daemon knows. Travels from the daemon to `edge-agent check`: what an older daemon does not send has its
/// default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonFacts {
    pub version: String,
    /// CRC-32C of edge.toml when it started.
    pub config_crc32c: Option<u32>,
    /// Wall clock of this gateway less central's, in milliseconds; `None` when it is not known.
    pub clock_offset_ms: Option<i64>,
    /// `None` without an upstream.
    pub link: Option<LinkFacts>,
    /// Causes of which the link's daily budget is used up.
    pub budgets_used_up: Vec<String>,
    /// Seconds until a new day of the budget.
    pub budget_resets_in_secs: u64,
    pub deployment: DeploymentFacts,
    /// Every module of the manifest and every other container of this gateway.
    pub modules: Vec<ModuleFacts>,
    pub queues: Vec<QueueFacts>,
    /// Messages lost since the queues were made, by cause; only causes with losses.
    pub lost: Vec<(String, u64)>,
    /// Of these, losses that central does not know yet.
    #[serde(rename = "lostNotTold")]
    pub lost_unreported: u64,
    /// When messages expired last, if any did since the daemon started.
    pub expired_secs_ago: Option<u64>,
    /// Messages that upstream refused and that are kept.
    pub quarantined: u64,
    /// Messages that the quarantine could not hold.
    pub quarantine_evicted: u64,
    /// Messages without a route since the daemon started.
    pub unrouted: u64,
    /// Who sent most of them, with how many.
    pub unrouted_most: Vec<(String, u64)>,
    /// Messages that only some of their routes could hold.
    pub partly_refused: u64,
    /// Files of queues that were damaged and set aside.
    pub damaged_files: u64,
    /// Files of the data directory that were found removed since the daemon started, each with what became of it.
    pub removed_files: Vec<String>,
    /// The logs on disk: journals and queues.
    pub journals: Vec<JournalFacts>,
    pub clients: usize,
    /// `[listen] connections_max`, or what open files allow.
    pub connections_max: usize,
    /// Identities that several clients use, each as text.
    pub conflicts: Vec<String>,
    /// Clients that were refused, the last ones first, those of known identities before others; at most
    /// [`REFUSALS_REPORTED_MAX`].
    pub refusals: Vec<RefusalFacts>,
}

/// The link to upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinkFacts {
    /// Whether it is connected.
    pub is_connected: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Why it is not.
    pub why: String,
    /// What kind of reason that is.
    pub failure: Option<LinkFailure>,
}

/// Why the link is not connected, as far as it decides who must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LinkFailure {
    /// Upstream refuses the gateway's key, certificate or password.
    NotAuthorized,
    /// Upstream's certificate is not trusted, or it speaks no TLS.
    Untrusted,
    /// Files that `[upstream]` names cannot be used.
    Files,
    /// Anything that may pass by itself.
    Unreachable,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentFacts {
    /// `$edgeAgent`'s desired version; `None` before there is a manifest.
    pub version: Option<u64>,
    /// Why it was refused.
    pub problem: Option<String>,
    /// Routes that are left out, and why.
    pub routes_refused: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModuleFacts {
    pub name: String,
    /// Whether it shall run.
    pub shall_run: bool,
    /// IoT Edge's runtime status.
    pub status: String,
    /// Why it is so.
    pub reason: String,
    /// When the next step is due, RFC 3339.
    pub next_try: Option<String>,
    /// Whether its last steps failed: what runs, if anything, is not what the manifest wants.
    pub has_failed: bool,
    /// Why it may not connect, and what helps: it begins with AMQP.
    pub amqp: Option<String>,
}

/// A log on disk: a journal, from which the daemon reads its state at each start, or a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JournalFacts {
    /// Its directory below the data directory.
    pub name: String,
    /// What its records are.
    pub of: String,
    /// Records found damaged or missing since the daemon started.
    pub damaged: u64,
    /// Records found damaged or missing since the journal was made.
    pub damaged_ever: u64,
    /// What it cannot do, for how long, and why; `None` while it can be written.
    pub failing: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueFacts {
    /// As `edge-agent status` names it.
    pub name: String,
    pub messages: u64,
    /// How long the oldest waits, by a clock that nobody sets.
    pub oldest_secs: Option<u64>,
    /// `enough`, `evicting` or `refusing`.
    #[serde(rename = "room")]
    pub headroom: String,
}

/// A client that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RefusalFacts {
    /// Who it said it is.
    pub identity: String,
    /// Why it was refused.
    pub why: String,
    pub from: String,
    /// `MQTT 3.1.1`, `MQTT 5` or `TLS`.
    pub protocol: String,
    /// Fingerprint of the certificate or token that it showed.
    pub proof: Option<String>,
    /// When it was refused first since this is remembered, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When it was refused last.
    pub last_ms: u64,
    /// How often, from that address for that reason.
    pub count: u64,
}
