//! A connection: the caller's interface to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::event::{Closure, DeliveryId, Event, LinkId, NotSent};
use super::fault::Fault;
use super::negotiation::{self, Negotiation, Step};
use super::session::Session;
use super::settings::Settings;
use super::shared::Shared;
use super::timers::{Due, Timers};
use crate::codec::definitions::AmqpError;
use crate::codec::delivery_state::DeliveryState;
use crate::codec::frame::{self, FRAME_BYTES_MIN, FrameKind, ReadFrame};
use crate::codec::performative::{Attach, Close, End, Open, Performative, Transfer};
use crate::codec::sasl::Code;
use crate::codec::symbol::Symbol;

/// ```text
/// Negotiating ──► Opening ── the client's open ──► Open ── our close ──► Closing ── the client's close ──► Closed
/// ```
/// Any of them ends in `Closed` when the client closes or its time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Negotiating(Negotiation),
    Opening,
    Open,
    Closing,
    Closed,
}

/// A server's end of one connection.
///
/// # Guarantees
/// Between two events, one frame is taken at most: what the engine holds is bounded by [`Settings`], what it writes by a frame and the
/// deliveries that the application sends. The caller bounds the rest by not reading while [`Connection::output_bytes`] is large.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    sessions: BTreeMap<u16, Session>,
    shared: Shared,
    timers: Timers,
}

/// A delivery that the application sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Name of the delivery, at most 32 bytes, unlike those of the link's other deliveries that are not settled.
    pub tag: Bytes,
    /// The message.
    pub payload: Bytes,
    /// No outcome is awaited.
    pub is_settled: bool,
}

