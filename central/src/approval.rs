//! An operator's decision about devices that wait for approval: stored, told to their gateways, and in force at once.

use std::sync::Arc;

use rusqlite::Connection;
use schemas::names::DeviceId;

use crate::admission::Admission;
use crate::error::ServiceError;
use crate::fleet::Fleet;
use crate::store::devices::{self, Device};

/// What an operator decides about a device that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Fleet {
    /// Decides about devices; those that do not wait stay as they are. Gives what became of each, in the order given.
    ///
    /// # Errors
    /// [`ServiceError::Store`]: then nothing is decided.
    pub async fn decide(
        self: &Arc<Self>,
        ids: Vec<DeviceId>,
        decision: Decision,
    ) -> Result<Vec<(DeviceId, Decided)>, ServiceError> {
        let decided = self
            .store
            .submit(move |c| {
                let each = ids.into_iter().map(|id| decide_one(c, id, decision));
                each.collect::<Result<Vec<_>, ServiceError>>()
            })
            .await?;
        let mut outcomes = Vec::with_capacity(decided.len());
        for (id, outcome, written) in decided {
            if let Some(written) = written {
                self.review(&written);
                if let Some(gateway) = &written.gateway {
                    self.tell_child(gateway, &written.id);
                }
                tracing::info!(device = %written.id, ?decision, "device that waited for approval was decided about");
            }
            outcomes.push((id, outcome));
        }
        Ok(outcomes)
    }
}

fn decide_one(
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
    device.revision += 1;
    devices::put(c, &device)?;
    Ok((id, Decided::Done, Some(device)))
}
