//! `/api/apiTokens`: tokens for this API, by IoT Central's paths.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use rusqlite::Connection;
use schemas::timestamp::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, StrictPath, StrictQuery};
use super::links::ListAddress;
use super::list::Page;
use super::paging::Paging;
use super::roles;
use super::shown::MadeForCaller;
use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::people::assigned;
use crate::people::authority::RequestAuthority;
use crate::services::Services;
use crate::store::Store;
use crate::store::tokens;
use crate::token::{self, Grant, InvalidTokenName, LIFE_MS_DEFAULT, RoleAssignment, TokenName};

/// `/api/apiTokens/{token_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfToken {
    /// Name of the token, which is its id.
    token_id: String,
}

/// A token to make.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct TokenRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// The roles of the bearer: one or more, of which one at least is for the whole site. Those allow together what any of them allows.
    #[schema(min_items = 1)]
    roles: Vec<RoleAssignment>,
    /// RFC 3339; a year from now when left out.
    expiry: Option<String>,
}

impl TokenRequest {
    fn expires_ms(&self, now_ms: u64) -> Result<u64, ApiError> {
        let Some(expiry) = &self.expiry else { return Ok(now_ms.saturating_add(LIFE_MS_DEFAULT)) };
        parse_rfc3339(expiry).filter(|at_ms| *at_ms > now_ms).ok_or_else(|| {
            ApiError::unprocessable(format!(
                "expiry: found `{expiry}`; write a time to come, for example {}",
                rfc3339(now_ms.saturating_add(LIFE_MS_DEFAULT))
            ))
        })
    }
}

/// An API token, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenBody {
    /// The name of the token.
    id: String,
    /// As the token was made with them.
    roles: Vec<RoleAssignment>,
    #[schema(format = DateTime)]
    expiry: String,
    /// Null for tokens from before it was noted.
    #[schema(format = DateTime)]
    created: Option<String>,
    /// To the minute; null for one that was never used.
    #[schema(format = DateTime)]
    last_used: Option<String>,
    /// The secret line, in the answer that made the token alone: it is kept nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

fn body(grant: &Grant, kept: Vec<RoleAssignment>) -> TokenBody {
    TokenBody {
        id: grant.name.clone(),
        roles: roles::shown(&grant.roles, kept),
        expiry: rfc3339(grant.expires_ms),
        created: grant.created_ms.map(rfc3339),
        last_used: grant.used_ms.map(rfc3339),
        token: None,
    }
}

fn stored_body(c: &Connection, grant: &Grant) -> Result<TokenBody, ServiceError> {
    Ok(body(grant, tokens::roles(c, &grant.name)?))
}

fn no_token(name: &str) -> ServiceError {
    ServiceError::NotFound(format!("there is no API token `{name}`"))
}

/// Lists API tokens by id.
#[utoipa::path(get, path = "/api/apiTokens", tag = "apiTokens", params(Paging), security(("token" = [])),
    responses((status = 200, body = Page<TokenBody>)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictQuery(paging): StrictQuery<Paging>,
    address: ListAddress,
) -> Answer<Json<Page<TokenBody>>> {
    let (limit, after) = (paging.limit()?, paging.after());
    let read = move |c: &Connection| {
        let grants = tokens::list(c, &after, limit)?;
        grants.iter().map(|grant| stored_body(c, grant)).collect::<Result<Vec<_>, ServiceError>>()
    };
    let bodies = store.read(read).await?;
    Ok(Json(Page::new(bodies, limit, &address, |last: &TokenBody| last.id.clone())))
}

/// One API token, without its secret.
#[utoipa::path(get, path = "/api/apiTokens/{token_id}", tag = "apiTokens", params(OfToken, ApiVersion),
    security(("token" = [])), responses((status = 200, body = TokenBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfToken>,
) -> Answer<Json<TokenBody>> {
    let read = move |c: &Connection| {
        let grant = tokens::get(c, &of.token_id)?.ok_or_else(|| no_token(&of.token_id))?;
        stored_body(c, &grant)
    };
    Ok(Json(store.read(read).await?))
}

/// Makes an API token. `token` in the answer is shown this once. Nobody gives a permission that they do not have.
#[utoipa::path(put, path = "/api/apiTokens/{token_id}", tag = "apiTokens", params(OfToken, ApiVersion),
    request_body = TokenRequest, security(("token" = [])),
    responses((status = 200, body = TokenBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(services): State<Services>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfToken>,
    Body(request): Body<TokenRequest>,
) -> Answer<(Extension<MadeForCaller>, Json<TokenBody>)> {
    if let Some(id) = request.id.as_ref().filter(|id| **id != of.token_id) {
        let why = format!("id: found `{id}`; the path says `{}`", of.token_id);
        return Err(ApiError::unprocessable(why));
    }
    let wrong = |error: InvalidTokenName| ApiError::unprocessable(format!("id: {error}"));
    let name: TokenName = of.token_id.parse().map_err(wrong)?;
    let now_ms = now_ms();
    let expires_ms = request.expires_ms(now_ms)?;
    let hub = services.enrollment.hub().to_owned();
    let insert = move |c: &Connection| {
        let assigned = assigned::check(c, request.roles, authority.held(c)?)?;
        let new = token::create(&hub, &name, assigned.roles, now_ms, expires_ms);
        if !tokens::insert(c, &new.hash, &new.grant)? {
            return Err(ApiError::conflict(format!(
                "there is an API token `{}`; delete it first, or choose another id",
                new.grant.name
            )));
        }
        if !assigned.kept.is_empty() {
            tokens::put_roles(c, &new.grant.name, &assigned.kept)?;
        }
        Ok(TokenBody { token: Some(new.line), ..body(&new.grant, assigned.kept) })
    };
    Ok((Extension(MadeForCaller), Json(services.store.submit(insert).await?)))
}

/// Revokes an API token: its next request is refused.
#[utoipa::path(delete, path = "/api/apiTokens/{token_id}", tag = "apiTokens", params(OfToken, ApiVersion),
    security(("token" = [])), responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    Extension(authority): Extension<RequestAuthority>,
    StrictPath(of): StrictPath<OfToken>,
) -> Answer<StatusCode> {
    let delete = move |c: &Connection| {
        authority.held(c)?;
        if tokens::delete(c, &of.token_id)? { Ok(()) } else { Err(ApiError::from(no_token(&of.token_id))) }
    };
    store.submit(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}
