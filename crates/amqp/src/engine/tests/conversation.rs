//! From the first byte to the last: headers, SASL, open, sessions, time, close.

use std::time::Duration;

use bytes::Bytes;

use super::client::{Client, attach};
use crate::codec::definitions::{AmqpError, Role};
use crate::codec::frame::Protocol;
use crate::codec::performative::{Begin, Close, End, Open, Performative};
use crate::codec::sasl::{Code, Init, SaslFrame, SecretBytes};
use crate::codec::symbol::Symbol;
use crate::engine::event::{Closure, Credentials, Event};
use crate::engine::settings::{Mechanism, MechanismKind, Settings};

type Check<'c> = &'c dyn Fn(&[Event]) -> bool;

fn settings() -> Settings {
    let mechanism = |name, kind| Mechanism { name: Symbol::from_static(name), kind };
    Settings {
        mechanisms: vec![
            mechanism("ANONYMOUS", MechanismKind::Anonymous),
            mechanism("MSSBCBS", MechanismKind::Anonymous),
            mechanism("PLAIN", MechanismKind::Plain),
            mechanism("EXTERNAL", MechanismKind::External),
        ],
        ..Settings::default()
    }
}

fn init(mechanism: &'static str, response: Option<&'static [u8]>) -> SaslFrame {
    SaslFrame::Init(Init {
        mechanism: Symbol::from_static(mechanism),
        initial_response: response.map(|bytes| SecretBytes(Bytes::from_static(bytes))),
        hostname: None,
    })
}

fn closed_with(events: &[Event]) -> Option<&str> {
    match events.last() {
        Some(Event::Closed(Closure::Fault(error))) => Some(error.condition.as_str()),
        Some(Event::Closed(_)) => None,
        _ => panic!("not closed: {events:?}"),
    }
}

