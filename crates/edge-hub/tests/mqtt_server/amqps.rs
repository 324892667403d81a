//! AMQP 1.0 over TLS: tokens, many devices on one connection, telemetry that is accepted when it is on disk.

use std::sync::Arc;

use amqp::codec::definitions::Role;
use amqp::codec::delivery_state::DeliveryState;
use amqp::codec::message::{Body, Message};
use amqp::codec::sasl::Code;
use amqp::codec::value::Map;
use edge_core::access::authorization::Rights;
use edge_core::dialect::amqp::message::BATCH_FORMAT;
use edge_hub::settings::MqttServerSettings;
use edge_tls::config::server_config_for;
use edge_tls::issue::{Authority, issue_ca};
use edge_tls::served::ServedCertificate;
use rustls::{ClientConfig, version};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::amqps_client::{Amqps, encoded, text_message, token};
use crate::site::{Mqtt, NotAllowed, Seen, Site};
use crate::tls::{client, issue};

async fn site() -> (Site, Authority) {
    let ca = issue_ca("site").unwrap();
    let issued = issue(&ca);
    let served = ServedCertificate::new(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let tls = server_config_for(Arc::new(served)).unwrap();
    let site = Site::serve(MqttServerSettings::default(), |server, listener, stop| async move {
        server.serve_amqps(listener, tls, stop).await;
    });
    (site.await, ca)
}

fn config(ca: &Authority) -> ClientConfig {
    client(ca, &version::TLS13, None)
}

/// A connection with links to `$cbs`.
async fn open(site: &Site, ca: &Authority) -> Amqps {
    let mut client = Amqps::open(site, config(ca)).await;
    client.attach_cbs().await;
    client
}

/// Proves a device and attaches its link.
async fn enter(client: &mut Amqps, handle: u32, path: &str) {
    assert_eq!(client.put_token(&token(path, "right")).await.0, 200);
    client.attach_telemetry(handle, path).await.unwrap();
}

fn telemetry(from: &str, text: &str) -> Seen {
    Seen::Telemetry(from.to_owned(), text.to_owned())
}

fn condition(state: &DeliveryState) -> String {
    let DeliveryState::Rejected(rejected) = state else { panic!("{state:?}") };
    rejected.error.as_ref().unwrap().condition.to_string()
}

#[tokio::test]
async fn telemetry_of_many_identities_on_one_connection_is_accepted_when_it_is_on_disk() {
    let (mut site, ca) = site().await;
    let mut client = open(&site, &ca).await;
    for (handle, path, identity) in [(2, "d1", "d1"), (3, "d2", "d2"), (4, "gw/modules/filter", "gw/filter")]
    {
        enter(&mut client, handle, path).await;
        assert_eq!(site.sees().await, Seen::Connected(identity.to_owned()));
    }
    site.program.disk.send_replace(false);
    let mut sent = Vec::new();
    for (handle, from) in [(2, "d1"), (3, "d2"), (4, "gw/filter"), (2, "d1")] {
        sent.push(client.send_text(handle, "21").await);
        assert_eq!(site.sees().await, telemetry(from, "21"));
    }
    // The answer to a request that was sent later comes first.
    let (status, others) = client.put_token(&token("d3", "right")).await;
    assert_eq!((status, others), (200, vec![]), "nothing is accepted yet");
    site.program.disk.send_replace(true);
    // In whatever order; one disposition may be about several.
    let last = *sent.last().unwrap();
    assert_eq!(client.outcome(last).await, DeliveryState::Accepted);
    site.close().await;
}

#[tokio::test]
async fn only_what_a_right_token_proves_has_links_and_the_others_go_on() {
    let (mut site, ca) = site().await;
    let mut client = open(&site, &ca).await;
    for (path, signature, status) in [("d1", "wrong", 401), ("d1", "right", 200), ("d2", "early", 503)] {
        assert_eq!(client.put_token(&token(path, signature)).await.0, status, "{path} {signature}");
    }
    assert_eq!(client.put_token("SharedAccessSignature sr=hub&sig=right&se=1").await.0, 400);
    for (handle, role, address, condition) in [
        (2, Role::Sender, "/devices/d2/messages/events", "amqp:unauthorized-access"),
        (3, Role::Sender, "/devices/d1/modules/m/messages/events", "amqp:unauthorized-access"),
        (4, Role::Receiver, "/devices/d1/messages/devicebound", "amqp:not-implemented"),
        (5, Role::Sender, "/nowhere", "amqp:not-found"),
    ] {
        let error = client.attach(handle, role, address).await.unwrap_err();
        assert_eq!(error.condition.as_str(), condition, "{address}");
    }
    client.attach_telemetry(6, "d1").await.unwrap();
    let number = client.send_text(6, "21").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    site.until_seen(telemetry("d1", "21")).await;
    let refused = site.server.refusals().all();
    let (identity, protocol) =
        (&refused.iter().find(|one| one.identity == "d1").unwrap().why, refused[0].protocol);
    assert_eq!((identity.as_str(), protocol), ("wrong key", "AMQP"));
    site.close().await;
}

#[tokio::test]
async fn sasl_proves_a_device_by_plain_and_leaves_it_to_tokens_otherwise() {
    let (mut site, ca) = site().await;
    let mut plain = Amqps::connect(&site, config(&ca)).await;
    let right = format!("\0d1@sas.hub\0{}", token("d1", "right"));
    assert_eq!(plain.sasl("PLAIN", Some(right.as_bytes())).await, Code::Ok);
    plain.begin().await;
    plain.attach_telemetry(0, "d1").await.unwrap();
    let number = plain.send_text(0, "21").await;
    assert_eq!(plain.outcome(number).await, DeliveryState::Accepted);
    site.until_seen(telemetry("d1", "21")).await;
    for (response, code) in [
        (format!("\0d1@sas.hub\0{}", token("d1", "wrong")), Code::Auth),
        (format!("\0d1@sas.hub\0{}", token("d1", "early")), Code::SystemTemporary),
        (format!("\0operator\0{}", token("d1", "right")), Code::Auth),
    ] {
        let mut refused = Amqps::connect(&site, config(&ca)).await;
        assert_eq!(refused.sasl("PLAIN", Some(response.as_bytes())).await, code);
        refused.ended().await;
    }
    for mechanism in ["ANONYMOUS", "MSSBCBS"] {
        let mut client = Amqps::connect(&site, config(&ca)).await;
        assert_eq!(client.sasl(mechanism, None).await, Code::Ok);
        client.begin().await;
        client.attach_cbs().await;
        enter(&mut client, 2, "d2").await;
        let number = client.send_text(2, mechanism).await;
        assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    }
    site.close().await;
}

#[tokio::test]
async fn an_identity_is_one_identity_whatever_it_speaks() {
    let (mut site, ca) = site().await;
    let (mqtt, stop) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let mqtt_address = mqtt.local_addr().unwrap();
    let served = tokio::spawn(site.server.clone().serve_tcp(mqtt, stop.clone()));
    let mut options = rumqttc::MqttOptions::new("d1", "127.0.0.1", mqtt_address.port());
    options.set_credentials("hub/user/?api-version=1", "token");
    let mut client = open(&site, &ca).await;
    enter(&mut client, 2, "d1").await;
    enter(&mut client, 3, "d2").await;
    let (mut over_mqtt, _) = Mqtt::connect(options).await;
    let (handle, error) = client.detached().await;
    assert_eq!((handle, error.unwrap().condition.as_str()), (2, "amqp:link:stolen"));
    // The connection goes on, and takes over in its turn.
    let number = client.send_text(3, "21").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    client.attach_telemetry(2, "d1").await.unwrap();
    assert!(over_mqtt.packet().await.is_err(), "the older connection ends");
    let number = client.send_text(2, "22").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    site.until_seen(telemetry("d1", "22")).await;
    assert!(site.clients.is_connected(&"d1".parse().unwrap()));
    stop.cancel();
    served.await.unwrap();
    site.close().await;
}

#[tokio::test]
async fn each_message_has_the_outcome_that_its_fate_has() {
    let (site, ca) = site().await;
    let mut client = open(&site, &ca).await;
    enter(&mut client, 2, "d1").await;
    let number = client.send_text(2, "wrong").await;
    assert_eq!(condition(&client.outcome(number).await), "com.microsoft:argument-error");
    let number = client.send_text(2, "full").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Released);
    let value = encoded(&Message { body: Body::Value("text".into()), ..Message::default() });
    let number = client.send(2, 0, &value).await;
    assert_eq!(condition(&client.outcome(number).await), "amqp:decode-error");
    let number = client.send_text(2, &"x".repeat(300_000)).await;
    assert_eq!(condition(&client.outcome(number).await), "amqp:link:message-size-exceeded");
    let pairs = vec![("key".into(), "x".repeat(20_000).as_str().into())];
    let body = Body::Data(vec![text_message("x")]);
    let wide = encoded(&Message { application_properties: Map(pairs), body, ..Message::default() });
    let number = client.send(2, 0, &wide).await;
    assert_eq!(
        condition(&client.outcome(number).await),
        "amqp:link:message-size-exceeded",
        "no topic holds it"
    );
    let batch = |texts: &[&str]| {
        let body = Body::Data(texts.iter().map(|text| text_message(text)).collect());
        encoded(&Message { body, ..Message::default() })
    };
    let number = client.send(2, BATCH_FORMAT, &batch(&["a", "b", "c"])).await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    let number = client.send(2, BATCH_FORMAT, &batch(&["a", "full", "wrong"])).await;
    assert_eq!(client.outcome(number).await, DeliveryState::Released, "nothing of it may be lost");
    // What cannot be stored for now ends the links of its identity alone.
    enter(&mut client, 3, "d2").await;
    client.send_text(2, "later").await;
    let (handle, error) = client.detached().await;
    assert_eq!((handle, error.unwrap().condition.as_str()), (2, "amqp:internal-error"));
    let number = client.send_text(3, "21").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    client.attach_telemetry(2, "d1").await.unwrap();
    let number = client.send_text(2, "21").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    site.close().await;
}

