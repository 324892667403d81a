//! What a telemetry message says: when it was made, and the names and values of its body.
//!
//! Pure: no clock, no I/O.

use std::borrow::Cow;
use std::collections::HashMap;

use schemas::bag::system;
use schemas::json::written::is_json;
use schemas::json::{DEPTH_MAX, check_text};
use schemas::timestamp::parse_rfc3339;
use serde::de::{Deserialize, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest name, and component, in bytes (IoT Hub: 1 KB for a twin's key).
pub(crate) const NAME_BYTES_MAX: usize = 1024;
/// How far a clock may be ahead of the next one in line.
const AHEAD_MS: u64 = 10 * 60 * 1000;
/// 2000-01-01. Earlier times come from clocks that were never set.
const SET_SINCE_MS: u64 = 946_684_800_000;

/// Position of a message among others of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    /// When it was made.
    pub(crate) at_ms: u64,
    pub(crate) enqueued_ms: u64,
    /// Its id: messages of a queue are stored in the queue's order.
    pub(crate) message: i64,
}

/// The properties of a message that a [`Stamp`] has.
const STAMP_PROPERTIES: [&str; 4] =
    [system::CREATION_TIME_UTC, system::CREATION_TIME, system::COMPONENT, system::CONTENT_ENCODING];

/// The values of [`STAMP_PROPERTIES`], read from the JSON object that a message's properties are stored as. The others are not kept.
#[derive(Debug, Default)]
pub(crate) struct StampProperties([Option<String>; STAMP_PROPERTIES.len()]);

impl StampProperties {
    /// # Errors
    /// When the text is not a JSON object.
    pub(crate) fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The value of a property; empty when it has none, or one that is no text.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let index = STAMP_PROPERTIES.iter().position(|known| *known == name)?;
        self.0[index].as_deref()
    }
}

impl<'de> Deserialize<'de> for StampProperties {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Properties;

        impl<'de> Visitor<'de> for Properties {
            type Value = StampProperties;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = StampProperties::default();
                while let Some(Name(name)) = map.next_key()? {
                    let Some(index) = STAMP_PROPERTIES.iter().position(|known| *known == name) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let value: Value = map.next_value()?;
                    found.0[index] = Some(value.as_str().unwrap_or_default().to_owned());
                }
                Ok(found)
            }
        }

        deserializer.deserialize_map(Properties)
    }
}

/// The fields of a stored message that decide its position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'m> {
    enqueued_ms: u64,
    received_ms: u64,
    message: i64,
    /// When its sender says that it was made.
    created: Option<&'m str>,
    pub(crate) component: Option<&'m str>,
    pub(crate) encoding: Option<&'m str>,
}

impl<'m> Stamp<'m> {
    pub(crate) fn new(enqueued_ms: u64, received_ms: u64, message: i64) -> Self {
        Self { enqueued_ms, received_ms, message, created: None, component: None, encoding: None }
    }

    /// With what the properties of a message say: those of [`STAMP_PROPERTIES`].
    pub(crate) fn with(self, property: impl Fn(&str) -> Option<&'m str>) -> Self {
        let [created_utc, created, component, encoding] = STAMP_PROPERTIES.map(property);
        Self {
            created: created_utc.or(created),
            component: component.filter(|component| component.len() <= NAME_BYTES_MAX),
            encoding,
            ..self
        }
    }

    /// The time that its sender sent, if it is not believed.
    pub(crate) fn disbelieved(&self) -> Option<&'m str> {
        let (_, is_stated) = self.order_and_stated();
        self.created.filter(|_| !is_stated)
    }

    pub(crate) fn order(&self) -> Order {
        self.order_and_stated().0
    }

    /// Its position, and whether its sender sent the time of its creation.
    pub(crate) fn order_and_stated(&self) -> (Order, bool) {
        let is_set =
            |at_ms: &u64, clock_ms: u64| (SET_SINCE_MS..=clock_ms.saturating_add(AHEAD_MS)).contains(at_ms);
        // The nearer a clock is to this one, the more it is trusted: a time to come would stay the newest until it is there.
        let enqueued_ms = Some(self.enqueued_ms).filter(|at_ms| is_set(at_ms, self.received_ms));
        let enqueued_ms = enqueued_ms.unwrap_or(self.received_ms);
        let created_ms = self.created.and_then(created_ms).filter(|at_ms| is_set(at_ms, enqueued_ms));
        let at_ms = created_ms.unwrap_or(enqueued_ms);
        (Order { at_ms, enqueued_ms: self.enqueued_ms, message: self.message }, created_ms.is_some())
    }
}

/// Reads the time of a message's creation; without an offset it is UTC, as its name says.
fn created_ms(text: &str) -> Option<u64> {
    parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}Z")))
}

/// The value of a key, which is copied only when it is new.
pub(crate) fn entry<'m, K, Q, V>(map: &'m mut HashMap<K, V>, key: &Q) -> &'m mut V
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ToOwned<Owned = K> + ?Sized,
    V: Default,
{
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.get_mut(key).expect("it was inserted just now")
}

pub(crate) type Member<'t> = (Cow<'t, str>, &'t str);

/// The names and values of a JSON object, as they are written, but for those that cannot be shown; `None` when the text is not
/// one.
pub(crate) fn members(text: &str) -> Option<Vec<Member<'_>>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Member<'de>>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::with_capacity(4);
            while let Some(Name(name)) = map.next_key()? {
                let value: &RawValue = map.next_value()?;
                if name.len() <= NAME_BYTES_MAX && is_shown(value.get()) {
                    members.push((name, value.get()));
                }
            }
            Ok(members)
        }
    }

    // What is no object is most often seen at its first character.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return None;
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let members = reader.deserialize_map(Members).ok()?;
    reader.end().ok().map(|()| members)
}

/// Whether a value can be read by everybody: it is not nested too deep, and its texts are Unicode: `"\ud800"`, half a character, is
/// read over by the reader of names and by no other.
fn is_shown(value: &str) -> bool {
    let is_flat = !value.starts_with(['{', '[']) || check_text(value.as_bytes(), DEPTH_MAX - 1).is_ok();
    is_flat && (!value.contains("\\u") || is_json(value))
}

/// A key, borrowed where it has no escapes.
struct Name<'t>(Cow<'t, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl<'de> Visitor<'de> for Key {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(key)))
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(key.to_owned())))
            }
        }

        deserializer.deserialize_str(Key)
    }
}
