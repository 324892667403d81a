//! The telemetry in flight to central: which sequences were sent, which were acknowledged, and how far the queue may
//! forget.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::pace::{MOST, Pace, Ticket};

/// The window of one connection. A new connection starts with a new window and sends again from the queue's cursor.
#[derive(Debug)]
pub struct Window {
    capacity: usize,
    in_flight: VecDeque<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    sequence: u64,
    is_acknowledged: bool,
}

impl Window {
    /// A window of at most `capacity` messages.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, in_flight: VecDeque::new() }
    }

    /// How many more may be sent now.
    pub fn free(&self) -> usize {
        self.capacity.saturating_sub(self.in_flight.len())
    }

    /// Notes that `sequence` was sent. Sequences are sent in ascending order.
    pub fn sent(&mut self, sequence: u64) {
        debug_assert!(self.free() > 0, "the caller asks `free` first");
        debug_assert!(self.in_flight.back().is_none_or(|last| last.sequence < sequence));
        self.in_flight.push_back(InFlight { sequence, is_acknowledged: false });
    }

    /// Notes an acknowledgement. Gives the sequence up to which everything is acknowledged, when that moved.
    /// A sequence that is not in flight changes nothing.
    pub fn acknowledged(&mut self, sequence: u64) -> Option<u64> {
        let place = self.in_flight.binary_search_by_key(&sequence, |message| message.sequence).ok()?;
        self.in_flight[place].is_acknowledged = true;
        self.forget()
    }

    /// Notes that `sequence` was done with instead of being sent, in the order of sending. Gives the sequence up to which
    /// everything is done with, when that moved.
    pub fn passed(&mut self, sequence: u64) -> Option<u64> {
        self.in_flight.push_back(InFlight { sequence, is_acknowledged: true });
        self.forget()
    }

    fn forget(&mut self) -> Option<u64> {
        let mut done = None;
        while let Some(first) = self.in_flight.front().filter(|first| first.is_acknowledged) {
            done = Some(first.sequence);
            self.in_flight.pop_front();
        }
        done
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

/// The windows of one connection that carries several queues, which share its pace.
#[derive(Debug, Default)]
pub struct Windows {
    pace: Pace,
    queues: BTreeMap<u64, Window>,
    /// Each message that is not acknowledged yet, by packet id: its queue, its sequence, and when it was sent.
    unacknowledged: HashMap<u16, (u64, u64, Ticket)>,
}

impl Windows {
    /// How many more may be sent now.
    pub fn free(&self) -> usize {
        // What was acknowledged before one that was not is remembered too.
        let remembered = self.queues.values().map(Window::in_flight).sum::<usize>();
        self.pace.free().min(MOST.saturating_sub(remembered))
    }

    /// Notes that `sequence` of `queue` was sent under `packet_id`, `now` on a steady clock. Sequences of a queue are sent in
    /// ascending order.
    pub fn sent(&mut self, packet_id: u16, queue: u64, sequence: u64, now: Duration) {
        debug_assert!(self.free() > 0, "the caller asks `free` first");
        self.unacknowledged.insert(packet_id, (queue, sequence, self.pace.sent(now)));
        // The pace limits all queues together, so the window of one queue has no smaller limit of its own.
        self.queues.entry(queue).or_insert_with(|| Window::new(MOST)).sent(sequence);
    }

    /// Notes an acknowledgement. Gives the queue, and the sequence up to which everything of it is acknowledged, when that
    /// moved. An unknown packet id changes nothing.
    pub fn acknowledged(&mut self, packet_id: u16, now: Duration) -> Option<(u64, u64)> {
        let (queue, sequence, ticket) = self.unacknowledged.remove(&packet_id)?;
        self.pace.acknowledged(ticket, now);
        let done = self.queues.get_mut(&queue)?.acknowledged(sequence)?;
        Some((queue, done))
    }

    /// Notes that `sequence` of `queue` was done with instead of being sent. Gives the sequence up to which everything of
    /// the queue is done with, when that moved.
    pub fn passed(&mut self, queue: u64, sequence: u64) -> Option<u64> {
        self.queues.entry(queue).or_insert_with(|| Window::new(MOST)).passed(sequence)
    }

    /// The queue and the sequence that were sent under a packet id and are not acknowledged.
    pub fn find(&self, packet_id: u16) -> Option<(u64, u64)> {
        self.unacknowledged.get(&packet_id).map(|(queue, sequence, _)| (*queue, *sequence))
    }

    /// As [`Windows::find`], and how long ago it was sent.
    pub fn find_with_age(&self, packet_id: u16, now: Duration) -> Option<(u64, u64, Duration)> {
        let (queue, sequence, ticket) = self.unacknowledged.get(&packet_id)?;
        Some((*queue, *sequence, ticket.age(now)))
    }

    /// What is known of the line.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn queues_share_the_space_and_each_has_its_own_cursor() {
        let mut windows = Windows::default();
        let free = windows.free();
        windows.sent(1, 7, 10, NOW);
        windows.sent(2, 8, 1, NOW);
        windows.sent(3, 7, 11, NOW);
        assert_eq!(windows.free(), free - 3);
        assert_eq!(windows.acknowledged(3, NOW), None, "10 of queue 7 is still missing");
        assert_eq!(windows.acknowledged(2, NOW), Some((8, 1)));
        assert_eq!(windows.free(), free - 1);
        assert_eq!(windows.acknowledged(1, NOW), Some((7, 11)));
        assert_eq!((windows.free(), windows.acknowledged(1, NOW)), (free, None));
    }

    #[test]
    fn what_was_done_with_without_being_sent_holds_nothing_back_and_overtakes_nothing() {
        let mut windows = Windows::default();
        assert_eq!(windows.passed(7, 1), Some(1));
        windows.sent(1, 7, 2, NOW);
        assert_eq!(windows.passed(7, 3), None, "2 is in flight");
        assert_eq!((windows.find(1), windows.find(2)), (Some((7, 2)), None));
        assert_eq!(windows.acknowledged(1, NOW), Some((7, 3)));
        assert_eq!(windows.find(1), None);
    }

    #[test]
    fn the_cursor_moves_only_over_what_is_acknowledged_in_sequence() {
        let mut window = Window::new(3);
        for sequence in [10, 11, 15] {
            window.sent(sequence);
        }
        assert_eq!(window.free(), 0);
        assert_eq!(window.acknowledged(11), None, "10 is still missing");
        assert_eq!(window.acknowledged(12), None, "one that is not in flight changes nothing");
        assert_eq!(window.acknowledged(10), Some(11));
        assert_eq!(window.free(), 2);
        assert_eq!(window.acknowledged(10), None, "a repeated acknowledgement changes nothing");
        assert_eq!(window.acknowledged(15), Some(15));
        assert_eq!(window.in_flight(), 0);
    }
}
