//! A value as one line of text: `room key-json value-json`, or without the value when it is gone.

use super::values::{Change, Namespace};

pub(super) fn write(namespace: Namespace, key: &str, value: Option<&[u8]>) -> String {
    let key = serde_json::Value::from(key);
    match value {
        Some(value) => format!("{} {key} {}", namespace.name(), String::from_utf8_lossy(value)),
        None => format!("{} {key}", namespace.name()),
    }
}

/// `None` for what this version does not know.
pub(super) fn parse(line: &str) -> Option<Change> {
    let (namespace, rest) = line.split_once(' ')?;
    let namespace = Namespace::ALL.into_iter().find(|r| r.name() == namespace)?;
    let mut keys = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let key = keys.next()?.ok()?;
    let value = rest.get(keys.byte_offset()..)?;
    let value = value.strip_prefix(' ').map(|value| value.as_bytes().to_vec());
    Some(Change { namespace, key, value })
}
