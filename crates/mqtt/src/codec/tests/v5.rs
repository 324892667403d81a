//! MQTT 5: every check that a receiver must make, and the reason that the sender is told.

use super::{assert_refused, read_one, read_v5};
use crate::codec::error::ReadError;
use crate::codec::packet::{Packet, RetainHandling, Version};
use crate::codec::read::{Read, connect_version};
use crate::codec::reason::Reason;

const MALFORMED: Reason = Reason::MALFORMED_PACKET;
const PROTOCOL: Reason = Reason::PROTOCOL_ERROR;

/// A CONNECT without flags, with these properties.
fn connect_with(properties: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).unwrap();
    [b"\0\x04MQTT\x05\x02\0\0", &[length][..], properties, b"\0\0"].concat()
}

/// A PUBLISH of QoS 0 to `a`, with these properties.
fn publish_with(properties: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).unwrap();
    [b"\0\x01a", &[length][..], properties, b"payload"].concat()
}

#[test]
fn the_fixed_header_is_checked() {
    assert_refused(&[
        (0x00, b"", MALFORMED, "packet type 0"),
        (0x11, b"", MALFORMED, "CONNECT with a reserved flag"),
        (0x36, b"\0\x01a\0\x01\0", MALFORMED, "PUBLISH at QoS 3"),
        (0x38, b"\0\x01a\0", MALFORMED, "PUBLISH at QoS 0 with DUP"),
        (0x41, b"\0\x01", MALFORMED, "PUBACK with a reserved flag"),
        (0x60, b"\0\x01", MALFORMED, "PUBREL without its reserved flag"),
        (0x80, b"\0\x01\0\0\x01a\0", MALFORMED, "SUBSCRIBE without its reserved flag"),
        (0xa0, b"\0\x01\0\0\x01a", MALFORMED, "UNSUBSCRIBE without its reserved flag"),
        (0xc0, b"\0", MALFORMED, "PINGREQ with a body"),
        (0xe1, b"", MALFORMED, "DISCONNECT with a reserved flag"),
        (0xf1, b"", MALFORMED, "AUTH with a reserved flag"),
    ]);
    let not_minimal = read_one(Version::V5, b"\xc0\x80\0").unwrap_err();
    assert_eq!(not_minimal.reason(), MALFORMED);
    let too_long = read_one(Version::V5, b"\xc0\x80\x80\x80\x80\x01").unwrap_err();
    assert_eq!(too_long.reason(), MALFORMED);
    let too_large = read_one(Version::V5, b"\x30\x81\x08").unwrap_err();
    assert_eq!((too_large.reason(), too_large), (Reason::PACKET_TOO_LARGE, ReadError::TooLarge(1025)));
}

#[test]
fn a_connect_is_checked() {
    let connect = |properties: &[u8]| connect_with(properties);
    assert_refused(&[
        (0x10, b"\0\x04MQTT\x05\x03\0\0\0\0\0", MALFORMED, "the reserved flag"),
        (0x10, b"\0\x04MQTT\x05\x0a\0\0\0\0\0", MALFORMED, "a will QoS without a will"),
        (0x10, b"\0\x04MQTT\x05\x22\0\0\0\0\0", MALFORMED, "will retain without a will"),
        (0x10, b"\0\x04MQTT\x05\x1e\0\0\0\0\0\0\0\x01w\0\0", MALFORMED, "a will QoS of 3"),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\0x", MALFORMED, "a byte behind the last field"),
        (0x10, b"\0\x04MQTT\x05\x82\0\0\0\0\0", MALFORMED, "a user name that is not there"),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\x01\0", MALFORMED, "U+0000 in the client id"),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\x05\x11\0", MALFORMED, "a bag longer than the packet"),
        (
            0x10,
            b"\0\x04MQTT\x05\x06\0\0\0\0\0\0\0\x01#\0\0",
            Reason::TOPIC_NAME_INVALID,
            "a will to a wildcard",
        ),
        (
            0x10,
            b"\0\x04MQTT\x05\x06\0\0\0\0\0\x03\x23\0\x01\0\x01w\0\0",
            MALFORMED,
            "a will with a topic alias",
        ),
        (0x10, b"\0\x04MQTX\x05\x02\0\0\0\0\0", Reason::UNSUPPORTED_PROTOCOL_VERSION, "another protocol"),
        (0x10, &connect(b"\x21\0\0"), PROTOCOL, "receive maximum 0"),
        (0x10, &connect(b"\x27\0\0\0\0"), PROTOCOL, "maximum packet size 0"),
        (0x10, &connect(b"\x17\x02"), PROTOCOL, "request problem information 2"),
        (0x10, &connect(b"\x19\x02"), PROTOCOL, "request response information 2"),
        (0x10, &connect(b"\x16\0\x01x"), PROTOCOL, "authentication data without a method"),
        (0x10, &connect(b"\x11\0\0\0\x01\x11\0\0\0\x01"), PROTOCOL, "a session expiry that is there twice"),
        (0x10, &connect(b"\x22\0\x01\x22\0\x01"), PROTOCOL, "a topic alias maximum that is there twice"),
        (0x10, &connect(b"\x23\0\x01"), MALFORMED, "a topic alias"),
        (0x10, &connect(b"\x04\0"), MALFORMED, "a property that does not exist"),
        (0x10, &connect(b"\x91\0\0\0\0\x01"), MALFORMED, "an identifier that is not minimal"),
        (0x10, &connect(b"\x11\0\0"), MALFORMED, "a property that is cut off"),
        (0x10, &connect(b"\x26\0\x01\0\0\x01v"), MALFORMED, "U+0000 in a user property"),
        (0x10, &connect(b"\x26\0\x01\xff\0\x01v"), MALFORMED, "a user property that is not UTF-8"),
    ]);
    for level in [0, 3, 6, 0x83, 0x85] {
        let body = [b"\0\x04MQTT", &[level][..], b"\x02\0\0\0\0"].concat();
        let error = read_v5(0x10, &body).unwrap_err();
        assert_eq!((error.reason(), error), (Reason::UNSUPPORTED_PROTOCOL_VERSION, ReadError::Level(level)));
    }
}

