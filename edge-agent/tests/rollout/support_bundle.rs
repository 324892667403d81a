//! The archive for whoever helps with a gateway: whole beside a daemon, and what can be had without daemon and engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::IMAGE;
use super::gateway::{Gateway, SOCKET, until};

const SECRET: &str = "hunter2hunter2";

/// The files of an archive with their text.
fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().expect("there is space for a directory");
    let tar = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir.path()).status();
    assert!(tar.expect("tar is installed").success());
    let mut files = BTreeMap::new();
    for sub in ["", "modules/"] {
        let Ok(entries) = std::fs::read_dir(dir.path().join("support-bundle").join(sub)) else { continue };
        for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
            let text = std::fs::read_to_string(entry.path()).expect("it is text");
            files.insert(format!("{sub}{}", entry.file_name().to_string_lossy()), text);
        }
    }
    files
}

#[test]
fn a_support_bundle_has_findings_state_history_and_logs_and_no_secret() {
    if !test_needs::has(&super::NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-bundle", 0);
    gateway.start(SOCKET);
    let line = format!("echo pump on; echo password={SECRET}; {}", super::gateway::IDLE);
    let options = json!({"Cmd": [line]}).to_string();
    let module = json!({"settings": {"image": IMAGE, "createOptions": options}, "imagePullPolicy": "never",
        "env": {"DB_PASSWORD": {"value": SECRET}}});
    gateway.apply(&[("a", module)]).unwrap();
    until("the module writes", || {
        gateway.agent(&["logs", &gateway.name("a")]).ok().filter(|log| log.contains("pump on"))
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("whole.tar.gz").display().to_string();
    let printed = gateway.agent(&["support-bundle", "--output", &file]).unwrap();
    assert_eq!(printed, file);

    let files = unpacked(Path::new(&file));
    let log = format!("modules/{}.log", gateway.name("a"));
    for name in [
        "about.txt",
        "check.txt",
        "configuration.json",
        "status.json",
        "history.json",
        "refusals.json",
        "quarantine.json",
        "disk.txt",
        "containers.json",
        "contents.txt",
        &log,
    ] {
        assert!(files.contains_key(name), "{name} of {:?}", files.keys());
    }
    assert!(files[&log].contains("pump on"), "{}", files[&log]);
    for (name, text) in &files {
        assert!(!text.contains(SECRET), "{name}: {text}");
        assert!(
            name == "contents.txt" || files["contents.txt"].contains(name.as_str()),
            "contents.txt names {name}"
        );
    }
    let (code, message) = gateway.agent(&["support-bundle", "--output", &file]).unwrap_err();
    assert!(code == 1 && message.contains(&file) && message.contains("exists"), "{code} {message}");

    gateway.kill();
    let file = dir.path().join("alone.tar.gz").display().to_string();
    let away = [("EDGE_AGENT__DOCKER__SOCKET", "/nonexistent/docker.sock")];
    let printed = gateway.agent_with(&["support-bundle", "--output", &file, "--json"], &away).unwrap();
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let left_out = printed["leftOut"].to_string();
    assert!(left_out.contains("status.json") && left_out.contains("containers.json"), "{left_out}");
    let files = unpacked(Path::new(&file));
    for name in ["about.txt", "check.txt", "configuration.json", "disk.txt", "contents.txt"] {
        assert!(files.contains_key(name), "{name} of {:?}", files.keys());
    }
    assert!(files["contents.txt"].contains("status.json: not in it: "), "{}", files["contents.txt"]);
}
