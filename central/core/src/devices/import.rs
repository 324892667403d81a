//! IoT Central's file of devices: which columns it has, and what each line asks for.

use std::collections::HashMap;

use super::csv::{Record, records, unguarded};

/// The first bytes of a file that a spreadsheet reads as UTF-8.
pub const BYTE_ORDER_MARK: char = '\u{feff}';
/// The columns of an export, in IoT Central's order.
pub const COLUMNS: [&str; 6] = [
    "IOTC_DEVICEID",
    "IOTC_DEVICENAME",
    "IOTC_SASKEY_PRIMARY",
    "IOTC_SASKEY_SECONDARY",
    "IOTC_X509THUMBPRINT_PRIMARY",
    "IOTC_X509THUMBPRINT_SECONDARY",
];
/// Devices of one file. With keys and thumbprints they fit into a request.
pub const DEVICES_MAX: usize = 10_000;

/// What one line asks for: each field as it is written, with its blanks. Empty fields are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The first is 1, the header's.
    pub line: usize,
    pub id: String,
    pub name: Option<String>,
    pub keys: [Option<String>; 2],
    pub thumbprints: [Option<String>; 2],
}

/// A line that asks for nothing that can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongLine {
    pub line: usize,
    /// As far as it could be read.
    pub id: Option<String>,
    pub why: String,
}

/// A file of devices.
#[derive(Debug, Default)]
pub struct DeviceFile {
    pub lines: Vec<Result<Line, WrongLine>>,
    /// Columns that central does not know and does not read.
    pub ignored: Vec<String>,
}

impl DeviceFile {
    /// Whether a line that can be read has a key or a thumbprint.
    pub fn has_credentials(&self) -> bool {
        let mut lines = self.lines.iter().flatten();
        lines.any(|line| line.keys.iter().chain(&line.thumbprints).any(Option::is_some))
    }
}

/// Reads a file. Each line stands for itself: what is wrong with one does not keep the others.
///
/// # Errors
/// What is wrong with the whole file, in a sentence.
pub fn read(text: &str) -> Result<DeviceFile, InvalidFile> {
    let mut records = records(text);
    let header = match records.next() {
        None => return Err(InvalidFile::Empty),
        Some(Err((_, fault))) => return Err(InvalidFile::Header(fault.text())),
        Some(Ok(header)) => header,
    };
    let columns = Columns::of(&header)?;
    let mut file = DeviceFile { lines: Vec::new(), ignored: columns.ignored.clone() };
    let mut taken: HashMap<String, usize> = HashMap::new();
    // Spreadsheets write rows without a field that is filled.
    let is_blank = |record: &Record| record.fields.iter().all(|field| field.trim().is_empty());
    for record in records.filter(|record| !record.as_ref().is_ok_and(is_blank)) {
        if file.lines.len() >= DEVICES_MAX {
            return Err(InvalidFile::TooLong);
        }
        let line = match record {
            Ok(record) => columns.line(&record),
            Err((line, fault)) => Err(WrongLine { line, id: None, why: fault.text().to_owned() }),
        };
        file.lines.push(line.and_then(|line| match taken.get(&line.id) {
            Some(first) => {
                let why = format!("device `{}` is on line {first} already", line.id);
                Err(WrongLine { line: line.line, id: Some(line.id), why })
            }
            None => {
                taken.insert(line.id.clone(), line.line);
                Ok(line)
            }
        }));
    }
    Ok(file)
}

/// Why a file is none of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidFile {
    Empty,
    Header(&'static str),
    NoId,
    Twice(String),
    TooLong,
}

impl std::fmt::Display for InvalidFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => {
                write!(f, "the file is empty; its first line names the columns, {} among them", COLUMNS[0])
            }
            Self::Header(why) => write!(f, "line 1: {why}"),
            Self::NoId => write!(
                f,
                "line 1: no column {}; the first line names the columns, separated by commas",
                COLUMNS[0]
            ),
            Self::Twice(column) => write!(f, "line 1: the column {column} occurs twice"),
            Self::TooLong => write!(f, "the file has more than {DEVICES_MAX} devices; split it"),
        }
    }
}

impl std::error::Error for InvalidFile {}

/// Where the known columns stand.
struct Columns {
    at: [Option<usize>; COLUMNS.len()],
    count: usize,
    ignored: Vec<String>,
}

impl Columns {
    fn of(header: &Record) -> Result<Self, InvalidFile> {
        let mut columns = Self { at: [None; COLUMNS.len()], count: header.fields.len(), ignored: Vec::new() };
        for (index, name) in header.fields.iter().enumerate() {
            let name = name.trim();
            // IoT Central's own pages write IOTC_DeviceID too.
            match COLUMNS.iter().position(|column| column.eq_ignore_ascii_case(name)) {
                Some(column) if columns.at[column].is_some() => {
                    return Err(InvalidFile::Twice(COLUMNS[column].to_owned()));
                }
                Some(column) => columns.at[column] = Some(index),
                None if name.is_empty() => {}
                None => columns.ignored.push(name.to_owned()),
            }
        }
        if columns.at[0].is_some() { Ok(columns) } else { Err(InvalidFile::NoId) }
    }

    fn line(&self, record: &Record) -> Result<Line, WrongLine> {
        let field = |column: usize| {
            let text = unguarded(record.fields.get(self.at[column]?)?);
            (!text.is_empty()).then(|| text.to_owned())
        };
        let id = field(0);
        let wrong = |why: String| Err(WrongLine { line: record.line, id: field(0), why });
        if record.fields.len() > self.count {
            let (found, allowed) = (record.fields.len(), self.count);
            return wrong(format!("{found} fields where the first line names {allowed} columns"));
        }
        let Some(id) = id else { return wrong(format!("{} is empty", COLUMNS[0])) };
        let line = Line {
            line: record.line,
            id,
            name: field(1),
            keys: [field(2), field(3)],
            thumbprints: [field(4), field(5)],
        };
        let has_keys = line.keys.iter().any(Option::is_some);
        if has_keys && line.thumbprints.iter().any(Option::is_some) {
            return wrong("keys and thumbprints; a device has one or the other".to_owned());
        }
        if line.keys[0].is_none() && has_keys {
            return wrong(format!("{} without {}", COLUMNS[3], COLUMNS[2]));
        }
        if line.thumbprints[0].is_none() && line.thumbprints[1].is_some() {
            return wrong(format!("{} without {}", COLUMNS[5], COLUMNS[4]));
        }
        Ok(line)
    }
}
