//! Bytes that the specification, or a client, gives, and what they mean.

use bytes::{Bytes, BytesMut};

use crate::codec::definitions::{AmqpError, MessageId, ReceiverSettleMode, Role, SenderSettleMode};
use crate::codec::delivery_state::{DeliveryState, Modified, Rejected};
use crate::codec::error::DecodeError;
use crate::codec::frame::{self, Frame, FrameKind, Protocol, ReadFrame};
use crate::codec::limits::ReadLimits;
use crate::codec::message::{Body, Message};
use crate::codec::performative::{Disposition, Performative};
use crate::codec::reader::Reader;
use crate::codec::sasl::{Code, PlainCredentials, SaslFrame};
use crate::codec::symbol::Symbol;
use crate::codec::terminus::AnyTarget;
use crate::codec::value::{Described, Map, Timestamp, Value};
use crate::codec::{value_reader, value_writer};

const LIMITS: ReadLimits = ReadLimits::DEFAULT;

fn read_value(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes), LIMITS);
    let value = value_reader::value(&mut reader)?;
    assert!(reader.is_at_end(), "{bytes:02x?} has bytes behind {value:?}");
    Ok(value)
}

fn performative(bytes: &[u8]) -> Result<Performative, DecodeError> {
    Performative::read(Bytes::copy_from_slice(bytes), LIMITS)
}

/// A described list: of `fields`, each encoded.
fn list(descriptor: u8, fields: &[&[u8]]) -> Vec<u8> {
    let content = fields.concat();
    let (size, count) = (content.len() + 1, fields.len());
    let head =
        [0, 0x53, descriptor, 0xc0, u8::try_from(size).expect("short"), u8::try_from(count).expect("few")];
    [&head[..], &content].concat()
}

/// Section 1.6, type by type; the first encoding of each value is the one that is written.
#[test]
fn every_format_code_is_read_as_its_type() {
    let symbol = |text| Value::Symbol(Symbol::from_static(text));
    let table: &[(Value, &[&[u8]])] = &[
        (Value::Null, &[b"\x40"]),
        (Value::Boolean(true), &[b"\x41", b"\x56\x01"]),
        (Value::Boolean(false), &[b"\x42", b"\x56\x00"]),
        (Value::Ubyte(255), &[b"\x50\xff"]),
        (Value::Ushort(258), &[b"\x60\x01\x02"]),
        (Value::Uint(0), &[b"\x43", b"\x52\x00", b"\x70\0\0\0\0"]),
        (Value::Uint(7), &[b"\x52\x07", b"\x70\0\0\0\x07"]),
        (Value::Uint(256), &[b"\x70\0\0\x01\0"]),
        (Value::Ulong(0), &[b"\x44", b"\x53\x00", b"\x80\0\0\0\0\0\0\0\0"]),
        (Value::Ulong(16), &[b"\x53\x10", b"\x80\0\0\0\0\0\0\0\x10"]),
        (Value::Ulong(u64::MAX), &[b"\x80\xff\xff\xff\xff\xff\xff\xff\xff"]),
        (Value::Byte(-1), &[b"\x51\xff"]),
        (Value::Short(-2), &[b"\x61\xff\xfe"]),
        (Value::Int(-128), &[b"\x54\x80", b"\x71\xff\xff\xff\x80"]),
        (Value::Int(200), &[b"\x71\0\0\0\xc8"]),
        (Value::Long(127), &[b"\x55\x7f", b"\x81\0\0\0\0\0\0\0\x7f"]),
        (Value::Long(-129), &[b"\x81\xff\xff\xff\xff\xff\xff\xff\x7f"]),
        (Value::Float(1.5), &[b"\x72\x3f\xc0\0\0"]),
        (Value::Double(-2.0), &[b"\x82\xc0\0\0\0\0\0\0\0"]),
        (Value::Decimal32(*b"dec4"), &[b"\x74dec4"]),
        (Value::Decimal64(*b"decimal8"), &[b"\x84decimal8"]),
        (Value::Decimal128(*b"decimal of 16 by"), &[b"\x94decimal of 16 by"]),
        (Value::Char('é'), &[b"\x73\0\0\0\xe9"]),
        (Value::Timestamp(Timestamp(1_311_703_463_521)), &[b"\x83\0\0\x01\x31\x67\x9e\x76\x61"]),
        (Value::Uuid(*b"0123456789abcdef"), &[b"\x980123456789abcdef"]),
        (Value::Binary(Bytes::from_static(b"\0\xff")), &[b"\xa0\x02\0\xff", b"\xb0\0\0\0\x02\0\xff"]),
        (Value::from("Hé"), &[b"\xa1\x03H\xc3\xa9", b"\xb1\0\0\0\x03H\xc3\xa9"]),
        (symbol("a:b"), &[b"\xa3\x03a:b", b"\xb3\0\0\0\x03a:b"]),
        (Value::List(vec![]), &[b"\x45", b"\xc0\x01\0", b"\xd0\0\0\0\x04\0\0\0\0"]),
        (
            Value::List(vec![Value::Boolean(true), Value::Null]),
            &[b"\xc0\x03\x02\x41\x40", b"\xd0\0\0\0\x06\0\0\0\x02\x41\x40"],
        ),
        (Value::Map(Map::default()), &[b"\xc1\x01\0", b"\xd1\0\0\0\x04\0\0\0\0"]),
        (
            Value::Map(Map(vec![(symbol("k"), Value::Uint(0))])),
            &[b"\xc1\x05\x02\xa3\x01k\x43", b"\xd1\0\0\0\x08\0\0\0\x02\xa3\x01k\x43"],
        ),
        (
            Value::Described(Box::new(Described {
                descriptor: Value::Ulong(0x24),
                value: Value::List(vec![]),
            })),
            &[b"\0\x53\x24\x45", b"\0\x80\0\0\0\0\0\0\0\x24\xc0\x01\0"],
        ),
    ];
    for (value, encodings) in table {
        for bytes in *encodings {
            assert_eq!(read_value(bytes).as_ref(), Ok(value), "{bytes:02x?}");
        }
        let mut written = BytesMut::new();
        value_writer::value(&mut written, value);
        assert_eq!(written, encodings[0], "{value:?}");
    }
}

