//! The command line of `edge-agent`, run as an operator runs it, without a daemon.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use edge_agent::config::Config;
use edge_tls::issue::issue_ca;
use schemas::join::JoinToken;

fn edge_agent(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edge-agent"))
        .args(arguments)
        .arg("--config")
        .arg(dir.join("edge.toml"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn join_token() -> String {
    let word = JoinToken {
        upstream: "HostName=central.test:8884;DeviceId=gw-1;SharedAccessKey=YWJj".parse().unwrap(),
        ca_pem: issue_ca("central").unwrap().cert_pem,
    };
    word.to_string()
}

#[test]
fn one_pasted_join_token_makes_a_gateway_and_the_machine_gives_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let arguments = ["init", "--join", &join_token(), "--data-dir", data.to_str().unwrap()];
    let made = edge_agent(dir.path(), &arguments);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let config = Config::load(&dir.path().join("edge.toml")).unwrap();
    assert_eq!(config.device_id.as_str(), "gw-1");
    assert_eq!(config.hostname, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
    assert_eq!(config.upstream.unwrap().address(), ("central.test".to_owned(), 8884));
    assert!(data.join("upstream-ca.pem").exists());
}

#[test]
fn a_pasted_join_token_that_is_cut_writes_nothing_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let word = join_token();
    let cut = &word[..word.len() - 9];
    let refused = edge_agent(dir.path(), &["init", "--join", cut, "--data-dir", data.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    let message = text(&refused.stderr);
    assert!(message.contains("--join") && message.contains("cut or changed"), "{message}");
    assert!(!message.contains(&cut[20..60]), "{message}");
    assert!(!data.exists() && !dir.path().join("edge.toml").exists());
    let upstream = "HostName=c;DeviceId=gw 1;SharedAccessKey=U0VDUkVU";
    let arguments = ["init", "--device-id", "gw-1", "--hostname", "x", "--upstream", upstream];
    let message = text(&edge_agent(dir.path(), &arguments).stderr);
    assert!(message.contains("--upstream") && !message.contains("U0VDUkVU"), "{message}");
    let neither = edge_agent(dir.path(), &["init", "--hostname", "x"]);
    assert!(text(&neither.stderr).contains("--device-id"), "{}", text(&neither.stderr));
}

#[test]
fn help_lists_exit_codes_and_completions_and_man_pages_hold_every_command() {
    let dir = tempfile::tempdir().unwrap();
    assert!(text(&edge_agent(dir.path(), &["--help"]).stdout).contains("Exit codes:"));
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&edge_agent(dir.path(), &["completions", shell]).stdout);
        for command in ["apply", "quarantine", "status"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let man = dir.path().join("man1");
    assert!(edge_agent(dir.path(), &["man", man.to_str().unwrap()]).status.success());
    assert!(text(&std::fs::read(man.join("edge-agent-device-token.1")).unwrap()).contains("valid"));
}

/// The same, ended after a minute: what is tested here may read for ever.
fn edge_agent_bounded(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_edge-agent")]).args(arguments);
    if !arguments.contains(&"--config") {
        command.arg("--config").arg(dir.join("edge.toml"));
    }
    command.stdin(Stdio::null()).output().unwrap()
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn a_file_argument_that_is_no_file_or_has_no_end_is_refused_with_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let made = edge_agent(
        dir.path(),
        &["init", "--device-id", "gw-1", "--hostname", "edge.test", "--data-dir", data.to_str().unwrap()],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
    let pipe = dir.path().join("pipe");
    fifo(&pipe);
    let large = dir.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    let upstream = "HostName=central.test;DeviceId=gw-1;SharedAccessKey=YWJj";
    let commands: [&[&str]; 5] = [
        &["plan", "FILE"],
        &["apply", "FILE"],
        &["routes", "test", "FILE", "--message", "{}"],
        &[
            "init",
            "--device-id",
            "gw-1",
            "--hostname",
            "x",
            "--data-dir",
            "DIR",
            "--upstream",
            upstream,
            "--upstream-ca",
            "FILE",
        ],
        &["check", "--config", "FILE"],
    ];
    let files = [
        ("/dev/zero", "it is a device"),
        (pipe.to_str().unwrap(), "it is a named pipe"),
        (dir.path().to_str().unwrap(), "it is a directory"),
        (large.to_str().unwrap(), "which is the limit"),
    ];
    let new_dir = dir.path().join("new");
    for command in commands {
        for (file, why) in files {
            let arguments: Vec<&str> = command
                .iter()
                .map(|argument| match *argument {
                    "FILE" => file,
                    "DIR" => new_dir.to_str().unwrap(),
                    other => other,
                })
                .collect();
            let config = dir.path().join(if command[0] == "init" { "new.toml" } else { "edge.toml" });
            let mut with_config = arguments.clone();
            if !with_config.contains(&"--config") {
                with_config.extend(["--config", config.to_str().unwrap()]);
            }
            let refused = edge_agent_bounded(dir.path(), &with_config);
            let said = format!("{}{}", text(&refused.stderr), text(&refused.stdout));
            assert!(
                matches!(refused.status.code(), Some(1 | 2)),
                "{arguments:?}: {:?} {said}",
                refused.status
            );
            assert!(said.contains(why) && said.contains(file), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_manifest_in_which_a_key_occurs_twice_is_refused_and_one_from_the_standard_input_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    edge_agent(
        dir.path(),
        &["init", "--device-id", "gw-1", "--hostname", "edge.test", "--data-dir", data.to_str().unwrap()],
    );
    let hub = r#""$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {"a": "FROM /messages/* INTO $upstream"}, "routes": {}}}"#;
    let twice = format!(r#"{{"modulesContent": {{"$edgeAgent": {{"properties.desired": {{}}}}, {hub}}}}}"#);
    let file = dir.path().join("twice.json");
    std::fs::write(&file, &twice).unwrap();
    for command in ["plan", "apply"] {
        let refused = edge_agent_bounded(dir.path(), &[command, file.to_str().unwrap()]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("key `routes`: it appears twice in one object"), "{said}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
            .args([command, "-", "--config"])
            .arg(dir.path().join("edge.toml"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), twice.as_bytes()).unwrap();
        let said = text(&child.wait_with_output().unwrap().stderr);
        assert!(said.contains("appears twice"), "{said}");
    }
}
