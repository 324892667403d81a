//! Disk space that the store's file will need, held by a file of its own.
//!
//! Commits go to the log first, and the file grows when the log is moved into it. If the disk filled up in between, the log could never be
//! moved or begun anew, and no commit would succeed any more, not even one that deletes history: a central that is alone on its disk would
//! fill it with its own log and stay so. So before a commit, as many bytes as the file will grow by are reserved in `central.reserve`, and
//! they are given back just before the log is moved. A commit for whose pages there is no space in the file fails as one for which there is
//! none in the log.
//!
//! The file grows in length, and where it has holes: while a reader keeps SQLite from moving all of the log, pages whose newest state is in
//! the part that stays are left out, and pages behind them are moved. The disk has no space for what was left out until it is moved too.
//!
//! A descriptor of the store's file itself is not opened for that: closing it would release SQLite's locks (fcntl(2)).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use edge_core::error_chain::chain;
use rusqlite::{Connection, ffi};

use super::error::StoreError;
use super::paths::{FILE, RESERVE_FILE};

/// The reserve grows in steps of so much, so that most commits leave it as it is.
const STEP_BYTES: u64 = 1 << 20;
/// Reserved beside what the file will grow by: what the file system needs for its own lists of the file's blocks, which it counts as the
/// file's too, so that they may hide as many bytes of holes.
const LISTS_BYTES: u64 = 64 << 10;
/// Holes that are counted: four times what a log has that is moved in time. A file system that compresses has fewer blocks than the
/// file has bytes, and no holes.
const HOLES_BYTES_MAX: u64 = 64 << 20;

/// The reserve of one opened store.
#[derive(Debug)]
pub(super) struct FileReserve {
    store: PathBuf,
    path: PathBuf,
    page_bytes: u64,
    /// What is reserved now.
    bytes: u64,
    /// Logged that nothing can be reserved here for another reason than a full disk.
    is_failing: bool,
}

