//! Properties that name one of a few elements of the language: `commandType`, `valueSchema`.

use serde_json::Value;

use super::dtmi;
use super::literals::{self, Place};
use super::problem::Rule;
use super::semantics;
use super::vocabulary;

/// The term that a property names.
pub fn read(
    value: &Value,
    prefix: &str,
    terms: &'static [&'static str],
    required: bool,
    place: &mut Place<'_>,
) -> Option<&'static str> {
    let allowed = terms.join(" or ");
    let values = literals::values(value);
    let text = match *values.as_slice() {
        [Value::String(text)] => text,
        [] => {
            if required {
                place.add(Rule::ObjectCountBelowMin, format!("has no value; it must be {allowed}"));
            }
            return None;
        }
        [Value::Object(_)] => {
            place.add(Rule::BadType, format!("is an object; it must be {allowed}"));
            return None;
        }
        [_] => {
            place.add(Rule::RefNotStringOrObject, format!("must be {allowed}"));
            return None;
        }
        _ => {
            place.add(Rule::ObjectMultipleValues, format!("has {} values; one is allowed", values.len()));
            return None;
        }
    };
    let name = dtmi::of_iri(prefix, text).unwrap_or(text);
    let found = terms.iter().copied().find(|term| *term == name);
    if found.is_none() {
        // Microsoft's parser has one rule for what is no term at all, and others for a wrong term.
        let is_term = vocabulary::is_term_without_type(text, true) || dtmi::is_user(text);
        let rule = match terms {
            _ if !is_term => Rule::BadDtmiOrTerm,
            // All but one schema are of another class.
            [_] => Rule::BadType,
            _ => Rule::IncorrectPropertyValue,
        };
        place.add(rule, format!("is {text:?}; it must be {allowed}"));
    }
    found
}

/// The unit that a property names, one of the type `expected`.
pub fn unit(value: &Value, expected: &str, place: &mut Place<'_>) -> Option<&'static str> {
    let values = literals::values(value);
    let (rule, message) = match *values.as_slice() {
        [Value::String(text)] => match semantics::unit(text) {
            Some((unit, unit_type)) if unit_type == expected => return Some(unit),
            Some((_, unit_type)) => {
                let message = format!("is {text:?}, a {unit_type}; it must be a {expected}");
                (Rule::SchemaNotRequiredType, message)
            }
            None if vocabulary::is_term_without_type(text, true) || dtmi::is_user(text) => {
                (Rule::SchemaNotRequiredType, format!("is {text:?}; it must be a {expected}"))
            }
            None => (Rule::BadDtmiOrTerm, format!("is {text:?}, which names no unit")),
        },
        [] => (Rule::ObjectCountBelowMin, "has no value".to_owned()),
        [Value::Object(_)] => (Rule::BadType, "is an object; a unit can be named, not defined".to_owned()),
        [_] => (Rule::RefNotStringOrObject, "must be the name of a unit".to_owned()),
        _ => (Rule::ObjectMultipleValues, format!("has {} values; one is allowed", values.len())),
    };
    place.add(rule, message);
    None
}
