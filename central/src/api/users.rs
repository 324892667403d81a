//! `/api/users`: the users of this site, by IoT Central's paths, and their passwords.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use central_core::access::permission::Permission;
use rusqlite::Connection;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::ClientAddress;
use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, StrictPath, StrictQuery};
use super::links::ListAddress;
use super::list::Page;
use super::paging::Paging;
use super::roles;
use crate::people::accounts::{self, Account};
use crate::people::assigned::{self, Assigned};
use crate::people::authority::RequestAuthority;
use crate::people::caller::Caller;
use crate::people::error::PeopleError;
use crate::people::names::{InvalidUserName, UserName};
use crate::people::service::People;
use crate::people::user::User;
use crate::store::Store;
use crate::store::users;
use crate::token::RoleAssignment;

/// What a user belongs to; central has one organization.
const ORGANIZATION: &str = "root";

/// `/api/users/{user_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfUser {
    /// Chosen by who adds the user.
    user_id: String,
}

impl OfUser {
    fn id(&self) -> Result<UserName, ApiError> {
        self.user_id.parse().map_err(|error: InvalidUserName| ApiError::unprocessable(format!("id: {error}")))
    }
}

/// What kind of user it is.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum UserType {
    /// Signs in with its `email` and a password.
    Email,
}

/// A user to add or to change.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct UserRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    #[serde(rename = "type")]
    _kind: UserType,
    /// What the user signs in with: an address or a plain name.
    email: String,
    /// One or more, of which one at least is for the whole site. Those allow together what any of them allows.
    #[schema(min_items = 1)]
    roles: Vec<RoleAssignment>,
}

/// A change of a user; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct UserUpdate {
    /// As in the path, when it is given.
    id: Option<String>,
    #[serde(rename = "type")]
    _kind: Option<UserType>,
    /// What the user signs in with.
    email: Option<String>,
    /// One or more, of which one at least is for the whole site.
    #[schema(min_items = 1)]
    roles: Option<Vec<RoleAssignment>>,
}

/// A user with its role, as IoT Central shows it; never the password.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserBody {
    id: String,
    #[serde(rename = "type")]
    kind: UserType,
    email: String,
    /// As they were written.
    roles: Vec<RoleAssignment>,
    organization: &'static str,
    /// Without one the user cannot sign in: set it with POST /api/ext/users/{user_id}/password.
    has_password: bool,
    #[schema(format = DateTime)]
    created: String,
    /// Null for a user who never signed in.
    #[schema(format = DateTime)]
    last_signed_in: Option<String>,
}

fn body(c: &Connection, user: &User) -> Result<UserBody, PeopleError> {
    Ok(UserBody {
        id: user.id.to_string(),
        kind: UserType::Email,
        email: user.name.to_string(),
        roles: roles::shown(&user.roles, users::roles(c, &user.id)?),
        organization: ORGANIZATION,
        has_password: user.has_password,
        created: rfc3339(user.created_ms),
        last_signed_in: user.signed_in_ms.map(rfc3339),
    })
}

fn check_id(of: &OfUser, id: Option<&str>) -> Result<UserName, ApiError> {
    match id.filter(|id| *id != of.user_id) {
        Some(id) => Err(ApiError::unprocessable(format!("id: found `{id}`; the path says `{}`", of.user_id))),
        None => of.id(),
    }
}

fn name(email: &str) -> Result<UserName, ApiError> {
    email.parse().map_err(|error: InvalidUserName| ApiError::unprocessable(format!("email: {error}")))
}

/// Lists users by id.
#[utoipa::path(get, path = "/api/users", tag = "users", params(Paging), security(("token" = [])),
    responses((status = 200, body = Page<UserBody>)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictQuery(paging): StrictQuery<Paging>,
    address: ListAddress,
) -> Answer<Json<Page<UserBody>>> {
    let (limit, after) = (paging.limit()?, paging.after());
    let read = move |c: &Connection| {
        let users = users::list(c, &after, limit)?;
        users.iter().map(|user| body(c, user)).collect::<Result<Vec<_>, PeopleError>>()
    };
    let bodies = store.read(read).await?;
    Ok(Json(Page::new(bodies, limit, &address, |last: &UserBody| last.id.clone())))
}

