//! What an identity must prove to be admitted, and whether a connection may stay after that has changed.

use schemas::names::Identity;

use super::error::{AccessError, CertificateError};
use super::proof::{Fingerprint, KeyFingerprint, Proof};
use super::sas;
use super::secret::Secret;
use super::thumbprint::Thumbprint;
use super::x509::{self, PresentedChain, Trust};

/// What a device must show.
#[derive(Clone, PartialEq, Eq)]
pub enum Attestation {
    /// A SAS token made with one of these keys.
    Keys(Vec<Vec<u8>>),
    /// A certificate that one of these names.
    Thumbprints(Vec<Thumbprint>),
    /// A certificate that one of the device authorities gave to it.
    Authority,
}

/// What a module of a gateway must show: a SAS token made with this key, or a certificate of the gateway's own authority.
#[derive(Clone, PartialEq, Eq)]
pub struct ModuleAttestation(pub Vec<u8>);

/// What an identity must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    Device(Attestation),
    Module(ModuleAttestation),
}

/// What came with a CONNECT.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub password: Option<&'a Secret>,
    /// The certificates of the handshake.
    pub certificate: Option<PresentedChain<'a>>,
}

/// What evidence is checked by beside the identity's own attestation.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The names that a token's resource may carry.
    pub hosts: &'a [&'a str],
    /// The authorities of this server.
    pub trust: &'a Trust,
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
        let wrong = |why| AccessError::Certificate { identity: identity.to_string(), why };
        let shown =
            || certificate(evidence, under, "it must show a certificate, and showed none").map_err(wrong);
        match self {
            Self::Keys(keys) => {
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                by_token(identity, evidence, under, &keys)
            }
            Self::Thumbprints(thumbprints) => {
                let (shown, ends_at) = shown()?;
                // By thumbprint alone: a self-signed certificate has no chain, as at IoT Hub.
                let found = Fingerprint::of(shown.leaf);
                if thumbprints.iter().any(|thumbprint| thumbprint.names(&found)) {
                    Ok((Proof::Certificate(found), ends_at))
                } else {
                    let found = Thumbprint::Sha256(found.sha256);
                    Err(wrong(CertificateError::NotRegistered { found }))
                }
            }
            Self::Authority => {
                let (shown, ends_at) = shown()?;
                let checked = under.trust.devices.check(&shown, &identity.device, under.now_secs);
                checked.map(|fingerprint| (Proof::Authority(fingerprint), ends_at)).map_err(wrong)
            }
        }
    }

    /// Whether this attestation, with the authorities of now, still asks for what proved a connection.
    pub fn accepts(&self, proof: &Proof, trust: &Trust) -> bool {
        match (self, proof) {
            (_, Proof::IdentityAlone) => true,
            (Self::Keys(keys), Proof::Key(fingerprint)) => {
                // A key that is still registered keeps its connections, so that replacing the other key ends none.
                keys.iter().any(|key| KeyFingerprint::of(key) == *fingerprint)
            }
            (Self::Thumbprints(thumbprints), Proof::Certificate(found)) => {
                thumbprints.iter().any(|thumbprint| thumbprint.names(found))
            }
            (Self::Authority, Proof::Authority(fingerprint)) => trust.devices.has(fingerprint),
            // Another kind of proof than the identity needs now, after its attestation was changed.
            _ => false,
        }
    }
}

impl ModuleAttestation {
    /// As [`Attestation::prove`], of a module. A token that was given is checked, whatever else was shown.
    ///
    /// # Errors
    /// As [`Attestation::prove`].
    pub fn prove(
        &self,
        identity: &Identity,
        evidence: &Evidence<'_>,
        under: &Circumstances<'_>,
    ) -> Result<(Proof, u64), AccessError> {
        if evidence.password.is_some_and(|password| !password.bytes().is_empty()) {
            return by_token(identity, evidence, under, &[&self.0]);
        }
        let wrong = |why| AccessError::Certificate { identity: identity.to_string(), why };
        let shown = certificate(evidence, under, "it showed neither a token nor a certificate");
        let (shown, ends_at) = shown.map_err(wrong)?;
        let checked = under.trust.modules.check_module(&shown, identity, under.hosts, under.now_secs);
        checked.map(|fingerprint| (Proof::Authority(fingerprint), ends_at)).map_err(wrong)
    }

    /// As [`Attestation::accepts`].
    pub fn accepts(&self, proof: &Proof, trust: &Trust) -> bool {
        match proof {
            Proof::IdentityAlone => true,
            Proof::Key(fingerprint) => KeyFingerprint::of(&self.0) == *fingerprint,
            Proof::Authority(fingerprint) => trust.modules.has(fingerprint),
            Proof::Certificate(_) | Proof::Password(_) => false,
        }
    }
}

