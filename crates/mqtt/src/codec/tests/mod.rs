//! What is read, what is refused, and that both versions read back what they write.

mod round_trip;
mod rumqttd;
mod v4;
mod v5;

use bytes::BytesMut;

use super::error::ReadError;
use super::packet::{Packet, Version};
use super::primitives;
use super::read::{Read, read};
use super::reason::Reason;

fn read_one(version: Version, bytes: &[u8]) -> Result<Read, ReadError> {
    read(&mut BytesMut::from(bytes), version, 1024)
}

/// Reads a packet of MQTT 5 from its first byte and its body.
fn read_v5(first: u8, body: &[u8]) -> Result<Packet, ReadError> {
    let mut bytes = BytesMut::new();
    primitives::packet(&mut bytes, first, |out| out.extend_from_slice(body));
    match read(&mut bytes, Version::V5, 1 << 20) {
        Ok(Read::Packet(packet)) if bytes.is_empty() => Ok(packet),
        Ok(other) => panic!("{other:?}, and {} bytes left", bytes.len()),
        Err(error) => Err(error),
    }
}

/// Each is refused with the reason that the client is told.
#[track_caller]
fn assert_refused(cases: &[(u8, &[u8], Reason, &str)]) {
    for (first, body, reason, why) in cases {
        match read_v5(*first, body) {
            Err(error) => assert_eq!(error.reason(), *reason, "{why}: {error}"),
            Ok(packet) => panic!("{why}: read as {packet:?}"),
        }
    }
}
