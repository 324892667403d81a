//! The QoS 1 and 2 messages that a client was sent and has not settled, in the order in which they were sent.
//!
//! ```text
//! QoS 1:  sent ── PUBACK ──> settled
//! QoS 2:  sent ── PUBREC ──> taken (PUBREL is sent) ── PUBCOMP ──> settled
//! ```
//!
//! After a reconnect everything is sent again in the same order under the same packet ids: messages with DUP, and PUBREL
//! for what was taken (MQTT-4.4.0-1).

use std::collections::VecDeque;

use crate::message::Delivery;

/// The window of one session.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    sent: VecDeque<Sent>,
    /// How many of them were sent on this connection; the others follow before anything new.
    on_wire: usize,
    last_id: u16,
    /// So many ids after `last_id` are known not to be in flight. Most often that is a whole round of ids: no look at all that
    /// is in flight for each message.
    free_ids: u16,
}

#[derive(Debug)]
struct Sent {
    id: u16,
    /// The client has it (PUBREC).
    is_taken: bool,
    delivery: Delivery,
}

/// What is to be sent again.
pub(crate) enum Again<'a> {
    /// The message, with DUP.
    Publish(u16, &'a Delivery),
    Release(u16),
}

impl Flight {
    /// How many messages the client has to settle that it was sent on this connection.
    pub(crate) fn on_wire(&self) -> usize {
        self.on_wire
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// A new connection: everything is to be sent again.
    pub(crate) fn rewind(&mut self) {
        self.on_wire = 0;
    }

    /// Gives the next of those that are to be sent again.
    pub(crate) fn again(&mut self) -> Option<Again<'_>> {
        let sent = self.sent.get(self.on_wire)?;
        self.on_wire += 1;
        Some(if sent.is_taken { Again::Release(sent.id) } else { Again::Publish(sent.id, &sent.delivery) })
    }

    /// Enters a message that is sent now and gives its packet id. Nothing is waiting to be sent again, and fewer than
    /// 65,535 are in flight.
    pub(crate) fn enter(&mut self, delivery: Delivery) -> u16 {
        let id = self.free_id();
        self.sent.push_back(Sent { id, is_taken: false, delivery });
        self.on_wire = self.sent.len();
        id
    }

    fn free_id(&mut self) -> u16 {
        loop {
            let next = self.last_id.wrapping_add(1);
            if self.free_ids == 0 {
                let ids_before = |sent: &Sent| sent.id.wrapping_sub(next);
                self.free_ids = self.sent.iter().map(ids_before).min().unwrap_or(u16::MAX);
            }
            self.last_id = next;
            let is_free = self.free_ids > 0;
            self.free_ids = self.free_ids.saturating_sub(1);
            if is_free && next != 0 {
                return next;
            }
        }
    }

    /// PUBACK (`qos` 1), or what ends QoS 2: PUBCOMP, or a PUBREC that refuses.
    pub(crate) fn settle(&mut self, id: u16, qos: u8) -> Option<Delivery> {
        let at = self.sent.iter().position(|sent| sent.id == id && sent.delivery.qos == qos)?;
        let sent = self.sent.remove(at)?;
        self.on_wire -= usize::from(at < self.on_wire);
        Some(sent.delivery)
    }

    /// PUBREC: the client has the message. Gives its key; `None` when no such message is in flight.
    pub(crate) fn take(&mut self, id: u16) -> Option<u64> {
        let sent = self.sent.iter_mut().find(|sent| sent.id == id && sent.delivery.qos == 2)?;
        sent.is_taken = true;
        Some(sent.delivery.key)
    }

