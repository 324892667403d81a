//! The telemetry of one connection: what is in flight, and which queue it came from.
//!
//! It goes out from each queue's cursor; a message leaves the disk when central has acknowledged it. On a new connection
//! central says first how far it has each queue: what it had taken when the last one was lost is done with, and is neither
//! sent again nor counted as expired.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use edge_core::link::pace::Pace;
use edge_core::link::window::Windows;
use edge_hub::client::Sender;
use schemas::bag::system;
use tokio::time::Instant;

use crate::queues::place::Queue;
use crate::record;

/// The telemetry in flight.
pub(super) struct Telemetry {
    /// What the window's times are counted from.
    began: Instant,
    window: Windows,
    /// The queues with something in the window.
    queues: HashMap<u64, Arc<Queue>>,
    /// central has said how far it has them.
    is_resumed: bool,
    /// The last topic; its memory is used again.
    topic: String,
    /// The keys of what makes a message known again, as they stand in a topic.
    keys: [String; 3],
}

impl Telemetry {
    /// Of a new connection: nothing is in flight.
    pub(super) fn new() -> Self {
        let key = |name: &str| name.replace('$', "%24");
        Self {
            began: Instant::now(),
            window: Windows::default(),
            queues: HashMap::new(),
            topic: String::new(),
            is_resumed: false,
            keys: [
                key(system::LINESIDE_QUEUE),
                key(system::LINESIDE_SEQUENCE),
                key(system::LINESIDE_ENQUEUED_MS),
            ],
        }
    }

    /// How many messages may be sent now.
    pub(super) fn free(&self) -> usize {
        if self.is_resumed { self.window.free() } else { 0 }
    }

    /// central has said how far it has the queues.
    pub(super) fn resume(&mut self) {
        self.is_resumed = true;
    }

    /// Writes one queued message, with what makes it known again at central.
    pub(super) fn send(&mut self, sender: &mut Sender, queue: &Arc<Queue>, queued: edge_buffer::Record) {
        let sequence = queued.sequence;
        let Some((topic, body)) = record::decode(&queued.payload) else {
            // Nothing else will ever read it either.
            tracing::error!(sequence, "a queued message could not be read and was skipped");
            queue.log.pass_damaged(sequence);
            return;
        };
        let joint = if topic.ends_with('/') { "" } else { "&" };
        let [of_queue, of_sequence, of_ms] = &self.keys;
        self.topic.clear();
        // Writing to a String does not fail.
        let _ = write!(
            self.topic,
            "{topic}{joint}{of_queue}={}&{of_sequence}={sequence}&{of_ms}={}",
            queue.log.id(),
            queued.enqueued_ms,
        );
        let packet_id = sender.publish(&self.topic, &body);
        self.window.sent(packet_id, queue.key, sequence, self.began.elapsed());
        self.queues.entry(queue.key).or_insert_with(|| queue.clone());
    }

    /// Notes an acknowledgement; the queue forgets what is done. Of an unknown packet id it changes nothing.
    pub(super) fn acknowledged(&mut self, packet_id: u16) {
        if let Some((key, sequence)) = self.window.acknowledged(packet_id, self.began.elapsed())
            && let Some(queue) = self.queues.get(&key)
        {
            queue.log.advance(sequence);
        }
    }

    /// What is known of the line.
    pub(super) fn pace(&self) -> &Pace {
        self.window.pace()
    }
}
