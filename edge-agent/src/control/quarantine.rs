//! The control socket's quarantine: what upstream refused, listed, shown, put back, dropped.

use edge_core::error_chain::chain;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::timestamp::rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};

use super::context::Control;
use super::failure::Failure;
use crate::clock::shown_ms;
use crate::messages::quarantine::{Entry, QuarantineError, shown};

/// Entries of one answer when nothing is said, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

impl From<QuarantineError> for Failure {
    fn from(error: QuarantineError) -> Self {
        let status = match error {
            QuarantineError::Unknown(_) => StatusCode::NOT_FOUND,
            QuarantineError::TooManyHoles(_) | QuarantineError::InFlight(_) | QuarantineError::NoQueue(_) => {
                StatusCode::CONFLICT
            }
            QuarantineError::Append(_) | QuarantineError::Read(_) | QuarantineError::Task(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self(status, chain(&error).to_string())
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Failure> {
    let limit = page.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let entries = control.quarantine.list(page.after.unwrap_or(0), limit).await?;
    let after = (entries.len() == limit).then(|| entries.last().map(|entry| entry.number)).flatten();
    let entries: Vec<Value> = entries.iter().map(about).collect();
    Ok(Json(json!({"messages": entries, "count": control.quarantine.stats().records, "nextAfter": after})))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
) -> Result<Json<Value>, Failure> {
    let entry = control.quarantine.show(number).await?;
    let mut answer = about(&entry);
    if let Some((topic, body)) = entry.decoded() {
        answer["topic"] = topic.into();
        match shown(&body) {
            Some(text) => answer["body"] = text.into(),
            None => answer["bodyBase64"] = STANDARD.encode(&body).into(),
        }
    }
    Ok(Json(answer))
}

pub(super) async fn replay(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
) -> Result<Json<Value>, Failure> {
    control.quarantine.replay(number, &control.queues).await?;
    Ok(Json(json!({"replayed": [number]})))
}

pub(super) async fn drop_one(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
) -> Result<Json<Value>, Failure> {
    control.quarantine.drop_one(number, &control.queues).await?;
    Ok(Json(json!({"dropped": [number]})))
}

/// An entry without its message.
fn about(entry: &Entry) -> Value {
    json!({
        "number": entry.number,
        "sender": entry.sender(),
        "bytes": entry.decoded().map(|(_, body)| body.len()),
        "enqueuedAt": rfc3339(shown_ms(entry.enqueued_ms)),
        "refusedAt": rfc3339(entry.refused_ms),
        "code": entry.reason.code,
        "why": entry.reason.why,
        "queue": entry.queue.to_string(),
        "sequence": entry.sequence,
    })
}
