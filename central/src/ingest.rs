//! Telemetry on its way to the disk: what arrives while the writer is busy is stored by it as one work.
//!
//! # Guarantees
//! - A message's place is fixed when [`Ingest::put`] returns; messages are stored in that order.
//! - Its future ends after the commit that holds it.
//! - One message that is refused for itself refuses no other.
//! - After one that failed and may be sent again, nothing further of its connection is stored: what is stored of a queue has
//!   no holes.

use edge_core::error_chain::chain;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use schemas::generation::Generation;
use schemas::names::{DeviceId, Identity};
use tokio::sync::oneshot;

use crate::authorize::{Way, authorize};
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

/// Who brings a message: a gateway, on one of its connections. Later connections have higher numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConnection {
    pub gateway: DeviceId,
    /// The connection's number, unique for as long as central runs.
    pub connection: u64,
}

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
    is_handed_in: bool,
    fences: Fences,
}

/// Connections of which nothing further is stored, because something they brought was not: up to which number, by gateway.
///
/// A queue's watermark says that everything up to it is stored. If a later message of a connection were stored after an
/// earlier one failed, the watermark would cover the hole, and the gateway would delete what nobody has. The gateway
/// sends all of it again on its next connection.
#[derive(Debug, Default)]
struct Fences(HashMap<DeviceId, u64>);

impl Fences {
    fn put(&mut self, of: &GatewayConnection) {
        let fence = self.0.entry(of.gateway.clone()).or_default();
        *fence = of.connection.max(*fence);
    }

    fn holds(&self, of: &GatewayConnection) -> bool {
        self.0.get(&of.gateway).is_some_and(|fence| of.connection <= *fence)
    }
}

struct Arrived {
    message: NewMessage,
    /// None when the device is connected to central itself.
    carrier: Option<GatewayConnection>,
    /// Of a will: who left it.
    left_by: Option<DeviceId>,
    stored: oneshot::Sender<Result<(), ServiceError>>,
    at: Instant,
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
        carrier: Option<GatewayConnection>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.put_from(message, carrier, None)
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
        self.put_from(message, None, Some(left_by))
    }

    fn put_from(
        &self,
        message: NewMessage,
        carrier: Option<GatewayConnection>,
        left_by: Option<DeviceId>,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (stored, told) = oneshot::channel();
        let bytes = message.body.len() + OVERHEAD_BYTES;
        let mut waiting = self.waiting();
        if carrier.as_ref().is_some_and(|carrier| waiting.fences.holds(carrier)) {
            return std::future::ready(Err(StoreError::NotCommitted.into())).boxed();
        }
        let is_full = waiting.messages.len() >= WAITING_MAX || waiting.bytes + bytes > WAITING_BYTES_MAX;
        let may = if is_full { Err(StoreError::Busy) } else { self.store.check_disk() };
        if let Err(refused) = may {
            if let Some(carrier) = &carrier {
                waiting.fences.put(carrier);
            }
            return std::future::ready(Err(refused.into())).boxed();
        }
        waiting.bytes += bytes;
        waiting.messages.push_back(Arrived { message, carrier, left_by, stored, at: Instant::now() });
        let is_first = !std::mem::replace(&mut waiting.is_handed_in, true);
        drop(waiting);
        if is_first {
            self.hand_in();
        }
        async move { told.await.unwrap_or_else(|_| Err(StoreError::NotCommitted.into())) }.boxed()
    }

    /// Hands in a work that takes what waits; `is_handed_in` is set and the lock is free. A work that is refused, or dropped
    /// before it ran, gives up what waits when it is dropped.
    fn hand_in(&self) {
        let handed_in = HandedIn { ingest: self.clone(), is_taken: false };
        let submitted = self.store.submit_then(
            1,
            move |connection| {
                let (ingest, batch) = handed_in.take();
                let mut outcome = Outcome::new(ingest, &batch);
                store(connection, batch, &mut outcome).inspect_err(
                    |error| tracing::error!(error = %chain(&error), "telemetry was not stored"),
                )?;
                Ok::<_, ServiceError>(outcome)
            },
            Outcome::tell,
        );
        // Nobody waits for the work itself: each message has a channel of its own.
        drop(submitted);
    }
}

/// A work on its way to the writer.
struct HandedIn {
    ingest: Ingest,
    is_taken: bool,
}

