//! `/api/ext/session` and `/api/ext/setup`: signing in and out, and the first user of a new site.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::ClientAddress;
use super::error::{Answer, ApiError, ErrorBody};
use super::extract::Body;
use super::links::PublicAddress;
use super::roles::{PermissionId, permission_ids};
use crate::people::caller::Caller;
use crate::people::error::PeopleError;
use crate::people::names::InvalidUserName;
use crate::people::password::HashingError;
use crate::people::roles;
use crate::people::service::People;
use crate::people::session::{LIFE_MS, Session, SignedIn};

/// The cookie that holds a session's secret.
const COOKIE: &str = "lineside_session";

impl From<PeopleError> for ApiError {
    fn from(error: PeopleError) -> Self {
        let message = edge_core::error_chain::chain(&error).to_string();
        match error {
            PeopleError::WrongPassword | PeopleError::WrongCode => Self::unauthorized(message),
            PeopleError::TooManyFailures | PeopleError::Hashing(HashingError::Busy) => {
                Self::too_many_requests(message)
            }
            PeopleError::WrongCurrent | PeopleError::MayDoMore(_) => Self::forbidden(message),
            PeopleError::Unknown(_) => Self::not_found(message),
            PeopleError::SetUpAlready
            | PeopleError::NameTaken(_)
            | PeopleError::LastAdministrator(_)
            | PeopleError::UnreadableRoles(_)
            | PeopleError::TooMany(_) => Self::conflict(message),
            PeopleError::Assignment(error) => error.into(),
            PeopleError::Authority(error) => error.into(),
            PeopleError::Rule(_) => Self::unprocessable(message),
            PeopleError::Hashing(_) | PeopleError::SetupFile(_) => Self::internal(message),
            PeopleError::Store(error) => error.into(),
        }
    }
}

/// The value of the session's cookie.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).find(|value| !value.is_empty())
}

/// What a request to sign in tells beside its body.
pub(super) struct SignInContext {
    people: Arc<People>,
    address: ClientAddress,
    public: PublicAddress,
    secret: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for SignInContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let missing = |_| ApiError::internal("the request lost what it is answered with");
        let Extension(people) = Extension::from_request_parts(parts, state).await.map_err(missing)?;
        let Extension(address) = Extension::from_request_parts(parts, state).await.map_err(missing)?;
        let Extension(public) = Extension::from_request_parts(parts, state).await.map_err(missing)?;
        Ok(Self { people, address, public, secret: cookie(&parts.headers).map(str::to_owned) })
    }
}

impl SignInContext {
    fn set_cookie(&self, secret: &str, max_age_s: u64) -> [(HeaderName, HeaderValue); 1] {
        // Over plain HTTP browsers would drop a cookie with `Secure` (decision 0048).
        let secure = if self.public.is_https() { "; Secure" } else { "" };
        let cookie =
            format!("{COOKIE}={secret}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}");
        [(header::SET_COOKIE, HeaderValue::try_from(cookie).expect("base64url is a header's text"))]
    }

    fn signed_in(&self, status: StatusCode, new: &SignedIn) -> Response {
        (status, self.set_cookie(&new.secret, LIFE_MS / 1000), Json(body(&new.session))).into_response()
    }
}

/// A session, as its user sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionBody {
    user: SessionUser,
    /// It ends then unless it is used.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Always null: changes are distinguished from those of foreign pages by `Sec-Fetch-Site`, `Origin` and their content type.
    csrf: Option<String>,
}

/// Who signed in.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionUser {
    id: String,
    /// What the user signs in with.
    name: String,
    /// `viewer`, `operator`, `builder` or `administrator`: the highest built-in role. Without one, the id of a custom role.
    role: String,
    /// For people: the names of all roles.
    role_name: String,
    /// What the roles allow.
    permissions: Vec<PermissionId>,
}

fn body(session: &Session) -> SessionBody {
    let user = &session.user;
    SessionBody {
        user: SessionUser {
            id: user.id.to_string(),
            name: user.name.to_string(),
            role: user.roles.ids().first().copied().unwrap_or_default().to_owned(),
            permissions: permission_ids(user.roles.permissions()),
            role_name: roles::names(&user.roles),
        },
        expires_at: rfc3339(session.expires_ms()),
        csrf: None,
    }
}

fn own_session(caller: &Caller) -> Answer<&Session> {
    caller.session().ok_or_else(|| {
        ApiError::unauthorized("the request has a token and no session; sign in with POST /api/ext/session")
    })
}

/// A user and a password.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct SignInRequest {
    user: String,
    password: String,
}

/// Signs in: the answer sets the cookie `lineside_session`. Failed attempts make the next ones wait.
#[utoipa::path(post, path = "/api/ext/session", tag = "ext", request_body = SignInRequest,
    responses((status = 200, body = SessionBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(super) async fn sign_in(context: SignInContext, Body(request): Body<SignInRequest>) -> Answer<Response> {
    let people = &context.people;
    let before = match &context.secret {
        Some(secret) => people.session(secret).await?,
        None => None,
    };
    let new = people.sign_in(context.address.0, &request.user, &request.password, before).await?;
    Ok(context.signed_in(StatusCode::OK, &new))
}

/// Who is signed in.
#[utoipa::path(get, path = "/api/ext/session", tag = "ext", security(("token" = [])),
    responses((status = 200, body = SessionBody)))]
pub(super) async fn current(Extension(caller): Extension<Caller>) -> Answer<Json<SessionBody>> {
    Ok(Json(body(own_session(&caller)?)))
}

/// Signs out: the session ends and the cookie is removed.
#[utoipa::path(delete, path = "/api/ext/session", tag = "ext", security(("token" = [])), responses((status = 204)))]
pub(super) async fn sign_out(
    context: SignInContext,
    Extension(caller): Extension<Caller>,
) -> Answer<Response> {
    let session = own_session(&caller)?;
    context.people.sign_out(session, context.address.0).await?;
    Ok((StatusCode::NO_CONTENT, context.set_cookie("", 0)).into_response())
}

/// Whether central has a user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetupBody {
    /// There is none: the first one is to be made.
    needed: bool,
}

/// Whether the first user is to be made.
#[utoipa::path(get, path = "/api/ext/setup", tag = "ext",
    responses((status = 200, body = SetupBody), (status = 503, body = ErrorBody)))]
pub(super) async fn setup_needed(Extension(people): Extension<Arc<People>>) -> Answer<Json<SetupBody>> {
    Ok(Json(SetupBody { needed: people.needs_setup().await? }))
}

/// The first user.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(super) struct SetupRequest {
    /// From central's log, or from `setup-code` in its data directory.
    code: String,
    /// What the user signs in with.
    user: String,
    /// 10 to 256 characters.
    password: String,
}

/// Makes the first user, an administrator, and signs it in. Once only.
#[utoipa::path(post, path = "/api/ext/setup", tag = "ext", request_body = SetupRequest,
    responses((status = 201, body = SessionBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
pub(super) async fn set_up(context: SignInContext, Body(request): Body<SetupRequest>) -> Answer<Response> {
    let wrong = |error: InvalidUserName| ApiError::unprocessable(format!("user: {error}"));
    let name = request.user.parse().map_err(wrong)?;
    let new = context.people.set_up(context.address.0, &request.code, name, &request.password).await?;
    Ok(context.signed_in(StatusCode::CREATED, &new))
}
