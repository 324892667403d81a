//! MQTT 3.1.1 packets to and from bytes, through rumqttd's codec, with the checks of the specification that it leaves out.
//!
//! A PUBLISH is written here and its packet id is read here: rumqttd keeps those fields to itself.

use bytes::{BufMut, Bytes, BytesMut};
use edge_core::dialect::filter;
use rumqttd::protocol::v4::{self, PacketType, V4};
use rumqttd::protocol::{self, Protocol};

/// What both ends of a connection can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Box<Connect>),
    Publish(Publish),
    PubAck(u16),
    Subscribe { id: u16, filters: Vec<(String, u8)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect,
    ConnAck(u8),
    SubAck { id: u16, is_granted: bool },
    UnsubAck,
    PingResp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub client_id: String,
    pub user_name: Option<String>,
    pub password: Option<String>,
    pub is_clean: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    pub will: Option<Will>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// UTF-8; a slice of the bytes that were read.
    pub topic: Bytes,
    pub payload: Bytes,
    pub qos: u8,
    /// 0 when the QoS is 0.
    pub id: u16,
    pub retain: bool,
}

impl Publish {
    /// The topic as text.
    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("read() lets only UTF-8 topics through")
    }
}

/// Why the bytes are no packet. The connection is closed (MQTT 3.1.1 section 4.8).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// A CONNECT of another protocol level: the one case that gets an answer (CONNACK 1).
    #[error("MQTT protocol level {0}; only 4 (MQTT 3.1.1) is spoken here")]
    Level(u8),
    #[error("a packet of {0} bytes, more than allowed here")]
    TooLarge(usize),
    #[error("malformed packet: {0}")]
    Packet(String),
}

fn packet(why: &str) -> Malformed {
    Malformed::Packet(why.to_owned())
}

/// What a look at the buffer gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Packet(Packet),
    /// At least so many bytes are missing.
    Missing(usize),
}

/// Takes the first packet off the buffer. `bytes_max` bounds what follows the fixed header.
pub(crate) fn read(buffer: &mut BytesMut, bytes_max: usize) -> Result<Read, Malformed> {
    let header = match v4::check(buffer.iter(), bytes_max) {
        Ok(header) => header,
        Err(protocol::Error::InsufficientBytes(missing)) => return Ok(Read::Missing(missing)),
        Err(protocol::Error::PayloadSizeLimitExceeded(size)) => return Err(Malformed::TooLarge(size)),
        Err(error) => return Err(Malformed::Packet(error.to_string())),
    };
    let kind = header.packet_type().map_err(|error| Malformed::Packet(error.to_string()))?;
    let body = &buffer[header.fixed_header_len..header.frame_length()];
    check_fixed_header(kind, header.byte1, header.remaining_len)?;
    if matches!(kind, PacketType::Connect) {
        check_connect(body)?;
    }
    // The publish id stands behind the topic; rumqttd has checked by then that both are there.
    let id_at = body.first_chunk::<2>().map_or(0, |length| 2 + usize::from(u16::from_be_bytes(*length)));
    let id = body.get(id_at..id_at + 2).map_or(0, |id| u16::from_be_bytes([id[0], id[1]]));

    let read = V4.read_mut(buffer, bytes_max).map_err(|error| match error {
        protocol::Error::InvalidProtocolLevel(level) => Malformed::Level(level),
        error => Malformed::Packet(error.to_string()),
    })?;
    let read = match read {
        protocol::Packet::Connect(connect, _, will, _, login) => {
            let text = |text: String| Some(text).filter(|text| !text.is_empty());
            let (user_name, password) = login.map_or((None, None), |l| (text(l.username), text(l.password)));
            let will = match will {
                None => None,
                Some(will) => Some(Will {
                    topic: String::from_utf8(will.topic.to_vec())
                        .map_err(|_| packet("the will topic is not UTF-8"))?,
                    // A copy, so that the bytes of the CONNECT are not kept as long as the connection.
                    payload: Bytes::copy_from_slice(&will.message),
                    qos: will.qos as u8,
                }),
            };
            Packet::Connect(Box::new(Connect {
                client_id: connect.client_id,
                user_name,
                password,
                is_clean: connect.clean_session,
                keep_alive: connect.keep_alive,
                will,
            }))
        }
        protocol::Packet::Publish(publish, _) => {
            let qos = (header.byte1 & 0b0110) >> 1;
            let topic = std::str::from_utf8(&publish.topic).map_err(|_| packet("a topic is not UTF-8"))?;
            filter::check_topic(topic).map_err(packet)?;
            Packet::Publish(Publish {
                id: if qos == 0 { 0 } else { id },
                qos,
                retain: publish.retain,
                topic: publish.topic,
                payload: publish.payload,
            })
        }
        protocol::Packet::PubAck(ack, _) => Packet::PubAck(ack.pkid),
        protocol::Packet::Subscribe(subscribe, _) => {
            let filters = subscribe.filters.into_iter().map(|f| (f.path, f.qos as u8)).collect();
            Packet::Subscribe { id: not_zero(subscribe.pkid)?, filters }
        }
        protocol::Packet::Unsubscribe(unsubscribe, _) if unsubscribe.filters.is_empty() => {
            return Err(packet("an UNSUBSCRIBE without a filter"));
        }
        protocol::Packet::Unsubscribe(unsubscribe, _) => {
            Packet::Unsubscribe { id: not_zero(unsubscribe.pkid)?, filters: unsubscribe.filters }
        }
        protocol::Packet::PingReq(_) => Packet::PingReq,
        protocol::Packet::PingResp(_) => Packet::PingResp,
        protocol::Packet::Disconnect(..) => Packet::Disconnect,
        // Success stands for 0; the other codes keep rumqttd's names for 1 to 5.
        protocol::Packet::ConnAck(ack, _) => Packet::ConnAck(connack_code(ack.code)),
        protocol::Packet::SubAck(ack, _) => Packet::SubAck {
            id: ack.pkid,
            is_granted: !ack.return_codes.contains(&protocol::SubscribeReasonCode::Failure),
        },
        protocol::Packet::UnsubAck(..) => Packet::UnsubAck,
        protocol::Packet::PubRec(..) | protocol::Packet::PubRel(..) | protocol::Packet::PubComp(..) => {
            return Err(packet("QoS 2 is not spoken here"));
        }
    };
    Ok(Read::Packet(read))
}

