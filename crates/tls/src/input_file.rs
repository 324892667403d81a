//! Reads files that an operator names, in a configuration or on a command line: certificates, keys, passwords, manifests. Only regular
//! files up to a size limit are read, so that neither `/dev/zero` fills the memory nor a named pipe blocks the program.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Limit for certificates, keys, passwords and configurations, in bytes. A bundle of all public certificate authorities has a quarter of it.
pub const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// It is no regular file.
    #[error("it is {0}, and not a regular file")]
    Kind(&'static str),
    /// It exceeds the limit, which this holds in bytes.
    #[error("it has more than {0} bytes, which is the limit")]
    TooLong(u64),
}

impl From<NotRead> for io::Error {
    fn from(why: NotRead) -> Self {
        Self::new(io::ErrorKind::InvalidInput, why)
    }
}

/// Opens a regular file for reading.
///
/// # Errors
/// Those of the system; for anything but a regular file one with [`NotRead::Kind`] as its source.
pub fn open(path: &Path) -> io::Result<File> {
    // Without O_NONBLOCK, opening a named pipe waits for a writer. Regular files ignore it.
    let file =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let kind = file.metadata()?.file_type();
    let found = match () {
        () if kind.is_file() => return Ok(file),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(NotRead::Kind(found).into())
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// Those of the system; or one with [`NotRead`] as its source.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    bounded(open(path)?, bytes_max)
}

/// As [`read`], for text in UTF-8.
///
/// # Errors
/// As [`read`], and `InvalidData` for bytes that are no UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let bytes = read(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// As [`read`]; `-` is the standard input.
///
/// # Errors
/// As [`read`].
pub fn read_or_stdin(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if path == Path::new("-") { bounded(io::stdin().lock(), bytes_max) } else { read(path, bytes_max) }
}

/// Reads to the end, at most `bytes_max` bytes.
///
/// # Errors
/// Those of `source`; or one with [`NotRead::TooLong`] as its source if there are more bytes.
pub fn bounded(source: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(NotRead::TooLong(bytes_max).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "12345").unwrap();
        std::fs::write(at("latin"), b"\xe9").unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();

        assert_eq!(read(&at("link"), 5).unwrap(), b"12345");
        let refused = |path: &Path, max| read(path, max).unwrap_err().to_string();
        assert_eq!(refused(&at("file"), 4), "it has more than 4 bytes, which is the limit");
        assert_eq!(refused(&at("pipe"), 9), "it is a named pipe, and not a regular file");
        assert_eq!(refused(dir.path(), 9), "it is a directory, and not a regular file");
        assert_eq!(refused(Path::new("/dev/zero"), 9), "it is a device, and not a regular file");
        assert!(read(&at("socket"), 9).is_err());
        assert_eq!(read(&at("nothing"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read_text(&at("latin"), 9).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(bounded(io::repeat(0), 9).is_err());
    }
}
