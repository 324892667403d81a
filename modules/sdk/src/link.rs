//! One connection, from CONNACK to its end: what it subscribed to, what it asked, what it knows of the twin.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, ClientError, EventLoop, MqttOptions, Publish, QoS, TlsConfiguration, Transport};
use schemas::topics;
use schemas::twin::{Section, Twin};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::command::{UNANSWERED_MAX, WAITING_MAX};
use crate::settings::Settings;
use crate::twin_error::TWIN_ANSWER;
use crate::workload::{self, WorkloadError};

/// How long leaving waits for what is under way. Docker's patience is ten seconds.
pub(crate) const GOODBYE: Duration = Duration::from_secs(3);
/// A dead gateway is noticed after twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a twin that the gateway could not give is left alone.
const TWIN_AGAIN: Duration = Duration::from_secs(5);
/// Requests that the MQTT client may hold: everything unanswered, and an answer to everything that waits.
const REQUESTS_MAX: usize = 2 * (UNANSWERED_MAX + WAITING_MAX);
/// Packet ids of messages in flight: subscriptions draw from them too, so more than can be unanswered.
const PACKET_IDS: u16 = 2 * UNANSWERED_MAX as u16;
/// The largest packet in and out, in bytes: IoT Hub's largest message and its topic fit.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("no identity from the gateway")]
    Workload(#[from] WorkloadError),
    #[error("MQTT with {gateway}: {error}")]
    Mqtt { gateway: String, error: Box<rumqttc::ConnectionError> },
    #[error("the gateway refused a subscription; does it know this module?")]
    Subscription,
    #[error("{WAITING_MAX} inputs and calls wait for the module; what it has not taken comes again")]
    Unread,
    #[error("the gateway reads nothing: {REQUESTS_MAX} requests wait for it")]
    Unwritten,
}

impl From<ClientError> for LinkError {
    fn from(_: ClientError) -> Self {
        Self::Unwritten
    }
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

/// One connection.
pub(crate) struct Link {
    pub(crate) client: AsyncClient,
    pub(crate) number: u64,
    pub(crate) renew_at: Instant,
    pub(crate) leaving: Option<Leaving>,
    requests: u64,
    /// The desired section as far as it is known here.
    desired: Option<Section>,
    /// The newest version that a patch told of.
    desired_told: u64,
    /// The request for that section under way, and when to ask (again).
    pub(crate) twin_request: Option<String>,
    pub(crate) twin_due: Option<Instant>,
}

/// Connects up to CONNACK, with trust and a token fresh from the workload API.
pub(crate) async fn open(settings: Arc<Settings>) -> Result<(AsyncClient, EventLoop), LinkError> {
    let tls = workload::trust(&settings).await?;
    let token = workload::token(&settings).await?;
    let client_id = settings.identity.to_string();
    let user_name = format!("{}/{client_id}/?api-version=2021-04-12", settings.hub_name);
    let mut options = MqttOptions::new(client_id, settings.gateway.clone(), settings.gateway_port);
    options
        .set_credentials(user_name, token)
        .set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)))
        .set_clean_session(false)
        .set_manual_acks(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
        .set_inflight(PACKET_IDS);
    let (client, mut mqtt) = AsyncClient::new(options, REQUESTS_MAX);
    match mqtt.poll().await {
        Ok(_connack) => Ok((client, mqtt)),
        Err(error) => Err(LinkError::Mqtt { gateway: settings.gateway.clone(), error: Box::new(error) }),
    }
}

