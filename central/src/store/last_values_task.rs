//! The task that writes last values behind the messages that are stored.

use std::time::{Duration, Instant};

use edge_core::error_chain::chain;
use tokio::sync::watch;

use super::error::StoreError;
use super::handle::{Store, WeakStore};
use super::last_values::{self, ValuesTail};

/// How long the rows of last values wait for messages.
const LAST_VALUES_AFTER: Duration = Duration::from_secs(1);
/// How much longer than they take their reading rests while more messages wait, so that it takes a twentieth of one processor.
const LAST_VALUES_REST: u32 = 19;
/// With more messages waiting it does not rest.
const LAST_VALUES_BEHIND_MAX: u64 = 1_000_000;

/// Writes last values behind the messages that are stored, until the store is closed or nobody has it any more.
pub(super) async fn keep_last_values(weak: WeakStore, mut ended: watch::Receiver<()>) {
    let mut rest = LAST_VALUES_AFTER;
    loop {
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            // The sender is only ever dropped, by the writer that ends.
            _ = ended.changed() => return,
        }
        let Some(store) = weak.upgrade() else { return };
        let since = Instant::now();
        let tail = store.read(|c| Ok::<_, StoreError>(last_values::read_tail(c)?)).await;
        let is_closed = |error: &StoreError| matches!(error, StoreError::NotCommitted);
        rest = match tail {
            Ok(None) => LAST_VALUES_AFTER,
            Ok(Some(tail)) => {
                let took = since.elapsed();
                let left = tail.left();
                match write(&store, tail).await {
                    Ok(()) if left == 0 => LAST_VALUES_AFTER,
                    Ok(()) if left > LAST_VALUES_BEHIND_MAX => Duration::ZERO,
                    Ok(()) => (took * LAST_VALUES_REST).min(LAST_VALUES_AFTER),
                    Err(error) if is_closed(&error) => return,
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "writing last values failed");
                        LAST_VALUES_AFTER
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "reading messages for last values failed");
                LAST_VALUES_AFTER
            }
        };
    }
}

/// Writes a tail part by part; other works have their turn between two.
async fn write(store: &Store, tail: ValuesTail) -> Result<(), StoreError> {
    for slice in tail.into_slices() {
        store.submit(move |c| Ok::<_, StoreError>(last_values::write_slice(c, &slice)?)).await?;
    }
    Ok(())
}
