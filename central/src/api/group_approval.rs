//! `/api/ext/enrollmentGroups`: whether a group approves the devices that enrol by it, for which IoT Central's REST has no field, and
//! how many devices each group has.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::enrollment_groups::{GroupAttestationKind, GroupKind, OfGroup};
use super::error::{Answer, ErrorBody};
use super::extract::{Body, StrictPath};
use crate::enrollment::proving::GROUPS_MAX;
use crate::error::{ServiceError, no_group};
use crate::store::Store;
use crate::store::enrollments::{self, Group, GroupCounts};

/// Whether a group approves devices.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct ApprovalRequest {
    /// False: a device that enrols unknown waits for an operator's approval. Those that wait already stay as they are.
    auto_approve: bool,
}

/// Whether a group approves devices.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApprovalBody {
    /// False: a device that enrols unknown waits for an operator's approval.
    auto_approve: bool,
}

/// An enrolment group as the console lists it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupRow {
    id: String,
    display_name: String,
    enabled: bool,
    #[serde(rename = "type")]
    kind: GroupKind,
    attestation: GroupAttestationKind,
    /// False: a device that enrols unknown waits for an operator's approval.
    auto_approve: bool,
    /// Certificates that are uploaded, and those of them that are verified; null of a group with keys.
    certificates: Option<CertificateCounts>,
    /// Devices that enrolled by it and are registered.
    devices: u64,
    /// Those of them that wait for approval.
    waiting: u64,
}

/// Certificates of a group.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CertificateCounts {
    uploaded: u64,
    verified: u64,
}

/// All enrolment groups, by id.
#[derive(Serialize, ToSchema)]
pub(super) struct GroupRows {
    value: Vec<GroupRow>,
}

impl GroupRow {
    fn of(group: &Group, counts: GroupCounts) -> Self {
        Self {
            id: group.id.clone(),
            display_name: group.display_name.clone(),
            enabled: group.enabled,
            kind: GroupKind::of(group),
            attestation: GroupAttestationKind::of(group),
            auto_approve: group.auto_approve,
            certificates: group.certificates().map(|all| {
                let all = [&all.primary, &all.secondary].map(Option::as_ref);
                let verified = all.iter().flatten().filter(|one| one.is_verified).count();
                CertificateCounts { uploaded: all.iter().flatten().count() as u64, verified: verified as u64 }
            }),
            devices: counts.devices,
            waiting: counts.waiting,
        }
    }
}

/// Lists every enrolment group with how it approves and how many devices it has, without keys.
#[utoipa::path(get, path = "/api/ext/enrollmentGroups", tag = "ext", security(("token" = [])),
    responses((status = 200, body = GroupRows)))]
pub(super) async fn list(State(store): State<Store>) -> Answer<Json<GroupRows>> {
    let rows = store
        .read(|c| {
            let mut counts = enrollments::group_counts(c)?;
            let groups = enrollments::groups(c, "", GROUPS_MAX)?;
            let row = |group: &Group| GroupRow::of(group, counts.remove(&group.id).unwrap_or_default());
            Ok::<_, ServiceError>(groups.iter().map(row).collect())
        })
        .await?;
    Ok(Json(GroupRows { value: rows }))
}

/// Whether a group approves the devices that enrol by it.
#[utoipa::path(get, path = "/api/ext/enrollmentGroups/{group_id}/approval", tag = "ext", params(OfGroup),
    security(("token" = [])), responses((status = 200, body = ApprovalBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfGroup>,
) -> Answer<Json<ApprovalBody>> {
    let read = move |c: &rusqlite::Connection| {
        enrollments::group(c, &of.group_id)?.ok_or_else(|| no_group(&of.group_id))
    };
    let group = store.read(read).await?;
    Ok(Json(ApprovalBody { auto_approve: group.auto_approve }))
}

/// Makes a group approve the devices that enrol by it, or not.
#[utoipa::path(put, path = "/api/ext/enrollmentGroups/{group_id}/approval", tag = "ext", params(OfGroup),
    request_body = ApprovalRequest, security(("token" = [])),
    responses((status = 200, body = ApprovalBody), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfGroup>,
    Body(ApprovalRequest { auto_approve }): Body<ApprovalRequest>,
) -> Answer<Json<ApprovalBody>> {
    let written = store.submit(move |c| {
        let mut group = enrollments::group(c, &of.group_id)?.ok_or_else(|| no_group(&of.group_id))?;
        group.auto_approve = auto_approve;
        enrollments::put_group(c, &group)?;
        Ok::<_, ServiceError>(())
    });
    written.await?;
    Ok(Json(ApprovalBody { auto_approve }))
}
