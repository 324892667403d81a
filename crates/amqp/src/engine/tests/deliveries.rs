//! Deliveries in both directions: transfers, windows, outcomes.

use bytes::Bytes;

use super::client::{Client, first};
use crate::codec::definitions::Role;
use crate::codec::delivery_state::{DeliveryState, Rejected};
use crate::codec::frame::Protocol;
use crate::codec::performative::{Detach, Disposition, End, Flow, Open, Performative, Transfer};
use crate::engine::connection::Outgoing;
use crate::engine::event::{Delivery, DeliveryId, Event, LinkId, NotSent};
use crate::engine::settings::Settings;

fn delivery(link: LinkId, number: u32, payload: &'static [u8]) -> Event {
    Event::Delivery(Delivery {
        id: DeliveryId { link, number },
        tag: Bytes::copy_from_slice(&number.to_be_bytes()),
        message_format: 0,
        is_settled: false,
        payload: Bytes::from_static(payload),
    })
}

fn disposition(role: Role, first: u32, last: u32, settled: bool, state: DeliveryState) -> Performative {
    let (last, state) = (Some(last), Some(state));
    Performative::Disposition(Disposition { role, first, last, settled, state, batchable: false })
}

fn outgoing(tag: u8, payload: impl Into<Bytes>) -> Outgoing {
    Outgoing { tag: Bytes::copy_from_slice(&[tag; 16]), payload: payload.into(), is_settled: false }
}

#[test]
fn deliveries_are_reported_and_settled_in_ranges() {
    let mut client = Client::begun(Settings::default());
    let link = client.sender(0, 10);
    for number in 0..4 {
        client.transfer(first(0, number), b"message");
    }
    let events = client.events();
    assert_eq!(events, [0, 1, 2, 3].map(|number| delivery(link, number, b"message")));
    assert_eq!(client.frames(), []);
    let id = |number| DeliveryId { link, number };
    let rejected = DeliveryState::Rejected(Rejected::default());
    assert!(client.connection.settle(id(0), DeliveryState::Accepted));
    assert!(client.connection.settle(id(1), DeliveryState::Accepted));
    assert!(client.connection.settle(id(2), rejected.clone()));
    assert!(client.connection.settle(id(3), DeliveryState::Accepted));
    assert!(!client.connection.settle(id(3), DeliveryState::Accepted), "it is settled");
    assert!(!client.connection.settle(id(9), DeliveryState::Accepted), "there is none");
    let expected = [
        disposition(Role::Receiver, 0, 1, true, DeliveryState::Accepted),
        disposition(Role::Receiver, 2, 2, true, rejected),
        disposition(Role::Receiver, 3, 3, true, DeliveryState::Accepted),
    ];
    assert_eq!(client.frames(), expected);
}

#[test]
fn settled_deliveries_get_no_outcome() {
    let mut client = Client::begun(Settings::default());
    let link = client.sender(0, 10);
    client.transfer(Transfer { settled: Some(true), ..first(0, 0) }, b"m");
    let events = client.events();
    let [Event::Delivery(delivery)] = &events[..] else { panic!("{events:?}") };
    assert!(delivery.is_settled);
    assert!(!client.connection.settle(DeliveryId { link, number: 0 }, DeliveryState::Accepted));
    assert_eq!(client.frames(), []);
}

#[test]
fn transfers_of_one_delivery_are_joined_also_between_those_of_other_links() {
    let mut client = Client::begun(Settings::default());
    let (one, other) = (client.sender(0, 10), client.sender(1, 10));
    client.transfer(Transfer { more: true, ..first(0, 0) }, b"a");
    client.transfer(first(1, 1), b"whole");
    client.transfer(Transfer { handle: 0, more: true, ..Transfer::default() }, b"b");
    client.transfer(Transfer { handle: 0, delivery_id: Some(0), ..Transfer::default() }, b"c");
    assert_eq!(client.events(), [delivery(other, 1, b"whole"), delivery(one, 0, b"abc")]);
    // Both can be settled, whichever came first.
    assert!(client.connection.settle(DeliveryId { link: one, number: 0 }, DeliveryState::Accepted));
    assert!(client.connection.settle(DeliveryId { link: other, number: 1 }, DeliveryState::Accepted));
    assert_eq!(client.frames(), [disposition(Role::Receiver, 0, 1, true, DeliveryState::Accepted)]);
}

