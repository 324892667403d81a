//! What clients of other projects sent, recorded once, and what the engine reports of it.
//!
//! `clients/{name}.bin` has the bytes of one connection, from the client: rhea 3.0.5, which Azure's SDK for Node uses, without SASL; and
//! uamqp 1.6.11, which wraps Azure's AMQP library for C, with MSSBCBS. Both authenticate by a put-token, send telemetry and close.
//! `clients/{name}.txt` has the events; `LINESIDE_WRITE_GOLDEN=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use amqp::codec::definitions::Role;
use amqp::codec::delivery_state::DeliveryState;
use amqp::codec::limits::ReadLimits;
use amqp::codec::message::Message;
use amqp::codec::performative::Attach;
use amqp::codec::sasl::Code;
use amqp::codec::symbol::Symbol;
use amqp::engine::connection::Connection;
use amqp::engine::event::Event;
use amqp::engine::settings::{Mechanism, MechanismKind, Settings};
use bytes::{Bytes, BytesMut};

/// Message format of Azure in which each data section is a message.
const BATCH: u32 = 0x8001_3700;

/// The events of a connection whose bytes come in pieces, as text.
fn replay<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> String {
    let mechanisms = vec![Mechanism { name: Symbol::from_static("MSSBCBS"), kind: MechanismKind::Anonymous }];
    let now = Instant::now();
    let mut connection = Connection::new(Arc::new(Settings { mechanisms, ..Settings::default() }), now);
    let (mut buffer, mut text) = (BytesMut::new(), String::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(event) = connection.receive(now, &mut buffer) {
            answer(&mut connection, &event);
            show(&mut text, &event);
            connection.output(now);
        }
    }
    assert!(connection.is_closed() && buffer.is_empty());
    text
}

fn answer(connection: &mut Connection, event: &Event) {
    match event {
        Event::Authenticate(_) => connection.authenticated(Code::Ok),
        Event::Attach(link, attach) => {
            assert!(
                connection.accept(*link, Attach { max_message_size: Some(1 << 20), ..(**attach).clone() })
            );
            if attach.role == Role::Sender {
                assert!(connection.grant(*link, 100));
            }
        }
        Event::Delivery(delivery) if !delivery.is_settled => {
            assert!(connection.settle(delivery.id, DeliveryState::Accepted));
        }
        _ => {}
    }
}

fn show(text: &mut String, event: &Event) {
    match event {
        Event::Opened(open) => writeln!(text, "{open:?}"),
        Event::Attach(_, attach) => writeln!(text, "{attach:?}"),
        Event::Delivery(delivery) => {
            let (tag, format) = (&delivery.tag, delivery.message_format);
            writeln!(text, "Delivery {tag:?}, format {format:#x}, settled: {}", delivery.is_settled).unwrap();
            let message = read(&delivery.payload);
            let inner: Vec<Message> = match &message.body {
                amqp::codec::message::Body::Data(parts) if format == BATCH => {
                    parts.iter().map(read).collect()
                }
                _ => Vec::new(),
            };
            if inner.is_empty() { writeln!(text, "{message:?}") } else { writeln!(text, "{inner:?}") }
        }
        other => writeln!(text, "{other:?}"),
    }
    .unwrap();
}

fn read(payload: &Bytes) -> Message {
    Message::read(payload.clone(), ReadLimits::DEFAULT).unwrap()
}

fn check(client: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let bytes = std::fs::read(folder.join(client).with_extension("bin")).unwrap();
    let text = replay([&bytes[..]]);
    let golden = folder.join(client).with_extension("txt");
    if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(golden).unwrap());
    assert_eq!(replay(bytes.chunks(1)), text, "it matters how the bytes are cut");
}

#[test]
fn a_connection_of_rhea_is_served() {
    check("rhea");
}

#[test]
fn a_connection_of_uamqp_is_served() {
    check("uamqp");
}
