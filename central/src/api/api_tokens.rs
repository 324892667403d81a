//! `/api/apiTokens`: tokens for this API, by IoT Central's paths.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::timestamp::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Asked, At, Body, Paging};
use super::links::ListAddress;
use super::list::Page;
use crate::clock::now_ms;
use crate::fleet::{Fleet, FleetError};
use crate::store::tokens;
use crate::token::{self, Grant, InvalidTokenName, LIFE_MS_DEFAULT, Role, TokenName};

/// IoT Central's ids of its roles that exist here; scripts have them written down. Ours go by their names too.
const ROLES: [(&str, Role); 2] = [
    ("ca310b8d-2f4a-44e0-a36e-957c202cd8d4", Role::Administrator),
    ("ae2c9854-393b-4f97-8c42-479d70ce626e", Role::Operator),
];

/// `/api/apiTokens/{token_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfToken {
    /// Its name.
    token_id: String,
}

/// A token to make.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct TokenRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// One role.
    roles: Vec<RoleAssignment>,
    /// RFC 3339; a year from now when left out.
    expiry: Option<String>,
}

/// A role of the bearer.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
struct RoleAssignment {
    /// IoT Central's id of its administrator or operator, or `administrator`, `operator` or `viewer`.
    role: String,
}

impl TokenRequest {
    fn role(&self) -> Result<Role, ApiError> {
        let [assigned] = self.roles.as_slice() else {
            let why = format!("roles: found {}; write one", self.roles.len());
            return Err(ApiError::unprocessable(why));
        };
        let known = ROLES.iter().find(|(id, _)| *id == assigned.role).map(|(_, role)| *role);
        known.map_or_else(|| assigned.role.parse(), Ok).map_err(|_| {
            let ids = ROLES.map(|(id, role)| format!("{id} ({})", role.as_str())).join(", ");
            ApiError::unprocessable(format!(
                "roles.0.role: found `{}`; allowed are viewer, operator, administrator, {ids}",
                assigned.role
            ))
        })
    }

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

/// A token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenBody {
    id: String,
    roles: [RoleAssignment; 1],
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

fn body(grant: &Grant) -> TokenBody {
    let id = ROLES.iter().find(|(_, role)| *role == grant.role).map_or(grant.role.as_str(), |(id, _)| id);
    TokenBody {
        id: grant.name.clone(),
        roles: [RoleAssignment { role: id.to_owned() }],
        expiry: rfc3339(grant.expires_ms),
        created: grant.created_ms.map(rfc3339),
        last_used: grant.used_ms.map(rfc3339),
        token: None,
    }
}

fn no_token(name: &str) -> FleetError {
    FleetError::NotFound(format!("there is no API token `{name}`"))
}

/// Lists API tokens by id.
#[utoipa::path(get, path = "/api/apiTokens", tag = "apiTokens", params(Paging), security(("token" = [])),
    responses((status = 200, body = Page<TokenBody>)))]
pub(super) async fn list(
    State(fleet): State<Arc<Fleet>>,
    Asked(paging): Asked<Paging>,
    address: ListAddress,
) -> Answer<Json<Page<TokenBody>>> {
    let (limit, after) = (paging.limit()?, paging.after());
    let grants = fleet.store.read(move |c| Ok::<_, FleetError>(tokens::list(c, &after, limit)?)).await?;
    let bodies = grants.iter().map(body).collect();
    Ok(Json(Page::new(bodies, limit, &address, |last: &TokenBody| last.id.clone())))
}

/// One API token, without its secret.
#[utoipa::path(get, path = "/api/apiTokens/{token_id}", tag = "apiTokens", params(OfToken, ApiVersion),
    security(("token" = [])), responses((status = 200, body = TokenBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(State(fleet): State<Arc<Fleet>>, At(of): At<OfToken>) -> Answer<Json<TokenBody>> {
    let read =
        move |c: &rusqlite::Connection| tokens::get(c, &of.token_id)?.ok_or_else(|| no_token(&of.token_id));
    Ok(Json(body(&fleet.store.read(read).await?)))
}

/// Makes an API token. `token` in the answer is shown this once.
#[utoipa::path(put, path = "/api/apiTokens/{token_id}", tag = "apiTokens", params(OfToken, ApiVersion),
    request_body = TokenRequest, security(("token" = [])),
    responses((status = 200, body = TokenBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfToken>,
    Body(request): Body<TokenRequest>,
) -> Answer<Json<TokenBody>> {
    if let Some(id) = request.id.as_ref().filter(|id| **id != of.token_id) {
        let why = format!("id: found `{id}`; the path says `{}`", of.token_id);
        return Err(ApiError::unprocessable(why));
    }
    let wrong = |error: InvalidTokenName| ApiError::unprocessable(format!("id: {error}"));
    let name: TokenName = of.token_id.parse().map_err(wrong)?;
    let now_ms = now_ms();
    let (role, expires_ms) = (request.role()?, request.expires_ms(now_ms)?);
    let new = token::create(&fleet.hosts[0], &name, role, now_ms, expires_ms);
    let mut answer = body(&new.grant);
    answer.token = Some(new.line);
    let insert = move |c: &rusqlite::Connection| match tokens::insert(c, &new.hash, &new.grant)? {
        true => Ok(()),
        false => Err(FleetError::Conflict(format!(
            "there is an API token `{}`; delete it first, or choose another id",
            new.grant.name
        ))),
    };
    fleet.store.submit(insert).await?;
    Ok(Json(answer))
}

/// Revokes an API token: its next request is refused.
#[utoipa::path(delete, path = "/api/apiTokens/{token_id}", tag = "apiTokens", params(OfToken, ApiVersion),
    security(("token" = [])), responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(State(fleet): State<Arc<Fleet>>, At(of): At<OfToken>) -> Answer<StatusCode> {
    let delete = move |c: &rusqlite::Connection| match tokens::delete(c, &of.token_id)? {
        true => Ok(()),
        false => Err(no_token(&of.token_id)),
    };
    fleet.store.submit(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}
