//! A message as an operator writes it, to see what routes make of it.

use schemas::bag::{PropertyBag, system};
use schemas::names::{DeviceId, Identity, NameError};
use schemas::twin::Twin;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Kind, Message, RouteResult, RouteTable, system_on_the_wire};

/// A message as it is written by hand.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct SampleMessage {
    /// `device`, or `device/module`.
    from: String,
    /// The output of a module.
    output: Option<String>,
    /// A free topic: then it is no telemetry.
    topic: Option<String>,
    /// A patch of reported properties: then it is a twin change.
    twin_change: Option<Map<String, Value>>,
    /// Application properties; numbers and booleans become text, as on the wire.
    #[serde(default)]
    properties: Map<String, Value>,
    /// System properties, by their names in conditions or on the wire.
    #[serde(default)]
    system_properties: Map<String, Value>,
    /// A text is the body as it is; anything else is its JSON.
    #[serde(default)]
    body: Value,
    #[serde(default)]
    twin: SampleTwin,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct SampleTwin {
    #[serde(default)]
    desired: Map<String, Value>,
    #[serde(default)]
    reported: Map<String, Value>,
}

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("from")]
    From(#[source] NameError),
    #[error("{list}.{name}: write a text")]
    NoText { list: &'static str, name: String },
    #[error("systemProperties.{0}: there is no such property that a sender writes")]
    Property(String),
    #[error("topic, twinChange: write one of them")]
    TopicAndTwinChange,
}

impl SampleMessage {
    /// What each route makes of the message, in the order in which they are evaluated. Without a gateway, a module is one of its own
    /// device.
    ///
    /// # Errors
    /// [`SampleError`].
    pub fn explain(
        &self,
        table: &RouteTable,
        gateway: Option<DeviceId>,
    ) -> Result<Vec<RouteResult>, SampleError> {
        let from: Identity = self.from.parse().map_err(SampleError::From)?;
        let gateway = gateway.unwrap_or_else(|| from.device.clone());
        let mut bag = PropertyBag::new();
        for (name, value) in &self.properties {
            bag.set(
                name,
                text_of(value)
                    .ok_or_else(|| SampleError::NoText { list: "properties", name: name.clone() })?,
            );
        }
        for (name, value) in &self.system_properties {
            let wire = system_on_the_wire(name).ok_or_else(|| SampleError::Property(name.clone()))?;
            bag.set(
                wire,
                text_of(value)
                    .ok_or_else(|| SampleError::NoText { list: "systemProperties", name: name.clone() })?,
            );
        }
        if let Some(output) = &self.output {
            bag.set(system::OUTPUT_NAME, output);
        }
        let body = match &self.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        let patch = self.twin_change.clone().map(Value::Object);
        let kind = match (&self.topic, &patch) {
            (Some(_), Some(_)) => return Err(SampleError::TopicAndTwinChange),
            (Some(topic), None) => Kind::Free { topic },
            (None, Some(patch)) => Kind::TwinChange { patch },
            (None, None) => Kind::Telemetry,
        };
        let twin_of = |_: &Identity| {
            let mut twin = Twin::default();
            twin.desired.properties.clone_from(&self.twin.desired);
            twin.reported.properties.clone_from(&self.twin.reported);
            twin
        };
        Ok(table.explain(&Message::new(kind, &from, &gateway, &bag, body.as_bytes(), &twin_of)))
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
