//! An entry of the quarantine as stored on disk: version 1, the length of its head (u32, little endian), the head as
//! JSON, the record of the queue.

use bytes::{BufMut as _, Bytes, BytesMut};
use edge_buffer::{Epoch, Record};
use schemas::generation::Generation;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::messages::queues::name::QueueName;
use crate::messages::record;

const VERSION: u8 = 1;
const START_BYTES: usize = 5;
/// A longer text of a server is cut.
const WHY_BYTES_MAX: usize = 1024;

/// Why upstream did not take a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// MQTT 5's reason code, where upstream gave one.
    pub code: Option<u8>,
    pub why: String,
}

/// A message in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub number: u64,
    /// The id of the queue that it stood in.
    pub queue: Uuid,
    pub sequence: u64,
    /// The epoch of that sequence.
    pub epoch: Epoch,
    pub priority: u32,
    /// When the gateway accepted it, ms of Unix time.
    pub enqueued_ms: u64,
    /// When upstream refused it, ms of Unix time.
    pub refused_ms: u64,
    pub reason: Reason,
    /// The record of its queue.
    pub message: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    queue: String,
    sequence: u64,
    /// None in an entry of a version without epochs.
    #[serde(default)]
    epoch: u64,
    priority: u32,
    enqueued_ms: u64,
    refused_ms: u64,
    #[serde(flatten)]
    reason: Reason,
}

impl Entry {
    /// Its bytes.
    pub(super) fn write(&self) -> Bytes {
        let Reason { code, why } = &self.reason;
        let end =
            (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|end| why.is_char_boundary(*end)).unwrap_or(0);
        let head = Head {
            queue: self.queue.to_string(),
            sequence: self.sequence,
            epoch: self.epoch.number(),
            priority: self.priority,
            enqueued_ms: self.enqueued_ms,
            refused_ms: self.refused_ms,
            reason: Reason { code: *code, why: why[..end].to_owned() },
        };
        let head = serde_json::to_vec(&head).expect("a head has text keys only");
        let mut bytes = BytesMut::with_capacity(START_BYTES + head.len() + self.message.len());
        bytes.put_u8(VERSION);
        bytes.put_u32_le(u32::try_from(head.len()).expect("a head is short"));
        bytes.put_slice(&head);
        bytes.put_slice(&self.message);
        bytes.freeze()
    }

    /// Reads one; `None`, and a line in the log, when it cannot be read.
    pub(super) fn read(stored: &Record) -> Option<Self> {
        let read = || {
            let (head, message) = split(&stored.payload)?;
            let head: Head = serde_json::from_slice(head).ok()?;
            Some(Self {
                number: stored.sequence,
                queue: head.queue.parse().ok()?,
                sequence: head.sequence,
                epoch: Epoch::from_number(head.epoch),
                priority: head.priority,
                enqueued_ms: head.enqueued_ms,
                refused_ms: head.refused_ms,
                reason: head.reason,
                message: stored.payload.slice(stored.payload.len() - message.len()..),
            })
        };
        let entry = read();
        if entry.is_none() {
            tracing::error!(number = stored.sequence, "a message in quarantine could not be read");
        }
        entry
    }

    /// The queue that it stood in, with the epoch of its sequence there.
    pub(super) fn queue_name(&self) -> QueueName {
        QueueName { id: self.queue, epoch: self.epoch }
    }

    /// Topic and body, when its record can be read.
    pub fn decoded(&self) -> Option<(&str, Bytes)> {
        record::decode(&self.message)
    }

    pub fn sender(&self) -> Option<String> {
        record::sender(&self.message)
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[version, a, b, c, d], rest) = bytes.split_first_chunk::<START_BYTES>()?;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
    (version == VERSION).then(|| rest.split_at_checked(length))?
}

/// Whose message it is: losses of the quarantine are counted by it. Its generation precedes a space, where it is known: the end of a
/// long tag is cut.
pub(super) fn tag(bytes: &[u8]) -> Option<String> {
    let message = split(bytes)?.1;
    let sender = record::sender(message)?;
    Some(match record::generation(message) {
        Some(generation) => format!("{generation} {sender}"),
        None => sender,
    })
}

/// The two parts of a [`tag`]. No identity has a space.
pub fn sender_of_tag(tag: &str) -> (Option<Generation>, &str) {
    match tag.split_once(' ') {
        Some((generation, sender)) => (generation.parse().ok(), sender),
        None => (None, tag),
    }
}
