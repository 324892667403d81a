//! Why the gateway itself ends a connection to central.

/// What the daemon could not do. Each of them leads to the next attempt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the queue cannot be read")]
    Queue(#[from] edge_buffer::ReadError),
    #[error("a message could not be set aside")]
    Quarantine(#[from] crate::messages::quarantine::QuarantineError),
    #[error("saving an update of central failed")]
    State(#[from] crate::state::StateError),
    #[error("central's list of devices")]
    Devices(#[from] edge_core::link::snapshot::OutOfOrder),
    #[error("what an identity left could not be removed")]
    Removal(#[from] crate::access::identity_state::RemovalError),
    #[error("a task of the daemon ended")]
    Task(#[from] tokio::task::JoinError),
}
