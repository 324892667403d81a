//! Create options of a module: the body of Docker's ContainerCreate, read as IoT Edge and the engine read it.
//!
//! The text is read loosely ([`relaxed`]), and each key that the engine knows gets the engine's own spelling. What
//! is written twice, in whatever case, is merged as Go's decoder merges it, so that whoever reads the result
//! sees what the engine will do. Values of another type are converted as Newtonsoft.Json converts them for IoT Edge. Keys that are
//! not known here are kept as written.

mod relaxed;
mod shape;

use serde_json::{Map, Number, Value};

use self::relaxed::Node;
use self::shape::{BODY, BODY_OF_OLD_ENGINES, HOST_CONFIG, Member, Shape};
use super::field::kind as kind_of;
use crate::json::DEPTH_MAX;

/// A value that the engine would refuse, with its path below the create options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) path: String,
    pub(super) found: String,
    pub(super) allowed: &'static str,
}

/// A key that the engine's types do not have, or that engines ignore at its place.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) path: String,
    pub(super) key: String,
    /// The keys that the types have there; none for a key that belongs in `HostConfig`.
    pub(super) known: Vec<&'static str>,
}

/// Create options that were read.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) members: Map<String, Value>,
    /// The first value that the engine would refuse.
    pub(super) misfit: Option<Misfit>,
    pub(super) notes: Vec<Note>,
}

/// Why a text holds no create options.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Not even as Newtonsoft.Json reads JSON.
    NotJson(String),
    /// JSON that is no object.
    NotObject(String),
}

/// Reads a text. Blank texts and `null` are empty options.
pub(super) fn from_text(text: &str) -> Result<Options, Unreadable> {
    match relaxed::parse(text, DEPTH_MAX) {
        Ok(Node::Object(members)) => Ok(normalize(members)),
        Ok(Node::Null) => Ok(Options::default()),
        Ok(other) => Err(Unreadable::NotObject(found(&other))),
        Err(why) => Err(Unreadable::NotJson(why.to_string())),
    }
}

/// Reads an object, as templates have it.
pub(super) fn from_object(members: &Map<String, Value>) -> Options {
    normalize(members.iter().map(|(key, value)| (key.clone(), Node::of(value))).collect())
}

/// A key as the engine compares it: Go's JSON decoder takes any case, with `ſ` for s and the Kelvin sign for k.
pub fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Whether the engine's types have this key of the body, or of its `HostConfig`. A newer engine may have more.
pub fn is_known(is_in_host_config: bool, key: &str) -> bool {
    let members = if is_in_host_config { HOST_CONFIG } else { BODY };
    member(members, key).is_some()
}

fn member<'a>(members: &'a [Member], key: &str) -> Option<&'a Member> {
    let exact = members.iter().find(|(name, _)| *name == key);
    exact.or_else(|| members.iter().find(|(name, _)| fold(name) == fold(key)))
}

fn normalize(members: Vec<(String, Node)>) -> Options {
    let mut normalizer = Normalizer { path: Vec::new(), misfit: None, notes: Vec::new() };
    let members = normalizer.object(&[BODY, BODY_OF_OLD_ENGINES], Map::new(), members);
    Options { members, misfit: normalizer.misfit, notes: normalizer.notes }
}

struct Normalizer {
    path: Vec<String>,
    misfit: Option<Misfit>,
    notes: Vec<Note>,
}