    /// Takes out what `is_kept` does not want to keep.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let mut out = Vec::new();
        for sent in std::mem::take(&mut self.sent) {
            if is_kept(&sent.delivery) {
                self.sent.push_back(sent);
            } else if !sent.is_taken {
                out.push(sent.delivery);
            }
        }
        self.on_wire = self.on_wire.min(self.sent.len());
        out
    }

    /// Takes out what may not be sent again; the packet ids. What was taken by the client stays.
    pub(crate) fn take_back(&mut self, may_stay: impl Fn(&Delivery) -> bool) -> Vec<u16> {
        let mut ids = Vec::new();
        let mut at = 0;
        while let Some(sent) = self.sent.get(at) {
            if sent.is_taken || may_stay(&sent.delivery) {
                at += 1;
                continue;
            }
            ids.push(sent.id);
            self.sent.remove(at);
            self.on_wire -= usize::from(at < self.on_wire);
        }
        ids
    }

    /// Enters what a journal remembers; `last_id` is the last id that was given.
    pub(crate) fn restore(&mut self, sent: impl Iterator<Item = (u16, bool, Delivery)>, last_id: u16) {
        self.sent = sent.map(|(id, is_taken, delivery)| Sent { id, is_taken, delivery }).collect();
        self.last_id = last_id;
        self.free_ids = 0;
        self.on_wire = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn delivery(qos: u8) -> Delivery {
        let message = Message {
            topic: Bytes::from_static(b"t"),
            payload: Bytes::new(),
            qos,
            retain: false,
            publisher: 0,
            expires_ms: None,
            properties: None,
        };
        Delivery::new(Arc::new(message), qos)
    }

    fn again(flight: &mut Flight) -> Vec<(u16, &'static str)> {
        std::iter::from_fn(|| {
            flight.again().map(|again| match again {
                Again::Publish(id, _) => (id, "publish"),
                Again::Release(id) => (id, "release"),
            })
        })
        .collect()
    }

    #[test]
    fn everything_unsettled_is_sent_again_in_order_under_its_id() {
        let mut flight = Flight::default();
        let ids: Vec<u16> = [1, 2, 1, 2].map(|qos| flight.enter(delivery(qos))).into();
        assert_eq!(ids, [1, 2, 3, 4]);
        flight.take(2).unwrap();
        assert!(flight.settle(1, 1).is_some());
        assert!(flight.settle(4, 1).is_none(), "a PUBACK does not settle QoS 2");
        flight.rewind();
        assert_eq!(again(&mut flight), [(2, "release"), (3, "publish"), (4, "publish")]);
        assert_eq!(flight.on_wire(), 3);
        assert!(again(&mut flight).is_empty());
    }

    proptest! {
        #[test]
        fn an_id_is_the_next_one_that_nothing_in_flight_has(
            last_id in any::<u16>(),
            restored in prop::collection::btree_set(1..=u16::MAX, 0..20),
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut flight = Flight::default();
            let near = restored.iter().map(|id| if id % 2 == 0 { last_id.wrapping_add(id % 64).max(1) } else { *id });
            let near: BTreeSet<u16> = near.collect();
            flight.restore(near.iter().map(|id| (*id, false, delivery(1))), last_id);
            again(&mut flight);
            let (mut in_flight, mut last_id) = (near, last_id);
            for (is_sent, at) in steps {
                if is_sent {
                    let mut expected = last_id.wrapping_add(1);
                    while expected == 0 || in_flight.contains(&expected) {
                        expected = expected.wrapping_add(1);
                    }
                    prop_assert_eq!(flight.enter(delivery(1)), expected);
                    in_flight.insert(expected);
                    last_id = expected;
                } else if !in_flight.is_empty() {
                    let id = *at.get(&in_flight.iter().copied().collect::<Vec<_>>());
                    prop_assert!(flight.settle(id, 1).is_some());
                    in_flight.remove(&id);
                }
            }
        }
    }

    #[test]
    fn an_id_in_flight_is_not_given_again() {
        let mut flight = Flight::default();
        let first = flight.enter(delivery(1));
        for _ in 0..70_000 {
            let id = flight.enter(delivery(1));
            assert!(id != first && id != 0);
            flight.settle(id, 1).unwrap();
        }
    }
}
