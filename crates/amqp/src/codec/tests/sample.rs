//! Values of every type, made of bytes that proptest chooses and shrinks. Zero bytes, and no bytes, make the simplest values.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::codec::definitions::{AmqpError, MessageId, ReceiverSettleMode, Role, SenderSettleMode};
use crate::codec::delivery_state::{DeliveryState, Modified, Received, Rejected};
use crate::codec::message::{Body, Header, Message, Properties};
use crate::codec::performative::{
    Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, Transfer,
};
use crate::codec::sasl::{Challenge, Code, Init, Mechanisms, Outcome, Response, SaslFrame, SecretBytes};
use crate::codec::symbol::Symbol;
use crate::codec::terminus::{AnyTarget, Source as LinkSource, Target};
use crate::codec::value::{Array, Described, Map, Timestamp, Value};

/// Levels of values, below the limits of reading together with what encloses them.
const DEPTH_MAX: u8 = 8;

/// Bytes that choose.
#[derive(Debug, Clone)]
pub(super) struct Choices {
    bytes: Vec<u8>,
    depth: u8,
}

pub(super) fn choices() -> impl Strategy<Value = Choices> {
    vec(any::<u8>(), 0..1200).prop_map(|bytes| Choices { bytes, depth: 0 })
}

impl Choices {
    fn byte(&mut self) -> u8 {
        self.bytes.pop().unwrap_or(0)
    }

    /// One of `count`.
    fn of(&mut self, count: u8) -> u8 {
        self.byte() % count
    }

    /// Up to `max`, mostly few.
    fn several<T>(&mut self, max: u8, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = if self.byte() < 16 { self.of(max) } else { self.of(4) };
        (0..count).map(|_| one(self)).collect()
    }
}

pub(super) trait Sample {
    fn sample(choices: &mut Choices) -> Self;
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Sample for $type {
            fn sample(choices: &mut Choices) -> Self {
                let mut bytes = [0; size_of::<$type>()];
                // Small and negative numbers have encodings of their own.
                match choices.of(4) {
                    0 => {}
                    1 => bytes[size_of::<$type>() - 1] = choices.byte(),
                    2 => {
                        bytes.fill(0xff);
                        bytes[size_of::<$type>() - 1] = choices.byte();
                    }
                    _ => bytes.fill_with(|| choices.byte()),
                }
                Self::from_be_bytes(bytes)
            }
        }
    )* };
}
numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Sample for bool {
    fn sample(choices: &mut Choices) -> Self {
        choices.of(2) == 1
    }
}

impl Sample for String {
    fn sample(choices: &mut Choices) -> Self {
        let letters = ['a', 'Z', '0', ' ', 'é', '\0', '語', '🦀'];
        // Above 255 bytes now and then: the wide encoding.
        choices.several(255, |choices| letters[usize::from(choices.of(8))]).into_iter().collect()
    }
}

impl Sample for Symbol {
    fn sample(choices: &mut Choices) -> Self {
        let text = choices.several(255, |choices| char::from(choices.of(128))).into_iter().collect();
        Self::new(text).expect("ASCII")
    }
}