impl Normalizer {
    /// Decodes `entries` over what stood there before, one after the other.
    fn object(
        &mut self,
        known: &[&'static [Member]],
        mut before: Map<String, Value>,
        entries: Vec<(String, Node)>,
    ) -> Map<String, Value> {
        for (key, node) in entries {
            self.path.push(key.clone());
            if let Some((name, shape)) = known.iter().find_map(|members| member(members, &key)) {
                let value = self.value(shape, before.remove(*name), node);
                before.insert((*name).to_owned(), value);
            } else {
                self.note(known, &key);
                // An engine that knows the key takes these for one.
                let former = before.keys().find(|other| fold(other) == fold(&key)).cloned();
                let former = former.and_then(|former| before.remove(&former));
                let value = match (former, self.value(&Shape::Any, None, node)) {
                    (Some(Value::Object(mut former)), Value::Object(later)) => {
                        former.extend(later);
                        Value::Object(former)
                    }
                    (_, later) => later,
                };
                before.insert(key, value);
            }
            self.path.pop();
        }
        before
    }

    fn note(&mut self, known: &[&'static [Member]], key: &str) {
        let is_body = known.len() > 1;
        let known = if is_body && member(HOST_CONFIG, key).is_some() {
            Vec::new()
        } else {
            known.iter().flat_map(|members| members.iter()).map(|(name, _)| *name).collect()
        };
        self.notes.push(Note { path: self.path.join("."), key: key.to_owned(), known });
    }

    /// A value decoded over the one before it, as Go's decoder does.
    fn value(&mut self, shape: &Shape, before: Option<Value>, node: Node) -> Value {
        match (shape, node) {
            (Shape::Text | Shape::Flag | Shape::Integer | Shape::Object(_), Node::Null) => {
                before.unwrap_or_default()
            }
            (_, Node::Null) => Value::Null,
            (Shape::Pointer(inner), node) => self.value(inner, before, node),
            (Shape::Object(members), Node::Object(entries)) => {
                Value::Object(self.object(&[members], object_or_empty(before), entries))
            }
            // Go decodes each entry of a map anew.
            (Shape::Map(inner), Node::Object(entries)) => {
                let mut members = object_or_empty(before);
                for (key, node) in entries {
                    self.path.push(key.clone());
                    members.insert(key, self.value(inner, None, node));
                    self.path.pop();
                }
                Value::Object(members)
            }
            // And each element of a list over the one that stood there.
            (Shape::List(inner), Node::Array(items)) => {
                let mut before = match before {
                    Some(Value::Array(items)) => items.into_iter(),
                    _ => Vec::new().into_iter(),
                };
                self.items(items, |normalizer, node| normalizer.value(inner, before.next(), node))
            }
            (Shape::Texts, Node::Array(items)) => {
                self.items(items, |normalizer, node| normalizer.value(&Shape::Text, None, node))
            }
            (Shape::Text | Shape::Texts, Node::Text(text)) => Value::String(text),
            (Shape::Text, Node::Number(text)) => Value::String(text),
            (Shape::Text, Node::Flag(flag)) => Value::String(flag.to_string()),
            (Shape::Flag, node) => self.flag(node),
            (Shape::Integer, node) => self.integer(node),
            (Shape::Any, node) => self.plain(node),
            (shape, node) => self.unfit(allowed(shape), node),
        }
    }

    fn items(&mut self, items: Vec<Node>, mut item: impl FnMut(&mut Self, Node) -> Value) -> Value {
        let mut values = Vec::with_capacity(items.len());
        for (index, node) in items.into_iter().enumerate() {
            self.path.push(index.to_string());
            values.push(item(self, node));
            self.path.pop();
        }
        Value::Array(values)
    }

    fn flag(&mut self, node: Node) -> Value {
        match node {
            Node::Flag(flag) => Value::Bool(flag),
            Node::Text(text) if text.trim().is_empty() => Value::Null,
            Node::Text(text) if text.trim().eq_ignore_ascii_case("true") => Value::Bool(true),
            Node::Text(text) if text.trim().eq_ignore_ascii_case("false") => Value::Bool(false),
            Node::Number(text) if whole(&text).is_some() => {
                Value::Bool(whole(&text) != Some(Number::from(0)))
            }
            node => self.unfit(allowed(&Shape::Flag), node),
        }
    }

    fn integer(&mut self, node: Node) -> Value {
        match node {
            Node::Flag(flag) => Value::from(u8::from(flag)),
            Node::Text(text) if text.trim().is_empty() => Value::Null,
            Node::Text(ref text) => match text.trim().parse::<i64>() {
                Ok(integer) => Value::from(integer),
                Err(_) => self.unfit(allowed(&Shape::Integer), node),
            },
            Node::Number(ref text) => match whole(text) {
                Some(integer) => Value::Number(integer),
                None => self.unfit(allowed(&Shape::Integer), node),
            },
            node => self.unfit(allowed(&Shape::Integer), node),
        }
    }

    /// A value as it is; of a key that is written twice the last.
    fn plain(&mut self, node: Node) -> Value {
        match node {
            Node::Null => Value::Null,
            Node::Flag(flag) => Value::Bool(flag),
            Node::Text(text) => Value::String(text),
            Node::Number(text) => relaxed::number(&text).map_or(Value::Null, Value::Number),
            Node::Array(items) => self.items(items, Self::plain),
            Node::Object(entries) => {
                Value::Object(entries.into_iter().map(|(key, node)| (key, self.plain(node))).collect())
            }
        }
    }

    fn unfit(&mut self, allowed: &'static str, node: Node) -> Value {
        let found = found(&node);
        // Noted and not refused here: a document with it is refused, a twin leaves out this module only (decision 0034).
        self.misfit.get_or_insert_with(|| Misfit { path: self.path.join("."), found, allowed });
        self.plain(node)
    }
}

fn object_or_empty(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// The integer that a number's text is, also when it is written as a float.
fn whole(text: &str) -> Option<Number> {
    /// From here on a float no longer holds every integer.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let number = relaxed::number(text)?;
    if number.is_i64() || number.is_u64() {
        return Some(number);
    }
    let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT_MAX)?;
    #[allow(clippy::cast_possible_truncation, reason = "the range was checked")]
    Some(Number::from(float as i64))
}

fn found(node: &Node) -> String {
    match node {
        Node::Null => kind_of(&Value::Null),
        Node::Flag(flag) => kind_of(&Value::Bool(*flag)),
        Node::Number(text) => text.clone(),
        Node::Text(_) => kind_of(&Value::String(String::new())),
        Node::Array(_) => kind_of(&Value::Array(Vec::new())),
        Node::Object(_) => kind_of(&Value::Object(Map::new())),
    }
}

fn allowed(shape: &Shape) -> &'static str {
    match shape {
        Shape::Text | Shape::Any => "write a text in double quotes",
        Shape::Flag => "write true or false",
        Shape::Integer => "write an integer",
        Shape::Texts => "write a text or an array of texts",
        Shape::List(_) => "write an array",
        Shape::Map(_) | Shape::Object(_) => "write an object",
        Shape::Pointer(inner) => allowed(inner),
    }
}
