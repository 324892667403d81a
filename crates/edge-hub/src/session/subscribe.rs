//! What a client asks to receive.

use edge_core::dialect::client::{DialectError, Subscribe as Meaning, parse_subscribe};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::warn;

use super::end::End;
use super::pending::{Reply, Subscribed};
use super::state::Session;
use crate::bridge_state;
use crate::clients::Connection;
use crate::counts::count;
use crate::journal::Stored;
use crate::mqtt_server::MqttServer;
use crate::sanitized::Sanitized;
use crate::service::Service;
use crate::session_queue::Held;
use crate::subscription::Options;
use crate::table::{LEVELS_MAX, split_share};
use mqtt::codec::packet::{Filter, ReasonProperties, SubAck, Subscribe, Unsubscribe, Version};
use mqtt::codec::reason::Reason;
use mqtt::codec::write;

impl<S, T> Session<S, T>
where
    S: Service,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let session_queue = self.connection.session_queue.clone();
        let mut subscribed = Subscribed {
            answer: SubAck { id: subscribe.id, reasons: Vec::new(), properties: None },
            granted: Vec::new(),
            is_within_replay: true,
        };
        let mut stored = Vec::new();
        let filters = subscribe.filters.len();
        for mut filter in subscribe.filters {
            let decided =
                match bridge_state::kept_filter(&self.connection.client.identity, filter.path.clone()) {
                    Some(kept) => {
                        filter.path = kept;
                        self.authorize_new(&filter)
                    }
                    None => Err((Reason::TOPIC_FILTER_INVALID, "the filter is too long".to_owned())),
                };
            let meaning = match decided {
                Ok(meaning) => meaning,
                Err((reason, why)) => {
                    let (reason, properties) = self.subscription_refused(&filter.path, reason, &why, filters);
                    subscribed.answer.properties = subscribed.answer.properties.take().or(properties);
                    subscribed.answer.reasons.push(reason);
                    continue;
                }
            };
            let is_free = meaning.is_between_clients();
            let is_bridge = self.peer.is_bridge && split_share(&filter.path).is_none();
            let options = Options {
                // IoT Hub's topics are of QoS 0 and 1.
                qos: if is_free { filter.qos } else { filter.qos.min(1) },
                no_local: filter.no_local || is_bridge,
                retain_as_published: filter.retain_as_published || is_bridge,
                id: subscribe.subscription_id,
            };
            let held = Held { filter: filter.path, meaning, options };
            let entered =
                match self.server.broker.subscribe(&session_queue, held.clone(), filter.retain_handling) {
                    Ok(entered) => entered,
                    Err(exceeded) => {
                        count(&self.server.counts().quotas_exceeded);
                        count(&self.server.counts().subscriptions_refused);
                        let (reason, properties) = self.subscription_refused(
                            &held.filter,
                            Reason::QUOTA_EXCEEDED,
                            &exceeded.to_string(),
                            filters,
                        );
                        subscribed.answer.properties = subscribed.answer.properties.take().or(properties);
                        subscribed.answer.reasons.push(reason);
                        continue;
                    }
                };
            subscribed.answer.reasons.push(Reason::granted(options.qos));
            subscribed.granted.push(held.meaning.clone());
            stored.extend(entered.stored);
            subscribed.is_within_replay &= entered.is_within_replay;
        }
        // The SUBACK comes before the retained messages.
        self.subscribing += 1;
        self.answer_when(stored, Reply::SubAck(Box::new(subscribed)))
    }

    /// Logs a filter that the client may not have; the reason code and string for its SUBACK.
    fn subscription_refused(
        &self,
        filter: &str,
        reason: Reason,
        why: &str,
        filters: usize,
    ) -> (Reason, Option<Box<ReasonProperties>>) {
        /// Enough to find the client's mistake; 64 kB of each of 100 filters would fill the log.
        const SHOWN_MAX: usize = 256;
        let cut: String = filter.chars().take(SHOWN_MAX).collect();
        let (client, topic) = (Sanitized(self.client_id()), Sanitized(&cut));
        let peer = self.connection.client.peer;
        warn!(%client, %topic, %peer, "subscription refused: {}", Sanitized(why));
        let reason = match self.peer.version {
            // The only one that MQTT 3.1.1 knows.
            Version::V4 => Reason::UNSPECIFIED,
            Version::V5 => reason,
        };
        (reason, self.reason_properties(&format!("{filter}: {why}"), filters))
    }

    fn authorize_new(&self, filter: &Filter) -> Result<Meaning, (Reason, String)> {
        let meaning = meaning_of(&self.server, &self.connection, &filter.path)?;
        if filter.no_local && split_share(&filter.path).is_some() {
            // MQTT-3.8.3-4 of MQTT 5.
            return Err((Reason::PROTOCOL_ERROR, "no-local on a shared subscription".to_owned()));
        }
        let held = self.connection.session_queue.held();
        let filters_max = self.server.settings.filters_max;
        if held.len() < filters_max || held.iter().any(|held| held.filter == filter.path) {
            Ok(meaning)
        } else {
            count(&self.server.counts().subscriptions_refused);
            Err((Reason::QUOTA_EXCEEDED, format!("more than {filters_max} filters")))
        }
    }

    /// Answers a SUBSCRIBE whose filters are on disk, where they must be.
    pub(super) fn subscribed(&mut self, subscribed: Subscribed) -> Result<(), End> {
        self.subscribing -= 1;
        write::suback(&mut self.writer.out, self.peer.version, &subscribed.answer);
        self.server.clients.changed();
        for meaning in &subscribed.granted {
            self.server.service.subscribed(&self.connection.client, meaning);
        }
        if !subscribed.is_within_replay {
            let why = "the client requests more retained messages than it reads";
            return Err(End::Closed(why.to_owned(), Reason::QUOTA_EXCEEDED));
        }
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let (mut reasons, mut stored) = (Vec::new(), Vec::new());
        for filter in unsubscribe.filters {
            let kept = bridge_state::kept_filter(&self.connection.client.identity, filter);
            let held =
                kept.and_then(|kept| self.server.broker.unsubscribe(&self.connection.session_queue, &kept));
            reasons.push(if held.is_some() { Reason::SUCCESS } else { Reason::NO_SUBSCRIPTION_EXISTED });
            stored.extend(held.flatten());
        }
        if self.peer.version == Version::V4 {
            reasons.clear();
        }
        let answer = SubAck { id: unsubscribe.id, reasons, properties: None };
        self.answer_when(stored, Reply::UnsubAck(Box::new(answer)))
    }

    /// Answers when all of these are on disk.
    fn answer_when(&mut self, stored: Vec<Stored>, reply: Reply) -> Result<(), End> {
        let all = stored.into_iter().reduce(|before, stored| stored.and(Some(before)));
        self.answer_stored(all, reply)
    }
}

