//! One program for each data directory: a lock that is taken before anything in the directory is touched, by the daemons and by
//! commands that replace its contents. Commands that only read or add need none.
//!
//! The kernel releases the lock when the process ends, however it ends, so a leftover file never blocks a start.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why the directory is not this process's.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has the directory.
    #[error("{dir} is in use by another {program} (process {process}); stop that one first")]
    InUse {
        /// Whose directories these are.
        program: &'static str,
        dir: PathBuf,
        /// What the lock file says, `unknown` when it says nothing.
        process: String,
    },
    /// The lock file cannot be made or locked.
    #[error("locking {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The lock; released when it is dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
    /// Locked too: who removes the lock file of a running program must not let a second one in.
    _dir: Option<File>,
}

impl DataLock {
    /// Locks `data_dir`, which is made when it is missing, for `program`. `file` is the name of the lock file there; it holds
    /// the process id of the holder. Does not wait.
    ///
    /// # Errors
    /// [`LockError::InUse`] when another process has it.
    pub fn acquire(data_dir: &Path, file: &str, program: &'static str) -> Result<Self, LockError> {
        let path = data_dir.join(file);
        let failed = |source| LockError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        // Not truncated: the process id of the holder must stay readable.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let process = holder.trim().parse::<u32>().map_or("unknown".to_owned(), |id| id.to_string());
                return Err(LockError::InUse { program, dir: data_dir.to_owned(), process });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let dir = lock_directory(data_dir).map_err(|error| match error {
            TryLockError::WouldBlock => {
                LockError::InUse { program, dir: data_dir.to_owned(), process: "unknown".to_owned() }
            }
            TryLockError::Error(source) => failed(source),
        })?;
        // Only for the message above: on a full disk the lock holds all the same.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file, _dir: dir })
    }
}

/// Locks the directory itself, which keeps its lock when files in it are removed. `None` on a file system that locks no
/// directories, such as NFS.
fn lock_directory(path: &Path) -> Result<Option<File>, TryLockError> {
    let dir = File::open(path).map_err(TryLockError::Error)?;
    match dir.try_lock() {
        Ok(()) => Ok(Some(dir)),
        Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_on_one_directory_is_refused_by_name_and_the_lock_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let first = DataLock::acquire(&data_dir, "lock", "edge-agent").unwrap();
        let refused = DataLock::acquire(&data_dir, "lock", "edge-agent").unwrap_err();
        let own = std::process::id().to_string();
        assert!(matches!(&refused, LockError::InUse { process, .. } if *process == own), "{refused}");
        drop(first);
        DataLock::acquire(&data_dir, "lock", "edge-agent").unwrap();
    }

    #[test]
    fn a_second_daemon_is_refused_though_the_lock_file_was_removed_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataLock::acquire(dir.path(), "lock", "edge-agent").unwrap();
        std::fs::remove_file(dir.path().join("lock")).unwrap();
        for _ in 0..2 {
            // The second time, the file is the one that the refused attempt made.
            let refused = DataLock::acquire(dir.path(), "lock", "edge-agent").unwrap_err();
            assert!(matches!(refused, LockError::InUse { .. }), "{refused}");
        }
    }
}
