//! The store's files as they were opened: `central.db`, its log (`central.db-wal`) and the log's index (`central.db-shm`).
//!
//! SQLite writes on to a file that was removed or replaced, and behind the end of a log that was cut, and reports no error. The next start
//! would find neither. So the writer checks after each commit, and every few seconds, whether the three files are still in their places, and
//! whether the log begins and ends with frames of one generation.
//!
//! A log (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>) begins with a header; each page in it is a frame with a header of
//! its own. Header and frames of one generation have the same two salts, and a part that was cut off and written behind reads as zeros.
//!
//! The index is never opened here: closing it would release SQLite's locks on it (fcntl(2)). SQLite has none on the log.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::damage::Sign;
use super::error::StoreError;
use super::log::{index_path, log_path};

const HEADER_BYTES: u64 = 32;
const HEADER_SALTS_AT: u64 = 16;
const FRAME_HEADER_BYTES: u64 = 24;
const FRAME_SALTS_AT: u64 = 8;
/// How often all frames are read anew when another program writes to the log meanwhile.
const LOG_READS_MAX: u32 = 3;

type Salts = [u8; 8];

/// A file as it was opened.
#[derive(Debug)]
pub(super) struct OpenedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenedFile {
    /// The file that is there now.
    ///
    /// # Errors
    /// When its metadata cannot be read.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What has become of it; `None` when it is there. A directory that cannot be read is no sign.
    pub(super) fn gone(&self) -> Option<String> {
        let path = self.path.display();
        match fs::metadata(&self.path) {
            Ok(found) if self.is(&found) => None,
            Ok(_) => Some(format!("another file was put in the place of {path} while central runs")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Some(format!("{path} was deleted or moved away while central runs"))
            }
            Err(_) => None,
        }
    }

    fn is(&self, found: &fs::Metadata) -> bool {
        (found.dev(), found.ino()) == (self.device, self.inode)
    }

    /// Renames what is in its place and is another file, so that nobody takes it for this one. It is kept.
    fn set_foreign_aside(&self, now_ms: u64) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if !self.is(&found) => {
                let mut aside = self.path.as_os_str().to_owned();
                aside.push(format!(".replaced-{now_ms}"));
                fs::rename(&self.path, &aside)?;
                tracing::warn!(
                    path = %self.path.display(),
                    aside = %Path::new(&aside).display(),
                    "a file that is not the store's was moved out of its place"
                );
                self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The three files of a store.
#[derive(Debug)]
pub(super) struct OpenedFiles {
    store: OpenedFile,
    /// Bytes of the store's file when it was found well last.
    store_bytes: u64,
    index: OpenedFile,
    log: OpenedLog,
}

impl OpenedFiles {
    /// The files that `connection`, which has read from the store, has open.
    ///
    /// # Errors
    /// [`StoreError::File`] or [`StoreError::Open`].
    pub(super) fn of(path: &Path, connection: &Connection) -> Result<Self, StoreError> {
        let page_bytes = connection
            .query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0).map(u64::from))
            .map_err(|source| StoreError::opening(path, source))?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { path, source }
        };
        let store = OpenedFile::of(path).map_err(failed(path))?;
        // SQLite puts log and index beside the file that a symbolic link leads to.
        let real = fs::canonicalize(path).map_err(failed(path))?;
        let (log, index) = (log_path(&real), index_path(&real));
        let log = OpenedLog::open(&log, page_bytes).map_err(failed(&log))?;
        let index = OpenedFile::of(&index).map_err(failed(&index))?;
        Ok(Self { store, store_bytes: 0, index, log })
    }

    /// What has become of the files; `None` when the next start finds in them all that was committed. `pages` is how many the log had
    /// after the last commit of `connection`.
    pub(super) fn harm(&mut self, connection: &Connection, pages: u32) -> Option<(String, Sign)> {
        if let Some(harm) = self.store_harm(connection) {
            return Some(harm);
        }
        if let Some(gone) = self.log.place.gone().or_else(|| self.index.gone()) {
            return Some((gone, Sign::LogGone));
        }
        // The short check suffices nearly always. It errs when another program has begun the log anew since the commit.
        let is_whole = self.log.ends_whole(pages) || self.log.is_whole(connection) != Some(false);
        self.log.pages = pages;
        (!is_whole).then(|| {
            (
                format!("{} was cut or overwritten while central runs", self.log.place.path.display()),
                Sign::Cut,
            )
        })
    }

    fn store_harm(&mut self, connection: &Connection) -> Option<(String, Sign)> {
        if let Some(gone) = self.store.gone() {
            return Some((gone, Sign::Gone));
        }
        let bytes = fs::metadata(&self.store.path).map_or(self.store_bytes, |found| found.len());
        if bytes < self.store_bytes && !is_all_of_the_pages(connection, bytes) {
            return Some((format!("{} was cut while central runs", self.store.path.display()), Sign::Cut));
        }
        self.store_bytes = bytes;
        None
    }

    /// Returns true when the log may be moved into the store's file: both are whole, and the store's file is in its place.
    pub(super) fn may_take_log(&mut self, connection: &Connection) -> bool {
        self.store_harm(connection).is_none() && self.log.is_whole(connection) == Some(true)
    }

    /// Renames files in the places of log and index that are not those of this store.
    ///
    /// # Errors
    /// When one cannot be renamed.
    pub(super) fn set_foreign_aside(&self, now_ms: u64) -> io::Result<()> {
        self.log.place.set_foreign_aside(now_ms)?;
        self.index.set_foreign_aside(now_ms)
    }
}

