//! MQTT 3.1.1: malformed packets.

use super::read_one;
use crate::codec::error::ReadError;
use crate::codec::packet::{Packet, Version};
use crate::codec::read::Read;

#[test]
fn malformed_packets_of_3_1_1_differ_from_incomplete_ones() {
    for (bytes, why) in [
        (&b"\x00\x00"[..], "packet type 0"),
        (b"\xf0\x00", "packet type 15"),
        (b"\x80\x06\0\x01\0\x01a\0", "SUBSCRIBE without its reserved flag"),
        (b"\x82\x06\0\0\0\x01a\0", "SUBSCRIBE with id 0"),
        (b"\x82\x02\0\x01", "SUBSCRIBE without a filter"),
        (b"\x82\x06\0\x01\0\x01a\x03", "SUBSCRIBE at QoS 3"),
        (b"\x82\x06\0\x01\0\x01a\x80", "SUBSCRIBE with a reserved bit beside the QoS"),
        (b"\x82\x05\0\x01\0\x01a", "SUBSCRIBE without the QoS"),
        (b"\x82\x06\0\x01\0\x01\0\0", "SUBSCRIBE with NUL in a filter"),
        (b"\xa2\x02\0\x01", "UNSUBSCRIBE without a filter"),
        (b"\xa2\x05\0\x01\0\x01\0", "UNSUBSCRIBE with NUL in a filter"),
        (b"\xa2\x05\0\0\0\x01a", "UNSUBSCRIBE with id 0"),
        (b"\xa2\x04\0\x01\0\x01", "UNSUBSCRIBE with half a filter"),
        (b"\xa2\x01\0", "UNSUBSCRIBE with half an id"),
        (b"\x36\x05\0\x01a\0\x01", "PUBLISH at QoS 3"),
        (b"\x38\x03\0\x01a", "PUBLISH at QoS 0 with DUP"),
        (b"\x32\x05\0\x01a\0\0", "PUBLISH at QoS 1 with id 0"),
        (b"\x32\x03\0\x01a", "PUBLISH at QoS 1 without id"),
        (b"\x30\x03\0\x09a", "PUBLISH with a topic longer than the packet"),
        (b"\x30\x03\0\x01#", "PUBLISH to a wildcard"),
        (b"\x30\x03\0\x01\0", "PUBLISH with NUL in the topic"),
        (b"\x30\x03\0\x01\xff", "PUBLISH with a topic that is not UTF-8"),
        (b"\x30\x05\0\x03\xed\xa0\x80", "PUBLISH with a surrogate in the topic"),
        (b"\x30\x02\0\0", "PUBLISH with an empty topic"),
        (b"\x40\x03\0\x01\0", "PUBACK that is too long"),
        (b"\x50\x03\0\x01\0", "PUBREC that is too long"),
        (b"\x60\x02\0\x01", "PUBREL without its reserved flag"),
        (b"\x62\x01\0", "PUBREL that is too short"),
        (b"\x70\x00", "PUBCOMP that is empty"),
        (b"\x40\x02\0\0", "PUBACK with id 0"),
        (b"\xc0\x01\0", "PINGREQ with a body"),
        (b"\xe0\x01\0", "DISCONNECT with a body"),
        (b"\x30\xff\xff\xff\xff\x01", "a length of five bytes"),
        (b"\x30\x81\x10", "longer than allowed"),
        (b"\x10\x0c\0\x04MQTT\x04\x03\0\0\0\0", "CONNECT with the reserved flag"),
        (b"\x10\x0c\0\x04MQTT\x04\x42\0\0\0\0", "CONNECT with a password and no user name"),
        (b"\x10\x0c\0\x04MQTX\x04\x02\0\0\0\0", "CONNECT of another protocol"),
        (b"\x10\x0c\0\x04MQTT\x04\x22\0\0\0\0", "CONNECT with will retain and no will"),
        (b"\x10\x0c\0\x04MQTT\x04\x0a\0\0\0\0", "CONNECT with a will QoS and no will"),
        (b"\x10\x10\0\x04MQTT\x04\x1e\0\0\0\0\0\x01a\0\0", "CONNECT with a will QoS of 3"),
        (b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\0x", "CONNECT with a byte behind its last field"),
        (b"\x10\x0c\0\x04MQTT\x04\x82\0\0\0\0", "CONNECT without the user name that its flags promise"),
        (b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02\xed\xa0", "CONNECT with a client id that is not UTF-8"),
    ] {
        assert!(read_one(Version::V4, bytes).is_err(), "{why}");
    }
    for level in [0, 3, 6, 0x83, 0x85] {
        let connect = [b"\x10\x0c\0\x04MQTT", &[level][..], b"\x02\0\0\0\0"].concat();
        assert_eq!(read_one(Version::V4, &connect), Err(ReadError::Level(level)));
    }
    let of_3_1 = b"\x10\x0e\0\x06MQIsdp\x03\x02\0\0\0\0";
    assert_eq!(read_one(Version::V4, of_3_1), Err(ReadError::Level(3)));
    assert!(matches!(read_one(Version::V4, b"\x30\x05\0\x01a"), Ok(Read::Missing(2))));
    assert!(matches!(read_one(Version::V4, b"\x30\x80"), Ok(Read::Missing(1))));
    assert!(matches!(read_one(Version::V4, b""), Ok(Read::Missing(_))));
}

#[test]
fn a_password_may_be_any_bytes() {
    let connect = b"\x10\x13\0\x04MQTT\x04\xc2\0\0\0\0\0\x01u\0\x02\xff\0";
    let Ok(Read::Packet(Packet::Connect(connect))) = read_one(Version::V4, connect) else {
        panic!("no CONNECT")
    };
    assert_eq!(connect.password.as_deref(), Some(&b"\xff\0"[..]));
}
