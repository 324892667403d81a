//! What happens to a cloud-to-device message: whether it may be sent, whether it has ended while it waited, and the
//! properties under which the device receives it.

use schemas::bag::{PropertyBag, system};
use schemas::cloud_message::{BYTES_MAX, CloudMessage, DELIVERIES_MAX, End, TIME_TO_LIVE_MS_MAX};
use schemas::names::DeviceId;
use schemas::timestamp::rfc3339;

use crate::clock::lifetime::LifetimeState;

/// The longest property bag as written in a topic. IoT Hub bounds message and properties together only, at 64 KB, which
/// is more than the topic of an MQTT packet holds; this is what a topic can hold beside the longest device id.
const BAG_BYTES_MAX: usize = 65_535 - 512;
/// A message id or correlation id (IoT Hub: up to 128 characters).
const ID_CHARS_MAX: usize = 128;

/// Why a message may not be sent. The text names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Larger than a message may be.
    #[error("the message has {bytes} bytes with its properties; {BYTES_MAX} are allowed")]
    TooLarge {
        /// Body, names and values.
        bytes: usize,
    },
    /// The properties do not fit in a topic.
    #[error("properties: they take {bytes} bytes percent-encoded; a topic can hold {BAG_BYTES_MAX}")]
    BagTooLarge {
        /// As they would stand in the topic.
        bytes: usize,
    },
    /// A field is wrong.
    #[error("{field}: {why}")]
    Field {
        field: &'static str,
        /// What was found and what is allowed.
        why: String,
    },
}

/// Checks a message before it is queued.
///
/// # Errors
/// [`MessageError`].
pub fn check(message: &CloudMessage, device: &DeviceId) -> Result<(), MessageError> {
    let field = |field, why| Err(MessageError::Field { field, why });
    for (name, id) in
        [("messageId", Some(&message.message_id)), ("correlationId", message.correlation_id.as_ref())]
    {
        let length = id.map_or(1, |id| id.chars().count());
        if length == 0 || length > ID_CHARS_MAX {
            return field(name, format!("found {length} characters; write 1 to {ID_CHARS_MAX}"));
        }
    }
    if let Some(key) = message
        .properties
        .keys()
        .find(|key| key.is_empty() || key.starts_with('$') || key.to_ascii_lowercase().starts_with("iothub-"))
    {
        return field(
            "properties",
            format!("found `{key}`; names that begin with $ or iothub- are the system's"),
        );
    }
    let (enqueued_ms, expires_ms) = (message.enqueued_ms, message.expires_ms);
    if expires_ms <= enqueued_ms || expires_ms - enqueued_ms > TIME_TO_LIVE_MS_MAX {
        let why = format!(
            "found {}; it must lie ahead, at most {} hours",
            rfc3339(expires_ms),
            TIME_TO_LIVE_MS_MAX / 3_600_000
        );
        return field("expiryTime", why);
    }
    let bytes = message.size_bytes();
    if bytes > BYTES_MAX {
        return Err(MessageError::TooLarge { bytes });
    }
    let bytes = bag(message, device).to_string().len();
    if bytes > BAG_BYTES_MAX { Err(MessageError::BagTooLarge { bytes }) } else { Ok(()) }
}

/// The end of a message that waits, when it has come; `attempts` counts how often the device was given it in vain.
pub fn end(state: LifetimeState, attempts: u32) -> Option<End> {
    if state == LifetimeState::Over {
        Some(End::Expired)
    } else if attempts >= DELIVERIES_MAX {
        Some(End::DeliveryCountExceeded)
    } else {
        None
    }
}

/// The properties under which a device receives a message, in IoT Hub's order: the system's, then the application's.
pub fn bag(message: &CloudMessage, device: &DeviceId) -> PropertyBag {
    let mut bag = PropertyBag::new();
    bag.set(system::MESSAGE_ID, message.message_id.as_str());
    bag.set(system::TO, format!("/devices/{device}/messages/devicebound"));
    bag.set(system::EXPIRY_TIME, rfc3339(message.expires_ms));
    for (key, value) in [
        (system::CORRELATION_ID, &message.correlation_id),
        (system::USER_ID, &message.user_id),
        (system::CONTENT_TYPE, &message.content_type),
        (system::CONTENT_ENCODING, &message.content_encoding),
    ] {
        if let Some(value) = value {
            bag.set(key, value.as_str());
        }
    }
    bag.set(system::ACK, message.ack.as_str());
    for (key, value) in &message.properties {
        bag.set(key, value.as_str());
    }
    bag
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemas::cloud_message::Ack;

    use super::*;

    const NOW: u64 = 1_795_450_312_250;

    fn message() -> CloudMessage {
        CloudMessage {
            message_id: "m 1".into(),
            correlation_id: Some("c".into()),
            user_id: None,
            content_type: Some("application/json".into()),
            content_encoding: Some("utf-8".into()),
            ack: Ack::Full,
            properties: BTreeMap::from([("line".to_owned(), "4/a".to_owned())]),
            enqueued_ms: NOW,
            expires_ms: NOW + 1000,
            body: b"{}".to_vec(),
        }
    }

    #[test]
    fn the_bag_is_what_azures_sdks_read() {
        assert_eq!(
            bag(&message(), &"press-1".parse().unwrap()).to_string(),
            "%24.mid=m%201&%24.to=%2Fdevices%2Fpress-1%2Fmessages%2Fdevicebound&%24.exp=2026-11-23T16%3A11%3A53.250Z\
             &%24.cid=c&%24.ct=application%2Fjson&%24.ce=utf-8&iothub-ack=full&line=4%2Fa"
        );
    }

    #[test]
    fn a_message_beyond_a_bound_is_refused_by_the_field() {
        let refused = |change: fn(&mut CloudMessage)| {
            let mut message = message();
            change(&mut message);
            check(&message, &"d".parse().unwrap()).unwrap_err().to_string()
        };
        assert_eq!(check(&message(), &"d".parse().unwrap()), Ok(()));
        assert!(refused(|m| m.body = vec![0; BYTES_MAX]).contains("65536 are allowed"));
        assert!(refused(|m| m.message_id = "x".repeat(129)).starts_with("messageId: found 129"));
        assert!(refused(|m| m.correlation_id = Some(String::new())).starts_with("correlationId: found 0"));
        assert!(
            refused(|m| drop(m.properties.insert("$.x".into(), String::new()))).starts_with("properties")
        );
        assert!(refused(|m| m.expires_ms = m.enqueued_ms).starts_with("expiryTime"));
        assert!(refused(|m| m.expires_ms += TIME_TO_LIVE_MS_MAX).contains("at most 48 hours"));
        // Three bytes in the topic for each of these.
        assert!(
            refused(|m| drop(m.properties.insert("k".into(), "/".repeat(30_000))))
                .contains("percent-encoded")
        );
    }

    #[test]
    fn a_message_that_waits_ends_by_its_time_or_by_the_tenth_try() {
        assert_eq!(end(LifetimeState::Valid, 9), None);
        assert_eq!(end(LifetimeState::Unproven, 9), None, "it is held");
        assert_eq!(end(LifetimeState::Valid, 10), Some(End::DeliveryCountExceeded));
        assert_eq!(end(LifetimeState::Over, 10), Some(End::Expired));
    }
}
