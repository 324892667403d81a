//! A file that is kept on disk until it has been uploaded: its length is known before it is sent, and memory does not grow with it.
//!
//! It has no name in its directory, so that nothing is left of it, however the daemon ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use uuid::Uuid;

/// The largest file: over a line of 1 Mbit/s it takes 18 minutes.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Free disk space is measured again after so many bytes.
const MEASURE_EVERY: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("it has more than {FILE_BYTES_MAX} bytes; request less with `since` or `tail`")]
    TooLarge,
    #[error("the disk has less than {keep_free_bytes} bytes free, which [buffer] keep_free_bytes keeps")]
    DiskFull { keep_free_bytes: u64 },
}

/// A file that is being written.
pub struct Spool {
    file: File,
    size_bytes: u64,
    keep_free_bytes: u64,
}

impl Spool {
    /// In a directory whose disk keeps `keep_free_bytes`.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(dir: &Path, keep_free_bytes: u64) -> io::Result<Self> {
        let path = dir.join(format!("upload-{}", Uuid::new_v4()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, size_bytes: 0, keep_free_bytes })
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The file, from its beginning.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn reader(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    fn check_disk(&self) -> io::Result<()> {
        let stat = rustix::fs::fstatvfs(&self.file)?;
        let needed = self.keep_free_bytes.saturating_add(MEASURE_EVERY);
        if stat.f_bavail.saturating_mul(stat.f_frsize) < needed {
            let full = SpoolError::DiskFull { keep_free_bytes: self.keep_free_bytes };
            return Err(io::Error::new(io::ErrorKind::StorageFull, full));
        }
        Ok(())
    }
}

impl Write for Spool {
    /// Fails with a [`SpoolError`] at the limit, and while the disk is nearly full.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if size_bytes > FILE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, SpoolError::TooLarge));
        }
        if self.size_bytes == 0 || self.size_bytes / MEASURE_EVERY != size_bytes / MEASURE_EVERY {
            self.check_disk()?;
        }
        let written = self.file.write(bytes)?;
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_spooled_file_has_no_name_and_is_read_from_its_beginning_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 0).unwrap();
        spool.write_all(b"some text").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for _ in 0..2 {
            let mut text = String::new();
            spool.reader().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), spool.size_bytes()), ("some text", 9));
        }
    }

    #[test]
    fn a_file_over_the_limit_and_a_disk_that_is_nearly_full_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 0).unwrap();
        spool.size_bytes = FILE_BYTES_MAX - 1;
        spool.write_all(b"x").unwrap();
        let error = spool.write_all(b"x").unwrap_err();
        assert!(error.to_string().starts_with("it has more than 134217728 bytes"), "{error}");

        let error = Spool::create(dir.path(), u64::MAX).unwrap().write_all(b"x").unwrap_err();
        assert!(error.to_string().contains("[buffer] keep_free_bytes"), "{error}");
    }
}
