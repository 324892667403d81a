//! A message on its way from a publisher to those who receive it, shared by all of them and never changed.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use mqtt::codec::packet::PublishProperties;

/// A session that never ends by itself.
pub(crate) const FOR_EVER: u32 = u32::MAX;

/// The longest telemetry topic. Forwarding adds to the bag and encodes it anew, at worst threefold, and the topic that
/// comes of it must still fit in MQTT's 65,535 bytes.
pub(crate) const TELEMETRY_TOPIC_BYTES_MAX: usize = 16 * 1024;

/// What a message and its places in queues hold in memory beside its bytes.
const OVERHEAD_BYTES: usize = 160;

/// A message as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// UTF-8.
    pub topic: Bytes,
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    /// The session that published it; 0 for none.
    pub publisher: u64,
    /// From when on nobody wants it, ms of Unix time.
    pub expires_ms: Option<u64>,
    /// Of MQTT 5, when there are any that are passed on. Alias and expiry are not among them.
    pub properties: Option<Box<PublishProperties>>,
}

impl Message {
    /// One that nobody sees: what was in it is not needed any more.
    pub(crate) fn empty() -> Self {
        Self {
            topic: Bytes::new(),
            payload: Bytes::new(),
            qos: 2,
            retain: false,
            publisher: 0,
            expires_ms: None,
            properties: None,
        }
    }

    /// The topic as text.
    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("a message is only made of a topic that was checked")
    }

    /// What it holds in memory, about.
    pub(crate) fn size(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |p| properties_size(p));
        OVERHEAD_BYTES + self.topic.len() + self.payload.len() + properties
    }

    /// A copy that does not keep the packet in memory in which it came.
    pub(crate) fn detached(&self) -> Self {
        Self {
            topic: Bytes::copy_from_slice(&self.topic),
            payload: Bytes::copy_from_slice(&self.payload),
            properties: self.properties.as_ref().map(|p| Box::new(p.detached())),
            ..*self
        }
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }

    /// What is left of its expiry interval, in seconds; at least 1 while it is not expired.
    pub(crate) fn expiry_left(&self, now_ms: u64) -> Option<u32> {
        let left = self.expires_ms?.saturating_sub(now_ms).div_ceil(1_000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

fn properties_size(properties: &PublishProperties) -> usize {
    let text = |text: &Option<mqtt::codec::text::Text>| text.as_ref().map_or(0, |t| t.bytes().len());
    size_of::<PublishProperties>()
        + text(&properties.response_topic)
        + text(&properties.content_type)
        + properties.correlation_data.as_ref().map_or(0, Bytes::len)
        + properties.user_properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum::<usize>()
}

/// Who else may have a copy that its receiver leaves behind: the other members of a shared subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub group: Box<str>,
    pub filter: Box<str>,
}

/// A message in the queue of one session.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub message: Arc<Message>,
    pub qos: u8,
    /// The flag that the receiver sees.
    pub retain: bool,
    /// The receiver may have seen it before.
    pub is_again: bool,
    /// It goes to a reserved topic: its queue is its sender's, and it ends with the connection.
    pub is_reserved: bool,
    /// A retained message that a new subscription is given.
    pub is_replayed: bool,
    /// Its name in the journal; 0 when it is not in there.
    pub key: u64,
    pub ids: Option<Arc<[u32]>>,
    pub share: Option<Arc<Share>>,
    /// Gets a value when the client acknowledged (QoS 0: when it was written); dropped when that will never be.
    pub done: Option<oneshot::Sender<()>>,
}

impl Delivery {
    pub(crate) fn new(message: Arc<Message>, qos: u8) -> Self {
        Self {
            message,
            qos,
            retain: false,
            is_again: false,
            is_reserved: false,
            is_replayed: false,
            key: 0,
            ids: None,
            share: None,
            done: None,
        }
    }
}
