//! MQTT 3.1.1 through rumqttd's codec, with the checks of the specification that it leaves out.
//!
//! Not CONNECT, whose password it takes for text, and not PUBLISH, whose packet id and QoS it keeps to itself.

use crate::filter;
use bytes::{Buf as _, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::{self, Protocol as _, QoS, SubscribeReasonCode};

use super::error::ReadError;
use super::fields::Fields;
use super::header::{Header, Kind};
use super::packet::{
    Ack, ConnAck, ConnAckProperties, Disconnect, Filter, Packet, Publish, SubAck, Subscribe, Unsubscribe,
};
use super::reason::Reason;
use super::text::{UserProperties, check_text};

const NOT_TWO_BYTES: ReadError = ReadError::Malformed("an acknowledgement that is not two bytes long");

/// Reads a whole packet.
pub(super) fn read(header: Header, mut frame: BytesMut) -> Result<Packet, ReadError> {
    match header.kind {
        Kind::Publish => return publish(header, frame),
        Kind::Disconnect if header.body_bytes == 0 => {
            return Ok(Packet::Disconnect(Box::new(Disconnect::because(Reason::SUCCESS))));
        }
        // Read here and not by rumqttd's codec: a subscriber answers every message with one of them.
        Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => return ack(header, frame),
        Kind::Subscribe => check_options(header, &frame)?,
        Kind::UnsubAck | Kind::ConnAck if header.body_bytes != 2 => return Err(NOT_TWO_BYTES),
        _ => {}
    }
    let bytes = frame.len();
    // A remaining length that is not minimal would be read to another length: the codec gets the frame that we found.
    let packet =
        V4.read_mut(&mut frame, bytes).map_err(|_| ReadError::Malformed("rumqttd cannot read it"))?;
    Ok(match packet {
        protocol::Packet::Subscribe(subscribe, _) => Packet::Subscribe(Subscribe {
            id: not_zero(subscribe.pkid)?,
            filters: subscribe.filters.into_iter().map(|f| Filter::v4(f.path, f.qos as u8)).collect(),
            subscription_id: None,
            user_properties: UserProperties::default(),
        }),
        protocol::Packet::Unsubscribe(unsubscribe, _) => {
            if unsubscribe.filters.is_empty() {
                // MQTT-3.10.3-2.
                return Err(ReadError::Malformed("an UNSUBSCRIBE without a filter"));
            }
            for filter in &unsubscribe.filters {
                check_text(filter.as_bytes())?;
            }
            Packet::Unsubscribe(Unsubscribe {
                id: not_zero(unsubscribe.pkid)?,
                filters: unsubscribe.filters,
                user_properties: UserProperties::default(),
            })
        }
        protocol::Packet::ConnAck(ack, _) => Packet::ConnAck(Box::new(ConnAck {
            is_session_present: ack.session_present,
            reason: connack_reason(ack.code),
            properties: ConnAckProperties::default(),
        })),
        protocol::Packet::SubAck(ack, _) => Packet::SubAck(SubAck {
            id: not_zero(ack.pkid)?,
            reasons: ack.return_codes.into_iter().map(suback_reason).collect(),
            properties: None,
        }),
        protocol::Packet::UnsubAck(ack, _) => {
            Packet::UnsubAck(SubAck { id: not_zero(ack.pkid)?, reasons: Vec::new(), properties: None })
        }
        _ => return Err(ReadError::Malformed("a packet that MQTT 3.1.1 does not have")),
    })
}

fn ack(header: Header, mut frame: BytesMut) -> Result<Packet, ReadError> {
    frame.advance(header.bytes);
    let body: [u8; 2] = frame[..].try_into().map_err(|_| NOT_TWO_BYTES)?;
    let ack = Ack::success(not_zero(u16::from_be_bytes(body))?);
    Ok(match header.kind {
        Kind::PubAck => Packet::PubAck(ack),
        Kind::PubRec => Packet::PubRec(ack),
        Kind::PubRel => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    })
}

fn publish(header: Header, frame: BytesMut) -> Result<Packet, ReadError> {
    let mut body = frame.freeze();
    body.advance(header.bytes);
    let mut fields = Fields::new(body);
    let topic = fields.binary()?;
    filter::check_topic(check_text(&topic)?)
        .map_err(|why| ReadError::Protocol(Reason::TOPIC_NAME_INVALID, why))?;
    let qos = (header.flags >> 1) & 0b11;
    let id = if qos == 0 { 0 } else { fields.packet_id()? };
    Ok(Packet::Publish(Publish {
        topic,
        payload: fields.rest(),
        qos,
        id,
        dup: header.flags & 0b1000 != 0,
        retain: header.flags & 0b0001 != 0,
        properties: None,
    }))
}

/// rumqttd overlooks the reserved bits of a filter's QoS (MQTT-3.8.3-4) and U+0000 in a filter (MQTT-1.5.3-2).
fn check_options(header: Header, frame: &BytesMut) -> Result<(), ReadError> {
    let mut body = BytesMut::from(&frame[header.bytes..]).freeze();
    body.advance(2.min(body.len()));
    let mut fields = Fields::new(body);
    while !fields.is_empty() {
        fields.text()?;
        if fields.u8()? > 2 {
            return Err(ReadError::Malformed("a filter's QoS is not 0, 1 or 2"));
        }
    }
    Ok(())
}

fn not_zero(id: u16) -> Result<u16, ReadError> {
    // MQTT-2.3.1-1.
    if id == 0 { Err(ReadError::Malformed("packet id 0")) } else { Ok(id) }
}

fn connack_reason(code: protocol::ConnectReturnCode) -> Reason {
    use protocol::ConnectReturnCode as Code;
    match code {
        Code::Success => Reason::SUCCESS,
        Code::RefusedProtocolVersion => Reason::UNSUPPORTED_PROTOCOL_VERSION,
        Code::ClientIdentifierNotValid => Reason::CLIENT_ID_NOT_VALID,
        Code::ServiceUnavailable => Reason::SERVER_UNAVAILABLE,
        Code::BadUserNamePassword => Reason::BAD_USER_NAME_OR_PASSWORD,
        _ => Reason::NOT_AUTHORIZED,
    }
}

fn suback_reason(code: SubscribeReasonCode) -> Reason {
    match code {
        SubscribeReasonCode::Success(QoS::AtMostOnce) => Reason::SUCCESS,
        SubscribeReasonCode::Success(QoS::AtLeastOnce) => Reason::GRANTED_QOS_1,
        SubscribeReasonCode::Success(QoS::ExactlyOnce) => Reason::GRANTED_QOS_2,
        _ => Reason::UNSPECIFIED,
    }
}
