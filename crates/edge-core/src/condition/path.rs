//! A way into JSON: `.name`, `[0]`, `['any name']`.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::error::Wrong;
use super::lexer::{is_name_char, quote, read_text};

/// The steps from a document to a value in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(Vec<PathStep>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// To a member of an object. The case matters.
    Member(String),
    /// To an element of an array, from 0.
    Index(usize),
}

const FORM: &str = "write a path such as .name, [0] or ['a name']";

impl Path {
    /// A path of these steps.
    pub fn new(steps: Vec<PathStep>) -> Self {
        Self(steps)
    }

    pub fn steps(&self) -> &[PathStep] {
        &self.0
    }

    /// The value that it leads to.
    pub fn walk<'a>(&self, document: &'a Json) -> Option<&'a Json> {
        walk(&self.0, document)
    }

    /// The value that it leads to from an object.
    pub fn walk_members<'a>(&self, members: &'a Map<String, Json>) -> Option<&'a Json> {
        match self.0.split_first()? {
            (PathStep::Member(name), rest) => walk(rest, members.get(name)?),
            (PathStep::Index(_), _) => None,
        }
    }

    /// Whether a property's name could be written the same way.
    pub(super) fn is_plain(&self) -> bool {
        self.0.iter().all(|step| matches!(step, PathStep::Member(name) if is_plain(name)))
    }

    /// Reads what follows `$body` or `$twin`, or all of it: `text` begins at `offset` of the whole.
    pub(super) fn parse(text: &str, offset: usize) -> Result<Self, Wrong> {
        let mut steps = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(inside) = rest.strip_prefix('[') {
                let (step, length) = bracket(inside, offset + at + 1)?;
                steps.push(step);
                at += 1 + length;
                continue;
            }
            let name = match rest.strip_prefix('.') {
                Some(name) => name,
                None if at == 0 => rest,
                None => return Err(Wrong::new(offset + at, format!("{rest:?} in a path"), FORM)),
            };
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return Err(Wrong::new(offset + at, "a path with a dot too many", FORM));
            }
            steps.push(PathStep::Member(name[..end].to_owned()));
            at += rest.len() - name.len() + end;
        }
        Ok(Self(steps))
    }
}

fn walk<'a>(steps: &[PathStep], document: &'a Json) -> Option<&'a Json> {
    steps.iter().try_fold(document, |value, step| match step {
        PathStep::Member(name) => value.get(name.as_str()),
        PathStep::Index(index) => value.get(*index),
    })
}

/// Reads `0]` or `'name']`; gives its length too.
fn bracket(inside: &str, offset: usize) -> Result<(PathStep, usize), Wrong> {
    let (step, length) = match inside.chars().next() {
        Some('"' | '\'') => {
            let (name, length) = read_text(inside, offset)?;
            (PathStep::Member(name), length)
        }
        _ => {
            let digits = inside.bytes().take_while(u8::is_ascii_digit).count();
            let index = inside[..digits].parse().map_err(|_| {
                let found = inside.split(']').next().unwrap_or_default();
                Wrong::new(offset, format!("[{found}]"), "write an index from 0, or a name in quotes")
            })?;
            (PathStep::Index(index), digits)
        }
    };
    if inside[length..].starts_with(']') {
        Ok((step, length + 1))
    } else {
        Err(Wrong::new(offset + length, "a [ without its ]", FORM))
    }
}

fn is_plain(name: &str) -> bool {
    let mut chars = name.chars().peekable();
    !name.is_empty()
        && !name.ends_with('-')
        && std::iter::from_fn(|| chars.next().map(|c| (c, chars.peek().copied())))
            .all(|(c, next)| c != '.' && is_name_char(c, next))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            PathStep::Member(name) if is_plain(name) => write!(f, ".{name}"),
            PathStep::Member(name) => write!(f, "[{}]", quote(name)),
            PathStep::Index(index) => write!(f, "[{index}]"),
        })
    }
}
