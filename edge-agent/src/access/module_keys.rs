//! The keys of this gateway's modules: made from one secret, so that none needs to be stored.

use std::path::Path;

use edge_core::access::sas;
use edge_tls::input_file;
use schemas::names::{DeviceId, Identity, ModuleId};

use crate::access::module_generations::ModuleNumbers;

/// The secret's file in the data directory. `init` writes it.
pub const FILE: &str = "module-key";
/// Its length in bytes: that of the HMAC's hash.
pub const SECRET_BYTES: usize = 32;
/// The file beside it with the secret's CRC-32C, four bytes, little-endian. Missing where an older `init` wrote the secret.
pub const CHECKSUM_FILE: &str = "module-key.crc32c";

/// What [`CHECKSUM_FILE`] holds for a secret.
pub fn checksum(secret: &[u8]) -> [u8; 4] {
    crc32c::crc32c(secret).to_le_bytes()
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The secret cannot be read.
    #[error("{path}: the secret of the modules' keys cannot be read; `edge-agent init` writes it")]
    Read {
        /// Where it should be.
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The checksum is there and cannot be read.
    #[error("{path}: the checksum of the modules' secret cannot be read; correct it, or move it away")]
    Checksum {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file was damaged.
    #[error(
        "{path}: the checksum in {checksum} does not fit: one of the two files is damaged; restore both from a backup, modules cannot read what they encrypted otherwise"
    )]
    Damaged { path: std::path::PathBuf, checksum: std::path::PathBuf },
    /// The file holds something else.
    #[error(
        "{path}: found {found} bytes; the secret of the modules' keys has {SECRET_BYTES}; restore it from a backup"
    )]
    Length { path: std::path::PathBuf, found: usize },
}

/// Makes each module's key.
#[derive(Clone)]
pub struct ModuleKeys {
    secret: Vec<u8>,
    /// Of this gateway. None for the command line, which needs nothing that depends on them.
    numbers: Option<(DeviceId, ModuleNumbers)>,
}

impl ModuleKeys {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn load(data_dir: &Path) -> Result<Self, KeysError> {
        let path = data_dir.join(FILE);
        let read = |path: &Path| input_file::read(path, input_file::SMALL_BYTES_MAX);
        let secret = read(&path).map_err(|source| KeysError::Read { path: path.clone(), source })?;
        if secret.len() != SECRET_BYTES {
            return Err(KeysError::Length { path, found: secret.len() });
        }
        let checksum_path = data_dir.join(CHECKSUM_FILE);
        match read(&checksum_path) {
            Ok(found) if found != checksum(&secret) => {
                Err(KeysError::Damaged { path, checksum: checksum_path })
            }
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(KeysError::Checksum { path: checksum_path, source })
            }
            Ok(_) | Err(_) => Ok(Self { secret, numbers: None }),
        }
    }

    /// The keys of the modules that are here now: the key of a module that was removed is not right for the next one of its
    /// name.
    #[must_use]
    pub fn with_numbers(self, gateway: DeviceId, numbers: ModuleNumbers) -> Self {
        Self { numbers: Some((gateway, numbers)), ..self }
    }

    /// Returns true for the first module of its name, as far as is known.
    pub fn is_first(&self, module: &ModuleId) -> bool {
        self.number(module) == 0
    }

    fn number(&self, module: &ModuleId) -> u64 {
        self.numbers.as_ref().map_or(0, |(gateway, numbers)| {
            numbers.number(&Identity::module(gateway.clone(), module.clone()))
        })
    }

    fn sign(&self, purpose: &str, module: &ModuleId) -> Vec<u8> {
        // No module's name has a space.
        let text = match self.number(module) {
            0 => format!("{purpose} {module}"),
            number => format!("{purpose} {module} {number}"),
        };
        sas::sign(&self.secret, text.as_bytes())
    }

    /// A module's symmetric key.
    pub fn key(&self, module: &ModuleId) -> Vec<u8> {
        self.sign("key", module)
    }

    /// What marks this gateway's containers, in hexadecimal digits. Nobody makes it without the secret.
    pub fn ownership_token(&self) -> String {
        sas::sign(&self.secret, b"container mark").iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key that a module's data is encrypted with, together with its generation id.
    pub fn encryption_key(&self, module: &ModuleId) -> [u8; 32] {
        let key = sas::sign(&self.secret, format!("encryption {module}").as_bytes());
        key.try_into().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// A module's generation id: another one for the next module of its name, as at IoT Hub.
    pub fn generation_id(&self, module: &ModuleId) -> String {
        let digest = self.sign("generation", module);
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
        let secret = [7; SECRET_BYTES];
        std::fs::write(dir.path().join(CHECKSUM_FILE), checksum(&secret)).unwrap();
        for byte in 0..SECRET_BYTES {
            let mut flipped = secret;
            flipped[byte] ^= 0x10;
            std::fs::write(dir.path().join(FILE), flipped).unwrap();
            assert!(matches!(ModuleKeys::load(dir.path()), Err(KeysError::Damaged { .. })), "byte {byte}");
        }
        std::fs::write(dir.path().join(FILE), secret).unwrap();
        ModuleKeys::load(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(CHECKSUM_FILE)).unwrap();
        let (one, two) = (ModuleKeys::load(dir.path()).unwrap(), ModuleKeys::load(dir.path()).unwrap());
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(one.key(&a), two.key(&a));
        assert_ne!(one.key(&a), one.key(&b));
        assert_ne!(one.generation_id(&a), one.generation_id(&b));
        assert!(one.generation_id(&a).parse::<u64>().is_ok());
    }
}
