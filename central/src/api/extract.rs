//! What handlers take from a request; an error has IoT Central's shape and names the field.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use schemas::json::{JsonError, Twice, check_outside};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::redaction::{REDACTED, find_redacted};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::audited::SentBody;
use super::error::ApiError;
use super::strict;

/// Names in the path.
pub struct StrictPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for StrictPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let wrong = |error: PathRejection| ApiError::bad_request("InvalidPath", error.body_text());
        Ok(Self(Path::<T>::from_request_parts(parts, state).await.map_err(wrong)?.0))
    }
}

/// Query parameters.
pub struct StrictQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for StrictQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let wrong = |error: QueryRejection| ApiError::bad_request("InvalidQuery", error.body_text());
        Ok(Self(Query::<T>::from_request_parts(parts, state).await.map_err(wrong)?.0))
    }
}

/// From the end of a request's head to the last byte of its body.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// The bytes of a JSON body of bounded depth, in which nothing stands for a secret.
pub struct JsonBytes(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let sent = request.extensions().get::<SentBody>().cloned();
        let bytes = tokio::time::timeout(BODY_WITHIN, Bytes::from_request(request, state))
            .await
            .map_err(|_| ApiError::timeout(format!("the body did not arrive within {BODY_WITHIN:?}")))?
            .map_err(|error| ApiError::bad_request("InvalidBody", error.body_text()))?;
        if !bytes.is_empty() {
            // Whatever passes is given back as it was written: a value of a key that occurs twice would be lost.
            check_outside(&bytes, Twice::Refused).map_err(|error| match error {
                JsonError::Wrong(why) => {
                    ApiError::bad_request("InvalidBody", format!("the body is not JSON: {why}"))
                }
                kept => ApiError::unprocessable(format!("the body: {kept}")),
            })?;
        }
        check_not_redacted(&bytes)?;
        if let Some(sent) = sent {
            sent.set(&bytes);
        }
        Ok(Self(bytes))
    }
}

/// Refuses a document that a viewer has read and somebody else writes back: it would destroy the secrets that it hides.
fn check_not_redacted(bytes: &[u8]) -> Result<(), ApiError> {
    // Escaped, or cut between two parts of create options, a search of the text does not find it.
    let has = |text: &str| bytes.windows(text.len()).any(|part| part.eq_ignore_ascii_case(text.as_bytes()));
    if ![REDACTED, "\\u", "createoptions0"].into_iter().any(has) {
        return Ok(());
    }
    // What is not JSON is refused for that.
    let document: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    match document.as_ref().and_then(find_redacted) {
        None => Ok(()),
        Some(path) => {
            let field = if path.is_empty() { "the body" } else { &path };
            Err(ApiError::unprocessable(format!(
                "{field}: found `{REDACTED}`, which stands for a secret that viewers are not shown; write the secret, or change \
                 a document that was read with an operator's token"
            )))
        }
    }
}

/// A JSON body; an empty one reads as `{}`.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = JsonBytes::from_request(request, state).await?.0;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let wrong = |why: serde_json::Error| {
            ApiError::bad_request("InvalidBody", format!("the body is not JSON: {why}"))
        };
        let document = serde_json::from_slice(bytes).map_err(wrong)?;
        let read = strict::read(document).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "the body" } else { &path };
            ApiError::unprocessable(format!("{field}: {}", error.inner()))
        })?;
        Ok(Self(read))
    }
}

/// A JSON body that the audit log does not keep: what is in it may be keys in a form that nothing tells from other text.
pub struct UnrecordedBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for UnrecordedBody<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        request.extensions_mut().remove::<SentBody>();
        Ok(Self(Body::from_request(request, state).await?.0))
    }
}

/// `/api/devices/{device_id}/…`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfDevice {
    /// A gateway or device.
    #[param(value_type = String)]
    pub device_id: DeviceId,
}

/// `/api/devices/{device_id}/modules/{module_name}/…`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfModule {
    /// Id of the gateway.
    #[param(value_type = String)]
    pub device_id: DeviceId,
    /// One of its modules.
    #[param(value_type = String)]
    pub module_name: ModuleId,
}

impl From<OfDevice> for Identity {
    fn from(of: OfDevice) -> Self {
        Self::device(of.device_id)
    }
}

impl From<OfModule> for Identity {
    fn from(of: OfModule) -> Self {
        Self::module(of.device_id, of.module_name)
    }
}

/// The version of IoT Central's API that the caller speaks. Needed under `/api`, not under `/api/ext`.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ApiVersion {
    /// `2022-10-31-preview`, `2022-07-31`, `2022-06-30-preview`, `2022-05-31`, `1.2-preview`, `1.1-preview` or `1.0`.
    #[serde(rename = "api-version")]
    #[allow(
        dead_code,
        reason = "checked for all paths at once, before the handler; here for the description"
    )]
    pub api_version: String,
}

/// IoT Central's parameter for what a template does not have.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Unmodeled {
    /// Whether properties are written that the device's template does not have; without it they are refused. A read shows them always.
    unmodeled: Option<bool>,
}

impl Unmodeled {
    /// Whether properties are taken that the template does not have.
    pub(super) fn is_taken(&self) -> bool {
        self.unmodeled.unwrap_or(false)
    }
}
