//! Why a connection to central ended.

use std::time::Duration;

use edge_hub::tasks::Panicked;
use mqtt::client;

/// Why a connection ended. Each of them leads to the next attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("could not connect")]
    Connect(#[from] client::ConnectError),
    #[error("connection lost")]
    Receive(#[from] client::ReceiveError),
    #[error("connection lost while writing")]
    Write(#[from] std::io::Error),
    #[error("central said nothing for {0:?}")]
    Silent(Duration),
    #[error("the queue cannot be read")]
    Queue(#[from] edge_buffer::ReadError),
    #[error("a message could not be set aside")]
    Quarantine(#[from] crate::messages::quarantine::QuarantineError),
    #[error("what central told could not be saved")]
    State(#[from] crate::state::StateError),
    #[error("central's list of devices")]
    Devices(#[from] edge_core::link::snapshot::OutOfOrder),
    #[error("what an identity left could not be removed")]
    Removal(#[from] crate::access::identity_state::RemovalError),
    #[error("a task of the daemon ended")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}
