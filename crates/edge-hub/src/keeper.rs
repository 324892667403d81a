//! What a server does by itself: sessions and retained messages that expire, wills that are due, snapshots of the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::age_clock::steady_ms;
use crate::broker::Broker;

/// How often expired messages are looked for, retained ones and those that wait for a client. They are not given to anybody
/// meanwhile.
const EXPIRY_EVERY: Duration = Duration::from_secs(10);
/// How often the files of the journal are looked after.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a snapshot that failed waits before the next one, which no event announces.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(5);

/// Maintains a broker until it is stopped.
pub(crate) async fn keep(broker: Arc<Broker>, stop: CancellationToken) {
    let mut expiry_at = Instant::now() + EXPIRY_EVERY;
    let (mut snapshot_at, mut check_at) = (Instant::now(), Instant::now() + CHECK_EVERY);
    let mut is_snapshot_due = false;
    loop {
        let tick_ms = steady_ms();
        let in_ms = broker.tick(tick_ms).map(|next_ms| next_ms.saturating_sub(tick_ms));
        let mut wake_at =
            in_ms.map_or(expiry_at, |ms| expiry_at.min(Instant::now() + Duration::from_millis(ms)));
        wake_at = wake_at.min(check_at);
        if is_snapshot_due {
            wake_at = wake_at.min(snapshot_at);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = broker.sooner.notified() => {}
            () = broker.journal.snapshot_due() => is_snapshot_due = true,
            () = tokio::time::sleep_until(wake_at) => {}
        }
        if Instant::now() >= expiry_at {
            expiry_at = Instant::now() + EXPIRY_EVERY;
            broker.drop_expired_retained(steady_ms());
            broker.drop_expired_queued(steady_ms());
        }
        if Instant::now() >= check_at {
            check_at = Instant::now() + CHECK_EVERY;
            broker.journal.check_files().await;
        }
        if is_snapshot_due && Instant::now() >= snapshot_at {
            is_snapshot_due = false;
            if let Err(why) = broker.journal.snapshot().await {
                error!("MQTT journal: no snapshot was written: {why}");
                is_snapshot_due = true;
                snapshot_at = Instant::now() + SNAPSHOT_PAUSE;
            }
        }
    }
}
