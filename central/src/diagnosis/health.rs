//! Whether central does what it is for: it can write and read, takes telemetry, and keeps up.
//!
//! A check writes to the store. Checks are shared: a request while one is made, or within [`FRESH`], gets its result, so that asking
//! costs nothing however many ask.

use edge_core::error_chain::chain;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::timestamp::rfc3339;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::clock::now_ms;
use crate::store::record::LostCommits;
use crate::store::{Store, StoreError, losses};
use crate::telemetry::ingest::Ingest;

/// How long a write may take before central counts as failing.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How long a result is given to others who ask.
const FRESH: Duration = Duration::from_secs(2);
/// Works that wait longer than this mean that the store does not keep up.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Whether central serves, and how well.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthBody {
    status: HealthStatus,
    /// central's version.
    version: &'static str,
    /// What is wrong, for people.
    findings: Vec<String>,
    write_milliseconds: u64,
    writer: WriterBody,
    messages_waiting: u64,
    oldest_message_milliseconds: u64,
    disk_free_bytes: u64,
    /// Commits that the store had and lost, ever.
    lost_commits: Vec<LostCommitsBody>,
    /// Rows that could not be read since central started.
    unreadable_rows: u64,
    /// Null while the store cannot be read.
    messages_lost_by_restore: Option<u64>,
}

/// Whether there are findings.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum HealthStatus {
    /// No.
    Ok,
    /// Yes.
    Failing,
}

/// What waits to be written.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WriterBody {
    works: u64,
    oldest_milliseconds: u64,
}

/// Commits that the store had and lost.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct LostCommitsBody {
    /// When it was found.
    #[schema(format = DateTime)]
    found: String,
    commits: u64,
    messages: u64,
}

/// The result of a look.
#[derive(Debug)]
pub struct Report {
    /// Whether there are no findings.
    pub is_well: bool,
    /// The answer of `/api/ext/health`.
    pub body: HealthBody,
}

/// The last look.
#[derive(Debug, Default)]
pub struct Health {
    last: Mutex<Option<(Instant, Arc<Report>)>>,
}

impl Health {
    /// The last look when it is fresh, a new one otherwise.
    pub async fn report(&self, store: &Store, telemetry: &Ingest) -> Arc<Report> {
        // Held while the check is made: others wait for its result instead of making one of their own.
        let mut last = self.last.lock().await;
        if let Some((_, report)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return report.clone();
        }
        let report = Arc::new(inspect(store, telemetry).await);
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

async fn inspect(store: &Store, telemetry: &Ingest) -> Report {
    let since = Instant::now();
    let write = store.submit(|c| {
        c.execute("INSERT OR REPLACE INTO probe (id, at_ms) VALUES (1, ?1)", [now_ms().cast_signed()])?;
        Ok::<_, StoreError>(())
    });
    let written = match tokio::time::timeout(WRITE_WITHIN, write).await {
        Ok(written) => written.map_err(|error| chain(&error).to_string()),
        Err(_) => Err(format!("nothing could be written for {WRITE_WITHIN:?}")),
    };
    let write_ms = milliseconds(since.elapsed());
    let read = store.read(|c| Ok::<_, StoreError>(losses::lost_by_restore(c)?));
    let read = match tokio::time::timeout(WRITE_WITHIN, read).await {
        Ok(read) => read.map_err(|error| chain(&error).to_string()),
        Err(_) => Err(format!("nothing could be read for {WRITE_WITHIN:?}")),
    };
    let (works, oldest) = store.waiting();
    let (messages, message_age) = telemetry.waiting_messages();
    let disk = store.disk();
    let mut findings: Vec<String> = Vec::new();
    findings.extend(written.err().map(|why| match store.failure() {
        Some(cause) => format!("writing to the store: {why}: {cause}"),
        None => format!("writing to the store: {why}"),
    }));
    let lost_by_restore = read.as_ref().ok().copied();
    findings.extend(read.err().map(|why| format!("reading from the store: {why}")));
    findings.extend(store.check_disk().err().map(|why| why.to_string()));
    if oldest.max(message_age) > WAIT_MAX {
        findings.push(format!("the store does not keep up: works wait for {:?}", oldest.max(message_age)));
    }
    let body = HealthBody {
        status: if findings.is_empty() { HealthStatus::Ok } else { HealthStatus::Failing },
        version: env!("CARGO_PKG_VERSION"),
        write_milliseconds: write_ms,
        writer: WriterBody { works: works as u64, oldest_milliseconds: milliseconds(oldest) },
        messages_waiting: messages as u64,
        oldest_message_milliseconds: milliseconds(message_age),
        disk_free_bytes: disk.free_bytes,
        lost_commits: lost_commits(store),
        unreadable_rows: crate::store::unreadable::count() as u64,
        messages_lost_by_restore: lost_by_restore,
        findings,
    };
    Report { is_well: body.findings.is_empty(), body }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Commits that the store had and lost, ever.
fn lost_commits(store: &Store) -> Vec<LostCommitsBody> {
    let shown = |(found_ms, lost): &(u64, LostCommits)| LostCommitsBody {
        found: rfc3339(*found_ms),
        commits: lost.commits,
        messages: lost.messages,
    };
    store.losses().iter().map(shown).collect()
}
