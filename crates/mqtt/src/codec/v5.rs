//! MQTT 5, read by ourselves: docs/decisions/0001-own-subscription-table.md says what rumqttd's codec gets wrong of it.

use crate::filter;
use bytes::Bytes;

use super::error::ReadError;
use super::fields::Fields;
use super::header::{Header, Kind};
use super::packet::{
    Ack, Auth, ConnAck, ConnAckProperties, Disconnect, Filter, Packet, Publish, PublishProperties,
    RetainHandling, SubAck, Subscribe, Unsubscribe,
};
use super::properties::{Bag, NOT_HERE, id, reason_properties, request};
use super::reason::Reason;

fn protocol(why: &'static str) -> ReadError {
    ReadError::Protocol(Reason::PROTOCOL_ERROR, why)
}

/// Reads what follows the fixed header of any packet but CONNECT and the pings.
pub(super) fn read(header: Header, body: Bytes) -> Result<Packet, ReadError> {
    let fields = Fields::new(body);
    Ok(match header.kind {
        Kind::Publish => Packet::Publish(publish(header.flags, fields)?),
        Kind::PubAck => Packet::PubAck(ack(fields, MESSAGE_REASONS)?),
        Kind::PubRec => Packet::PubRec(ack(fields, MESSAGE_REASONS)?),
        Kind::PubRel => Packet::PubRel(ack(fields, RELEASE_REASONS)?),
        Kind::PubComp => Packet::PubComp(ack(fields, RELEASE_REASONS)?),
        Kind::Subscribe => Packet::Subscribe(subscribe(fields)?),
        Kind::Unsubscribe => Packet::Unsubscribe(unsubscribe(fields)?),
        Kind::SubAck => Packet::SubAck(suback(fields, SUBACK_REASONS)?),
        Kind::UnsubAck => Packet::UnsubAck(suback(fields, UNSUBACK_REASONS)?),
        Kind::ConnAck => Packet::ConnAck(Box::new(connack(fields)?)),
        Kind::Disconnect => Packet::Disconnect(Box::new(disconnect(fields)?)),
        Kind::Auth => Packet::Auth(Box::new(auth(fields)?)),
        Kind::Connect | Kind::PingReq | Kind::PingResp => {
            return Err(ReadError::Malformed("a packet type that is read elsewhere"));
        }
    })
}

/// Which reason codes a packet may hold: a bit for each.
struct Reasons([u128; 2]);

impl Reasons {
    const fn of(reasons: &[Reason]) -> Self {
        let mut bits = [0; 2];
        let mut at = 0;
        while at < reasons.len() {
            let code = reasons[at].code();
            bits[(code >> 7) as usize] |= 1 << (code & 0x7f);
            at += 1;
        }
        Self(bits)
    }

    fn read(&self, fields: &mut Fields) -> Result<Reason, ReadError> {
        let code = fields.u8()?;
        match self.0[usize::from(code >> 7)] >> (code & 0x7f) & 1 {
            1 => Ok(Reason::from_code(code)),
            _ => Err(protocol("a reason code that this packet does not have")),
        }
    }
}

