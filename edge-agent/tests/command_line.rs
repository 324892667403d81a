//! The command line of `edge-agent`, run as an operator runs it, without a daemon.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::process::{Command, Output};

use edge_agent::config::Config;
use schemas::join::JoinWord;

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

fn join_word() -> String {
    let word = JoinWord {
        upstream: "HostName=central.test:8884;DeviceId=gw-1;SharedAccessKey=YWJj".parse().unwrap(),
        ca_pem: edge_hub::tls::issue_ca("central").unwrap().cert_pem,
    };
    word.to_string()
}

#[test]
fn one_pasted_word_makes_a_gateway_and_the_machine_gives_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let arguments = ["init", "--join", &join_word(), "--data-dir", data.to_str().unwrap()];
    let made = edge_agent(dir.path(), &arguments);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let config = Config::load(&dir.path().join("edge.toml")).unwrap();
    assert_eq!(config.device_id.as_str(), "gw-1");
    assert_eq!(config.hostname, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
    assert_eq!(config.upstream.unwrap().address(), ("central.test".to_owned(), 8884));
    assert!(data.join("upstream-ca.pem").exists());
}

#[test]
fn a_pasted_word_that_is_cut_writes_nothing_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let word = join_word();
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
fn help_tells_exit_codes_and_completions_and_man_pages_hold_every_command() {
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
