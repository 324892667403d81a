//! What the kernel remembers of a file, which after a failed write is not what the disk has.
//!
//! When the disk fails a write, Linux reports it to the next sync of whoever has the file open, takes the page for written, and shows its
//! content to every reader until it needs the memory. So a process that starts anew may read a record that was never confirmed and that a
//! power cut takes back. Nor does it help to write the page again: ext4 has noted the place of a new page as never written, notes
//! the opposite only when a page that it reads or maps anew is written, and until then confirms a sync of what reads as zeros later.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// Has the kernel write what it has of a file and forget it, so that what is read and written next is what the disk has. To be called
/// before a file of an earlier process is believed, and after a write or sync of it failed.
///
/// Pages that another process reads at this moment, or has mapped, stay.
///
/// # Errors
/// When the file cannot be opened, or its file system cannot forget. A sync that fails is no error here: what could not be written is what
/// is to be forgotten.
pub fn forget_cached(path: &Path) -> io::Result<()> {
    sync_and_forget(&File::open(path)?)
}

/// [`forget_cached`] of a file that is open.
pub(crate) fn sync_and_forget(file: &File) -> io::Result<()> {
    // A page that is not written yet cannot be forgotten.
    let _failed_pages_go = file.sync_data();
    forget(file)
}

/// Has the kernel forget the pages of a file that it takes for written, such as those of a sync that has just failed.
pub(crate) fn forget(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [7; 10_000]).unwrap();
        forget_cached(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 10_000]);
    }

    #[test]
    fn a_file_that_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(forget_cached(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }
}