/// PUBACK and PUBREC (tables 3-4 and 3-5).
const MESSAGE_REASONS: &Reasons = &Reasons::of(&[
    Reason::SUCCESS,
    Reason::NO_MATCHING_SUBSCRIBERS,
    Reason::UNSPECIFIED,
    Reason::IMPLEMENTATION_SPECIFIC,
    Reason::NOT_AUTHORIZED,
    Reason::TOPIC_NAME_INVALID,
    Reason::PACKET_ID_IN_USE,
    Reason::QUOTA_EXCEEDED,
    Reason::PAYLOAD_FORMAT_INVALID,
]);
/// PUBREL and PUBCOMP (tables 3-6 and 3-7).
const RELEASE_REASONS: &Reasons = &Reasons::of(&[Reason::SUCCESS, Reason::PACKET_ID_NOT_FOUND]);
/// SUBACK (table 3-8).
const SUBACK_REASONS: &Reasons = &Reasons::of(&[
    Reason::SUCCESS,
    Reason::GRANTED_QOS_1,
    Reason::GRANTED_QOS_2,
    Reason::UNSPECIFIED,
    Reason::IMPLEMENTATION_SPECIFIC,
    Reason::NOT_AUTHORIZED,
    Reason::TOPIC_FILTER_INVALID,
    Reason::PACKET_ID_IN_USE,
    Reason::QUOTA_EXCEEDED,
    Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    Reason::SUBSCRIPTION_IDS_NOT_SUPPORTED,
    Reason::WILDCARDS_NOT_SUPPORTED,
]);
/// UNSUBACK (table 3-9).
const UNSUBACK_REASONS: &Reasons = &Reasons::of(&[
    Reason::SUCCESS,
    Reason::NO_SUBSCRIPTION_EXISTED,
    Reason::UNSPECIFIED,
    Reason::IMPLEMENTATION_SPECIFIC,
    Reason::NOT_AUTHORIZED,
    Reason::TOPIC_FILTER_INVALID,
    Reason::PACKET_ID_IN_USE,
]);
/// CONNACK (table 3-1).
const CONNACK_REASONS: &Reasons = &Reasons::of(&[
    Reason::SUCCESS,
    Reason::UNSPECIFIED,
    Reason::MALFORMED_PACKET,
    Reason::PROTOCOL_ERROR,
    Reason::IMPLEMENTATION_SPECIFIC,
    Reason::UNSUPPORTED_PROTOCOL_VERSION,
    Reason::CLIENT_ID_NOT_VALID,
    Reason::BAD_USER_NAME_OR_PASSWORD,
    Reason::NOT_AUTHORIZED,
    Reason::SERVER_UNAVAILABLE,
    Reason::SERVER_BUSY,
    Reason::BANNED,
    Reason::BAD_AUTHENTICATION_METHOD,
    Reason::TOPIC_NAME_INVALID,
    Reason::PACKET_TOO_LARGE,
    Reason::QUOTA_EXCEEDED,
    Reason::PAYLOAD_FORMAT_INVALID,
    Reason::RETAIN_NOT_SUPPORTED,
    Reason::QOS_NOT_SUPPORTED,
    Reason::USE_ANOTHER_SERVER,
    Reason::SERVER_MOVED,
    Reason::CONNECTION_RATE_EXCEEDED,
]);
/// DISCONNECT (table 3-10).
const DISCONNECT_REASONS: &Reasons = &Reasons::of(&[
    Reason::SUCCESS,
    Reason::DISCONNECT_WITH_WILL,
    Reason::UNSPECIFIED,
    Reason::MALFORMED_PACKET,
    Reason::PROTOCOL_ERROR,
    Reason::IMPLEMENTATION_SPECIFIC,
    Reason::NOT_AUTHORIZED,
    Reason::SERVER_BUSY,
    Reason::SERVER_SHUTTING_DOWN,
    Reason::KEEP_ALIVE_TIMEOUT,
    Reason::SESSION_TAKEN_OVER,
    Reason::TOPIC_FILTER_INVALID,
    Reason::TOPIC_NAME_INVALID,
    Reason::RECEIVE_MAXIMUM_EXCEEDED,
    Reason::TOPIC_ALIAS_INVALID,
    Reason::PACKET_TOO_LARGE,
    Reason::MESSAGE_RATE_TOO_HIGH,
    Reason::QUOTA_EXCEEDED,
    Reason::ADMINISTRATIVE_ACTION,
    Reason::PAYLOAD_FORMAT_INVALID,
    Reason::RETAIN_NOT_SUPPORTED,
    Reason::QOS_NOT_SUPPORTED,
    Reason::USE_ANOTHER_SERVER,
    Reason::SERVER_MOVED,
    Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    Reason::CONNECTION_RATE_EXCEEDED,
    Reason::MAXIMUM_CONNECT_TIME,
    Reason::SUBSCRIPTION_IDS_NOT_SUPPORTED,
    Reason::WILDCARDS_NOT_SUPPORTED,
]);
/// AUTH (table 3-11).
const AUTH_REASONS: &Reasons =
    &Reasons::of(&[Reason::SUCCESS, Reason::CONTINUE_AUTHENTICATION, Reason::REAUTHENTICATE]);

