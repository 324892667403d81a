//! AMQP 1.0: a connection's bytes, and what its frames carry.

use amqp::codec::frame::{self, Frame, FrameKind, Protocol, ReadFrame};
use amqp::codec::limits::ReadLimits;
use amqp::codec::message::Message;
use amqp::codec::performative::Performative;
use amqp::codec::sasl::{PlainCredentials, SaslFrame};
use bytes::{Bytes, BytesMut};

const FRAME_BYTES_MAX: u32 = 64 * 1024;

/// A connection: headers, and frames of both kinds. Then the same bytes as a message alone.
pub(crate) fn amqp(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(protocol)) = Protocol::read(&mut buffer) {
        assert!(data.len() - buffer.len() >= protocol.header().len());
        loop {
            let before = buffer.len();
            match frame::read(&mut buffer, FRAME_BYTES_MAX) {
                Ok(ReadFrame::Whole(frame)) => {
                    assert!(buffer.len() < before, "a frame was read from nothing");
                    body(frame);
                }
                Ok(ReadFrame::Missing(missing)) => {
                    assert!(missing > 0 && buffer.len() == before);
                    break;
                }
                // A header may be next, as it is after SASL.
                Err(_) => break,
            }
        }
    }
    message(Bytes::copy_from_slice(data));
}

fn body(frame: Frame) {
    let limits = ReadLimits::DEFAULT;
    match frame.kind {
        FrameKind::Amqp => {
            let Ok(performative) = Performative::read(frame.body, limits) else { return };
            again(
                |out| performative.write(out),
                |bytes| Performative::read(bytes, limits),
                Performative::write,
            );
            if let Performative::Transfer(_, payload) = performative {
                message(payload);
            }
        }
        FrameKind::Sasl => {
            let Ok(sasl) = SaslFrame::read(frame.body, limits) else { return };
            again(|out| sasl.write(out), |bytes| SaslFrame::read(bytes, limits), SaslFrame::write);
            if let SaslFrame::Init(init) = sasl {
                let plain = init.initial_response.and_then(|response| PlainCredentials::read(&response.0));
                assert!(plain.is_none_or(|plain| !plain.authentication_id.is_empty()));
            }
        }
    }
}

fn message(payload: Bytes) {
    let limits = ReadLimits::DEFAULT;
    if let Ok(message) = Message::read(payload, limits) {
        again(|out| message.write(out), |bytes| Message::read(bytes, limits), Message::write);
    }
}

/// What was read is written to bytes that read as the same. Compared as bytes: a NaN is not equal to itself.
fn again<T, E: std::fmt::Debug>(
    write: impl FnOnce(&mut BytesMut),
    read: impl FnOnce(Bytes) -> Result<T, E>,
    write_again: impl FnOnce(&T, &mut BytesMut),
) {
    let (mut once, mut twice) = (BytesMut::new(), BytesMut::new());
    write(&mut once);
    let same = read(once.clone().freeze()).expect("what was written is read");
    write_again(&same, &mut twice);
    assert_eq!(once, twice);
}
