//! What in a document has no effect, or another one than its author may think: mistyped keys, keys at the wrong place, old names.
//!
//! IoT Edge ignores keys that it does not know, and so does the reader here. A warning says so, and what may have been meant.

use std::fmt;

use serde_json::Value;

use super::create_options::Note;
use super::error::ROOT;
use super::field::{Field, Object};
use super::read;
use super::sections::{DESIRED, FORMER_ROOT, flat_part, modules_content};

/// The most warnings of one document.
const WARNINGS_MAX: usize = 100;

/// Something that the reader takes and its author should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Its place in the document.
    pub path: String,
    /// What it is, and what helps.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// Keys of an object, and what is below them.
enum Known {
    /// A value.
    Plain,
    Object(&'static [(&'static str, Known)]),
    /// Keys that the author chooses, each with this below it.
    Map(&'static Known),
    List(&'static Known),
    /// `settings` of a module, with its create options.
    Settings,
}

const MODULE: &[(&str, Known)] = &[
    ("type", Known::Plain),
    ("status", Known::Plain),
    ("restartPolicy", Known::Plain),
    ("imagePullPolicy", Known::Plain),
    ("startupOrder", Known::Plain),
    ("startAfter", Known::Map(&Known::Plain)),
    ("version", Known::Plain),
    ("env", Known::Map(&Known::Object(&[("value", Known::Plain)]))),
    ("settings", Known::Settings),
    ("configuration", Known::Plain),
];

const CREDENTIAL: &[(&str, Known)] =
    &[("username", Known::Plain), ("password", Known::Plain), ("address", Known::Plain)];

const AGENT: &[(&str, Known)] = &[
    ("schemaVersion", Known::Plain),
    (
        "runtime",
        Known::Object(&[
            ("type", Known::Plain),
            (
                "settings",
                Known::Object(&[
                    ("minDockerVersion", Known::Plain),
                    ("loggingOptions", Known::Plain),
                    ("registryCredentials", Known::Map(&Known::Object(CREDENTIAL))),
                ]),
            ),
        ]),
    ),
    (
        "systemModules",
        Known::Object(&[("edgeAgent", Known::Object(MODULE)), ("edgeHub", Known::Object(MODULE))]),
    ),
    ("modules", Known::Map(&Known::Object(MODULE))),
    ("failurePolicy", Known::Plain),
    ("integrity", Known::Plain),
];

const RULES: Known =
    Known::List(&Known::Object(&[("operations", Known::Plain), ("resources", Known::Plain)]));

const HUB: &[(&str, Known)] = &[
    ("schemaVersion", Known::Plain),
    (
        "routes",
        Known::Map(&Known::Object(&[
            ("route", Known::Plain),
            ("priority", Known::Plain),
            ("timeToLiveSecs", Known::Plain),
            ("full", Known::Plain),
        ])),
    ),
    (
        "storeAndForwardConfiguration",
        Known::Object(&[("timeToLiveSecs", Known::Plain), ("storeLimits", Known::Plain)]),
    ),
    (
        "mqttBroker",
        Known::Object(&[
            (
                "authorizations",
                Known::List(&Known::Object(&[
                    ("identities", Known::Plain),
                    ("allow", RULES),
                    ("deny", RULES),
                ])),
            ),
            ("bridges", Known::Plain),
        ]),
    ),
    ("integrity", Known::Plain),
];

/// Warnings of a document, in its order. A document that is refused may have some too.
pub(super) fn of(document: &Value) -> Vec<Warning> {
    let mut warnings = Warnings(Vec::new());
    if let Value::Object(members) = document {
        let top = Object { path: "manifest".into(), members };
        let content = top.object("content").ok().flatten();
        if [Some(top), content].into_iter().flatten().any(|object| object.get(FORMER_ROOT).is_some()) {
            warnings.add(FORMER_ROOT, format!("the key's former name; write `{ROOT}`"));
        }
    }
    let Ok(modules) = modules_content(document) else { return warnings.0 };
    for (name, content) in modules.fields() {
        let known = match name {
            "$edgeAgent" => Some(Known::Object(AGENT)),
            "$edgeHub" => Some(Known::Object(HUB)),
            _ => None,
        };
        let Ok(content) = content.object() else { continue };
        for (key, field) in content.fields() {
            match (key, flat_part(key)) {
                (_, Some(rest)) => warnings.flat(known.as_ref(), rest, &field),
                (key, None) if key.eq_ignore_ascii_case(DESIRED) => {
                    if let Some(known) = &known {
                        warnings.below(known, &field);
                    }
                }
                (key, None) => warnings.unknown(&field.path, key, [DESIRED].into_iter()),
            }
        }
    }
    warnings.0
}

struct Warnings(Vec<Warning>);

impl Warnings {
    fn add(&mut self, path: &str, text: String) {
        if self.0.len() < WARNINGS_MAX {
            self.0.push(Warning { path: path.to_owned(), text });
        }
    }

    fn unknown(&mut self, path: &str, key: &str, known: impl Iterator<Item = &'static str>) {
        let text = match nearest(key, known) {
            Some(meant) => format!("the key `{key}` is not known and has no effect; did you mean `{meant}`?"),
            None => format!("the key `{key}` is not known and has no effect"),
        };
        self.add(path, text);
    }

    /// A flat key: its parts lead to what it writes.
    fn flat(&mut self, known: Option<&Known>, rest: &str, field: &Field<'_>) {
        let Some(mut known) = known else { return };
        for part in rest.split('.') {
            known = match known {
                Known::Object(members) => {
                    match members.iter().find(|(name, _)| name.eq_ignore_ascii_case(part)) {
                        Some((_, below)) => below,
                        None => {
                            return self.unknown(&field.path, part, members.iter().map(|(name, _)| *name));
                        }
                    }
                }
                Known::Map(below) => below,
                Known::Plain | Known::List(_) | Known::Settings => return,
            };
        }
        self.below(known, field);
    }

    fn below(&mut self, known: &Known, field: &Field<'_>) {
        match (known, field.value) {
            (Known::Object(known), Value::Object(members)) => {
                let object = Object { path: field.path.clone(), members };
                for (key, field) in object.fields() {
                    match known.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
                        Some((_, below)) => self.below(below, &field),
                        // Keys with `$` are the twin's own, such as `$version`.
                        None if key.starts_with('$') => {}
                        None => self.unknown(&field.path, key, known.iter().map(|(name, _)| *name)),
                    }
                }
            }
            (Known::Map(below), Value::Object(members)) => {
                let object = Object { path: field.path.clone(), members };
                object.fields().for_each(|(_, field)| self.below(below, &field));
            }
            (Known::List(below), Value::Array(items)) => {
                for (n, value) in items.iter().enumerate() {
                    self.below(below, &Field { path: format!("{}[{n}]", field.path), value });
                }
            }
            (Known::Settings, Value::Object(members)) => {
                self.settings(&Object { path: field.path.clone(), members });
            }
            _ => {}
        }
    }

    fn settings(&mut self, settings: &Object<'_>) {
        const KEYS: [&str; 3] = ["image", "createOptions", "digest"];
        for (key, field) in settings.fields() {
            let folded = key.to_ascii_lowercase();
            let is_chunk = folded
                .strip_prefix("createoptions")
                .is_some_and(|number| number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()));
            if folded == "env" {
                self.add(&field.path, "has no effect here; write it beside `settings`".to_owned());
            } else if !is_chunk && !KEYS.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                self.unknown(&field.path, key, KEYS.into_iter());
            }
        }
        let Ok(Some(options)) = read::create_options(settings) else { return };
        for Note { path, key, known } in options.notes {
            let path = format!("{}.{path}", settings.path_of("createOptions"));
            let meant = nearest(&key, known.iter().copied());
            self.add(&path, match (known.is_empty(), meant) {
                (true, _) => format!("engines ignore `{key}` here; write it in `HostConfig`"),
                (false, Some(meant)) => {
                    format!("the key `{key}` is not known to Docker and is sent as it is; did you mean `{meant}`?")
                }
                (false, None) => format!("the key `{key}` is not known to Docker and is sent as it is"),
            });
        }
    }
}

/// The known key that a mistyped one was most likely meant to be.
fn nearest(key: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    /// No key of a manifest is longer, and the distance takes time by the square of the length.
    const LENGTH_MAX: usize = 40;
    let folded: Vec<char> = key.to_lowercase().chars().take(LENGTH_MAX + 1).collect();
    if folded.len() > LENGTH_MAX {
        return None;
    }
    let distances = known.map(|name| {
        let name_folded: Vec<char> = name.to_lowercase().chars().collect();
        (distance(&folded, &name_folded), name)
    });
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    // Short keys would be near to many others by two changes.
    (distance <= 2.min(name.len() / 3).max(1)).then_some(name)
}

/// Characters to insert, delete, replace or swap with their neighbours to make one text of the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let is_other = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + is_other);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
