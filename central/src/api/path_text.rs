//! Ids in paths that a request makes something of: they must be shown as what they are.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use crate::single_line::check_characters;

/// Refuses ids with characters that hide something. What an earlier version let in is still read and deleted.
pub(super) async fn check(
    names: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let makes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    // What is not UTF-8 is refused where the path is read.
    for (name, value) in names.iter().flatten().filter(|_| makes) {
        if let Err(why) = check_characters(value) {
            return ApiError::bad_request("InvalidPath", format!("{name}: {why}")).into_response();
        }
    }
    next.run(request).await
}
