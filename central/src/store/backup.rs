//! Backups: one file that holds the store and the certificate authority, made while central runs.
//!
//! The file is an SQLite database (the store's tables, `backup_files` with the authority's two files, and `backup_info`),
//! and behind it one line: `central-backup 1 SHA256`, the hash of everything before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_hub::data_lock::{DataLock, LockError};
use edge_tls::new_files::{self, NewFile, NewFilesError};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

use super::columns::{integer, unsigned};
use super::error::StoreError;
use super::integrity::{self, Depth};
use super::paths::{FILE, LOCK_FILE, RESTORING_FILE};
use super::record::{self, CommitRecord, StorePosition};
use super::schema;

/// The authority's files and their modes; the key first, as [`crate::identity`] writes them.
const IDENTITY: [(&str, u32); 2] = [("ca-key.pem", 0o600), ("ca.pem", 0o644)];
/// Begins the line behind the database.
const SEAL: &str = "central-backup 1 ";
/// That line: the hash is 64 hexadecimal digits.
const SEAL_BYTES: u64 = SEAL.len() as u64 + 64 + 1;
/// A backup is checked to its end, however long that takes.
const UNBOUNDED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a backup was not made or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store or the backup cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// central runs on the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The authority's files were not written.
    #[error(transparent)]
    Identity(#[from] NewFilesError),
    /// Something is there already.
    #[error("{path} is there already; choose another name")]
    Exists { path: PathBuf },
    /// There is a store.
    #[error(
        "{path} is there already; `central restore --replace FILE` moves what is there into a folder beside it first"
    )]
    Occupied {
        /// What would be replaced.
        path: PathBuf,
    },
    /// The file was not made by `central backup`, or it is not as it was made.
    #[error("{path} is not a backup as `central backup` made it: its checksum is missing or wrong")]
    NotABackup { path: PathBuf },
    /// There is a store, so none is begun anew.
    #[error("{path} is there already; move it away first to begin with an empty store")]
    NotEmpty { path: PathBuf },
}

/// What is in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_ms: u64,
    /// How far the store was.
    pub position: StorePosition,
}

fn io_failed(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| StoreError::File { path: path.clone(), source }.into()
}

fn sqlite_failed(path: &Path) -> impl Fn(rusqlite::Error) -> BackupError {
    let path = path.to_owned();
    move |source| StoreError::opening(&path, source).into()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_failed(path))
}

/// The name of a new file is on disk only after its directory was synced.
fn sync_parent(path: &Path) -> Result<(), BackupError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync(parent.unwrap_or(Path::new(".")))
}

/// Makes an empty file for its owner alone: keys are written into it.
fn make_private(path: &Path) -> Result<(), BackupError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map(drop).map_err(io_failed(path))
}

fn remove_leftover(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_failed(path)(error)),
        _ => Ok(()),
    }
}

/// Writes a backup of the store and the authority in `dir` to `file`, checked to its end. Works while central serves; what
/// is committed meanwhile is not in it.
///
/// # Errors
/// [`BackupError::Exists`], or [`BackupError::Store`]; nothing is at `file` then.
pub fn make(dir: &Path, file: &Path, now_ms: u64) -> Result<Contents, BackupError> {
    if file.exists() {
        return Err(BackupError::Exists { path: file.to_owned() });
    }
    let store = dir.join(FILE);
    // Opening would make an empty store in place of a missing one, and this would be a backup of nothing.
    integrity::present(dir, &store)?;
    // Another name until it is whole: what is at `file` is never half a backup.
    let partial = with_suffix(file, ".part");
    remove_leftover(&partial)?;
    // `VACUUM INTO` fills an empty file; one that it makes itself could be read by others.
    make_private(&partial)?;
    let made = fill(dir, &store, &partial, now_ms).and_then(|contents| {
        sync(&partial)?;
        fs::rename(&partial, file).map_err(io_failed(file))?;
        sync_parent(file)?;
        Ok(contents)
    });
    if made.is_err() {
        // The first error counts.
        let _ = remove_leftover(&partial);
    }
    made
}

