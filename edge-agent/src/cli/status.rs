//! The text of `edge-agent status`, `list` and `refusals`.

use std::collections::BTreeMap;

use edge_hub::terminal::{Output, Table, Tone};
use schemas::gateway_status::{
    BudgetStatus, ClockOffset, CommandCounts, DeploymentState, GatewayStatus, ModuleState, QuarantineState,
    QueueState, RefusedClient, SpentBytes, UnroutedCounts, UpstreamStatus,
};

use super::text::or_dash;

pub(super) fn modules_text(modules: &BTreeMap<String, ModuleState>, output: Output) -> String {
    if modules.is_empty() {
        return "no modules".to_owned();
    }
    let mut table = Table::new(&["MODULE", "STATUS", "RESTARTS", "IMAGE", "REASON"]);
    for (name, module) in modules {
        let next = module.next_try.as_ref().map(|at| format!("; next try {at}")).unwrap_or_default();
        let tone = match module.status.as_str() {
            "running" => Tone::Good,
            "stopped" | "" => Tone::Plain,
            _ => Tone::Bad,
        };
        let cells = [
            name.clone(),
            module.status.clone(),
            module.restarts.to_string(),
            or_dash(&module.image).to_owned(),
            format!("{}{next}", module.reason),
        ];
        let tones = [Tone::Plain, tone, Tone::Plain, Tone::Plain, Tone::Plain];
        table.row(tones.into_iter().zip(cells));
    }
    table.aligned(output)
}

