//! Who is there: proofs that end, and users that are no devices.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edge_core::access::authorization::{AuthorizedClient, HubNames, Rights};
use edge_core::access::throttle::ThrottleSettings;
use edge_hub::settings::MqttServerSettings;
use rumqttc::SubscribeReasonCode::{Failure, Success};
use rumqttc::{ConnectReturnCode, LastWill, QoS};
use schemas::manifest::Manifest;
use schemas::names::Identity;
use serde_json::json;

use crate::site::{Mqtt, NotAllowed, PATIENCE, Seen, Site};

#[tokio::test]
async fn a_connection_ends_when_its_proof_does() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let mut options = site.options("d");
    options.set_credentials("hub/d/?api-version=1", "expired");
    let (client, _) = Mqtt::connect(options).await;
    client.closed().await;
    site.until_seen(Seen::Disconnected("d".into())).await;
    let held = site.mqtt("e").await;
    site.until_seen(Seen::Connected("e".into())).await;
    drop(held);
    site.close().await;
}

#[tokio::test]
async fn a_users_client_id_is_free_and_takes_over_no_device() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let mut device = site.mqtt("press-1").await;
    site.until_seen(Seen::Connected("press-1".into())).await;
    let mut options = site.options("press-1");
    options.set_credentials("plc", "password");
    options.set_clean_session(false);
    let (user, _) = Mqtt::connect(options).await;
    site.until_seen(Seen::Connected("$user:plc/press-1".into())).await;
    device.publish("devices/press-1/messages/events/", "still here").await;
    device.acknowledged().await;
    drop(user);
    let mut options = site.options("press-1");
    options.set_clean_session(false);
    let (_device, was_present) = Mqtt::connect(options.clone()).await;
    assert!(!was_present, "the session is the user's");
    options.set_credentials("plc", "password");
    assert!(Mqtt::connect(options).await.1);
    site.close().await;
}

/// Rights as a manifest gives them to `identity`.
fn rights(identity: &Identity, authorizations: serde_json::Value) -> Rights {
    let hub = json!({"schemaVersion": "1.2", "mqttBroker": {"authorizations": authorizations}});
    let agent = json!({"schemaVersion": "1.1"});
    let manifest = Manifest::from_twins(agent.as_object().unwrap(), hub.as_object().unwrap()).unwrap();
    let subject = AuthorizedClient { identity, client_id: "x", speaks_for: None };
    let device = "gw".parse().unwrap();
    Rights::read(&manifest.edge_hub.authorizations, &subject, &HubNames { device: &device, hosts: &[] })
}

fn own_line_only(identity: &Identity) -> Result<Rights, NotAllowed> {
    Ok(rights(
        identity,
        json!([{"identities": ["{{iot:identity}}"], "allow": [
            {"operations": ["mqtt:publish"], "resources": ["lines/{{iot:identity}}/#"]},
            {"operations": ["mqtt:subscribe"], "resources": ["lines/#"]}]}]),
    ))
}

#[tokio::test]
async fn free_topics_are_what_the_rules_say_and_wills_too() {
    let site = Site::open(MqttServerSettings::default()).await;
    *site.program.rights.lock().unwrap() = Some(Box::new(own_line_only));
    let mut panel = site.mqtt("panel").await;
    assert_eq!(panel.subscribe("lines/+/temperature", QoS::AtLeastOnce).await, Success(QoS::AtLeastOnce));
    assert_eq!(panel.subscribe("#", QoS::AtLeastOnce).await, Failure);
    let mut press = site.mqtt("press-1").await;
    press.publish("lines/press-1/temperature", "21").await;
    press.acknowledged().await;
    assert_eq!(panel.message().await.0, "lines/press-1/temperature");
    press.publish("lines/press-2/temperature", "21").await;
    press.closed().await;

    let with_will = |topic: &str| {
        let mut options = site.options("press-3");
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtMostOnce, false));
        options
    };
    let refused = Mqtt::refused(with_will("lines/press-1/gone")).await;
    assert_eq!(refused, ConnectReturnCode::NotAuthorized);
    drop(Mqtt::connect(with_will("lines/press-3/gone")).await);
    site.close().await;
}

