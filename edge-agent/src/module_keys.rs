//! The keys of this gateway's modules: made from one secret, so that none needs to be stored.

use std::path::Path;

use edge_core::access::sas;
use schemas::names::ModuleId;

/// The secret's file in the data directory. `init` writes it.
pub const FILE: &str = "module-key";
/// Its length in bytes: that of the HMAC's hash.
pub const SECRET_BYTES: usize = 32;
/// The file's length in bytes: the secret and its CRC-32C, little-endian.
const FILE_BYTES: usize = SECRET_BYTES + 4;

/// What [`FILE`] holds for a secret.
pub fn file_content(secret: [u8; SECRET_BYTES]) -> [u8; FILE_BYTES] {
    let mut content = [0; FILE_BYTES];
    content[..SECRET_BYTES].copy_from_slice(&secret);
    content[SECRET_BYTES..].copy_from_slice(&crc32c::crc32c(&secret).to_le_bytes());
    content
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The secret cannot be read.
    #[error("{path}: the secret of the modules' keys cannot be read; `edge-agent init` writes it")]
    Read {
        /// Where it should be.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was damaged.
    #[error(
        "{path}: its checksum does not fit: the file is damaged; restore it from a backup, modules cannot read what they encrypted otherwise"
    )]
    Damaged {
        /// Where.
        path: std::path::PathBuf,
    },
    /// The file holds something else.
    #[error("{path}: found {found} bytes; the secret of the modules' keys has {FILE_BYTES}")]
    Length {
        /// Where.
        path: std::path::PathBuf,
        /// How many.
        found: usize,
    },
}

/// Makes each module's key.
#[derive(Clone)]
pub struct ModuleKeys {
    secret: Vec<u8>,
}

impl ModuleKeys {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load(data_dir: &Path) -> Result<Self, KeysError> {
        let path = data_dir.join(FILE);
        let secret = std::fs::read(&path).map_err(|source| KeysError::Read { path: path.clone(), source })?;
        let Some(stored) =
            secret.get(..SECRET_BYTES).and_then(|stored| <[u8; SECRET_BYTES]>::try_from(stored).ok())
        else {
            return Err(KeysError::Length { path, found: secret.len() });
        };
        match secret.len() {
            // Written before files had a checksum.
            SECRET_BYTES => {}
            FILE_BYTES if secret == file_content(stored) => {}
            FILE_BYTES => return Err(KeysError::Damaged { path }),
            found => return Err(KeysError::Length { path, found }),
        }
        Ok(Self { secret: stored.to_vec() })
    }

    /// A module's symmetric key.
    pub fn key(&self, module: &ModuleId) -> Vec<u8> {
        sas::sign(&self.secret, format!("key {module}").as_bytes())
    }

    /// What marks this gateway's containers, in hexadecimal digits. Nobody makes it without the secret.
    pub fn container_mark(&self) -> String {
        sas::sign(&self.secret, b"container mark").iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key that a module's data is encrypted with.
    pub fn encryption_key(&self, module: &ModuleId) -> [u8; 32] {
        let key = sas::sign(&self.secret, format!("encryption {module}").as_bytes());
        key.try_into().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// A module's generation id, which IoT Hub makes anew when an identity is deleted and made again. Here it is the same
    /// for as long as the secret is.
    pub fn generation_id(&self, module: &ModuleId) -> String {
        let digest = sas::sign(&self.secret, format!("generation {module}").as_bytes());
        let number = digest.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        number.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_has_its_own_key_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ModuleKeys::load(dir.path()), Err(KeysError::Read { .. })));
        std::fs::write(dir.path().join(FILE), b"short").unwrap();
        assert!(matches!(ModuleKeys::load(dir.path()), Err(KeysError::Length { found: 5, .. })));
        let mut flipped = file_content([7; SECRET_BYTES]);
        for byte in 0..FILE_BYTES {
            flipped[byte] ^= 0x10;
            std::fs::write(dir.path().join(FILE), flipped).unwrap();
            assert!(matches!(ModuleKeys::load(dir.path()), Err(KeysError::Damaged { .. })), "byte {byte}");
            flipped[byte] ^= 0x10;
        }
        std::fs::write(dir.path().join(FILE), file_content([7; SECRET_BYTES])).unwrap();
        let with_checksum = ModuleKeys::load(dir.path()).unwrap().secret;
        std::fs::write(dir.path().join(FILE), [7; SECRET_BYTES]).unwrap();
        assert_eq!(ModuleKeys::load(dir.path()).unwrap().secret, with_checksum, "a file of an older daemon");
        let (one, two) = (ModuleKeys::load(dir.path()).unwrap(), ModuleKeys::load(dir.path()).unwrap());
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(one.key(&a), two.key(&a));
        assert_ne!(one.key(&a), one.key(&b));
        assert_ne!(one.generation_id(&a), one.generation_id(&b));
        assert!(one.generation_id(&a).parse::<u64>().is_ok());
    }
}
