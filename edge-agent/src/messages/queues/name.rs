//! How a queue is named to whoever gets its messages: by the id of its log and the epoch of the sequences.

use std::fmt;

use edge_buffer::Epoch;
use uuid::Uuid;

/// With a sequence it names one message for ever. `{id}.{epoch}`, or `{id}` for what was stored before there were epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueName {
    /// Made with the queue's log.
    pub id: Uuid,
    /// New at each open of the log.
    pub epoch: Epoch,
}

impl QueueName {
    /// Whether a name, as displayed, is of this log, in whichever epoch.
    pub fn is_of(name: &str, log: Uuid) -> bool {
        name.split('.').next().and_then(|id| id.parse::<Uuid>().ok()) == Some(log)
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            Epoch::NONE => write!(f, "{}", self.id),
            epoch => write!(f, "{}.{epoch}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_before_there_were_epochs_keeps_its_name() {
        let id = Uuid::from_u128(0x42);
        let name = |epoch| QueueName { id, epoch }.to_string();
        assert_eq!(name(Epoch::NONE), "00000000-0000-0000-0000-000000000042");
        assert_eq!(name(Epoch::from_number(0xab)), "00000000-0000-0000-0000-000000000042.00000000000000ab");
    }
}
