//! The keys of a configuration, as its types say (JSON Schema): for docs/configuration.md, and for tests that try every key.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde_json::Value;

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Sections and key with dots, for example `deploy.policy.devices`. `NAME` stands for names of the operator's choice.
    pub path: String,
    /// What may be written.
    pub kind: Kind,
    /// What counts when it is left out, as TOML or as text; `None` when the meaning tells.
    pub default: Option<String>,
    /// Whether the program refuses to start without it.
    pub is_required: bool,
    /// What it does.
    pub meaning: String,
}

/// What may be written for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer,
    /// A number with a fraction.
    Number,
    Text,
    /// One of these texts.
    OneOf(Vec<String>),
    /// A list of texts.
    List,
    /// As text; a text or a list of texts.
    Described(String),
}

/// All keys of a configuration type, sections in the order of the alphabet. Docstrings are their meanings. `#[schemars(extend(…))]`
/// with `x-default` or `x-type` tells as text what no type can.
pub fn keys<T: JsonSchema>() -> Vec<Key> {
    let schema = schemars::schema_for!(T).to_value();
    let mut keys = Vec::new();
    Walk { root: &schema, keys: &mut keys }.table(&schema, "");
    keys.sort_by(|a, b| (a.section(), &a.path).cmp(&(b.section(), &b.path)));
    keys
}

struct Walk<'a> {
    root: &'a Value,
    keys: &'a mut Vec<Key>,
}

impl<'a> Walk<'a> {
    /// A schema behind its reference and without its `null`.
    fn resolved(&self, schema: &'a Value) -> &'a Value {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            return self.resolved(&self.root["$defs"][name]);
        }
        let some =
            schema["anyOf"].as_array().and_then(|of| of.iter().find(|schema| schema["type"] != "null"));
        some.map_or(schema, |schema| self.resolved(schema))
    }

    fn table(&mut self, schema: &'a Value, prefix: &str) {
        let is_required =
            |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&name.into()));
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let (path, of) = (format!("{prefix}{name}"), self.resolved(field));
            if of["properties"].is_object() {
                self.table(of, &format!("{path}."));
            } else if of["additionalProperties"].is_object() {
                let entry = self.resolved(&of["additionalProperties"]);
                self.table(entry, &format!("{path}.NAME."));
            } else {
                let meaning =
                    field["description"].as_str().or(of["description"].as_str()).unwrap_or_default();
                let meaning = meaning.split("\n\n").next().unwrap_or_default().replace('\n', " ");
                let is_required = is_required(name);
                self.keys.push(Key {
                    path,
                    kind: kind(field, of),
                    default: default(field),
                    is_required,
                    meaning,
                });
            }
        }
    }
}

fn kind(field: &Value, of: &Value) -> Kind {
    if let Some(text) = field["x-type"].as_str().or(of["x-type"].as_str()) {
        return Kind::Described(text.to_owned());
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let variants = of["enum"].as_array().map(|all| all.iter().filter_map(text).collect());
    // Variants with docstrings.
    let described =
        || of["oneOf"].as_array().map(|all| all.iter().filter_map(|one| text(&one["const"])).collect());
    if let Some(variants) = variants.or_else(described) {
        return Kind::OneOf(variants);
    }
    let of_type = of["type"]
        .as_str()
        .or_else(|| of["type"].as_array()?.iter().find_map(|of| of.as_str().filter(|of| *of != "null")));
    match of_type {
        Some("boolean") => Kind::Flag,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("array") => Kind::List,
        _ => Kind::Text,
    }
}

fn default(field: &Value) -> Option<String> {
    match (&field["x-default"], &field["default"]) {
        (Value::String(text), _) => Some(text.clone()),
        // TOML writes texts, numbers and lists of texts as JSON does.
        (_, Value::Null) => None,
        (_, value) => Some(format!("`{value}`")),
    }
}

impl Key {
    /// Name of its section, in brackets above it; empty at the top of the file.
    pub fn section(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Its name without its section.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(_, name)| name)
    }

    /// The variable that overrides it.
    pub fn variable(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.path.replace('.', "__").to_uppercase())
    }

    /// The unit of its number, as its name says; empty for none.
    fn unit(&self) -> &'static str {
        let (name, is_number) = (self.name(), matches!(self.kind, Kind::Integer | Kind::Number));
        match (name.contains("bytes"), name.contains("per_second")) {
            _ if !is_number => "",
            (true, true) => "bytes/s",
            (true, false) => "bytes",
            (false, true) => "1/s",
            _ if name.ends_with("_secs") || name.ends_with("_seconds") => "s",
            _ if name.ends_with("_hour") => "h",
            _ => "",
        }
    }

    /// Its value other than the default: as TOML, and as a variable has it. A text looks like a number, since those are taken for one
    /// most easily.
    pub fn sample(&self) -> (String, String) {
        match &self.kind {
            Kind::Flag => {
                let other = self.default.as_deref() != Some("`true`");
                (other.to_string(), other.to_string())
            }
            Kind::Integer | Kind::Number => ("7".to_owned(), "7".to_owned()),
            Kind::Text => ("\"123\"".to_owned(), "123".to_owned()),
            Kind::OneOf(all) => {
                let last = all.last().map_or("", String::as_str);
                (format!("\"{last}\""), last.to_owned())
            }
            Kind::List | Kind::Described(_) => ("[\"/a\", \"/5\"]".to_owned(), "/a, /5".to_owned()),
        }
    }
}

fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Integer => "whole number".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::OneOf(all) => all.iter().map(|one| format!("`\"{one}\"`")).collect::<Vec<_>>().join(", "),
        Kind::List => "list of texts".to_owned(),
        Kind::Described(text) => text.clone(),
    }
}

/// One Markdown table for each section.
pub fn tables(keys: &[Key], prefix: &str) -> String {
    let mut text = String::new();
    let mut section = None;
    // Writing to a String cannot fail.
    for key in keys {
        if section != Some(key.section()) {
            section = Some(key.section());
            let heading = match key.section() {
                "" => "At the top".to_owned(),
                section => format!("`[{section}]`"),
            };
            let _ = write!(
                text,
                "\n### {heading}\n\n| Key | Type | Default | Unit | Environment variable | Meaning |\n|---|---|---|---|---|---|\n"
            );
        }
        let default = match (&key.default, key.is_required) {
            (_, true) => "required",
            (Some(default), false) => default,
            (None, false) => "",
        };
        let cells = [
            format!("`{}`", key.name()),
            kind_text(&key.kind),
            default.to_owned(),
            key.unit().to_owned(),
            format!("`{}`", key.variable(prefix)),
            key.meaning.clone(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// The page with `block` between its lines `<!-- NAME: begin -->` and `<!-- NAME: end -->`; `None` when it has no such lines.
pub fn with_block(page: &str, name: &str, block: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->\n"));
    let (head, rest) = page.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}{block}\n{end}{tail}"))
}
