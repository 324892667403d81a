//! Writes files that belong together (a certificate and its key, all that `init` writes): all of them or none. A write that a kill or a
//! power cut interrupted is completed or undone at the next start.
//!
//! ```text
//! each file written to NAME.new and synced ──► all renamed, in order
//!   no NAME is there yet, some NAME.new are   : nothing had been renamed; they are removed
//!   one NAME is there, another is NAME.new    : all .new were complete; the renames are finished
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file to write.
#[derive(Debug)]
pub struct NewFile<'a> {
    /// Must not exist yet.
    pub path: PathBuf,
    pub bytes: &'a [u8],
    pub mode: u32,
}

/// A file that could not be written, renamed or removed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: could not {doing}")]
pub struct NewFilesError {
    pub path: PathBuf,
    /// What failed: "could not …".
    pub doing: &'static str,
    #[source]
    pub source: io::Error,
}

fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn rename_into_place(path: &Path) -> Result<(), NewFilesError> {
    let renamed = fs::rename(new_name(path), path).and_then(|()| sync_directory(path));
    renamed.map_err(|source| NewFilesError { path: path.to_owned(), doing: "put it in its place", source })
}

/// Writes new files. Call [`recover`] with the same paths first, and again at the next start.
///
/// # Errors
/// [`NewFilesError`]. Unless it was a rename that failed, none of the files exists under its name then.
pub fn write(files: &[NewFile<'_>]) -> Result<(), NewFilesError> {
    for file in files {
        let new = new_name(&file.path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(file.mode);
        // Everything is on disk before the first rename: `recover` relies on it when it finds one file in place.
        let written = options
            .open(&new)
            .and_then(|mut open| open.write_all(file.bytes).and_then(|()| open.sync_all()))
            .and_then(|()| sync_directory(&new));
        written.map_err(|source| NewFilesError { path: file.path.clone(), doing: "write it", source })?;
    }
    files.iter().try_for_each(|file| rename_into_place(&file.path))
}

/// Completes or undoes an interrupted [`write`]. Returns true if it was completed: all its files exist now.
///
/// # Errors
/// [`NewFilesError`].
pub fn recover(paths: &[PathBuf]) -> Result<bool, NewFilesError> {
    let pending: Vec<&PathBuf> = paths.iter().filter(|path| new_name(path).exists()).collect();
    let is_complete = !pending.is_empty() && paths.iter().any(|path| path.exists());
    for path in &pending {
        // If a file exists beside its own `.new`, an operator put it there after the interruption. It stays.
        if is_complete && !path.exists() {
            rename_into_place(path)?;
            continue;
        }
        let removed = fs::remove_file(new_name(path));
        removed.map_err(|source| NewFilesError {
            path: new_name(path),
            doing: "remove what an interrupted start left",
            source,
        })?;
    }
    Ok(is_complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states that a kill can leave: `written` complete `.new` files (the next one torn), or `renamed` of all.
    fn cut(dir: &Path, names: &[&str], written: usize, renamed: usize) -> Vec<PathBuf> {
        let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
        for (index, path) in paths.iter().enumerate() {
            let content = format!("content of {index}");
            if index < renamed {
                fs::write(path, content).unwrap();
            } else if index < written {
                fs::write(new_name(path), content).unwrap();
            } else if index == written {
                fs::write(new_name(path), &content[..4]).unwrap();
            }
        }
        paths
    }

    #[test]
    fn a_cut_at_every_step_leaves_all_files_or_none_and_they_can_be_written_then() {
        let names = ["ca-key.pem", "ca.pem", "server-key.pem", "server.pem"];
        let cuts = (0..=names.len())
            .map(|written| (written, 0))
            .chain((1..=names.len()).map(|renamed| (names.len(), renamed)));
        for (written, renamed) in cuts {
            let dir = tempfile::tempdir().unwrap();
            let paths = cut(dir.path(), &names, written, renamed);
            let is_complete = recover(&paths).unwrap();
            assert_eq!(is_complete, (1..names.len()).contains(&renamed), "{written} {renamed}");
            assert!(!paths.iter().any(|path| new_name(path).exists()), "{written} {renamed}");
            let there = paths.iter().filter(|path| path.exists()).count();
            if renamed == 0 {
                assert_eq!(there, 0, "{written}");
                let files: Vec<NewFile<'_>> = paths
                    .iter()
                    .map(|path| NewFile { path: path.clone(), bytes: b"x", mode: 0o600 })
                    .collect();
                write(&files).unwrap();
            } else {
                assert_eq!(there, names.len(), "{renamed}");
                for (index, path) in paths.iter().enumerate() {
                    assert_eq!(fs::read_to_string(path).unwrap(), format!("content of {index}"));
                }
            }
        }
    }
}