#[test]
fn an_aborted_delivery_is_dropped_and_the_next_one_arrives() {
    let mut client = Client::begun(Settings::default());
    let link = client.sender(0, 10);
    client.transfer(Transfer { more: true, ..first(0, 0) }, b"a");
    client.transfer(Transfer { handle: 0, aborted: true, ..Transfer::default() }, b"");
    client.transfer(first(0, 1), b"b");
    assert_eq!(client.events(), [delivery(link, 1, b"b")]);
}

/// What it held is given back once, also where its session ends.
#[test]
fn a_client_may_detach_in_the_middle_of_a_delivery() {
    for end in [
        Performative::Detach(Detach { handle: 0, closed: true, error: None }),
        Performative::End(End { error: None }),
    ] {
        let mut client = Client::begun(Settings { partial_bytes_max: 100, ..Settings::default() });
        for number in 0..5 {
            client.sender(0, 10);
            client.transfer(Transfer { more: true, ..first(0, number) }, &[0; 60]);
            client.write(0, &end);
            let events = client.events();
            assert!(matches!(&events[..], [Event::Detached(_, None)]), "{events:?}");
            if matches!(end, Performative::End(_)) {
                client.begin(0, 5000);
                client.events();
            }
            client.frames();
        }
    }
}

#[test]
fn a_later_part_of_a_delivery_frees_no_number() {
    let mut client = Client::begun(Settings::default());
    client.sender(0, 10);
    client.sender(1, 10);
    client.transfer(Transfer { more: true, ..first(0, 0) }, b"a");
    client.transfer(first(1, 1), b"b");
    client.transfer(Transfer { handle: 0, delivery_id: Some(0), ..Transfer::default() }, b"c");
    assert_eq!(client.events().len(), 2);
    client.transfer(first(1, 1), b"again");
    assert!(matches!(&client.events()[..], [Event::Detached(..), Event::Detached(..)]));
}

/// Each breaks a rule of its link, which ends for it; another link of the session goes on.
#[test]
fn a_broken_rule_of_a_link_ends_the_link_alone() {
    const LARGE: &[u8] = &[0; 501];
    let more = |transfer| Transfer { more: true, ..transfer };
    let table: [(&[Transfer], &str); 6] = [
        (&[first(0, 0), first(0, 1), first(0, 2)], "amqp:link:transfer-limit-exceeded"),
        (
            &[more(first(0, 0)), Transfer { handle: 0, ..Transfer::default() }],
            "amqp:link:message-size-exceeded",
        ),
        (&[more(first(0, 0)), first(0, 1)], "amqp:invalid-field"),
        (&[Transfer { delivery_id: None, ..first(0, 0) }], "amqp:invalid-field"),
        (
            &[Transfer { delivery_tag: Some(Bytes::from_static(&[0; 33])), ..first(0, 0) }],
            "amqp:invalid-field",
        ),
        (&[Transfer { resume: true, ..first(0, 0) }], "amqp:not-implemented"),
    ];
    for (transfers, condition) in table {
        let mut client = Client::begun(Settings::default());
        let (broken, other) = (client.sender(0, 2), client.sender(1, 2));
        for transfer in transfers {
            client.transfer(transfer.clone(), LARGE);
        }
        client.transfer(first(1, 7), b"m");
        let events = client.events();
        let ended = events.iter().find_map(|event| match event {
            Event::Detached(link, Some(error)) if *link == broken => Some(error.condition.as_str()),
            _ => None,
        });
        assert_eq!(ended, Some(condition), "{events:?}");
        assert_eq!(events.last(), Some(&delivery(other, 7, b"m")));
        let frames = client.frames();
        let [Performative::Detach(Detach { handle: 0, closed: true, error: Some(error) })] = &frames[..]
        else {
            panic!("{frames:?}")
        };
        assert_eq!(error.condition, condition);
    }
}

