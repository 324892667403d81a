//! The engine's events of the gateway's containers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use edge_core::backoff::Backoff;
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::steps::Busy;
use crate::clock::now_ms;
use crate::deployment::docker::{Engine, LABEL_GATEWAY, LABEL_MODULE};

/// The engine is away: how long until the next request.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Says "look again" at every event of the gateway's containers, and whenever events may have been missed. Those of modules whose
/// steps are being done say nothing new: when the steps have ended, everything is looked at.
pub(super) struct Listener {
    pub(super) engine: Engine,
    pub(super) gateway: String,
    pub(super) happened: Arc<Notify>,
    pub(super) busy: Busy,
    /// Since when no event was missed; 0 while some may be.
    pub(super) engine_since_ms: Arc<AtomicU64>,
}

impl Listener {
    /// Runs until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let filters = HashMap::from([
            ("label".to_owned(), vec![format!("{LABEL_GATEWAY}={}", self.gateway)]),
            ("type".to_owned(), vec!["container".to_owned()]),
        ]);
        loop {
            if let Ok(docker) = self.engine.client().await {
                let options = EventsOptions { filters: Some(filters.clone()), ..EventsOptions::default() };
                let mut events = std::pin::pin!(docker.events(Some(options)));
                self.engine_since_ms.store(now_ms(), Ordering::Relaxed);
                self.happened.notify_one();
                loop {
                    tokio::select! {
                        event = events.next() => match event {
                            Some(Ok(event)) => {
                                backoff.succeeded();
                                if !self.is_of_busy(&event) {
                                    self.happened.notify_one();
                                }
                            }
                            Some(Err(_)) | None => break,
                        },
                        () = stop.cancelled() => return,
                    }
                }
                self.engine_since_ms.store(0, Ordering::Relaxed);
                // Every status of the engine from now on says so.
                self.happened.notify_one();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed(rand::random())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn is_of_busy(&self, event: &EventMessage) -> bool {
        let labels = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
        let module = labels.and_then(|labels| labels.get(LABEL_MODULE));
        let busy = self.busy.lock().expect("nothing panics while it holds it");
        module.is_some_and(|module| busy.iter().any(|busy| busy.as_str() == module))
    }
}
