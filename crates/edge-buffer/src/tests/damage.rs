//! Torn tails and flipped bits: at every place, the log opens and tells what is missing.

use std::sync::Arc;

use super::disk::Disk;
use super::*;
use crate::format::{SEGMENT_HEADER, frame_len};
use crate::{Cause, Loss, OpenError};

/// A closed log of two full segments and a last one, of seven records each.
async fn three_segments() -> Disk {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 21, 100).await;
    log.close().await;
    assert_eq!(disk.segments().len(), 3);
    disk
}

/// The same, killed before it could close.
async fn three_open_segments() -> Disk {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 21, 100).await;
    disk.after_kill()
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 14, 100).await;
    let ledger = disk.bytes("ledger");
    fill(&log, 7, 100).await;
    // As a kill or a power cut in the middle of the last batch leaves it: it was not acknowledged.
    let disk = disk.after_kill().with("ledger", ledger);
    let last = disk.segments().remove(2);
    let whole = disk.bytes(&last);
    let (mut acknowledged, mut arrived) = (0, 0);
    for len in 0..whole.len() {
        let torn = disk.with(&last, whole[..len].to_vec());
        let log = Log::open_on(Arc::new(torn.clone()), options()).unwrap();
        let kept = (14 + (len as u64).saturating_sub(SEGMENT_HEADER) / frame_len(100)).min(21);
        assert_eq!(log.stats().next_sequence, kept + 1, "cut to {len} bytes");
        fill(&log, 1, 100).await;
        log.close().await;
        let log = Log::open_on(Arc::new(torn), options()).unwrap();
        let read = sequences(&close_and_read(&log).await);
        assert_eq!(read, (1..=kept + 1).collect::<Vec<_>>());
        assert!(log.losses().is_empty());
        (acknowledged, arrived) = (acknowledged + kept + 1, arrived + read.len());
    }
    println!(
        "{} torn tails: acknowledged and whole {acknowledged}, arrived {arrived}, lost 0, twice 0",
        whole.len()
    );
}

/// What happened to a file.
#[derive(Clone, Copy, Debug)]
enum Hurt {
    Removed,
    CutTo(usize),
    ZeroFrom(usize),
}

fn hurt(disk: &Disk, name: &str, how: Hurt) -> Disk {
    let mut bytes = disk.bytes(name);
    match how {
        Hurt::Removed => bytes.clear(),
        Hurt::CutTo(len) => bytes.truncate(len),
        Hurt::ZeroFrom(at) => bytes[at..].fill(0),
    }
    let hurt = disk.with(name, bytes);
    if matches!(how, Hurt::Removed) {
        crate::storage::Storage::remove(&hurt, name).unwrap();
    }
    hurt
}

#[tokio::test]
async fn what_is_cut_off_or_gone_after_a_kill_is_reported_to_the_last_record() {
    let disk = three_open_segments().await;
    let whole = Log::open_on(Arc::new(disk.after_kill()), options()).unwrap();
    assert_eq!(sequences(&close_and_read(&whole).await), (1..=21).collect::<Vec<_>>());
    assert!(whole.losses().is_empty(), "a kill alone loses nothing");
    let (mut trials, mut arrived, mut reported) = (0, 0, 0);
    for name in disk.segments() {
        let lens = (0..disk.bytes(&name).len()).step_by(7);
        let damages = lens.flat_map(|at| [Hurt::CutTo(at), Hurt::ZeroFrom(at)]);
        for how in damages.chain([Hurt::Removed]) {
            let what = format!("{name} {how:?}");
            let hurt = hurt(&disk, &name, how);
            let log = Log::open_on(Arc::new(hurt.clone()), options()).unwrap();
            fill(&log, 1, 100).await;
            let read = sequences(&close_and_read(&log).await);
            assert_eq!(read.last(), Some(&22), "{what}: no sequence is given away twice");
            let lost: u64 = log.losses().iter().map(|loss| loss.count).sum();
            assert_eq!(read.len() as u64 + lost, 22, "{what}: {:?}", log.losses());
            assert_eq!(log.stats().lost.damaged, lost, "{what}");
            let log = Log::open_on(Arc::new(hurt), options()).unwrap();
            assert_eq!(close_and_read(&log).await.len(), read.len(), "{what}");
            assert_eq!(
                log.loss_records().iter().map(|loss| loss.count).sum::<u64>(),
                lost,
                "{what}: told once"
            );
            (trials, arrived, reported) = (trials + 1, arrived + read.len(), reported + lost);
        }
    }
    println!("{trials} segments cut, zeroed or gone: arrived {arrived}, told as damaged {reported}, lost 0");
}

