//! A queued message as an upstream that is not central gets it: as whom, on which topic, with which properties.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use edge_buffer::Record;
use edge_core::access::attestation::Attestation;
use edge_core::dialect::client::{Publish, parse_publish};
use edge_core::dialect::template::TopicTemplate;
use mqtt::codec::packet::{PublishProperties, Version};
use mqtt::codec::text::Text;
use schemas::bag::{PropertyBag, system};
use schemas::connection_string::ConnectionString;
use schemas::names::{DeviceId, Identity};
use schemas::topics;

use crate::access::devices::Devices;
use crate::clock::corrected_ms;
use crate::config::{Kind, Password, Properties, Upstream};
use crate::messages::quarantine::Reason;
use crate::messages::queues::destination::Queue;
use crate::messages::queues::name::QueueName;
use crate::messages::record;
use crate::upstream::address::{Login, TOKEN_USED_FOR};

/// Who sent a message that goes up as the gateway's.
const DEVICE_PROPERTY: &str = "lineside-device";
const MODULE_PROPERTY: &str = "lineside-module";

/// How an upstream is spoken to.
pub enum UpstreamProfile {
    /// A broker with topics of its own.
    Broker {
        topic: TopicTemplate,
        /// Where their properties go.
        properties: Properties,
        /// The version of MQTT.
        version: Version,
        /// As whom to connect.
        client_id: String,
        user_name: Option<String>,
        password: Option<Password>,
    },
    IotHub {
        connection_string: ConnectionString,
        /// The keys of leaf devices: each that has one connects as itself.
        devices: Devices,
    },
}

/// A message ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// Equal for messages of one device or module, whose order holds.
    pub(super) sender: u64,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) properties: Option<Box<PublishProperties>>,
}

/// Why there is nothing to log in with.
#[derive(Debug, thiserror::Error)]
pub(super) enum CredentialsError {
    #[error("[upstream] password_file: reading {path}")]
    PasswordFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("device {0} has no symmetric key here any more")]
    NoKey(Identity),
}

impl UpstreamProfile {
    /// As the configuration has it.
    pub fn new(upstream: &Upstream, devices: Devices) -> Self {
        match &upstream.kind {
            Kind::Mqtt(broker) => Self::Broker {
                topic: broker.topic.clone(),
                properties: broker.properties,
                version: broker.version,
                client_id: broker.client_id.clone(),
                user_name: broker.user_name.clone(),
                password: broker.password.clone(),
            },
            Kind::IotHub(connection_string) | Kind::Central(connection_string) => {
                Self::IotHub { connection_string: connection_string.clone(), devices }
            }
        }
    }

    /// The identity that connects for a sender.
    pub(super) fn connection(&self, gateway: &DeviceId, from: &Identity) -> Identity {
        let own = Identity::device(gateway.clone());
        match self {
            Self::Broker { .. } => own,
            Self::IotHub { devices, .. } => {
                if from.module.is_none() && key(devices, &from.device).is_some() {
                    from.clone()
                } else {
                    // IoT Hub knows keys of modules that a gateway does not have, and devices prove themselves here in more ways.
                    own
                }
            }
        }
    }

    /// As whom an identity connects.
    ///
    /// # Errors
    /// [`CredentialsError`] when it cannot now.
    pub(super) fn login(&self, identity: &Identity) -> Result<Login, CredentialsError> {
        match self {
            Self::Broker { version, client_id, user_name, password, .. } => {
                let password = password.as_ref().map(Password::text).transpose();
                let password =
                    password.map_err(|(path, source)| CredentialsError::PasswordFile { path, source })?;
                let (client_id, user_name) = (client_id.clone(), user_name.clone());
                Ok(Login { version: *version, client_id, user_name, password })
            }
            Self::IotHub { connection_string, devices } => {
                let key = if identity.device == connection_string.device_id {
                    connection_string.shared_access_key.clone()
                } else {
                    key(devices, &identity.device).ok_or_else(|| CredentialsError::NoKey(identity.clone()))?
                };
                Ok(Login::sas(Version::V4, connection_string.hub_name(), identity, &key))
            }
        }
    }

