//! What an expression of a condition can come to.

use std::borrow::Cow;

use serde_json::Value as Json;

/// A value. A number is never NaN: that is undefined.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Not there, or without a meaning. Whatever is made of it is undefined too, and it matches nothing.
    Undefined,
    /// JSON's null. Where a condition is asked for it counts as false.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Every number is a double, as in JSON.
    Number(f64),
    Text(Cow<'a, str>),
    /// The text of a property. MQTT has no other type for them, so it stands for a number where one is asked for.
    Property(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// A number; undefined when it is NaN, as the result of `3 % 0`.
    pub fn number(number: f64) -> Self {
        if number.is_nan() { Self::Undefined } else { Self::Number(number) }
    }

    /// A value of a JSON document. Objects and arrays have no meaning in a condition.
    pub fn of_json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => number.as_f64().map_or(Self::Undefined, Self::number),
            Json::String(text) => Self::Text(Cow::Borrowed(text)),
            Json::Array(_) | Json::Object(_) => Self::Undefined,
        }
    }

    /// The number, or the one that a property stands for.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Property(text) => parse_number(text),
            _ => None,
        }
    }

    /// The text, a property's included.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Property(text) => Some(text),
            _ => None,
        }
    }

    /// The same, holding its own text.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Undefined => Value::Undefined,
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(flag),
            Self::Number(number) => Value::Number(number),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Property(text) => Value::Property(Cow::Owned(text.into_owned())),
        }
    }
}

/// Reads a number out of a text: decimal, with a sign, a point and an exponent; blanks around it do not matter.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rust would also take `inf` and `nan`.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if is_plain { text.parse().ok() } else { None }
}
