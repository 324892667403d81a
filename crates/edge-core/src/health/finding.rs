//! One finding: which check, how bad, what was seen, and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A finding's evidence and mend are cut after so many bytes each.
pub const TEXT_BYTES_MAX: usize = 1_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing needs to be done.
    Info,
    /// Everything works; somebody should look before something does not.
    Warn,
    /// Something that the gateway promises is not kept: a module does not run, data is lost, nobody can connect.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warn => "WARNING",
            Self::Error => "ERROR",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub id: CheckId,
    /// How bad it is.
    pub level: Level,
    /// What was seen. One line, at most [`TEXT_BYTES_MAX`] bytes.
    pub evidence: String,
    /// What to do; empty when there is nothing to be done. One line, at most [`TEXT_BYTES_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Finding {
    /// Texts come from file names, clients and Docker too: what could move a terminal's cursor becomes a space, what is too
    /// long is cut.
    pub fn new(id: CheckId, level: Level, evidence: &str, mend: &str) -> Self {
        Self { id, level, evidence: one_line(evidence), mend: one_line(mend) }
    }
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for character in text.chars().map(|c| if is_printable(c) { c } else { ' ' }) {
        if line.len() + character.len_utf8() > TEXT_BYTES_MAX - '…'.len_utf8() {
            line.push('…');
            break;
        }
        line.push(character);
    }
    line
}

/// Neither a control character nor one that turns the direction of what follows.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<20} {}", self.level, self.id.name(), self.evidence)?;
        if !self.mend.is_empty() {
            write!(f, "\n{:<30}→ {}", "", self.mend)?;
        }
        Ok(())
    }
}

macro_rules! checks {
    ($($variant:ident $name:literal $about:literal,)*) => {
        /// A check, by the name under which scripts know it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum CheckId {
            $(#[doc = $about] #[serde(rename = $name)] $variant,)*
        }

        impl CheckId {
            /// All of them, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it is written in `edge-agent check --json`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it inspects.
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

checks! {
    Config "config" "edge.toml can be read and understood",
    ConfigInUse "config-in-use" "the daemon runs with edge.toml as it is now",
    DataDir "data-dir" "the data directory is there and can be used",
    Permissions "permissions" "no other user may read keys, tokens or messages",
    Clock "clock" "the wall clock is set",
    ClockOffset "clock-offset" "the wall clock agrees with central's",
    Disk "disk" "the disk has more free space than `[buffer] keep_free_bytes`",
    Inodes "inodes" "the disk can hold more files",
    Memory "memory" "the host has free memory",
    OpenFiles "open-files" "enough files may be open for `[listen] connections_max`",
    Hostname "hostname" "`hostname` resolves",
    Listeners "listeners" "the addresses of `[listen]` can be listened on",
    Daemon "daemon" "the daemon runs and answers",
    DaemonVersion "daemon-version" "the daemon is of the version that is installed",
    ModuleKeys "module-keys" "the secret of the modules' keys is there and undamaged",
    Ca "ca" "the gateway's CA (`[tls] ca`) is valid",
    CaKey "ca-key" "the key of the gateway's CA (`[tls] ca_key`) fits it",
    ServerCertificate "server-certificate" "the server's certificate (`[tls] cert`, `key`) is valid for this gateway",
    DeviceCa "device-ca" "the CAs of leaf devices (`[tls] device_ca`) are valid",
    UpstreamCa "upstream-ca" "the CA by which upstream is trusted (`[upstream] ca`) is valid",
    Upstream "upstream" "an upstream is configured",
    UpstreamEncryption "upstream-encryption" "the way to upstream is encrypted",
    UpstreamReachable "upstream-reachable" "upstream answers, and is whom `[upstream] ca` vouches for",
    Link "link" "the daemon is connected to upstream",
    LinkBudget "link-budget" "the link's daily budget is not used up",
    Docker "docker" "the Docker Engine answers",
    DockerLogs "docker-logs" "logs of other containers are bounded",
    DockerNetwork "docker-network" "the modules' network is there",
    DeployPolicy "deploy-policy" "what manifests may ask of this host is limited",
    WatchFolder "watch-folder" "the folder of manifests (`[deploy] watch`) can be read",
    Deployment "deployment" "the manifest is in force",
    Modules "modules" "every module that shall run runs",
    ModuleHealth "module-health" "the health checks of modules pass",
    ModuleTransport "module-transport" "no module begins with AMQP",
    Routes "routes" "every route is in force",
    QueueSpace "queue-space" "queues accept new messages",
    Backlog "backlog" "messages leave the queues",
    Losses "losses" "no message was lost",
    Quarantine "quarantine" "upstream takes every message",
    Unrouted "unrouted" "every message has a route",
    StoreDamage "store-damage" "what is on disk is undamaged",
    Connections "connections" "more clients can connect",
    IdentityConflict "identity-conflict" "no two clients use one identity",
    Refusals "refusals" "no client was refused lately",
}
