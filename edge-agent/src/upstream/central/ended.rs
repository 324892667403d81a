//! Why a connection to central ended.

use std::time::Duration;

use edge_hub::tasks::Panicked;
use mqtt::client;

/// Why a connection ended. Each of them leads to the next attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("could not connect: {0}")]
    Connect(#[from] client::ConnectError),
    #[error("connection lost: {0}")]
    Receive(#[from] client::ReceiveError),
    #[error("connection lost while writing: {0}")]
    Write(#[from] std::io::Error),
    #[error("central said nothing for {0:?}")]
    Silent(Duration),
    #[error("the queue cannot be read: {0}")]
    Queue(#[from] edge_buffer::ReadError),
    #[error("a message could not be set aside: {0}")]
    Quarantine(#[from] crate::messages::quarantine::QuarantineError),
    #[error("what central told could not be saved: {0}")]
    State(#[from] crate::state::StateError),
    #[error("central's list of devices: {0}")]
    Devices(#[from] edge_core::link::snapshot::OutOfOrder),
    #[error("what an identity left could not be removed: {0}")]
    Removal(#[from] crate::access::identity_state::RemovalError),
    #[error("a task of the daemon ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}
