//! A simulated leaf device: a foreign MQTT client (rumqttc) over TLS with a SAS token, which numbers its messages and
//! remembers which of them were acknowledged.
//!
//! It never sends a message twice: what a cut connection left unacknowledged stays "unknown" and the next message goes
//! out. So each acknowledged number must be in central exactly once, and an unknown one at most once.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport,
};
use schemas::bag::PropertyBag;
use schemas::names::Identity;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::raw::Login;

/// Messages a leaf keeps in flight.
const WINDOW: u16 = 50;

/// How a leaf connects.
#[derive(Clone)]
pub struct LeafOptions {
    pub identity: Identity,
    pub key: Vec<u8>,
    /// The hub's name in its token and user name.
    pub hub_name: String,
    /// The gateway's MQTT port on this machine.
    pub port: u16,
    /// The certificate authority of the gateway; `None` speaks plain MQTT.
    pub ca: Option<Arc<rustls::ClientConfig>>,
    /// Time between two messages.
    pub interval: Duration,
    /// Bytes that are added to each message.
    pub padding: usize,
}

/// What a leaf has seen so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Numbers that were acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// Numbers that went out and whose connection ended before an answer.
    pub unknown: BTreeSet<u64>,
    pub connections: u64,
}

/// A leaf that publishes `{"n": number, "temperature": …}` until it is stopped.
pub struct Leaf {
    seen: watch::Receiver<Seen>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// A client configuration that trusts the authorities in a PEM file.
pub fn trust(ca_pem: &[u8]) -> Result<Arc<rustls::ClientConfig>> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate.context("reading the CA file")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(Arc::new(
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    ))
}

impl LeafOptions {
    /// Its user name, and a token that is valid for an hour.
    fn account(&self) -> (String, String) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("the clock is past 1970");
        let token =
            edge_core::access::sas::token(&self.hub_name, &self.identity, &self.key, now.as_secs() + 3600);
        (format!("{}/{}/?api-version=2021-04-12", self.hub_name, self.identity), token)
    }

    /// What it connects with.
    pub fn login(&self) -> Login {
        Login { client_id: self.identity.to_string(), account: Some(self.account()) }
    }

    /// An MQTT client of this identity with `window` messages in flight, not connected yet.
    pub fn client(&self, window: u16) -> (AsyncClient, EventLoop) {
        let (user_name, token) = self.account();
        let mut options = MqttOptions::new(self.identity.to_string(), "localhost", self.port);
        options
            .set_credentials(user_name, token)
            .set_keep_alive(Duration::from_secs(30))
            .set_inflight(window)
            .set_max_packet_size(1 << 20, 1 << 20)
            .set_clean_session(true);
        if let Some(ca) = &self.ca {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(ca.clone())));
        }
        crate::patient::client(options, 100)
    }
}

impl Leaf {
    pub fn start(options: LeafOptions) -> Self {
        let (seen_sender, seen) = watch::channel(Seen::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut next = 1;
            while !*stopped.borrow() {
                next = connection(&options, next, &seen_sender, stopped.clone()).await;
            }
        });
        Self { seen, stop, task }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until `count` further messages have been acknowledged.
    pub async fn acknowledged_more(&mut self, count: usize, within: Duration) -> Result<()> {
        let goal = self.seen.borrow().acknowledged.len() + count;
        let wait = self.seen.wait_for(|seen| seen.acknowledged.len() >= goal);
        tokio::time::timeout(within, wait)
            .await
            .with_context(|| format!("{count} further messages were not acknowledged within {within:?}"))??;
        Ok(())
    }

    /// Stops publishing, waits for the acknowledgements still due, and gives what was seen.
    pub async fn stop(self) -> Result<Seen> {
        self.stop.send(true)?;
        self.task.await?;
        Ok(self.seen.borrow().clone())
    }
}

/// One connection from CONNECT to its end; gives the number of the next message.
async fn connection(
    options: &LeafOptions,
    mut next: u64,
    seen: &watch::Sender<Seen>,
    mut stopped: watch::Receiver<bool>,
) -> u64 {
    let (client, mut events) = options.client(WINDOW);
    let mut submitted: VecDeque<u64> = VecDeque::new();
    let mut in_flight: Vec<(u16, u64)> = Vec::new();
    let mut is_connected = false;
    let mut ticks = tokio::time::interval(options.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_stopping = *stopped.borrow();
    let (events_sender, mut incoming) = tokio::sync::mpsc::channel(64);
    // The event loop must not be dropped in the middle of a poll, so it lives in a task of its own.
    let pump = tokio::spawn(async move {
        loop {
            let event = events.poll().await;
            let is_end = event.is_err();
            if events_sender.send(event).await.is_err() || is_end {
                return;
            }
        }
    });
    while !(is_stopping && submitted.is_empty() && in_flight.is_empty()) {
        tokio::select! {
            _ = ticks.tick(), if is_connected && !is_stopping && submitted.len() + in_flight.len() < usize::from(WINDOW) => {
                let mut bag = PropertyBag::new();
                bag.set(schemas::bag::system::CONTENT_TYPE, "application/json");
                bag.set(schemas::bag::system::CONTENT_ENCODING, "utf-8");
                let topic = schemas::topics::telemetry(&options.identity, &bag);
                let mut body = serde_json::json!({"n": next, "temperature": 20.0 + (next % 10) as f64});
                if options.padding > 0 {
                    body["padding"] = "x".repeat(options.padding).into();
                }
                let body = body.to_string();
                if client.publish(topic, QoS::AtLeastOnce, false, body).await.is_err() {
                    break;
                }
                submitted.push_back(next);
                next += 1;
            }
            event = incoming.recv() => match event {
                Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                    is_connected = true;
                    seen.send_modify(|seen| seen.connections += 1);
                }
                Some(Ok(Event::Outgoing(Outgoing::Publish(id)))) => {
                    let number = submitted.pop_front().expect("each outgoing publish was handed over before");
                    in_flight.push((id, number));
                }
                Some(Ok(Event::Incoming(Packet::PubAck(ack)))) => {
                    if let Some(index) = in_flight.iter().position(|(id, _)| *id == ack.pkid) {
                        let (_, number) = in_flight.remove(index);
                        seen.send_modify(|seen| { seen.acknowledged.insert(number); });
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            _ = stopped.changed(), if !is_stopping => is_stopping = true,
        }
    }
    pump.abort();
    seen.send_modify(|seen| seen.unknown.extend(submitted.iter().chain(in_flight.iter().map(|(_, n)| n))));
    if !is_connected && !is_stopping {
        // Nobody listens at the moment: the next attempt waits its interval, as a device's would.
        tokio::time::sleep(options.interval.max(Duration::from_millis(100))).await;
    }
    next
}
