//! Each cause by the facts that show it, and what no facts may do.

use super::*;
use crate::diagnosis::refusal::{Attempt, Refusal};

const NOW_MS: u64 = 1_800_000_000_000;

fn away() -> DiagnosisFacts {
    DiagnosisFacts { now_ms: NOW_MS, last_seen_ms: Some(NOW_MS - 60_000), ..DiagnosisFacts::default() }
}

fn here() -> DiagnosisFacts {
    let connected_since_ms = Some(NOW_MS - 60_000);
    DiagnosisFacts { connected_since_ms, last_message_ms: Some(NOW_MS - 1000), ..away() }
}

fn attempt(why: &str, last_ms: u64) -> Attempt {
    Attempt {
        refusal: Refusal::of(why),
        why: why.to_owned(),
        from: "192.0.2.7".into(),
        at: "central".into(),
        last_ms,
        count: 3,
        proof: Some("SAS token SHA-256 00ff".into()),
    }
}

fn refused(why: &str) -> DiagnosisFacts {
    DiagnosisFacts { attempts: vec![attempt(why, NOW_MS - 1000)], ..away() }
}

fn serving_gateway(is_connected: bool, is_blocked: bool) -> Option<GatewayKnown> {
    Some(GatewayKnown { id: "gw".into(), is_blocked, is_connected, last_seen_ms: Some(NOW_MS - 7_200_000) })
}

fn lost(cause: &str) -> DiagnosisFacts {
    let loss = KnownLoss { cause: cause.into(), queue: "upstream".into(), count: 7, until_ms: NOW_MS };
    DiagnosisFacts { losses: vec![loss], ..here() }
}

fn finding(id: &str, level: &str) -> DiagnosisFacts {
    let finding =
        KnownFinding { id: id.into(), level: level.into(), evidence: "seen".into(), mend: "mend".into() };
    DiagnosisFacts { is_gateway: true, findings: vec![finding], ..here() }
}

