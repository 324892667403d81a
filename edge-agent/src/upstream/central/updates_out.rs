//! What central is told beside telemetry: reported sections, who is connected, answers to commands, how messages ended,
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
}

/// What one connection has told.
pub(super) struct UpdateSender<'a> {
    link: &'a Uplink,
    in_flight: HashMap<u16, InFlightUpdate>,
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
    /// Of a new connection, on which everything is to be told.
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

    /// Central has told how far it has the queues, and which version of the link it speaks.
    pub(super) fn resume(&mut self) {
        self.is_resumed = true;
    }

    /// Waits until there is something to tell, and room to tell it.
    pub(super) async fn due(&mut self) {
        let link = self.link;
        let has_room = self.is_resumed && self.in_flight.len() < IN_FLIGHT_MAX;
        // Each of these keeps what is to be sent: `tell` takes it.
        tokio::select! {
            () = link.twins.has_unsent(), if has_room => {}
            () = link.commands.has_unsent(), if has_room => {}
            () = link.cloud_messages.has_unsent(), if has_room => {}
            () = link.enrolments.has_unsent(), if has_room => {}
            () = self.losing.due(&link.queues, &link.quarantine), if has_room => {}
            () = link.presence.changed() => {}
            () = link.authorizer.removals.generations().ended() => {}
            // The meter lives as long as the link.
            _ = self.budget.changed() => {}
        }
    }

    /// Writes what central does not know yet, as far as there is room.
    pub(super) fn tell(&mut self, sender: &mut Sender) {
        if !self.is_resumed {
            return;
        }
        while self.in_flight.len() < IN_FLIGHT_MAX && sender.room() > 0 {
            let meter = &self.link.meter;
            let section_cause = |identity: &Identity| {
                if identity.module.as_ref().is_some_and(ModuleId::is_system) {
                    Cause::Deployments
                } else {
                    Cause::Twins
                }
            };
            // What has used up its bytes of the day waits where it is.
            let next_answer = || meter.is_ready(Cause::Commands).then(|| self.link.commands.next_unsent())?;
            let next_settled =
                || meter.is_ready(Cause::Messages).then(|| self.link.cloud_messages.next_unsent())?;
            let next_section =
                || self.link.twins.next_unsent(|identity| meter.is_ready(section_cause(identity)));
            let mut next_presence = || self.presence.next_unsent(&self.link.presence, &self.link.clients);
            let (cause, topic, payload, told) = if let Some(mut presence) = next_presence() {
                for client in &mut presence.clients {
                    client.generation = self.link.generation(&client.identity);
                }

                (Cause::Link, LinkUp::Presence, to_json(&presence), InFlightUpdate::Presence)
            } else if let Some((id, answer)) = next_answer() {
                (
                    Cause::Commands,
                    LinkUp::Answer { command_id: id.clone() },
                    to_json(&answer),
                    InFlightUpdate::Answer(id),
                )
            } else if let Some((request_id, enrolment)) = self.link.enrolments.next_unsent() {
                (Cause::Link, LinkUp::Enrol { request_id }, to_json(&enrolment), InFlightUpdate::Once)
            } else if let Some((of, settlement)) = next_settled() {
                let operation = LinkUp::Settled { device: of.0.clone(), sequence: of.1 };
                (Cause::Messages, operation, to_json(&settlement), InFlightUpdate::Settled(of))
            } else if let Some((identity, section)) = next_section() {
                let cause = section_cause(&identity);
                let told = InFlightUpdate::Section(identity.clone());
                let generation = self.link.generation(&identity);
                let reported = Reported { section, generation };
                (cause, LinkUp::Reported(identity), to_json(&reported), told)
            } else if let Some((mut losses, sent)) = self.losing.next_unsent() {
                for loss in &mut losses.losses {
                    loss.generation = self.link.generation_of_loss(&losses.queue, loss);
                }
                (Cause::Link, LinkUp::Losses, to_json(&losses), InFlightUpdate::Losses(sent))
            } else if let Some(removed) = self.next_removed() {
                (Cause::Link, LinkUp::Removed, to_json(&removed), InFlightUpdate::Removed(removed))
            } else {
                break;
            };
            let topic = topic.to_string();
            let message = Outgoing { topic: &topic, payload: &payload, ..Outgoing::default() };
            let too_large = sender.too_large(&message);
            // central would close the connection, now and each time that it is told again.
            let payload = match too_large.map(|bytes| (bytes, in_place_of(&told, bytes))) {
                None => payload,
                Some((bytes, Some(shorter))) => {
                    tracing::error!(topic, bytes, "central takes no message of this size, and is told so");
                    shorter
                }
                Some((bytes, None)) => {
                    tracing::error!(topic, bytes, "central is not told: it takes no message of this size");
                    self.done(told);
                    continue;
                }
            };
            meter.count(cause, (topic.len() + payload.len() + PACKET_BYTES) as u64);
            let packet_id = sender.publish(&topic, &payload);
            self.in_flight.insert(packet_id, told);
        }
    }

    /// A device that was added here and removed, one at a time: all that it had to send is sent.
    fn next_removed(&self) -> Option<RemovedDevice> {
        let is_telling = self.in_flight.values().any(|told| matches!(told, InFlightUpdate::Removed(_)));
        if is_telling || !self.link.takes_generations() {
            return None;
        }
        let generations = self.link.authorizer.removals.generations();
        let removed = generations.next_untold()?;
        let now = self.link.authorizer.devices.generation(&removed.device_id);
        if now.map(Generation::ended) == Some(removed.generation) {
            // The daemon was killed before the device left the list: it is still here.
            generations.told(&removed);
            return None;
        }
        Some(removed)
    }

    /// central will not take something that it was told; false when it is no message of these.
    pub(super) fn refused(&mut self, packet_id: u16) -> bool {
        let module = match self.in_flight.get(&packet_id) {
            Some(InFlightUpdate::Section(of))
                if of.module.as_ref().is_some_and(|module| !module.is_system()) =>
            {
                Some(of.clone())
            }
            _ => None,
        };
        let is_told = self.acknowledged(packet_id);
        self.refused.extend(module);
        is_told
    }

    /// Returns true if the acknowledgement was of an update; the part that it came from is told then.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> bool {
        let told = self.in_flight.remove(&packet_id);
        told.map(|told| self.done(told)).is_some()
    }

    fn done(&mut self, told: InFlightUpdate) {
        match told {
            InFlightUpdate::Once => {}
            InFlightUpdate::Section(of) => {
                if of.module.as_ref().is_some_and(ModuleId::is_system) {
                    // It may name the modules of which central took no section.
                    for identity in std::mem::take(&mut self.refused) {
                        self.link.twins.mark_unsent(&identity);
                    }
                }
            }
            InFlightUpdate::Presence => self.presence.acknowledged(),
            InFlightUpdate::Answer(id) => self.link.commands.acknowledged(&id),
            InFlightUpdate::Settled(of) => self.link.cloud_messages.acknowledged(&of),
            InFlightUpdate::Losses(sent) => self.losing.acknowledged(sent),
            InFlightUpdate::Removed(removed) => self.link.authorizer.removals.generations().told(&removed),
        }
    }
}

/// What central is told in place of a message that it does not take: of an answer, that there was one. A JSON text can have
/// six times the bytes that the target sent.
fn in_place_of(told: &InFlightUpdate, bytes: usize) -> Option<Vec<u8>> {
    let InFlightUpdate::Answer(_) = told else { return None };
    let payload =
        format!("the answer is not passed on: it has {bytes} bytes, more than central takes").into();
    Some(to_json(&Ok::<_, MethodFailure>(MethodResponse { status: PAYLOAD_TOO_LARGE, payload })))
}

fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("words of the link have a JSON form")
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
