//! The clock that ages are measured with, and the wall clock's history by it.
//!
//! What waits on a gateway expires by its age. The wall clock cannot tell ages: it starts in some year, jumps when it is set, and
//! may jump again. This clock counts milliseconds while the machine runs or sleeps, and goes on from where it was at each start.
//! It never jumps, and never goes back by more than what was not saved before the power went.
//!
//! ```text
//! same boot:     the machine's steady clock tells exactly how long the program was away
//! another boot:  it goes on from the time saved last: how long the machine was off is not known, and counts for nothing
//! ```
//!
//! Hours without power therefore make nothing older: only the wall clock could tell them, and at a start nobody has proven it.
//! Its first time is the wall clock's, so that stamps of versions that had no such clock keep their meaning.

use serde::{Deserialize, Serialize};

use super::is_before_build;
use super::lifetime::{Lifetime, LifetimeState};

/// A jump of the wall clock that is worth noting; a time server that slews the clock slews the steady one with it.
const JUMP_MS: i64 = 1_000;
/// A time may be so far ahead of the clock that tells it, after jumps that were not noted.
const SLACK_MS: u64 = 5_000;
/// A plausible time is corrected only when the clock was set forward by so much: less may be a pause of a virtual machine, in which
/// the steady clock stood still.
const FORWARD_MS: i64 = 3_600_000;
/// A setting of the wall clock that lasted for so long may delete what is kept for days: time servers correct a wrong clock within
/// minutes, people within an hour.
const SETTLED_MS: u64 = 3_600_000;
/// Jumps that are remembered; of a clock that jumps more often, the oldest are forgotten.
const SETTINGS_MAX: usize = 256;

/// The machine's own clock: it never jumps, counts on while the machine sleeps, and begins anew at each boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Names the boot.
    pub boot: String,
    /// Milliseconds since then.
    pub since_boot_ms: u64,
}

/// From `from_ms` of the age clock on, the wall clock was ahead of it by `ahead_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Setting {
    from_ms: u64,
    ahead_ms: i64,
    /// The first of a boot: the difference to the one before is mostly time without power, and corrects nothing.
    is_boot: bool,
}

/// What is kept of the clock over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SavedClock {
    boot: String,
    since_boot_ms: u64,
    age_ms: u64,
    settings: Vec<Setting>,
}

/// The clock of ages. All its times are milliseconds.
#[derive(Debug)]
pub struct AgeClock {
    boot: String,
    /// This clock less the machine's. Fixed while the program runs.
    ahead_ms: i64,
    /// Never empty, ascending.
    settings: Vec<Setting>,
    /// How often the wall clock was found set since the start.
    jumps: u64,
}

impl AgeClock {
    /// Goes on from what was saved. `wall_ms` is the wall clock, read with the machine's.
    pub fn start(saved: Option<SavedClock>, machine: &Machine, wall_ms: u64) -> Self {
        let boot = machine.boot.clone();
        let Some(saved) = saved else {
            let mut first = Self {
                boot,
                ahead_ms: difference(wall_ms, machine.since_boot_ms),
                settings: Vec::new(),
                jumps: 0,
            };
            first.set(wall_ms, machine.since_boot_ms, true);
            return first;
        };
        let is_same_boot = saved.boot == machine.boot && saved.since_boot_ms <= machine.since_boot_ms;
        let ran_since_ms = if is_same_boot { saved.since_boot_ms } else { machine.since_boot_ms };
        let mut settings = saved.settings;
        settings.retain(|setting| setting.from_ms <= saved.age_ms);
        let mut clock = Self { boot, ahead_ms: difference(saved.age_ms, ran_since_ms), settings, jumps: 0 };
        if is_same_boot && !clock.settings.is_empty() {
            clock.note(wall_ms, machine.since_boot_ms);
        } else {
            clock.set(wall_ms, machine.since_boot_ms, true);
        }
        clock
    }

    /// The time by this clock, at a time of the machine's.
    pub fn at(&self, since_boot_ms: u64) -> u64 {
        since_boot_ms.saturating_add_signed(self.ahead_ms)
    }

    /// Notes both clocks, read at one moment, before the time is used.
    pub fn note(&mut self, wall_ms: u64, since_boot_ms: u64) {
        let ahead_ms = difference(wall_ms, self.at(since_boot_ms));
        let is_set = self.settings.last().is_none_or(|last| (ahead_ms - last.ahead_ms).abs() >= JUMP_MS);
        if is_set {
            self.jumps += 1;
            self.set(wall_ms, since_boot_ms, false);
        }
    }

    /// How often the wall clock was found set since the start: to be saved when it grows.
    pub fn jumps(&self) -> u64 {
        self.jumps
    }

