//! A will: what a client leaves to be said when it is gone, with its share of what all wills may take.

use std::sync::Arc;

use crate::message::Message;
use crate::quota::{QuotaExceeded, Resource, Usage, Used};

/// What a will holds in memory beside its message, about: its client id and its places in the tables of sessions and of
/// the journal.
const OVERHEAD_BYTES: usize = 512;

/// The will of a client, here or gone, until it is published or void.
#[derive(Debug)]
pub(crate) struct Will {
    pub message: Arc<Message>,
    pub delay_s: u32,
    share: Share,
}

/// What a will takes of its identity's and of all wills, given back with it.
#[derive(Debug)]
struct Share {
    bytes: Used,
    _others: [Used; 3],
}

impl Will {
    /// A will in place of the one that its client has.
    ///
    /// # Errors
    /// [`WillRefused`] when it is beyond what its identity or all identities may leave.
    pub(super) fn accepted(
        message: Message,
        delay_s: u32,
        before: Option<&Self>,
        own: &Arc<Usage>,
        all: &Arc<Usage>,
    ) -> Result<Self, WillRefused> {
        let (wills, before_bytes) = before.map_or((0, 0), |will| (1, will.share.bytes.amount()));
        let bytes = size(&message);
        let full = |_| WillRefused::Full;
        let share = Share {
            bytes: own.hold_in_place_of(Resource::WillBytes, before_bytes, bytes)?,
            _others: [
                own.hold_in_place_of(Resource::Wills, wills, 1)?,
                all.hold_in_place_of(Resource::WillBytes, before_bytes, bytes).map_err(full)?,
                all.hold_in_place_of(Resource::Wills, wills, 1).map_err(full)?,
            ],
        };
        Ok(Self { message: Arc::new(message), delay_s, share })
    }

    /// A will as the journal has it. It stays, also when there is less space for wills than before.
    pub(super) fn restored(message: Arc<Message>, delay_s: u32, own: &Arc<Usage>, all: &Arc<Usage>) -> Self {
        let bytes = size(&message);
        let share = Share {
            bytes: own.hold_again(Resource::WillBytes, bytes),
            _others: [
                own.hold_again(Resource::Wills, 1),
                all.hold_again(Resource::WillBytes, bytes),
                all.hold_again(Resource::Wills, 1),
            ],
        };
        Self { message, delay_s, share }
    }
}

/// A will that is to be published now.
#[derive(Debug)]
pub(crate) struct DueWill {
    pub client_id: Box<str>,
    pub will: Arc<Will>,
}

/// Why a will is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WillRefused {
    /// All identities together have as much as there may be.
    #[error("there are too many wills")]
    Full,
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

/// What a will counts.
pub(super) fn size(message: &Message) -> u64 {
    (OVERHEAD_BYTES + message.size()) as u64
}
