//! Files of a log that somebody removes, while it is open and while it is not: each acknowledged record is read or counted as lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::mirrored::{Site, fill_at_once};
use super::{close_and_read, payload};
use crate::Cause;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    Oldest,
    Middle,
    Newest,
    Ledger,
    Directory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// It was closed in order.
    Closed,
    /// Its program was killed.
    Killed,
    /// It is open, goes on, and is closed in order.
    OpenThenClosed,
    /// It is open, goes on, and its program is killed.
    OpenThenKilled,
    /// And that before the log has looked after its files.
    OpenThenKilledAtOnce,
}

const WHEN: [When; 5] =
    [When::Closed, When::Killed, When::OpenThenClosed, When::OpenThenKilled, When::OpenThenKilledAtOnce];

impl Site {
    /// As a killed program leaves it.
    fn killed(&self) -> Self {
        let to = tempfile::tempdir().unwrap();
        copy(self.0.path(), to.path());
        Self(to)
    }

    fn remove(&self, removed: &[Removed]) {
        let mut segments: Vec<PathBuf> =
            fs::read_dir(self.queue()).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|end| end == "segment"));
        segments.sort();
        assert!(segments.len() >= 3);
        for removed in removed {
            match removed {
                Removed::Oldest => fs::remove_file(&segments[0]).unwrap(),
                Removed::Middle => fs::remove_file(&segments[segments.len() / 2]).unwrap(),
                Removed::Newest => fs::remove_file(&segments[segments.len() - 1]).unwrap(),
                Removed::Ledger => fs::remove_file(self.queue().join("ledger")).unwrap(),
                Removed::Directory => fs::remove_dir_all(self.0.path().join("buffer")).unwrap(),
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every set of what can be removed.
fn removals() -> Vec<Vec<Removed>> {
    let files = [Removed::Oldest, Removed::Middle, Removed::Newest, Removed::Ledger];
    let mut sets: Vec<Vec<Removed>> = (1..1 << files.len())
        .map(|set| (0..files.len()).filter(|at| set >> at & 1 == 1).map(|at| files[at]).collect())
        .collect();
    sets.push(vec![Removed::Directory]);
    sets
}

#[tokio::test]
async fn whatever_is_removed_of_a_log_each_acknowledged_record_is_read_or_counted_once() {
    for (number, removed) in removals().iter().enumerate() {
        for when in WHEN {
            let case = format!("{removed:?} {when:?}");
            let mut site = Site(tempfile::tempdir().unwrap());
            let log = site.open();
            fill_at_once(&log, 24, 100).await;
            let done = if number % 2 == 0 { 0 } else { 2 };
            log.advance(done);
            log.written().await.unwrap();
            match when {
                When::Closed => {
                    log.close().await;
                    site.remove(removed);
                }
                When::Killed => {
                    site = site.killed();
                    site.remove(removed);
                    log.close().await;
                }
                When::OpenThenClosed | When::OpenThenKilled | When::OpenThenKilledAtOnce => {
                    site.remove(removed);
                    // Into a file that has no name any more.
                    fill_at_once(&log, 2, 100).await;
                    if when != When::OpenThenKilledAtOnce {
                        log.check_files();
                        let lost = log.stats().damaged;
                        fill_at_once(&log, 3, 100).await;
                        log.check_files();
                        assert_eq!(log.stats().damaged, lost, "{case}: told once, and the new files stay");
                    }
                    if when != When::OpenThenClosed {
                        site = site.killed();
                    }
                    log.close().await;
                }
            }
            let acknowledged = match when {
                When::Closed | When::Killed => 24,
                When::OpenThenKilledAtOnce => 26,
                When::OpenThenClosed | When::OpenThenKilled => 29,
            };
            let log = site.open();
            assert_eq!(log.stats().next_sequence, acknowledged + 1, "{case}: no sequence is used again");
            let read = close_and_read(&log).await.len() as u64;
            let loss_records = log.loss_records();
            let lost: u64 = loss_records.iter().map(|loss| loss.count).sum();
            assert!(loss_records.iter().all(|loss| loss.cause == Cause::Damaged), "{case}: {loss_records:?}");
            assert_eq!(read + lost, acknowledged - done, "{case}: {read} read, {loss_records:?}");
            if removed.iter().any(|of| !matches!(of, Removed::Ledger)) {
                assert!(lost > 0, "{case}");
            } else {
                assert_eq!(lost, 0, "{case}: the copy of the ledger says all that it said");
            }
        }
    }
}

#[tokio::test]
async fn another_log_in_place_of_one_that_is_gone_says_what_was_pending_in_that() {
    let (site, other) = (Site(tempfile::tempdir().unwrap()), Site(tempfile::tempdir().unwrap()));
    for site in [&site, &other] {
        let log = site.open();
        fill_at_once(&log, 10, 100).await;
        log.advance(4);
        log.close().await;
    }
    fs::remove_dir_all(site.queue()).unwrap();
    fs::create_dir(site.queue()).unwrap();
    copy(&other.queue(), &site.queue());
    let log = site.open();
    assert_eq!((log.stats().lost.damaged, log.stats().records), (6, 6));
    log.close().await;
    assert_eq!(site.open().stats().lost.damaged, 6, "once");
}

#[tokio::test]
async fn a_copy_that_is_gone_is_made_again_and_one_that_cannot_be_made_keeps_nothing_from_working() {
    let site = Site(tempfile::tempdir().unwrap());
    let log = site.open();
    fill_at_once(&log, 5, 100).await;
    fs::remove_dir_all(site.0.path().join("ledgers")).unwrap();
    log.check_files();
    log.written().await.unwrap();
    let killed = site.killed();
    fs::remove_dir_all(killed.queue()).unwrap();
    assert_eq!(killed.open().stats().lost.damaged, 5);
    log.close().await;

    let site = Site(tempfile::tempdir().unwrap());
    fs::write(site.0.path().join("ledgers"), "in the way").unwrap();
    let log = site.open();
    fill_at_once(&log, 5, 100).await;
    assert_eq!(close_and_read(&log).await.len(), 5);
}

#[tokio::test]
async fn a_directory_that_is_hidden_for_a_while_keeps_its_records() {
    for hidden in ["buffer/upstream", "buffer"] {
        for by in ["nothing", "a file", "a link to itself", "a link to a file"] {
            let case = format!("{hidden} by {by}");
            let site = Site(tempfile::tempdir().unwrap());
            let log = site.open();
            fill_at_once(&log, 24, 100).await;
            let (path, aside) = (site.0.path().join(hidden), site.0.path().join("aside"));
            fs::rename(&path, &aside).unwrap();
            match by {
                "a file" => fs::write(&path, "no directory").unwrap(),
                "a link to itself" => symlink(&path, &path).unwrap(),
                "a link to a file" => {
                    fs::write(site.0.path().join("file"), "no directory").unwrap();
                    symlink(site.0.path().join("file"), &path).unwrap();
                }
                _ => {}
            }
            log.check_files();
            // Where nothing is in its place the directory is made again: then it was replaced, and not hidden.
            if by != "nothing" {
                assert_eq!(log.stats().damaged, 0, "{case}");
                let _refused_or_not = log.append(payload(25, 100), 25).await;
                fs::remove_file(&path).unwrap();
                fs::rename(&aside, &path).unwrap();
                log.check_files();
            }
            let acknowledged = log.stats().next_sequence - 1;
            log.close().await;
            let log = site.open();
            let read = close_and_read(&log).await.len() as u64;
            assert_eq!(read + log.stats().lost.damaged, acknowledged, "{case}");
            if by != "nothing" {
                assert_eq!(read, acknowledged, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_file_in_the_place_of_a_directory_refuses_records_and_counts_those_that_were_in_it() {
    for replaced in ["buffer/upstream", "buffer"] {
        let site = Site(tempfile::tempdir().unwrap());
        let log = site.open();
        fill_at_once(&log, 24, 100).await;
        let path = site.0.path().join(replaced);
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "no directory").unwrap();
        for _ in 0..2 {
            log.check_files();
            assert_eq!(log.stats().damaged, 24, "{replaced}");
            let refused = log.append(payload(25, 100), 25).await;
            assert!(refused.is_err(), "{replaced}: {refused:?}");
        }
        fs::remove_file(&path).unwrap();
        log.check_files();
        fill_at_once(&log, 3, 100).await;
        let log = {
            log.close().await;
            site.open()
        };
        let records = close_and_read(&log).await;
        assert_eq!(records.len(), 3, "{replaced}");
        let loss_records = log.loss_records();
        assert_eq!(
            loss_records.iter().map(|loss| loss.count).sum::<u64>(),
            24,
            "{replaced}: {loss_records:?}"
        );
    }
}
