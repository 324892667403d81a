//! Deliveries of a session, in both directions.

use bytes::Bytes;

use super::{Session, unattached};
use crate::codec::definitions::Role;
use crate::codec::delivery_state::DeliveryState;
use crate::codec::performative::{Disposition, Performative, Transfer};
use crate::engine::event::{Delivery, DeliveryId, Event, LinkId, NotSent};
use crate::engine::fault::Fault;
use crate::engine::link::{End, Link, Refused, State, Whole};
use crate::engine::serial;
use crate::engine::shared::Shared;

impl Session {
    pub(super) fn transfer(
        &mut self,
        transfer: Transfer,
        payload: Bytes,
        shared: &mut Shared,
    ) -> Result<(), Fault> {
        let Some(window) = self.incoming_window.checked_sub(1) else {
            return Err(Fault::session(
                "amqp:session:window-violation",
                "more transfers than the window allows",
            ));
        };
        self.incoming_window = window;
        self.next_incoming_id = self.next_incoming_id.wrapping_add(1);
        if window < shared.settings.session_window / 2 {
            self.incoming_window = shared.settings.session_window;
            self.write_flow(None, shared);
        }
        let handle = transfer.handle;
        let link = self.links.get_mut(&handle).ok_or_else(unattached)?;
        let (id, End::Receiver(receiver)) = (link.id, &mut link.end) else {
            return Err(Fault::link(handle, "amqp:not-allowed", "a transfer to the sender of a link"));
        };
        match link.state {
            State::Detaching => return Ok(()),
            State::Attaching => return Err(refused(handle, &Refused::Credit)),
            State::Attached => {}
        }
        if receiver.is_between_deliveries()
            && let Some(number) = transfer.delivery_id
        {
            if self.last_incoming.is_some_and(|last| serial::distance(last, number) == 0) {
                return Err(Fault::session("amqp:invalid-field", "a delivery-id that was used before"));
            }
            self.last_incoming = Some(number);
        }
        let before = receiver.partial_bytes();
        let taken = receiver.transfer(transfer, payload);
        shared.partial_bytes = shared.partial_bytes + receiver.partial_bytes() - before;
        if shared.partial_bytes > shared.settings.partial_bytes_max {
            let description = "deliveries of the connection that are not whole are too large together";
            return Err(Fault::link(handle, "amqp:resource-limit-exceeded", description));
        }
        match taken {
            Ok(None) => Ok(()),
            Ok(Some(whole)) => self.delivered(id, whole, shared),
            Err(reason) => Err(refused(handle, &reason)),
        }
    }

    pub(super) fn delivered(&mut self, link: LinkId, whole: Whole, shared: &mut Shared) -> Result<(), Fault> {
        let Whole { number, tag, message_format, is_settled, payload } = whole;
        if !is_settled {
            if self.incoming.len() >= shared.settings.session_unsettled_max {
                return Err(Fault::session(
                    "amqp:resource-limit-exceeded",
                    "too many deliveries are not settled",
                ));
            }
            self.incoming.insert(number, link.handle);
        }
        let id = DeliveryId { link, number };
        shared.events.push_back(Event::Delivery(Delivery { id, tag, message_format, is_settled, payload }));
        Ok(())
    }

    pub(super) fn dispose(&mut self, disposition: Disposition, shared: &mut Shared) -> Result<(), Fault> {
        let Disposition { role, first, last, settled, state, .. } = disposition;
        let last = last.unwrap_or(first);
        if last != first && serial::distance(first, last) == 0 {
            return Err(Fault::session(
                "amqp:invalid-field",
                "a disposition whose last delivery is before its first",
            ));
        }
        let is_outcome = state.as_ref().is_some_and(DeliveryState::is_outcome);
        match role {
            // It forgets what it sent. Our outcome may be on its way.
            Role::Sender if settled => drop(self.incoming.take_between(first, last)),
            Role::Sender => {}
            Role::Receiver if settled => {
                for entry in self.outgoing.take_between(first, last) {
                    if !entry.has_outcome {
                        self.outcome(entry.number, entry.handle, state.clone(), true, shared);
                    }
                }
            }
            Role::Receiver if is_outcome => {
                let mut reported = Vec::new();
                for entry in self.outgoing.between(first, last).filter(|entry| !entry.has_outcome) {
                    entry.has_outcome = true;
                    reported.push((entry.number, entry.handle));
                }
                for (number, handle) in reported {
                    self.outcome(number, handle, state.clone(), false, shared);
                }
            }
            Role::Receiver => {}
        }
        Ok(())
    }

