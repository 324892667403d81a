//! Reads JSON as loosely as Newtonsoft.Json, with which IoT Edge reads create options.
//!
//! Taken beside JSON: comments, single quotes, bare keys, a trailing comma, line breaks in texts, hexadecimal and octal
//! numbers, a leading decimal point, `undefined`, a byte order mark. Objects keep every member in its order, because a key that is
//! written twice has a meaning to the engine; numbers keep their text, because IoT Edge makes texts of them.

use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::{Number, Value};

/// A JSON value as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Flag(bool),
    /// Its text; [`number`] gives its value.
    Number(String),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Why a text was not read. It names no part of the text, which may hold secrets.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{what} at line {line} column {column}")]
pub(super) struct RelaxedError {
    what: String,
    line: usize,
    column: usize,
}

/// Reads a whole text; a blank one is null.
pub(super) fn parse(text: &str, depth_max: usize) -> Result<Node, RelaxedError> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { text: body, rest: body.char_indices().peekable(), depth_max };
    reader.skip_blank()?;
    let node = match reader.peek() {
        None => Node::Null,
        Some(_) => reader.value(0)?,
    };
    reader.skip_blank()?;
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.error("expected the end, found more")),
    }
}

/// The value of a number's text; `None` when JSON has no number for it.
pub(super) fn number(text: &str) -> Option<Number> {
    if let Ok(number) = serde_json::from_str(text) {
        return Some(number);
    }
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let based = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => i64::from_str_radix(hexadecimal, 16).ok(),
        None if digits.len() > 1 && digits.starts_with('0') => i64::from_str_radix(digits, 8).ok(),
        None => None,
    };
    match based {
        Some(value) => Some(Number::from(if is_negative { -value } else { value })),
        None if digits.starts_with('.') || digits.ends_with('.') => {
            text.parse::<f64>().ok().and_then(Number::from_f64)
        }
        None => None,
    }
}

impl Node {
    /// A value that was read before, as it would have been written.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Flag(*flag),
            Value::Number(number) => Self::Number(number.to_string()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(items) => Self::Array(items.iter().map(Self::of).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(key, value)| (key.clone(), Self::of(value))).collect())
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: Peekable<CharIndices<'a>>,
    depth_max: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|(_, c)| *c)
    }

    fn next(&mut self) -> Option<char> {
        self.rest.next().map(|(_, c)| c)
    }

    fn error(&mut self, what: &str) -> RelaxedError {
        let at = self.rest.peek().map_or(self.text.len(), |(at, _)| *at);
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        RelaxedError {
            what: what.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// Skips white space and comments.
    fn skip_blank(&mut self) -> Result<(), RelaxedError> {
        while let Some(c) = self.peek() {
            if c == '/' {
                self.next();
                match self.next() {
                    Some('/') => {
                        while self.peek().is_some_and(|c| !matches!(c, '\n' | '\r')) && self.next().is_some()
                        {
                        }
                    }
                    Some('*') => self.skip_block()?,
                    _ => return Err(self.error("expected a comment after the slash")),
                }
            } else if c.is_whitespace() {
                self.next();
            } else {
                break;
            }
        }
        Ok(())
    }

    fn skip_block(&mut self) -> Result<(), RelaxedError> {
        let mut last = ' ';
        loop {
            match self.next() {
                Some('/') if last == '*' => return Ok(()),
                Some(c) => last = c,
                None => return Err(self.error("expected the end of the comment")),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, RelaxedError> {
        match self.peek() {
            // Before the next level, because the reader recurses.
            Some('{' | '[') if depth == self.depth_max => {
                let what = format!("found more than {depth} levels of objects and arrays");
                Err(self.error(&what))
            }
            Some('{') => self.object(depth + 1),
            Some('[') => self.array(depth + 1),
            Some(quote @ ('"' | '\'')) => Ok(Node::Text(self.quoted(quote)?)),
            Some(c) if c.is_ascii_digit() || c == '-' || c == '.' => self.number(),
            Some(c) if is_bare(c) => match self.bare().as_str() {
                "true" => Ok(Node::Flag(true)),
                "false" => Ok(Node::Flag(false)),
                "null" | "undefined" => Ok(Node::Null),
                _ => Err(self.error("expected a value, found a text without quotes")),
            },
            _ => Err(self.error("expected a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node, RelaxedError> {
        self.next();
        let mut members = Vec::new();
        loop {
            self.skip_blank()?;
            let key = match self.peek() {
                Some('}') => break,
                Some(quote @ ('"' | '\'')) => self.quoted(quote)?,
                Some(c) if is_bare(c) => self.bare(),
                _ => return Err(self.error("expected a key")),
            };
            self.skip_blank()?;
            if self.peek() != Some(':') {
                return Err(self.error("expected a colon"));
            }
            self.next();
            self.skip_blank()?;
            members.push((key, self.value(depth)?));
            if !self.goes_on('}')? {
                break;
            }
        }
        self.next();
        Ok(Node::Object(members))
    }

    fn array(&mut self, depth: usize) -> Result<Node, RelaxedError> {
        self.next();
        let mut items = Vec::new();
        loop {
            self.skip_blank()?;
            if self.peek() == Some(']') {
                break;
            }
            items.push(self.value(depth)?);
            if !self.goes_on(']')? {
                break;
            }
        }
        self.next();
        Ok(Node::Array(items))
    }

    /// Whether a comma follows; else `end` must.
    fn goes_on(&mut self, end: char) -> Result<bool, RelaxedError> {
        self.skip_blank()?;
        match self.peek() {
            Some(',') => {
                self.next();
                Ok(true)
            }
            Some(c) if c == end => Ok(false),
            _ => Err(self.error("expected a comma or the end")),
        }
    }

    fn bare(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek().filter(|c| is_bare(*c)) {
            word.push(c);
            self.next();
        }
        word
    }

    fn number(&mut self) -> Result<Node, RelaxedError> {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'))
        {
            text.push(c);
            self.next();
        }
        match number(&text) {
            Some(_) => Ok(Node::Number(text)),
            None => Err(self.error("found a number that JSON does not have")),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, RelaxedError> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("expected the end of the text")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => self.escape(&mut text)?,
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), RelaxedError> {
        let c = match self.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(text),
            Some(c @ ('"' | '\'' | '\\' | '/')) => c,
            _ => return Err(self.error("found an unknown escape sequence")),
        };
        text.push(c);
        Ok(())
    }

    /// The digits of `\uXXXX`, with those of its other half. Half a pair alone becomes U+FFFD.
    fn unicode(&mut self, text: &mut String) -> Result<(), RelaxedError> {
        let mut units = vec![self.code_unit()?];
        while (0xd800..0xdc00).contains(units.last().expect("one was read")) && self.follows_code_unit() {
            self.next();
            self.next();
            units.push(self.code_unit()?);
        }
        text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
        Ok(())
    }

    fn follows_code_unit(&self) -> bool {
        let mut ahead = self.rest.clone();
        ahead.next().is_some_and(|(_, c)| c == '\\') && ahead.next().is_some_and(|(_, c)| c == 'u')
    }

    fn code_unit(&mut self) -> Result<u16, RelaxedError> {
        let mut unit = 0;
        for _ in 0..4 {
            match self.peek().and_then(|c| c.to_digit(16)) {
                Some(digit) => unit = unit << 4 | digit,
                None => return Err(self.error("expected four hexadecimal digits")),
            }
            self.next();
        }
        Ok(u16::try_from(unit).expect("four hexadecimal digits fit"))
    }
}

/// Characters of keys without quotes.
fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}
