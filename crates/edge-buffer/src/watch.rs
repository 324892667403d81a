//! Notices that somebody removed files of an open log: a file that has no name any more takes writes and syncs as before, and
//! nothing of them is left after the next start.

use std::collections::HashSet;
use std::io::{self, ErrorKind};

use crate::commit::Committer;
use crate::error::chain;
use crate::format::{LEDGER_FILE, segment_name};
use crate::losses::Cause;

impl Committer {
    /// Checks whether the directory and its files are those that are open. What was in files that are gone is counted as damaged;
    /// directory and ledger are made again, and the next append begins a segment. What is only hidden, because something else than a
    /// directory has the path, is not gone: it may come back, and a start that does not find it counts it.
    pub(crate) fn check_files(&mut self) {
        let checked = self.check();
        let was_failing = std::mem::replace(&mut self.is_watch_failing, checked.is_err());
        if let Err(error) = checked
            && !was_failing
        {
            tracing::error!(dir = %self.shared.storage.path().display(), error = chain(&error), "the files of a queue could not be checked");
        }
    }

    fn check(&mut self) -> io::Result<()> {
        let storage = self.shared.storage.clone();
        let remade = storage.remake();
        if let Err(error) = &remade {
            // Whatever is in the place of the directory: no start finds the open file there, so the next append makes one, or is
            // refused.
            self.active.is_abandoned = true;
            if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) {
                self.count_removed_segments()?;
            }
        }
        let is_remade = remade?;
        if is_remade {
            tracing::error!(dir = %storage.path().display(), "the directory of a queue was removed while the daemon runs; it was made again");
        }
        self.count_removed_segments()?;
        if is_remade || storage.identity(LEDGER_FILE)? != Some(self.ledger.identity()?) {
            tracing::error!(dir = %storage.path().display(), "the ledger of a queue was removed while the daemon runs; it is made again");
            self.ledger.remake(&*storage)?;
            // Both slots: a ledger has one to fall back to.
            self.write_ledger()?;
            self.write_ledger()?;
        }
        if self.mirror.as_mut().is_some_and(|mirror| mirror.check_file()) {
            self.write_ledger()?;
        }
        Ok(())
    }

    fn count_removed_segments(&mut self) -> io::Result<()> {
        let storage = &self.shared.storage;
        let names: HashSet<String> = storage.names()?.into_iter().collect();
        let mut state = self.shared.state();
        let active = state.active().first;
        drop(state);
        // One of the same name that is another file holds nothing of what was written.
        let is_active_gone = storage.identity(&segment_name(active))? != Some(self.active.file.identity()?);
        let mut state = self.shared.state();
        let firsts: Vec<u64> = state.segments.iter().map(|segment| segment.first).collect();
        let next_sequence = state.next_sequence;
        let ends = firsts.iter().copied().skip(1).chain([next_sequence]);
        let is_known: HashSet<u64> =
            state.segments.iter().filter(|segment| segment.is_missing).map(|segment| segment.first).collect();
        let gone = firsts.iter().copied().zip(ends).filter(|(first, _)| !is_known.contains(first));
        let gone = gone.filter(|(first, _)| {
            if *first == active { is_active_gone } else { !names.contains(&segment_name(*first)) }
        });
        let before = state.stats().damaged;
        let gone: Vec<(u64, u64)> = gone.collect();
        for (first, end) in gone {
            // What a reader gave out may have arrived. If it has not, whoever reads it again finds the file gone.
            let first = first.max(state.first_at_rest());
            if first < end {
                state.pass(first, end - 1, Cause::Damaged, "");
            }
        }
        let lost = state.stats().damaged - before;
        drop(state);
        self.active.is_abandoned |= is_active_gone;
        if lost > 0 {
            tracing::error!(dir = %self.shared.storage.path().display(), lost, "segments of a queue were removed while the daemon runs: what they held is lost");
        }
        Ok(())
    }
}
