//! The cryptography of TLS: *ring*'s, extended by keys on the curve P-521 (`docs/decisions/0046-keys-on-p521.md`).

use std::sync::{Arc, LazyLock};

use edge_core::access::p521;
use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, alg_id};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let ring = rustls::crypto::ring::default_provider();
    let signature_verification_algorithms =
        WebPkiSupportedAlgorithms { all: p521::ALL.as_slice(), mapping: MAPPING.as_slice() };
    Arc::new(CryptoProvider { signature_verification_algorithms, key_provider: &Keys, ..ring })
});

pub(crate) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// The algorithms of each TLS signature scheme. rustls uses the first of a row for TLS 1.3. In TLS 1.2 a scheme fixes the hash only, so
/// a row lists every curve.
static MAPPING: LazyLock<Vec<(SignatureScheme, Algorithms)>> = LazyLock::new(|| {
    let of_ring = rustls::crypto::ring::default_provider().signature_verification_algorithms.mapping;
    let others = of_ring.iter().filter(|(scheme, _)| ECDSA.iter().all(|(known, _)| known != scheme));
    ECDSA.iter().chain(others).copied().collect()
});
static ECDSA: [(SignatureScheme, Algorithms); 3] = [
    (SignatureScheme::ECDSA_NISTP521_SHA512, &[p521::ECDSA_P521_SHA512]),
    (
        SignatureScheme::ECDSA_NISTP384_SHA384,
        &[webpki::ring::ECDSA_P384_SHA384, webpki::ring::ECDSA_P256_SHA384, p521::ECDSA_P521_SHA384],
    ),
    (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[webpki::ring::ECDSA_P256_SHA256, webpki::ring::ECDSA_P384_SHA256, p521::ECDSA_P521_SHA256],
    ),
];

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match p521::PrivateKey::read(&key) {
            Some(key) => Ok(Arc::new(P521Key(Arc::new(key)))),
            None => rustls::crypto::ring::default_provider().key_provider.load_private_key(key),
        }
    }
}

struct P521Key(Arc<p521::PrivateKey>);

impl std::fmt::Debug for P521Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("P521Key")
    }
}

impl SigningKey for P521Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let is_offered = offered.contains(&SignatureScheme::ECDSA_NISTP521_SHA512);
        is_offered.then(|| Box::new(Self(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P521, self.0.public_key()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P521Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message).ok_or_else(|| Error::General("signing failed: no random number".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}
