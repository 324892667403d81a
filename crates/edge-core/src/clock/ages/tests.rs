use proptest::prelude::*;

use super::super::BUILT_SECS;
use super::*;

const HOUR: u64 = 3_600_000;
const BUILT_MS: u64 = BUILT_SECS * 1000;
const IN_2000: u64 = 946_684_800_000;

fn boot(name: &str, since_boot_ms: u64) -> Machine {
    Machine { boot: name.to_owned(), since_boot_ms }
}

#[test]
fn what_was_taken_in_2000_has_its_time_once_the_clock_is_set_and_after_a_restart_too() {
    let mut clock = AgeClock::start(None, &boot("a", 1_000), IN_2000);
    let stamp = clock.at(1_000);
    assert_eq!(clock.wall_of(stamp, 1_000), None, "nothing is known yet");
    clock.note(BUILT_MS + 61_000, 61_000);
    assert_eq!(clock.jumps(), 1);
    assert_eq!(clock.wall_of(stamp, 61_000), Some(BUILT_MS + 1_000));
    assert_eq!(clock.wall_of(clock.at(61_000), 90_000), Some(BUILT_MS + 61_000));
    let clock = AgeClock::start(Some(clock.saved(90_000)), &boot("a", 95_000), BUILT_MS + 95_000);
    assert_eq!(clock.wall_of(stamp, 95_000), Some(BUILT_MS + 1_000));
    let clock = AgeClock::start(Some(clock.saved(99_000)), &boot("b", 10), BUILT_MS + 9 * HOUR);
    assert_eq!(clock.wall_of(stamp, 10), Some(BUILT_MS + 1_000));
    assert_eq!(clock.wall_of(stamp - HOUR, 10), None, "of a version without this clock, by a wrong one");
}

#[test]
fn what_was_taken_while_the_clock_was_ahead_has_its_time_once_it_is_set_back() {
    let mut clock = AgeClock::start(None, &boot("a", 0), BUILT_MS);
    let right = clock.at(4_000);
    clock.note(BUILT_MS + 7_200 * HOUR, 10_000);
    let ahead = clock.at(15_000);
    clock.note(BUILT_MS + 85_000, 85_000);
    assert_eq!(clock.wall_of(ahead, 90_000), Some(BUILT_MS + 15_000));
    assert_eq!(clock.wall_of(right, 90_000), Some(BUILT_MS + 4_000));
}

#[test]
fn a_pause_in_which_the_steady_clock_stopped_and_a_night_without_power_change_no_time() {
    let mut clock = AgeClock::start(None, &boot("a", 0), BUILT_MS);
    let stamp = clock.at(0);
    clock.note(BUILT_MS + HOUR / 2, 1_000);
    assert_eq!(clock.wall_of(stamp, 1_000), Some(BUILT_MS));
    let clock = AgeClock::start(Some(clock.saved(2_000)), &boot("b", 0), BUILT_MS + 12 * HOUR);
    assert_eq!(clock.wall_of(stamp, 1_000), Some(BUILT_MS));
    assert_eq!(clock.at(1_000) - stamp, 3_000, "the night counts for nothing");
}

#[test]
fn a_restart_within_a_boot_counts_and_a_steady_clock_that_went_back_is_another_boot() {
    let clock = AgeClock::start(None, &boot("a", 5_000), BUILT_MS);
    let (stamp, saved) = (clock.at(5_000), clock.saved(5_000));
    // However wrong the wall clock is.
    let again = AgeClock::start(Some(saved.clone()), &boot("a", 5_000 + HOUR), IN_2000);
    assert_eq!(again.at(5_000 + HOUR) - stamp, HOUR);
    let moved = AgeClock::start(Some(saved), &boot("a", 10), BUILT_MS + HOUR);
    assert_eq!(moved.at(10), stamp);
}

/// What may happen to a gateway.
#[derive(Debug, Clone)]
enum Step {
    Run(u64),
    SetWall(u64),
    Restart,
    Reboot { off_ms: u64, wall_ms: u64 },
    Save,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..20 * HOUR).prop_map(Step::Run),
        (0..4 * BUILT_MS).prop_map(Step::SetWall),
        Just(Step::Restart),
        (0..1_000 * HOUR, 0..4 * BUILT_MS).prop_map(|(off_ms, wall_ms)| Step::Reboot { off_ms, wall_ms }),
        Just(Step::Save),
    ]
}

