//! Typed bodies, read so that nothing in them is passed over in silence.
//!
//! serde takes `null` for a field that is left out, and an array for an object. Both are refused here, by the place where they
//! stand; a field that may be `null` is an [`Update`](crate::types::update::Update).

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

use crate::types::update::UPDATE;

/// Reads a typed body.
///
/// # Errors
/// The first field that is wrong, with its path.
pub(super) fn read<T: DeserializeOwned>(document: Value) -> Result<T, serde_path_to_error::Error<Error>> {
    serde_path_to_error::deserialize(Strict(document))
}

struct Strict(Value);

impl<'de> IntoDeserializer<'de, Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Value::Object(members) => {
                let members = members.into_iter().map(|(key, value)| (key, Strict(value)));
                let mut members = MapDeserializer::new(members);
                let value = visitor.visit_map(&mut members)?;
                members.end().map(|()| value)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => {
                Err(Error::custom("found null; leave it out to keep the stored value, or write a value"))
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null if name == UPDATE => visitor.visit_none(),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0 {
            Value::Array(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::update::Update;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
    struct Inner {
        id: Option<String>,
        any: Option<Value>,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
    struct Outer {
        name: Option<String>,
        #[serde(default)]
        template: Update<String>,
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        document: Value,
        count: Option<u8>,
    }

    #[test]
    fn null_is_taken_only_where_it_means_something() {
        let read = |document: Value| read::<Outer>(document).map_err(|error| error.path().to_string());
        assert_eq!(read(json!({})), Ok(Outer::default()));
        assert_eq!(read(json!({"template": null})).unwrap().template, Update::Clear);
        assert_eq!(read(json!({"template": "t"})).unwrap().template, Update::Set("t".into()));
        assert_eq!(
            read(json!({"document": {"a": [null, {"b": null}]}})).unwrap().document,
            json!({"a": [null, {"b": null}]})
        );
        assert_eq!(
            read(json!({"inner": {"any": {"a": null}}})).unwrap().inner.unwrap().any,
            Some(json!({"a": null}))
        );
        for (wrong, path) in [
            (json!({"name": null}), "name"),
            (json!({"inner": null}), "inner"),
            (json!({"inner": {"id": null}}), "inner.id"),
            (json!({"list": [{}, {"id": null}]}), "list[1].id"),
            (json!({"list": null}), "list"),
            (json!({"inner": {"idd": "x"}}), "inner.idd"),
            (json!({"inner": ["x"]}), "inner"),
            (json!({"template": 1}), "template"),
            (json!({"count": 256}), "count"),
            (json!(["x"]), "."),
            (json!(null), "."),
        ] {
            assert_eq!(read(wrong.clone()).unwrap_err(), path, "{wrong}");
        }
    }
}
