//! Comma-separated values (RFC 4180) as IoT Central and spreadsheets write them: with or without a byte order mark, lines ended by LF, CR or both,
//! fields in quotes where they hold a separator, and semicolons in place of commas where a spreadsheet's language asks for them.
//!
//! Ids and names are chosen by devices, gateways and scripts, and administrators open these files in a spreadsheet, which calculates a field
//! that begins like a formula. [`write`] puts an apostrophe before such a text, [`unguarded`] takes it off again. The console writes its
//! files by the same rule (`csvField`); `central/core/tests/csv_fields.json` has the cases of both.

use std::borrow::Cow;

/// One record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The line where it begins; the first is 1.
    pub line: usize,
    pub fields: Vec<String>,
}

/// Why a file is not CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsvFault {
    /// A quote that is never closed.
    OpenQuote,
    /// Something behind the closing quote of a field.
    BehindQuote,
}

impl CsvFault {
    pub fn text(self) -> &'static str {
        match self {
            Self::OpenQuote => "a field begins with a quote (\") that is not closed",
            Self::BehindQuote => {
                "a field in quotes is followed by something else than a separator; write \"\" for a quote in it"
            }
        }
    }
}

/// The records of a text, without empty lines; a faulty one in place of its record. Behind an open quote there is nothing more.
pub struct Records<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    separator: char,
    line: usize,
}

/// Reads a text. The separator is a semicolon when the first line has one and no comma.
pub fn records(text: &str) -> Records<'_> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.split(['\r', '\n']).next().unwrap_or_default();
    let separator = if first.contains(';') && !first.contains(',') { ';' } else { ',' };
    Records { rest: text.chars().peekable(), separator, line: 1 }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, (usize, CsvFault)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.rest.peek()?;
            let line = self.line;
            match self.record() {
                Ok(fields) if fields.iter().all(String::is_empty) => {}
                Ok(fields) => return Some(Ok(Record { line, fields })),
                Err(fault) => return Some(Err((line, fault))),
            }
        }
    }
}

impl Records<'_> {
    /// Passes the end of a line; false where there is none.
    fn line_end(&mut self) -> bool {
        let is_return = self.rest.next_if_eq(&'\r').is_some();
        let is_feed = self.rest.next_if_eq(&'\n').is_some();
        self.line += usize::from(is_return || is_feed);
        is_return || is_feed
    }

    fn record(&mut self) -> Result<Vec<String>, CsvFault> {
        let mut fields = Vec::new();
        loop {
            let field = match self.rest.next_if_eq(&'"') {
                Some(_) => self.quoted(),
                None => Ok(self.plain()),
            };
            match field {
                Ok(field) => fields.push(field),
                Err(fault) => {
                    while !self.line_end() && self.rest.next().is_some() {}
                    return Err(fault);
                }
            }
            if self.rest.next_if_eq(&self.separator).is_some() {
                continue;
            }
            if self.line_end() || self.rest.peek().is_none() {
                return Ok(fields);
            }
            while !self.line_end() && self.rest.next().is_some() {}
            return Err(CsvFault::BehindQuote);
        }
    }

    /// Up to a separator or the end of the line.
    fn plain(&mut self) -> String {
        let mut field = String::new();
        let separator = self.separator;
        while let Some(c) = self.rest.next_if(|c| *c != separator && *c != '\r' && *c != '\n') {
            field.push(c);
        }
        field
    }

    fn quoted(&mut self) -> Result<String, CsvFault> {
        let mut field = String::new();
        loop {
            match self.rest.next() {
                None => return Err(CsvFault::OpenQuote),
                Some('"') if self.rest.next_if_eq(&'"').is_none() => return Ok(field),
                Some(c) => {
                    // CR LF is one end of a line.
                    self.line += usize::from(c == '\n' || (c == '\r' && self.rest.peek() != Some(&'\n')));
                    field.push(c);
                }
            }
        }
    }
}

/// Makes a spreadsheet take a field as text.
const GUARD: char = '\'';
/// How a formula begins; the wide forms are those of East Asian keyboards.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// A field to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsvField<'t> {
    /// Chosen by people, devices or gateways.
    Text(&'t str),
    /// A key or thumbprint, which scripts read as it is written: base64 and hexadecimal digits can call no function.
    Key(&'t str),
}

impl<'t> CsvField<'t> {
    fn guarded(self) -> Cow<'t, str> {
        let is_key = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
        match self {
            Self::Key(key) if is_key(key) => key.into(),
            Self::Key(text) | Self::Text(text) if is_formula(text) => format!("{GUARD}{text}").into(),
            Self::Key(text) | Self::Text(text) => text.into(),
        }
    }
}

/// A field as it was before [`write`] guarded it. A text that no spreadsheet could take for a formula keeps its apostrophe.
pub fn unguarded(field: &str) -> &str {
    field.strip_prefix(GUARD).filter(|text| is_formula(text)).unwrap_or(field)
}

/// Whether a spreadsheet could take a text for a formula. Apostrophes before it do not count: a text that begins with one must be
/// guarded too, so that reading takes off the guard and not the text's own.
fn is_formula(text: &str) -> bool {
    let text = text.trim_start_matches(GUARD);
    let begin = text.trim_start_matches(is_blank);
    text.starts_with(char::is_control) || begin.starts_with(FORMULA)
}

/// Characters before a formula that a program may leave out: blanks, control characters and those of no width.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// Writes one record with its end. A field that a reader could take for something else is quoted.
pub fn write(out: &mut String, fields: &[CsvField<'_>]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let text = field.guarded();
        let is_ambiguous = text.contains([',', ';', '"', '\t', '\r', '\n']) || text.trim() != text;
        if is_ambiguous {
            out.push('"');
            out.push_str(&text.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&text);
        }
    }
    out.push_str("\r\n");
}
