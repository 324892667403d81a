//! Whatever is written is read back as it was, in both versions; whatever bytes come, they are read or refused.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::codec::message::Message;
use crate::codec::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, Filter, Packet, Publish,
    PublishProperties, ReasonProperties, RetainHandling, SubAck, Subscribe, Unsubscribe, Version, Will,
};
use crate::codec::read::{Read, read};
use crate::codec::reason::Reason;
use crate::codec::text::{Text, UserProperties};
use crate::codec::write;

fn text() -> impl Strategy<Value = Text> {
    "[a-zé/$ ]{0,20}".prop_map(|text| Text::from(&text[..]))
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zé/$ ]{1,40}"
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec(("[a-z]{0,5}", "[a-zé]{0,5}"), 0..4)
        .prop_map(|pairs| pairs.iter().map(|(n, v)| (&n[..], &v[..])).collect())
}

fn reason_properties() -> impl Strategy<Value = Option<Box<ReasonProperties>>> {
    (option::of(text()), user()).prop_map(|(reason_string, user_properties)| {
        let properties = ReasonProperties { reason_string, user_properties };
        (properties != ReasonProperties::default()).then(|| Box::new(properties))
    })
}

fn message_properties() -> impl Strategy<Value = PublishProperties> {
    let texts = (option::of(text()), option::of(topic()), option::of(binary()), user());
    (option::of(any::<bool>()), option::of(any::<u32>()), texts).prop_map(
        |(is_utf8, message_expiry, (content_type, response_topic, correlation_data, user_properties))| {
            PublishProperties {
                is_utf8,
                message_expiry,
                response_topic: response_topic.map(|topic| Text::from(&topic[..])),
                correlation_data,
                user_properties,
                content_type,
                ..PublishProperties::default()
            }
        },
    )
}

fn publish() -> impl Strategy<Value = Packet> {
    let own = (option::of(1u16..), vec(1u32..268_435_456, 0..3));
    let flags = (0u8..3, 1u16.., any::<bool>(), any::<bool>());
    (topic(), vec(any::<u8>(), 0..300), flags, message_properties(), own).prop_map(
        |(topic, payload, (qos, id, dup, retain), properties, (topic_alias, subscription_ids))| {
            let properties = PublishProperties { topic_alias, subscription_ids, ..properties };
            Packet::Publish(Publish {
                topic: topic.into(),
                payload: payload.into(),
                qos,
                id: if qos == 0 { 0 } else { id },
                dup: dup && qos != 0,
                retain,
                properties: (properties != PublishProperties::default()).then(|| Box::new(properties)),
            })
        },
    )
}

fn will() -> impl Strategy<Value = Will> {
    (topic(), binary(), 0u8..3, any::<bool>(), any::<u32>(), message_properties()).prop_map(
        |(topic, payload, qos, retain, delay, properties)| {
            let properties = (properties != PublishProperties::default()).then(|| Box::new(properties));
            Will { topic, payload, qos, retain, delay, properties }
        },
    )
}

fn connect() -> impl Strategy<Value = Packet> {
    let properties = (
        option::of(any::<u32>()),
        option::of(1u16..),
        option::of(1u32..),
        any::<u16>(),
        any::<bool>(),
        any::<bool>(),
    );
    let authentication = option::of((text(), option::of(binary())));
    let properties = (properties, user(), authentication).prop_map(
        |(
            (session_expiry, receive_max, packet_bytes_max, topic_alias_max, response, problem),
            user,
            auth,
        )| {
            ConnectProperties {
                session_expiry,
                receive_max,
                packet_bytes_max,
                topic_alias_max,
                wants_response_information: response,
                wants_problem_information: problem,
                user_properties: user,
                authentication_method: auth.as_ref().map(|(method, _)| method.clone()),
                authentication_data: auth.and_then(|(_, data)| data),
            }
        },
    );
    let login = option::of((topic(), option::of(vec(any::<u8>(), 0..20))));
    ("[a-zé/]{0,20}", login, any::<bool>(), any::<u16>(), option::of(will()), properties).prop_map(
        |(client_id, login, is_clean, keep_alive, will, properties)| {
            Packet::Connect(Box::new(Connect {
                version: Version::V5,
                client_id,
                user_name: login.as_ref().map(|(user_name, _)| user_name.clone()),
                password: login.and_then(|(_, password)| password),
                is_clean,
                is_bridge: false,
                keep_alive,
                will,
                properties,
            }))
        },
    )
}

