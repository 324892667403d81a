//! Whatever bytes come, reading them ends, and what it gives is within the limits.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::sample::{Sample, choices};
use crate::codec::error::DecodeError;
use crate::codec::frame;
use crate::codec::limits::ReadLimits;
use crate::codec::message::{Body, Message};
use crate::codec::performative::Performative;
use crate::codec::reader::Reader;
use crate::codec::sasl::SaslFrame;
use crate::codec::value::Value;
use crate::codec::value_reader;

const SMALL: ReadLimits = ReadLimits { depth_max: 4, values_max: 50 };

fn read_value(bytes: &[u8], limits: ReadLimits) -> Result<Value, DecodeError> {
    value_reader::value(&mut Reader::new(Bytes::copy_from_slice(bytes), limits))
}

/// Values and levels of a value, and the elements that its vectors have memory for.
fn measure(value: &Value) -> (usize, usize, usize) {
    let inside: (Vec<&Value>, usize) = match value {
        Value::List(values) => (values.iter().collect(), values.capacity()),
        Value::Map(map) => {
            (map.0.iter().flat_map(|(key, value)| [key, value]).collect(), 2 * map.0.capacity())
        }
        Value::Array(array) => (array.descriptor().into_iter().chain(array.elements()).collect(), 0),
        Value::Described(described) => (vec![&described.descriptor, &described.value], 0),
        _ => return (1, 0, 0),
    };
    inside.0.into_iter().map(measure).fold((1, 1, inside.1), |sum, (values, levels, capacity)| {
        (sum.0 + values, sum.1.max(levels + 1), sum.2 + capacity)
    })
}

#[test]
fn a_value_may_nest_as_deep_as_the_limit_and_no_deeper() {
    let limits = ReadLimits { depth_max: 16, values_max: 100 };
    // A list, a map, an array and a described value inside each other; the innermost list is empty.
    for open in [&b"\xc0"[..], b"\xc1", b"\xe0", b"\0"] {
        let nested = |levels: usize| {
            let mut bytes = vec![0x45];
            for _ in 0..levels {
                let size = bytes.len() as u8;
                let mut outer = open.to_vec();
                match open[0] {
                    0xc0 => outer.extend([size + 1, 1]),
                    0xc1 => outer.extend([size + 2, 2, 0x40]),
                    0xe0 => outer.extend([size + 1, 1]),
                    _ => outer.push(0x44),
                }
                outer.extend(bytes);
                bytes = outer;
            }
            bytes
        };
        let deepest = read_value(&nested(16), limits).unwrap_or_else(|error| panic!("{open:02x?}: {error}"));
        assert_eq!(measure(&deepest).1, 16 + 1, "{deepest:?}");
        assert_eq!(read_value(&nested(17), limits), Err(DecodeError::TooDeep(16)), "{open:02x?}");
    }
    // 100,000 levels would overflow the stack of a thread.
    assert_eq!(read_value(&[0; 100_000], ReadLimits::DEFAULT), Err(DecodeError::TooDeep(16)));
}

#[test]
fn a_count_alone_reserves_nothing() {
    // Elements of no bytes, as many as a count can say.
    for element in [0x40, 0x41, 0x43, 0x44, 0x45] {
        let bytes = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, element];
        let limit = ReadLimits::DEFAULT.values_max;
        assert_eq!(read_value(&bytes, ReadLimits::DEFAULT), Err(DecodeError::TooManyValues(limit)));
    }
    for compound in [0xd0, 0xd1, 0xf0] {
        let bytes = [compound, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xfe, 0x56];
        assert_eq!(read_value(&bytes, ReadLimits::DEFAULT), Err(DecodeError::Truncated), "{compound:02x}");
    }
}

#[test]
fn a_message_of_many_sections_is_bounded_too() {
    let sections = b"\0\x53\x75\xa0\0".repeat(3000);
    let read = Message::read(Bytes::from(sections), ReadLimits::DEFAULT);
    assert_eq!(read, Err(DecodeError::TooManyValues(ReadLimits::DEFAULT.values_max)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_within_the_limits_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        within_limits(&bytes);
    }

    /// Bytes that are nearly right get further.
    #[test]
    fn changed_bytes_are_read_within_the_limits_or_refused(
        mut choices in choices(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = BytesMut::new();
        if bool::sample(&mut choices) {
            Performative::sample(&mut choices).write(&mut bytes);
        } else {
            Message::sample(&mut choices).write(&mut bytes);
        }
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        within_limits(&bytes);
    }
}

fn within_limits(bytes: &[u8]) {
    if let Ok(value) = read_value(bytes, SMALL) {
        let (values, levels, capacity) = measure(&value);
        assert!(values <= SMALL.values_max as usize, "{values} values");
        assert!(levels <= usize::from(SMALL.depth_max) + 1, "{levels} levels");
        // A vector doubles when it is full, and begins with four.
        assert!(capacity <= 8 * values, "memory for {capacity} of {values} values");
    }
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = frame::read(&mut BytesMut::from(&bytes[..]), 4096);
    // What is read is written to bytes that read as the same. Compared as bytes: a NaN is not equal to itself.
    if let Ok(performative) = Performative::read(bytes.clone(), ReadLimits::DEFAULT) {
        let once = written(|out| performative.write(out));
        let again = Performative::read(once.clone(), ReadLimits::DEFAULT).expect("what was written");
        assert_eq!(written(|out| again.write(out)), once);
    }
    if let Ok(frame) = SaslFrame::read(bytes.clone(), ReadLimits::DEFAULT) {
        let once = written(|out| frame.write(out));
        assert_eq!(SaslFrame::read(once, ReadLimits::DEFAULT), Ok(frame));
    }
    if let Ok(message) = Message::read(bytes, ReadLimits::DEFAULT) {
        if let Body::Data(sections) = &message.body {
            assert!(!sections.is_empty());
        }
        let once = written(|out| message.write(out));
        let again = Message::read(once.clone(), ReadLimits::DEFAULT).expect("what was written");
        assert_eq!(written(|out| again.write(out)), once);
    }
}

fn written(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out);
    out.freeze()
}
