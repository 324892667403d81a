//! The task that takes points from messages behind their commits, and compacts them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use edge_core::error_chain::chain;
use tokio::sync::watch;

use super::error::StoreError;
use super::handle::{Store, WeakStore};
use super::series;
use super::series_compaction::{Loose, compact};

/// How long it rests when nothing is left to do.
const REST: Duration = Duration::from_secs(1);
/// How much longer than it worked it rests while more is left, so that it takes a tenth of one processor.
const REST_TIMES: u32 = 9;
/// With more messages waiting it does not rest.
const BEHIND_MAX: u64 = 200_000;
/// With more series waiting for compaction it does not rest.
const DUE_MAX: usize = 5_000;
/// Series that are compacted in one work: some hundredths of a second, for which other works wait.
const COMPACTED_AT_ONCE: usize = 64;

/// Until the store is closed or nobody has it any more.
pub(super) async fn keep_series(weak: WeakStore, mut ended: watch::Receiver<()>) {
    let mut loose = None;
    let mut rest = REST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            // The sender is only ever dropped, by the writer that ends.
            _ = ended.changed() => return,
        }
        let Some(store) = weak.upgrade() else { return };
        let since = Instant::now();
        rest = match once(&store, &mut loose).await {
            Ok(Left { messages: 0, series: 0 }) => REST,
            Ok(left) if left.messages > BEHIND_MAX || left.series > DUE_MAX => Duration::ZERO,
            Ok(_) => (since.elapsed() * REST_TIMES).min(REST),
            Err(error) => {
                // What was written is found again.
                loose = None;
                // A store that is being closed fails works, and that is no fault.
                if ended.has_changed().is_ok() {
                    tracing::warn!(error = %chain(&error), "writing series failed");
                }
                REST
            }
        };
    }
}

/// What is left to do.
struct Left {
    messages: u64,
    series: usize,
}

/// Takes some messages, and compacts some series.
async fn once(store: &Store, loose: &mut Option<Loose>) -> Result<Left, StoreError> {
    let mut known = match loose.take() {
        Some(known) => known,
        None => store.read(|c| Ok::<_, StoreError>(Loose::load(c)?)).await?,
    };
    let mut messages = 0;
    if let Some(tail) = store.read(|c| Ok::<_, StoreError>(series::read_tail(c)?)).await? {
        messages = tail.left;
        for slice in tail.slices {
            let written = store.submit(move |c| Ok::<_, StoreError>(series::write_slice(c, &slice)?));
            let written = written.await?;
            let points = written.iter().map(|added| added.points as u64).sum();
            store.shared.points.fetch_add(points, Ordering::Relaxed);
            known.add(&written);
        }
    }
    let due = known.take(COMPACTED_AT_ONCE);
    if !due.is_empty() {
        let compacted = store
            .submit(move |c| due.iter().try_for_each(|series| compact(c, *series)).map_err(StoreError::from));
        compacted.await?;
    }
    let left = Left { messages, series: known.due() };
    *loose = Some(known);
    Ok(left)
}
