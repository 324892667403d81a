//! What only the running daemon knows, for its own findings and for `edge-agent check`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use edge_buffer::{Headroom, Stats};
use edge_core::deploy::desired::Desired;
use edge_core::deploy::transport::amqp_advice;
use edge_core::health::facts::{
    DaemonFacts, DeploymentFacts, JournalFacts, LinkFacts, ModuleFacts, QueueFacts, REFUSALS_REPORTED_MAX,
    RefusalFacts,
};
use schemas::gateway_status::{RefusalList, RefusedClient};
use schemas::manifest::DesiredStatus;
use schemas::timestamp::rfc3339;

use super::context::Control;
use super::status::{losses, removed_files};
use crate::clock::{now_ms, steady_ms, upstream_offset};

/// Senders of messages without a route that are named.
const UNROUTED_SENDERS_MAX: usize = 5;

pub(super) async fn facts(State(control): State<Arc<Control>>) -> Json<DaemonFacts> {
    Json(control.facts())
}

pub(super) async fn refusals(State(control): State<Arc<Control>>) -> Json<RefusalList> {
    let shown = |refused: RefusalFacts| RefusedClient {
        identity: refused.identity,
        why: refused.why,
        from: refused.from,
        protocol: refused.protocol,
        proof: refused.proof,
        first: rfc3339(refused.first_ms),
        last: rfc3339(refused.last_ms),
        count: refused.count,
    };
    Json(RefusalList { refusals: control.refusals().map(shown).collect() })
}

/// A write that takes so long will not end by itself.
const STALLED_MS: u64 = 10_000;

/// What a journal says that refuses.
const JOURNAL_FULL: &str = "its limit of bytes, or that of free disk space, is reached";

fn journal_facts(name: &str, of: &str, stats: &Stats) -> JournalFacts {
    JournalFacts {
        name: name.to_owned(),
        of: of.to_owned(),
        damaged: stats.damaged + stats.unproven,
        damaged_ever: stats.lost.damaged,
        failing: failing(stats),
    }
}

/// What a log cannot do at present.
fn failing(stats: &Stats) -> Option<String> {
    if stats.busy_ms >= STALLED_MS {
        return Some(format!("a write has not ended for {} s", stats.busy_ms / 1000));
    }
    let failing = stats.failing?;
    let why = failing.os_error.map_or_else(
        || "the system gave no number".to_owned(),
        |number| std::io::Error::from_raw_os_error(number).to_string(),
    );
    Some(format!("could not {} for {} s: {why}", failing.doing, failing.for_ms / 1000))
}