fn connack() -> impl Strategy<Value = Packet> {
    let numbers = (option::of(any::<u32>()), option::of(1u16..), option::of(0u8..2), option::of(1u32..));
    let more = (option::of(any::<u16>()), option::of(any::<u16>()));
    let flags = proptest::array::uniform4(option::of(any::<bool>()));
    let texts = (proptest::array::uniform5(option::of(text())), option::of(binary()), user());
    let reason =
        prop_oneof![Just(Reason::SUCCESS), Just(Reason::NOT_AUTHORIZED), Just(Reason::SERVER_UNAVAILABLE)];
    (any::<bool>(), reason, numbers, more, flags, texts).prop_map(
        |(
            is_session_present,
            reason,
            numbers,
            more,
            flags,
            (texts, authentication_data, user_properties),
        )| {
            let [assigned, reason_string, response_information, server_reference, method] = texts;
            Packet::ConnAck(Box::new(ConnAck {
                is_session_present,
                reason,
                properties: ConnAckProperties {
                    session_expiry: numbers.0,
                    receive_max: numbers.1,
                    qos_max: numbers.2,
                    packet_bytes_max: numbers.3,
                    topic_alias_max: more.0,
                    server_keep_alive: more.1,
                    is_retain_available: flags[0],
                    are_wildcards_available: flags[1],
                    are_subscription_ids_available: flags[2],
                    are_shared_subscriptions_available: flags[3],
                    assigned_client_id: assigned,
                    reason_string,
                    response_information,
                    server_reference,
                    authentication_method: method,
                    authentication_data,
                    user_properties,
                },
            }))
        },
    )
}

fn ack() -> impl Strategy<Value = Packet> {
    (0u8..4, 1u16.., any::<bool>(), reason_properties()).prop_map(|(kind, id, is_success, properties)| {
        let reason = match (is_success, kind) {
            (true, _) => Reason::SUCCESS,
            (false, 0 | 1) => Reason::QUOTA_EXCEEDED,
            (false, _) => Reason::PACKET_ID_NOT_FOUND,
        };
        let ack = Ack { id, reason, properties };
        match kind {
            0 => Packet::PubAck(ack),
            1 => Packet::PubRec(ack),
            2 => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        }
    })
}

fn subscribe() -> impl Strategy<Value = Packet> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    let filter = (topic(), 0u8..3, any::<bool>(), any::<bool>(), handling).prop_map(
        |(path, qos, no_local, retain_as_published, retain_handling)| Filter {
            no_local: no_local && !path.starts_with("$share/"),
            path,
            qos,
            retain_as_published,
            retain_handling,
        },
    );
    (1u16.., vec(filter, 1..5), option::of(1u32..268_435_456), user()).prop_map(
        |(id, filters, subscription_id, user_properties)| {
            Packet::Subscribe(Subscribe { id, filters, subscription_id, user_properties })
        },
    )
}

fn unsubscribe() -> impl Strategy<Value = Packet> {
    (1u16.., vec(topic(), 1..5), user()).prop_map(|(id, filters, user_properties)| {
        Packet::Unsubscribe(Unsubscribe { id, filters, user_properties })
    })
}

fn suback() -> impl Strategy<Value = Packet> {
    let reason = prop_oneof![
        Just(Reason::SUCCESS),
        Just(Reason::GRANTED_QOS_1),
        Just(Reason::GRANTED_QOS_2),
        Just(Reason::UNSPECIFIED)
    ];
    (1u16.., vec(reason, 1..5), reason_properties())
        .prop_map(|(id, reasons, properties)| Packet::SubAck(SubAck { id, reasons, properties }))
}

fn unsuback() -> impl Strategy<Value = Packet> {
    let reason = prop_oneof![Just(Reason::SUCCESS), Just(Reason::NO_SUBSCRIPTION_EXISTED)];
    (1u16.., vec(reason, 1..5), reason_properties())
        .prop_map(|(id, reasons, properties)| Packet::UnsubAck(SubAck { id, reasons, properties }))
}

fn disconnect() -> impl Strategy<Value = Packet> {
    let reason =
        prop_oneof![Just(Reason::SUCCESS), Just(Reason::DISCONNECT_WITH_WILL), Just(Reason::SERVER_BUSY)];
    (reason, option::of(any::<u32>()), option::of(text()), option::of(text()), user()).prop_map(
        |(reason, session_expiry, reason_string, server_reference, user_properties)| {
            let disconnect =
                Disconnect { reason, session_expiry, reason_string, server_reference, user_properties };
            Packet::Disconnect(Box::new(disconnect))
        },
    )
}

