//! `/api/ext/devices/{device_id}/approve` and `/reject`, and `/api/ext/approvals` for many: decisions about devices that wait.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use axum::{Extension, Json};
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audited;
use super::caller::ClientAddress;
use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{Body, OfDevice, StrictPath};
use crate::access::admission::Admission;
use crate::audit::entry::EntryKind;
use crate::error::{ServiceError, no_device};
use crate::people::caller::Caller;
use crate::people::service::People;
use crate::registry::approval::{Decided, Decision};
use crate::registry::service::Registry;

/// Devices of one request.
const DEVICES_MAX: usize = 1_000;

/// A decision about devices.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct ApprovalsRequest {
    /// Their ids, 1 to 1,000.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 1000)]
    devices: Vec<DeviceId>,
    decision: Decision,
}

/// What became of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum DecisionOutcome {
    Approved,
    Rejected,
    /// It did not wait, and stays as it is.
    NotWaiting,
    NotRegistered,
}

/// A decision about one device.
#[derive(Serialize, ToSchema)]
pub(super) struct DecisionBody {
    device: String,
    outcome: DecisionOutcome,
}

/// Decisions about devices, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(super) struct ApprovalsBody {
    value: Vec<DecisionBody>,
}

impl Decision {
    fn outcome(self, decided: &Decided) -> DecisionOutcome {
        match (decided, self) {
            (Decided::Done, Self::Approve) => DecisionOutcome::Approved,
            (Decided::Done, Self::Reject) => DecisionOutcome::Rejected,
            (Decided::NotWaiting(_), _) => DecisionOutcome::NotWaiting,
            (Decided::NotRegistered, _) => DecisionOutcome::NotRegistered,
        }
    }

    /// As the last part of the path for one device.
    fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

/// Approves a device that enrolled itself and waits: it connects when it asks next.
#[utoipa::path(post, path = "/api/ext/devices/{device_id}/approve", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = DecisionBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn approve(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<DecisionBody>> {
    decide_one(&registry, of.device_id, Decision::Approve).await
}

/// Rejects a device that enrolled itself and waits: it is blocked. Unblocked, it waits again.
#[utoipa::path(post, path = "/api/ext/devices/{device_id}/reject", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = DecisionBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(super) async fn reject(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<DecisionBody>> {
    decide_one(&registry, of.device_id, Decision::Reject).await
}

async fn decide_one(registry: &Registry, id: DeviceId, decision: Decision) -> Answer<Json<DecisionBody>> {
    let decided = registry.decide(vec![id.clone()], decision).await?;
    let conflict =
        |why: &str| ServiceError::Conflict(format!("device `{id}` does not wait for approval: {why}"));
    match decided.first() {
        Some((_, Decided::Done)) => {}
        Some((_, Decided::NotWaiting(Admission::Blocked))) => {
            return Err(conflict("it is blocked; unblock it first").into());
        }
        Some((_, Decided::NotWaiting(_))) => return Err(conflict("it may connect").into()),
        Some((_, Decided::NotRegistered)) | None => return Err(no_device(&id).into()),
    }
    Ok(Json(DecisionBody { device: id.into(), outcome: decision.outcome(&Decided::Done) }))
}

/// Approves or rejects devices that wait. Those that do not wait stay as they are, and their outcome says so.
#[utoipa::path(post, path = "/api/ext/approvals", tag = "ext", request_body = ApprovalsRequest,
    security(("token" = [])), responses((status = 200, body = ApprovalsBody), (status = 422, body = ErrorBody)))]
pub(super) async fn decide(
    State(registry): State<Arc<Registry>>,
    Extension(people): Extension<Arc<People>>,
    Extension(caller): Extension<Caller>,
    Extension(address): Extension<ClientAddress>,
    Body(request): Body<ApprovalsRequest>,
) -> Answer<Json<ApprovalsBody>> {
    if !(1..=DEVICES_MAX).contains(&request.devices.len()) {
        let found = request.devices.len();
        return Err(ApiError::unprocessable(format!("devices: found {found}; write 1 to {DEVICES_MAX}")));
    }
    let decision = request.decision;
    let decided = registry.decide(request.devices, decision).await?;
    let mut value = Vec::with_capacity(decided.len());
    for (id, decided) in decided {
        if decided == Decided::Done {
            // The row of this request names no device: the history of one would not tell who approved it.
            let path = format!("/api/ext/devices/{id}/{}", decision.as_str());
            let entry = audited::entry(Some(&caller), EntryKind::Action, &Method::POST, &path, address);
            people.audit().note(entry, 200);
        }
        value.push(DecisionBody { outcome: decision.outcome(&decided), device: id.into() });
    }
    Ok(Json(ApprovalsBody { value }))
}
