//! Hides secrets in JSON and in text from those who may only read: by the names of fields, by where they stand in a manifest,
//! and by forms that only secrets have.
//!
//! What is doubtful is hidden: a viewer loses a value, an operator sees it.
//!
//! | Hidden | By |
//! |---|---|
//! | everything under `password`, `apiKey`, `connectionString`, … | the field's name ([`is_secret_name`]) |
//! | `value`, `request`, `response` and `error` beside such a `name` | the row's name |
//! | `registryCredentials`, except addresses | its place |
//! | values of `env` | its place |
//! | texts in `createOptions` (as text, in parts, or as an object), except those of [`PUBLIC_OPTIONS`] | its place |
//! | `SharedAccessKey=…`, `sig=…`, `--password …`, `<password>…`, `https://user:…@host`, `Bearer …`, private keys, JSON Web Tokens | the text's form |
//! | base64, of either alphabet, of a text in which something would be hidden | what it stands for |

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine as _, alphabet};
use schemas::redaction::MARK;
use serde_json::{Map, Value};

/// JSON in a text in JSON in a text and so on is read this deep; a text beyond is hidden whole.
const TEXTS_MAX: u8 = 4;

/// Parts of a name that are secret wherever they stand in it, written without separators.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passwort",
    "kennwort",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "credential",
    "connectionstring",
    "connstr",
    "sharedaccess",
    "authorization",
];
/// Words that are secret on their own.
const SECRET_WORDS: &[&str] =
    &["pw", "psk", "sas", "sig", "signature", "jwt", "auth", "auths", "bearer", "cookie"];
/// Ends of words that are secret: `apikey`, `DBPASS`.
const SECRET_ENDS: &[&str] = &["key", "keys", "pass"];
/// What stands before such an end, in the same word or in another one, and makes it harmless: `publicKey`, `bypass`.
const HARMLESS_STEMS: &[&str] = &[
    "public",
    "partition",
    "routing",
    "sort",
    "foreign",
    "message", // keys
    "mon",
    "tur",
    "don",
    "hoc",
    "joc",
    "whis",
    "hot", // words
    "by",
    "com",
    "sur",
    "tres",
    "over",
    "under",
    "low",
    "high",
    "band",
];
/// Names with a secret part that are none.
const PUBLIC_NAMES: &[&str] = &["skiptoken"];

/// Docker's create options whose texts are shown. All others may carry what a module is told at its start.
const PUBLIC_OPTIONS: &[&str] = &[
    "binds",
    "bridge",
    "capadd",
    "capdrop",
    "cgroupparent",
    "cgrouppermissions",
    "destination",
    "dns",
    "dnssearch",
    "domainname",
    "extrahosts",
    "hostip",
    "hostname",
    "hostport",
    "image",
    "ipcmode",
    "isolation",
    "macaddress",
    "maskedpaths",
    "name",
    "networkmode",
    "pathincontainer",
    "pathonhost",
    "pidmode",
    "readonlypaths",
    "runtime",
    "securityopt",
    "source",
    "stopsignal",
    "target",
    "type",
    "user",
    "usernsmode",
    "utsmode",
    "volumesfrom",
    "workingdir",
];

/// What a row holds of the thing that its `name` names: `{"name": "apiKey", "value": …}`.
const ROW_FIELDS: [&str; 4] = ["value", "request", "response", "error"];

/// What a value is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Secrets are known by their names and forms.
    Plain,
    Secret,
    /// The environment of a module: its texts are hidden, and whatever stands as a `value`.
    Environment,
    /// `registryCredentials`: hidden, except addresses.
    Registries,
    /// `createOptions`: texts are hidden, except those of [`PUBLIC_OPTIONS`].
    Options,
}

impl Place {
    /// The place of what stands under `name`, which may be a path with dots, as in the flat keys of layered manifests.
    fn under(self, name: &str) -> Self {
        name.split('.').fold(self, |place, name| place.under_segment(name))
    }

    fn under_segment(self, name: &str) -> Self {
        let plain = letters(name);
        match self {
            Self::Secret => Self::Secret,
            Self::Registries if plain == "address" => Self::Plain,
            Self::Registries => Self::Registries,
            Self::Options if PUBLIC_OPTIONS.contains(&plain.as_str()) => Self::Plain,
            Self::Options => Self::Options,
            Self::Environment if plain == "value" => Self::Secret,
            _ if plain == "registrycredentials" => Self::Registries,
            _ if is_secret_name(name) => Self::Secret,
            Self::Environment => Self::Environment,
            Self::Plain if plain == "env" || plain.starts_with("environmentvar") => Self::Environment,
            Self::Plain if is_create_options(&plain) => Self::Options,
            Self::Plain => Self::Plain,
        }
    }
}

