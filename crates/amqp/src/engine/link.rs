//! One link of a session: its credit, and the delivery that is on its way.

use bytes::{Bytes, BytesMut};

use super::event::{LinkId, NotSent};
use super::serial;
use crate::codec::definitions::Role;
use crate::codec::performative::{Flow, Transfer};

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) name: String,
    pub(super) state: State,
    pub(super) end: End,
}

/// ```text
/// Attaching ── accept ──► Attached ── detach ──► Detaching ── the client's detach ──► (gone)
///      └────── refuse ──────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The application has not answered yet.
    Attaching,
    Attached,
    /// We have detached: what comes for the link is ignored until the client does, too.
    Detaching,
}

/// Our end.
#[derive(Debug)]
pub(super) enum End {
    Receiver(Receiver),
    Sender(Sender),
}

impl Link {
    /// Of our end.
    pub(super) fn role(&self) -> Role {
        match self.end {
            End::Receiver(_) => Role::Receiver,
            End::Sender(_) => Role::Sender,
        }
    }
}

/// The client sends.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    pub(super) delivery_count: u32,
    pub(super) credit: u32,
    /// Zero for no limit.
    pub(super) message_bytes_max: u64,
    partial: Option<Partial>,
}

/// A delivery of several transfers.
#[derive(Debug)]
struct Partial {
    number: u32,
    tag: Bytes,
    message_format: u32,
    is_settled: bool,
    payload: BytesMut,
}

/// A delivery that is whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) number: u32,
    pub(super) tag: Bytes,
    pub(super) message_format: u32,
    pub(super) is_settled: bool,
    pub(super) payload: Bytes,
}

/// Why a transfer is not taken: the link ends for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Credit,
    TooLarge,
    Field(&'static str),
    Resume,
}

impl Receiver {
    pub(super) fn new(initial_delivery_count: u32) -> Self {
        Self { delivery_count: initial_delivery_count, ..Self::default() }
    }

    /// Bytes of the delivery that is not whole yet.
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.payload.len())
    }

    /// Gives up the delivery that is not whole yet, and returns its bytes.
    pub(super) fn drop_partial(&mut self) -> usize {
        self.partial.take().map_or(0, |partial| partial.payload.len())
    }

    /// The sender has used up credit without messages.
    pub(super) fn advance(&mut self, delivery_count: u32) {
        let skipped = serial::distance(self.delivery_count, delivery_count);
        self.delivery_count = self.delivery_count.wrapping_add(skipped);
        self.credit = self.credit.saturating_sub(skipped);
    }

    /// Returns true if a delivery begins with the next transfer.
    pub(super) fn is_between_deliveries(&self) -> bool {
        self.partial.is_none()
    }

    /// Takes a transfer. `None` if more of its delivery follows, or the delivery was given up.
    pub(super) fn transfer(&mut self, transfer: Transfer, payload: Bytes) -> Result<Option<Whole>, Refused> {
        if transfer.resume {
            return Err(Refused::Resume);
        }
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => self.begin(&transfer)?,
        };
        if transfer.delivery_id.is_some_and(|number| number != partial.number) {
            return Err(Refused::Field("a delivery begins before the one before it ended"));
        }
        if transfer.aborted {
            return Ok(None);
        }
        partial.is_settled |= transfer.settled.unwrap_or(false);
        let bytes = (partial.payload.len() + payload.len()) as u64;
        if self.message_bytes_max > 0 && bytes > self.message_bytes_max {
            return Err(Refused::TooLarge);
        }
        if transfer.more {
            partial.payload.extend_from_slice(&payload);
            self.partial = Some(partial);
            return Ok(None);
        }
        let Partial { number, tag, message_format, is_settled, payload: mut before } = partial;
        // A delivery of one transfer, as nearly all are, is not copied.
        let payload = if before.is_empty() {
            payload
        } else {
            before.extend_from_slice(&payload);
            before.freeze()
        };
        Ok(Some(Whole { number, tag, message_format, is_settled, payload }))
    }

    fn begin(&mut self, transfer: &Transfer) -> Result<Partial, Refused> {
        /// Section 2.8.7.
        const TAG_BYTES_MAX: usize = 32;
        let Some(number) = transfer.delivery_id else {
            return Err(Refused::Field("the first transfer of a delivery has no delivery-id"));
        };
        let Some(tag) = transfer.delivery_tag.clone().filter(|tag| tag.len() <= TAG_BYTES_MAX) else {
            return Err(Refused::Field(
                "the first transfer of a delivery has no delivery-tag of at most 32 bytes",
            ));
        };
        self.credit = self.credit.checked_sub(1).ok_or(Refused::Credit)?;
        self.delivery_count = self.delivery_count.wrapping_add(1);
        let message_format = transfer.message_format.unwrap_or(0);
        Ok(Partial { number, tag, message_format, is_settled: false, payload: BytesMut::new() })
    }
}

/// The client receives.
#[derive(Debug, Default)]
pub(super) struct Sender {
    pub(super) delivery_count: u32,
    pub(super) credit: u32,
    pub(super) is_drain: bool,
    /// Zero for no limit.
    message_bytes_max: u64,
}

impl Sender {
    pub(super) fn new(message_bytes_max: u64) -> Self {
        Self { message_bytes_max, ..Self::default() }
    }

    /// The client's credit counts from the deliveries that it knew of.
    pub(super) fn flow(&mut self, flow: &Flow) {
        let known = flow.delivery_count.unwrap_or(0);
        if let Some(credit) = flow.link_credit {
            self.credit = serial::distance(self.delivery_count, known.wrapping_add(credit));
        }
        self.is_drain = flow.drain;
    }

    /// Counts a delivery that is sent.
    pub(super) fn take_credit(&mut self, bytes: usize) -> Result<(), NotSent> {
        if self.message_bytes_max > 0 && bytes as u64 > self.message_bytes_max {
            return Err(NotSent::TooLarge(self.message_bytes_max));
        }
        self.credit = self.credit.checked_sub(1).ok_or(NotSent::NoCredit)?;
        self.delivery_count = self.delivery_count.wrapping_add(1);
        Ok(())
    }

    /// Uses up all credit without messages.
    pub(super) fn drain(&mut self) {
        self.delivery_count = self.delivery_count.wrapping_add(self.credit);
        self.credit = 0;
        self.is_drain = false;
    }
}
