//! How much of the messages is read at once for the tables that are derived from them (last values and series).
//!
//! What one sender packs into its messages is bounded three times: names of a message, names of a sender and its modules (see
//! [`super::last_values`] and [`super::series`]), and what is read before it is written. What is written goes to the writer in parts,
//! so that all other works wait for one part at most.

/// Names of one message that are looked at, the first ones.
pub(super) const MESSAGE_NAMES_MAX: usize = 1000;
/// Bytes of bodies that are read at once.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How much is read at once, one message at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailBounds {
    pub(super) messages: u32,
    /// Values of them.
    pub(super) values: usize,
}

impl TailBounds {
    /// What the writer itself reads and writes in one work, because messages are about to be deleted.
    pub(super) const OF_WRITER: Self = Self { messages: 500, values: 2000 };
}

/// What was read.
pub(super) struct TailRead {
    bounds: TailBounds,
    values: usize,
    bytes: usize,
}

impl TailRead {
    pub(super) fn within(bounds: TailBounds) -> Self {
        Self { bounds, values: 0, bytes: 0 }
    }

    /// Counts a message; true when no more shall be read.
    pub(super) fn is_full(&mut self, values: usize, bytes: usize) -> bool {
        self.values += values;
        self.bytes += bytes;
        self.values >= self.bounds.values || self.bytes >= BODY_BYTES_MAX
    }
}
