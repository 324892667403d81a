//! Signatures of keys on the curve P-521 (secp521r1), which *ring* does not know. RustCrypto's `p521` makes and checks them.
//!
//! Every place that checks signatures takes its algorithms from [`ALL`], so that a key is accepted everywhere or nowhere
//! (docs/decisions/0046).

use std::sync::LazyLock;

use p521::SecretKey;
use p521::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::pkcs8::DecodePrivateKey as _;
use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, alg_id,
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_parser::oid_registry::Oid;
use x509_parser::oid_registry::asn1_rs::oid;
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Bytes of a number of the curve's field.
const FIELD_BYTES: usize = 66;

/// ECDSA on P-521 with SHA-256.
pub static ECDSA_P521_SHA256: &dyn SignatureVerificationAlgorithm = &Ecdsa(Hash::Sha256);
/// ECDSA on P-521 with SHA-384.
pub static ECDSA_P521_SHA384: &dyn SignatureVerificationAlgorithm = &Ecdsa(Hash::Sha384);
/// ECDSA on P-521 with SHA-512.
pub static ECDSA_P521_SHA512: &dyn SignatureVerificationAlgorithm = &Ecdsa(Hash::Sha512);

/// All signatures that are accepted in certificates.
pub static ALL: LazyLock<Vec<&'static dyn SignatureVerificationAlgorithm>> = LazyLock::new(|| {
    let of_ring = webpki::ALL_VERIFICATION_ALGS.iter().copied();
    of_ring.chain([ECDSA_P521_SHA512, ECDSA_P521_SHA384, ECDSA_P521_SHA256]).collect()
});

#[derive(Debug, Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Debug)]
struct Ecdsa(Hash);

impl Hash {
    /// The hash as a number of the curve's field: a shorter one is at its low end (SEC 1, section 4.1.4).
    fn of(self, message: &[u8]) -> [u8; FIELD_BYTES] {
        let mut field = [0; FIELD_BYTES];
        let mut put = |hash: &[u8]| field[FIELD_BYTES - hash.len()..].copy_from_slice(hash);
        match self {
            Self::Sha256 => put(&Sha256::digest(message)),
            Self::Sha384 => put(&Sha384::digest(message)),
            Self::Sha512 => put(&Sha512::digest(message)),
        }
        field
    }
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P521
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.0 {
            Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
            Hash::Sha512 => alg_id::ECDSA_SHA512,
        }
    }

    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        key.verify_prehash(&self.0.of(message), &signature).map_err(|_| InvalidSignature)
    }
}

/// A private key on P-521.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Reads PKCS #8 or SEC 1; `None` for a key of another kind.
    pub fn read(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let key = match der {
            PrivateKeyDer::Pkcs8(der) => SecretKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Sec1(der) => SecretKey::from_sec1_der(der.secret_sec1_der()).ok(),
            _ => None,
        };
        SigningKey::from_bytes(&key?.to_bytes()).ok().map(Self)
    }

    /// Signs with SHA-512; gives ASN.1. `None` when the system gives no random number.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature: Signature = self.0.sign_prehash(&Hash::Sha512.of(message)).ok()?;
        Some(signature.to_der().as_bytes().to_vec())
    }

    /// The point of the public key, uncompressed.
    pub fn public_key(&self) -> Vec<u8> {
        VerifyingKey::from(&self.0).to_encoded_point(false).as_bytes().to_vec()
    }
}

/// Whether the key signed the certificate.
pub fn is_signed_by(certificate: &X509Certificate<'_>, key: &SubjectPublicKeyInfo<'_>) -> bool {
    // Not by webpki: it does not read certificates of X.509 version 1, which `openssl x509 -req` makes as proofs.
    if certificate.verify_signature(Some(key)).is_ok() {
        return true;
    }
    // That was *ring*, which does not know P-521.
    let spki = SubjectPublicKeyInfoDer::from(key.raw);
    let Ok(key) = webpki::RawPublicKeyEntity::try_from(&spki) else { return false };
    let with = [
        (oid!(1.2.840.10045.4.3.2), ECDSA_P521_SHA256),
        (oid!(1.2.840.10045.4.3.3), ECDSA_P521_SHA384),
        (oid!(1.2.840.10045.4.3.4), ECDSA_P521_SHA512),
    ];
    let of_certificate = &certificate.signature_algorithm.algorithm;
    let Some((_, algorithm)) = with.into_iter().find(|(oid, _): &(Oid<'_>, _)| oid == of_certificate) else {
        return false;
    };
    let signed = certificate.tbs_certificate.as_ref();
    key.verify_signature(algorithm, signed, &certificate.signature_value.data).is_ok()
}

/// The key of a certificate is of a kind that no signature is checked with here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its key is {found}, which is not supported; make one on P-256, P-384 or P-521, an RSA key of 2048 to 8192 bits, or Ed25519"
)]
pub struct UnsupportedKey {
    found: String,
}

