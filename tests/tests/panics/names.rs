//! The names of the tasks and threads, by the program that has them. A test holds them against the sources.

use std::collections::BTreeSet;
use std::path::Path;

/// Of the gateway, with what this site has.
pub(crate) const AGENT: &[&str] = &[
    "C2D messages of a device",
    "Docker events",
    "HTTP request",
    "HTTPS",
    "HTTPS connection",
    "MQTT connection",
    "MQTT over TLS",
    "MQTT over TLS connection",
    "MQTT sessions",
    "authorities of devices",
    "authorization of clients",
    "budget of the link",
    "call of a target",
    "certificate",
    "command",
    "command line",
    "end of messages",
    "end of waiting commands",
    "expiry of queues",
    "files of the quarantine",
    "folder of manifests",
    "health",
    "input of a module",
    "link",
    "metrics",
    "passwords",
    "plain MQTT",
    "queue-answers",
    "queue-commit",
    "reconciler",
    "removals",
    "report",
    "rollout",
    "request on a unix socket",
    "state",
    "upload",
    "waiting commands",
];

/// Of central, with what this site has.
pub(crate) const CENTRAL: &[&str] = &[
    "C2D messages of a device",
    "HTTP request",
    "HTTPS connection",
    "MQTT connection",
    "MQTT over TLS",
    "MQTT over TLS connection",
    "MQTT over WebSocket",
    "MQTT sessions",
    "REST API",
    "authorities of devices",
    "authorization of clients",
    "call of a target",
    "certificate",
    "checkpoints of the store",
    "clock of ages",
    "command",
    "end of a connection",
    "expiry of cloud-to-device messages",
    "expiry of waiting commands",
    "last values",
    "live stream",
    "metrics",
    "outcome of an audit row",
    "plain MQTT",
    "queue-commit",
    "review of a new client",
    "series",
    "signals",
    "state of a gateway",
    "store-writer",
    "time for a gateway",
    "updates of a gateway",
    "use of an API token",
    "waiting commands",
];

/// Those that a site without containers, AMQP, event streams, another upstream and a fault of its own does not run; and what runs only in the
/// command line, or while a program stops.
pub(crate) const ELSEWHERE: &[&str] = &[
    "AMQP over TLS",
    "AMQP over TLS connection",
    "audit row",
    "connection to the daemon",
    "connection to upstream",
    "credentials of streams",
    "end of a command",
    "image pull",
    "import of devices",
    "module steps",
    "quarantine",
    "stop",
    "use of a session",
    "workload socket",
];

/// The functions that give a task its name, as they are called.
const GIVERS: &[&str] = &["tasks::spawn", "tasks::guard", " guard(", ".essential(", ".restarted("];
/// From the call to the name: other arguments stand between.
const SPAN: usize = 80;

fn sources(dir: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            texts.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
        }
    }
}

/// A task that this test does not know would never panic in it.
#[test]
fn each_name_that_the_sources_give_is_known_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut texts = Vec::new();
    for program in ["crates/edge-hub/src", "crates/mqtt/src", "edge-agent/src", "central/src"] {
        sources(&root.join(program), &mut texts);
    }
    let given: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| {
            GIVERS.iter().flat_map(move |giver| text.match_indices(giver).map(move |at| (text, at)))
        })
        .filter_map(|(text, (at, giver))| {
            let call = &text[at + giver.len()..];
            let begin = call.find('"').filter(|begin| *begin < SPAN && !call[..*begin].contains('{'))?;
            call[begin + 1..].split('"').next()
        })
        .collect();
    let known: BTreeSet<&str> = [AGENT, CENTRAL, ELSEWHERE].concat().into_iter().collect();
    let unknown: Vec<_> = given.difference(&known).collect();
    assert!(unknown.is_empty(), "add them to the tests of panics: {unknown:?}");
    assert!(given.len() > 40, "the sources were not read rightly: {given:?}");
}