#[test]
fn arrays_are_read_with_narrow_wide_and_empty_elements() {
    let elements = |bytes: &[u8]| match read_value(bytes) {
        Ok(Value::Array(array)) => (array.descriptor().cloned(), array.elements().to_vec()),
        other => panic!("{bytes:02x?} was read as {other:?}"),
    };
    let symbols: Vec<Value> = ["PLAIN", "X"].map(Symbol::from_static).map(Value::Symbol).into();
    assert_eq!(elements(b"\xe0\x0a\x02\xa3\x05PLAIN\x01X"), (None, symbols.clone()));
    assert_eq!(elements(b"\xf0\0\0\0\x13\0\0\0\x02\xb3\0\0\0\x05PLAIN\0\0\0\x01X"), (None, symbols));
    assert_eq!(elements(b"\xe0\x02\x03\x41"), (None, vec![Value::Boolean(true); 3]));
    assert_eq!(elements(b"\xe0\x05\x01\0\x53\x07\x43"), (Some(Value::Ulong(7)), vec![Value::Uint(0)]));
    assert_eq!(elements(b"\xe0\x02\0\x70"), (None, vec![]));
    // A descriptor inside a descriptor, a code that is none, and an array that ends before its constructor.
    assert_eq!(read_value(b"\xe0\x06\x01\0\x53\x07\0\x43"), Err(DecodeError::FormatCode(0)));
    assert_eq!(read_value(b"\xe0\x02\x01\x01"), Err(DecodeError::FormatCode(1)));
    assert_eq!(read_value(b"\xe0\x01\0"), Err(DecodeError::Truncated));
}

