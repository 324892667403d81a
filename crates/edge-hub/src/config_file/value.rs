//! TOML with the place of each value, and serde's way to read it.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::ops::Range;
use std::vec;

use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::de::{DeTable, DeValue};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Of the file, counted from 1.
    Line(usize),
    Variable(String),
}

/// A value and where it was written.
#[derive(Debug)]
pub(super) struct Value {
    data: Data,
    /// `None` for the whole file.
    origin: Option<Origin>,
}

#[derive(Debug)]
enum Data {
    Table(BTreeMap<String, Value>),
    Array(Vec<Value>),
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
    Date,
    /// Of a variable: what it means depends on the type that is read.
    Any(String),
}

fn line(text: &str, span: &Range<usize>) -> usize {
    1 + text[..span.start.min(text.len())].matches('\n').count()
}

impl Value {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The line of a mistake, and what it is.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line(text, &span));
            (line, error.message().to_owned())
        })?;
        let data = Data::of(text, DeValue::Table(table.into_inner()))?;
        Ok(Self { data, origin: None })
    }

    /// Sets `key` or `section__key` to what a variable says.
    ///
    /// # Errors
    /// What is wrong with its name.
    pub(super) fn set(&mut self, name: &str, variable: &str, text: String) -> Result<(), &'static str> {
        let Data::Table(table) = &mut self.data else {
            return Err("the part before a `__` names a key, not a section");
        };
        let written = |data| Self { data, origin: Some(Origin::Variable(variable.to_owned())) };
        match name.split_once("__") {
            None => {
                table.insert(name.to_owned(), written(Data::Any(text)));
                Ok(())
            }
            Some((section, rest)) => {
                let section = table.entry(section.to_owned());
                section.or_insert_with(|| written(Data::Table(BTreeMap::new()))).set(rest, variable, text)
            }
        }
    }
}

impl Data {
    fn of(text: &str, value: DeValue<'_>) -> Result<Self, (usize, String)> {
        Ok(match value {
            DeValue::Table(table) => {
                let entries = table.into_iter().map(|(key, value)| {
                    let line = line(text, &key.span());
                    let data = Self::of(text, value.into_inner()).map_err(|(_, why)| (line, why))?;
                    Ok((key.into_inner().into_owned(), Value { data, origin: Some(Origin::Line(line)) }))
                });
                Self::Table(entries.collect::<Result<_, _>>()?)
            }
            DeValue::Array(items) => {
                let items = items.into_iter().map(|item| {
                    let line = line(text, &item.span());
                    Ok(Value { data: Self::of(text, item.into_inner())?, origin: Some(Origin::Line(line)) })
                });
                Self::Array(items.collect::<Result<_, _>>()?)
            }
            DeValue::String(text) => Self::Text(text.into_owned()),
            DeValue::Integer(number) => {
                let read = i64::from_str_radix(number.as_str(), number.radix());
                Self::Integer(read.map_err(|_| (0, format!("{number} has more than 64 bits")))?)
            }
            DeValue::Float(number) => {
                Self::Float(number.as_str().parse().map_err(|_| (0, format!("{number} is no number")))?)
            }
            DeValue::Boolean(flag) => Self::Flag(flag),
            DeValue::Datetime(_) => Self::Date,
        })
    }
}

/// Why a value cannot be read, and its position.
#[derive(Debug)]
pub(super) struct Fault {
    /// Innermost first.
    keys: Vec<String>,
    /// The innermost that is known.
    pub(super) origin: Option<Origin>,
    pub(super) why: String,
}

impl Fault {
    /// The whole key, with dots.
    pub(super) fn key(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().rev().map(String::as_str).collect();
        keys.join(".")
    }

    fn at(mut self, origin: Option<Origin>) -> Self {
        self.origin = self.origin.or(origin);
        self
    }

    fn in_key(mut self, key: &str) -> Self {
        self.keys.push(key.to_owned());
        self
    }

    fn found(text: &str, write: &str) -> Self {
        de::Error::custom(format!("found `{text}`; write {write}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self { keys: Vec::new(), origin: None, why: why.to_string() }
    }

    /// The key itself is named by its table.
    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        Self::custom(format!("no such key; there are {}", known.join(", ")))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::custom("it is missing").in_key(key)
    }
}

struct Entries {
    left: btree_map::IntoIter<String, Value>,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        let read = seed.deserialize(key.as_str().into_deserializer());
        let read = read.map_err(|fault: Fault| fault.in_key(&key).at(value.origin.clone()))?;
        self.current = Some((key, value));
        Ok(Some(read))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.current.take().expect("a value is read after its key");
        let origin = value.origin.clone();
        seed.deserialize(value).map_err(|fault| fault.in_key(&key).at(origin))
    }
}

struct Items(vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.0.next() else { return Ok(None) };
        let origin = item.origin.clone();
        seed.deserialize(item).map(Some).map_err(|fault| fault.at(origin))
    }
}

/// The largest whole number of any key, 2^53: a thousand times of it, as milliseconds of seconds are, fits into 64 bits too.
const INTEGER_MAX: u64 = 1 << 53;
/// What to write instead of a larger one.
const INTEGER: &str = "a whole number up to 9007199254740992";

/// Numbers: the text of a variable is read as the type that is asked for.
macro_rules! numbers {
    ($($method:ident, $visit:ident, $type:ty, $write:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match &self.data {
                Data::Any(text) => match text.trim().parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(Fault::found(text, $write)),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.data {
            Data::Table(table) => visitor.visit_map(Entries { left: table.into_iter(), current: None }),
            Data::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Data::Text(text) | Data::Any(text) => visitor.visit_string(text),
            Data::Integer(number) if u64::try_from(number).is_ok_and(|number| number > INTEGER_MAX) => {
                Err(Fault::found(&number.to_string(), INTEGER))
            }
            Data::Integer(number) => visitor.visit_i64(number),
            Data::Float(number) => visitor.visit_f64(number),
            Data::Flag(flag) => visitor.visit_bool(flag),
            Data::Date => {
                Err(de::Error::custom("found a date, and no key takes one; write a text in quotes"))
            }
        }
    }

    numbers! {
        deserialize_i8, visit_i8, i8, "a whole number";
        deserialize_i16, visit_i16, i16, "a whole number";
        deserialize_i32, visit_i32, i32, "a whole number";
        deserialize_i64, visit_i64, i64, "a whole number";
        deserialize_u8, visit_u8, u8, "a whole number from 0 to 255";
        deserialize_u16, visit_u16, u16, "a whole number from 0 to 65535";
        deserialize_u32, visit_u32, u32, "a whole number from 0 on";
        deserialize_f32, visit_f32, f32, "a number";
        deserialize_f64, visit_f64, f64, "a number";
        deserialize_bool, visit_bool, bool, "true or false";
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.data {
            Data::Any(text) => match text.trim().parse::<u64>() {
                Ok(number) if number <= INTEGER_MAX => visitor.visit_u64(number),
                Ok(_) => Err(Fault::found(text, INTEGER)),
                Err(_) => Err(Fault::found(text, "a whole number from 0 on")),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.data {
            Data::Any(text) if text.is_empty() => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Data::Any(text) = &self.data else { return self.deserialize_any(visitor) };
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let item = |text: &str| Self { data: Data::Any(text.to_owned()), origin: self.origin.clone() };
        visitor.visit_seq(Items(items.map(item).collect::<Vec<_>>().into_iter()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.data {
            Data::Text(text) | Data::Any(text) => {
                text.as_str().into_deserializer().deserialize_enum(name, variants, visitor)
            }
            _ => Err(de::Error::custom(format!("write one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}