#[test]
fn what_a_connect_does_not_say_is_as_the_specification_has_it() {
    let Ok(Packet::Connect(connect)) = read_v5(0x10, &connect_with(b"")) else { panic!("no CONNECT") };
    assert_eq!((connect.version, connect.properties.session_expiry), (Version::V5, None));
    assert!(connect.properties.wants_problem_information);
    assert!(!connect.properties.wants_response_information);
    assert_eq!(connect.properties.topic_alias_max, 0);
    // MQTT 5 lets a password come without a user name.
    let Ok(Packet::Connect(connect)) = read_v5(0x10, b"\0\x04MQTT\x05\x42\0\0\0\0\0\0\x01\xff") else {
        panic!("no CONNECT")
    };
    assert_eq!((connect.user_name, connect.password.as_deref()), (None, Some(&b"\xff"[..])));
}

#[test]
fn who_sends_a_wrong_connect_is_known_by_its_version() {
    let wrong = [b"\x10\x0f", &connect_with(b"\x21\0\0")[..]].concat();
    assert_eq!(connect_version(&wrong), Some(Version::V5));
    assert_eq!(connect_version(b"\x10\x0c\0\x04MQTT\x04\x03"), Some(Version::V4));
    for none in [&b""[..], b"\x10", b"\x10\xff\xff\xff\xff", b"\x10\x0c\0\x04MQTT", b"\x10\x0c\0\x04MQTT\x06"]
    {
        assert_eq!(connect_version(none), None);
    }
}

#[test]
fn a_publish_is_checked() {
    let publish = |properties: &[u8]| publish_with(properties);
    assert_refused(&[
        (0x30, b"\0\x01a", MALFORMED, "no bag"),
        (0x30, b"\0\x01a\x02\x01", MALFORMED, "a bag longer than the packet"),
        (0x30, b"\0\x01a\x80\0", MALFORMED, "a bag's length that is not minimal"),
        (0x30, b"\0\x09a\0", MALFORMED, "a topic longer than the packet"),
        (0x30, b"\0\x01\xff\0", MALFORMED, "a topic that is not UTF-8"),
        (0x30, b"\0\x03\xed\xa0\x80\0", MALFORMED, "a surrogate in a topic"),
        (0x30, b"\0\x01\0\0", MALFORMED, "U+0000 in a topic"),
        (0x30, b"\0\x01#\0", Reason::TOPIC_NAME_INVALID, "a wildcard in a topic"),
        (0x30, b"\0\x03a/+\0", Reason::TOPIC_NAME_INVALID, "a wildcard in a topic"),
        (0x30, b"\0\0\0", PROTOCOL, "an empty topic without an alias"),
        (0x32, b"\0\x01a\0\0\0", PROTOCOL, "packet id 0"),
        (0x34, b"\0\x01a\0", MALFORMED, "no packet id at QoS 2"),
        (0x30, &publish(b"\x23\0\0"), Reason::TOPIC_ALIAS_INVALID, "topic alias 0"),
        (0x30, &publish(b"\x23\0\x01\x23\0\x01"), PROTOCOL, "a topic alias that is there twice"),
        (0x30, &publish(b"\x01\x02"), PROTOCOL, "payload format 2"),
        (0x30, &publish(b"\x01\x01\x01\x01"), PROTOCOL, "a payload format that is there twice"),
        (0x30, &publish(b"\x02\0\0\0\x01\x02\0\0\0\x01"), PROTOCOL, "an expiry that is there twice"),
        (0x30, &publish(b"\x03\0\x01t\x03\0\x01t"), PROTOCOL, "a content type that is there twice"),
        (0x30, &publish(b"\x08\0\x01r\x08\0\x01r"), PROTOCOL, "a response topic that is there twice"),
        (0x30, &publish(b"\x08\0\x01#"), PROTOCOL, "a response topic with a wildcard"),
        (0x30, &publish(b"\x08\0\0"), PROTOCOL, "an empty response topic"),
        (0x30, &publish(b"\x09\0\x01c\x09\0\x01c"), PROTOCOL, "correlation data that is there twice"),
        (0x30, &publish(b"\x0b\0"), PROTOCOL, "subscription identifier 0"),
        (0x30, &publish(b"\x0b\x80\0"), MALFORMED, "a subscription identifier that is not minimal"),
        (0x30, &publish(b"\x11\0\0\0\x01"), MALFORMED, "a session expiry"),
        (0x30, &publish(b"\x03\0\x01\xff"), MALFORMED, "a content type that is not UTF-8"),
    ]);
}

