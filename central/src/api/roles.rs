//! `/api/roles` by IoT Central's paths, which only show roles, and `/api/ext/roles`, which has their permissions and takes changes.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use central_core::access::built_in::{self, BUILT_IN, BuiltIn, Holds};
use central_core::access::permission::{Permission, Permissions};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, StrictPath};
use super::list::Page;
use crate::people::assigned::AssignmentError;
use crate::people::authority::RequestAuthority;
use crate::people::custom_roles::{self, RoleError};
use crate::people::roles;
use crate::store::{Store, StoreError, roles as store_roles};
use crate::token::{RoleAssignment, SiteRoles};
use crate::types::custom_role::CustomRole;
use crate::types::single_line::DisplayName;

/// What a role belongs to; central has one organization.
const ORGANIZATION: &str = "root";

/// The assignments as they were written, or the one of the built-in role.
pub(super) fn shown(roles: &SiteRoles, kept: Vec<RoleAssignment>) -> Vec<RoleAssignment> {
    if kept.is_empty() {
        return roles.built_in.map(|role| RoleAssignment::of_site(roles::of(role).id)).into_iter().collect();
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
    id: String,
    display_name: String,
}

impl From<RoleWithPermissions> for RoleBody {
    fn from(role: RoleWithPermissions) -> Self {
        Self { id: role.id, display_name: role.display_name }
    }
}

/// All roles: the built-in ones of the whole site from the most to the least, those in an organization, then custom ones by id.
fn all(c: &Connection) -> rusqlite::Result<Vec<RoleWithPermissions>> {
    let custom = store_roles::list(c)?;
    let built_in = BUILT_IN.iter().map(RoleWithPermissions::from);
    Ok(built_in.chain(custom.iter().map(RoleWithPermissions::from)).collect())
}

fn one(c: &Connection, id: &str) -> Result<RoleWithPermissions, RoleError> {
    match built_in::by_id(id) {
        Some(role) => Ok(role.into()),
        None => Ok((&custom_roles::get(c, id)?).into()),
    }
}

/// Lists the roles: those of the whole site from the most to the least, those in an organization, then custom ones.
#[utoipa::path(get, path = "/api/roles", tag = "roles", params(ApiVersion), security(("token" = [])),
    responses((status = 200, body = Page<RoleBody>)))]
pub(super) async fn list(State(store): State<Store>) -> Answer<Json<Page<RoleBody>>> {
    let roles = store.read(|c| Ok::<_, StoreError>(all(c)?)).await?;
    Ok(Json(Page::whole(roles.into_iter().map(RoleBody::from).collect())))
}

/// One role.
#[utoipa::path(get, path = "/api/roles/{role_id}", tag = "roles", params(OfRole, ApiVersion),
    security(("token" = [])), responses((status = 200, body = RoleBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfRole>,
) -> Answer<Json<RoleBody>> {
    Ok(Json(store.read(move |c| one(c, &of.role_id)).await?.into()))
}

/// The id of a permission.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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

fn permissions(ids: &[PermissionId]) -> Permissions {
    ids.iter().map(|id| id.0).collect()
}

/// A role with what it allows.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RoleWithPermissions {
    /// As in `/api/roles`.
    id: String,
    display_name: String,
    /// Nobody can change such a role.
    is_built_in: bool,
    /// Whether it holds in an organization. Such a role is kept with a user or token and allows nothing.
    is_of_organization: bool,
    /// What it allows.
    permissions: Vec<PermissionId>,
    /// What the role belongs to.
    organization: &'static str,
}

impl From<&BuiltIn> for RoleWithPermissions {
    fn from(role: &BuiltIn) -> Self {
        let permissions = match role.holds {
            Holds::Site(permissions) => permissions,
            Holds::Organization => Permissions::default(),
        };
        Self {
            id: role.id.to_owned(),
            display_name: role.display_name.to_owned(),
            is_built_in: true,
            is_of_organization: role.holds == Holds::Organization,
            permissions: permission_ids(permissions),
            organization: ORGANIZATION,
        }
    }
}

impl From<&CustomRole> for RoleWithPermissions {
    fn from(role: &CustomRole) -> Self {
        Self {
            id: role.id.to_string(),
            display_name: role.display_name.to_string(),
            is_built_in: false,
            is_of_organization: false,
            permissions: permission_ids(role.permissions),
            organization: ORGANIZATION,
        }
    }
}

/// Lists the roles with what each allows.
#[utoipa::path(get, path = "/api/ext/roles", tag = "roles", security(("token" = [])),
    responses((status = 200, body = Page<RoleWithPermissions>)))]
pub(super) async fn list_with_permissions(
    State(store): State<Store>,
) -> Answer<Json<Page<RoleWithPermissions>>> {
    Ok(Json(Page::whole(store.read(|c| Ok::<_, StoreError>(all(c)?)).await?)))
}

/// One role with what it allows.
#[utoipa::path(get, path = "/api/ext/roles/{role_id}", tag = "roles", params(OfRole), security(("token" = [])),
    responses((status = 200, body = RoleWithPermissions), (status = 404, body = ErrorBody)))]
