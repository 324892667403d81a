//! What is sent to central beside telemetry: reported sections, who is connected, answers to commands, how messages ended,
//! what queues have lost.
//!
//! Each part of the daemon knows what central has not acknowledged; a new connection sends all of it again.

use std::collections::{BTreeSet, HashMap};

use edge_core::dialect::link::LinkUp;
use edge_core::link::budget::Cause;
use mqtt::client::{Outgoing, Sender};
use schemas::generation::Generation;
use schemas::link::{RemovedDevice, Reported};
use schemas::method::{MethodFailure, MethodResponse};
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::watch;

use super::losses::{Losing, Sent};
use super::presence::PresenceOutbox;
use super::uplink::Uplink;
use crate::upstream::sent_updates::{PAYLOAD_BYTES_MAX, SentUpdate};

/// The status of an answer that is too large, as HTTP has it.
const PAYLOAD_TOO_LARGE: i64 = 413;
/// What may be in flight of it.
pub(super) const IN_FLIGHT_MAX: usize = 64;
/// What a packet has beside topic and payload: fixed header, length of the topic, packet id, no properties.
pub(super) const PACKET_BYTES: usize = 8;

enum InFlightUpdate {
    /// Nobody waits for the acknowledgement.
    Once,
    Section(Identity),
    Presence,
    Answer(String),
    Settled((DeviceId, u64)),
    Losses(Sent),
    Removed(RemovedDevice),
    /// It was sent to an earlier opening of central's store.
    Again,
}

impl InFlightUpdate {
    /// Returns true if nothing but [`SentUpdates`] knows of it once central has acknowledged it. What is sent whole on each
    /// connection is not kept.
    ///
    /// [`SentUpdates`]: crate::upstream::sent_updates::SentUpdates
    fn is_sent_once(&self) -> bool {
        match self {
            Self::Answer(_) | Self::Settled(_) | Self::Losses(_) | Self::Removed(_) => true,
            Self::Once | Self::Section(_) | Self::Presence | Self::Again => false,
        }
    }
}

/// An update that central has not acknowledged, and what is kept of it then.
type InFlight = (InFlightUpdate, Option<SentUpdate>);
/// What a message costs, its topic and payload, and what it is.
type NextUpdate = (Cause, String, Vec<u8>, InFlightUpdate);

fn next(cause: Cause, operation: LinkUp, payload: Vec<u8>, update: InFlightUpdate) -> NextUpdate {
    (cause, operation.to_string(), payload, update)
}

/// What one connection has sent.
pub(super) struct UpdateSender<'a> {
    link: &'a Uplink,
    in_flight: HashMap<u16, InFlight>,
    presence: PresenceOutbox,
    losing: Losing,
    /// Modules of which central has refused the section. Bounded by the twins.
    refused: BTreeSet<Identity>,
    /// Central has said which version of the link it speaks.
    is_resumed: bool,
    /// Says when what has used up its bytes may go on.
    budget: watch::Receiver<()>,
}

impl<'a> UpdateSender<'a> {
    /// Of a new connection, on which everything is to be sent.
    pub(super) fn all(link: &'a Uplink) -> Self {
        link.twins.all_unsent();
        link.commands.all_unsent();
        link.cloud_messages.all_unsent();
        Self {
            link,
            in_flight: HashMap::new(),
            presence: PresenceOutbox::default(),
            losing: Losing::new(),
            refused: BTreeSet::new(),
            is_resumed: false,
            budget: link.meter.changes(),
        }
    }

    /// central has sent how far it has the queues, and which version of the link it speaks.
    pub(super) fn resume(&mut self) {
        self.is_resumed = true;
    }

    /// Waits until there is something to send, and space to send it.
    pub(super) async fn due(&mut self) {
        let link = self.link;
        let has_space = self.is_resumed && self.in_flight.len() < IN_FLIGHT_MAX;
        // Each of these keeps what is to be sent: `send` takes it.
        tokio::select! {
            () = link.twins.has_unsent(), if has_space => {}
            () = link.commands.has_unsent(), if has_space => {}
            () = link.cloud_messages.has_unsent(), if has_space => {}
            () = link.enrolments.has_unsent(), if has_space => {}
            () = self.losing.due(&link.queues, &link.quarantine), if has_space => {}
            () = link.presence.changed() => {}
            () = link.authorizer.removals.generations().ended() => {}
            // The meter lives as long as the link.
            _ = self.budget.changed() => {}
        }
    }

