//! The bounds of central's MQTT server: of one client, of one address, of a gateway's devices, and of guessing.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::store::StoreError;
use central::store::devices::{self, Device, Keys};
use central::store::relationships::{self, Relationship};
use common::{Central, start, start_with};
use edge_core::access::enrolment;
use edge_core::link::snapshot::{self, Assembly};
use edge_hub::limits::Limits;
use edge_tls::config::client_config;
use mqtt::client::{self, ClientOptions, Incoming};
use reqwest::Method;
use rumqttc::{Packet, QoS, SubscribeReasonCode};
use schemas::link::{CHILDREN_MAX, Children, ClientPresence, Presence};
use schemas::names::DeviceId;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

#[tokio::test]
async fn one_client_and_one_address_get_what_the_limits_say_and_the_api_counts_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        connections_per_address: Some(2),
        messages_per_second: 20,
        subscriptions: 1,
        ..Limits::default()
    };
    let central = start_with(dir.path(), |config| config.limits = limits).await;
    central.put("/api/devices/press-1", json!({})).await;
    let mut device = central.client("press-1").await;
    device.subscribe("$iothub/methods/POST/#").await;
    device.client.subscribe("$iothub/twin/res/#", QoS::AtLeastOnce).await.unwrap();
    let codes = device.next(|packet| match packet {
        Packet::SubAck(ack) => Some(ack.return_codes),
        _ => None,
    });
    assert_eq!(codes.await, [SubscribeReasonCode::Failure]);

    // Twenty at once, the ten others in half a second; none is lost.
    let since = Instant::now();
    for _ in 0..30 {
        let topic = "devices/press-1/messages/events/";
        device.client.publish(topic, QoS::AtLeastOnce, false, "{}").await.unwrap();
    }
    for _ in 0..30 {
        device.next(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }
    assert!(since.elapsed() >= Duration::from_millis(450), "{:?}", since.elapsed());

    let address = central.started.mqtt.unwrap();
    let second = TcpStream::connect(address).await.unwrap();
    let mut third = TcpStream::connect(address).await.unwrap();
    let read = tokio::time::timeout(common::STEP, third.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "the third connection of the address stayed");
    drop(second);

    let mqtt_server = central.get("/api/ext/mqtt-server").await;
    assert_eq!(mqtt_server["clients"], 1);
    assert_eq!(
        (&mqtt_server["limits"]["messagesPerSecond"], &mqtt_server["limits"]["subscriptions"]),
        (&json!(20), &json!(1))
    );
    for (count, least) in [
        ("clientsPaused", 1),
        ("subscriptionsRefused", 1),
        ("addressConnectionsRefused", 1),
        ("loginsFailed", 0),
    ] {
        assert!(mqtt_server["counts"][count].as_u64() >= Some(least), "{count}: {mqtt_server}");
    }
    central.end().await;
}

/// As long as a device id may be.
fn leaf(n: usize) -> String {
    format!("leaf-{n:05}-{}", "x".repeat(117))
}

/// Puts devices behind a gateway without asking the API for each.
async fn attach(central: &Central, gateway: &'static str, count: usize) {
    let written = central.started.store().submit(move |c| {
        for n in 0..count {
            let id: DeviceId = leaf(n).parse().unwrap();
            let keys = Keys { primary: STANDARD.encode([n as u8; 32]), secondary: STANDARD.encode([1; 32]) };
            devices::put(c, &Device { keys: Some(keys), revision: 1, ..Device::new(id.clone()) })?;
            let relationship = Relationship {
                id: format!("to-{id}"),
                name: "many".into(),
                source: gateway.parse().unwrap(),
                target: id,
            };
            relationships::put(c, &relationship)?;
        }
        Ok::<_, StoreError>(())
    });
    written.await.unwrap();
}