    fn set(&mut self, wall_ms: u64, since_boot_ms: u64, is_boot: bool) {
        if self.settings.len() >= SETTINGS_MAX {
            self.settings.remove(0);
        }
        let from_ms = self.at(since_boot_ms);
        self.settings.push(Setting { from_ms, ahead_ms: difference(wall_ms, from_ms), is_boot });
    }

    /// The wall time that stands for a stamp of this clock, by the wall clock as it was noted last:
    ///
    /// - what the clock cannot have been (before the build, or later than now) is corrected when the clock was set later in the
    ///   same boot, and is `None` otherwise;
    /// - what is plausible is corrected when the clock was set forward by an hour or more after it, and stays otherwise;
    /// - while the clock itself is before the build date, nothing is known better.
    pub fn wall_of(&self, stamp_ms: u64, since_boot_ms: u64) -> Option<u64> {
        let last = self.settings.last()?;
        let now_wall_ms = self.at(since_boot_ms).saturating_add_signed(last.ahead_ms);
        let is_possible = |wall_ms: u64| {
            !is_before_build(wall_ms / 1000) && wall_ms <= now_wall_ms.saturating_add(SLACK_MS)
        };
        let behind = self.settings.partition_point(|setting| setting.from_ms <= stamp_ms);
        let Some(then) = behind.checked_sub(1).map(|index| self.settings[index]) else {
            // Older than all that is known: of a version that stamped with the wall clock.
            return Some(stamp_ms).filter(|wall_ms| is_possible(*wall_ms));
        };
        let taken_ms = stamp_ms.saturating_add_signed(then.ahead_ms);
        let later = self.settings[behind..].iter().take_while(|setting| !setting.is_boot).last();
        let corrected = later.filter(|later| {
            !is_possible(taken_ms) || later.ahead_ms.saturating_sub(then.ahead_ms) >= FORWARD_MS
        });
        let corrected_ms = corrected.map_or(taken_ms, |later| stamp_ms.saturating_add_signed(later.ahead_ms));
        Some(corrected_ms).filter(|wall_ms| is_possible(*wall_ms))
    }

    /// The stamp of a wall time of this moment or of a while ago, by the wall clock as it was noted last.
    pub fn stamp_of(&self, wall_ms: u64) -> u64 {
        let ahead_ms = self.settings.last().map_or(0, |last| last.ahead_ms);
        wall_ms.saturating_add_signed(ahead_ms.saturating_neg())
    }

    /// What is known now of the end of something that waits.
    pub fn state(&self, lifetime: Lifetime, since_boot_ms: u64) -> LifetimeState {
        lifetime.state(self.at(since_boot_ms), self.off_ms(lifetime.from_ms))
    }

    /// How long the machine was off since a stamp of this clock, as the wall clock says: nobody has proven it. 0 of a stamp of this
    /// boot, and of one that is older than all that is known.
    fn off_ms(&self, stamp_ms: u64) -> u64 {
        let behind = self.settings.partition_point(|setting| setting.from_ms <= stamp_ms);
        let (past, later) = self.settings.split_at(behind);
        let (Some(then), Some(now)) = (past.last(), self.settings.last()) else { return 0 };
        let Some(next_boot) = later.iter().position(|setting| setting.is_boot) else { return 0 };
        // As it was corrected within the boot of the stamp.
        let then = later[..next_boot].last().unwrap_or(then);
        u64::try_from(now.ahead_ms.saturating_sub(then.ahead_ms)).unwrap_or(0)
    }

    /// The wall time that may delete what is kept for days: by the newest setting that lasted for an hour, and not later than the wall
    /// clock shows now. `None` before there is one.
    pub fn settled_wall_ms(&self, since_boot_ms: u64) -> Option<u64> {
        let now_ms = self.at(since_boot_ms);
        let ends = self.settings.iter().skip(1).map(|next| next.from_ms).chain([now_ms]);
        let lasting = self.settings.iter().zip(ends);
        let settled =
            lasting.filter(|(setting, end_ms)| end_ms.saturating_sub(setting.from_ms) >= SETTLED_MS);
        let settled_ms = settled.map(|(setting, _)| setting.ahead_ms).last()?;
        let shown_ms = self.settings.last()?.ahead_ms;
        Some(now_ms.saturating_add_signed(settled_ms.min(shown_ms)))
    }

    /// What to keep of it.
    pub fn saved(&self, since_boot_ms: u64) -> SavedClock {
        SavedClock {
            boot: self.boot.clone(),
            since_boot_ms,
            age_ms: self.at(since_boot_ms),
            settings: self.settings.clone(),
        }
    }
}

fn difference(one_ms: u64, other_ms: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    signed(one_ms).saturating_sub(signed(other_ms))
}

#[cfg(test)]
mod tests;
