//! Telemetry on its way to the disk: what arrives while the writer is busy is stored by it as one work.
//!
//! # Guarantees
//! - A message's place is fixed when [`Ingest::put`] returns; messages are stored in that order.
//! - Its future ends after the commit that holds it.
//! - One message that is refused for itself refuses no other.
//! - After one that failed and may be sent again, nothing further of its connection is stored: what is stored of a queue has
//!   no holes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use edge_buffer::Fence;
use edge_core::error_chain::chain;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use schemas::generation::Generation;
use schemas::names::{DeviceId, Identity};
use tokio::sync::oneshot;

use super::fences::{Fences, GatewayConnection};
use crate::access::authorize::{Statement, authorize};
use crate::error::ServiceError;
use crate::store::telemetry::{NewMessage, Stored, Writing};
use crate::store::{Store, StoreError};

/// Messages in one work: enough to make what a commit costs by itself small, few enough that a command that waits behind
/// them waits some hundredths of a second.
pub const BATCH_MAX: usize = 4096;
/// Messages that may wait for the writer, of all clients together; about a second of what it stores.
const WAITING_MAX: usize = 65_536;
/// Their bytes; the messages that are being written hold as much again at most.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a message holds beside its body.
const OVERHEAD_BYTES: usize = 512;

/// The way of telemetry into a store. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    waiting: Arc<Mutex<WaitingMessages>>,
    counts: Arc<IngestCounts>,
}

/// Messages since central started.
#[derive(Default)]
struct IngestCounts {
    stored: AtomicU64,
    rejected: AtomicU64,
}

#[derive(Default)]
struct WaitingMessages {
    messages: VecDeque<Arrived>,
    bytes: usize,
    /// A work that will take them is on its way to the writer.
    is_submitted: bool,
    fences: Fences,
}

struct Arrived {
    message: NewMessage,
    source: Source,
    /// Of a will: who left it.
    left_by: Option<DeviceId>,
    stored: oneshot::Sender<Result<(), ServiceError>>,
    at: Instant,
}

/// How a message came.
#[derive(Clone, Default)]
struct Source {
    /// None when the device is connected to central itself.
    via: Option<GatewayConnection>,
    /// Of the device's own connection to central.
    fence: Option<Fence>,
}

impl WaitingMessages {
    /// Whether something earlier of the same connection failed.
    fn is_fenced(&self, source: &Source) -> bool {
        source.via.as_ref().is_some_and(|via| self.fences.holds(via))
            || source.fence.as_ref().is_some_and(Fence::is_set)
    }

    /// Nothing further of this connection is taken: what failed is sent again on the next one, and comes first there.
    fn fence(&mut self, source: &Source) {
        source.via.iter().for_each(|via| self.fences.put(via));
        source.fence.iter().for_each(Fence::set);
    }
}

impl Ingest {
    pub fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default(), counts: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingMessages> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Messages that wait for the writer now, and for how long the oldest of them has waited.
    pub fn waiting_messages(&self) -> (usize, Duration) {
        let waiting = self.waiting();
        let oldest = waiting.messages.front().map_or(Duration::ZERO, |oldest| oldest.at.elapsed());
        (waiting.messages.len(), oldest)
    }

    /// Messages that were stored, those that were stored already among them, and that will never be, since central started.
    pub fn stored_and_rejected(&self) -> (u64, u64) {
        (self.counts.stored.load(Ordering::Relaxed), self.counts.rejected.load(Ordering::Relaxed))
    }

    /// Stores a message once.
    ///
    /// # Errors
    /// The future gives [`ServiceError::Forbidden`] when the gateway may not bring it, or [`ServiceError::Store`]. After an
    /// error that may pass, everything later of the same connection gets [`StoreError::NotCommitted`].
    pub fn put(
        &self,
        message: NewMessage,
        via: Option<GatewayConnection>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.put_from(message, Source { via, fence: None }, None)
    }

    /// Stores a message of a device that is connected to central itself, by a connection with this fence.
    ///
    /// # Errors
    /// As [`Ingest::put`]. After an error that may pass, the fence is set.
    pub fn put_of_device(
        &self,
        message: NewMessage,
        fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.put_from(message, Source { via: None, fence: fence.cloned() }, None)
    }

    /// Stores a will of `left_by`, if it may still speak for the message's sender when that is written.
    ///
    /// # Errors
    /// As [`Ingest::put`].
    pub fn put_will(
        &self,
        message: NewMessage,
        left_by: DeviceId,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.put_from(message, Source::default(), Some(left_by))
    }

