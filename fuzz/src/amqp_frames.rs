//! AMQP 1.0: a connection's bytes, what its frames carry, and the server's end of the connection.

use std::sync::Arc;
use std::time::Instant;

use amqp::codec::definitions::AmqpError;
use amqp::codec::delivery_state::DeliveryState;
use amqp::codec::frame::{self, Frame, FrameKind, Protocol, ReadFrame};
use amqp::codec::limits::ReadLimits;
use amqp::codec::message::Message;
use amqp::codec::performative::{Attach, Performative};
use amqp::codec::sasl::{Code, PlainCredentials, SaslFrame};
use amqp::engine::connection::{Connection, Outgoing};
use amqp::engine::event::Event;
use amqp::engine::settings::Settings;
use bytes::{Bytes, BytesMut};

const FRAME_BYTES_MAX: u32 = 64 * 1024;

/// A connection: headers, and frames of both kinds. Then the same bytes as a message alone, and to a server.
pub(crate) fn amqp(data: &[u8]) {
    frames(data);
    message(Bytes::copy_from_slice(data));
    assert_eq!(serve([data]), serve(data.chunks(7)), "it matters how the bytes are cut");
}

fn frames(data: &[u8]) {
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
}

/// What a server with small limits says of a connection whose bytes come in pieces: the number of its events, and its bytes.
fn serve<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (usize, BytesMut) {
    let settings = Settings {
        sessions_max: 4,
        session_links_max: 4,
        links_max: 6,
        session_window: 8,
        session_unsettled_max: 4,
        partial_bytes_max: 500,
        ..Settings::default()
    };
    let now = Instant::now();
    let mut connection = Connection::new(Arc::new(settings), now);
    let (mut buffer, mut events, mut output) = (BytesMut::new(), 0, BytesMut::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(event) = connection.receive(now, &mut buffer) {
            assert!(!connection.is_closed() || matches!(event, Event::Closed(_)), "{event:?} after the end");
            answer(&mut connection, event);
            events += 1;
            output.extend_from_slice(&connection.output(now));
        }
    }
    output.extend_from_slice(&connection.output(now));
    (events, output)
}

/// An application that takes all links that have a terminus.
fn answer(connection: &mut Connection, event: Event) {
    match event {
        Event::Authenticate(_) => connection.authenticated(Code::Ok),
        Event::Attach(link, attach) if attach.source.is_none() && attach.target.is_none() => {
            connection.refuse(link, AmqpError::default());
        }
        Event::Attach(link, attach) => {
            connection.accept(link, Attach { max_message_size: Some(400), ..*attach });
            connection.grant(link, 3);
        }
        Event::Credit { link, is_drain, .. } => {
            let payload = Bytes::from_static(&[7; 700]);
            let outgoing = Outgoing { tag: Bytes::from_static(b"tag"), payload, is_settled: is_drain };
            let _ = connection.send(link, outgoing);
            if is_drain {
                connection.drained(link);
            }
        }
        Event::Delivery(delivery) => {
            connection.settle(delivery.id, DeliveryState::Accepted);
            connection.grant(delivery.id.link, 2);
        }
        Event::Outcome { delivery, state, is_settled: false } => {
            connection.settle(delivery, state.unwrap_or(DeliveryState::Released));
        }
        Event::Opened(_) => connection.trust(),
        Event::Outcome { .. } | Event::Detached(..) | Event::Closed(_) => {}
    }
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