    /// Writes what central does not know yet, as far as there is space.
    pub(super) fn send(&mut self, sender: &mut Sender) {
        if !self.is_resumed {
            return;
        }
        while self.in_flight.len() < IN_FLIGHT_MAX && sender.space() > 0 {
            let Some((cause, topic, payload, update)) = self.next_update() else { break };
            let message = Outgoing { topic: &topic, payload: &payload, ..Outgoing::default() };
            let too_large = sender.too_large(&message);
            // central would close the connection, now and each time that it is sent again.
            let payload = match too_large.map(|bytes| (bytes, in_place_of(&update, bytes))) {
                None => payload,
                Some((bytes, Some(shorter))) => {
                    tracing::error!(
                        topic,
                        bytes,
                        "central takes no message of this size; it gets a short one that says so"
                    );
                    shorter
                }
                Some((bytes, None)) => {
                    tracing::error!(topic, bytes, "update not sent: central takes no message of this size");
                    self.done(update);
                    continue;
                }
            };
            self.link.meter.count(cause, (topic.len() + payload.len() + PACKET_BYTES) as u64);
            let packet_id = sender.publish(&topic, &payload);
            let kept = update.is_sent_once().then(|| kept(&update, topic, payload));
            self.in_flight.insert(packet_id, (update, kept));
        }
    }

    /// What central does not know yet and may be sent now.
    fn next_update(&mut self) -> Option<NextUpdate> {
        let link = self.link;
        let meter = &link.meter;
        let section_cause = |identity: &Identity| {
            if identity.module.as_ref().is_some_and(ModuleId::is_system) {
                Cause::Deployments
            } else {
                Cause::Twins
            }
        };
        if let Some(mut presence) = self.presence.next_unsent(&link.presence, &link.clients) {
            for client in &mut presence.clients {
                client.generation = link.generation(&client.identity);
            }
            return Some(next(Cause::Link, LinkUp::Presence, to_json(&presence), InFlightUpdate::Presence));
        }
        if let Some((request_id, enrolment)) = link.enrolments.next_unsent() {
            let operation = LinkUp::Enrol { request_id };
            return Some(next(Cause::Link, operation, to_json(&enrolment), InFlightUpdate::Once));
        }
        // What has used up its bytes of the day waits where it is. What is newer than an update that is sent again waits for it: of two
        // ends of one thing central takes the first, and of losses the ones with higher numbers.
        let is_resending = link.sent_updates.is_resending();
        let is_ready = |cause| meter.is_ready(cause) && !is_resending;
        if let Some((id, answer)) = is_ready(Cause::Commands).then(|| link.commands.next_unsent()).flatten() {
            let (operation, update) = (LinkUp::Answer { command_id: id.clone() }, InFlightUpdate::Answer(id));
            return Some(next(Cause::Commands, operation, to_json(&answer), update));
        }
        let settled = is_ready(Cause::Messages).then(|| link.cloud_messages.next_unsent()).flatten();
        if let Some((of, settlement)) = settled {
            let operation = LinkUp::Settled { device: of.0.clone(), sequence: of.1 };
            return Some(next(Cause::Messages, operation, to_json(&settlement), InFlightUpdate::Settled(of)));
        }
        if let Some((identity, section)) =
            link.twins.next_unsent(|identity| meter.is_ready(section_cause(identity)))
        {
            let (cause, update) = (section_cause(&identity), InFlightUpdate::Section(identity.clone()));
            let reported = Reported { section, generation: link.generation(&identity) };
            return Some(next(cause, LinkUp::Reported(identity), to_json(&reported), update));
        }
        if is_resending {
            // Behind the devices that it may be about.
            let update = if self.presence.has_unsent() { None } else { link.sent_updates.next_unsent() };
            let SentUpdate { topic, payload } = update?;
            return Some((Cause::Link, topic, payload.into_bytes(), InFlightUpdate::Again));
        }
        if let Some((mut losses, sent)) = self.losing.next_unsent() {
            for loss in &mut losses.losses {
                loss.generation = link.generation_of_loss(&losses.queue, loss);
            }
            return Some(next(Cause::Link, LinkUp::Losses, to_json(&losses), InFlightUpdate::Losses(sent)));
        }
        let removed = self.next_removed()?;
        Some(next(Cause::Link, LinkUp::Removed, to_json(&removed), InFlightUpdate::Removed(removed)))
    }

