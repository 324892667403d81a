//! A field of a change: left out, `null`, or a value.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// What a change says of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Update<T> {
    #[default]
    Keep,
    Clear,
    /// The new value.
    Set(T),
}

impl<T> Update<T> {
    /// The value after it.
    pub fn over(self, stored: Option<T>) -> Option<T> {
        match self {
            Self::Keep => stored,
            Self::Clear => None,
            Self::Set(new) => Some(new),
        }
    }

    /// The same with another value.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn try_map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Update<U>, E> {
        Ok(match self {
            Self::Keep => Update::Keep,
            Self::Clear => Update::Clear,
            Self::Set(new) => Update::Set(change(new)?),
        })
    }
}

/// How an [`Update`] tells the reader of a body that it takes `null`.
pub(crate) const UPDATE: &str = "$update";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Update<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Update<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value or null")
            }

            fn visit_none<E: Error>(self) -> Result<Update<T>, E> {
                Ok(Update::Clear)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Update<T>, D::Error> {
                T::deserialize(inner).map(Update::Set)
            }
        }

        deserializer.deserialize_newtype_struct(UPDATE, Reader(PhantomData))
    }
}
