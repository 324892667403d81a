//! Gathers what is known of a device, for [`crate::diagnosis`].

use edge_hub::refusals::Refused;
use rusqlite::Connection;
use schemas::body::decode;
use schemas::json::from_outside;
use schemas::names::{DeviceId, Identity};
use schemas::received_report::ReceivedReport;
use schemas::timestamp::parse_rfc3339;
use serde_json::Value;

use crate::diagnosis::causes::{
    ConflictKnown, DiagnosisFacts, GatewayKnown, KnownFinding, KnownLoss, StoppedModule, Undecodable,
    WrongTime,
};
use crate::diagnosis::device_state::DeviceState;
use crate::diagnosis::device_states::DeviceStates;
use crate::diagnosis::gateway_report;
use crate::diagnosis::refusal::{Attempt, Refusal};
use crate::error::{ServiceError, no_device};
use crate::store::grid::GridDevice;
use crate::store::telemetry_reading::{self, LiveMessage};
use crate::store::twins::Half;
use crate::store::{enrollments, grid, losses, series};
use crate::telemetry::message_values::{Stamp, members};

/// Losses of so long ago are reported.
const LOSSES_MS: u64 = 24 * 3_600_000;
/// Losses that are read.
const LOSSES_MAX: u32 = 200;
/// The newest messages are looked into.
const MESSAGES_MAX: u32 = 20;

/// The state of a device, and what is known of it. `refused` are the attempts that central refused; without them, those that a gateway
/// refused are left out too: their reader may see none.
///
/// # Errors
/// [`ServiceError::NotFound`], or the store's.
pub fn gather(
    c: &Connection,
    states: &DeviceStates,
    refused: Option<&[Refused]>,
    id: &DeviceId,
    now_ms: u64,
) -> Result<(DeviceState, DiagnosisFacts), ServiceError> {
    let device = grid::of_ids(c, [id])?.pop().ok_or_else(|| no_device(id))?;
    let state = states.of(c, &device)?;
    let connections = states.connections();
    let identity = Identity::device(id.clone());
    let gateway = device.gateway.as_ref().map(|(gateway, is_enabled)| (gateway.clone(), *is_enabled));
    let connected_since_ms = connections.since(&identity, gateway.as_ref().map(|(gateway, _)| gateway));
    let mut facts = DiagnosisFacts {
        is_gateway: device.is_gateway,
        now_ms,
        is_blocked: !device.is_enabled,
        is_waiting: device.is_waiting,
        enrolled_ms: enrollments::enrollment(c, id)?.map(|enrollment| enrollment.updated_ms),
        connected_since_ms,
        last_seen_ms: device.last_seen_ms,
        last_message_ms: telemetry_reading::last_received(c, id)?,
        attempts: refused.map(|refused| attempts_at_central(refused, id)).unwrap_or_default(),
        conflict: states.clients().conflict(&identity).map(|conflict| ConflictKnown {
            takeovers: conflict.takeovers as u64,
            addresses: conflict.addresses.iter().map(ToString::to_string).collect(),
            last_ms: conflict.last_ms,
        }),
        losses: known_losses(c, id, now_ms)?,
        ..DiagnosisFacts::default()
    };
    if let Some((gateway, is_enabled)) = gateway {
        if refused.is_some() {
            let reported = gateway_report::section(c, &gateway, Half::Reported)?;
            facts.attempts.extend(attempts_at(&gateway, reported, id));
        }
        facts.gateway = Some(serving_gateway(c, states, gateway, is_enabled)?);
    }
    if device.is_gateway {
        add_report(c, &device, &mut facts)?;
    }
    facts.attempts.sort_by_key(|attempt| std::cmp::Reverse(attempt.last_ms));
    for message in telemetry_reading::newest_live(c, id, MESSAGES_MAX)? {
        add_message(&message, &mut facts);
    }
    let left_out = series::refused(c, id)?;
    facts.names_left_out = left_out.last().map(|last| {
        (left_out.iter().map(|refused| refused.points).sum(), last.name.chars().take(100).collect())
    });
    Ok((state, facts))
}

fn serving_gateway(
    c: &Connection,
    states: &DeviceStates,
    gateway: DeviceId,
    is_enabled: bool,
) -> rusqlite::Result<GatewayKnown> {
    let last_seen_ms = grid::of_ids(c, [&gateway])?.pop().and_then(|device| device.last_seen_ms);
    let is_connected = states.is_connected(&gateway);
    Ok(GatewayKnown { id: gateway.into(), is_blocked: !is_enabled, is_connected, last_seen_ms })
}

