//! `/api/devices/{id}/attestation`: how one device proves itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::error::CertificateError;
use edge_core::access::proof::Fingerprint;
use edge_core::access::thumbprint::{Thumbprint, ThumbprintError};
use edge_core::error_chain::chain;
use edge_tls::pem::certificates;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, OfDevice, StrictPath};
use crate::error::{ServiceError, no_device};
use crate::registry::attest::{Attest, is_key};
use crate::registry::service::Registry;
use crate::store::Store;
use crate::store::devices::{self, Device, X509};

/// How a device proves itself, in IoT Central's shape.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct AttestationBody {
    /// May be left out of a PATCH.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<AttestationKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symmetric_key: Option<SymmetricKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509: Option<X509Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<TpmBody>,
}

/// In which way a device proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum AttestationKind {
    /// By a token that is signed with one of two keys.
    SymmetricKey,
    /// By the key of a certificate that the device shows.
    X509,
    /// By a TPM. central keeps the endorsement key and does not challenge it: the device does not connect.
    Tpm,
}

/// A trusted platform module.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct TpmBody {
    /// Public endorsement key of the TPM, base64 of 1 to 1024 bytes.
    endorsement_key: String,
}

/// The keys and certificates of a device, as its credentials show them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CredentialsBody {
    /// ID scope of this site, which devices send when they enrol.
    id_scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    symmetric_key: Option<SymmetricKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509: Option<X509Body>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<TpmBody>,
}

impl CredentialsBody {
    /// The credentials with which a device connects, as IoT Central returns them.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for a device whose gateway has its keys.
    pub(super) fn of(device: Device, id_scope: String) -> Result<Self, ServiceError> {
        let AttestationBody { symmetric_key, x509, tpm, .. } = AttestationBody::of(device)?;
        Ok(Self { id_scope, symmetric_key, x509, tpm })
    }
}

/// The two symmetric keys of a device; either signs its tokens.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct SymmetricKey {
    /// Base64 of 16 to 64 bytes; made when left out.
    primary_key: Option<String>,
    /// Second key, for changing the first without a gap: base64 of 16 to 64 bytes; made when left out.
    secondary_key: Option<String>,
}

/// The certificates that prove a device.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct X509Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificates: Option<ClientCertificates>,
    /// Ours: a certificate of one of the device authorities, with the device id as its common name, proves the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_ca_signed: Option<bool>,
}

/// The two certificates of a device; either proves it.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct ClientCertificates {
    #[serde(skip_serializing_if = "Option::is_none")]
    primary: Option<Certificate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secondary: Option<Certificate>,
}

/// A certificate, or what names it.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct Certificate {
    /// PEM, or base64 of DER. Only its thumbprint is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<CertificateInfo>,
}

/// What names a certificate.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct CertificateInfo {
    /// SHA-1 of the certificate, 40 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha1_thumbprint: Option<String>,
    /// Ours: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256_thumbprint: Option<String>,
}

impl AttestationBody {
    fn of(device: Device) -> Result<Self, ServiceError> {
        if let Some(endorsement_key) = device.endorsement_key {
            return Ok(Self { tpm: Some(TpmBody { endorsement_key }), ..Self::kind(AttestationKind::Tpm) });
        }
        if let Some(x509) = device.x509 {
            return Ok(Self { x509: Some(X509Body::of(x509)), ..Self::kind(AttestationKind::X509) });
        }
        let no_keys =
            || ServiceError::NotFound(format!("the keys of `{}` are at its gateway only", device.id));
        let keys = device.keys.ok_or_else(no_keys)?;
        let keys = SymmetricKey { primary_key: Some(keys.primary), secondary_key: Some(keys.secondary) };
        Ok(Self { symmetric_key: Some(keys), ..Self::kind(AttestationKind::SymmetricKey) })
    }

    fn kind(kind: AttestationKind) -> Self {
        Self { kind: Some(kind), symmetric_key: None, x509: None, tpm: None }
    }