#[tokio::test]
async fn what_is_taken_back_ends_the_live_connection_within_a_second() {
    let site = Site::open(MqttServerSettings::default()).await;
    let review_all = || {
        let rights = site.program.rights.lock().unwrap();
        site.clients.review(|identity, _| rights.as_ref().unwrap()(identity));
    };
    // The best of ten: a loaded machine may stand still for a second by itself.
    let mut shortest = Duration::MAX;
    for _ in 0..10 {
        *site.program.rights.lock().unwrap() = Some(Box::new(own_line_only));
        let mut reader = site.mqtt("reader").await;
        reader.subscribe("lines/a", QoS::AtMostOnce).await;
        let mut quiet = site.mqtt("quiet").await;
        let blocked = site.mqtt("blocked").await;
        review_all();
        assert!(site.clients.is_connected(&"reader".parse().unwrap()), "nothing has changed");

        let since = Instant::now();
        *site.program.rights.lock().unwrap() = Some(Box::new(|identity| match identity.device.as_str() {
            "blocked" => Err(NotAllowed("blocked by an operator".into())),
            _ => Ok(rights(identity, json!([]))),
        }));
        review_all();
        blocked.closed().await;
        reader.closed().await;
        shortest = shortest.min(since.elapsed());
        // One that holds nothing stays, with the rights of now.
        assert_eq!(quiet.subscribe("lines/a", QoS::AtMostOnce).await, Failure);
        quiet.closed_by_client().await;
    }
    assert!(shortest < Duration::from_secs(1), "{shortest:?}");
    site.close().await;
}

#[tokio::test]
async fn what_waits_for_a_client_on_a_topic_that_it_may_not_read_any_more_is_not_given_to_it() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let reads = |allowed: &'static [&'static str]| -> crate::site::Authorize {
        Box::new(move |identity| {
            Ok(rights(
                identity,
                json!([{"identities": ["reader"], "allow": [{"operations": ["mqtt:subscribe"], "resources": allowed}]},
                    {"identities": ["writer"], "allow": [{"operations": ["mqtt:publish"], "resources": ["#"]}]}]),
            ))
        })
    };
    *site.program.rights.lock().unwrap() = Some(reads(&["lines/#"]));
    let mut options = site.options("reader");
    options.set_clean_session(false);
    let (mut reader, _) = Mqtt::connect(options.clone()).await;
    for filter in ["lines/+/public", "lines/+/secret"] {
        assert_eq!(reader.subscribe(filter, QoS::AtLeastOnce).await, Success(QoS::AtLeastOnce));
    }
    reader.closed_by_client().await;
    site.until_seen(Seen::Disconnected("reader".into())).await;
    let mut writer = site.mqtt("writer").await;
    for (topic, payload) in [("lines/1/secret", "1"), ("lines/1/public", "2"), ("lines/2/secret", "3")] {
        writer.publish(topic, payload).await;
        writer.acknowledged().await;
    }
    *site.program.rights.lock().unwrap() = Some(reads(&["lines/+/public"]));
    let (mut reader, was_present) = Mqtt::connect(options.clone()).await;
    assert!(was_present);
    assert_eq!(reader.message().await.1, "2");
    assert_eq!(site.server.counts().copies_forbidden.load(Relaxed), 2);
    // Nor later, when it may read them again: they are gone.
    drop(reader);
    *site.program.rights.lock().unwrap() = Some(reads(&["lines/#"]));
    let (mut reader, _) = Mqtt::connect(options).await;
    writer.publish("lines/1/public", "4").await;
    writer.acknowledged().await;
    while reader.message().await.1 != "4" {}
    site.close().await;
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_refused_and_counted() {
    let site =
        Site::open(MqttServerSettings { address_connects_per_second: 3, ..MqttServerSettings::default() })
            .await;
    let (since, mut refused) = (Instant::now(), 0);
    for _ in 0..10 {
        let mut stream = tokio::net::TcpStream::connect(site.address).await.unwrap();
        let ping = tokio::io::AsyncWriteExt::write_all(&mut stream, &[0xc0, 0]).await;
        let mut rest = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
        // A connection that was let in is closed for its first packet, too; only the count tells.
        drop((ping, read));
        refused = site.server.counts().connects_refused.load(Relaxed);
    }
    // Three at once, and as many again in each second that it took.
    let let_in = 4 + since.elapsed().as_millis() as u64 * 3 / 1000;
    assert!(
        (10_u64.saturating_sub(let_in)..=7).contains(&refused),
        "{refused} of 10 refused, {let_in} let in"
    );
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    site.mqtt("later").await.closed_by_client().await;
    site.close().await;
}

#[tokio::test]
async fn a_user_has_free_topics_and_none_of_the_dialect() {
    let site = Site::open(MqttServerSettings::default()).await;
    let user = async || {
        let mut options = site.options("anything");
        options.set_credentials("plc", "password");
        Mqtt::connect(options).await.0
    };
    let mut first = user().await;
    for filter in
        ["$iothub/twin/res/#", "$iothub/methods/POST/#", "devices/d/messages/devicebound/#", "$ls/#"]
    {
        assert_eq!(first.subscribe(filter, QoS::AtMostOnce).await, Failure, "{filter}");
    }
    first.publish("a/b", "free").await;
    first.acknowledged().await;
    for topic in ["$iothub/twin/GET/?$rid=1", "devices/d/messages/events/", "$iothub/methods/res/200/?$rid=1"]
    {
        let client = user().await;
        client.publish(topic, "").await;
        client.closed().await;
    }
    site.close().await;
}