fn auth() -> impl Strategy<Value = Packet> {
    let reason = prop_oneof![Just(Reason::SUCCESS), Just(Reason::CONTINUE_AUTHENTICATION)];
    (reason, option::of(text()), option::of(binary()), option::of(text()), user()).prop_map(
        |(reason, authentication_method, authentication_data, reason_string, user_properties)| {
            Packet::Auth(Box::new(Auth {
                reason,
                authentication_method,
                authentication_data,
                reason_string,
                user_properties,
            }))
        },
    )
}

pub(super) fn any_packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect(),
        connack(),
        publish(),
        ack(),
        subscribe(),
        suback(),
        unsubscribe(),
        unsuback(),
        disconnect(),
        auth(),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
    ]
}

/// What is left of a packet in MQTT 3.1.1; `None` when that does not have it.
pub(super) fn as_v4(packet: Packet) -> Option<Packet> {
    Some(match packet {
        Packet::Connect(mut connect) => {
            connect.version = Version::V4;
            connect.properties = ConnectProperties::default();
            if let Some(will) = &mut connect.will {
                (will.delay, will.properties) = (0, None);
            }
            Packet::Connect(connect)
        }
        Packet::ConnAck(mut connack) => {
            connack.properties = ConnAckProperties::default();
            Packet::ConnAck(connack)
        }
        Packet::Publish(publish) => Packet::Publish(Publish { properties: None, ..publish }),
        Packet::PubAck(ack) => Packet::PubAck(Ack::success(ack.id)),
        Packet::PubRec(ack) => Packet::PubRec(Ack::success(ack.id)),
        Packet::PubRel(ack) => Packet::PubRel(Ack::success(ack.id)),
        Packet::PubComp(ack) => Packet::PubComp(Ack::success(ack.id)),
        Packet::Subscribe(mut subscribe) => {
            subscribe.filters = subscribe.filters.into_iter().map(|f| Filter::v4(f.path, f.qos)).collect();
            (subscribe.subscription_id, subscribe.user_properties) = (None, UserProperties::default());
            Packet::Subscribe(subscribe)
        }
        Packet::SubAck(ack) => Packet::SubAck(SubAck { properties: None, ..ack }),
        Packet::UnsubAck(ack) => {
            Packet::UnsubAck(SubAck { id: ack.id, reasons: Vec::new(), properties: None })
        }
        Packet::Unsubscribe(unsubscribe) => {
            Packet::Unsubscribe(Unsubscribe { user_properties: UserProperties::default(), ..unsubscribe })
        }
        Packet::Disconnect(_) => Packet::Disconnect(Box::new(Disconnect::because(Reason::SUCCESS))),
        Packet::Auth(_) => return None,
        ping @ (Packet::PingReq | Packet::PingResp) => ping,
    })
}

fn read_back(packet: &Packet, version: Version) -> Packet {
    let mut bytes = BytesMut::new();
    write::any(&mut bytes, version, packet);
    match read(&mut bytes, version, 1 << 20) {
        Ok(Read::Packet(read)) if bytes.is_empty() => read,
        other => panic!("{packet:?}: {other:?}, and {} bytes left", bytes.len()),
    }
}

proptest! {
    #[test]
    fn every_packet_of_5_reads_back_as_it_was_written(packet in any_packet()) {
        prop_assert_eq!(read_back(&packet, Version::V5), packet);
    }

    #[test]
    fn every_packet_of_3_1_1_reads_back_without_what_only_5_has(packet in any_packet()) {
        if let Some(packet) = as_v4(packet) {
            prop_assert_eq!(read_back(&packet, Version::V4), packet);
        }
    }

    #[test]
    fn a_message_is_as_long_as_it_says(packet in publish(), is_v5 in any::<bool>()) {
        let Packet::Publish(publish) = packet else { unreachable!() };
        let version = if is_v5 { Version::V5 } else { Version::V4 };
        let (message, mut bytes) = (Message::from(&publish), BytesMut::new());
        message.write(&mut bytes, version);
        prop_assert_eq!(bytes.len(), message.packet_bytes(version));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..64), is_v5 in any::<bool>()) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let version = if is_v5 { Version::V5 } else { Version::V4 };
        while let Ok(Read::Packet(_)) = read(&mut buffer, version, 1024) {}
    }

    #[test]
    fn a_packet_with_a_wrong_byte_is_read_or_refused_and_what_is_read_can_be_written(
        packet in any_packet(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = BytesMut::new();
        write::any(&mut bytes, Version::V5, &packet);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Read::Packet(read)) = read(&mut bytes, Version::V5, 1024)
            && !matches!(read, Packet::Connect(_))
        {
            prop_assert_eq!(read_back(&read, Version::V5), read);
        }
    }
}
