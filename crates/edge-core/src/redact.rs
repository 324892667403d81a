//! Hides secrets in JSON and in text from those who may only read: by the names of fields, by where they stand in a manifest,
//! and by forms that only secrets have.
//!
//! What is doubtful is hidden: a viewer loses a value, an operator sees it.
//!
//! | Hidden | By |
//! |---|---|
//! | everything under `password`, `apiKey`, `connectionString`, … | the field's name ([`names::is_secret_name`]) |
//! | `value`, `request`, `response` and `error` beside such a `name` | the row's name |
//! | `registryCredentials`, except addresses | its place |
//! | values of `env` | its place |
//! | texts in `createOptions` (as text, in parts, or as an object), except those of [`PUBLIC_OPTIONS`] | its place |
//! | `SharedAccessKey=…`, `sig=…`, `--password …`, `<password>…`, `https://user:…@host`, `Bearer …`, private keys, JSON Web Tokens | the text's form |
//! | base64, of either alphabet, of a text in which something would be hidden | what it stands for |
//! | in sentences of gateways, what they quote of the hidden texts of their manifests | [`quotes::Quotes`] |

mod forms;
pub mod names;
pub mod quotes;
mod spans;
mod tokens;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine as _, alphabet};
use schemas::redaction::REDACTED;
use serde_json::Value;

use forms::hide_forms;
use names::{is_secret_name, letters};
use quotes::Quotes;
use spans::{Kind, Spans};

/// JSON in a text in JSON in a text and so on is read this deep; a text beyond is hidden whole.
const TEXTS_MAX: u8 = 4;

/// Docker's create options whose texts are shown. All others may carry what a module gets at its start.
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
];

/// Create options whose members people name: none of them is one of [`PUBLIC_OPTIONS`], whatever its name.
const OPEN_OPTIONS: &[&str] =
    &["annotations", "config", "driveropts", "labels", "options", "storageopt", "sysctls", "tmpfs"];

/// Names that people give to things: no gateway's sentences.
const GIVEN_NAMES: [&str; 2] = ["displayName", "name"];

/// What a row holds of the thing that its `name` names: `{"name": "apiKey", "value": …}`.
const ROW_FIELDS: [&str; 4] = ["value", "request", "response", "error"];

/// What a value is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Secrets are known by their names and forms.
    Plain,
    Secret,
    /// The environment of a module: its texts are hidden, and every `value`.
    Environment,
    /// `registryCredentials`: hidden, except addresses.
    Registries,
    /// `createOptions`: texts are hidden, except those of [`PUBLIC_OPTIONS`].
    Options,
    /// A part of `createOptions` whose names people choose: texts are hidden.
    OpenOptions,
    /// A part of `createOptions` whose names people choose, with create options in each: networks.
    NamedOptions,
}

impl Place {
    /// Position of what is under `name`, which may be a path with dots, as in the flat keys of layered manifests.
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
            Self::Options if plain == "endpointsconfig" => Self::NamedOptions,
            Self::Options if OPEN_OPTIONS.contains(&plain.as_str()) => Self::OpenOptions,
            Self::Options | Self::NamedOptions => Self::Options,
            Self::OpenOptions => Self::OpenOptions,
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

/// Hides the secrets of a JSON text, and what its sentences quote. All else stays as it is written, digits and blanks too. `None` for
/// a text that is not JSON.
pub fn json<'t>(text: &'t str, named: &Named, quotes: &Quotes) -> Option<Cow<'t, str>> {
    let place = named.component.as_ref().map_or(Place::Plain, |component| Place::Plain.under(component));
    Walk { named, quotes, texts: 0, hidden: None }.json(text, place)
}

/// Hides the secrets of a text.
pub fn text(text: &str) -> Cow<'_, str> {
    Walk { named: &Named::default(), quotes: &Quotes::default(), texts: 0, hidden: None }
        .text(text, Place::Plain)
}

/// What others may quote of the texts that [`json`] hides in a JSON text for their places, for [`quotes::Quotable`].
pub fn fragments(document: &str) -> BTreeSet<String> {
    let hidden = RefCell::default();
    let (named, quotes) = (Named::default(), Quotes::default());
    let walk = Walk { named: &named, quotes: &quotes, texts: 0, hidden: Some(&hidden) };
    let shown = walk.json(document, Place::Plain);
    shown.map(|shown| quotes::fragments(&hidden.borrow(), &shown)).unwrap_or_default()
}

/// A JSON text, and what was written of it with other values in place of some.
struct Rewritten<'t> {
    spans: Spans<'t>,
    text: &'t str,
    written: String,
    /// How much of the text is written.
    up_to: usize,
}

impl Rewritten<'_> {
    /// Writes a text in place of what is there; places are given in their order.
    fn replace(&mut self, place: &Range<usize>, by: &str) {
        self.written.push_str(&self.text[self.up_to..place.start]);
        self.written.push_str(&Value::from(by).to_string());
        self.up_to = place.end;
    }
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    named: &'a Named,
    quotes: &'a Quotes,
    /// How many texts that hold JSON are around.
    texts: u8,
    /// Gets what is hidden for its place.
    hidden: Option<&'a RefCell<Vec<String>>>,
}

