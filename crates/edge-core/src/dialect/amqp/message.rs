//! Telemetry as it comes over AMQP, to the property bag and the body that the same message has over MQTT.

use amqp::codec::definitions::MessageId;
use amqp::codec::error::DecodeError;
use amqp::codec::limits::ReadLimits;
use amqp::codec::message::{Body, Message, Properties};
use amqp::codec::value::{Timestamp, Value};
use bytes::{Bytes, BytesMut};
use schemas::bag::{PropertyBag, system};
use schemas::timestamp::rfc3339;

use super::error_condition::ErrorCondition;

/// Message format of Azure in which each data section is a whole message.
pub const BATCH_FORMAT: u32 = 0x8001_3700;

/// A message of a device or module.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Properties of the system and of the application.
    pub bag: PropertyBag,
    /// What it carries.
    pub body: Bytes,
}

/// Why a delivery is not telemetry.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TelemetryError {
    /// It is no AMQP message.
    #[error("the message cannot be read")]
    Malformed(#[source] DecodeError),
    /// A format that is neither AMQP's own nor Azure's batch.
    #[error("message format {0:#x} is not known")]
    Format(u32),
    /// IoT Hub wants bytes.
    #[error("the body is not made of data sections")]
    Body,
    /// A property that has no text, such as a list.
    #[error("the application property `{0}` is neither a text, a number, a boolean nor a time")]
    Property(String),
    /// The name of a property is no text.
    #[error("the name of an application property is not a string")]
    PropertyName,
}

impl TelemetryError {
    /// ErrorCondition that the client is sent.
    pub fn condition(&self) -> ErrorCondition {
        match self {
            Self::Malformed(_) | Self::Format(_) | Self::Body => ErrorCondition::Decode,
            Self::Property(_) | Self::PropertyName => ErrorCondition::Argument,
        }
    }
}

/// The messages of a delivery: one, or those of a batch in their order, of which there are as many at most as [`ReadLimits`] allow. If
/// one of a batch is wrong, there are none.
///
/// # Errors
/// [`TelemetryError`].
pub fn telemetry(format: u32, payload: Bytes) -> Result<Vec<Telemetry>, TelemetryError> {
    let message = Message::read(payload, ReadLimits::DEFAULT).map_err(TelemetryError::Malformed)?;
    match format {
        0 => Ok(vec![one(message)?]),
        BATCH_FORMAT => {
            let Body::Data(sections) = message.body else { return Err(TelemetryError::Body) };
            let read =
                |section| Message::read(section, ReadLimits::DEFAULT).map_err(TelemetryError::Malformed);
            sections.into_iter().map(|section| one(read(section)?)).collect()
        }
        other => Err(TelemetryError::Format(other)),
    }
}

fn one(message: Message) -> Result<Telemetry, TelemetryError> {
    let mut bag = PropertyBag::new();
    if let Some(properties) = message.properties {
        add_properties(&mut bag, properties);
    }
    for (key, value) in message.application_properties.0 {
        let name = key.as_text().ok_or(TelemetryError::PropertyName)?;
        let name = match name {
            "iothub-outputname" => system::OUTPUT_NAME,
            "iothub-creation-time-utc" => system::CREATION_TIME,
            "iothub-message-schema" => system::MESSAGE_SCHEMA,
            other => other,
        };
        let text = text(&value).ok_or_else(|| TelemetryError::Property(name.to_owned()))?;
        put(&mut bag, name, text);
    }
    for (annotation, name) in [("iothub-interface-id", "$.ifid"), ("dt-subject", system::COMPONENT)] {
        if let Some(text) = message.message_annotations.get(annotation).and_then(text) {
            put(&mut bag, name, text);
        }
    }
    let body = match message.body {
        Body::Absent => Bytes::new(),
        Body::Data(sections) => joined(sections),
        Body::Sequence(_) | Body::Value(_) => return Err(TelemetryError::Body),
    };
    Ok(Telemetry { bag, body })
}