impl HandedIn {
    fn take(mut self) -> (Ingest, Vec<Arrived>) {
        self.is_taken = true;
        let mut waiting = self.ingest.waiting();
        let count = waiting.messages.len().min(BATCH_MAX);
        let batch: Vec<Arrived> = waiting.messages.drain(..count).collect();
        waiting.bytes -=
            batch.iter().map(|arrived| arrived.message.body.len() + OVERHEAD_BYTES).sum::<usize>();
        waiting.is_handed_in = !waiting.messages.is_empty();
        let has_more = waiting.is_handed_in;
        drop(waiting);
        if has_more {
            self.ingest.hand_in();
        }
        (self.ingest.clone(), batch)
    }
}

impl Drop for HandedIn {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let mut waiting = self.ingest.waiting();
        waiting.is_handed_in = false;
        waiting.bytes = 0;
        // Whoever waits is told by the channel that closes.
        for arrived in std::mem::take(&mut waiting.messages) {
            if let Some(carrier) = &arrived.carrier {
                waiting.fences.put(carrier);
            }
        }
    }
}

/// What became of each message of a batch, to be told once it is committed. Dropped untold, because a statement, the commit
/// or the work itself failed, it fences every connection that brought one.
struct Outcome {
    ingest: Ingest,
    carriers: Vec<GatewayConnection>,
    results: Mutex<Option<Vec<MessageResult>>>,
}

/// Whom to tell what.
type MessageResult = (oneshot::Sender<Result<(), ServiceError>>, Result<(), ServiceError>);

impl Outcome {
    fn new(ingest: Ingest, batch: &[Arrived]) -> Self {
        let mut carriers: Vec<GatewayConnection> = Vec::new();
        for carrier in batch.iter().filter_map(|arrived| arrived.carrier.as_ref()) {
            if carriers.last() != Some(carrier) && !carriers.contains(carrier) {
                carriers.push(carrier.clone());
            }
        }
        Self { ingest, carriers, results: Mutex::new(Some(Vec::with_capacity(batch.len()))) }
    }

    fn results(&self) -> MutexGuard<'_, Option<Vec<MessageResult>>> {
        self.results.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn push(&mut self, stored: oneshot::Sender<Result<(), ServiceError>>, result: Result<(), ServiceError>) {
        if let Some(results) = self.results().as_mut() {
            results.push((stored, result));
        }
    }

    fn tell(&self) {
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
            self.carriers.iter().for_each(|carrier| waiting.fences.put(carrier));
        }
    }
}

