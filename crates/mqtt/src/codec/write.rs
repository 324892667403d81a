//! Adds packets to a buffer; PUBLISH is in [`super::message`].

use bytes::{BufMut as _, BytesMut};

use super::connect;
use super::message::Message;
use super::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, RetainHandling, SubAck, Subscribe, Unsubscribe, Version,
};
use super::primitives::{BagOut, binary, packet, reason_properties};
use super::properties::id;
use super::reason::Reason;
use super::text::UserProperties;

/// Which acknowledgement of a message, as its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AckKind {
    /// QoS 1.
    PubAck = 0x40,
    /// QoS 2, first.
    PubRec = 0x50,
    /// QoS 2, second.
    PubRel = 0x62,
    /// QoS 2, third.
    PubComp = 0x70,
}

/// Writes a PUBACK, PUBREC, PUBREL or PUBCOMP. MQTT 3.1.1 has no reason codes: there, a failure looks like success.
#[inline]
pub fn ack(out: &mut BytesMut, version: Version, kind: AckKind, ack: &Ack) {
    let [high, low] = ack.id.to_be_bytes();
    match (version, ack.properties.as_deref(), ack.reason) {
        (Version::V4, ..) | (Version::V5, None, Reason::SUCCESS) => {
            out.extend_from_slice(&[kind as u8, 2, high, low]);
        }
        (Version::V5, None, reason) => out.extend_from_slice(&[kind as u8, 3, high, low, reason.code()]),
        (Version::V5, Some(something), reason) => packet(out, kind as u8, |body| {
            body.extend_from_slice(&[high, low, reason.code()]);
            reason_properties(body, Some(something));
        }),
    }
}

/// Writes a CONNECT of the version that it names.
pub fn connect(out: &mut BytesMut, connect: &Connect) {
    connect::write(out, connect);
}

/// Writes a CONNACK. MQTT 3.1.1 has no properties, and of the reason only the nearest of its six return codes.
pub fn connack(out: &mut BytesMut, version: Version, connack: &ConnAck) {
    let is_present = u8::from(connack.is_session_present);
    if version == Version::V4 {
        return out.extend_from_slice(&[0x20, 2, is_present, connack.reason.v4_connack()]);
    }
    let p = &connack.properties;
    packet(out, 0x20, |body| {
        body.extend_from_slice(&[is_present, connack.reason.code()]);
        let mut bag = BagOut::default();
        bag.u32(id::SESSION_EXPIRY, p.session_expiry);
        bag.u16(id::RECEIVE_MAX, p.receive_max);
        bag.flag(id::QOS_MAX, p.qos_max.map(|qos| qos != 0));
        bag.flag(id::RETAIN_AVAILABLE, p.is_retain_available);
        bag.u32(id::PACKET_BYTES_MAX, p.packet_bytes_max);
        bag.text(id::ASSIGNED_CLIENT_ID, p.assigned_client_id.as_ref());
        bag.u16(id::TOPIC_ALIAS_MAX, p.topic_alias_max);
        bag.text(id::REASON_STRING, p.reason_string.as_ref());
        bag.flag(id::WILDCARDS_AVAILABLE, p.are_wildcards_available);
        bag.flag(id::SUBSCRIPTION_IDS_AVAILABLE, p.are_subscription_ids_available);
        bag.flag(id::SHARED_SUBSCRIPTIONS_AVAILABLE, p.are_shared_subscriptions_available);
        bag.u16(id::SERVER_KEEP_ALIVE, p.server_keep_alive);
        bag.text(id::RESPONSE_INFORMATION, p.response_information.as_ref());
        bag.text(id::SERVER_REFERENCE, p.server_reference.as_ref());
        bag.text(id::AUTHENTICATION_METHOD, p.authentication_method.as_ref());
        bag.binary(id::AUTHENTICATION_DATA, p.authentication_data.as_ref());
        bag.end(body, &p.user_properties);
    });
}

/// Writes a SUBSCRIBE. MQTT 3.1.1 has the QoS of each filter and none of its other options.
pub fn subscribe(out: &mut BytesMut, version: Version, subscribe: &Subscribe) {
    packet(out, 0x82, |body| {
        body.put_u16(subscribe.id);
        if version == Version::V5 {
            let mut bag = BagOut::default();
            bag.variable(id::SUBSCRIPTION_ID, subscribe.subscription_id);
            bag.end(body, &subscribe.user_properties);
        }
        for filter in &subscribe.filters {
            binary(body, filter.path.as_bytes());
            let retain_handling = match filter.retain_handling {
                RetainHandling::Send => 0,
                RetainHandling::SendIfNew => 1,
                RetainHandling::DoNotSend => 2,
            };
            body.put_u8(match version {
                Version::V4 => filter.qos,
                Version::V5 => {
                    filter.qos
                        | u8::from(filter.no_local) << 2
                        | u8::from(filter.retain_as_published) << 3
                        | retain_handling << 4
                }
            });
        }
    });
}

