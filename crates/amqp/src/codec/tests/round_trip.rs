//! What is written is read as it was, and a stream of frames means the same wherever it is cut.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::sample::{Choices, Sample, choices};
use crate::codec::frame::{self, Frame, FrameKind, Protocol, ReadFrame};
use crate::codec::limits::ReadLimits;
use crate::codec::message::Message;
use crate::codec::performative::Performative;
use crate::codec::reader::Reader;
use crate::codec::sasl::SaslFrame;
use crate::codec::value::Value;
use crate::codec::{value_reader, value_writer};

const LIMITS: ReadLimits = ReadLimits::DEFAULT;

fn written(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    // What is there already must not matter.
    let mut out = BytesMut::from(&b"before"[..]);
    write(&mut out);
    out.freeze().slice(6..)
}

/// All of the frames of a stream that comes in pieces.
fn frames<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Frame> {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut protocol = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if protocol.is_none() {
            protocol = Protocol::read(&mut buffer).expect("a header");
        }
        while protocol.is_some() {
            match frame::read(&mut buffer, u32::MAX).expect("a frame") {
                ReadFrame::Whole(frame) => frames.push(frame),
                ReadFrame::Missing(_) => break,
            }
        }
    }
    assert!(buffer.is_empty());
    frames
}

proptest! {
    #[test]
    fn every_value_is_read_as_it_was_written(mut choices in choices()) {
        let value = Value::sample(&mut choices);
        let mut reader = Reader::new(written(|out| value_writer::value(out, &value)), LIMITS);
        prop_assert_eq!(value_reader::value(&mut reader), Ok(value));
        prop_assert!(reader.is_at_end());
    }

    #[test]
    fn every_performative_is_read_as_it_was_written(mut choices in choices()) {
        let performative = Performative::sample(&mut choices);
        let bytes = written(|out| performative.write(out));
        prop_assert_eq!(Performative::read(bytes, LIMITS), Ok(performative));
    }

    #[test]
    fn every_frame_of_sasl_is_read_as_it_was_written(mut choices in choices()) {
        let sasl = SaslFrame::sample(&mut choices);
        prop_assert_eq!(SaslFrame::read(written(|out| sasl.write(out)), LIMITS), Ok(sasl));
    }

    #[test]
    fn every_message_is_read_as_it_was_written(mut choices in choices()) {
        let message = Message::sample(&mut choices);
        prop_assert_eq!(Message::read(written(|out| message.write(out)), LIMITS), Ok(message));
    }

    #[test]
    fn no_performative_is_read_of_its_first_bytes(mut choices in choices(), at in any::<prop::sample::Index>()) {
        let performative = Performative::sample(&mut choices);
        // A transfer's payload has no length of its own: the frame gives it.
        let bytes = written(|out| match &performative {
            Performative::Transfer(transfer, _) => Performative::Transfer(transfer.clone(), Bytes::new()).write(out),
            other => other.write(out),
        });
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert!(Performative::read(cut, LIMITS).is_err());
    }

    #[test]
    fn a_stream_means_the_same_wherever_it_is_cut(
        samples in prop::collection::vec(choices(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut stream = BytesMut::from(&Protocol::Amqp.header()[..]);
        let mut expected = Vec::new();
        for (channel, mut choices) in samples.into_iter().enumerate() {
            let (kind, body) = any_body(&mut choices);
            let channel = channel as u16;
            frame::write(&mut stream, kind, channel, |out| out.extend_from_slice(&body));
            expected.push(Frame { kind, channel, body });
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.push(0);
        cuts.sort_unstable();
        let ends = cuts.iter().skip(1).chain([&stream.len()]).copied().collect::<Vec<_>>();
        prop_assert_eq!(frames(cuts.iter().zip(ends).map(|(start, end)| &stream[*start..end])), expected.clone());
        prop_assert_eq!(frames(stream.chunks(1)), expected);
    }
}

fn any_body(choices: &mut Choices) -> (FrameKind, Bytes) {
    if bool::sample(choices) {
        (FrameKind::Amqp, written(|out| Performative::sample(choices).write(out)))
    } else {
        (FrameKind::Sasl, written(|out| SaslFrame::sample(choices).write(out)))
    }
}
