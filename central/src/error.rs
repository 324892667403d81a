//! The error of every service: why an operation failed, and the sentences for what does not exist.

use central_core::access::further::LacksFurther;
use edge_core::cloud_message::MessageError;
use edge_core::twin;
use schemas::manifest::ManifestError;
use schemas::names::DeviceId;

use crate::store::StoreError;
use crate::types::component::InvalidMarker;

/// Why an operation failed. A caller acts differently on each variant: each is a status code of IoT Central.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The named device, module, relationship, manifest or command does not exist. 404.
    #[error("{0}")]
    NotFound(String),
    /// The operation contradicts stored data. 409.
    #[error("{0}")]
    Conflict(String),
    /// The stored state is not the one that `If-Match`, `If-None-Match` or the body's `etag` names. 412.
    #[error("{0}")]
    PreconditionFailed(String),
    /// A value is invalid; the message names its field. 422.
    #[error("{0}")]
    Wrong(String),
    /// A body, message or section exceeds its maximum size. 413.
    #[error("{0}")]
    TooLarge(String),
    /// The target's queue of messages or commands is full. 403, as IoT Hub answers.
    #[error("{0}")]
    QueueFull(String),
    /// Too many operations run at once; the caller may try again. 429.
    #[error("{0}")]
    Busy(String),
    /// The sender may not speak for the identity. 403.
    #[error("{0}")]
    Forbidden(String),
    /// The device waits for an operator's approval, or is blocked. 403; the Device Provisioning Service's error 400209.
    #[error("{0}")]
    NotApproved(String),
    /// central is stopping. 503.
    #[error("{0}")]
    Stopping(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for ServiceError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<LacksFurther> for ServiceError {
    fn from(error: LacksFurther) -> Self {
        Self::Forbidden(error.to_string())
    }
}

impl From<ManifestError> for ServiceError {
    fn from(error: ManifestError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<twin::PatchError> for ServiceError {
    fn from(error: twin::PatchError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<InvalidMarker> for ServiceError {
    fn from(error: InvalidMarker) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<MessageError> for ServiceError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::TooLarge { .. } | MessageError::BagTooLarge { .. } => {
                Self::TooLarge(error.to_string())
            }
            MessageError::Field { .. } => Self::Wrong(error.to_string()),
        }
    }
}

pub fn no_device(id: &DeviceId) -> ServiceError {
    ServiceError::NotFound(format!("device `{id}` is not registered"))
}

/// `device` is neither the source nor the target of a relationship of this id.
pub fn no_relationship(device: &DeviceId, id: &str) -> ServiceError {
    ServiceError::NotFound(format!("device `{device}` has no relationship `{id}`"))
}

pub fn no_manifest(id: &str) -> ServiceError {
    ServiceError::NotFound(format!("deployment manifest `{id}` is not stored"))
}

pub fn no_group(id: &str) -> ServiceError {
    ServiceError::NotFound(format!("enrolment group `{id}` is not stored"))
}
