//! Comma-separated values (RFC 4180) as IoT Central and spreadsheets write them: with or without a byte order mark, lines ended by LF, CR or both,
//! fields in quotes where they hold a separator, and semicolons in place of commas where a spreadsheet's language asks for them.

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

/// Writes one record with its end. A field that a reader could take for something else is quoted.
pub fn write(out: &mut String, fields: &[&str]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if field.contains([',', ';', '"', '\r', '\n']) || field.trim() != *field {
            out.push('"');
            out.push_str(&field.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(field);
        }
    }
    out.push_str("\r\n");
}
