//! The program as an operator starts and stops it.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::io::{BufRead as _, BufReader};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use schemas::join::JoinToken;

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

/// A central that serves; killed when this is dropped, also by a test that failed.
struct Serving(Child);

impl Deref for Serving {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Serving {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // An error: it has ended.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Starts serving; gives the process and the URL that its ready line names.
fn serve(dir: &Path) -> (Serving, String) {
    let mut child = Serving(central(dir, &["serve"]).spawn().unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready =
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("central ready"))).unwrap().unwrap();
    let url = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    (child, url)
}

/// Runs a command to its end, in which no task may panic. central's MQTT port is 8884 for it.
fn output(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = central(dir, arguments);
    let output =
        command.env("CENTRAL__MQTT__MQTTS", "127.0.0.1:8884").stderr(Stdio::piped()).output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{arguments:?}: {}", text(&output.stderr));
    output
}

/// Runs a command that succeeds; what it printed.
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = output(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that is refused; the error.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = output(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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

    let signalled = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_wrong_setting_ends_the_program_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = central(dir.path(), &["serve"]).env("CENTRAL__HTTP__PORT", "80").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("central: CENTRAL__HTTP__PORT: `http.port`: no such key"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = central(dir.path(), &["serve"]).env("CENTRAL__MQTT__MQTTS", &address).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains(&address) && error.contains("mqtt.mqtts"), "{error}");
}

#[test]
fn tokens_are_listed_with_their_times_and_revoked_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = serve(dir.path());
    let run = |arguments: &[&str]| {
        let done = central(dir.path(), arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.success(), text(done.stdout), text(done.stderr))
    };
    let create = ["token", "create", "--role", "operator", "--name", "ci", "--expires-in", "30"];
    let (is_made, token, error) = run(&create);
    assert!(is_made, "{error}");
    let expires_ms: u64 = token.trim().rsplit_once("&se=").unwrap().1.parse().unwrap();
    let days = (expires_ms - central::clock::now_ms()) / 86_400_000;
    assert!((29..=30).contains(&days), "{days}");
    let (is_made, _, error) = run(&create);
    assert!(!is_made && error.contains("`ci`"), "{error}");

    let (_, listed, _) = run(&["token", "list"]);
    let line = listed.lines().find(|line| line.starts_with("ci\t")).unwrap();
    let columns: Vec<&str> = line.split('\t').collect();
    assert_eq!((columns[1], columns[4]), ("operator", "never"), "{line}");
    assert_eq!(columns[3], schemas::timestamp::rfc3339(expires_ms));
    let secret = token.split_once("sig=").unwrap().1.split_once('&').unwrap().0;
    assert!(!listed.contains(secret), "{listed}");

    let (is_revoked, _, error) = run(&["token", "revoke", "ci"]);
    assert!(is_revoked, "{error}");
    let (is_revoked, _, error) = run(&["token", "revoke", "ci"]);
    assert!(!is_revoked && error.contains("`ci`"), "{error}");
    assert!(!run(&["token", "list"]).1.contains("ci\t"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_wrong_token_is_reported_in_the_log_with_its_sender_and_without_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = central(dir.path(), &["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let url = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let request = reqwest::Client::new().get(format!("{url}/api/devices?api-version=1.0"));
    let answer = request.bearer_auth("s3cr3t-guess").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let signalled = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
    let log = child.wait_with_output().unwrap().stderr;
    let log = String::from_utf8(log).unwrap();
    let line =
        log.lines().find(|line| line.contains("API token was refused")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN") && line.contains("address=127.0.0.1"), "{line}");
    assert!(!log.contains("s3cr3t-guess"), "{log}");
}

#[test]
fn a_mistyped_data_directory_is_refused_by_all_but_what_begins_a_site() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("centrall");
    let backup = dir.path().join("backup").display().to_string();
    for arguments in [
        &["token", "create", "--role", "viewer"][..],
        &["token", "list"],
        &["token", "revoke", "ci"],
        &["id-scope"],
        &["backup", &backup],
    ] {
        let refused = central(&missing, arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(
            error.contains("centrall/central.db") && error.contains("--data-dir"),
            "{arguments:?}: {error}"
        );
        assert!(refused.stdout.is_empty() && !missing.exists(), "{arguments:?}");
        // A directory that is there is not enough either.
        let refused = central(dir.path(), arguments).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{arguments:?}");
    }
}

#[test]
fn an_api_that_other_machines_reach_without_tls_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = central(dir.path(), &["serve"]).env("CENTRAL__HTTP__LISTEN", "0.0.0.0:0").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("`http.listen`") && error.contains("http.behind_tls_proxy"), "{error}");
}

#[test]
fn gateway_add_prints_one_line_to_paste_and_the_same_line_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = serve(dir.path());
    let added = output(dir.path(), &["gateway", "add", "gw-1"]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    let line = text(&added.stdout);
    let word: JoinToken = line.strip_prefix("edge-agent init --join ").unwrap().parse().unwrap();
    assert_eq!(word.upstream.host_name, "central.test:8884");
    assert_eq!(word.upstream.device_id.as_str(), "gw-1");
    assert_eq!(word.ca_pem, std::fs::read_to_string(dir.path().join("ca.pem")).unwrap());
    assert_eq!(text(&output(dir.path(), &["gateway", "add", "gw-1"]).stdout), line);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn gateway_add_refuses_what_cannot_become_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mistyped = output(&dir.path().join("typo"), &["gateway", "add", "gw-1"]);
    assert_eq!(mistyped.status.code(), Some(1));
    assert!(text(&mistyped.stderr).contains("there is no store"), "{}", text(&mistyped.stderr));
    assert!(!dir.path().join("typo").exists());
    let (mut child, _) = serve(dir.path());
    let wrong = output(dir.path(), &["gateway", "add", "a b"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    let no_ca = output(dir.path(), &["gateway", "add", "gw-1", "--ca", "/dev/null"]);
    assert!(text(&no_ca.stderr).contains("/dev/null"), "{}", text(&no_ca.stderr));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn help_lists_exit_codes_and_completions_and_man_pages_hold_every_command() {
    let dir = tempfile::tempdir().unwrap();
    assert!(text(&output(dir.path(), &["--help"]).stdout).contains("Exit codes:"));
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&output(dir.path(), &["completions", shell]).stdout);
        for command in ["backup", "gateway", "token"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let man = dir.path().join("man1");
    assert!(output(dir.path(), &["man", man.to_str().unwrap()]).status.success());
    assert!(text(&std::fs::read(man.join("central-token-create.1")).unwrap()).contains("expires"));
}

#[test]
fn a_reader_that_goes_away_ends_no_command_with_a_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_central"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

/// As it was found: a panic with code 101 and `could not initialize ThreadRng`.
#[test]
fn too_few_open_files_are_refused_with_the_limit_and_not_with_a_panic() {
    for files in [6, 8, 9, 10, 11, 12, 20] {
        let dir = tempfile::tempdir().unwrap();
        let limited = format!("ulimit -n {files}; exec \"$0\" serve --data-dir \"$1\"");
        let ended = Command::new("sh")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_central")])
            .arg(dir.path())
            .env("CENTRAL__HTTP__LISTEN", "127.0.0.1:0")
            .env("CENTRAL__MQTT__MQTTS", "127.0.0.1:0")
            .output()
            .unwrap();
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{files}: {said}");
        assert!(said.contains(&format!("{files} files may be open")), "{files}: {said}");
    }
}

#[test]
fn a_file_argument_that_is_no_file_is_refused_with_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let data = dir.path().join("data");
    for (file, why) in [("/dev/zero", "it is a device"), (pipe.to_str().unwrap(), "it is a named pipe")] {
        for arguments in
            [&["serve", "--config", file][..], &["restore", file], &["id-scope", "--config", file]]
        {
            let refused = Command::new("timeout")
                .args(["60", env!("CARGO_BIN_EXE_central")])
                .args(arguments)
                .arg("--data-dir")
                .arg(&data)
                .output()
                .unwrap();
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains(why) && said.contains(file), "{arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_user_is_added_beside_a_running_server_signs_in_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url) = serve(dir.path());
    let done = |arguments: &[&str]| done(dir.path(), arguments);
    let refused = |arguments: &[&str]| refused(dir.path(), arguments);
    let status = async |user: &str, password: &str| {
        let request = reqwest::Client::new().post(format!("{url}/api/ext/session"));
        let body = serde_json::json!({"user": user, "password": password});
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    assert!(dir.path().join("setup-code").exists());
    let password = done(&["user", "add", "admin", "--role", "administrator"]);
    assert!(!dir.path().join("setup-code").exists(), "the site has a user");
    assert_eq!(status("admin", password.trim()).await, 200);
    assert!(refused(&["user", "add", "Admin", "--role", "viewer"]).contains("Admin"));
    assert!(refused(&["user", "remove", "admin"]).contains("last administrator"));

    let file = dir.path().join("password");
    std::fs::write(&file, "too short\n").unwrap();
    let path = file.to_str().unwrap();
    assert!(
        refused(&["user", "add", "eve", "--role", "viewer", "--password-file", path])
            .contains("9 characters")
    );
    std::fs::write(&file, "long enough it is\n").unwrap();
    done(&["user", "add", "eve", "--role", "viewer", "--password-file", path]);
    assert_eq!(status("eve", "long enough it is").await, 200);
    std::fs::write(&file, "and another one").unwrap();
    done(&["user", "password", "eve", "--password-file", path]);
    assert_eq!(
        (status("eve", "long enough it is").await, status("eve", "and another one").await),
        (401, 200)
    );
    let listed = done(&["user", "list"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(
        (rows.len(), rows[1][1], rows[1][2], rows[2][2]),
        (3, "admin", "Administrator", "Viewer"),
        "{listed}"
    );
    done(&["user", "remove", "eve"]);
    assert_eq!(status("eve", "and another one").await, 401);
    assert!(refused(&["user", "remove", "eve"]).contains("no user `eve`"));

    let token = done(&["token", "create", "--role", "administrator"]);
    let request = reqwest::Client::new().get(format!("{url}/api/ext/audit?who=central%20user%20add"));
    let page: serde_json::Value =
        request.header("Authorization", token.trim()).send().await.unwrap().json().await.unwrap();
    let rows = page["value"].as_array().unwrap();
    assert!(
        rows.len() == 2 && rows[0]["whoKind"] == "commandLine" && rows[0]["path"] == "/api/users/eve",
        "{page}"
    );
    let signalled = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_role_is_made_given_changed_and_removed_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, url) = serve(dir.path());
    let done = |arguments: &[&str]| done(dir.path(), arguments);
    let refused = |arguments: &[&str]| refused(dir.path(), arguments);
    let (view, update) = ("deviceInstances.view", "deviceInstances.update");
    done(&["role", "add", "night", "--name", "Night shift", "--permission", view]);
    assert!(refused(&["role", "add", "Night", "--permission", view]).contains("there is a role `night`"));
    let refusal = refused(&["role", "add", "other", "--permission", update]);
    assert!(refusal.contains(&format!("{update} needs {view}")), "{refusal}");
    assert!(refused(&["role", "set", "viewer", "--name", "V"]).contains("built in"));
    for wrong in [&["role", "add", "r", "--permission", "devices.view"][..], &["role", "set", "night"]] {
        assert_eq!(output(dir.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
    let listed = done(&["role", "list"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows[0], ["ID", "NAME", "KIND", "PERMISSIONS"]);
    assert!(rows.contains(&vec!["night", "Night shift", "custom", view]), "{listed}");
    assert_eq!(rows.len(), 1 + 7 + 1, "{listed}");

    let token = done(&["token", "create", "--role", "night", "--name", "t"]);
    done(&["user", "add", "eve", "--role", "night"]);
    assert!(done(&["user", "list"]).contains("Night shift") && done(&["token", "list"]).contains("night"));
    assert!(refused(&["token", "create", "--role", "none"]).contains("roles.0.role: found `none`"));
    let get = async |path: &str, token: &str| {
        let request = reqwest::Client::new().get(format!("{url}{path}"));
        request.header("Authorization", token.trim()).send().await.unwrap()
    };
    assert_eq!(get("/api/devices?api-version=1.0", &token).await.status(), 200);
    done(&["role", "set", "night", "--permission", "roles.view"]);
    assert_eq!(get("/api/devices?api-version=1.0", &token).await.status(), 403);
    assert_eq!(get("/api/ext/roles", &token).await.status(), 200);
    assert!(refused(&["role", "remove", "night"]).contains("1 user and 1 API token"));

    // What takes no output makes a failure of every command, and none of them panics.
    for arguments in [
        &["role", "list"][..],
        &["role", "add", "more", "--permission", view],
        &["role", "set", "more", "--name", "More"],
        &["role", "remove", "more"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = central(dir.path(), arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let error = text(&output.stderr);
        assert!(
            output.status.code() == Some(1) && error.contains("standard output"),
            "{arguments:?}: {error}"
        );
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
    }

    let administrator = done(&["token", "create", "--role", "administrator"]);
    let rows = get("/api/ext/audit?path=/api/ext/roles/night", &administrator).await;
    let rows: serde_json::Value = rows.json().await.unwrap();
    let (changed, added) = (&rows["value"][0], &rows["value"][1]);
    assert_eq!(
        (&changed["kind"], &changed["who"]),
        (&"updated".into(), &"central role set".into()),
        "{rows}"
    );
    assert_eq!(changed["before"]["permissions"][0], view);
    assert_eq!(changed["after"]["permissions"][0], "roles.view");
    assert_eq!((&added["kind"], &added["after"]["displayName"]), (&"created".into(), &"Night shift".into()));
    done(&["user", "remove", "eve"]);
    done(&["token", "revoke", "t"]);
    done(&["role", "remove", "night"]);
    assert!(refused(&["role", "remove", "night"]).contains("no role `night`"));
    let signalled = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    assert!(signalled.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Runs a command with a terminal as its standard output (script(1), of util-linux), which `environment` describes.
fn on_a_terminal(dir: &Path, arguments: &str, environment: [(&str, &str); 2]) -> String {
    let program = env!("CARGO_BIN_EXE_central");
    let line = format!("{program} {arguments} --data-dir {}", dir.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    // What the machine that runs the tests says about colour counts for nothing here.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(name);
    }
    script.env("CENTRAL__HOSTNAME", "central.test").envs(environment);
    text(&script.output().unwrap().stdout)
}

#[test]
fn lists_are_coloured_and_aligned_on_a_terminal_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = serve(dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["a", "a-longer-name"] {
        let made = output(dir.path(), &["token", "create", "--role", "viewer", "--name", name]);
        assert!(made.status.success(), "{made:?}");
    }
    let piped = text(&output(dir.path(), &["token", "list"]).stdout);
    assert!(piped.contains("a\tviewer\t") && !piped.contains('\u{1b}'), "{piped:?}");
    let shown = on_a_terminal(dir.path(), "token list", [("TERM", "xterm"), ("LANG", "C")]);
    assert!(shown.contains("\u{1b}[1mNAME\u{1b}[0m") && shown.contains("a              viewer"), "{shown:?}");
    for plain in [[("TERM", "xterm"), ("NO_COLOR", "1")], [("TERM", "dumb"), ("LANG", "C")]] {
        let shown = on_a_terminal(dir.path(), "token list", plain);
        assert!(shown.contains("a              viewer") && !shown.contains('\u{1b}'), "{plain:?}: {shown:?}");
    }
    let gateways = text(&output(dir.path(), &["gateway", "list"]).stdout);
    assert_eq!(gateways, "ID\tNAME\tMAY CONNECT\tLAST SEEN\n");
}