impl Demand {
    /// Whether evidence that was refused with `error` would hold at another time: its signature and everything else is right.
    /// A clock that is wrong refuses it, and so does one that is right.
    pub fn only_time_speaks_against(
        &self,
        identity: &Identity,
        evidence: &Evidence<'_>,
        under: &Circumstances<'_>,
        error: &AccessError,
    ) -> bool {
        match error {
            // The signature is checked before the time, so nothing else is wrong with such a token.
            AccessError::Expired { .. } => true,
            AccessError::Certificate { .. } => {
                let middle = evidence.certificate.as_ref().and_then(|shown| x509::middle_of_life(shown.leaf));
                // At a moment when the certificate itself is valid: if it fails then too, the clock was not the reason.
                middle.is_some_and(|now_secs| {
                    self.prove(identity, evidence, &Circumstances { now_secs, ..*under }).is_ok()
                })
            }
            _ => false,
        }
    }

    /// As [`Attestation::prove`].
    ///
    /// # Errors
    /// As [`Attestation::prove`].
    pub fn prove(
        &self,
        identity: &Identity,
        evidence: &Evidence<'_>,
        under: &Circumstances<'_>,
    ) -> Result<(Proof, u64), AccessError> {
        match self {
            Self::Device(attestation) => attestation.prove(identity, evidence, under),
            Self::Module(attestation) => attestation.prove(identity, evidence, under),
        }
    }

    /// As [`Attestation::accepts`].
    pub fn accepts(&self, proof: &Proof, trust: &Trust) -> bool {
        match self {
            Self::Device(attestation) => attestation.accepts(proof, trust),
            Self::Module(attestation) => attestation.accepts(proof, trust),
        }
    }
}

/// The certificate that was shown, valid now, and until when; `missing` is why there must be one.
fn certificate<'a>(
    evidence: &Evidence<'a>,
    under: &Circumstances<'_>,
    missing: &'static str,
) -> Result<(PresentedChain<'a>, u64), CertificateError> {
    let shown = evidence.certificate.ok_or(CertificateError::Missing(missing))?;
    let ends_at = x509::valid_until(shown.leaf, under.now_secs)?;
    Ok((shown, ends_at))
}

