//! `/api/enrollmentGroups/{id}/certificates/{entry}`: the authorities whose certificates enrol the devices of a group, by IoT
//! Central's paths.
//!
//! Nobody enrols by an authority that is not verified. Whoever uploads one says so himself (`verified`), or proves it:
//! asks for a code, signs a certificate of that name with the authority's key, and sends it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::proof::Fingerprint;
use edge_core::access::thumbprint::Thumbprint;
use edge_core::access::x509::{self, Authorities};
use edge_tls::pem::certificates;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, StrictPath};
use crate::clock::now_ms;
use crate::error::{ServiceError, no_group};
use crate::store::Store;
use crate::store::enrollments::{self, GroupAttestation, SigningCertificate, SigningCertificates};
use crate::types::precondition::Precondition;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Entry {
    /// The one to use.
    Primary,
    /// The one to change over with.
    Secondary,
}

impl Entry {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// Its place among a group's.
    pub(super) fn of(self, certificates: &mut SigningCertificates) -> &mut Option<SigningCertificate> {
        match self {
            Self::Primary => &mut certificates.primary,
            Self::Secondary => &mut certificates.secondary,
        }
    }
}

/// `/api/enrollmentGroups/{group_id}/certificates/{entry}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfCertificate {
    /// Id of the enrolment group.
    group_id: String,
    /// Which certificate of the group: `primary` or `secondary`.
    #[param(value_type = String)]
    entry: Entry,
}

/// The certificate of an authority.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct CertificateRequest {
    /// Whether whoever uploads it says that its key is his; false when left out.
    verified: Option<bool>,
    /// PEM, or base64 of PEM or of DER.
    certificate: Option<String>,
    /// Given back by scripts that changed what they read; not looked at.
    #[serde(rename = "info")]
    _info: Option<Value>,
    /// As read, to change nothing else than that.
    etag: Option<String>,
}

/// A certificate that proves who has the key of another one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ProofRequest {
    /// PEM, or base64 of PEM or of DER.
    certificate: String,
}

/// Why a text is not one certificate.
#[derive(Debug, thiserror::Error)]
enum CertificateTextError {
    #[error("found {found} certificates; write one")]
    NotOne { found: usize },
    #[error("found neither PEM nor base64")]
    NoCertificate,
}

/// Reads the one certificate of a text.
fn read(text: &str) -> Result<Vec<u8>, CertificateTextError> {
    let decoded = STANDARD.decode(text.split_whitespace().collect::<String>());
    let bytes = decoded.as_deref().unwrap_or(text.as_bytes());
    match certificates(bytes) {
        Ok(pem) => match pem.as_slice() {
            [one] => Ok(one.to_vec()),
            many => Err(CertificateTextError::NotOne { found: many.len() }),
        },
        Err(_) => decoded.map_err(|_| CertificateTextError::NoCertificate),
    }
}

impl CertificateRequest {
    /// The stored value, changed by this request; `field` is for the error.
    pub(super) fn over(
        self,
        stored: Option<SigningCertificate>,
        field: &str,
    ) -> Result<Option<SigningCertificate>, ServiceError> {
        let wrong = |why: String| ServiceError::Wrong(format!("{field}.certificate: {why}"));
        let given_back = Precondition::default().with_body(self.etag);
        given_back.check(stored.as_ref().map(etag).as_deref())?;
        let Some(text) = self.certificate else {
            let stored = stored.ok_or_else(|| wrong("missing".to_owned()))?;
            let is_verified = self.verified.unwrap_or(stored.is_verified);
            return Ok(Some(SigningCertificate { is_verified, ..stored }));
        };
        let der = read(&text).map_err(|why| wrong(why.to_string()))?;
        let now_secs = now_ms() / 1000;
        x509::valid_until(&der, now_secs).map_err(|why| wrong(format!("it cannot be used: {why}")))?;
        // Refused here, so that the operator learns of it and not each device that enrols.
        Authorities::new(&[der.as_slice().into()]).map_err(|why| wrong(why.to_string()))?;
        let certificate = STANDARD.encode(&der);
        // The same one again stays verified.
        let was_verified = stored.is_some_and(|old| old.is_verified && old.certificate == certificate);
        let is_verified = self.verified.unwrap_or(false) || was_verified;
        Ok(Some(SigningCertificate { certificate, is_verified, code: None }))
    }
}

/// A certificate as it is shown: what names it, not itself.
#[derive(Serialize, ToSchema)]
pub struct SigningCertificateBody {
    /// Whether devices enrol by it.
    verified: bool,
    etag: String,
    info: ThumbprintBody,
}

/// What names a certificate.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ThumbprintBody {
    /// SHA-1 of the certificate, 40 hexadecimal digits.
    sha1_thumbprint: String,
}

/// The certificates of a group.
#[derive(Serialize, ToSchema)]
pub(super) struct SigningCertificatesBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<SigningCertificateBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secondary: Option<SigningCertificateBody>,
}

/// What a certificate's key must sign.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationCode {
    /// The common name of the certificate to sign.
    verification_code: String,
}

fn body(certificate: &SigningCertificate) -> SigningCertificateBody {
    SigningCertificateBody {
        verified: certificate.is_verified,
        etag: etag(certificate),
        info: ThumbprintBody { sha1_thumbprint: thumbprint(certificate) },
    }
}

fn thumbprint(certificate: &SigningCertificate) -> String {
    let fingerprint = Fingerprint::of(&STANDARD.decode(&certificate.certificate).unwrap_or_default());
    Thumbprint::Sha1(fingerprint.sha1).to_string()
}

