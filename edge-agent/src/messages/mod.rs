//! Messages of leaf devices and modules on this gateway: the routes that they take, the queues on disk that they wait in, the
//! quarantine for those that upstream rejects, and the twins.

pub mod quarantine;
pub mod queues;
pub mod received;
pub mod record;
pub mod routing;
pub mod twins;
pub mod unrouted;
