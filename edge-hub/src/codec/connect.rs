//! CONNECT, which says itself which version it is (MQTT 3.1.1 and 5.0, section 3.1).

use bytes::{BufMut as _, Bytes, BytesMut};
use edge_core::dialect::filter;

use super::error::ReadError;
use super::fields::Fields;
use super::packet::{Connect, ConnectProperties, Version, Will};
use super::reason::Reason;
use super::write;

const RESERVED: u8 = 0x01;
const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;
/// MQTT 3.1, the level of which is 3.
const NAME_OF_3_1: &[u8] = b"MQIsdp";

/// Reads what follows the fixed header.
pub(super) fn read(body: Bytes) -> Result<Connect, ReadError> {
    let mut fields = Fields::new(body);
    let name = fields.binary()?;
    let level = fields.u8()?;
    let version = match (&name[..], level) {
        (b"MQTT", 4) => Version::V4,
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
    let client_id = fields.string()?;
    let will = match flags & WILL != 0 {
        true => Some(read_will(&mut fields, flags)?),
        false => None,
    };
    let user_name = (flags & USER_NAME != 0).then(|| fields.string()).transpose()?;
    let password = (flags & PASSWORD != 0).then(|| fields.binary()).transpose()?;
    fields.end()?;
    Ok(Connect {
        version,
        client_id,
        user_name,
        password: password.map(|password| password.to_vec()),
        is_clean: flags & CLEAN != 0,
        keep_alive,
        will,
        properties: ConnectProperties::default(),
    })
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
    match version == Version::V4 && flags & USER_NAME == 0 && flags & PASSWORD != 0 {
        true => Err(ReadError::Malformed("a password without a user name")),
        false => Ok(()),
    }
}

fn read_will(fields: &mut Fields, flags: u8) -> Result<Will, ReadError> {
    let topic = fields.string()?;
    filter::check_topic(&topic).map_err(|why| ReadError::Protocol(Reason::TOPIC_NAME_INVALID, why))?;
    Ok(Will {
        topic,
        payload: Bytes::copy_from_slice(&fields.binary()?),
        qos: (flags >> WILL_QOS_SHIFT) & 0b11,
        retain: flags & WILL_RETAIN != 0,
        delay: 0,
        properties: None,
    })
}

/// Writes a CONNECT.
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
    write::packet(out, 0x10, |body| {
        write::binary(body, b"MQTT");
        body.put_u8(4);
        body.put_u8(flags);
        body.put_u16(connect.keep_alive);
        write::binary(body, connect.client_id.as_bytes());
        if let Some(will) = &connect.will {
            write::binary(body, will.topic.as_bytes());
            write::binary(body, &will.payload);
        }
        if let Some(user_name) = &connect.user_name {
            write::binary(body, user_name.as_bytes());
        }
        if let Some(password) = &connect.password {
            write::binary(body, password);
        }
    });
}