fn add_properties(bag: &mut PropertyBag, properties: Properties) {
    let pairs = [
        (system::MESSAGE_ID, properties.message_id.map(id)),
        (system::CORRELATION_ID, properties.correlation_id.map(id)),
        (system::USER_ID, properties.user_id.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
        (system::TO, properties.to),
        (system::CONTENT_TYPE, properties.content_type.map(|symbol| symbol.as_str().to_owned())),
        (system::CONTENT_ENCODING, properties.content_encoding.map(|symbol| symbol.as_str().to_owned())),
        (system::EXPIRY_TIME, properties.absolute_expiry_time.map(time)),
    ];
    for (name, text) in pairs {
        if let Some(text) = text {
            put(bag, name, text);
        }
    }
}

/// NUL stays encoded, as in a bag that was read from a topic: no topic can have it.
fn put(bag: &mut PropertyBag, name: &str, text: String) {
    let encoded = |text: String| if text.contains('\0') { text.replace('\0', "%00") } else { text };
    bag.set(&encoded(name.to_owned()), encoded(text));
}

fn id(id: MessageId) -> String {
    match id {
        MessageId::Ulong(number) => number.to_string(),
        MessageId::Uuid(bytes) => uuid(&bytes),
        MessageId::Binary(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        MessageId::String(text) => text,
    }
}

/// The text of a simple value; `None` for lists and the like.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::Boolean(is) => is.to_string(),
        Value::Ubyte(number) => number.to_string(),
        Value::Ushort(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Ulong(number) => number.to_string(),
        Value::Byte(number) => number.to_string(),
        Value::Short(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Long(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Char(c) => c.to_string(),
        Value::Timestamp(at) => time(*at),
        Value::Uuid(bytes) => uuid(bytes),
        Value::String(text) => text.clone(),
        Value::Symbol(symbol) => symbol.as_str().to_owned(),
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Decimal32(_)
        | Value::Decimal64(_)
        | Value::Decimal128(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Array(_)
        | Value::Described(_) => return None,
    })
}

/// A time before 1970 reads as 1970.
fn time(at: Timestamp) -> String {
    rfc3339(u64::try_from(at.0).unwrap_or(0))
}

fn uuid(bytes: &[u8; 16]) -> String {
    /// Bytes before which a hyphen is written (RFC 4122, section 3).
    const HYPHENS: [usize; 4] = [4, 6, 8, 10];
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if HYPHENS.contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Nearly all messages have one section, which is not copied.
fn joined(mut sections: Vec<Bytes>) -> Bytes {
    if sections.len() == 1 {
        return sections.remove(0);
    }
    let mut whole = BytesMut::with_capacity(sections.iter().map(Bytes::len).sum());
    for section in &sections {
        whole.extend_from_slice(section);
    }
    whole.freeze()
}

#[cfg(test)]
mod tests {
    use amqp::codec::symbol::Symbol;
    use amqp::codec::value::Map;
    use proptest::prelude::*;

    use super::*;

    fn payload(message: &Message) -> Bytes {
        let mut payload = BytesMut::new();
        message.write(&mut payload);
        payload.freeze()
    }

    fn with_body(text: &'static str) -> Message {
        Message { body: Body::Data(vec![Bytes::from_static(text.as_bytes())]), ..Message::default() }
    }

    fn with_property(name: &str, value: Value) -> Message {
        Message { application_properties: Map(vec![(name.into(), value)]), ..with_body("x") }
    }

    #[test]
    fn a_message_has_the_bag_that_it_has_over_mqtt() {
        let message = Message {
            message_annotations: Map(vec![(Symbol::from_static("dt-subject").into(), "pump".into())]),
            properties: Some(Properties {
                message_id: Some(MessageId::Uuid(
                    *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef",
                )),
                correlation_id: Some(MessageId::Ulong(7)),
                user_id: Some(Bytes::from_static(b"operator")),
                content_type: Some(Symbol::from_static("application/json")),
                content_encoding: Some(Symbol::from_static("utf-8")),
                absolute_expiry_time: Some(Timestamp(0)),
                ..Properties::default()
            }),
            application_properties: Map(vec![
                ("iothub-outputname".into(), "alarms".into()),
                ("line".into(), Value::Int(-4)),
                ("is hot".into(), Value::Boolean(true)),
            ]),
            body: Body::Data(vec![Bytes::from_static(b"{\"t\":"), Bytes::from_static(b"21}")]),
            ..Message::default()
        };
        let read = telemetry(0, payload(&message)).unwrap();
        let [Telemetry { bag, body }] = &read[..] else { panic!("{read:?}") };
        let expected = "%24.mid=01234567-89ab-cdef-0123-456789abcdef&%24.cid=7&%24.uid=operator\
            &%24.ct=application%2Fjson&%24.ce=utf-8&%24.exp=1970-01-01T00%3A00%3A00.000Z\
            &%24.on=alarms&line=-4&is%20hot=true&%24.sub=pump";
        assert_eq!(bag.to_string(), expected);
        assert_eq!(body, "{\"t\":21}");
    }

    #[test]
    fn a_batch_is_as_many_messages_or_none() {
        let batch =
            |sections: Vec<Bytes>| payload(&Message { body: Body::Data(sections), ..Message::default() });
        let good: Vec<Bytes> = ["a", "b", "c"].map(|text| payload(&with_body(text))).to_vec();
        let read = telemetry(BATCH_FORMAT, batch(good.clone())).unwrap();
        assert_eq!(read.iter().map(|one| &one.body[..]).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        let bad = Message { body: Body::Value("text".into()), ..Message::default() };
        let mixed = [good, vec![payload(&bad)]].concat();
        assert_eq!(telemetry(BATCH_FORMAT, batch(mixed)), Err(TelemetryError::Body));
        // Each holds memory while it is being stored.
        let many = vec![Bytes::new(); ReadLimits::DEFAULT.values_max as usize + 1];
        assert!(matches!(telemetry(BATCH_FORMAT, batch(many)), Err(TelemetryError::Malformed(_))));
    }

    #[test]
    fn what_is_no_telemetry_is_refused_with_its_reason() {
        let list = with_property("list", Value::List(Vec::new()));
        for (format, payload, condition) in [
            (
                0,
                payload(&Message { body: Body::Value("text".into()), ..Message::default() }),
                ErrorCondition::Decode,
            ),
            (0, Bytes::from_static(b"\xff"), ErrorCondition::Decode),
            (1, payload(&with_body("x")), ErrorCondition::Decode),
            (0, payload(&list), ErrorCondition::Argument),
        ] {
            assert_eq!(telemetry(format, payload).unwrap_err().condition(), condition);
        }
    }

    #[test]
    fn a_nul_cannot_reach_a_topic() {
        let read = telemetry(0, payload(&with_property("a\0", "b\0".into()))).unwrap();
        assert_eq!(read[0].bag.get("a%00"), Some("b%00"));
    }

    proptest! {
        #[test]
        fn any_text_property_survives_in_a_topic(name in "[a-z\\PC]{1,8}", value in "\\PC{0,12}") {
            let read = telemetry(0, payload(&with_property(&name, Value::String(value)))).unwrap();
            prop_assert_eq!(PropertyBag::parse(&read[0].bag.to_string()), read[0].bag.clone());
        }

        #[test]
        fn any_bytes_end_with_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), is_batch: bool) {
            let format = if is_batch { BATCH_FORMAT } else { 0 };
            drop(telemetry(format, Bytes::from(bytes)));
        }
    }
}
