//! What a gateway quotes of the hidden texts of its manifest: a container engine's error names the command that it cannot run.
//!
//! ```text
//! manifest ──what viewers do not see of it──> texts ──whole, escaped, in pieces──> fragments ──found in a sentence──> hidden
//! ```
//! An engine quotes a text whole, escapes its quotes, names a piece of it (a command is split at blanks, a volume at colons), and a
//! report cuts a long sentence. What viewers see of the manifest elsewhere (a module's name, a port, a mount) is no fragment.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use schemas::redaction::REDACTED;
use serde_json::Value;

/// Bytes of a fragment. Shorter ones are part of most sentences.
const LENGTH_MIN: usize = 4;
/// From so many bytes on, a fragment is found inside a longer run of letters and digits too.
const INSIDE_LENGTH_MIN: usize = 8;
/// From so many bytes on, a run of letters and digits inside a piece is a fragment, if it has both, as passwords have.
const MIXED_LENGTH_MIN: usize = 6;
/// A sentence of so many bytes may have been cut at its end without saying so.
const CUT_LENGTH_MIN: usize = 100;
/// What a sentence has where it was cut.
const CUTS: [&str; 2] = ["…", "..."];

/// Texts that say nothing of a manifest, and that a sentence has anyway.
const COMMON: &[&str] = &[
    "after",
    "always",
    "amqp",
    "amqps",
    "auto",
    "because",
    "cannot",
    "central",
    "code",
    "command",
    "container",
    "could",
    "create",
    "created",
    "debug",
    "default",
    "denied",
    "device",
    "directory",
    "disabled",
    "docker",
    "edgeagent",
    "edgehub",
    "enabled",
    "ended",
    "error",
    "exec",
    "executable",
    "exit",
    "exited",
    "failed",
    "false",
    "file",
    "files",
    "found",
    "from",
    "gateway",
    "host",
    "http",
    "https",
    "image",
    "images",
    "info",
    "invalid",
    "json",
    "json-file",
    "lineside",
    "linux",
    "local",
    "localhost",
    "manifest",
    "mode",
    "module",
    "modules",
    "mqtt",
    "mqtts",
    "name",
    "network",
    "never",
    "none",
    "null",
    "option",
    "options",
    "path",
    "permission",
    "port",
    "process",
    "restart",
    "root",
    "running",
    "runs",
    "runtime",
    "such",
    "start",
    "started",
    "status",
    "stop",
    "stopped",
    "string",
    "that",
    "this",
    "trace",
    "tries",
    "true",
    "unable",
    "unknown",
    "upstream",
    "user",
    "value",
    "version",
    "volume",
    "warn",
    "warning",
    "with",
];

/// What others may quote of the texts that viewers of one document do not see. It is no `Debug`: it holds secrets.
#[derive(Default)]
pub struct Quotable {
    by_begin: HashMap<[u8; LENGTH_MIN], Vec<Box<str>>>,
    length_max: usize,
}

impl Quotable {
    /// Of fragments that [`fragments`](super::fragments) gave.
    pub fn new(fragments: impl IntoIterator<Item = String>) -> Self {
        let mut quotable = Self::default();
        for fragment in fragments {
            let Some(begin) = fragment.as_bytes().first_chunk() else { continue };
            quotable.length_max = quotable.length_max.max(fragment.len());
            quotable.by_begin.entry(*begin).or_default().push(fragment.into());
        }
        quotable
    }

    /// The fragments that may begin where a text does.
    fn beginning(&self, text: &str) -> &[Box<str>] {
        let begin = text.as_bytes().first_chunk();
        begin.and_then(|begin| self.by_begin.get(begin)).map_or(&[], Vec::as_slice)
    }

