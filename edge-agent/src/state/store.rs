//! sled behind guard: opened so that a panic is an error, synced after every flush, restored from the export.
//!
//! Values of more than [`PART_BYTES`] are stored in parts: sled puts large values into files of their own, which the
//! sync of its main file does not cover.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Room, StateError, export};

const PART_BYTES: usize = 16 * 1024;
/// sled's page cache. The rooms hold everything in memory themselves.
const CACHE_BYTES: u64 = 4 << 20;
/// How far the export may lag behind the database.
const EXPORT_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Store {
    dir: PathBuf,
    open: Option<Open>,
    exported: Instant,
    is_changed: bool,
}

struct Open {
    db: sled::Db,
    file: File,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let failed = |doing| move |source| StateError::Directory { dir: dir.to_owned(), doing, source };
        std::fs::create_dir_all(dir).map_err(failed("making the directory"))?;
        let path = dir.join("sled");
        let is_new = !path.exists();
        let open = match Open::guarded(&path) {
            Ok(open) => open,
            Err(error) if is_new => {
                return Err(failed("making the database")(std::io::Error::other(error)));
            }
            Err(error) => {
                let set_aside = format!("sled.damaged-{}", uuid::Uuid::new_v4().simple());
                tracing::error!(%error, %set_aside, "the state's database is damaged; it was set aside");
                std::fs::rename(&path, dir.join(&set_aside)).map_err(failed("setting the database aside"))?;
                let values =
                    export::read(dir).ok_or(StateError::Damaged { dir: dir.to_owned(), set_aside })?;
                let open = Open::guarded(&path)
                    .map_err(|e| failed("making a new database")(std::io::Error::other(e)))?;
                let changes = values.iter().map(|(room, key, value)| (*room, key.as_str(), Some(&value[..])));
                open.save(changes).map_err(|e| failed("restoring the export")(std::io::Error::other(e)))?;
                tracing::warn!(values = values.len(), "the state was restored from its export");
                open
            }
        };
        // The database's directory entries must be durable too, its parent's as well.
        for dir in [&path, dir] {
            File::open(dir).and_then(|d| d.sync_all()).map_err(failed("syncing the directory"))?;
        }
        Ok(Self { dir: dir.to_owned(), open: Some(open), exported: Instant::now(), is_changed: false })
    }

    /// Every value.
    pub(super) fn all(&mut self) -> Vec<(Room, String, Vec<u8>)> {
        self.open.as_ref().map(Open::all).unwrap_or_default()
    }

    /// Writes and syncs. After a failure the database is opened anew at the next write: what the kernel dropped from
    /// its cache cannot be synced later.
    pub(super) fn save<'a>(
        &mut self,
        changes: impl Iterator<Item = (Room, &'a str, Option<&'a [u8]>)>,
    ) -> Result<(), sled::Error> {
        if self.open.is_none() {
            self.open = Some(Open::guarded(&self.dir.join("sled")).map_err(io_error)?);
            tracing::warn!("the state's database was opened again after a failed write");
        }
        let open = self.open.as_ref().expect("it was just opened");
        let result = open.save(changes);
        match result {
            Ok(()) => self.is_changed = true,
            Err(_) => self.open = None,
        }
        result
    }

    pub(super) fn export_when_due(&mut self) {
        if self.exported.elapsed() >= EXPORT_EVERY {
            self.export();
        }
    }

    pub(super) fn export(&mut self) {
        if !self.is_changed {
            return;
        }
        if let Some(open) = &self.open {
            match export::write(&self.dir, &open.all()) {
                Ok(()) => self.is_changed = false,
                Err(error) => tracing::warn!(%error, "the state's export was not written"),
            }
        }
        self.exported = Instant::now();
    }
}

fn io_error(text: String) -> sled::Error {
    sled::Error::Io(std::io::Error::other(text))
}

impl Open {
    /// sled panics on some damaged files; that is an error like others here.
    fn guarded(path: &Path) -> Result<Self, String> {
        let attempt = || -> Result<Self, String> {
            let db = sled::Config::new()
                .path(path)
                .mode(sled::Mode::HighThroughput)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(None)
                .open()
                .map_err(|e| e.to_string())?;
            if db.was_recovered() {
                for room in Room::ALL {
                    let tree = db.open_tree(room.name()).map_err(|e| e.to_string())?;
                    tree.iter().try_for_each(|pair| pair.map(drop)).map_err(|e| e.to_string())?;
                }
            }
            db.flush().map_err(|e| e.to_string())?;
            let file = File::open(path.join("db")).map_err(|e| e.to_string())?;
            file.sync_all().map_err(|e| e.to_string())?;
            Ok(Self { db, file })
        };
        std::panic::catch_unwind(attempt).unwrap_or_else(|_| Err("the database could not be read".into()))
    }

    fn save<'a>(
        &self,
        changes: impl Iterator<Item = (Room, &'a str, Option<&'a [u8]>)>,
    ) -> Result<(), sled::Error> {
        for (room, key, value) in changes {
            let tree = self.db.open_tree(room.name())?;
            let mut batch = sled::Batch::default();
            for part in tree.scan_prefix(prefix(key)).keys() {
                batch.remove(part?);
            }
            if let Some(value) = value {
                // At least one part: an empty value is a value too.
                for (index, part) in value.chunks(PART_BYTES).enumerate() {
                    let mut name = prefix(key);
                    name.extend_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_be_bytes());
                    batch.insert(name, part);
                }
            }
            tree.apply_batch(batch)?;
        }
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(())
    }

    fn all(&self) -> Vec<(Room, String, Vec<u8>)> {
        let mut values: Vec<(Room, String, Vec<u8>)> = Vec::new();
        for room in Room::ALL {
            let Ok(tree) = self.db.open_tree(room.name()) else { continue };
            for (name, part) in tree.iter().flatten() {
                let Some(key) = name.len().checked_sub(5).map(|end| &name[..end]) else { continue };
                let key = String::from_utf8_lossy(key).into_owned();
                match values.last_mut() {
                    Some((r, k, value)) if *r == room && *k == key => value.extend_from_slice(&part),
                    _ => values.push((room, key, part.to_vec())),
                }
            }
        }
        values
    }
}

/// Keys are names without NUL, so that no key's parts are another's.
fn prefix(key: &str) -> Vec<u8> {
    let mut name = key.as_bytes().to_vec();
    name.push(0);
    name
}
