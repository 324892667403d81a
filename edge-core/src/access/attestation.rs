//! What an identity must show to be let in, and whether a connection still stands after that has changed.

use schemas::names::Identity;

use super::error::AccessError;
use super::proof::{Mark, Proof};
use super::sas;
use super::secret::Secret;
use super::x509::{self, Authorities, Shown, Thumbprint};

/// What an identity must show.
#[derive(Clone, PartialEq, Eq)]
pub enum Attestation {
    /// A SAS token made with one of these keys.
    Keys(Vec<Vec<u8>>),
    /// A certificate that one of these names.
    Thumbprints(Vec<Thumbprint>),
    /// A certificate that one of the device authorities gave to it.
    Authority,
}

/// What came with a CONNECT.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The password.
    pub password: Option<&'a Secret>,
    /// The certificates of the handshake.
    pub certificate: Option<Shown<'a>>,
}

/// What evidence is judged by beside the identity's own attestation.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The names that a token's resource may carry.
    pub hosts: &'a [&'a str],
    /// The device authorities.
    pub authorities: &'a Authorities,
    /// Seconds since the Unix epoch.
    pub now_secs: u64,
}

impl Attestation {
    /// Proves `identity` by what it showed. Gives what proved it, and when that ends, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`AccessError`]: another kind of evidence than is asked for, or evidence that does not hold.
    pub fn prove(
        &self,
        identity: &Identity,
        evidence: &Evidence<'_>,
        under: &Circumstances<'_>,
    ) -> Result<(Proof, u64), AccessError> {
        let wrong = |why: String| AccessError::Certificate { identity: identity.to_string(), why };
        let shown = || {
            let missing = || wrong("it must show a certificate, and showed none".to_owned());
            let shown = evidence.certificate.ok_or_else(missing)?;
            let ends_at = x509::valid_until(shown.leaf, under.now_secs).map_err(wrong)?;
            Ok((shown, ends_at))
        };
        match self {
            Self::Keys(keys) => {
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                let token = evidence.password.and_then(Secret::text).unwrap_or("");
                let token = sas::verify(token, identity, under.hosts, &keys, under.now_secs)?;
                Ok((Proof::Key(token.key), token.ends_at()))
            }
            Self::Thumbprints(thumbprints) => {
                let (shown, ends_at) = shown()?;
                match thumbprints.iter().any(|thumbprint| thumbprint.names(shown.leaf)) {
                    true => Ok((Proof::Thumbprint(Thumbprint::sha256(shown.leaf)), ends_at)),
                    false => {
                        let found = Thumbprint::Sha256(Thumbprint::sha256(shown.leaf));
                        Err(wrong(format!("its thumbprint {found} is not one of those registered")))
                    }
                }
            }
            Self::Authority => {
                let (shown, ends_at) = shown()?;
                under.authorities.check(&shown, &identity.device, under.now_secs).map_err(wrong)?;
                Ok((Proof::Authority, ends_at))
            }
        }
    }

    /// Whether this attestation still asks for what proved a connection. SHA-1 thumbprints are compared by the
    /// certificate at the next CONNECT only: the connection keeps the SHA-256 one.
    pub fn stands(&self, proof: &Proof) -> bool {
        match (self, proof) {
            (_, Proof::Standing) => true,
            (Self::Keys(keys), Proof::Key(mark)) => keys.iter().any(|key| Mark::of(key) == *mark),
            (Self::Thumbprints(thumbprints), Proof::Thumbprint(found)) => {
                thumbprints.iter().any(|thumbprint| match thumbprint {
                    Thumbprint::Sha256(hash) => hash == found,
                    Thumbprint::Sha1(_) => true,
                })
            }
            (Self::Authority, Proof::Authority) => true,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Attestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keys(keys) => write!(f, "Keys({}, not shown)", keys.len()),
            Self::Thumbprints(thumbprints) => f.debug_tuple("Thumbprints").field(thumbprints).finish(),
            Self::Authority => f.write_str("Authority"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::x509::tests::{Signer, now};
    use super::*;

    #[test]
    fn each_kind_of_identity_is_proven_by_its_own_kind_of_evidence_and_no_other() {
        let ca = Signer::new("ca", None);
        let identity: Identity = "press-1".parse().unwrap();
        let authorities = Authorities::new(std::slice::from_ref(&ca.der)).unwrap();
        let under = Circumstances { hosts: &["hub"], authorities: &authorities, now_secs: now() };
        let leaf = ca.device("press-1");
        let token = Secret::new(sas::token("hub", &identity, b"key", now() + 60).into_bytes());
        let certificate = Some(Shown { leaf: &leaf, intermediates: &[] });
        let by_certificate = Evidence { password: None, certificate };
        let by_token = Evidence { password: Some(&token), certificate: None };
        let keys = Attestation::Keys(vec![b"other".to_vec(), b"key".to_vec()]);
        let mark = Thumbprint::sha256(&leaf);
        let thumbprints = Attestation::Thumbprints(vec![Thumbprint::Sha256(mark)]);
        for (attestation, evidence, proof) in [
            (&keys, &by_token, Some(Proof::Key(Mark::of(b"key")))),
            (&keys, &by_certificate, None),
            (&thumbprints, &by_certificate, Some(Proof::Thumbprint(mark))),
            (&thumbprints, &by_token, None),
            (&Attestation::Authority, &by_certificate, Some(Proof::Authority)),
            (&Attestation::Authority, &by_token, None),
            (&Attestation::Thumbprints(vec![Thumbprint::Sha256([0; 32])]), &by_certificate, None),
        ] {
            let found = attestation.prove(&identity, evidence, &under).ok().map(|(proof, _)| proof);
            assert_eq!(found, proof, "{attestation:?} {evidence:?}");
            if let Some(proof) = found {
                assert!(attestation.stands(&proof));
            }
        }
        let proof = Proof::Key(Mark::of(b"key"));
        assert!(!Attestation::Keys(vec![b"new".to_vec()]).stands(&proof), "the key was changed");
        assert!(!thumbprints.stands(&proof) && !Attestation::Authority.stands(&proof));
        assert!(
            !Attestation::Thumbprints(vec![Thumbprint::Sha256([0; 32])]).stands(&Proof::Thumbprint(mark))
        );
        assert!(!format!("{keys:?} {by_token:?}").contains("key\""), "nothing secret is printed");
    }
}
