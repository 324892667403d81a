//! A message as stored in a queue: version 1, the length of its topic (u16, little endian), the topic, the body. One that
//! was put back from a quarantine has before it: version 3, the quarantine's id, the epoch of the entry's number and the number
//! (u64, little endian); version 2 is the same without an epoch.

use bytes::{BufMut as _, Bytes, BytesMut};
use edge_buffer::Epoch;
use schemas::generation::Generation;
use uuid::Uuid;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 3;
const PUT_BACK_NO_EPOCH: u8 = 2;
const ORIGIN_NO_EPOCH_BYTES: usize = 25;
const PUT_BACK: u8 = 3;
const ORIGIN_BYTES: usize = 33;

/// The entry of a quarantine that a record was put back from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Id of the quarantine's log.
    pub quarantine: Uuid,
    /// Epoch of the number; `None` in a record of a version without epochs.
    pub epoch: Option<Epoch>,
    /// Number of the entry.
    pub number: u64,
}

/// Writes a record. The topic comes from an MQTT packet or is built from parts of one: it fits 65,535 bytes.
///
/// # Errors
/// The topic's length, when it is longer.
pub fn encode(topic: &str, body: &[u8]) -> Result<Bytes, usize> {
    let length = u16::try_from(topic.len()).map_err(|_| topic.len())?;
    let mut record = BytesMut::with_capacity(HEAD_BYTES + topic.len() + body.len());
    record.put_u8(VERSION);
    record.put_u16_le(length);
    record.put_slice(topic.as_bytes());
    record.put_slice(body);
    Ok(record.freeze())
}

/// Reads a record: its topic and its body. `None` when it is of another version or cut.
pub fn decode(record: &Bytes) -> Option<(&str, Bytes)> {
    let topic = topic(record)?;
    Some((topic, record.slice(origin(record).1 + HEAD_BYTES + topic.len()..)))
}

/// The entry of a quarantine that a record was put back from, and the bytes that say so.
fn origin(record: &[u8]) -> (Option<Origin>, usize) {
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    if let Some(([PUT_BACK, rest @ ..], _)) = record.split_first_chunk::<ORIGIN_BYTES>()
        && let (Some((id, numbers)), Some(last)) = (rest.split_first_chunk::<16>(), rest.last_chunk::<8>())
        && let Some(epoch) = numbers.first_chunk::<8>()
    {
        let epoch = Some(Epoch::from_number(number(epoch)));
        return (
            Some(Origin { quarantine: Uuid::from_bytes(*id), epoch, number: number(last) }),
            ORIGIN_BYTES,
        );
    }
    if let Some(([PUT_BACK_NO_EPOCH, rest @ ..], _)) = record.split_first_chunk::<ORIGIN_NO_EPOCH_BYTES>()
        && let (Some(id), Some(last)) = (rest.first_chunk::<16>(), rest.last_chunk::<8>())
    {
        let origin = Origin { quarantine: Uuid::from_bytes(*id), epoch: None, number: number(last) };
        return (Some(origin), ORIGIN_NO_EPOCH_BYTES);
    }
    (None, 0)
}

/// The entry of a quarantine that a record was put back from.
pub fn put_back_from(record: &[u8]) -> Option<Origin> {
    origin(record).0
}

/// A record without what says where it was put back from.
pub fn plain(record: &Bytes) -> Bytes {
    record.slice(origin(record).1..)
}

/// A record that says which entry of a quarantine it was put back from. Without an epoch it is as older versions wrote it.
pub fn put_back(origin: &Origin, record: &[u8]) -> Bytes {
    let mut with_origin = BytesMut::with_capacity(ORIGIN_BYTES + record.len());
    with_origin.put_u8(if origin.epoch.is_some() { PUT_BACK } else { PUT_BACK_NO_EPOCH });
    with_origin.put_slice(origin.quarantine.as_bytes());
    if let Some(epoch) = origin.epoch {
        with_origin.put_u64_le(epoch.number());
    }
    with_origin.put_u64_le(origin.number);
    with_origin.put_slice(record);
    with_origin.freeze()
}

/// The generation key as written in a topic.
const GENERATION: &str = "%24.ls-g=";

