//! How much the store keeps, and how long it waits.

use std::time::Duration;

/// One of the waits for another program that holds the file; a stop of central is noticed between two.
pub(super) const LOCKED_TRY: Duration = Duration::from_millis(200);

/// How much history is kept; the oldest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Telemetry messages of all devices together.
    pub messages: u64,
    /// Commands of all devices together.
    pub commands: u64,
}

/// How many bytes telemetry may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Of one device with its modules; its own oldest messages are deleted for new ones.
    pub device_bytes: u64,
    /// Of all devices; the oldest of the device with the most are deleted for new ones. `None`: half of the file system.
    pub total_bytes: Option<u64>,
    /// Left free on the file system: with less, telemetry is refused, and gateways keep it. `None`: a twentieth of the file
    /// system, 512 MB at most.
    pub free_bytes: Option<u64>,
    /// Of the series of all devices; the oldest points of the device with the most go. Those of one device may take
    /// [`Quotas::device_bytes`]. `None`: a quarter of the file system.
    pub series_bytes: Option<u64>,
    /// Days after which points go; `None`: never.
    pub series_days: Option<u32>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            device_bytes: 256 << 20,
            total_bytes: None,
            free_bytes: None,
            series_bytes: None,
            series_days: None,
        }
    }
}
