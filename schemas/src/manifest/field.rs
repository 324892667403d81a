//! A value of the manifest that knows its place, so that whatever is wrong with it can be said with its path.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::error::ManifestError;

/// A value and its path.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

/// An object and its path.
#[derive(Clone)]
pub(super) struct Object<'a> {
    pub(super) path: String,
    pub(super) members: &'a Map<String, Value>,
}

/// A value as text. Texts are only quoted by [`Field::quoted`]: most of them may be secrets.
pub(super) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a text".into(),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

impl<'a> Field<'a> {
    /// Refuses this value.
    pub(super) fn refuse(&self, found: impl Into<String>, allowed: impl Into<String>) -> ManifestError {
        ManifestError { path: self.path.clone(), found: found.into(), allowed: allowed.into() }
    }

    /// The value as text, its text quoted up to 80 characters: for fields that hold no secrets.
    pub(super) fn quoted(&self) -> String {
        const SHOWN: usize = 80;
        match self.value {
            Value::String(text) if text.chars().count() > SHOWN => {
                format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
            }
            Value::String(text) => format!("{text:?}"),
            other => kind(other),
        }
    }

    pub(super) fn object(self) -> Result<Object<'a>, ManifestError> {
        match self.value {
            Value::Object(members) => Ok(Object { path: self.path, members }),
            other => Err(self.refuse(kind(other), "write an object")),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, ManifestError> {
        match self.value {
            Value::String(text) => Ok(text),
            other => Err(self.refuse(kind(other), "write a text in double quotes")),
        }
    }

    /// A text; a number or a boolean becomes one, as with Newtonsoft.Json.
    pub(super) fn plain_text(&self) -> Result<Cow<'a, str>, ManifestError> {
        match self.value {
            Value::Number(number) => Ok(Cow::Owned(number.to_string())),
            Value::Bool(flag) => Ok(Cow::Owned(flag.to_string())),
            _ => self.text().map(Cow::Borrowed),
        }
    }

    /// An integer from `min` to `max`; its text is taken as well, as by Newtonsoft.Json.
    pub(super) fn integer(&self, min: i64, max: i64) -> Result<i64, ManifestError> {
        let number = match self.value {
            Value::String(text) => text.trim().parse().ok(),
            value => value.as_i64(),
        };
        match number.filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(number),
            None => Err(self.refuse(self.quoted(), format!("write an integer from {min} to {max}"))),
        }
    }

    /// One of an enum's values, without regard to case.
    pub(super) fn one_of<T: Copy>(
        &self,
        all: &[T],
        as_str: impl Fn(T) -> &'static str,
    ) -> Result<T, ManifestError> {
        let found = self.value.as_str().unwrap_or_default();
        all.iter().copied().find(|value| as_str(*value).eq_ignore_ascii_case(found)).ok_or_else(|| {
            let allowed: Vec<_> = all.iter().copied().map(as_str).collect();
            let verb = if allowed.len() == 1 { "is" } else { "are" };
            self.refuse(self.quoted(), format!("allowed {verb} {}", allowed.join(", ")))
        })
    }
}

impl<'a> Object<'a> {
    /// The path of a member.
    pub(super) fn path_of(&self, key: &str) -> String {
        match key {
            "" => format!("{}.\"\"", self.path),
            key => format!("{}.{key}", self.path),
        }
    }

    /// A member, if it is there and not null; its key without regard to case when there is none of exactly that case.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        let (found, value) = self
            .members
            .get_key_value(key)
            .or_else(|| self.members.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(key)))?;
        (!value.is_null()).then(|| Field { path: self.path_of(found), value })
    }

    /// A member that must be there.
    pub(super) fn require(&self, key: &str, allowed: &str) -> Result<Field<'a>, ManifestError> {
        self.get(key).ok_or_else(|| ManifestError {
            path: self.path_of(key),
            found: "nothing".into(),
            allowed: allowed.into(),
        })
    }

    /// A member that is an object; `None` when it is left out.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, ManifestError> {
        self.get(key).map(Field::object).transpose()
    }

    /// A text, empty when it is left out.
    pub(super) fn text_or_empty(&self, key: &str) -> Result<String, ManifestError> {
        Ok(self.get(key).map(|field| field.plain_text()).transpose()?.unwrap_or_default().into_owned())
    }

    /// Every member that is not null.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + '_ {
        self.members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.as_str(), Field { path: self.path_of(key), value }))
    }
}
