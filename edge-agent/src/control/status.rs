//! `GET /status`: how the gateway is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use edge_buffer::{Headroom, LossRecord, Lost, Stats};
use edge_core::deploy::desired::Desired;
use edge_core::deploy::observed::{ContainerState, ObservedModule};
use edge_core::deploy::report;
use edge_hub::clients::Clients;
use schemas::gateway_status::{
    BudgetStatus, ClientState, ClockOffset, CommandCounts, DeploymentState, GatewayStatus, IdentityConflict,
    LossCounts, ModuleState, QuarantineState, QueueState, SpentBytes, UnreportedLoss, UnroutedCounts,
    UpstreamStatus,
};
use schemas::names::{Identity, ModuleId};
use schemas::timestamp::rfc3339;

use super::context::Control;
use crate::clock::{self, now_ms, shown_ms, upstream_offset};
use crate::config::Upstream;
use crate::deployment::deployments::Acceptance;
use crate::deployment::status::ReconcilerStatus;
use crate::messages::quarantine::entry::sender_of_tag;
use crate::messages::queues::QueueStats;
use crate::messages::queues::known::{self, KnownQueues};
use crate::messages::unrouted::Unrouted;
use crate::state::RemovedState;
use crate::upstream::meter::Meter;
use crate::upstream::status::LinkStatus;

pub(super) async fn status(State(control): State<Arc<Control>>) -> Json<GatewayStatus> {
    let reconciler = control.reconciler.borrow().clone();
    let acceptance = control.acceptance.borrow().clone();
    let stats = control.queues.stats();
    let commands = control.commands.counts();
    let set_aside = control.quarantine.stats();
    let quarantine_losses = control.quarantine.log().loss_records();
    let all = || stats.iter().map(|queue| &queue.stats).chain([&set_aside]);
    let unreported_losses = stats.iter().flat_map(|queue| &queue.loss_records).chain(&quarantine_losses);
    Json(GatewayStatus {
        device_id: control.gateway.to_string(),
        hostname: control.hostname.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        upstream: control.link.as_ref().map(|link| upstream(&control, &link.borrow())),
        deployment: deployment(&control, acceptance, &reconciler),
        modules: modules(&control, &reconciler),
        clients: clients(&control.clients),
        commands: CommandCounts {
            waiting: commands.waiting as u64,
            running: commands.running as u64,
            answers_unreported: commands.unreported as u64,
        },
        lost_by_cause: losses(all().map(|stats| &stats.lost), control.queues.known()),
        removed_files: removed_files(&control),
        lost_unreported: unreported_losses.map(|loss| loss.count).sum(),
        quarantine: quarantine(&set_aside, &quarantine_losses, control.quarantine.replayed()),
        queues: stats.iter().map(queue).collect(),
        unrouted: unrouted(&control.unrouted),
        acknowledged_and_partly_refused: control.unrouted.partly(),
        mqtt_server: control
            .server
            .counts()
            .all()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
    })
}

fn deployment(control: &Control, acceptance: Acceptance, reconciler: &ReconcilerStatus) -> DeploymentState {
    let latest = control.deployments.history().current();
    DeploymentState {
        number: latest.as_ref().map_or(0, |latest| latest.number),
        state: latest.as_ref().map_or("", |latest| latest.phase.name()).to_owned(),
        reason: latest.and_then(|latest| latest.phase.reason().map(str::to_owned)),
        version: acceptance.versions.map(|versions| versions.edge_agent),
        problem: acceptance.problem,
        routes_refused: acceptance.routes_refused,
        warnings: acceptance.warnings,
        settled: reconciler.is_settled,
        code: reconciler.outcome.code,
        description: reconciler.outcome.description.clone(),
        plan: reconciler.plan.clone(),
    }
}

fn upstream(control: &Control, link: &LinkStatus) -> UpstreamStatus {
    let (host, port) = control.upstream.as_ref().map(Upstream::address).unwrap_or_default();
    let clock = upstream_offset();
    UpstreamStatus {
        kind: control.upstream.as_ref().map(|upstream| upstream.kind_name().to_owned()),
        address: format!("{host}:{port}"),
        connected: link.is_connected,
        since: rfc3339(link.since_ms),
        why: link.why.clone(),
        budget: budget(&control.meter),
        clock: clock.map(|offset| ClockOffset { ahead_ms: offset.ahead_ms, within_ms: offset.within_ms }),
    }
}

/// Who is connected.
fn clients(clients: &Clients) -> Vec<ClientState> {
    let client = |(identity, since_ms): (Identity, u64)| ClientState {
        id: identity.to_string(),
        since: rfc3339(since_ms),
        identity_conflict: clients.conflict(&identity).map(|conflict| IdentityConflict {
            takeovers: conflict.takeovers as u64,
            addresses: conflict.addresses.iter().map(ToString::to_string).collect(),
            is_proven: conflict.is_proven,
        }),
    };
    clients.connected().into_iter().map(client).collect()
}