impl Sample for Bytes {
    fn sample(choices: &mut Choices) -> Self {
        let times = if choices.byte() < 16 { 300 } else { 1 };
        choices.several(255, Choices::byte).repeat(times).into()
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(choices: &mut Choices) -> Self {
        bool::sample(choices).then(|| T::sample(choices))
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(choices: &mut Choices) -> Self {
        Self::new(T::sample(choices))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(choices: &mut Choices) -> Self {
        choices.several(255, T::sample)
    }
}

impl Sample for Timestamp {
    fn sample(choices: &mut Choices) -> Self {
        Self(i64::sample(choices))
    }
}

impl Sample for SecretBytes {
    fn sample(choices: &mut Choices) -> Self {
        Self(Bytes::sample(choices))
    }
}

impl Sample for Map {
    fn sample(choices: &mut Choices) -> Self {
        Self(choices.several(200, |choices| (Value::sample(choices), Value::sample(choices))))
    }
}

impl Sample for Value {
    fn sample(choices: &mut Choices) -> Self {
        if choices.depth >= DEPTH_MAX {
            return scalar(choices);
        }
        choices.depth += 1;
        let value = match choices.of(8) {
            0 => Self::List(Vec::sample(choices)),
            1 => Self::Map(Map::sample(choices)),
            2 => Self::Array(Array::sample(choices)),
            3 => Self::Described(Box::new(Described {
                descriptor: Self::sample(choices),
                value: Self::sample(choices),
            })),
            _ => scalar(choices),
        };
        choices.depth -= 1;
        value
    }
}

fn scalar(choices: &mut Choices) -> Value {
    match choices.of(20) {
        0 => Value::Null,
        1 => Value::Boolean(bool::sample(choices)),
        2 => Value::Ubyte(u8::sample(choices)),
        3 => Value::Ushort(u16::sample(choices)),
        4 => Value::Uint(u32::sample(choices)),
        5 => Value::Ulong(u64::sample(choices)),
        6 => Value::Byte(i8::sample(choices)),
        7 => Value::Short(i16::sample(choices)),
        8 => Value::Int(i32::sample(choices)),
        9 => Value::Long(i64::sample(choices)),
        // Not any bits: what is no number is not equal to itself.
        10 => Value::Float(f32::from(i16::sample(choices)) / 7.0),
        11 => Value::Double(f64::from(i32::sample(choices)) / 7.0),
        12 => Value::Decimal32(u32::sample(choices).to_be_bytes()),
        13 => Value::Decimal64(u64::sample(choices).to_be_bytes()),
        14 => Value::Decimal128([choices.byte(); 16]),
        15 => Value::Char(['a', 'é', '🦀'][usize::from(choices.of(3))]),
        16 => Value::Timestamp(Timestamp::sample(choices)),
        17 => Value::Uuid([choices.byte(); 16]),
        18 => Value::Binary(Bytes::sample(choices)),
        _ if bool::sample(choices) => Value::String(String::sample(choices)),
        _ => Value::Symbol(Symbol::sample(choices)),
    }
}

impl Sample for Array {
    fn sample(choices: &mut Choices) -> Self {
        let descriptor = Option::<Box<Value>>::sample(choices);
        let first = match Value::sample(choices) {
            // Its elements would need one descriptor.
            Value::Described(_) => Value::Null,
            first => first,
        };
        let code = first.wide_format_code();
        let mut elements: Vec<Value> = Vec::sample(choices);
        elements.retain(|element| element.wide_format_code() == code);
        if bool::sample(choices) {
            elements.extend(std::iter::repeat_n(first, 3));
        }
        Self::new(descriptor, code, elements)
    }
}

impl Sample for MessageId {
    fn sample(choices: &mut Choices) -> Self {
        match choices.of(4) {
            0 => Self::Ulong(u64::sample(choices)),
            1 => Self::Uuid([choices.byte(); 16]),
            2 => Self::Binary(Bytes::sample(choices)),
            _ => Self::String(String::sample(choices)),
        }
    }
}

impl Sample for DeliveryState {
    fn sample(choices: &mut Choices) -> Self {
        match choices.of(5) {
            0 => Self::Accepted,
            1 => Self::Rejected(Rejected::sample(choices)),
            2 => Self::Released,
            3 => Self::Modified(Modified::sample(choices)),
            _ => Self::Received(Received::sample(choices)),
        }
    }
}

impl Sample for AnyTarget {
    fn sample(choices: &mut Choices) -> Self {
        match choices.of(4) {
            0 => Self::Other { descriptor: 0x30, value: Value::sample(choices) },
            _ => Self::Node(Target::sample(choices)),
        }
    }
}

impl Sample for Body {
    fn sample(choices: &mut Choices) -> Self {
        // A body of sections has one at least.
        let sections = 1 + choices.of(3);
        match choices.of(4) {
            0 => Self::Absent,
            1 => Self::Data((0..sections).map(|_| Bytes::sample(choices)).collect()),
            2 => Self::Sequence((0..sections).map(|_| Vec::sample(choices)).collect()),
            _ => Self::Value(Value::sample(choices)),
        }
    }
}

macro_rules! one_of {
    ($($type:ident { $($variant:ident),* })*) => { $(
        impl Sample for $type {
            fn sample(choices: &mut Choices) -> Self {
                let all = [$(Self::$variant),*];
                all[usize::from(choices.byte()) % all.len()]
            }
        }
    )* };
}
one_of! {
    Role { Sender, Receiver }
    SenderSettleMode { Unsettled, Settled, Mixed }
    ReceiverSettleMode { First, Second }
    Code { Ok, Auth, System, SystemPermanent, SystemTemporary }
}

macro_rules! structs {
    ($($type:ident { $($field:ident),* })*) => { $(
        impl Sample for $type {
            fn sample(choices: &mut Choices) -> Self {
                Self { $($field: Sample::sample(choices)),* }
            }
        }
    )* };
}
structs! {
    Open {
        container_id, hostname, max_frame_size, channel_max, idle_time_out, outgoing_locales, incoming_locales,
        offered_capabilities, desired_capabilities, properties
    }
    Begin {
        remote_channel, next_outgoing_id, incoming_window, outgoing_window, handle_max, offered_capabilities,
        desired_capabilities, properties
    }
    Attach {
        name, handle, role, snd_settle_mode, rcv_settle_mode, source, target, unsettled, incomplete_unsettled,
        initial_delivery_count, max_message_size, offered_capabilities, desired_capabilities, properties
    }
    Flow {
        next_incoming_id, incoming_window, next_outgoing_id, outgoing_window, handle, delivery_count, link_credit,
        available, drain, echo, properties
    }
    Transfer {
        handle, delivery_id, delivery_tag, message_format, settled, more, rcv_settle_mode, state, resume, aborted,
        batchable
    }
    Disposition { role, first, last, settled, state, batchable }
    Detach { handle, closed, error }
    End { error }
    Close { error }
    AmqpError { condition, description, info }
    LinkSource {
        address, durable, expiry_policy, timeout, dynamic, dynamic_node_properties, distribution_mode, filter,
        default_outcome, outcomes, capabilities
    }
    Target { address, durable, expiry_policy, timeout, dynamic, dynamic_node_properties, capabilities }
    Received { section_number, section_offset }
    Rejected { error }
    Modified { delivery_failed, undeliverable_here, message_annotations }
    Header { durable, priority, ttl, first_acquirer, delivery_count }
    Properties {
        message_id, user_id, to, subject, reply_to, correlation_id, content_type, content_encoding,
        absolute_expiry_time, creation_time, group_id, group_sequence, reply_to_group_id
    }
    Message {
        header, delivery_annotations, message_annotations, properties, application_properties, body, footer
    }
    Mechanisms { sasl_server_mechanisms }
    Init { mechanism, initial_response, hostname }
    Challenge { challenge }
    Response { response }
    Outcome { code, additional_data }
}

impl Sample for Performative {
    fn sample(choices: &mut Choices) -> Self {
        match choices.of(9) {
            0 => Self::Open(Sample::sample(choices)),
            1 => Self::Begin(Sample::sample(choices)),
            2 => Self::Attach(Sample::sample(choices)),
            3 => Self::Flow(Sample::sample(choices)),
            4 => Self::Transfer(Transfer::sample(choices), Bytes::sample(choices)),
            5 => Self::Disposition(Sample::sample(choices)),
            6 => Self::Detach(Sample::sample(choices)),
            7 => Self::End(Sample::sample(choices)),
            _ => Self::Close(Sample::sample(choices)),
        }
    }
}

impl Sample for SaslFrame {
    fn sample(choices: &mut Choices) -> Self {
        match choices.of(5) {
            0 => Self::Mechanisms(Sample::sample(choices)),
            1 => Self::Init(Sample::sample(choices)),
            2 => Self::Challenge(Sample::sample(choices)),
            3 => Self::Response(Sample::sample(choices)),
            _ => Self::Outcome(Sample::sample(choices)),
        }
    }
}
