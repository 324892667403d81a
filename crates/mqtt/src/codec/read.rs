//! Takes the first packet off a buffer.

use bytes::{Buf as _, BytesMut};

use super::connect::LEVEL_OF_BRIDGES;
use super::error::ReadError;
use super::fields::{Variable, variable};
use super::header::{Header, Kind};
use super::packet::{Packet, Version};
use super::{connect, v4, v5};

/// What a look at the buffer gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A whole packet; it is off the buffer.
    Packet(Packet),
    /// At least so many bytes are missing.
    Missing(usize),
}

/// The version of the CONNECT at the front of a buffer, whether it is whole and right or not: who sent a wrong one is
/// answered in its own version. `None` when the bytes do not say, or say another.
pub fn connect_version(buffer: &[u8]) -> Option<Version> {
    let Ok(Variable::Whole { bytes, .. }) = variable(buffer.get(1..)?) else { return None };
    match buffer.get(1 + bytes..)?.strip_prefix(b"\0\x04MQTT")?.first().copied()? {
        4 | LEVEL_OF_BRIDGES => Some(Version::V4),
        5 => Some(Version::V5),
        _ => None,
    }
}

/// Takes the first packet off the buffer. A CONNECT is read by its own protocol level, everything else by `version`.
/// `bytes_max` bounds what follows the fixed header.
///
/// # Errors
/// [`ReadError`]: the buffer is of no more use.
pub fn read(buffer: &mut BytesMut, version: Version, bytes_max: usize) -> Result<Read, ReadError> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(Read::Missing(2)) };
    let kind = kind(first >> 4, version)?;
    let (body_bytes, length_bytes, is_minimal) = match variable(rest)? {
        Variable::Cut => return Ok(Read::Missing(1)),
        Variable::Whole { value, bytes, is_minimal } => (value as usize, bytes, is_minimal),
    };
    if body_bytes > bytes_max {
        return Err(ReadError::TooLarge(body_bytes));
    }
    let header = Header { kind, flags: first & 0x0f, bytes: 1 + length_bytes, body_bytes };
    check(header)?;
    if !is_minimal && version == Version::V5 {
        // MQTT-1.5.5-1. MQTT 3.1.1 does not ask for it.
        return Err(ReadError::Malformed("the remaining length is not minimal"));
    }
    let frame_bytes = header.bytes + body_bytes;
    if buffer.len() < frame_bytes {
        return Ok(Read::Missing(frame_bytes - buffer.len()));
    }
    let frame = buffer.split_to(frame_bytes);
    let packet = match (kind, version) {
        (Kind::Connect, _) => {
            let mut body = frame.freeze();
            body.advance(header.bytes);
            Packet::Connect(Box::new(connect::read(body)?))
        }
        (Kind::PingReq, _) => Packet::PingReq,
        (Kind::PingResp, _) => Packet::PingResp,
        (_, Version::V4) => v4::read(header, frame)?,
        (_, Version::V5) => {
            let mut body = frame.freeze();
            body.advance(header.bytes);
            v5::read(header, body)?
        }
    };
    Ok(Read::Packet(packet))
}

fn kind(number: u8, version: Version) -> Result<Kind, ReadError> {
    Ok(match number {
        1 => Kind::Connect,
        2 => Kind::ConnAck,
        3 => Kind::Publish,
        4 => Kind::PubAck,
        5 => Kind::PubRec,
        6 => Kind::PubRel,
        7 => Kind::PubComp,
        8 => Kind::Subscribe,
        9 => Kind::SubAck,
        10 => Kind::Unsubscribe,
        11 => Kind::UnsubAck,
        12 => Kind::PingReq,
        13 => Kind::PingResp,
        14 => Kind::Disconnect,
        15 if version == Version::V5 => Kind::Auth,
        _ => return Err(ReadError::Malformed("a packet type that does not exist")),
    })
}

/// The flags of the fixed header (MQTT-2.2.2-2; MQTT 5.0: MQTT-2.1.3-1), and the length where it is fixed.
fn check(header: Header) -> Result<(), ReadError> {
    let expected = match header.kind {
        Kind::Publish if header.flags & 0b0110 == 0b0110 => {
            return Err(ReadError::Malformed("QoS 3"));
        }
        Kind::Publish if header.flags & 0b1110 == 0b1000 => {
            return Err(ReadError::Malformed("DUP on QoS 0"));
        }
        Kind::Publish => header.flags,
        Kind::PubRel | Kind::Subscribe | Kind::Unsubscribe => 0b0010,
        _ => 0,
    };
    if header.flags != expected {
        return Err(ReadError::Malformed("reserved flags of the fixed header are set"));
    }
    if matches!(header.kind, Kind::PingReq | Kind::PingResp) && header.body_bytes > 0 {
        Err(ReadError::Malformed("a packet that has no body has one"))
    } else {
        Ok(())
    }
}
