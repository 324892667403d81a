//! The manifest in force, and a manifest that the command line applies.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use edge_core::error_chain::chain;
use schemas::control::Applied;
use schemas::names::ModuleId;
use serde::Deserialize;
use serde_json::Value;

use super::context::Control;
use super::failure::{Failure, shallow};
use crate::deployment::deployments::ApplyError;
use crate::deployment::status::ReconcilerStatus;

/// The longest wait of `apply`.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// The desired sections of `$edgeAgent` and `$edgeHub`, which a layer is laid over. They may hold secrets, as may the manifests
/// that are given to this socket; its file is its owner's alone.
pub(super) async fn sections(State(control): State<Arc<Control>>) -> Json<Value> {
    let sections = [ModuleId::edge_agent(), ModuleId::edge_hub()];
    Json(sections.iter().map(|module| (module.to_string(), control.deployments.desired(module))).collect())
}

#[derive(Deserialize)]
pub(super) struct ApplyQuery {
    wait: Option<u64>,
}

pub(super) async fn apply(
    State(control): State<Arc<Control>>,
    Query(query): Query<ApplyQuery>,
    Json(document): Json<Value>,
) -> Result<Json<Applied>, Failure> {
    shallow(&document)?;
    let (version, changes) = control.deployments.apply(&document).await.map_err(|error| match error {
        ApplyError::Refused(_) => Failure(StatusCode::UNPROCESSABLE_ENTITY, chain(&error).to_string()),
        ApplyError::State(_) | ApplyError::Failed(_) => {
            Failure(StatusCode::SERVICE_UNAVAILABLE, chain(&error).to_string())
        }
    })?;
    for (identity, change) in changes {
        control.clients.send_desired(&identity, change.version, &change.patch);
    }
    let Some(wait) = query.wait else { return Ok(Json(Applied { version, settled: false })) };
    let wait = Duration::from_secs(wait).min(WAIT_MAX);
    let mut reconciler = control.reconciler.clone();
    let is_settled = |status: &ReconcilerStatus| status.version == Some(version) && status.is_settled;
    match tokio::time::timeout(wait, reconciler.wait_for(is_settled)).await {
        Ok(Ok(_)) => Ok(Json(Applied { version, settled: true })),
        Ok(Err(_)) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".into())),
        Err(_) => {
            let status = control.reconciler.borrow().clone();
            Err(Failure(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "not all modules run after {} s: {}\n{}",
                    wait.as_secs(),
                    status.outcome.description,
                    status.plan
                ),
            ))
        }
    }
}
