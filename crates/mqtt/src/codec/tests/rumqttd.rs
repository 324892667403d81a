//! rumqttd's codec as the other end. Of MQTT 3.1.1 it reads every packet that we write, and what it writes of it reads back as it
//! was. Of MQTT 5, where it is right it reads what we write, and where it is not, a test says how, and that ours is not so. When
//! one of these fails, rumqttd has repaired something: see docs/decisions/0001.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{self, Protocol as _};

use super::read_v5;
use super::round_trip::{any_packet, as_v4};
use crate::codec::message::Message;
use crate::codec::packet::{Disconnect, Packet, PublishProperties, Version};
use crate::codec::primitives;
use crate::codec::read::{Read, read};
use crate::codec::reason::Reason;
use crate::codec::text::Text;
use crate::codec::write;

fn theirs(first: u8, body: &[u8]) -> Result<protocol::Packet, protocol::Error> {
    let mut bytes = BytesMut::new();
    primitives::packet(&mut bytes, first, |out| out.extend_from_slice(body));
    V5.read_mut(&mut bytes, 1 << 20)
}

#[test]
fn rumqttd_reads_the_message_that_we_write() {
    let properties = PublishProperties {
        is_utf8: Some(true),
        content_type: Some(Text::from("text/plain")),
        response_topic: Some(Text::from("answers")),
        correlation_data: Some(vec![0, 255].into()),
        user_properties: [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect(),
        ..PublishProperties::default()
    };
    let message = Message {
        topic: b"line1/oven",
        payload: b"21.5",
        qos: 1,
        id: 7,
        retain: true,
        properties: Some(&properties),
        message_expiry: Some(60),
        ..Message::default()
    };
    let mut bytes = BytesMut::new();
    message.write(&mut bytes, Version::V5);
    let Ok(protocol::Packet::Publish(publish, Some(read))) = V5.read_mut(&mut bytes, 1 << 20) else {
        panic!("no PUBLISH")
    };
    assert_eq!(
        (&publish.topic[..], &publish.payload[..], publish.retain),
        (&b"line1/oven"[..], &b"21.5"[..], true)
    );
    assert_eq!((read.payload_format_indicator, read.message_expiry_interval), (Some(1), Some(60)));
    assert_eq!(
        (read.content_type.as_deref(), read.response_topic.as_deref()),
        (Some("text/plain"), Some("answers"))
    );
    assert_eq!(read.correlation_data.as_deref(), Some(&[0, 255][..]));
    let user: Vec<_> = read.user_properties.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    assert_eq!(user, properties.user_properties.iter().collect::<Vec<_>>());
}

/// rumqttd counts each identifier's byte twice and ends the bag too early: the last identifiers become payload.
/// (Conformance case `subscribe_identifiers`, where subscriptions of one client overlap.)
#[test]
fn several_subscription_identifiers_do_not_end_their_bag_too_early() {
    let body = b"\0\x01a\x06\x0b\x05\x0b\x06\x0b\x07x";
    let Ok(Packet::Publish(ours)) = read_v5(0x30, body) else { panic!("no PUBLISH") };
    assert_eq!(
        (&ours.payload[..], &ours.properties.unwrap().subscription_ids[..]),
        (&b"x"[..], &[5, 6, 7][..])
    );
    let Ok(protocol::Packet::Publish(theirs, _)) = theirs(0x30, body) else { panic!("no PUBLISH") };
    assert_eq!(&theirs.payload[..], b"\x0b\x07x");
}

/// rumqttd waits for a bag that may be left out. (Conformance case `session_expiry` ends sessions by DISCONNECT.)
#[test]
fn a_disconnect_with_nothing_but_its_reason_is_read() {
    let Ok(Packet::Disconnect(ours)) = read_v5(0xe0, b"\x04") else { panic!("no DISCONNECT") };
    assert_eq!(ours.reason, Reason::DISCONNECT_WITH_WILL);
    assert!(theirs(0xe0, b"\x04").is_err());
}

/// rumqttd writes one byte more than the length says: the client reads a packet that is not there. (Conformance case
/// `flow_control2`: DISCONNECT 0x93 is how a server says that the receive maximum was exceeded.)
#[test]
fn a_disconnect_with_nothing_but_its_reason_is_as_long_as_it_says() {
    let mut ours = BytesMut::new();
    write::disconnect(&mut ours, Version::V5, &Disconnect::because(Reason::RECEIVE_MAXIMUM_EXCEEDED));
    assert_eq!(&ours[..], b"\xe0\x01\x93");
    let disconnect =
        protocol::Disconnect { reason_code: protocol::DisconnectReasonCode::ReceiveMaximumExceeded };
    let mut theirs = BytesMut::new();
    V5.write(protocol::Packet::Disconnect(disconnect, None), &mut theirs).unwrap();
    assert_eq!(&theirs[..], b"\xe0\x01\x93\x00");
}

/// rumqttd panics on packets that only servers send: a client that sends one ends the task that reads it.
#[test]
fn a_packet_that_only_servers_send_is_read_and_no_panic() {
    for (first, body) in [(0x20, &b"\0\0\0"[..]), (0xb0, b"\0\x01\0\0")] {
        assert!(read_v5(first, body).is_ok());
        assert!(std::panic::catch_unwind(|| theirs(first, body)).is_err());
    }
}

/// rumqttd does not know AUTH.
#[test]
fn an_auth_is_read() {
    assert!(matches!(read_v5(0xf0, b"\x18\x04\x15\0\x01m"), Ok(Packet::Auth(_))));
    assert!(theirs(0xf0, b"\x18\x04\x15\0\x01m").is_err());
}

/// rumqttd takes a password for text, though any bytes are allowed.
#[test]
fn a_password_of_any_bytes_is_read() {
    let body = b"\0\x04MQTT\x05\xc2\0\0\0\0\x01c\0\x01u\0\x02\xff\0";
    let Ok(Packet::Connect(ours)) = read_v5(0x10, body) else { panic!("no CONNECT") };
    assert_eq!(ours.password.as_deref(), Some(&b"\xff\0"[..]));
    assert!(theirs(0x10, body).is_err());
}

/// rumqttd lets through what the specification calls an error. Each is a check that ours makes.
#[test]
fn what_rumqttd_lets_through_is_refused() {
    for (first, body, why) in [
        (0x10, &b"\0\x04MQTT\x05\x03\0\0\0\0\x01c"[..], "the reserved CONNECT flag"),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\x03\x21\0\0\0\x01c", "receive maximum 0"),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\x05\x27\0\0\0\0\0\x01c", "maximum packet size 0"),
        (0x10, b"\0\x04MQTT\x05\x02\0\0\x06\x22\0\x01\x22\0\x02\0\x01c", "a property that is there twice"),
        (0x30, b"\0\x01a\x03\x23\0\0", "topic alias 0"),
        (0x30, b"\0\x01#\0", "a wildcard in a topic"),
        (0x30, b"\0\0\0", "an empty topic without an alias"),
        (0x30, b"\0\x01a\x02\x01\x07", "payload format 7"),
        (0x30, b"\0\x01a\x01\x01\x01", "a property that runs over the end of its bag"),
        (0x82, b"\0\x01\0\0\x01a\xc1", "reserved subscription options"),
        (0x82, b"\0\x01\x02\x0b\0\0\x01a\x01", "subscription identifier 0"),
        (0x82, b"\0\x01\0\0\x0a$share/g/a\x05", "no-local on a shared subscription"),
        (0x82, b"\0\0\0\0\x01a\x01", "packet id 0"),
        (0x40, b"\0\x01\0\0x", "bytes behind the last field"),
    ] {
        assert!(read_v5(first, body).is_err(), "{why}");
        assert!(theirs(first, body).is_ok(), "{why}: rumqttd refuses it now");
    }
}

