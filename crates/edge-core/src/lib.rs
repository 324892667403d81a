//! The decisions that gateways and central share. No runtime, no Docker, no files, no clock: time is an argument.

pub mod access;
pub mod backoff;
pub mod certificate;
pub mod clock;
pub mod cloud_message;
pub mod condition;
pub mod daemon_method;
pub mod deploy;
pub mod dialect;
pub mod error_chain;
pub mod health;
pub mod link;
pub mod metrics;
pub mod module_logs;
pub mod moment;
pub mod redact;
pub mod route;
pub mod twin;
pub mod upload;
