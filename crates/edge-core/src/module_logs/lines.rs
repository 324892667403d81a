//! Lines out of the parts in which the engine sends a log.

/// The longest line that is kept whole; a longer one is cut here and goes on as another line. The engine's own parts have 16 KiB.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Where a module wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Begins of lines that have not ended, at most one for each stream.
#[derive(Debug, Default)]
pub struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Lines {
    /// Takes a part and gives the lines that end in it, without their ends.
    pub fn push(&mut self, stream: Stream, mut part: &[u8], mut take: impl FnMut(&[u8])) {
        let begun = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        while !part.is_empty() {
            let (end, is_whole) = match part.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at, true),
                None => (part.len(), false),
            };
            let free = LINE_BYTES_MAX - begun.len();
            if end > free {
                begun.extend_from_slice(&part[..free]);
                take(begun);
                begun.clear();
                part = &part[free..];
                continue;
            }
            if !is_whole {
                begun.extend_from_slice(part);
                return;
            }
            if begun.is_empty() {
                take(without_return(&part[..end]));
            } else {
                begun.extend_from_slice(&part[..end]);
                take(without_return(begun));
                begun.clear();
            }
            part = &part[end + 1..];
        }
    }

    /// The log ended: gives what has begun.
    pub fn finish(&mut self, mut take: impl FnMut(Stream, &[u8])) {
        for (stream, begun) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            if !begun.is_empty() {
                take(stream, without_return(begun));
                begun.clear();
            }
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(Stream::Stdout, part, |line| found.push(line.to_vec()));
        }
        lines.finish(|_, line| found.push(line.to_vec()));
        found
    }

    #[test]
    fn streams_do_not_mix_and_an_endless_line_is_cut() {
        let (mut of, mut found) = (Lines::default(), Vec::new());
        of.push(Stream::Stdout, b"one ", |_| panic!("it has not ended"));
        of.push(Stream::Stderr, b"fault\r\n", |line| found.push(line.to_vec()));
        of.push(Stream::Stdout, b"two\n\n", |line| found.push(line.to_vec()));
        assert_eq!(found, [b"fault".to_vec(), b"one two".to_vec(), Vec::new()]);
        let long = vec![b'x'; LINE_BYTES_MAX * 2 + 3];
        let cut: Vec<usize> = lines(&[&long, b"\n"]).iter().map(Vec::len).collect();
        assert_eq!(cut, [LINE_BYTES_MAX, LINE_BYTES_MAX, 3]);
    }

    proptest! {
        /// Wherever the engine cuts a log, its lines are the same.
        #[test]
        fn lines_do_not_depend_on_the_parts(
            text in "([a-z]{0,9}\n?){0,20}", cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let expected: Vec<Vec<u8>> = text.split_terminator('\n').map(|line| line.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines(&parts), expected);
        }
    }
}
