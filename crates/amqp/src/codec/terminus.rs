//! Where the deliveries of a link come from and where they go (section 3.5).

use bytes::BytesMut;

use super::composite::composite;
use super::delivery_state::DeliveryState;
use super::descriptor;
use super::error::DecodeError;
use super::format_code as code;
use super::reader::Reader;
use super::symbol::Symbol;
use super::value::{Map, Value};
use super::value_reader;
use super::wire::Wire;

composite! {
    /// Where the deliveries of a link come from.
    Source = 0x28 "source" {
        /// Name of a node, which only the receiving program understands.
        optional address "address": String,
        /// What of it outlives the link: 0 nothing, 1 its configuration, 2 its unsettled deliveries.
        default durable "durable": u32 = 0,
        /// When it is removed.
        default expiry_policy "expiry-policy": Symbol = Symbol::from_static("session-end"),
        /// Seconds until then.
        default timeout "timeout": u32 = 0,
        /// The receiver must create a node and give its address.
        default dynamic "dynamic": bool = false,
        /// Of the node to be created.
        optional dynamic_node_properties "dynamic-node-properties": Map,
        /// `move` or `copy`.
        optional distribution_mode "distribution-mode": Symbol,
        /// Named predicates.
        optional filter "filter": Map,
        /// Outcome of deliveries that the receiver settles without one.
        optional default_outcome "default-outcome": DeliveryState,
        /// Descriptors of the outcomes that can be sent.
        many outcomes "outcomes": Symbol,
        /// Extensions.
        many capabilities "capabilities": Symbol,
    }
}

composite! {
    /// Where the deliveries of a link go.
    Target = 0x29 "target" {
        /// Name of a node, which only the receiving program understands.
        optional address "address": String,
        /// What of it outlives the link: 0 nothing, 1 its configuration, 2 its unsettled deliveries.
        default durable "durable": u32 = 0,
        /// When it is removed.
        default expiry_policy "expiry-policy": Symbol = Symbol::from_static("session-end"),
        /// Seconds until then.
        default timeout "timeout": u32 = 0,
        /// The receiver must create a node and give its address.
        default dynamic "dynamic": bool = false,
        /// Of the node to be created.
        optional dynamic_node_properties "dynamic-node-properties": Map,
        /// Extensions.
        many capabilities "capabilities": Symbol,
    }
}

/// What an attach may name as its target.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyTarget {
    /// A node, which an address names.
    Node(Target),
    /// The coordinator of transactions (section 4.5.1), or another type that only an extension knows: the link is refused, and the
    /// connection is not.
    Other {
        /// Number of the type.
        descriptor: u64,
        /// Its content.
        value: Value,
    },
}

impl Wire for AnyTarget {
    fn read(reader: &mut Reader, code: u8) -> Result<Self, DecodeError> {
        match descriptor::read_of(reader, code, "target")? {
            Target::DESCRIPTOR => Target::read_list(reader).map(Self::Node),
            descriptor => Ok(Self::Other { descriptor, value: reader.nested(value_reader::value)? }),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Node(target) => target.write(out),
            Self::Other { descriptor, value } => {
                out.extend_from_slice(&[code::DESCRIBED]);
                descriptor.write(out);
                value.write(out);
            }
        }
    }
}