fn fill(dir: &Path, store: &Path, partial: &Path, now_ms: u64) -> Result<Contents, BackupError> {
    let source = schema::open(store)?;
    let name = partial.to_str().ok_or_else(|| {
        io_failed(partial)(io::Error::new(io::ErrorKind::InvalidInput, "the name is not UTF-8"))
    })?;
    // One statement, so all of the backup is of one moment while central goes on writing.
    source.execute("VACUUM INTO ?1", [name]).map_err(sqlite_failed(store))?;
    let failed = sqlite_failed(partial);
    let copy = Connection::open_with_flags(partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(&failed)?;
    // Without a log beside it, because a backup is one file.
    copy.execute_batch(
        "PRAGMA journal_mode = DELETE;
         CREATE TABLE backup_info (made_ms INTEGER NOT NULL, version TEXT NOT NULL);
         CREATE TABLE backup_files (name TEXT PRIMARY KEY, content BLOB NOT NULL);",
    )
    .map_err(&failed)?;
    let info = (integer(now_ms), env!("CARGO_PKG_VERSION"));
    copy.execute("INSERT INTO backup_info (made_ms, version) VALUES (?1, ?2)", info).map_err(&failed)?;
    for (name, _) in IDENTITY {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(content) => {
                copy.execute("INSERT INTO backup_files (name, content) VALUES (?1, ?2)", (name, content))
                    .map_err(&failed)?;
            }
            // A store that has never served has no authority.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_failed(&path)(error)),
        }
    }
    let position = record::position(&copy).map_err(&failed)?;
    drop(copy);
    // Checked before it is sealed, because a restore trusts the seal.
    integrity::check(partial, Depth::Whole, UNBOUNDED)?;
    seal(partial).map_err(io_failed(partial))?;
    Ok(Contents { made_ms: now_ms, position })
}

/// The hash of a file's first bytes.
fn hash(file: &mut File, bytes: u64) -> io::Result<String> {
    file.rewind()?;
    let (mut hash, mut reader) = (Sha256::new(), file.take(bytes));
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn seal(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    let hash = hash(&mut file, bytes)?;
    file.write_all(format!("{SEAL}{hash}\n").as_bytes())
}

/// Takes the line behind the database off again; false when it is not there or its hash is wrong.
fn unseal(path: &Path) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let Some(bytes) = file.metadata()?.len().checked_sub(SEAL_BYTES) else { return Ok(false) };
    let expected = format!("{SEAL}{}\n", hash(&mut file, bytes)?);
    file.seek(io::SeekFrom::Start(bytes))?;
    let mut found = Vec::new();
    file.read_to_end(&mut found)?;
    if found != expected.as_bytes() {
        return Ok(false);
    }
    file.set_len(bytes)?;
    Ok(true)
}

