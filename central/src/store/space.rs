//! Disk space: how much telemetry may take, and when no more is taken.
//!
//! History has quotas of bytes: its oldest rows are deleted for new ones. When the file system itself gets full, nothing that was acknowledged
//! is deleted: new telemetry is refused, and gateways keep it (docs/decisions/0020).

use edge_core::error_chain::chain;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::file_reserve::length_and_holes;
use super::limits::Quotas;
use super::paths::FILE;
use super::{series_compaction, telemetry_retention};
use crate::clock::settled_wall_ms;

/// Between two checks of the quotas and the disk: what comes meanwhile is beyond them.
const MEASURE_AFTER: Duration = Duration::from_millis(250);
/// Between two log lines about one device.
const LOG_AFTER: Duration = Duration::from_secs(3600);
/// Left free on large disks when nothing else is configured.
const FREE_BYTES_MAX: u64 = 512 << 20;
/// History that goes with one commit of works: as much as one can bring.
pub(super) const TRIM_BYTES_OF_WORKS: u64 = 64 << 20;
/// History that goes with one commit of its own, for which works wait.
const TRIM_BYTES_MAX: u64 = 16 << 20;
/// And when the disk is full, so much of what is free: the pages of deleted rows, and those of the indexes to them, must fit into the log.
/// How many they are depends on where the rows are, so it is halved when they did not fit, down to one row.
const TRIM_PART: u64 = 4;
const TRIM_PART_MAX: u64 = 1 << 32;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Devices about which was logged.
const LOGGED_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// On the file system, and within the store's file.
    pub free_bytes: u64,
    /// Less than `[keep] free_bytes`: telemetry is refused.
    pub is_low: bool,
}

/// Bytes of the file system of `dir`, used or free.
///
/// # Errors
/// When they cannot be read.
pub(super) fn disk_bytes(dir: &Path) -> Result<u64, std::io::Error> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// Keeps the store within its quotas.
pub(super) struct Space {
    dir: PathBuf,
    device_bytes: u64,
    total_bytes: u64,
    free_bytes: u64,
    series_bytes: u64,
    series_days: Option<u32>,
    measured: Option<Instant>,
    trim_part: u64,
    logged: HashMap<String, Instant>,
    was_low: bool,
}

impl Space {
    pub(super) fn new(dir: &Path, quotas: Quotas) -> Self {
        let size = match disk_bytes(dir) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "reading the size of the store's disk failed; quotas that depend on it are off");
                u64::MAX
            }
        };
        Self {
            dir: dir.to_owned(),
            device_bytes: quotas.device_bytes,
            total_bytes: quotas.total_bytes.unwrap_or(size / 2),
            free_bytes: quotas.free_bytes.unwrap_or((size / 20).min(FREE_BYTES_MAX)),
            series_bytes: quotas.series_bytes.unwrap_or(size / 4),
            series_days: quotas.series_days,
            measured: None,
            trim_part: TRIM_PART,
            logged: HashMap::new(),
            was_low: false,
        }
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self) -> bool {
        self.measured.is_none_or(|measured| measured.elapsed() >= MEASURE_AFTER)
    }

    /// Reads how much of the disk is free.
    pub(super) fn measure(&mut self, connection: &Connection) -> Disk {
        self.measured = Some(Instant::now());
        let disk = match self.free(connection) {
            Ok(free_bytes) => Disk { free_bytes, is_low: free_bytes < self.free_bytes },
            Err(error) => {
                tracing::warn!(error = %chain(&error), "reading the free space of the store's disk failed");
                Disk { free_bytes: 0, is_low: self.was_low }
            }
        };
        if disk.is_low != self.was_low {
            let (free_bytes, keep_free) = (disk.free_bytes, self.free_bytes);
            if disk.is_low {
                tracing::error!(
                    free_bytes,
                    keep_free,
                    "the store's disk is nearly full; telemetry is refused"
                )
            } else {
                tracing::info!(free_bytes, keep_free, "the store's disk has space again; telemetry is taken")
            }
        }
        self.was_low = disk.is_low;
        disk
    }

    /// Bytes of the file system that central may still take.
    fn available(&self) -> Result<u64, std::io::Error> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Pages of the file that hold nothing are space too, if the disk has them: the file does not grow before they are used.
    fn free(&self, connection: &Connection) -> Result<u64, std::io::Error> {
        let pages = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
        let within = pages("PRAGMA freelist_count").and_then(|count| Ok(count * pages("PRAGMA page_size")?));
        let (_, holes) = length_and_holes(&self.dir.join(FILE));
        let within = within.map_err(std::io::Error::other)?.unsigned_abs().saturating_sub(holes);
        Ok(self.available()?.saturating_add(within))
    }

    /// How much history may be deleted by one commit now: what goes is written to the log before.
    pub(super) fn trim_bytes_max(&self) -> u64 {
        (self.available().unwrap_or(0) / self.trim_part).clamp(1, TRIM_BYTES_MAX)
    }

    /// Notes whether what was deleted in one commit fitted into the log.
    pub(super) fn trimmed(&mut self, has_fitted: bool) {
        let part = if has_fitted { self.trim_part / 2 } else { self.trim_part * 2 };
        self.trim_part = part.clamp(TRIM_PART, TRIM_PART_MAX);
    }

    /// Deletes history that is beyond its quotas, and takes its bytes from `bytes_left`; returns how many messages and chunks of series. Within
    /// the writer's transaction.
    pub(super) fn trim(&mut self, connection: &Connection, bytes_left: &mut u64) -> rusqlite::Result<usize> {
        let mut trimmed = 0;
        for (device, messages) in
            telemetry_retention::trim_bytes(connection, self.device_bytes, self.total_bytes, bytes_left)?
        {
            trimmed += messages;
            let now = Instant::now();
            self.logged.retain(|_, at| now.duration_since(*at) < LOG_AFTER);
            if self.logged.len() < LOGGED_MAX && !self.logged.contains_key(&device) {
                tracing::warn!(
                    device,
                    messages,
                    device_bytes = self.device_bytes,
                    total_bytes = self.total_bytes,
                    "telemetry of a device is beyond its quota; its oldest messages are deleted"
                );
                self.logged.insert(device, now);
            }
        }
        trimmed +=
            series_compaction::trim_bytes(connection, self.device_bytes, self.series_bytes, bytes_left)?;
        // By a clock that lasted: a start whose clock is far ahead must not delete what is kept for years.
        if let Some((days, settled_ms)) = self.series_days.zip(settled_wall_ms()) {
            let before_ms = settled_ms.saturating_sub(u64::from(days) * DAY_MS);
            trimmed += series_compaction::trim_age(connection, before_ms, bytes_left)?;
        }
        Ok(trimmed)
    }
}