impl Walk<'_> {
    /// Within a text.
    fn inner(&self) -> Self {
        Self { texts: self.texts + 1, ..*self }
    }

    /// Hides a text, but for the name before it.
    fn replaced(&self, name: &str, text: &str) -> Cow<'static, str> {
        if let Some(hidden) = self.hidden {
            hidden.borrow_mut().push(text.to_owned());
        }
        format!("{name}{REDACTED}").into()
    }

    fn json<'t>(&self, text: &'t str, place: Place) -> Option<Cow<'t, str>> {
        let mut rewritten = Rewritten { spans: Spans::of(text)?, text, written: String::new(), up_to: 0 };
        let whole = rewritten.spans.whole();
        self.value(&mut rewritten, whole, place);
        if rewritten.up_to == 0 {
            return Some(Cow::Borrowed(text));
        }
        rewritten.written.push_str(&text[rewritten.up_to..]);
        Some(Cow::Owned(rewritten.written))
    }

    fn value(&self, rewritten: &mut Rewritten<'_>, value: Range<usize>, place: Place) {
        match rewritten.spans.kind(&value) {
            Kind::Object => self.object(rewritten, &value, place),
            Kind::Array => {
                let mut at = rewritten.spans.first(&value);
                while let Some(item) = rewritten.spans.item(at) {
                    at = item.end;
                    self.value(rewritten, item, place);
                }
            }
            Kind::Text => match rewritten.spans.text(&value) {
                Some(text) => {
                    if let Cow::Owned(shown) = self.text(&text, place) {
                        rewritten.replace(&value, &shown);
                    }
                }
                // It stands for no text, so nobody knows what it holds.
                None => rewritten.replace(&value, REDACTED),
            },
            Kind::Number if matches!(place, Place::Secret | Place::Registries) => {
                let shown = self.replaced("", &rewritten.text[value.clone()]);
                rewritten.replace(&value, &shown);
            }
            Kind::Number | Kind::Literal => {}
        }
    }

    fn object(&self, rewritten: &mut Rewritten<'_>, object: &Range<usize>, place: Place) {
        let row_name = row_name(&rewritten.spans, object);
        let mut parts =
            if place == Place::Plain { option_parts(&rewritten.spans, object) } else { Vec::new() };
        let mut at = rewritten.spans.first(object);
        while let Some(member) = rewritten.spans.member(at) {
            at = member.value.end;
            let Some(name) = rewritten.spans.text(&member.name) else {
                rewritten.replace(&member.name, REDACTED);
                rewritten.replace(&member.value, REDACTED);
                continue;
            };
            let outer = match &row_name {
                _ if self.named.fields.contains(&&*name) => place.under(&self.named.name),
                Some(row_name) if ROW_FIELDS.contains(&&*name) => place.under(row_name),
                _ => place,
            };
            let inner = outer.under(&name);
            if let Cow::Owned(shown) = hide_forms(&name) {
                rewritten.replace(&member.name, &shown);
            }
            if let Some(part) = parts.iter().position(|(at, _)| *at == member.value.start) {
                let (_, whole) = parts.swap_remove(part);
                rewritten.replace(&member.value, &self.text(&whole, inner));
            } else if name == "bodyBase64" {
                self.base64(rewritten, member.value, inner);
            } else if GIVEN_NAMES.contains(&&*name) {
                let quotes = &Quotes::default();
                Walk { quotes, ..*self }.value(rewritten, member.value, inner);
            } else {
                self.value(rewritten, member.value, inner);
            }
        }
    }

    fn base64(&self, rewritten: &mut Rewritten<'_>, value: Range<usize>, place: Place) {
        let base64 = Some(&value)
            .filter(|value| rewritten.spans.kind(value) == Kind::Text)
            .and_then(|value| rewritten.spans.text(value));
        let decoded = base64.and_then(|base64| STANDARD.decode(&*base64).ok());
        match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(decoded) => {
                if let Cow::Owned(shown) = self.text(&decoded, place) {
                    rewritten.replace(&value, &STANDARD.encode(shown));
                }
            }
            None => self.value(rewritten, value, place),
        }
    }

    /// Hides base64 of what would be hidden as a text. It may be broken into lines, and stand behind a path.
    fn hide_encoded<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let (mut shown, mut up_to, mut at) = (String::new(), 0, 0);
        while let Some(start) = text[at..].find(is_base64) {
            let rest = &text[at + start..];
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
            if let Some(secret) = starts.into_iter().find(|start| self.is_encoded_secret(&run[*start..])) {
                shown.push_str(&text[up_to..at + start + secret]);
                shown.push_str(REDACTED);
                up_to = at + start + end;
            }
            at += start + end;
        }
        if up_to == 0 {
            return Cow::Borrowed(text);
        }
        shown.push_str(&text[up_to..]);
        Cow::Owned(shown)
    }

    fn is_encoded_secret(&self, base64: &str) -> bool {
        let Some(decoded) = Some(base64).filter(|base64| base64.len() >= BASE64_MIN).and_then(decoded) else {
            return false;
        };
        self.texts >= TEXTS_MAX || matches!(self.inner().text(&decoded, Place::Plain), Cow::Owned(_))
    }

    /// What is shown of a text; borrowed when nothing is hidden.
    fn text<'t>(&self, text: &'t str, place: Place) -> Cow<'t, str> {
        let may_be_json = matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[' | b'"'));
        if may_be_json && !matches!(place, Place::Secret | Place::Registries) {
            if self.texts >= TEXTS_MAX {
                return self.replaced("", text);
            }
            if let Some(shown) = self.inner().json(text, place) {
                return shown;
            }
        }
        match place {
            // Quotes first: hiding a form may leave the rest of a quote.
            Place::Plain => {
                let shown = then(self.quotes.hide(text), hide_forms);
                then(shown, |text| self.hide_encoded(text))
            }
            _ if text.is_empty() => Cow::Borrowed(text),
            // The names in `NAME=value` are shown: they say what a module gets.
            Place::Options | Place::OpenOptions | Place::NamedOptions | Place::Environment => {
                match text.split_once('=') {
                    Some((name, value)) if is_variable(name) => self.replaced(&format!("{name}="), value),
                    _ => self.replaced("", text),
                }
            }
            Place::Secret | Place::Registries => self.replaced("", text),
        }
    }
}

