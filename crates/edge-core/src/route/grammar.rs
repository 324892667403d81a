//! The text of a route: `[SELECT *] FROM source [WHERE condition] INTO sink`, keywords without regard to case.

use schemas::names::ModuleId;

use super::source::Source;
use crate::condition::ast::Expr;
use crate::condition::{Condition, SyntaxError, TEXT_BYTES_MAX, Wrong};

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sink {
    Upstream,
    /// To a module's input.
    Input {
        module: ModuleId,
        input: String,
    },
}

/// As written in a route.
impl std::fmt::Display for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream => f.write_str("$upstream"),
            Self::Input { module, input } => {
                write!(f, "BrokeredEndpoint(\"/modules/{module}/inputs/{input}\")")
            }
        }
    }
}

/// What a route says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parsed {
    pub(super) source: Source,
    pub(super) condition: Option<Condition>,
    pub(super) sink: Sink,
}

const FORM: &str =
    "write FROM source [WHERE condition] INTO sink, for example FROM /messages/* INTO $upstream";
const SINKS: &str = "sinks are $upstream and BrokeredEndpoint(\"/modules/NAME/inputs/NAME\")";

pub(super) fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    read(text).map_err(|wrong| wrong.in_text(text))
}

fn read(text: &str) -> Result<Parsed, Wrong> {
    // First: everything below walks through the text.
    if text.len() > TEXT_BYTES_MAX {
        return Err(Wrong::new(0, format!("{} bytes", text.len()), format!("{TEXT_BYTES_MAX} are allowed")));
    }
    let mut word = next_word(text, 0);
    if word.is("SELECT") {
        let selected = next_word(text, word.end);
        if selected.text != "*" {
            let found = format!("SELECT {}", selected.text);
            return Err(Wrong::new(selected.start, found, "only SELECT * is allowed; it may be left out"));
        }
        word = next_word(text, selected.end);
    }
    if !word.is("FROM") {
        return Err(Wrong::new(word.start, word.quoted(), FORM));
    }
    let source_word = next_word(text, word.end);
    let source = Source::parse(source_word.text, source_word.start)?;
    word = next_word(text, source_word.end);
    let mut condition = None;
    if word.is("WHERE") {
        let (read, end) = Condition::parse_part(text, word.end, "INTO")?;
        if source != Source::TwinChanges
            && let Some(at) = requires_twin_changes(read.expr()).then_some(word.start)
        {
            let allowed = "only twin changes have that: write FROM /twinChangeNotifications";
            return Err(Wrong::new(at, "twin_change_includes", allowed));
        }
        condition = Some(read);
        word = next_word(text, end);
    }
    if !word.is("INTO") {
        return Err(Wrong::new(word.start, word.quoted(), FORM));
    }
    let rest = &text[word.end..];
    let sink = rest.trim();
    let start = word.end + (rest.len() - rest.trim_start().len());
    Ok(Parsed { source, condition, sink: read_sink(sink, start)? })
}

fn requires_twin_changes(expr: &Expr) -> bool {
    match expr {
        Expr::TwinChangeIncludes(..) => true,
        Expr::Literal(_) | Expr::Reference(_) => false,
        Expr::Negate(part) | Expr::Not(part) => requires_twin_changes(part),
        Expr::Arithmetic(_, left, right) | Expr::Compare(_, left, right) | Expr::Coalesce(left, right) => {
            requires_twin_changes(left) || requires_twin_changes(right)
        }
        Expr::And(parts) | Expr::Or(parts) | Expr::Call(_, parts) => parts.iter().any(requires_twin_changes),
    }
}

/// A word of the text and its place.
struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

impl Word<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }

    fn quoted(&self) -> String {
        match self.text {
            "" => "the end of the route".into(),
            word => format!("{word:?}"),
        }
    }
}

fn next_word(text: &str, from: usize) -> Word<'_> {
    let rest = &text[from..];
    let start = from + (rest.len() - rest.trim_start().len());
    let end = text[start..].find(char::is_whitespace).map_or(text.len(), |length| start + length);
    Word { text: &text[start..end], start, end }
}

fn read_sink(text: &str, offset: usize) -> Result<Sink, Wrong> {
    const KEYWORD: &str = "BrokeredEndpoint";
    if text.eq_ignore_ascii_case("$upstream") {
        return Ok(Sink::Upstream);
    }
    let refused = || {
        let has_where = text.split_whitespace().any(|word| word.eq_ignore_ascii_case("WHERE"));
        let allowed = if has_where { "WHERE goes before INTO" } else { SINKS };
        let found =
            if text.is_empty() { "the end of the route".to_owned() } else { format!("sink {text:?}") };
        Wrong::new(offset, found, allowed)
    };
    let endpoint = text
        .split_at_checked(KEYWORD.len())
        .filter(|(keyword, _)| keyword.eq_ignore_ascii_case(KEYWORD))
        .and_then(|(_, rest)| rest.trim().strip_prefix('(')?.strip_suffix(')'))
        .and_then(|inside| {
            let inside = inside.trim();
            let unquote = |quote| inside.strip_prefix(quote)?.strip_suffix(quote);
            unquote('"').or_else(|| unquote('\''))
        })
        .ok_or_else(refused)?;
    let segments: Vec<&str> = endpoint.trim_matches('/').split('/').collect();
    match segments[..] {
        [modules, module, inputs, input]
            if modules.eq_ignore_ascii_case("modules") && inputs.eq_ignore_ascii_case("inputs") =>
        {
            // The name of an input becomes part of the topic on which its module gets the message.
            let is_input = !input.is_empty() && !input.contains(['+', '#', '*', '\0']);
            let module: Option<ModuleId> =
                // System modules have no inputs.
                module.parse().ok().filter(|module: &ModuleId| !module.is_system());
            match module {
                Some(module) if is_input => Ok(Sink::Input { module, input: input.to_owned() }),
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}