pub(super) fn refusals_text(refusals: &[RefusedClient]) -> String {
    let lines = refusals.iter().map(|refused| {
        let who = if refused.identity.is_empty() { "(did not say who)" } else { &refused.identity };
        let proof = refused.proof.as_ref().map(|proof| format!("; showed {proof}")).unwrap_or_default();
        let RefusedClient { why, from, protocol, first, last, count, .. } = refused;
        format!("{last} {who} from {from} ({protocol}), {count} times since {first}: {why}{proof}")
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "no client was refused since the daemon started".to_owned()
    } else {
        lines.join("\n")
    }
}

/// What has a limit.
fn budget_lines(budget: &BudgetStatus) -> Vec<String> {
    let hours = budget.resets_in_seconds.div_ceil(3600);
    let line = |(cause, spent): (&String, &SpentBytes)| {
        let (bytes, limit) = (spent.bytes, spent.limit?);
        let used_up = if bytes >= limit { "; USED UP: it waits" } else { "" };
        Some(format!("budget      {cause}: {bytes} of {limit} bytes{used_up}; a new day within {hours} h"))
    };
    budget.spent.iter().filter_map(line).collect()
}

pub(super) fn status_text(status: &GatewayStatus, output: Output) -> String {
    let upstream = status.upstream.as_ref();
    let mut lines = vec![
        format!("gateway     {} ({})", status.device_id, status.hostname),
        upstream_line(upstream),
        deployment_line(&status.deployment),
        format!("clients     {}", status.clients.len()),
    ];
    lines.extend(upstream.and_then(|upstream| upstream.clock).map(clock_line));
    lines.extend(manifest_lines(&status.deployment));
    lines.extend(commands_line(&status.commands));
    lines.extend(upstream.map(|upstream| budget_lines(&upstream.budget)).unwrap_or_default());
    lines.extend(quarantine_line(&status.quarantine));
    lines.extend(status.queues.iter().flat_map(queue_lines));
    lines.extend(lost_line(status));
    lines.extend(status.removed_files.iter().map(|removed| format!("files       REMOVED: {removed}")));
    lines.extend(unrouted_line(&status.unrouted));
    if status.acknowledged_and_partly_refused != 0 {
        lines.push(format!(
            "refused     {} messages that the queues of only some of their routes could hold",
            status.acknowledged_and_partly_refused
        ));
    }
    lines.extend(server_line(&status.mqtt_server));
    let mut lines: Vec<String> = lines.iter().map(|line| alarming(output, line)).collect();
    lines.push(modules_text(&status.modules, output));
    lines.join("\n")
}

fn upstream_line(upstream: Option<&UpstreamStatus>) -> String {
    let Some(UpstreamStatus { kind, connected, since, why, .. }) = upstream else {
        return format!("{:<12}none configured", "central");
    };
    let state =
        if *connected { format!("connected since {since}") } else { format!("AWAY since {since}: {why}") };
    format!("{:<12}{state}", kind.as_deref().unwrap_or("central"))
}

fn deployment_line(deployment: &DeploymentState) -> String {
    let in_force = match (deployment.version, &deployment.problem) {
        (None, _) => "none yet".to_owned(),
        (Some(version), Some(problem)) if deployment.state == "rolledBack" => {
            format!("version {version} FAILED: {problem}")
        }
        (Some(version), Some(problem)) => format!("version {version} REFUSED: {problem}"),
        (Some(version), None) if deployment.state == "held" => {
            let reason = deployment.reason.as_deref().unwrap_or_default();
            format!("version {version} FAILED and is held: {reason}")
        }
        (Some(version), None) if deployment.settled && deployment.state == "probation" => {
            format!("version {version}: its modules run and are watched (probation)")
        }
        (Some(version), None) if deployment.settled && deployment.description.is_empty() => {
            format!("version {version}: everything as wanted")
        }
        (Some(version), None) => format!("version {version}: {}", deployment.description),
    };
    format!("deployment  {in_force}")
}

fn clock_line(clock: ClockOffset) -> String {
    let secs = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let direction = if clock.ahead_ms < 0 { "behind" } else { "ahead of" };
    let (offset, within) = (secs(clock.ahead_ms.unsigned_abs()), secs(clock.within_ms.max(100)));
    format!("clock       {offset} {direction} central, measured to {within}")
}

fn manifest_lines(deployment: &DeploymentState) -> Vec<String> {
    let refused = deployment.routes_refused.iter().map(|refused| format!("route       REFUSED: {refused}"));
    let warnings = deployment.warnings.iter().map(|warning| format!("manifest    {warning}"));
    refused.chain(warnings).collect()
}

fn commands_line(commands: &CommandCounts) -> Option<String> {
    let CommandCounts { waiting, running, answers_unreported } = commands;
    (*commands != CommandCounts::default()).then(|| {
        format!(
            "commands    {waiting} wait for their targets, {running} run, {answers_unreported} answers that central does not have"
        )
    })
}

fn quarantine_line(quarantine: &QuarantineState) -> Option<String> {
    let QuarantineState { messages, oldest, evicted, damaged, dropped, replayed, .. } = quarantine;
    [messages, evicted, damaged, dropped, replayed].iter().any(|count| **count != 0).then(|| {
        format!(
            "quarantine  {messages} messages that upstream refused, oldest {}; since it was made: put back {replayed}, \
             dropped {dropped}, evicted {evicted}, damaged {damaged}",
            or_dash(oldest),
        )
    })
}

fn queue_lines(queue: &QueueState) -> Vec<String> {
    let (name, lost) = (&queue.name, &queue.lost);
    let mut lines = vec![format!(
        "queue       {name}: {} messages wait, oldest {}; {} bytes on disk; lost since it was made: expired {}, \
         evicted {}, damaged {}, refused {}, dropped {}, lost by central's restore {}",
        queue.messages,
        or_dash(&queue.oldest),
        queue.bytes,
        lost.expired,
        lost.evicted,
        lost.damaged,
        lost.refused,
        lost.dropped,
        lost.central_restored
    )];
    match queue.headroom.as_str() {
        "refusing" => lines.push(format!("queue       {name}: FULL: it refuses new messages")),
        "evicting" => lines
            .push(format!("queue       {name}: nearly full: its oldest messages are dropped for new ones")),
        _ => {}
    }
    for loss in &queue.loss_records {
        let sender = if loss.sender.is_empty() { "senders unknown or many" } else { &loss.sender };
        lines.push(format!(
            "lost        {name}: {} {} of {sender}, within sequences {} to {}; central does not know yet",
            loss.count, loss.cause, loss.first_sequence, loss.last_sequence
        ));
    }
    lines
}

fn lost_line(status: &GatewayStatus) -> Option<String> {
    let lost = status.lost_by_cause.by_cause().into_iter().filter(|(_, count)| *count != 0);
    let lost: Vec<String> = lost.map(|(cause, count)| format!("{cause} {count}")).collect();
    (!lost.is_empty()).then(|| {
        format!(
            "lost        in all queues: {}; {} not reported to central yet",
            lost.join(", "),
            status.lost_unreported
        )
    })
}

fn unrouted_line(unrouted: &UnroutedCounts) -> Option<String> {
    if unrouted.messages == 0 {
        return None;
    }
    let mut senders: Vec<(&String, &u64)> = unrouted.by_sender.iter().collect();
    senders.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let most: Vec<String> = senders.iter().take(5).map(|(who, count)| format!("{who} {count}")).collect();
    Some(format!(
        "unrouted    {} messages that no route takes were acknowledged and dropped; most of {}",
        unrouted.messages,
        most.join(", ")
    ))
}

fn server_line(counts: &BTreeMap<String, u64>) -> Option<String> {
    let counts = counts.iter().filter(|(_, count)| **count != 0);
    let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
    (!counts.is_empty()).then(|| format!("MQTT server {}", counts.join(", ")))
}

/// A line of `status` in colour, if it reports something broken: its first word occurs in no other line.
fn alarming(output: Output, line: &str) -> String {
    let is_bad = ["AWAY since", "REFUSED", "FAILED", "FULL", "USED UP", "REMOVED"]
        .iter()
        .any(|word| line.contains(word));
    output.toned(if is_bad { Tone::Bad } else { Tone::Plain }, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both files were written by the version before the status had types.
    #[test]
    fn the_text_of_status_is_as_it_was() {
        let sample = include_bytes!("../../../schemas/tests/data/gateway-status.json");
        let status: GatewayStatus = serde_json::from_slice(sample).unwrap();
        let text = status_text(&status, Output::Plain);
        assert_eq!(text.trim_end(), include_str!("status.golden.txt").trim_end());
    }
}
