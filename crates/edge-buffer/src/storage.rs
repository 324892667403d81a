//! The few things that the log asks of a disk, so that a test can be a disk that fails.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, OFlags};

use crate::error::chain;
use crate::format::{DAMAGED, LOCK_FILE};
use crate::page_cache;

/// Names that are tried for what is set aside. Another one than the first is needed where a directory has it.
const NAMES_ASIDE_MAX: u32 = 16;

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
    /// Device and number of the file, which no other has while this one is open.
    fn identity(&self) -> io::Result<(u64, u64)>;
    /// `fdatasync`: contents and length are on disk when it returns well.
    fn sync_data(&self) -> io::Result<()>;
}

/// One directory. Creating, renaming and removing are on disk after `sync_dir`.
pub(crate) trait Storage: Send + Sync {
    fn path(&self) -> &Path;
    /// What is in the directory that is open: nothing when it was removed, all of it when it was moved or its path leads elsewhere.
    fn names(&self) -> io::Result<Vec<String>>;
    /// An empty file, in place of one that had the name. What is no file is set aside.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// `NotFound` also where something else than a regular file has the name.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file of an earlier process for the first time: what is read of it is what the disk has, not what the kernel remembers.
    fn open_at_start(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives an entry another name, under which it is never read: [`DAMAGED`] behind its own; that name.
    fn set_aside(&self, name: &str) -> io::Result<String> {
        rename_aside(name, |aside| self.rename(name, aside))
    }
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync_dir(&self) -> io::Result<()>;
    /// Device and number of the file that has this name in the directory that is open; `None` when there is none.
    fn identity(&self, name: &str) -> io::Result<Option<(u64, u64)>>;
    /// Makes the directory again when it is not there any more, or another one has its path; whether it did.
    fn remake(&self) -> io::Result<bool>;
    /// Bytes that an unprivileged program could still write to this file system.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Nothing more will be written: someone else may open the directory.
    fn release(&self);
}

/// A directory of a real file system, locked against a second program until it is released.
pub(crate) struct Directory {
    path: PathBuf,
    handles: Mutex<Handles>,
}

struct Handles {
    directory: fs::File,
    lock: fs::File,
}

impl Directory {
    /// Makes the directory where it is missing and locks it; `WouldBlock` when someone else has it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        set_foreign_aside(path, Path::is_dir)?;
        Ok(Self { path: path.to_owned(), handles: Mutex::new(Handles::open(path)?) })
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handles {
    fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            sync_parent(path)?;
        }
        let lock = open_or_make(&path.join(LOCK_FILE), fs::OpenOptions::new().truncate(false))?;
        lock.try_lock()?;
        let directory = fs::File::open(path)?;
        // The directory itself, too: its lock stays when the file is removed. Not every file system has it (NFS).
        if let Err(fs::TryLockError::WouldBlock) = directory.try_lock() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Self { directory, lock })
    }
}

impl Storage for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        // Of the directory that is open, whatever its path leads to now.
        let entries = rustix::fs::Dir::read_from(&self.handles().directory)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned)));
        let is_entry = |name: &io::Result<String>| !matches!(name.as_deref(), Ok("." | ".."));
        names.filter_map(Result::transpose).filter(is_entry).collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(open_or_make(&self.path.join(name), fs::OpenOptions::new().truncate(true))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(open(&self.path.join(name))?))
    }

    fn open_at_start(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let file = open(&path)?;
        forget_cached(&file, &path);
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            // What is in it is not ours: only an empty one goes.
            Err(error) if error.kind() == ErrorKind::IsADirectory => fs::remove_dir(path),
            removed => removed,
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handles().directory.sync_all()
    }

    fn identity(&self, name: &str) -> io::Result<Option<(u64, u64)>> {
        match rustix::fs::statat(&self.handles().directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some((found.st_dev, found.st_ino))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn remake(&self) -> io::Result<bool> {
        let mut handles = self.handles();
        if identity_at(&self.path)? == Some(handles.directory.identity()?) {
            return Ok(false);
        }
        *handles = Handles::open(&self.path)?;
        Ok(true)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handles().directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn release(&self) {
        let handles = self.handles();
        let released = handles.lock.unlock().and_then(|()| handles.directory.unlock());
        if let Err(error) = released {
            tracing::warn!(dir = %self.path.display(), error = chain(&error), "a queue's lock was not released");
        }
    }
}

/// Device and number of what has this path; `None` when nothing has, also because a file is in the place of a directory.
fn identity_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    identity_of(fs::metadata(path))
}

/// As [`identity_at`], of a symbolic link itself. Nothing is opened.
pub(crate) fn entry_identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    identity_of(fs::symlink_metadata(path))
}

