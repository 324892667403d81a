//! Messages that upstream rejected because of their content: set aside on disk with the reason, so that those behind them go on.
//!
//! ```text
//! refused ─► written here ─► the queue's cursor goes over it      a kill in between: refused again, known, not doubled
//! replay  ─► appended to its queue ─► taken out here ─► sent      a kill in between: known by the record's Origin
//! ```
//!
//! It is a log of its own with a limit of its own. Beyond the limit the oldest are dropped, and are counted as evicted by sender
//! in its ledger; what an operator drops is counted there as dropped. Both are reported to central like the losses of any queue.
//!
//! A message is in its queue or in here, never in both: one of which a kill left the queue's record behind is not sent
//! again, and before an entry goes its queue has forgotten the message on disk.

pub mod entry;

use edge_core::error_chain::chain;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edge_buffer::{AppendError, Epoch, Log, LogOptions, OpenError, ReadError, Stats};
use edge_core::route::QueueClass;
use schemas::generation::Generation;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

pub use self::entry::{Entry, Reason};
use crate::clock::{now_ms, stamp_ms};
use crate::messages::queues::Queues;
use crate::messages::queues::destination::Queue;
use crate::messages::queues::name::QueueName;
use crate::messages::record::{self, Origin};
use edge_hub::tasks;

/// Entries whose messages may still stand in their queue: more than any connection has in flight.
const KNOWN: usize = 16_384;

/// What is dropped at once at the limit, at most.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Why a message was not set aside, found, or put back.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// Its log does not take it, or the queue that it goes back to.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Its log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the daemon is stopping")]
    Task(#[from] JoinError),
    /// There is no such entry.
    #[error("quarantine: found no message {0}; `edge-agent quarantine list` has the numbers")]
    Unknown(u64),
    /// Single removals are remembered up to a number.
    #[error(
        "quarantine: message {0} was not taken out: too many were taken out between others; drop or replay the oldest first"
    )]
    TooManyHoles(u64),
    /// Its queue remembers no more single removals, and will have gone over it soon.
    #[error("quarantine: message {0} has not left its queue yet; try again when the queue has moved on")]
    InFlight(u64),
    /// The queue that it stood in is not there any more.
    #[error("quarantine: message {0} has no queue to go back to")]
    NoQueue(u64),
}

/// How often its files are looked after.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The quarantine of one upstream.
pub struct Quarantine {
    log: Log,
    /// Queue, epoch and sequence of the entries whose messages may be refused once more.
    known: Mutex<HashSet<(QueueName, u64)>>,
    /// Taken by who moves an entry out. Whether no queue holds a message whose entry is here still.
    moving: tokio::sync::Mutex<bool>,
}