    /// A device that was added here and removed, one at a time: all that it had to send is sent.
    fn next_removed(&self) -> Option<RemovedDevice> {
        let is_removing =
            self.in_flight.values().any(|(update, _)| matches!(update, InFlightUpdate::Removed(_)));
        if is_removing || !self.link.takes_generations() {
            return None;
        }
        let generations = self.link.authorizer.removals.generations();
        let removed = generations.next_unreported()?;
        let now = self.link.authorizer.devices.generation(&removed.device_id);
        if now.map(Generation::ended) == Some(removed.generation) {
            // The daemon was killed before the device left the list: it is still here.
            generations.acknowledged(&removed);
            return None;
        }
        Some(removed)
    }

    /// central will not take an update that it was sent; returns false if the message is none of these.
    pub(super) fn refused(&mut self, packet_id: u16) -> bool {
        let module = match self.in_flight.get(&packet_id) {
            Some((InFlightUpdate::Section(of), _))
                if of.module.as_ref().is_some_and(|module| !module.is_system()) =>
            {
                Some(of.clone())
            }
            _ => None,
        };
        let update = self.in_flight.remove(&packet_id);
        let is_reported = update.map(|(update, _)| self.done(update)).is_some();
        self.refused.extend(module);
        is_reported
    }

    /// Returns true if the acknowledgement was of an update; the part that it came from is notified then.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> bool {
        let Some((update, kept)) = self.in_flight.remove(&packet_id) else { return false };
        // Before its part of the daemon forgets it.
        if let Some(kept) = kept {
            self.link.sent_updates.keep(kept);
        }
        self.done(update);
        true
    }

    fn done(&mut self, update: InFlightUpdate) {
        match update {
            InFlightUpdate::Once => {}
            InFlightUpdate::Again => self.link.sent_updates.acknowledged(),
            InFlightUpdate::Section(of) => {
                if of.module.as_ref().is_some_and(ModuleId::is_system) {
                    // It may name the modules of which central took no section.
                    for identity in std::mem::take(&mut self.refused) {
                        self.link.twins.send_again(&identity);
                    }
                }
            }
            InFlightUpdate::Presence => self.presence.acknowledged(),
            InFlightUpdate::Answer(id) => self.link.commands.acknowledged(&id),
            InFlightUpdate::Settled(of) => self.link.cloud_messages.acknowledged(&of),
            InFlightUpdate::Losses(sent) => self.losing.acknowledged(sent),
            InFlightUpdate::Removed(removed) => {
                self.link.authorizer.removals.generations().acknowledged(&removed)
            }
        }
    }
}

/// What is kept of a message: of a long answer, that there was one.
fn kept(update: &InFlightUpdate, topic: String, payload: Vec<u8>) -> SentUpdate {
    let bytes = payload.len();
    let payload = if bytes > PAYLOAD_BYTES_MAX && matches!(update, InFlightUpdate::Answer(_)) {
        let why = format!(
            "central had the answer before it went back to a backup; it has {bytes} bytes, more than the gateway keeps"
        );
        to_json(&without_payload(why))
    } else {
        payload
    };
    SentUpdate { topic, payload: String::from_utf8(payload).expect("JSON is UTF-8") }
}

/// What is sent in place of a message that central does not take: of an answer, that there was one. A JSON text can have
/// six times the bytes that the target sent.
fn in_place_of(update: &InFlightUpdate, bytes: usize) -> Option<Vec<u8>> {
    let InFlightUpdate::Answer(_) = update else { return None };
    let why = format!("the answer is not passed on: it has {bytes} bytes, more than central takes");
    Some(to_json(&without_payload(why)))
}

fn without_payload(why: String) -> Result<MethodResponse, MethodFailure> {
    Ok(MethodResponse { status: PAYLOAD_TOO_LARGE, payload: why.into() })
}

fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("messages of the link have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::Answer;

    #[test]
    fn an_answer_that_central_does_not_take_ends_its_command_all_the_same() {
        let shorter = in_place_of(&InFlightUpdate::Answer("5f-1".into()), 1_500_000).unwrap();
        let answer: Answer = schemas::json::from_link(&shorter).unwrap();
        let answer = answer.unwrap();
        assert_eq!(answer.status, 413);
        assert!(answer.payload.as_str().unwrap().contains("1500000 bytes"), "{answer:?}");
        assert!(shorter.len() < 200);
        assert!(in_place_of(&InFlightUpdate::Presence, 1_500_000).is_none());
    }
}
