//! Who may connect to central, and who may speak for whom.

pub mod admission;
pub mod authenticator;
pub mod authorize;
pub(crate) mod device_attestation;
