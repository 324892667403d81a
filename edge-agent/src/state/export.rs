//! The export: every value as one line of text with its checksum, written whole and renamed into place.
//!
//! A line is `crc32c-hex room key-json value-json`. The last one is `crc32c-hex end journal-id sequence count epoch:sequence …`:
//! what of the journal it holds, and of how many values; without it the export is not whole.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::line;
use super::position::Position;
use super::values::{Change, Values};

/// What an export holds.
pub(super) struct Export {
    pub(super) values: Values,
    pub(super) position: Position,
}

fn paths(dir: &Path) -> [PathBuf; 3] {
    ["export.new", "export", "export.old"].map(|name| dir.join(name))
}

/// Returns true when there is an export.
pub(super) fn is_there(dir: &Path) -> bool {
    let [_, current, old] = paths(dir);
    current.exists() || old.exists()
}

/// Writes all values; the export before this one is kept beside it.
pub(super) fn write(dir: &Path, values: &Values, position: &Position) -> io::Result<()> {
    let [new, current, old] = paths(dir);
    let mut file = BufWriter::new(File::create(&new)?);
    let mut put = |line: String| writeln!(file, "{:08x} {line}", crc32c::crc32c(line.as_bytes()));
    for ((namespace, key), value) in values {
        put(line::write(*namespace, key, Some(value)))?;
    }
    let epochs = position.epochs_text();
    put(format!("end {} {} {}{epochs}", position.journal, position.sequence, values.len()))?;
    file.into_inner()?.sync_all()?;
    if current.exists() {
        std::fs::rename(&current, &old)?;
    }
    std::fs::rename(&new, &current)?;
    File::open(dir)?.sync_all()
}

/// Reads the exports that are whole, the newest first.
pub(super) fn read(dir: &Path) -> impl Iterator<Item = Export> {
    let [_, current, old] = paths(dir);
    [current, old].into_iter().filter_map(|path| {
        let bytes = std::fs::read(&path).ok()?;
        let export = parse(&bytes);
        if export.is_none() {
            tracing::error!(path = %path.display(), "an export of the state is damaged and was passed over");
        }
        export
    })
}

/// The position of the export before the newest one: the journal is kept from there on.
pub(super) fn older_position(dir: &Path) -> Option<Position> {
    let [_, _, old] = paths(dir);
    parse(&std::fs::read(old).ok()?).map(|export| export.position)
}

fn parse(bytes: &[u8]) -> Option<Export> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines().map(|line| {
        let (checksum, line) = line.split_once(' ')?;
        (u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(line.as_bytes())).then_some(line)
    });
    let mut values = Values::new();
    loop {
        let line = lines.next()??;
        let Some(end) = line.strip_prefix("end ") else {
            // Of a namespace that this version does not know.
            let Some(Change { namespace, key, value }) = line::parse(line) else { continue };
            values.insert((namespace, key), value?);
            continue;
        };
        let mut words = end.split(' ');
        let (journal, sequence) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let count: usize = words.next()?.parse().ok()?;
        let position = Position { journal, sequence, epochs: Position::parse_epochs(words)? };
        return (values.len() <= count).then_some(Export { values, position });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Namespace;
    use super::*;
    use edge_buffer::Epoch;
    use uuid::Uuid;

    #[test]
    fn an_export_reads_back_and_a_damaged_one_is_replaced_by_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let position = |sequence| Position {
            journal: Uuid::from_u128(7),
            sequence,
            epochs: vec![(Epoch::from_number(9), 1), (Epoch::from_number(u64::MAX), sequence)],
        };
        let mut values =
            Values::from([((Namespace::Twins, "gw/a \"b\"".to_owned()), br#"{"a":"b c"}"#.to_vec())]);
        let newest = || read(dir.path()).next();
        assert!(newest().is_none());
        write(dir.path(), &values, &position(1)).unwrap();
        let before = values.clone();
        values.insert((Namespace::Commands, "press-1".to_owned()), b"[]".to_vec());
        write(dir.path(), &values, &position(2)).unwrap();
        let export = newest().unwrap();
        assert_eq!((export.values, export.position), (values, position(2)));
        let path = dir.path().join("export");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut hurt = whole.clone();
            hurt[at] ^= 1;
            std::fs::write(&path, hurt).unwrap();
            let export = newest().unwrap();
            assert_eq!((&export.values, export.position), (&before, position(1)), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(newest().unwrap().position, position(1), "cut at {at}");
        }
    }
}