fn etag(certificate: &SigningCertificate) -> String {
    format!("\"{}-{}\"", thumbprint(certificate), u8::from(certificate.is_verified))
}

/// The certificates of a group as its attestation shows them.
pub(super) fn certificates_body(certificates: &SigningCertificates) -> SigningCertificatesBody {
    SigningCertificatesBody {
        primary: certificates.primary.as_ref().map(body),
        secondary: certificates.secondary.as_ref().map(body),
    }
}

fn none(of: &OfCertificate) -> ServiceError {
    let (group, entry) = (&of.group_id, of.entry.as_str());
    ServiceError::NotFound(format!("enrolment group `{group}` has no {entry} certificate"))
}

/// Changes one certificate of a group of the kind that has some.
async fn change<T: Send + 'static>(
    store: &Store,
    of: OfCertificate,
    change: impl FnOnce(&OfCertificate, &mut Option<SigningCertificate>) -> Result<T, ServiceError>
    + Send
    + 'static,
) -> Result<T, ApiError> {
    let done = store.submit(move |c| {
        let mut group = enrollments::group(c, &of.group_id)?.ok_or_else(|| no_group(&of.group_id))?;
        let GroupAttestation::X509(certificates) = &mut group.attestation else {
            let why = format!("enrolment group `{}` has keys, not certificates", of.group_id);
            return Err(ServiceError::Wrong(why));
        };
        let changed = change(&of, of.entry.of(certificates))?;
        enrollments::put_group(c, &group)?;
        Ok(changed)
    });
    done.await.map_err(ApiError::from)
}

/// One certificate of an enrolment group.
#[utoipa::path(get, path = "/api/enrollmentGroups/{group_id}/certificates/{entry}", tag = "enrollmentGroups",
    params(OfCertificate, ApiVersion), security(("token" = [])),
    responses((status = 200, body = SigningCertificateBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfCertificate>,
) -> Answer<Json<SigningCertificateBody>> {
    let read = move |c: &rusqlite::Connection| {
        let group = enrollments::group(c, &of.group_id)?.ok_or_else(|| no_group(&of.group_id))?;
        match group.attestation {
            GroupAttestation::X509(mut certificates) => of.entry.of(&mut certificates).take(),
            GroupAttestation::Keys(_) => None,
        }
        .ok_or_else(|| none(&of))
    };
    Ok(Json(body(&store.read(read).await?)))
}

/// Sets one certificate of an enrolment group: the authority that signs those of its devices.
#[utoipa::path(put, path = "/api/enrollmentGroups/{group_id}/certificates/{entry}", tag = "enrollmentGroups",
    params(OfCertificate, ApiVersion), request_body = CertificateRequest, security(("token" = [])),
    responses((status = 200, body = SigningCertificateBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfCertificate>,
    precondition: Precondition,
    Body(request): Body<CertificateRequest>,
) -> Answer<Json<SigningCertificateBody>> {
    let written = change(&store, of, move |of, entry| {
        precondition.check(entry.as_ref().map(etag).as_deref())?;
        *entry = request.over(entry.take(), of.entry.as_str())?;
        entry.clone().ok_or_else(|| none(of))
    });
    Ok(Json(body(&written.await?)))
}

/// Takes a certificate from an enrolment group. Devices that enrolled by it stay registered and connect as before.
#[utoipa::path(delete, path = "/api/enrollmentGroups/{group_id}/certificates/{entry}", tag = "enrollmentGroups",
    params(OfCertificate, ApiVersion), security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfCertificate>,
    precondition: Precondition,
) -> Answer<StatusCode> {
    change(&store, of, move |of, entry| {
        let stored = entry.take().ok_or_else(|| none(of))?;
        precondition.check(Some(&etag(&stored)))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new code for a certificate: whoever has its key signs a certificate whose common name is the code.
#[utoipa::path(post, path = "/api/enrollmentGroups/{group_id}/certificates/{entry}/generateVerificationCode",
    tag = "enrollmentGroups", params(OfCertificate, ApiVersion), security(("token" = [])),
    responses((status = 200, body = VerificationCode), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn generate_verification_code(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfCertificate>,
) -> Answer<Json<VerificationCode>> {
    let code = format!("{:048X}", rand::random::<u128>());
    let kept = code.clone();
    change(&store, of, move |of, entry| {
        entry.as_mut().ok_or_else(|| none(of))?.code = Some(kept);
        Ok(())
    })
    .await?;
    Ok(Json(VerificationCode { verification_code: code }))
}

/// Verifies a certificate by one that was signed with its key and has the code as its common name.
#[utoipa::path(post, path = "/api/enrollmentGroups/{group_id}/certificates/{entry}/verify",
    tag = "enrollmentGroups", params(OfCertificate, ApiVersion), request_body = ProofRequest, security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn verify(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfCertificate>,
    Body(proof): Body<ProofRequest>,
) -> Answer<StatusCode> {
    let wrong = |why: String| ServiceError::Wrong(format!("certificate: {why}"));
    let proof = read(&proof.certificate).map_err(|why| wrong(why.to_string()))?;
    change(&store, of, move |of, entry| {
        let certificate = entry.as_mut().ok_or_else(|| none(of))?;
        let no_code = || wrong("no code was generated; POST …/generateVerificationCode first".to_owned());
        let code = certificate.code.as_deref().ok_or_else(no_code)?;
        let authority = STANDARD.decode(&certificate.certificate).unwrap_or_default();
        x509::check_possession(&authority, &proof, code, now_ms() / 1000)
            .map_err(|why| wrong(why.to_string()))?;
        (certificate.is_verified, certificate.code) = (true, None);
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
