//! What stands in a gateway's data directory and is wrong, or is used by two, stops no more than it must.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::{Path, PathBuf};

use site_tests::STEP;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;

async fn gateway(dir: &Path, upstream: Option<&str>) -> Site {
    let site = Site::new(dir, "data-dir", false).unwrap();
    match upstream {
        None => site.init_alone().await.unwrap(),
        Some(upstream) => {
            // Any certificate will do as central's authority: nobody is there.
            let ca = dir.join("central-ca.pem");
            let made = rcgen::generate_simple_self_signed(vec!["central".into()]).unwrap();
            std::fs::write(&ca, made.cert.pem()).unwrap();
            site.init_with(upstream, &ca).await.unwrap();
        }
    }
    site
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_takes_nothing_from_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = gateway(dir.path(), None).await;
    site.start_agent().await.unwrap();
    let reserve = site.agent_dir().join("state/reserve");
    assert!(reserve.exists());
    let (code, _, error) = run(&mut site.agent_command(&["run"]).unwrap()).await.unwrap();
    assert_ne!(code, 0);
    let holder = format!("in use by another edge-agent (process {})", site.agent_id().unwrap());
    assert!(error.contains(&holder), "{error}");
    assert!(reserve.exists());
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    login.open(site.gateway_mqtt).await.unwrap();
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn devices_are_served_while_the_file_of_centrals_authority_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = "HostName=localhost:1;DeviceId=data-dir;SharedAccessKey=YWJj";
    let mut site = gateway(dir.path(), Some(upstream)).await;
    std::fs::write(site.agent_dir().join("upstream-ca.pem"), "damaged").unwrap();
    std::fs::write(site.agent_dir().join("server.pem"), "damaged").unwrap();
    site.start_agent().await.unwrap();
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    login.open(site.gateway_mqtt).await.unwrap();
    // Said by the first attempt to connect, which follows the start.
    eventually("the status says why there is no link", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        let why = status["upstream"]["why"].as_str().unwrap_or_default();
        Ok(why.contains("[upstream] ca").then_some(()))
    })
    .await
    .unwrap();
    assert!(site.agent_dir().join("server.pem.damaged").exists());
    site.end(false).await.unwrap();
}

/// As an older version left it, with keys of devices and queued messages readable for everybody.
#[tokio::test]
async fn nothing_that_a_gateway_stores_can_be_read_by_other_users_and_check_says_when_it_can() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mut site = gateway(dir.path(), None).await;
    site.start_agent().await.unwrap();
    site.add_here(&["press-1".into()]).await.unwrap();
    site.stop_agent().await.unwrap();
    let data_dir = site.agent_dir();
    let set = |name: &str, mode| {
        std::fs::set_permissions(data_dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o711);
    for name in ["state", "buffer", "mqtt", "quarantine"] {
        set(name, 0o755);
    }
    let finding = async || {
        let (_, out, _) = run(&mut site.agent_command(&["check", "--json"]).unwrap()).await.unwrap();
        let findings: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        findings.into_iter().find(|finding| finding["id"] == "permissions").unwrap()["level"].clone()
    };
    assert_eq!(finding().await, "warn");
    site.start_agent().await.unwrap();
    let (mut left, mut seen) = (vec![data_dir.clone()], 0);
    while let Some(path) = left.pop() {
        let data = match std::fs::symlink_metadata(&path) {
            Ok(data) => data,
            // The daemon runs: a new file takes the place of an older one now and then.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        assert_eq!(data.permissions().mode() & 0o077, 0, "{}", path.display());
        seen += 1;
        if data.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 10, "{seen} files and directories");
    let (_, out, _) = run(&mut site.agent_command(&["check", "--json"]).unwrap()).await.unwrap();
    assert!(out.contains("for its owner alone"), "{out}");
    site.end(false).await.unwrap();
}

/// The files in which a gateway keeps records one behind the other, and what says how far they were used.
fn record_files(data_dir: &Path) -> Vec<PathBuf> {
    let (mut left, mut found) = (vec![data_dir.to_owned()], Vec::new());
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|ending| ending == "segment" || ending == "ledger")
            || path.file_name().is_some_and(|name| name == "ledger")
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Damage is an ERROR at the start that finds it, and not again at each start for ever.
#[tokio::test]
async fn damage_to_any_file_of_records_is_no_alarm_again_at_later_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = gateway(dir.path(), None).await;
    site.start_agent().await.unwrap();
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    let mut device = site_tests::five::Device::connect(&login, site.gateway_mqtt).await.unwrap();
    for n in 0..50 {
        device.publish("devices/press-1/messages/events/", n.to_string()).await.unwrap();
        device
            .publish("$iothub/twin/PATCH/properties/reported/?$rid=1", format!(r#"{{"n":{n}}}"#))
            .await
            .unwrap();
    }
    drop(device);
    site.kill_agent().await.unwrap();
    let (data, whole) = (site.agent_dir(), dir.path().join("whole"));
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    copy(&data, &whole);
    let files = record_files(&data);
    let mut kinds: Vec<_> = files.iter().map(|file| file.parent().unwrap()).collect();
    kinds.dedup();
    assert!(kinds.len() >= 4, "state, queues, quarantine and sessions: {kinds:?}");
    let mut found = Vec::new();
    for file in &files {
        // Each in the directory as it was: a start removes segments that it has no more use for.
        std::fs::remove_dir_all(&data).unwrap();
        copy(&whole, &data);
        let mut bytes = std::fs::read(file).unwrap();
        // Of what is written: a segment is made larger than that.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for byte in &mut bytes[used / 2..used] {
            *byte ^= 0xa5;
        }
        std::fs::write(file, &bytes).unwrap();
        for start in 0..3 {
            let logged = site.agent_log().len();
            site.start_agent().await.unwrap();
            site.stop_agent().await.unwrap();
            let log = site.agent_log().split_off(logged);
            let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
            if start == 0 && !errors.is_empty() {
                found.push(file.strip_prefix(&data).unwrap());
            }
            assert!(start == 0 || errors.is_empty(), "{} at start {start}: {errors:?}", file.display());
        }
    }
    assert!(
        found.iter().any(|file| file.starts_with("state")),
        "damage was found in {found:?} only, of {files:?}"
    );
}
