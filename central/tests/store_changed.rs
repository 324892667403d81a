//! A store whose files are deleted, replaced or damaged while central runs: it confirms nothing more, its health says why, and the
//! next start refuses what is not whole.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod started;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use central::store::telemetry::{NewMessage, Writing};
use central::store::{self, Keep, Store, StoreError, backup, devices, telemetry_reading};
use futures_util::future::join_all;
use started::{end, start, starting};

/// A busy machine with six centrals at once, and a checkpoint every five seconds.
const PATIENCE: Duration = Duration::from_secs(180);

async fn register(store: &Store) {
    let register = store.submit(|c| {
        devices::put(
            c,
            &devices::Device { revision: 1, ..devices::Device::new("press-1".parse().unwrap()) },
        )?;
        Ok::<_, StoreError>(())
    });
    register.await.unwrap();
}

async fn put(store: &Store, number: u64) -> Result<(), StoreError> {
    let message = NewMessage {
        from: "press-1".parse().unwrap(),
        enqueued_ms: number,
        received_ms: 0,
        bag: schemas::bag::PropertyBag::new(),
        body: format!(r#"{{"n":{number},"text":"{}"}}"#, "x".repeat(500)).into_bytes(),
        place: None,
        generation: None,
    };
    let written = store.submit(move |c| {
        let mut writing = Writing::new(c)?;
        writing.insert(&message)?;
        writing.finish()?;
        Ok::<_, StoreError>(())
    });
    written.await
}

async fn read_all(store: &Store) -> Result<usize, StoreError> {
    let read = store.read(|c| {
        // From the files: a reader that the task of last values has used has messages in memory.
        c.execute_batch("PRAGMA shrink_memory").map_err(StoreError::from)?;
        let page = telemetry_reading::page(c, &"press-1".parse().unwrap(), 0, 100_000)?;
        Ok::<_, StoreError>(page.len())
    });
    read.await
}

/// What is done to the store, and whether central finds it without reading what was damaged.
type Harm = (&'static str, fn(&Path), bool);

const HARMS: [Harm; 6] = [
    (
        "deleted with its log",
        |dir| {
            for name in ["central.db", "central.db-wal", "central.db-shm"] {
                fs::remove_file(dir.join(name)).unwrap();
            }
        },
        true,
    ),
    ("moved away", |dir| fs::rename(dir.join("central.db"), dir.join("elsewhere.db")).unwrap(), true),
    (
        "replaced by a copy of itself",
        |dir| {
            fs::copy(dir.join("central.db"), dir.join("copy.db")).unwrap();
            fs::rename(dir.join("copy.db"), dir.join("central.db")).unwrap();
        },
        true,
    ),
    (
        "replaced by an empty file",
        |dir| {
            fs::write(dir.join("new.db"), "").unwrap();
            fs::rename(dir.join("new.db"), dir.join("central.db")).unwrap();
        },
        true,
    ),
    ("overwritten with zeros", |dir| overwrite(dir, 0), false),
    ("overwritten with other bytes", |dir| overwrite(dir, 0xa7), false),
];

/// Everything but the first pages, which a running central has in memory.
fn overwrite(dir: &Path, byte: u8) {
    let file = fs::OpenOptions::new().write(true).open(dir.join("central.db")).unwrap();
    let length = file.metadata().unwrap().len();
    assert!(length > 200_000, "the log was moved into the file: {length}");
    file.write_all_at(&vec![byte; usize::try_from(length - 8192).unwrap()], 8192).unwrap();
}

/// Whether the file has the last message: its length says nothing, an empty store may be as large.
fn has_last_message(dir: &Path) -> bool {
    let text = br#"{"n":600,"#;
    fs::read(dir.join("central.db")).unwrap().windows(text.len()).any(|bytes| bytes == text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_harmed_while_central_runs_takes_nothing_more_and_health_says_why() {
    // Side by side: most of the time each waits for its disk and for a checkpoint.
    join_all(HARMS.map(is_seen)).await;
}

async fn is_seen((what, harm, is_found_alone): Harm) {
    let dir = tempfile::tempdir().unwrap();
    let (started, stop) = start(dir.path()).await.unwrap();
    let store = started.store().clone();
    register(&store).await;
    for number in 1..=600 {
        put(&store, number).await.unwrap();
    }
    // A checkpoint moves them into the file.
    let moved = async {
        while !has_last_message(dir.path()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, moved).await.unwrap();

    harm(dir.path());
    if is_found_alone {
        let first = put(&store, 601).await;
        assert!(first.is_err(), "{what}: what was stored after it was confirmed");
    } else {
        // The last page is in the file before the move has ended: until then pages are read from the log.
        let failed = async {
            while read_all(&store).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, failed).await.is_ok(),
            "{what}: it is read as if it were whole"
        );
    }
    assert!(matches!(put(&store, 602).await, Err(StoreError::NotCommitted)), "{what}");
    let report = central::diagnosis::health::Health::default()
        .report(&store, &central::telemetry::ingest::Ingest::new(store.clone()))
        .await;
    assert!(!report.is_well, "{what}: health is well");
    let body = serde_json::to_string(&report.body).unwrap();
    assert!(body.contains("the store is damaged"), "{what}: {body}");

    if is_found_alone {
        end((started, stop)).await;
    } else {
        // Only a start can tell whether the file is damaged or could not be read once.
        let ended = tokio::time::timeout(PATIENCE, started.ended()).await.unwrap();
        assert!(ended.is_err(), "{what}");
    }
}

#[tokio::test]
async fn a_restore_that_was_cut_is_refused_until_it_is_made_again() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = other.path().join("site.backup");
    end(start(dir.path()).await.unwrap()).await;
    backup::make(dir.path(), &file, 1).unwrap();
    // As a restore leaves it that was cut between two of its steps.
    fs::write(dir.path().join("restore-unfinished"), "").unwrap();
    let refused = store::open(dir.path(), Keep { messages: 10, commands: 10 }).err().unwrap().to_string();
    assert!(refused.contains("was cut") && refused.contains("--replace"), "{refused}");
    let no_backup = backup::make(dir.path(), &other.path().join("second.backup"), 3).unwrap_err().to_string();
    assert!(no_backup.contains("was cut"), "{no_backup}");
    drop(starting::starting());
    backup::restore(dir.path(), &file, true, 4).unwrap();
    end(start(dir.path()).await.unwrap()).await;
}

/// At whatever moment a restore is killed, central starts on what was there, on what was in the backup, or not at all: never on
/// an empty store, and never with another certificate authority, which no gateway knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_the_former_store_or_the_new_one_or_is_refused() {
    let (master, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = other.path().join("site.backup");
    let running = start(master.path()).await.unwrap();
    let store = running.0.store().clone();
    register(&store).await;
    put(&store, 1).await.unwrap();
    backup::make(master.path(), &file, 1).unwrap();
    put(&store, 2).await.unwrap();
    drop(store);
    end(running).await;
    let authority = fs::read(master.path().join("ca.pem")).unwrap();
    let mut refused = 0;
    for after_ms in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(master.path()).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_central"));
        command.args(["restore", "--replace", file.to_str().unwrap()]).arg("--data-dir").arg(dir.path());
        let mut restore = starting::started(command.stdout(Stdio::null()).stderr(Stdio::null()));
        // From when it has begun, which takes as long as the machine is busy.
        let has_begun = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.into_iter().any(|name| name == "central.db.restoring")
        };
        while restore.try_wait().unwrap().is_none() && !has_begun() {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_millis(after_ms * 2));
        let _ended_before = restore.kill();
        restore.wait().unwrap();
        match start(dir.path()).await {
            Err(error) => {
                refused += 1;
                assert!(format!("{error:#}").contains("restore"), "{error:#}");
                drop(starting::starting());
                backup::restore(dir.path(), &file, true, 9).unwrap();
                end(start(dir.path()).await.unwrap()).await;
            }
            Ok(running) => {
                let count = read_all(running.0.store()).await.unwrap();
                assert!(count == 1 || count == 2, "after {after_ms}: {count} messages");
                end(running).await;
            }
        }
        assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), authority, "after {after_ms}");
    }
    println!("{refused} of 24 restores were cut where central refuses to start");
}
