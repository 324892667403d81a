//! The newest events of the live stream, and who watches what: a subscriber reads at its own pace, and one that falls behind what is
//! kept is instructed to read everything again.
//!
//! Pure: the caller passes the time.
//!
//! # Guarantees
//! - A subscriber gets each event that it wants once, in the order of their numbers, or gets [`Batch::is_resync`].
//! - A subscriber that resumes behind its last event misses none: it is instructed to resync when central has not recorded its devices
//!   all the time since.
//! - What is kept does not grow with the number of subscribers or with how slow they are.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use schemas::names::DeviceId;

/// Events that are kept.
const EVENTS_MAX: usize = 50_000;
/// Bytes of their data.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an event holds beside its data.
const OVERHEAD_BYTES: usize = 200;
/// How long events are recorded for a subscriber that has gone and may come back.
const GRACE: Duration = Duration::from_secs(60);
/// Events that a subscriber takes at once.
const BATCH_MAX: usize = 256;
/// Bytes of their data, but for the first: what a subscriber that reads slowly holds.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// How a device is.
    State,
    /// A message of a device.
    Telemetry,
    /// The begin or the end of a command.
    Command,
    /// A new version of a section of a twin.
    Properties,
}

impl EventKind {
    /// The name of the event in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Telemetry => "telemetry",
            Self::Command => "command",
            Self::Properties => "properties",
        }
    }
}

/// An event that is kept.
#[derive(Debug)]
pub struct Event {
    pub number: u64,
    /// What it is about.
    pub kind: EventKind,
    pub device: DeviceId,
    /// JSON.
    pub data: String,
    /// JSON without secrets, made when the first viewer takes it.
    pub redacted: OnceLock<String>,
}

/// Which events, and where the reading is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// `None`: the states of all devices.
    devices: Option<BTreeSet<DeviceId>>,
    next: u64,
    must_resync: bool,
}

impl StreamPosition {
    /// The number behind which it reads.
    pub fn behind(&self) -> u64 {
        self.next - 1
    }

    fn wants(&self, event: &Event) -> bool {
        match &self.devices {
            None => event.kind == EventKind::State,
            Some(devices) => devices.contains(&event.device),
        }
    }
}

/// What a subscriber takes at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// It missed events, and must read everything anew. Its reading goes on behind the events in here.
    pub is_resync: bool,
    /// In the order of their numbers.
    pub events: Vec<Arc<Event>>,
    /// Behind which number the reading goes on.
    pub up_to: u64,
}

/// Since when something is recorded, and for whom.
#[derive(Debug)]
struct Watch {
    /// The number of the first event that may be recorded.
    since: u64,
    subscribers: usize,
    /// When the last subscriber left.
    left_at: Option<Instant>,
}

impl Watch {
    fn is_over(&self, now: Instant) -> bool {
        let has_left = |at| now.saturating_duration_since(at) >= GRACE;
        self.subscribers == 0 && self.left_at.is_some_and(has_left)
    }
}

/// The events and the watches.
#[derive(Debug)]
pub struct Ring {
    /// Differs from that of every other run of central.
    epoch: String,
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    next: u64,
    /// Events below this number are not all kept.
    lost_before: u64,
    /// Of the states of all devices; every subscriber has a part in it.
    states: Option<Watch>,
    devices: HashMap<DeviceId, Watch>,
}

impl Ring {
    /// An empty one.
    pub fn new(epoch: String) -> Self {
        // Number 0 stands for "before the first event".
        Self {
            epoch,
            events: VecDeque::new(),
            bytes: 0,
            next: 1,
            lost_before: 1,
            states: None,
            devices: HashMap::new(),
        }
    }

