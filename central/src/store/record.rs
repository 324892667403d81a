//! The commit record: a file beside the store that says how many commits the store has had.
//!
//! SQLite ends its log at the first frame whose checksum is wrong, without a word: one flipped bit there takes back every
//! commit behind it. The record is written after each commit, so a store that is behind its record has lost commits.
//!
//! One line of fixed length, written in place: `central-commits 1 STORE COMMITS MESSAGES CRC32C`.
//!
//! # Guarantees
//! - The record is never ahead of what SQLite has synced: a power cut alone never looks like a loss.
//! - It may be behind: it is synced with checkpoints only.
//! - Removed or replaced while central runs, it is made again with the next commit, or within seconds.

use edge_core::error_chain::chain;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

use super::columns::{integer, unsigned};
use super::error::StoreError;
use super::opened_files::OpenedFile;

/// In the data directory.
pub const FILE: &str = "central.db-commits";
const VERSION: &str = "central-commits 1";

/// How far a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePosition {
    /// Random id of the store, made with it.
    pub store: String,
    /// Commits since the store was made.
    pub commits: u64,
    /// The highest id of a telemetry message.
    pub messages: u64,
}

/// What the record file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// There is no file.
    Nothing,
    /// The file is not a record.
    Damaged,
    /// The store was at least here.
    At(StorePosition),
}

/// Commits that the store had and has not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostCommits {
    pub commits: u64,
    /// How many telemetry messages were in them; desired properties, commands and registrations may be too.
    pub messages: u64,
}

/// What the record says against the store that was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordCheck {
    Complete,
    /// There is no record, or it cannot be read: nothing can be said.
    Unknown,
    /// The record is of another store.
    OtherStore {
        recorded: StorePosition,
    },
    /// The store is behind.
    Lost(LostCommits),
}

/// The record's file in `dir`.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Reads the record. To be called before the store is opened: another process may commit meanwhile.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read(dir: &Path) -> Result<Recorded, StoreError> {
    let path = path(dir);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(parse(&bytes).map_or(Recorded::Damaged, Recorded::At)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Recorded::Nothing),
        Err(source) => Err(StoreError::File { path, source }),
    }
}

/// How far an open store is.
pub fn position(c: &Connection) -> rusqlite::Result<StorePosition> {
    let store: Option<String> =
        c.query_row("SELECT value FROM settings WHERE name = 'store_id'", [], |row| row.get(0)).optional()?;
    let commits: i64 = c.query_row("SELECT count FROM commits", [], |row| row.get(0))?;
    Ok(StorePosition { store: store.unwrap_or_default(), commits: unsigned(commits), messages: messages(c)? })
}

/// Counts a commit within its transaction.
pub fn count(c: &Connection) -> rusqlite::Result<(u64, u64)> {
    let commits: i64 = c
        .prepare_cached("UPDATE commits SET count = count + 1 RETURNING count")?
        .query_row([], |row| row.get(0))?;
    Ok((unsigned(commits), messages(c)?))
}

fn messages(c: &Connection) -> rusqlite::Result<u64> {
    let highest: Option<i64> =
        c.prepare_cached("SELECT max(id) FROM telemetry")?.query_row([], |row| row.get(0))?;
    Ok(highest.map_or(0, unsigned))
}

/// Compares the record with the store.
pub fn compare(recorded: &Recorded, found: &StorePosition) -> RecordCheck {
    match recorded {
        // A store that has never been written is as new as its record.
        Recorded::Nothing if found.commits == 0 => RecordCheck::Complete,
        Recorded::Nothing | Recorded::Damaged => RecordCheck::Unknown,
        Recorded::At(recorded) if recorded.store != found.store => {
            RecordCheck::OtherStore { recorded: recorded.clone() }
        }
        Recorded::At(recorded) if recorded.commits > found.commits => RecordCheck::Lost(LostCommits {
            commits: recorded.commits - found.commits,
            messages: recorded.messages.saturating_sub(found.messages),
        }),
        Recorded::At(_) => RecordCheck::Complete,
    }
}

/// Notes in the store itself that commits were lost.
pub fn note_loss(c: &Connection, lost: &LostCommits, now_ms: u64) -> rusqlite::Result<()> {
    c.execute(
        "INSERT INTO store_losses (found_ms, commits, messages) VALUES (?1, ?2, ?3)",
        (integer(now_ms), integer(lost.commits), integer(lost.messages)),
    )?;
    Ok(())
}

/// Every loss of commits that was found, with when in milliseconds since the Unix epoch.
pub fn losses(c: &Connection) -> rusqlite::Result<Vec<(u64, LostCommits)>> {
    c.prepare_cached("SELECT found_ms, commits, messages FROM store_losses ORDER BY id")?
        .query_map([], |row| {
            let lost = LostCommits {
                commits: unsigned(row.get("commits")?),
                messages: unsigned(row.get("messages")?),
            };
            Ok((unsigned(row.get("found_ms")?), lost))
        })?
        .collect()
}

