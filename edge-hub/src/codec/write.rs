//! Adds packets to a buffer. What a message costs is its topic and its payload, copied once.

use bytes::{BufMut as _, BytesMut};

use super::connect;
use super::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Publish, PublishProperties, RetainHandling, SubAck,
    Subscribe, Unsubscribe, Version,
};

/// The largest body of a packet (MQTT 3.1.1 section 2.2.3).
const BODY_BYTES_MAX: usize = 268_435_455;

/// A PUBLISH to write: a message, and how this receiver gets it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// A topic name, UTF-8 of at most 65,535 bytes; empty only with an alias that the receiver knows.
    pub topic: &'a [u8],
    /// As published.
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    /// 0 with QoS 0, else not 0.
    pub id: u16,
    /// Sent before.
    pub dup: bool,
    /// As the receiver is to see it.
    pub retain: bool,
    /// MQTT 5: as published. Its topic alias, subscription identifiers and expiry are not written: they are another
    /// connection's; those of this one stand below.
    pub properties: Option<&'a PublishProperties>,
    /// MQTT 5: seconds left.
    pub message_expiry: Option<u32>,
    /// MQTT 5: an alias to use for the topic from now on, or in its place.
    pub topic_alias: Option<u16>,
    /// MQTT 5: of the receiver's subscriptions that match.
    pub subscription_ids: &'a [u32],
}

impl Message<'_> {
    /// Bytes of the whole packet, to be held against the receiver's maximum.
    pub fn packet_bytes(&self, version: Version) -> usize {
        let body = self.body_bytes(version);
        1 + variable_bytes(body) + body
    }

    fn body_bytes(&self, version: Version) -> usize {
        let properties = match version {
            Version::V4 => 0,
            Version::V5 => 1,
        };
        2 + self.topic.len() + if self.qos == 0 { 0 } else { 2 } + properties + self.payload.len()
    }
}

/// Writes a PUBLISH.
pub fn publish(out: &mut BytesMut, version: Version, message: &Message<'_>) {
    let body = message.body_bytes(version);
    out.reserve(5 + body);
    out.put_u8(0x30 | u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain));
    variable(out, body);
    binary(out, message.topic);
    if message.qos != 0 {
        out.put_u16(message.id);
    }
    out.extend_from_slice(message.payload);
}

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
pub fn ack(out: &mut BytesMut, _version: Version, kind: AckKind, ack: &Ack) {
    let [high, low] = ack.id.to_be_bytes();
    out.extend_from_slice(&[kind as u8, 2, high, low]);
}

/// Writes a CONNECT of the version that stands in it.
pub fn connect(out: &mut BytesMut, connect: &Connect) {
    connect::write(out, connect);
}

/// Writes a CONNACK.
pub fn connack(out: &mut BytesMut, _version: Version, connack: &ConnAck) {
    out.extend_from_slice(&[0x20, 2, u8::from(connack.is_session_present), connack.reason.v4_connack()]);
}

/// Writes a SUBSCRIBE.
pub fn subscribe(out: &mut BytesMut, _version: Version, subscribe: &Subscribe) {
    packet(out, 0x82, |body| {
        body.put_u16(subscribe.id);
        for filter in &subscribe.filters {
            binary(body, filter.path.as_bytes());
            let retain_handling = match filter.retain_handling {
                RetainHandling::Send => 0,
                RetainHandling::SendIfNew => 1,
                RetainHandling::DoNotSend => 2,
            };
            let options = u8::from(filter.no_local) << 2
                | u8::from(filter.retain_as_published) << 3
                | retain_handling << 4
                | filter.qos;
            body.put_u8(options);
        }
    });
}

/// Writes a SUBACK. In MQTT 3.1.1 every failure is 0x80.
pub fn suback(out: &mut BytesMut, _version: Version, suback: &SubAck) {
    packet(out, 0x90, |body| {
        body.put_u16(suback.id);
        body.extend(
            suback.reasons.iter().map(|reason| if reason.is_failure() { 0x80 } else { reason.code() }),
        );
    });
}

/// Writes an UNSUBSCRIBE.
pub fn unsubscribe(out: &mut BytesMut, _version: Version, unsubscribe: &Unsubscribe) {
    packet(out, 0xa2, |body| {
        body.put_u16(unsubscribe.id);
        for filter in &unsubscribe.filters {
            binary(body, filter.as_bytes());
        }
    });
}

/// Writes an UNSUBACK; MQTT 3.1.1 has no reasons in it.
pub fn unsuback(out: &mut BytesMut, _version: Version, unsuback: &SubAck) {
    packet(out, 0xb0, |body| body.put_u16(unsuback.id));
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
pub fn disconnect(out: &mut BytesMut, _version: Version, _disconnect: &Disconnect) {
    out.extend_from_slice(&[0xe0, 0]);
}

/// Writes an AUTH, which only MQTT 5 has.
pub fn auth(_out: &mut BytesMut, _auth: &Auth) {}

/// Writes any packet.
pub fn any(out: &mut BytesMut, version: Version, packet: &Packet) {
    match packet {
        Packet::Connect(packet) => connect(out, packet),
        Packet::ConnAck(packet) => connack(out, version, packet),
        Packet::Publish(Publish { topic, payload, qos, id, dup, retain, properties }) => {
            let (qos, id, dup, retain) = (*qos, *id, *dup, *retain);
            let properties = properties.as_deref();
            let message = Message {
                topic,
                payload,
                qos,
                id,
                dup,
                retain,
                properties,
                message_expiry: properties.and_then(|p| p.message_expiry),
                topic_alias: properties.and_then(|p| p.topic_alias),
                subscription_ids: properties.map_or(&[], |p| &p.subscription_ids),
            };
            publish(out, version, &message);
        }
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

/// Writes a packet whose length is known only when its body is written.
pub(super) fn packet(out: &mut BytesMut, first: u8, body: impl FnOnce(&mut BytesMut)) {
    let mut bytes = BytesMut::new();
    body(&mut bytes);
    out.reserve(5 + bytes.len());
    out.put_u8(first);
    variable(out, bytes.len());
    out.extend_from_slice(&bytes);
}

/// Bytes behind their two-byte length.
pub(super) fn binary(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).expect("the caller bounds topics and texts to 65,535 bytes"));
    out.extend_from_slice(bytes);
}

/// A variable byte integer.
pub(super) fn variable(out: &mut BytesMut, value: usize) {
    assert!(value <= BODY_BYTES_MAX, "the caller bounds a packet well below 256 MiB");
    let mut rest = value;
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

/// Bytes of a variable byte integer.
pub(super) fn variable_bytes(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}