#[test]
fn a_publish_may_have_an_alias_in_the_place_of_its_topic() {
    let Ok(Packet::Publish(publish)) = read_v5(0x30, b"\0\0\x03\x23\0\x05x") else { panic!("no PUBLISH") };
    assert_eq!((publish.topic(), publish.properties.as_ref().unwrap().topic_alias), ("", Some(5)));
}

#[test]
fn user_properties_keep_their_order_wherever_they_stand_in_the_bag() {
    let bag = b"\x26\0\x01a\0\x011\x01\x01\x26\0\x01b\0\x012\x26\0\x01a\0\x013\x03\0\x01t";
    let Ok(Packet::Publish(publish)) = read_v5(0x30, &publish_with(bag)) else { panic!("no PUBLISH") };
    let properties = publish.properties.unwrap();
    let user: Vec<_> = properties.user_properties.iter().collect();
    assert_eq!(user, [("a", "1"), ("b", "2"), ("a", "3")]);
    assert_eq!(publish.payload, &b"payload"[..]);
}

#[test]
fn acknowledgements_are_checked_and_may_leave_out_what_is_empty() {
    for (first, wrong) in [(0x40, 0x92), (0x50, 0x92), (0x62, 0x10), (0x70, 0x80)] {
        assert_refused(&[
            (first, b"\0", MALFORMED, "half an id"),
            (first, b"\0\0", PROTOCOL, "packet id 0"),
            (first, &[0, 1, wrong], PROTOCOL, "a reason code of another packet"),
            (first, b"\0\x01\0\0x", MALFORMED, "a byte behind the bag"),
            (first, b"\0\x01\0\x04\x1f\0\x01", MALFORMED, "a reason string that is cut off"),
            (first, b"\0\x01\0\x08\x1f\0\x01r\x1f\0\x01r", PROTOCOL, "a reason string that is there twice"),
            (first, b"\0\x01\0\x02\x01\x01", MALFORMED, "a payload format"),
        ]);
        for body in [&b"\0\x01"[..], b"\0\x01\0", b"\0\x01\0\0"] {
            let (Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)) =
                read_v5(first, body).unwrap()
            else {
                panic!("no acknowledgement")
            };
            assert_eq!((ack.id, ack.reason, ack.properties), (1, Reason::SUCCESS, None));
        }
    }
}

#[test]
fn a_subscribe_is_checked() {
    assert_refused(&[
        (0x82, b"\0\0\0\0\x01a\0", PROTOCOL, "packet id 0"),
        (0x82, b"\0\x01\0", PROTOCOL, "no filter"),
        (0x82, b"\0\x01", MALFORMED, "no bag"),
        (0x82, b"\0\x01\0\0\x01a", MALFORMED, "no options"),
        (0x82, b"\0\x01\0\0\x01a\x03", PROTOCOL, "QoS 3"),
        (0x82, b"\0\x01\0\0\x01a\x30", PROTOCOL, "retain handling 3"),
        (0x82, b"\0\x01\0\0\x01a\x40", MALFORMED, "a reserved option"),
        (0x82, b"\0\x01\0\0\x01a\x80", MALFORMED, "a reserved option"),
        (0x82, b"\0\x01\0\0\x0a$share/g/a\x04", PROTOCOL, "no-local on a shared subscription"),
        (0x82, b"\0\x01\x02\x0b\0\0\x01a\0", PROTOCOL, "subscription identifier 0"),
        (
            0x82,
            b"\0\x01\x04\x0b\x01\x0b\x01\0\x01a\0",
            PROTOCOL,
            "a subscription identifier that is there twice",
        ),
        (
            0x82,
            b"\0\x01\x05\x0b\xff\xff\xff\xff\0\x01a\0",
            MALFORMED,
            "a subscription identifier of five bytes",
        ),
        (0x82, b"\0\x01\x02\x01\x01\0\x01a\0", MALFORMED, "a payload format"),
        (0x82, b"\0\x01\0\0\x01\0\0", MALFORMED, "U+0000 in a filter"),
        (0xa2, b"\0\0\0\0\x01a", PROTOCOL, "UNSUBSCRIBE with packet id 0"),
        (0xa2, b"\0\x01\0", PROTOCOL, "UNSUBSCRIBE without a filter"),
        (0xa2, b"\0\x01\0\0\x02a", MALFORMED, "UNSUBSCRIBE with half a filter"),
        (0xa2, b"\0\x01\x02\x0b\x01\0\x01a", MALFORMED, "UNSUBSCRIBE with a subscription identifier"),
    ]);
    let Ok(Packet::Subscribe(subscribe)) = read_v5(0x82, b"\0\x01\x02\x0b\x05\0\x01a\x2e") else {
        panic!("no SUBSCRIBE")
    };
    let filter = &subscribe.filters[0];
    assert_eq!((subscribe.subscription_id, filter.qos), (Some(5), 2));
    assert!(filter.no_local && filter.retain_as_published);
    assert_eq!(filter.retain_handling, RetainHandling::DoNotSend);
}

