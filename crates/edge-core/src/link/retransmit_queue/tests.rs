//! Servers that close, refuse and lose answers, and which message is found to be at fault.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A server of MQTT 3.1.1: it closes at a message that it does not like, and may lose the answers before.
struct Server {
    poison: BTreeSet<u64>,
    /// It takes nothing for so many connections.
    sick: u32,
    acknowledges_before_it_closes: bool,
    /// While it takes nothing, it answers pings.
    answers_pings: bool,
    taken: Vec<u64>,
    guilty: Vec<u64>,
    connections: u32,
}

impl Server {
    fn new(poison: &[u64], sick: u32, acknowledges_before_it_closes: bool) -> Self {
        let poison = poison.iter().copied().collect();
        Self {
            poison,
            sick,
            acknowledges_before_it_closes,
            answers_pings: false,
            taken: vec![],
            guilty: vec![],
            connections: 0,
        }
    }

    fn settle(&mut self, settled: Settled) {
        self.taken.extend(settled.taken);
        self.guilty.extend(settled.guilty.into_iter().map(|(ticket, _)| ticket));
    }

    /// One connection; true when it was closed.
    fn connection(&mut self, line: &mut RetransmitQueue, window: usize) -> bool {
        self.connections += 1;
        loop {
            if line.wants_proof() {
                if self.sick > 0 && !self.answers_pings {
                    self.sick -= 1;
                    assert_eq!(line.ended(Ended::ByServer), None);
                    return true;
                }
                line.answered();
            }
            let mut sent = Vec::new();
            while sent.len() < window
                && let Some(next) = line.next_to_send()
            {
                let packet_id = u16::try_from(sent.len() + 1).unwrap();
                line.sent(next.ticket, packet_id);
                sent.push((packet_id, next.ticket));
            }
            if sent.is_empty() {
                return false;
            }
            let is_sick = self.sick > 0;
            let closes_at = sent.iter().position(|(_, ticket)| is_sick || self.poison.contains(ticket));
            let answers = match closes_at {
                Some(at) if self.acknowledges_before_it_closes => at,
                Some(_) => 0,
                None => sent.len(),
            };
            for (packet_id, _) in &sent[..answers] {
                let settled = line.acknowledged(*packet_id);
                self.settle(settled);
            }
            if closes_at.is_some() {
                self.sick = self.sick.saturating_sub(1);
                self.guilty.extend(line.ended(Ended::ByServer).map(|(ticket, _)| ticket));
                return true;
            }
        }
    }
}

fn line(count: u64) -> RetransmitQueue {
    let mut line = RetransmitQueue::default();
    (1..=count).for_each(|ticket| line.push(ticket, 0, false));
    line
}

#[test]
fn a_message_at_which_the_server_closes_is_at_fault_after_four_connections_and_the_others_keep_their_order() {
    let (mut line, mut server) = (line(5), Server::new(&[2], 0, true));
    while server.connection(&mut line, 100) {}
    assert_eq!((&server.taken[..], &server.guilty[..]), (&[1, 3, 4, 5][..], &[2][..]));
    assert!(server.connections <= 6, "{}", server.connections);
}

#[test]
fn a_message_that_keeps_nobody_waiting_is_never_at_fault() {
    let (mut line, mut server) = (line(1), Server::new(&[1], 0, true));
    assert!((0..100).all(|_| server.connection(&mut line, 100)));
    assert!(server.guilty.is_empty());
    line.push(2, 0, false);
    while server.connection(&mut line, 100) {}
    assert_eq!((&server.taken[..], &server.guilty[..]), (&[2][..], &[1][..]));
}

#[test]
fn a_lost_line_faults_no_message_and_flags_what_may_have_arrived() {
    let mut line = line(2);
    for _ in 0..10 {
        let next = line.next_to_send().unwrap();
        line.sent(next.ticket, 1);
        assert_eq!(line.ended(Ended::ByLine), None);
    }
    assert_eq!(line.next_to_send(), Some(NextMessage { ticket: 1, is_repeated: true }));
    line.sent(1, 1);
    assert_eq!(line.next_to_send(), Some(NextMessage { ticket: 2, is_repeated: false }));
}

#[test]
fn a_refusal_is_the_messages_fault_once_upstream_takes_a_later_one_or_says_so() {
    let send = |line: &mut RetransmitQueue, packet_id| {
        line.next_to_send().map(|next| line.sent(next.ticket, packet_id))
    };
    let mut line = line(4);
    for packet_id in 1..=4 {
        send(&mut line, packet_id).unwrap();
    }
    assert_eq!(line.refused(1, 0x87, "not authorized".into()), Settled::default());
    assert_eq!(line.refused(2, 0x90, "topic".into()).guilty, [(2, "topic".to_owned())]);
    let settled = line.acknowledged(3);
    assert_eq!(settled, Settled { taken: Some(3), guilty: vec![(1, "not authorized".to_owned())] });
    assert_eq!(line.refused(4, 0x97, "quota".into()), Settled::default());
    assert!(line.is_stuck(), "nothing is behind it: it is tried on the next connection");
    assert_eq!(line.ended(Ended::ByLine), None);
    send(&mut line, 1).unwrap();
    assert_eq!(line.acknowledged(1), Settled { taken: Some(4), guilty: vec![] });
}

