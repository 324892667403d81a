//! Passwords of local users: kept as Argon2id hashes in PHC text form.
//!
//! Parameters are the crate's defaults, which are those that OWASP names (19 MiB, two passes, one thread of parallelism): about 20 ms of
//! one core for each password, so callers hash one at a time, away from what must answer soon.

use argon2::password_hash::{Output, ParamsString, PasswordHash, Salt, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// Why a password was not hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password could not be hashed: {0}")]
pub struct PasswordError(String);

/// The most blocks of 1 KiB that a hash may need; one that needs more was not made here.
const BLOCKS_MAX: usize = 64 * 1024;
/// Blocks that are allocated at least, though fewer are used. glibc keeps freed allocations of up to 32 MiB for itself;
/// a larger one is given back to the kernel, and what is not used of it is never resident.
const BLOCKS_ALLOCATED: usize = 33 * 1024;

/// The memory in which passwords are hashed, one after the other. It is given back when this is dropped.
#[derive(Debug, Default)]
pub struct Memory(Vec<Block>);

impl Memory {
    fn hash(
        &mut self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: Salt<'_>,
        length: usize,
    ) -> Result<Output, PasswordError> {
        let failed = |why: argon2::password_hash::Error| PasswordError(why.to_string());
        let blocks = argon2.params().block_count();
        if blocks > BLOCKS_MAX {
            return Err(PasswordError(format!("it takes {blocks} KiB of memory")));
        }
        if self.0.len() < blocks {
            self.0.reserve_exact(blocks.max(BLOCKS_ALLOCATED) - self.0.len());
            self.0.resize(blocks, Block::default());
        }
        let mut salt_bytes = [0; Salt::MAX_LENGTH];
        let salt = salt.decode_b64(&mut salt_bytes).map_err(failed)?;
        let hashed = Output::init_with(length, |out| {
            Ok(argon2.hash_password_into_with_memory(password, salt, out, &mut self.0[..blocks])?)
        });
        hashed.map_err(failed)
    }
}

/// The hash of a password, with a salt that nobody used before.
///
/// # Errors
/// [`PasswordError`] when it is longer than Argon2 takes.
pub fn hash(password: &[u8], salt: [u8; 16], memory: &mut Memory) -> Result<String, PasswordError> {
    let failed = |why: argon2::password_hash::Error| PasswordError(why.to_string());
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    let output = memory.hash(&Argon2::default(), password, salt.as_salt(), Params::DEFAULT_OUTPUT_LEN)?;
    let hash = PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(&Params::default()).map_err(failed)?,
        salt: Some(salt.as_salt()),
        hash: Some(output),
    };
    Ok(hash.to_string())
}

/// Whether a password has this hash.
pub fn verify(password: &[u8], hash: &str, memory: &mut Memory) -> bool {
    let parts = || {
        let hash = PasswordHash::new(hash).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm).ok()?;
        let version = hash.version.map(Version::try_from).transpose().ok()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash).ok()?);
        Some((argon2, hash.salt?, hash.hash?))
    };
    // Outputs are compared in constant time.
    parts().is_some_and(|(argon2, salt, expected)| {
        memory.hash(&argon2, password, salt, expected.len()).is_ok_and(|found| found == expected)
    })
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_and_no_other_is() {
        let mut memory = Memory::default();
        let kept = hash(b"hunter2", [7; 16], &mut memory).unwrap();
        assert!(kept.starts_with("$argon2id$") && !kept.contains("hunter2"));
        assert!(verify(b"hunter2", &kept, &mut memory));
        for wrong in [&b"hunter3"[..], b""] {
            assert!(!verify(wrong, &kept, &mut memory));
        }
        assert_ne!(kept, hash(b"hunter2", [8; 16], &mut memory).unwrap());
        assert!(!verify(b"hunter2", "broken", &mut memory));
    }

    #[test]
    fn a_hash_that_takes_more_memory_than_there_is_for_it_is_refused() {
        let kept = hash(b"a", [7; 16], &mut Memory::default()).unwrap();
        let mut memory = Memory::default();
        assert!(!verify(b"a", &kept.replace("m=19456", "m=4000000"), &mut memory));
        assert!(memory.0.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn hashes_are_those_of_the_crate_whatever_the_memory_was_used_for_before(
            password in "\\PC{0,40}", other in "\\PC{0,40}", salt: [u8; 16],
        ) {
            let mut memory = Memory::default();
            let ours = hash(password.as_bytes(), salt, &mut memory).unwrap();
            let salt = SaltString::encode_b64(&salt).unwrap();
            let theirs = Argon2::default().hash_password(other.as_bytes(), &salt).unwrap().to_string();
            prop_assert!(verify(other.as_bytes(), &theirs, &mut memory));
            let ours = PasswordHash::new(&ours).unwrap();
            prop_assert!(Argon2::default().verify_password(password.as_bytes(), &ours).is_ok());
        }
    }
}