pub(super) async fn get_with_permissions(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfRole>,
) -> Answer<Json<RoleWithPermissions>> {
    Ok(Json(store.read(move |c| one(c, &of.role_id)).await?))
}

impl From<RoleError> for ApiError {
    fn from(error: RoleError) -> Self {
        let message = edge_core::error_chain::chain(&error).to_string();
        match error {
            RoleError::Unknown(_) => Self::not_found(message),
            RoleError::BuiltIn(_)
            | RoleError::IdTaken(_)
            | RoleError::NameTaken { .. }
            | RoleError::TooMany(_)
            | RoleError::InUse { .. } => Self::conflict(message),
            RoleError::Id(_) | RoleError::NoPermission | RoleError::NeedMissing { .. } => {
                Self::unprocessable(message)
            }
            RoleError::NotHeld(_) | RoleError::AllowsMore { .. } => Self::forbidden(message),
            RoleError::Store(error) => error.into(),
        }
    }
}

impl From<AssignmentError> for ApiError {
    fn from(error: AssignmentError) -> Self {
        let message = error.to_string();
        match error {
            AssignmentError::NotHeld(_) => Self::forbidden(message),
            AssignmentError::Store(error) => error.into(),
            AssignmentError::TooMany(_)
            | AssignmentError::NoneOfSite
            | AssignmentError::UnknownRole { .. }
            | AssignmentError::OrganizationMissing { .. }
            | AssignmentError::InvalidOrganization { .. } => Self::unprocessable(message),
        }
    }
}

/// A role to add, or as it shall be.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct RoleRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// For people. No two roles share one.
    #[schema(value_type = String, min_length = 1, max_length = 148)]
    display_name: DisplayName,
    /// One or more, with all that they need.
    #[schema(min_items = 1)]
    permissions: Vec<PermissionId>,
}

/// A change of a role; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct RoleUpdate {
    /// As in the path, when it is given.
    id: Option<String>,
    /// For people. No two roles share one.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    display_name: Option<DisplayName>,
    /// One or more, with all that they need, in place of those before.
    #[schema(min_items = 1)]
    permissions: Option<Vec<PermissionId>>,
}

impl OfRole {
    /// Checks that a body, when it has an id, has the path's.
    fn check(&self, id: Option<&str>) -> Result<(), ApiError> {
        match id.filter(|id| *id != self.role_id) {
            Some(id) => {
                Err(ApiError::unprocessable(format!("id: found `{id}`; the path says `{}`", self.role_id)))
            }
            None => Ok(()),
        }
    }
}

/// Adds a role, or changes one: its users and tokens may do from their next request on what it allows. Nobody gives a permission that
/// they do not have.
#[utoipa::path(put, path = "/api/ext/roles/{role_id}", tag = "roles", params(OfRole), request_body = RoleRequest,
    security(("token" = [])), responses((status = 200, body = RoleWithPermissions)))]
pub(super) async fn put(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfRole>,
    Body(request): Body<RoleRequest>,
) -> Answer<Json<RoleWithPermissions>> {
    of.check(request.id.as_deref())?;
    // A built-in role is refused as such, whatever its id looks like.
    custom_roles::check_custom(&of.role_id)?;
    let role = CustomRole {
        id: of.role_id.parse().map_err(RoleError::Id)?,
        display_name: request.display_name,
        permissions: permissions(&request.permissions),
    };
    let put = move |c: &Connection| Ok::<_, ApiError>(custom_roles::put(c, &role, authority.held(c)?)?);
    Ok(Json((&store.submit(put).await?).into()))
}

/// Changes a role: its users and tokens may do from their next request on what it allows. Nobody gives a permission that they do not have.
#[utoipa::path(patch, path = "/api/ext/roles/{role_id}", tag = "roles", params(OfRole), request_body = RoleUpdate,
    security(("token" = [])), responses((status = 200, body = RoleWithPermissions), (status = 404, body = ErrorBody)))]
pub(super) async fn patch(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfRole>,
    Body(request): Body<RoleUpdate>,
) -> Answer<Json<RoleWithPermissions>> {
    of.check(request.id.as_deref())?;
    let patch = move |c: &Connection| {
        let held = authority.held(c)?;
        let stored = custom_roles::get(c, &of.role_id)?;
        let role = CustomRole {
            display_name: request.display_name.unwrap_or(stored.display_name),
            permissions: request.permissions.as_deref().map_or(stored.permissions, permissions),
            id: stored.id,
        };
        Ok::<_, ApiError>(custom_roles::put(c, &role, held)?)
    };
    Ok(Json((&store.submit(patch).await?).into()))
}

/// Deletes a role that no user and no token has.
#[utoipa::path(delete, path = "/api/ext/roles/{role_id}", tag = "roles", params(OfRole), security(("token" = [])),
    responses((status = 204), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfRole>,
) -> Answer<StatusCode> {
    let remove = move |c: &Connection| {
        let held = authority.held(c)?;
        Ok::<_, ApiError>(custom_roles::remove(c, &of.role_id, held)?)
    };
    store.submit(remove).await?;
    Ok(StatusCode::NO_CONTENT)
}
