//! sled behind guard: opened so that a panic is an error, synced after every flush, and believed only when its values are
//! what its stamp says.
//!
//! The stamp says how far into which journal the values reach, and holds the sum of a hash of each: sled drops a torn
//! part of its file without a word, and then the sum does not fit.
//!
//! Values of more than [`PART_BYTES`] are stored in parts: sled puts large values into files of their own, which the
//! sync of its main file does not cover.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use edge_hub::tasks::caught;
use uuid::Uuid;

use super::position::Position;
use super::reserve::is_full;
use super::values::{Namespace, Values};

const PART_BYTES: usize = 16 * 1024;
/// A NUL and the part's number.
const PART_NAME_BYTES: usize = 5;
/// sled's page cache. The namespaces hold everything in memory themselves.
const CACHE_BYTES: u64 = 4 << 20;
/// The key of the stamp: journal id, sequence, sum, and the epochs of the position. No namespace's name is empty.
const STAMP: &[u8] = b"\0stamp";
/// Bytes before the epochs.
const STAMP_BYTES: usize = 32;

/// sled could not read or write.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct StoreError(#[from] sled::Error);

/// Why sled could not be opened.
pub(super) enum OpenFailure {
    /// The disk said no, for example because it is full: the files may be whole.
    Unavailable(Unavailable),
    /// The files are not what was written.
    Damaged(String),
}

/// What the disk said.
pub(super) struct Unavailable {
    pub(super) why: String,
    /// It has no space.
    pub(super) is_full: bool,
}

/// sled writes when it is dropped, and panics when it cannot.
struct Database(Option<sled::Db>);

impl Database {
    fn db(&self) -> &sled::Db {
        self.0.as_ref().expect("it is taken when it is dropped")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let db = self.0.take();
        if caught(|| drop(db)).is_err() {
            tracing::warn!("the state's database could not be closed; its journal has what it lacks");
        }
    }
}

pub(super) struct Store {
    database: Database,
    file: File,
    sum: u64,
}

