//! One connection, from CONNACK to its end: what it subscribed to, what it requested, what it knows of the twin.
//!
//! It reads and writes nothing: what it has to say waits in a queue that its driver gives to the MQTT client.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt::client::{self, ClientOptions, ConnectError, ReceiveError, Receiver, Sender, Transport};
use mqtt::codec::packet::Version;
use schemas::topics;
use schemas::twin::{Section, Twin};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::command::WAITING_MAX;
use crate::settings::Settings;
use crate::twin_error::TWIN_ANSWER;
use crate::workload::{self, WorkloadError};

/// How long leaving waits for what is under way. Docker's patience is ten seconds.
pub(crate) const GOODBYE: Duration = Duration::from_secs(3);
/// A dead gateway is noticed after twice this.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For TCP, TLS and CONNACK together: a gateway that many clients reach at once after a restart takes its time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a twin that the gateway could not give is left alone.
const TWIN_AGAIN: Duration = Duration::from_secs(5);
/// Bytes that may wait to be written: every message and request that may be unanswered, and 256 answers of 64 KiB.
pub(crate) const UNWRITTEN_BYTES_MAX: usize = 32 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("no identity from the gateway")]
    Workload(#[from] WorkloadError),
    #[error("connecting to {gateway}")]
    Connect {
        gateway: String,
        // Larger than the others by far.
        source: Box<ConnectError>,
    },
    #[error("connection to {gateway}")]
    Receive { gateway: String, source: ReceiveError },
    #[error("writing to {gateway}")]
    Write { gateway: String, source: io::Error },
    #[error("the gateway has not answered a ping for {} s", KEEP_ALIVE.as_secs())]
    Silent,
    #[error("the gateway refused a subscription; does it know this module?")]
    Subscription,
    #[error("{WAITING_MAX} inputs and calls wait for the module; what it has not taken comes again")]
    Unread,
    #[error("the gateway reads nothing: {UNWRITTEN_BYTES_MAX} bytes wait for it")]
    Unwritten,
}

/// Why the connection is being left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The module ends.
    Stop,
    /// The token grows old.
    Renew,
}

/// What is under way may still be answered; nothing new goes out.
pub(crate) struct Leaving {
    pub(crate) reason: Reason,
    pub(crate) deadline: Instant,
    pub(crate) has_said_goodbye: bool,
}

/// What goes out on the connection, without a delivery promise.
#[derive(Debug, PartialEq)]
enum Output {
    /// A PUBLISH at QoS 0.
    Publish { topic: String, payload: Bytes },
    /// The PUBACK of this packet id.
    Acknowledge(u16),
}

/// One connection.
pub(crate) struct Link {
    output: VecDeque<Output>,
    pub(crate) number: u64,
    pub(crate) renew_at: Instant,
    pub(crate) leaving: Option<Leaving>,
    requests: u64,
    /// The desired section as far as it is known here.
    desired: Option<Section>,
    /// The newest version that a patch named.
    desired_newest: u64,
    /// The request for that section under way, and when to ask (again).
    pub(crate) twin_request: Option<String>,
    pub(crate) twin_due: Option<Instant>,
}

/// Connects up to CONNACK, with trust and a token fresh from the workload API.
pub(crate) async fn open(settings: Arc<Settings>) -> Result<(Sender, Receiver), LinkError> {
    let tls = workload::trust(&settings).await?;
    let token = workload::token(&settings).await?;
    let client_id = settings.identity.to_string();
    let user_name = format!("{}/{client_id}/?api-version=2021-04-12", settings.hub_name);
    let options = ClientOptions {
        host: settings.gateway.clone(),
        port: settings.gateway_port,
        transport: Transport::Tls(tls),
        proxy: None,
        version: Version::V4,
        client_id,
        user_name: Some(user_name),
        password: Some(token),
        keep_alive: KEEP_ALIVE,
        connect_timeout: CONNECT_TIMEOUT,
    };
    // The session is resumed: inputs that arrived meanwhile are queued there.
    client::resume(&options)
        .await
        .map_err(|source| LinkError::Connect { gateway: settings.gateway.clone(), source: Box::new(source) })
}

impl Link {
    /// `renew_at` is when the token grows old.
    pub(crate) fn new(number: u64, renew_at: Instant) -> Self {
        Self {
            output: VecDeque::new(),
            number,
            renew_at,
            leaving: None,
            requests: 0,
            desired: None,
            desired_newest: 0,
            twin_request: None,
            twin_due: Some(Instant::now()),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.reason == Reason::Stop)
    }

    pub(crate) fn leave(&mut self, reason: Reason, now: Instant) {
        let has_said_goodbye = self.leaving.as_ref().is_some_and(|leaving| leaving.has_said_goodbye);
        self.leaving = Some(Leaving { reason, deadline: now + GOODBYE, has_said_goodbye });
    }

    /// An id for a request, of its own on every connection: a late answer to an earlier one finds nobody.
    pub(crate) fn next_request(&mut self) -> String {
        self.requests += 1;
        format!("{}-{}", self.number, self.requests)
    }

    /// One filter in a packet, as the Azure SDKs do.
    pub(crate) fn subscribe(&self, settings: &Settings, sender: &mut Sender) {
        sender.subscribe(&topics::module_inputs(&settings.identity));
        for filter in [topics::METHOD_CALLS, topics::TWIN_RESPONSES, topics::TWIN_DESIRED] {
            sender.subscribe_at_most_once(filter);
        }
    }

    /// Publishes what needs no delivery promise: if it is lost, so is the connection, and the caller knows.
    pub(crate) fn say(&mut self, topic: String, payload: impl Into<Bytes>) {
        self.output.push_back(Output::Publish { topic, payload: payload.into() });
    }