impl Link {
    /// `renew_at` is when the token grows old.
    pub(crate) fn new(client: AsyncClient, number: u64, renew_at: Instant) -> Self {
        Self {
            client,
            number,
            renew_at,
            leaving: None,
            requests: 0,
            desired: None,
            desired_told: 0,
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
    pub(crate) fn subscribe(&self, settings: &Settings) -> Result<(), LinkError> {
        self.client.try_subscribe(topics::module_inputs(&settings.identity), QoS::AtLeastOnce)?;
        for filter in [topics::METHOD_CALLS, topics::TWIN_RESPONSES, topics::TWIN_DESIRED] {
            self.client.try_subscribe(filter, QoS::AtMostOnce)?;
        }
        Ok(())
    }

    /// Publishes what needs no delivery promise: if it is lost, so is the connection, and whoever asked knows.
    pub(crate) fn say(&self, topic: String, payload: impl Into<Vec<u8>>) -> Result<(), LinkError> {
        Ok(self.client.try_publish(topic, QoS::AtMostOnce, false, payload)?)
    }

    pub(crate) fn acknowledge(&self, packet_id: u16) -> Result<(), LinkError> {
        if packet_id == 0 {
            return Ok(());
        }
        let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
        publish.pkid = packet_id;
        Ok(self.client.try_ack(&publish)?)
    }

    /// Asks for the twin, for the module's desired properties.
    pub(crate) fn ask_twin(&mut self, now: Instant) -> Result<(), LinkError> {
        let id = self.next_request();
        self.twin_due = Some(now + TWIN_ANSWER);
        self.twin_request = Some(id.clone());
        self.say(topics::twin_get(&id), " ")
    }

    /// Takes the answer to [`Link::ask_twin`].
    pub(crate) fn on_twin(
        &mut self,
        status: u16,
        body: &[u8],
        told: &watch::Sender<Option<Section>>,
    ) -> Result<(), LinkError> {
        self.twin_request = None;
        let twin = serde_json::from_slice::<Twin>(body).ok().filter(|_| status == 200);
        let Some(Twin { desired, .. }) = twin else {
            warn!(status, "twin not given; asking again");
            self.twin_due = Some(Instant::now() + TWIN_AGAIN);
            return Ok(());
        };
        if desired.version < self.desired_told {
            // A patch overtook this answer. Asking again at once would be a storm if the gateway stays behind.
            self.twin_due = Some(Instant::now() + TWIN_AGAIN);
            return Ok(());
        }
        self.twin_due = None;
        self.tell(desired, told);
        Ok(())
    }

    /// Takes a patch of the desired properties.
    pub(crate) fn on_patch(
        &mut self,
        version: Option<u64>,
        body: &[u8],
        told: &watch::Sender<Option<Section>>,
    ) -> Result<(), LinkError> {
        let patch = serde_json::from_slice::<Section>(body).ok();
        let version = version.or(patch.as_ref().map(|patch| patch.version)).unwrap_or(0);
        self.desired_told = self.desired_told.max(version);
        match (self.desired.take(), patch) {
            (Some(mut desired), Some(patch)) if version == desired.version + 1 => {
                merge(&mut desired.properties, patch.properties);
                desired.version = version;
                self.tell(desired, told);
            }
            (Some(desired), _) => {
                let is_missing_one = version == 0 || version > desired.version;
                self.desired = Some(desired);
                if is_missing_one {
                    // A patch was lost, or cannot be read: look at the whole again.
                    return self.ask_twin(Instant::now());
                }
            }
            // The twin is being asked for already.
            (None, _) => {}
        }
        Ok(())
    }

    fn tell(&mut self, mut desired: Section, told: &watch::Sender<Option<Section>>) {
        desired.properties.retain(|name, _| !name.starts_with('$'));
        self.desired = Some(desired.clone());
        told.send_replace(Some(desired));
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
    fn a_patch_that_follows_is_merged_an_old_one_ignored_and_a_gap_asks_for_the_whole() {
        let (client, _mqtt) = AsyncClient::new(MqttOptions::new("id", "nowhere", 1), 10);
        let (told, desired) = watch::channel(None);
        let version = || desired.borrow().as_ref().map(|section: &Section| section.version);
        let mut link = Link::new(client, 1, Instant::now());
        let patch = |link: &mut Link, version| {
            link.on_patch(
                Some(version),
                json!({"v": version, "$version": version}).to_string().as_bytes(),
                &told,
            )
        };

        patch(&mut link, 3).unwrap();
        assert_eq!(version(), None, "nothing is told before the whole is known");
        let twin = |version| json!({"desired": {"$version": version}, "reported": {}}).to_string();
        link.on_twin(200, twin(2).as_bytes(), &told).unwrap();
        assert_eq!(version(), None, "an answer older than a patch is not the whole");
        link.on_twin(200, twin(3).as_bytes(), &told).unwrap();
        assert_eq!((version(), link.twin_due), (Some(3), None));

        patch(&mut link, 2).unwrap();
        assert_eq!(version(), Some(3));
        patch(&mut link, 4).unwrap();
        assert_eq!(desired.borrow().as_ref().unwrap().properties["v"], 4);
        patch(&mut link, 6).unwrap();
        assert_eq!(version(), Some(4));
        assert!(link.twin_request.is_some() && link.twin_due.is_some());
    }
}
