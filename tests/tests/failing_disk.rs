//! central's disk fails its writes for seconds and works again, while devices publish: everything acknowledged arrives once and in order,
//! and the store is whole. Needs root and loop devices; no containers.
//!
//! `make test` does it once, `make faults` ten times.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use site_tests::STEP;
use site_tests::job::exactly_once;
use site_tests::leaf::Leaf;
use site_tests::site::Site;
use site_tests::thin_disk::{ThinDisk, forget_cached_pages};
use tokio::time::Instant;

const DEVICES: usize = 4;
const INTERVAL: Duration = Duration::from_millis(4);
/// Of one message, so that the store's files grow.
const BYTES: usize = 2000;
/// How long the disk fails.
const FAILS: Duration = Duration::from_secs(8);
/// Disks on which the file system may turn read-only, in which case the disk does not work again and the round says nothing.
const READ_ONLY_MAX: usize = 4;

/// A disk that can fail; `None` where the test is skipped: on a machine without loop devices, where the long form fails instead.
#[track_caller]
fn skipped_or<T>(made: anyhow::Result<T>) -> Option<T> {
    made.map_err(|error| {
        assert!(std::env::var_os("LINESIDE_FAULTS").is_none(), "a real disk is needed: {error:#}");
        test_needs::skip_on_this_machine(&format!("it needs loop devices: {error:#}"));
    })
    .ok()
}

/// The disk fails for a while; gives what central ended with meanwhile.
async fn fail_for_a_while(site: &mut Site, disk: &ThinDisk) -> Vec<i32> {
    disk.fail().unwrap();
    let begin = Instant::now();
    let mut codes = site.keep_central_running(begin + FAILS / 2).await;
    forget_cached_pages().unwrap();
    codes.extend(site.keep_central_running(begin + FAILS).await);
    disk.work_again().unwrap();
    codes.extend(site.keep_central_running(Instant::now() + FAILS / 2).await);
    codes
}

/// Devices publish while the disk fails and works again, and central's machine loses power: everything acknowledged has arrived once.
/// Returns what was acknowledged and what central ended with.
async fn round(disk: &ThinDisk) -> anyhow::Result<(usize, Vec<i32>)> {
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::symlink(disk.path(), dir.path().join("central"))?;
    let mut site = Site::new(dir.path(), "thin-gateway", false)?;
    site.start_central().await?;
    site.init_gateway().await?;
    site.start_agent().await?;
    site.gateway_connected(STEP).await?;
    let mut leaves = Vec::new();
    for index in 0..DEVICES {
        let mut options = site.add_leaf(&format!("thin-{index}"), INTERVAL).await?;
        options.padding = BYTES;
        leaves.push(Leaf::start(options));
    }
    for leaf in &mut leaves {
        leaf.acknowledged_more(100, STEP).await?;
    }
    let codes = fail_for_a_while(&mut site, disk).await;
    for leaf in &mut leaves {
        leaf.acknowledged_more(1, STEP).await?;
    }
    // Its machine loses power: what the disk has is all that comes back. It may have ended by itself just now.
    let _ended = site.kill_central().await;
    forget_cached_pages()?;
    site.start_central().await?;
    let rest = site.rest()?.clone();
    let mut acknowledged = 0;
    for (index, leaf) in leaves.into_iter().enumerate() {
        let seen = leaf.stop().await?;
        acknowledged += exactly_once(&rest, &format!("thin-{index}"), || seen.clone()).await?;
    }
    site.end(false).await?;
    Ok((acknowledged, codes))
}

#[tokio::test]
async fn a_disk_of_central_that_fails_for_seconds_loses_nothing_acknowledged() {
    let is_long = std::env::var_os("LINESIDE_FAULTS").is_some();
    let (rounds, mut read_only) = (if is_long { 10 } else { 1 }, 0);
    let mut number = 0;
    while number < rounds {
        let Some(disk) = skipped_or(ThinDisk::new(200).await) else { return };
        let result = round(&disk).await;
        // It may turn read-only at any time until the end, also once its storage works again.
        if disk.is_read_only() {
            read_only += 1;
            assert!(read_only <= READ_ONLY_MAX, "the file system turned read-only on {read_only} disks");
            continue;
        }
        number += 1;
        let (acknowledged, codes) = result.unwrap();
        println!(
            "round {number}: {acknowledged} acknowledged, all arrived once; central ended with {codes:?}"
        );
    }
}
