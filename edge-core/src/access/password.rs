//! Passwords of local users: kept as Argon2id hashes in PHC text form.
//!
//! Parameters are the crate's defaults, which are those that OWASP names (19 MiB, two passes, one lane): about 20 ms of
//! one core for each judgement, so callers judge few at a time and away from what must answer soon.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};

/// Why a password was not hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password could not be hashed: {0}")]
pub struct PasswordError(String);

/// The hash of a password, with a salt that nobody used before.
///
/// # Errors
/// [`PasswordError`] when it is longer than Argon2 takes.
pub fn hash(password: &[u8], salt: [u8; 16]) -> Result<String, PasswordError> {
    let failed = |why: argon2::password_hash::Error| PasswordError(why.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    Argon2::default().hash_password(password, &salt).map(|hash| hash.to_string()).map_err(failed)
}

/// Whether a password has this hash. Costs as much for `None` (no such user), so that time tells nobody who exists.
pub fn verify(password: &[u8], hash: Option<&str>) -> bool {
    match hash.map(PasswordHash::new) {
        Some(Ok(hash)) => Argon2::default().verify_password(password, &hash).is_ok(),
        Some(Err(_)) | None => {
            let _ = self::hash(password, [0; 16]);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_and_no_other_is() {
        let kept = hash(b"hunter2", [7; 16]).unwrap();
        assert!(kept.starts_with("$argon2id$") && !kept.contains("hunter2"));
        assert!(
            verify(b"hunter2", Some(&kept)) && !verify(b"hunter3", Some(&kept)) && !verify(b"", Some(&kept))
        );
        assert_ne!(kept, hash(b"hunter2", [8; 16]).unwrap());
        assert!(!verify(b"hunter2", None) && !verify(b"hunter2", Some("broken")));
    }
}
