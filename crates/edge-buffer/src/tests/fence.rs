//! Records that are handed in again after a failure keep their order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::disk::Disk;
use super::*;
use crate::{Append, AppendError, Fence};

fn open(disk: &Disk) -> Log {
    Log::open_on(Arc::new(disk.clone()), options()).unwrap()
}

#[tokio::test]
async fn after_a_failure_nothing_further_of_its_producer_is_taken_and_others_go_on() {
    let (disk, other_disk) = (Disk::default(), Disk::default());
    let (log, other_log) = (open(&disk), open(&other_disk));
    let (fence, other) = (Fence::default(), Fence::default());
    let append =
        |log: &Log, n, fence: &Fence| log.append_fenced(payload(n, 100), 0, None, Some(fence.clone()));
    append(&log, 1, &fence).await.unwrap();
    disk.fail_syncs(1);
    assert!(matches!(append(&log, 2, &fence).await, Err(AppendError::Write { .. })));
    assert!(matches!(append(&log, 3, &fence).await, Err(AppendError::Fenced)));
    assert!(matches!(append(&other_log, 4, &fence).await, Err(AppendError::Fenced)));
    assert_eq!(append(&log, 5, &other).await.unwrap(), 2);
    assert_eq!(append(&other_log, 6, &other).await.unwrap(), 1);
    // The producer begins anew.
    let fence = Fence::default();
    for n in [2, 3] {
        append(&log, n, &fence).await.unwrap();
    }
    assert_eq!(log.stats().refused, 0, "it is no loss: the producer has it");
    let written: Vec<Bytes> = close_and_read(&log).await.into_iter().map(|record| record.payload).collect();
    assert_eq!(written, [1, 5, 2, 3].map(|n| payload(n, 100)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A producer appends its next record.
    Append(usize),
    /// A producer looks at its answers, and begins again with the first that failed.
    Check(usize),
    FailSync,
    FailWrite,
    HoldSyncs,
    ReleaseSyncs,
    /// Everything that was handed in has its answer.
    Idle,
}

const PRODUCERS: usize = 3;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..PRODUCERS).prop_map(Step::Append),
        3 => (0..PRODUCERS).prop_map(Step::Check),
        1 => Just(Step::FailSync),
        1 => Just(Step::FailWrite),
        1 => Just(Step::HoldSyncs),
        1 => Just(Step::ReleaseSyncs),
        2 => Just(Step::Idle),
    ]
}

/// As a client with a persistent session and its connection: what is not acknowledged when the connection ends is sent again.
#[derive(Default)]
struct Producer {
    next: u64,
    unanswered: VecDeque<(u64, Append)>,
    fence: Fence,
}

impl Producer {
    fn append(&mut self, log: &Log, of: usize) {
        let record = [self.next.to_le_bytes(), (of as u64).to_le_bytes()].concat();
        let append = log.append_fenced(record.into(), 0, None, Some(self.fence.clone()));
        self.unanswered.push_back((self.next, append));
        self.next += 1;
    }

    fn check(&mut self) {
        while let Some((n, append)) = self.unanswered.front_mut() {
            match poll_once(append) {
                None => return,
                Some(Ok(_)) => drop(self.unanswered.pop_front()),
                Some(Err(_)) => *self = Self { next: *n, ..Self::default() },
            }
        }
    }
}

async fn idle(log: &Log) {
    // Whether it is written or not: what was handed in before is answered before.
    let _ = log.append(Bytes::from_static(b"idle"), 0).await;
}

async fn first_arrivals(steps: Vec<Step>) -> BTreeMap<u64, Vec<u64>> {
    let disk = Disk::default();
    let log = open(&disk);
    let mut producers: [Producer; PRODUCERS] = Default::default();
    for step in steps {
        match step {
            Step::Append(of) => producers[of].append(&log, of),
            Step::Check(of) => producers[of].check(),
            Step::FailSync => disk.fail_syncs(1),
            Step::FailWrite => disk.fail_writes(1),
            Step::HoldSyncs => disk.hold_syncs(),
            Step::ReleaseSyncs => disk.release_syncs(),
            Step::Idle => {
                disk.release_syncs();
                idle(&log).await;
            }
        }
    }
    disk.release_syncs();
    // All are sent again until they are stored.
    let expected: Vec<u64> = producers.iter().map(|producer| producer.next).collect();
    while producers.iter().any(|producer| !producer.unanswered.is_empty()) {
        idle(&log).await;
        for (of, producer) in producers.iter_mut().enumerate() {
            producer.check();
            while producer.next < expected[of] {
                producer.append(&log, of);
            }
        }
    }
    let mut arrived: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for record in close_and_read(&log).await {
        if let Ok(record) = <[u8; 16]>::try_from(&record.payload[..]) {
            let [n, of] =
                [&record[..8], &record[8..]].map(|part| u64::from_le_bytes(part.try_into().unwrap()));
            let of = arrived.entry(of).or_default();
            if !of.contains(&n) {
                of.push(n);
            }
        }
    }
    for (of, expected) in expected.into_iter().enumerate() {
        assert_eq!(arrived.get(&(of as u64)).map_or(0, Vec::len) as u64, expected, "all arrived");
    }
    arrived
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn first_arrivals_of_each_producer_are_in_order_whenever_the_disk_fails(steps in prop::collection::vec(step(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (of, arrived) in runtime.block_on(first_arrivals(steps)) {
            prop_assert!(arrived.is_sorted(), "producer {of}: {arrived:?}");
        }
    }
}
