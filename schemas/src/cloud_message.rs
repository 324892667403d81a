//! A cloud-to-device message: what an operator or a script sends to a device, kept until the device has it or never will.
//! Source: IoT Hub "Send cloud-to-device messages from an IoT hub", its limits and its feedback records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The largest message: its body, and the names and values of its properties (IoT Hub: 64 KB).
pub const BYTES_MAX: usize = 64 * 1024;
/// Messages that may wait for one device (IoT Hub: 50).
pub const WAITING_MAX: usize = 50;
/// How long a message waits when its sender says nothing (IoT Hub's `defaultTtlAsIso8601`: one hour).
pub const TIME_TO_LIVE_MS: u64 = 60 * 60 * 1000;
/// How long a message may wait (IoT Hub: two days).
pub const TIME_TO_LIVE_MS_MAX: u64 = 48 * TIME_TO_LIVE_MS;
/// How often a message is given to a device that does not acknowledge it (IoT Hub's `maxDeliveryCount`: 10).
pub const DELIVERIES_MAX: u32 = 10;

/// A message on its way to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudMessage {
    /// The sender's name for it, or one made for it.
    pub message_id: String,
    /// Which message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// For example `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// For example `utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Which feedback the sender requests.
    #[serde(default)]
    pub ack: Ack,
    /// Application properties.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// When central accepted it, in milliseconds since the Unix epoch.
    pub enqueued_ms: u64,
    /// When it is of no use any more, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// As sent; base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub body: Vec<u8>,
}

impl CloudMessage {
    /// What counts against [`BYTES_MAX`].
    pub fn size_bytes(&self) -> usize {
        let texts = [&self.correlation_id, &self.user_id, &self.content_type, &self.content_encoding];
        let system: usize = texts.into_iter().flatten().map(String::len).sum();
        let properties: usize = self.properties.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.body.len() + self.message_id.len() + system + properties
    }
}

/// Which feedback about a message its sender requests (IoT Hub's `iothub-ack`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ack {
    /// The sender gets no feedback.
    #[default]
    None,
    /// That the device has it.
    Positive,
    /// That the device will not have it.
    Negative,
    /// Either.
    Full,
}

impl Ack {
    /// As written in a property bag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Full => "full",
        }
    }

    /// Whether the sender requests feedback about such an end.
    pub fn requests(self, end: &End) -> bool {
        match self {
            Self::None => false,
            Self::Positive => *end == End::Delivered,
            Self::Negative => *end != End::Delivered,
            Self::Full => true,
        }
    }
}

/// How a message ended. Every message ends in one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "camelCase")]
pub enum End {
    /// The device acknowledged it.
    Delivered,
    /// Its time was over before the device had it.
    Expired,
    /// The device was given it [`DELIVERIES_MAX`] times and never acknowledged it.
    DeliveryCountExceeded,
    /// It could not be kept or delivered.
    Rejected {
        /// Why, for people.
        reason: String,
    },
    /// An operator took it back.
    Purged,
}

impl End {
    /// IoT Hub's `statusCode` of a feedback record.
    pub fn feedback_code(&self) -> &'static str {
        match self {
            Self::Delivered => "Success",
            Self::Expired => "Expired",
            Self::DeliveryCountExceeded => "DeliveryCountExceeded",
            Self::Rejected { .. } => "Rejected",
            Self::Purged => "Purged",
        }
    }
}

/// The end of a message as a gateway tells central.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settlement {
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
    /// When, in milliseconds since the Unix epoch, by the gateway's clock.
    pub at_ms: u64,
}

mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_sent_the_feedback_that_it_requested() {
        let ends = [End::Delivered, End::Expired, End::Purged];
        let settled = |ack: Ack| ends.iter().filter(|end| ack.requests(end)).count();
        assert_eq!([Ack::None, Ack::Positive, Ack::Negative, Ack::Full].map(settled), [0, 1, 2, 3]);
    }

    #[test]
    fn a_message_and_its_end_read_back_as_they_are_written() {
        let message = CloudMessage {
            message_id: "m-1".into(),
            correlation_id: None,
            user_id: None,
            content_type: Some("application/json".into()),
            content_encoding: None,
            ack: Ack::Full,
            properties: BTreeMap::from([("line".to_owned(), "4".to_owned())]),
            enqueued_ms: 1,
            expires_ms: 2,
            body: vec![0, 255],
        };
        let json = serde_json::to_string(&message).unwrap();
        assert!(json.contains(r#""body":"AP8=""#) && !json.contains("userId"), "{json}");
        assert_eq!(serde_json::from_str::<CloudMessage>(&json).unwrap(), message);
        assert_eq!(message.size_bytes(), 2 + 3 + 16 + 5);
        let settled = Settlement { end: End::Rejected { reason: "no room".into() }, at_ms: 7 };
        let json = serde_json::to_string(&settled).unwrap();
        assert_eq!(json, r#"{"end":"rejected","reason":"no room","atMs":7}"#);
        assert_eq!(serde_json::from_str::<Settlement>(&json).unwrap(), settled);
    }
}