    fn attest(self) -> Result<Attest, ApiError> {
        let wrong = |why: &str| Err(ApiError::unprocessable(why));
        let given = [self.symmetric_key.is_some(), self.x509.is_some(), self.tpm.is_some()];
        let kinds = [AttestationKind::SymmetricKey, AttestationKind::X509, AttestationKind::Tpm];
        let given: Vec<AttestationKind> =
            kinds.into_iter().zip(given).filter_map(|(kind, is_given)| is_given.then_some(kind)).collect();
        let kind = match (self.kind, given.as_slice()) {
            (Some(kind), []) => kind,
            (None, [kind]) => *kind,
            (Some(kind), [given]) if kind == *given => kind,
            (Some(_), [_]) => return wrong("type: what is given belongs to another type"),
            (None, []) => return wrong("found neither symmetricKey nor x509 nor tpm"),
            (_, [_, _, ..]) => {
                return wrong(
                    "found more than one of symmetricKey, x509 and tpm; a device proves itself in one way",
                );
            }
        };
        match kind {
            AttestationKind::SymmetricKey => self.symmetric_key.unwrap_or_default().attest(),
            AttestationKind::X509 => match self.x509 {
                Some(x509) => x509.attest(),
                None => wrong("x509: found nothing; write its clientCertificates"),
            },
            AttestationKind::Tpm => match self.tpm {
                Some(tpm) => tpm.attest(),
                None => wrong("tpm: found nothing; write its endorsementKey"),
            },
        }
    }
}

/// An endorsement key is the public part of a TPM's key: 256 bytes and a few with RSA 2048.
const ENDORSEMENT_KEY_BYTES_MAX: usize = 1024;

impl TpmBody {
    fn attest(self) -> Result<Attest, ApiError> {
        let bytes = STANDARD.decode(&self.endorsement_key).map_or(0, |key| key.len());
        if !(1..=ENDORSEMENT_KEY_BYTES_MAX).contains(&bytes) {
            return Err(ApiError::unprocessable(format!(
                "tpm.endorsementKey: it must be base64 of 1 to {ENDORSEMENT_KEY_BYTES_MAX} bytes"
            )));
        }
        Ok(Attest::Tpm(self.endorsement_key))
    }
}

impl X509Body {
    fn of(x509: X509) -> Self {
        if x509.is_ca_signed {
            return Self { client_certificates: None, is_ca_signed: Some(true) };
        }
        let certificates = ClientCertificates {
            primary: named(x509.primary, x509.primary_sha1),
            secondary: named(x509.secondary, x509.secondary_sha1),
        };
        Self { client_certificates: Some(certificates), is_ca_signed: None }
    }
}

/// A certificate by its hashes: the one that counts, and SHA-1 where the certificate was given whole.
fn named(thumbprint: Option<String>, sha1: Option<String>) -> Option<Certificate> {
    let info = match thumbprint?.parse().ok()? {
        sha1 @ Thumbprint::Sha1(_) => {
            CertificateInfo { sha1_thumbprint: Some(sha1.to_string()), sha256_thumbprint: None }
        }
        sha256 @ Thumbprint::Sha256(_) => {
            CertificateInfo { sha1_thumbprint: sha1, sha256_thumbprint: Some(sha256.to_string()) }
        }
    };
    Some(Certificate { certificate: None, info: Some(info) })
}

impl SymmetricKey {
    fn attest(self) -> Result<Attest, ApiError> {
        for (name, key) in [("primaryKey", &self.primary_key), ("secondaryKey", &self.secondary_key)] {
            if key.as_ref().is_some_and(|key| !is_key(key)) {
                let message = format!("symmetricKey.{name}: it must be base64 of 16 to 64 bytes");
                return Err(ApiError::unprocessable(message));
            }
        }
        Ok(Attest::Keys { primary: self.primary_key, secondary: self.secondary_key })
    }
}

