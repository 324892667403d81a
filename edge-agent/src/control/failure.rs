//! What the control socket answers when it does not carry out a request.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"message": self.1}))).into_response()
    }
}

/// Refuses what is nested deeper than may come from outside.
pub(super) fn shallow(value: &Value) -> Result<(), Failure> {
    let max = schemas::json::DEPTH_MAX;
    if schemas::json::depth(value) > max {
        return Err(Failure(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("JSON is nested deeper than {max} levels"),
        ));
    }
    Ok(())
}
