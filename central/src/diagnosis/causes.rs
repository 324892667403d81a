//! Why is it silent? One function from facts to causes, each with its evidence and what mends it.
//!
//! Pure: no clock, no I/O. The API, the console and `central device why` give what [`causes`] makes. What decides alone comes first.

#[cfg(test)]
mod tests;

use schemas::timestamp::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;

use super::refusal::{Attempt, Refusal};

/// Causes of one kind that are listed one by one.
const SAME_MAX: usize = 5;
/// A connected device that has sent nothing for so long is reported.
const QUIET_MS: u64 = 3_600_000;

/// What is known of a device, for the question why nothing comes from it.
#[derive(Debug, Clone, Default)]
pub struct DiagnosisFacts {
    /// Whether it is a gateway.
    pub is_gateway: bool,
    /// The time of the question, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// An operator blocked it.
    pub is_blocked: bool,
    /// It enrolled and waits for an operator's approval.
    pub is_waiting: bool,
    /// When it last enrolled itself.
    pub enrolled_ms: Option<u64>,
    /// Since when it is connected.
    pub connected_since_ms: Option<u64>,
    /// When it last came or went.
    pub last_seen_ms: Option<u64>,
    /// When its last message was received.
    pub last_message_ms: Option<u64>,
    /// The gateway that it is behind.
    pub gateway: Option<GatewayKnown>,
    /// Its attempts to connect that were refused, the last ones first.
    pub attempts: Vec<Attempt>,
    /// Two clients use its identity.
    pub conflict: Option<ConflictKnown>,
    /// Modules of a gateway that its manifest wants running and that do not run.
    pub stopped_modules: Vec<StoppedModule>,
    /// What a gateway finds wrong with itself.
    pub findings: Vec<KnownFinding>,
    /// Messages that were lost since yesterday.
    pub losses: Vec<KnownLoss>,
    /// The last message whose body is no JSON object.
    pub undecodable: Option<Undecodable>,
    /// The last message that has a time which is not believed.
    pub wrong_time: Option<WrongTime>,
    /// Numbers that are not charted, because there are too many names: how many, and the last name.
    pub names_left_out: Option<(u64, String)>,
}

/// The gateway of a device.
#[derive(Debug, Clone, Default)]
pub struct GatewayKnown {
    pub id: String,
    /// An operator blocked it.
    pub is_blocked: bool,
    /// Whether it is connected.
    pub is_connected: bool,
    /// When it last came or went.
    pub last_seen_ms: Option<u64>,
}

/// Two clients that take one identity's connection from each other.
#[derive(Debug, Clone, Default)]
pub struct ConflictKnown {
    /// How often.
    pub takeovers: u64,
    /// From where.
    pub addresses: Vec<String>,
    /// When last.
    pub last_ms: u64,
}

/// A module that should run.
#[derive(Debug, Clone, Default)]
pub struct StoppedModule {
    pub name: String,
    /// As its gateway reports it; `notReported` when it has not.
    pub status: String,
    /// The gateway's text of the reason.
    pub reason: Option<String>,
    /// When it is started again, in RFC 3339.
    pub next_try: Option<String>,
}

/// A finding of `edge-agent check` on a gateway.
#[derive(Debug, Clone, Default)]
pub struct KnownFinding {
    /// The check.
    pub id: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub mend: String,
}

/// Messages that a gateway's queue lost.
#[derive(Debug, Clone, Default)]
pub struct KnownLoss {
    /// As in the loss ledger.
    pub cause: String,
    /// The queue's name.
    pub queue: String,
    /// How many.
    pub count: u64,
    /// When the last was lost.
    pub until_ms: u64,
}

/// A body that cannot be charted.
#[derive(Debug, Clone, Default)]
pub struct Undecodable {
    pub message: i64,
    /// When it was accepted.
    pub at_ms: u64,
    /// What the parser says, with the place.
    pub error: String,
    /// The content encoding that it states.
    pub encoding: Option<String>,
}

/// A time that is not believed.
#[derive(Debug, Clone, Default)]
pub struct WrongTime {
    /// As the device wrote it.
    pub said: String,
    /// When its gateway or central accepted the message.
    pub enqueued_ms: u64,
}

/// How sure a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Certainty {
    /// It was seen.
    Certain,
    /// It follows from what was not seen.
    Likely,
}

/// What shows a cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Evidence {
    /// When; null when it has no time of its own.
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// What.
    pub text: String,
}

