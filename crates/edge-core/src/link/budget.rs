//! What a metered link may cost in a day, by cause.
//!
//! Every cause has bytes of its own, so that telemetry that uses up its own leaves commands and twins alone. What is spent
//! is claimed ahead, and a claim is saved before it is used: a program that is killed comes back with as much spent as it
//! had claimed, never with less.
//!
//! # The day
//! A day begins at a stated hour of UTC. The wall clock of a gateway jumps (it starts without a battery, then it is set), so
//! it alone decides nothing: a new day begins when the wall clock shows one and at least [`SHORTEST_DAY_MS`] have passed, and
//! whatever it shows when 24 hours have passed. Time passes as a clock that only runs forward counts it while the program runs,
//! and as the wall clock says while it does not.

use serde::{Deserialize, Serialize};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Between two beginnings of a day pass at least so many milliseconds.
pub const SHORTEST_DAY_MS: u64 = 12 * HOUR_MS;
/// What is claimed ahead, as a part of the limit, and at least.
const CLAIMS: u64 = 64;
const CLAIM_BYTES: u64 = 16 << 10;

/// What bytes on the link are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Messages of devices and modules.
    Telemetry,
    /// Desired and reported sections of devices and modules.
    Twins,
    /// Commands and their answers.
    Commands,
    /// Cloud-to-device messages and how they ended.
    Messages,
    /// Manifests, and what `$edgeAgent` and `$edgeHub` report.
    Deployments,
    /// Presence, enrolment, keep-alive. Counted, never limited: the link cannot be without them.
    Link,
}

impl Cause {
    /// All of them, as they stand in a [`Spent`].
    pub const ALL: [Self; 6] =
        [Self::Telemetry, Self::Twins, Self::Commands, Self::Messages, Self::Deployments, Self::Link];

    /// One word, for pages and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Twins => "twins",
            Self::Commands => "commands",
            Self::Messages => "messages",
            Self::Deployments => "deployments",
            Self::Link => "link",
        }
    }
}

pub type Spent = [u64; Cause::ALL.len()];

/// What may be spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a day by cause; `None` for no limit.
    pub bytes: [Option<u64>; Cause::ALL.len()],
    /// The hour of UTC at which a day begins, 0 to 23.
    pub reset_hour: u8,
}

/// The state on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The day that the wall clock showed when this one began, in days since the Unix epoch.
    day: u64,
    /// How long it is since then, in ms.
    passed_ms: u64,
    /// The wall clock when this was saved, in ms since the Unix epoch.
    wall_ms: u64,
    /// Bytes claimed of limited causes, and spent of the others.
    claimed: Spent,
}

/// Whether bytes may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// They may, and are counted.
    Send,
    /// They may once [`Budget::to_save`] is on disk.
    Save,
    /// Not before the next day.
    Wait,
}

/// The budget of one link.
#[derive(Debug, Clone)]
pub struct Budget {
    limits: Limits,
    saved: Saved,
    spent: Spent,
}

impl Budget {
    /// Goes on from what was saved.
    pub fn new(limits: Limits, saved: Option<Saved>, wall_ms: u64) -> Self {
        let day = day_of(wall_ms, limits.reset_hour);
        let mut saved = saved.unwrap_or(Saved { day, wall_ms, ..Saved::default() });
        saved.passed_ms = saved.passed_ms.saturating_add(wall_ms.saturating_sub(saved.wall_ms));
        saved.wall_ms = wall_ms;
        let mut budget = Self { limits, spent: saved.claimed, saved };
        budget.passed(wall_ms, 0);
        budget
    }

    /// Notes that time has passed: what the wall clock shows, and how much more a clock that only runs forward has counted.
    /// True when a new day began.
    pub fn passed(&mut self, wall_ms: u64, by_ms: u64) -> bool {
        let day = day_of(wall_ms, self.limits.reset_hour);
        self.saved.passed_ms = self.saved.passed_ms.saturating_add(by_ms);
        self.saved.wall_ms = wall_ms;
        let is_new = (day != self.saved.day && self.saved.passed_ms >= SHORTEST_DAY_MS)
            || self.saved.passed_ms >= DAY_MS;
        if is_new {
            (self.saved.day, self.saved.passed_ms) = (day, 0);
            (self.saved.claimed, self.spent) = (Spent::default(), Spent::default());
        }
        is_new
    }