impl FileReserve {
    /// Removes what an earlier process reserved for the store in `dir`: opening it may need the space.
    ///
    /// # Errors
    /// [`StoreError::File`] when it cannot be removed.
    pub(super) fn remove_former(dir: &Path) -> Result<(), StoreError> {
        let path = beside(&dir.join(FILE));
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::File { path, source }),
            _ => Ok(()),
        }
    }

    /// Nothing is reserved yet.
    ///
    /// # Errors
    /// When the page size cannot be read.
    pub(super) fn of(store: &Path, connection: &Connection) -> rusqlite::Result<Self> {
        let page_bytes = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, u32>(0))?.into();
        let (store, path) = (store.to_owned(), beside(store));
        Ok(Self { store, path, page_bytes, bytes: 0, is_failing: false })
    }

    /// Reserves what the file will grow by when all of the log is moved, with what the transaction under way adds. Where the file system
    /// cannot reserve space, nothing is, and one line of the log says so.
    ///
    /// # Errors
    /// `SQLITE_FULL` when the disk has less.
    pub(super) fn keep(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let pages =
            connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get::<_, u32>(0))?;
        let (length, holes) = length_and_holes(&self.store);
        let growth = (u64::from(pages) * self.page_bytes).saturating_sub(length);
        let needed = growth + holes + LISTS_BYTES;
        if needed <= self.bytes {
            return Ok(());
        }
        let bytes = needed.next_multiple_of(STEP_BYTES);
        // A disk that is nearly full may have what is needed and not the whole step.
        match self.grow(bytes).or_else(|_| self.grow(needed)) {
            // Nor is there space beyond the limit on the size of files.
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::FileTooLarge) => {
                Err(rusqlite::Error::SqliteFailure(
                    ffi::Error::new(ffi::SQLITE_FULL),
                    Some(chain(&error).to_string()),
                ))
            }
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(
                        error = %chain(&error),
                        path = %self.path.display(),
                        "space for the store's file cannot be reserved; on a full disk its log may not be moved any more"
                    );
                }
                self.is_failing = true;
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives the space back: the log is to be moved now.
    pub(super) fn give_back(&mut self) {
        self.bytes = 0;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => tracing::warn!(
                error = %chain(&error),
                path = %self.path.display(),
                "the space that is reserved for the store's file cannot be given back"
            ),
            _ => {}
        }
    }

    fn grow(&mut self, bytes: u64) -> io::Result<()> {
        let file: File =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let grown = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes);
        if let Err(error) = grown {
            // ext4 keeps what it had found until the disk was full: the last bytes that are free, which the log needs.
            file.set_len(self.bytes)?;
            return Err(error.into());
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// Length of the store's file, and for how many bytes within it the disk has no space yet, [`HOLES_BYTES_MAX`] at most. A file that cannot be
/// read has neither.
pub(super) fn length_and_holes(store: &Path) -> (u64, u64) {
    fs::metadata(store).map_or((0, 0), |found| {
        let holes = found.len().saturating_sub(found.blocks() * 512);
        (found.len(), holes.min(HOLES_BYTES_MAX))
    })
}

/// On the disk of the store's file, which may be behind a symbolic link.
fn beside(store: &Path) -> PathBuf {
    let real = fs::canonicalize(store).unwrap_or_else(|_| store.to_owned());
    real.with_file_name(RESERVE_FILE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Connection {
        let connection = Connection::open(dir.join(FILE)).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (bytes BLOB); PRAGMA wal_checkpoint(TRUNCATE)",
            )
            .unwrap();
        connection
    }

    #[test]
    fn what_the_file_will_grow_by_is_reserved_until_the_log_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let connection = store(dir.path());
        let path = dir.path().join(RESERVE_FILE);
        let mut reserve = FileReserve::of(&dir.path().join(FILE), &connection).unwrap();
        for mib in 1..4 {
            connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (zeroblob(900000))").unwrap();
            reserve.keep(&connection).unwrap();
            connection.execute_batch("COMMIT").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), mib * STEP_BYTES);
        }
        reserve.give_back();
        assert!(!path.exists());
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        reserve.keep(&connection).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), STEP_BYTES, "the file has all of its pages");
    }

    #[test]
    fn pages_that_a_reader_kept_out_of_the_file_are_reserved_too() {
        let dir = tempfile::tempdir().unwrap();
        let connection = store(dir.path());
        let file = dir.path().join(FILE);
        connection
            .execute_batch(
                "CREATE TABLE u (bytes BLOB);
                 BEGIN; INSERT INTO t VALUES (zeroblob(5000000)); INSERT INTO u VALUES (zeroblob(5000)); COMMIT",
            )
            .unwrap();
        let reader = Connection::open(&file).unwrap();
        let moment = reader.unchecked_transaction().unwrap();
        let rows = "SELECT count(*) FROM t";
        assert_eq!(moment.query_row(rows, [], |row| row.get::<_, i64>(0)).unwrap(), 1);
        connection
            .execute_batch("UPDATE t SET bytes = randomblob(5000000); PRAGMA wal_checkpoint(PASSIVE)")
            .unwrap();
        drop(moment);
        let (length, holes) = length_and_holes(&file);
        assert!(length > 5_000_000 && holes > 4_800_000, "{length} bytes, {holes} of them holes");
        let mut reserve = FileReserve::of(&file, &connection).unwrap();
        reserve.keep(&connection).unwrap();
        let reserved = fs::metadata(dir.path().join(RESERVE_FILE)).unwrap().blocks() * 512;
        assert!(reserved >= holes + LISTS_BYTES, "{reserved} bytes are reserved for {holes} bytes of holes");
        reserve.give_back();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert_eq!(length_and_holes(&file), (length, 0));
    }

    #[test]
    fn what_a_killed_process_reserved_is_removed_also_behind_a_link() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        drop(store(disk.path()));
        std::os::unix::fs::symlink(disk.path().join(FILE), dir.path().join(FILE)).unwrap();
        let path = disk.path().join(RESERVE_FILE);
        fs::write(&path, "what is left").unwrap();
        FileReserve::remove_former(dir.path()).unwrap();
        assert!(!path.exists());
        FileReserve::remove_former(dir.path()).unwrap();
    }
}
