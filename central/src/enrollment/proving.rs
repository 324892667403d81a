//! Whether a device that enrols itself may, and by what.
//!
//! A device that an operator registered has keys or certificates of its own, and only those enrol it: a group never takes
//! over somebody else's device. A device that came by a group comes again by that group only, and by none once that group was
//! deleted: the next group of its id is another one (decision 0112). A group's authority counts once it is verified, and names
//! the device by the common name of its certificate.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::attestation::Attestation;
use edge_core::access::enrolment;
use edge_core::access::error::{AccessError, CertificateError};
use edge_core::access::proof::{Fingerprint, KeyFingerprint};
use edge_core::access::sas::Token;
use edge_core::access::thumbprint::Thumbprint;
use edge_core::access::x509::{self, Authorities, PresentedChain, Trust};
use edge_core::error_chain::chain as causes;
use rusqlite::Connection;
use rustls::pki_types::CertificateDer;
use schemas::names::DeviceId;
use schemas::provisioning::Enrolment;

use crate::access::admission::{Admission, NotAdmitted};
use crate::access::device_attestation::attestation;
use crate::enrollment::evidence::Evidence;
use crate::error::ServiceError;

use crate::enrollment::placement::is_behind_by_operator;
use crate::store::devices::{self, Device, Keys};
use crate::store::enrollments::{self, EnrollmentRecord, Group, GroupAttestation, SigningCertificates};

/// Why what a device showed does not enrol it.
#[derive(Debug, thiserror::Error)]
enum ProofError {
    #[error("ID scope `{0}` is not this site's")]
    Scope(String),
    #[error("its certificates did not arrive whole")]
    Incomplete(#[source] base64::DecodeError),
    #[error(transparent)]
    Token(#[from] AccessError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("it must show a certificate, and showed none")]
    NoCertificate,
    #[error("its certificate is not one of those registered")]
    OtherCertificate,
    #[error("it is registered, and its keys are at its gateway")]
    KeysAtGateway,
    #[error(
        "gateway `{gateway}` cannot show central that the device has the certificate's key; put the device behind the gateway by \
         a relationship, or let it enrol at central"
    )]
    OnlyClaimed { gateway: DeviceId },
    #[error(
        "enrolment group `{group}`, by which it enrolled, was deleted, and no other group may take it, also none that was made \
         again with that id; delete the device, and it enrols anew"
    )]
    GroupDeleted { group: String },
    #[error("no enabled enrolment group would take it")]
    NoGroup,
    #[error("no enabled enrolment group with a verified certificate would take it")]
    NoVerifiedGroup,
    #[error("no group's key made its token")]
    NoGroupsKey,
    #[error(
        "group `{group}` does not let devices enrol by certificate through gateway `{gateway}`; add the gateway to the group's \
         `gateways`, or let the device enrol at central"
    )]
    GatewayNotListed { group: String, gateway: DeviceId },
    #[error("group `{group}` does not take it")]
    GroupRefused { group: String, source: CertificateError },
}

/// Groups of one site.
pub(crate) const GROUPS_MAX: u32 = 100;

/// What decides about devices beside the store.
pub(crate) struct Site {
    pub(crate) id_scope: String,
    /// The authorities of devices.
    pub(crate) trust: Arc<Trust>,
    pub(crate) now_ms: u64,
}

/// That a device may enrol.
pub(crate) struct Proven {
    pub(crate) source: Source,
    pub(crate) evidence: Evidence,
    /// Until when what it showed is valid, in seconds since the Unix epoch.
    pub(crate) ends_at: u64,
}

/// By what a device may enrol.
pub(crate) enum Source {
    /// What an operator registered of it.
    Own,
    Group {
        id: String,
        /// Whether its devices are gateways.
        is_edge: bool,
        /// Whether an unknown device is registered without waiting for an operator.
        auto_approve: bool,
        /// What proves the device from now on.
        given: Given,
    },
}

impl Source {
    fn of(group: Group, given: Given) -> Self {
        Self::Group { id: group.id, is_edge: group.is_edge, auto_approve: group.auto_approve, given }
    }
}

