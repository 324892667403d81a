//! What the parts of the control socket for devices and for users share.

use axum::http::StatusCode;
use edge_core::error_chain::chain;
use schemas::names::DeviceId;

use super::failure::Failure;
use crate::access::identity_state::RemovalError;

/// A request with a value that cannot be taken.
pub(super) fn wrong(message: String) -> Failure {
    Failure(StatusCode::UNPROCESSABLE_ENTITY, message)
}

pub(super) fn read_id(text: &str) -> Result<DeviceId, Failure> {
    text.parse().map_err(|error| wrong(format!("device id: {error}")))
}

/// The removal goes on, and whoever has this name next is refused until it has ended.
pub(super) fn unfinished(error: RemovalError) -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, chain(&error).to_string())
}
