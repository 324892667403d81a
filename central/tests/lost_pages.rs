//! A disk that loses pages of central.db and says so once, to a sync (Linux: the pages count as written from then on): what was
//! committed is still in the log, and the next start takes it from there.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod process;

use std::fs;
use std::path::Path;
use std::process::Command;

use process::Place;

fn compiled(dir: &Path) -> std::path::PathBuf {
    let library = dir.join("failing_sync.so");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failing_sync.c"))
        .status()
        .unwrap();
    assert!(made.success());
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_the_disk_loses_are_taken_from_the_log_by_the_next_start() {
    let place = Place::new();
    let (store, trigger) = (place.data().join("central.db"), place.path().join("the disk fails"));
    let library = compiled(place.path());
    let central = place
        .serve(|command| {
            command.env("LD_PRELOAD", &library).env("FAILING_SYNC_WHILE", &trigger);
        })
        .unwrap();
    let (client, token) = (reqwest::Client::new(), place.token());
    assert!(central.put(&client, &token, 0).await);
    fs::write(&trigger, "").unwrap();
    let mut confirmed = vec![0];
    // As many as it takes until it moves its log, which may be at once.
    for n in 1..=30 {
        if central.put(&client, &token, n).await {
            confirmed.push(n);
        }
    }
    assert_eq!(central.ended(), Some(70));
    fs::remove_file(&trigger).unwrap();

    // After a power cut the disk has what it had before it failed.
    fs::copy(trigger.with_file_name("the disk fails.before"), &store).unwrap();
    let central = place.serve(|_| {}).unwrap();
    for n in confirmed {
        assert!(central.has(&client, &token, n).await, "press-{n} was confirmed");
    }
    assert_eq!(central.terminate(), Some(0));
    let log = fs::metadata(store.with_file_name("central.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "moved at the stop");
}