/// A backup's file, looked at before anything is touched.
struct Backup {
    made_ms: u64,
    files: Vec<(&'static str, u32, Vec<u8>)>,
}

fn inspect(file: &Path) -> Result<Backup, BackupError> {
    let failed = sqlite_failed(file);
    let copy = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(&failed)?;
    schema::known(&copy, file)?;
    let made_ms: i64 =
        copy.query_row("SELECT made_ms FROM backup_info", [], |row| row.get(0)).map_err(&failed)?;
    let mut files = Vec::new();
    for (name, mode) in IDENTITY {
        let content: Option<Vec<u8>> = copy
            .query_row("SELECT content FROM backup_files WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(&failed)?;
        files.extend(content.map(|content| (name, mode, content)));
    }
    Ok(Backup { made_ms: unsigned(made_ms), files })
}

/// Puts the store and the authority of a backup into `dir`, which central must not serve. With `replace`, what is there is
/// moved into a folder of its own first, and nothing is deleted.
///
/// The restored store gets an id of its own: it is not the one that went on after the backup was made.
///
/// # Errors
/// [`BackupError`]. A restore that was cut can be made again; central does not start on what it left.
pub fn restore(dir: &Path, file: &Path, replace: bool, now_ms: u64) -> Result<Contents, BackupError> {
    let _lock = DataLock::acquire(dir, LOCK_FILE, "central")?;
    let new = dir.join("central.db.restoring");
    // What can fail is done before anything in the directory is changed.
    let prepared = prepare(dir, file, &new, replace, now_ms);
    if prepared.is_err() {
        // The first error counts.
        let _ = remove_leftover(&new);
    }
    let backup = prepared?;
    let marker = dir.join(RESTORING_FILE);
    write_marker(&marker)?;
    move_aside(dir, now_ms)?;
    let identity: Vec<NewFile<'_>> = backup
        .files
        .iter()
        .map(|(name, mode, bytes)| NewFile { path: dir.join(name), bytes, mode: *mode })
        .collect();
    // Before the store: central does not start on an authority without a store (decision 0019), so a cut here is noticed.
    new_files::write(&identity)?;
    let path = dir.join(FILE);
    fs::rename(&new, &path).map_err(io_failed(&path))?;
    sync_parent(&path)?;
    let position = begin_record(dir, &path)?;
    unmark(&marker)?;
    Ok(Contents { made_ms: backup.made_ms, position })
}

/// Makes the store that is to be put in its place, and changes nothing else.
fn prepare(dir: &Path, file: &Path, new: &Path, replace: bool, now_ms: u64) -> Result<Backup, BackupError> {
    remove_leftover(new)?;
    make_private(new)?;
    let mut source = edge_tls::input_file::open(file).map_err(io_failed(file))?;
    let mut copy = OpenOptions::new().write(true).open(new).map_err(io_failed(new))?;
    io::copy(&mut source, &mut copy).map_err(io_failed(new))?;
    drop(copy);
    if !unseal(new).map_err(io_failed(new))? {
        return Err(BackupError::NotABackup { path: file.to_owned() });
    }
    let backup = inspect(new)?;
    integrity::check(new, Depth::Whole, UNBOUNDED)?;
    strip(new, now_ms).map_err(sqlite_failed(new))?;
    sync(new)?;
    recover_identity(dir)?;
    match occupied(dir, &backup)?.first().filter(|_| !replace) {
        Some(path) => Err(BackupError::Occupied { path: path.clone() }),
        None => Ok(backup),
    }
}

/// Begins with an empty store where there was one, on purpose. What is left of the former one is moved into a folder; the
/// authority stays.
///
/// # Errors
/// [`BackupError::NotEmpty`] when there is a store.
pub fn begin_anew(dir: &Path, now_ms: u64) -> Result<(), BackupError> {
    let _lock = DataLock::acquire(dir, LOCK_FILE, "central")?;
    let path = dir.join(FILE);
    if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
        return Err(BackupError::NotEmpty { path });
    }
    move_store_aside(dir, &aside(dir, now_ms))?;
    begin_record(dir, &path)?;
    unmark(&dir.join(RESTORING_FILE))
}

/// Says, on disk, that what is in the directory is neither what was there nor what shall be there.
fn write_marker(marker: &Path) -> Result<(), BackupError> {
    remove_leftover(marker)?;
    make_private(marker)?;
    sync_parent(marker)
}

fn unmark(marker: &Path) -> Result<(), BackupError> {
    remove_leftover(marker)?;
    sync_parent(marker)
}

fn begin_record(dir: &Path, path: &Path) -> Result<StorePosition, BackupError> {
    let store = schema::open(path)?;
    let position = record::position(&store).map_err(sqlite_failed(path))?;
    CommitRecord::open(dir, &position)?;
    Ok(position)
}

/// Takes out what only a backup has.
fn strip(path: &Path, now_ms: u64) -> rusqlite::Result<()> {
    let copy = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Overwritten, not only forgotten: the authority's key was in there.
    copy.execute_batch("PRAGMA secure_delete = ON; DROP TABLE backup_files; DROP TABLE backup_info;")?;
    copy.execute(
        "INSERT OR REPLACE INTO settings (name, value) VALUES ('store_id', lower(hex(randomblob(16))))",
        [],
    )?;
    // Of an older central there are none. A session that ended since the backup must not come back.
    let has_sessions = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'sessions')";
    if copy.query_row(has_sessions, [], |row| row.get(0))? {
        copy.execute("DELETE FROM sessions", [])?;
    }
    copy.execute(
        "INSERT OR REPLACE INTO settings (name, value) VALUES ('restored_ms', ?1)",
        [now_ms.to_string()],
    )?;
    Ok(())
}

fn recover_identity(dir: &Path) -> Result<(), BackupError> {
    new_files::recover(&IDENTITY.map(|(name, _)| dir.join(name)))?;
    Ok(())
}

/// What a restore would replace: a store, or an authority that is not the backup's.
fn occupied(dir: &Path, backup: &Backup) -> Result<Vec<PathBuf>, BackupError> {
    let mut occupied = Vec::new();
    for name in [FILE, "central.db-wal"] {
        let path = dir.join(name);
        if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            occupied.push(path);
        }
    }
    for (name, _, content) in &backup.files {
        let path = dir.join(name);
        match fs::read(&path) {
            Ok(found) if found != *content => occupied.push(path),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_failed(&path)(error)),
        }
    }
    Ok(occupied)
}

fn aside(dir: &Path, now_ms: u64) -> PathBuf {
    dir.join(format!("replaced-{now_ms}"))
}

fn move_aside(dir: &Path, now_ms: u64) -> Result<(), BackupError> {
    let aside = aside(dir, now_ms);
    for (name, _) in IDENTITY {
        move_into(dir, &aside, name)?;
    }
    move_store_aside(dir, &aside)
}

/// Moves a store and what SQLite keeps beside it into a folder. The store goes first: central does not start on what is
/// left, and a log never meets another store.
pub(super) fn move_store_aside(dir: &Path, aside: &Path) -> Result<(), BackupError> {
    move_into(dir, aside, FILE)?;
    for name in ["central.db-wal", "central.db-shm", record::FILE] {
        move_into(dir, aside, name)?;
    }
    Ok(())
}

fn move_into(dir: &Path, aside: &Path, name: &str) -> Result<(), BackupError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let from = dir.join(name);
    if !from.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(aside).map_err(io_failed(aside))?;
    let to = aside.join(name);
    fs::rename(&from, &to).map_err(io_failed(&to))?;
    sync(aside)?;
    sync_parent(&from)
}