/// Whether a file of so many bytes has all pages of the store: another program may have made it smaller (`VACUUM`).
fn is_all_of_the_pages(connection: &Connection, bytes: u64) -> bool {
    let pragma = |name: &str| connection.query_row(name, [], |row| row.get::<_, u32>(0).map(u64::from));
    let needed = pragma("PRAGMA page_count").and_then(|pages| Ok(pages * pragma("PRAGMA page_size")?));
    needed.is_ok_and(|needed| bytes >= needed)
}

/// The log, open for reading.
#[derive(Debug)]
struct OpenedLog {
    place: OpenedFile,
    file: File,
    frame_bytes: u64,
    /// Pages in it at the last check.
    pages: u32,
}

impl OpenedLog {
    fn open(path: &Path, page_bytes: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            place: OpenedFile::of(path)?,
            file,
            frame_bytes: FRAME_HEADER_BYTES + page_bytes,
            pages: 0,
        })
    }

    /// Whether header, the frame that was the last one at the last check, and the last one of `pages` belong together. True when the
    /// disk cannot read them: that is no sign of a cut.
    fn ends_whole(&self, pages: u32) -> bool {
        pages == 0 || self.has_frames([self.pages.clamp(1, pages), pages]).unwrap_or(true)
    }

    /// Whether all frames that SQLite takes for written are there; `None` when that cannot be said.
    fn is_whole(&self, connection: &Connection) -> Option<bool> {
        for _ in 0..LOG_READS_MAX {
            let (pages, salts) = (pages_in(connection).ok()?, self.salts_of_header().ok()?);
            if pages == 0 || self.has_frames(1..=pages).ok()? {
                return Some(true);
            }
            // Else another program has begun the log anew meanwhile.
            if pages_in(connection).ok()? == pages && self.salts_of_header().ok()? == salts {
                return Some(false);
            }
        }
        None
    }

    /// Whether these frames have the salts of the header, and the file reaches to the end of the last one.
    fn has_frames(&self, frames: impl IntoIterator<Item = u32>) -> io::Result<bool> {
        let Some(salts) = self.salts_of_header()? else { return Ok(false) };
        let mut end = 0;
        for frame in frames {
            let start = HEADER_BYTES + u64::from(frame.saturating_sub(1)) * self.frame_bytes;
            if self.salts_at(start + FRAME_SALTS_AT)? != Some(salts) {
                return Ok(false);
            }
            end = start + self.frame_bytes;
        }
        Ok(self.file.metadata()?.len() >= end)
    }

    fn salts_of_header(&self) -> io::Result<Option<Salts>> {
        self.salts_at(HEADER_SALTS_AT)
    }

    /// `None` behind the end of the file.
    fn salts_at(&self, offset: u64) -> io::Result<Option<Salts>> {
        let mut salts = Salts::default();
        match self.file.read_exact_at(&mut salts, offset) {
            Ok(()) => Ok(Some(salts)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How many frames the log has by its index. Moves none of them.
fn pages_in(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get("log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{paths, schema};

    /// A store with some commits in its log, the files that its connection has open, and how many pages the log has.
    fn opened(dir: &Path) -> (Connection, OpenedFiles, u32) {
        let path = dir.join(paths::FILE);
        let connection = schema::open(&path).unwrap();
        let mut files = OpenedFiles::of(&path, &connection).unwrap();
        for _ in 0..5 {
            write(&connection);
        }
        let pages = pages_in(&connection).unwrap();
        assert!(pages > 5, "{pages}");
        assert_eq!(files.harm(&connection, pages), None);
        (connection, files, pages)
    }

    fn write(connection: &Connection) {
        connection.execute("UPDATE commits SET count = count + 1", []).unwrap();
    }

    #[test]
    fn a_log_that_was_cut_anywhere_is_found_also_when_a_commit_has_been_written_behind_it() {
        for is_written_behind in [false, true] {
            for eighth in 0..8 {
                let dir = tempfile::tempdir().unwrap();
                let (connection, mut files, pages) = opened(dir.path());
                let file = fs::OpenOptions::new().write(true).open(&files.log.place.path).unwrap();
                file.set_len(file.metadata().unwrap().len() * eighth / 8).unwrap();
                let mut now = pages;
                if is_written_behind {
                    write(&connection);
                    now = pages_in(&connection).unwrap();
                }
                let found = files.harm(&connection, now);
                assert!(
                    matches!(&found, Some((what, Sign::Cut)) if what.contains("-wal was cut")),
                    "{eighth}/8 left, written behind: {is_written_behind}: {found:?}"
                );
                assert!(!files.may_take_log(&connection), "{eighth}/8");
            }
        }
    }

    #[test]
    fn a_log_that_another_program_moves_cuts_and_begins_anew_is_no_harm() {
        for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
            let dir = tempfile::tempdir().unwrap();
            let (connection, mut files, pages) = opened(dir.path());
            let other = Connection::open(dir.path().join(paths::FILE)).unwrap();
            other.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())).unwrap();
            assert_eq!(files.harm(&connection, pages), None, "{mode}");
            write(&other);
            assert_eq!(files.harm(&connection, pages), None, "{mode}");
            write(&connection);
            assert_eq!(files.harm(&connection, pages_in(&connection).unwrap()), None, "{mode}");
            other.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            assert_eq!(files.harm(&connection, pages), None, "{mode}");
        }
    }
}
