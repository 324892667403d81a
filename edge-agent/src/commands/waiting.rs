//! Commands that wait for their targets: each target's run one after the other, in the order in which they came, while it
//! listens for methods. One whose time may have been over while the machine was off is held: see
//! [`edge_core::clock::lifetime`].

use edge_core::error_chain::chain;
use std::time::Duration;

use edge_core::dialect::client::Subscribe;
use edge_hub::{age_clock, tasks};
use schemas::method::MethodFailure;
use schemas::names::Identity;
use tokio_util::sync::CancellationToken;

use super::Commands;
use crate::clock::{is_valid, steady_ms};

/// What a target that listens did not take is tried again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Commands {
    fn listens(&self, target: &Identity) -> bool {
        self.is_daemon(target) || self.clients.has_subscribed(target, &Subscribe::MethodCalls)
    }

    /// Runs what waits for a target: it listens for methods now, or something came for it.
    pub fn wake(&self, target: &Identity) {
        if self.stop.is_cancelled() || !self.listens(target) || !self.runs.begin(target) {
            return;
        }
        let (commands, target) = (self.clone(), target.clone());
        let (recovering, of) = (self.clone(), target.clone());
        let runs = async move {
            loop {
                commands.run_waiting(&target).await;
                if !commands.runs.goes_on(&target, false) {
                    return;
                }
            }
        };
        tasks::spawn_recovering(Some(&self.running), "waiting commands", runs, move || {
            recovering.runs.give_up(&of);
        });
    }

    async fn run_waiting(&self, target: &Identity) {
        while self.listens(target) && !self.stop.is_cancelled() {
            let Some((id, waiting, saved)) = self.journal().begin(target, is_valid) else { return };
            // On disk before the call: it is never called twice.
            if let Err(error) = saved.durable().await {
                tracing::error!(command = id, %target, error = %chain(&error), "a waiting command was not run, and waits on");
                self.journal().give_back(&id, waiting);
            } else {
                let answer = self.run_guarded(&id, target, &waiting.request).await;
                if !matches!(answer, Err(MethodFailure::NotConnected { .. })) {
                    self.answer(&id, answer).later();
                    continue;
                }
                // It went away between, or takes too slowly what it is sent: it was not called.
                self.journal().give_back(&id, waiting);
            }
            self.waiting_changed.notify_one();
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Ends waiting commands whose time is over, until `stop`.
    pub async fn expire(&self, stop: CancellationToken) {
        let mut settings = age_clock::settings();
        loop {
            let now_ms = steady_ms();
            let (over, next) = self.journal().overdue(now_ms);
            for (id, waiting) in over {
                tracing::warn!(command = id, target = %waiting.target, "command expired before its target listened");
                let target = waiting.target.to_string();
                self.end_waiting(&id, MethodFailure::Expired { target, seconds: waiting.seconds });
            }
            let until_next = async {
                match next {
                    Some(at_ms) => {
                        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(now_ms))).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until_next => {}
                () = self.waiting_changed.notified() => {}
                // What was held may be valid by the wall clock as it was set.
                _ = settings.changed() => for target in self.targets() {
                    self.wake(&target);
                },
                () = stop.cancelled() => return,
            }
        }
    }

    fn end_waiting(&self, id: &str, failure: MethodFailure) {
        if let Some(saved) = self.journal().end_waiting(id, Err(failure)) {
            saved.later();
            self.answered.notify_one();
        }
    }
}
