//! What somebody does to a module's container with `docker`: undone and reported, without a restart where Docker can, and its
//! neighbour is left alone.

use serde_json::json;

use super::NEEDS;
use super::gateway::{Gateway, SOCKET, docker, idle, module, until};

/// What shall be as it was, whatever was done.
const AS_CREATED: &str = "{{.Name}} {{.State.Running}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} \
    {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}}";

/// What somebody does, before the container's name; and what stays the same of it beside [`AS_CREATED`].
const EDITS: [(&[&str], Same); 10] = [
    (&["stop"], Same::Container),
    (&["kill"], Same::Container),
    (&["rm", "-f"], Same::Nothing),
    (&["rename"], Same::Run),
    (&["update", "--memory", "48m"], Same::Run),
    (&["update", "--memory", "96m", "--memory-swap", "192m"], Same::Run),
    (&["update", "--memory-reservation", "20m"], Same::Run),
    (&["update", "--cpus", "0.25"], Same::Run),
    (&["update", "--cpu-shares", "77"], Same::Run),
    (&["update", "--pids-limit", "17"], Same::Run),
];

#[derive(Debug, Clone, Copy)]
enum Same {
    Nothing,
    Container,
    /// It was not restarted either.
    Run,
}

impl Same {
    fn template(self) -> String {
        let more = match self {
            Self::Nothing => "",
            Self::Container => "{{.Id}}",
            Self::Run => "{{.Id}} {{.State.StartedAt}}",
        };
        format!("{AS_CREATED} {more}")
    }
}

#[test]
fn whatever_somebody_does_to_a_container_is_undone_and_reported() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-edits", 1);
    gateway.start(SOCKET);
    let limited = json!({"HostConfig": {"Memory": 64 << 20, "MemoryReservation": 32 << 20, "NanoCpus": 500_000_000,
        "CpuShares": 512}});
    gateway.apply(&[("a", module(limited, json!({}))), ("b", idle(1))]).unwrap();
    let (a, b) = (gateway.name("a"), gateway.name("b"));
    let untouched = gateway.container("b").unwrap();
    let settled = || {
        let list = gateway.json(&["list"]);
        (list[&a]["status"] == "running" && list[&a]["reason"] == "running").then_some(())
    };
    until("a is seen", settled);
    for (edit, same) in EDITS {
        let found = || docker(&["inspect", "-f", &same.template(), &a]);
        let before = found().unwrap();
        let id = docker(&["inspect", "-f", "{{.Id}}", &a]).unwrap();
        let renamed = format!("{a}-renamed");
        let after: &[&str] = if edit[0] == "rename" { &[&renamed] } else { &[] };
        docker(&[edit, &[id.as_str()], after].concat()).unwrap();
        until(&format!("{edit:?} is undone"), || (found().as_ref() == Ok(&before)).then_some(()));
        until(&format!("{edit:?} is over"), settled);
        // A restart that was counted makes the next one wait.
        gateway.agent(&["restart", &a]).unwrap();
        until("a is seen again", settled);
    }
    until("the log says so", || {
        let said = "somebody changed its container: HostConfig.PidsLimit is set back";
        gateway.log().contains(said).then_some(())
    });
    assert_eq!(gateway.container("b").unwrap(), untouched, "b was touched");

    // Docker takes no limit away from a container that exists.
    docker(&["update", "--cpu-shares", "77", &b]).unwrap();
    until("what stays is reported", || {
        let reason = gateway.json(&["list"])[&b]["reason"].to_string();
        reason.contains("Docker does not take HostConfig.CpuShares away").then_some(())
    });
    assert_eq!(gateway.container("b").unwrap(), untouched, "b was restarted");
    // Also by a daemon that did not run when it was done.
    gateway.kill();
    docker(&["update", "--memory", "48m", &a]).unwrap();
    gateway.start(SOCKET);
    let memory = || docker(&["inspect", "-f", "{{.HostConfig.Memory}}", &a]).unwrap();
    until("the limit is set back", || (memory() == (64 << 20).to_string()).then_some(()));
}
