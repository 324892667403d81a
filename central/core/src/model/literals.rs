//! Values of properties that are no elements: strings, numbers, booleans and localised text, also in the form of JSON-LD
//! (`{"@type": "xsd:integer", "@value": 3}`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value};

use super::dtmi;
use super::problem::{Problems, Rule};

/// Text by language code.
pub type Localized = BTreeMap<String, String>;

/// The language of text that names none.
const DEFAULT_LANGUAGE: &str = "en";
const XSD: &str = "http://www.w3.org/2001/XMLSchema#";
pub const NAME_LENGTH_MAX: usize = 64;

/// A string or a whole number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Literal {
    Text(String),
    Integer(i32),
    Boolean(bool),
    Localized(Localized),
}

/// Position of a property, and the list for its problems.
pub struct Place<'p> {
    pub element: &'p str,
    pub property: &'static str,
    pub path: &'p str,
    pub problems: &'p mut Problems,
}

impl Place<'_> {
    pub fn add(&mut self, rule: Rule, message: impl AsRef<str>) {
        let message = format!("`{}` {}", self.property, message.as_ref());
        self.problems.add(Some(self.element), self.path, rule, message);
    }
}

/// The values of a property: one, or those of an array, arrays in it included.
pub fn values(value: &Value) -> Vec<&Value> {
    let (mut values, mut left) = (Vec::new(), vec![value]);
    while let Some(value) = left.pop() {
        match value {
            // Reversed because the last one is taken from the stack first: problems are reported in the order of the document.
            Value::Array(items) => left.extend(items.iter().rev()),
            value => values.push(value),
        }
    }
    values
}

/// The one value of a property that has at most one.
fn single<'v>(
    value: &'v Value,
    rules: (Rule, Rule),
    required: bool,
    place: &mut Place<'_>,
) -> Option<&'v Value> {
    let values = values(value);
    match *values.as_slice() {
        [] if required => {
            place.add(rules.0, "has no value");
            None
        }
        [] => None,
        [value] => Some(value),
        _ => {
            place.add(rules.1, format!("has {} values; one is allowed", values.len()));
            None
        }
    }
}

/// How literals of one kind are written, and which rules say so.
struct Form {
    noun: &'static str,
    xsd: &'static str,
    not: Rule,
    type_not: Rule,
    value_not: Rule,
    no_value: Rule,
    is: fn(&Value) -> bool,
}

const TEXT: Form = Form {
    noun: "a string",
    xsd: "string",
    not: Rule::StringNotString,
    type_not: Rule::StringTypeNotString,
    value_not: Rule::StringValueNotString,
    no_value: Rule::StringObjectNoValue,
    is: Value::is_string,
};
const INTEGER: Form = Form {
    noun: "a whole number",
    xsd: "integer",
    not: Rule::IntegerNotInteger,
    type_not: Rule::IntegerTypeNotInteger,
    value_not: Rule::IntegerValueNotInteger,
    no_value: Rule::IntegerObjectNoValue,
    is: |value| as_i32(value).is_some(),
};
const BOOLEAN: Form = Form {
    noun: "a boolean",
    xsd: "boolean",
    not: Rule::BooleanNotBoolean,
    type_not: Rule::BooleanTypeNotBoolean,
    value_not: Rule::BooleanValueNotBoolean,
    no_value: Rule::BooleanObjectNoValue,
    is: Value::is_boolean,
};

/// A whole number of four bytes; `3.0` is one in a model.
fn as_i32(value: &Value) -> Option<i32> {
    let whole = value.as_i64().or_else(|| {
        // 1e10 is beyond every number of four bytes and exact in a float, so the conversion below loses nothing.
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e10)?;
        #[expect(clippy::cast_possible_truncation, reason = "whole, and below 1e10")]
        Some(number as i64)
    });
    whole.and_then(|whole| i32::try_from(whole).ok())
}

/// Refuses what a value object of JSON-LD may not have.
fn check_value_object(object: &Map<String, Value>, place: &mut Place<'_>) {
    for name in object.keys() {
        let rule = match name.as_str() {
            "@context" => Rule::ValueObjectContext,
            "@id" => Rule::ValueObjectId,
            "@graph" => Rule::ValueObjectGraph,
            name if name.starts_with('@') => continue,
            _ => Rule::ValueObjectInvalidProperty,
        };
        place.add(rule, format!("is an object with `{name}`; only `@type` and `@value` are allowed"));
    }
}

