//! A message as routes see it: who sent it, what it is, and what conditions look up in it.

use std::cell::OnceCell;

use schemas::bag::{PropertyBag, system};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Twin;
use serde_json::{Map, Value as Json};

use crate::condition::body::{self, BodyError};
use crate::condition::{Subject, TwinSection};

/// How a topic is called in the property bag of a routed free message.
pub const TOPIC_PROPERTY: &str = "mqtt-topic";
/// The message schema of a twin change.
pub const TWIN_CHANGE_SCHEMA: &str = "twinChangeNotification";

/// What a message is.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// Telemetry of a leaf device or a module.
    Telemetry,
    /// The reported properties of a device or module changed.
    TwinChange { patch: &'a Json },
    /// A message on a free topic.
    Free { topic: &'a str },
}

/// A message that is to be routed.
pub struct Message<'a> {
    pub(super) kind: Kind<'a>,
    from: &'a Identity,
    gateway: &'a DeviceId,
    bag: &'a PropertyBag,
    body: &'a [u8],
    twin_of: &'a dyn Fn(&Identity) -> Twin,
    // Expensive, and few routes need it: parsed when the first one reads it.
    json: OnceCell<Result<Json, BodyError>>,
    twin: OnceCell<Twin>,
}

/// The names of system properties in conditions and on the wire (IoT Edge's table).
const SYSTEM: [(&str, &str); 16] = [
    ("messageId", system::MESSAGE_ID),
    ("correlationId", system::CORRELATION_ID),
    ("cid", system::CORRELATION_ID),
    ("userId", "$.uid"),
    ("contentType", system::CONTENT_TYPE),
    ("contentEncoding", system::CONTENT_ENCODING),
    ("outputName", system::OUTPUT_NAME),
    ("to", "$.to"),
    ("absolute-expiry-time", "$.exp"),
    ("creationTime", system::CREATION_TIME),
    ("messageSchema", system::MESSAGE_SCHEMA),
    ("dt-subject", system::COMPONENT),
    ("dt-dataschema", "$.ifid"),
    ("iothub-interface-id", "$.ifid"),
    ("ack", "ack"),
    ("operation", "iothub-operation"),
];

impl<'a> Message<'a> {
    /// A message of `from` through `gateway`. `twin_of` is called when a condition reads the sender's twin.
    pub fn new(
        kind: Kind<'a>,
        from: &'a Identity,
        gateway: &'a DeviceId,
        bag: &'a PropertyBag,
        body: &'a [u8],
        twin_of: &'a dyn Fn(&Identity) -> Twin,
    ) -> Self {
        Self { kind, from, gateway, bag, body, twin_of, json: OnceCell::new(), twin: OnceCell::new() }
    }

    /// The module of this gateway that sent it. A module of a leaf device is no module of this gateway: to the routes it
    /// is a leaf device.
    pub(super) fn module(&self) -> Option<&str> {
        self.from.module.as_ref().filter(|_| self.from.device == *self.gateway).map(ModuleId::as_str)
    }

    /// The output that it names.
    pub(super) fn output(&self) -> Option<&str> {
        self.bag.get(system::OUTPUT_NAME).filter(|output| !output.is_empty())
    }

    /// Whether its body was read as JSON: whether a route looked into it.
    #[cfg(test)]
    pub(super) fn is_read(&self) -> bool {
        self.json.get().is_some()
    }

    fn twin(&self) -> &Twin {
        self.twin.get_or_init(|| (self.twin_of)(self.from))
    }

    fn sender(&self) -> (&str, Option<&str>) {
        (self.from.device.as_str(), self.from.module.as_ref().map(ModuleId::as_str))
    }
}

/// How a system property is called on the wire, by its name in conditions or its name on the wire.
pub fn system_on_the_wire(name: &str) -> Option<&'static str> {
    let is = |(known, wire): &&(&str, &str)| known.eq_ignore_ascii_case(name) || *wire == name;
    SYSTEM.iter().find(is).map(|(_, wire)| *wire)
}

/// Whether a key of the bag is one of the system's.
fn is_system(key: &str) -> bool {
    key.starts_with("$.") || key == "ack" || key == "iothub-operation"
}

impl Subject for Message<'_> {
    fn property(&self, name: &str) -> Option<&str> {
        let found = self.bag.iter().find(|(key, _)| key.eq_ignore_ascii_case(name) && !is_system(key));
        found.map(|(_, value)| value.unwrap_or(""))
    }

    fn system(&self, name: &str) -> Option<&str> {
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        let (device, module) = self.sender();
        match self.kind {
            // A twin change comes from the hub; who changed it has names of its own (edgeHub's).
            Kind::TwinChange { .. } if is("connectionDeviceId") => return Some(self.gateway.as_str()),
            Kind::TwinChange { .. } if is("connectionModuleId") => return Some("$edgeHub"),
            Kind::TwinChange { .. } if is("rpSenderDeviceId") => return Some(device),
            Kind::TwinChange { .. } if is("rpSenderModuleId") => return module,
            _ if is("connectionDeviceId") => return Some(device),
            _ if is("connectionModuleId") => return module,
            _ if is("edgeHubOriginInterface") => {
                return Some(if self.module().is_some() { "internal" } else { "downstream" });
            }
            Kind::Free { topic } if is("topic") => return Some(topic),
            _ => {}
        }
        if let Some(wire) = name.strip_prefix('.') {
            return self
                .bag
                .iter()
                .find(|(key, _)| key.strip_prefix("$.") == Some(wire))
                .map(|(_, v)| v.unwrap_or(""));
        }
        let (_, wire) = SYSTEM.iter().find(|(known, _)| is(known))?;
        self.bag.get(wire)
    }

    fn body(&self) -> Result<&Json, &BodyError> {
        let read = || match self.kind {
            // Plain MQTT has no way to say what a body is.
            Kind::Free { .. } => body::parse(self.body),
            _ => {
                let (content_type, encoding) =
                    (self.bag.get(system::CONTENT_TYPE), self.bag.get(system::CONTENT_ENCODING));
                body::read(content_type, encoding, self.body)
            }
        };
        match self.kind {
            Kind::TwinChange { patch } => Ok(patch),
            _ => self.json.get_or_init(read).as_ref(),
        }
    }

    fn twin(&self, section: TwinSection) -> Option<&Map<String, Json>> {
        match section {
            TwinSection::Desired => Some(&self.twin().desired.properties),
            TwinSection::Reported => Some(&self.twin().reported.properties),
            // central keeps them to itself.
            TwinSection::Tags => None,
        }
    }

    fn twin_change(&self) -> Option<(TwinSection, &Json)> {
        match self.kind {
            Kind::TwinChange { patch } => Some((TwinSection::Reported, patch)),
            _ => None,
        }
    }
}