#[test]
fn we_read_the_packets_that_rumqttd_writes() {
    let mut bytes = BytesMut::new();
    let filter = protocol::Filter {
        path: "a/#".to_owned(),
        qos: protocol::QoS::ExactlyOnce,
        nolocal: true,
        preserve_retain: true,
        retain_forward_rule: protocol::RetainForwardRule::Never,
    };
    let subscribe = protocol::Subscribe { pkid: 9, filters: vec![filter] };
    let properties = protocol::SubscribeProperties {
        id: Some(300),
        user_properties: vec![("k".to_owned(), "v".to_owned())],
    };
    V5.write(protocol::Packet::Subscribe(subscribe, Some(properties)), &mut bytes).unwrap();
    let Ok(Read::Packet(Packet::Subscribe(read))) = read(&mut bytes, Version::V5, 1 << 20) else {
        panic!("no SUBSCRIBE")
    };
    assert_eq!((read.id, read.subscription_id, read.filters[0].qos), (9, Some(300), 2));
    assert!(read.filters[0].no_local && read.filters[0].retain_as_published);
}

proptest! {
    /// PUBLISH, CONNECT, DISCONNECT and acknowledgements are read by us alone: rumqttd is a second opinion on them.
    #[test]
    fn a_packet_of_3_1_1_is_the_same_after_rumqttd_has_read_and_written_it(packet in any_packet()) {
        let packet = as_v4(packet).filter(|packet| match packet {
            // It takes a password for text, and an empty one for none.
            Packet::Connect(connect) => connect.password.as_ref().is_none_or(|password| !password.is_empty() && std::str::from_utf8(password).is_ok()),
            _ => true,
        });
        if let Some(packet) = packet {
            let (mut ours, mut theirs) = (BytesMut::new(), BytesMut::new());
            write::any(&mut ours, Version::V4, &packet);
            let copy = ours.clone();
            let read_by_them = V4.read_mut(&mut ours, 1 << 20);
            prop_assert!(read_by_them.is_ok() && ours.is_empty(), "{packet:?}: {copy:02x?}: {read_by_them:?}");
            V4.write(read_by_them.unwrap(), &mut theirs).unwrap();
            let read_by_us = read(&mut theirs, Version::V4, 1 << 20);
            prop_assert!(theirs.is_empty());
            match read_by_us {
                Ok(Read::Packet(read)) => prop_assert_eq!(read, packet),
                other => prop_assert!(false, "{packet:?}: {other:?}"),
            }
        }
    }
}
