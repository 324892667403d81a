//! How long a look at something may take, and what it finds when it takes longer.

use std::future::Future;
use std::time::Duration;

use edge_core::clock::BUILT_SECS;
use edge_core::health::facts::Probe;

/// How long one look may take: a daemon or an engine that is busy answers within it.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Inspects files, with an end: a network file system may never answer. The thread that waits for it is left alone.
pub(super) async fn blocking<T: Send + 'static>(
    probe: impl FnOnce() -> Probe<T> + Send + 'static,
) -> Probe<T> {
    within(PROBE_TIMEOUT, async {
        tokio::task::spawn_blocking(probe).await.unwrap_or_else(|error| Probe::Failed(error.to_string()))
    })
    .await
}

pub(super) async fn within<T>(limit: Duration, probe: impl Future<Output = Probe<T>>) -> Probe<T> {
    tokio::time::timeout(limit, probe)
        .await
        .unwrap_or_else(|_| Probe::Failed(format!("no answer within {} s", limit.as_secs())))
}

/// Whether this clock can tell what has expired.
pub(super) fn is_plausible(now_secs: u64) -> bool {
    now_secs >= BUILT_SECS
}