impl X509Body {
    fn attest(self) -> Result<Attest, ApiError> {
        let is_ca_signed = self.is_ca_signed.unwrap_or(false);
        let certificates = self.client_certificates.unwrap_or_default();
        if is_ca_signed && (certificates.primary.is_some() || certificates.secondary.is_some()) {
            return Err(ApiError::unprocessable(
                "x509: found clientCertificates and isCaSigned; write one of them",
            ));
        }
        let read = |place: &str, certificate: Option<Certificate>| {
            let unprocessable =
                |why| ApiError::unprocessable(format!("x509.clientCertificates.{place}: {}", chain(&why)));
            certificate.map(|certificate| certificate.thumbprint().map_err(unprocessable)).transpose()
        };
        let (primary, primary_sha1) = read("primary", certificates.primary)?.unzip();
        let (secondary, secondary_sha1) = read("secondary", certificates.secondary)?.unzip();
        Ok(Attest::X509(X509 {
            primary,
            secondary,
            primary_sha1: primary_sha1.flatten(),
            secondary_sha1: secondary_sha1.flatten(),
            is_ca_signed,
        }))
    }
}

/// Why a certificate or its thumbprints cannot be registered.
#[derive(Debug, thiserror::Error)]
enum RegisteredCertificateError {
    #[error(transparent)]
    Thumbprint(#[from] ThumbprintError),
    #[error("the certificate cannot be used")]
    Certificate(#[source] CertificateError),
    #[error("found a certificate and a thumbprint; write one of them")]
    Both,
    #[error("found neither a certificate nor a thumbprint")]
    Neither,
}

impl Certificate {
    /// The hash by which the certificate is known from now on, and its SHA-1 beside a longer one.
    fn thumbprint(self) -> Result<(String, Option<String>), RegisteredCertificateError> {
        let info = self.info.unwrap_or_default();
        let parse = |text: Option<String>| text.map(|text| text.parse::<Thumbprint>()).transpose();
        match (self.certificate, parse(info.sha256_thumbprint)?, parse(info.sha1_thumbprint)?) {
            (Some(text), None, None) => {
                let der = match certificates(text.as_bytes()) {
                    Ok(pem) => pem.first().map(|der| der.to_vec()).unwrap_or_default(),
                    Err(_) => STANDARD.decode(text.trim()).unwrap_or_default(),
                };
                // Read once, so that what is no certificate is refused here and not at each CONNECT.
                edge_core::access::x509::valid_until(&der, crate::clock::now_ms() / 1000)
                    .and_then(|_| edge_core::access::x509::check_key(&der))
                    .map_err(RegisteredCertificateError::Certificate)?;
                let fingerprint = Fingerprint::of(&der);
                let sha1 = Thumbprint::Sha1(fingerprint.sha1).to_string();
                Ok((Thumbprint::Sha256(fingerprint.sha256).to_string(), Some(sha1)))
            }
            (None, Some(counts), sha1) => Ok((counts.to_string(), sha1.map(|sha1| sha1.to_string()))),
            (None, None, Some(counts)) => Ok((counts.to_string(), None)),
            (Some(_), ..) => Err(RegisteredCertificateError::Both),
            (None, None, None) => Err(RegisteredCertificateError::Neither),
        }
    }
}

/// How a device proves itself.
#[utoipa::path(get, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = AttestationBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<AttestationBody>> {
    let read = move |c: &Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        AttestationBody::of(device)
    };
    Ok(Json(store.read(read).await?))
}

/// Sets how a device proves itself; a connection that was proven by what it had before is closed.
#[utoipa::path(put, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    request_body = AttestationBody, security(("token" = [])),
    responses((status = 200, body = AttestationBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfDevice>,
    Body(body): Body<AttestationBody>,
) -> Answer<Json<AttestationBody>> {
    let device = registry.attest(of.device_id, body.attest()?, false).await?;
    Ok(Json(AttestationBody::of(device)?))
}

/// Changes one of the two keys or certificates; what is left out stays.
#[utoipa::path(patch, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    request_body = AttestationBody, security(("token" = [])),
    responses((status = 200, body = AttestationBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfDevice>,
    Body(body): Body<AttestationBody>,
) -> Answer<Json<AttestationBody>> {
    let device = registry.attest(of.device_id, body.attest()?, true).await?;
    Ok(Json(AttestationBody::of(device)?))
}

/// Gives a device new symmetric keys in place of whatever proved it.
#[utoipa::path(delete, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<StatusCode> {
    registry.attest(of.device_id, Attest::Anew, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