#[test]
fn a_server_that_refuses_everything_faults_no_message_however_long_the_backlog() {
    let mut line = line(10_000);
    let mut sent = Vec::new();
    for _ in 0..8 {
        let mut count = 0;
        while !line.is_stuck() {
            let next = line.next_to_send().unwrap();
            line.sent(next.ticket, 1);
            assert_eq!(line.refused(1, 0x97, String::new()), Settled::default());
            count += 1;
        }
        sent.push(count);
        assert_eq!(line.ended(Ended::ByLine), None);
    }
    assert_eq!(sent, [16, 32, 64, 128, 256, 512, 1024, 2048]);
    assert_eq!(line.len(), 10_000);
}

proptest! {
    #[test]
    fn restarts_of_the_server_fault_no_message_and_none_overtakes_one_of_its_sender(
        senders in proptest::collection::vec(0u64..4, 1..120),
        one_sender: bool,
        // Connections that end without an answer, before each of which some go well.
        restarts in proptest::collection::vec((0u32..6, 0usize..4), 0..20),
        // Connections that end between the answer to a ping and that to a message.
        unlucky in proptest::collection::btree_set(0u32..60, 0..3),
        poison in proptest::collection::btree_set(0u64..120, 0..6),
        window in 1usize..20,
        answers: bool,
    ) {
        let mut line = RetransmitQueue::default();
        let of = |ticket: u64| if one_sender { 0 } else { senders[usize::try_from(ticket).unwrap()] };
        let count = senders.len() as u64;
        (0..count).for_each(|ticket| line.push(ticket, of(ticket), false));
        let mut server = Server::new(&[], 0, answers);
        server.poison = poison.iter().copied().filter(|ticket| *ticket < count).collect();
        let mut restarts = restarts.into_iter();
        loop {
            let (sick, well) = restarts.next().unwrap_or((0, 100));
            server.sick = sick;
            for _ in 0..sick as usize + well {
                if unlucky.contains(&server.connections) {
                    (server.sick, server.answers_pings) = (server.sick + 1, true);
                }
                let is_done = !server.connection(&mut line, window) && server.sick == 0;
                server.answers_pings = false;
                if is_done {
                    break;
                }
            }
            if restarts.len() == 0 && line.items.iter().all(|item| poison.contains(&item.ticket)) {
                break;
            }
            prop_assert!(server.connections < 2_000, "{:?}", line);
        }
        prop_assert!(server.guilty.iter().all(|ticket| poison.contains(ticket)), "{:?}", server.guilty);
        for sender in 0..4 {
            let is_of = |ticket: &u64| of(*ticket) == sender && !poison.contains(ticket);
            let taken: Vec<u64> = server.taken.iter().copied().filter(is_of).collect();
            prop_assert_eq!(taken, (0..count).filter(is_of).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn a_server_that_answers_pings_and_takes_nothing_for_a_while_never_breaks_the_order(
        sick in 1u32..60,
        senders in 1u64..4,
        window in 1usize..20,
    ) {
        let mut line = RetransmitQueue::default();
        (0..60).for_each(|ticket| line.push(ticket, ticket % senders, false));
        let mut server = Server::new(&[], sick, false);
        server.answers_pings = true;
        while server.connection(&mut line, window) {}
        // Those that were behind one another when it healed may be set aside: each ended three connections.
        prop_assert!(server.guilty.len() <= sick as usize / 4, "{:?}", server.guilty);
        for sender in 0..senders {
            let is_of = |ticket: &u64| ticket % senders == sender && !server.guilty.contains(ticket);
            let taken: Vec<u64> = server.taken.iter().copied().filter(|ticket| ticket % senders == sender).collect();
            prop_assert_eq!(taken, (0..60).filter(is_of).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn poison_alone_is_at_fault_and_the_rest_arrives_once_in_order(
        poison in proptest::collection::btree_set(1u64..60, 0..8),
        window in 1usize..50,
        answers: bool,
    ) {
        let (mut line, mut server) = (line(60), Server::new(&[], 0, answers));
        server.poison = poison.clone();
        while server.connection(&mut line, window) {
            prop_assert!(server.connections < 1_000, "{:?}", line);
        }
        let expected: Vec<u64> = (1..=60).filter(|ticket| !poison.contains(ticket)).collect();
        prop_assert_eq!(&server.taken, &expected);
        let guilty: BTreeSet<u64> = server.guilty.iter().copied().collect();
        prop_assert_eq!((guilty, server.guilty.len()), (poison.clone(), poison.len()));
    }

    #[test]
    fn a_server_that_takes_nothing_for_a_while_sends_nothing_into_quarantine(sick in 1u32..200, window in 1usize..50, answers: bool) {
        let (mut line, mut server) = (line(30), Server::new(&[], sick, answers));
        while server.connection(&mut line, window) {}
        prop_assert_eq!(&server.guilty, &Vec::<u64>::new());
        server.taken.sort_unstable();
        prop_assert_eq!(&server.taken, &(1..=30).collect::<Vec<u64>>());
    }
}
