//! `/api/devices/{id}/attestation`: how one device proves itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edge_core::access::x509::{Thumbprint, ThumbprintError};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, At, Body, OfDevice};
use crate::attest::Attest;
use crate::fleet::{Fleet, FleetError, no_device};
use crate::store::devices::{self, Device, X509};

/// How a device proves itself, in IoT Central's shape.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct AttestationBody {
    /// `symmetricKey` or `x509`; may be left out of a PATCH.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    symmetric_key: Option<SymmetricKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x509: Option<X509Body>,
}

/// Two keys.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct SymmetricKey {
    /// Base64 of 16 to 64 bytes; made when left out.
    primary_key: Option<String>,
    /// As primaryKey.
    secondary_key: Option<String>,
}

/// Certificates.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct X509Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificates: Option<ClientCertificates>,
    /// Ours: a certificate of one of the device authorities, with the device id as its common name, proves the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_ca_signed: Option<bool>,
}

/// Two certificates.
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
    /// 40 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha1_thumbprint: Option<String>,
    /// Ours: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256_thumbprint: Option<String>,
}

impl AttestationBody {
    fn of(device: Device) -> Result<Self, FleetError> {
        if let Some(x509) = device.x509 {
            let named = |text: Option<String>| text.map(named);
            let certificates =
                ClientCertificates { primary: named(x509.primary), secondary: named(x509.secondary) };
            let x509 = X509Body {
                client_certificates: (!x509.is_ca_signed).then_some(certificates),
                is_ca_signed: x509.is_ca_signed.then_some(true),
            };
            return Ok(Self { kind: Some("x509".into()), symmetric_key: None, x509: Some(x509) });
        }
        let no_keys = || FleetError::NotFound(format!("the keys of `{}` are at its gateway only", device.id));
        let keys = device.keys.ok_or_else(no_keys)?;
        let keys = SymmetricKey { primary_key: Some(keys.primary), secondary_key: Some(keys.secondary) };
        Ok(Self { kind: Some("symmetricKey".into()), symmetric_key: Some(keys), x509: None })
    }

    fn wish(self) -> Result<Attest, ApiError> {
        let wrong = |message: String| Err(ApiError::unprocessable(message));
        match (self.kind.as_deref(), self.symmetric_key, self.x509) {
            (_, Some(_), Some(_)) => {
                wrong("found symmetricKey and x509; a device proves itself in one way".into())
            }
            (Some("symmetricKey"), keys, None) => keys.unwrap_or_default().wish(),
            (None, Some(keys), None) => keys.wish(),
            (Some("x509") | None, None, Some(x509)) => x509.wish(),
            (Some("x509"), None, None) => wrong("x509: found nothing; write its clientCertificates".into()),
            (None, None, None) => wrong("found neither symmetricKey nor x509".into()),
            (Some(kind @ ("symmetricKey" | "x509")), ..) => {
                wrong(format!("type: found `{kind}` with what belongs to the other type"))
            }
            (Some(kind), ..) => wrong(format!("type: found `{kind}`; allowed are symmetricKey and x509")),
        }
    }
}

fn named(thumbprint: String) -> Certificate {
    let info = match thumbprint.len() {
        40 => CertificateInfo { sha1_thumbprint: Some(thumbprint), sha256_thumbprint: None },
        _ => CertificateInfo { sha1_thumbprint: None, sha256_thumbprint: Some(thumbprint) },
    };
    Certificate { certificate: None, info: Some(info) }
}

impl SymmetricKey {
    fn wish(self) -> Result<Attest, ApiError> {
        for (name, key) in [("primaryKey", &self.primary_key), ("secondaryKey", &self.secondary_key)] {
            // The bounds are IoT Hub's for symmetric keys.
            let is_key = |key: &String| STANDARD.decode(key).is_ok_and(|key| (16..=64).contains(&key.len()));
            if key.as_ref().is_some_and(|key| !is_key(key)) {
                let message = format!("symmetricKey.{name}: it must be base64 of 16 to 64 bytes");
                return Err(ApiError::unprocessable(message));
            }
        }
        Ok(Attest::Keys { primary: self.primary_key, secondary: self.secondary_key })
    }
}