#[test]
fn an_open_is_answered_before_it_comes() {
    let mut client = Client::new(settings());
    client.raw(&Protocol::Amqp.header());
    assert_eq!(client.events(), []);
    assert_eq!(client.skip_header(), Protocol::Amqp);
    let frames = client.frames();
    let [Performative::Open(open)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((open.max_frame_size, open.channel_max, open.idle_time_out), (65_536, 1023, Some(240_000)));
    client.open(Open { container_id: "c".to_owned(), ..Open::default() });
    let events = client.events();
    let [Event::Opened(open)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(open.container_id, "c");
    client.write(0, &Performative::Close(Close { error: None }));
    assert_eq!(client.events(), [Event::Closed(Closure::Client(None))]);
    assert_eq!(client.frames(), [Performative::Close(Close { error: None })]);
    assert!(client.connection.is_closed());
}

#[test]
fn sasl_reports_what_the_client_shows_and_goes_on_after_the_answer() {
    let plain = |events: &[Event]| match events {
        [Event::Authenticate(Credentials::Plain(plain))] => {
            plain.authentication_id == "user" && plain.password.0 == "secret"
        }
        _ => false,
    };
    let anonymous = |events: &[Event]| events == [Event::Authenticate(Credentials::Anonymous)];
    let external = |events: &[Event]| matches!(events, [Event::Authenticate(Credentials::External(_))]);
    let table: [(SaslFrame, Check<'_>); 4] = [
        (init("PLAIN", Some(b"\0user\0secret")), &plain),
        (init("ANONYMOUS", Some(b"guest")), &anonymous),
        (init("MSSBCBS", None), &anonymous),
        (init("EXTERNAL", Some(b"")), &external),
    ];
    for (init, is_expected) in table {
        let mut client = Client::new(settings());
        client.raw(&Protocol::Sasl.header());
        client.write_sasl(&init);
        // What follows waits for the answer.
        client.raw(&Protocol::Amqp.header());
        let events = client.events();
        assert!(is_expected(&events), "{events:?}");
        assert_eq!(client.skip_header(), Protocol::Sasl);
        let frames = client.sasl_frames();
        let [SaslFrame::Mechanisms(offered)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(offered.sasl_server_mechanisms.len(), 4);
        client.connection.authenticated(Code::Ok);
        assert_eq!(client.events(), []);
        assert!(
            matches!(&client.sasl_frames()[..], [SaslFrame::Outcome(outcome)] if outcome.code == Code::Ok)
        );
        assert_eq!(client.skip_header(), Protocol::Amqp);
        assert!(matches!(&client.frames()[..], [Performative::Open(_)]));
    }
}

#[test]
fn whoever_is_not_authenticated_gets_the_outcome_and_nothing_more() {
    for (init, is_reported) in [
        (init("PLAIN", Some(b"\0user\0wrong")), true),
        (init("PLAIN", None), false),
        (init("OTHER", None), false),
    ] {
        let mut client = Client::new(settings());
        client.raw(&Protocol::Sasl.header());
        client.write_sasl(&init);
        client.raw(&Protocol::Amqp.header());
        let events = client.events();
        if is_reported {
            assert_eq!(events.len(), 1);
            client.connection.authenticated(Code::Auth);
            assert_eq!(client.events(), [Event::Closed(Closure::Server)]);
        } else {
            assert_eq!(closed_with(&events), Some("amqp:not-allowed"));
        }
        client.skip_header();
        let frames = client.sasl_frames();
        assert!(matches!(&frames[1..], [SaslFrame::Outcome(outcome)] if outcome.code == Code::Auth));
        assert_eq!(client.frames(), []);
        assert!(client.connection.is_closed());
    }
}

#[test]
fn another_protocol_is_answered_with_the_header_that_is_spoken() {
    let strict = Settings { allows_bare_connections: false, ..settings() };
    let wrong: [(&Settings, &[u8]); 5] = [
        (&settings(), b"GET / HTTP/1.1\r\n"),
        (&settings(), b"AMQP\0\0\x09\x01"),
        (&settings(), &Protocol::Tls.header()),
        (&settings(), b"\x10\x1f\0\x04MQTT"),
        (&strict, &Protocol::Amqp.header()),
    ];
    for (settings, bytes) in wrong {
        let mut client = Client::new(settings.clone());
        client.raw(bytes);
        assert_eq!(closed_with(&client.events()), Some("amqp:not-allowed"), "{bytes:02x?}");
        assert_eq!(client.skip_header(), Protocol::Sasl);
        assert!(client.connection.is_closed());
    }
}

#[test]
fn a_begin_is_answered_on_its_channel_and_an_end_frees_it() {
    let mut client = Client::begun(settings());
    client.begin(7, 100);
    assert_eq!(client.events(), []);
    let frames = client.all_frames();
    let [(7, _, Some(Performative::Begin(begin)))] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((begin.remote_channel, begin.incoming_window), (Some(7), 2048));
    for _ in 0..2 {
        client.write(7, &Performative::End(End { error: None }));
        client.begin(7, 100);
        client.events();
        let frames = client.frames();
        assert!(matches!(&frames[..], [Performative::End(_), Performative::Begin(_)]), "{frames:?}");
    }
}

/// Each breaks a rule of the connection, which ends for it with the condition.
#[test]
fn what_is_not_allowed_closes_the_connection_with_a_condition() {
    let not_allowed: [(u16, Performative); 4] = [
        (0, Performative::Begin(Box::default())),
        (1, Performative::Begin(Box::new(Begin { remote_channel: Some(1), ..Begin::default() }))),
        (9, Performative::End(End { error: None })),
        (0, Performative::Open(Box::default())),
    ];
    for (channel, performative) in not_allowed {
        let mut client = Client::begun(settings());
        client.write(channel, &performative);
        assert_eq!(closed_with(&client.events()), Some("amqp:not-allowed"), "{performative:?}");
        let frames = client.frames();
        let [Performative::Close(Close { error: Some(error) })] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(error.condition, "amqp:not-allowed");
    }
    let table: [(&[u8], &str); 4] = [
        // A frame that is smaller than its header, and others that are none.
        (b"\0\0\0\x04\x02\0\0\0", "amqp:decode-error"),
        (b"\0\0\0\x08\x02\x01\0\0", "amqp:connection:framing-error"),
        (b"\0\x01\0\x01\x02\0\0\0", "amqp:connection:framing-error"),
        (b"\0\0\0\x0c\x02\0\0\0\0\x53\x99\x45", "amqp:decode-error"),
    ];
    for (bytes, condition) in table {
        let mut client = Client::begun(settings());
        client.raw(bytes);
        assert_eq!(closed_with(&client.events()), Some(condition), "{bytes:02x?}");
        assert!(matches!(&client.frames()[..], [Performative::Close(_)]));
    }
}

#[test]
fn channels_and_frame_sizes_have_limits() {
    let mut client = Client::begun(Settings { sessions_max: 2, ..settings() });
    client.begin(1, 100);
    assert_eq!(client.events(), []);
    client.begin(2, 100);
    assert_eq!(closed_with(&client.events()), Some("amqp:connection:framing-error"));

    let mut client = Client::new(settings());
    client.raw(&Protocol::Amqp.header());
    client.open(Open { max_frame_size: 511, ..Open::default() });
    assert_eq!(closed_with(&client.events()), Some("amqp:invalid-field"));
    let mut client = Client::new(settings());
    client.raw(&Protocol::Amqp.header());
    client.open(Open { idle_time_out: Some(4999), ..Open::default() });
    assert_eq!(closed_with(&client.events()), Some("amqp:not-allowed"));
}

#[test]
fn sessions_and_links_are_few_until_the_client_is_trusted() {
    let settings = Settings { untrusted_sessions_max: 2, untrusted_links_max: 1, ..settings() };
    for is_trusted in [false, true] {
        let mut client = Client::new(settings.clone());
        client.raw(&Protocol::Amqp.header());
        client.open(Open::default());
        client.events();
        if is_trusted {
            client.connection.trust();
        }
        client.begin(0, 100);
        client.begin(1, 100);
        for channel in 0..2 {
            client.write(channel, &Performative::Attach(Box::new(attach(0, Role::Sender))));
        }
        let links = client.events();
        assert_eq!(links.len(), if is_trusted { 2 } else { 1 }, "{links:?}");
        client.begin(2, 100);
        let events = client.events();
        if is_trusted {
            assert_eq!(events, []);
        } else {
            assert_eq!(closed_with(&events), Some("amqp:resource-limit-exceeded"));
        }
    }
}

#[test]
fn a_client_that_stops_before_its_open_is_given_up() {
    let steps: [&[&[u8]]; 3] = [&[], &[b"AMQP"], &[b"AMQP\x03\x01\0\0"]];
    for bytes in steps {
        let mut client = Client::new(settings());
        bytes.iter().for_each(|bytes| client.raw(bytes));
        assert_eq!(client.events(), []);
        client.pass(Duration::from_millis(9_999));
        assert_eq!(client.events(), []);
        assert!(client.connection.deadline() > client.now);
        client.pass(Duration::from_millis(1));
        assert_eq!(client.events(), [Event::Closed(Closure::TimedOut)]);
    }
}

#[test]
fn silence_is_filled_with_empty_frames_and_ends_a_client() {
    let mut client = Client::new(settings());
    client.raw(&Protocol::Amqp.header());
    client.open(Open { idle_time_out: Some(60_000), ..Open::default() });
    client.events();
    client.skip_header();
    client.frames();
    for _ in 0..3 {
        client.pass(Duration::from_millis(29_999));
        assert_eq!(client.all_frames(), []);
        client.pass(Duration::from_millis(1));
        assert_eq!(client.all_frames(), [(0, 8, None)]);
        // An empty frame of the client is a sign of life.
        client.raw(b"\0\0\0\x08\x02\0\0\0");
        assert_eq!(client.events(), []);
    }
    client.pass(Duration::from_secs(480));
    assert_eq!(closed_with(&client.events()), Some("amqp:resource-limit-exceeded"));
    assert!(matches!(&client.frames()[..], [Performative::Close(_)]));
}

#[test]
fn our_close_awaits_the_clients_and_ignores_what_comes_before_it() {
    for is_answered in [true, false] {
        let mut client = Client::begun(settings());
        let error = AmqpError::new(Symbol::from_static("amqp:connection:forced"), "the program stops");
        client.connection.close(client.now, Some(error.clone()));
        assert_eq!(client.frames(), [Performative::Close(Close { error: Some(error) })]);
        client.begin(1, 100);
        assert_eq!(client.events(), []);
        if is_answered {
            client.write(0, &Performative::Close(Close { error: None }));
        } else {
            client.pass(Duration::from_secs(10));
        }
        assert_eq!(client.events(), [Event::Closed(Closure::Server)]);
        assert_eq!(client.frames(), []);
    }
}
