//! CONNECT, which says itself which version it is (MQTT 3.1.1 and 5.0, section 3.1).

use crate::filter;
use bytes::{BufMut as _, Bytes, BytesMut};

use super::error::ReadError;
use super::fields::Fields;
use super::packet::{Connect, ConnectProperties, PublishProperties, Version, Will};
use super::primitives::{BagOut, binary, packet};
use super::properties::{Bag, NOT_HERE, id};
use super::reason::Reason;
use super::text::UserProperties;

const RESERVED: u8 = 0x01;
const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;
/// 3.1.1 with the bit by which mosquitto says that it is a bridge (`try_private`, on by default).
pub(super) const LEVEL_OF_BRIDGES: u8 = 0x84;
/// MQTT 3.1, the level of which is 3.
const NAME_OF_3_1: &[u8] = b"MQIsdp";

/// Reads what follows the fixed header.
pub(super) fn read(body: Bytes) -> Result<Connect, ReadError> {
    let mut fields = Fields::new(body);
    let name = fields.binary()?;
    let level = fields.u8()?;
    let version = match (&name[..], level) {
        (b"MQTT", 4 | LEVEL_OF_BRIDGES) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | NAME_OF_3_1, level) => return Err(ReadError::Level(level)),
        _ => {
            return Err(ReadError::Protocol(
                Reason::UNSUPPORTED_PROTOCOL_VERSION,
                "another protocol than MQTT",
            ));
        }
    };
    let flags = fields.u8()?;
    check_flags(flags, version)?;
    let keep_alive = fields.u16()?;
    let properties = match version {
        Version::V4 => ConnectProperties::default(),
        Version::V5 => read_properties(&mut fields)?,
    };
    let client_id = fields.string()?;
    let will = if flags & WILL != 0 { Some(read_will(&mut fields, flags, version)?) } else { None };
    let user_name = (flags & USER_NAME != 0).then(|| fields.string()).transpose()?;
    let password = (flags & PASSWORD != 0).then(|| fields.binary()).transpose()?;
    fields.end()?;
    Ok(Connect {
        version,
        client_id,
        user_name,
        password: password.map(|password| password.to_vec()),
        is_clean: flags & CLEAN != 0,
        is_bridge: level == LEVEL_OF_BRIDGES,
        keep_alive,
        will,
        properties,
    })
}

fn read_properties(fields: &mut Fields) -> Result<ConnectProperties, ReadError> {
    let mut bag = Bag::open(fields)?;
    let mut p = ConnectProperties::default();
    while let Some(id) = bag.next()? {
        match id {
            id::SESSION_EXPIRY => p.session_expiry = Some(bag.u32()?),
            id::RECEIVE_MAX => p.receive_max = Some(bag.u16_not_0()?),
            id::PACKET_BYTES_MAX => p.packet_bytes_max = Some(bag.u32_not_0()?),
            id::TOPIC_ALIAS_MAX => p.topic_alias_max = bag.u16()?,
            id::REQUEST_RESPONSE_INFORMATION => p.wants_response_information = bag.flag()?,
            id::REQUEST_PROBLEM_INFORMATION => p.wants_problem_information = bag.flag()?,
            id::AUTHENTICATION_METHOD => p.authentication_method = Some(bag.text()?.detached()),
            id::AUTHENTICATION_DATA => {
                p.authentication_data = Some(Bytes::copy_from_slice(&bag.binary()?));
            }
            _ => return Err(NOT_HERE),
        }
    }
    if p.authentication_data.is_some() && p.authentication_method.is_none() {
        return Err(ReadError::Protocol(
            Reason::PROTOCOL_ERROR,
            "authentication data without an authentication method",
        ));
    }
    p.user_properties = bag.user_properties().detached();
    Ok(p)
}

fn check_flags(flags: u8, version: Version) -> Result<(), ReadError> {
    // MQTT-3.1.2-3.
    if flags & RESERVED != 0 {
        return Err(ReadError::Malformed("the reserved CONNECT flag is set"));
    }
    let will_qos = (flags >> WILL_QOS_SHIFT) & 0b11;
    // MQTT-3.1.2-11, -13, -14, -15 (MQTT 5.0: MQTT-3.1.2-11 to -13).
    if will_qos == 3 || (flags & WILL == 0 && (will_qos != 0 || flags & WILL_RETAIN != 0)) {
        return Err(ReadError::Malformed("will flags that do not go together"));
    }
    // MQTT-3.1.2-22. MQTT 5 allows it.
    if version == Version::V4 && flags & USER_NAME == 0 && flags & PASSWORD != 0 {
        Err(ReadError::Malformed("a password without a user name"))
    } else {
        Ok(())
    }
}

