//! `GET /status`: how the gateway is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use edge_buffer::{Gap, Headroom, Lost, Stats};
use edge_core::deploy::desired::Desired;
use edge_core::deploy::observed::{ContainerState, ObservedModule};
use edge_core::deploy::report::ModuleState;
use edge_hub::clients::Clients;
use schemas::names::{Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde_json::{Value, json};

use super::context::Control;
use crate::clock::{now_ms, upstream_offset};
use crate::config::Upstream;
use crate::deployment::status::ReconcilerStatus;
use crate::messages::quarantine::entry::sender_of_tag;
use crate::messages::queues::QueueStats;
use crate::upstream::meter::Meter;
use crate::upstream::status::LinkStatus;

pub(super) async fn status(State(control): State<Arc<Control>>) -> Json<Value> {
    let reconciler = control.reconciler.borrow().clone();
    let judgement = control.judgement.borrow().clone();
    let stats = control.queues.stats();
    let (by_sender, of_others) = control.unrouted.all();
    let commands = control.commands.counts();
    let set_aside = control.quarantine.stats();
    let quarantine_gaps = control.quarantine.log().gaps();
    let not_told = stats.iter().flat_map(|queue| &queue.gaps).chain(&quarantine_gaps);
    let not_told: u64 = not_told.map(|gap| gap.count).sum();
    Json(json!({
        "deviceId": control.gateway,
        "hostname": control.hostname,
        "version": env!("CARGO_PKG_VERSION"),
        "upstream": control.link.as_ref().map(|link| upstream(&control, &link.borrow().clone())),
        "deployment": {
            "version": judgement.versions.map(|versions| versions.edge_agent),
            "problem": judgement.problem,
            "routesRefused": judgement.routes_refused,
            "warnings": judgement.warnings,
            "settled": reconciler.is_settled,
            "code": reconciler.outcome.code,
            "description": reconciler.outcome.description,
            "plan": reconciler.plan,
        },
        "modules": modules(&control, &reconciler),
        "clients": clients(&control.clients),
        "commands": {
            "waiting": commands.waiting,
            "running": commands.running,
            "answersNotTold": commands.untold,
        },
        "queues": stats.iter().map(queue).collect::<Vec<_>>(),
        "quarantine": quarantine(&set_aside, &quarantine_gaps, control.quarantine.replayed()),
        "lostByCause": lost_by_cause(stats.iter().map(|queue| &queue.stats).chain([&set_aside])),
        "lostNotTold": not_told,
        "unrouted": {
            "messages": by_sender.values().sum::<u64>() + of_others,
            "bySender": by_sender.iter().map(|(who, count)| (who.to_string(), *count)).collect::<BTreeMap<_, _>>(),
            "ofOtherSenders": of_others,
        },
        "acknowledgedAndPartlyRefused": control.unrouted.partly(),
        "mqttServer": control.server.counts().all().into_iter().collect::<BTreeMap<_, _>>(),
    }))
}

fn upstream(control: &Control, link: &LinkStatus) -> Value {
    let (host, port) = control.upstream.as_ref().map(Upstream::address).unwrap_or_default();
    json!({
        "kind": control.upstream.as_ref().map(Upstream::kind_name),
        "address": format!("{host}:{port}"),
        "connected": link.is_connected,
        "since": rfc3339(link.since_ms),
        "why": link.why,
        "budget": budget(&control.meter),
        "clock": upstream_offset()
            .map(|offset| json!({"aheadMs": offset.ahead_ms, "withinMs": offset.within_ms})),
    })
}

/// Who is connected.
fn clients(clients: &Clients) -> Vec<Value> {
    let client = |(identity, since_ms): (Identity, u64)| {
        let conflict = clients.conflict(&identity).map(
            |conflict| json!({"takeovers": conflict.takeovers, "addresses": conflict.addresses, "isProven": conflict.is_proven}),
        );
        json!({"id": identity.to_string(), "since": rfc3339(since_ms), "identityConflict": conflict})
    };
    clients.connected().into_iter().map(client).collect()
}

fn queue(queue: &QueueStats) -> Value {
    let stats = &queue.stats;
    json!({
        "name": queue.name,
        "priority": queue.priority,
        "room": match stats.room {
            Headroom::Enough => "enough",
            Headroom::Evicting => "evicting",
            Headroom::Refusing => "refusing",
        },
        "messages": stats.records,
        "accepted": stats.next_sequence - 1,
        "bytes": stats.bytes,
        "oldest": stats.oldest_ms.map(rfc3339),
        "expired": stats.expired,
        "evicted": stats.evicted,
        "refused": stats.refused,
        "lost": {
            "expired": stats.lost.expired,
            "evicted": stats.lost.evicted,
            "damaged": stats.lost.damaged,
            "refused": stats.lost.refused,
            "dropped": stats.lost.dropped,
            "central-restored": stats.lost.restored,
        },
        "gaps": queue.gaps.iter().map(gap_json).collect::<Vec<_>>(),
        "writtenPerPayloadByte": (stats.payload_bytes > 0)
            .then(|| stats.written_bytes as f64 / stats.payload_bytes as f64),
        "damagedSegmentsSetAside": stats.set_aside,
    })
}

fn quarantine(stats: &Stats, gaps: &[Gap], replayed: u64) -> Value {
    json!({
        "messages": stats.records,
        "bytes": stats.bytes,
        "oldest": stats.oldest_ms.map(rfc3339),
        "evicted": stats.lost.evicted,
        "damaged": stats.lost.damaged,
        "dropped": stats.lost.dropped,
        "replayed": replayed,
        "gaps": gaps.iter().map(gap_json).collect::<Vec<_>>(),
    })
}

/// Every module of the manifest, present or not, and every other container of this gateway.
fn modules(control: &Control, reconciler: &ReconcilerStatus) -> BTreeMap<String, Value> {
    let in_force = control.deployment.borrow().clone();
    let none = Desired::default();
    let desired = in_force.as_ref().map_or(&none, |deployment| &deployment.desired);
    let shown = |(id, state): (&ModuleId, ModuleState)| {
        let observed = reconciler.observed.modules.get(id);
        let wanted = desired.modules.get(id).map(|module| &module.spec);
        let shown = json!({
            "state": observed.map(state_text),
            "status": state.status,
            "reason": state.reason,
            "nextTry": state.next_try_ms.map(rfc3339),
            "desiredStatus": wanted.map(|spec| spec.status),
            "image": observed.map(|observed| &observed.image).or(wanted.map(|spec| &spec.image)),
            "startedAt": observed.and_then(|observed| observed.started_at_ms).map(rfc3339),
            "restarts": reconciler.restarts.count(id),
        });
        (id.to_string(), shown)
    };
    reconciler.progress(desired, now_ms()).modules().into_iter().map(shown).collect()
}

/// What all queues and the quarantine have lost since they were made.
fn lost_by_cause<'a>(stats: impl Iterator<Item = &'a Stats> + Clone) -> Value {
    let sum = |of: fn(&Lost) -> u64| stats.clone().map(|stats| of(&stats.lost)).sum::<u64>();
    json!({
        "expired": sum(|lost| lost.expired),
        "evicted": sum(|lost| lost.evicted),
        "refused": sum(|lost| lost.refused),
        "damaged": sum(|lost| lost.damaged),
        "dropped": sum(|lost| lost.dropped),
        "central-restored": sum(|lost| lost.restored),
    })
}

/// What the link has cost since the day's beginning.
fn budget(meter: &Meter) -> Value {
    let spent: BTreeMap<_, _> = meter
        .spent()
        .into_iter()
        .map(|spent| (spent.cause.name(), json!({"bytes": spent.bytes, "limit": spent.limit})))
        .collect();
    json!({"spent": spent, "resetsInSeconds": meter.resets_in_ms().div_ceil(1000)})
}

/// A loss that central has not been told yet.
fn gap_json(gap: &Gap) -> Value {
    json!({
        "cause": gap.cause.name(),
        "sender": sender_of_tag(&gap.tag).1,
        "firstSequence": gap.first,
        "lastSequence": gap.last,
        "count": gap.count,
        "from": rfc3339(gap.from_ms),
        "until": rfc3339(gap.until_ms),
    })
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