#[tokio::test]
async fn nobody_else_waits_for_who_guesses() {
    // Longer than any test has patience.
    let throttle = ThrottleSettings { first_ms: 600_000, longest_ms: 600_000, ..ThrottleSettings::default() };
    let site = Site::open(MqttServerSettings { throttle, ..MqttServerSettings::default() }).await;
    // Known from this address before somebody there begins to guess.
    site.mqtt("honest").await.closed_by_client().await;
    let login = || {
        let mut options = site.options("guessed");
        options.set_credentials("hub/d/?api-version=1", "wrong");
        options
    };
    assert_eq!(Mqtt::refused(login()).await, ConnectReturnCode::NotAuthorized);
    let guess = tokio::spawn(Mqtt::refused(login()));
    while site.server.counts().logins_delayed.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    site.mqtt("honest").await.closed_by_client().await;
    site.mqtt("new").await.closed_by_client().await;
    assert!(!guess.is_finished(), "it waits");
    guess.abort();
    site.close().await;
}

#[tokio::test]
async fn guessing_is_slowed_and_who_knows_better_is_let_in_in_turn() {
    let throttle = ThrottleSettings { first_ms: 1_000, longest_ms: 4_000, ..ThrottleSettings::default() };
    let site = Site::open(MqttServerSettings { throttle, ..MqttServerSettings::default() }).await;
    let login = |client_id: &str, token: &str| {
        let mut options = site.options(client_id);
        options.set_credentials("hub/d/?api-version=1", token);
        options
    };
    let since = Instant::now();
    for _ in 0..3 {
        assert_eq!(Mqtt::refused(login("guessed", "wrong")).await, ConnectReturnCode::NotAuthorized);
    }
    let took = since.elapsed();
    assert!(took >= Duration::from_secs(3), "0 + 1 + 2 s, and it took {took:?}");

    // Now the next one waits four seconds, and those behind it are not looked at.
    let guesses = (0..4).map(|_| tokio::spawn(Mqtt::refused(login("guessed", "wrong")))).collect::<Vec<_>>();
    let mut codes = Vec::new();
    for guess in guesses {
        codes.push(guess.await.unwrap());
    }
    assert!(
        codes.contains(&ConnectReturnCode::NotAuthorized)
            && codes.contains(&ConnectReturnCode::ServiceUnavailable),
        "{codes:?}"
    );
    // Who knows better by now is let in, in its turn.
    drop(Mqtt::connect(login("guessed", "right")).await);
    let counts = site.server.counts();
    assert!(counts.logins_failed.load(Relaxed) >= 4 && counts.logins_delayed.load(Relaxed) >= 3);
    assert!(counts.logins_refused.load(Relaxed) >= 1);
    site.close().await;
}

#[tokio::test]
async fn a_login_with_a_key_waits_for_nobodys_failures_and_others_behind_the_address_for_none_but_their_own()
{
    let throttle = ThrottleSettings { first_ms: 60_000, longest_ms: 60_000, ..ThrottleSettings::default() };
    let site = Site::open(MqttServerSettings { throttle, ..MqttServerSettings::default() }).await;
    let login = |client_id: &str, token: &str| {
        let mut options = site.options(client_id);
        options.set_credentials("hub/d/?api-version=1", token);
        options
    };
    // More than the failures that cost nothing, of devices with keys and of others.
    for n in 0..30 {
        assert_eq!(Mqtt::refused(login("key-1", "wrong")).await, ConnectReturnCode::NotAuthorized);
        assert_eq!(
            Mqtt::refused(login(&format!("guessed-{n}"), "wrong")).await,
            ConnectReturnCode::NotAuthorized
        );
    }
    Mqtt::connect(login("key-1", "right")).await.0.closed_by_client().await;
    for n in 0..8 {
        site.mqtt(&format!("other-{n}")).await.closed_by_client().await;
    }
    let counts = site.server.counts();
    assert_eq!((counts.logins_failed.load(Relaxed), counts.logins_delayed.load(Relaxed)), (60, 0));
    site.close().await;
}

