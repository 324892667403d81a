//! `/api/roles` and `/api/ext/roles`, and the role assignments of tokens and users, by IoT Central's paths.

use axum::Json;
use central_core::access::built_in::{self, BUILT_IN, BuiltIn, Holds};
use central_core::access::permission::{Permission, Permissions};
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, StrictPath};
use super::list::Page;
use crate::people::roles;
use crate::token::{Role, RoleAssignment};
use crate::types::organizations::is_id;

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
    let is_of_organization =
        built_in::by_id(&assigned.role).is_some_and(|role| role.holds == Holds::Organization);
    if site_role.is_none() && !is_of_organization {
        let ids: Vec<String> =
            BUILT_IN.iter().map(|role| format!("{} ({})", role.id, role.display_name)).collect();
        let why = format!(
            "found `{}`; allowed are viewer, operator, builder, administrator, {}",
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
        return vec![RoleAssignment { role: roles::of(role).id.to_owned(), organization: None }];
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

/// A role, as IoT Central shows it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleBody {
    id: &'static str,
    display_name: &'static str,
}

fn body(role: &BuiltIn) -> RoleBody {
    RoleBody { id: role.id, display_name: role.display_name }
}

fn find(id: &str) -> Result<&'static BuiltIn, ApiError> {
    built_in::by_id(id).ok_or_else(|| ApiError::not_found(format!("there is no role `{id}`")))
}

/// Lists the roles: those of the whole site from the most to the least, then those in an organization.
#[utoipa::path(get, path = "/api/roles", tag = "roles", params(ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<RoleBody>)))]
pub(super) async fn list() -> Json<Page<RoleBody>> {
    Json(Page::whole(BUILT_IN.iter().map(body).collect()))
}

/// One role.
#[utoipa::path(get, path = "/api/roles/{role_id}", tag = "roles", params(OfRole, ApiVersion),
    security(("token" = [])), responses((status = 200, body = RoleBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(StrictPath(of): StrictPath<OfRole>) -> Answer<Json<RoleBody>> {
    Ok(Json(body(find(&of.role_id)?)))
}

/// The id of a permission.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(super) struct PermissionId(Permission);

impl PartialSchema for PermissionId {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
        text.enum_values(Some(Permission::all().map(Permission::id))).build().into()
    }
}

impl ToSchema for PermissionId {}

/// The ids of the permissions of a set.
pub(super) fn permission_ids(permissions: Permissions) -> Vec<PermissionId> {
    permissions.iter().map(PermissionId).collect()
}

/// A role with what it allows.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleWithPermissions {
    /// As in `/api/roles`.
    id: &'static str,
    display_name: &'static str,
    /// Whether it holds in an organization. Such a role is kept with a user or token and allows nothing.
    is_of_organization: bool,
    /// What it allows.
    permissions: Vec<PermissionId>,
}

fn with_permissions(role: &BuiltIn) -> RoleWithPermissions {
    let permissions = match role.holds {
        Holds::Site(permissions) => permissions,
        Holds::Organization => Permissions::default(),
    };
    RoleWithPermissions {
        id: role.id,
        display_name: role.display_name,
        is_of_organization: role.holds == Holds::Organization,
        permissions: permission_ids(permissions),
    }
}

/// Lists the roles with what each allows.
#[utoipa::path(get, path = "/api/ext/roles", tag = "roles", security(("token" = [])),
    responses((status = 200, body = Page<RoleWithPermissions>)))]
pub(super) async fn list_with_permissions() -> Json<Page<RoleWithPermissions>> {
    Json(Page::whole(BUILT_IN.iter().map(with_permissions).collect()))
}

/// One role with what it allows.
#[utoipa::path(get, path = "/api/ext/roles/{role_id}", tag = "roles", params(OfRole), security(("token" = [])),
    responses((status = 200, body = RoleWithPermissions), (status = 404, body = ErrorBody)))]
pub(super) async fn get_with_permissions(
    StrictPath(of): StrictPath<OfRole>,
) -> Answer<Json<RoleWithPermissions>> {
    Ok(Json(with_permissions(find(&of.role_id)?)))
}
