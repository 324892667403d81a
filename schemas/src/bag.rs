//! The property bag at the end of a telemetry topic: `k=v&k2=v2`, percent-encoded; keys that begin with `$.` are the
//! system's. Source: IoT Hub MQTT support ("Send device-to-cloud messages"), and the SDKs on the wire: values are
//! percent-encoded once, a plus sign is a plus sign, a key may stand without a value.
//!
//! The gateway, central, modules and upstreams all read bags here, so they read the same: of a key that occurs twice the last
//! value counts, and what does not decode to a text stays as it is written.

use std::fmt;

use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode_byte, utf8_percent_encode,
};

/// Characters that stay as they are: RFC 3986 "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// System properties by their names on the wire (IoT Hub message system properties).
pub mod system {
    /// Chosen by the sender, to recognise the message by.
    pub const MESSAGE_ID: &str = "$.mid";
    /// Names the request that the message answers.
    pub const CORRELATION_ID: &str = "$.cid";
    /// Content type, for example `application/json`.
    pub const CONTENT_TYPE: &str = "$.ct";
    /// Content encoding, for example `utf-8`.
    pub const CONTENT_ENCODING: &str = "$.ce";
    /// Who caused the message, as its sender names them.
    pub const USER_ID: &str = "$.uid";
    /// Where a message goes to, as a path of IoT Hub.
    pub const TO: &str = "$.to";
    /// When a message is of no use any more, RFC 3339.
    pub const EXPIRY_TIME: &str = "$.exp";
    /// Which ends of a cloud-to-device message its sender requests feedback about; no `$.` before it.
    pub const ACK: &str = "iothub-ack";
    /// Output name of a module's message.
    pub const OUTPUT_NAME: &str = "$.on";
    /// What kind of message it is, for example `twinChangeNotification`.
    pub const MESSAGE_SCHEMA: &str = "$.schema";
    /// Component of the device's model that sent the message.
    pub const COMPONENT: &str = "$.sub";
    /// Creation time as IoT Central's devices give it: an application property, RFC 3339.
    pub const CREATION_TIME_UTC: &str = "iothub-creation-time-utc";
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
    /// Lineside's own: which of the devices or modules of its name sent a forwarded message.
    pub const LINESIDE_GENERATION: &str = "$.ls-g";
    /// Lineside's own: when the gateway accepted a forwarded message, in milliseconds since the Unix epoch.
    pub const LINESIDE_ENQUEUED_MS: &str = "$.ls-ms";
}

/// Bytes of a device-to-cloud message at most: of its body, and of the names and values of its properties (IoT Hub quotas; edgeHub
/// refuses more at its listener). What is longer would be refused by upstream after it was acknowledged.
pub const MESSAGE_BYTES_MAX: usize = 262_144;

/// An ordered property bag. `Display` writes it as in a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PropertyBag(Vec<(String, Option<String>)>);

impl PropertyBag {
    /// A bag with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the last part of a topic. A leading `?` is taken off, and so is the `/` that Azure's SDKs for C# and Node add behind a
    /// bag: a trailing slash that is the only one, since they encode those of keys and values.
    ///
    /// Every text is a bag. Percent-encoded bytes that are no UTF-8, and `%00`, stay as they are written, as .NET's
    /// `Uri.UnescapeDataString` leaves them. Of a key that occurs twice, the last value counts.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('?').unwrap_or(text);
        match text.strip_suffix('/') {
            Some("") => Self::new(),
            Some(shorter) if !shorter.contains('/') => Self::of_pairs(shorter),
            _ => Self::of_pairs(text),
        }
    }

    fn of_pairs(text: &str) -> Self {
        let mut bag = Self::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((key, value)) => bag.put(&decoded(key), Some(decoded(value))),
                None => bag.put(&decoded(pair), None),
            }
        }
        bag
    }

    /// The value of the pair with this key; an empty text for a key without a value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_deref().unwrap_or(""))
    }

    /// Sets a pair: in place if the key exists, at the end otherwise.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, Some(value.into()));
    }

    fn put(&mut self, key: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes the pair with this key out and gives its value.
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

    /// Bytes of a message with this bag, as [`MESSAGE_BYTES_MAX`] counts them.
    pub fn message_bytes(&self, body: &[u8]) -> usize {
        let pairs = self.0.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, String::len));
        body.len() + pairs.sum::<usize>()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Percent-decoded, but for what is no text: that stays as it is written.
