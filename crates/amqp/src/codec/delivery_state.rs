//! What became of a delivery at its receiver (section 3.4).

use bytes::BytesMut;

use super::composite::{self, composite};
use super::definitions::AmqpError;
use super::descriptor;
use super::error::DecodeError;
use super::reader::Reader;
use super::value::Map;
use super::wire::Wire;

/// State of a delivery. All but the first are final: outcomes.
#[derive(Debug, Clone, PartialEq)]
pub enum DeliveryState {
    /// So much of it arrived; for resuming a link.
    Received(Received),
    /// The receiver has taken it over.
    Accepted,
    /// The receiver will never take it.
    Rejected(Rejected),
    /// It was not processed, and may be delivered again.
    Released,
    /// As released, with notes.
    Modified(Modified),
}

composite! {
    /// How much of a delivery arrived.
    Received = 0x23 "received" {
        /// Section of the message.
        required section_number "section-number": u32,
        /// Bytes of that section.
        required section_offset "section-offset": u64,
    }
}

composite! {
    /// Why a message is not acceptable.
    Rejected = 0x25 "rejected" {
        /// What is wrong with it.
        optional error "error": AmqpError,
    }
}

composite! {
    /// What the sender should note before it delivers the message again.
    Modified = 0x27 "modified" {
        /// The delivery counts as an attempt that failed.
        default delivery_failed "delivery-failed": bool = false,
        /// This receiver must not get it again.
        default undeliverable_here "undeliverable-here": bool = false,
        /// Annotations to be merged into the message's.
        optional message_annotations "message-annotations": Map,
    }
}

const ACCEPTED: u64 = 0x24;
const RELEASED: u64 = 0x26;

impl DeliveryState {
    /// Returns true for outcomes.
    pub fn is_outcome(&self) -> bool {
        !matches!(self, Self::Received(_))
    }
}

impl Wire for DeliveryState {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        const EXPECTED: &str = "delivery state";
        Ok(match descriptor::read_of(reader, code, EXPECTED)? {
            Received::DESCRIPTOR => Self::Received(Received::read_list(reader)?),
            ACCEPTED => {
                composite::read(reader, EXPECTED, |_| Ok(()))?;
                Self::Accepted
            }
            Rejected::DESCRIPTOR => Self::Rejected(Rejected::read_list(reader)?),
            RELEASED => {
                composite::read(reader, EXPECTED, |_| Ok(()))?;
                Self::Released
            }
            Modified::DESCRIPTOR => Self::Modified(Modified::read_list(reader)?),
            // Of transactions (0x34) among others, which this server does not have.
            other => return Err(descriptor::unexpected(other, EXPECTED)),
        })
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Received(received) => received.write(out),
            Self::Accepted => composite::write(out, ACCEPTED, |_| ()),
            Self::Rejected(rejected) => rejected.write(out),
            Self::Released => composite::write(out, RELEASED, |_| ()),
            Self::Modified(modified) => modified.write(out),
        }
    }
}
