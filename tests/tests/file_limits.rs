//! A gateway that may open few files: what keeps promises comes before connections, and too few are said at the start. And one that may
//! write only short ones.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason;
use site_tests::STEP;
use site_tests::five::Device;
use site_tests::process::run;
use site_tests::raw;
use site_tests::site::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

fn with_limit(site: &mut Site, files: u32) {
    site.agent_in = ["prlimit".into(), format!("--nofile={files}:{files}"), "--".into()].to_vec();
}

#[tokio::test]
async fn strangers_that_hold_every_connection_take_no_file_from_disk_and_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "few-files", false).unwrap();
    site.init_alone().await.unwrap();
    // 88 connections beside the reserve.
    with_limit(&mut site, 600);
    site.start_agent().await.unwrap();
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    let mut device = login.open(site.gateway_mqtt).await.unwrap();
    let id = site.agent_id().unwrap();

    let ports = [site.gateway_mqtt, site.gateway_mqtts, site.gateway_https];
    let socket = site.agent_dir().join("edge-agent.sock");
    let (mut strangers, mut local) = (Vec::new(), Vec::new());
    for round in 0..700 {
        if let Ok(Ok(stream)) =
            timeout(Duration::from_millis(100), TcpStream::connect(("127.0.0.1", ports[round % ports.len()])))
                .await
        {
            strangers.push(stream);
        }
        // Its backlog is bounded too.
        if let Ok(Ok(stream)) = timeout(Duration::from_millis(10), UnixStream::connect(&socket)).await {
            local.push(stream);
        }
    }
    println!("{} connections of strangers, {} on the local socket", strangers.len(), local.len());
    for id in 1..=200_u16 {
        let packet = raw::publish("devices/press-1/messages/events/", 1, id, b"{\"n\":1}");
        device.write_all(&packet).await.unwrap();
        let mut answer = [0; 4];
        timeout(STEP, device.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, [0x40, 2, (id >> 8) as u8, id as u8]);
    }
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    assert!(open < 400, "{open} files are open");
    drop((strangers, local));
    let status = site.agent_json(&["status"]).await.unwrap();
    assert_eq!(status["queues"][0]["accepted"], 200, "{status}");
    assert_eq!(site.agent_id().unwrap(), id, "the daemon was restarted");
    assert!(site.agent_log().contains("too few files may be open"), "nobody was told");
    site.end(false).await.unwrap();
}

#[tokio::test]
async fn a_start_with_too_few_files_is_refused_by_the_name_of_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path(), "no-files", false).unwrap();
    site.init_alone().await.unwrap();
    let agent = site.agent_command(&["run"]).unwrap();
    let mut limited = tokio::process::Command::new("prlimit");
    limited
        .args(["--nofile=300:300", "--"])
        .arg(agent.as_std().get_program())
        .args(agent.as_std().get_args());
    for (name, value) in agent.as_std().get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let (code, _, error) = timeout(STEP, run(&mut limited)).await.unwrap().unwrap();
    assert_eq!(code, 1, "{error}");
    assert!(error.contains("300 files may be open") && error.contains("LimitNOFILE"), "{error}");
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_ends_no_gateway_and_no_confirmed_message() {
    const LIMIT: u64 = 3 << 20;
    const MESSAGES: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "short-files", false).unwrap();
    site.init_alone().await.unwrap();
    site.agent_in = ["prlimit".into(), format!("--fsize={LIMIT}:{LIMIT}"), "--".into()].to_vec();
    site.start_agent().await.unwrap();
    let login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    let id = site.agent_id().unwrap();
    for number in 0..MESSAGES {
        let sent = device.publish("devices/press-1/messages/events/", vec![b'x'; 20_000]);
        let answer = timeout(STEP, sent).await.unwrap().unwrap();
        assert_eq!(answer.reason, PubAckReason::Success, "{number}: {}", answer.why);
    }
    let queue = site.agent_json(&["status"]).await.unwrap()["queues"][0].clone();
    assert_eq!((&queue["accepted"], &queue["messages"]), (&MESSAGES.into(), &MESSAGES.into()), "{queue}");
    assert_eq!(site.agent_id().unwrap(), id, "the daemon was restarted");
    drop(device);
    site.kill_agent().await.unwrap();
    site.agent_in.clear();
    site.start_agent().await.unwrap();
    let queue = site.agent_json(&["status"]).await.unwrap()["queues"][0].clone();
    assert_eq!(queue["messages"], MESSAGES, "{queue}");
    site.end(false).await.unwrap();
}