/// Whether a field of this name holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    let plain = letters(name);
    if PUBLIC_NAMES.contains(&plain.as_str()) {
        return false;
    }
    let words = words(name);
    let is_harmless = |stem: &str| HARMLESS_STEMS.contains(&stem);
    let ends_secret = |word: &str| {
        let stem = SECRET_ENDS.iter().find_map(|end| word.strip_suffix(end));
        stem.is_some_and(|stem| {
            !is_harmless(stem) && (!stem.is_empty() || !words.iter().any(|word| is_harmless(word)))
        })
    };
    SECRET_PARTS.iter().any(|part| plain.contains(part))
        || words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()) || ends_secret(word))
}

/// A name without separators and case.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The words of `camelCase`, `snake_case`, `kebab-case` and `HTTPServer`, in lower case and without digits at their ends.
fn words(name: &str) -> Vec<String> {
    let characters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (at, character) in characters.iter().enumerate() {
        let follows_lower = at > 0 && characters[at - 1].is_ascii_lowercase();
        let leads_lower = at > 0 && characters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if !character.is_ascii_alphanumeric()
            || (character.is_ascii_uppercase() && (follows_lower || leads_lower))
        {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| character.is_ascii_alphanumeric()) {
            word.push(character.to_ascii_lowercase());
        }
    }
    words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).collect()
}

/// `createOptions`, or one of its parts, `createOptions01`.
fn is_create_options(plain: &str) -> bool {
    plain.strip_prefix("createoptions").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
}

/// Which fields of an answer are named by its request's path, and how: the value of `/telemetry/{name}`, and what went and
/// came with `/commands/{name}`.
#[derive(Debug, Clone, Default)]
pub struct Named {
    name: String,
    fields: &'static [&'static str],
    /// The component of whose twin or messages all of it is.
    component: Option<String>,
}

impl Named {
    /// By the path of a request, percent-encoded as it came.
    pub fn of_path(path: &str) -> Self {
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let fields: &'static [&'static str] = match segments.as_slice() {
            [.., "telemetry", _] => &["value"],
            [.., "commands", _] => &["request", "response", "error"],
            _ => &[],
        };
        let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
        let component = match segments.as_slice() {
            [.., "components", component, "properties"]
            | [.., "components", component, "telemetry" | "commands", _] => Some(decode(component)),
            _ => None,
        };
        Self { name: decode(segments.last().copied().unwrap_or_default()), fields, component }
    }
}

/// Hides the secrets of a JSON document.
pub fn document(value: &mut Value, named: &Named) {
    let place = named.component.as_ref().map_or(Place::Plain, |component| Place::Plain.under(component));
    Walk { named, texts: 0 }.value(value, place);
}

/// Hides the secrets of a text.
pub fn text(text: &str) -> String {
    let named = Named::default();
    Walk { named: &named, texts: 0 }.text(text, Place::Plain)
}

struct Walk<'a> {
    named: &'a Named,
    /// How many texts that hold JSON are around.
    texts: u8,
}

