//! Who is connected, on its way to central: a snapshot in parts on each new connection, and afterwards whoever came or went.

use std::collections::VecDeque;

use edge_core::link::snapshot::{self, PART_BYTES_MAX};
use edge_hub::clients::Clients;
use schemas::link::{ClientPresence, Presence};
use schemas::names::Identity;

use crate::upstream::presence::{Changes, PresenceChanges};

/// Parts that wait for central's acknowledgement at once: together less than what an alarm may wait behind.
const IN_FLIGHT_MAX: usize = 4;

/// Who is connected to this gateway.
pub(super) trait Connected {
    /// Everybody, and since when.
    fn all(&self) -> Vec<(Identity, u64)>;

    /// Since when somebody is connected.
    fn since(&self, who: &Identity) -> Option<u64>;
}

impl Connected for Clients {
    fn all(&self) -> Vec<(Identity, u64)> {
        self.connected()
    }

    fn since(&self, who: &Identity) -> Option<u64> {
        Self::since(self, who)
    }
}

/// What one connection has reported of the connected clients.
#[derive(Default)]
pub(super) struct PresenceOutbox {
    unsent: VecDeque<Presence>,
    in_flight: usize,
    /// Of the last snapshot; none was begun at 0.
    generation: u64,
}

impl PresenceOutbox {
    /// The next message that may be sent now.
    pub(super) fn next_unsent(
        &mut self,
        changes: &PresenceChanges,
        clients: &impl Connected,
    ) -> Option<Presence> {
        // Changes are read when they can be sent: a client that came and went meanwhile is reported once.
        if self.unsent.is_empty() && self.in_flight == 0 {
            // Taken before the clients are read: one that comes or goes after that is reported again.
            match changes.take() {
                Changes::Of(noted) if self.generation > 0 => {
                    let changed = noted.into_iter().map(|identity| {
                        let since_ms = clients.since(&identity);
                        ClientPresence {
                            identity,
                            is_connected: since_ms.is_some(),
                            since_ms: since_ms.unwrap_or(0),
                            generation: None,
                        }
                    });
                    let changed = snapshot::split(changed, PART_BYTES_MAX).into_iter();
                    let changed = changed.filter(|clients| !clients.is_empty());
                    self.unsent.extend(changed.map(|clients| Presence { clients, ..Presence::default() }));
                }
                Changes::Of(_) | Changes::Everybody => self.begin_snapshot(clients),
            }
        }
        if self.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let next = self.unsent.pop_front()?;
        self.in_flight += 1;
        Some(next)
    }

    fn begin_snapshot(&mut self, clients: &impl Connected) {
        self.generation += 1;
        // central knows nothing of clients that only this gateway knows.
        let all = clients.all().into_iter().filter(|(identity, _)| !identity.is_local());
        let all = all.map(|(identity, since_ms)| ClientPresence {
            identity,
            is_connected: true,
            since_ms,
            generation: None,
        });
        let parts = snapshot::parts(self.generation, all, PART_BYTES_MAX);
        self.unsent.extend(parts.into_iter().map(|(part, clients)| Presence {
            is_complete: part.part == 0,
            snapshot: Some(part),
            clients,
        }));
    }

    /// Returns true if parts of a list wait to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// central has taken or refused a message.
    pub(super) fn acknowledged(&mut self) {
        self.in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemas::link::CHILDREN_MAX;

    use super::*;

    #[derive(Default)]
    struct Clients(BTreeMap<Identity, u64>);

    impl Connected for Clients {
        fn all(&self) -> Vec<(Identity, u64)> {
            self.0.iter().map(|(identity, since)| (identity.clone(), *since)).collect()
        }

        fn since(&self, who: &Identity) -> Option<u64> {
            self.0.get(who).copied()
        }
    }

    /// As long as a device id may be.
    fn device(n: usize) -> Identity {
        format!("{n:0128}").parse().unwrap()
    }

    /// Sends everything, acknowledged at once; gives the messages and their bytes.
    fn drain(
        outbox: &mut PresenceOutbox,
        changes: &PresenceChanges,
        clients: &Clients,
    ) -> (Vec<Presence>, usize) {
        let (mut sent, mut bytes) = (Vec::new(), 0);
        while let Some(presence) = outbox.next_unsent(changes, clients) {
            let size = serde_json::to_vec(&presence).unwrap().len();
            assert!(size < 2 * PART_BYTES_MAX, "{size}");
            outbox.acknowledged();
            sent.push(presence);
            bytes += size;
        }
        (sent, bytes)
    }

    #[test]
    fn ten_thousand_devices_are_sent_in_parts_and_one_that_flaps_costs_less_than_a_kilobyte() {
        let changes = PresenceChanges::default();
        let mut clients = Clients((0..CHILDREN_MAX).map(|n| (device(n), 1_795_450_312_250)).collect());
        clients.0.insert(Identity::user(&"operator".parse().unwrap(), "panel").unwrap(), 1);
        let mut outbox = PresenceOutbox::default();
        let (parts, bytes) = drain(&mut outbox, &changes, &clients);
        println!("{CHILDREN_MAX} devices are told in {} messages of {bytes} bytes", parts.len());
        assert_eq!(parts.iter().map(|part| part.clients.len()).sum::<usize>(), CHILDREN_MAX);
        assert!(parts.last().unwrap().snapshot.unwrap().is_last);

        clients.0.remove(&device(7));
        changes.note(&device(7));
        let (gone, gone_bytes) = drain(&mut outbox, &changes, &clients);
        assert_eq!((gone.len(), gone[0].clients.len(), gone[0].clients[0].is_connected), (1, 1, false));
        clients.0.insert(device(7), 9);
        changes.note(&device(7));
        let (back, back_bytes) = drain(&mut outbox, &changes, &clients);
        assert_eq!((back[0].clients[0].is_connected, back[0].clients[0].since_ms), (true, 9));
        assert!(gone_bytes + back_bytes < 1000, "{gone_bytes} + {back_bytes} bytes");
    }

    #[test]
    fn who_flaps_while_a_message_is_in_flight_is_reported_once_and_as_it_is_then() {
        let changes = PresenceChanges::default();
        let mut clients = Clients::default();
        let mut outbox = PresenceOutbox::default();
        assert!(outbox.next_unsent(&changes, &clients).unwrap().clients.is_empty());
        for since in 1..100 {
            clients.0.insert(device(1), since);
            changes.note(&device(1));
            assert_eq!(outbox.next_unsent(&changes, &clients), None);
        }
        outbox.acknowledged();
        let (sent, _) = drain(&mut outbox, &changes, &clients);
        assert_eq!((sent.len(), sent[0].clients[0].since_ms), (1, 99));
    }
}