impl Control {
    /// The daemon's facts as they are now.
    pub fn facts(&self) -> DaemonFacts {
        let stats = self.queues.stats();
        let age_now_ms = steady_ms();
        let quarantine = self.quarantine.stats();
        let all = || stats.iter().map(|queue| &queue.stats).chain([&quarantine]);
        let lost = losses(all().map(|stats| &stats.lost), self.queues.known()).by_cause();
        let journals = [
            ("mqtt", "sessions and retained messages", self.server.journal_stats()),
            ("state/journal", "the daemon's state", self.state.journal_stats()),
        ];
        let unreported_losses = self.quarantine.log().loss_records();
        let unreported_losses = stats
            .iter()
            .flat_map(|queue| &queue.loss_records)
            .chain(&unreported_losses)
            .map(|loss| loss.count);
        let (by_sender, of_others) = self.unrouted.all();
        let mut senders: Vec<(String, u64)> =
            by_sender.iter().map(|(who, count)| (who.to_string(), *count)).collect();
        senders.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        senders.truncate(UNROUTED_SENDERS_MAX);
        let used_up = self.meter.spent().into_iter().filter(|spent| self.meter.is_used_up(spent.cause));
        let clients = self.clients.connected();
        DaemonFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_crc32c: Some(self.config_crc32c),
            clock_offset_ms: upstream_offset().and_then(|offset| offset.reported_ms()),
            link: self.link_facts(),
            budgets_used_up: used_up.map(|spent| spent.cause.name().to_owned()).collect(),
            budget_resets_in_secs: self.meter.resets_in_ms().div_ceil(1000),
            deployment: self.deployment_facts(),
            modules: self.module_facts(),
            queues: stats
                .iter()
                .map(|queue| QueueFacts {
                    name: queue.name.clone(),
                    messages: queue.stats.records,
                    oldest_secs: queue.stats.oldest_ms.map(|at| age_now_ms.saturating_sub(at) / 1000),
                    headroom: match queue.stats.headroom {
                        Headroom::Enough => "enough",
                        Headroom::Evicting => "evicting",
                        Headroom::Refusing => "refusing",
                    }
                    .to_owned(),
                })
                .collect(),
            lost: lost
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(cause, count)| (cause.to_owned(), count))
                .collect(),
            lost_unreported: unreported_losses.sum(),
            expired_secs_ago: self.queues.expired_ms_ago().map(|ago| ago / 1000),
            quarantined: quarantine.records,
            quarantine_evicted: quarantine.lost.evicted,
            unrouted: by_sender.values().sum::<u64>() + of_others,
            unrouted_most: senders,
            partly_refused: self.unrouted.partly(),
            damaged_files: all()
                .chain(journals.iter().map(|(.., stats)| stats))
                .map(|stats| stats.set_aside)
                .sum(),
            removed_files: removed_files(self),
            journals: journals
                .iter()
                .map(|(name, of, stats)| {
                    let facts = journal_facts(name, of, stats);
                    // A full queue has a finding of its own; a full journal has not.
                    let full = || (stats.headroom == Headroom::Refusing).then(|| JOURNAL_FULL.to_owned());
                    JournalFacts { failing: facts.failing.or_else(full), ..facts }
                })
                .chain(
                    stats.iter().map(|queue| {
                        journal_facts(&format!("buffer/{}", queue.name), "telemetry", &queue.stats)
                    }),
                )
                .chain([journal_facts("quarantine/upstream", "messages in quarantine", &quarantine)])
                .collect(),
            connections_max: self.server.settings().connections_max,
            conflicts: clients
                .iter()
                .filter_map(|(identity, _)| {
                    let conflict = self.clients.conflict(identity)?;
                    let addresses: Vec<String> =
                        conflict.addresses.iter().take(4).map(ToString::to_string).collect();
                    let (times, addresses) = (conflict.takeovers, addresses.join(", "));
                    Some(format!("{identity} {times} times in 5 min, from {addresses}"))
                })
                .collect(),
            clients: clients.len(),
            refusals: self.refusals().take(REFUSALS_REPORTED_MAX).collect(),
        }
    }

    /// The clients that were refused last.
    fn refusals(&self) -> impl Iterator<Item = RefusalFacts> + use<> {
        self.server.refusals().all().into_iter().map(|refused| RefusalFacts {
            identity: refused.identity,
            why: refused.why,
            from: refused.address.to_string(),
            protocol: refused.protocol.to_owned(),
            proof: refused.proof,
            first_ms: refused.first_ms,
            last_ms: refused.last_ms,
            count: refused.count,
        })
    }

    fn link_facts(&self) -> Option<LinkFacts> {
        let link = self.link.as_ref()?.borrow().clone();
        let (is_connected, since_ms) = (link.is_connected, link.since_ms);
        Some(LinkFacts { is_connected, since_ms, why: link.why, failure: link.failure })
    }

    fn deployment_facts(&self) -> DeploymentFacts {
        let acceptance = self.acceptance.borrow().clone();
        DeploymentFacts {
            version: acceptance.versions.map(|versions| versions.edge_agent),
            problem: acceptance.problem,
            routes_refused: acceptance.routes_refused,
        }
    }

    fn module_facts(&self) -> Vec<ModuleFacts> {
        let (reconciler, in_force) = (self.reconciler.borrow().clone(), self.deployment.borrow().clone());
        let none = Desired::default();
        let desired = in_force.as_ref().map_or(&none, |deployment| &deployment.desired);
        let shall_run =
            |id| desired.modules.get(id).is_some_and(|module| module.spec.status == DesiredStatus::Running);
        reconciler
            .progress(desired, now_ms())
            .modules()
            .into_iter()
            .map(|(id, state)| ModuleFacts {
                name: id.to_string(),
                shall_run: shall_run(id),
                status: state.status.name().to_owned(),
                reason: state.reason,
                next_try: state.next_try_ms.map(rfc3339),
                has_failed: state.has_failed,
                amqp: desired.modules.get(id).and_then(amqp_advice),
            })
            .collect()
    }
}
