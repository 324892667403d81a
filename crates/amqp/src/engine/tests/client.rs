//! The other end: writes frames, reads the engine's, and keeps what the engine reported.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::codec::definitions::Role;
use crate::codec::frame::{self, FrameKind, Protocol, ReadFrame};
use crate::codec::limits::ReadLimits;
use crate::codec::performative::{Attach, Begin, Flow, Open, Performative, Transfer};
use crate::codec::sasl::SaslFrame;
use crate::codec::terminus::{AnyTarget, Source, Target};
use crate::engine::connection::Connection;
use crate::engine::event::{Event, LinkId};
use crate::engine::settings::Settings;

pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) now: Instant,
    to_server: BytesMut,
    from_server: BytesMut,
}

impl Client {
    pub(super) fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::new(Arc::new(settings), now),
            now,
            to_server: BytesMut::new(),
            from_server: BytesMut::new(),
        }
    }

    /// A connection with a session on channel 0.
    pub(super) fn begun(settings: Settings) -> Self {
        let mut client = Self::new(settings);
        client.raw(&Protocol::Amqp.header());
        client.open(Open { container_id: "client".to_owned(), ..Open::default() });
        client.connection.trust();
        client.begin(0, 5000);
        client.events();
        client.skip_header();
        client.frames();
        client
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.to_server.extend_from_slice(bytes);
    }

    pub(super) fn write(&mut self, channel: u16, performative: &Performative) {
        frame::write(&mut self.to_server, FrameKind::Amqp, channel, |out| performative.write(out));
    }

    pub(super) fn write_sasl(&mut self, sasl: &SaslFrame) {
        frame::write(&mut self.to_server, FrameKind::Sasl, 0, |out| sasl.write(out));
    }

    pub(super) fn open(&mut self, open: Open) {
        self.write(0, &Performative::Open(Box::new(open)));
    }

    pub(super) fn begin(&mut self, channel: u16, incoming_window: u32) {
        let begin = Begin { incoming_window, outgoing_window: 5000, ..Begin::default() };
        self.write(channel, &Performative::Begin(Box::new(begin)));
    }

    /// What the engine reports about all that was written.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.connection.receive(self.now, &mut self.to_server) {
            events.push(event);
        }
        events
    }

    fn read(&mut self) {
        let output = self.connection.output(self.now);
        self.from_server.extend_from_slice(&output);
    }

    pub(super) fn skip_header(&mut self) -> Protocol {
        self.read();
        Protocol::read(&mut self.from_server).expect("a header").expect("a whole header")
    }

    /// The engine's frames; empty ones have no performative.
    pub(super) fn all_frames(&mut self) -> Vec<(u16, usize, Option<Performative>)> {
        self.read();
        let mut frames = Vec::new();
        loop {
            let before = self.from_server.len();
            match frame::read(&mut self.from_server, u32::MAX).expect("a frame") {
                ReadFrame::Missing(_) => break,
                ReadFrame::Whole(frame) => {
                    assert_eq!(frame.kind, FrameKind::Amqp);
                    let bytes = before - self.from_server.len();
                    let performative = (!frame.body.is_empty()).then(|| {
                        Performative::read(frame.body, ReadLimits::DEFAULT).expect("a performative")
                    });
                    frames.push((frame.channel, bytes, performative));
                }
            }
        }
        assert!(self.from_server.is_empty());
        frames
    }

    pub(super) fn frames(&mut self) -> Vec<Performative> {
        self.all_frames().into_iter().filter_map(|(_, _, performative)| performative).collect()
    }

    pub(super) fn sasl_frames(&mut self) -> Vec<SaslFrame> {
        self.read();
        let mut frames = Vec::new();
        while self.from_server.get(5) == Some(&1) && !self.from_server.starts_with(b"AMQP") {
            match frame::read(&mut self.from_server, u32::MAX).expect("a frame") {
                ReadFrame::Missing(_) => break,
                ReadFrame::Whole(frame) => {
                    frames.push(SaslFrame::read(frame.body, ReadLimits::DEFAULT).expect("a frame of SASL"));
                }
            }
        }
        frames
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.connection.expire(self.now);
    }

    /// A link on which the client sends, with credit.
    pub(super) fn sender(&mut self, handle: u32, credit: u32) -> LinkId {
        let link = self.attached(attach(handle, Role::Sender));
        assert!(self.connection.grant(link, credit));
        let frames = self.frames();
        let Some(Performative::Flow(flow)) = frames.last() else { panic!("{frames:?}") };
        assert_eq!((flow.handle, flow.link_credit), (Some(handle), Some(credit)));
        link
    }

    /// A link on which the client receives, with credit.
    pub(super) fn receiver(&mut self, handle: u32, credit: u32) -> LinkId {
        let link = self.attached(attach(handle, Role::Receiver));
        self.credit(handle, credit, false);
        assert_eq!(self.events(), [Event::Credit { link, credit, is_drain: false }]);
        link
    }

    fn attached(&mut self, attach: Attach) -> LinkId {
        self.write(0, &Performative::Attach(Box::new(attach.clone())));
        let events = self.events();
        let [Event::Attach(link, attached)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(**attached, attach);
        assert!(self.connection.accept(*link, Attach { max_message_size: Some(1000), ..attach.clone() }));
        let frames = self.frames();
        let [Performative::Attach(answer)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((&answer.name, answer.handle), (&attach.name, attach.handle));
        assert_eq!(answer.role, attach.role.opposite());
        assert_eq!((&answer.source, &answer.target), (&attach.source, &attach.target));
        *link
    }

    pub(super) fn credit(&mut self, handle: u32, credit: u32, drain: bool) {
        let flow = Flow {
            next_incoming_id: Some(0),
            incoming_window: 5000,
            outgoing_window: 5000,
            handle: Some(handle),
            delivery_count: Some(0),
            link_credit: Some(credit),
            drain,
            ..Flow::default()
        };
        self.write(0, &Performative::Flow(Box::new(flow)));
    }

    pub(super) fn transfer(&mut self, transfer: Transfer, payload: &'static [u8]) {
        self.write(0, &Performative::Transfer(transfer, Bytes::from_static(payload)));
    }
}

/// As a client attaches a link.
pub(super) fn attach(handle: u32, role: Role) -> Attach {
    Attach {
        name: format!("link {handle}"),
        handle,
        role,
        source: Some(Source { address: Some("source".to_owned()), ..Source::default() }),
        target: Some(AnyTarget::Node(Target { address: Some("target".to_owned()), ..Target::default() })),
        initial_delivery_count: (role == Role::Sender).then_some(0),
        ..Attach::default()
    }
}

/// The first transfer of a delivery.
pub(super) fn first(handle: u32, number: u32) -> Transfer {
    Transfer {
        handle,
        delivery_id: Some(number),
        delivery_tag: Some(Bytes::copy_from_slice(&number.to_be_bytes())),
        message_format: Some(0),
        ..Transfer::default()
    }
}