    /// Asks for bytes.
    pub fn spend(&mut self, cause: Cause, bytes: u64) -> May {
        let at = cause as usize;
        let after = self.spent[at].saturating_add(bytes);
        let Some(limit) = self.limits.bytes[at] else {
            // Counted to be shown and never limited, so it need not be on disk first.
            self.spent[at] = after;
            self.saved.claimed[at] = after;
            return May::Send;
        };
        if after <= self.saved.claimed[at] {
            self.spent[at] = after;
            return May::Send;
        }
        // What is larger than a whole day's budget goes when nothing else was spent: it would wait for ever.
        if after > limit && self.spent[at] > 0 {
            return May::Wait;
        }
        let ahead = (limit / CLAIMS).max(CLAIM_BYTES);
        // A claim beyond the limit could never be spent; only a message that is larger than the limit needs one.
        self.saved.claimed[at] = after.saturating_add(ahead).min(limit.max(after));
        May::Save
    }

    /// Asks whether the next message of a cause may be sent, before it is known how large it is; [`Budget::count`] follows. The
    /// last one of a day may go over the limit.
    pub fn ready(&mut self, cause: Cause) -> May {
        let at = cause as usize;
        let Some(limit) = self.limits.bytes[at] else { return May::Send };
        let left = limit.saturating_sub(self.spent[at]);
        if left == 0 {
            return May::Wait;
        }
        let ahead = (limit / CLAIMS).max(CLAIM_BYTES).min(left);
        let claimed = self.saved.claimed[at].saturating_sub(self.spent[at]);
        // How large the message is is not known yet, so a claim is renewed while half of it is left.
        if claimed >= ahead / 2 {
            return May::Send;
        }
        self.saved.claimed[at] = self.spent[at] + ahead;
        May::Save
    }

    /// Counts bytes that came or that could not wait.
    pub fn count(&mut self, cause: Cause, bytes: u64) {
        let at = cause as usize;
        self.spent[at] = self.spent[at].saturating_add(bytes);
        self.saved.claimed[at] = self.saved.claimed[at].max(self.spent[at]);
    }

    /// Whether nothing more of a cause may be sent today, however small.
    pub fn is_used_up(&self, cause: Cause) -> bool {
        let at = cause as usize;
        self.limits.bytes[at].is_some_and(|limit| self.spent[at] >= limit)
    }

    /// What is to be on disk before what was claimed is sent.
    pub fn to_save(&self) -> Saved {
        self.saved.clone()
    }

    /// What is to be on disk when the program stops in order: nothing is claimed any more.
    pub fn to_save_at_end(&self) -> Saved {
        Saved { claimed: self.spent, ..self.saved.clone() }
    }

    /// Bytes spent today and the limit.
    pub fn spent(&self, cause: Cause) -> (u64, Option<u64>) {
        (self.spent[cause as usize], self.limits.bytes[cause as usize])
    }

    /// How long until a new day begins when no clock jumps, in ms.
    pub fn resets_in_ms(&self, wall_ms: u64) -> u64 {
        let begins = self.limits.reset_hour_ms();
        let into_day = wall_ms.wrapping_add(DAY_MS).wrapping_sub(begins) % DAY_MS;
        let until_hour = DAY_MS - into_day;
        let shortest = SHORTEST_DAY_MS.saturating_sub(self.saved.passed_ms);
        let longest = DAY_MS.saturating_sub(self.saved.passed_ms);
        until_hour.max(shortest).min(longest)
    }
}

impl Limits {
    fn reset_hour_ms(self) -> u64 {
        u64::from(self.reset_hour.min(23)) * HOUR_MS
    }
}

