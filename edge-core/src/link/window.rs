//! The telemetry in flight to central: which sequences were sent, which were acknowledged, and how far the queue may
//! forget.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// The window of one connection. A new connection starts with a new window and sends again from the queue's cursor.
#[derive(Debug)]
pub struct Window {
    capacity: usize,
    in_flight: VecDeque<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    packet_id: u16,
    sequence: u64,
    is_acknowledged: bool,
}

impl Window {
    /// A window of at most `capacity` messages.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, in_flight: VecDeque::with_capacity(capacity.min(4096)) }
    }

    /// How many more may be sent now.
    pub fn free(&self) -> usize {
        self.capacity - self.in_flight.len()
    }

    /// Notes that `sequence` was sent under `packet_id`. Sequences are sent in ascending order.
    pub fn sent(&mut self, packet_id: u16, sequence: u64) {
        debug_assert!(self.free() > 0, "the caller asks `free` first");
        debug_assert!(self.in_flight.back().is_none_or(|last| last.sequence < sequence));
        self.in_flight.push_back(InFlight { packet_id, sequence, is_acknowledged: false });
    }

    /// Notes an acknowledgement. Gives the sequence up to which everything is acknowledged, when that moved.
    /// An unknown packet id changes nothing.
    pub fn acknowledged(&mut self, packet_id: u16) -> Option<u64> {
        let acknowledged =
            self.in_flight.iter_mut().find(|m| m.packet_id == packet_id && !m.is_acknowledged)?;
        acknowledged.is_acknowledged = true;
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

/// The windows of one connection that carries several queues, which share its room.
#[derive(Debug)]
pub struct Windows {
    capacity: usize,
    queues: BTreeMap<u64, Window>,
    /// The queue of each message that is not acknowledged yet, by packet id.
    unacknowledged: HashMap<u16, u64>,
}

impl Windows {
    /// Windows of at most `capacity` messages together.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, queues: BTreeMap::new(), unacknowledged: HashMap::new() }
    }

    /// How many more may be sent now.
    pub fn free(&self) -> usize {
        self.capacity - self.queues.values().map(Window::in_flight).sum::<usize>()
    }

    /// Notes that `sequence` of `queue` was sent under `packet_id`. Sequences of a queue are sent in ascending order.
    pub fn sent(&mut self, packet_id: u16, queue: u64, sequence: u64) {
        debug_assert!(self.free() > 0, "the caller asks `free` first");
        self.unacknowledged.insert(packet_id, queue);
        self.queues.entry(queue).or_insert_with(|| Window::new(self.capacity)).sent(packet_id, sequence);
    }

    /// Notes an acknowledgement. Gives the queue, and the sequence up to which everything of it is acknowledged, when that
    /// moved. An unknown packet id changes nothing.
    pub fn acknowledged(&mut self, packet_id: u16) -> Option<(u64, u64)> {
        let queue = self.unacknowledged.remove(&packet_id)?;
        let sequence = self.queues.get_mut(&queue)?.acknowledged(packet_id)?;
        Some((queue, sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_the_room_and_each_has_its_own_cursor() {
        let mut windows = Windows::new(3);
        windows.sent(1, 7, 10);
        windows.sent(2, 8, 1);
        windows.sent(3, 7, 11);
        assert_eq!(windows.free(), 0);
        assert_eq!(windows.acknowledged(3), None, "10 of queue 7 is still missing");
        assert_eq!(windows.acknowledged(2), Some((8, 1)));
        assert_eq!(windows.free(), 1);
        assert_eq!(windows.acknowledged(1), Some((7, 11)));
        assert_eq!((windows.free(), windows.acknowledged(1)), (3, None));
    }

    #[test]
    fn the_cursor_moves_only_over_what_is_acknowledged_without_a_gap() {
        let mut window = Window::new(3);
        for (packet_id, sequence) in [(1, 10), (2, 11), (3, 15)] {
            window.sent(packet_id, sequence);
        }
        assert_eq!(window.free(), 0);
        assert_eq!(window.acknowledged(2), None, "10 is still missing");
        assert_eq!(window.acknowledged(9), None, "an unknown packet id changes nothing");
        assert_eq!(window.acknowledged(1), Some(11));
        assert_eq!(window.free(), 2);
        assert_eq!(window.acknowledged(1), None, "a repeated acknowledgement changes nothing");
        assert_eq!(window.acknowledged(3), Some(15));
        assert_eq!(window.in_flight(), 0);
    }
}