fn not_zero(id: u16) -> Result<u16, Malformed> {
    // MQTT-2.3.1-1.
    if id == 0 { Err(packet("packet id 0")) } else { Ok(id) }
}

/// MQTT-2.2.2-1: the flags of the fixed header, and the length where it is fixed.
fn check_fixed_header(kind: PacketType, byte1: u8, length: usize) -> Result<(), Malformed> {
    let flags = byte1 & 0x0f;
    let expected = match kind {
        PacketType::Publish if flags & 0b1110 == 0b1000 => return Err(packet("DUP on QoS 0")),
        PacketType::Publish => flags,
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    if flags != expected {
        return Err(packet("reserved flags of the fixed header are set"));
    }
    let is_empty = matches!(kind, PacketType::PingReq | PacketType::PingResp | PacketType::Disconnect);
    match is_empty && length > 0 {
        true => Err(packet("a packet that has no body has one")),
        false => Ok(()),
    }
}

/// MQTT 3.1.1 section 3.1.2.3: the flags of a CONNECT. A body that is too short is left to the codec.
fn check_connect(body: &[u8]) -> Result<(), Malformed> {
    let Some((b"\0\x04MQTT\x04", [flags, ..])) = body.split_first_chunk::<7>() else { return Ok(()) };
    if flags & 1 != 0 {
        return Err(packet("the reserved CONNECT flag is set"));
    }
    match flags & 0b1100_0000 == 0b0100_0000 {
        true => Err(packet("a password without a user name")),
        false => Ok(()),
    }
}

fn connack_code(code: protocol::ConnectReturnCode) -> u8 {
    use protocol::ConnectReturnCode as Code;
    match code {
        Code::Success => 0,
        Code::RefusedProtocolVersion => 1,
        Code::ClientIdentifierNotValid => 2,
        Code::ServiceUnavailable => 3,
        Code::BadUserNamePassword => 4,
        _ => 5,
    }
}

/// Writes a CONNECT with a clean session.
pub(crate) fn write_connect(
    out: &mut BytesMut,
    client_id: &str,
    user_name: &str,
    password: &str,
    keep_alive: u16,
) {
    let connect = protocol::Connect { keep_alive, client_id: client_id.to_owned(), clean_session: true };
    let login = protocol::Login { username: user_name.to_owned(), password: password.to_owned() };
    write(protocol::Packet::Connect(connect, None, None, None, Some(login)), out);
}

/// Writes a CONNACK.
pub(crate) fn write_connack(out: &mut BytesMut, session_present: bool, code: u8) {
    out.extend_from_slice(&[0x20, 2, u8::from(session_present), code]);
}

/// Writes a PUBLISH of QoS 0 (`id` 0) or 1.
pub(crate) fn write_publish(out: &mut BytesMut, topic: &[u8], payload: &[u8], id: u16) {
    let qos = u8::from(id != 0);
    let length = 2 + topic.len() + 2 * usize::from(qos) + payload.len();
    out.reserve(5 + length);
    out.put_u8(0x30 | (qos << 1));
    v4::write_remaining_length(out, length).expect("the caller bounds a packet well below 256 MiB");
    out.put_u16(u16::try_from(topic.len()).expect("a topic was checked to be at most 65,535 bytes"));
    out.extend_from_slice(topic);
    if id != 0 {
        out.put_u16(id);
    }
    out.extend_from_slice(payload);
}

/// Writes a PUBACK.
pub(crate) fn write_puback(out: &mut BytesMut, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// Writes a SUBSCRIBE of one filter at QoS 1.
pub(crate) fn write_subscribe(out: &mut BytesMut, id: u16, path: &str) {
    let filter = protocol::Filter {
        path: path.to_owned(),
        qos: protocol::QoS::AtLeastOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: protocol::RetainForwardRule::OnEverySubscribe,
    };
    write(protocol::Packet::Subscribe(protocol::Subscribe { pkid: id, filters: vec![filter] }, None), out);
}

/// Writes a SUBACK; a code is the QoS granted, or 0x80.
pub(crate) fn write_suback(out: &mut BytesMut, id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    v4::write_remaining_length(out, 2 + codes.len()).expect("no more codes than the SUBSCRIBE had filters");
    out.put_u16(id);
    out.extend_from_slice(codes);
}

/// Writes an UNSUBACK.
pub(crate) fn write_unsuback(out: &mut BytesMut, id: u16) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[0xb0, 2, high, low]);
}