/// Stores a batch in its order; `outcome` gets what became of each.
fn store(connection: &Connection, batch: Vec<Arrived>, outcome: &mut Outcome) -> Result<(), ServiceError> {
    let ingest = outcome.ingest.clone();
    let mut writing = Writing::new(connection)?;
    let mut proven: HashMap<DeviceId, HashMap<Identity, Option<Generation>>> = HashMap::new();
    for Arrived { message, carrier, left_by, stored, .. } in batch {
        if carrier.as_ref().is_some_and(|carrier| ingest.waiting().fences.holds(carrier)) {
            outcome.push(stored, Err(StoreError::NotCommitted.into()));
            continue;
        }
        let place = message.place.as_ref();
        // A resend stays known when its device was moved in the meantime.
        if let Some(place) = place
            && writing.is_stored(place)?
        {
            outcome.push(stored, Ok(()));
            continue;
        }
        let carried_by = carrier.as_ref().map(|carrier| &carrier.gateway);
        let speaker = carried_by.or(left_by.as_ref()).unwrap_or(&message.from.device);
        let way = if left_by.is_some() { Way::Will } else { Way::Telemetry };
        let is_proven = way == Way::Telemetry
            && proven.get(speaker).and_then(|of| of.get(&message.from)) == Some(&message.generation);
        let result = if is_proven {
            Ok(())
        } else {
            let may = authorize(connection, speaker, &message.from, way, message.generation);
            if may.is_ok() && way == Way::Telemetry {
                proven.entry(speaker.clone()).or_default().insert(message.from.clone(), message.generation);
            }
            may
        };
        let result = match result {
            Ok(()) => match writing.insert(&message)? {
                Stored::New | Stored::Already => Ok(()),
                Stored::TooManyQueues => {
                    Err(ServiceError::Forbidden("the gateway brings more queues than one may have".into()))
                }
            },
            Err(ServiceError::Store(error)) => return Err(error.into()),
            // It may pass: the gateway sends it again, and nothing of its connection may be stored before it.
            Err(error @ (ServiceError::Busy(_) | ServiceError::Stopping(_))) => {
                if let Some(carrier) = &carrier {
                    ingest.waiting().fences.put(carrier);
                }
                Err(error)
            }
            Err(refused) => {
                if let Some(place) = place {
                    writing.refuse(place)?;
                }
                Err(refused)
            }
        };
        outcome.push(stored, result);
    }
    writing.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::telemetry::{self, Place, page};
    use crate::store::{Keep, devices};
    use schemas::bag::PropertyBag;

    fn message(from: &str, sequence: u64) -> NewMessage {
        NewMessage {
            from: from.parse().unwrap(),
            enqueued_ms: sequence,
            received_ms: 0,
            bag: PropertyBag::new(),
            body: sequence.to_string().into_bytes(),
            place: Some(Place { gateway: "gw".parse().unwrap(), queue: "q".into(), sequence }),
            generation: None,
        }
    }

    fn carrier(connection: u64) -> GatewayConnection {
        GatewayConnection { gateway: "gw".parse().unwrap(), connection }
    }

    async fn site(dir: &std::path::Path) -> (Store, Ingest) {
        let store = crate::store::open(dir, Keep { messages: 100_000, commands: 10 }).unwrap();
        let registered = store.submit(|c| {
            for (id, is_gateway) in [("gw", true), ("press-1", false), ("stranger", false)] {
                let new = crate::new_device::new_device(id.parse().unwrap());
                let device = devices::Device { is_gateway, revision: 1, ..new };
                devices::put(c, &device)?;
            }
            c.execute(
                "INSERT INTO relationships (source, id, name, target) VALUES ('gw', 'r', 'r', 'press-1')",
                [],
            )?;
            Ok::<_, StoreError>(())
        });
        registered.await.unwrap();
        (store.clone(), Ingest::new(store))
    }

    #[tokio::test]
    async fn many_at_once_are_stored_in_their_order_each_once_and_a_refused_one_refuses_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ingest) = site(dir.path()).await;
        let gateway = carrier(1);
        let count = BATCH_MAX as u64 * 2 + 7;
        let mut told = Vec::new();
        for sequence in 1..=count {
            let from = if sequence == 5 { "stranger" } else { "press-1" };
            told.push(ingest.put(message(from, sequence), Some(gateway.clone())));
        }
        // Sent again before the first was acknowledged.
        told.push(ingest.put(message("press-1", 3), Some(gateway.clone())));
        for (index, told) in told.into_iter().enumerate() {
            let result = told.await;
            match index {
                4 => assert!(matches!(result, Err(ServiceError::Forbidden(_))), "{result:?}"),
                _ => result.unwrap(),
            }
        }
        let mut stored = Vec::new();
        loop {
            let after = stored.last().map_or(0, |(id, _)| *id);
            let next =
                store.read(move |c| Ok::<_, StoreError>(page(c, &"press-1".parse().unwrap(), after, 1000)?));
            let next = next.await.unwrap();
            if next.is_empty() {
                break;
            }
            stored.extend(next.into_iter().map(|message| (message.id, message.enqueued_ms)));
        }
        let numbers: Vec<u64> = stored.iter().map(|(_, number)| *number).collect();
        let expected: Vec<u64> = (1..=count).filter(|number| *number != 5).collect();
        assert_eq!(numbers, expected);
    }

    #[tokio::test]
    async fn a_closed_store_tells_everybody_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ingest) = site(dir.path()).await;
        store.close().await;
        for _ in 0..2 {
            let told = ingest.put(message("press-1", 1), None).await;
            assert!(matches!(told, Err(ServiceError::Store(StoreError::NotCommitted))), "{told:?}");
        }
    }

    /// Makes the next commit fail: a constraint that is checked then does not hold.
    async fn fail_a_commit(store: &Store) {
        let failed = store.submit(|c| {
            c.execute_batch(
                "CREATE TABLE IF NOT EXISTS parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE IF NOT EXISTS child (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
                 INSERT INTO child VALUES (1);",
            )?;
            Ok::<_, StoreError>(())
        });
        assert!(matches!(failed.await, Err(StoreError::NotCommitted)));
    }

    /// The faults that storing a batch can meet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fault {
        Statement,
        Commit,
        Panic,
        Locked,
    }

    const FAULTS: [Fault; 4] = [Fault::Statement, Fault::Commit, Fault::Panic, Fault::Locked];

    /// Has one fault happen while batches are on their way.
    async fn inject(fault: Fault, store: &Store, dir: &std::path::Path) {
        match fault {
            Fault::Statement => {
                let once = store.submit(|c| {
                    c.execute_batch(
                        "CREATE TRIGGER IF NOT EXISTS refuses BEFORE INSERT ON telemetry
                         BEGIN SELECT RAISE(ABORT, 'injected'); END;",
                    )?;
                    Ok::<_, StoreError>(())
                });
                once.await.unwrap();
                tokio::task::yield_now().await;
                let over = store.submit(|c| Ok::<_, StoreError>(c.execute_batch("DROP TRIGGER refuses")?));
                over.await.unwrap();
            }
            Fault::Commit => fail_a_commit(store).await,
            Fault::Panic => {
                let panicked = store.submit(|_| -> Result<(), StoreError> { panic!("injected") }).await;
                assert!(matches!(panicked, Err(StoreError::NotCommitted)));
            }
            Fault::Locked => {
                let other = Connection::open(dir.join("central.db")).unwrap();
                other.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
                other.execute_batch("BEGIN IMMEDIATE").unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                other.execute_batch("COMMIT").unwrap();
            }
        }
    }

    /// What a gateway would still have after it was told how far central is.
    async fn watermark(store: &Store) -> u64 {
        let far = store.read(|c| Ok::<_, StoreError>(telemetry::stored(c, &"gw".parse().unwrap())?)).await;
        far.unwrap().queues.get("q").copied().unwrap_or(0)
    }

    async fn stored_sequences(store: &Store) -> Vec<u64> {
        let all = store.read(|c| {
            let mut statement = c.prepare("SELECT enqueued_ms FROM telemetry ORDER BY id")?;
            let rows = statement.query_map([], |row| row.get::<_, i64>(0))?;
            Ok::<_, StoreError>(rows.collect::<Result<Vec<_>, _>>()?)
        });
        all.await.unwrap().into_iter().map(i64::cast_unsigned).collect()
    }

    /// A gateway that sends everything, over reconnects, while faults are injected at moments drawn from `seed`.
    async fn nothing_is_lost_with(seed: u64) {
        use rand::rngs::StdRng;
        use rand::{Rng as _, SeedableRng as _};
        const COUNT: u64 = 400;
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let (store, ingest) = site(dir.path()).await;
        let (mut next, mut connection, mut faults) = (1, 1, 0);
        while next <= COUNT {
            let until = (next + random.random_range(1..60)).min(COUNT + 1);
            let mut sent: Vec<_> =
                (next..until).map(|n| ingest.put(message("press-1", n), Some(carrier(connection)))).collect();
            if faults < 12 && random.random_bool(0.7) {
                inject(FAULTS[random.random_range(0..FAULTS.len())], &store, dir.path()).await;
                faults += 1;
                // The gateway has sent more before it hears of the fault.
                let more = (until + random.random_range(0..40)).min(COUNT + 1);
                sent.extend(
                    (until..more).map(|n| ingest.put(message("press-1", n), Some(carrier(connection)))),
                );
            }
            let mut is_failed = false;
            for stored in sent {
                match stored.await {
                    Ok(()) => assert!(!is_failed, "seed {seed}: stored behind a message that was not"),
                    Err(_) => is_failed = true,
                }
            }
            connection += u64::from(is_failed);
            // Everything up to the watermark is deleted at the gateway; it must be here, once, in order.
            let far = watermark(&store).await;
            let stored = stored_sequences(&store).await;
            assert_eq!(stored, (1..=far).collect::<Vec<_>>(), "seed {seed}");
            next = far + 1;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_watermark_has_no_holes_whatever_fails_at_whichever_moment() {
        for seed in 0..25 {
            nothing_is_lost_with(seed).await;
        }
    }

    #[tokio::test]
    async fn after_a_failed_commit_nothing_of_the_connection_is_stored_until_the_gateway_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ingest) = site(dir.path()).await;
        ingest.put(message("press-1", 1), Some(carrier(1))).await.unwrap();
        // In one group with what makes its commit fail.
        let first = ingest.put(message("press-1", 2), Some(carrier(1)));
        fail_a_commit(&store).await;
        let first = first.await;
        let later = ingest.put(message("press-1", 3), Some(carrier(1))).await;
        match first {
            Ok(()) => later.unwrap(),
            Err(_) => {
                assert!(matches!(later, Err(ServiceError::Store(StoreError::NotCommitted))), "{later:?}")
            }
        }
        let far = watermark(&store).await;
        assert_eq!(stored_sequences(&store).await, (1..=far).collect::<Vec<_>>());
        for sequence in far + 1..=4 {
            ingest.put(message("press-1", sequence), Some(carrier(2))).await.unwrap();
        }
        assert_eq!(stored_sequences(&store).await, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn another_program_that_holds_the_store_for_seconds_stops_nothing_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let (store, ingest) = site(dir.path()).await;
        let other = Connection::open(dir.path().join("central.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let stored = ingest.put(message("press-1", 1), Some(carrier(1)));
        // Longer than SQLite's own wait of 5 s.
        let release = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_secs(8));
            other.execute_batch("COMMIT").unwrap();
        });
        stored.await.unwrap();
        release.await.unwrap();
        ingest.put(message("press-1", 2), Some(carrier(1))).await.unwrap();
        assert_eq!(watermark(&store).await, 2);
    }
}