impl Quarantine {
    /// Opens it; `keep_free_bytes` as the queues have it; `mirror`: where the copy of its ledger is. Blocking: reads what is in it.
    ///
    /// # Errors
    /// [`OpenError`] when its log cannot be opened.
    pub fn open(
        dir: &Path,
        keep_free_bytes: u64,
        bytes_max: u64,
        mirror: Option<PathBuf>,
    ) -> Result<Self, OpenError> {
        let options = LogOptions {
            mirror,
            bytes_max,
            segment_bytes: SEGMENT_BYTES,
            age_max_ms: None,
            // Something of the disk is left for it when the queues have filled theirs: they go on only over it.
            keep_free_bytes: keep_free_bytes / 2,
            full: edge_buffer::Full::DropOldest,
            tag: Some(entry::tag),
            // The message stays in its queue then.
            is_refused_lost: false,
            ..LogOptions::default()
        };
        let log = Log::open(dir, options)?;
        let mut known = HashSet::new();
        // The latest are those that a kill may have left in their queue.
        let skipped = log.stats().records.saturating_sub(KNOWN as u64 / 2);
        for record in log.records().skip(usize::try_from(skipped).unwrap_or(usize::MAX)) {
            match record {
                Ok(record) => {
                    known.extend(Entry::read(&record).map(|entry| (entry.queue_name(), entry.sequence)))
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "the quarantine could not be read whole");
                    break;
                }
            }
        }
        Ok(Self { log, known: Mutex::new(known), moving: tokio::sync::Mutex::new(false) })
    }

    /// Sets a message of a queue aside. It is on disk when this ends, and may then leave its queue.
    ///
    /// # Errors
    /// [`QuarantineError`]; the message stays where it is.
    pub async fn put(&self, queue: &Queue, sequence: u64, reason: Reason) -> Result<(), QuarantineError> {
        self.put_of(queue, sequence, reason, |_| None).await
    }

    /// As [`Quarantine::put`]; `generation` tells from a record which of the devices of its name sent it. It stays with the message,
    /// which has another place in its queue when it is put back.
    ///
    /// # Errors
    /// As there.
    pub async fn put_of(
        &self,
        queue: &Queue,
        sequence: u64,
        reason: Reason,
        generation: impl FnOnce(&Bytes) -> Option<Generation>,
    ) -> Result<(), QuarantineError> {
        let of = (queue_name(queue, sequence), sequence);
        if self.known().contains(&of) {
            return Ok(());
        }
        let log = queue.log.clone();
        let found = tokio::task::spawn_blocking(move || {
            log.records().find(|record| record.as_ref().map_or(true, |record| record.sequence >= sequence))
        });
        let Some(record) = found.await?.transpose()?.filter(|record| record.sequence == sequence) else {
            // It expired or was dropped in the meantime, and was counted there.
            return Ok(());
        };
        let entry = Entry {
            number: 0,
            queue: of.0.id,
            sequence,
            epoch: of.0.epoch,
            priority: queue.class.priority,
            enqueued_ms: record.enqueued_ms,
            refused_ms: now_ms(),
            reason,
            message: match generation(&record.payload) {
                Some(generation) => record::with_generation(&record::plain(&record.payload), generation),
                None => record::plain(&record.payload),
            },
        };
        let (sender, reason) = (entry.sender().unwrap_or_default(), &entry.reason);
        tracing::warn!(
            sender,
            sequence,
            why = reason.why,
            code = reason.code,
            "upstream refused a message for itself; it is in quarantine"
        );
        self.log.append(entry.write(), stamp_ms()).await?;
        let mut known = self.known();
        if known.len() >= KNOWN {
            // Their queues have forgotten them long ago.
            known.clear();
        }
        known.insert(of);
        Ok(())
    }

    /// Whether a message of a queue is in here, or was: it has left that queue, whatever a kill has left there.
    pub fn holds(&self, queue: &Queue, sequence: u64) -> bool {
        self.known().contains(&(queue_name(queue, sequence), sequence))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<(QueueName, u64)>> {
        self.known.lock().expect("nothing panics with it")
    }

    /// The entries behind number `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`QuarantineError`] when it cannot be read.
    pub async fn list(&self, after: u64, limit: usize) -> Result<Vec<Entry>, QuarantineError> {
        let log = self.log.clone();
        let read = move || {
            let pending = log.records().filter(|record| {
                record
                    .as_ref()
                    .map_or(true, |record| record.sequence > after && log.is_pending(record.sequence))
            });
            let entries = pending.filter_map(|record| record.map(|record| Entry::read(&record)).transpose());
            entries.take(limit).collect::<Result<Vec<_>, _>>()
        };
        Ok(tokio::task::spawn_blocking(read).await??)
    }

    /// One entry.
    ///
    /// # Errors
    /// [`QuarantineError`].
    pub async fn show(&self, number: u64) -> Result<Entry, QuarantineError> {
        let found = self.list(number.saturating_sub(1), 1).await?;
        found.into_iter().find(|entry| entry.number == number).ok_or(QuarantineError::Unknown(number))
    }

    /// Forgets an entry; its ledger has it as dropped then.
    ///
    /// # Errors
    /// [`QuarantineError`].
    pub async fn drop_one(&self, number: u64, queues: &Queues) -> Result<(), QuarantineError> {
        let mut is_settled = self.moving.lock().await;
        self.settle(&mut is_settled, queues).await?;
        let entry = self.show(number).await?;
        self.leave_queue(&entry, queues).await?;
        let sender = entry.sender().unwrap_or_default();
        if self.log.give_up(number, &sender, stamp_ms()).await? {
            let Entry { queue, sequence, .. } = entry;
            tracing::warn!(number, sender, %queue, sequence, "a message in quarantine was dropped");
            Ok(())
        } else {
            Err(self.not_taken_out(number))
        }
    }

    fn not_taken_out(&self, number: u64) -> QuarantineError {
        if self.log.is_pending(number) {
            QuarantineError::TooManyHoles(number)
        } else {
            QuarantineError::Unknown(number)
        }
    }

    /// Makes sure that a kill does not bring the message back in the queue that it stood in.
    async fn leave_queue(&self, entry: &Entry, queues: &Queues) -> Result<(), QuarantineError> {
        let place = queues.upstream().queues();
        let is_in = |queue: &&Arc<Queue>| queue_name(queue, entry.sequence) == entry.queue_name();
        let Some(queue) = place.iter().find(is_in) else { return Ok(()) };
        if queue.log.is_pending(entry.sequence) && !queue.log.take_out(entry.sequence).await? {
            return Err(QuarantineError::InFlight(entry.number));
        }
        Ok(queue.log.written().await?)
    }

    /// Puts a message back into its queue, behind all that waits there, and forgets the entry. Goes on to its end when the
    /// future is dropped.
    ///
    /// # Errors
    /// [`QuarantineError`]; the entry stays.
    pub async fn replay(self: &Arc<Self>, number: u64, queues: &Arc<Queues>) -> Result<(), QuarantineError> {
        let (own, queues) = (self.clone(), queues.clone());
        let moved = tasks::spawn("quarantine", async move {
            let mut is_settled = own.moving.lock().await;
            own.settle(&mut is_settled, &queues).await?;
            let entry = own.show(number).await?;
            if !own.log.may_take_out(number) {
                return Err(QuarantineError::TooManyHoles(number));
            }
            own.leave_queue(&entry, &queues).await?;
            // Until the entry is gone.
            *is_settled = false;
            own.append_again(&entry, &queues).await?;
            // Whoever sends it may have taken the entry out already.
            own.log.take_out(number).await?;
            *is_settled = true;
            Ok(())
        });
        moved.await?
    }

    async fn append_again(&self, entry: &Entry, queues: &Queues) -> Result<(), QuarantineError> {
        let place = queues.upstream();
        let same = place.queues().iter().find(|queue| queue.log.id() == entry.queue).map(|queue| queue.class);
        let class = same.unwrap_or(QueueClass { priority: entry.priority, full: None });
        let origin = Origin {
            quarantine: self.log.id(),
            epoch: self.log.epoch_of(entry.number),
            number: entry.number,
        };
        let record = record::put_back(&origin, &entry.message);
        let append = place.append(class, record, None, None).ok_or(QuarantineError::NoQueue(entry.number))?;
        append.await?;
        Ok(())
    }

    /// Takes out the entry of a message that was put back and is about to be sent, where a kill or the disk kept that from
    /// being done: a message that has left the gateway is not put back once more.
    ///
    /// # Errors
    /// [`QuarantineError`]: it must not be sent now.
    pub async fn before_sending(&self, record: &Bytes) -> Result<(), QuarantineError> {
        if let Some(origin) = record::put_back_from(record)
            && self.is_waiting(&origin, record).await?
        {
            self.log.take_out(origin.number).await?;
        }
        Ok(())
    }

    /// Returns true when the entry that a record was put back from is still in here. A quarantine whose directory went back
    /// gives its numbers to other messages, in another epoch.
    async fn is_waiting(&self, origin: &Origin, record: &Bytes) -> Result<bool, QuarantineError> {
        let number = origin.number;
        if origin.quarantine != self.log.id() || !self.log.is_pending(number) {
            return Ok(false);
        }
        match origin.epoch {
            Some(epoch) => Ok(self.log.epoch_of(number) == Some(epoch)),
            None => match self.show(number).await {
                Ok(entry) => Ok(entry.message == record::plain(record)),
                Err(QuarantineError::Unknown(_)) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Takes out the entries of messages that wait in a queue again: a kill came before that was done. The queues are read
    /// for it, once in a run of the daemon.
    async fn settle(&self, is_settled: &mut bool, queues: &Queues) -> Result<(), QuarantineError> {
        if *is_settled {
            return Ok(());
        }
        let (log, place) = (self.log.clone(), queues.upstream().queues());
        let read = move || {
            let mut put_back = Vec::new();
            for record in place.iter().flat_map(|queue| queue.log.records()) {
                let payload = record?.payload;
                let origin = record::put_back_from(&payload);
                let is_own = |of: &Origin| of.quarantine == log.id() && log.is_pending(of.number);
                put_back.extend(origin.filter(is_own).map(|origin| (origin, payload)));
            }
            Ok::<_, ReadError>(put_back)
        };
        for (origin, record) in tokio::task::spawn_blocking(read).await?? {
            let number = origin.number;
            if self.is_waiting(&origin, &record).await? {
                tracing::info!(number, "a message in quarantine had been put back before the daemon ended");
                self.log.take_out(number).await?;
            }
        }
        *is_settled = true;
        Ok(())
    }

    /// Checks every few seconds until `stop` whether somebody removed its files: nothing may be written to it for months.
    pub async fn check_files(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(CHECK_EVERY)).await.is_some() {
            let log = self.log.clone();
            match tokio::task::spawn_blocking(move || log.check_files()).await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down.
                Err(_) => return,
                Ok(()) => {}
            }
        }
    }

    /// The numbers of its log: how many wait, how many bytes, how many gave way.
    pub fn stats(&self) -> Stats {
        self.log.stats()
    }

    /// How many were put back since it was made: those that neither wait nor were lost.
    pub fn replayed(&self) -> u64 {
        let Stats { next_sequence, records, lost, .. } = self.log.stats();
        (next_sequence - 1)
            .saturating_sub(records + lost.expired + lost.evicted + lost.damaged + lost.dropped)
    }

    /// Its log, whose ledger tells what gave way or was dropped.
    pub fn log(&self) -> &Log {
        &self.log
    }

    pub async fn close(&self) {
        self.log.close().await;
    }
}

impl Reason {
    /// A reason without a code.
    pub fn because(why: impl Into<String>) -> Self {
        Self { code: None, why: why.into() }
    }
}

/// The queue, with the epoch of one of its sequences: that of a queue that went back names another message by then.
fn queue_name(queue: &Queue, sequence: u64) -> QueueName {
    QueueName { id: queue.log.id(), epoch: queue.log.epoch_of(sequence).unwrap_or(Epoch::NONE) }
}

/// A message as text where it is text.
pub(crate) fn shown(body: &Bytes) -> Option<&str> {
    std::str::from_utf8(body).ok()
}

#[cfg(test)]
mod tests;
