//! The link: the gateway's client against a server over TLS.

use std::time::Duration;

use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::{LinkDown, LinkUp};
use edge_hub::settings::MqttServerSettings;
use edge_tls::config::{client_config, server_config};
use edge_tls::issue::{issue_ca, issue_server};
use mqtt::client::{self, ClientOptions, ConnectError, Incoming, ReceiveError, Transport};
use mqtt::codec::packet::Version;
use mqtt::codec::reason::Reason;
use schemas::topics;

use crate::site::{PATIENCE, Seen, Site};

async fn site() -> (Site, ClientOptions) {
    let ca = issue_ca("test site").unwrap();
    let issued = issue_server(&ca, &["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let server = server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let site = Site::open_with(MqttServerSettings::default(), Some(server)).await;
    let options = ClientOptions {
        host: "127.0.0.1".into(),
        port: site.address.port(),
        transport: Transport::Tls(client_config(ca.cert_pem.as_bytes()).unwrap()),
        proxy: None,
        version: Version::V5,
        client_id: "gw".into(),
        user_name: Some("hub/gw/?api-version=2021-04-12".into()),
        password: Some("token".into()),
        keep_alive: Duration::from_secs(60),
        connect_timeout: PATIENCE,
    };
    (site, options)
}

#[tokio::test]
async fn a_gateway_publishes_subscribes_and_acknowledges() {
    let (mut site, options) = site().await;
    let (mut sender, mut receiver) = client::connect(&options).await.unwrap();
    let subscribe = sender.subscribe(topics::LINK);
    let telemetry = sender.publish("devices/press-1/messages/events/", b"20");
    let presence = sender.publish(&LinkUp::Presence.to_string(), b"{}");
    sender.ping();
    sender.flush().await.unwrap();
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(receiver.next().await.unwrap());
    }
    let expected = [
        Incoming::Subscribed(subscribe),
        Incoming::Acknowledged(telemetry),
        Incoming::Acknowledged(presence),
        Incoming::Pong,
    ];
    assert!(expected.iter().all(|e| received.contains(e)), "{received:?}");
    assert_eq!(site.sees().await, Seen::Connected("gw".into()));
    assert_eq!(site.sees().await, Seen::Subscribed("gw".into(), Subscribe::Link));
    assert_eq!(site.sees().await, Seen::Telemetry("press-1".into(), "20".into()));
    assert_eq!(site.sees().await, Seen::Link(LinkUp::Presence, "{}".into()));

    let gateway = "gw".parse().unwrap();
    // A manifest travels whole, and may be larger than a telemetry message.
    let manifest = "m".repeat(600_000);
    let operation = LinkDown::Desired("gw/$edgeAgent".parse().unwrap());
    let sent = site.clients.send_link(&gateway, &operation, manifest.clone().into());
    match receiver.next().await.unwrap() {
        Incoming::Message { topic, payload, packet_id: Some(id) } => {
            assert_eq!((topic, payload.len()), (operation.to_string(), manifest.len()));
            sender.acknowledge(id);
            sender.flush().await.unwrap();
        }
        other => panic!("{other:?} instead of the message"),
    }
    assert_eq!(sent.await, Ok(()));

    sender.disconnect();
    sender.flush().await.unwrap();
    assert!(matches!(receiver.next().await, Err(ReceiveError::Closed)));
    site.until_seen(Seen::Disconnected("gw".into())).await;
    site.close().await;
}

#[tokio::test]
async fn a_gateway_learns_why_it_is_not_let_in() {
    let (site, options) = site().await;
    let wrong = ClientOptions { password: Some("wrong".into()), ..options.clone() };
    assert!(matches!(
        client::connect(&wrong).await,
        Err(ConnectError::Refused { reason: Reason::NOT_AUTHORIZED, .. })
    ));
    let early = ClientOptions { password: Some("early".into()), ..options.clone() };
    assert!(matches!(
        client::connect(&early).await,
        Err(ConnectError::Refused { reason: Reason::SERVER_UNAVAILABLE, .. })
    ));
    let other_ca = issue_ca("another").unwrap();
    let stranger = client_config(other_ca.cert_pem.as_bytes()).unwrap();
    let untrusting = ClientOptions { transport: Transport::Tls(stranger), ..options.clone() };
    assert!(matches!(client::connect(&untrusting).await, Err(ConnectError::Tls(_))));
    site.close().await;
    // A port that nobody listens on and nobody else is given: another test may have that of the site by now.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let nobody = ClientOptions { port: held.local_addr().unwrap().port(), ..options };
    assert!(matches!(client::connect(&nobody).await, Err(ConnectError::Io(_))));
}

#[tokio::test]
async fn who_is_no_gateway_has_no_link() {
    let (site, options) = site().await;
    let device = ClientOptions { client_id: "d1".into(), ..options };
    let (mut sender, mut receiver) = client::connect(&device).await.unwrap();
    let subscribe = sender.subscribe(topics::LINK);
    sender.flush().await.unwrap();
    assert!(matches!(receiver.next().await, Err(ReceiveError::SubscriptionRefused(id)) if id == subscribe));
    site.close().await;
}