#[test]
fn what_breaks_a_rule_of_a_type_is_refused() {
    let table: &[&[u8]] = &[
        b"\x56\x02",               // a boolean
        b"\x73\0\x11\0\0",         // above Unicode
        b"\x73\0\0\xd8\0",         // half of a surrogate pair
        b"\xa1\x01\xff",           // UTF-8
        b"\xa3\x02\xc3\xa9",       // ASCII
        b"\xc1\x04\x01\xa3\x01k",  // a key alone
        b"\xc0\0\0",               // a size that leaves out the count
        b"\xd0\0\0\0\x03\0\0\0\0", // as above
        b"\xc0\x02\x02\x40\x40",   // more elements than bytes
        b"\xc0\x03\x01\x40\x40",   // more bytes than elements
    ];
    for bytes in table {
        assert!(matches!(read_value(bytes), Err(DecodeError::Malformed(_))), "{:?}", read_value(bytes));
    }
    for bytes in
        [&b""[..], b"\x70\0", b"\xa1\x02a", b"\xb0\xff\xff\xff\xff", b"\xc0\x05\x01\x40", b"\0\x53\x10"]
    {
        assert_eq!(read_value(bytes), Err(DecodeError::Truncated), "{bytes:02x?}");
    }
    assert_eq!(read_value(b"\x57"), Err(DecodeError::FormatCode(0x57)));
}

/// The open of rhea (Node), and one whose descriptor is the symbol.
#[test]
fn an_open_is_read_with_fields_left_out() {
    for bytes in [
        &b"\0\x53\x10\xc0\x0a\x02\xa1\x03dev\xa1\x02gw"[..],
        b"\0\xa3\x0eamqp:open:list\xc0\x0a\x02\xa1\x03dev\xa1\x02gw",
    ] {
        let Ok(Performative::Open(open)) = performative(bytes) else { panic!("{:?}", performative(bytes)) };
        assert_eq!((&*open.container_id, open.hostname.as_deref()), ("dev", Some("gw")));
        assert_eq!((open.max_frame_size, open.channel_max, open.idle_time_out), (u32::MAX, u16::MAX, None));
    }
}

/// An attach as the C# SDK sends it: outcomes as an array, modes as numbers, absent fields as nulls.
#[test]
fn an_attach_is_read_with_its_terminuses() {
    const ABSENT: &[u8] = b"\x40";
    let outcomes = b"\xe0\x15\x01\xb3\0\0\0\x0famqp:acceptedXX";
    let address: &[u8] = b"\xa1\x0c/devices/d/x";
    let source = list(0x28, &[&[&b"\xa1\x01s"[..]], &[ABSENT; 8][..], &[&outcomes[..]]].concat());
    let target = list(0x29, &[address]);
    let fields: [&[u8]; 10] = [
        b"\xa1\x03lnk",
        b"\x52\x01",
        b"\x42",
        b"\x50\0",
        b"\x50\x01",
        &source,
        &target,
        ABSENT,
        ABSENT,
        b"\x43",
    ];
    let read = performative(&list(0x12, &fields));
    let Ok(Performative::Attach(attach)) = read else { panic!("{read:?}") };
    assert_eq!((&*attach.name, attach.handle, attach.role), ("lnk", 1, Role::Sender));
    assert_eq!(attach.snd_settle_mode, SenderSettleMode::Unsettled);
    assert_eq!(attach.rcv_settle_mode, ReceiverSettleMode::Second);
    assert_eq!(attach.initial_delivery_count, Some(0));
    let source = attach.source.expect("a source");
    assert_eq!(
        (source.address.as_deref(), source.outcomes),
        (Some("s"), vec![Symbol::from_static("amqp:acceptedXX")])
    );
    let Some(AnyTarget::Node(target)) = attach.target else { panic!("{:?}", attach.target) };
    assert_eq!(target.address.as_deref(), Some("/devices/d/x"));
}

#[test]
fn a_coordinator_is_read_as_another_target() {
    let bytes = list(0x12, &[b"\xa1\x01l", b"\x43", b"\x42", b"\x40", b"\x40", b"\x40", b"\0\x53\x30\x45"]);
    let Ok(Performative::Attach(attach)) = performative(&bytes) else { panic!("{:?}", performative(&bytes)) };
    assert_eq!(attach.target, Some(AnyTarget::Other { descriptor: 0x30, value: Value::List(vec![]) }));
}

#[test]
fn the_payload_of_a_transfer_is_what_follows_its_fields() {
    let bytes = b"\0\x53\x14\xc0\x06\x03\x43\x43\xa0\x01t\0\x53\x75\xa0\x02hi";
    let Ok(Performative::Transfer(transfer, payload)) = performative(bytes) else { panic!() };
    assert_eq!(transfer.delivery_tag.as_deref(), Some(&b"t"[..]));
    let message = Message::read(payload, LIMITS).expect("a message");
    assert_eq!(message.body, Body::Data(vec![Bytes::from_static(b"hi")]));
    assert!(
        matches!(performative(b"\0\x53\x18\x45\x40"), Err(DecodeError::Malformed(_))),
        "a close has none"
    );
}

