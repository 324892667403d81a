//! Who a client is and what it may do. Each file is one decision; whoever asks brings the registry and the time.

pub mod claim;
pub mod error;
pub mod proof;
pub mod sas;
pub mod secret;