/// What ends a cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Mend {
    /// What to do.
    pub text: String,
    /// What the console does for it: `unblock`, `approve`, `openGateway`, `openConnect`, `openModules`, `openRaw` or `openLosses`.
    pub action: Option<&'static str>,
    /// A command line for it.
    pub command: Option<String>,
}

/// Why a device is silent, or not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cause {
    /// The kind of cause.
    pub id: &'static str,
    /// The cause in one sentence.
    pub sentence: String,
    /// How sure it is.
    pub certainty: Certainty,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub mend: Mend,
}

impl Cause {
    fn new(id: &'static str, certainty: Certainty, sentence: impl Into<String>, mend: &str) -> Self {
        let mend = Mend { text: mend.to_owned(), action: None, command: None };
        Self { id, sentence: sentence.into(), certainty, evidence: Vec::new(), mend }
    }

    fn shown(mut self, at_ms: Option<u64>, text: impl Into<String>) -> Self {
        self.evidence.push(Evidence { at: at_ms.map(rfc3339), text: text.into() });
        self
    }

    fn by(mut self, action: &'static str) -> Self {
        self.mend.action = Some(action);
        self
    }

    fn with_command(mut self, command: String) -> Self {
        self.mend.command = Some(command);
        self
    }
}

/// The answer for a terminal.
pub fn text(verdict: &str, causes: &[Cause]) -> String {
    let mut lines = vec![format!("verdict: {verdict}")];
    if causes.is_empty() {
        lines.push("Nothing is known to be wrong.".to_owned());
    }
    for cause in causes {
        let likely = if cause.certainty == Certainty::Likely { " (likely)" } else { "" };
        lines.push(format!("\n{}{likely}: {}", cause.id, cause.sentence));
        for Evidence { at, text } in &cause.evidence {
            lines.push(match at {
                Some(at) => format!("  {at}  {text}"),
                None => format!("  {text}"),
            });
        }
        lines.push(format!("  → {}", cause.mend.text));
        lines.extend(cause.mend.command.iter().map(|command| format!("    {command}")));
    }
    lines.join("\n")
}

/// The causes that follow from facts, the decisive ones first; none when nothing is known to be wrong.
pub fn causes(facts: &DiagnosisFacts) -> Vec<Cause> {
    let mut causes = Vec::new();
    causes.extend(registration(facts));
    causes.extend(serving_gateway(facts));
    if facts.connected_since_ms.is_none() {
        causes.extend(attempts(facts));
        // What was refused or is blocked explains the silence; a guess beside it would only distract.
        if causes.is_empty() {
            causes.extend(absence(facts));
        }
    }
    causes.extend(conflict(facts));
    causes.extend(stopped_modules(facts));
    causes.extend(findings(facts));
    causes.extend(losses(facts));
    causes.extend(contents(facts));
    // Every other cause may be the reason why it is quiet.
    if causes.is_empty() {
        causes.extend(quiet(facts));
    }
    causes
}

fn registration(facts: &DiagnosisFacts) -> Option<Cause> {
    if facts.is_blocked {
        let mend = "Unblock it; it connects again by itself.";
        let cause = Cause::new("blocked", Certainty::Certain, "An operator blocked it.", mend).by("unblock");
        let refused = facts.attempts.iter().find(|attempt| attempt.refusal == Refusal::Blocked);
        return Some(match refused {
            Some(attempt) => cause.shown(Some(attempt.last_ms), attempt.text()),
            None => cause,
        });
    }
    facts.is_waiting.then(|| {
        let sentence = "It enrolled and waits for an operator's approval.";
        let mend = "Approve it, and it connects by itself; reject it if it is none of yours.";
        let cause = Cause::new("waiting-for-approval", Certainty::Certain, sentence, mend).by("approve");
        facts.enrolled_ms.iter().fold(cause, |cause, at_ms| {
            cause.shown(Some(*at_ms), "it enrolled, with a right proof of its group")
        })
    })
}

fn serving_gateway(facts: &DiagnosisFacts) -> Option<Cause> {
    let gateway = facts.gateway.as_ref().filter(|gateway| !gateway.is_connected)?;
    if facts.connected_since_ms.is_some() {
        return None;
    }
    let id = &gateway.id;
    let (cause, mend) = if gateway.is_blocked {
        ("gateway-blocked", "Unblock the gateway.")
    } else {
        ("gateway-down", "Find out why the gateway is away; what its devices send waits there.")
    };
    let state = if gateway.is_blocked { "blocked" } else { "not connected" };
    let sentence =
        format!("Its gateway `{id}` is {state}, so central receives nothing from what is behind it.");
    let shown = match gateway.last_seen_ms {
        Some(_) => "the gateway was last seen",
        None => "the gateway has never connected",
    };
    Some(
        Cause::new(cause, Certainty::Certain, sentence, mend)
            .shown(gateway.last_seen_ms, shown)
            .by("openGateway")
            .with_command(format!("central device why {id}")),
    )
}

