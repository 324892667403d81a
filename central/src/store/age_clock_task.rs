//! Saves the clock of ages in the store while central runs.

use edge_core::error_chain::chain;
use edge_hub::age_clock::Saving;
use tokio_util::sync::CancellationToken;

use super::age_clock::save;
use super::error::StoreError;
use super::handle::Store;

/// Keeps the clock of ages in the store until `stop`.
pub async fn keep(store: Store, stop: CancellationToken) {
    let mut saving = Saving::default();
    // At once: what is stamped before the first save would be measured by another clock after a kill.
    let mut is_due = Some(true);
    loop {
        if is_due != Some(false)
            && let Err(error) = store.submit(|c| Ok::<_, StoreError>(save(c)?)).await
        {
            tracing::warn!(error = %chain(&error), "the clock of ages was not saved; what waits may live longer after a reboot");
        }
        if is_due.is_none() {
            return;
        }
        is_due = saving.next(&stop).await;
    }
}
