//! Data directories that go back in time, with both programs: what is acknowledged arrives, or is told as a loss. No containers
//! needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use site_tests::five::Device;
use site_tests::process::run;
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::process::Command;

const STEP: Duration = Duration::from_secs(60);
const DEVICE: &str = "press-1";

async fn site(dir: &Path, gateway: &str) -> (Site, Login) {
    let mut site = Site::new(dir, gateway, false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    let login = site.add_leaf(DEVICE, Duration::ZERO).await.unwrap().login();
    site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    (site, login)
}

/// Publishes numbers; each is acknowledged.
async fn publish(site: &Site, login: &Login, numbers: Range<u32>) {
    let mut device = Device::connect(login, site.gateway_mqtt).await.unwrap();
    for number in numbers {
        let topic = format!("devices/{DEVICE}/messages/events/");
        let answer = device.publish(&topic, number.to_string()).await.unwrap();
        assert_eq!(answer.reason, rumqttc::v5::mqttbytes::v5::PubAckReason::Success, "{}", answer.why);
    }
}

/// The numbers that central has.
async fn arrived(site: &Site) -> BTreeSet<u32> {
    let messages = site.rest().unwrap().messages(DEVICE).await.unwrap();
    messages.iter().map(|message| u32::try_from(message["body"].as_u64().unwrap()).unwrap()).collect()
}

async fn all_arrived(site: &Site, numbers: &BTreeSet<u32>) {
    eventually("each acknowledged message in central", STEP, || async {
        Ok(arrived(site).await.is_superset(numbers).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}; {}", site.agent_log()));
}

async fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let (code, _, error) = run(Command::new("cp").arg("-a").args([from, to])).await.unwrap();
    assert_eq!(code, 0, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_takes_after_its_directory_was_restored_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, login) = site(dir.path(), "restored-gateway").await;
    let mut random = StdRng::seed_from_u64(11);
    let (mut next, mut sent) = (0, BTreeSet::new());
    let mut more = |most: u32| {
        let numbers = next..next + random.random_range(1..most);
        next = numbers.end;
        sent.extend(numbers.clone());
        (numbers, sent.clone())
    };
    let copied = dir.path().join("copy");
    for round in 0..4 {
        let (numbers, all) = more(60);
        publish(&site, &login, numbers).await;
        all_arrived(&site, &all).await;
        site.stop_agent().await.unwrap();
        copy(&site.agent_dir(), &copied).await;
        site.start_agent().await.unwrap();
        site.gateway_connected(STEP).await.unwrap();
        let (numbers, all) = more(60);
        publish(&site, &login, numbers).await;
        all_arrived(&site, &all).await;
        site.kill_agent().await.unwrap();
        // Fewer sequences than central has of it, as many, and more follow in the rounds.
        copy(&copied, &site.agent_dir()).await;
        site.start_agent().await.unwrap();
        let (numbers, all) = more(if round % 2 == 0 { 20 } else { 120 });
        publish(&site, &login, numbers).await;
        all_arrived(&site, &all).await;
    }
    let totals = "/api/ext/devices/restored-gateway/losses/totals";
    let totals = site.rest().unwrap().get(totals).await.unwrap();
    assert!(!totals.to_string().contains("central-restored"), "{totals}");
    site.end(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_restored_central_has_no_more_is_told_as_lost_and_what_follows_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, login) = site(dir.path(), "restored-central").await;
    publish(&site, &login, 0..50).await;
    all_arrived(&site, &(0..50).collect()).await;
    site.stop_central().await.unwrap();
    let (central, copied) = (dir.path().join("central"), dir.path().join("copy"));
    copy(&central, &copied).await;
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    publish(&site, &login, 50..80).await;
    all_arrived(&site, &(0..80).collect()).await;
    site.kill_central().await.unwrap();
    copy(&copied, &central).await;
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    publish(&site, &login, 80..100).await;
    all_arrived(&site, &(0..50).chain(80..100).collect()).await;
    assert_eq!(arrived(&site).await.len(), 70);
    let rest = site.rest().unwrap();
    let lost = eventually("the loss in central", STEP, || async {
        let losses = rest.get("/api/ext/devices/restored-central/losses").await?;
        let losses = losses["value"].as_array().cloned().unwrap_or_default();
        let of_cause = losses.iter().filter(|loss| loss["cause"] == "central-restored");
        let count: u64 = of_cause.filter_map(|loss| loss["count"].as_u64()).sum();
        Ok((count > 0).then_some(count))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}; {}", site.agent_log()));
    assert_eq!(lost, 30, "acknowledged = arrived + told");
    site.end(false).await.unwrap();
}
