//! `/api/roles`, and the role assignments of tokens and users, by IoT Central's paths.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, StrictPath};
use super::list::Page;
use crate::people::roles::{self, ROLES};
use crate::token::{Role, RoleAssignment};
use crate::types::organizations::is_id;

/// IoT Central's ids of the administrator, the operator and the viewer of an organization.
const ORGANIZATION_ROLES: [&str; 3] = [
    "c495eb57-eb18-489e-9802-62c474e5645c",
    "b4935647-30e4-4ed3-9074-dcac66c2f8ef",
    "84cc62c1-dabe-49d3-b16e-8b291232b285",
];
/// Roles that one token or user has.
const ASSIGNMENTS_MAX: usize = 50;

/// The highest role for the whole site in a list of assignments.
///
/// # Errors
/// 422 with the field.
pub(super) fn highest(assignments: &[RoleAssignment]) -> Result<Role, ApiError> {
    if assignments.len() > ASSIGNMENTS_MAX {
        let why = format!("roles: found {}; write {ASSIGNMENTS_MAX} at the most", assignments.len());
        return Err(ApiError::unprocessable(why));
    }
    let mut highest = None;
    for (index, assigned) in assignments.iter().enumerate() {
        highest = highest.max(role_of(assigned, index)?);
    }
    highest.ok_or_else(|| {
        ApiError::unprocessable(
            "roles: found none for the whole site; central confines nobody to an organization, so add a role without \
             `organization`",
        )
    })
}

/// The role that an assignment gives for the whole site; `None` for one in an organization.
fn role_of(assigned: &RoleAssignment, index: usize) -> Result<Option<Role>, ApiError> {
    let wrong =
        |field: &str, why: String| Err(ApiError::unprocessable(format!("roles.{index}.{field}: {why}")));
    let site_role = roles::by_id(&assigned.role);
    let is_of_organization = ORGANIZATION_ROLES.contains(&assigned.role.as_str());
    if site_role.is_none() && !is_of_organization {
        let ids: Vec<String> =
            ROLES.iter().map(|(role, id, _)| format!("{id} ({})", role.as_str())).collect();
        let why = format!(
            "found `{}`; allowed are viewer, operator, administrator, {}",
            assigned.role,
            ids.join(", ")
        );
        return wrong("role", why);
    }
    match &assigned.organization {
        None if is_of_organization => {
            wrong("organization", format!("`{}` is a role in an organization; write its id", assigned.role))
        }
        None => Ok(site_role),
        Some(id) if is_id(id) => Ok(None),
        Some(id) => wrong("organization", format!("found `{id}`, which is no organization's id")),
    }
}

/// The assignments that are kept beside the role: none when they say no more than it.
pub(super) fn beside(assignments: Vec<RoleAssignment>) -> Vec<RoleAssignment> {
    match assignments.as_slice() {
        [RoleAssignment { organization: None, .. }] => Vec::new(),
        _ => assignments,
    }
}

/// The assignments as they were written, or the one that stands for `role`.
pub(super) fn shown(role: Role, kept: Vec<RoleAssignment>) -> Vec<RoleAssignment> {
    if kept.is_empty() {
        return vec![RoleAssignment { role: roles::id(role).to_owned(), organization: None }];
    }
    kept
}

/// `/api/roles/{role_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfRole {
    /// As in the list.
    role_id: String,
}

/// One of the roles of IoT Central that central has.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleBody {
    id: &'static str,
    display_name: &'static str,
}

/// Lists the roles for the whole site.
#[utoipa::path(get, path = "/api/roles", tag = "roles", params(ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<RoleBody>)))]
pub(super) async fn list() -> Json<Page<RoleBody>> {
    let bodies = ROLES.map(|(_, id, display_name)| RoleBody { id, display_name });
    Json(Page::whole(bodies.into()))
}

/// One role.
#[utoipa::path(get, path = "/api/roles/{role_id}", tag = "roles", params(OfRole, ApiVersion),
    security(("token" = [])), responses((status = 200, body = RoleBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(StrictPath(of): StrictPath<OfRole>) -> Answer<Json<RoleBody>> {
    let found = ROLES.iter().find(|(_, id, _)| *id == of.role_id);
    let (_, id, display_name) =
        found.ok_or_else(|| ApiError::not_found(format!("there is no role `{}`", of.role_id)))?;
    Ok(Json(RoleBody { id, display_name }))
}
