//! Checks of keys and certificates.

use super::facts::{CaFacts, Facts, Probe};
use super::finding::Level;
use super::verdict::{Verdict, denied, error, found, ok, warn};
use crate::certificate::{CaRenewal, Validity, ca_renewal};

const REPAIR: &str = "run `edge-agent init --repair`: it makes what is missing and touches nothing else";

pub(super) fn module_keys(facts: &Facts) -> Option<Verdict> {
    match &facts.certificates.module_keys {
        Probe::NotProbed => None,
        Probe::Found(()) => ok("readable and undamaged"),
        Probe::Denied(why) => denied(why),
        Probe::Missing(why) => error(
            format!("{why}; the daemon does not start"),
            "restore it from a backup. Without one, run `edge-agent init --repair`: modules get new keys, and what they \
             encrypted with the old ones is lost",
        ),
        Probe::Failed(why) => error(
            format!("{why}; the daemon does not start"),
            "restore it from a backup. Without one, move the file away and run `edge-agent init --repair`: modules get new \
             keys, and what they encrypted with the old ones is lost",
        ),
    }
}

/// Checks a file of CAs by its end.
fn ends(ca: &CaFacts, now_secs: u64, next: &str) -> Option<Verdict> {
    let path = &ca.path;
    let validity = Validity { not_before_secs: ca.not_before_secs, not_after_secs: ca.not_after_secs };
    match ca_renewal(validity, now_secs) {
        CaRenewal::Keep => {
            let years = ca.not_after_secs.saturating_sub(now_secs) / (365 * 86_400);
            ok(format!("{path} is valid for {years} more years"))
        }
        CaRenewal::NotYetValid { days } => error(
            format!(
                "{path} is not valid yet, for another {days} days: it was made while the clock was ahead, or this gateway's clock is behind"
            ),
            format!(
                "correct this gateway's clock if it is behind; otherwise {}",
                next.replace(" before the day", "")
            ),
        ),
        CaRenewal::Expires { days_left } => warn(format!("{path} ends in {days_left} days"), next),
        CaRenewal::Expired => error(
            format!("{path} has ended: what it signed is refused"),
            next.replace(" before the day", " now"),
        ),
    }
}

pub(super) fn ca(facts: &Facts) -> Option<Verdict> {
    let failed =
        |why: &str| error(format!("{why}; the daemon does not start"), "restore the file from a backup");
    match &facts.certificates.ca {
        Probe::Missing(why) => error(
            format!("{why}; the daemon does not start"),
            "copy it back from a backup, or from a leaf device, which has a copy of it. If its key is lost too, run \
             `edge-agent init --repair` and bring the new ca.pem to every leaf device",
        ),
        probe => match found(probe, failed) {
            Err(verdict) => verdict,
            Ok(ca) => ends(
                ca,
                facts.now_secs,
                "make a new one (move ca.pem and ca-key.pem away, stop edge-agent, run `edge-agent init --repair`), and bring \
             ca.pem to every leaf device before the day",
            ),
        },
    }
}

pub(super) fn ca_key(facts: &Facts) -> Option<Verdict> {
    match &facts.certificates.ca_key {
        Probe::NotProbed => None,
        Probe::Found(()) => ok("it fits [tls] ca"),
        Probe::Denied(why) => denied(why),
        Probe::Missing(why) => warn(
            format!("{why}: the server's certificate is not renewed, and modules get none"),
            "restore it from a backup; if you keep it elsewhere on purpose, renew [tls] cert yourself",
        ),
        Probe::Failed(why) => error(
            format!("{why}: the server's certificate is not renewed, and modules get none"),
            "restore the key that belongs to [tls] ca from a backup",
        ),
    }
}

pub(super) fn server(facts: &Facts) -> Option<Verdict> {
    let has_ca_key = matches!(facts.certificates.ca_key, Probe::Found(()));
    let server = match &facts.certificates.server {
        Probe::Missing(why) if has_ca_key => {
            return warn(format!("{why}; the daemon makes it when it starts"), REPAIR);
        }
        probe => {
            let failed = |why: &str| {
                error(why, "replace [tls] cert together with its key, or remove both for new ones")
            };
            match found(probe, failed) {
                Err(verdict) => return verdict,
                Ok(server) => server,
            }
        }
    };
    let (path, now_secs) = (&server.path, facts.now_secs);
    let days = server.not_after_secs.saturating_sub(now_secs) / 86_400;
    if let Some(reason) = &server.renewal {
        return warn(
            format!("{path}: {reason}"),
            "the daemon makes a new one within a minute of its start: start it, or wait",
        );
    }
    // The daemon renews those that the gateway's own CA signed.
    if !server.is_own && server.not_after_secs < now_secs {
        return error(
            format!("{path} has expired: devices do not connect"),
            "get a new one from the CA that made it, and replace [tls] cert and key",
        );
    }
    if server.is_due {
        return warn(
            format!("{path} ends in {days} days"),
            "get a new one from the CA that made it, and replace [tls] cert and key",
        );
    }
    ok(format!("{path} is valid for {days} more days"))
}

pub(super) fn device_ca(facts: &Facts) -> Option<Verdict> {
    let next = "bring the CA's new certificate here, and have devices get certificates of it";
    let failed = |why: &str| {
        error(
            format!("{why}: devices with certificates of it cannot connect"),
            "correct [tls] device_ca, or restore the file",
        )
    };
    let verdicts = facts.certificates.device_ca.iter().filter_map(|(_, probe)| match found(probe, failed) {
        Err(verdict) => verdict,
        Ok(ca) => ends(ca, facts.now_secs, next),
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    let worst = verdicts.iter().map(|verdict| verdict.level).max()?;
    let of_worst: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.level == worst).collect();
    let evidence = of_worst.iter().map(|verdict| verdict.evidence.as_str()).collect::<Vec<_>>().join("; ");
    let mend = if worst == Level::Ok { String::new() } else { of_worst.first()?.mend.clone() };
    Some(Verdict { level: worst, evidence, mend })
}

pub(super) fn upstream_ca(facts: &Facts) -> Option<Verdict> {
    let upstream = &facts.upstream;
    if upstream.is_configured != Some(true) {
        return None;
    }
    if !upstream.has_ca {
        return upstream.is_encrypted.then(|| Verdict {
            level: Level::Error,
            evidence: "[upstream] ca is missing: no certificate authority of the upstream is trusted".into(),
            mend: "copy central's ca.pem here and write its path".into(),
        });
    }
    let failed =
        |why: &str| error(format!("{why}: telemetry waits on disk"), "copy central's ca.pem to that path");
    match found(&facts.certificates.upstream_ca, failed) {
        Err(verdict) => verdict,
        Ok(ca) => ends(ca, facts.now_secs, "copy central's new ca.pem to that path"),
    }
}
