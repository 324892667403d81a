//! The daemon's own look at itself: once a minute, and soon after modules, the manifest or the link change, or a device that it
//! knows is refused.

use std::sync::Arc;
use std::time::Duration;

use edge_core::health::report::{is_due, report};
use schemas::status::HealthReport;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::of_daemon;
use crate::clock::now_ms;
use crate::config::Config;
use crate::control::context::Control;

/// How often everything is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Checks are at least so far apart, however often things change.
const AT_LEAST: Duration = Duration::from_secs(5);

/// Checks, and publishes the report for central, until `stop`.
pub async fn run(
    control: Arc<Control>,
    config: Arc<Config>,
    health: watch::Sender<Option<HealthReport>>,
    stop: CancellationToken,
) {
    let (mut reconciler, mut acceptance) = (control.reconciler.clone(), control.acceptance.clone());
    let mut link = control.link.clone();
    let mut sent_ms = 0;
    loop {
        reconciler.mark_unchanged();
        acceptance.mark_unchanged();
        if let Some(link) = &mut link {
            link.mark_unchanged();
        }
        let facts = control.facts();
        let refusals = facts.refusals.clone();
        let findings = of_daemon(&config, facts).await;
        let now_ms = now_ms();
        let new = report(&findings, &refusals, now_ms);
        health.send_if_modified(|sent| {
            let is_new = sent.as_ref().is_none_or(|sent| is_due(sent, sent_ms, &new, now_ms));
            if is_new {
                *sent = Some(new);
                sent_ms = now_ms;
            }
            is_new
        });
        tokio::select! {
            () = tokio::time::sleep(AT_LEAST) => {}
            () = stop.cancelled() => return,
        }
        let link_changed = async {
            match &mut link {
                Some(link) => link.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(EVERY - AT_LEAST) => {}
            Ok(()) = reconciler.changed() => {}
            Ok(()) = acceptance.changed() => {}
            true = link_changed => {}
            () = control.server.refusals().known_refused() => {}
            () = stop.cancelled() => return,
        }
    }
}
