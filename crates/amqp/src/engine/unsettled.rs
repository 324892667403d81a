//! Deliveries that one end still has to settle, in the order of their numbers.

use std::collections::VecDeque;

use super::serial;

/// Of one session and one direction. Numbers grow, and are found by halving.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    deliveries: VecDeque<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) number: u32,
    pub(super) handle: u32,
    /// Its outcome was reported to the application.
    pub(super) has_outcome: bool,
}

impl Unsettled {
    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Nearly always the last: a delivery of many transfers may end after later ones of other links.
    pub(super) fn insert(&mut self, number: u32, handle: u32) {
        let at = self.position(number);
        self.deliveries.insert(at, Entry { number, handle, has_outcome: false });
    }

    pub(super) fn remove(&mut self, number: u32, handle: u32) -> bool {
        let at = self.position(number);
        let is_there =
            self.deliveries.get(at).is_some_and(|entry| entry.number == number && entry.handle == handle);
        if is_there {
            self.deliveries.remove(at);
        }
        is_there
    }

    /// Those from the first number to the last one; they stay.
    pub(super) fn between(&mut self, first: u32, last: u32) -> impl Iterator<Item = &mut Entry> {
        let at = self.position(first);
        self.deliveries.range_mut(at..).take_while(move |entry| serial::is_between(entry.number, first, last))
    }

    /// Takes those from the first number to the last one.
    pub(super) fn take_between(&mut self, first: u32, last: u32) -> Vec<Entry> {
        let at = self.position(first);
        let count = self.between(first, last).count();
        self.deliveries.drain(at..at + count).collect()
    }

    pub(super) fn remove_link(&mut self, handle: u32) {
        self.deliveries.retain(|entry| entry.handle != handle);
    }

    /// Of the first delivery that is not before the number.
    fn position(&self, number: u32) -> usize {
        // Counted from the first delivery: all numbers are within half of the numbers after it.
        let Some(front) = self.deliveries.front().map(|entry| entry.number) else { return 0 };
        let offset = serial::distance(front, number);
        self.deliveries.partition_point(|entry| entry.number.wrapping_sub(front) < offset)
    }
}