    fn put_from(
        &self,
        message: NewMessage,
        source: Source,
        left_by: Option<DeviceId>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (stored, outcome) = oneshot::channel();
        let bytes = message.body.len() + OVERHEAD_BYTES;
        let mut waiting = self.waiting();
        if waiting.is_fenced(&source) {
            return std::future::ready(Err(StoreError::NotCommitted.into())).boxed();
        }
        let is_full = waiting.messages.len() >= WAITING_MAX || waiting.bytes + bytes > WAITING_BYTES_MAX;
        let may = if is_full { Err(StoreError::Busy) } else { self.store.check_disk() };
        if let Err(refused) = may {
            // Refused here, a message is sent again on the next connection; what comes after it on this one must not be stored before.
            waiting.fence(&source);
            return std::future::ready(Err(refused.into())).boxed();
        }
        waiting.bytes += bytes;
        waiting.messages.push_back(Arrived { message, source, left_by, stored, at: Instant::now() });
        // One work takes everything that has come by the time it runs, in the order of arrival.
        let is_first = !std::mem::replace(&mut waiting.is_submitted, true);
        // Released first: a work that is refused takes the lock again when it is dropped.
        drop(waiting);
        if is_first {
            self.submit();
        }
        async move { outcome.await.unwrap_or_else(|_| Err(StoreError::NotCommitted.into())) }.boxed()
    }

    /// Submits a work that takes what waits; `is_submitted` is set and the lock is free. A work that is refused, or dropped
    /// before it ran, gives up what waits when it is dropped.
    fn submit(&self) {
        let submitted = Submitted { ingest: self.clone(), is_taken: false };
        let submitted = self.store.submit_then(
            1,
            move |connection| {
                let (ingest, batch) = submitted.take();
                let mut outcome = Outcome::new(ingest, &batch);
                store(connection, batch, &mut outcome).inspect_err(
                    |error| tracing::error!(error = %chain(&error), "storing telemetry failed"),
                )?;
                Ok::<_, ServiceError>(outcome)
            },
            Outcome::send,
        );
        // Nobody waits for the work itself: each message has a channel of its own.
        drop(submitted);
    }
}

/// A work on its way to the writer.
struct Submitted {
    ingest: Ingest,
    is_taken: bool,
}

impl Submitted {
    fn take(mut self) -> (Ingest, Vec<Arrived>) {
        self.is_taken = true;
        let mut waiting = self.ingest.waiting();
        let count = waiting.messages.len().min(BATCH_MAX);
        let batch: Vec<Arrived> = waiting.messages.drain(..count).collect();
        waiting.bytes -=
            batch.iter().map(|arrived| arrived.message.body.len() + OVERHEAD_BYTES).sum::<usize>();
        waiting.is_submitted = !waiting.messages.is_empty();
        let has_more = waiting.is_submitted;
        drop(waiting);
        // Another work for the rest: a group has works of others in between.
        if has_more {
            self.ingest.submit();
        }
        (self.ingest.clone(), batch)
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let mut waiting = self.ingest.waiting();
        waiting.is_submitted = false;
        waiting.bytes = 0;
        // The channels close, which ends the wait of each.
        for arrived in std::mem::take(&mut waiting.messages) {
            waiting.fence(&arrived.source);
        }
    }
}

/// What became of each message of a batch, sent to those who wait once it is committed. Dropped before that, because a statement, the commit
/// or the work itself failed, it fences every connection that brought one.
struct Outcome {
    ingest: Ingest,
    connections: Vec<GatewayConnection>,
    /// Of devices that are connected to central themselves.
    fences: Vec<Fence>,
    results: Mutex<Option<Vec<MessageResult>>>,
}

/// The result of a message, and the channel that takes it.
type MessageResult = (oneshot::Sender<Result<(), ServiceError>>, Result<(), ServiceError>);

impl Outcome {
    fn new(ingest: Ingest, batch: &[Arrived]) -> Self {
        let mut connections: Vec<GatewayConnection> = Vec::new();
        for via in batch.iter().filter_map(|arrived| arrived.source.via.as_ref()) {
            // Most messages in a row are of one connection.
            if connections.last() != Some(via) && !connections.contains(via) {
                connections.push(via.clone());
            }
        }
        let fences = batch.iter().filter_map(|arrived| arrived.source.fence.clone()).collect();
        Self { ingest, connections, fences, results: Mutex::new(Some(Vec::with_capacity(batch.len()))) }
    }

