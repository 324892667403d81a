//! The text of a route: `[SELECT *] FROM source [WHERE condition] INTO sink`, keywords without regard to case.
//!
//! Sources match by segment, where Azure's edgeHub matches by prefix and takes module `camera1` for `cam`. A `*` stands
//! for a whole segment, at the end for all that follows.
//!
//! | source | matches |
//! |---|---|
//! | `/*`, `/messages/*` | telemetry of leaf devices and modules |
//! | `/messages/modules/*` | of every module |
//! | `/messages/modules/m/*` | of module `m`, whatever its output |
//! | `/messages/modules/m/outputs/*` | of module `m`, from any output |
//! | `/messages/modules/m/outputs/o` | of module `m`, from output `o` |

use schemas::names::ModuleId;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sink {
    /// To central.
    Upstream,
    /// To a module's input.
    Input {
        /// Whose.
        module: ModuleId,
        /// Which.
        input: String,
    },
}

/// What a route matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Telemetry of leaf devices and modules.
    All,
    /// Telemetry of modules.
    Modules {
        /// `None`: any.
        module: Option<String>,
        output: Output,
    },
}

/// Which of a module's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// With an output or without.
    Any,
    /// With an output.
    Some,
    /// With this one.
    Named(String),
}

/// What is wrong with the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) found: String,
    pub(super) allowed: String,
}

fn wrong(found: impl Into<String>, allowed: &str) -> Wrong {
    Wrong { found: found.into(), allowed: allowed.to_owned() }
}

const FORM: &str = "write FROM source INTO sink, for example FROM /messages/* INTO $upstream";
const SOURCES: &str = "sources are /*, /messages/*, /messages/modules/NAME/* and /messages/modules/NAME/outputs/NAME, \
                       with * for any NAME";
const SINKS: &str = "sinks are $upstream and BrokeredEndpoint(\"/modules/NAME/inputs/NAME\")";

/// Reads a route.
pub(super) fn parse(text: &str) -> Result<(Source, Sink), Wrong> {
    let (mut word, mut rest) = next_word(text);
    if word.eq_ignore_ascii_case("SELECT") {
        let (selected, after) = next_word(rest);
        if selected != "*" {
            return Err(wrong(format!("SELECT {selected}"), "only SELECT * is allowed; it may be left out"));
        }
        (word, rest) = next_word(after);
    }
    if !word.eq_ignore_ascii_case("FROM") {
        return Err(wrong(quoted(word), FORM));
    }
    let (source, rest) = next_word(rest);
    let source = parse_source(source)?;
    let (word, rest) = next_word(rest);
    if word.eq_ignore_ascii_case("WHERE") {
        return Err(wrong("a WHERE clause", "conditions are not supported yet, leave it out"));
    }
    if !word.eq_ignore_ascii_case("INTO") {
        return Err(wrong(quoted(word), FORM));
    }
    Ok((source, parse_sink(rest.trim())?))
}

fn next_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

fn quoted(word: &str) -> String {
    match word {
        "" => "the end of the route".into(),
        word => format!("{word:?}"),
    }
}

fn parse_source(text: &str) -> Result<Source, Wrong> {
    let refused = || wrong(format!("source {}", quoted(text)), SOURCES);
    let mut segments: Vec<&str> = text.strip_prefix('/').ok_or_else(refused)?.split('/').collect();
    // edgeHub trims `*` and `/` at the end too: `/messages`, `/messages/` and `/messages/*` are one.
    while segments.last().is_some_and(|last| last.is_empty() || *last == "*") {
        segments.pop();
    }
    let is =
        |at: usize, word: &str| segments.get(at).is_none_or(|segment| segment.eq_ignore_ascii_case(word));
    let is_shape = is(0, "messages") && is(1, "modules") && is(3, "outputs") && segments.len() <= 5;
    // A `*` that is only a part of a segment would be edgeHub's prefix match.
    let is_whole = |segment: &&str| *segment == "*" || (!segment.is_empty() && !segment.contains('*'));
    if !is_shape || !segments.iter().all(is_whole) {
        return Err(refused());
    }
    let module = segments.get(2).filter(|module| **module != "*").map(|module| (*module).to_owned());
    Ok(match segments.len() {
        0 | 1 => Source::All,
        2 | 3 => Source::Modules { module, output: Output::Any },
        4 => Source::Modules { module, output: Output::Some },
        _ => Source::Modules { module, output: Output::Named(segments[4].to_owned()) },
    })
}

fn parse_sink(text: &str) -> Result<Sink, Wrong> {
    const KEYWORD: &str = "BrokeredEndpoint";
    if text.eq_ignore_ascii_case("$upstream") {
        return Ok(Sink::Upstream);
    }
    let refused = || wrong(format!("sink {}", quoted(text)), SINKS);
    let endpoint = text
        .split_at_checked(KEYWORD.len())
        .filter(|(keyword, _)| keyword.eq_ignore_ascii_case(KEYWORD))
        .and_then(|(_, rest)| rest.trim().strip_prefix('(')?.strip_suffix(')'))
        .and_then(|inside| {
            let inside = inside.trim();
            let unquote = |mark| inside.strip_prefix(mark)?.strip_suffix(mark);
            unquote('"').or_else(|| unquote('\''))
        })
        .ok_or_else(refused)?;
    let segments: Vec<&str> = endpoint.trim_matches('/').split('/').collect();
    match segments[..] {
        [modules, module, inputs, input]
            if modules.eq_ignore_ascii_case("modules") && inputs.eq_ignore_ascii_case("inputs") =>
        {
            let is_input = !input.is_empty() && !input.contains(['+', '#', '*', '\0']);
            let module: Option<ModuleId> =
                module.parse().ok().filter(|module: &ModuleId| !module.is_system());
            match module {
                Some(module) if is_input => Ok(Sink::Input { module, input: input.to_owned() }),
                _ => Err(refused()),
            }
        }
        _ => Err(refused()),
    }
}
