//! Another program opens the store beside a running central: a backup script, a shell of SQLite, central's own commands.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use central::store::StoreError;
use common::Central;
use reqwest::Method;
use rusqlite::Connection;
use serde_json::json;

const STORE: &str = "LINESIDE_STORE_OF_ANOTHER";

/// Opens, reads and closes the store in a process of its own.
async fn read_by_another_program(store: &Path) {
    let mut program = tokio::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--ignored", "--exact", "another_program"]).env(STORE, store);
    let output = program.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "the other program of the tests here, which start it with the path of a store"]
fn another_program() {
    let Some(store) = std::env::var_os(STORE).map(PathBuf::from) else { return };
    let connection = Connection::open(store).unwrap();
    let devices: i64 = connection.query_row("SELECT count(*) FROM devices", [], |row| row.get(0)).unwrap();
    assert!(devices >= 0);
    connection.close().unwrap();
}

/// Whether this process holds a lock for reading on a file (proc_locks(5)).
fn holds_lock(file: &Path) -> bool {
    let inode = format!(":{}", std::fs::metadata(file).unwrap().ino());
    let own = std::process::id().to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(1..5) == Some(&["POSIX", "ADVISORY", "READ", &own])
            && words.get(5).is_some_and(|file| file.ends_with(&inode))
    })
}

/// The devices in the files as a process that is killed now leaves them.
async fn left_by_a_kill(central: &Central, store: &Path) -> Vec<String> {
    let copies = tempfile::tempdir().unwrap();
    let (from, into) = (store.to_owned(), copies.path().to_owned());
    // During a work of the writer: nothing is moved from the log into the file between the two copies.
    let copied = central.started.store().submit(move |_| {
        for name in ["central.db", "central.db-wal"] {
            std::fs::copy(from.with_file_name(name), into.join(name)).unwrap();
        }
        Ok::<_, StoreError>(())
    });
    copied.await.unwrap();
    let connection = Connection::open(copies.path().join("central.db")).unwrap();
    let mut select = connection.prepare("SELECT id FROM devices ORDER BY id").unwrap();
    let ids = select.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

#[tokio::test]
async fn another_program_that_reads_and_closes_the_store_takes_nothing_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = common::start(dir.path()).await;
    let store = dir.path().join("central.db");
    let log = store.with_file_name("central.db-wal");
    let put = async |id: &str| {
        let path = format!("/api/devices/{id}");
        let answer = central.send_as(&central.token, Method::PUT, &path, Some(json!({}))).await;
        assert_eq!(answer.0, 200, "{answer:?}");
    };
    // What tells other programs that the store is in use. Closing any other descriptor of the file releases it, and SQLite before
    // 3.51 then deletes the log of a store that another program has open.
    assert!(holds_lock(&store), "{}", std::fs::read_to_string("/proc/locks").unwrap());
    put("press-1").await;
    let number_of_log = std::fs::metadata(&log).unwrap().ino();
    for id in ["press-2", "press-3"] {
        read_by_another_program(&store).await;
        put(id).await;
        assert_eq!(
            std::fs::metadata(&log).map(|log| log.ino()).ok(),
            Some(number_of_log),
            "the log was deleted"
        );
    }
    assert!(holds_lock(&store));
    assert_eq!(left_by_a_kill(&central, &store).await, ["press-1", "press-2", "press-3"]);
    central.stop.cancel();
    central.started.ended().await.unwrap();
}