#[tokio::test]
async fn guessing_at_the_enrolment_of_a_device_does_not_slow_the_device() {
    let throttle = ThrottleSettings {
        first_ms: 2_000,
        longest_ms: 8_000,
        free_failures: 2,
        ..ThrottleSettings::default()
    };
    let site = Site::open(MqttServerSettings { throttle, ..MqttServerSettings::default() }).await;
    let enrolling = |token: &str| {
        let mut options = site.options("press-1");
        options.set_credentials("0ne/registrations/press-1/api-version=2019-03-31&ClientVersion=x", token);
        options
    };
    let since = Instant::now();
    for _ in 0..2 {
        assert_eq!(Mqtt::refused(enrolling("wrong")).await, ConnectReturnCode::NotAuthorized);
    }
    assert!(since.elapsed() >= Duration::from_secs(2), "the second guess waited {:?}", since.elapsed());
    let delayed = || site.server.counts().logins_delayed.load(Relaxed);
    let before = delayed();
    site.mqtt("press-1").await.closed_by_client().await;
    assert_eq!((before, delayed()), (1, 1), "the second guess waited, and the device did not");
    site.close().await;
}

#[tokio::test]
async fn a_client_over_its_rate_waits_and_loses_nothing_and_others_do_not_wait() {
    let settings = MqttServerSettings { messages_per_second: 50, ..MqttServerSettings::default() };
    let site = Site::open(settings).await;
    let mut reader = site.mqtt("reader").await;
    reader.subscribe("fast/#", QoS::AtLeastOnce).await;
    let mut fast = site.mqtt("fast").await;
    let since = Instant::now();
    for n in 0..250 {
        fast.publish("fast/n", &n.to_string()).await;
    }
    let is_other_done = AtomicBool::new(false);
    let slow = async {
        let mut other = site.mqtt("other").await;
        other.publish("slow/n", "1").await;
        other.acknowledged().await;
        is_other_done.store(true, Relaxed);
    };
    // The fast one goes on for as long as the other one is not done: it has always sent more than it may.
    let flood = async {
        let mut sent = 250;
        let mut n = 0;
        while n < sent {
            fast.acknowledged().await;
            assert_eq!(reader.message().await.1, n.to_string());
            n += 1;
            if !is_other_done.load(Relaxed) {
                fast.publish("fast/n", &sent.to_string()).await;
                sent += 1;
            }
        }
    };
    let both = async { tokio::join!(slow, flood) };
    tokio::time::timeout(PATIENCE, both).await.expect("another client waits until the fast one is done");
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(3_900), "50 at once, the 200 others in four seconds: {took:?}");
    assert!(site.server.counts().clients_paused.load(Relaxed) >= 1);
    site.close().await;
}

/// Connects from another loopback address, as another host would, and says half a CONNECT.
async fn half_open(site: &Site, host: [u8; 4]) -> Option<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((std::net::IpAddr::from(host), 0).into()).unwrap();
    let mut stream = socket.connect(site.address).await.ok()?;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0x10, 100, 0, 4]).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn half_open_connections_keep_no_device_out_whichever_hosts_hold_them() {
    // The last address may be the same for each connection, or another one for each.
    for hosts in [1, 4, 200] {
        let settings =
            MqttServerSettings { connections_max: 24, unproven_max: 12, ..MqttServerSettings::default() };
        let site = Site::open(settings).await;
        if hosts == 200 {
            // From as many unknown hosts as there are places, only a known one gets in.
            site.mqtt("known").await.closed_by_client().await;
        }
        let mut held = Vec::new();
        for n in 0..100_u8 {
            held.extend(half_open(&site, [127, 0, 1, 1 + n % hosts]).await);
            if n % 4 == 0 {
                site.mqtt(&format!("device-{n}")).await.closed_by_client().await;
            }
        }
        assert!(site.server.counts().connections_evicted.load(Relaxed) > 0, "{hosts} hosts");
        drop(held);
        site.close().await;
    }
}

#[tokio::test]
async fn a_full_server_lets_a_client_take_over_its_own_connection_and_refuses_others() {
    let site = Site::open(MqttServerSettings { connections_max: 2, ..MqttServerSettings::default() }).await;
    let held = (site.mqtt("a").await, site.mqtt("b").await);
    assert_eq!(Mqtt::refused(site.options("c")).await, ConnectReturnCode::ServiceUnavailable);
    let again = site.mqtt("a").await;
    held.0.closed().await;
    assert_eq!(Mqtt::refused(site.options("c")).await, ConnectReturnCode::ServiceUnavailable);
    again.closed_by_client().await;
    let mut third = site.mqtt("c").await;
    third.subscribe("x", QoS::AtMostOnce).await;
    drop((held.1, third));
    site.close().await;
}

#[tokio::test]
async fn one_address_has_as_many_connections_as_it_may() {
    let site =
        Site::open(MqttServerSettings { address_connections_max: 2, ..MqttServerSettings::default() }).await;
    let held = (site.mqtt("a").await, site.mqtt("b").await);
    let mut third = tokio::net::TcpStream::connect(site.address).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut third, &mut rest).await;
    assert!(matches!(read, Ok(0) | Err(_)));
    assert_eq!(site.server.counts().address_connections_refused.load(Relaxed), 1);
    drop(held);
    site.close().await;
}