/// Checks that signatures of a key can be checked.
///
/// # Errors
/// [`UnsupportedKey`] with the curve or algorithm.
pub fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), UnsupportedKey> {
    let oid = key.algorithm.algorithm.to_id_string();
    let curve =
        key.algorithm.parameters.as_ref().and_then(|of| of.as_oid().ok()).map(|oid| oid.to_id_string());
    // webpki would say only that a signature is wrong; what helps is the name of the curve (decision 0046).
    let found = match (oid.as_str(), curve.as_deref()) {
        // RSA and Ed25519.
        ("1.2.840.113549.1.1.1" | "1.3.101.112", _) => return Ok(()),
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35")) => return Ok(()),
        ("1.2.840.10045.2.1", Some("1.3.132.0.10")) => "on the curve secp256k1".to_owned(),
        ("1.2.840.10045.2.1", Some("1.3.132.0.33")) => "on the curve P-224 (secp224r1)".to_owned(),
        ("1.2.840.10045.2.1", Some(curve)) if curve.starts_with("1.3.36.3.3.2.8.1.1.") => {
            format!("on a Brainpool curve ({curve})")
        }
        ("1.2.840.10045.2.1", Some(curve)) => format!("on the curve {curve}"),
        ("1.2.840.10045.2.1", None) => "on a curve that it does not name".to_owned(),
        ("1.3.101.113", _) => "an Ed448 key".to_owned(),
        ("1.2.840.10040.4.1", _) => "a DSA key".to_owned(),
        ("1.2.840.113549.1.1.10", _) => "for RSASSA-PSS alone".to_owned(),
        (other, _) => format!("of the algorithm {other}"),
    };
    Err(UnsupportedKey { found })
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::prelude::FromDer as _;

    use super::*;

    fn certificate(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    #[test]
    fn a_signature_is_accepted_with_each_hash_and_refused_with_any_bit_changed() {
        let ca = certificate(include_bytes!("../../testdata/p521/ca.pem"));
        let (_, ca) = X509Certificate::from_der(&ca).unwrap();
        for pem in [
            include_bytes!("../../testdata/p521/device.sha256.pem").as_slice(),
            include_bytes!("../../testdata/p521/device.sha384.pem"),
            include_bytes!("../../testdata/p521/device.sha512.pem"),
        ] {
            let der = certificate(pem);
            let (_, leaf) = X509Certificate::from_der(&der).unwrap();
            assert!(is_signed_by(&leaf, ca.public_key()));
            assert!(!is_signed_by(&leaf, leaf.public_key()));
            // Some bits keep the test short; they are in the name, the dates, the key and the signature.
            for bit in (0..der.len() * 8).step_by(59) {
                let mut changed = der.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok((rest, leaf)) = X509Certificate::from_der(&changed)
                    && rest.is_empty()
                {
                    assert!(!is_signed_by(&leaf, ca.public_key()), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_key_is_read_in_both_forms_and_signs_what_its_public_key_accepts() {
        let mut signed = Vec::new();
        for pem in [
            include_bytes!("../../testdata/p521/server.key.pem").as_slice(),
            include_bytes!("../../testdata/p521/server.sec1.pem"),
        ] {
            let key = PrivateKey::read(&PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap();
            let signature = key.sign(b"message").unwrap();
            ECDSA_P521_SHA512.verify_signature(&key.public_key(), b"message", &signature).unwrap();
            assert!(ECDSA_P521_SHA512.verify_signature(&key.public_key(), b"massage", &signature).is_err());
            assert!(ECDSA_P521_SHA384.verify_signature(&key.public_key(), b"message", &signature).is_err());
            signed.push((key.public_key(), signature));
        }
        assert_eq!(signed[0].0, signed[1].0);
        assert_ne!(signed[0].1, signed[1].1, "a nonce is used once");
        let other = include_bytes!("../../testdata/p521/secp256k1.key.pem");
        assert!(PrivateKey::read(&PrivateKeyDer::from_pem_slice(other).unwrap()).is_none());
    }

    #[test]
    fn nonsense_is_no_signature_and_breaks_nothing() {
        let key = include_bytes!("../../testdata/p521/server.key.pem");
        let key = PrivateKey::read(&PrivateKeyDer::from_pem_slice(key).unwrap()).unwrap();
        let (point, signature) = (key.public_key(), key.sign(b"m").unwrap());
        let identity = [0_u8].as_slice();
        let zeros = [0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x00].as_slice();
        for (point, signature) in [
            (identity, signature.as_slice()),
            (&point[..132], &signature),
            (b"", &signature),
            (&[4; 133], &signature),
            (&point, b""),
            (&point, zeros),
            (&point, &signature[..signature.len() - 1]),
            (&point, &[signature.as_slice(), &[0]].concat()),
        ] {
            for algorithm in [ECDSA_P521_SHA256, ECDSA_P521_SHA384, ECDSA_P521_SHA512] {
                assert!(algorithm.verify_signature(point, b"m", signature).is_err(), "{signature:?}");
            }
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused_with_its_curve() {
        for (pem, phrase) in [
            (include_bytes!("../../testdata/p521/secp256k1.pem").as_slice(), "on the curve secp256k1"),
            (include_bytes!("../../testdata/p521/brainpool.pem"), "on a Brainpool curve"),
        ] {
            let der = certificate(pem);
            let (_, certificate) = X509Certificate::from_der(&der).unwrap();
            let why = check_key(certificate.public_key()).unwrap_err().to_string();
            assert!(why.contains(phrase) && why.contains("P-384"), "{why}");
        }
        let der = certificate(include_bytes!("../../testdata/p521/ca.pem"));
        check_key(X509Certificate::from_der(&der).unwrap().1.public_key()).unwrap();
    }
}
