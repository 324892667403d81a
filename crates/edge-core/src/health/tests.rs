use super::facts::{DaemonFacts, Probe, RefusalFacts};
use super::finding::{Level, TEXT_BYTES_MAX};
use super::*;

#[test]
fn names_of_checks_are_unique_and_at_least_thirty() {
    let mut names: Vec<&str> = CheckId::ALL.iter().map(|id| id.name()).collect();
    assert!(names.len() >= 30, "{}", names.len());
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CheckId::ALL.len());
}

#[test]
fn nothing_known_gives_no_finding_but_the_clock() {
    let facts = Facts { now_secs: crate::clock::BUILT_SECS, ..Facts::default() };
    let found: Vec<CheckId> = findings(&facts).iter().map(|finding| finding.id).collect();
    assert_eq!(found, [CheckId::Clock]);
}

#[test]
fn a_finding_is_one_bounded_line_whatever_a_client_calls_itself() {
    let identity = format!("\u{1b}[2Jpress\n\u{202e}{}", "é".repeat(5_000));
    let refusal =
        RefusalFacts { identity, last_ms: crate::clock::BUILT_SECS * 1000, ..RefusalFacts::default() };
    let daemon = DaemonFacts { refusals: vec![refusal; 3], ..DaemonFacts::default() };
    let facts = Facts { now_secs: crate::clock::BUILT_SECS, daemon: Some(daemon), ..Facts::default() };
    let finding = findings(&facts).into_iter().find(|finding| finding.id == CheckId::Refusals).unwrap();
    assert!(finding.evidence.len() <= TEXT_BYTES_MAX, "{}", finding.evidence.len());
    assert!(!finding.evidence.contains(['\n', '\u{1b}', '\u{202e}']), "{}", finding.evidence);
    assert_eq!(finding.level, Level::Warn);
}

#[test]
fn whatever_is_bad_has_a_mend() {
    let bad = |why: &str| Probe::Failed::<()>(why.into());
    for probe in [bad("broken"), Probe::Missing("gone".into()), Probe::Denied("no right".into())] {
        let mut facts = Facts { answer: probe.clone(), ..Facts::default() };
        facts.config.read = probe.clone();
        facts.host.data_dir_use = probe.clone();
        facts.certificates.module_keys = probe.clone();
        facts.certificates.ca_key = probe;
        for finding in findings(&facts) {
            assert!(finding.level < Level::Warn || !finding.mend.is_empty(), "{finding}");
        }
    }
}
