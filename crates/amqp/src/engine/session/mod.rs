//! One session: its windows, its links by their handles, and its deliveries.
//!
//! The client's channel and handles are used in both directions: a number is free again at both ends at the same time, when both have
//! ended or detached.

mod deliveries;
mod links;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::codec::definitions::AmqpError;
use crate::codec::performative::{Begin, Disposition, End as EndFrame, Flow, Performative, Transfer};
use crate::engine::event::{Event, LinkId};
use crate::engine::fault::Fault;
use crate::engine::link::{End, Link, State};
use crate::engine::serial;
use crate::engine::shared::Shared;
use crate::engine::unsettled::Unsettled;

#[derive(Debug)]
pub(in crate::engine) struct Session {
    channel: u16,
    /// We have ended it: what comes is ignored until the client does, too.
    is_ending: bool,
    next_incoming_id: u32,
    incoming_window: u32,
    next_outgoing_id: u32,
    remote_incoming_window: u32,
    links: BTreeMap<u32, Link>,
    /// What the client sent.
    incoming: Unsettled,
    last_incoming: Option<u32>,
    /// What the client received.
    outgoing: Unsettled,
    next_delivery: u32,
    /// Deliveries that wait for the client's window, whole or their rest.
    blocked: VecDeque<(Transfer, Bytes)>,
    /// Outcomes that are not written yet: neighbours with one outcome go together.
    disposition: Option<Disposition>,
}

impl Session {
    /// Answers the client's begin.
    pub(in crate::engine) fn begin(channel: u16, begin: &Begin, shared: &mut Shared) -> Self {
        let window = shared.settings.session_window;
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: 0,
            incoming_window: window,
            outgoing_window: window,
            handle_max: shared.settings.session_links_max - 1,
            ..Begin::default()
        };
        shared.outbox.performative(channel, &Performative::Begin(Box::new(answer)));
        Self {
            channel,
            is_ending: false,
            next_incoming_id: begin.next_outgoing_id,
            incoming_window: window,
            next_outgoing_id: 0,
            remote_incoming_window: begin.incoming_window,
            links: BTreeMap::new(),
            incoming: Unsettled::default(),
            last_incoming: None,
            outgoing: Unsettled::default(),
            next_delivery: 0,
            blocked: VecDeque::new(),
            disposition: None,
        }
    }

    pub(in crate::engine) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Ends it with an error, and awaits the client's end.
    pub(in crate::engine) fn end(&mut self, error: AmqpError, shared: &mut Shared) {
        self.remove_links(Some(&error), shared);
        self.is_ending = true;
        self.write(Performative::End(EndFrame { error: Some(error) }), shared);
    }

    /// Takes all links off a session that ends.
    pub(in crate::engine) fn remove_links(&mut self, error: Option<&AmqpError>, shared: &mut Shared) {
        self.flush_disposition(shared);
        self.blocked.clear();
        for handle in self.links.keys().copied().collect::<Vec<_>>() {
            if let Some(link) = self.remove(handle, shared)
                && link.state != State::Detaching
            {
                shared.events.push_back(Event::Detached(link.id, error.cloned()));
            }
        }
    }

    /// Takes a frame of the client that is for a session which was begun.
    pub(in crate::engine) fn receive(
        &mut self,
        frame: Performative,
        shared: &mut Shared,
    ) -> Result<(), Fault> {
        match frame {
            Performative::Attach(attach) => self.attach(attach, shared),
            Performative::Flow(flow) => self.flow(&flow, shared),
            Performative::Transfer(transfer, payload) => self.transfer(transfer, payload, shared),
            Performative::Disposition(disposition) => self.dispose(disposition, shared),
            Performative::Detach(detach) => self.detached(detach, shared),
            Performative::Open(_)
            | Performative::Begin(_)
            | Performative::End(_)
            | Performative::Close(_) => {
                Err(Fault::connection("amqp:not-allowed", "a frame that is not for a session in progress"))
            }
        }
    }

    fn flow(&mut self, flow: &Flow, shared: &mut Shared) -> Result<(), Fault> {
        // Absent if the client had not seen our begin: then it counts from our first number.
        let known = flow.next_incoming_id.unwrap_or(0);
        self.remote_incoming_window =
            serial::distance(self.next_outgoing_id, known.wrapping_add(flow.incoming_window));
        match flow.handle {
            None => {
                if flow.echo {
                    self.write_flow(None, shared);
                }
            }
            Some(handle) => self.link_flow(handle, flow, shared)?,
        }
        self.write_blocked(shared);
        Ok(())
    }

    fn link_flow(&mut self, handle: u32, flow: &Flow, shared: &mut Shared) -> Result<(), Fault> {
        let link = self.links.get_mut(&handle).ok_or_else(unattached)?;
        match (&mut link.end, link.state) {
            (_, State::Detaching) => return Ok(()),
            (End::Receiver(receiver), _) => {
                if let Some(delivery_count) = flow.delivery_count {
                    receiver.advance(delivery_count);
                }
            }
            (End::Sender(sender), state) => {
                sender.flow(flow);
                if state == State::Attached {
                    let (credit, is_drain) = (sender.credit, sender.is_drain);
                    shared.events.push_back(Event::Credit { link: link.id, credit, is_drain });
                }
            }
        }
        if flow.echo && link.state == State::Attached {
            self.write_flow(Some(handle), shared);
        }
        Ok(())
    }

    /// The client may send so many deliveries on a link from now on.
    pub(in crate::engine) fn grant(&mut self, handle: u32, credit: u32, shared: &mut Shared) -> bool {
        match self.links.get_mut(&handle) {
            Some(Link { state: State::Attached, end: End::Receiver(receiver), .. }) => {
                receiver.credit = credit
            }
            _ => return false,
        }
        self.write_flow(Some(handle), shared);
        true
    }

    /// Uses up the credit of a client that wants it.
    pub(in crate::engine) fn drained(&mut self, handle: u32, shared: &mut Shared) -> bool {
        match self.links.get_mut(&handle) {
            Some(Link { state: State::Attached, end: End::Sender(sender), .. }) if sender.is_drain => {
                sender.drain();
            }
            _ => return false,
        }
        self.write_flow(Some(handle), shared);
        true
    }

    fn write_flow(&mut self, handle: Option<u32>, shared: &mut Shared) {
        let mut flow = Flow {
            next_incoming_id: Some(self.next_incoming_id),
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: shared.settings.session_window,
            handle,
            ..Flow::default()
        };
        match handle.and_then(|handle| self.links.get(&handle)).map(|link| &link.end) {
            Some(End::Receiver(receiver)) => {
                flow.delivery_count = Some(receiver.delivery_count);
                flow.link_credit = Some(receiver.credit);
            }
            Some(End::Sender(sender)) => {
                flow.delivery_count = Some(sender.delivery_count);
                flow.link_credit = Some(sender.credit);
                flow.available = Some(0);
                flow.drain = sender.is_drain;
            }
            None => {}
        }
        self.write(Performative::Flow(Box::new(flow)), shared);
    }

    fn write(&mut self, performative: Performative, shared: &mut Shared) {
        self.flush_disposition(shared);
        shared.outbox.performative(self.channel, &performative);
    }

    /// The link of an id, if it is still the same.
    pub(in crate::engine) fn has(&self, link: LinkId) -> bool {
        self.links.get(&link.handle).is_some_and(|found| found.id == link)
    }
}

fn unattached() -> Fault {
    Fault::session("amqp:session:unattached-handle", "no link with this handle is attached")
}
