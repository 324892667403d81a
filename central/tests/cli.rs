//! The program as an operator starts and stops it.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `central` on free ports.
fn central(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_central"));
    command
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .env("CENTRAL__HTTP__LISTEN", "127.0.0.1:0")
        .env("CENTRAL__MQTT__MQTTS", "127.0.0.1:0")
        .env("CENTRAL__HOSTNAME", "central.test")
        .stdout(Stdio::piped());
    command
}

/// Starts serving; gives the process and the URL that its ready line names.
fn serve(dir: &Path) -> (Child, String) {
    let mut child = central(dir, &["serve"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready =
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("central ready"))).unwrap().unwrap();
    let url = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    (child, url)
}

#[tokio::test]
async fn a_token_made_beside_a_running_server_opens_it_and_sigterm_ends_it_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url) = serve(dir.path());
    let made =
        central(dir.path(), &["token", "create", "--role", "viewer", "--name", "ci"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap();
    assert!(token.starts_with("SharedAccessSignature sr=central%2Etest&sig="), "{token}");
    assert!(token.contains("&skn=ci&se="), "{token}");
    assert_eq!(token.lines().count(), 1);

    let request = reqwest::Client::new().get(format!("{url}/api/devices?api-version=1.0"));
    let answer = request.header("Authorization", token.trim()).send().await.unwrap();
    assert_eq!(answer.status(), 200);

    let told = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_wrong_setting_ends_the_program_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = central(dir.path(), &["serve"]).env("CENTRAL__HTTP__PORT", "80").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("central: configuration, `http") && error.contains("port"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = central(dir.path(), &["serve"]).env("CENTRAL__MQTT__MQTTS", &address).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains(&address) && error.contains("mqtt.mqtts"), "{error}");
}
