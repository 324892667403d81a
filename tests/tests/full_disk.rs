//! A gateway whose disk fills to the last byte, end to end on a real small file system: what has expired goes first, then the
//! oldest of the lowest priority, then new telemetry is refused in words, while twins and commands go on; and when
//! space is freed everything recovers by itself. Needs root and loop devices; no containers.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

#[path = "../../edge-agent/tests/disk/loop_disk.rs"]
#[allow(dead_code, reason = "power is cut elsewhere")]
mod loop_disk;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loop_disk::Disk;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::five::Device;
use site_tests::ledger;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::Site;

const MIB: u64 = 1 << 20;
const KEEP_FREE: u64 = 4 * MIB;
/// One message.
const BODY: usize = 20_000;

fn free(path: &Path) -> u64 {
    let output = std::process::Command::new("df").args(["--output=avail", "-B1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}

/// Another program takes all but so many bytes.
fn fill(path: PathBuf, until: u64) -> PathBuf {
    let disk = path.parent().unwrap().to_owned();
    let mut file = std::fs::File::create(&path).unwrap();
    // In pieces: a file system does not give its last blocks at once.
    while free(&disk) > until + (1 << 20) {
        let piece = path.with_extension(free(&disk).to_string());
        let length = (free(&disk) - until).div_euclid(2).max(1 << 19).to_string();
        let done =
            std::process::Command::new("fallocate").args(["-l", &length]).arg(&piece).status().unwrap();
        assert!(done.success());
    }
    while free(&disk) > until && file.write_all(&[7; 4096]).is_ok() {
        file.sync_data().unwrap();
    }
    if until == 0 {
        while file.write_all(&[7]).is_ok() {}
    }
    path
}

/// It gives back what it took.
fn free_again(path: &Path) {
    let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap());
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().is_some_and(|other| other.starts_with(name)) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

struct Sent {
    acknowledged: u64,
    refused: u64,
}

/// Publishes messages of a class until `count` are acknowledged, or one is refused.
async fn publish(device: &mut Device, class: &str, count: u64) -> Sent {
    let topic = format!("devices/full-1/messages/events/class={class}");
    let mut sent = Sent { acknowledged: 0, refused: 0 };
    while sent.acknowledged < count && sent.refused == 0 {
        let answer = device.publish(&topic, vec![b'x'; BODY]).await.unwrap();
        match answer.reason {
            PubAckReason::Success => sent.acknowledged += 1,
            PubAckReason::QuotaExceeded => {
                assert!(answer.why.contains("limits"), "{answer:?}");
                sent.refused += 1;
            }
            other => panic!("{other:?}: {}", answer.why),
        }
    }
    sent
}

async fn queue(site: &Site, name: &str) -> Value {
    let status = site.agent_json(&["status"]).await.unwrap();
    let queues = status["queues"].as_array().unwrap();
    queues.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

fn lost(queue: &Value, cause: &str) -> u64 {
    queue["lost"][cause].as_u64().unwrap()
}

/// A reported patch is taken and a command answered.
async fn twins_and_commands_go_on(site: &Site, device: &mut Device, round: u64) {
    let patch = json!({"round": round}).to_string();
    device.publish(&format!("$iothub/twin/PATCH/properties/reported/?$rid={round}"), patch).await.unwrap();
    let (topic, _) = device.message().await.unwrap();
    assert!(topic.starts_with("$iothub/twin/res/204/"), "{topic}");
    let mut call = site.agent_command(&["call", "device/full-1", "stop", "{\"now\":true}"]).unwrap();
    let call = tokio::spawn(async move { run(&mut call).await });
    let (topic, body) = device.message().await.unwrap();
    assert!(topic.starts_with("$iothub/methods/POST/stop/?$rid="), "{topic}");
    assert_eq!(body, b"{\"now\":true}");
    let id = topic.rsplit_once("?$rid=").unwrap().1.to_owned();
    device.publish(&format!("$iothub/methods/res/200/?$rid={id}"), format!("{round}")).await.unwrap();
    let (code, out, error) = call.await.unwrap().unwrap();
    assert_eq!((code, out.trim()), (0, format!("200 {round}").as_str()), "{error}");
}

#[tokio::test]
async fn a_disk_that_fills_costs_what_matters_least_first_and_recovers_by_itself() {
    let Some(disk) = Disk::new(64) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "full-gateway", false).unwrap();
    std::os::unix::fs::symlink(disk.path(), site.agent_dir()).unwrap();
    site.agent_env = vec![
        ("EDGE_AGENT__BUFFER__KEEP_FREE_BYTES", KEEP_FREE.to_string()),
        ("EDGE_AGENT__BUFFER__MAX_BYTES", (40 * MIB).to_string()),
    ];
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    let route = |class: &str| format!("FROM /messages/* WHERE class = '{class}' INTO $upstream");
    site.apply_hub(json!({"schemaVersion": "1.2", "routes": {
        "alarm": {"route": route("alarm"), "priority": 0, "full": "refuse"},
        "reading": {"route": route("reading"), "priority": 5},
        "short": {"route": route("short"), "priority": 6, "timeToLiveSecs": 1},
        "debug": {"route": route("debug"), "priority": 9},
    }}))
    .await
    .unwrap();
    let login = site.add_here(&["full-1".to_owned()]).await.unwrap().remove(0);
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    device.subscribe("$iothub/twin/res/#").await.unwrap();
    twins_and_commands_go_on(&site, &mut device, 1).await;

    let per_mib = MIB / BODY as u64;
    let short = publish(&mut device, "short", 4 * per_mib).await;
    // Its time to live is a second.
    let is_expired = tokio::time::Instant::now() + Duration::from_millis(1_200);
    let debug = publish(&mut device, "debug", 6 * per_mib).await;
    let reading = publish(&mut device, "reading", 6 * per_mib).await;
    let first_hog = fill(disk.path().join("hog-1"), KEEP_FREE + MIB / 2);

    // What has expired makes room first; then debug does, and readings stay.
    tokio::time::sleep_until(is_expired).await;
    let mut alarms = publish(&mut device, "alarm", 3 * per_mib).await;
    let (shorts, debugs) = (queue(&site, "upstream@6").await, queue(&site, "upstream@9").await);
    assert_eq!(
        (lost(&shorts, "expired"), lost(&debugs, "evicted")),
        (short.acknowledged, 0),
        "{shorts} {debugs}"
    );
    let more = publish(&mut device, "alarm", 4 * per_mib).await;
    alarms.acknowledged += more.acknowledged;
    let (debugs, readings) = (queue(&site, "upstream@9").await, queue(&site, "upstream@5").await);
    assert!(lost(&debugs, "evicted") > 0 && lost(&readings, "evicted") == 0, "{debugs} {readings}");

    // Another program takes every byte that is left: readings go too, and then alarms are refused, in words.
    let second_hog = fill(disk.path().join("hog-2"), 0);
    let more = publish(&mut device, "alarm", 40 * per_mib).await;
    alarms.acknowledged += more.acknowledged;
    assert_eq!(more.refused, 1, "a full disk took everything");
    for _ in 0..5 {
        let more = publish(&mut device, "alarm", 1).await;
        alarms.refused += more.refused;
    }
    alarms.refused += more.refused;
    let full = queue(&site, "upstream@0.refuse").await;
    assert_eq!((&full["room"], lost(&full, "evicted")), (&json!("refusing"), 0), "{full}");
    for round in 2..12 {
        twins_and_commands_go_on(&site, &mut device, round).await;
    }
    let (_, text, _) = run(&mut site.agent_command(&["status"]).unwrap()).await.unwrap();
    assert!(text.contains("upstream@0.refuse: FULL"), "{text}");
    assert!(text.contains("messagesWithoutRoom 6"), "{text}");

    // Space is freed: on the same connection, alarms are taken again.
    free_again(&second_hog);
    free_again(&first_hog);
    let more = publish(&mut device, "alarm", 5).await;
    assert_eq!((more.acknowledged, more.refused), (5, 0));
    alarms.acknowledged += more.acknowledged;
    assert_eq!(queue(&site, "upstream@0.refuse").await["room"], "enough");
    let log = site.agent_log();
    for phrase in [
        "is full and refuses new messages",
        "queue accepts messages again",
        "the oldest records of a queue were dropped",
    ] {
        assert!(log.contains(phrase), "the log does not say: {phrase}");
    }

    // The books, over a SIGKILL: what was acknowledged waits, or is told as lost.
    let alarm = site.agent_dir().join("buffer/upstream@0.refuse");
    eventually("what was refused is in the ledger on disk", STEP, || async {
        Ok((ledger::refused(&alarm)? == alarms.refused).then_some(()))
    })
    .await
    .unwrap();
    site.kill_agent().await.unwrap();
    site.start_agent().await.unwrap();
    let (mut acknowledged, mut kept) = (0, 0);
    for (name, sent) in [
        ("upstream@0.refuse", &alarms),
        ("upstream@5", &reading),
        ("upstream@6", &short),
        ("upstream@9", &debug),
    ] {
        let queue = queue(&site, name).await;
        let waits = queue["messages"].as_u64().unwrap();
        println!("{name}: acknowledged {}, waits {waits}, lost {}", sent.acknowledged, queue["lost"]);
        assert_eq!(waits + lost(&queue, "expired") + lost(&queue, "evicted"), sent.acknowledged, "{queue}");
        assert_eq!((lost(&queue, "refused"), lost(&queue, "damaged")), (sent.refused, 0), "{queue}");
        (acknowledged, kept) = (acknowledged + sent.acknowledged, kept + waits);
    }
    println!(
        "full disk: acknowledged {acknowledged}, kept {kept}, told as expired or evicted {}, lost 0, twice 0",
        acknowledged - kept
    );
    site.end(false).await.unwrap();
}