/// Writes a SUBACK. In MQTT 3.1.1 every failure is 0x80.
pub fn suback(out: &mut BytesMut, version: Version, suback: &SubAck) {
    packet(out, 0x90, |body| {
        body.put_u16(suback.id);
        match version {
            Version::V4 => body.extend(suback.reasons.iter().map(|reason| reason.v4_suback())),
            Version::V5 => {
                reason_properties(body, suback.properties.as_deref());
                body.extend(suback.reasons.iter().map(|reason| reason.code()));
            }
        }
    });
}

/// Writes an UNSUBSCRIBE.
pub fn unsubscribe(out: &mut BytesMut, version: Version, unsubscribe: &Unsubscribe) {
    packet(out, 0xa2, |body| {
        body.put_u16(unsubscribe.id);
        if version == Version::V5 {
            BagOut::default().end(body, &unsubscribe.user_properties);
        }
        for filter in &unsubscribe.filters {
            binary(body, filter.as_bytes());
        }
    });
}

/// Writes an UNSUBACK; MQTT 3.1.1 has no reasons in it.
pub fn unsuback(out: &mut BytesMut, version: Version, unsuback: &SubAck) {
    packet(out, 0xb0, |body| {
        body.put_u16(unsuback.id);
        if version == Version::V5 {
            reason_properties(body, unsuback.properties.as_deref());
            body.extend(unsuback.reasons.iter().map(|reason| reason.code()));
        }
    });
}

/// Writes a PINGREQ.
pub fn pingreq(out: &mut BytesMut) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Writes a PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Writes a DISCONNECT. In MQTT 3.1.1 only a client may.
pub fn disconnect(out: &mut BytesMut, version: Version, disconnect: &Disconnect) {
    if version == Version::V4 {
        return out.extend_from_slice(&[0xe0, 0]);
    }
    let mut bag = BagOut::default();
    bag.u32(id::SESSION_EXPIRY, disconnect.session_expiry);
    bag.text(id::REASON_STRING, disconnect.reason_string.as_ref());
    bag.text(id::SERVER_REFERENCE, disconnect.server_reference.as_ref());
    reason_and_bag(out, 0xe0, disconnect.reason, bag, &disconnect.user_properties);
}

/// Writes an AUTH, which only MQTT 5 has.
pub fn auth(out: &mut BytesMut, auth: &Auth) {
    let mut bag = BagOut::default();
    bag.text(id::AUTHENTICATION_METHOD, auth.authentication_method.as_ref());
    bag.binary(id::AUTHENTICATION_DATA, auth.authentication_data.as_ref());
    bag.text(id::REASON_STRING, auth.reason_string.as_ref());
    reason_and_bag(out, 0xf0, auth.reason, bag, &auth.user_properties);
}

/// Leaves out what may be: an empty bag, and before it the reason when it is success.
fn reason_and_bag(out: &mut BytesMut, first: u8, reason: Reason, bag: BagOut, user: &UserProperties) {
    packet(out, first, |body| match bag.is_empty() && user.is_empty() {
        true if reason == Reason::SUCCESS => {}
        true => body.put_u8(reason.code()),
        false => {
            body.put_u8(reason.code());
            bag.end(body, user);
        }
    });
}

/// Writes a packet of any kind: for programs that only know it at run time, as tests and fuzzers do.
pub fn any(out: &mut BytesMut, version: Version, packet: &Packet) {
    match packet {
        Packet::Connect(packet) => connect(out, packet),
        Packet::ConnAck(packet) => connack(out, version, packet),
        Packet::Publish(packet) => Message::from(packet).write(out, version),
        Packet::PubAck(packet) => ack(out, version, AckKind::PubAck, packet),
        Packet::PubRec(packet) => ack(out, version, AckKind::PubRec, packet),
        Packet::PubRel(packet) => ack(out, version, AckKind::PubRel, packet),
        Packet::PubComp(packet) => ack(out, version, AckKind::PubComp, packet),
        Packet::Subscribe(packet) => subscribe(out, version, packet),
        Packet::SubAck(packet) => suback(out, version, packet),
        Packet::Unsubscribe(packet) => unsubscribe(out, version, packet),
        Packet::UnsubAck(packet) => unsuback(out, version, packet),
        Packet::PingReq => pingreq(out),
        Packet::PingResp => pingresp(out),
        Packet::Disconnect(packet) => disconnect(out, version, packet),
        Packet::Auth(packet) => auth(out, packet),
    }
}
