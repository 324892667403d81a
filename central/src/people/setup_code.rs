//! The code that makes the first user, in a file of the data directory while there is none.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::token;

/// In the data directory.
const FILE: &str = "setup-code";
/// Letters and digits that are not taken for each other.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Groups of four characters: 100 bits.
const GROUPS: usize = 5;

/// The file of the set-up code cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the set-up code {path}")]
pub struct SetupFileError {
    path: PathBuf,
    source: io::Error,
}

/// The code that makes the first user, in a file while there is none.
#[derive(Debug)]
pub(super) struct SetupCode {
    path: PathBuf,
}

impl SetupCode {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(FILE) }
    }

    fn failed(&self, source: io::Error) -> SetupFileError {
        SetupFileError { path: self.path.clone(), source }
    }

    /// The code that is there, or a new one.
    pub(super) fn make(&self) -> Result<String, SetupFileError> {
        if let Some(code) = self.read()? {
            return Ok(code);
        }
        let code = new_code();
        // Written beside and moved: half a code must not be there after a kill.
        let beside = self.path.with_extension("new");
        let write = || {
            let _ = fs::remove_file(&beside);
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(code.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        };
        write().map_err(|error| self.failed(error))?;
        Ok(code)
    }

    /// `None` when there is none, or something else in its file.
    fn read(&self) -> Result<Option<String>, SetupFileError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|code| plain(code).len() == GROUPS * 4)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) fn remove(&self) -> Result<(), SetupFileError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn is_right(&self, code: &str) -> Result<bool, SetupFileError> {
        // Hashes are compared, so that the time tells nothing of the code.
        Ok(self.read()?.is_some_and(|right| token::hash(&plain(&right)) == token::hash(&plain(code))))
    }
}

/// Removes the set-up code of a data directory: the site has a user.
///
/// # Errors
/// [`SetupFileError`].
pub fn remove_code(data_dir: &Path) -> Result<(), SetupFileError> {
    SetupCode::new(data_dir).remove()
}

fn new_code() -> String {
    let groups: Vec<String> = (0..GROUPS)
        .map(|_| {
            rand::random::<[u8; 4]>()
                .iter()
                .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
                .collect()
        })
        .collect();
    groups.join("-")
}

/// A code as somebody types it, without dashes, blanks and case.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).take(256).map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_kept_for_its_owner_alone_until_it_is_removed_and_is_known_however_it_is_typed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let setup = SetupCode::new(dir.path());
        assert!(!setup.is_right("").unwrap(), "no code is not an empty code");
        let code = setup.make().unwrap();
        assert_eq!(setup.make().unwrap(), code, "the same after a restart");
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(setup.is_right(&code).unwrap());
        assert!(setup.is_right(&format!(" {} ", code.to_lowercase().replace('-', " "))).unwrap());
        for wrong in ["", "-", &code[1..], &format!("{code}A")] {
            assert!(!setup.is_right(wrong).unwrap(), "{wrong}");
        }
        setup.remove().unwrap();
        setup.remove().unwrap();
        assert!(!setup.is_right(&code).unwrap());
        // Half a file is not a code.
        fs::write(dir.path().join(FILE), "").unwrap();
        assert!(!setup.is_right("").unwrap());
        assert_ne!(setup.make().unwrap(), code);
    }
}
