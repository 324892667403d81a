//! What waits to be written to one client: a bounded queue that many fill and the client's session empties.
//!
//! ```text
//! messages:  0 ............ soft bound ............ hard bound
//!            everybody may   QoS 0 is dropped,       a QoS 1 publisher
//!            add             deliveries are Busy,    is closed
//!                            a QoS 1 publisher's
//!                            PUBACK waits for room
//! ```

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::delivery::NotDelivered;

/// Messages that wait for one client before senders are held back.
const MESSAGES_SOFT: usize = 1_000;
/// Bytes that wait for one client before senders are held back.
const BYTES_SOFT: usize = 1024 * 1024;
/// How far QoS 1 publishers, each of which waits for room, may go over the soft bounds together.
const HARD_TIMES: usize = 8;

/// A PUBLISH to a client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// UTF-8, shared between the subscribers of a message.
    pub topic: Bytes,
    pub payload: Bytes,
    /// 0 or 1, as granted.
    pub qos: u8,
    /// Told when the client acknowledged (QoS 0: when it was written); dropped when that will never be.
    pub done: Option<oneshot::Sender<()>>,
}

impl Outgoing {
    fn size(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// How far a sender may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Nothing is added to a full queue.
    Soft,
    /// May be added to a full queue, by a sender that then waits for [`Outbox::room`].
    Hard,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    /// Something was added.
    pub arrived: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    fn is_full(&self, times: usize) -> bool {
        self.messages.len() >= MESSAGES_SOFT * times || self.bytes >= BYTES_SOFT * times
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message at the end; gives whether the queue is now full.
    pub(crate) fn push(&self, message: Outgoing, bound: Bound) -> Result<bool, NotDelivered> {
        let mut queue = self.lock();
        if queue.is_closed {
            return Err(NotDelivered::NotConnected);
        }
        if queue.is_full(if bound == Bound::Soft { 1 } else { HARD_TIMES }) {
            return Err(NotDelivered::Busy);
        }
        queue.bytes += message.size();
        queue.messages.push_back(message);
        let is_full = queue.is_full(1);
        drop(queue);
        self.arrived.notify_one();
        Ok(is_full)
    }

    /// Takes the first message.
    pub(crate) fn pop(&self) -> Option<Outgoing> {
        let mut queue = self.lock();
        let was_full = queue.is_full(1);
        let message = queue.messages.pop_front()?;
        queue.bytes -= message.size();
        if queue.messages.is_empty() {
            // An idle client keeps no memory of a busy hour.
            queue.messages.shrink_to(32);
        }
        if was_full && !queue.is_full(1) {
            self.room.notify_waiters();
        }
        Some(message)
    }

    /// Ends when the queue is not full, or closed.
    pub(crate) async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            let has_room = {
                let queue = self.lock();
                queue.is_closed || !queue.is_full(1)
            };
            if has_room {
                return;
            }
            room.await;
        }
    }

    /// Gives up what waits and lets nothing more in.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        queue.bytes = 0;
        let messages = std::mem::take(&mut queue.messages);
        drop(queue);
        drop(messages);
        self.room.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn message() -> Outgoing {
        Outgoing { topic: Bytes::from_static(b"t"), payload: Bytes::new(), qos: 1, done: None }
    }

    #[test]
    fn a_full_queue_holds_publishers_back_and_lets_them_go_on_when_it_drains() {
        let outbox = Outbox::default();
        for _ in 0..MESSAGES_SOFT - 1 {
            assert_eq!(outbox.push(message(), Bound::Soft), Ok(false));
        }
        assert_eq!(outbox.push(message(), Bound::Soft), Ok(true));
        assert_eq!(outbox.push(message(), Bound::Soft), Err(NotDelivered::Busy));
        assert_eq!(outbox.push(message(), Bound::Hard), Ok(true));
        let mut room = std::pin::pin!(outbox.room());
        assert!(room.as_mut().now_or_never().is_none());
        outbox.pop().unwrap();
        assert!(room.as_mut().now_or_never().is_none());
        outbox.pop().unwrap();
        assert!(room.as_mut().now_or_never().is_some());
    }

    #[test]
    fn the_hard_bound_holds_for_everybody() {
        let outbox = Outbox::default();
        let taken = (0..).take_while(|_| outbox.push(message(), Bound::Hard).is_ok()).count();
        assert_eq!(taken, MESSAGES_SOFT * HARD_TIMES);
    }

    #[test]
    fn closing_gives_up_what_waits() {
        let outbox = Outbox::default();
        let (done, mut told) = oneshot::channel();
        outbox.push(Outgoing { done: Some(done), ..message() }, Bound::Soft).unwrap();
        outbox.close();
        assert!(told.try_recv().is_err());
        assert_eq!(outbox.push(message(), Bound::Hard), Err(NotDelivered::NotConnected));
        assert!(outbox.room().now_or_never().is_some());
    }
}