proptest! {
    /// Any wall clock, restarts of the program and of the machine: between two stamps the clock tells what the machine ran, less
    /// what was not saved when the power went, and never more than the true time.
    #[test]
    fn no_age_is_more_than_the_true_one_nor_less_than_what_the_machine_ran_and_saved(
        wall_ms in 0..4 * BUILT_MS, steps in proptest::collection::vec(step(), 1..40),
    ) {
        // Of the simulated world: true time, the wall clock less it, the boot and when it began.
        let (mut now, mut ran, mut wall_ahead) = (BUILT_MS, 0u64, difference(wall_ms, BUILT_MS));
        let (mut boots, mut booted) = (0u64, BUILT_MS - 7_000);
        let machine = |boots: u64, booted: u64, now: u64| boot(&boots.to_string(), now - booted);
        let wall = |now: u64, ahead: i64| now.saturating_add_signed(ahead);
        let mut clock = AgeClock::start(None, &machine(boots, booted, now), wall_ms);
        let (mut saved, mut saved_ran, mut unsaved) = (clock.saved(now - booted), 0, 0);
        let mut stamps = vec![(clock.at(now - booted), now, ran)];
        for step in steps {
            match step {
                Step::Run(ms) => { now += ms; ran += ms; }
                Step::SetWall(ms) => wall_ahead = difference(ms, now),
                Step::Save => { saved = clock.saved(now - booted); saved_ran = ran; }
                Step::Restart => {
                    clock = AgeClock::start(Some(saved.clone()), &machine(boots, booted, now), wall(now, wall_ahead));
                }
                Step::Reboot { off_ms, wall_ms } => {
                    unsaved += ran - saved_ran;
                    now += off_ms;
                    (boots, booted, wall_ahead) = (boots + 1, now, difference(wall_ms, now));
                    clock = AgeClock::start(Some(saved.clone()), &machine(boots, booted, now), wall_ms);
                    saved = clock.saved(0);
                    saved_ran = ran;
                }
            }
            clock.note(wall(now, wall_ahead), now - booted);
            let at = clock.at(now - booted);
            for (stamp, taken, ran_then) in &stamps {
                let age = at.saturating_sub(*stamp);
                prop_assert!(age <= now - taken, "told as older than it is");
                prop_assert!(age + unsaved >= ran - ran_then, "told as younger than the machine ran");
                if let Some(dated) = clock.wall_of(*stamp, now - booted) {
                    prop_assert!(!is_before_build(dated / 1000) && dated <= wall(now, wall_ahead) + SLACK_MS);
                }
            }
            stamps.push((at, now, ran));
        }
    }
}