#[tokio::test]
async fn all_segments_gone_after_a_kill_are_reported_though_the_ledger_was_not_written_since() {
    let dir = tempfile::tempdir().unwrap();
    let large = LogOptions { segment_bytes: 1 << 20, bytes_max: 8 << 20, ..options() };
    let log = Log::open(dir.path(), large.clone()).unwrap();
    let appends: Vec<_> = (0..3200).map(|n| log.append(payload(n, 100), n)).collect();
    for append in appends {
        append.await.unwrap();
    }
    // A copy at this moment is what a kill leaves.
    let killed = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, killed.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::remove_file(killed.path().join(crate::format::segment_name(1))).unwrap();
    let hurt = Log::open(killed.path(), large).unwrap();
    assert_eq!(hurt.stats().lost.damaged, 3200);
    assert_eq!(hurt.stats().next_sequence, 3201);
}

#[tokio::test]
async fn an_end_record_that_is_damaged_or_of_another_log_is_not_believed() {
    let disk = three_open_segments().await;
    let ledger = disk.bytes("ledger");
    let other = three_open_segments().await.bytes("ledger");
    let at = 2 * crate::ledger::SLOT as usize;
    let mut foreign = ledger.clone();
    foreign[at..].copy_from_slice(&other[at..]);
    let mut damaged = ledger.clone();
    damaged[at + 25] ^= 1;
    // As an older version wrote it.
    let short = ledger[..at].to_vec();
    for bytes in [foreign, damaged, short] {
        let log = Log::open_on(Arc::new(disk.with("ledger", bytes)), options()).unwrap();
        fill(&log, 1, 100).await;
        assert_eq!(sequences(&close_and_read(&log).await), (1..=22).collect::<Vec<_>>());
        assert!(log.losses().is_empty());
    }
}

#[tokio::test]
async fn a_log_that_is_open_is_not_opened_again_though_its_lock_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    for _ in 0..2 {
        assert!(matches!(Log::open(dir.path(), options()), Err(OpenError::InUse { .. })));
    }
    log.close().await;
    Log::open(dir.path(), options()).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_anywhere_costs_at_most_its_record_and_is_reported() {
    let disk = three_segments().await;
    let (mut bits, mut arrived, mut reported) = (0, 0, 0);
    for name in disk.segments() {
        let whole = disk.bytes(&name);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let log = Log::open_on(Arc::new(disk.with(&name, bytes)), options()).unwrap();
            let read = sequences(&close_and_read(&log).await);
            let missing: Vec<u64> = (1..=21).filter(|n| !read.contains(n)).collect();
            let losses = log.losses();
            match missing[..] {
                [] => assert!((at as u64) < SEGMENT_HEADER && losses.is_empty()),
                [n] => assert_eq!(losses, [Loss { first: n, last: n, count: 1, cause: Cause::Damaged }]),
                _ => panic!("byte {at} of {name}: {missing:?} missing"),
            }
            assert!(read.is_sorted_by(|a, b| a < b), "byte {at} of {name}: {read:?}");
            (bits, arrived, reported) = (bits + 1, arrived + read.len(), reported + missing.len());
        }
    }
    println!(
        "{bits} flipped bits: acknowledged {}, arrived {arrived}, told as damaged {reported}, lost 0, twice 0",
        bits * 21
    );
}

#[tokio::test]
async fn a_missing_segment_is_reported_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 21, 100).await;
    log.close().await;
    std::fs::remove_file(dir.path().join(crate::format::segment_name(8))).unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(close_and_read(&log).await.len(), 14);
    assert_eq!(log.losses(), [Loss { first: 8, last: 14, count: 7, cause: Cause::Damaged }]);
    std::fs::remove_file(dir.path().join(crate::format::segment_name(1))).unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    assert_eq!(log.losses(), [Loss { first: 1, last: 14, count: 14, cause: Cause::Damaged }]);
}

