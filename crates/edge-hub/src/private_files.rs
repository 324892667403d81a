//! Files for their owner alone: what a program writes in its data directory, and what older versions left readable there.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// Permissions of the group and of all others.
const OF_OTHERS: u32 = 0o077;

/// From now on every file and directory that the process makes, by whichever library, is for its owner alone. Sockets that
/// others shall open get their mode after they are made.
pub fn make_new_files_private() {
    rustix::process::umask(Mode::from_raw_mode(OF_OTHERS));
}

/// Takes the permissions of others from `dir` and everything in it, except for the entries of `dir` named in `except`. Gives
/// how many files and directories were changed. Symbolic links are not followed, and what belongs to another user is left.
///
/// # Errors
/// What could not be read or changed, with its path.
pub fn make_private(dir: &Path, except: &[&str]) -> Result<usize, PrivateError> {
    let mut changed = 0;
    walk(dir, except, &mut |path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode & !OF_OTHERS))?;
        changed += 1;
        Ok(true)
    })?;
    Ok(changed)
}

/// The first of the same files and directories that others may use.
///
/// # Errors
/// What could not be read, with its path.
pub fn first_public(dir: &Path, except: &[&str]) -> Result<Option<PathBuf>, PrivateError> {
    let mut found = None;
    walk(dir, except, &mut |path, _| {
        found = Some(path.to_owned());
        Ok(false)
    })?;
    Ok(found)
}

/// Why permissions were not looked at or changed.
#[derive(Debug, thiserror::Error)]
#[error("permissions of {path}")]
pub struct PrivateError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Calls `found` for everything that others may use, with its mode, until it returns false.
fn walk(
    dir: &Path,
    except: &[&str],
    found: &mut dyn FnMut(&Path, u32) -> io::Result<bool>,
) -> Result<(), PrivateError> {
    let own = rustix::process::geteuid().as_raw();
    // A list, not recursion: how deep it goes is not ours to say.
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let failed = |source| PrivateError { path: path.clone(), source };
        let data = match fs::symlink_metadata(&path) {
            Ok(data) => data,
            // A temporary file that was renamed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        if data.file_type().is_symlink() || data.uid() != own {
            continue;
        }
        if data.mode() & OF_OTHERS != 0 && !found(&path, data.mode() & 0o7777).map_err(failed)? {
            return Ok(());
        }
        if data.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let is_excepted = path == dir && except.iter().any(|name| entry.file_name() == *name);
                if !is_excepted {
                    left.push(entry.path());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Any tree of files and directories, each with any mode of others.
        #[test]
        fn nothing_in_a_tree_is_left_to_others_but_what_is_excepted(
            files in proptest::collection::vec(("[a-c]{1,2}(/[a-c]{1,2}){0,3}/f[0-9]", 0..0o100_u32, 0..0o100_u32), 1..12),
        ) {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("data");
            let outside = root.path().join("outside");
            fs::write(&outside, "x").unwrap();
            fs::set_permissions(&outside, Permissions::from_mode(0o644)).unwrap();
            for (path, of_file, of_dir) in &files {
                let path = dir.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "x").unwrap();
                fs::set_permissions(&path, Permissions::from_mode(0o600 | of_file)).unwrap();
                fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o700 | of_dir)).unwrap();
            }
            let excepted = dir.join("workload/module");
            fs::create_dir_all(&excepted).unwrap();
            fs::set_permissions(&excepted, Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
            make_private(&dir, &["workload"]).unwrap();
            prop_assert_eq!(first_public(&dir, &["workload"]).unwrap(), None);
            for (path, ..) in &files {
                prop_assert_eq!(mode(&dir.join(path)), 0o600);
            }
            prop_assert_eq!((mode(&dir), mode(&excepted), mode(&outside)), (0o700, 0o755, 0o644));
            prop_assert_eq!(make_private(&dir, &["workload"]).unwrap(), 0);
        }
    }
}
