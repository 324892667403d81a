//! Credit of a link on which the client sends: it comes back by what is answered, not by what has arrived.

/// How many deliveries the client may send before one of them is answered.
#[derive(Debug)]
pub(super) struct Window {
    max: u32,
    unanswered: u32,
    /// Answered since the client was granted credit.
    answered: u32,
}

impl Window {
    pub(super) fn new(max: u32) -> Self {
        Self { max, unanswered: 0, answered: 0 }
    }

    /// The credit of a new link.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    pub(super) fn arrived(&mut self) {
        self.unanswered += 1;
    }

    /// Gives the credit that the client is granted now: when half of the window was answered, for a frame each time would cost more
    /// than it is worth.
    pub(super) fn answered(&mut self) -> Option<u32> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.answered += 1;
        if self.answered < self.max.div_ceil(2) {
            return None;
        }
        self.answered = 0;
        Some(self.max.saturating_sub(self.unanswered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_never_granted_more_than_is_unanswered_and_never_left_without_credit() {
        for max in [1, 2, 3, 32, 200] {
            let mut window = Window::new(max);
            let (mut credit, mut unanswered) = (window.max(), 0);
            for step in 0..5 * max {
                // It uses its credit up, at another pace each time.
                for _ in 0..credit.min(step % 7 + 1) {
                    window.arrived();
                    (credit, unanswered) = (credit - 1, unanswered + 1);
                }
                while unanswered > step % 3 || (credit == 0 && unanswered > 0) {
                    unanswered -= 1;
                    if let Some(granted) = window.answered() {
                        credit = granted;
                    }
                    assert!(credit + unanswered <= max, "window {max}: {credit} and {unanswered}");
                }
                assert!(credit > 0, "window {max}");
            }
        }
    }
}
