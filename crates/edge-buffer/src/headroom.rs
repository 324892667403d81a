//! What is dropped when a log meets its limits: first what nobody wants any more, then the oldest, then the new.

use std::collections::BTreeMap;
use std::io;

use crate::commit::Committer;
use crate::error::AppendError;
use crate::error::chain;
use crate::format::{DAMAGED, SEGMENT_HEADER, frame_seed, segment_name};
use crate::limits::Full;
use crate::losses::Cause;
use crate::pool::{Given, Pool};
use crate::scan::{Scan, Step};
use crate::segment::{Segment, Tally};
use crate::stats::Headroom;

/// Segments that are set aside at one time; the oldest is deleted for one more.
const SET_ASIDE_MAX: usize = 4;

impl Committer {
    /// Bytes that may be written now, at least `need`. First what has expired goes, here and in the other logs of the pool;
    /// then the oldest records of whoever matters least, unless the options forbid it.
    pub(crate) fn make_space(&mut self, need: u64, now_ms: u64) -> Result<u64, AppendError> {
        let options = self.shared.options.clone();
        let free = self.shared.storage.free_bytes().map_err(|e| self.failed("ask for free space", e))?;
        // A reader may still have a dropped file open, so the disk's own figure can come late.
        let mut dropped = 0;
        let mut headroom_was = Headroom::Enough;
        loop {
            let mut state = self.shared.state();
            let (total, segments, is_empty) =
                (state.bytes(), state.segments.len(), state.active().is_empty());
            let has_one_done = state.has_done_segment();
            let is_oldest_expired = state.has_expired_segment(now_ms);
            let has_set_aside = state.set_aside > 0;
            drop(state);
            // Allocated by this segment already: the file system counts it as used, and the next frames go there.
            let ahead = self.active.allocated.saturating_sub(self.active.len);
            let free = free.saturating_add(dropped).saturating_add(ahead);
            let on_disk = free.saturating_sub(options.keep_free_bytes);
            let pooled = options.pool.as_ref().map_or(u64::MAX, Pool::headroom);
            let own = options.bytes_max.saturating_sub(total);
            let headroom = own.min(on_disk).min(pooled);
            if headroom >= need {
                self.note_headroom(headroom_was);
                return Ok(headroom);
            }
            // What follows takes time.
            self.answers.give_held();
            // In the order that docs/protocol.md promises: expired records of this log, of the others, what was set aside, then the
            // oldest records of the least important log.
            if is_oldest_expired && let Some(bytes) = self.evict_oldest(Cause::Expired, now_ms) {
                dropped += bytes;
                continue;
            }
            let is_short_together = on_disk.min(pooled) < need;
            let pool = options.pool.as_ref().filter(|_| is_short_together);
            if let Some(bytes) = pool.and_then(|pool| pool.expire(now_ms)) {
                dropped += bytes;
                continue;
            }
            if has_set_aside && on_disk < need {
                dropped += self.delete_set_aside(0);
                continue;
            }
            let full = || AppendError::Full { dir: self.shared.storage.path().to_owned() };
            let evictable = match pool {
                None => total,
                Some(pool) => pool.evictable(options.rank).max(total),
            };
            // If not even dropping everything would make space, other programs have filled the disk: nothing is dropped in vain.
            let cannot_fit = options.keep_free_bytes.saturating_add(need + SEGMENT_HEADER)
                > free.saturating_add(evictable);
            // Where this log alone is at its limit, only its own records are dropped.
            if let Some(pool) = pool.filter(|_| own >= need && !has_one_done && !cannot_fit) {
                match pool.evict(self.shared.pool_number, options.rank, now_ms) {
                    Some(Given::Bytes(bytes)) => {
                        dropped += bytes;
                        headroom_was = Headroom::Evicting;
                        continue;
                    }
                    // This log is the least important one itself.
                    Some(Given::Ours) => {}
                    None => return Err(full()),
                }
            }
            let may_drop = has_one_done || (options.full == Full::DropOldest && !cannot_fit);
            if !may_drop || (segments == 1 && is_empty) {
                return Err(full());
            }
            if segments == 1 {
                self.roll(now_ms)?;
            }
            if !has_one_done {
                headroom_was = Headroom::Evicting;
            }
            dropped += self.drop_oldest(Cause::Evicted, now_ms);
        }
    }

    /// Tells when a log begins to refuse, and when it takes again.
    pub(crate) fn note_headroom(&mut self, now: Headroom) {
        if self.headroom == now {
            return;
        }
        let (before, dir) =
            (std::mem::replace(&mut self.headroom, now), self.shared.storage.path().display());
        self.shared.state().headroom = now;
        match now {
            Headroom::Refusing => tracing::warn!(%dir, "queue is full and refuses new messages"),
            _ if before == Headroom::Refusing => tracing::info!(%dir, "queue accepts messages again"),
            _ => {}
        }
    }

    /// Takes the oldest segment; the bytes given back. `None` when there is nothing to take, or no disk for a new segment.
    pub(crate) fn evict_oldest(&mut self, cause: Cause, now_ms: u64) -> Option<u64> {
        let mut state = self.shared.state();
        let (segments, is_empty) = (state.segments.len(), state.active().is_empty());
        drop(state);
        if segments == 1 {
            if is_empty {
                return None;
            }
            self.roll(now_ms)
                .inspect_err(|error| {
                    tracing::warn!(error = chain(&error), "evicting messages from a queue failed")
                })
                .ok()?;
        }
        Some(self.drop_oldest(cause, now_ms))
    }

