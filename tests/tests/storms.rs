//! SIGKILL storms: gateway and central are killed again and again at random moments under publishers, and every message
//! that a device saw acknowledged is in central once, in the order of its device.
//!
//! `make test` kills each three times under 10 publishers; `make faults` 100 times under 50. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, Instant};

use site_tests::STEP;
use site_tests::job::exactly_once;
use site_tests::leaf::Leaf;
use site_tests::site::Site;

/// Each device's time between two messages.
const INTERVAL: Duration = Duration::from_millis(40);

#[tokio::test]
async fn killed_at_random_moments_nothing_acknowledged_is_lost_or_doubled_and_each_devices_order_holds() {
    let is_long = std::env::var_os("LINESIDE_FAULTS").is_some();
    let (kills, publishers) = if is_long { (100, 50) } else { (3, 10) };
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "storm-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut leaves = Vec::new();
    for index in 0..publishers {
        let options = site.add_leaf(&format!("storm-{index}"), INTERVAL).await.unwrap();
        leaves.push(Leaf::start(options));
    }
    for leaf in &mut leaves {
        leaf.acknowledged_more(1, STEP).await.unwrap();
    }
    let (begin, seed) = (Instant::now(), std::process::id());
    println!("seed {seed}");
    let mut random = u64::from(seed);
    for round in 0..kills * 2 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait_ms = 50 + (random >> 33) % 1200;
        // The moment is the point here: not an event that anything could tell.
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        if round % 2 == 0 {
            site.kill_agent().await.unwrap();
            site.start_agent().await.unwrap();
        } else {
            site.kill_central().await.unwrap();
            site.start_central().await.unwrap();
        }
    }
    // Everybody is back before it ends.
    for leaf in &mut leaves {
        leaf.acknowledged_more(1, STEP).await.unwrap();
    }
    let took = begin.elapsed();
    let rest = site.rest().unwrap().clone();
    let (mut acknowledged, mut unknown, mut connections) = (0, 0, 0);
    for (index, leaf) in leaves.into_iter().enumerate() {
        let seen = leaf.stop().await.unwrap();
        acknowledged += seen.acknowledged.len();
        unknown += seen.unknown.len();
        connections += seen.connections;
        exactly_once(&rest, &format!("storm-{index}"), || seen.clone()).await.unwrap();
    }
    assert!(connections >= publishers, "{connections} connections");
    println!(
        "{kills} kills of edge-agent, {kills} of central in {} s under {publishers} publishers: acknowledged {acknowledged}, \
         arrived {acknowledged}, lost 0, twice 0, order kept; {unknown} unknown to their devices; {connections} connections",
        took.as_secs()
    );
    site.end(false).await.unwrap();
}
