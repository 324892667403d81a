//! One module: restarted by hand, and its log.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use edge_core::error_chain::chain;
use edge_core::moment;
use futures_util::{StreamExt as _, stream};
use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::context::Control;
use super::failure::Failure;
use crate::clock::now_ms;
use crate::deployment::docker::DockerError;
use crate::deployment::docker::logs::{LogRange, logs};
use crate::deployment::restart_requests::RestartError;

fn named(module: &str) -> Result<ModuleId, Failure> {
    module.parse().map_err(|error| Failure(StatusCode::UNPROCESSABLE_ENTITY, format!("module: {error}")))
}

pub(super) async fn restart(
    State(control): State<Arc<Control>>,
    Path(module): Path<String>,
) -> Result<Json<Value>, Failure> {
    let module = named(&module)?;
    control.restarts.restart(module.clone()).await.map_err(|error| {
        let status = match error {
            RestartError::NotInManifest { .. } => StatusCode::NOT_FOUND,
            RestartError::NotToRun { .. } | RestartError::NoContainer { .. } => StatusCode::CONFLICT,
            RestartError::Failed { .. } => StatusCode::BAD_GATEWAY,
            RestartError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, chain(&error).to_string())
    })?;
    Ok(Json(json!({"module": module, "restarted": true})))
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    #[serde(default)]
    follow: bool,
    tail: Option<u32>,
    since: Option<String>,
    until: Option<String>,
    #[serde(default)]
    timestamps: bool,
}

fn moment(name: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        let form = "write a time such as 2026-11-29T03:00:00Z, or how long ago: 90s, 15min, 2h, 1d";
        Failure(StatusCode::UNPROCESSABLE_ENTITY, format!("{name}: found {text:?}; {form}"))
    };
    moment::parse(text, now_ms()).map(Some).ok_or_else(wrong)
}

/// The log of the container that the module has now, as it was written. An error of the engine in the middle of it ends it.
pub(super) async fn log(
    State(control): State<Arc<Control>>,
    Path(module): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Body, Failure> {
    let module = named(&module)?;
    let range = LogRange {
        follow: query.follow,
        tail: query.tail,
        since_ms: moment("since", query.since.as_deref())?,
        until_ms: moment("until", query.until.as_deref())?,
        timestamps: query.timestamps,
    };
    let container = control
        .reconciler
        .borrow()
        .observed
        .modules
        .get(&module)
        .map(|seen| seen.container_id.clone())
        .ok_or_else(|| {
            let why =
                format!("module `{module}` has no container; `edge-agent list` shows those that there are");
            Failure(StatusCode::NOT_FOUND, why)
        })?;
    let failed = |error: DockerError| Failure(StatusCode::BAD_GATEWAY, chain(&error).to_string());
    let docker = control.engine.client().await.map_err(failed)?;
    let mut parts = Box::pin(logs(&docker, &container, &range));
    if range.follow {
        return Ok(Body::from_stream(parts));
    }
    // What the engine says instead of the log is an answer of its own.
    match parts.next().await {
        None => Ok(Body::empty()),
        Some(Err(error)) => Err(failed(error)),
        Some(Ok(first)) => Ok(Body::from_stream(stream::iter([Ok(first)]).chain(parts))),
    }
}
