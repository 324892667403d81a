//! The text of `edge-agent status`, `list` and `refusals`.

use edge_hub::terminal::{Output, Table, Tone};
use serde_json::Value;

use super::text::text_of;

pub(super) fn modules_text(modules: &Value) -> String {
    let Some(modules) = modules.as_object().filter(|modules| !modules.is_empty()) else {
        return "no modules".to_owned();
    };
    let mut table = Table::new(&["MODULE", "STATUS", "RESTARTS", "IMAGE", "REASON"]);
    for (name, module) in modules {
        let next = module["nextTry"].as_str().map(|at| format!("; next try {at}")).unwrap_or_default();
        let tone = match module["status"].as_str() {
            Some("running") => Tone::Good,
            Some("stopped") | None => Tone::Plain,
            Some(_) => Tone::Bad,
        };
        let reason = format!("{}{next}", text_of(&module["reason"]));
        let cells = [
            name.clone(),
            text_of(&module["status"]),
            text_of(&module["restarts"]),
            text_of(&module["image"]),
            reason,
        ];
        let tones = [Tone::Plain, tone, Tone::Plain, Tone::Plain, Tone::Plain];
        table.row(tones.into_iter().zip(cells));
    }
    table.aligned(Output::of_stdout())
}

pub(super) fn refusals_text(refusals: &Value) -> String {
    let lines = refusals.as_array().into_iter().flatten().map(|refused| {
        let who = refused["identity"].as_str().filter(|who| !who.is_empty()).unwrap_or("(did not say who)");
        let proof = refused["proof"].as_str().map(|proof| format!("; showed {proof}")).unwrap_or_default();
        format!(
            "{} {who} from {} ({}), {} times since {}: {}{proof}",
            text_of(&refused["last"]),
            text_of(&refused["from"]),
            text_of(&refused["protocol"]),
            refused["count"],
            text_of(&refused["first"]),
            text_of(&refused["why"])
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "no client was refused since the daemon started".to_owned()
    } else {
        lines.join("\n")
    }
}

fn upstream_name(upstream: &Value) -> &str {
    match upstream["kind"].as_str() {
        Some("central") | None => "central",
        Some(kind) => kind,
    }
}

/// What has a limit.
fn budget_lines(budget: &Value) -> Vec<String> {
    let spent = budget["spent"].as_object().into_iter().flatten();
    spent
        .filter_map(|(cause, spent)| {
            let (bytes, limit) = (spent["bytes"].as_u64()?, spent["limit"].as_u64()?);
            let used_up = if bytes >= limit { "; USED UP: it waits" } else { "" };
            let hours = budget["resetsInSeconds"].as_u64().unwrap_or_default().div_ceil(3600);
            Some(format!(
                "budget      {cause}: {bytes} of {limit} bytes{used_up}; a new day within {hours} h"
            ))
        })
        .collect()
}

pub(super) fn status_text(status: &Value) -> String {
    let mut lines = vec![
        format!("gateway     {} ({})", text_of(&status["deviceId"]), text_of(&status["hostname"])),
        upstream_line(&status["upstream"]),
        deployment_line(&status["deployment"]),
        format!("clients     {}", status["clients"].as_array().map_or(0, Vec::len)),
    ];
    lines.extend(clock_line(&status["upstream"]["clock"]));
    lines.extend(manifest_lines(&status["deployment"]));
    lines.extend(commands_line(&status["commands"]));
    lines.extend(budget_lines(&status["upstream"]["budget"]));
    lines.extend(quarantine_line(&status["quarantine"]));
    for queue in status["queues"].as_array().into_iter().flatten() {
        lines.extend(queue_lines(queue));
    }
    lines.extend(lost_line(status));
    lines.extend(unrouted_line(&status["unrouted"]));
    if status["acknowledgedAndPartlyRefused"] != 0 {
        lines.push(format!(
            "refused     {} messages that only some of their routes had room for",
            status["acknowledgedAndPartlyRefused"]
        ));
    }
    lines.extend(server_line(&status["mqttServer"]));
    let output = Output::of_stdout();
    let mut lines: Vec<String> = lines.iter().map(|line| alarming(output, line)).collect();
    lines.push(modules_text(&status["modules"]));
    lines.join("\n")
}

fn upstream_line(upstream: &Value) -> String {
    let state = match (upstream.is_null(), upstream["connected"] == true) {
        (true, _) => "none configured".to_owned(),
        (_, true) => format!("connected since {}", text_of(&upstream["since"])),
        (_, false) => format!("AWAY since {}: {}", text_of(&upstream["since"]), text_of(&upstream["why"])),
    };
    format!("{:<12}{state}", upstream_name(upstream))
}

fn deployment_line(deployment: &Value) -> String {
    let in_force = match (&deployment["version"], &deployment["problem"]) {
        (Value::Null, _) => "none yet".to_owned(),
        (version, Value::String(problem)) => format!("version {version} REFUSED: {problem}"),
        (version, _) if deployment["settled"] == true => format!("version {version}: everything as wanted"),
        (version, _) => format!("version {version}: {}", text_of(&deployment["description"])),
    };
    format!("deployment  {in_force}")
}

fn clock_line(clock: &Value) -> Option<String> {
    let (ahead_ms, within_ms) = (clock["aheadMs"].as_i64()?, clock["withinMs"].as_u64()?);
    let secs = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let way = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let (offset, within) = (secs(ahead_ms.unsigned_abs()), secs(within_ms.max(100)));
    Some(format!("clock       {offset} {way} central, measured to {within}"))
}

fn manifest_lines(deployment: &Value) -> Vec<String> {
    let each = |key: &str| deployment[key].as_array().into_iter().flatten().map(text_of).collect::<Vec<_>>();
    let refused = each("routesRefused").into_iter().map(|refused| format!("route       REFUSED: {refused}"));
    let warnings = each("warnings").into_iter().map(|warning| format!("manifest    {warning}"));
    refused.chain(warnings).collect()
}

fn commands_line(commands: &Value) -> Option<String> {
    let has_some = ["waiting", "running", "answersNotTold"].iter().any(|key| commands[key] != 0);
    has_some.then(|| {
        format!(
            "commands    {} wait for their targets, {} run, {} answers that central does not have",
            commands["waiting"], commands["running"], commands["answersNotTold"]
        )
    })
}

fn quarantine_line(quarantine: &Value) -> Option<String> {
    let keys = ["messages", "evicted", "damaged", "dropped", "replayed"];
    keys.iter().any(|key| quarantine[key] != 0).then(|| {
        format!(
            "quarantine  {} messages that upstream refused, oldest {}; since it was made: put back {}, dropped {}, \
             evicted {}, damaged {}",
            quarantine["messages"],
            text_of(&quarantine["oldest"]),
            quarantine["replayed"],
            quarantine["dropped"],
            quarantine["evicted"],
            quarantine["damaged"]
        )
    })
}

fn queue_lines(queue: &Value) -> Vec<String> {
    let (name, lost) = (text_of(&queue["name"]), &queue["lost"]);
    let mut lines = vec![format!(
        "queue       {name}: {} messages wait, oldest {}; {} bytes on disk; lost since it was made: expired {}, \
         evicted {}, damaged {}, refused {}, dropped {}, lost by central's restore {}",
        queue["messages"],
        text_of(&queue["oldest"]),
        queue["bytes"],
        lost["expired"],
        lost["evicted"],
        lost["damaged"],
        lost["refused"],
        lost["dropped"],
        lost["central-restored"]
    )];
    match queue["room"].as_str() {
        Some("refusing") => lines.push(format!("queue       {name}: NO ROOM: it refuses what is new")),
        Some("evicting") => {
            lines.push(format!("queue       {name}: little room: older messages give way to its new ones"))
        }
        _ => {}
    }
    for gap in queue["gaps"].as_array().into_iter().flatten() {
        let sender = match text_of(&gap["sender"]) {
            sender if sender.is_empty() => "senders unknown or many".to_owned(),
            sender => sender,
        };
        lines.push(format!(
            "lost        {name}: {} {} of {sender}, within sequences {} to {}; central does not know yet",
            gap["count"],
            text_of(&gap["cause"]),
            gap["firstSequence"],
            gap["lastSequence"]
        ));
    }
    lines
}

fn lost_line(status: &Value) -> Option<String> {
    let lost = status["lostByCause"].as_object().into_iter().flatten();
    let lost: Vec<String> =
        lost.filter(|(_, count)| **count != 0).map(|(cause, count)| format!("{cause} {count}")).collect();
    let not_told = &status["lostNotTold"];
    (!lost.is_empty())
        .then(|| format!("lost        in all queues: {}; {not_told} not told central yet", lost.join(", ")))
}

fn unrouted_line(unrouted: &Value) -> Option<String> {
    if unrouted["messages"] == 0 {
        return None;
    }
    let mut senders: Vec<(u64, &String)> = unrouted["bySender"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(who, n)| (n.as_u64().unwrap_or(0), who))
        .collect();
    senders.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let most: Vec<String> = senders.iter().take(5).map(|(count, who)| format!("{who} {count}")).collect();
    Some(format!(
        "unrouted    {} messages that no route takes were acknowledged and dropped; most of {}",
        unrouted["messages"],
        most.join(", ")
    ))
}

fn server_line(counts: &Value) -> Option<String> {
    let counts: Vec<String> = counts
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count != 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    (!counts.is_empty()).then(|| format!("MQTT server {}", counts.join(", ")))
}

/// A line of `status` in colour, if it tells of something broken: these words are written for no other reason.
fn alarming(output: Output, line: &str) -> String {
    let is_bad = ["AWAY since", "REFUSED", "NO ROOM", "USED UP"].iter().any(|word| line.contains(word));
    output.toned(if is_bad { Tone::Bad } else { Tone::Plain }, line)
}