fn publish(flags: u8, mut fields: Fields) -> Result<Publish, ReadError> {
    let topic = fields.text()?;
    let qos = (flags >> 1) & 0b11;
    let id = if qos == 0 { 0 } else { fields.packet_id()? };
    let properties = publish_properties(&mut fields)?;
    if !topic.bytes().is_empty() {
        // MQTT-3.3.2-2.
        filter::check_topic(topic.as_str())
            .map_err(|why| ReadError::Protocol(Reason::TOPIC_NAME_INVALID, why))?;
    } else if properties.as_ref().is_none_or(|properties| properties.topic_alias.is_none()) {
        return Err(protocol("an empty topic without a topic alias"));
    }
    Ok(Publish {
        topic: topic.into_bytes(),
        payload: fields.rest(),
        qos,
        id,
        dup: flags & 0b1000 != 0,
        retain: flags & 0b0001 != 0,
        properties,
    })
}

fn publish_properties(fields: &mut Fields) -> Result<Option<Box<PublishProperties>>, ReadError> {
    let mut bag = Bag::open(fields)?.repeated(id::SUBSCRIPTION_ID);
    if bag.is_empty() {
        return Ok(None);
    }
    let mut properties = Box::<PublishProperties>::default();
    while let Some(id) = bag.next()? {
        match id {
            id::TOPIC_ALIAS => properties.topic_alias = Some(bag.topic_alias()?),
            id::SUBSCRIPTION_ID => properties.subscription_ids.push(bag.subscription_id()?),
            _ if bag.message_property(id, &mut properties)? => {}
            _ => return Err(NOT_HERE),
        }
    }
    properties.user_properties = bag.user_properties();
    Ok(Some(properties))
}

/// The reason may be left out, and then the properties too (section 3.4.2.1).
fn ack(mut fields: Fields, reasons: &Reasons) -> Result<Ack, ReadError> {
    let id = fields.packet_id()?;
    let reason = if fields.is_empty() { Reason::SUCCESS } else { reasons.read(&mut fields)? };
    let properties = if fields.is_empty() { None } else { reason_properties(&mut fields)? };
    fields.end()?;
    Ok(Ack { id, reason, properties })
}

fn subscribe(mut fields: Fields) -> Result<Subscribe, ReadError> {
    let id = fields.packet_id()?;
    let (subscription_id, user_properties) = request(&mut fields, true)?;
    let mut filters = Vec::new();
    while !fields.is_empty() {
        let path = fields.string()?;
        let options = fields.u8()?;
        if options & 0b1100_0000 != 0 {
            // MQTT-3.8.3-5.
            return Err(ReadError::Malformed("reserved subscription options are set"));
        }
        let no_local = options & 0b100 != 0;
        if no_local && path.starts_with("$share/") {
            // MQTT-3.8.3-4.
            return Err(protocol("no-local on a shared subscription"));
        }
        filters.push(Filter {
            path,
            qos: match options & 0b11 {
                3 => return Err(protocol("a filter at QoS 3")),
                qos => qos,
            },
            no_local,
            retain_as_published: options & 0b1000 != 0,
            retain_handling: match options >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(protocol("retain handling 3")),
            },
        });
    }
    if filters.is_empty() {
        // MQTT-3.8.3-2.
        Err(protocol("a SUBSCRIBE without a filter"))
    } else {
        Ok(Subscribe { id, filters, subscription_id, user_properties })
    }
}

fn unsubscribe(mut fields: Fields) -> Result<Unsubscribe, ReadError> {
    let id = fields.packet_id()?;
    let (_, user_properties) = request(&mut fields, false)?;
    let mut filters = Vec::new();
    while !fields.is_empty() {
        filters.push(fields.string()?);
    }
    if filters.is_empty() {
        // MQTT-3.10.3-2.
        Err(protocol("an UNSUBSCRIBE without a filter"))
    } else {
        Ok(Unsubscribe { id, filters, user_properties })
    }
}

fn suback(mut fields: Fields, allowed: &Reasons) -> Result<SubAck, ReadError> {
    let id = fields.packet_id()?;
    let properties = reason_properties(&mut fields)?;
    let mut reasons = Vec::new();
    while !fields.is_empty() {
        reasons.push(allowed.read(&mut fields)?);
    }
    if reasons.is_empty() {
        Err(protocol("an answer without a reason code"))
    } else {
        Ok(SubAck { id, reasons, properties })
    }
}

