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

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let disk = three_segments().await;
    let last = disk.segments().remove(2);
    let whole = disk.bytes(&last);
    for len in 0..whole.len() {
        let torn = disk.with(&last, whole[..len].to_vec());
        let log = Log::open_on(Arc::new(torn.clone()), options()).unwrap();
        let kept = 14 + (len as u64).saturating_sub(SEGMENT_HEADER) / frame_len(100);
        assert_eq!(log.stats().next_sequence, kept + 1, "cut to {len} bytes");
        fill(&log, 1, 100).await;
        log.close().await;
        let log = Log::open_on(Arc::new(torn), options()).unwrap();
        assert_eq!(sequences(&close_and_read(&log).await), (1..=kept + 1).collect::<Vec<_>>());
        assert!(log.losses().is_empty());
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_costs_at_most_its_record_and_is_told() {
    let disk = three_segments().await;
    for name in disk.segments() {
        let whole = disk.bytes(&name);
        let is_last = name == disk.segments()[2];
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let log = Log::open_on(Arc::new(disk.with(&name, bytes)), options()).unwrap();
            let read = sequences(&close_and_read(&log).await);
            let missing: Vec<u64> = (1..=21).filter(|n| !read.contains(n)).collect();
            let losses = log.losses();
            match missing[..] {
                [] => assert!((at as u64) < SEGMENT_HEADER && losses.is_empty()),
                // The last frame of the log looks like one that was torn while it was written.
                [21] if is_last => assert!(losses.is_empty()),
                [n] => assert_eq!(losses, [Loss { first: n, last: n, count: 1, cause: Cause::Damaged }]),
                _ => panic!("byte {at} of {name}: {missing:?} missing"),
            }
        }
    }
}

#[tokio::test]
async fn a_missing_segment_is_told_as_lost() {
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
    assert_eq!(log.losses(), [Loss { first: 1, last: 14, count: 14, cause: Cause::Evicted }]);
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

#[tokio::test]
async fn files_of_a_newer_program_or_another_queue_are_not_touched() {
    let disk = three_segments().await;
    let other = three_segments().await;
    let name = disk.segments().remove(1);
    let foreign = disk.with(&name, other.bytes(&name));
    assert!(matches!(Log::open_on(Arc::new(foreign), options()), Err(OpenError::Foreign { .. })));

    let mut bytes = disk.bytes(&name);
    bytes[8] = 2;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    let newer = disk.with(&name, bytes);
    assert!(matches!(Log::open_on(Arc::new(newer), options()), Err(OpenError::Version { found: 2, .. })));
}