#[test]
fn deliveries_that_are_not_whole_are_bounded_together() {
    let mut client = Client::begun(Settings { partial_bytes_max: 900, ..Settings::default() });
    client.sender(0, 2);
    let second = client.sender(1, 2);
    client.transfer(Transfer { more: true, ..first(0, 0) }, &[0; 500]);
    client.transfer(Transfer { more: true, ..first(1, 1) }, &[0; 500]);
    let events = client.events();
    let [Event::Detached(link, Some(error))] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*link, error.condition.as_str()), (second, "amqp:resource-limit-exceeded"));
    // What the link held is free.
    client.write(0, &Performative::Detach(Detach { handle: 1, closed: true, error: None }));
    client.events();
    client.frames();
    let third = client.sender(1, 2);
    client.transfer(Transfer { more: true, ..first(1, 2) }, &[0; 300]);
    client.transfer(Transfer { handle: 1, ..Transfer::default() }, b"");
    let events = client.events();
    assert!(matches!(&events[..], [Event::Delivery(whole)] if whole.id.link == third), "{events:?}");
}

#[test]
fn a_number_of_a_delivery_is_used_once() {
    let mut client = Client::begun(Settings::default());
    let link = client.sender(0, 10);
    client.transfer(first(0, u32::MAX), b"m");
    client.transfer(first(0, 0), b"m");
    assert_eq!(client.events(), [delivery(link, u32::MAX, b"m"), delivery(link, 0, b"m")]);
    client.transfer(first(0, u32::MAX), b"m");
    assert!(matches!(&client.events()[..], [Event::Detached(..)]));
    assert!(matches!(&client.frames()[..], [Performative::End(End { error: Some(_) })]));
}

#[test]
fn the_window_of_a_session_is_opened_again_at_half() {
    let mut client = Client::begun(Settings { session_window: 10, ..Settings::default() });
    client.sender(0, 1000);
    let mut flows = 0;
    for number in 0..100 {
        client.transfer(Transfer { settled: Some(true), ..first(0, number) }, b"m");
        assert_eq!(client.events().len(), 1);
        for frame in client.frames() {
            let Performative::Flow(flow) = frame else { panic!("{frame:?}") };
            assert_eq!(
                (flow.handle, flow.incoming_window, flow.next_incoming_id),
                (None, 10, Some(number + 1))
            );
            flows += 1;
        }
    }
    assert_eq!(flows, 16);
}

#[test]
fn deliveries_that_nobody_settles_are_bounded() {
    let mut client = Client::begun(Settings { session_unsettled_max: 3, ..Settings::default() });
    client.sender(0, 100);
    for number in 0..4 {
        client.transfer(first(0, number), b"m");
    }
    let events = client.events();
    assert_eq!(events.len(), 4, "three deliveries, then the end: {events:?}");
    assert!(matches!(events[3], Event::Detached(..)));
}

/// A client with frames of 512 bytes.
#[test]
fn a_message_is_cut_to_the_clients_frames() {
    let mut client = Client::new(Settings::default());
    client.raw(&Protocol::Amqp.header());
    client.open(Open { max_frame_size: 512, ..Open::default() });
    client.begin(0, 5000);
    client.events();
    client.skip_header();
    client.frames();
    let link = client.receiver(0, 10);
    for bytes in [0, 1, 400, 450, 470, 480, 490, 512, 513, 1000, 100_000] {
        let payload: Bytes = (0..bytes).map(|at| at as u8).collect::<Vec<u8>>().into();
        let sent = client.connection.send(link, outgoing(1, payload.clone())).expect("credit");
        let mut received = Vec::new();
        let frames = client.all_frames();
        let count = frames.len();
        for (at, (_, bytes, frame)) in frames.into_iter().enumerate() {
            let Some(Performative::Transfer(transfer, part)) = frame else { panic!("{frame:?}") };
            assert!(bytes <= 512, "a frame of {bytes} bytes");
            assert_eq!(transfer.more, at + 1 < count);
            assert_eq!(transfer.delivery_id, (at == 0).then_some(sent.number));
            received.extend_from_slice(&part);
        }
        assert_eq!(received, payload);
        client.credit(0, 20, false);
        client.events();
    }
}