fn queue(queue: &QueueStats) -> QueueState {
    let stats = &queue.stats;
    QueueState {
        name: queue.name.clone(),
        priority: queue.priority,
        headroom: match stats.headroom {
            Headroom::Enough => "enough",
            Headroom::Evicting => "evicting",
            Headroom::Refusing => "refusing",
        }
        .to_owned(),
        messages: stats.records,
        accepted: stats.next_sequence - 1,
        bytes: stats.bytes,
        oldest: stats.oldest_ms.map(shown_ms).map(rfc3339),
        expired: stats.expired,
        evicted: stats.evicted,
        refused: stats.refused,
        lost: known::with(LossCounts::default(), &stats.lost),
        loss_records: queue.loss_records.iter().map(unreported).collect(),
        written_per_payload_byte: (stats.payload_bytes > 0)
            .then(|| stats.written_bytes as f64 / stats.payload_bytes as f64),
        damaged_segments_set_aside: stats.set_aside,
    }
}

fn quarantine(stats: &Stats, loss_records: &[LossRecord], replayed: u64) -> QuarantineState {
    QuarantineState {
        messages: stats.records,
        bytes: stats.bytes,
        oldest: stats.oldest_ms.map(shown_ms).map(rfc3339),
        evicted: stats.lost.evicted,
        damaged: stats.lost.damaged,
        dropped: stats.lost.dropped,
        replayed,
        loss_records: loss_records.iter().map(unreported).collect(),
    }
}

fn unrouted(unrouted: &Unrouted) -> UnroutedCounts {
    let (by_sender, of_other_senders) = unrouted.all();
    UnroutedCounts {
        messages: by_sender.values().sum::<u64>() + of_other_senders,
        by_sender: by_sender.iter().map(|(who, count)| (who.to_string(), *count)).collect(),
        of_other_senders,
    }
}

/// Every module of the manifest, present or not, and every other container of this gateway.
fn modules(control: &Control, reconciler: &ReconcilerStatus) -> BTreeMap<String, ModuleState> {
    let in_force = control.deployment.borrow().clone();
    let none = Desired::default();
    let desired = in_force.as_ref().map_or(&none, |deployment| &deployment.desired);
    let shown = |(id, state): (&ModuleId, report::ModuleState)| {
        let observed = reconciler.observed.modules.get(id);
        let assigned = desired.modules.get(id).map(|module| &module.spec);
        let image = observed.map(|observed| &observed.image).or(assigned.map(|spec| &spec.image));
        let shown = ModuleState {
            state: observed.map(state_text),
            status: state.status.name().to_owned(),
            reason: state.reason,
            next_try: state.next_try_ms.map(rfc3339),
            desired_status: assigned.map(|spec| spec.status.as_str().to_owned()),
            image: image.cloned(),
            started_at: observed.and_then(|observed| observed.started_at_ms).map(rfc3339),
            restarts: reconciler.restarts.count(id),
        };
        (id.to_string(), shown)
    };
    reconciler.progress(desired, now_ms()).modules().into_iter().map(shown).collect()
}

/// What logs have lost since they were made.
pub(super) fn losses<'a>(
    lost: impl Iterator<Item = &'a Lost>,
    of_removed: Option<&KnownQueues>,
) -> LossCounts {
    lost.fold(of_removed.map(KnownQueues::lost_of_removed).unwrap_or_default(), known::with)
}

/// What was found removed of what keeps no numbers of its own.
pub(super) fn removed_files(control: &Control) -> Vec<String> {
    let state = control.state.removed().map(RemovedState::consequence);
    let queues = control.queues.known().and_then(KnownQueues::consequence);
    state.into_iter().chain(clock::removed()).map(str::to_owned).chain(queues).collect()
}

/// What the link has cost since the day's beginning.
fn budget(meter: &Meter) -> BudgetStatus {
    let spent = meter
        .spent()
        .into_iter()
        .map(|spent| (spent.cause.name().to_owned(), SpentBytes { bytes: spent.bytes, limit: spent.limit }));
    BudgetStatus { spent: spent.collect(), resets_in_seconds: meter.resets_in_ms().div_ceil(1000) }
}

/// A loss that was not reported to central yet.
fn unreported(loss: &LossRecord) -> UnreportedLoss {
    UnreportedLoss {
        cause: loss.cause.name().to_owned(),
        sender: sender_of_tag(&loss.tag).1.to_owned(),
        first_sequence: loss.first,
        last_sequence: loss.last,
        count: loss.count,
        from: rfc3339(shown_ms(loss.from_ms)),
        until: rfc3339(shown_ms(loss.until_ms)),
    }
}

fn state_text(module: &ObservedModule) -> String {
    match module.state {
        ContainerState::Running if module.is_unhealthy => "unhealthy".into(),
        ContainerState::Running => "running".into(),
        ContainerState::Created => "created".into(),
        ContainerState::Restarting => "restarting".into(),
        ContainerState::Paused => "paused".into(),
        ContainerState::Exited { code } => format!("exited ({code})"),
        ContainerState::Dead => "dead".into(),
    }
}
