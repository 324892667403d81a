//! How many messages may be in flight on a line, by its round trip and by what it carries.
//!
//! The window is what the line holds (bandwidth times round trip) and a spare beside it: as much as the line holds again, or
//! [`SPARE`] of its bandwidth, whichever is more. A long line is full then, a server that commits in groups has a group to
//! commit, and an alarm that overtakes a backlog waits behind a round trip's worth of it and never behind megabytes.
//!
//! - Bandwidth: the most that was acknowledged in one of the last [`ROUNDS`] rounds, in messages per second. A round lasts
//!   until a message that was sent in it is acknowledged. Rounds in which the queue was empty show less than the line can do
//!   and count only when they show more. When messages take much longer than the round trip, what was before the last round
//!   is forgotten.
//! - Round trip: the shortest that was seen. When that was [`PROBE_EVERY`] ago, the window falls to a quarter of what the
//!   line holds for one round, so that nothing queues and the round trip of today shows. BBR (Cardwell et al., 2016) does the same.
//!
//! A window that is too small doubles each round: what it lets through in a round trip fills it, and twice of that is the next.
//! Time is a steady clock's.

use std::collections::VecDeque;
use std::time::Duration;

/// At the start: on a line of 100 ms it lets 10,000 messages a second through.
pub const START: usize = 1000;
/// Never fewer: with one in flight nothing would be measured but the round trip.
pub const LEAST: usize = 4;
/// Never more: MQTT has 65,535 packet identifiers, and other things need some.
pub const MOST: usize = 60_000;
/// What may queue on a short line. As long as a person takes to notice; many commits of a server that syncs.
pub const SPARE: Duration = Duration::from_millis(100);
/// Rounds whose best counts.
pub const ROUNDS: usize = 8;
/// How long a shortest round trip is believed.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);
/// A round is not shorter: acknowledgements come in bursts, and a rate out of one burst would be any.
const ROUND_MIN: Duration = Duration::from_millis(20);
/// A round is not longer, or than four round trips when that is more.
const ROUND_MAX: Duration = Duration::from_millis(250);

/// The pace of one connection.
#[derive(Debug, Clone)]
pub struct Pace {
    window: usize,
    sent: u64,
    acknowledged: u64,
    round: Round,
    /// Messages per second of the last rounds.
    rates: VecDeque<f64>,
    /// The shortest round trip, and when it was seen.
    shortest: Option<(Duration, Duration)>,
}

#[derive(Debug, Clone, Default)]
struct Round {
    began: Duration,
    /// Messages sent, and acknowledged, before it.
    sent: u64,
    acknowledged: u64,
    /// The window was full: the line was asked for all it has.
    was_full: bool,
    is_probe: bool,
    shortest: Option<Duration>,
}

/// What a message that was sent is known by when it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    at: Duration,
}

impl Ticket {
    /// How long ago the message was sent.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at)
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window: START,
            sent: 0,
            acknowledged: 0,
            round: Round::default(),
            rates: VecDeque::with_capacity(ROUNDS),
            shortest: None,
        }
    }
}

impl Pace {
    /// How many may be in flight.
    pub fn window(&self) -> usize {
        self.window
    }

    pub fn in_flight(&self) -> usize {
        usize::try_from(self.sent - self.acknowledged).unwrap_or(usize::MAX)
    }

    /// How many more may be sent now.
    pub fn free(&self) -> usize {
        self.window.saturating_sub(self.in_flight())
    }

    /// A message is sent now.
    pub fn sent(&mut self, now: Duration) -> Ticket {
        self.sent += 1;
        self.round.was_full |= self.free() == 0;
        Ticket { number: self.sent, at: now }
    }