fn attempts_at_central(refused: &[Refused], id: &DeviceId) -> Vec<Attempt> {
    let of_it = refused.iter().filter(|refused| refused.identity == id.as_str());
    let attempt = |refused: &Refused| Attempt {
        refusal: Refusal::of(&refused.why),
        why: refused.why.clone(),
        from: refused.address.to_string(),
        at: "central".to_owned(),
        last_ms: refused.last_ms,
        count: refused.count,
        proof: refused.proof.clone(),
    };
    of_it.map(attempt).collect()
}

fn attempts_at(gateway: &DeviceId, reported: ReceivedReport, id: &DeviceId) -> Vec<Attempt> {
    let refusals = reported.health.map(|health| health.refusals).unwrap_or_default();
    let of_it = refusals.into_iter().filter(|refusal| refusal.identity == id.as_str());
    let attempt = |refusal: schemas::status::RefusalReport| Attempt {
        refusal: Refusal::of(&refusal.why),
        last_ms: parse_rfc3339(&refusal.last).unwrap_or(0),
        why: refusal.why,
        from: refusal.from,
        at: format!("gateway {gateway}"),
        count: refusal.count,
        proof: refusal.proof,
    };
    of_it.map(attempt).collect()
}

/// What a gateway reports of its modules and of itself.
fn add_report(c: &Connection, gateway: &GridDevice, facts: &mut DiagnosisFacts) -> rusqlite::Result<()> {
    let reported = gateway_report::section(c, &gateway.id, Half::Reported)?;
    let desired = gateway_report::section(c, &gateway.id, Half::Desired)?;
    let modules = desired.modules.unwrap_or_default();
    for name in modules.into_iter().filter(|(_, desired)| desired.shall_run()).map(|(name, _)| name) {
        let module = reported.module(&name).cloned().unwrap_or_default();
        if !module.is_running() {
            facts.stopped_modules.push(StoppedModule {
                name,
                status: module.runtime_status.unwrap_or_else(|| "notReported".to_owned()),
                reason: module.status_description,
                next_try: module.next_try_utc,
            });
        }
    }
    let findings = reported.health.map(|health| health.findings).unwrap_or_default();
    let known = |finding: schemas::status::FindingReport| KnownFinding {
        id: finding.id,
        level: finding.level,
        evidence: finding.evidence,
        mend: finding.mend,
    };
    facts.findings = findings.into_iter().map(known).collect();
    Ok(())
}

/// What was lost since yesterday, by cause and queue, the most first.
fn known_losses(c: &Connection, id: &DeviceId, now_ms: u64) -> rusqlite::Result<Vec<KnownLoss>> {
    let found = losses::between(c, id, now_ms.saturating_sub(LOSSES_MS), u64::MAX, LOSSES_MAX)?;
    let mut known: Vec<KnownLoss> = Vec::new();
    for loss in found {
        match known.iter_mut().find(|known| known.cause == loss.cause && known.queue == loss.queue) {
            Some(same) => {
                same.count = same.count.saturating_add(loss.count);
                same.until_ms = same.until_ms.max(loss.times_ms.1);
            }
            None => known.push(KnownLoss {
                cause: loss.cause,
                queue: loss.queue,
                count: loss.count,
                until_ms: loss.times_ms.1,
            }),
        }
    }
    known.sort_by_key(|known| std::cmp::Reverse(known.count));
    Ok(known)
}

/// What is wrong with a message; the newest one of each kind counts.
fn add_message(message: &LiveMessage, facts: &mut DiagnosisFacts) {
    let property = |name: &str| message.properties.get(name).map(|value| value.as_str().unwrap_or_default());
    let stamp = Stamp::new(message.enqueued_ms, message.received_ms, message.id).with(property);
    if facts.wrong_time.is_none()
        && let Some(said) = stamp.disbelieved()
    {
        let said = said.chars().take(100).collect();
        facts.wrong_time = Some(WrongTime { said, enqueued_ms: message.enqueued_ms });
    }
    let text = decode(stamp.encoding, &message.body);
    if facts.undecodable.is_none() && text.as_deref().and_then(members).is_none() {
        facts.undecodable = Some(Undecodable {
            message: message.id,
            at_ms: message.enqueued_ms,
            error: parser_error(text.as_deref()),
            encoding: stamp.encoding.map(|encoding| encoding.chars().take(100).collect()),
        });
    }
}

/// Why a body is no JSON object.
fn parser_error(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "it is not UTF-8, and not in the encoding that it states".to_owned();
    };
    match from_outside::<Value>(text.as_bytes()) {
        Err(error) => format!("it is not JSON: {error}"),
        Ok(Value::Object(_)) => "its names or values cannot be read".to_owned(),
        Ok(_) => "it is JSON, and no object".to_owned(),
    }
}