/// sled panics on some damaged files, in opening and later; that is an error like others here.
fn guarded<T>(what: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, sled::Error> {
    caught(what).unwrap_or_else(|_| Err(sled::Error::ReportableBug("sled panicked".into())))
}

impl Store {
    /// Opens the database, its values and how far they reach; `None` when it is new.
    pub(super) fn open(path: &Path) -> Result<(Self, Values, Option<Position>), OpenFailure> {
        let opened = guarded(|| {
            let db = sled::Config::new()
                .path(path)
                .mode(sled::Mode::HighThroughput)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()?;
            db.flush()?;
            let file = File::open(path.join("db"))?;
            file.sync_all()?;
            // The directory's entries must be durable too.
            File::open(path)?.sync_all()?;
            let mut store = Self { database: Database(Some(db)), file, sum: 0 };
            let values = store.read()?;
            store.sum = values
                .iter()
                .map(|((namespace, key), value)| hash(*namespace, key, value))
                .fold(0, u64::wrapping_add);
            let stamp = store.database.db().get(STAMP)?;
            Ok((store, values, stamp))
        });
        let (store, values, stamp) = opened.map_err(|error| match error {
            sled::Error::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                OpenFailure::Unavailable(Unavailable { why: error.to_string(), is_full: is_full(&error) })
            }
            error => OpenFailure::Damaged(error.to_string()),
        })?;
        let Some(stamp) = stamp else {
            return if values.is_empty() {
                Ok((store, values, None))
            } else {
                Err(OpenFailure::Damaged("its stamp is missing".into()))
            };
        };
        let number =
            |at: usize| stamp.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let journal = stamp.get(..16).and_then(|id| Uuid::from_slice(id).ok());
        let epochs = stamp.get(STAMP_BYTES..).and_then(Position::epochs_from_bytes);
        match (journal, number(16), number(24), epochs) {
            (Some(journal), Some(sequence), Some(sum), Some(epochs)) if sum == store.sum => {
                Ok((store, values, Some(Position { journal, sequence, epochs })))
            }
            _ => Err(OpenFailure::Damaged("some of its values are not what was written".into())),
        }
    }

    /// Returns true while its files are those in the directory `path`.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
        let there = std::fs::metadata(path.join("db")).map(identity).ok();
        there.is_some() && there == self.file.metadata().map(identity).ok()
    }

    fn read(&self) -> Result<Values, sled::Error> {
        let mut values = Values::new();
        for namespace in Namespace::ALL {
            for pair in self.database.db().scan_prefix(prefix(&[namespace.name()])) {
                let (name, part) = pair?;
                let key = name.get(namespace.name().len() + 1..name.len().saturating_sub(PART_NAME_BYTES));
                let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
                values.entry((namespace, key)).or_default().extend_from_slice(&part);
            }
        }
        Ok(values)
    }

    pub(super) fn all(&self) -> Result<Values, StoreError> {
        Ok(guarded(|| self.read())?)
    }

    /// Changes what differs from `values`.
    pub(super) fn follow(&mut self, values: &Values, position: &Position) -> Result<(), StoreError> {
        let has = self.all()?;
        let mut changes = BTreeMap::new();
        for (name, value) in values.iter().filter(|(name, value)| has.get(*name) != Some(*value)) {
            changes.insert(name.clone(), Some(value.clone()));
        }
        for name in has.into_keys().filter(|name| !values.contains_key(name)) {
            changes.insert(name, None);
        }
        self.save(&changes, position)
    }

    /// On disk, stamp and all, when it returns well. After a failure this must not be used any more: what the kernel
    /// dropped from its cache cannot be synced later.
    pub(super) fn save(
        &mut self,
        changes: &BTreeMap<(Namespace, String), Option<Vec<u8>>>,
        position: &Position,
    ) -> Result<(), StoreError> {
        guarded(|| {
            // In one batch: sled keeps all of it or nothing.
            let mut batch = sled::Batch::default();
            for ((namespace, key), value) in changes {
                self.change(&mut batch, *namespace, key, value.as_deref())?;
            }
            let mut stamp = Vec::with_capacity(STAMP_BYTES + 16 * position.epochs.len());
            stamp.extend_from_slice(position.journal.as_bytes());
            stamp.extend_from_slice(&position.sequence.to_le_bytes());
            stamp.extend_from_slice(&self.sum.to_le_bytes());
            stamp.extend_from_slice(&position.epochs_bytes());
            batch.insert(STAMP, stamp);
            self.database.db().apply_batch(batch)?;
            self.database.db().flush()?;
            self.file.sync_data()?;
            Ok(())
        })?;
        Ok(())
    }

    fn change(
        &mut self,
        batch: &mut sled::Batch,
        namespace: Namespace,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), sled::Error> {
        let prefix = prefix(&[namespace.name(), key]);
        let mut old: Option<Vec<u8>> = None;
        for pair in self.database.db().scan_prefix(&prefix) {
            let (name, part) = pair?;
            old.get_or_insert_default().extend_from_slice(&part);
            batch.remove(name);
        }
        if let Some(old) = old {
            self.sum = self.sum.wrapping_sub(hash(namespace, key, &old));
        }
        if let Some(value) = value {
            self.sum = self.sum.wrapping_add(hash(namespace, key, value));
            // Values are JSON: none is empty and without a part.
            for (index, part) in value.chunks(PART_BYTES).enumerate() {
                let mut name = prefix.clone();
                name.extend_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
                batch.insert(name, part);
            }
        }
        Ok(())
    }
}

/// Of one value, to be summed up: two checksums, mixed so that sums of different values rarely agree (SplitMix64).
fn hash(namespace: Namespace, key: &str, value: &[u8]) -> u64 {
    let name = crc32c::crc32c_append(crc32c::crc32c(namespace.name().as_bytes()), key.as_bytes());
    let mixed = u64::from(name) << 32 | u64::from(crc32c::crc32c_append(name, value));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Names are without NUL, so that no key's parts are another's.
fn prefix(names: &[&str]) -> Vec<u8> {
    let mut prefix = Vec::new();
    for name in names {
        prefix.extend_from_slice(name.as_bytes());
        prefix.push(0);
    }
    prefix
}