/// Attempts that were refused since the device was there last: the last of each kind.
fn attempts(facts: &DiagnosisFacts) -> Vec<Cause> {
    let mut kinds = Vec::new();
    let recent = facts.attempts.iter().filter(|attempt| Some(attempt.last_ms) > facts.last_seen_ms);
    // Listed above, or of a time before it was unblocked or approved.
    let is_past = |attempt: &&Attempt| matches!(attempt.refusal, Refusal::Blocked | Refusal::NotApproved);
    for attempt in recent.filter(|attempt| !is_past(attempt)) {
        if !kinds.contains(&attempt.refusal) {
            kinds.push(attempt.refusal);
        }
    }
    let cause = |refusal: &Refusal| {
        let of_kind = || facts.attempts.iter().filter(|attempt| attempt.refusal == *refusal);
        let (id, sentence, mend) = refusal.texts();
        let cause = Cause::new(id, Certainty::Certain, sentence, mend).by("openConnect");
        of_kind()
            .take(SAME_MAX)
            .fold(cause, |cause, attempt| cause.shown(Some(attempt.last_ms), attempt.text()))
    };
    kinds.iter().take(SAME_MAX).map(cause).collect()
}

fn absence(facts: &DiagnosisFacts) -> Option<Cause> {
    let Some(last_seen_ms) = facts.last_seen_ms else {
        let mend = "Start it with the values of its connect page: host name, device id and key. Check that it reaches the port.";
        let where_to = match &facts.gateway {
            Some(gateway) => format!("Neither central nor gateway `{}` has seen it try", gateway.id),
            None => "central has not seen it try".to_owned(),
        };
        let sentence =
            format!("It has never connected. {where_to}, so it is off, or does not reach the listener.");
        return Some(Cause::new("never-connected", Certainty::Likely, sentence, mend).by("openConnect"));
    };
    let mend = if facts.is_gateway {
        "Check its power and its line; on it, `edge-agent check` says what is wrong. What its devices send waits there."
    } else {
        "Check its power and its network."
    };
    let sentence = "Its connection ended, and it has not tried again: it is off, or its line is down.";
    let cause = Cause::new("link-down", Certainty::Likely, sentence, mend);
    Some(cause.shown(Some(last_seen_ms), "it was last seen"))
}

fn conflict(facts: &DiagnosisFacts) -> Option<Cause> {
    let ConflictKnown { takeovers, addresses, last_ms } = facts.conflict.as_ref()?;
    let mend =
        "Give each device an identity of its own; look for a copied disk or an old device that still runs.";
    let sentence = "Two clients use its identity and take the connection from each other.";
    let from = addresses.join(", ");
    let cause = Cause::new("identity-conflict", Certainty::Certain, sentence, mend);
    Some(cause.shown(Some(*last_ms), format!("{takeovers} takeovers, from {from}")))
}

fn stopped_modules(facts: &DiagnosisFacts) -> Vec<Cause> {
    let cause = |module: &StoppedModule| {
        let StoppedModule { name, status, reason, next_try } = module;
        let sentence = match reason {
            Some(reason) => format!("Module `{name}` does not run: {reason}"),
            None => format!("Module `{name}` does not run; its gateway reports it as {status}."),
        };
        let mend = "Read its log and correct its manifest.";
        let cause = Cause::new("module-not-running", Certainty::Certain, sentence, mend).by("openModules");
        let cause =
            cause.shown(None, format!("status {status}")).with_command(format!("edge-agent logs {name}"));
        match next_try {
            Some(next_try) => cause.shown(None, format!("it is started again at {next_try}")),
            None => cause,
        }
    };
    facts.stopped_modules.iter().take(SAME_MAX).map(cause).collect()
}

