//! How a message to a client can fail.

/// Why a message did not reach a client. The sender still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDelivered {
    /// Nobody is connected under that identity.
    #[error("not connected")]
    NotConnected,
    /// Connected, but without a subscription that covers the topic.
    #[error("not subscribed")]
    NotSubscribed,
    /// Its outgoing queue is full: it reads or acknowledges too slowly.
    #[error("the client's outgoing queue is full")]
    Busy,
    /// The connection ended before the acknowledgement. The client may or may not have the message.
    #[error("the connection ended before the message was acknowledged")]
    Gone,
}
