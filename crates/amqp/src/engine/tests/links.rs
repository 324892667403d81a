//! Links: attach, refuse, detach, credit.

use super::client::{Client, attach, first};
use crate::codec::definitions::{AmqpError, ReceiverSettleMode, Role};
use crate::codec::performative::{Attach, Detach, End, Flow, Performative};
use crate::codec::symbol::Symbol;
use crate::codec::value::{Map, Value};
use crate::engine::connection::Outgoing;
use crate::engine::event::{Closure, Event, NotSent};
use crate::engine::settings::Settings;

fn error(condition: &'static str) -> AmqpError {
    AmqpError::new(Symbol::from_static(condition), "why")
}

fn detach(handle: u32) -> Performative {
    Performative::Detach(Detach { handle, closed: true, error: None })
}

#[test]
fn a_refused_link_is_attached_without_terminuses_and_detached() {
    for role in [Role::Sender, Role::Receiver] {
        let mut client = Client::begun(Settings::default());
        client.write(0, &Performative::Attach(Box::new(attach(3, role))));
        let events = client.events();
        let [Event::Attach(link, _)] = &events[..] else { panic!("{events:?}") };
        assert!(client.connection.refuse(*link, error("amqp:not-found")));
        let frames = client.frames();
        let [Performative::Attach(answer), Performative::Detach(detached)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!((&answer.source, &answer.target, answer.role), (&None, &None, role.opposite()));
        assert_eq!((detached.closed, &detached.error), (true, &Some(error("amqp:not-found"))));
        // Neither answer can be given again; the handle is free when the client has detached.
        assert!(!client.connection.accept(*link, Attach::default()));
        assert!(!client.connection.refuse(*link, error("amqp:not-found")));
        client.write(0, &detach(3));
        client.write(0, &Performative::Attach(Box::new(attach(3, role))));
        assert!(matches!(&client.events()[..], [Event::Attach(again, _)] if again != link));
    }
}

/// uamqp wants `second` for telemetry, and sends what an earlier link left.
#[test]
fn a_link_to_us_is_confirmed_with_settle_mode_first_and_nothing_to_resume() {
    for (role, confirmed) in
        [(Role::Sender, ReceiverSettleMode::First), (Role::Receiver, ReceiverSettleMode::Second)]
    {
        let mut client = Client::begun(Settings::default());
        let unsettled = Some(Map(vec![(Value::Null, Value::Null)]));
        let rcv_settle_mode = ReceiverSettleMode::Second;
        let attach = Attach { rcv_settle_mode, unsettled, incomplete_unsettled: true, ..attach(0, role) };
        client.write(0, &Performative::Attach(Box::new(attach.clone())));
        let events = client.events();
        let [Event::Attach(link, _)] = &events[..] else { panic!("{events:?}") };
        assert!(client.connection.accept(*link, attach));
        let frames = client.frames();
        let [Performative::Attach(answer)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(answer.rcv_settle_mode, confirmed);
        assert_eq!((&answer.unsettled, answer.incomplete_unsettled), (&None, false));
    }
}

#[test]
fn the_clients_detach_is_answered_and_reported_once() {
    let mut client = Client::begun(Settings::default());
    let link = client.sender(0, 10);
    client.write(0, &Performative::Detach(Detach { handle: 0, closed: false, error: Some(error("a:b")) }));
    assert_eq!(client.events(), [Event::Detached(link, Some(error("a:b")))]);
    assert_eq!(client.frames(), [Performative::Detach(Detach { handle: 0, closed: false, error: None })]);
    assert!(!client.connection.grant(link, 5) && !client.connection.detach(link, None));
    client.write(0, &detach(0));
    assert_eq!(client.events(), []);
    let frames = client.frames();
    let [Performative::End(End { error: Some(error) })] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(error.condition, "amqp:session:unattached-handle");
}

#[test]
fn what_comes_after_our_detach_is_ignored_until_the_clients() {
    let mut client = Client::begun(Settings::default());
    let link = client.sender(0, 10);
    assert!(client.connection.detach(link, Some(error("amqp:link:stolen"))));
    client.transfer(first(0, 0), b"late");
    client.credit(0, 5, false);
    client.write(0, &detach(0));
    assert_eq!(client.events(), []);
    let frames = client.frames();
    assert!(matches!(&frames[..], [Performative::Detach(_)]), "{frames:?}");
    client.sender(0, 1);
}

#[test]
fn an_end_reports_every_link_of_the_session_and_ends_no_other() {
    let mut client = Client::begun(Settings::default());
    let links = [client.sender(0, 10), client.receiver(1, 10)];
    client.begin(1, 100);
    client.write(1, &Performative::Attach(Box::new(attach(0, Role::Sender))));
    assert_eq!(client.events().len(), 1);
    client.frames();
    client.write(0, &Performative::End(End { error: None }));
    assert_eq!(client.events(), links.map(|link| Event::Detached(link, None)));
    assert_eq!(client.frames(), [Performative::End(End { error: None })]);
    client.write(1, &detach(0));
    assert_eq!(client.events().len(), 1);
}

#[test]
fn handles_names_and_numbers_of_links_have_limits() {
    let settings =
        Settings { session_links_max: 4, links_max: 2, link_name_bytes_max: 10, ..Settings::default() };
    let refused = |client: &mut Client, attach: Attach| {
        client.write(0, &Performative::Attach(Box::new(attach)));
        assert_eq!(client.events(), []);
        match &client.frames()[..] {
            [Performative::Attach(_), Performative::Detach(Detach { error: Some(error), .. })] => {
                error.condition.to_string()
            }
            other => panic!("{other:?}"),
        }
    };
    let mut client = Client::begun(settings.clone());
    client.sender(0, 1);
    let long = Attach { name: "12345678901".to_owned(), ..attach(1, Role::Sender) };
    assert_eq!(refused(&mut client, long), "amqp:invalid-field");
    client.write(0, &detach(1));
    let again = Attach { name: "link 0".to_owned(), ..attach(1, Role::Sender) };
    assert_eq!(refused(&mut client, again), "amqp:not-allowed");
    client.write(0, &detach(1));
    client.sender(1, 1);
    assert_eq!(refused(&mut client, attach(2, Role::Sender)), "amqp:resource-limit-exceeded");
    // A name in use by a link of the other direction is another link.
    let mut client = Client::begun(settings.clone());
    client.sender(0, 1);
    client.write(
        0,
        &Performative::Attach(Box::new(Attach { name: "link 0".to_owned(), ..attach(1, Role::Receiver) })),
    );
    assert!(matches!(&client.events()[..], [Event::Attach(..)]));
    client.write(0, &Performative::Attach(Box::new(attach(1, Role::Sender))));
    let events = client.events();
    assert!(matches!(&events[..], [Event::Detached(..), Event::Detached(..)]), "handle in use: {events:?}");
    let mut client = Client::begun(settings);
    client.write(0, &Performative::Attach(Box::new(attach(4, Role::Sender))));
    assert!(matches!(&client.events()[..], [Event::Closed(Closure::Fault(_))]));
}

/// Links that are refused stay until the client detaches them: they are bounded too.
#[test]
fn a_client_that_detaches_no_refused_link_is_closed() {
    let settings = Settings { links_max: 3, ..Settings::default() };
    let mut client = Client::begun(settings);
    for handle in 0..6 {
        client.write(0, &Performative::Attach(Box::new(attach(handle, Role::Sender))));
        assert!(client.events().iter().all(|event| matches!(event, Event::Attach(..))));
    }
    client.write(0, &Performative::Attach(Box::new(attach(6, Role::Sender))));
    let events = client.events();
    let [Event::Closed(Closure::Fault(error))] = &events[..] else { panic!("{events:?}") };
    assert_eq!(error.condition, "amqp:resource-limit-exceeded");
}

#[test]
fn credit_that_comes_before_the_answer_counts() {
    let mut client = Client::begun(Settings::default());
    client.write(0, &Performative::Attach(Box::new(attach(0, Role::Receiver))));
    client.credit(0, 20, false);
    let events = client.events();
    let [Event::Attach(link, attach)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(client.connection.send(*link, message(b"early")), Err(NotSent::Gone));
    assert!(client.connection.accept(*link, (**attach).clone()));
    assert_eq!(client.events(), [Event::Credit { link: *link, credit: 20, is_drain: false }]);
}

fn message(payload: &'static [u8]) -> Outgoing {
    Outgoing { tag: b"tag"[..].into(), payload: payload.into(), is_settled: true }
}

#[test]
fn credit_counts_from_what_the_client_knew() {
    let mut client = Client::begun(Settings::default());
    let link = client.receiver(0, 3);
    for _ in 0..2 {
        assert!(client.connection.send(link, message(b"m")).is_ok());
    }
    // The client had not seen them when it wrote this.
    client.credit(0, 5, false);
    assert_eq!(client.events(), [Event::Credit { link, credit: 3, is_drain: false }]);
    // Nor can it take back what was used.
    client.credit(0, 1, false);
    assert_eq!(client.events(), [Event::Credit { link, credit: 0, is_drain: false }]);
    assert_eq!(client.connection.send(link, message(b"m")), Err(NotSent::NoCredit));
}

#[test]
fn a_drain_is_answered_with_all_credit_used() {
    let mut client = Client::begun(Settings::default());
    let link = client.receiver(0, 3);
    assert!(!client.connection.drained(link), "nobody wanted it");
    client.credit(0, 10, true);
    assert_eq!(client.events(), [Event::Credit { link, credit: 10, is_drain: true }]);
    assert!(client.connection.send(link, message(b"m")).is_ok());
    assert!(client.connection.drained(link));
    let frames = client.frames();
    let [Performative::Transfer(..), Performative::Flow(flow)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((flow.delivery_count, flow.link_credit), (Some(10), Some(0)));
    assert_eq!(client.connection.send(link, message(b"m")), Err(NotSent::NoCredit));
}

#[test]
fn an_echo_is_answered_with_the_state_of_the_link_or_the_session() {
    let mut client = Client::begun(Settings::default());
    client.sender(0, 10);
    for handle in [None, Some(0)] {
        client.write(0, &Performative::Flow(Box::new(Flow { handle, echo: true, ..Flow::default() })));
        assert_eq!(client.events(), []);
        let frames = client.frames();
        let [Performative::Flow(flow)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((flow.handle, flow.link_credit, flow.echo), (handle, handle.map(|_| 10), false));
    }
}

#[test]
fn a_sender_that_skips_deliveries_uses_up_its_credit() {
    let mut client = Client::begun(Settings::default());
    client.sender(0, 10);
    let flow = Flow { handle: Some(0), delivery_count: Some(9), echo: true, ..Flow::default() };
    client.write(0, &Performative::Flow(Box::new(flow)));
    client.events();
    let frames = client.frames();
    let [Performative::Flow(flow)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((flow.delivery_count, flow.link_credit), (Some(9), Some(1)));
}