/// A gateway's own findings; those about clocks and routes have names of their own.
fn findings(facts: &DiagnosisFacts) -> Vec<Cause> {
    let is_serious = |finding: &&KnownFinding| {
        finding.level == "error"
            || (finding.level == "warn"
                && ["clock", "clock-offset", "unrouted"].contains(&finding.id.as_str()))
    };
    let cause = |finding: &KnownFinding| {
        let (id, sentence) = match finding.id.as_str() {
            "clock" | "clock-offset" => {
                ("clock-off", "Its clock is wrong: tokens and times that depend on it are refused.")
            }
            "unrouted" => ("route-missing", "No route of its manifest takes some of its messages."),
            _ => ("gateway-finding", "It finds something wrong with itself."),
        };
        Cause::new(id, Certainty::Certain, sentence, &finding.mend)
            .shown(None, finding.evidence.clone())
            .with_command("edge-agent check".to_owned())
    };
    facts.findings.iter().filter(is_serious).take(SAME_MAX).map(cause).collect()
}

fn losses(facts: &DiagnosisFacts) -> Vec<Cause> {
    let cause = |loss: &KnownLoss| {
        let KnownLoss { cause, queue, count, until_ms } = loss;
        let (id, sentence, mend) = match cause.as_str() {
            "evicted" | "refused" => (
                "queue-full",
                "A queue on its gateway was full, and messages were lost.",
                "Restore the gateway's line, or raise [buffer] max_bytes in its edge.toml.",
            ),
            "expired" => (
                "messages-expired",
                "Messages waited on its gateway until their time to live was over.",
                "Restore the gateway's line, or raise timeToLiveSecs in its manifest.",
            ),
            "damaged" => (
                "queue-damaged",
                "Messages on its gateway's disk were damaged.",
                "Check the disk of the gateway.",
            ),
            _ => (
                "messages-lost",
                "Messages were lost on their way.",
                "The loss ledger has each range and its cause.",
            ),
        };
        let shown = format!("{count} messages of queue {queue}: {cause}");
        Cause::new(id, Certainty::Certain, sentence, mend).shown(Some(*until_ms), shown).by("openLosses")
    };
    facts.losses.iter().take(SAME_MAX).map(cause).collect()
}

/// What arrives and cannot be used.
fn contents(facts: &DiagnosisFacts) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(Undecodable { message, at_ms, error, encoding }) = &facts.undecodable {
        let mend =
            "Send a JSON object in UTF-8, or state the encoding in `$.ce`; the raw data has the whole body.";
        let sentence = "Data arrives that is no JSON object, so it has no names and no values.";
        let cause = Cause::new("payload-undecodable", Certainty::Certain, sentence, mend).by("openRaw");
        let cause = cause.shown(Some(*at_ms), format!("message {message}: {error}"));
        causes.push(match encoding {
            Some(encoding) => cause.shown(None, format!("it states the content encoding `{encoding}`")),
            None => cause,
        });
    }
    if let Some(WrongTime { said, enqueued_ms }) = &facts.wrong_time {
        let mend = "Set the device's clock, or leave the creation time out of its messages.";
        let sentence = "Its clock is wrong: the time that it writes is not believed, and that of its gateway or of central counts.";
        let cause = Cause::new("clock-off", Certainty::Certain, sentence, mend);
        causes.push(cause.shown(Some(*enqueued_ms), format!("its message says `{said}`")));
    }
    if let Some((points, name)) = &facts.names_left_out {
        let mend = "Send the same names in every message, and what differs as values.";
        let sentence = "It sends more names than are charted; those beyond are in its raw data only.";
        let cause = Cause::new("too-many-names", Certainty::Certain, sentence, mend).by("openRaw");
        causes
            .push(cause.shown(None, format!("{points} numbers were left out, the last one under `{name}`")));
    }
    causes
}

fn quiet(facts: &DiagnosisFacts) -> Option<Cause> {
    let since_ms = facts.connected_since_ms?;
    // The time for which it was away is no silence of a connected device.
    let heard_ms = facts.last_message_ms.unwrap_or(since_ms).max(since_ms);
    if facts.is_gateway || facts.now_ms.saturating_sub(heard_ms) < QUIET_MS {
        return None;
    }
    let mend = "Check that its program sends, and to which topic.";
    let sentence = "It is connected, and has sent nothing for an hour or more.";
    let cause = Cause::new("connected-and-quiet", Certainty::Likely, sentence, mend);
    let cause = cause.shown(Some(since_ms), "it connected");
    Some(match facts.last_message_ms {
        Some(last_ms) => cause.shown(Some(last_ms), "its last message"),
        None => cause.shown(None, "it has never sent a message"),
    })
}