/// What a step makes of a text; it gives back a borrowed one when it changes nothing.
fn then<'t>(text: Cow<'t, str>, step: impl Fn(&str) -> Cow<'_, str>) -> Cow<'t, str> {
    let changed = match step(&text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(changed) => Some(changed),
    };
    changed.map_or(text, Cow::Owned)
}

/// The shortest base64 that is looked into: `pw=x` has six characters, and prose has shorter ones.
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

/// Characters that distinguish most prose from base64 of a text, before anything is allocated: a multiple of four.
const BASE64_PREFIX: usize = 16;

/// The text that base64 of either alphabet stands for, with line breaks or without.
fn decoded(base64: &str) -> Option<String> {
    let one_alphabet = |byte: u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => byte,
    };
    let plain = || base64.bytes().filter(|byte| !byte.is_ascii_whitespace()).map(one_alphabet);
    let (mut begin, mut bytes) = ([0; BASE64_PREFIX], [0; BASE64_PREFIX]);
    let mut length = 0;
    for (place, byte) in begin.iter_mut().zip(plain()) {
        *place = byte;
        length += 1;
    }
    let begun = LENIENT.decode_slice(&begin[..length], &mut bytes).ok()?;
    if std::str::from_utf8(&bytes[..begun]).is_err_and(|error| error.error_len().is_some()) {
        return None;
    }
    String::from_utf8(LENIENT.decode(plain().collect::<Vec<u8>>()).ok()?).ok()
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/-_=".contains(c)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The text under `name` of an object, which names the value beside it.
fn row_name(spans: &Spans<'_>, object: &Range<usize>) -> Option<String> {
    let mut found = None;
    let mut at = spans.first(object);
    while let Some(member) = spans.member(at) {
        at = member.value.end;
        if spans.text(&member.name).is_some_and(|name| name == "name") {
            let text = Some(&member.value).filter(|value| spans.kind(value) == Kind::Text);
            found = text.and_then(|text| spans.text(text)).map(Cow::into_owned);
        }
    }
    found
}

/// Create options that a manifest carries in parts (`createOptions01`, …) are one text: no part says anything alone. By the begin of
/// for each part its replacement: of the first one the whole text, of the others nothing.
fn option_parts(spans: &Spans<'_>, object: &Range<usize>) -> Vec<(usize, String)> {
    let mut parts: Vec<(String, String, Range<usize>)> = Vec::new();
    let mut at = spans.first(object);
    while let Some(member) = spans.member(at) {
        at = member.value.end;
        let Some(name) = spans.text(&member.name) else { continue };
        let (path, last) = name.rsplit_once('.').unwrap_or(("", &name));
        let last = letters(last);
        if is_create_options(&last) {
            parts.push((path.to_owned(), last, member.value));
        }
    }
    parts.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let mut joined = Vec::new();
    for group in parts.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
        let text = |part: &Range<usize>| {
            Some(part).filter(|part| spans.kind(part) == Kind::Text).and_then(|part| spans.text(part))
        };
        let texts: Option<String> = group.iter().map(|(_, _, part)| text(part)).collect();
        // Not parts of a text: hidden, because it is not known what they are.
        let whole = texts.unwrap_or_else(|| REDACTED.to_owned());
        joined.push((group[0].2.start, whole));
        joined.extend(group[1..].iter().map(|(_, _, part)| (part.start, String::new())));
    }
    joined
}

#[cfg(test)]
mod tests;