#[tokio::test]
async fn ten_thousand_devices_with_long_ids_are_sent_in_both_directions_in_parts_and_one_change_costs_little()
{
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    attach(&central, "gw", CHILDREN_MAX - 1).await;
    for n in 1..=2 {
        central.put(&format!("/api/devices/last-{n}"), json!({})).await;
    }
    let behind = |n: u8| json!({"name": "x", "source": "gw", "target": format!("last-{n}")});
    central.put("/api/devices/gw/relationships/last-1", behind(1)).await;
    let path = "/api/devices/gw/relationships/last-2";
    let (status, refused) = central.send(Method::PUT, path, Some(behind(2))).await;
    assert_eq!(status, 422, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("10000"), "{refused}");

    // The gateway's own end of the link, with its own bound for a packet.
    let key = central.get("/api/devices/gw/credentials").await["symmetricKey"]["primaryKey"].clone();
    let key = STANDARD.decode(key.as_str().unwrap()).unwrap();
    let expires = central::clock::now_ms() / 1000 + 600;
    let tls = client_config(&std::fs::read(dir.path().join("ca.pem")).unwrap()).unwrap();
    let options = ClientOptions {
        host: "localhost".into(),
        port: central.started.mqtts.port(),
        client_id: "gw".into(),
        user_name: Some("central.test/gw/?api-version=2021-04-12".into()),
        password: Some(edge_core::access::sas::token("central.test", &"gw".parse().unwrap(), &key, expires)),
        keep_alive: Duration::from_secs(60),
        connect_timeout: common::STEP,
        transport: mqtt::client::Transport::Tls(tls),
        proxy: None,
        version: mqtt::codec::packet::Version::V5,
    };
    let (mut sender, mut receiver) = client::connect(&options).await.unwrap();
    sender.publish("$ls/hello", br#"{"version":1}"#);
    sender.subscribe("$ls/#");
    sender.flush().await.unwrap();
    let mut children = async || {
        loop {
            let incoming =
                tokio::time::timeout(common::STEP, receiver.next()).await.expect("no word of the children");
            let Incoming::Message { topic, payload, packet_id } = incoming.unwrap() else { continue };
            if let Some(packet_id) = packet_id {
                sender.acknowledge(packet_id);
                sender.flush().await.unwrap();
            }
            if topic == "$ls/children" {
                break (payload.len(), serde_json::from_slice::<Children>(&payload).unwrap());
            }
        }
    };
    let since = Instant::now();
    let (mut assembly, mut bytes) = (Assembly::default(), 0);
    let list = loop {
        let (size, list) = children().await;
        assert!(size < 256 * 1024, "a part of {size} bytes");
        bytes += size;
        let ids = list.children.into_iter().map(|child| child.device_id);
        if let Some(named) = assembly.take(list.snapshot.unwrap(), ids).unwrap() {
            break named;
        }
    };
    println!(
        "{} devices are told in {bytes} bytes, {:?} after the gateway asked",
        list.len(),
        since.elapsed()
    );
    assert_eq!(list.len(), CHILDREN_MAX);
    let blocked = leaf(5000);
    central.patch(&format!("/api/devices/{blocked}"), json!({"enabled": false})).await;
    let (bytes, list) = children().await;
    assert!(list.is_difference && bytes < 1000, "a block is told in {bytes} bytes");
    assert!(matches!(&list.children[..], [child] if child.device_id.as_str() == blocked && !child.enabled));
    central.ok(Method::DELETE, &format!("/api/devices/{}", leaf(7)), None).await;
    let (bytes, list) = children().await;
    assert!(bytes < 1000 && list.removed.iter().any(|id| id.as_str() == leaf(7)), "{bytes}: {list:?}");

    // All of them connected.
    let clients = (8..CHILDREN_MAX - 1).map(|n| ClientPresence {
        generation: None,
        identity: leaf(n).parse().unwrap(),
        is_connected: true,
        since_ms: 1_795_450_312_250,
    });
    let mut unacknowledged = 0;
    for (part, clients) in snapshot::parts(1, clients, snapshot::PART_BYTES_MAX) {
        let presence = Presence { is_complete: part.part == 0, snapshot: Some(part), clients };
        sender.publish("$ls/presence", &serde_json::to_vec(&presence).unwrap());
        unacknowledged += 1;
        sender.flush().await.unwrap();
    }
    while unacknowledged > 0 {
        match tokio::time::timeout(common::STEP, receiver.next()).await.unwrap().unwrap() {
            Incoming::Acknowledged(_) => unacknowledged -= 1,
            Incoming::Message { packet_id: Some(packet_id), .. } => {
                sender.acknowledge(packet_id);
                sender.flush().await.unwrap();
            }
            Incoming::Refused { reason, why, .. } => panic!("{reason}: {why}"),
            _ => {}
        }
    }
    for (n, is_connected) in [(6, false), (8, true), (9998, true)] {
        let status = central.get(&format!("/api/ext/devices/{}/status", leaf(n))).await;
        assert_eq!(status["connected"], is_connected, "{n}: {status}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_gateway_of_an_older_version_is_sent_the_whole_list_at_each_change() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    attach(&central, "gw", 3).await;
    let mut gateway = central.client("gw").await;
    gateway.subscribe("$ls/#").await;
    let (_, first) = gateway.message("$ls/children").await;
    assert_eq!((first["children"].as_array().unwrap().len(), first.get("snapshot")), (3, None));
    central.patch(&format!("/api/devices/{}", leaf(1)), json!({"enabled": false})).await;
    let (_, second) = gateway.message("$ls/children").await;
    assert_eq!((second["children"].as_array().unwrap().len(), second.get("isDifference")), (3, None));
    central.end().await;
}

/// A CONNECT that enrols, from an address of this machine's loopback; gives the code of its CONNACK.
async fn enrols(central: &Central, from: [u8; 4], scope: &str, id: &str, key: &[u8]) -> Option<u8> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((IpAddr::V4(Ipv4Addr::from(from)), 0))).unwrap();
    let mut stream = socket.connect(central.started.mqtt.unwrap()).await.unwrap();
    let resource = format!("{scope}%2Fregistrations%2F{id}");
    let expires = central::clock::now_ms() / 1000 + 600;
    let signature =
        STANDARD.encode(edge_core::access::sas::sign(key, format!("{resource}\n{expires}").as_bytes()));
    let signature = signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let password =
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}&skn=registration");
    let user = format!("{scope}/registrations/{id}/api-version=2019-03-31&ClientVersion=x");
    let mut rest = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2, 0, 60];
    for text in [id, &user, &password] {
        rest.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        rest.extend(text.as_bytes());
    }
    let mut packet =
        vec![0x10, u8::try_from(rest.len() % 128).unwrap() | 0x80, u8::try_from(rest.len() / 128).unwrap()];
    packet.extend(rest);
    stream.write_all(&packet).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.ok().map(|_| answer[3])
}

