//! An operator's decision about devices that wait for approval.

use rusqlite::Connection;
use schemas::names::DeviceId;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::access::admission::Admission;
use crate::error::ServiceError;
use crate::store::devices::{self, Device};

/// What an operator decides about a device that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Decision {
    /// It may connect.
    Approve,
    /// It is blocked.
    Reject,
}

/// What a decision did to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    Done,
    /// It does not wait: it was approved before, is blocked, or never had to wait.
    NotWaiting(Admission),
    NotRegistered,
}

/// Returns what became of the device, and the device if it was written.
pub(super) fn decide_one(
    c: &Connection,
    id: DeviceId,
    decision: Decision,
) -> Result<(DeviceId, Decided, Option<Device>), ServiceError> {
    let Some(mut device) = devices::get(c, &id)? else { return Ok((id, Decided::NotRegistered, None)) };
    let admission = device.admission();
    if admission != Admission::Waiting {
        return Ok((id, Decided::NotWaiting(admission), None));
    }
    match decision {
        Decision::Approve => device.is_waiting = false,
        Decision::Reject => device.enabled = false,
    }
    device.revision = devices::put(c, &device)?;
    Ok((id, Decided::Done, Some(device)))
}