    fn find(&self, text: &str, found: &mut Vec<Range<usize>>) {
        for (at, _) in text.char_indices() {
            let rest = &text[at..];
            for fragment in self.beginning(rest).iter().filter(|fragment| rest.starts_with(&***fragment)) {
                let quote = at..at + fragment.len();
                if fragment.len() >= INSIDE_LENGTH_MIN || (begins_at(text, at) && ends_at(text, quote.end)) {
                    found.push(quote);
                }
            }
        }
        for end in cuts(text) {
            let begin = text.floor_char_boundary(end.saturating_sub(self.length_max));
            for at in text[begin..end].char_indices().map(|(at, _)| begin + at) {
                let rest = &text[at..end];
                let is_begun = |fragment: &str| fragment.len() > rest.len() && fragment.starts_with(rest);
                if begins_at(text, at) && self.beginning(rest).iter().any(|fragment| is_begun(fragment)) {
                    found.push(at..end);
                    break;
                }
            }
        }
    }
}

/// The fragments of the texts that viewers do not see of a document, but for what they see elsewhere in it.
pub(super) fn fragments(texts: &[String], shown: &str) -> BTreeSet<String> {
    let tokens = shown.split(is_separator);
    let shown: HashSet<&str> = tokens.flat_map(|token| token.split(is_punctuation).chain([token])).collect();
    let mut fragments = BTreeSet::new();
    let mut add = |text: &str| {
        let is_quotable = text.len() >= LENGTH_MIN
            && text.contains(char::is_alphanumeric)
            && !shown.contains(text)
            && !COMMON.contains(&text.to_ascii_lowercase().as_str());
        if is_quotable {
            fragments.insert(text.to_owned());
        }
    };
    for text in texts {
        let text = text.trim();
        add(text);
        let escaped = Value::from(text).to_string();
        add(&escaped[1..escaped.len() - 1]);
        for piece in text.split(is_separator) {
            if piece.contains(char::is_alphabetic) {
                add(piece);
            }
            piece.split(is_punctuation).filter(|part| is_mixed(part)).for_each(&mut add);
        }
    }
    fragments
}

/// Where texts are split by those that read them.
fn is_separator(c: char) -> bool {
    c.is_whitespace() || c.is_control() || ",;:='\"`\\()[]{}<>|&".contains(c)
}

fn is_punctuation(c: char) -> bool {
    !c.is_alphanumeric()
}

fn is_mixed(part: &str) -> bool {
    part.len() >= MIXED_LENGTH_MIN
        && part.contains(|c: char| c.is_ascii_digit())
        && part.contains(char::is_alphabetic)
}

/// Whether a run of letters and digits begins at a place, or none is there.
fn begins_at(text: &str, at: usize) -> bool {
    let is_inside = |text: &str| text.chars().next_back().is_some_and(char::is_alphanumeric);
    !is_inside(&text[..at]) || text[at..].starts_with(is_punctuation)
}

fn ends_at(text: &str, at: usize) -> bool {
    !text[at..].starts_with(char::is_alphanumeric) || text[..at].ends_with(is_punctuation)
}

/// Where a sentence may have been cut.
fn cuts(text: &str) -> Vec<usize> {
    let shown = CUTS.iter().flat_map(|cut| text.match_indices(cut)).map(|(at, _)| at);
    shown.chain((text.len() >= CUT_LENGTH_MIN).then_some(text.len())).collect()
}

/// What the gateways of one answer may quote.
#[derive(Clone, Default)]
pub struct Quotes(Vec<Arc<Quotable>>);

impl Quotes {
    /// Of the manifests that gateways have or had.
    pub fn new(of: Vec<Arc<Quotable>>) -> Self {
        Self(of)
    }

    /// A text without the quotes in it. An id, a number or another text of one part is no sentence, and stays.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.0.is_empty() || !text.contains(|c: char| c.is_whitespace() || c == '"') {
            return text.into();
        }
        let mut found = Vec::new();
        for quotable in &self.0 {
            quotable.find(text, &mut found);
        }
        if found.is_empty() {
            return text.into();
        }
        found.sort_by_key(|quote| quote.start);
        let (mut shown, mut up_to) = (String::with_capacity(text.len()), 0);
        for quote in found {
            // One that overlaps the last is hidden with it.
            if quote.start >= up_to {
                shown.push_str(&text[up_to..quote.start]);
                shown.push_str(REDACTED);
            }
            up_to = up_to.max(quote.end);
        }
        shown.push_str(&text[up_to..]);
        shown.into()
    }
}