/// One user.
#[utoipa::path(get, path = "/api/users/{user_id}", tag = "users", params(OfUser, ApiVersion),
    security(("token" = [])), responses((status = 200, body = UserBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfUser>,
) -> Answer<Json<UserBody>> {
    let read = move |c: &Connection| body(c, &accounts::get(c, &of.user_id)?);
    Ok(Json(store.read(read).await?))
}

/// Adds a user, without a password as yet, or changes one. Another role ends the user's sessions. Nobody gives a permission that they do
/// not have.
#[utoipa::path(put, path = "/api/users/{user_id}", tag = "users", params(OfUser, ApiVersion), request_body = UserRequest,
    security(("token" = [])), responses((status = 200, body = UserBody)))]
pub(super) async fn put(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfUser>,
    Body(request): Body<UserRequest>,
) -> Answer<Json<UserBody>> {
    let (id, name) = (check_id(&of, request.id.as_deref())?, name(&request.email)?);
    let put = move |c: &Connection| {
        let held = authority.held(c)?;
        let assigned = assigned::check(c, request.roles, held)?;
        let user = accounts::put(c, &Account { id, name, assigned }, held)?;
        body(c, &user)
    };
    Ok(Json(store.submit(put).await?))
}

/// Changes a user. Another role ends the user's sessions. Nobody gives a permission that they do not have.
#[utoipa::path(patch, path = "/api/users/{user_id}", tag = "users", params(OfUser, ApiVersion), request_body = UserUpdate,
    security(("token" = [])), responses((status = 200, body = UserBody), (status = 404, body = ErrorBody)))]
pub(super) async fn patch(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfUser>,
    Body(request): Body<UserUpdate>,
) -> Answer<Json<UserBody>> {
    let id = check_id(&of, request.id.as_deref())?;
    let new_name = request.email.as_deref().map(name).transpose()?;
    let patch = move |c: &Connection| {
        let held = authority.held(c)?;
        let stored = accounts::get(c, id.as_str())?;
        let assigned = match request.roles {
            Some(assignments) => assigned::check(c, assignments, held)?,
            None => {
                // What is written in their place would take them away.
                let kept = users::roles_to_keep(c, &stored.id)?;
                let kept = kept.ok_or_else(|| PeopleError::UnreadableRoles(stored.id.clone()))?;
                Assigned { kept, roles: stored.roles }
            }
        };
        let account = Account { name: new_name.unwrap_or(stored.name), id: stored.id, assigned };
        let user = accounts::put(c, &account, held)?;
        body(c, &user)
    };
    Ok(Json(store.submit(patch).await?))
}

/// Removes a user and ends its sessions. The last administrator stays.
#[utoipa::path(delete, path = "/api/users/{user_id}", tag = "users", params(OfUser, ApiVersion),
    security(("token" = [])),
    responses((status = 204), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfUser>,
) -> Answer<StatusCode> {
    let remove = move |c: &Connection| {
        let held = authority.held(c)?;
        accounts::remove(c, &of.user_id, held)
    };
    store.submit(remove).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct PasswordRequest {
    /// 10 to 256 characters.
    password: String,
    /// Needed to change one's own.
    current_password: Option<String>,
}

/// Sets the password of a user, and ends the user's sessions. Who manages users sets that of a user who may do no more; one's own needs
/// the current one.
#[utoipa::path(post, path = "/api/ext/users/{user_id}/password", tag = "users", params(OfUser),
    request_body = PasswordRequest, security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn set_password(
    Extension(people): Extension<Arc<People>>,
    Extension(caller): Extension<Caller>,
    Extension(authority): Extension<RequestAuthority>,
    Extension(from): Extension<ClientAddress>,
    StrictPath(of): StrictPath<OfUser>,
    Body(request): Body<PasswordRequest>,
) -> Answer<StatusCode> {
    let own = caller.session().map(|session| &session.user);
    let own = own.filter(|user| user.id.is(&of.user_id));
    match own {
        // Whoever found a browser open must not be able to take the user over.
        Some(own) => {
            let current = request.current_password.as_deref().ok_or_else(|| {
                ApiError::unprocessable(
                    "currentPassword: it is missing; write the password that you signed in with",
                )
            })?;
            people.change_password(from.0, &own.name, current, &request.password).await?;
        }
        None if !caller.may(Permission::UsersManage) => {
            return Err(ApiError::forbidden(
                "the password of another user needs the permission users.manage",
            ));
        }
        None => people.set_password(authority, &of.user_id, &request.password).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}