/// The types of a value object; `None` when it has not exactly one.
fn declared_type<'v>(object: &'v Map<String, Value>, place: &mut Place<'_>) -> Option<Option<&'v str>> {
    let Some(types) = object.get("@type") else { return Some(None) };
    let types = match types {
        Value::Array(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    if let [Value::String(single)] = types {
        return Some(Some(single));
    }
    place.add(Rule::LiteralTypeNotSingular, "has a value object whose `@type` is not one string");
    None
}

impl Form {
    fn is_declared(&self, declared: &str) -> bool {
        declared.strip_prefix("xsd:").or_else(|| declared.strip_prefix(XSD)) == Some(self.xsd)
    }

    /// The value itself, out of its value object when it has one.
    fn value<'v>(&self, value: &'v Value, place: &mut Place<'_>) -> Option<&'v Value> {
        let Value::Object(object) = value else {
            if (self.is)(value) {
                return Some(value);
            }
            place.add(self.not, format!("is {}; it must be {}", shown(value), self.noun));
            return None;
        };
        check_value_object(object, place);
        let Some(inner) = object.get("@value") else {
            place.add(self.no_value, "is an object without `@value`");
            return None;
        };
        let declared = declared_type(object, place)?;
        if let Some(wrong) = declared.filter(|declared| !self.is_declared(declared)) {
            place.add(self.type_not, format!("is of type {wrong}; it must be {}", self.noun));
            return None;
        }
        if !(self.is)(inner) {
            place.add(self.value_not, format!("is {}; it must be {}", shown(inner), self.noun));
            return None;
        }
        Some(inner)
    }
}

/// A value in a message, cut short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
}

/// A string of at most `length_max` characters.
pub fn text(value: &Value, length_max: usize, required: bool, place: &mut Place<'_>) -> Option<String> {
    let value = single(value, (Rule::StringCountBelowMin, Rule::StringMultipleValues), required, place)?;
    let text = TEXT.value(value, place)?.as_str()?;
    // As .NET counts: in units of UTF-16.
    let length = text.encode_utf16().count();
    if length > length_max {
        place.add(Rule::StringTooLong, format!("has {length} characters; at most {length_max} are allowed"));
    }
    Some(text.to_owned())
}

/// The name of an element.
pub fn name(value: &Value, place: &mut Place<'_>) -> Option<String> {
    let name = text(value, NAME_LENGTH_MAX, true, place)?;
    if !dtmi::is_name(&name) {
        let message = format!(
            "is {name:?}; it may hold letters, digits and underscores, must begin with a letter and not end with an \
             underscore"
        );
        place.add(Rule::StringInvalid, message);
    }
    Some(name)
}

pub fn boolean(value: &Value, place: &mut Place<'_>) -> Option<bool> {
    let value = single(value, (Rule::BooleanCountBelowMin, Rule::BooleanMultipleValues), false, place)?;
    BOOLEAN.value(value, place)?.as_bool()
}

pub fn integer(value: &Value, min: i64, max: i64, place: &mut Place<'_>) -> Option<i32> {
    let value = single(value, (Rule::IntegerCountBelowMin, Rule::IntegerMultipleValues), false, place)?;
    let number = as_i32(INTEGER.value(value, place)?)?;
    let wide = i64::from(number);
    if min == max && wide != min {
        place.add(Rule::ValueNotExact, format!("is {number}; it must be {min}"));
    } else if wide < min {
        place.add(Rule::ValueBelowRange, format!("is {number}; it must be from {min} to {max}"));
    } else if wide > max {
        place.add(Rule::ValueAboveRange, format!("is {number}; it must be from {min} to {max}"));
    }
    Some(number)
}

/// The value of an EnumValue: a string or a whole number.
pub fn enum_value(value: &Value, place: &mut Place<'_>) -> Option<Literal> {
    let value = single(value, (Rule::LiteralCountBelowMin, Rule::LiteralMultipleValues), true, place)?;
    let inner = match value {
        Value::Object(object) => {
            check_value_object(object, place);
            let Some(inner) = object.get("@value") else {
                place.add(Rule::LiteralObjectNoValue, "is an object without `@value`");
                return None;
            };
            if let Some(declared) = declared_type(object, place)? {
                let form = [&TEXT, &INTEGER].into_iter().find(|form| form.is_declared(declared));
                let Some(form) = form else {
                    place.add(
                        Rule::LiteralNotValid,
                        format!("is of type {declared}; it must be a string or an integer"),
                    );
                    return None;
                };
                if !(form.is)(inner) {
                    place.add(form.value_not, format!("is {}; it must be {}", shown(inner), form.noun));
                    return None;
                }
            }
            inner
        }
        plain => plain,
    };
    if let Some(text) = inner.as_str() {
        return Some(Literal::Text(text.to_owned()));
    }
    let number = as_i32(inner).map(Literal::Integer);
    if number.is_none() {
        place.add(
            Rule::LiteralNotValid,
            format!("is {}; it must be a string or a whole number", shown(inner)),
        );
    }
    number
}

/// An identifier that need not be defined.
pub fn identifier(value: &Value, place: &mut Place<'_>) -> Option<String> {
    let value = single(value, (Rule::IdentifierCountBelowMin, Rule::IdentifierMultipleValues), false, place)?;
    let Some(text) = value.as_str() else {
        place.add(Rule::IdentifierNotString, format!("is {}; it must be a DTMI", shown(value)));
        return None;
    };
    if !dtmi::is_user(text) {
        place.add(
            Rule::IdentifierNotDtmi,
            format!("is {text:?}, which is no DTMI of this version of the language"),
        );
    }
    Some(text.to_owned())
}

/// Text in one or more languages: a string, an object by language, or an array of `{"@language", "@value"}`.
pub fn localized(value: &Value, length_max: usize, place: &mut Place<'_>) -> Localized {
    match value {
        Value::Object(map) => language_map(map, length_max, place),
        value => language_tagged(value, length_max, place),
    }
}

/// The form of a language code: `en`, `zh-Hans`, `pt-BR`, `zh-Hans-CN`, `es-419`.
fn is_language(code: &str) -> bool {
    let all = |part: &str, of: fn(&u8) -> bool| part.as_bytes().iter().all(of);
    let mut parts = code.split('-');
    let is_first = |part: &str| (2..=4).contains(&part.len()) && all(part, u8::is_ascii_lowercase);
    if !parts.next().is_some_and(is_first) {
        return false;
    }
    let is_script = |part: &str| {
        part.len() == 4 && all(&part[..1], u8::is_ascii_uppercase) && all(&part[1..], u8::is_ascii_lowercase)
    };
    let is_region = |part: &str| {
        (part.len() == 2 && all(part, u8::is_ascii_uppercase))
            || (part.len() == 3 && all(part, u8::is_ascii_digit))
    };
    let rest: Vec<&str> = parts.collect();
    match *rest.as_slice() {
        [] => true,
        // `is_script` cuts the text at a byte, which would panic within a character of several bytes.
        [one] => one.is_ascii() && (is_script(one) || is_region(one)),
        [script, region] => script.is_ascii() && is_script(script) && is_region(region),
        _ => false,
    }
}

fn check_length(text: &str, length_max: usize, place: &mut Place<'_>) {
    // As in `text`: the limits of the language are in units of UTF-16.
    let length = text.encode_utf16().count();
    if length > length_max {
        let message = format!("has text of {length} characters; at most {length_max} are allowed");
        place.add(Rule::LangStringValueTooLong, message);
    }
}

fn language_map(map: &Map<String, Value>, length_max: usize, place: &mut Place<'_>) -> Localized {
    let mut texts = Localized::new();
    // Without this case both names would be reported as keywords, and not that the object must be in an array.
    if map.len() == 2 && map.contains_key("@language") && map.get("@value").is_some_and(Value::is_string) {
        let message = "is one object with `@language` and `@value`, which must stand in an array";
        place.add(Rule::LangTagValueInLangMap, message);
        return texts;
    }
    for (code, value) in map {
        if code.starts_with('@') {
            place.add(
                Rule::LangMapKeyword,
                format!("has `{code}`; an object of texts has language codes alone"),
            );
            continue;
        }
        if !is_language(code) {
            place.add(Rule::LangStringInvalidCode, format!("has {code:?}, which is no language code"));
        }
        match value {
            Value::String(text) => {
                check_length(text, length_max, place);
                texts.insert(code.clone(), text.clone());
            }
            other => {
                let message = format!("has {} for {code:?}; it must be a string", shown(other));
                place.add(Rule::LangStringValueNotString, message);
            }
        }
    }
    texts
}

fn language_tagged(value: &Value, length_max: usize, place: &mut Place<'_>) -> Localized {
    let mut texts = Localized::new();
    for value in values(value) {
        let (code, text) = match value {
            Value::String(text) => (DEFAULT_LANGUAGE.to_owned(), Some(text.clone())),
            Value::Object(object) => tagged(object, place),
            other => {
                let message =
                    format!("has {}; text must be a string, an object by language or an array", shown(other));
                place.add(Rule::LangElementNotStringOrObject, message);
                continue;
            }
        };
        if let Some(text) = &text {
            check_length(text, length_max, place);
        }
        match texts.entry(code) {
            Entry::Vacant(free) => {
                free.insert(text.unwrap_or_default());
            }
            Entry::Occupied(taken) => {
                place.add(Rule::LangElementCodeNotUnique, format!("has two texts for {:?}", taken.key()));
            }
        }
    }
    texts
}

fn tagged(object: &Map<String, Value>, place: &mut Place<'_>) -> (String, Option<String>) {
    for name in object.keys() {
        let rule = match name.as_str() {
            "@language" | "@value" => continue,
            "@context" => Rule::LangElementContext,
            "@id" => Rule::LangElementId,
            "@graph" => Rule::LangElementGraph,
            name if name.starts_with('@') => continue,
            _ => Rule::LangElementInvalidProperty,
        };
        place.add(rule, format!("has an object with `{name}`; only `@language` and `@value` are allowed"));
    }
    let code = match object.get("@language") {
        None => DEFAULT_LANGUAGE.to_owned(),
        Some(Value::String(code)) => {
            if !is_language(code) {
                place.add(Rule::LangElementInvalidCode, format!("has {code:?}, which is no language code"));
            }
            code.clone()
        }
        Some(other) => {
            let message = format!("has {} as `@language`; it must be a string", shown(other));
            place.add(Rule::LangElementCodeNotString, message);
            // Kept as a code of its own, so that the text is not reported as a second one in the default language.
            other.to_string()
        }
    };
    let text = match object.get("@value") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => {
            let message = format!("has {} as `@value`; it must be a string", shown(other));
            place.add(Rule::LangElementValueNotString, message);
            None
        }
        None => {
            place.add(Rule::LangElementNoValue, "has an object without `@value`");
            None
        }
    };
    (code, text)
}