fn decoded(part: &str) -> String {
    if !part.contains(['%', '\0']) {
        return part.to_owned();
    }
    let bytes: Vec<u8> = percent_decode_str(part).collect();
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('\0', "%00"));
        for byte in chunk.invalid() {
            text.push_str(percent_encode_byte(*byte));
        }
    }
    text
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
        let bag = PropertyBag::parse("%24.on=out1&%24.ct=application%2Fjson&a=b%20c&plus=1+1&empty=&bare/");
        assert_eq!(bag.get(system::OUTPUT_NAME), Some("out1"));
        assert_eq!(bag.get(system::CONTENT_TYPE), Some("application/json"));
        assert_eq!(bag.get("a"), Some("b c"));
        assert_eq!(bag.get("plus"), Some("1+1"));
        assert_eq!(bag.get("empty"), Some(""));
        assert_eq!(bag.iter().last(), Some(("bare", None)));
        assert!(PropertyBag::parse("").is_empty());
        assert_eq!(PropertyBag::parse("?k=v").get("k"), Some("v"));
    }

    #[test]
    fn the_systems_pairs_go_before_all_others_and_keep_their_order() {
        let bag = PropertyBag::parse("a=1&%24.on=o&b=2&%24.ct=c&iothub-ack=full");
        assert_eq!(bag.system_first().to_string(), "%24.on=o&%24.ct=c&a=1&b=2&iothub-ack=full");
    }

    #[test]
    fn bytes_that_are_no_text_stay_as_they_are_written() {
        let bag = PropertyBag::parse("a=%ff&b=caf%E9%20au%20lait&c=%C3%A9%00%c3&d=100%&%ff=e&f=\0");
        let values: Vec<_> = bag.iter().collect();
        let expected = [
            ("a", "%FF"),
            ("b", "caf%E9 au lait"),
            ("c", "é%00%C3"),
            ("d", "100%"),
            ("%FF", "e"),
            ("f", "%00"),
        ];
        assert_eq!(values, expected.map(|(key, value)| (key, Some(value))));
        assert_eq!(PropertyBag::parse(&bag.to_string()), bag);
    }

    #[test]
    fn of_a_key_that_occurs_twice_the_last_value_counts() {
        let bag = PropertyBag::parse("a=1&b=2&a=3&%61=4&c");
        assert_eq!(bag.to_string(), "a=4&b=2&c");
        assert_eq!(bag.get("a"), Some("4"));
    }

    #[test]
    fn only_the_slash_that_an_sdk_adds_behind_a_bag_is_taken_off() {
        for (text, key, value) in [
            ("p=/a/b/", "p", "/a/b/"),
            ("p=a%2Fb/", "p", "a/b"),
            ("p=a/&%24.on=out", "p", "a/"),
            ("%24.on=out/", "$.on", "out"),
            ("$.on=out&p=%2Fa%2F/", "p", "/a/"),
            ("$.on=out&p=/a/", "p", "/a/"),
        ] {
            assert_eq!(PropertyBag::parse(text).get(key), Some(value), "{text}");
        }
        assert!(PropertyBag::parse("/").is_empty());
    }

    proptest! {
        #[test]
        fn a_bag_reads_back_as_it_prints(pairs in proptest::collection::vec(("\\PC{1,12}", proptest::option::of("\\PC{0,12}")), 0..6)) {
            let mut bag = PropertyBag::new();
            pairs.into_iter().for_each(|(key, value)| bag.put(&key, value));
            prop_assert_eq!(PropertyBag::parse(&bag.to_string()), bag);
        }

        #[test]
        fn every_topic_end_is_a_bag_that_is_forwarded_without_a_change(
            text in "([a-z$./=&?%]|%[0-9a-fA-F]{2}|\\PC){0,40}",
        ) {
            let bag = PropertyBag::parse(&text);
            prop_assert_eq!(&PropertyBag::parse(&bag.to_string()), &bag);
            let keys: std::collections::BTreeSet<&str> = bag.iter().map(|(key, _)| key).collect();
            prop_assert_eq!(keys.len(), bag.iter().count());
        }
    }
}
