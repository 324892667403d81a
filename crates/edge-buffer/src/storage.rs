//! The few things that the log asks of a disk, so that a test can be a disk that fails.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::chain;
use crate::format::LOCK_FILE;

/// A file that is open for reading and writing at offsets.
pub(crate) trait File: Send + Sync {
    /// Reads until `into` is full or the file ends; the number of bytes read.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file `len` bytes long with blocks that are its own, so that writing them cannot fail for want of space.
    /// `Unsupported` where the file system cannot.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// `fdatasync`: contents and length are on disk when it returns well.
    fn sync_data(&self) -> io::Result<()>;
}

/// One directory. Creating, renaming and removing are on disk after `sync_dir`.
pub(crate) trait Storage: Send + Sync {
    fn path(&self) -> &Path;
    fn names(&self) -> io::Result<Vec<String>>;
    /// An empty file, in place of one that had the name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that an unprivileged program could still write to this file system.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Nothing more will be written: someone else may open the directory.
    fn release(&self);
}

/// A directory of a real file system, locked against a second program until it is released.
pub(crate) struct Directory {
    path: PathBuf,
    handle: fs::File,
    lock: fs::File,
}

impl Directory {
    /// Makes the directory where it is missing and locks it; `WouldBlock` when someone else has it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        let lock =
            fs::OpenOptions::new().create(true).write(true).truncate(false).open(path.join(LOCK_FILE))?;
        lock.try_lock()?;
        let handle = fs::File::open(path)?;
        // The directory itself, too: its lock stays when the file is removed. Not every file system has it (NFS).
        if let Err(fs::TryLockError::WouldBlock) = handle.try_lock() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Self { path: path.to_owned(), handle, lock })
    }
}

impl Storage for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        Ok(Arc::new(options.read(true).write(true).create(true).truncate(true).open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handle)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn release(&self) {
        let released = self.lock.unlock().and_then(|()| self.handle.unlock());
        if let Err(error) = released {
            tracing::warn!(dir = %self.path.display(), error = chain(&error), "a queue's lock was not released");
        }
    }
}

impl File for fs::File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, len).map_err(io::Error::from)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }
}