/// What a filter means for this client, or why it may not have it.
pub(super) fn meaning_of<S: Service>(
    server: &MqttServer<S>,
    connection: &Connection,
    filter: &str,
) -> Result<Meaning, (Reason, String)> {
    let client = &connection.client;
    let invalid = |why: &str| (Reason::TOPIC_FILTER_INVALID, why.to_owned());
    let not_yours = |why: &str| (Reason::NOT_AUTHORIZED, why.to_owned());
    let (is_shared, plain) = if filter.starts_with("$share/") || filter == "$share" {
        match split_share(filter) {
            // MQTT-4.8.2-1 and -2 of MQTT 5.
            Some((group, plain)) if !group.is_empty() && !group.contains(['+', '#']) => (true, plain),
            _ => return Err(invalid("a shared subscription is $share/{group}/{filter}")),
        }
    } else {
        (false, filter)
    };
    let is_enrolling = client.identity.registration_id().is_some();
    match parse_subscribe(plain) {
        Ok(meaning) if (meaning == Meaning::Provisioning) != is_enrolling => Err(not_yours(
            "the provisioning topics are for devices that enrol themselves, and they have no others",
        )),
        Err(error @ DialectError::Malformed(..)) => Err(invalid(&error.to_string())),
        Err(error) => Err(not_yours(&error.to_string())),
        Ok(Meaning::Free | Meaning::BridgeState) if plain.split('/').count() > LEVELS_MAX => {
            Err(invalid(&format!("more than {LEVELS_MAX} levels")))
        }
        Ok(Meaning::Free) if !connection.rights().may_subscribe(plain) => {
            Err(not_yours("no rule of the manifest allows it"))
        }
        Ok(Meaning::Free) => Ok(Meaning::Free),
        Ok(Meaning::BridgeState) if !is_shared => Ok(Meaning::BridgeState),
        Ok(_) if client.identity.is_user() => Err(not_yours("a user has free topics only")),
        Ok(_) if is_shared => Err(not_yours("IoT Hub's topics are not shared")),
        Ok(Meaning::Inbox { of }) if of != client.identity => Err(not_yours("another identity's messages")),
        Ok(Meaning::Link) if !server.service.is_gateway(client) => Err(not_yours("the link is for gateways")),
        Ok(meaning) => Ok(meaning),
    }
}