    /// Segments of which the newest record is over the age limit go as a whole.
    pub(crate) fn expire_segments(&mut self) {
        let Some(age_max_ms) = self.shared.options.age_max_ms else { return };
        loop {
            let state = self.shared.state();
            let newest =
                state.segments.back().and_then(|active| active.index.last()).map(|entry| entry.enqueued_ms);
            let oldest_end = state.segments.get(1).map(|next| next.created_ms);
            let may_have_arrived = state.may_oldest_have_arrived();
            drop(state);
            if may_have_arrived {
                return;
            }
            match (newest, oldest_end) {
                (Some(newest), Some(end)) if end.saturating_add(age_max_ms) <= newest => {
                    self.drop_oldest(Cause::Expired, newest);
                }
                _ => return,
            }
        }
    }

    /// Bytes given back. The loss is on disk before the records go.
    fn drop_oldest(&mut self, cause: Cause, now_ms: u64) -> u64 {
        let state = self.shared.state();
        let (cursor, before) = (state.cursor, state.stats().records);
        let oldest = state.segments.front().cloned();
        let next_first = state.segments.get(1).map(|next| next.first);
        drop(state);
        let (Some(oldest), Some(next_first)) = (oldest, next_first) else { return 0 };
        // One without a file has nothing to read: space is needed before upstream could say what of it arrived.
        let cause = if oldest.is_missing { Cause::Damaged } else { cause };
        let tally = if next_first <= cursor + 1 || oldest.is_missing {
            None
        } else {
            self.tally(&oldest, next_first, cause, now_ms)
                .inspect_err(|error| {
                    tracing::warn!(
                        segment = oldest.first,
                        error = chain(&error),
                        "whose records are lost is not known"
                    )
                })
                .ok()
        };
        let mut state = self.shared.state();
        state.now_ms = now_ms;
        let Some(segment) = state.drop_oldest(cause, tally) else { return 0 };
        let records = before.saturating_sub(state.stats().records);
        drop(state);
        if records > 0 {
            tracing::warn!(
                segment = segment.first,
                records,
                cause = cause.name(),
                "the oldest records of a queue were dropped"
            );
        }
        // Failing, it was logged, and is tried again; the space is needed now.
        // The ledger before the file: a loss that is not in the ledger would be found as damage at the next open.
        let _retried = self.write_ledger();
        // Evicted with damage in it: space counts more than the trace.
        self.remove(&[Segment { is_damaged: false, ..segment.clone() }]);
        segment.allocated
    }

    /// Reads whose records a segment holds, and which of them had expired by themselves.
    fn tally(&self, segment: &Segment, until: u64, cause: Cause, now_ms: u64) -> io::Result<Tally> {
        let file = self.shared.storage.open(&segment_name(segment.first))?;
        let seed = frame_seed(self.shared.id, segment.first);
        let mut scan =
            Scan::new(file, seed, segment.epoch, SEGMENT_HEADER, segment.first, segment.len, until);
        let mut tally = Tally::default();
        let mut known: BTreeMap<(u8, String), u16> = BTreeMap::new();
        while scan.expected < until {
            let record = match scan.step()? {
                Step::Record(record) => record,
                Step::Hole { .. } => continue,
                Step::End => break,
            };
            let cause = if record.expires_ms.is_some_and(|at| at <= now_ms) { Cause::Expired } else { cause };
            let tag = self.shared.options.tag_of(&record.payload);
            let key = (cause.code(), tag.clone());
            let group = match known.get(&key) {
                Some(group) => *group,
                None => match u16::try_from(tally.groups.len()) {
                    Ok(group) => {
                        tally.groups.push((cause, tag));
                        known.insert(key, group);
                        group
                    }
                    // More senders than the ledger tells apart anyway.
                    Err(_) => 0,
                },
            };
            tally.records.push((record.sequence, group));
        }
        Ok(tally)
    }

    /// Deletes segments, or sets those aside in which something was damaged. Not worth a sync of the directory: one that
    /// comes back is below the cursor, and the next open removes it.
    pub(crate) fn remove(&self, segments: &[Segment]) {
        let storage = &self.shared.storage;
        for segment in segments {
            let name = segment_name(segment.first);
            let removed = if segment.is_damaged {
                storage.set_aside(&name).map(|_aside| self.shared.state().set_aside += 1)
            } else {
                storage.remove(&name)
            };
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(dir = %storage.path().display(), segment = name, error = chain(&error), "a segment was not removed");
            }
        }
        if self.shared.state().set_aside > SET_ASIDE_MAX as u64 {
            self.delete_set_aside(SET_ASIDE_MAX);
        }
    }

    /// Deletes all but the newest `kept` of the segments that were set aside; the bytes given back.
    fn delete_set_aside(&self, kept: usize) -> u64 {
        let storage = &self.shared.storage;
        let mut names = storage.names().unwrap_or_default();
        names.retain(|name| name.ends_with(DAMAGED));
        names.sort_unstable();
        let mut given_back = 0;
        for name in &names[..names.len().saturating_sub(kept)] {
            let len = storage.open(name).and_then(|file| file.len()).unwrap_or(0);
            match storage.remove(name) {
                Ok(()) => given_back += len,
                Err(error) => {
                    tracing::warn!(dir = %storage.path().display(), file = name, error = chain(&error), "a damaged segment was not deleted");
                }
            }
        }
        self.shared.state().set_aside = kept.min(names.len()) as u64;
        given_back
    }
}
