//! What is reported to central of a gateway's health, and when: at once when a level changes, of anything else once in a while.

use schemas::status::{FindingReport, HealthReport, RefusalReport};
use schemas::timestamp::rfc3339;

use super::facts::RefusalFacts;
use super::finding::{Finding, Level};

/// Texts that change (counts, times) are reported again after so long: a link may be paid for by the byte.
pub const TEXTS_EVERY_MS: u64 = 300_000;
/// A text of a report is cut after so many characters: all of them together stay below 64 kB.
const TEXT_CHARS_MAX: usize = 400;

/// The findings to report: those that are not `ok`.
pub fn report(findings: &[Finding], refusals: &[RefusalFacts], now_ms: u64) -> HealthReport {
    let cut = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect::<String>();
    let level = |level| match level {
        Level::Ok => "ok",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    let bad = findings.iter().filter(|finding| finding.level > Level::Ok);
    HealthReport {
        updated: rfc3339(now_ms),
        findings: bad
            .map(|finding| FindingReport {
                id: finding.id.name().to_owned(),
                level: level(finding.level).to_owned(),
                evidence: cut(&finding.evidence),
                mend: cut(&finding.mend),
            })
            .collect(),
        refusals: refusals
            .iter()
            .map(|refused| RefusalReport {
                identity: refused.identity.clone(),
                why: refused.why.clone(),
                from: refused.from.clone(),
                protocol: refused.protocol.clone(),
                proof: refused.proof.clone(),
                first: rfc3339(refused.first_ms),
                last: rfc3339(refused.last_ms),
                count: refused.count,
            })
            .collect(),
    }
}

/// Whether `new` is reported in place of `sent`, which was reported at `sent_ms`.
pub fn is_due(sent: &HealthReport, sent_ms: u64, new: &HealthReport, now_ms: u64) -> bool {
    let levels = |report: &HealthReport| {
        report.findings.iter().map(|finding| (finding.id.clone(), finding.level.clone())).collect::<Vec<_>>()
    };
    if levels(sent) != levels(new) {
        return true;
    }
    // The clock may have been set back.
    let is_time = now_ms.saturating_sub(sent_ms) >= TEXTS_EVERY_MS || now_ms < sent_ms;
    is_time && (sent.findings != new.findings || sent.refusals != new.refusals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::facts::REFUSALS_REPORTED_MAX;
    use crate::health::finding::CheckId;

    #[test]
    fn a_level_is_reported_at_once_and_a_text_once_in_five_minutes() {
        let finding = |level, evidence: &str| Finding::new(CheckId::Disk, level, evidence, "free it");
        let of = |finding| report(&[finding], &[], 7);
        let sent = of(finding(Level::Warn, "90 MB"));
        let (text, worse) = (of(finding(Level::Warn, "89 MB")), of(finding(Level::Error, "60 MB")));
        assert!(!is_due(&sent, 7, &sent, u64::MAX));
        assert!(!is_due(&sent, 7, &text, 8) && is_due(&sent, 7, &text, 7 + TEXTS_EVERY_MS));
        assert!(is_due(&sent, 7, &worse, 8) && is_due(&worse, 8, &of(finding(Level::Ok, "2 GB")), 9));
    }

    #[test]
    fn everything_wrong_at_once_with_the_longest_texts_is_a_bounded_report() {
        let long = "é".repeat(5_000);
        let findings: Vec<Finding> =
            CheckId::ALL.iter().map(|id| Finding::new(*id, Level::Error, &long, &long)).collect();
        let refusal = RefusalFacts {
            identity: "é".repeat(200),
            why: "é".repeat(200),
            proof: Some("é".repeat(200)),
            ..RefusalFacts::default()
        };
        let report = report(&findings, &vec![refusal; REFUSALS_REPORTED_MAX], 0);
        let bytes = serde_json::to_vec(&report).unwrap().len();
        assert!(bytes < 128 * 1024, "{bytes}");
    }
}
