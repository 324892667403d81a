//! What the store counts of itself, and how much it holds.

use std::sync::atomic::Ordering;

use edge_core::metrics::histogram::Distribution;

use super::error::StoreError;
use super::handle::Store;
use super::{series, telemetry_retention};

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreNumbers {
    /// Times of transactions, from the first statement to the commit.
    pub commit_times: Distribution,
    /// Numbers that were added to time series.
    pub points: u64,
}

/// Bytes that count for the quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptBytes {
    pub telemetry: u64,
    pub series: u64,
}

impl Store {
    pub fn numbers(&self) -> StoreNumbers {
        StoreNumbers {
            commit_times: self.shared.commit_times.distribution(),
            points: self.shared.points.load(Ordering::Relaxed),
        }
    }

    /// Reads how much telemetry and how many bytes of series are kept.
    pub async fn kept_bytes(&self) -> Result<KeptBytes, StoreError> {
        let read = |c: &_| {
            let (series, _points) = series::usage(c)?;
            Ok::<_, StoreError>(KeptBytes { telemetry: telemetry_retention::bytes(c)?, series })
        };
        self.read(read).await
    }
}
