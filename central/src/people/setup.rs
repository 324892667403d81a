//! The first user of a new site: whoever can read central's log or its data directory has the code that makes one.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_core::error_chain::chain;

use super::guesses::Claim;
use super::names::UserName;
use super::password::NewPassword;
use super::session::{Session, SignedIn, new_secret};
use super::{People, PeopleError, User};
use crate::clock::now_ms;
use crate::store::{StoreError, sessions, users};
use crate::token::{self, Role};

/// In the data directory.
const FILE: &str = "setup-code";
/// Letters and digits that are not taken for each other.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// Groups of four characters: 100 bits.
const GROUPS: usize = 5;
/// What failed attempts are counted under; no user's name.
const CLAIMED: &str = "/setup";

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

    fn is_right(&self, code: &str) -> Result<bool, SetupFileError> {
        // Hashes are compared, so that the time tells nothing of the code.
        Ok(self.read()?.is_some_and(|right| token::hash(&plain(&right)) == token::hash(&plain(code))))
    }
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

impl People {
    /// Whether there is no user yet.
    ///
    /// # Errors
    /// [`PeopleError::Store`].
    pub async fn needs_setup(&self) -> Result<bool, PeopleError> {
        let count = self.store.read(|c| Ok::<_, StoreError>(users::count(c)?)).await?;
        Ok(count == 0)
    }

    /// Makes the first user, an administrator, and signs it in. One of several attempts at once succeeds.
    ///
    /// # Errors
    /// [`PeopleError::SetUpAlready`], [`PeopleError::WrongCode`], [`PeopleError::TooManyFailures`], [`PeopleError::Rule`].
    pub async fn set_up(
        self: &Arc<Self>,
        from: IpAddr,
        code: &str,
        name: UserName,
        password: &str,
    ) -> Result<SignedIn, PeopleError> {
        if !self.needs_setup().await? {
            return Err(PeopleError::SetUpAlready);
        }
        let claim = Claim { name: CLAIMED.to_owned(), is_user: true, from };
        self.guesses.turn(&claim).await?;
        if !self.setup.is_right(code)? {
            self.guesses.failed(&claim);
            tracing::warn!(address = %from, "a wrong set-up code was refused");
            return Err(PeopleError::WrongCode);
        }
        let hash = self.hasher.hash(NewPassword::new(password, &name)?).await?;
        let now_ms = now_ms();
        let user = User {
            id: UserName::random(),
            name,
            role: Role::Administrator,
            has_password: true,
            created_ms: now_ms,
            signed_in_ms: Some(now_ms),
        };
        let (secret, session_hash) = new_secret();
        let session = Session { hash: session_hash, user, created_ms: now_ms, used_ms: now_ms };
        let new = session.clone();
        let made = self.store.submit(move |c| {
            // In the writer's turn: another attempt, or `central user add`, may have been first.
            if users::count(c)? > 0 {
                return Err(PeopleError::SetUpAlready);
            }
            users::insert(c, &new.user, Some(&hash))?;
            sessions::insert(c, &new)?;
            Ok(())
        });
        made.await?;
        if let Err(error) = self.setup.remove() {
            tracing::warn!(error = %chain(&error), "removing the used set-up code failed; it opens nothing any more");
        }
        tracing::info!(user = %session.user.name, address = %from, "first user was made");
        Ok(SignedIn { secret, session })
    }
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
