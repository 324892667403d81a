//! The export: every value as one line of text with its checksum, written whole and renamed into place.
//!
//! A line is `crc32c-hex room key-json value-json`; a line whose checksum does not fit is left out and told.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Room;

fn paths(dir: &Path) -> [PathBuf; 3] {
    ["export.new", "export", "export.old"].map(|name| dir.join(name))
}

/// Writes all values; the export before this one is kept beside it.
pub(super) fn write(dir: &Path, values: &[(Room, String, Vec<u8>)]) -> io::Result<()> {
    let [new, current, old] = paths(dir);
    let mut text = String::new();
    for (room, key, value) in values {
        let key = serde_json::to_string(key)?;
        let line = format!("{} {key} {}", room.name(), String::from_utf8_lossy(value));
        let _ = writeln!(text, "{:08x} {line}", crc32c::crc32c(line.as_bytes()));
    }
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if current.exists() {
        std::fs::rename(&current, &old)?;
    }
    std::fs::rename(&new, &current)?;
    File::open(dir)?.sync_all()
}

/// Reads the newest export that is there; `None` when there is none.
pub(super) fn read(dir: &Path) -> Option<Vec<(Room, String, Vec<u8>)>> {
    let [_, current, old] = paths(dir);
    let text = std::fs::read_to_string(current).or_else(|_| std::fs::read_to_string(old)).ok()?;
    let values: Vec<_> = text.lines().map(parse).collect();
    let damaged = values.iter().filter(|value| value.is_none()).count();
    if damaged > 0 {
        tracing::error!(damaged, "lines of the state's export were damaged and left out");
    }
    Some(values.into_iter().flatten().collect())
}

fn parse(line: &str) -> Option<(Room, String, Vec<u8>)> {
    let (checksum, line) = line.split_once(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(line.as_bytes()) {
        return None;
    }
    let (room, rest) = line.split_once(' ')?;
    let room = Room::ALL.into_iter().find(|r| r.name() == room)?;
    let mut keys = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let key = keys.next()?.ok()?;
    let value = rest.get(keys.byte_offset() + 1..)?;
    Some((room, key, value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_reads_back_without_its_damaged_lines() {
        let dir = tempfile::tempdir().unwrap();
        let values = vec![
            (Room::Twins, "gw/a \"b\"".to_owned(), br#"{"a":"b c"}"#.to_vec()),
            (Room::Sessions, "press-1".to_owned(), b"[]".to_vec()),
        ];
        assert_eq!(read(dir.path()), None);
        write(dir.path(), &values[..1]).unwrap();
        write(dir.path(), &values).unwrap();
        assert_eq!(read(dir.path()).as_ref(), Some(&values));
        let path = dir.path().join("export");
        let text = std::fs::read_to_string(&path).unwrap().replace("[]", "{}");
        std::fs::write(&path, text).unwrap();
        assert_eq!(read(dir.path()).unwrap(), &values[..1]);
        std::fs::remove_file(path).unwrap();
        assert_eq!(read(dir.path()).unwrap(), &values[..1], "the export before it takes its place");
    }
}
