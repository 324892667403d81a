//! The manifest in force, those of the past, and a manifest that the command line applies.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use edge_core::deploy::rollout::Phase;
use edge_core::error_chain::chain;
use schemas::control::{Applied, DeploymentHistory};
use schemas::names::{Identity, ModuleId};
use serde::Deserialize;
use serde_json::Value;

use super::context::Control;
use super::failure::{Failure, shallow};
use crate::deployment::deployments::ApplyError;
use crate::deployment::history::Record;
use crate::messages::twins::DesiredChange;

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
    let applied = control.deployments.apply(&document, "command line").await;
    taken(&control, applied, query.wait).await
}

/// What was put in force, the latest first.
pub(super) async fn history(State(control): State<Arc<Control>>) -> Json<DeploymentHistory> {
    let history = control.deployments.history();
    let in_force = history.in_force().map_or(0, |record| record.number);
    let deployments = history.all().iter().map(|record| record.shown(in_force)).collect();
    Json(DeploymentHistory { deployments })
}

#[derive(Deserialize)]
pub(super) struct RollbackQuery {
    /// The last verified one before the one in force when left out.
    number: Option<u64>,
    wait: Option<u64>,
}

pub(super) async fn rollback(
    State(control): State<Arc<Control>>,
    Query(query): Query<RollbackQuery>,
) -> Result<Json<Applied>, Failure> {
    let history = control.deployments.history();
    let verified = || {
        let in_force = history.in_force()?;
        history.verified_before(in_force.number).map(|record| record.number)
    };
    let number = query.number.or_else(verified).ok_or_else(|| {
        let why =
            "no verified deployment before the one in force; `edge-agent history` lists those that there are";
        Failure(StatusCode::NOT_FOUND, why.to_owned())
    })?;
    let applied = control.deployments.apply_again(number).await;
    taken(&control, applied, query.wait).await
}

/// Sends modules their new desired sections and, with `wait`, waits for the end of the deployment.
async fn taken(
    control: &Control,
    applied: Result<(u64, Vec<(Identity, DesiredChange)>), ApplyError>,
    wait: Option<u64>,
) -> Result<Json<Applied>, Failure> {
    let (version, changes) = applied.map_err(|error| {
        let status = match error {
            ApplyError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApplyError::NoSuchDeployment { .. } => StatusCode::NOT_FOUND,
            ApplyError::State(_) | ApplyError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, chain(&error).to_string())
    })?;
    for (identity, change) in changes {
        control.clients.send_desired(&identity, change.version, &change.patch);
    }
    let history = control.deployments.history();
    let number = history.in_force().map_or(0, |record| record.number);
    let applied = |record: Option<Record>| {
        let phase = record.map(|record| record.phase);
        Applied {
            version,
            settled: phase == Some(Phase::Verified),
            deployment: number,
            state: phase.as_ref().map_or("", Phase::name).to_owned(),
            reason: phase.as_ref().and_then(Phase::reason).map(str::to_owned),
        }
    };
    let Some(wait) = wait else { return Ok(Json(applied(history.get(number)))) };
    let wait = Duration::from_secs(wait).min(WAIT_MAX);
    let mut changed = history.watch();
    let ended = async {
        loop {
            let record = history.get(number);
            // One that is held goes on being tried, and may take for ever.
            let has_ended = record
                .as_ref()
                .is_none_or(|record| record.phase.is_end() || matches!(record.phase, Phase::Held { .. }));
            if has_ended {
                return record;
            }
            if changed.changed().await.is_err() {
                return None;
            }
        }
    };
    match tokio::time::timeout(wait, ended).await {
        Ok(record) => Ok(Json(applied(record))),
        Err(_) => {
            let status = control.reconciler.borrow().clone();
            let state = history.get(number).map_or("unknown", |record| record.phase.name());
            Err(Failure(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "not verified after {} s, its state is {state}: {}\n{}",
                    wait.as_secs(),
                    status.outcome.description,
                    status.plan
                ),
            ))
        }
    }
}
