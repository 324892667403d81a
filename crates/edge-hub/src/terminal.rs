//! Tables and colour of commands: on a terminal only, so that what a script reads never changes.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use crate::logging::is_unsafe;

/// How standard output is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// By a program: no colour.
    Plain,
    /// By a person whose terminal shows no colour, or who wants none (`NO_COLOR`, no-color.org).
    Terminal,
    Colour,
}

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing beside its text.
    Plain,
    /// The name of a column.
    Heading,
    /// As it should be.
    Good,
    Warning,
    Bad,
}

impl Output {
    /// Of this process. `NO_COLOR`, `CLICOLOR` and `TERM` are heeded as by [`anstream`].
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self::Plain;
        }
        match anstream::AutoStream::choice(&stdout) {
            anstream::ColorChoice::Never => Self::Terminal,
            _ => Self::Colour,
        }
    }

    /// The text in the colour of its tone.
    pub fn toned(self, tone: Tone, text: &str) -> String {
        // ECMA-48, "select graphic rendition".
        let code = match tone {
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Plain => return text.to_owned(),
        };
        if self == Self::Colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Rows of cells below names of columns.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|name| (Tone::Heading, (*name).to_owned())).collect()] }
    }

    /// Adds a row. Control characters of a cell are shown by their codes: its text may come from elsewhere.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (Tone, String)>) {
        let shown = |(tone, text): (Tone, String)| (tone, text.chars().fold(String::new(), shown));
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// With tabs between, for programs.
    pub fn with_tabs(&self) -> String {
        let row = |row: &Vec<(Tone, String)>| {
            row.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\t")
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }

    /// In columns, for people.
    pub fn aligned(&self, output: Output) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell: &(Tone, String)| cell.1.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut lines = Vec::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (tone, text)) in row.iter().enumerate() {
                let is_last = column + 1 == row.len();
                let spacing = if is_last {
                    0
                } else {
                    widths.get(column).map_or(2, |width| width - text.chars().count() + 2)
                };
                // Writing to a String cannot fail. Blanks stand outside of the colour.
                let _ = write!(line, "{}{:spacing$}", output.toned(*tone, text), "");
            }
            lines.push(line);
        }
        lines.join("\n")
    }
}

fn shown(mut text: String, c: char) -> String {
    if is_unsafe(c) {
        text.extend(c.escape_default())
    } else {
        text.push(c)
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_shows_colour_gets_it() {
        for tone in [Tone::Plain, Tone::Heading, Tone::Good, Tone::Warning, Tone::Bad] {
            assert_eq!(Output::Plain.toned(tone, "x"), "x");
            assert_eq!(Output::Terminal.toned(tone, "x"), "x");
        }
        assert_eq!(Output::Colour.toned(Tone::Good, "x"), "\u{1b}[32mx\u{1b}[0m");
    }

    #[test]
    fn columns_stand_below_each_other_with_and_without_colour() {
        let mut table = Table::new(&["NAME", "STATE", "WHY"]);
        table.row([(Tone::Plain, "pump".into()), (Tone::Good, "up".into()), (Tone::Plain, "".into())]);
        table.row([
            (Tone::Plain, "längst".into()),
            (Tone::Bad, "failed".into()),
            (Tone::Plain, "a\u{1b}[2J\nb".into()),
        ]);
        let plain = table.aligned(Output::Terminal);
        assert_eq!(plain, "NAME    STATE   WHY\npump    up      \nlängst  failed  a\\u{1b}[2J\\nb");
        let coloured = table.aligned(Output::Colour);
        assert!(coloured.contains("\u{1b}[1;31mfailed\u{1b}[0m  a"), "{coloured:?}");
        let codes = ["\u{1b}[1;31m", "\u{1b}[32m", "\u{1b}[1m", "\u{1b}[0m"];
        assert_eq!(codes.iter().fold(coloured, |text, code| text.replace(code, "")), plain);
        assert_eq!(table.with_tabs().lines().nth(1), Some("pump\tup\t"));
    }
}
