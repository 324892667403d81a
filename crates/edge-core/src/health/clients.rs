//! Checks of clients: who cannot connect, and why.

use schemas::timestamp::rfc3339;

use super::facts::{Facts, RefusalFacts};
use super::verdict::{Verdict, error, first_of, ok, warn};

/// Refusals of the last hour are warned of.
const REFUSAL_SECS: u64 = 3_600;

pub(super) fn connections(facts: &Facts) -> Option<Verdict> {
    let daemon = facts.daemon.as_ref().filter(|daemon| daemon.connections_max > 0)?;
    let (clients, max) = (daemon.clients, daemon.connections_max);
    let evidence = format!("{clients} clients of at most {max}");
    let mend = "raise [listen] connections_max, or find out who connects more often than it should (`edge-agent status`)";
    if clients >= max {
        return error(format!("{evidence}: no further client can connect"), mend);
    }
    if clients.saturating_mul(10) >= max.saturating_mul(9) {
        return warn(evidence, mend);
    }
    ok(evidence)
}

pub(super) fn conflicts(facts: &Facts) -> Option<Verdict> {
    let conflicts = &facts.daemon.as_ref()?.conflicts;
    if conflicts.is_empty() {
        return ok("none");
    }
    error(
        format!("clients replace each other's connection: {}", first_of(conflicts, "; ")),
        "give each device an identity of its own (`edge-agent device add`); if a key was copied, block the device and make a new one",
    )
}

fn shown(refusal: &RefusalFacts) -> String {
    let RefusalFacts { identity, why, from, protocol, last_ms, count, .. } = refusal;
    let who = if identity.is_empty() { "somebody" } else { identity };
    format!("{who} from {from} ({protocol}), {count} times, last {}: {why}", rfc3339(*last_ms))
}

pub(super) fn refusals(facts: &Facts) -> Option<Verdict> {
    let refusals = &facts.daemon.as_ref()?.refusals;
    let is_lately =
        |refusal: &&RefusalFacts| facts.now_secs.saturating_sub(refusal.last_ms / 1000) < REFUSAL_SECS;
    let lately: Vec<String> = refusals.iter().filter(is_lately).map(shown).collect();
    if lately.is_empty() {
        return ok("none within the last hour");
    }
    warn(
        first_of(&lately, "; "),
        "give the device what it needs (`edge-agent device add`, `edge-agent device token`), or end what tries to connect; \
         `edge-agent refusals` lists all",
    )
}
