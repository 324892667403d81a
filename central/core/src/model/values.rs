//! Whether a value conforms to a schema: what a device sends, an operator writes, or a command is called with.

use std::fmt;

use serde_json::{Map, Value};

use super::calendar;
use super::types::{Field, Geometry, Primitive, Schema};

/// More faults of one value than this are not listed.
const FAULTS_MAX: usize = 20;

/// One place of a value that does not conform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the value: `axes[2].x`; empty for the value itself.
    pub path: String,
    pub found: String,
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} is not {}", self.found, self.expected)
    }
}

/// Whose rules of conformance apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// DTDL: an object may lack fields and has no others; numbers of whole schemas are written without a fraction.
    Dtdl,
    /// IoT Central: fields that are not modelled are kept, and `3.0` is a whole number.
    IotCentral,
}

/// Every fault of a value, none when it conforms.
pub fn check(value: &Value, schema: &Schema, strictness: Strictness) -> Vec<Fault> {
    let mut checker = Checker { strictness, faults: Vec::new() };
    checker.check(value, schema, "");
    checker.faults
}

struct Checker {
    strictness: Strictness,
    faults: Vec<Fault>,
}

impl Checker {
    fn add(&mut self, path: &str, value: &Value, expected: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            // A value may have megabytes, and each fault would repeat it.
            let text = value.to_string();
            let found = match text.char_indices().nth(60) {
                None => text,
                Some((end, _)) => format!("{}...", &text[..end]),
            };
            self.faults.push(Fault { path: path.to_owned(), found, expected: expected.into() });
        }
    }

    /// Recursion is as deep as the schema, at most six.
    fn check(&mut self, value: &Value, schema: &Schema, path: &str) {
        match schema {
            Schema::Primitive(primitive) => {
                if !self.is_primitive(value, *primitive) {
                    self.add(path, value, format!("{} {}", article(primitive.as_str()), primitive.as_str()));
                }
            }
            Schema::Geometry(geometry) => self.check_geometry(value, *geometry, path),
            Schema::Geopoint => self.check_numbers(value, &["lat", "lon"], &["alt"], "a geopoint", path),
            Schema::Vector => self.check_numbers(value, &["x", "y", "z"], &[], "a vector", path),
            Schema::Array(of) => match value.as_array() {
                None => self.add(path, value, "an array"),
                Some(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.check(item, of, &format!("{path}[{index}]"));
                    }
                }
            },
            Schema::Enum(values) => {
                if !values.iter().any(|known| known.value == *value) {
                    let known: Vec<String> = values.iter().map(|known| known.value.to_string()).collect();
                    self.add(path, value, format!("one of {}", known.join(", ")));
                }
            }
            Schema::Map(of) => match value.as_object() {
                None => self.add(path, value, "an object"),
                Some(members) => {
                    for (name, member) in members {
                        self.check(member, of, &joined(path, name));
                    }
                }
            },
            Schema::Object(fields) => match value.as_object() {
                None => self.add(path, value, "an object"),
                Some(members) => self.check_fields(members, fields, path),
            },
        }
    }

    fn check_fields(&mut self, members: &Map<String, Value>, fields: &[Field], path: &str) {
        for (name, member) in members {
            match fields.iter().find(|field| field.name == *name) {
                Some(field) => self.check(member, &field.schema, &joined(path, name)),
                None if self.strictness == Strictness::IotCentral => {}
                None => self.add(&joined(path, name), member, "a field of the object"),
            }
        }
    }

    fn check_numbers(
        &mut self,
        value: &Value,
        needed: &[&str],
        allowed: &[&str],
        expected: &str,
        path: &str,
    ) {
        let Some(members) = value.as_object() else { return self.add(path, value, expected) };
        for name in needed.iter().filter(|name| !members.contains_key(**name)) {
            self.add(path, value, format!("{expected}: `{name}` is missing"));
        }
        for (name, member) in members
            .iter()
            .filter(|(name, _)| needed.contains(&name.as_str()) || allowed.contains(&name.as_str()))
        {
            if !member.is_number() {
                self.add(&joined(path, name), member, "a number");
            }
        }
    }

    /// GeoJSON: `{"type": "Point", "coordinates": [47.6, -122.1]}`.
    fn check_geometry(&mut self, value: &Value, geometry: Geometry, path: &str) {
        // Indexing a value that is no object yields null, so a wrong form is reported and does not panic.
        if value["type"] != geometry.name {
            return self.add(path, value, format!("a GeoJSON {}", geometry.name));
        }
        let mut level: Vec<&Value> = vec![&value["coordinates"]];
        for _ in 0..geometry.nesting {
            let arrays: Option<Vec<&Vec<Value>>> = level.iter().map(|value| value.as_array()).collect();
            let Some(arrays) = arrays else {
                return self.add(path, value, format!("a GeoJSON {} by its coordinates", geometry.name));
            };
            level = arrays.into_iter().flatten().collect();
        }
        if !level.iter().all(|number| number.is_number()) {
            self.add(path, value, format!("a GeoJSON {} by its coordinates", geometry.name));
        }
    }

    fn is_primitive(&self, value: &Value, primitive: Primitive) -> bool {
        let is_text = |of: fn(&str) -> bool| value.as_str().is_some_and(of);
        match primitive {
            Primitive::Boolean => value.is_boolean(),
            Primitive::Double => value.as_f64().is_some_and(f64::is_finite),
            // Between a float's largest number and the next that would be one, none is.
            Primitive::Float => value.as_f64().is_some_and(|number| number.abs() <= f64::from(f32::MAX)),
            Primitive::Integer => self.whole(value).is_some_and(|whole| i32::try_from(whole).is_ok()),
            Primitive::Long => self.whole(value).is_some(),
            Primitive::String => value.is_string(),
            Primitive::Date => is_text(calendar::is_date),
            Primitive::DateTime => is_text(calendar::is_date_time),
            Primitive::Time => is_text(calendar::is_time),
            Primitive::Duration => is_text(calendar::is_duration),
        }
    }

    /// A whole number of eight bytes.
    fn whole(&self, value: &Value) -> Option<i64> {
        // Integers are read as such first: a float would round those beyond 2^53.
        value.as_i64().or_else(|| {
            let number =
                value.as_f64().filter(|_| value.is_f64() && self.strictness == Strictness::IotCentral)?;
            // 2^63 itself is no i64.
            let is_whole = number.fract() == 0.0
                && (-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(&number);
            #[expect(clippy::cast_possible_truncation, reason = "whole and within i64, see above")]
            is_whole.then_some(number as i64)
        })
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