    /// A message is acknowledged now.
    pub fn acknowledged(&mut self, ticket: Ticket, now: Duration) {
        self.acknowledged += 1;
        let is_of_round = ticket.number > self.round.sent;
        // During a probe only its own messages count: those before it may have queued on the line.
        if is_of_round || !self.round.is_probe {
            let took = now.saturating_sub(ticket.at);
            self.round.shortest = Some(self.round.shortest.map_or(took, |shortest| shortest.min(took)));
        }
        let lasted = now.saturating_sub(self.round.began);
        // What queues on a line that has become narrow takes long, and would make the round as long. A probe ends with what it
        // is for: the round trip of a message that nothing stood before.
        let is_late = self.shortest.is_some_and(|(shortest, _)| lasted >= (shortest * 4).max(ROUND_MAX));
        if (is_of_round && lasted >= ROUND_MIN) || (is_late && !self.round.is_probe) {
            self.end_round(now, lasted, is_late);
        }
    }

    fn end_round(&mut self, now: Duration, lasted: Duration, is_late: bool) {
        let round = std::mem::take(&mut self.round);
        if is_late {
            // The line may have become another: of what it once carried, only the last round still counts, and nothing when a
            // probe says so.
            let kept = usize::from(!round.is_probe);
            self.rates.drain(..self.rates.len().saturating_sub(kept));
        }
        let rate = (self.acknowledged - round.acknowledged) as f64 / lasted.as_secs_f64();
        if (round.was_full && !round.is_probe) || rate > self.rate() {
            if self.rates.len() == ROUNDS {
                self.rates.pop_front();
            }
            self.rates.push_back(rate);
        }
        if let Some(seen) = round.shortest {
            let is_shortest = self.shortest.is_none_or(|(shortest, _)| seen <= shortest);
            if is_shortest || round.is_probe {
                self.shortest = Some((seen, now));
            }
        }
        let Some((shortest, seen_at)) = self.shortest else { return };
        // Not while more is in flight than should be: a probe would wait behind it, and show that.
        let is_drained = self.in_flight() <= self.window;
        let is_probe = round.was_full && is_drained && now.saturating_sub(seen_at) >= PROBE_EVERY;
        let holds = self.rate() * shortest.as_secs_f64();
        let needed =
            if is_probe { holds / 4.0 } else { holds + f64::max(holds, self.rate() * SPARE.as_secs_f64()) };
        // A float becomes the nearest integer that there is.
        let needed = (needed.ceil() as usize).min(self.window.saturating_mul(2));
        self.window = needed.clamp(LEAST, MOST);
        self.round = Round {
            began: now,
            sent: self.sent,
            acknowledged: self.acknowledged,
            was_full: self.free() == 0,
            is_probe,
            shortest: None,
        };
    }