#[tokio::test]
async fn a_segment_that_is_taken_away_under_a_running_log_does_not_stop_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    fill(&log, 21, 100).await;
    std::fs::remove_file(dir.path().join(crate::format::segment_name(8))).unwrap();
    let read = sequences(&close_and_read(&log).await);
    assert_eq!(read, (1..=7).chain(15..=21).collect::<Vec<_>>());
    assert_eq!(log.stats().lost.damaged, 7);
}

#[tokio::test]
async fn damage_does_not_give_a_sequence_away_twice() {
    let disk = Disk::default();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 5, 100).await;
    log.advance(5);
    log.close().await;
    let name = disk.segments().remove(0);
    let torn = disk.with(&name, disk.bytes(&name)[..200].to_vec());
    let log = Log::open_on(Arc::new(torn), options()).unwrap();
    fill(&log, 1, 100).await;
    assert_eq!(sequences(&close_and_read(&log).await), [6]);
}

#[tokio::test]
async fn a_frame_inside_of_a_payload_is_not_taken_for_a_record() {
    let disk = three_segments().await;
    let [first, _, last] = disk.segments().try_into().unwrap();
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    // What a device sends that was given the files of a queue.
    log.append(disk.bytes(&last).into(), 0).await.unwrap();
    log.append(disk.bytes(&first).into(), 0).await.unwrap();
    fill(&log, 1, 100).await;
    log.close().await;
    let name = disk.segments().into_iter().find(|name| disk.bytes(name).len() > 1024).unwrap();
    let mut bytes = disk.bytes(&name);
    bytes[SEGMENT_HEADER as usize + 5] ^= 1;
    let log = Log::open_on(Arc::new(disk.with(&name, bytes)), options()).unwrap();
    assert_eq!(close_and_read(&log).await.len(), 23);
    assert_eq!(log.losses().iter().map(|loss| loss.count).sum::<u64>(), 1);
}

/// All files but the lock.
fn files(disk: &Disk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name != "lock").collect()
}

#[tokio::test]
async fn files_of_a_newer_program_are_refused_and_not_touched() {
    let disk = three_segments().await;
    let name = disk.segments().remove(1);
    let mut bytes = disk.bytes(&name);
    bytes[8] = 3;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    let newer = disk.with(&name, bytes);
    assert!(matches!(Log::open_on(Arc::new(newer), options()), Err(OpenError::Version { found: 3, .. })));

    let mut bytes = disk.bytes("ledger");
    for at in [0, crate::ledger::SLOT as usize] {
        bytes[at + 8] = 4;
        let body =
            at + 120..at + 120 + u32::from_le_bytes(bytes[at + 112..at + 116].try_into().unwrap()) as usize;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[at..at + 116]), &bytes[body]);
        bytes[at + 116..at + 120].copy_from_slice(&checksum.to_le_bytes());
    }
    let newer = disk.with("ledger", bytes);
    let refused = Log::open_on(Arc::new(newer.clone()), options());
    assert!(matches!(refused, Err(OpenError::Version { found: 4, .. })), "{refused:?}");
    assert_eq!(files(&newer), files(&disk));
}

#[tokio::test]
async fn a_segment_of_another_queue_is_set_aside_and_its_place_is_reported_as_lost() {
    let (disk, other) = (three_segments().await, three_segments().await);
    let name = disk.segments().remove(1);
    let foreign = disk.with(&name, other.bytes(&name));
    let log = Log::open_on(Arc::new(foreign.clone()), options()).unwrap();
    assert_eq!(close_and_read(&log).await.len(), 14);
    assert_eq!(log.losses(), [Loss { first: 8, last: 14, count: 7, cause: Cause::Damaged }]);
    assert_eq!(foreign.bytes(&format!("{name}.damaged")), other.bytes(&name));
    assert_eq!(log.stats().set_aside, 1);
}

