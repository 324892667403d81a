//! An event as the text of one line: its message, then its fields, then those that only the spans around it have, all escaped.

use std::error::Error;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::escape::Escaper;

/// A field's value is cut here; a client may name a topic of 64 KiB.
const VALUE_BYTES_MAX: usize = 2 * 1024;
/// A message holds what we write, a plan of many modules included.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Fields that say who caused an event.
const IDENTITY_FIELDS: [&str; 9] =
    ["client", "device", "identity", "id", "module", "gateway", "user", "peer", "address"];

/// An event's text, and who caused it.
pub(super) struct Line {
    pub(super) text: String,
    /// The values of the identity fields; an address without its port, which changes with each connection.
    pub(super) identity: String,
    /// What the event's own metadata does not say of events of the `log` crate.
    pub(super) target: Option<String>,
}

/// The fields of a span, escaped, which its extensions keep.
#[derive(Default)]
pub(super) struct SpanFields(Vec<(&'static str, String)>);

impl Visit for SpanFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), escaped(format_args!("{value:?}"), VALUE_BYTES_MAX)));
    }
}

fn escaped(value: fmt::Arguments<'_>, bytes_max: usize) -> String {
    let mut text = String::new();
    let mut escaper = Escaper::new(&mut text, bytes_max);
    let _ = escaper.write_fmt(value);
    escaper.finish();
    text
}

impl Line {
    pub(super) fn of<S>(event: &Event<'_>, context: &Context<'_, S>) -> Self
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // The innermost span first: it knows best.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(of_span)) = span.extensions().get::<SpanFields>() {
                of_span.iter().for_each(|(name, text)| fields.add_missing(name, text));
            }
        }
        let mut text = fields.message;
        text.push_str(&fields.rest);
        Self { text, identity: fields.identity, target: fields.target }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
    identity: String,
    target: Option<String>,
    names: Vec<&'static str>,
}

impl Fields {
    fn add_missing(&mut self, name: &'static str, text: &str) {
        if !self.names.contains(&name) {
            self.put(name, text);
        }
    }

    fn put(&mut self, name: &'static str, text: &str) {
        self.names.push(name);
        if IDENTITY_FIELDS.contains(&name) {
            let who = match name {
                "peer" | "address" => text.rsplit_once(':').map_or(text, |(host, _)| host),
                _ => text,
            };
            self.identity.push_str(who);
            self.identity.push(' ');
        }
        let _ = write!(self.rest, " {name}={}", Quoted(text));
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        match field.name() {
            "message" => {
                let mut escaper = Escaper::new(&mut self.message, MESSAGE_BYTES_MAX);
                let _ = escaper.write_fmt(value);
                escaper.finish();
            }
            "log.target" => {
                let target = escaped(value, VALUE_BYTES_MAX);
                self.target = Some(target.trim_matches('"').to_owned());
            }
            name if name.starts_with("log.") => {}
            name => self.put(name, &escaped(value, VALUE_BYTES_MAX)),
        }
    }
}

/// A value that cannot be taken for two: in quotes when it holds a space, an equals sign or a quote.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_quoted(self.0) || !(self.0.is_empty() || self.0.contains([' ', '=', '"'])) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            if c == '"' {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// Whether a text is one literal as `Debug` writes it.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return false };
    let mut is_escaped = false;
    for c in inner.chars() {
        match c {
            '"' if !is_escaped => return false,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    !is_escaped
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.add(field, format_args!("{value}")),
            _ => self.add(field, format_args!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, format_args!("{value}"));
    }
}