/// Writes a PINGREQ.
pub(crate) fn write_pingreq(out: &mut BytesMut) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Writes a PINGRESP.
pub(crate) fn write_pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Writes a DISCONNECT.
pub(crate) fn write_disconnect(out: &mut BytesMut) {
    out.extend_from_slice(&[0xe0, 0]);
}

fn write(packet: protocol::Packet, out: &mut BytesMut) {
    V4.write(packet, out).expect("only a packet of 256 MiB cannot be written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_one(bytes: &[u8]) -> Result<Read, Malformed> {
        read(&mut BytesMut::from(bytes), 1024)
    }

    #[test]
    fn malformed_packets_are_told_from_incomplete_ones() {
        for (bytes, why) in [
            (&b"\x00\x00"[..], "packet type 0"),
            (b"\xf0\x00", "packet type 15"),
            (b"\x80\x06\0\x01\0\x01a\0", "SUBSCRIBE without its reserved flag"),
            (b"\x82\x06\0\0\0\x01a\0", "SUBSCRIBE with id 0"),
            (b"\x82\x02\0\x01", "SUBSCRIBE without a filter"),
            (b"\x82\x06\0\x01\0\x01a\x03", "SUBSCRIBE at QoS 3"),
            (b"\xa2\x02\0\x01", "UNSUBSCRIBE without a filter"),
            (b"\x36\x05\0\x01a\0\x01", "PUBLISH at QoS 3"),
            (b"\x38\x03\0\x01a", "PUBLISH at QoS 0 with DUP"),
            (b"\x32\x05\0\x01a\0\0", "PUBLISH at QoS 1 with id 0"),
            (b"\x32\x03\0\x01a", "PUBLISH at QoS 1 without id"),
            (b"\x30\x03\0\x09a", "PUBLISH with a topic longer than the packet"),
            (b"\x30\x03\0\x01#", "PUBLISH to a wildcard"),
            (b"\x30\x03\0\x01\0", "PUBLISH with NUL in the topic"),
            (b"\x30\x03\0\x01\xff", "PUBLISH with a topic that is not UTF-8"),
            (b"\x30\x02\0\0", "PUBLISH with an empty topic"),
            (b"\x40\x03\0\x01\0", "PUBACK that is too long"),
            (b"\x50\x02\0\x01", "PUBREC"),
            (b"\x62\x02\0\x01", "PUBREL"),
            (b"\xc0\x01\0", "PINGREQ with a body"),
            (b"\xe0\x01\0", "DISCONNECT with a body"),
            (b"\x30\xff\xff\xff\xff\x01", "a length of five bytes"),
            (b"\x30\x81\x10", "longer than allowed"),
            (b"\x10\x0c\0\x04MQTT\x04\x03\0\0\0\0", "CONNECT with the reserved flag"),
            (b"\x10\x0c\0\x04MQTT\x04\x42\0\0\0\0", "CONNECT with a password and no user name"),
            (b"\x10\x0c\0\x04MQTX\x04\x02\0\0\0\0", "CONNECT of another protocol"),
        ] {
            assert!(read_one(bytes).is_err(), "{why}");
        }
        assert_eq!(read_one(b"\x10\x0c\0\x04MQTT\x05\x02\0\0\0\0"), Err(Malformed::Level(5)));
        assert!(matches!(read_one(b"\x30\x05\0\x01a"), Ok(Read::Missing(2))));
        assert!(matches!(read_one(b""), Ok(Read::Missing(_))));
    }

    proptest! {
        #[test]
        fn a_publish_reads_back_as_it_was_written(topic in "[a-z/]{1,200}", payload in proptest::collection::vec(any::<u8>(), 0..600), id in any::<u16>()) {
            let mut bytes = BytesMut::new();
            write_publish(&mut bytes, topic.as_bytes(), &payload, id);
            let Ok(Read::Packet(Packet::Publish(publish))) = read(&mut bytes, 1024) else { panic!("no PUBLISH") };
            prop_assert_eq!((publish.topic(), &publish.payload[..], publish.id), (&topic[..], &payload[..], id));
            prop_assert_eq!(publish.qos, u8::from(id != 0));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Read::Packet(_)) = read(&mut buffer, 1024) {}
        }
    }
}
