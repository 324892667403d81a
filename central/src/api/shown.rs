//! The one way of every answer to its caller: those who may not read secrets get it without them.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use central_core::access::permission::{Permission, Permissions};

use super::error::ApiError;
use crate::deployments::quotes::{GatewayQuotes, ManifestQuotes};
use edge_core::redact::{self, Named};

/// Marks an answer whose only secret is one that this request made, for who made the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct MadeForCaller;

/// An answer to a request for `path`, as a caller with these permissions may see it.
pub(super) async fn to_caller(
    permissions: Permissions,
    path: &str,
    response: Response,
    quotes: &ManifestQuotes,
) -> Response {
    let is_made = response.extensions().get::<MadeForCaller>().is_some();
    if is_made || permissions.has(Permission::SecretsView) {
        return response;
    }
    match quotes.now().await {
        Ok(quotes) => redacted(path, response, &quotes).await,
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// An answer to a request for `path` that anybody may make. It has no sentence of a gateway, and does not need the store.
pub(super) async fn to_everybody(path: &str, response: Response) -> Response {
    redacted(path, response, &GatewayQuotes::default()).await
}

async fn redacted(path: &str, response: Response, quotes: &GatewayQuotes) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(form) = Form::of(&parts.headers) else { return Response::from_parts(parts, body) };
    // All of it is in memory already, in the handler's body.
    let redacted = match to_bytes(body, usize::MAX).await {
        Ok(bytes) => form.redacted(&bytes, path, quotes),
        Err(_) => None,
    };
    let Some(redacted) = redacted else {
        return ApiError::internal("the answer could not be read to hide what is secret in it")
            .into_response();
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(redacted))
}

/// What an answer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Text,
}

impl Form {
    /// `None` for the status page, which has no secrets for anybody ([`crate::page`]), and for the live stream, which leaves them out
    /// of each event ([`super::live`]).
    fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        match kind.split(';').next().unwrap_or("").trim() {
            "text/html" | "text/event-stream" => None,
            kind if kind.ends_with("json") => Some(Self::Json),
            _ => Some(Self::Text),
        }
    }

    fn redacted(self, bytes: &[u8], path: &str, quotes: &GatewayQuotes) -> Option<Vec<u8>> {
        if bytes.is_empty() {
            return Some(Vec::new());
        }
        match self {
            Self::Json => {
                let text = std::str::from_utf8(bytes).ok()?;
                let quotes = quotes.named_in(path, text);
                Some(redact::json(text, &Named::of_path(path), &quotes)?.into_owned().into_bytes())
            }
            Self::Text => {
                let text = quotes.named_in(path, "").hide(std::str::from_utf8(bytes).ok()?).into_owned();
                Some(redact::text(&text).into_owned().into_bytes())
            }
        }
    }
}
