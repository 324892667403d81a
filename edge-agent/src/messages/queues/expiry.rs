//! What expired in the queues, for the log and for `edge-agent check`.

use std::collections::BTreeMap;

/// The log has at most one line in so many milliseconds.
const WARN_EVERY_MS: u64 = 60_000;

/// Counts of expired messages, as they were seen last. Times are those of [`crate::clock::steady_ms`].
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// By queue, since it was opened.
    seen: BTreeMap<String, u64>,
    last_ms: Option<u64>,
    warned_ms: Option<u64>,
    /// What no log line has reported yet, by queue.
    unreported: BTreeMap<String, u64>,
}

impl Expiry {
    /// Takes the counts as they are now; the number and the queues to warn of, when it is time for a line.
    pub(super) fn warning(
        &mut self,
        counts: impl IntoIterator<Item = (String, u64)>,
        now_ms: u64,
    ) -> Option<(u64, String)> {
        let counts: BTreeMap<String, u64> = counts.into_iter().collect();
        for (queue, count) in &counts {
            let before = self.seen.get(queue).copied().unwrap_or(0);
            // A queue that was closed and opened again counts from zero.
            let new = if *count < before { *count } else { count - before };
            if new > 0 {
                *self.unreported.entry(queue.clone()).or_default() += new;
                self.last_ms = Some(now_ms);
            }
        }
        self.seen = counts;
        let is_due = self.warned_ms.is_none_or(|warned_ms| now_ms.saturating_sub(warned_ms) >= WARN_EVERY_MS);
        if self.unreported.is_empty() || !is_due {
            return None;
        }
        self.warned_ms = Some(now_ms);
        let unreported = std::mem::take(&mut self.unreported);
        Some((unreported.values().sum(), unreported.into_keys().collect::<Vec<_>>().join(", ")))
    }

    /// When messages were found expired last.
    pub(super) fn last_ms(&self) -> Option<u64> {
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_messages_are_warned_of_once_a_minute_and_none_goes_unreported() {
        let mut expiry = Expiry::default();
        let counts = |up, input| [("upstream".to_owned(), up), ("inputs/m".to_owned(), input)];
        assert_eq!(expiry.warning(counts(0, 0), 1_000), None);
        assert_eq!(expiry.last_ms(), None);
        assert_eq!(expiry.warning(counts(3, 0), 2_000), Some((3, "upstream".to_owned())));
        assert_eq!(expiry.warning(counts(4, 1), 7_000), None, "not twice within a minute");
        assert_eq!(expiry.warning(counts(4, 1), 62_000), Some((2, "inputs/m, upstream".to_owned())));
        assert_eq!(expiry.last_ms(), Some(7_000));
        assert_eq!(expiry.warning(counts(0, 1), 130_000), None, "opened again");
        assert_eq!(expiry.warning(counts(2, 1), 140_000), Some((2, "upstream".to_owned())));
    }
}
