//! Escapes what would start a line, steer a terminal, or show text in another order than it has.

use std::fmt::{self, Write};

/// Characters that neither a log line nor what a command prints may hold as they are: C0 and C1 controls, DEL, the separators of
/// lines and paragraphs, and format characters that reorder or hide text (Unicode TR 36, "Trojan source").
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Passes text on to `out` escaped, up to `space` bytes.
pub(super) struct Escaper<'a> {
    out: &'a mut String,
    space: usize,
    is_cut: bool,
}

impl<'a> Escaper<'a> {
    pub(super) fn new(out: &'a mut String, space: usize) -> Self {
        Self { out, space, is_cut: false }
    }

    /// Says whether text was left out.
    pub(super) fn finish(self) {
        if self.is_cut {
            self.out.push_str("...(cut)");
        }
    }
}

impl Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let before = self.out.len();
            match c {
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                c if is_unsafe(c) => self.out.extend(c.escape_unicode()),
                c => self.out.push(c),
            }
            let taken = self.out.len() - before;
            if taken > self.space {
                self.out.truncate(before);
                self.space = 0;
                self.is_cut = true;
                // Ends the formatting of a value that may be megabytes long.
                return Err(fmt::Error);
            }
            self.space -= taken;
        }
        Ok(())
    }
}

/// A short text, escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let _ = Escaper::new(&mut out, usize::MAX).write_str(text);
    out
}

/// What a command prints, with its lines, tabs and colours as they are: parts of it may come from elsewhere.
pub(super) fn printed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (taken, after) = rest.split_at(colour_len(rest).unwrap_or(c.len_utf8()));
        if taken.len() == c.len_utf8() && is_unsafe(c) && !matches!(c, '\n' | '\t') {
            out.extend(c.escape_unicode());
        } else {
            out.push_str(taken);
        }
        rest = after;
    }
    out
}

/// How long the colour code is (ECMA-48, "select graphic rendition") that a text begins with.
fn colour_len(text: &str) -> Option<usize> {
    let code = text.strip_prefix("\u{1b}[")?;
    let digits = code.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b';').count();
    code[digits..].starts_with('m').then_some(2 + digits + 1)
}

/// A JSON text that holds no unsafe characters: in its strings they are escaped as JSON has it.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Line feeds stand between values only: serde_json escapes those of strings.
        if is_unsafe(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A text of several lines of our own, for a terminal.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters that steer a terminal, start a line, or hide or reorder text, as a stranger may choose them for a name.
    const UNSAFE: [char; 12] = [
        '\u{1b}',
        '\r',
        '\u{7f}',
        '\u{9b}',
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{2028}',
        '\u{2029}',
        '\u{2066}',
        '\u{feff}',
        '\u{e0041}',
    ];

    #[test]
    fn nothing_that_a_command_prints_steers_a_terminal_or_hides_text() {
        for c in UNSAFE {
            let name = format!("a{c}b");
            for text in [printed(&name), json(&serde_json::json!({ "name": name }).to_string())] {
                assert!(!text.contains(c), "{c:?}: {text:?}");
            }
            let read: serde_json::Value =
                serde_json::from_str(&json(&serde_json::json!({ "name": name }).to_string())).unwrap();
            assert_eq!(read["name"], name, "JSON keeps the name");
        }
        let table = "NAME\tSTATE\n\u{1b}[1;31mpress\u{1b}[0m\tGrüße, 工場\n";
        assert_eq!(printed(table), table);
        assert_eq!(printed("\u{1b}[2Jx\u{1b}[31"), "\\u{1b}[2Jx\\u{1b}[31");
    }

    #[test]
    fn what_people_write_is_left_as_it_is() {
        for text in ["plain", "Grüße, 工場, \u{1f600}", "C:\\dir", "a=b \"c\""] {
            assert_eq!(escaped(text), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let mut out = String::new();
        let mut escaper = Escaper::new(&mut out, 5);
        assert!(escaper.write_str("äöüß").is_err());
        escaper.finish();
        assert_eq!(out, "äö...(cut)");
    }
}