#[test]
fn what_waits_is_over_by_this_clock_alone_and_held_when_the_machine_may_have_been_off_too_long() {
    use LifetimeState::{Over, Unproven, Valid};
    let clock = AgeClock::start(None, &boot("a", 0), BUILT_MS);
    let hour = Lifetime::new(clock.at(0), HOUR);
    let restarted = |saved: &AgeClock, at: u64, ahead: u64| {
        AgeClock::start(Some(saved.saved(at)), &boot("a", at), BUILT_MS + at + ahead)
    };
    let rebooted = |saved: &AgeClock, at: u64, wall_ms: u64| {
        AgeClock::start(Some(saved.saved(at)), &boot("b", 0), wall_ms)
    };
    // The program starts again with its clock 400 days ahead: nothing is in doubt.
    let again = restarted(&clock, 60_000, 400 * 24 * HOUR);
    assert_eq!(again.state(hour, 60_000), Valid);
    assert_eq!(again.state(hour, HOUR - 1), Valid);
    assert_eq!(again.state(hour, HOUR), Over);
    // A night without power.
    let morning = rebooted(&clock, 60_000, BUILT_MS + 9 * HOUR);
    assert_eq!(morning.state(hour, 0), Unproven);
    assert_eq!(morning.state(hour, HOUR - 60_000), Over);
    assert_eq!(morning.state(Lifetime::new(hour.from_ms, 10 * HOUR), 0), Valid);
    assert_eq!(morning.state(Lifetime::new(morning.at(0), HOUR), 0), Valid, "it came since");
    // A minute without power, and a clock that is wrong until a time server is reached.
    let mut wrong = rebooted(&clock, 60_000, BUILT_MS + 9_600 * HOUR);
    assert_eq!(wrong.state(hour, 0), Unproven);
    wrong.note(BUILT_MS + 150_000, 30_000);
    assert_eq!(wrong.state(hour, 30_000), Valid);
    // It came while the clock was in 2000.
    let mut unset = AgeClock::start(None, &boot("a", 0), IN_2000);
    let hour = Lifetime::new(unset.at(0), HOUR);
    unset.note(BUILT_MS + 30_000, 30_000);
    assert_eq!(unset.state(hour, 30_000), Valid);
    assert_eq!(rebooted(&unset, 60_000, BUILT_MS + 120_000).state(hour, 0), Valid);
    assert_eq!(rebooted(&unset, 60_000, BUILT_MS + 2 * HOUR).state(hour, 0), Unproven);
}

#[test]
fn what_is_kept_for_days_is_deleted_by_a_clock_that_lasted_for_an_hour_and_no_other() {
    let mut clock = AgeClock::start(None, &boot("a", 0), BUILT_MS);
    assert_eq!(clock.settled_wall_ms(HOUR - 1), None);
    assert_eq!(clock.settled_wall_ms(HOUR), Some(BUILT_MS + HOUR));
    clock.note(BUILT_MS + 9_600 * HOUR, 2 * HOUR);
    assert_eq!(clock.settled_wall_ms(2 * HOUR + 60_000), Some(BUILT_MS + 2 * HOUR + 60_000));
    clock.note(IN_2000, 2 * HOUR + 60_000);
    assert_eq!(clock.settled_wall_ms(2 * HOUR + 60_000), Some(IN_2000), "not later than it shows");
    clock.note(BUILT_MS + 3 * HOUR, 3 * HOUR);
    let saved = clock.saved(3 * HOUR);
    let later = AgeClock::start(Some(saved), &boot("b", 0), BUILT_MS + 9_600 * HOUR);
    assert_eq!(later.settled_wall_ms(60_000), Some(BUILT_MS + 3 * HOUR + 60_000));
    assert_eq!(later.settled_wall_ms(HOUR), Some(BUILT_MS + 9_601 * HOUR));
}

/// Steps of a machine whose wall clock is right, and which is switched off in order.
fn orderly_step() -> impl Strategy<Value = (u64, Option<Option<u64>>)> {
    (1..20 * HOUR, proptest::option::of(proptest::option::of(0..200 * HOUR)))
}

proptest! {
    /// With a right wall clock what waits is given out before its end and not after it, over restarts and time without power.
    #[test]
    fn by_a_right_clock_nothing_is_given_out_after_its_end_and_nothing_is_held_before_it(
        length_ms in 1..2_000 * HOUR, steps in proptest::collection::vec(orderly_step(), 1..30),
    ) {
        let (mut now, mut boots, mut booted) = (BUILT_MS, 0u64, BUILT_MS - 9_000);
        let mut clock = AgeClock::start(None, &boot("0", 9_000), now);
        let lifetime = Lifetime::new(clock.at(9_000), length_ms);
        for (run_ms, start) in steps {
            now += run_ms;
            clock.note(now, now - booted);
            if let Some(off_ms) = start {
                let saved = clock.saved(now - booted);
                if let Some(off_ms) = off_ms {
                    now += off_ms;
                    (boots, booted) = (boots + 1, now);
                }
                clock = AgeClock::start(Some(saved), &boot(&boots.to_string(), now - booted), now);
            }
            let state = clock.state(lifetime, now - booted);
            let is_over = now - BUILT_MS >= length_ms;
            prop_assert_eq!(state != LifetimeState::Valid, is_over, "{:?}", state);
        }
    }
}
