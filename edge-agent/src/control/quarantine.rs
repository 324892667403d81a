//! The control socket's quarantine: what upstream refused, listed, shown, put back, dropped.

use edge_core::error_chain::chain;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::control::{Dropped, QuarantinePage, QuarantinedDetails, QuarantinedMessage, Replayed};
use schemas::timestamp::rfc3339;
use serde::Deserialize;

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
) -> Result<Json<QuarantinePage>, Failure> {
    let limit = page.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    // Before they are read: a message that comes between would be counted in a page that does not have it.
    let count = control.quarantine.stats().records;
    let entries = control.quarantine.list(page.after.unwrap_or(0), limit).await?;
    Ok(Json(QuarantinePage {
        messages: entries.iter().map(about).collect(),
        count: count.max(entries.len() as u64),
        next_after: entries.last().filter(|_| entries.len() == limit).map(|entry| entry.number),
    }))
}

pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
) -> Result<Json<QuarantinedDetails>, Failure> {
    let entry = control.quarantine.show(number).await?;
    let mut details = QuarantinedDetails { message: about(&entry), ..QuarantinedDetails::default() };
    if let Some((topic, body)) = entry.decoded() {
        details.topic = Some(topic.to_owned());
        match shown(&body) {
            Some(text) => details.body = Some(text.into()),
            None => details.body_base64 = Some(STANDARD.encode(&body)),
        }
    }
    Ok(Json(details))
}

pub(super) async fn replay(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
) -> Result<Json<Replayed>, Failure> {
    control.quarantine.replay(number, &control.queues).await?;
    Ok(Json(Replayed { replayed: vec![number] }))
}

pub(super) async fn drop_one(
    State(control): State<Arc<Control>>,
    Path(number): Path<u64>,
) -> Result<Json<Dropped>, Failure> {
    control.quarantine.drop_one(number, &control.queues).await?;
    Ok(Json(Dropped { dropped: vec![number] }))
}

/// An entry without its message.
fn about(entry: &Entry) -> QuarantinedMessage {
    QuarantinedMessage {
        number: entry.number,
        sender: entry.sender(),
        bytes: entry.decoded().map(|(_, body)| body.len() as u64),
        enqueued_at: rfc3339(shown_ms(entry.enqueued_ms)),
        refused_at: rfc3339(entry.refused_ms),
        code: entry.reason.code,
        why: entry.reason.why.clone(),
        queue: entry.queue.to_string(),
        sequence: entry.sequence,
    }
}
