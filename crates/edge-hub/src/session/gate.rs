//! Packets that wait for the disk before they are written to the client.

use bytes::BytesMut;
use edge_buffer::AppendError;

use crate::journal::Stored;

/// Packets that may be written when their packet ids are on disk: a QoS 2 message that was sent under one id and comes
/// again under another would be taken twice.
pub(super) struct Gate {
    pub(super) stored: Stored,
    pub(super) packets: BytesMut,
}

/// Ends when what is behind the gate may be written.
pub(super) async fn opened(gate: &mut Option<Box<Gate>>) -> Result<(), AppendError> {
    match gate {
        Some(gate) => (&mut gate.stored).await,
        None => std::future::pending().await,
    }
}
