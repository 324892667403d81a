//! The engine's events of the gateway's containers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use edge_core::backoff::Backoff;
use edge_core::error_chain::chain;
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::steps::Busy;
use crate::clock::now_ms;
use crate::deployment::docker::{Engine, LABEL_GATEWAY, LABEL_MODULE};

/// The engine is away: how long until the next request.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// An engine that refuses to give events says so at once; one that gives them says nothing until there is one.
const GIVEN_AFTER: Duration = Duration::from_secs(2);

/// Whether the engine's events are followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Followed {
    /// Since when no event was missed; 0 while some may be.
    pub(super) since_ms: u64,
    /// Why the engine gives none; `None` too while it is away altogether.
    pub(super) problem: Option<String>,
}

/// Says "look again" at every event of the gateway's containers, and whenever events may have been missed. Those of modules whose
/// steps are being done say nothing new: when the steps have ended, everything is looked at.
pub(super) struct Listener {
    pub(super) engine: Engine,
    pub(super) gateway: String,
    pub(super) happened: Arc<Notify>,
    pub(super) busy: Busy,
    pub(super) followed: Arc<Mutex<Followed>>,
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
                let since_ms = now_ms();
                // Also what happens before the engine has this request: the containers may have been looked at by then.
                let options = EventsOptions {
                    since: Some(format!("{}.{:03}000000", since_ms / 1000, since_ms % 1000)),
                    filters: Some(filters.clone()),
                    ..EventsOptions::default()
                };
                let mut events = std::pin::pin!(docker.events(Some(options)));
                self.change(|followed| followed.since_ms = since_ms);
                let mut are_given = std::pin::pin!(tokio::time::sleep(GIVEN_AFTER));
                let mut is_new = true;
                let ended = loop {
                    tokio::select! {
                        event = events.next() => match event {
                            Some(Ok(event)) => {
                                backoff.succeeded();
                                if !self.is_of_busy(&event) {
                                    self.happened.notify_one();
                                }
                            }
                            Some(Err(error)) => break Some(error),
                            None => break None,
                        },
                        () = &mut are_given, if is_new => {
                            is_new = false;
                            self.change(|followed| followed.problem = None);
                        }
                        () = stop.cancelled() => return,
                    }
                };
                // Every status of the engine from now on says so.
                self.change(|followed| *followed = Followed { since_ms: 0, problem: problem(ended) });
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed(rand::random())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Changes what is known and has it reported.
    fn change(&self, change: impl FnOnce(&mut Followed)) {
        let mut followed = self.followed.lock().expect("nothing panics while it holds it");
        let before = followed.clone();
        change(&mut followed);
        if *followed == before {
            return;
        }
        match (&before.problem, &followed.problem) {
            (None, Some(problem)) => tracing::warn!(problem, "the engine's events are not followed"),
            (Some(_), None) => tracing::info!("the engine's events are followed again"),
            _ => {}
        }
        self.happened.notify_one();
    }

    fn is_of_busy(&self, event: &EventMessage) -> bool {
        let labels = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
        let module = labels.and_then(|labels| labels.get(LABEL_MODULE));
        let busy = self.busy.lock().expect("nothing panics while it holds it");
        module.is_some_and(|module| busy.iter().any(|busy| busy.as_str() == module))
    }
}

/// What an operator must know of the end of the events. The engine ends them with itself, and reports of that come from
/// requests for its containers.
fn problem(ended: Option<Error>) -> Option<String> {
    let error = ended.filter(|error| matches!(error, Error::DockerResponseServerError { .. }))?;
    Some(format!(
        "the Docker Engine gives no events, so that a change of a container may be noticed a minute late: {}",
        chain(&error)
    ))
}