    fn results(&self) -> MutexGuard<'_, Option<Vec<MessageResult>>> {
        self.results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn push(&mut self, stored: oneshot::Sender<Result<(), ServiceError>>, result: Result<(), ServiceError>) {
        if let Some(results) = self.results().as_mut() {
            results.push((stored, result));
        }
    }

    fn send(&self) {
        let (mut stored_messages, mut rejected) = (0, 0);
        for (stored, result) in self.results().take().into_iter().flatten() {
            match &result {
                Ok(()) => stored_messages += 1,
                Err(ServiceError::Store(_) | ServiceError::Busy(_) | ServiceError::Stopping(_)) => {}
                Err(_) => rejected += 1,
            }
            // The session may have ended.
            let _ = stored.send(result);
        }
        self.ingest.counts.stored.fetch_add(stored_messages, Ordering::Relaxed);
        self.ingest.counts.rejected.fetch_add(rejected, Ordering::Relaxed);
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if self.results().is_some() {
            let mut waiting = self.ingest.waiting();
            self.connections.iter().for_each(|via| waiting.fences.put(via));
            self.fences.iter().for_each(Fence::set);
        }
    }
}

/// Stores a batch in its order; `outcome` gets what became of each.
fn store(connection: &Connection, batch: Vec<Arrived>, outcome: &mut Outcome) -> Result<(), ServiceError> {
    let ingest = outcome.ingest.clone();
    let mut writing = Writing::new(connection)?;
    let mut proven = ProvenSenders::default();
    for arrived in batch {
        let result = if ingest.waiting().is_fenced(&arrived.source) {
            Err(StoreError::NotCommitted.into())
        } else {
            match store_one(connection, &mut writing, &mut proven, &arrived) {
                // The transaction is lost, and all of the batch with it.
                Err(ServiceError::Store(error)) => return Err(error.into()),
                // It may pass: its sender sends it again, and nothing of its connection may be stored before it.
                Err(error @ (ServiceError::Busy(_) | ServiceError::Stopping(_))) => {
                    ingest.waiting().fence(&arrived.source);
                    Err(error)
                }
                result => result,
            }
        };
        outcome.push(arrived.stored, result);
    }
    writing.finish()?;
    Ok(())
}

/// Stores a message, unless it is stored already.
///
/// # Errors
/// [`ServiceError::Busy`] and [`ServiceError::Stopping`] may pass; after another one than [`ServiceError::Store`] the message's
/// place in its queue is done with.
fn store_one(
    connection: &Connection,
    writing: &mut Writing<'_>,
    proven: &mut ProvenSenders,
    arrived: &Arrived,
) -> Result<(), ServiceError> {
    let Arrived { message, source: Source { via, .. }, left_by, .. } = arrived;
    let place = message.place.as_ref();
    // A resend stays known when its device was moved in the meantime.
    if let Some(place) = place
        && writing.is_stored(place)?
    {
        return Ok(());
    }
    let of_gateway = via.as_ref().map(|via| &via.gateway);
    let speaker = of_gateway.or(left_by.as_ref()).unwrap_or(&message.from.device);
    let may = match left_by {
        Some(_) => authorize(connection, speaker, &message.from, Statement::Will, message.generation),
        None => proven.authorize(connection, speaker, message),
    };
    match may {
        Ok(()) => match writing.insert(message)? {
            Stored::New | Stored::Already => Ok(()),
            Stored::TooManyQueues => {
                Err(ServiceError::Forbidden("the gateway brings more queues than one may have".into()))
            }
        },
        Err(error @ (ServiceError::Store(_) | ServiceError::Busy(_) | ServiceError::Stopping(_))) => {
            Err(error)
        }
        Err(refused) => {
            if let Some(place) = place {
                writing.refuse(place)?;
            }
            Err(refused)
        }
    }
}

/// Senders that a speaker was authorized for in this batch, each with the generation: most messages of a batch are of few senders.
#[derive(Default)]
struct ProvenSenders(HashMap<DeviceId, HashMap<Identity, Option<Generation>>>);

impl ProvenSenders {
    fn authorize(
        &mut self,
        connection: &Connection,
        speaker: &DeviceId,
        message: &NewMessage,
    ) -> Result<(), ServiceError> {
        let (from, generation) = (&message.from, message.generation);
        if self.0.get(speaker).and_then(|of| of.get(from)) == Some(&generation) {
            return Ok(());
        }
        authorize(connection, speaker, from, Statement::Telemetry, generation)?;
        self.0.entry(speaker.clone()).or_default().insert(from.clone(), generation);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
