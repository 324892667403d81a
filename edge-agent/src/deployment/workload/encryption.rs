//! What a module gives its gateway to encrypt, and gets back.
//!
//! ```text
//! ciphertext = version 1 (1 byte) · nonce (12 bytes, random) · AES-256-GCM of the plaintext · tag (16 bytes)
//! key        = HMAC-SHA256(secret of this gateway's modules, "encryption {module}")
//! AAD        = module, generation id and initialisation vector, each behind its length (u64, big-endian)
//! ```
//!
//! The initialisation vector that a module gives binds the ciphertext but is not the nonce: IoT Edge's own API lets a
//! module use one twice, which would give both plaintexts away.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

const VERSION: u8 = 1;

/// What binds a ciphertext.
pub(super) struct Bound<'a> {
    pub module: &'a str,
    pub generation: &'a str,
    pub initialization_vector: &'a [u8],
}

impl Bound<'_> {
    fn aad(&self) -> Aad<Vec<u8>> {
        let parts = [self.module.as_bytes(), self.generation.as_bytes(), self.initialization_vector];
        let with_length = |part: &[u8]| [&(part.len() as u64).to_be_bytes(), part].concat();
        Aad::from(parts.map(with_length).concat())
    }
}

fn key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes a key of 32 bytes"))
}

pub(super) fn encrypt(with: &[u8; 32], bound: &Bound<'_>, plaintext: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut sealed = plaintext.to_vec();
    key(with)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound.aad(), &mut sealed)
        .expect("a request's body is far smaller than what AES-GCM takes");
    [&[VERSION], &nonce[..], &sealed].concat()
}

/// Decrypts; `None` when it was not encrypted here, or for another module, generation or initialisation vector.
pub(super) fn decrypt(with: &[u8; 32], bound: &Bound<'_>, ciphertext: &[u8]) -> Option<Vec<u8>> {
    let rest = ciphertext.strip_prefix(&[VERSION])?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
    let mut opened = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = key(with).open_in_place(nonce, bound.aad(), &mut opened).ok()?.len();
    opened.truncate(length);
    Some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn bound<'a>(module: &'a str, generation: &'a str, initialization_vector: &'a [u8]) -> Bound<'a> {
        Bound { module, generation, initialization_vector }
    }

    #[test]
    fn only_the_same_module_generation_and_vector_get_the_plaintext_back_and_a_changed_byte_none() {
        let own = bound("a", "1", b"vector of any length, here 29");
        for plaintext in [&b""[..], b"secret"] {
            let sealed = encrypt(&KEY, &own, plaintext);
            assert_eq!(sealed.len(), plaintext.len() + 29);
            assert_eq!(decrypt(&KEY, &own, &sealed).as_deref(), Some(plaintext));
            assert_ne!(encrypt(&KEY, &own, plaintext), sealed, "a vector may be used again");
            for other in [
                bound("b", "1", own.initialization_vector),
                bound("a", "2", own.initialization_vector),
                bound("a", "1", b""),
                bound("a1", "", own.initialization_vector),
            ] {
                assert_eq!(decrypt(&KEY, &other, &sealed), None);
            }
            assert_eq!(decrypt(&[8; 32], &own, &sealed), None);
            for place in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[place] ^= 1;
                assert_eq!(decrypt(&KEY, &own, &changed), None, "byte {place}");
                assert_eq!(decrypt(&KEY, &own, &sealed[..place]), None, "cut at {place}");
            }
        }
    }
}