#[tokio::test]
async fn enrolling_with_wrong_keys_is_slowed_and_locks_no_honest_device_out() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let request = json!({"attestation": {"type": "symmetricKey"}});
    let group = central.put("/api/enrollmentGroups/line", request).await;
    let scope = group["idScope"].as_str().unwrap().to_owned();
    let group_key =
        STANDARD.decode(group["attestation"]["symmetricKey"]["primaryKey"].as_str().unwrap()).unwrap();
    let key = enrolment::derive_key(&group_key, &"press-1".parse().unwrap());

    // From 24 addresses at once, so that the identity itself is under suspicion, and then on and on from one.
    let guesses = (2..26).map(|last| enrols(&central, [127, 0, 0, last], &scope, "press-1", b"guessed"));
    let codes = futures_util::future::join_all(guesses).await;
    assert!(codes.iter().all(|code| *code == Some(5)), "{codes:?}");
    let since = Instant::now();
    let guesses = (0..40).map(|_| enrols(&central, [127, 0, 0, 2], &scope, "press-1", b"guessed"));
    let attack = futures_util::future::join_all(guesses);
    // The honest one comes meanwhile, for the first time, from an address of its own.
    let honest = async {
        let code = enrols(&central, [127, 0, 0, 1], &scope, "press-1", &key).await;
        (code, since.elapsed())
    };
    let (codes, (code, took)) = tokio::join!(attack, honest);
    println!("the honest device was let in after {took:?}, 40 guesses took {:?}", since.elapsed());
    // Behind the guesses it would have been refused as most of them are.
    assert_eq!(code, Some(0));
    let refused_unjudged = codes.iter().filter(|code| **code == Some(3)).count();
    assert!(refused_unjudged > 20, "most guesses were not looked at: {codes:?}");
    // It has proven itself from there: whatever others guess, it does not wait again.
    let before = central.get("/api/ext/mqtt-server").await["counts"].clone();
    assert_eq!(enrols(&central, [127, 0, 0, 1], &scope, "press-1", &key).await, Some(0));
    let counts = central.get("/api/ext/mqtt-server").await["counts"].clone();
    assert_eq!(counts["loginsDelayed"], before["loginsDelayed"], "it waited again");
    assert!(
        counts["loginsDelayed"].as_u64() >= Some(1) && counts["loginsRefused"].as_u64() > Some(20),
        "{counts}"
    );
    central.end().await;
}
