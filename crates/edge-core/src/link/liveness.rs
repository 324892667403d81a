//! Whether the other end of the link is still there: a line that drops everything reports nothing, and no error either.
//!
//! ```text
//! heard ── nothing heard for half a keep-alive ──► PINGREQ sent ── nothing for another half ──► dead
//!   ▲                                                │
//!   └────────────────── anything heard ──────────────┘
//! ```
//!
//! Time is a steady clock's, since the connection began: a jump of the wall clock changes nothing.

use std::time::Duration;

/// What one connection knows of its other end.
#[derive(Debug, Clone)]
pub struct Liveness {
    keep_alive: Duration,
    heard: Duration,
    said: Duration,
    probed: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this moment.
    Wait(Duration),
    /// Send a PINGREQ now.
    Ask,
    /// Give the connection up: nothing was heard for so long.
    Dead(Duration),
}

impl Liveness {
    /// Of a connection that begins now, with the keep-alive that was sent to the server.
    pub fn new(keep_alive: Duration) -> Self {
        Self { keep_alive, heard: Duration::ZERO, said: Duration::ZERO, probed: None }
    }

    pub fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.probed = None;
    }

    /// Something was written. The server lets a client go that says nothing for one and a half keep-alives.
    pub fn said(&mut self, now: Duration) {
        self.said = now;
    }

    /// What to do now. [`Next::Ask`] is given once for each question.
    pub fn next(&mut self, now: Duration) -> Next {
        let half = self.keep_alive / 2;
        if let Some(probed) = self.probed {
            return if now >= probed + half {
                Next::Dead(now.saturating_sub(self.heard))
            } else {
                Next::Wait(probed + half)
            };
        }
        // Who only hears must say something too.
        let due = (self.heard + half).min(self.said + self.keep_alive * 3 / 4);
        if now < due {
            return Next::Wait(due);
        }
        self.probed = Some(now);
        self.said = now;
        Next::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(30);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_silent_line_is_probed_once_and_dead_after_one_keep_alive() {
        let mut liveness = Liveness::new(KEEP_ALIVE);
        assert_eq!(liveness.next(secs(0)), Next::Wait(secs(15)));
        assert_eq!(liveness.next(secs(15)), Next::Ask);
        assert_eq!(liveness.next(secs(16)), Next::Wait(secs(30)));
        assert_eq!(liveness.next(secs(30)), Next::Dead(secs(30)));
    }

    #[test]
    fn an_answer_ends_the_doubt_and_one_who_only_hears_speaks_too() {
        let mut liveness = Liveness::new(KEEP_ALIVE);
        assert_eq!(liveness.next(secs(15)), Next::Ask);
        liveness.heard(secs(16));
        assert_eq!(liveness.next(secs(16)), Next::Wait(secs(31)));
        for now in 17..37 {
            liveness.heard(secs(now));
        }
        assert_eq!(liveness.next(secs(38)), Next::Ask, "nothing was said for 23 s");
    }

    proptest! {
        #[test]
        fn a_line_that_went_silent_is_given_up_within_one_keep_alive_and_no_other_ever(
            keep_alive in 2u64..3600,
            talk in proptest::collection::vec(1u64..900, 0..20),
        ) {
            let keep_alive = secs(keep_alive);
            let mut liveness = Liveness::new(keep_alive);
            let mut now = Duration::ZERO;
            for pause in talk {
                // Something comes before half a keep-alive is over, however often the owner looks.
                now += keep_alive.mul_f64(0.49 * pause as f64 / 900.0);
                prop_assert!(!matches!(liveness.next(now), Next::Dead(_)));
                liveness.heard(now);
            }
            let silent_since = now;
            loop {
                match liveness.next(now) {
                    Next::Wait(until) => { prop_assert!(until > now); now = until; }
                    Next::Ask => {}
                    Next::Dead(_) => break,
                }
            }
            prop_assert!(now - silent_since <= keep_alive);
        }
    }
}