#[tokio::test]
async fn any_file_empty_or_full_of_noise_or_gone_costs_only_its_own_records_and_the_log_starts() {
    let disk = three_segments().await;
    let (mut trials, mut arrived, mut reported) = (0, 0, 0);
    for name in files(&disk) {
        let noise = (0..disk.bytes(&name).len()).map(|n| (n * 7919) as u8).collect();
        for bytes in [Some(Vec::new()), Some(noise), None] {
            let what = format!("{name} {:?} bytes", bytes.as_ref().map(Vec::len));
            let hurt = disk.with(&name, bytes.clone().unwrap_or_default());
            if bytes.is_none() {
                crate::storage::Storage::remove(&hurt, &name).unwrap();
            }
            let log = Log::open_on(Arc::new(hurt.clone()), options()).unwrap();
            fill(&log, 1, 100).await;
            let read = sequences(&close_and_read(&log).await);
            let lost: u64 = log.losses().iter().map(|loss| loss.count).sum();
            assert_eq!(read.len() as u64 + lost, 22, "{what}: {read:?} {:?}", log.losses());
            assert_eq!(lost, if name == "ledger" { 0 } else { 7 }, "{what}");
            assert_eq!(log.loss_records().iter().map(|loss| loss.count).sum::<u64>(), lost, "{what}");
            // And again: it stays told, once.
            let log = Log::open_on(Arc::new(hurt), options()).unwrap();
            assert_eq!(close_and_read(&log).await.len(), read.len(), "{what}");
            (trials, arrived, reported) = (trials + 1, arrived + read.len(), reported + lost);
        }
    }
    println!(
        "{trials} files emptied, overwritten or gone: acknowledged {}, arrived {arrived}, told as damaged {reported}, lost 0, twice 0",
        trials * 22
    );
}

#[tokio::test]
async fn a_log_of_which_nothing_can_be_read_begins_anew_and_says_what_it_can() {
    let mut disk = three_segments().await;
    for name in files(&disk) {
        disk = disk.with(&name, vec![0xa5; 500]);
    }
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    fill(&log, 3, 100).await;
    log.advance(1);
    log.close().await;
    let log = Log::open_on(Arc::new(disk.clone()), options()).unwrap();
    assert_eq!(sequences(&close_and_read(&log).await), [2, 3]);
    let loss_records = log.loss_records();
    assert_eq!(
        (loss_records.len(), loss_records[0].cause, loss_records[0].first, loss_records[0].last),
        (1, Cause::Damaged, 1, 15)
    );
    assert_eq!(log.stats().set_aside, 3);
}

#[tokio::test]
async fn a_segment_with_damage_is_kept_aside_when_it_is_done_with() {
    let disk = three_segments().await;
    let name = disk.segments().remove(0);
    let mut bytes = disk.bytes(&name);
    bytes[SEGMENT_HEADER as usize + 40] ^= 1;
    let hurt = disk.with(&name, bytes.clone());
    let log = Log::open_on(Arc::new(hurt.clone()), options()).unwrap();
    let mut reader = log.reader();
    for n in 2..=21 {
        assert_eq!(reader.next(|| 0).await.unwrap().sequence, n);
    }
    log.advance(21);
    log.close().await;
    assert_eq!(hurt.bytes(&format!("{name}.damaged")), bytes);
    assert_eq!(log.stats().set_aside, 1);
    let loss_records = Log::open_on(Arc::new(hurt), options()).unwrap().loss_records();
    assert_eq!(
        (loss_records.len(), loss_records[0].first, loss_records[0].count, loss_records[0].cause),
        (1, 1, 1, Cause::Damaged)
    );
}

#[tokio::test]
async fn bad_sectors_cost_the_records_in_them_and_do_not_stop_the_queue() {
    let disk = Disk::default();
    let large = LogOptions { segment_bytes: 1 << 18, ..options() };
    let log = Log::open_on(Arc::new(disk.clone()), large.clone()).unwrap();
    fill(&log, 200, 100).await;
    log.close().await;
    // A reader sees it; the recovery at open does too.
    disk.break_sectors(&disk.segments()[0], 8192, 8704);
    let log = Log::open_on(Arc::new(disk.clone()), large).unwrap();
    let read = close_and_read(&log).await.len() as u64;
    let lost: u64 = log.losses().iter().map(|loss| loss.count).sum();
    assert_eq!(read + lost, 200);
    // One page of 4096 bytes, and the records at its edges.
    assert!((1..=32).contains(&lost), "{lost}");
    println!("bad sectors: acknowledged 200, arrived {read}, told as damaged {lost}, lost 0, twice 0");
}