impl Walk<'_> {
    fn value(&self, value: &mut Value, place: Place) {
        match value {
            Value::Object(fields) => self.object(fields, place),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item, place)),
            Value::String(text) => *text = self.text(text, place),
            Value::Number(_) if matches!(place, Place::Secret | Place::Registries) => *value = MARK.into(),
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    fn object(&self, fields: &mut Map<String, Value>, place: Place) {
        if place == Place::Plain {
            join_create_options(fields);
        }
        let row_name = fields.get("name").and_then(Value::as_str).map(str::to_owned);
        for (name, mut value) in std::mem::take(fields) {
            let is_named = self.named.fields.contains(&name.as_str());
            let outer = match &row_name {
                _ if is_named => place.under(&self.named.name),
                Some(row_name) if ROW_FIELDS.contains(&name.as_str()) => place.under(row_name),
                _ => place,
            };
            self.field(&name, &mut value, outer.under(&name));
            fields.insert(hide_forms(&name), value);
        }
    }

    fn field(&self, name: &str, value: &mut Value, place: Place) {
        match value {
            Value::String(base64) if name == "bodyBase64" => {
                let decoded = STANDARD.decode(&*base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                if let Some(decoded) = decoded {
                    *base64 = STANDARD.encode(self.text(&decoded, place));
                }
            }
            value => self.value(value, place),
        }
    }

    /// Hides base64 of what would be hidden as a text. It may be broken into lines, and stand behind a path.
    fn hide_encoded(&self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_base64) {
            shown.push_str(&rest[..start]);
            rest = &rest[start..];
            let mut end = rest.find(|c: char| !is_base64(c)).unwrap_or(rest.len());
            let line = end;
            // The lines after it, when they are of the same length or the last one.
            while let Some(next) = rest[end..].strip_prefix("\r\n").or_else(|| rest[end..].strip_prefix('\n'))
            {
                let length = next.find(|c: char| !is_base64(c)).unwrap_or(next.len());
                if length == 0 || length > line {
                    break;
                }
                end = rest.len() - next.len() + length;
                if length < line {
                    break;
                }
            }
            let run = &rest[..end];
            let starts = run.match_indices(['/', '-', '_', '+', '=']).map(|(at, _)| at + 1);
            let starts = std::iter::once(0).chain(starts).take(BASE64_STARTS_MAX);
            match starts.into_iter().find(|start| self.is_encoded_secret(&run[*start..])) {
                Some(start) => {
                    shown.push_str(&run[..start]);
                    shown.push_str(MARK);
                }
                None => shown.push_str(run),
            }
            rest = &rest[end..];
        }
        shown + rest
    }

    fn is_encoded_secret(&self, base64: &str) -> bool {
        let Some(decoded) = Some(base64).filter(|base64| base64.len() >= BASE64_MIN).and_then(decoded) else {
            return false;
        };
        let inner = Walk { named: self.named, texts: self.texts + 1 };
        self.texts >= TEXTS_MAX || inner.text(&decoded, Place::Plain) != decoded
    }

    fn text(&self, text: &str, place: Place) -> String {
        let looks_like_json = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'));
        if looks_like_json && !matches!(place, Place::Secret | Place::Registries) {
            if self.texts >= TEXTS_MAX {
                return MARK.to_owned();
            }
            if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
                let before = inner.clone();
                Walk { named: self.named, texts: self.texts + 1 }.value(&mut inner, place);
                return if inner == before { text.to_owned() } else { inner.to_string() };
            }
        }
        match place {
            Place::Plain => self.hide_encoded(&hide_forms(text)),
            // The names in `NAME=value` are shown: they say what a module is told.
            Place::Options | Place::Environment => match text.split_once('=') {
                Some((name, _)) if is_variable(name) => format!("{name}={MARK}"),
                _ if text.is_empty() => String::new(),
                _ => MARK.to_owned(),
            },
            Place::Secret | Place::Registries if text.is_empty() => String::new(),
            Place::Secret | Place::Registries => MARK.to_owned(),
        }
    }
}

/// The shortest base64 that is looked into: `pw=x` has six characters, and words of prose are shorter.
const BASE64_MIN: usize = 6;
/// Where base64 may begin inside a run of its own characters, as in `path/BASE64`: so many places are tried.
const BASE64_STARTS_MAX: usize = 16;

/// Reads both alphabets, when `-` and `_` were replaced, with padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text that base64 of either alphabet stands for, with line breaks or without.
fn decoded(base64: &str) -> Option<String> {
    let one_alphabet = |c: char| match c {
        '-' => '+',
        '_' => '/',
        c => c,
    };
    let plain: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).map(one_alphabet).collect();
    String::from_utf8(LENIENT.decode(plain).ok()?).ok()
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/-_=".contains(c)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Create options that a manifest carries in parts (`createOptions01`, …) are one text: no part says anything alone.
fn join_create_options(fields: &mut Map<String, Value>) {
    let stem = |name: &String| {
        let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
        is_create_options(&letters(last)).then(|| path.to_owned())
    };
    let mut parts: Vec<(String, String)> =
        fields.keys().filter_map(|name| Some((stem(name)?, name.clone()))).collect();
    parts.sort_by(|a, b| (&a.0, letters(&a.1)).cmp(&(&b.0, letters(&b.1))));
    for group in parts.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
        let mut whole = String::new();
        for (_, name) in group {
            match fields.remove(name) {
                Some(Value::String(part)) => whole.push_str(&part),
                // Not parts of a text: hidden, because it is not known what they are.
                _ => MARK.clone_into(&mut whole),
            }
        }
        fields.insert(group[0].1.clone(), whole.into());
    }
}