/// Which of the devices of its name sent a record, where that is written in it.
pub fn generation(record: &[u8]) -> Option<Generation> {
    // A client's own are taken out before a message is stored.
    let (_, value) = put_back_from(record).and_then(|_| topic(record))?.rsplit_once(GENERATION)?;
    value.split(['&', '/']).next()?.parse().ok()
}

/// A record in which it is written which of the devices of its name sent it. As it was, when it says so or its topic would be too
/// long.
pub fn with_generation(record: &Bytes, generation: Generation) -> Bytes {
    let Some((topic, body)) = decode(record).filter(|(topic, _)| !topic.contains(GENERATION)) else {
        return record.clone();
    };
    let joint = if topic.ends_with('/') { "" } else { "&" };
    encode(&format!("{topic}{joint}{GENERATION}{generation}"), &body).unwrap_or_else(|_| record.clone())
}

fn topic(record: &[u8]) -> Option<&str> {
    let record = &record[origin(record).1..];
    let (&[version, low, high], _) = record.split_first_chunk::<HEAD_BYTES>()?;
    let end = HEAD_BYTES + usize::from(u16::from_le_bytes([low, high]));
    if version != VERSION {
        return None;
    }
    std::str::from_utf8(record.get(HEAD_BYTES..end)?).ok()
}

/// Whose message it is, as its topic names it, `device` or `device/module`: losses in a queue are counted by it.
pub fn sender(record: &[u8]) -> Option<String> {
    let topic = topic(record)?;
    // A module's input: the topic is the module's, and the bag says who sent it.
    if let Some((_, bag)) = topic.split_once("/inputs/") {
        let value = |key: &str| {
            let (_, value) = bag.split_once(key)?;
            let value = value.split(['&', '/']).next()?;
            percent_encoding::percent_decode_str(value).decode_utf8().ok()
        };
        let device = value("%24.cdid=")?;
        return Some(match value("%24.cmid=") {
            Some(module) => format!("{device}/{module}"),
            None => device.into_owned(),
        });
    }
    let (identity, _) = topic.strip_prefix("devices/")?.split_once("/messages/")?;
    Some(identity.replacen("/modules/", "/", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_is_the_device_or_the_module_that_sent_the_message() {
        let of = |topic| encode(topic, b"{").unwrap();
        let leaf = of("devices/press-1/messages/events/a=b");
        assert_eq!(sender(&leaf).as_deref(), Some("press-1"));
        let module = of("devices/gw/modules/filter/messages/events/");
        assert_eq!(sender(&module).as_deref(), Some("gw/filter"));
        let input = of("devices/gw/modules/filter/inputs/in/a=b&%24.cdid=press%401&%24.cmid=m");
        assert_eq!(sender(&input).as_deref(), Some("press@1/m"));
        let of_leaf = of("devices/gw/modules/filter/inputs/in/%24.cdid=press-1");
        assert_eq!(sender(&of_leaf).as_deref(), Some("press-1"));
        assert_eq!(sender(b"\x02"), None);
    }

    #[test]
    fn a_record_reads_back_as_it_was_written_and_a_cut_one_is_none() {
        let record = encode("devices/d/messages/events/k=v", b"body").unwrap();
        let (topic, body) = decode(&record).unwrap();
        assert_eq!((topic, &body[..]), ("devices/d/messages/events/k=v", &b"body"[..]));
        assert_eq!(decode(&record.slice(..10)), None);
        assert_eq!(decode(&Bytes::from_static(b"\x02\x00\x00")), None);
        assert_eq!(encode(&"x".repeat(70_000), b""), Err(70_000));
    }

    #[test]
    fn a_record_that_was_put_back_says_from_where_and_is_the_same_message() {
        let record = encode("devices/d/messages/events/k=v", b"body").unwrap();
        assert_eq!(put_back_from(&record), None);
        let quarantine = Uuid::from_u128(7);
        for epoch in [None, Some(Epoch::from_number(u64::MAX - 1))] {
            let origin = Origin { quarantine, epoch, number: 300 };
            let with_origin = put_back(&origin, &record);
            assert_eq!(put_back_from(&with_origin), Some(origin));
            assert_eq!((decode(&with_origin), sender(&with_origin)), (decode(&record), Some("d".to_owned())));
            assert_eq!((plain(&with_origin), plain(&record)), (record.clone(), record.clone()));
            assert_eq!(decode(&with_origin.slice(..20)), None);
        }
    }
}