fn day_of(wall_ms: u64, reset_hour: u8) -> u64 {
    wall_ms.wrapping_add(DAY_MS - u64::from(reset_hour.min(23)) * HOUR_MS) / DAY_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: u64 = 20_000 * DAY_MS + 8 * HOUR_MS;

    fn limits(telemetry: u64) -> Limits {
        let mut bytes = [None; Cause::ALL.len()];
        bytes[Cause::Telemetry as usize] = Some(telemetry);
        Limits { bytes, reset_hour: 6 }
    }

    /// Sends as a program does that saves when it must.
    fn send(budget: &mut Budget, disk: &mut Saved, bytes: u64) -> bool {
        loop {
            match budget.spend(Cause::Telemetry, bytes) {
                May::Send => return true,
                May::Save => *disk = budget.to_save(),
                May::Wait => return false,
            }
        }
    }

    #[test]
    fn a_cause_that_has_used_up_its_bytes_waits_and_the_others_go_on_until_the_stated_hour() {
        let (mut budget, mut disk) = (Budget::new(limits(1_000_000), None, T0), Saved::default());
        assert_eq!((0..2_000).filter(|_| send(&mut budget, &mut disk, 1_000)).count(), 1_000);
        assert_eq!(budget.spent(Cause::Telemetry), (1_000_000, Some(1_000_000)));
        assert!(budget.is_used_up(Cause::Telemetry));
        assert_eq!(budget.spend(Cause::Commands, 1 << 40), May::Send);
        assert_eq!(budget.resets_in_ms(T0), 22 * HOUR_MS);
        assert!(!budget.passed(T0 + 22 * HOUR_MS - 1, 22 * HOUR_MS - 1));
        assert!(budget.passed(T0 + 22 * HOUR_MS, 1));
        assert!(send(&mut budget, &mut disk, 1_000));
        assert_eq!(budget.spent(Cause::Commands), (0, None));
    }

    #[test]
    fn a_kill_gives_nothing_back_and_a_stop_in_order_takes_nothing() {
        let (mut budget, mut disk) = (Budget::new(limits(1_000_000), None, T0), Saved::default());
        let mut sent = 0;
        loop {
            if !send(&mut budget, &mut disk, 700) {
                break;
            }
            sent += 700;
            if sent % 2_100 == 0 {
                budget = Budget::new(limits(1_000_000), Some(disk.clone()), T0);
                assert!(budget.spent(Cause::Telemetry).0 >= sent);
            }
        }
        assert!(sent <= 1_000_000);
        let mut budget = Budget::new(limits(1_000_000), None, T0);
        send(&mut budget, &mut disk, 700);
        let again = Budget::new(limits(1_000_000), Some(budget.to_save_at_end()), T0);
        assert_eq!(again.spent(Cause::Telemetry).0, 700);
    }

    #[test]
    fn a_message_larger_than_the_whole_budget_goes_first_thing_in_a_day() {
        let (mut budget, mut disk) = (Budget::new(limits(1_000), None, T0), Saved::default());
        assert!(send(&mut budget, &mut disk, 5_000));
        assert!(!send(&mut budget, &mut disk, 1));
    }

    proptest! {
        #[test]
        fn a_clock_that_jumps_gives_neither_a_second_budget_nor_none_for_ever(
            steps in proptest::collection::vec((1u64..4 * HOUR_MS, proptest::option::weighted(0.3, 0u64..(40_000 * DAY_MS)), any::<bool>()), 1..200),
        ) {
            let mut wall = T0;
            let (mut budget, mut real, mut last) = (Budget::new(limits(1_000), None, T0), 0u64, None::<u64>);
            for (by_ms, jump, is_restarted) in steps {
                real += by_ms;
                wall += by_ms;
                if let Some(to) = jump {
                    wall = to;
                }
                let was_used_up = {
                    while budget.spend(Cause::Telemetry, 100) != May::Wait {}
                    budget.is_used_up(Cause::Telemetry)
                };
                prop_assert!(was_used_up);
                budget.passed(wall, by_ms);
                if is_restarted {
                    // At once, with the clock as it is.
                    budget = Budget::new(limits(1_000), Some(budget.to_save()), wall);
                }
                if !budget.is_used_up(Cause::Telemetry) {
                    if let Some(last) = last {
                        prop_assert!(real - last >= SHORTEST_DAY_MS, "a second budget after {} ms", real - last);
                    }
                    last = Some(real);
                }
                let since = real - last.unwrap_or(0);
                prop_assert!(since <= DAY_MS, "none for {} ms", since);
            }
        }
    }
}