    pub(crate) fn acknowledge(&mut self, packet_id: Option<u16>) {
        self.output.extend(packet_id.map(Output::Acknowledge));
    }

    /// Everything queued has been written: the connection can be left if DISCONNECT was among it.
    pub(crate) fn goodbye_written(&self) -> ControlFlow<Reason> {
        match &self.leaving {
            Some(leaving) if leaving.has_said_goodbye => ControlFlow::Break(leaving.reason),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Gives the MQTT client what has to go out.
    pub(crate) fn write(&mut self, sender: &mut Sender) {
        for output in self.output.drain(..) {
            match output {
                Output::Publish { topic, .. } if topic.len() > usize::from(u16::MAX) => {
                    // An answer repeats the request id, of which the gateway may have made any length.
                    warn!(bytes = topic.len(), "answer dropped: its topic is longer than MQTT allows");
                }
                Output::Publish { topic, payload } => sender.publish_at_most_once(&topic, &payload),
                Output::Acknowledge(packet_id) => sender.acknowledge(packet_id),
            }
        }
    }

    /// Asks for the twin, for the module's desired properties.
    pub(crate) fn ask_twin(&mut self, now: Instant) {
        let id = self.next_request();
        self.twin_due = Some(now + TWIN_ANSWER);
        self.twin_request = Some(id.clone());
        self.say(topics::twin_get(&id), " ");
    }

    /// Takes the answer to [`Link::ask_twin`].
    pub(crate) fn on_twin(&mut self, status: u16, body: &[u8], sink: &watch::Sender<Option<Section>>) {
        self.twin_request = None;
        let twin = serde_json::from_slice::<Twin>(body).ok().filter(|_| status == 200);
        let Some(Twin { desired, .. }) = twin else {
            warn!(status, "twin not given; asking again");
            self.twin_due = Some(Instant::now() + TWIN_AGAIN);
            return;
        };
        if desired.version < self.desired_newest {
            // A patch overtook this answer. Asking again at once would be a storm if the gateway stays behind.
            self.twin_due = Some(Instant::now() + TWIN_AGAIN);
            return;
        }
        self.twin_due = None;
        self.publish_desired(desired, sink);
    }

    /// Takes a patch of the desired properties.
    pub(crate) fn on_patch(
        &mut self,
        version: Option<u64>,
        body: &[u8],
        sink: &watch::Sender<Option<Section>>,
    ) {
        let patch = serde_json::from_slice::<Section>(body).ok();
        let version = version.or(patch.as_ref().map(|patch| patch.version)).unwrap_or(0);
        self.desired_newest = self.desired_newest.max(version);
        match (self.desired.take(), patch) {
            (Some(mut desired), Some(patch)) if version == desired.version + 1 => {
                merge(&mut desired.properties, patch.properties);
                desired.version = version;
                self.publish_desired(desired, sink);
            }
            (Some(desired), _) => {
                let is_missing_one = version == 0 || version > desired.version;
                self.desired = Some(desired);
                if is_missing_one {
                    // A patch was lost, or cannot be read: look at the whole again.
                    self.ask_twin(Instant::now());
                }
            }
            // The twin is being asked for already.
            (None, _) => {}
        }
    }

    fn publish_desired(&mut self, mut desired: Section, sink: &watch::Sender<Option<Section>>) {
        desired.properties.retain(|name, _| !name.starts_with('$'));
        self.desired = Some(desired.clone());
        sink.send_replace(Some(desired));
    }
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match (value, target.get_mut(&name)) {
            (Value::Null, _) => drop(target.remove(&name)),
            (Value::Object(inner), Some(Value::Object(object))) => merge(object, inner),
            (Value::Object(inner), _) => {
                let mut object = Map::new();
                merge(&mut object, inner);
                target.insert(name, Value::Object(object));
            }
            (value, _) => drop(target.insert(name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_changes_what_it_names_and_null_removes() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let mut target = object(json!({"a": 1, "b": {"c": 1, "d": 2}, "e": 3}));
        merge(&mut target, object(json!({"a": 2, "b": {"c": null}, "e": {"f": null, "g": 1}})));
        assert_eq!(target, object(json!({"a": 2, "b": {"d": 2}, "e": {"g": 1}})));
    }

    #[test]
    fn a_patch_that_follows_is_merged_an_old_one_ignored_and_a_missing_one_requests_the_whole() {
        let (sink, desired) = watch::channel(None);
        let version = || desired.borrow().as_ref().map(|section: &Section| section.version);
        let mut link = Link::new(1, Instant::now());
        let patch = |link: &mut Link, version| {
            link.on_patch(
                Some(version),
                json!({"v": version, "$version": version}).to_string().as_bytes(),
                &sink,
            );
        };

        patch(&mut link, 3);
        assert_eq!(version(), None, "nothing is published before the whole is known");
        let twin = |version| json!({"desired": {"$version": version}, "reported": {}}).to_string();
        link.on_twin(200, twin(2).as_bytes(), &sink);
        assert_eq!(version(), None, "an answer older than a patch is not the whole");
        link.on_twin(200, twin(3).as_bytes(), &sink);
        assert_eq!((version(), link.twin_due), (Some(3), None));

        patch(&mut link, 2);
        assert_eq!(version(), Some(3));
        patch(&mut link, 4);
        assert_eq!(desired.borrow().as_ref().unwrap().properties["v"], 4);
        patch(&mut link, 6);
        assert_eq!(version(), Some(4));
        assert!(link.twin_request.is_some() && link.twin_due.is_some());
        let request = topics::twin_get(link.twin_request.as_ref().unwrap());
        assert_eq!(link.output, [Output::Publish { topic: request, payload: " ".into() }]);
    }
}