    /// Messages per second that the line carries, as far as it is known; 0 before the first round ends.
    pub fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// The shortest round trip that is believed; `None` before the first round ends.
    pub fn round_trip(&self) -> Option<Duration> {
        self.shortest.map(|(shortest, _)| shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line that carries one message after the other, each in the same time, and then takes the round trip.
    struct SimulatedLine {
        rate: f64,
        round_trip: Duration,
    }

    /// One connection on lines that change, sending as much as it may.
    #[derive(Default)]
    struct SimulatedConnection {
        now: Duration,
        pace: Pace,
        /// Acknowledgements on their way.
        coming: VecDeque<(Duration, Ticket)>,
        /// When the last message has left the line's near end.
        left: Duration,
    }

    impl SimulatedConnection {
        /// Runs for a while; gives messages per second, and the middle of the delays beyond the round trip, of its second half.
        fn run(&mut self, line: &SimulatedLine, length: Duration) -> (f64, Duration) {
            let (until, half) = (self.now + length, self.now + length / 2);
            let (mut count, mut delays) = (0_u64, Vec::new());
            while self.now < until {
                for _ in 0..self.pace.free() {
                    let ticket = self.pace.sent(self.now);
                    self.left = self.left.max(self.now) + Duration::from_secs_f64(1.0 / line.rate);
                    let back = (self.left + line.round_trip)
                        .max(self.coming.back().map_or(Duration::ZERO, |(at, _)| *at));
                    self.coming.push_back((back, ticket));
                }
                let (at, ticket) = self.coming.pop_front().expect("something is in flight");
                self.now = self.now.max(at);
                self.pace.acknowledged(ticket, self.now);
                if self.now >= half {
                    count += 1;
                    delays.push(self.now.saturating_sub(ticket.at).saturating_sub(line.round_trip));
                }
            }
            delays.sort();
            (count as f64 / (self.now - half).as_secs_f64(), delays[delays.len() / 2])
        }
    }

    fn holds(site: &mut SimulatedConnection, line: &SimulatedLine) -> Result<(), TestCaseError> {
        // What a window between the least and the most can carry at all.
        let most = MOST as f64 / (line.round_trip.as_secs_f64() + 1.0 / line.rate);
        // What another line let in has to go out first.
        let drain = Duration::from_secs_f64(site.pace.in_flight() as f64 / line.rate);
        let (rate, delay) = site.run(line, Duration::from_secs(90) + drain * 4);
        let possible = line.rate.min(most);
        prop_assert!(
            rate >= 0.8 * possible,
            "{rate} of {possible} messages/s, window {}",
            site.pace.window()
        );
        let spare = SPARE.max(line.round_trip);
        let least = Duration::from_secs_f64(LEAST as f64 / line.rate);
        prop_assert!(delay <= spare.mul_f64(1.5) + least, "{delay:?} in the queue, spare {spare:?}");
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn a_line_is_kept_full_and_little_queues_on_it_also_when_it_becomes_another(
            rates in (50.0_f64..4000.0, 50.0_f64..4000.0),
            round_trips_ms in (1u64..800, 1u64..800),
        ) {
            let mut site = SimulatedConnection::default();
            for (rate, ms) in [(rates.0, round_trips_ms.0), (rates.1, round_trips_ms.1)] {
                holds(&mut site, &SimulatedLine { rate, round_trip: Duration::from_millis(ms) })?;
            }
        }

        #[test]
        fn whatever_comes_the_window_stays_within_its_bounds(
            steps in proptest::collection::vec((0usize..3000, 0usize..3000, 0u64..20_000_000), 1..60),
        ) {
            let (mut pace, mut now, mut out) = (Pace::default(), Duration::ZERO, VecDeque::new());
            for (sends, acknowledgements, micros) in steps {
                for _ in 0..sends.min(pace.free()) {
                    out.push_back(pace.sent(now));
                }
                now += Duration::from_micros(micros);
                for _ in 0..acknowledgements {
                    let Some(ticket) = out.pop_front() else { break };
                    pace.acknowledged(ticket, now);
                }
                prop_assert!((LEAST..=MOST).contains(&pace.window()), "{}", pace.window());
                prop_assert_eq!(pace.in_flight(), out.len());
            }
        }
    }

    #[test]
    fn a_line_of_600_ms_is_full_after_seconds_where_a_fixed_window_of_1000_lets_1667_a_second_through() {
        let line = SimulatedLine { rate: 20_000.0, round_trip: Duration::from_millis(600) };
        let mut site = SimulatedConnection::default();
        let (rate, _) = site.run(&line, Duration::from_secs(20));
        assert!(rate > 18_000.0, "{rate}");
        assert!((12_000..=30_000).contains(&site.pace.window()), "{}", site.pace.window());
    }

    #[test]
    fn a_line_that_becomes_narrow_and_short_at_once_does_not_leave_the_pace_probing_for_ever() {
        let mut site = SimulatedConnection::default();
        for (rate, ms) in [(2948.0, 186), (50.0, 1)] {
            holds(&mut site, &SimulatedLine { rate, round_trip: Duration::from_millis(ms) }).unwrap();
        }
    }

    #[test]
    fn an_idle_link_keeps_the_window_that_it_had() {
        let line = SimulatedLine { rate: 5000.0, round_trip: Duration::from_millis(200) };
        let mut site = SimulatedConnection::default();
        site.run(&line, Duration::from_secs(20));
        let before = site.pace.window();
        while let Some((at, ticket)) = site.coming.pop_front() {
            site.now = site.now.max(at);
            site.pace.acknowledged(ticket, site.now);
        }
        let after = site.pace.window();
        assert!(after * 2 >= before, "{before} then {after}");
        for _ in 0..100 {
            let ticket = site.pace.sent(site.now);
            site.now += Duration::from_secs(1);
            site.pace.acknowledged(ticket, site.now);
        }
        assert!(site.pace.window() >= after, "{after} then {}", site.pace.window());
    }
}