    /// The id of an event in the stream.
    pub fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.epoch)
    }

    /// The number of the newest event.
    pub fn head(&self) -> u64 {
        self.next - 1
    }

    pub fn push(&mut self, kind: EventKind, device: DeviceId, data: String) {
        self.bytes += data.len() + OVERHEAD_BYTES;
        let event = Event { number: self.next, kind, device, data, redacted: OnceLock::new() };
        self.events.push_back(Arc::new(event));
        self.next += 1;
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(gone) = self.events.pop_front() else { break };
            self.bytes -= gone.data.len() + OVERHEAD_BYTES;
            self.lost_before = gone.number + 1;
        }
    }

    /// Notes that events were missed: every subscriber must resync.
    pub fn miss(&mut self) {
        self.events.clear();
        self.bytes = 0;
        // A number of its own, so that ids from before the gap differ from those behind it.
        self.next += 1;
        self.lost_before = self.next;
    }

    /// Begins to record for a subscriber, who has seen everything up to `last`, an id of this stream, if there is one.
    pub fn subscribe(&mut self, devices: Option<BTreeSet<DeviceId>>, last: Option<&str>) -> StreamPosition {
        let resumed = last.map(|last| self.resumed(last, devices.as_ref()));
        let is_watched = |device| self.devices.contains_key(device);
        if self.states.is_none() || !devices.iter().flatten().all(is_watched) {
            // Distinguishes ids from before from those after which everything is recorded.
            self.next += 1;
        }
        let next = self.next;
        let watch = || Watch { since: next, subscribers: 0, left_at: None };
        self.states.get_or_insert_with(watch).subscribers += 1;
        for device in devices.iter().flatten() {
            self.devices.entry(device.clone()).or_insert_with(watch).subscribers += 1;
        }
        match resumed {
            None => StreamPosition { devices, next, must_resync: false },
            Some(Some(next)) => StreamPosition { devices, next, must_resync: false },
            Some(None) => StreamPosition { devices, next, must_resync: true },
        }
    }

    /// Where a subscriber goes on that has seen `last`; `None` when it may have missed something.
    fn resumed(&self, last: &str, devices: Option<&BTreeSet<DeviceId>>) -> Option<u64> {
        let (epoch, number) = last.rsplit_once('-')?;
        let next = number.parse::<u64>().ok()?.checked_add(1)?;
        if epoch != self.epoch || next > self.next || next < self.lost_before {
            return None;
        }
        let has_all = |watch: Option<&Watch>| watch.is_some_and(|watch| watch.since <= next);
        let all = has_all(self.states.as_ref())
            && devices.into_iter().flatten().all(|device| has_all(self.devices.get(device)));
        all.then_some(next)
    }

    pub fn leave(&mut self, position: &StreamPosition, now: Instant) {
        let watches = position.devices.iter().flatten();
        let leave = |watch: &mut Watch| {
            watch.subscribers = watch.subscribers.saturating_sub(1);
            watch.left_at = Some(now);
        };
        if let Some(watch) = &mut self.states {
            leave(watch);
        }
        for device in watches {
            if let Some(watch) = self.devices.get_mut(device) {
                leave(watch);
            }
        }
    }

    /// Ends the recording for those that have not come back; false when nothing is recorded any more.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.devices.retain(|_, watch| !watch.is_over(now));
        if self.states.as_ref().is_some_and(|watch| watch.is_over(now)) {
            self.states = None;
            self.devices.clear();
            self.events.clear();
            self.bytes = 0;
        }
        self.states.is_some()
    }

    /// The devices whose messages, commands and properties are recorded.
    pub fn watched(&self) -> Vec<DeviceId> {
        self.devices.keys().cloned().collect()
    }

    /// What a subscriber takes next.
    pub fn read(&self, position: &mut StreamPosition) -> Batch {
        if position.must_resync || position.next < self.lost_before {
            (position.must_resync, position.next) = (false, self.next);
            return Batch { is_resync: true, events: Vec::new(), up_to: self.head() };
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        let first = self.events.partition_point(|event| event.number < position.next);
        for event in self.events.range(first..) {
            if events.len() == BATCH_MAX || bytes >= BATCH_BYTES_MAX {
                break;
            }
            position.next = event.number + 1;
            if position.wants(event) {
                bytes += event.data.len();
                events.push(event.clone());
            }
        }
        Batch { is_resync: false, events, up_to: position.next - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> DeviceId {
        text.parse().unwrap()
    }

    fn only(devices: &[&str]) -> Option<BTreeSet<DeviceId>> {
        Some(devices.iter().map(|device| id(device)).collect())
    }

    fn take(ring: &Ring, position: &mut StreamPosition) -> Vec<String> {
        let batch = ring.read(position);
        assert!(!batch.is_resync);
        batch.events.iter().map(|event| event.data.clone()).collect()
    }

    #[test]
    fn a_subscriber_takes_no_more_bytes_at_once_than_it_may_hold_and_gets_all_in_the_end() {
        let mut ring = Ring::new("e".into());
        let mut position = ring.subscribe(only(&["a"]), None);
        for _ in 0..20 {
            ring.push(EventKind::Telemetry, id("a"), "x".repeat(BATCH_BYTES_MAX / 3));
        }
        let mut taken = Vec::new();
        while taken.len() < 20 {
            let batch = take(&ring, &mut position);
            assert!((1..=4).contains(&batch.len()), "{}", batch.len());
            taken.extend(batch);
        }
    }

    #[test]
    fn a_subscriber_of_devices_gets_all_of_them_and_one_of_the_site_gets_states() {
        let mut ring = Ring::new("e".into());
        let (mut site, mut one) = (ring.subscribe(None, None), ring.subscribe(only(&["a"]), None));
        ring.push(EventKind::State, id("a"), "1".into());
        ring.push(EventKind::Telemetry, id("a"), "2".into());
        ring.push(EventKind::State, id("b"), "3".into());
        ring.push(EventKind::Command, id("b"), "4".into());
        assert_eq!(take(&ring, &mut site), ["1", "3"]);
        assert_eq!(take(&ring, &mut one), ["1", "2"]);
        assert!(take(&ring, &mut one).is_empty());
    }

    #[test]
    fn a_subscriber_resumes_within_the_grace_and_has_to_resync_when_something_may_be_missing() {
        let mut ring = Ring::new("e".into());
        let first = ring.subscribe(only(&["a"]), None);
        ring.push(EventKind::Telemetry, id("a"), "1".into());
        let last = ring.id(ring.head());
        let left = Instant::now();
        ring.leave(&first, left);
        assert!(ring.expire(left + GRACE / 2));
        ring.push(EventKind::Telemetry, id("a"), "2".into());
        let mut again = ring.subscribe(only(&["a"]), Some(&last));
        assert_eq!(take(&ring, &mut again), ["2"]);
        for (devices, last) in [
            (only(&["a", "b"]), last.as_str()),
            (only(&["a"]), "other-1"),
            (only(&["a"]), "e-99"),
            (only(&["a"]), "e-18446744073709551615"),
            (only(&["a"]), "e"),
            (only(&["a"]), ""),
        ] {
            let mut position = ring.subscribe(devices, Some(last));
            assert!(ring.read(&mut position).is_resync, "{last}");
            assert!(!ring.read(&mut position).is_resync, "once");
            ring.leave(&position, left);
        }
        ring.leave(&again, left);
        assert!(!ring.expire(left + GRACE));
        let mut late = ring.subscribe(only(&["a"]), Some(&last));
        assert!(ring.read(&mut late).is_resync, "nothing was recorded meanwhile");
    }

    #[test]
    fn a_subscriber_that_falls_behind_what_is_kept_must_resync_and_goes_on_with_what_comes_then() {
        let mut ring = Ring::new("e".into());
        let mut slow = ring.subscribe(None, None);
        for _ in 0..=EVENTS_MAX {
            ring.push(EventKind::State, id("a"), "x".into());
        }
        assert!(ring.read(&mut slow).is_resync);
        ring.push(EventKind::State, id("a"), "new".into());
        assert_eq!(take(&ring, &mut slow), ["new"]);
        ring.miss();
        ring.push(EventKind::State, id("a"), "y".into());
        assert!(ring.read(&mut slow).is_resync);
        let large = "z".repeat(BYTES_MAX / 4);
        for _ in 0..8 {
            ring.push(EventKind::State, id("a"), large.clone());
        }
        assert!(ring.bytes <= BYTES_MAX && ring.events.len() < 5);
        assert!(ring.read(&mut slow).is_resync);
    }

    #[test]
    fn whatever_happens_a_subscriber_misses_nothing_without_learning_it() {
        let steps = prop::collection::vec((0..6_u8, 0..3_usize, 0..90_u64), 1..60);
        proptest!(|(steps in steps)| {
            let mut ring = Ring::new("e".into());
            let (names, mut now) = (["a", "b", "c"], Instant::now());
            let mut truth: Vec<(u64, usize)> = Vec::new();
            // The subscriber: its position while it is there, and what it has seen for sure.
            let (mut here, mut last, mut seen_to) = (None, None, ring.head());
            for (step, which, seconds) in steps {
                match step {
                    0 | 1 => {
                        // Recorded only while somebody watches, as the feed does it.
                        let device = id(names[which]);
                        let is_watched = ring.watched().contains(&device);
                        truth.push((u64::MAX, which));
                        if is_watched {
                            ring.push(EventKind::Telemetry, device, which.to_string());
                            truth.last_mut().unwrap().0 = ring.head();
                        }
                    }
                    2 => if here.is_none() {
                        let position = ring.subscribe(only(&["a", "b"]), last.as_deref());
                        if last.is_none() {
                            truth.clear();
                        }
                        here = Some(position);
                    },
                    3 => if let Some(position) = here.take() {
                        ring.leave(&position, now);
                    },
                    4 => {
                        now += Duration::from_secs(seconds);
                        ring.expire(now);
                    }
                    _ => if let Some(position) = &mut here {
                        let batch = ring.read(position);
                        if batch.is_resync {
                            truth.clear();
                        } else {
                            let got: Vec<usize> = batch.events.iter().map(|event| event.data.parse().unwrap()).collect();
                            let expected: Vec<usize> =
                                truth.drain(..).map(|(_, which)| which).filter(|which| *which < 2).collect();
                            prop_assert_eq!(got, expected);
                        }
                        prop_assert!(batch.up_to >= seen_to);
                        (seen_to, last) = (batch.up_to, Some(ring.id(batch.up_to)));
                    },
                }
            }
        });
    }
}
