//! A central on free ports, with its REST client and foreign MQTT clients.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]
#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(unreachable_pub, reason = "a module of each test file, not of a library")]

use std::net::SocketAddr;
use std::time::Duration;

pub mod browser;
pub mod described;
#[path = "../starting/mod.rs"]
pub mod starting;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use described::Exchange;

use central::clock;
use central::config::Config;
use central::server::{self, Started};
use central::store::{StoreError, tokens};
use central::token::{self, Role, TokenName};
use reqwest::Method;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine.
pub const STEP: Duration = Duration::from_secs(60);
/// A client that a test does not poll stays connected for longer than any test takes.
const KEEP_ALIVE: Duration = Duration::from_secs(1200);

/// A running central and what it takes to speak to it.
pub struct Central {
    pub started: Started,
    pub stop: CancellationToken,
    pub http: reqwest::Client,
    pub token: String,
}

/// Starts central on a directory; the token is an administrator's.
pub async fn start(dir: &std::path::Path) -> Central {
    start_with(dir, |_| {}).await
}

/// Starts central on a directory with a configuration that `change` has changed.
pub async fn start_with(dir: &std::path::Path, change: impl FnOnce(&mut Config)) -> Central {
    let mut config =
        Config { hostname: "central.test".into(), data_dir: dir.to_owned(), ..Config::default() };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.http.listen = any;
    config.mqtt.mqtts = any;
    config.mqtt.mqtt = Some(any);
    config.metrics.listen = None;
    change(&mut config);
    let stop = CancellationToken::new();
    drop(starting::starting());
    let started = server::start(config, stop.clone()).await.unwrap();
    let mut central = Central { started, stop, http: reqwest::Client::new(), token: String::new() };
    central.token = central.new_token(Role::Administrator).await;
    central
}

/// The body of an answer; none of a stream of events, which has no end.
pub async fn text(response: reqwest::Response) -> String {
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if kind.starts_with("text/event-stream") { String::new() } else { response.text().await.unwrap() }
}

impl Central {
    pub async fn new_token(&self, role: Role) -> String {
        let now_ms = clock::now_ms();
        let new = token::create("central.test", &TokenName::random(), role, now_ms, now_ms + 3_600_000);
        let line = new.line.clone();
        let insert = move |c: &_| Ok::<_, StoreError>(tokens::insert(c, &new.hash, &new.grant)?);
        self.started.store().submit(insert).await.unwrap();
        line
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.started.http_url())
    }

    pub async fn send_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}api-version=2022-10-31-preview", self.url(path));
        let mut request = self.http.request(method.clone(), url).header("Authorization", token).timeout(STEP);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let (status, text) = (response.status().as_u16(), text(response).await);
        let method = method.as_str();
        described::check(&Exchange { method, path, sent: body.as_ref(), status, text: &text });
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.send_as(&self.token, method, path, body).await
    }

    /// A request that must succeed.
    pub async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.send(method.clone(), path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, None).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        self.ok(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Value {
        self.ok(Method::PATCH, path, Some(body)).await
    }

    /// Asks until `check` gives a value.
    pub async fn until<T>(&self, path: &str, check: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + STEP;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let answer = self.get(path).await;
            if let Some(value) = check(&answer) {
                return value;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} stayed {answer}");
        }
    }

    /// A client of the plain listener with the key of a registered device.
    pub async fn client(&self, device: &str) -> Mqtt {
        let credentials = self.get(&format!("/api/devices/{device}/credentials")).await;
        let key = credentials["symmetricKey"]["primaryKey"].as_str().unwrap();
        self.client_with_key(device, &decoded(key))
    }

    /// A client that asks the server to keep its session.
    pub async fn lasting_client(&self, device: &str) -> Mqtt {
        let mut mqtt = self.client(device).await;
        mqtt.events.mqtt_options.set_clean_session(false);
        mqtt
    }

    /// A client that acknowledges nothing by itself.
    pub async fn silent_client(&self, device: &str) -> Mqtt {
        let mut options = self.client(device).await.events.mqtt_options;
        options.set_manual_acks(true);
        Mqtt::new(options)
    }

    /// A client that leaves a will.
    pub async fn client_with_will(&self, device: &str, topic: &str) -> Mqtt {
        let mut options = self.client(device).await.events.mqtt_options;
        options.set_last_will(rumqttc::LastWill::new(
            topic,
            r#"{"gone": true}"#,
            rumqttc::QoS::AtLeastOnce,
            false,
        ));
        Mqtt::new(options)
    }

    pub fn client_with_key(&self, device: &str, key: &[u8]) -> Mqtt {
        let expires_at = clock::now_ms() / 1000 + 3600;
        let token = edge_core::access::sas::token("central.test", &device.parse().unwrap(), key, expires_at);
        let port = self.started.mqtt.unwrap().port();
        let mut options = MqttOptions::new(device, "127.0.0.1", port);
        options
            .set_credentials(format!("central.test/{device}/?api-version=2021-04-12"), token)
            .set_max_packet_size(1024 * 1024, 1024 * 1024);
        Mqtt::new(options)
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.started.ended().await.unwrap();
    }
}

/// A key as answers of the API have it.
pub fn decoded(key: &str) -> Vec<u8> {
    STANDARD.decode(key).unwrap()
}

/// A foreign MQTT client, and what it hears.
pub struct Mqtt {
    pub client: AsyncClient,
    pub events: EventLoop,
}

impl Mqtt {
    /// A client that is not connected yet, and that waits for a busy machine: its library's own 5 s for a connection are few there.
    pub fn new(mut options: MqttOptions) -> Self {
        options.set_keep_alive(KEEP_ALIVE);
        let (client, mut events) = AsyncClient::new(options, 100);
        events.network_options.set_connection_timeout(STEP.as_secs());
        Self { client, events }
    }

    /// The next packet that `pick` wants.
    pub async fn next<T>(&mut self, pick: impl Fn(Packet) -> Option<T>) -> T {
        tokio::time::timeout(STEP, async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await.unwrap()
                    && let Some(value) = pick(packet)
                {
                    return value;
                }
            }
        })
        .await
        .unwrap()
    }

    /// The next message on a topic that begins with `prefix`: the whole topic and its JSON.
    pub async fn message(&mut self, prefix: &str) -> (String, Value) {
        self.next(|packet| match packet {
            Packet::Publish(publish) if publish.topic.starts_with(prefix) => {
                let body = serde_json::from_slice(&publish.payload).unwrap();
                Some((publish.topic, body))
            }
            _ => None,
        })
        .await
    }

    pub async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, rumqttc::QoS::AtLeastOnce).await.unwrap();
        self.next(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    }

    /// Publishes and waits for the acknowledgement.
    pub async fn publish(&mut self, topic: &str, body: impl Into<Vec<u8>>) {
        self.client.publish(topic, rumqttc::QoS::AtLeastOnce, false, body.into()).await.unwrap();
        self.next(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }
}
