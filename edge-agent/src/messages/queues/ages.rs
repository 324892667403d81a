//! A log whose records expire, under wall clocks that are set at will and restarts of program and machine.

use std::path::Path;

use bytes::Bytes;
use edge_buffer::{Log, LogOptions};
use edge_core::clock::ages::{AgeClock, Machine, SavedClock};
use proptest::prelude::*;

const AGE_MAX_MS: u64 = 3_600_000;
const BEGAN_MS: u64 = 1_800_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Run(u64),
    SetWall(u64),
    /// Takes a message; `Some`: one with a time to live of its own.
    Take(Option<u64>),
    Restart,
    Reboot {
        off_ms: u64,
        wall_ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let time_to_live = proptest::option::of(1..2 * AGE_MAX_MS);
    prop_oneof![
        3 => (1..AGE_MAX_MS).prop_map(Step::Run),
        2 => (0..2 * BEGAN_MS).prop_map(Step::SetWall),
        4 => time_to_live.prop_map(Step::Take),
        1 => Just(Step::Restart),
        1 => (0..30 * AGE_MAX_MS, 0..2 * BEGAN_MS).prop_map(|(off_ms, wall_ms)| Step::Reboot { off_ms, wall_ms }),
    ]
}

/// A gateway in a world whose true time is known.
struct World {
    now_ms: u64,
    off_ms: u64,
    wall_ahead_ms: i64,
    boots: u32,
    booted_ms: u64,
    saved: SavedClock,
    clock: AgeClock,
    log: Log,
}

fn open(dir: &Path) -> Log {
    let options = LogOptions { age_max_ms: Some(AGE_MAX_MS), keep_free_bytes: 0, ..LogOptions::default() };
    Log::open(dir, options).unwrap()
}

impl World {
    fn new(dir: &Path, wall_ms: u64) -> Self {
        let machine = Machine { boot: "0".into(), since_boot_ms: 0 };
        let clock = AgeClock::start(None, &machine, wall_ms);
        Self {
            now_ms: BEGAN_MS,
            off_ms: 0,
            wall_ahead_ms: wall_ms as i64 - BEGAN_MS as i64,
            boots: 0,
            booted_ms: BEGAN_MS,
            saved: clock.saved(0),
            clock,
            log: open(dir),
        }
    }

    fn since_boot_ms(&self) -> u64 {
        self.now_ms - self.booted_ms
    }

    fn wall_ms(&self) -> u64 {
        self.now_ms.saturating_add_signed(self.wall_ahead_ms)
    }

    fn stamp(&mut self) -> u64 {
        self.clock.note(self.wall_ms(), self.since_boot_ms());
        self.clock.at(self.since_boot_ms())
    }

    fn start(&mut self, dir: &Path) {
        self.log.close_blocking();
        let machine = Machine { boot: self.boots.to_string(), since_boot_ms: self.since_boot_ms() };
        self.clock = AgeClock::start(Some(self.saved.clone()), &machine, self.wall_ms());
        self.saved = self.clock.saved(self.since_boot_ms());
        self.log = open(dir);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A message is lost when the gateway ran for its age since it was taken, and only then.
    #[test]
    fn whatever_the_wall_clock_does_a_message_expires_when_the_gateway_ran_for_its_age(
        wall_ms in 0..2 * BEGAN_MS, steps in proptest::collection::vec(step(), 1..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), wall_ms);
        // When each was taken, by true time without that in which the machine was off, and its age.
        let mut taken = Vec::new();
        for step in steps {
            match step {
                Step::Run(ms) => world.now_ms += ms,
                Step::SetWall(ms) => world.wall_ahead_ms = ms as i64 - world.now_ms as i64,
                Step::Take(time_to_live_ms) => {
                    let stamp = world.stamp();
                    let record = Bytes::from_static(b"m");
                    let append = match time_to_live_ms {
                        Some(ms) => world.log.append_expiring(record, stamp, stamp + ms),
                        None => world.log.append(record, stamp),
                    };
                    let sequence = append.wait().unwrap();
                    let age_ms = time_to_live_ms.unwrap_or(u64::MAX).min(AGE_MAX_MS);
                    taken.push((sequence, world.now_ms - world.off_ms, age_ms));
                }
                Step::Restart => world.start(dir.path()),
                Step::Reboot { off_ms, wall_ms } => {
                    // In order: the last time of the clock is saved.
                    world.saved = world.clock.saved(world.since_boot_ms());
                    world.now_ms += off_ms;
                    world.off_ms += off_ms;
                    world.wall_ahead_ms = wall_ms as i64 - world.now_ms as i64;
                    (world.boots, world.booted_ms) = (world.boots + 1, world.now_ms);
                    world.start(dir.path());
                }
            }
            let stamp = world.stamp();
            world.log.expire(stamp).unwrap();
            for (sequence, at, age_ms) in &taken {
                let has_lived = world.now_ms - world.off_ms - at >= *age_ms;
                prop_assert_eq!(!world.log.is_pending(*sequence), has_lived, "message {}", sequence);
            }
        }
        prop_assert_eq!(world.log.stats().damaged, 0);
        world.log.close_blocking();
    }
}
