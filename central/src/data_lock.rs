//! One program for each data directory: `central serve`, or a command that replaces the store.
//!
//! The kernel releases the lock when the process ends, however it ends. Commands that only read or add (`token create`,
//! `id-scope`, `backup`) need no lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE: &str = "central.lock";

/// Why the directory is not this process's.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another program has it.
    #[error("{dir} is in use by another central; stop that one first")]
    InUse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The lock file cannot be made or locked.
    #[error("locking {path}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The lock; released when it is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Locks a directory that exists. Does not wait.
    ///
    /// # Errors
    /// [`LockError::InUse`] when another process has it.
    pub fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join(FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let locked = options.open(&path).map_err(TryLockError::Error).and_then(|file| {
            file.try_lock()?;
            Ok(file)
        });
        match locked {
            Ok(file) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse { dir: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path, source }),
        }
    }
}
