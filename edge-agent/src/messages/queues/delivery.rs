//! Delivers what waits for a module, while the module is there: several messages at a time, each queue in its order.
//!
//! A message leaves its queue when it and all before it in that queue are acknowledged; what is not when the module goes is
//! delivered again, from the first such message on. A module that never answers holds a window of messages in memory, and its
//! queue on disk; nobody else waits for it.

use edge_core::error_chain::chain;
use std::sync::Arc;
use std::time::Duration;

use edge_hub::clients::Clients;
use edge_hub::delivery::NotDelivered;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use schemas::names::Identity;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::destination::{DestinationReader, Queue};
use crate::messages::record;

/// Messages on their way to one module at a time.
const WINDOW: usize = 64;
/// Their bytes: half of what a session takes in before it says that it is full. One message may be larger.
const WINDOW_BYTES: usize = 512 << 10;
/// When a module is there but slow, how long until it is tried again.
const SLOW_MODULE: Duration = Duration::from_secs(1);

/// A message on its way: its queue, its sequence there, its bytes, and how it went.
type Sent = (Arc<Queue>, u64, usize, Result<(), NotDelivered>);

/// The task that delivers the inputs of one module.
pub(super) struct Delivery {
    pub(super) to: Identity,
    pub(super) reader: DestinationReader,
    pub(super) clients: Clients,
    pub(super) wake: Arc<Notify>,
    pub(super) stop: CancellationToken,
}

impl Delivery {
    /// Delivers each queue in order, forgets what the module acknowledged, and starts over from there when the module was away.
    pub(super) async fn run(mut self) {
        let mut in_flight: FuturesOrdered<BoxFuture<'static, Sent>> = FuturesOrdered::new();
        let mut in_flight_bytes = 0;
        loop {
            tokio::select! {
                // Acknowledgements before new messages: they free the window.
                biased;
                () = self.stop.cancelled() => return,
                Some((queue, sequence, bytes, delivered)) = in_flight.next(), if !in_flight.is_empty() => match delivered {
                    Ok(()) => {
                        in_flight_bytes -= bytes;
                        queue.log.advance(sequence);
                    }
                    Err(why) => {
                        (in_flight, in_flight_bytes) = (FuturesOrdered::new(), 0);
                        // At once, not when the module is back: what is on its way to nobody may expire.
                        self.reader.rewind();
                        if !self.module_is_back(why).await {
                            return;
                        }
                    }
                },
                next = self.reader.next(), if in_flight.len() < WINDOW && in_flight_bytes < WINDOW_BYTES => match next {
                    Ok((queue, next)) => {
                        let delivery = match record::decode(&next.payload) {
                            Some((topic, body)) => self.clients.deliver(&self.to, topic.to_owned(), body),
                            None => {
                                tracing::error!(module = %self.to, sequence = next.sequence, "a queued message could not be read and was skipped");
                                // Nothing will ever read it. It is counted as lost, so that it does not block the queue.
                                queue.log.pass_damaged(next.sequence);
                                continue;
                            }
                        };
                        let bytes = next.payload.len();
                        in_flight_bytes += bytes;
                        // In order, as FuturesOrdered ends them: the cursor never passes a message that is not acknowledged.
                        in_flight.push_back(Box::pin(async move { (queue, next.sequence, bytes, delivery.await) }));
                    }
                    Err(error) => {
                        tracing::error!(module = %self.to, error = %chain(&error), "the module's queue cannot be read; deliveries ended");
                        return;
                    }
                },
            }
        }
    }

    async fn module_is_back(&self, why: NotDelivered) -> bool {
        let is_slow = matches!(why, NotDelivered::Busy);
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.wake.notified() => true,
            // A queue of the session that was full says nothing when it has space again.
            () = tokio::time::sleep(SLOW_MODULE), if is_slow => true,
        }
    }
}
