//! Who a client is and what it may do. Each file is one decision; whoever asks brings the registry and the time.

pub mod attestation;
pub mod authorization;
pub mod claim;
pub mod enrolment;
pub mod error;
pub mod p521;
pub mod password;
pub mod proof;
pub mod rate;
pub mod sas;
pub mod secret;
pub mod throttle;
pub mod thumbprint;
pub mod x509;
