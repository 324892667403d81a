//! What each packet of an open connection does.

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{debug, warn};

use super::end::End;
use super::pending::Reply;
use super::state::Session;
use crate::counts::count;
use crate::journal::event::Event;
use crate::quota::Rate;
use crate::sanitized::Sanitized;
use crate::service::Service;
use mqtt::codec::packet::{Ack, Packet, Version};
use mqtt::codec::reason::Reason;
use mqtt::codec::write;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Takes every packet that is here whole, as long as more may be taken in.
    pub(super) fn take_packets(&mut self) -> Result<(), End> {
        let taken = self.take_while_allowed();
        if self.rates.count(&self.connection.session_queue.usage) {
            count(&self.server.counts().clients_paused);
        }
        taken
    }

    fn take_while_allowed(&mut self) -> Result<(), End> {
        while self.may_take() {
            match self.reader.packet(self.server.settings.packet_bytes_max) {
                Ok(Some(packet)) => self.take(packet)?,
                Ok(None) => return Ok(()),
                Err(why) => return Err(self.refuse(why.reason(), &why.to_string())),
            }
        }
        Ok(())
    }

    /// Adds to the rates of the client's identity.
    fn add_to_rates(&mut self, done: &[(Rate, u64)]) {
        if self.rates.add(&self.connection.session_queue.usage, done) {
            count(&self.server.counts().clients_paused);
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), End> {
        match &packet {
            Packet::Publish(publish) => {
                let bytes = (publish.topic.len() + publish.payload.len()) as u64;
                self.add_to_rates(&[(Rate::Packets, 1), (Rate::Messages, 1), (Rate::Bytes, bytes)]);
            }
            Packet::Subscribe(subscribe) => {
                self.add_to_rates(&[(Rate::Packets, 1), (Rate::Filters, subscribe.filters.len() as u64)]);
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.add_to_rates(&[(Rate::Packets, 1), (Rate::Filters, unsubscribe.filters.len() as u64)]);
            }
            // Counted by what they do: what settles a message is free.
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) => {}
            _ => self.add_to_rates(&[(Rate::Packets, 1)]),
        }
        match packet {
            Packet::Publish(publish) => self.publish(publish),
            Packet::PubAck(ack) => {
                self.note_settled(ack.id, 1, "PUBACK");
                Ok(())
            }
            Packet::PubRec(ack) => self.taken(&ack),
            Packet::PubRel(ack) => self.released(ack.id),
            Packet::PubComp(ack) => {
                self.note_settled(ack.id, 2, "PUBCOMP");
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe),
            Packet::PingReq => {
                write::pingresp(&mut self.writer.out);
                Ok(())
            }
            Packet::Disconnect(disconnect) => match disconnect.session_expiry {
                // MQTT-3.14.2-2 of MQTT 5.
                Some(1..) if self.peer.expiry_s == 0 => Err(self.refuse(
                    Reason::PROTOCOL_ERROR,
                    "a DISCONNECT that makes a session outlive its connection",
                )),
                expiry => {
                    self.peer.expiry_s = expiry.unwrap_or(self.peer.expiry_s);
                    Err(match disconnect.reason {
                        Reason::SUCCESS => End::Disconnected,
                        reason => End::Lost(format!("the client disconnected: {reason}")),
                    })
                }
            },
            Packet::Connect(_) => Err(self.refuse(Reason::PROTOCOL_ERROR, "a second CONNECT")),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(self.refuse(Reason::PROTOCOL_ERROR, "a packet that only servers send"))
            }
            // Only after a CONNECT with an authentication method, and that is refused.
            Packet::Auth(_) => {
                Err(self.refuse(Reason::PROTOCOL_ERROR, "an AUTH without extended authentication"))
            }
        }
    }

    /// Logs what the client may not do; the connection is then closed.
    pub(super) fn refuse(&self, reason: Reason, why: &str) -> End {
        let (client, peer) = (Sanitized(self.client_id()), self.connection.client.peer);
        warn!(%client, %peer, "packet refused: {}", Sanitized(why));
        End::Closed(format!("refused: {why}"), reason)
    }

    /// What settles a message does not count against the client: it sends no more of these than it was sent messages, and a
    /// subscriber would else be slowed down by those who publish.
    fn note_settled(&mut self, id: u16, qos: u8, packet: &str) {
        if !self.settled(id, qos) {
            self.add_to_rates(&[(Rate::Packets, 1)]);
            debug!(client = %Sanitized(self.client_id()), id, "{packet} for nothing in flight");
        }
    }

    /// PUBREC: the client has a QoS 2 message. It is never sent again, so that must be on disk before PUBREL.
    fn taken(&mut self, ack: &Ack) -> Result<(), End> {
        if ack.reason.is_failure() {
            self.note_settled(ack.id, 2, "PUBREC");
            return Ok(());
        }
        // It settles nothing yet, and may come again and again.
        self.add_to_rates(&[(Rate::Packets, 1)]);
        let session_queue = self.connection.session_queue.clone();
        let (stored, reason) = match session_queue.taken(ack.id) {
            Some(key) if key != 0 => {
                let event = Event::Taken { session: session_queue.number, id: ack.id };
                (Some(self.server.broker.journal.write(&event)), Reason::SUCCESS)
            }
            Some(_) => (None, Reason::SUCCESS),
            None => (None, Reason::PACKET_ID_NOT_FOUND),
        };
        self.answer_stored(stored, Reply::PubRel(ack.id, reason))
    }

    /// PUBREL: the client lets a packet id go, and may use it for another message after PUBCOMP.
    fn released(&mut self, id: u16) -> Result<(), End> {
        let session_queue = self.connection.session_queue.clone();
        let was_here = session_queue.release(id);
        let reason = if was_here || self.peer.version == Version::V4 {
            Reason::SUCCESS
        } else {
            Reason::PACKET_ID_NOT_FOUND
        };
        let stored = (was_here && session_queue.is_durable).then(|| {
            let event = Event::Released { session: session_queue.number, id };
            self.server.broker.journal.write(&event)
        });
        self.answer_stored(stored, Reply::PubComp(id, reason))
    }
}