#[test]
fn what_servers_answer_is_checked() {
    assert_refused(&[
        (0x90, b"\0\x01\0", PROTOCOL, "SUBACK without a reason"),
        (0x90, b"\0\x01\0\x03", PROTOCOL, "SUBACK that grants QoS 3"),
        (0xb0, b"\0\x01\0", PROTOCOL, "UNSUBACK without a reason"),
        (0xb0, b"\0\x01\0\x01", PROTOCOL, "UNSUBACK with a SUBACK's reason"),
        (0x20, b"\x02\0\0", MALFORMED, "CONNACK with reserved flags"),
        (0x20, b"\0\x01\0", PROTOCOL, "CONNACK with a reason that it does not have"),
        (0x20, b"\0\0\x03\x21\0\0", PROTOCOL, "CONNACK with receive maximum 0"),
        (0x20, b"\0\0\x02\x24\x02", PROTOCOL, "CONNACK with maximum QoS 2"),
        (0x20, b"\0\0\x03\x23\0\x01", MALFORMED, "CONNACK with a topic alias"),
        (0x20, b"\0\0\0x", MALFORMED, "CONNACK with a byte behind its bag"),
    ]);
}

#[test]
fn a_disconnect_and_an_auth_are_checked_and_may_leave_out_what_is_empty() {
    assert_refused(&[
        (0xe0, b"\x01", PROTOCOL, "DISCONNECT with a reason that it does not have"),
        (0xe0, b"\0\0x", MALFORMED, "DISCONNECT with a byte behind its bag"),
        (0xe0, b"\0\x0a\x11\0\0\0\x01\x11\0\0\0\x01", PROTOCOL, "DISCONNECT with a session expiry twice"),
        (0xe0, b"\0\x03\x21\0\x01", MALFORMED, "DISCONNECT with a receive maximum"),
        (0xf0, b"\x80", PROTOCOL, "AUTH with a reason that it does not have"),
        (0xf0, b"\x18\x08\x15\0\x01m\x15\0\x01m", PROTOCOL, "AUTH with a method twice"),
        (0xf0, b"\x18\x05\x11\0\0\0\x01", MALFORMED, "AUTH with a session expiry"),
    ]);
    for (body, reason) in [
        (&b""[..], Reason::SUCCESS),
        (b"\x04", Reason::DISCONNECT_WITH_WILL),
        (b"\x04\0", Reason::DISCONNECT_WITH_WILL),
    ] {
        let Ok(Packet::Disconnect(disconnect)) = read_v5(0xe0, body) else { panic!("no DISCONNECT") };
        assert_eq!(disconnect.reason, reason);
    }
    let Ok(Packet::Auth(auth)) = read_v5(0xf0, b"") else { panic!("no AUTH") };
    assert_eq!((auth.reason, auth.authentication_method), (Reason::SUCCESS, None));
    // MQTT 3.1.1 has no AUTH.
    assert!(matches!(read_one(Version::V4, b"\xf0\0"), Err(ReadError::Malformed(_))));
}

#[test]
fn a_packet_that_is_not_whole_is_waited_for() {
    let whole = [b"\x30\x0d", &publish_with(b"\x01\x01")[..]].concat();
    for length in 0..whole.len() {
        assert!(matches!(read_one(Version::V5, &whole[..length]), Ok(Read::Missing(1..))), "{length} bytes");
    }
    assert!(matches!(read_one(Version::V5, &whole), Ok(Read::Packet(_))));
}