#[tokio::test]
async fn a_token_that_is_put_again_counts_for_the_links_that_are_there() {
    let (site, ca) = site().await;
    let mut client = open(&site, &ca).await;
    enter(&mut client, 2, "d1").await;
    enter(&mut client, 3, "d2").await;
    assert_eq!(client.put_token(&token("d1", "newer")).await.0, 200);
    site.clients.review(|_, login| match login.generation {
        2 => Ok(Rights::all()),
        _ => Err(NotAllowed("its key was changed".to_owned())),
    });
    let (handle, error) = client.detached().await;
    assert_eq!((handle, error.unwrap().condition.as_str()), (3, "amqp:unauthorized-access"));
    let number = client.send_text(2, "21").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    let error = client.attach_telemetry(3, "d2").await.unwrap_err();
    assert_eq!(error.condition.as_str(), "amqp:unauthorized-access", "its proof is worth nothing");
    // A proof that ends takes its links along.
    assert_eq!(client.put_token(&token("d1", "expired")).await.0, 200);
    let (handle, error) = client.detached().await;
    assert_eq!((handle, error.unwrap().condition.as_str()), (2, "amqp:unauthorized-access"));
    // Nothing is proven any more: the connection does not stay for ever.
    assert_eq!(client.closed().await.condition.as_str(), "amqp:unauthorized-access");
    site.close().await;
}