/// The record, open for writing.
#[derive(Debug)]
pub struct CommitRecord {
    file: File,
    place: OpenedFile,
    at: StorePosition,
    is_failing: bool,
}

impl CommitRecord {
    /// Opens or makes the record of a store and writes where the store is.
    ///
    /// # Errors
    /// When the file cannot be opened or written.
    pub fn open(dir: &Path, at: &StorePosition) -> Result<Self, StoreError> {
        let path = path(dir);
        Self::make(&path, at).map_err(|source| StoreError::File { path: path.clone(), source })
    }

    fn make(path: &Path, at: &StorePosition) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        let line = line(at);
        file.write_all_at(line.as_bytes(), 0)?;
        // What was longer was no record.
        file.set_len(line.len() as u64)?;
        file.sync_all()?;
        Ok(Self { file, place: OpenedFile::of(path)?, at: at.clone(), is_failing: false })
    }

    /// How many commits the store has had.
    pub fn commits(&self) -> u64 {
        self.at.commits
    }

    /// Writes that a commit is on disk. A store that went back has lost commits, and the record keeps them.
    pub fn committed(&mut self, commits: u64, messages: u64) {
        if commits < self.at.commits {
            return;
        }
        (self.at.commits, self.at.messages) = (commits, messages);
        let written = match self.place.gone() {
            None => self.file.write_all_at(line(&self.at).as_bytes(), 0),
            Some(gone) => self.make_again(&gone),
        };
        self.notify(written);
    }

    /// Syncs what was written.
    pub fn sync(&mut self) {
        let synced = self.file.sync_data();
        self.notify(synced);
    }

    /// Makes the record again when it was removed or replaced: without it, nobody would see at the next start that commits are missing.
    pub fn keep_in_place(&mut self) {
        if let Some(gone) = self.place.gone() {
            let made = self.make_again(&gone);
            self.notify(made);
        }
    }

    fn make_again(&mut self, gone: &str) -> io::Result<()> {
        let made = Self::make(self.place.path(), &self.at)?;
        *self = Self { is_failing: self.is_failing, ..made };
        tracing::warn!(found = gone, "the commit record was made again");
        Ok(())
    }

    /// A record that is behind hides a loss, but costs nothing by itself: commits go on.
    fn notify(&mut self, done: io::Result<()>) {
        if let Err(error) = &done
            && !self.is_failing
        {
            tracing::warn!(path = %self.place.path().display(), error = %chain(&error), "writing the commit record failed");
        }
        self.is_failing = done.is_err();
    }
}

fn line(StorePosition { store, commits, messages }: &StorePosition) -> String {
    let text = format!("{VERSION} {store:0>32} {commits:020} {messages:020}");
    let sum = crc32c::crc32c(text.as_bytes());
    format!("{text} {sum:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<StorePosition> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (text, sum) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(text.as_bytes()) {
        return None;
    }
    let mut parts = text.strip_prefix(VERSION)?.strip_prefix(' ')?.split(' ');
    let store = parts.next()?.to_owned();
    let position =
        StorePosition { store, commits: parts.next()?.parse().ok()?, messages: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commits: u64, messages: u64) -> StorePosition {
        StorePosition { store: "ab".repeat(16), commits, messages }
    }

    #[test]
    fn a_record_with_any_bit_flipped_or_any_end_cut_is_damaged_and_never_another_position() {
        let dir = tempfile::tempdir().unwrap();
        drop(CommitRecord::open(dir.path(), &at(7, 9)).unwrap());
        let path = path(dir.path());
        let good = std::fs::read(&path).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Recorded::At(at(7, 9)));
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            // The case of a hexadecimal digit of the checksum says the same.
            let found = read(dir.path()).unwrap();
            assert!(matches!(&found, Recorded::Damaged) || found == Recorded::At(at(7, 9)), "bit {bit}");
        }
        for end in 0..good.len() {
            std::fs::write(&path, &good[..end]).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Recorded::Damaged, "cut at {end}");
        }
    }

    #[test]
    fn a_store_that_is_behind_its_record_has_lost_what_lies_between() {
        let recorded = Recorded::At(at(10, 500));
        let lost = |commits, messages| RecordCheck::Lost(LostCommits { commits, messages });
        assert_eq!(compare(&recorded, &at(10, 500)), RecordCheck::Complete);
        assert_eq!(compare(&recorded, &at(11, 500)), RecordCheck::Complete);
        assert_eq!(compare(&recorded, &at(8, 300)), lost(2, 200));
        assert_eq!(compare(&recorded, &at(0, 0)), lost(10, 500));
        assert_eq!(compare(&Recorded::Nothing, &at(0, 0)), RecordCheck::Complete);
        assert_eq!(compare(&Recorded::Nothing, &at(1, 0)), RecordCheck::Unknown);
        let other = StorePosition { store: "cd".repeat(16), ..at(99, 9) };
        assert!(matches!(compare(&recorded, &other), RecordCheck::OtherStore { .. }));
    }
}