fn connack(mut fields: Fields) -> Result<ConnAck, ReadError> {
    let flags = fields.u8()?;
    if flags > 1 {
        // MQTT-3.2.2-1.
        return Err(ReadError::Malformed("reserved CONNACK flags are set"));
    }
    let reason = CONNACK_REASONS.read(&mut fields)?;
    let mut bag = Bag::open(&mut fields)?;
    let mut p = ConnAckProperties::default();
    while let Some(id) = bag.next()? {
        match id {
            id::SESSION_EXPIRY => p.session_expiry = Some(bag.u32()?),
            id::RECEIVE_MAX => p.receive_max = Some(bag.u16_not_0()?),
            id::QOS_MAX => p.qos_max = Some(u8::from(bag.flag()?)),
            id::RETAIN_AVAILABLE => p.is_retain_available = Some(bag.flag()?),
            id::PACKET_BYTES_MAX => p.packet_bytes_max = Some(bag.u32_not_0()?),
            id::ASSIGNED_CLIENT_ID => p.assigned_client_id = Some(bag.text()?),
            id::TOPIC_ALIAS_MAX => p.topic_alias_max = Some(bag.u16()?),
            id::REASON_STRING => p.reason_string = Some(bag.text()?),
            id::WILDCARDS_AVAILABLE => p.are_wildcards_available = Some(bag.flag()?),
            id::SUBSCRIPTION_IDS_AVAILABLE => p.are_subscription_ids_available = Some(bag.flag()?),
            id::SHARED_SUBSCRIPTIONS_AVAILABLE => p.are_shared_subscriptions_available = Some(bag.flag()?),
            id::SERVER_KEEP_ALIVE => p.server_keep_alive = Some(bag.u16()?),
            id::RESPONSE_INFORMATION => p.response_information = Some(bag.text()?),
            id::SERVER_REFERENCE => p.server_reference = Some(bag.text()?),
            id::AUTHENTICATION_METHOD => p.authentication_method = Some(bag.text()?),
            id::AUTHENTICATION_DATA => p.authentication_data = Some(bag.binary()?),
            _ => return Err(NOT_HERE),
        }
    }
    p.user_properties = bag.user_properties();
    fields.end()?;
    Ok(ConnAck { is_session_present: flags == 1, reason, properties: p })
}

/// The reason may be left out, and then the properties too (section 3.14.2.1).
fn disconnect(mut fields: Fields) -> Result<Disconnect, ReadError> {
    let reason = if fields.is_empty() { Reason::SUCCESS } else { DISCONNECT_REASONS.read(&mut fields)? };
    let mut disconnect = Disconnect::because(reason);
    if !fields.is_empty() {
        let mut bag = Bag::open(&mut fields)?;
        while let Some(id) = bag.next()? {
            match id {
                id::SESSION_EXPIRY => disconnect.session_expiry = Some(bag.u32()?),
                id::REASON_STRING => disconnect.reason_string = Some(bag.text()?),
                id::SERVER_REFERENCE => disconnect.server_reference = Some(bag.text()?),
                _ => return Err(NOT_HERE),
            }
        }
        disconnect.user_properties = bag.user_properties();
    }
    fields.end()?;
    Ok(disconnect)
}

/// The reason may be left out when it is success and there are no properties (section 3.15.2.1).
fn auth(mut fields: Fields) -> Result<Auth, ReadError> {
    let mut auth = Auth {
        reason: if fields.is_empty() { Reason::SUCCESS } else { AUTH_REASONS.read(&mut fields)? },
        authentication_method: None,
        authentication_data: None,
        reason_string: None,
        user_properties: Default::default(),
    };
    if !fields.is_empty() {
        let mut bag = Bag::open(&mut fields)?;
        while let Some(id) = bag.next()? {
            match id {
                id::AUTHENTICATION_METHOD => auth.authentication_method = Some(bag.text()?),
                id::AUTHENTICATION_DATA => auth.authentication_data = Some(bag.binary()?),
                id::REASON_STRING => auth.reason_string = Some(bag.text()?),
                _ => return Err(NOT_HERE),
            }
        }
        auth.user_properties = bag.user_properties();
    }
    fields.end()?;
    Ok(auth)
}