#[tokio::test]
async fn whoever_proves_nothing_has_little_time_and_few_links() {
    let (site, ca) = site().await;
    let mut idle = open(&site, &ca).await;
    let mut busy = open(&site, &ca).await;
    let mut refused = None;
    for handle in 2..9 {
        if let Err(error) = busy.attach(handle, Role::Receiver, "$cbs").await {
            refused = Some(error);
        }
    }
    assert_eq!(refused.unwrap().condition.as_str(), "amqp:resource-limit-exceeded");
    assert_eq!(idle.closed().await.condition.as_str(), "amqp:unauthorized-access");
    idle.ended().await;
    site.close().await;
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_has_taken_and_closes_in_order() {
    let (mut site, ca) = site().await;
    let mut client = open(&site, &ca).await;
    enter(&mut client, 2, "d1").await;
    site.program.disk.send_replace(false);
    let number = client.send_text(2, "21").await;
    site.until_seen(telemetry("d1", "21")).await;
    site.stop();
    site.until_seen(Seen::Disconnected("d1".to_owned())).await;
    site.program.disk.send_replace(true);
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    assert_eq!(client.closed().await.condition.as_str(), "amqp:connection:forced");
    site.close().await;
}

#[tokio::test]
async fn a_client_certificate_proves_an_identity_when_its_link_is_attached() {
    let (mut site, ca) = site().await;
    let device = issue(&ca);
    let pem = format!("{}{}", device.chain_pem, device.key_pem);
    let config = client(&ca, &version::TLS13, Some(pem.as_bytes()));
    let mut client = Amqps::open(&site, config).await;
    client.attach_telemetry(0, "d1").await.unwrap();
    assert!(site.program.shown.lock().unwrap().is_some(), "the service checks the certificate");
    let number = client.send_text(0, "21").await;
    assert_eq!(client.outcome(number).await, DeliveryState::Accepted);
    site.until_seen(telemetry("d1", "21")).await;
    site.close().await;
}
