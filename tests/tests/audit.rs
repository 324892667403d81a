//! The sum of an auditor: what a gateway accepted is what arrived in central and what its ledger says was lost, for each
//! device, after expiry, eviction, refusal, damage on disk and SIGKILLs of both programs; and central knows every loss once.
//!
//! `make test` kills each program three times, `make faults` thirty times. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::leaf::{Leaf, Seen};
use site_tests::ledger;
use site_tests::rest::eventually;
use site_tests::site::Site;

/// Each device and the queue of its route.
const DEVICES: [(&str, &str); 3] =
    [("audit-short", "upstream@1"), ("audit-kept", "upstream@5.refuse"), ("audit-old", "upstream@9")];
const LOST: [&str; 4] = ["expired", "evicted", "damaged", "dropped"];

/// A moment nobody knows: not an event that anything could tell.
struct Moments(u64);

impl Moments {
    async fn next(&mut self, most_ms: u64) {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(20 + (self.0 >> 33) % most_ms)).await;
    }
}

async fn queue(site: &Site, name: &str) -> Value {
    let status = site.agent_json(&["status"]).await.unwrap();
    let queues = status["queues"].as_array().unwrap();
    queues.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("{name}: {status}")).clone()
}

/// Turns one bit in the first half of a queue's largest segment but the last: each start may begin a new one, so that the oldest may
/// be almost empty, and the last has space allocated ahead.
fn damage(dir: &Path) {
    let mut segments: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    segments.sort();
    let last = segments.pop().unwrap();
    let len = |path: &Path| path.metadata().unwrap().len();
    let path = segments.into_iter().max_by_key(|path| len(path)).unwrap_or(last);
    let place = SeekFrom::Start((len(&path) / 2).min(20_000));
    let mut file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(place).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(place).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn accepted_is_arrived_and_lost_for_each_device_and_central_knows_every_loss_once() {
    let kills = if std::env::var_os("LINESIDE_FAULTS").is_some() { 30 } else { 3 };
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "audit-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    let limits = "\n[buffer.queues.\"upstream@5.refuse\"]\nmax_bytes = 1048576\n\
        [buffer.queues.\"upstream@9\"]\nmax_bytes = 1048576\n";
    let mut file = std::fs::File::options().append(true).open(site.edge_toml()).unwrap();
    file.write_all(limits.as_bytes()).unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let route = |device: &str, rest: Value| {
        let text = format!("FROM /messages/* WHERE $connectionDeviceId = '{device}' INTO $upstream");
        let mut route = json!({"route": text});
        route.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        route
    };
    let routes = json!({
        "short": route("audit-short", json!({"priority": 1, "timeToLiveSecs": 2})),
        "kept": route("audit-kept", json!({"priority": 5, "full": "refuse"})),
        "old": route("audit-old", json!({"priority": 9})),
    });
    site.apply_hub(json!({"schemaVersion": "1.2", "routes": routes})).await.unwrap();
    let mut leaves = Vec::new();
    for (device, _) in DEVICES {
        let mut options = site.add_leaf(device, Duration::from_millis(4)).await.unwrap();
        options.padding = 2_000;
        leaves.push(options);
    }
    let logins: Vec<_> = leaves.iter().map(|options| options.login()).collect();
    site.leaves_known(&logins).await.unwrap();
    site.stop_central().await.unwrap();

    // central is away: queues fill, and the gateway dies again and again.
    let leaves: Vec<Leaf> = leaves.into_iter().map(Leaf::start).collect();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut moments = Moments(seed);
    for _ in 0..kills {
        moments.next(1500).await;
        site.kill_agent().await.unwrap();
        site.start_agent().await.unwrap();
    }
    eventually("old messages give way, and new ones are refused", STEP, || async {
        let (kept, old) = (queue(&site, "upstream@5.refuse").await, queue(&site, "upstream@9").await);
        let has = |queue: &Value, cause: &str| queue["lost"][cause].as_u64() > Some(0);
        Ok((has(&kept, "refused") && has(&old, "evicted")).then_some(()))
    })
    .await
    .unwrap();
    let kept = site.agent_dir().join("buffer/upstream@5.refuse");
    eventually("what was refused is in the ledger on disk", STEP, || async {
        Ok((ledger::refused(&kept)? > 0).then_some(()))
    })
    .await
    .unwrap();
    // The last one of this kind: the devices are told to stop while the gateway dies.
    let stopping: Vec<_> = leaves.into_iter().map(|leaf| tokio::spawn(leaf.stop())).collect();
    site.kill_agent().await.unwrap();
    let mut seen: Vec<Seen> = Vec::new();
    for stopping in stopping {
        seen.push(stopping.await.unwrap().unwrap());
    }
    damage(&kept);

    // Both die while the queues drain and their messages expire.
    site.start_agent().await.unwrap();
    site.start_central().await.unwrap();
    for _ in 0..kills {
        moments.next(400).await;
        site.kill_agent().await.unwrap();
        site.start_agent().await.unwrap();
        moments.next(400).await;
        site.kill_central().await.unwrap();
        site.start_central().await.unwrap();
    }
    let rest = site.rest().unwrap().clone();
    eventually("everything is sent and told", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        let waiting: u64 =
            status["queues"].as_array().into_iter().flatten().filter_map(|q| q["messages"].as_u64()).sum();
        Ok((waiting == 0 && status["lostNotTold"] == 0).then_some(()))
    })
    .await
    .unwrap();

    let totals = rest.get("/api/ext/devices/audit-gateway/losses/totals").await.unwrap();
    let status = site.agent_json(&["status"]).await.unwrap();
    for (cause, count) in status["lostByCause"].as_object().unwrap() {
        assert_eq!(totals["byCause"].get(cause).unwrap_or(&json!(0)), count, "{cause}: {totals} {status}");
    }
    for ((device, name), seen) in DEVICES.into_iter().zip(seen) {
        let queue = queue(&site, name).await;
        let count = |value: &Value| value.as_u64().unwrap();
        let accepted = count(&queue["accepted"]);
        let messages = rest.messages(device).await.unwrap();
        let arrived: BTreeSet<u64> = messages.iter().map(|message| count(&message["body"]["n"])).collect();
        let twice = messages.len() - arrived.len();
        let lost: u64 = LOST.iter().map(|cause| count(&queue["lost"][cause])).sum();
        println!(
            "{device}: acknowledged {}, unknown {}, accepted {accepted}, arrived {}, lost {}, twice {twice}",
            seen.acknowledged.len(),
            seen.unknown.len(),
            arrived.len(),
            queue["lost"],
        );
        assert_eq!(twice, 0, "{device}");
        assert_eq!(accepted, arrived.len() as u64 + lost, "{device}: {queue}");
        let (acknowledged, unknown) = (seen.acknowledged.len() as u64, seen.unknown.len() as u64);
        assert!((acknowledged..=acknowledged + unknown).contains(&accepted), "{device}");
        let known: BTreeSet<u64> = seen.acknowledged.union(&seen.unknown).copied().collect();
        assert!(arrived.is_subset(&known), "{device}: {:?}", arrived.difference(&known));
        // And by what central was told, for the device alone. Whose a damaged message was, nobody can read.
        let totals = rest.get(&format!("/api/ext/devices/{device}/losses/totals")).await.unwrap();
        for cause in ["expired", "evicted", "refused"] {
            let of_device = totals["byCause"].get(cause).map_or(0, count);
            assert_eq!(of_device, count(&queue["lost"][cause]), "{device} {cause}: {totals}");
        }
    }
    let damaged = count_of(&status, "damaged");
    assert!(damaged > 0, "{status}");
    for cause in ["expired", "evicted", "refused"] {
        assert!(count_of(&status, cause) > 0, "{cause}: {status}");
    }
    site.end(false).await.unwrap();
}

fn count_of(status: &Value, cause: &str) -> u64 {
    status["lostByCause"][cause].as_u64().unwrap()
}