fn read_will(fields: &mut Fields, flags: u8, version: Version) -> Result<Will, ReadError> {
    let (delay, properties) = match version {
        Version::V4 => (0, None),
        Version::V5 => read_will_properties(fields)?,
    };
    let topic = fields.string()?;
    filter::check_topic(&topic).map_err(|why| ReadError::Protocol(Reason::TOPIC_NAME_INVALID, why))?;
    Ok(Will {
        topic,
        payload: Bytes::copy_from_slice(&fields.binary()?),
        qos: (flags >> WILL_QOS_SHIFT) & 0b11,
        retain: flags & WILL_RETAIN != 0,
        delay,
        properties,
    })
}

fn read_will_properties(fields: &mut Fields) -> Result<(u32, Option<Box<PublishProperties>>), ReadError> {
    let mut bag = Bag::open(fields)?;
    let (mut delay, mut properties) = (0, PublishProperties::default());
    while let Some(id) = bag.next()? {
        match id {
            id::WILL_DELAY => delay = bag.u32()?,
            _ if bag.message_property(id, &mut properties)? => {}
            _ => return Err(NOT_HERE),
        }
    }
    properties.user_properties = bag.user_properties();
    let has_any = properties != PublishProperties::default();
    Ok((delay, has_any.then(|| Box::new(properties.detached()))))
}

pub(super) fn write(out: &mut BytesMut, connect: &Connect) {
    let mut flags = 0;
    for (flag, is_set) in [
        (CLEAN, connect.is_clean),
        (WILL, connect.will.is_some()),
        (WILL_RETAIN, connect.will.as_ref().is_some_and(|will| will.retain)),
        (PASSWORD, connect.password.is_some()),
        (USER_NAME, connect.user_name.is_some()),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    flags |= connect.will.as_ref().map_or(0, |will| will.qos << WILL_QOS_SHIFT);
    packet(out, 0x10, |body| {
        binary(body, b"MQTT");
        body.put_u8(match connect.version {
            Version::V5 => 5,
            Version::V4 if connect.is_bridge => LEVEL_OF_BRIDGES,
            Version::V4 => 4,
        });
        body.put_u8(flags);
        body.put_u16(connect.keep_alive);
        if connect.version == Version::V5 {
            write_properties(body, &connect.properties);
        }
        binary(body, connect.client_id.as_bytes());
        if let Some(will) = &connect.will {
            if connect.version == Version::V5 {
                write_will_properties(body, will);
            }
            binary(body, will.topic.as_bytes());
            binary(body, &will.payload);
        }
        if let Some(user_name) = &connect.user_name {
            binary(body, user_name.as_bytes());
        }
        if let Some(password) = &connect.password {
            binary(body, password);
        }
    });
}

fn write_properties(out: &mut BytesMut, p: &ConnectProperties) {
    let mut bag = BagOut::default();
    bag.u32(id::SESSION_EXPIRY, p.session_expiry);
    bag.u16(id::RECEIVE_MAX, p.receive_max);
    bag.u32(id::PACKET_BYTES_MAX, p.packet_bytes_max);
    bag.u16(id::TOPIC_ALIAS_MAX, (p.topic_alias_max != 0).then_some(p.topic_alias_max));
    bag.flag(id::REQUEST_RESPONSE_INFORMATION, p.wants_response_information.then_some(true));
    bag.flag(id::REQUEST_PROBLEM_INFORMATION, (!p.wants_problem_information).then_some(false));
    bag.text(id::AUTHENTICATION_METHOD, p.authentication_method.as_ref());
    bag.binary(id::AUTHENTICATION_DATA, p.authentication_data.as_ref());
    bag.end(out, &p.user_properties);
}

fn write_will_properties(out: &mut BytesMut, will: &Will) {
    let mut bag = BagOut::default();
    bag.u32(id::WILL_DELAY, (will.delay != 0).then_some(will.delay));
    match &will.properties {
        None => bag.end(out, &UserProperties::default()),
        Some(p) => {
            bag.flag(id::PAYLOAD_FORMAT, p.is_utf8);
            bag.u32(id::MESSAGE_EXPIRY, p.message_expiry);
            bag.text(id::CONTENT_TYPE, p.content_type.as_ref());
            bag.text(id::RESPONSE_TOPIC, p.response_topic.as_ref());
            bag.binary(id::CORRELATION_DATA, p.correlation_data.as_ref());
            bag.end(out, &p.user_properties);
        }
    }
}