/// What proves a device that came by a group.
pub(crate) enum Given {
    /// Keys derived from the group's.
    Keys(Keys),
    /// The certificate that it showed.
    Certificate(Thumbprint),
}

/// Whether a device may enrol and by what, at central or through the gateway `via`.
///
/// # Errors
/// [`ServiceError::Forbidden`] when it may not, [`ServiceError::NotApproved`] when an operator blocked it.
pub(crate) fn prove(
    c: &Connection,
    shown: &Enrolment,
    site: &Site,
    via: Option<&DeviceId>,
) -> Result<Proven, ServiceError> {
    let id = &shown.registration_id;
    let refused =
        |why: ProofError| ServiceError::Forbidden(format!("`{id}` may not enrol: {}", causes(&why)));
    if shown.id_scope != site.id_scope {
        return Err(refused(ProofError::Scope(shown.id_scope.clone())));
    }
    let device = devices::get(c, id)?;
    let enrollment = enrollments::enrollment(c, id)?;
    if device.as_ref().is_some_and(|device| device.admission() == Admission::Blocked) {
        return Err(ServiceError::NotApproved(format!("`{id}` may not enrol: {}", NotAdmitted::Blocked)));
    }
    let chain = Chain::of(shown).map_err(refused)?;
    let proven = |source: Source, ends_at: u64| {
        let evidence = match (&chain, via) {
            (None, _) => Evidence::Token { ends_at },
            (Some(_), None) => Evidence::Handshake,
            (Some(_), Some(_)) => Evidence::GatewayClaim,
        };
        Proven { source, evidence, ends_at }
    };
    // A gateway's claim must not keep the device itself out.
    let device = device.filter(|device| !device.is_claim);
    let is_placed = match (&device, via) {
        (Some(device), Some(gateway)) => is_behind_by_operator(c, device, gateway)?,
        _ => false,
    };
    let is_own = device.is_some() && enrollment.as_ref().is_none_or(|enrollment| enrollment.group.is_empty());
    if let Some(device) = device.filter(|_| is_own) {
        let ends_at = by_its_own(&device, shown, chain.as_ref(), site).map_err(refused)?;
        let proven = proven(Source::Own, ends_at);
        return match via {
            Some(gateway) if proven.evidence == Evidence::GatewayClaim && !is_placed => {
                Err(refused(ProofError::OnlyClaimed { gateway: gateway.clone() }))
            }
            _ => Ok(proven),
        };
    }
    let groups = match &enrollment {
        Some(EnrollmentRecord { group, is_group_deleted: true, .. }) => {
            return Err(refused(ProofError::GroupDeleted { group: group.clone() }));
        }
        Some(enrollment) => enrollments::group(c, &enrollment.group)?.into_iter().collect(),
        None => enrollments::groups(c, "", GROUPS_MAX)?,
    };
    let groups: Vec<Group> = groups.into_iter().filter(|group| group.enabled).collect();
    let (source, ends_at) = match &chain {
        None => by_keys(shown, site, groups),
        Some(chain) => by_certificate(shown, site, groups, chain, via.filter(|_| !is_placed)),
    }
    .map_err(refused)?;
    Ok(proven(source, ends_at))
}

/// The certificates that a device showed.
struct Chain(Vec<CertificateDer<'static>>);

impl Chain {
    /// `None` for a device that shows a token.
    fn of(shown: &Enrolment) -> Result<Option<Self>, ProofError> {
        if !shown.token.is_empty() || shown.certificates.is_empty() {
            return Ok(None);
        }
        let decode = |text: &String| STANDARD.decode(text).map(CertificateDer::from);
        let chain: Result<_, _> = shown.certificates.iter().map(decode).collect();
        chain.map(|chain| Some(Self(chain))).map_err(ProofError::Incomplete)
    }

    fn shown(&self) -> PresentedChain<'_> {
        let leaf = self.0.first().map_or(&[][..], |der| der.as_ref());
        PresentedChain { leaf, intermediates: self.0.get(1..).unwrap_or(&[]) }
    }
}

fn verify(shown: &Enrolment, site: &Site, keys: &[&[u8]]) -> Result<Token, AccessError> {
    enrolment::verify(&shown.token, &site.id_scope, &shown.registration_id, keys, site.now_ms / 1000)
}

