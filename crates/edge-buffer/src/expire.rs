//! Finds what has expired in a log that nobody reads.
//!
//! A reader passes over what it finds expired. Where a reader waits for a module that never starts, or for a link that is
//! down, nobody would find it: the records would be reported as lost when they are read at last.

use std::io;

use crate::format::{frame_seed, segment_name};
use crate::scan::{Scan, Step};
use crate::segment::Stretch;
use crate::shared::Shared;

/// Records that are counted under one lock.
const AT_ONCE: usize = 256;

/// Counts what has expired of the records that no reader has given out; how many. Blocking: it reads the segments whose
/// first record to expire is due, from the oldest on, and one at the most in which it finds nothing.
///
/// # Errors
/// When a segment cannot be read. It is read again the next time.
pub(crate) fn expire(shared: &Shared, now_ms: u64) -> io::Result<u64> {
    let mut expired = 0;
    let mut from = shared.state().first_at_rest();
    loop {
        let mut state = shared.state();
        let Some(stretch) = state.take_expiring(from, now_ms) else { return Ok(expired) };
        drop(state);
        let found = scan_segment(shared, &stretch, from, now_ms)
            .inspect_err(|_| shared.state().stays(stretch.segment, 0))?;
        shared.state().stays(stretch.segment, found.first_gone_ms);
        expired += found.expired;
        if found.is_cut || found.expired == 0 {
            return Ok(expired);
        }
        from = stretch.until;
    }
}

/// What one segment held.
struct SegmentFound {
    expired: u64,
    /// No record that stays is gone before that.
    first_gone_ms: u64,
    /// No more records that expired in between others can be remembered.
    is_cut: bool,
}

fn scan_segment(shared: &Shared, stretch: &Stretch, from: u64, now_ms: u64) -> io::Result<SegmentFound> {
    let file = match shared.storage.open(&segment_name(stretch.segment)) {
        Ok(file) => file,
        // It is done with and was deleted a moment ago.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(SegmentFound { expired: 0, first_gone_ms: u64::MAX, is_cut: false });
        }
        Err(error) => return Err(error),
    };
    let seed = frame_seed(shared.id, stretch.segment);
    let (offset, sequence) = (stretch.start.offset, stretch.start.sequence);
    let mut scan = Scan::new(file, seed, stretch.epoch, offset, sequence, stretch.end, stretch.until);
    let mut found = SegmentFound { expired: 0, first_gone_ms: u64::MAX, is_cut: false };
    let mut gone = Vec::with_capacity(AT_ONCE);
    loop {
        let is_end = scan.expected >= stretch.until;
        // Holes are counted by whoever reads the log.
        let step = if is_end { Step::End } else { scan.step()? };
        match &step {
            Step::Record(record) if record.sequence >= from => {
                let gone_ms = shared.options.gone_ms(record);
                if gone_ms <= now_ms {
                    gone.push((record.sequence, shared.options.tag_of(&record.payload)))
                } else {
                    found.first_gone_ms = found.first_gone_ms.min(gone_ms)
                }
            }
            _ => {}
        }
        let is_end = matches!(step, Step::End);
        if gone.len() >= AT_ONCE || (is_end && !gone.is_empty()) {
            let mut state = shared.state();
            for (sequence, tag) in gone.drain(..) {
                if !state.is_pending(sequence) {
                    continue;
                }
                if state.expire(sequence, &tag, now_ms) {
                    found.expired += 1;
                } else {
                    (found.is_cut, found.first_gone_ms) = (true, 0);
                }
            }
            // The commit thread may sleep: it writes the ledger, and deletes what is done with.
            let must_wake = state.is_ledger_behind && std::mem::take(&mut state.is_asleep);
            drop(state);
            if must_wake {
                shared.work.notify_one();
            }
        }
        if is_end || found.is_cut {
            return Ok(found);
        }
    }
}
