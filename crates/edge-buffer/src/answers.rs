//! Answers to large batches: a thread of their own gives them while the next batch is on its way to the disk.
//!
//! Where another batch waits already, they are held until that one is handed to the disk: on a small machine the thread that
//! answers would otherwise take the core on which the writer prepares it, and the disk would have nothing to do meanwhile.
//!
//! They are given from the last to the first. Who has many records in flight waits for the first of them, so it wakes once
//! and finds them all, instead of running after the answers one by one, asleep in between.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::state::{MANY, Pending};
use crate::threads;

/// Batches that may wait for their answers; then the disk waits too.
const WAITING_MAX: usize = 2;

/// Records that are on disk, and the sequence of the first of them.
struct Written {
    batch: Vec<Pending>,
    first: u64,
}

/// Gives answers. What it was handed is answered when it is dropped.
#[derive(Default)]
pub(crate) struct Answers {
    thread: Option<(SyncSender<Written>, JoinHandle<()>)>,
    held: Option<Written>,
}

impl Answers {
    /// Answers records that are on disk, with sequences from `first` on; those of a large batch at [`Answers::give_held`].
    pub(crate) fn give(&mut self, batch: impl ExactSizeIterator<Item = Pending>, first: u64) {
        self.give_held();
        // A thread change costs more than a few answers.
        if batch.len() < MANY {
            batch.zip(first..).for_each(|(pending, sequence)| answer(pending, sequence));
            return;
        }
        self.held = Some(Written { batch: batch.collect(), first });
    }

    /// Whether there are answers to be given.
    pub(crate) fn are_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets the thread begin with what is held.
    pub(crate) fn give_held(&mut self) {
        let Some(written) = self.held.take() else { return };
        let unsent = match self.sender() {
            // Blocks while `WAITING_MAX` batches wait: answers that nobody takes must not use up the memory.
            Some(sender) => sender.send(written).err().map(|unsent| unsent.0),
            None => Some(written),
        };
        if let Some(written) = unsent {
            written.answer();
        }
    }

    /// `None` where there can be no other thread.
    fn sender(&mut self) -> Option<&SyncSender<Written>> {
        if self.thread.is_none() {
            let (sender, receiver) = sync_channel::<Written>(WAITING_MAX);
            let thread = std::thread::Builder::new().name(threads::ANSWERS.into()).spawn(move || {
                for written in receiver {
                    threads::turn(threads::ANSWERS);
                    written.answer();
                }
            });
            self.thread = thread.ok().map(|thread| (sender, thread));
        }
        self.thread.as_ref().map(|(sender, _)| sender)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.give_held();
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _panicked = thread.join();
        }
    }
}

impl Written {
    fn answer(self) {
        for (at, pending) in self.batch.into_iter().enumerate().rev() {
            answer(pending, self.first + at as u64);
        }
    }
}

fn answer(pending: Pending, sequence: u64) {
    let _gone = pending.reply.send(Ok(sequence));
}
