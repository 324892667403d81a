//! The property bag at the end of a telemetry topic: `k=v&k2=v2`, percent-encoded; keys that begin with `$.` are the
//! system's. Source: IoT Hub MQTT support ("Send device-to-cloud messages"), and the SDKs on the wire: values are
//! percent-encoded once, a plus sign is a plus sign, a key may stand without a value.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Characters that stay as they are: RFC 3986 "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// System properties by their names on the wire (IoT Hub message system properties).
pub mod system {
    /// Message id.
    pub const MESSAGE_ID: &str = "$.mid";
    /// Correlation id.
    pub const CORRELATION_ID: &str = "$.cid";
    /// Content type, for example `application/json`.
    pub const CONTENT_TYPE: &str = "$.ct";
    /// Content encoding, for example `utf-8`.
    pub const CONTENT_ENCODING: &str = "$.ce";
    /// User id.
    pub const USER_ID: &str = "$.uid";
    /// Where a message goes to, as a path of IoT Hub.
    pub const TO: &str = "$.to";
    /// When a message is of no use any more, RFC 3339.
    pub const EXPIRY_TIME: &str = "$.exp";
    /// Which ends of a cloud-to-device message its sender wants to be told; no `$.` before it.
    pub const ACK: &str = "iothub-ack";
    /// Output name of a module's message.
    pub const OUTPUT_NAME: &str = "$.on";
    /// What kind of message it is, for example `twinChangeNotification`.
    pub const MESSAGE_SCHEMA: &str = "$.schema";
    /// Component of the device's model that sent the message.
    pub const COMPONENT: &str = "$.sub";
    /// Creation time, RFC 3339.
    pub const CREATION_TIME: &str = "$.ctime";
    /// Device that sent the message (set by the gateway for module inputs).
    pub const CONNECTION_DEVICE_ID: &str = "$.cdid";
    /// Module that sent the message (set by the gateway for module inputs).
    pub const CONNECTION_MODULE_ID: &str = "$.cmid";
    /// Lineside's own: the id of the gateway's queue that a forwarded message stood in.
    pub const LINESIDE_QUEUE: &str = "$.ls-queue";
    /// Lineside's own: the sequence of a forwarded message in that queue. With the queue, what makes a resend known.
    pub const LINESIDE_SEQUENCE: &str = "$.ls-seq";
    /// Lineside's own: when the gateway accepted a forwarded message, in milliseconds since the Unix epoch.
    pub const LINESIDE_ENQUEUED_MS: &str = "$.ls-ms";
}

/// An ordered property bag. `Display` writes it as it stands in a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PropertyBag(Vec<(String, Option<String>)>);

/// Why a bag could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("property bag: `{found}` is not percent-encoded UTF-8")]
pub struct BagError {
    /// The part that could not be decoded.
    pub found: String,
}

impl PropertyBag {
    /// A bag with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the last part of a topic. A leading `?` and one trailing `/` (Node's SDK adds it to outputs) are taken off.
    ///
    /// # Errors
    /// [`BagError`] when a key or a value does not decode to UTF-8.
    pub fn parse(text: &str) -> Result<Self, BagError> {
        let text = text.strip_prefix('?').unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
            Ok(decoded) => Ok(decoded.into_owned()),
            Err(_) => Err(BagError { found: part.to_owned() }),
        };
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            pairs.push(match pair.split_once('=') {
                Some((key, value)) => (decode(key)?, Some(decode(value)?)),
                None => (decode(pair)?, None),
            });
        }
        Ok(Self(pairs))
    }

    /// The value of the first pair with this key; an empty text for a key without a value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_deref().unwrap_or(""))
    }

    /// Sets a pair: in place where the key stands, at the end otherwise.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        let value = Some(value.into());
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes every pair with this key out and gives the first value.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let found = self.get(key).map(str::to_owned);
        self.0.retain(|(k, _)| k != key);
        found
    }

    /// The pairs in their order; a key without a value gives `None`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_deref()))
    }

    /// The same pairs, those of the system before all others: Azure's Java SDK reads a message's properties from the first
    /// of the system's on.
    #[must_use]
    pub fn system_first(self) -> Self {
        let (mut first, others): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|(key, _)| key.starts_with("$."));
        first.extend(others);
        Self(first)
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PropertyBag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("&")?;
            }
            write!(f, "{}", utf8_percent_encode(key, ENCODED))?;
            if let Some(value) = value {
                write!(f, "={}", utf8_percent_encode(value, ENCODED))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_azure_sdks_send_is_read() {
        let bag = PropertyBag::parse("%24.on=out1&%24.ct=application%2Fjson&a=b%20c&plus=1+1&empty=&bare/")
            .unwrap();
        assert_eq!(bag.get(system::OUTPUT_NAME), Some("out1"));
        assert_eq!(bag.get(system::CONTENT_TYPE), Some("application/json"));
        assert_eq!(bag.get("a"), Some("b c"));
        assert_eq!(bag.get("plus"), Some("1+1"));
        assert_eq!(bag.get("empty"), Some(""));
        assert_eq!(bag.iter().last(), Some(("bare", None)));
        assert!(PropertyBag::parse("").unwrap().is_empty());
        assert_eq!(PropertyBag::parse("?k=v").unwrap().get("k"), Some("v"));
    }

    #[test]
    fn the_systems_pairs_go_before_all_others_and_keep_their_order() {
        let bag = PropertyBag::parse("a=1&%24.on=o&b=2&%24.ct=c&iothub-ack=full").unwrap();
        assert_eq!(bag.system_first().to_string(), "%24.on=o&%24.ct=c&a=1&b=2&iothub-ack=full");
    }

    #[test]
    fn a_bag_that_is_not_utf8_is_refused_by_its_part() {
        assert_eq!(PropertyBag::parse("a=%ff").unwrap_err(), BagError { found: "%ff".into() });
    }

    proptest! {
        #[test]
        fn a_bag_reads_back_as_it_prints(pairs in proptest::collection::vec(("\\PC{1,12}", proptest::option::of("\\PC{0,12}")), 0..6)) {
            let bag = PropertyBag(pairs);
            prop_assert_eq!(PropertyBag::parse(&bag.to_string()).unwrap(), bag);
        }
    }
}