fn identity_of(metadata: io::Result<fs::Metadata>) -> io::Result<Option<(u64, u64)>> {
    match metadata {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a regular file. Never waits, follows no link, and does not touch what is something else: to open a device can do
/// what its driver wants.
fn open(path: &Path) -> io::Result<fs::File> {
    open_regular(path, &mut fs::OpenOptions::new())
}

fn open_regular(path: &Path, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
    let check = |metadata: &fs::Metadata| {
        let is_file = metadata.is_file().then_some(());
        is_file.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "something else than a file has the name"))
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) => check(&metadata)?,
        // Whether it may be made, the options say.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = options.read(true).write(true).custom_flags(flags.bits() as i32).open(path)?;
    // Somebody may have replaced it in between.
    check(&file.metadata()?)?;
    Ok(file)
}

/// Opens a file or makes it; what has its path and cannot be opened is set aside.
fn open_or_make(path: &Path, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
    set_foreign_aside(path, |path| !matches!(open(path), Err(error) if is_unusable(&error)))?;
    open_regular(path, options.create(true))
}

/// Whether it is the entry that cannot be opened, and not the disk that fails: no regular file, or one that this user may not
/// read and write.
pub(crate) fn is_unusable(error: &io::Error) -> bool {
    use ErrorKind::{ExecutableFileBusy, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | ExecutableFileBusy)
}

/// Sets aside what has this path, unless it is what it should be.
fn set_foreign_aside(path: &Path, is_right: impl Fn(&Path) -> bool) -> io::Result<()> {
    let is_free = matches!(entry_identity(path), Ok(None));
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    if is_free || is_right(path) {
        return Ok(());
    }
    let aside = rename_aside(name, |aside| fs::rename(path, dir.join(aside)))?;
    tracing::error!(path = %path.display(), aside, "what had the name of a part of a queue and was none was set aside");
    Ok(())
}

/// Renames to the first name that no directory has.
fn rename_aside(name: &str, rename: impl Fn(&str) -> io::Result<()>) -> io::Result<String> {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory};
    let mut number = 1;
    let mut aside = format!("{name}{DAMAGED}");
    loop {
        match rename(&aside) {
            Ok(()) => return Ok(aside),
            Err(error)
                if matches!(
                    error.kind(),
                    AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory
                ) && number < NAMES_ASIDE_MAX => {}
            Err(error) => return Err(error),
        }
        number += 1;
        aside = format!("{name}.{number}{DAMAGED}");
    }
}

/// Opens a file outside of the log's directory at the log's start, or creates it.
pub(crate) fn file_at(path: &Path) -> io::Result<Arc<dyn File>> {
    let file = open_or_make(path, fs::OpenOptions::new().truncate(false))?;
    forget_cached(&file, path);
    Ok(Arc::new(file))
}

/// What is read of the file from now on is what the disk has.
fn forget_cached(file: &fs::File, path: &Path) {
    if let Err(error) = page_cache::sync_and_forget(file) {
        tracing::warn!(error = %chain(&error), path = %path.display(), "the kernel does not forget what it remembers of a file; it is read as it is");
    }
}

/// The name of a new file is on disk when this returns.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl File for fs::File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
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

    fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self).inspect_err(|_| {
            // What is written to the same place next must not meet a page that the kernel takes for written.
            let _sync_failed_already = page_cache::forget(self);
        })
    }
}