impl X509Body {
    fn wish(self) -> Result<Attest, ApiError> {
        let is_ca_signed = self.is_ca_signed.unwrap_or(false);
        let certificates = self.client_certificates.unwrap_or_default();
        if is_ca_signed && (certificates.primary.is_some() || certificates.secondary.is_some()) {
            return Err(ApiError::unprocessable(
                "x509: found clientCertificates and isCaSigned; write one of them",
            ));
        }
        let read = |place: &str, certificate: Option<Certificate>| {
            let told = |why| ApiError::unprocessable(format!("x509.clientCertificates.{place}: {why}"));
            certificate.map(|certificate| certificate.thumbprint().map_err(told)).transpose()
        };
        Ok(Attest::X509(X509 {
            primary: read("primary", certificates.primary)?,
            secondary: read("secondary", certificates.secondary)?,
            is_ca_signed,
        }))
    }
}

impl Certificate {
    fn thumbprint(self) -> Result<String, String> {
        let info = self.info.unwrap_or_default();
        match (self.certificate, info.sha256_thumbprint.or(info.sha1_thumbprint)) {
            (Some(text), None) => {
                let der = match edge_hub::tls::certificates(text.as_bytes()) {
                    Ok(pem) => pem.first().map(|der| der.to_vec()).unwrap_or_default(),
                    Err(_) => STANDARD.decode(text.trim()).unwrap_or_default(),
                };
                // Read once, so that what is no certificate is refused here and not at each CONNECT.
                edge_core::access::x509::valid_until(&der, crate::clock::now_ms() / 1000)
                    .map_err(|why| format!("the certificate cannot be used: {why}"))?;
                Ok(Thumbprint::sha256(&der).to_string())
            }
            (None, Some(text)) => {
                let thumbprint =
                    text.parse::<Thumbprint>().map_err(|why: ThumbprintError| why.to_string())?;
                Ok(thumbprint.to_string())
            }
            (Some(_), Some(_)) => Err("found a certificate and a thumbprint; write one of them".to_owned()),
            (None, None) => Err("found neither a certificate nor a thumbprint".to_owned()),
        }
    }
}

/// How a device proves itself.
#[utoipa::path(get, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = AttestationBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
) -> Answer<Json<AttestationBody>> {
    let read = move |c: &Connection| {
        let device = devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        AttestationBody::of(device)
    };
    Ok(Json(fleet.store.read(read).await?))
}

/// Sets how a device proves itself; a connection that was proven by what it had before is closed.
#[utoipa::path(put, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    request_body = AttestationBody, security(("token" = [])),
    responses((status = 200, body = AttestationBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    Body(body): Body<AttestationBody>,
) -> Answer<Json<AttestationBody>> {
    let device = fleet.attest(of.device_id, body.wish()?, false).await?;
    Ok(Json(AttestationBody::of(device)?))
}

/// Changes one of the two keys or certificates; what is left out stays.
#[utoipa::path(patch, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    request_body = AttestationBody, security(("token" = [])),
    responses((status = 200, body = AttestationBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    Body(body): Body<AttestationBody>,
) -> Answer<Json<AttestationBody>> {
    let device = fleet.attest(of.device_id, body.wish()?, true).await?;
    Ok(Json(AttestationBody::of(device)?))
}

/// Gives a device new symmetric keys in place of whatever proved it.
#[utoipa::path(delete, path = "/api/devices/{device_id}/attestation", tag = "devices", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<StatusCode> {
    fleet.attest(of.device_id, Attest::Anew, false).await?;
    Ok(StatusCode::NO_CONTENT)
}
