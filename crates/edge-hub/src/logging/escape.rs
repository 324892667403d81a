//! Escapes what would start a line, steer a terminal, or show text in another order than it has.

use std::fmt::{self, Write};

/// Characters that a log line must not hold as they are: C0 and C1 controls, DEL, the separators of lines and paragraphs, and
/// format characters that reorder or hide text (Unicode TR 36, "Trojan source").
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Passes text on to `out` escaped, up to `room` bytes.
pub(super) struct Escaper<'a> {
    out: &'a mut String,
    room: usize,
    is_cut: bool,
}

impl<'a> Escaper<'a> {
    pub(super) fn new(out: &'a mut String, room: usize) -> Self {
        Self { out, room, is_cut: false }
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
            if taken > self.room {
                self.out.truncate(before);
                self.room = 0;
                self.is_cut = true;
                // Ends the formatting of a value that may be megabytes long.
                return Err(fmt::Error);
            }
            self.room -= taken;
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

/// A text of several lines of our own, for a terminal.
pub(super) fn lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