impl Connection {
    /// Before the client's first byte.
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        let timers = Timers::new(now, settings.idle_timeout, settings.handshake_timeout);
        let phase = Phase::Negotiating(Negotiation::Header);
        Self { phase, sessions: BTreeMap::new(), shared: Shared::new(settings), timers }
    }

    /// Takes frames off the buffer, up to the next event. `None` if more bytes are needed, or the application's answer to
    /// [`Event::Authenticate`]. To be called again after each event, and whenever bytes have come.
    pub fn receive(&mut self, now: Instant, buffer: &mut BytesMut) -> Option<Event> {
        loop {
            if let Some(event) = self.shared.events.pop_front() {
                return Some(event);
            }
            if self.phase == Phase::Closed {
                // Nobody will read it.
                buffer.clear();
                return None;
            }
            match self.step(buffer) {
                Ok(true) => self.timers.received(now),
                Ok(false) if self.shared.events.is_empty() => return None,
                Ok(false) => {}
                Err((channel, fault)) => self.punish(now, channel, fault),
            }
        }
    }

    /// Bytes for the client, in the order of writing.
    pub fn output(&mut self, now: Instant) -> Bytes {
        self.flush_dispositions();
        if self.shared.outbox.bytes() > 0 {
            self.timers.sent(now);
        }
        self.shared.outbox.take()
    }

    /// Bytes that wait for [`Connection::output`].
    pub fn output_bytes(&self) -> usize {
        self.shared.outbox.bytes()
    }

    /// Returns true when nothing more is read: the caller writes what waits and closes the transport.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// When [`Connection::expire`] has something to do, unless bytes come or go before.
    pub fn deadline(&self) -> Instant {
        self.timers.next()
    }

    /// What the client sends is not taken for now: its silence does not count.
    pub fn pause(&mut self, now: Instant) {
        self.timers.received(now);
    }

    /// Does what the time demands: an empty frame, or the end of a connection that was silent for too long. To be followed by
    /// [`Connection::receive`] and [`Connection::output`].
    pub fn expire(&mut self, now: Instant) {
        if self.phase == Phase::Closed {
            return;
        }
        match self.timers.due(now) {
            Due::Nothing => {}
            Due::KeepAlive => self.shared.outbox.keep_alive(),
            Due::Idle => {
                let fault =
                    Fault::connection("amqp:resource-limit-exceeded", "the client was silent for too long");
                self.punish(now, 0, fault);
            }
            // Nobody answers: there is nothing to wait for.
            Due::Limit if self.phase == Phase::Closing => self.closed(Closure::Server),
            Due::Limit => self.closed(Closure::TimedOut),
        }
    }

    /// Answers [`Event::Authenticate`].
    pub fn authenticated(&mut self, code: Code) {
        if self.phase != Phase::Negotiating(Negotiation::Verifying) {
            return;
        }
        negotiation::answer(code, &mut self.shared.outbox);
        if code == Code::Ok {
            self.phase = Phase::Negotiating(Negotiation::HeaderAfterSasl);
        } else {
            self.closed(Closure::Server);
        }
    }

    /// The application knows who the client is, from SASL, the transport or a message: sessions and links are limited as for others
    /// from now on.
    pub fn trust(&mut self) {
        self.shared.is_trusted = true;
    }

    /// Answers [`Event::Attach`]. Name, handle, role, initial delivery count, and the settle mode of a link on which the client sends
    /// (`first`) are the engine's; the rest is as `answer` says. False if the link is gone.
    pub fn accept(&mut self, link: LinkId, answer: Attach) -> bool {
        self.with_session(link, |session, shared| session.accept(link.handle, answer, shared))
    }

    /// Answers [`Event::Attach`]: the link ends with an error.
    pub fn refuse(&mut self, link: LinkId, error: AmqpError) -> bool {
        self.with_session(link, |session, shared| session.refuse(link.handle, error, shared))
    }

    /// The client may send `credit` deliveries on a link from now on, whatever it could before.
    pub fn grant(&mut self, link: LinkId, credit: u32) -> bool {
        self.with_session(link, |session, shared| session.grant(link.handle, credit, shared))
    }

    /// The application has nothing more for a client that drains.
    pub fn drained(&mut self, link: LinkId) -> bool {
        self.with_session(link, |session, shared| session.drained(link.handle, shared))
    }

    /// Sends a delivery of message format 0.
    ///
    /// # Errors
    /// [`NotSent`]: nothing of it was sent, and no credit was used.
    pub fn send(&mut self, link: LinkId, outgoing: Outgoing) -> Result<DeliveryId, NotSent> {
        let transfer = Transfer {
            handle: link.handle,
            delivery_tag: Some(outgoing.tag),
            message_format: Some(0),
            settled: Some(outgoing.is_settled),
            ..Transfer::default()
        };
        let (session, shared) = self.session(link).ok_or(NotSent::Gone)?;
        session.send(link, transfer, outgoing.payload, shared)
    }

    /// Settles a delivery from the client with its outcome, or confirms the client's outcome of one to it. False if nobody awaits it
    /// any more.
    pub fn settle(&mut self, delivery: DeliveryId, state: DeliveryState) -> bool {
        self.with_session(delivery.link, |session, shared| session.settle(delivery, state, shared))
    }

    /// Detaches a link. No [`Event::Detached`] follows.
    pub fn detach(&mut self, link: LinkId, error: Option<AmqpError>) -> bool {
        self.with_session(link, |session, shared| session.detach(link.handle, error, shared))
    }

    /// Closes the connection. [`Event::Closed`] follows when the client has answered, or has not for too long.
    pub fn close(&mut self, now: Instant, error: Option<AmqpError>) {
        match self.phase {
            Phase::Opening | Phase::Open => {
                self.write_close(error);
                self.sessions.clear();
                self.phase = Phase::Closing;
                self.timers.set_limit(Some(now + self.shared.settings.handshake_timeout));
            }
            Phase::Negotiating(_) => self.closed(Closure::Server),
            Phase::Closing | Phase::Closed => {}
        }
    }

    fn session(&mut self, link: LinkId) -> Option<(&mut Session, &mut Shared)> {
        if self.phase != Phase::Open {
            return None;
        }
        let session = self.sessions.get_mut(&link.channel)?;
        (session.has(link) && !session.is_ending()).then_some((session, &mut self.shared))
    }

    fn with_session(&mut self, link: LinkId, act: impl FnOnce(&mut Session, &mut Shared) -> bool) -> bool {
        self.session(link).is_some_and(|(session, shared)| act(session, shared))
    }

    /// Takes one header or frame. False if bytes are missing.
    fn step(&mut self, buffer: &mut BytesMut) -> Result<bool, (u16, Fault)> {
        if let Phase::Negotiating(negotiation) = self.phase {
            return self.negotiate(negotiation, buffer).map_err(|fault| (0, fault));
        }
        let bytes_max = self.shared.settings.frame_bytes_max;
        let frame = match frame::read(buffer, bytes_max).map_err(|error| (0, error.into()))? {
            ReadFrame::Missing(_) => return Ok(false),
            ReadFrame::Whole(frame) => frame,
        };
        let channel = frame.channel;
        if frame.kind != FrameKind::Amqp {
            let fault = Fault::connection("amqp:connection:framing-error", "a frame of SASL after SASL");
            return Err((0, fault));
        }
        if frame.body.is_empty() {
            return Ok(true);
        }
        let read = Performative::read(frame.body, self.shared.settings.read_limits);
        let performative = read.map_err(|error| (channel, error.into()))?;
        self.performative(channel, performative).map_err(|fault| (channel, fault))?;
        Ok(true)
    }

    fn negotiate(&mut self, negotiation: Negotiation, buffer: &mut BytesMut) -> Result<bool, Fault> {
        let Shared { settings, outbox, .. } = &mut self.shared;
        match negotiation.step(buffer, settings, outbox)? {
            Step::Wait => return Ok(false),
            Step::Next(next) => self.phase = Phase::Negotiating(next),
            Step::Authenticate(credentials) => {
                self.phase = Phase::Negotiating(Negotiation::Verifying);
                self.shared.events.push_back(Event::Authenticate(credentials));
            }
            Step::Failed(reason) => {
                let error = AmqpError::new(Symbol::from_static("amqp:not-allowed"), reason);
                self.closed(Closure::Fault(error));
            }
            Step::Done => {
                // Ours need not await the client's, and some clients await ours.
                self.write_open();
                self.phase = Phase::Opening;
            }
        }
        Ok(true)
    }

    fn write_open(&mut self) {
        let settings = &self.shared.settings;
        let promised = u32::try_from((settings.idle_timeout / 2).as_millis()).unwrap_or(u32::MAX);
        let open = Open {
            container_id: settings.container_id.clone(),
            max_frame_size: settings.frame_bytes_max,
            channel_max: settings.sessions_max - 1,
            idle_time_out: Some(promised),
            ..Open::default()
        };
        self.shared.outbox.performative(0, &Performative::Open(Box::new(open)));
    }

    fn performative(&mut self, channel: u16, performative: Performative) -> Result<(), Fault> {
        match (self.phase, performative) {
            (_, Performative::Close(Close { error })) => {
                if self.phase == Phase::Closing {
                    self.closed(Closure::Server);
                } else {
                    self.write_close(None);
                    self.closed(Closure::Client(error));
                }
                Ok(())
            }
            // What was on its way when we closed.
            (Phase::Closing, _) => Ok(()),
            (Phase::Opening, Performative::Open(open)) => self.opened(open),
            (Phase::Open, Performative::Begin(begin)) => {
                if channel >= self.shared.settings.sessions_max {
                    return Err(Fault::connection(
                        "amqp:connection:framing-error",
                        "a channel above channel-max",
                    ));
                }
                if begin.remote_channel.is_some() || self.sessions.contains_key(&channel) {
                    return Err(Fault::connection("amqp:not-allowed", "a session on this channel has begun"));
                }
                if self.sessions.len() >= self.shared.sessions_max() {
                    let description = "too many sessions before the client is authenticated";
                    return Err(Fault::connection("amqp:resource-limit-exceeded", description));
                }
                self.sessions.insert(channel, Session::begin(channel, &begin, &mut self.shared));
                Ok(())
            }
            (Phase::Open, Performative::End(End { error })) => self.ended(channel, error),
            (Phase::Open, other) => {
                let unknown =
                    || Fault::connection("amqp:not-allowed", "no session has begun on this channel");
                let session = self.sessions.get_mut(&channel).ok_or_else(unknown)?;
                if session.is_ending() { Ok(()) } else { session.receive(other, &mut self.shared) }
            }
            _ => Err(Fault::connection("amqp:not-allowed", "the first frame of a connection is open, once")),
        }
    }

    fn opened(&mut self, open: Box<Open>) -> Result<(), Fault> {
        if open.max_frame_size < FRAME_BYTES_MIN {
            return Err(Fault::connection("amqp:invalid-field", "max-frame-size is less than 512"));
        }
        let idle = open.idle_time_out.filter(|ms| *ms > 0).map(|ms| Duration::from_millis(ms.into()));
        if idle.is_some_and(|idle| idle < self.shared.settings.peer_idle_timeout_min) {
            return Err(Fault::connection("amqp:not-allowed", "idle-time-out is too short"));
        }
        self.timers.set_limit(None);
        self.timers.set_peer_idle(idle);
        self.shared.outbox.set_frame_bytes_max(open.max_frame_size);
        self.phase = Phase::Open;
        self.shared.events.push_back(Event::Opened(open));
        Ok(())
    }

    fn ended(&mut self, channel: u16, error: Option<AmqpError>) -> Result<(), Fault> {
        let Some(mut session) = self.sessions.remove(&channel) else {
            return Err(Fault::connection("amqp:not-allowed", "no session has begun on this channel"));
        };
        session.remove_links(error.as_ref(), &mut self.shared);
        if !session.is_ending() {
            self.shared.outbox.performative(channel, &Performative::End(End { error: None }));
        }
        Ok(())
    }

    /// Ends what a client has broken: a link, a session or the connection.
    fn punish(&mut self, now: Instant, channel: u16, fault: Fault) {
        match fault {
            Fault::Connection(error) => {
                if self.phase == Phase::Closing {
                    return self.closed(Closure::Server);
                }
                self.close(now, Some(error.clone()));
                // A client that breaks the protocol is not waited for.
                self.closed(Closure::Fault(error));
            }
            Fault::Session(error) => {
                if let Some(session) = self.sessions.get_mut(&channel) {
                    session.end(error, &mut self.shared);
                }
            }
            Fault::Link(handle, error) => {
                if let Some(session) = self.sessions.get_mut(&channel) {
                    session.fail(handle, error, &mut self.shared);
                }
            }
        }
    }

    fn flush_dispositions(&mut self) {
        while let Some(channel) = self.shared.undisposed.pop_first() {
            if let Some(session) = self.sessions.get_mut(&channel) {
                session.flush_disposition(&mut self.shared);
            }
        }
    }

    fn write_close(&mut self, error: Option<AmqpError>) {
        self.flush_dispositions();
        self.shared.outbox.performative(0, &Performative::Close(Close { error }));
    }

    fn closed(&mut self, closure: Closure) {
        self.phase = Phase::Closed;
        self.sessions.clear();
        self.shared.events.clear();
        self.shared.events.push_back(Event::Closed(closure));
    }
}
