//! Links of a session: attach, answer, detach.

use super::{Session, unattached};
use crate::codec::definitions::{AmqpError, ReceiverSettleMode, Role};
use crate::codec::performative::{Attach, Detach, Performative};
use crate::codec::symbol::Symbol;
use crate::engine::event::{Event, LinkId};
use crate::engine::fault::Fault;
use crate::engine::link::{End, Link, Receiver, Sender, State};
use crate::engine::shared::Shared;

impl Session {
    pub(super) fn attach(&mut self, attach: Box<Attach>, shared: &mut Shared) -> Result<(), Fault> {
        let handle = attach.handle;
        if handle >= shared.settings.session_links_max {
            return Err(Fault::connection("amqp:connection:framing-error", "a handle above handle-max"));
        }
        if self.links.contains_key(&handle) {
            return Err(Fault::session("amqp:session:handle-in-use", "a link with this handle is attached"));
        }
        let end = match attach.role {
            Role::Sender => End::Receiver(Receiver::new(attach.initial_delivery_count.unwrap_or(0))),
            Role::Receiver => End::Sender(Sender::new(attach.max_message_size.unwrap_or(0))),
        };
        let is_same = |link: &Link| link.name == attach.name && link.role() != attach.role;
        let is_twice = self.links.values().any(|link| link.state != State::Detaching && is_same(link));
        // A refused link keeps its handle until the client has detached it.
        if shared.links >= 2 * shared.links_max() {
            let description = "too many links that are refused and not detached";
            return Err(Fault::connection("amqp:resource-limit-exceeded", description));
        }
        shared.link_serial += 1;
        shared.links += 1;
        let id = LinkId { channel: self.channel, handle, serial: shared.link_serial };
        let mut link = Link { id, name: String::new(), state: State::Attaching, end };
        let refused = if attach.name.len() > shared.settings.link_name_bytes_max {
            Some(("amqp:invalid-field", "the name of the link is too long"))
        } else if is_twice {
            Some(("amqp:not-allowed", "a link with this name is attached to the session"))
        } else if shared.links > shared.links_max() {
            Some(("amqp:resource-limit-exceeded", "the connection has too many links"))
        } else {
            None
        };
        link.name.clone_from(&attach.name);
        self.links.insert(handle, link);
        if let Some((condition, description)) = refused {
            self.refuse(handle, AmqpError::new(Symbol::from_static(condition), description), shared);
        } else {
            shared.events.push_back(Event::Attach(id, attach));
        }
        Ok(())
    }

    /// The application takes a link. False if it is gone, or was answered before.
    pub(in crate::engine) fn accept(&mut self, handle: u32, answer: Attach, shared: &mut Shared) -> bool {
        let Some(link) = self.links.get_mut(&handle).filter(|link| link.state == State::Attaching) else {
            return false;
        };
        link.state = State::Attached;
        let mut answer = Attach {
            name: link.name.clone(),
            handle,
            role: link.role(),
            // Links are not resumed, and an answer may be made of the client's attach.
            unsettled: None,
            incomplete_unsettled: false,
            ..answer
        };
        let credit = match &mut link.end {
            End::Receiver(receiver) => {
                answer.initial_delivery_count = None;
                // A client that is promised `second` waits for more than a settled disposition.
                answer.rcv_settle_mode = ReceiverSettleMode::First;
                receiver.message_bytes_max = answer.max_message_size.unwrap_or(0);
                None
            }
            End::Sender(sender) => {
                answer.initial_delivery_count = Some(sender.delivery_count);
                // Clients send their first flow without awaiting the answer to their attach.
                (sender.credit > 0).then_some(Event::Credit {
                    link: link.id,
                    credit: sender.credit,
                    is_drain: sender.is_drain,
                })
            }
        };
        self.write(Performative::Attach(Box::new(answer)), shared);
        shared.events.extend(credit);
        true
    }

    /// Answers an attach with one that has neither source nor target, and detaches (section 2.6.3).
    pub(in crate::engine) fn refuse(&mut self, handle: u32, error: AmqpError, shared: &mut Shared) -> bool {
        let Some(link) = self.links.get(&handle).filter(|link| link.state == State::Attaching) else {
            return false;
        };
        let initial_delivery_count = (link.role() == Role::Sender).then_some(0);
        let answer = Attach {
            name: link.name.clone(),
            handle,
            role: link.role(),
            initial_delivery_count,
            ..Attach::default()
        };
        self.write(Performative::Attach(Box::new(answer)), shared);
        self.detach(handle, Some(error), shared)
    }

    /// Detaches a link, and awaits the client's detach.
    pub(in crate::engine) fn detach(
        &mut self,
        handle: u32,
        error: Option<AmqpError>,
        shared: &mut Shared,
    ) -> bool {
        if self.links.get(&handle).is_none_or(|link| link.state == State::Detaching) {
            return false;
        }
        self.forget_deliveries(handle, shared);
        if let Some(link) = self.links.get_mut(&handle) {
            link.state = State::Detaching;
            link.name = String::new();
            // What it held is free; its handle is not.
            link.end = match link.role() {
                Role::Receiver => End::Receiver(Receiver::default()),
                Role::Sender => End::Sender(Sender::default()),
            };
        }
        self.write(Performative::Detach(Detach { handle, closed: true, error }), shared);
        true
    }

    /// Ends a link whose rules the client broke.
    pub(in crate::engine) fn fail(&mut self, handle: u32, error: AmqpError, shared: &mut Shared) {
        let Some(id) = self.links.get(&handle).map(|link| link.id) else { return };
        let is_ended =
            self.refuse(handle, error.clone(), shared) || self.detach(handle, Some(error.clone()), shared);
        if is_ended {
            shared.events.push_back(Event::Detached(id, Some(error)));
        }
    }

    pub(super) fn detached(&mut self, detach: Detach, shared: &mut Shared) -> Result<(), Fault> {
        let handle = detach.handle;
        let Some(state) = self.links.get(&handle).map(|link| link.state) else {
            return Err(unattached());
        };
        // An answer that has not been given yet must not follow the detach.
        if state != State::Detaching {
            self.forget_deliveries(handle, shared);
            self.write(Performative::Detach(Detach { handle, closed: detach.closed, error: None }), shared);
        }
        if let Some(link) = self.remove(handle, shared)
            && state != State::Detaching
        {
            shared.events.push_back(Event::Detached(link.id, detach.error));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, handle: u32, shared: &mut Shared) -> Option<Link> {
        self.forget_deliveries(handle, shared);
        let link = self.links.remove(&handle)?;
        shared.links -= 1;
        Some(link)
    }

    pub(super) fn forget_deliveries(&mut self, handle: u32, shared: &mut Shared) {
        self.flush_disposition(shared);
        if let Some(Link { end: End::Receiver(receiver), .. }) = self.links.get_mut(&handle) {
            shared.partial_bytes -= receiver.drop_partial();
        }
        self.incoming.remove_link(handle);
        self.outgoing.remove_link(handle);
        self.blocked.retain(|(transfer, _)| transfer.handle != handle);
    }
}
