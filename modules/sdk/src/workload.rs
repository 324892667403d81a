//! The workload API on the module's own socket: whom to trust, and a signature with a key that never leaves the gateway.
//! Source: IoT Edge's workload API, version 2018-06-28.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use unix_http::{Limits, Request, RequestError, send};

use crate::settings::Settings;

/// Bounds of one request. The gateway may have to ask its container engine who is calling; the largest answer is a trust bundle of some
/// hundred certificates.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(30), body_bytes_max: 1 << 20 };
/// Characters that stay as they are: RFC 3986 "unreserved".
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why the gateway's workload API did not help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    #[error("workload API: is its socket mounted in the container?")]
    Socket(#[source] RequestError),
    #[error("workload API: {path} failed")]
    Http { path: String, source: RequestError },
    #[error("workload API: {path} answered {status}: {message}")]
    Refused { path: String, status: u16, message: String },
    #[error("workload API: {path} answered without {field}")]
    Field { path: String, field: &'static str },
    #[error("workload API: the trust bundle holds no certificate that can be used")]
    TrustBundle,
}

/// A client configuration that trusts what the gateway says is to be trusted, and nothing else.
pub(crate) async fn trust(settings: &Settings) -> Result<Arc<rustls::ClientConfig>, WorkloadError> {
    let path = format!("/trust-bundle?api-version={}", settings.api_version);
    let answer = call(settings, "GET", path.clone(), None).await?;
    let pem = answer["certificate"].as_str().ok_or(WorkloadError::Field { path, field: "certificate" })?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(WorkloadError::TrustBundle);
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A SAS token for the module, valid from now.
pub(crate) async fn token(settings: &Settings) -> Result<String, WorkloadError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let (resource, expiry) = (resource(settings), (now + settings.token_valid).as_secs());
    let module = settings.identity.module.as_ref().map_or("", |module| module.as_str());
    let path = format!(
        "/modules/{}/genid/{}/sign?api-version={}",
        utf8_percent_encode(module, ENCODED),
        utf8_percent_encode(&settings.generation, ENCODED),
        settings.api_version
    );
    let data = STANDARD.encode(format!("{resource}\n{expiry}"));
    let request = json!({"keyId": "primary", "algo": "HMACSHA256", "data": data});
    let answer = call(settings, "POST", path.clone(), Some(request)).await?;
    let digest = answer["digest"].as_str().ok_or(WorkloadError::Field { path, field: "digest" })?;
    Ok(format!(
        "SharedAccessSignature sr={resource}&sig={}&se={expiry}",
        utf8_percent_encode(digest, ENCODED)
    ))
}

/// What the token is for: the module at the hub, whatever the gateway's own name is.
fn resource(settings: &Settings) -> String {
    let path = format!("{}/{}", settings.hub_name, schemas::topics::identity_prefix(&settings.identity));
    utf8_percent_encode(&path, ENCODED).to_string()
}

async fn call(
    settings: &Settings,
    method: &str,
    path: String,
    body: Option<Value>,
) -> Result<Value, WorkloadError> {
    let json = body.map(|body| body.to_string());
    let request = Request { method, path: &path, json: json.as_deref() };
    let answer = async {
        let response = send(&settings.workload_socket, request, LIMITS).await?;
        Ok((response.status(), response.is_success(), response.body().await?))
    };
    let (status, is_success, body) = match answer.await {
        Ok(answer) => answer,
        Err(source @ RequestError::Connect { .. }) => return Err(WorkloadError::Socket(source)),
        Err(source) => return Err(WorkloadError::Http { path, source }),
    };
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if is_success {
        return Ok(value);
    }
    let message = value["message"].as_str().map_or_else(|| "no message".to_owned(), str::to_owned);
    Err(WorkloadError::Refused { path, status, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_for_the_module_at_the_hub_with_every_slash_encoded() {
        let settings = Settings {
            identity: "gw-1/$filter".parse().unwrap(),
            generation: "1".into(),
            hub_name: "hub.example".into(),
            gateway: "edge-gateway".into(),
            gateway_port: 8883,
            workload_socket: "/nowhere".into(),
            api_version: "2018-06-28".into(),
            token_valid: Duration::from_secs(3600),
        };
        assert_eq!(resource(&settings), "hub.example%2Fdevices%2Fgw-1%2Fmodules%2F%24filter");
    }
}
