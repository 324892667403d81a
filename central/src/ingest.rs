//! Telemetry on its way to the disk: what arrives while the writer is busy is stored by it as one work.
//!
//! # Guarantees
//! - A message's place is fixed when [`Ingest::put`] returns; messages are stored in that order.
//! - Its future ends after the commit that holds it.
//! - One message that is refused refuses no other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};
use tokio::sync::oneshot;

use crate::fleet::{FleetError, speak_for};
use crate::store::telemetry::{self, NewMessage, Stored, Writing};
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
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Arrived>,
    bytes: usize,
    /// A work that will take them is on its way to the writer.
    is_handed_in: bool,
}

struct Arrived {
    message: NewMessage,
    /// The gateway that brings it; none when the device is connected to central itself.
    carrier: Option<DeviceId>,
    stored: oneshot::Sender<Result<(), FleetError>>,
}

/// Who is to be told what, once the commit is done.
type Results = Mutex<Vec<(oneshot::Sender<Result<(), FleetError>>, Result<(), FleetError>)>>;

impl Ingest {
    /// Of a store.
    pub fn new(store: Store) -> Self {
        Self { store, waiting: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Stores a message once. `carrier` is the gateway that brings it.
    ///
    /// # Errors
    /// The future gives [`FleetError::Forbidden`] when the gateway may not bring it, or [`FleetError::Store`].
    pub fn put(
        &self,
        message: NewMessage,
        carrier: Option<DeviceId>,
    ) -> BoxFuture<'static, Result<(), FleetError>> {
        let (stored, told) = oneshot::channel();
        let bytes = message.body.len() + OVERHEAD_BYTES;
        let mut waiting = self.waiting();
        if waiting.messages.len() >= WAITING_MAX || waiting.bytes + bytes > WAITING_BYTES_MAX {
            return std::future::ready(Err(StoreError::Busy.into())).boxed();
        }
        waiting.bytes += bytes;
        waiting.messages.push_back(Arrived { message, carrier, stored });
        if !waiting.is_handed_in {
            self.hand_in(&mut waiting);
        }
        drop(waiting);
        async move { told.await.unwrap_or_else(|_| Err(StoreError::NotCommitted.into())) }.boxed()
    }

    fn hand_in(&self, waiting: &mut Waiting) {
        let ingest = self.clone();
        let handed_in = self.store.submit_then(
            1,
            move |connection| {
                let batch = ingest.take();
                let stored = store(connection, batch);
                stored.inspect_err(|error| tracing::error!(%error, "telemetry was not stored"))
            },
            |results: &Results| {
                let results = std::mem::take(&mut *results.lock().unwrap_or_else(|p| p.into_inner()));
                for (stored, result) in results {
                    // The session may have ended.
                    let _ = stored.send(result);
                }
            },
        );
        // Nobody waits for the work itself; that it was not taken is known at once.
        waiting.is_handed_in = !matches!(handed_in.now_or_never(), Some(Err(_)));
        if !waiting.is_handed_in {
            // Whoever waits is told by what he waits on.
            *waiting = Waiting::default();
        }
    }

    fn take(&self) -> Vec<Arrived> {
        let mut waiting = self.waiting();
        let count = waiting.messages.len().min(BATCH_MAX);
        let batch: Vec<Arrived> = waiting.messages.drain(..count).collect();
        waiting.bytes -=
            batch.iter().map(|arrived| arrived.message.body.len() + OVERHEAD_BYTES).sum::<usize>();
        waiting.is_handed_in = false;
        if !waiting.messages.is_empty() {
            self.hand_in(&mut waiting);
        }
        batch
    }
}

/// Stores a batch in its order; gives what became of each.
fn store(connection: &Connection, batch: Vec<Arrived>) -> Result<Results, FleetError> {
    let mut writing = Writing::new(connection)?;
    let mut proven: HashMap<DeviceId, HashSet<Identity>> = HashMap::new();
    let mut results = Vec::with_capacity(batch.len());
    for Arrived { message, carrier, stored } in batch {
        let place = message.place.as_ref();
        // A resend stays known when its device was moved in the meantime.
        if let Some(place) = place
            && writing.is_stored(place)?
        {
            results.push((stored, Ok(())));
            continue;
        }
        let result = match carrier {
            Some(gateway) if !proven.get(&gateway).is_some_and(|of| of.contains(&message.from)) => {
                let may = speak_for(connection, &gateway, &message.from);
                if may.is_ok() {
                    proven.entry(gateway).or_default().insert(message.from.clone());
                }
                may
            }
            _ => Ok(()),
        };
        if let (Err(refused), Some(place)) = (&result, place)
            && !matches!(refused, FleetError::Busy(_) | FleetError::Stopping(_) | FleetError::Store(_))
        {
            telemetry::refuse(connection, place)?;
        }
        let result = match result {
            Ok(()) => match writing.insert(&message)? {
                Stored::New | Stored::Already => Ok(()),
                Stored::TooManyQueues => {
                    Err(FleetError::Forbidden("the gateway brings more queues than one may have".into()))
                }
            },
            Err(FleetError::Store(error)) => return Err(error.into()),
            Err(error) => Err(error),
        };
        results.push((stored, result));
    }
    writing.finish()?;
    Ok(Mutex::new(results))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::telemetry::{Place, page};
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
        }
    }

    async fn site(dir: &std::path::Path) -> (Store, Ingest) {
        let store = Store::open(dir, Keep { messages: 100_000, commands: 10 }).unwrap();
        let registered = store.submit(|c| {
            for (id, is_gateway) in [("gw", true), ("press-1", false), ("stranger", false)] {
                let new = crate::fleet::new_device(id.parse().unwrap());
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
        let gateway: DeviceId = "gw".parse().unwrap();
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
                4 => assert!(matches!(result, Err(FleetError::Forbidden(_))), "{result:?}"),
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
            assert!(matches!(told, Err(FleetError::Store(StoreError::NotCommitted))), "{told:?}");
        }
    }
}