/// The states in a disposition, as clients write them.
#[test]
fn dispositions_are_read_with_every_outcome() {
    let read = |state: &[u8]| performative(&list(0x15, &[b"\x41", b"\x43", b"\x40", b"\x41", state]));
    let error = list(0x1d, &[b"\xa3\x03a:b", b"\xa1\x03why"]);
    let rejected = Rejected { error: Some(AmqpError::new(Symbol::from_static("a:b"), "why")) };
    let modified = Modified { delivery_failed: true, ..Modified::default() };
    let table: [(&[u8], DeliveryState); 4] = [
        (b"\0\x53\x24\x45", DeliveryState::Accepted),
        (b"\0\x53\x26\xc0\x01\0", DeliveryState::Released),
        (&list(0x27, &[b"\x41"]), DeliveryState::Modified(modified)),
        (&list(0x25, &[&error]), DeliveryState::Rejected(rejected)),
    ];
    for (state, expected) in table {
        let disposition = Disposition {
            role: Role::Receiver,
            settled: true,
            state: Some(expected),
            ..Disposition::default()
        };
        assert_eq!(read(state), Ok(Performative::Disposition(disposition)));
    }
    let of_a_transaction = read(b"\0\x53\x34\x45").expect_err("not read");
    assert_eq!(of_a_transaction.condition(), "amqp:invalid-field");
}

#[test]
fn errors_name_the_field_and_what_it_should_be() {
    let chain = |bytes: &[u8]| {
        let error = performative(bytes).expect_err("not read");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        (error.to_string(), source)
    };
    let missing = "the mandatory field container-id of open is missing".to_owned();
    assert_eq!(chain(b"\0\x53\x10\x45"), (missing.clone(), None));
    assert_eq!(chain(b"\0\x53\x10\xc0\x02\x01\x40"), (missing, None));
    assert_eq!(
        chain(b"\0\x53\x10\xc0\x03\x01\x52\x01"),
        (
            "the field container-id of open is not valid".to_owned(),
            Some("format code 0x52, expected string".to_owned())
        )
    );
    assert_eq!(chain(b"\0\x53\x99\x45").0, "descriptor 0x99, expected performative");
    assert_eq!(chain(b"\0\xa3\x03a:b\x45").0, "descriptor a:b, expected performative");
    assert_eq!(chain(b"\0\x53\x17\xc0\x03\x02\x40\x40").0, "a list with more fields than its type has");
}

/// Clients write strings for symbols, and ids of four types.
#[test]
fn properties_are_read_as_clients_write_them() {
    let table: [(&[u8], MessageId); 4] = [
        (b"\x53\x07", MessageId::Ulong(7)),
        (b"\x980123456789abcdef", MessageId::Uuid(*b"0123456789abcdef")),
        (b"\xa0\x01\xff", MessageId::Binary(Bytes::from_static(b"\xff"))),
        (b"\xa1\x01i", MessageId::String("i".to_owned())),
    ];
    for (id, expected) in table {
        let bytes = list(0x73, &[id, b"\x40", b"\x40", b"\x40", b"\x40", b"\x40", b"\xa1\x01j"]);
        let message = Message::read(bytes.into(), LIMITS).expect("a message");
        let properties = message.properties.expect("properties");
        assert_eq!(properties.message_id, Some(expected));
        assert_eq!(properties.content_type, Some(Symbol::from_static("j")));
    }
}