    /// How long a connection may last.
    pub(super) fn lasts(&self) -> Option<Duration> {
        match self {
            Self::Broker { .. } => None,
            Self::IotHub { .. } => Some(TOKEN_USED_FOR),
        }
    }

    /// Who sent a queued message, and the message as this upstream gets it.
    ///
    /// # Errors
    /// Why it never can.
    pub(super) fn prepare(
        &self,
        gateway: &DeviceId,
        queue: &Queue,
        record: &Record,
    ) -> Result<(Identity, Prepared), Reason> {
        let unreadable = || Reason::because("its record cannot be read by this version");
        let (topic, payload) = record::decode(&record.payload).ok_or_else(unreadable)?;
        let Ok(Publish::Telemetry { from, mut bag }) = parse_publish(topic) else { return Err(unreadable()) };
        let name = QueueName { id: queue.log.id(), epoch: record.epoch };
        let place = (name.to_string(), record.sequence);
        let connection = self.connection(gateway, &from);
        let sender = sender(&from);
        match self {
            Self::IotHub { .. } => {
                // What whoever reads the hub can know a repetition by.
                if bag.get(system::MESSAGE_ID).is_none() {
                    bag.set(system::MESSAGE_ID, format!("{}-{}", place.0, place.1));
                }
                if connection != from {
                    bag.set(DEVICE_PROPERTY, from.device.as_str());
                    if let Some(module) = &from.module {
                        bag.set(MODULE_PROPERTY, module.as_str());
                    }
                }
                let prepared = Prepared {
                    sender,
                    topic: topics::telemetry(&connection, &bag),
                    payload,
                    properties: None,
                };
                Ok((connection, bounded(prepared)?))
            }
            Self::Broker { topic, properties, .. } => {
                let mut topic = topic
                    .topic(gateway, &from, &bag)
                    .map_err(|error| Reason::because(format!("[upstream] topic: {error}")))?;
                bag.set(system::CONNECTION_DEVICE_ID, from.device.as_str());
                if let Some(module) = &from.module {
                    bag.set(system::CONNECTION_MODULE_ID, module.as_str());
                }
                bag.set(system::LINESIDE_QUEUE, place.0);
                bag.set(system::LINESIDE_SEQUENCE, place.1.to_string());
                if let Some(enqueued_ms) = corrected_ms(record.enqueued_ms) {
                    bag.set(system::LINESIDE_ENQUEUED_MS, enqueued_ms.to_string());
                }
                let properties = match properties {
                    Properties::None => None,
                    Properties::Topic => {
                        topic = format!("{topic}/{bag}");
                        None
                    }
                    Properties::User => Some(Box::new(user_properties(&bag))),
                };
                Ok((connection, bounded(Prepared { sender, topic, payload, properties })?))
            }
        }
    }
}

fn sender(from: &Identity) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    from.hash(&mut hasher);
    hasher.finish()
}

fn bounded(prepared: Prepared) -> Result<Prepared, Reason> {
    if prepared.topic.len() > usize::from(u16::MAX) {
        Err(Reason::because(format!("its topic would be {} bytes; 65,535 are allowed", prepared.topic.len())))
    } else {
        Ok(prepared)
    }
}

fn key(devices: &Devices, device: &DeviceId) -> Option<Vec<u8>> {
    match devices.get(device)?.attestation {
        Attestation::Keys(keys) => keys.into_iter().next(),
        _ => None,
    }
}

/// The bag in an MQTT 5 packet: what has a property of its own there, and the rest by its name in the bag.
fn user_properties(bag: &PropertyBag) -> PublishProperties {
    let own = [system::CONTENT_TYPE, system::CORRELATION_ID];
    PublishProperties {
        content_type: bag.get(system::CONTENT_TYPE).map(Text::from),
        correlation_data: bag.get(system::CORRELATION_ID).map(|id| Bytes::from(id.to_owned())),
        user_properties: bag
            .iter()
            .filter(|(key, _)| !own.contains(key))
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect(),
        ..PublishProperties::default()
    }
}