fn by_its_own(
    device: &Device,
    shown: &Enrolment,
    chain: Option<&Chain>,
    site: &Site,
) -> Result<u64, ProofError> {
    let now_secs = site.now_ms / 1000;
    let chain = || chain.map(Chain::shown).ok_or(ProofError::NoCertificate);
    match attestation(device) {
        Attestation::Keys(keys) if keys.is_empty() => Err(ProofError::KeysAtGateway),
        Attestation::Keys(keys) => {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            Ok(verify(shown, site, &keys)?.ends_at())
        }
        Attestation::Thumbprints(thumbprints) => {
            let leaf = chain()?.leaf;
            let found = Fingerprint::of(leaf);
            if thumbprints.iter().any(|thumbprint| thumbprint.names(&found)) {
                Ok(x509::valid_until(leaf, now_secs)?)
            } else {
                Err(ProofError::OtherCertificate)
            }
        }
        Attestation::Authority => {
            let certificates = chain()?;
            site.trust.devices.check(&certificates, &shown.registration_id, now_secs)?;
            Ok(x509::valid_until(certificates.leaf, now_secs)?)
        }
    }
}

fn by_keys(shown: &Enrolment, site: &Site, groups: Vec<Group>) -> Result<(Source, u64), ProofError> {
    let mut derived = Vec::new();
    for group in groups {
        let GroupAttestation::Keys(keys) = &group.attestation else { continue };
        let [primary, secondary] = [&keys.primary, &keys.secondary]
            .map(|key| enrolment::derive_key(&decode(key), &shown.registration_id));
        derived.push((group, primary, secondary));
    }
    if derived.is_empty() {
        return Err(ProofError::NoGroup);
    }
    let keys: Vec<&[u8]> =
        derived.iter().flat_map(|(_, primary, secondary)| [&primary[..], &secondary[..]]).collect();
    let token = verify(shown, site, &keys)?;
    let by = |key: &[u8]| KeyFingerprint::of(key) == token.key;
    let found = derived.into_iter().find(|(_, primary, secondary)| by(primary) || by(secondary));
    let (group, primary, secondary) = found.ok_or(ProofError::NoGroupsKey)?;
    let keys = Keys { primary: STANDARD.encode(primary), secondary: STANDARD.encode(secondary) };
    Ok((Source::of(group, Given::Keys(keys)), token.ends_at()))
}

/// Keys are checked when they are stored.
fn decode(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap_or_default()
}

fn by_certificate(
    shown: &Enrolment,
    site: &Site,
    groups: Vec<Group>,
    chain: &Chain,
    unplaced_via: Option<&DeviceId>,
) -> Result<(Source, u64), ProofError> {
    let (now_secs, certificates) = (site.now_ms / 1000, chain.shown());
    let ends_at = x509::valid_until(certificates.leaf, now_secs)?;
    let mut why = ProofError::NoVerifiedGroup;
    for group in groups {
        let GroupAttestation::X509(signing) = &group.attestation else { continue };
        let Some(authorities) = verified(signing) else { continue };
        match authorities.check(&certificates, &shown.registration_id, now_secs) {
            Ok(_) => {
                // Another group may have the same authority and list the gateway.
                if let Some(gateway) = unplaced_via.filter(|gateway| !group.gateways.contains(gateway)) {
                    why = ProofError::GatewayNotListed { group: group.id, gateway: gateway.clone() };
                    continue;
                }
                let thumbprint = Thumbprint::sha256(certificates.leaf);
                return Ok((Source::of(group, Given::Certificate(thumbprint)), ends_at));
            }
            Err(source) => why = ProofError::GroupRefused { group: group.id, source },
        }
    }
    Err(why)
}

/// The authorities of a group that are verified; `None` when none is.
fn verified(signing: &SigningCertificates) -> Option<Authorities> {
    let verified = signing.primary.iter().chain(&signing.secondary).filter(|one| one.is_verified);
    let certificates: Vec<CertificateDer<'_>> =
        verified.map(|one| CertificateDer::from(decode(&one.certificate))).collect();
    // Each was looked at when it was stored.
    Authorities::new(&certificates).ok().filter(|authorities| !authorities.is_empty())
}