#[test]
fn what_the_clients_window_does_not_take_waits_in_order() {
    let mut client = Client::new(Settings::default());
    client.raw(&Protocol::Amqp.header());
    client.open(Open { max_frame_size: 512, ..Open::default() });
    client.begin(0, 2);
    client.events();
    client.skip_header();
    client.frames();
    let link = client.receiver(0, 10);
    let window = |next, incoming_window| {
        Performative::Flow(Box::new(Flow {
            next_incoming_id: Some(next),
            incoming_window,
            ..Flow::default()
        }))
    };
    client.write(0, &window(0, 2));
    client.events();
    assert!(client.connection.send(link, outgoing(1, vec![1; 1200])).is_ok());
    assert!(client.connection.send(link, outgoing(2, vec![2; 10])).is_ok());
    assert_eq!(client.frames().len(), 2, "the window has two transfers");
    client.write(0, &window(2, 1));
    client.events();
    assert_eq!(client.frames().len(), 1, "the rest of the first delivery");
    client.write(0, &window(3, 100));
    client.events();
    let frames = client.frames();
    let [Performative::Transfer(transfer, payload)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((transfer.delivery_id, payload.len()), (Some(1), 10));
}

#[test]
fn an_outcome_of_a_client_that_awaits_ours_is_confirmed_with_the_same_state() {
    let mut client = Client::begun(Settings::default());
    let link = client.receiver(0, 10);
    let sent = client.connection.send(link, outgoing(1, "m")).expect("credit");
    client.frames();
    client.write(0, &disposition(Role::Receiver, 0, 0, false, DeliveryState::Released));
    // A client may repeat it: it is reported once.
    client.write(0, &disposition(Role::Receiver, 0, 0, false, DeliveryState::Released));
    let state = Some(DeliveryState::Released);
    assert_eq!(client.events(), [Event::Outcome { delivery: sent, state, is_settled: false }]);
    assert!(client.connection.settle(sent, DeliveryState::Released));
    assert_eq!(client.frames(), [disposition(Role::Sender, 0, 0, true, DeliveryState::Released)]);
    client.write(0, &disposition(Role::Receiver, 0, 0, true, DeliveryState::Released));
    assert_eq!(client.events(), []);
}

#[test]
fn a_client_settles_a_range_and_no_more_than_it_was_sent() {
    let mut client = Client::begun(Settings::default());
    let link = client.receiver(0, 10);
    let sent: Vec<DeliveryId> =
        (0..5).map(|tag| client.connection.send(link, outgoing(tag, "m")).expect("credit")).collect();
    client.frames();
    client.write(0, &disposition(Role::Receiver, 1, 3, true, DeliveryState::Accepted));
    client.write(0, &disposition(Role::Receiver, 0, (1 << 31) - 1, true, DeliveryState::Accepted));
    let settled: Vec<DeliveryId> = client
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Outcome { delivery, is_settled: true, state: Some(DeliveryState::Accepted) } => delivery,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(settled, [1, 2, 3, 0, 4].map(|at: usize| sent[at]));
    assert!(!client.connection.settle(sent[0], DeliveryState::Accepted));
    client.write(0, &disposition(Role::Receiver, 5, 4, true, DeliveryState::Accepted));
    assert!(matches!(&client.events()[..], [Event::Detached(..)]), "a range that ends before it begins");
}

#[test]
fn what_is_not_settled_is_bounded_and_gone_with_its_link() {
    let mut client = Client::begun(Settings { session_unsettled_max: 2, ..Settings::default() });
    let link = client.receiver(0, 10);
    let sent = client.connection.send(link, outgoing(1, "m")).expect("credit");
    assert!(client.connection.send(link, outgoing(2, "m")).is_ok());
    assert_eq!(client.connection.send(link, outgoing(3, "m")), Err(NotSent::TooMany));
    client.write(0, &Performative::Detach(Detach { handle: 0, closed: true, error: None }));
    assert_eq!(client.events(), [Event::Detached(link, None)]);
    assert!(!client.connection.settle(sent, DeliveryState::Accepted));
    assert_eq!(client.connection.send(link, outgoing(3, "m")), Err(NotSent::Gone));
    client.frames();
    let link = client.receiver(0, 10);
    assert!(client.connection.send(link, outgoing(4, "m")).is_ok());
}