fn by_token(
    identity: &Identity,
    evidence: &Evidence<'_>,
    under: &Circumstances<'_>,
    keys: &[&[u8]],
) -> Result<(Proof, u64), AccessError> {
    let token = evidence.password.and_then(Secret::text).unwrap_or("");
    let token = sas::verify(token, identity, under.hosts, keys, under.now_secs)?;
    Ok((Proof::Key(token.key), token.ends_at()))
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

impl std::fmt::Debug for ModuleAttestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ModuleAttestation(key not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::x509::Authorities;
    use super::super::x509::tests::{Signer, now};
    use super::*;

    fn authorities(signer: &Signer) -> Authorities {
        Authorities::new(std::slice::from_ref(&signer.der)).unwrap()
    }

    #[test]
    fn each_kind_of_identity_is_proven_by_its_own_kind_of_evidence_and_no_other() {
        let ca = Signer::new("ca", None);
        let identity: Identity = "press-1".parse().unwrap();
        let trust = Trust { devices: authorities(&ca), modules: authorities(&Signer::new("edge", None)) };
        let under = Circumstances { hosts: &["hub"], trust: &trust, now_secs: now() };
        let leaf = ca.device("press-1");
        let token = Secret::new(sas::token("hub", &identity, b"key", now() + 60).into_bytes());
        let shown = PresentedChain { leaf: &leaf, intermediates: &[] };
        let by_certificate = Evidence { password: None, certificate: Some(shown) };
        let by_token = Evidence { password: Some(&token), certificate: None };
        let keys = Attestation::Keys(vec![b"other".to_vec(), b"key".to_vec()]);
        let fingerprint = Fingerprint::of(&leaf);
        let by = |thumbprint| Attestation::Thumbprints(vec![thumbprint]);
        let (sha256, sha1) =
            (by(Thumbprint::Sha256(fingerprint.sha256)), by(Thumbprint::Sha1(fingerprint.sha1)));
        let of_ca = Proof::Authority(trust.devices.check(&shown, &identity.device, now()).unwrap());
        for (attestation, evidence, proof) in [
            (&keys, &by_token, Some(Proof::Key(KeyFingerprint::of(b"key")))),
            (&keys, &by_certificate, None),
            (&sha256, &by_certificate, Some(Proof::Certificate(fingerprint))),
            (&sha1, &by_certificate, Some(Proof::Certificate(fingerprint))),
            (&sha256, &by_token, None),
            (&Attestation::Authority, &by_certificate, Some(of_ca.clone())),
            (&Attestation::Authority, &by_token, None),
            (&by(Thumbprint::Sha256([0; 32])), &by_certificate, None),
        ] {
            let found = attestation.prove(&identity, evidence, &under).ok().map(|(proof, _)| proof);
            assert_eq!(found, proof, "{attestation:?} {evidence:?}");
            if let Some(proof) = found {
                assert!(attestation.accepts(&proof, &trust));
            }
        }
        let key = Proof::Key(KeyFingerprint::of(b"key"));
        let certificate = Proof::Certificate(fingerprint);
        let none = Trust::default();
        for (attestation, proof, trust) in [
            (&Attestation::Keys(vec![b"new".to_vec()]), &key, &trust),
            (&sha256, &key, &trust),
            (&Attestation::Authority, &key, &trust),
            (&by(Thumbprint::Sha256([0; 32])), &certificate, &trust),
            (&by(Thumbprint::Sha1([0; 20])), &certificate, &trust),
            (&Attestation::Authority, &of_ca, &none),
        ] {
            assert!(!attestation.accepts(proof, trust), "{proof:?} was taken back: {attestation:?}");
        }
        assert!(!ModuleAttestation(b"key".to_vec()).accepts(&of_ca, &trust), "of another authority");
        assert!(!format!("{keys:?} {by_token:?}").contains("key\""), "nothing secret is printed");
    }

    #[test]
    fn a_module_is_proven_by_its_token_or_by_its_certificate_and_a_wrong_token_is_wrong_beside_it() {
        let edge = Signer::new("edge", None);
        let module: Identity = "gw/filter".parse().unwrap();
        let trust = Trust { devices: Authorities::default(), modules: authorities(&edge) };
        let under = Circumstances { hosts: &["hub"], trust: &trust, now_secs: now() };
        let attestation = ModuleAttestation(b"key".to_vec());
        let leaf = edge.client("gw/filter");
        let certificate = Some(PresentedChain { leaf: &leaf, intermediates: &[] });
        let token = |key: &[u8]| Secret::new(sas::token("hub", &module, key, now() + 60).into_bytes());
        let (right, wrong, empty) = (token(b"key"), token(b"other"), Secret::new(*b""));
        for (password, certificate, is_proven) in [
            (Some(&right), None, true),
            (None, certificate, true),
            (Some(&empty), certificate, true),
            (Some(&right), certificate, true),
            (Some(&wrong), certificate, false),
            (Some(&wrong), None, false),
            (None, None, false),
        ] {
            let proven = attestation.prove(&module, &Evidence { password, certificate }, &under);
            assert_eq!(proven.is_ok(), is_proven, "{password:?} {certificate:?}: {proven:?}");
            if let Ok((proof, _)) = proven {
                assert!(attestation.accepts(&proof, &trust));
            }
        }
    }

    /// Every kind of evidence, right or wrong, against every kind of clock.
    #[test]
    fn a_wrong_clock_differs_from_a_wrong_proof_for_every_kind_of_evidence() {
        let (ca, other) = (Signer::new("ca", None), Signer::new("other", None));
        let identity: Identity = "press-1".parse().unwrap();
        let trust = Trust { devices: authorities(&ca), modules: Authorities::default() };
        let (leaf, foreign) = (ca.device("press-1"), other.device("press-1"));
        let token = |key: &[u8]| Secret::new(sas::token("hub", &identity, key, now() + 60).into_bytes());
        let (right, wrong) = (token(b"key"), token(b"guessed"));
        let shown = |leaf| Evidence {
            password: None,
            certificate: Some(PresentedChain { leaf, intermediates: &[] }),
        };
        let by_password = |password| Evidence { password: Some(password), certificate: None };
        let thumbprint = Attestation::Thumbprints(vec![Thumbprint::Sha256(Fingerprint::of(&leaf).sha256)]);
        let keys = Attestation::Keys(vec![b"key".to_vec()]);
        let (decade, century) = (10 * 365 * 86_400, 100 * 365 * 86_400);
        for now_secs in [0, now() - decade, now() + decade, now() + century] {
            for (attestation, evidence, is_right) in [
                (keys.clone(), by_password(&right), true),
                (keys.clone(), by_password(&wrong), false),
                (keys.clone(), shown(&leaf), false),
                (thumbprint.clone(), shown(&leaf), true),
                (thumbprint.clone(), shown(&foreign), false),
                (Attestation::Authority, shown(&leaf), true),
                (Attestation::Authority, shown(&foreign), false),
            ] {
                let demand = Demand::Device(attestation);
                let under = Circumstances { hosts: &["hub"], trust: &trust, now_secs };
                match demand.prove(&identity, &evidence, &under) {
                    Ok(_) => assert!(is_right, "{demand:?} {evidence:?}"),
                    Err(error) => {
                        let only_time = demand.only_time_speaks_against(&identity, &evidence, &under, &error);
                        assert_eq!(only_time, is_right, "{demand:?} {evidence:?} at {now_secs}: {error}");
                    }
                }
            }
        }
    }
}
