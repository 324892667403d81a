//! Ids in paths that a request makes something of: they must be shown as what they are, and lead to it.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use schemas::names;

use super::error::ApiError;
use crate::types::single_line::check_characters;

/// Refuses ids with characters that hide something, and those that clients and proxies take for a folder. What an earlier version accepted is still read and deleted.
pub(super) async fn check(
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let makes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    // What is not UTF-8 is refused where the path is read.
    for (name, value) in parameters.iter().flatten().filter(|_| makes) {
        if names::is_dots(value) {
            let why = format!("{name}: found `{value}`; a name does not consist of dots alone");
            return ApiError::bad_request("InvalidPath", why).into_response();
        }
        if let Err(why) = check_characters(value) {
            return ApiError::bad_request("InvalidPath", format!("{name}: {why}")).into_response();
        }
    }
    next.run(request).await
}
