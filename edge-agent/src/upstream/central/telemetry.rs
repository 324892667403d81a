//! The telemetry of one connection: what is in flight, and which queue it came from.
//!
//! It goes out from each queue's cursor; a message leaves the disk when central has acknowledged it. On a new connection
//! central says first how far it has each queue: what it had taken when the last one was lost is done with, and is neither
//! sent again nor counted as expired.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use edge_core::link::pace::Pace;
use edge_core::link::window::Windows;
use mqtt::client::{Outgoing, Sender};
use schemas::bag::system;
use schemas::generation::Generation;
use tokio::time::Instant;

use super::updates_out::PACKET_BYTES;
use crate::clock::corrected_ms;
use crate::messages::quarantine::Reason;
use crate::messages::queues::destination::Queue;
use crate::messages::queues::name::QueueName;
use crate::messages::record;

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
    keys: [String; 4],
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
                key(system::LINESIDE_GENERATION),
            ],
        }
    }

    /// How many messages may be sent now.
    pub(super) fn free(&self) -> usize {
        // Not before central has said what it has: messages that arrived before the last connection ended would be sent twice.
        if self.is_resumed { self.window.free() } else { 0 }
    }

    /// central has said how far it has the queues.
    pub(super) fn resume(&mut self) {
        self.is_resumed = true;
    }

    /// Writes one queued message, with what makes it known again at central, when its bytes may be spent; false when they may
    /// not now.
    ///
    /// # Errors
    /// Why it can never be sent.
    pub(super) fn send(
        &mut self,
        sender: &mut Sender,
        queue: &Arc<Queue>,
        queued: &edge_buffer::Record,
        generation: Option<Generation>,
        may_spend: impl FnOnce(u64) -> bool,
    ) -> Result<bool, Reason> {
        let sequence = queued.sequence;
        self.queues.entry(queue.key).or_insert_with(|| queue.clone());
        let Some((topic, body)) = record::decode(&queued.payload) else {
            // Nothing else will ever read it either.
            tracing::error!(sequence, "a queued message could not be read and was skipped");
            queue.log.pass_damaged(sequence);
            return Ok(true);
        };
        let joint = if topic.ends_with('/') { "" } else { "&" };
        let [of_queue, of_sequence, of_ms, of_generation] = &self.keys;
        self.topic.clear();
        // Writing to a String does not fail.
        let _ = write!(
            self.topic,
            "{topic}{joint}{of_queue}={}&{of_sequence}={sequence}",
            QueueName { id: queue.log.id(), epoch: queued.epoch },
        );
        // Without a time, central has that of its arrival.
        if let Some(enqueued_ms) = corrected_ms(queued.enqueued_ms) {
            let _ = write!(self.topic, "&{of_ms}={enqueued_ms}");
        }
        // One that was put back from the quarantine has its own: its place in the queue says nothing of it.
        if let Some(generation) = generation.filter(|_| record::generation(&queued.payload).is_none()) {
            let _ = write!(self.topic, "&{of_generation}={generation}");
        }
        let message = Outgoing { topic: &self.topic, payload: &body, ..Outgoing::default() };
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(Reason::because(format!(
                "its topic would be {} bytes; 65,535 are allowed",
                self.topic.len()
            )));
        }
        // Checked before sending: central closes the connection for a larger packet, and would do so for ever.
        if let Some(bytes) = sender.too_large(&message) {
            return Err(Reason::because(format!(
                "its packet would be {bytes} bytes, which central does not take"
            )));
        }
        // Last, since bytes that were spent are not given back.
        if !may_spend((self.topic.len() + body.len() + PACKET_BYTES) as u64) {
            return Ok(false);
        }
        let packet_id = sender.send(&message);
        self.window.sent(packet_id, queue.key, sequence, self.began.elapsed());
        Ok(true)
    }

    /// The queued message that was sent under a packet id.
    pub(super) fn find(&self, packet_id: u16) -> Option<(Arc<Queue>, u64)> {
        let (key, sequence) = self.window.find(packet_id)?;
        Some((self.queues.get(&key)?.clone(), sequence))
    }

    /// Notes that a message is done with that was not sent; the queue forgets what is done.
    pub(super) fn passed(&mut self, queue: &Queue, sequence: u64) {
        if let Some(sequence) = self.window.passed(queue.key, sequence) {
            queue.log.advance(sequence);
        }
    }

    /// Notes that central has a message; the queue forgets what is done. Gives how long ago it was sent. Of an unknown packet id
    /// it changes nothing.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> Option<Duration> {
        let now = self.began.elapsed();
        let (key, sequence, age) = self.window.find_with_age(packet_id, now)?;
        let done = self.window.acknowledged(packet_id, now).map(|(_, done)| done);
        if let Some(queue) = self.queues.get(&key) {
            // Acknowledgements come in any order; the cursor moves over those that have none before them open.
            queue.log.confirm(sequence, done);
        }
        Some(age)
    }

    /// Notes that a message was set aside, since central refused it; the queue forgets what is done.
    pub(super) fn set_aside(&mut self, packet_id: u16) {
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