#[test]
fn sections_of_a_message_keep_their_order() {
    let read = |bytes: &'static [u8]| Message::read(Bytes::from_static(bytes), LIMITS);
    let data =
        |sections: &[&'static [u8]]| Body::Data(sections.iter().map(|s| Bytes::from_static(s)).collect());
    assert_eq!(read(b"").expect("nothing").body, Body::Absent);
    assert_eq!(read(b"\0\x53\x75\xa0\x01a\0\x53\x75\xa0\x01b").expect("two").body, data(&[b"a", b"b"]));
    let refused: &[&[u8]] = &[
        b"\0\x53\x77\x40\0\x53\x77\x40",
        b"\0\x53\x77\x40\0\x53\x73\x45",
        b"\0\x53\x75\xa0\0\0\x53\x77\x40",
        b"\0\x53\x73\x45\0\x53\x73\x45",
    ];
    for bytes in refused {
        assert!(read(bytes).is_err(), "{bytes:02x?}");
    }
    assert!(matches!(read(b"\0\x53\x79\x45"), Err(DecodeError::Descriptor { .. })));
}

#[test]
fn protocol_headers_are_recognized_byte_by_byte() {
    for protocol in [Protocol::Amqp, Protocol::Tls, Protocol::Sasl] {
        let header = protocol.header();
        for bytes in 0..8 {
            assert_eq!(Protocol::read(&mut BytesMut::from(&header[..bytes])), Ok(None));
        }
        let mut buffer = BytesMut::from(&header[..]);
        buffer.extend_from_slice(b"rest");
        assert_eq!(Protocol::read(&mut buffer), Ok(Some(protocol)));
        assert_eq!(buffer, &b"rest"[..]);
    }
    for other in [&b"G"[..], b"AMQP\x01", b"AMQP\x04", b"AMQP\0\0\x09\x01", b"AMQP\0\x01\0\x01", b"\x10"] {
        assert!(Protocol::read(&mut BytesMut::from(other)).is_err(), "{other:02x?}");
    }
}

#[test]
fn frames_are_checked_before_their_rest_is_awaited() {
    let read = |bytes: &[u8]| frame::read(&mut BytesMut::from(bytes), 512);
    assert_eq!(read(b"\0\0\x02\x01\x02\0\0\0"), Err(DecodeError::FrameTooLarge { size: 513, limit: 512 }));
    assert_eq!(read(b"\0\0\x02\0\x02\0\0\0"), Ok(ReadFrame::Missing(504)));
    assert_eq!(read(b"\0\0\0"), Ok(ReadFrame::Missing(5)));
    for wrong in
        [b"\0\0\0\x04\x02\0\0\0", b"\0\0\0\x08\x01\0\0\0", b"\0\0\0\x08\x03\0\0\0", b"\0\0\0\x08\x02\x02\0\0"]
    {
        assert!(matches!(read(wrong), Err(DecodeError::Malformed(_))), "{wrong:02x?}");
    }
    let empty = Frame { kind: FrameKind::Amqp, channel: 7, body: Bytes::new() };
    assert_eq!(read(b"\0\0\0\x08\x02\0\0\x07"), Ok(ReadFrame::Whole(empty.clone())));
    assert_eq!(
        read(b"\0\0\0\x0c\x03\0\0\x07abcd"),
        Ok(ReadFrame::Whole(empty)),
        "an extended header is skipped"
    );
}

/// As the C SDK (MSSBCBS has no response) and uamqp (PLAIN) send them.
#[test]
fn the_frames_of_sasl_are_read() {
    let read = |bytes: Vec<u8>| SaslFrame::read(bytes.into(), LIMITS);
    let Ok(SaslFrame::Init(init)) = read(list(0x41, &[b"\xa3\x07MSSBCBS"])) else { panic!() };
    assert_eq!((init.mechanism, init.initial_response), (Symbol::from_static("MSSBCBS"), None));
    let response: &[u8] = b"\xa0\x0c\0dev@hub\0sas";
    let Ok(SaslFrame::Init(init)) = read(list(0x41, &[b"\xa3\x05PLAIN", response])) else { panic!() };
    let response = init.initial_response.expect("a response");
    assert!(!format!("{response:?}").contains("sas"));
    let plain = PlainCredentials::read(&response.0).expect("credentials");
    assert_eq!((&*plain.authorization_id, &*plain.authentication_id), ("", "dev@hub"));
    assert!(!format!("{plain:?}").contains("\"sas") && plain.password.0 == "sas");
    let Ok(SaslFrame::Outcome(outcome)) = read(list(0x44, &[b"\x50\x01"])) else { panic!() };
    assert_eq!(outcome.code, Code::Auth);
    for wrong in [&b""[..], b"\0", b"\0user", b"\0\0password", b"\0\xff\0password"] {
        assert_eq!(PlainCredentials::read(&Bytes::copy_from_slice(wrong)), None, "{wrong:02x?}");
    }
}