/// Hides what has the form of a secret in a text.
fn hide_forms(text: &str) -> String {
    let mut hidden = hide_private_keys(text);
    hidden = hide_user_information(&hidden);
    hidden = hide_pairs(&hidden);
    hide_words(&hidden)
}

fn hide_private_keys(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let inner = &rest[start + BEGIN.len()..];
        if inner.split("-----").next().is_some_and(|label| label.contains("PRIVATE KEY")) {
            shown.push_str(&rest[..start]);
            shown.push_str(MARK);
            let end = inner.find(END).map(|at| &inner[at + END.len()..]);
            rest = end.and_then(|end| end.split_once("-----")).map_or("", |(_, after)| after);
        } else {
            shown.push_str(&rest[..start + BEGIN.len()]);
            rest = inner;
        }
    }
    shown + rest
}

/// `scheme://user:password@host`, and `scheme://token@host`.
fn hide_user_information(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // Passwords with slashes are written unescaped too: a `@` anywhere in the address counts.
        let ends = |c: char| c.is_whitespace() || "\"'`<>".contains(c);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        if let Some((user, host)) = authority.rsplit_once('@') {
            if let Some((name, _)) = user.split_once(':') {
                shown.push_str(name);
                shown.push(':');
            }
            shown.push_str(MARK);
            shown.push('@');
            shown.push_str(host);
        } else {
            shown.push_str(authority);
        }
        rest = &after[authority.len()..];
    }
    shown + rest
}

/// `name=value`, `"name": value` and `--name value` with a name of a secret: hidden to the end of the line, because a value
/// may hold blanks, quotes and separators; to the end of the text when the line has no value, or one that spans lines.
fn hide_pairs(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(separator) = next_separator(rest) {
        let before = &rest[..separator.start];
        let name_start = before
            .rfind(|c: char| !is_name(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let is_secret = is_secret_name(&before[name_start..]);
        shown.push_str(&rest[..separator.end]);
        rest = &rest[separator.end..];
        if !is_secret || rest.trim().is_empty() {
            continue;
        }
        let line_end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let value = rest[..line_end].trim();
        let spans_lines = value.is_empty() || value.starts_with(['{', '[', '|', '>']);
        shown.push_str(MARK);
        rest = if spans_lines { "" } else { &rest[line_end..] };
    }
    shown + rest
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.$".contains(c)
}

/// From the end of the next name to its value: `=`, `:`, `%3D` or `%3A` with what stands around it, or the blank after
/// `--name`.
fn next_separator(text: &str) -> Option<std::ops::Range<usize>> {
    for (at, character) in text.char_indices() {
        let width = match character {
            '=' | ':' => 1,
            // `<password>`: the name of an element.
            '>' if text[..at]
                .rsplit(|c| !is_name(c))
                .next()
                .is_some_and(|name| text[..at - name.len()].ends_with('<')) =>
            {
                1
            }
            '%' if text.get(at..at + 3).is_some_and(|code| ["%3D", "%3d", "%3A", "%3a"].contains(&code)) => 3,
            ' ' => {
                let word = text[..at].rsplit(char::is_whitespace).next().unwrap_or("");
                if !word.starts_with("--") {
                    continue;
                }
                1
            }
            _ => continue,
        };
        // `"name" : value`, and inside a text `\"name\": value`.
        let name_end = text[..at].trim_end_matches(['"', '\'', '`', '\\', ' ', '\t']).len();
        return Some(name_end..at + width);
    }
    None
}

/// JSON Web Tokens, and what follows `Bearer` and `Basic`.
fn hide_words(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut must_hide = false;
    for piece in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`,;&".contains(c)) {
        let word = piece.trim_end_matches(|c: char| c.is_whitespace() || "\"'`,;&".contains(c));
        let is_opaque = word.len() >= 8
            && word.contains(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '=');
        let is_web_token = word.len() > 20 && word.contains('.') && word.contains("eyJ");
        if is_web_token || (must_hide && is_opaque) {
            shown.push_str(MARK);
            shown.push_str(&piece[word.len()..]);
        } else {
            shown.push_str(piece);
        }
        let word = word.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
        must_hide = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
    }
    shown
}

#[cfg(test)]
mod tests;
