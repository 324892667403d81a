//! MQTT packets of both versions.

use bytes::BytesMut;
use mqtt::codec::message::Message;
use mqtt::codec::packet::{Packet, Version};
use mqtt::codec::read::{Read, connect_version, read};
use mqtt::codec::write;

const BYTES_MAX: usize = 64 * 1024;

/// A stream of packets, read in each version: whatever is read is written to bytes that read back as the same.
pub(crate) fn packets(data: &[u8]) {
    for version in [Version::V4, Version::V5] {
        let mut buffer = BytesMut::from(data);
        let _ = connect_version(&buffer);
        loop {
            let before = buffer.len();
            match read(&mut buffer, version, BYTES_MAX) {
                Ok(Read::Packet(packet)) => {
                    assert!(buffer.len() < before, "a packet was read from nothing");
                    again(&packet, version);
                }
                Ok(Read::Missing(missing)) => {
                    assert!(missing > 0 && buffer.len() == before);
                    break;
                }
                Err(error) => {
                    assert!(error.reason().is_failure(), "{error}");
                    break;
                }
            }
        }
    }
}

fn again(packet: &Packet, version: Version) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut bytes = BytesMut::new();
    write::any(&mut bytes, version, packet);
    if let Packet::Publish(publish) = packet {
        assert_eq!(Message::from(publish).packet_bytes(version), bytes.len());
    }
    match read(&mut bytes, version, 2 * BYTES_MAX) {
        Ok(Read::Packet(same)) => assert_eq!(same, *packet),
        other => panic!("{packet:?} was written to what reads as {other:?}"),
    }
    assert!(bytes.is_empty(), "{packet:?} was written with bytes behind it");
}
