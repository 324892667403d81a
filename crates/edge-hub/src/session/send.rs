//! From the client's session_queue to the wire.

use bytes::BytesMut;
use edge_buffer::AppendError;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::warn;

use super::end::End;
use super::gate::Gate;
use super::state::{Peer, Session};
use super::wire::OUT_BYTES_MAX;
use crate::age_clock::steady_ms;
use crate::bridge_state;
use crate::counts::{add, count};
use crate::journal::event::Event;
use crate::sanitized::Sanitized;
use crate::service::Service;
use crate::session_queue::{Budget, Copy, Outgoing, Taken};
use mqtt::codec::message::Message;
use mqtt::codec::packet::Ack;
use mqtt::codec::reason::Reason;
use mqtt::codec::write::{self, AckKind};

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Whether more may be sent to the client.
    pub(super) fn may_send(&self) -> bool {
        self.gate.is_none() && self.subscribing == 0 && self.writer.out.len() < OUT_BYTES_MAX
    }

    /// Moves messages from the client's session_queue to the wire, as many as fit.
    pub(super) fn send_waiting(&mut self) {
        while self.may_send() {
            let budget = Budget {
                window: self.peer.window,
                bytes: OUT_BYTES_MAX - self.writer.out.len(),
                now_ms: steady_ms,
            };
            let taken = self.connection.session_queue.take(self.connection.client.connection, budget);
            if taken.outgoing.is_empty() && taken.expired == 0 {
                return;
            }
            self.send(taken);
        }
    }

    fn send(&mut self, taken: Taken) {
        let session_queue = self.connection.session_queue.clone();
        let broker = self.server.broker.clone();
        if taken.expired > 0 {
            add(&broker.counts.copies_expired, taken.expired as u64);
        }
        if !taken.expired_keys.is_empty() {
            broker.journal.note(&Event::Dropped { session: session_queue.number, keys: taken.expired_keys });
        }
        let (mut keys, mut is_gated) = (Vec::new(), false);
        for outgoing in &taken.outgoing {
            if let Outgoing::Publish(copy) = outgoing
                && copy.key != 0
            {
                keys.push((copy.key, copy.id));
                is_gated |= copy.qos == 2;
            }
        }
        let stored = (!keys.is_empty())
            .then(|| broker.journal.write(&Event::Sent { session: session_queue.number, keys }));
        let mut gated = BytesMut::new();
        let bytes = taken.outgoing.iter().map(Outgoing::bytes).sum();
        if is_gated {
            gated.reserve(bytes)
        } else {
            self.writer.out.reserve(bytes)
        }
        for outgoing in taken.outgoing {
            let out = if is_gated { &mut gated } else { &mut self.writer.out };
            match outgoing {
                Outgoing::Publish(copy) => {
                    let is_written = write_copy(out, &copy, self.peer);
                    if !is_written {
                        self.pass_over(copy);
                    } else if let Some(done) = copy.done {
                        // Whoever waited may have gone.
                        let _ = done.send(());
                    }
                }
                Outgoing::Release(id) => {
                    write::ack(out, self.peer.version, AckKind::PubRel, &Ack::success(id))
                }
            }
        }
        match stored {
            Some(stored) if is_gated => self.gate = Some(Box::new(Gate { stored, packets: gated })),
            Some(stored) => stored.unawaited(),
            None => {}
        }
    }

    /// Settles a message that the client cannot take (MQTT-3.1.2-25 of MQTT 5: as if it had been sent).
    fn pass_over(&mut self, copy: Copy) {
        count(&self.server.broker.counts.copies_too_large);
        let (client, topic) = (Sanitized(self.client_id()), Sanitized(copy.message.topic()));
        let bytes_max = self.peer.packet_bytes_max;
        warn!(%client, %topic, bytes_max, "message passed over: it is larger than the client takes");
        if copy.id != 0 {
            self.settled(copy.id, copy.qos);
        }
    }

    /// The packet ids are on disk, or will not be.
    pub(super) fn open_gate(&mut self, stored: Result<(), AppendError>) -> Result<(), End> {
        let Some(gate) = self.gate.take() else { return Ok(()) };
        match stored {
            Ok(()) => {
                self.writer.out.extend_from_slice(&gate.packets);
                Ok(())
            }
            Err(error) => Err(End::Closed(format!("not written to disk: {error}"), Reason::SERVER_BUSY)),
        }
    }

    /// The client has a message for good.
    pub(super) fn settled(&mut self, id: u16, qos: u8) -> bool {
        let session_queue = &self.connection.session_queue;
        let Some(settled) = session_queue.settle(id, qos) else { return false };
        if settled.key != 0 && session_queue.is_durable {
            self.server.broker.journal.note(&Event::Settled { session: session_queue.number, id });
        }
        if let Some(done) = settled.done {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
        true
    }
}

/// Writes a message; false when the client does not take one so large.
fn write_copy(out: &mut BytesMut, copy: &Copy, peer: Peer) -> bool {
    let message = &copy.message;
    let shown = bridge_state::shown(&message.topic);
    let publish = Message {
        topic: shown.as_ref().unwrap_or(&message.topic),
        payload: &message.payload,
        qos: copy.qos,
        id: copy.id,
        dup: copy.is_again && copy.qos > 0,
        retain: copy.retain,
        properties: message.properties.as_deref(),
        message_expiry: message.expires_ms.and_then(|_| message.expiry_left(steady_ms())),
        topic_alias: None,
        subscription_ids: copy.ids.as_deref().unwrap_or_default(),
    };
    if peer.packet_bytes_max < usize::MAX && publish.packet_bytes(peer.version) > peer.packet_bytes_max {
        return false;
    }
    publish.write(out, peer.version);
    true
}