/// The rows of what operators of IoT Central look for, each with its facts, the ids of its causes, and words of the first.
#[test]
fn each_cause_follows_from_its_facts() {
    let never = || DiagnosisFacts { now_ms: NOW_MS, ..DiagnosisFacts::default() };
    let blocked = DiagnosisFacts { is_blocked: true, ..refused("device `d` is blocked by an operator") };
    let stopped = StoppedModule {
        name: "filter".into(),
        status: "backoff".into(),
        reason: Some("image not found".into()),
        next_try: Some("2027-01-15T08:00:00Z".into()),
    };
    let undecodable = Undecodable {
        message: 7,
        at_ms: NOW_MS,
        error: "expected value at line 1 column 3".into(),
        encoding: Some("utf-16".into()),
    };
    let conflict = ConflictKnown { takeovers: 9, addresses: vec!["192.0.2.7".into()], last_ms: NOW_MS };
    let wrong_time = WrongTime { said: "1970-01-01T00:00:05Z".into(), enqueued_ms: NOW_MS };
    #[rustfmt::skip]
    let rows: Vec<(&str, DiagnosisFacts, &[&str], &str)> = vec![
        ("provisioned and well", here(), &[], ""),
        ("registered", never(), &["never-connected"], "central has not seen it try"),
        ("registered behind a gateway", DiagnosisFacts { gateway: serving_gateway(true, false), ..never() }, &["never-connected"], "gateway `gw`"),
        ("blocked", blocked, &["blocked"], "blocked by an operator"),
        ("waiting for approval (400209)", DiagnosisFacts { is_waiting: true, ..never() }, &["waiting-for-approval"], "approval"),
        ("wrong key (401002)", refused("the signature was made with another key than d's"), &["wrong-key"], "3 times"),
        ("token expired (IoTHubUnauthorized)", refused("the token expired 90 s ago; renew it and check both clocks"), &["token-expired"], "90 s"),
        ("token of another host", refused("the token is for `other/devices/d`, not for central/devices/d"), &["token-audience"], "other/devices/d"),
        ("no token (400)", refused("the password is not a SharedAccessSignature with sr, sig and se"), &["credentials-form"], "password"),
        ("unknown certificate", refused("d is not proven by certificate: its thumbprint is not registered"), &["certificate"], "SHA-256"),
        ("expired certificate", refused("d is not proven by certificate: it expired"), &["certificate"], "expired"),
        ("unknown at its gateway (404)", refused("device `d` is not registered"), &["unknown-device"], "192.0.2.7"),
        ("enrolment refused (404, 409)", refused("enrolment: there is no such ID scope"), &["enrolment-refused"], "ID scope"),
        ("throttled (429)", refused("too many attempts"), &["throttled"], "too many"),
        ("refused otherwise (500)", refused("the store failed"), &["refused"], "the store failed"),
        ("gateway down", DiagnosisFacts { gateway: serving_gateway(false, false), ..away() }, &["gateway-down"], "gw"),
        ("gateway blocked", DiagnosisFacts { gateway: serving_gateway(false, true), ..away() }, &["gateway-blocked"], "blocked"),
        ("link down since", away(), &["link-down"], "2027-01-15T07:59:00.000Z"),
        ("refused before it was there last", DiagnosisFacts { attempts: vec![attempt("the token expired 5 s ago", NOW_MS - 90_000)], ..away() }, &["link-down"], "last seen"),
        ("refused, and there now", DiagnosisFacts { attempts: vec![attempt("the token expired 5 s ago", NOW_MS - 1000)], ..here() }, &[], ""),
        ("two clients (DEVICE_DISABLED)", DiagnosisFacts { conflict: Some(conflict), ..here() }, &["identity-conflict"], "9 takeovers"),
        ("module not running", DiagnosisFacts { is_gateway: true, stopped_modules: vec![stopped], ..here() }, &["module-not-running"], "image not found"),
        ("queue full", lost("evicted"), &["queue-full"], "7 messages of queue upstream"),
        ("refused by a queue", lost("refused"), &["queue-full"], "7 messages"),
        ("expired on the gateway", lost("expired"), &["messages-expired"], "upstream"),
        ("damaged on the gateway", lost("damaged"), &["queue-damaged"], "damaged"),
        ("dropped", lost("dropped"), &["messages-lost"], "dropped"),
        ("route missing", finding("unrouted", "warn"), &["route-missing"], "seen"),
        ("clock of the gateway", finding("clock-offset", "warn"), &["clock-off"], "seen"),
        ("disk of the gateway", finding("disk", "error"), &["gateway-finding"], "seen"),
        ("a remark of the gateway", finding("memory", "warn"), &[], ""),
        ("malformed JSON, encoding", DiagnosisFacts { undecodable: Some(undecodable), ..here() }, &["payload-undecodable"], "line 1 column 3"),
        ("clock of the device", DiagnosisFacts { wrong_time: Some(wrong_time), ..here() }, &["clock-off"], "1970"),
        ("too many names", DiagnosisFacts { names_left_out: Some((5, "n".into())), ..here() }, &["too-many-names"], "5 numbers"),
        ("connected and quiet", DiagnosisFacts { connected_since_ms: Some(1), last_message_ms: None, ..away() }, &["connected-and-quiet"], "never sent"),
        ("quiet for a while", DiagnosisFacts { last_message_ms: None, ..here() }, &[], ""),
    ];
    for (name, facts, ids, phrase) in rows {
        let causes = causes(&facts);
        let found: Vec<&str> = causes.iter().map(|cause| cause.id).collect();
        assert_eq!(found, ids, "{name}");
        let rendered = text("offline", &causes);
        assert!(rendered.contains(phrase), "{name}: {rendered}");
        for cause in causes {
            assert!(cause.sentence.ends_with('.') || !cause.evidence.is_empty(), "{name}: {cause:?}");
            assert!(!cause.mend.text.is_empty(), "{name}: {cause:?}");
            assert!(
                rendered.contains(&cause.sentence) && rendered.contains(&cause.mend.text),
                "{name}: {rendered}"
            );
        }
    }
}

#[test]
fn whatever_is_silent_has_a_cause_and_the_list_is_bounded() {
    let bools = [false, true];
    for bits in 0..1_u32 << 7 {
        let bit = |n: u32| bools[(bits >> n & 1) as usize];
        let attempts =
            (0..1000).map(|n| attempt(["the token expired 5 s ago", "new"][n % 2], NOW_MS)).collect();
        let facts = DiagnosisFacts {
            now_ms: NOW_MS,
            is_gateway: bit(0),
            is_blocked: bit(1),
            is_waiting: bit(2),
            last_seen_ms: bit(3).then_some(NOW_MS - 5),
            gateway: if bit(4) { serving_gateway(bit(5), false) } else { None },
            attempts: if bit(6) { attempts } else { Vec::new() },
            stopped_modules: vec![StoppedModule::default(); 1000],
            findings: vec![KnownFinding { level: "error".into(), ..KnownFinding::default() }; 1000],
            losses: vec![KnownLoss::default(); 1000],
            ..DiagnosisFacts::default()
        };
        let causes = causes(&facts);
        assert!(causes[0].id != "module-not-running", "{facts:?}: nothing says why it is away");
        assert!(causes.len() < 30 && causes.iter().all(|cause| cause.evidence.len() <= SAME_MAX));
    }
}
