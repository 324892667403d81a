//! What each queue may hold: the limits of the gateway, which all queues share, and those that `edge.toml` gives to one queue
//! by its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_buffer::{Full, LogOptions, Pool};
use edge_core::route::QueueClass;
use schemas::manifest::{PRIORITY_DEFAULT, WhenFull};

use super::known::KnownQueues;
use crate::config::{BufferSection, QueueSection};

/// The name of upstream's queues, before what tells them apart.
pub const UPSTREAM: &str = "upstream";

/// The limits of all queues.
#[derive(Debug, Clone)]
pub struct Limits {
    options: LogOptions,
    by_name: BTreeMap<String, QueueSection>,
    /// How many messages may be on their way upstream when a connection ends; 0: upstream never says which of them it has.
    upstream_unsettled_max: u64,
    copies: Option<Copies>,
    known: Option<Arc<KnownQueues>>,
}

/// Where the copies of the queues' ledgers stand: a tree like that of the queues, beside it.
#[derive(Debug, Clone)]
struct Copies {
    queues: PathBuf,
    ledgers: PathBuf,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&BufferSection::default())
    }
}

impl Limits {
    /// As `[buffer]` says.
    pub fn new(buffer: &BufferSection) -> Self {
        let options = LogOptions {
            bytes_max: buffer.max_bytes,
            age_max_ms: buffer.max_age_secs.map(|secs| secs.saturating_mul(1000)),
            keep_free_bytes: buffer.keep_free_bytes,
            full: full(buffer.full),
            pool: Some(Pool::new(buffer.max_bytes)),
            tag: Some(crate::messages::record::sender),
            ..LogOptions::default()
        };
        Self { options, by_name: buffer.queues.clone(), upstream_unsettled_max: 0, copies: None, known: None }
    }

    /// For an upstream that says on each new connection which messages it has: up to `max` may have been on their way when the
    /// last one ended, and do not expire until it has said so.
    #[must_use]
    pub fn settled_by_upstream(self, max: u64) -> Self {
        Self { upstream_unsettled_max: max, ..self }
    }

    /// With a copy of the ledger of each queue below `queues` at its place below `ledgers`.
    #[must_use]
    pub fn with_ledgers(self, queues: PathBuf, ledgers: PathBuf) -> Self {
        Self { copies: Some(Copies { queues, ledgers }), ..self }
    }

    /// With what the state knows of the queues.
    #[must_use]
    pub fn with_known(self, known: Arc<KnownQueues>) -> Self {
        Self { known: Some(known), ..self }
    }

    /// What the state knows of the queues, where it is kept.
    pub fn known(&self) -> Option<&KnownQueues> {
        self.known.as_deref()
    }

    /// The copy of the ledger of the queue in `dir`; `None` where none is kept.
    pub fn ledger_of(&self, dir: &Path) -> Option<PathBuf> {
        let Copies { queues, ledgers } = self.copies.as_ref()?;
        let mut path = ledgers.join(dir.strip_prefix(queues).ok()?).into_os_string();
        path.push(".ledger");
        Some(path.into())
    }

    /// Where the copies of the queues in this folder are.
    pub fn ledgers_in(&self, folder: &Path) -> Option<PathBuf> {
        let Copies { queues, ledgers } = self.copies.as_ref()?;
        Some(ledgers.join(folder.strip_prefix(queues).ok()?))
    }

    /// The class of a queue, as it is called: what a gateway does anyway is not part of a name.
    pub fn resolved(&self, class: QueueClass) -> QueueClass {
        QueueClass { full: class.full.filter(|policy| full(*policy) != self.options.full), ..class }
    }

    /// Every class that a queue on disk can be of, also of a time when the gateway did otherwise with full queues.
    pub fn classes(&self) -> impl Iterator<Item = QueueClass> {
        let policies = [None, Some(WhenFull::Refuse), Some(WhenFull::DropOldest)];
        let priorities = (0..=9).chain([PRIORITY_DEFAULT]);
        priorities.flat_map(move |priority| policies.map(|full| QueueClass { priority, full }))
    }

    /// The options of the log of one queue.
    pub fn options(&self, name: &str, class: QueueClass) -> LogOptions {
        // The lower a priority, the sooner its queues lose messages for others.
        let mut options = LogOptions { rank: class.priority, ..self.options.clone() };
        if name.starts_with(UPSTREAM) {
            options.unsettled_max = self.upstream_unsettled_max;
        }
        if let Some(policy) = class.full {
            options.full = full(policy);
        }
        if let Some(own) = self.by_name.get(name) {
            options.bytes_max = own.max_bytes.unwrap_or(options.bytes_max);
            options.age_max_ms =
                own.max_age_secs.map(|secs| secs.saturating_mul(1000)).or(options.age_max_ms);
        }
        options
    }
}

fn full(policy: WhenFull) -> Full {
    match policy {
        WhenFull::DropOldest => Full::DropOldest,
        WhenFull::Refuse => Full::Refuse,
    }
}

/// What follows the name of a destination in the name of one of its queues: `@3` for priority 3, `.refuse` or `.drop-oldest`
/// for one that does otherwise than the gateway does.
pub fn suffix(class: QueueClass) -> String {
    let priority = match class.priority {
        PRIORITY_DEFAULT => String::new(),
        priority => format!("@{priority}"),
    };
    match class.full {
        None => priority,
        Some(full) => format!("{priority}.{full}"),
    }
}