    pub(super) fn outcome(
        &self,
        number: u32,
        handle: u32,
        state: Option<DeliveryState>,
        is_settled: bool,
        shared: &mut Shared,
    ) {
        if let Some(link) = self.links.get(&handle) {
            let delivery = DeliveryId { link: link.id, number };
            shared.events.push_back(Event::Outcome { delivery, state, is_settled });
        }
    }

    /// Settles a delivery of either direction. False if nobody awaits it any more.
    pub(in crate::engine) fn settle(
        &mut self,
        delivery: DeliveryId,
        state: DeliveryState,
        shared: &mut Shared,
    ) -> bool {
        let (number, handle) = (delivery.number, delivery.link.handle);
        let role = match self.links.get(&handle).map(Link::role) {
            Some(Role::Receiver) if self.incoming.remove(number, handle) => Role::Receiver,
            Some(Role::Sender) if self.outgoing.remove(number, handle) => Role::Sender,
            _ => return false,
        };
        if let Some(waiting) = &mut self.disposition
            && waiting.role == role
            && waiting.last.map(|last| last.wrapping_add(1)) == Some(number)
            && waiting.state.as_ref() == Some(&state)
        {
            waiting.last = Some(number);
            return true;
        }
        self.flush_disposition(shared);
        shared.undisposed.insert(self.channel);
        self.disposition = Some(Disposition {
            role,
            first: number,
            last: Some(number),
            settled: true,
            state: Some(state),
            batchable: false,
        });
        true
    }

    /// Writes what was held back to go together.
    pub(in crate::engine) fn flush_disposition(&mut self, shared: &mut Shared) {
        if let Some(disposition) = self.disposition.take() {
            shared.outbox.performative(self.channel, &Performative::Disposition(disposition));
        }
    }

    /// Sends a delivery: now, or when the client's window allows it.
    pub(in crate::engine) fn send(
        &mut self,
        link: LinkId,
        transfer: Transfer,
        payload: Bytes,
        shared: &mut Shared,
    ) -> Result<DeliveryId, NotSent> {
        let is_full = self.outgoing.len() >= shared.settings.session_unsettled_max
            || self.blocked.len() >= shared.settings.session_unsettled_max;
        match self.links.get_mut(&link.handle) {
            _ if is_full => return Err(NotSent::TooMany),
            Some(Link { state: State::Attached, end: End::Sender(sender), .. }) => {
                sender.take_credit(payload.len())?;
            }
            _ => return Err(NotSent::Gone),
        }
        let number = self.next_delivery;
        self.next_delivery = number.wrapping_add(1);
        if transfer.settled != Some(true) {
            self.outgoing.insert(number, link.handle);
        }
        self.blocked.push_back((Transfer { delivery_id: Some(number), ..transfer }, payload));
        self.write_blocked(shared);
        Ok(DeliveryId { link, number })
    }

    pub(super) fn write_blocked(&mut self, shared: &mut Shared) {
        while self.remote_incoming_window > 0 {
            let Some((transfer, payload)) = self.blocked.front_mut() else { return };
            shared.outbox.transfer(self.channel, transfer, payload);
            self.remote_incoming_window -= 1;
            self.next_outgoing_id = self.next_outgoing_id.wrapping_add(1);
            if transfer.more {
                // Of the transfers that follow, only the handle means something.
                *transfer = Transfer { handle: transfer.handle, ..Transfer::default() };
            } else {
                self.blocked.pop_front();
            }
        }
    }
}

fn refused(handle: u32, reason: &Refused) -> Fault {
    match reason {
        Refused::Credit => {
            Fault::link(handle, "amqp:link:transfer-limit-exceeded", "more deliveries than the credit allows")
        }
        Refused::TooLarge => {
            Fault::link(handle, "amqp:link:message-size-exceeded", "a message larger than max-message-size")
        }
        Refused::Field(description) => Fault::link(handle, "amqp:invalid-field", description),
        Refused::Resume => Fault::link(handle, "amqp:not-implemented", "deliveries are not resumed here"),
    }
}
