//! Who may ask for what: the token of every request, its role, and the API version.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use crate::clock::now_ms;
use crate::fleet::Fleet;
use crate::store::{StoreError, tokens};
use crate::token::{self, Grant, Role};

/// The versions of IoT Central's API that are answered; their paths that exist here agree.
const VERSIONS: &[&str] = &["1.0", "2022-05-31", "2022-07-31", "2022-10-31-preview"];

/// Open to everybody: they tell nothing about the site.
const OPEN: &[&str] = &["/api/ext/health", "/openapi.json"];

/// Lets a request through when its token may do what it asks.
pub async fn authorize(State(fleet): State<Arc<Fleet>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    let is_page = !path.starts_with("/api/");
    let needed = needed_role(request.method(), path);
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let grant = match grant(&fleet, header.map(str::to_owned)).await {
        Ok(grant) => grant,
        Err(refused) => {
            let mut response = refused.into_response();
            if is_page {
                // Makes a browser ask for a password, which is the token.
                let challenge =
                    HeaderValue::from_static("Basic realm=\"central: the token is the password\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            return response;
        }
    };
    if grant.role < needed {
        return ApiError::forbidden(format!(
            "token `{}` is of role {}; this needs {}",
            grant.name,
            grant.role.as_str(),
            needed.as_str()
        ))
        .into_response();
    }
    if !is_page
        && !path.starts_with("/api/ext/")
        && let Err(error) = check_version(request.uri().query().unwrap_or(""))
    {
        return error.into_response();
    }
    if request.method() != Method::GET {
        tracing::info!(token = grant.name, method = %request.method(), path, "change was asked for");
    }
    next.run(request).await
}

/// See [`Role`] for why.
fn needed_role(method: &Method, path: &str) -> Role {
    match *method {
        Method::GET | Method::HEAD if shows_keys(path.trim_end_matches('/')) => Role::Operator,
        // With the group's keys one may enrol anything.
        Method::GET | Method::HEAD if path.starts_with("/api/enrollmentGroups/") => Role::Operator,
        Method::GET | Method::HEAD => Role::Viewer,
        Method::DELETE => Role::Administrator,
        _ => Role::Operator,
    }
}

fn shows_keys(path: &str) -> bool {
    path.ends_with("/credentials") || path.ends_with("/attestation")
}

async fn grant(fleet: &Fleet, header: Option<String>) -> Result<Grant, ApiError> {
    let header = header.ok_or_else(|| {
        ApiError::unauthorized(
            "the Authorization header is missing; make a token with `central token create`",
        )
    })?;
    let hash = token::hash_of_header(&header).ok_or_else(|| {
        ApiError::unauthorized("the Authorization header holds no token: SharedAccessSignature … or Bearer …")
    })?;
    let grant = fleet.store.read(move |c| Ok::<_, StoreError>(tokens::find(c, &hash)?)).await?;
    match grant {
        Some(grant) if grant.expires_ms > now_ms() => Ok(grant),
        Some(_) => {
            Err(ApiError::unauthorized("the token has expired; make a new one with `central token create`"))
        }
        None => Err(ApiError::unauthorized("the token is not known here")),
    }
}

fn check_version(query: &str) -> Result<(), ApiError> {
    let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version="));
    match version {
        Some(version) if VERSIONS.contains(&version) => Ok(()),
        found => Err(ApiError::bad_request(
            "InvalidApiVersion",
            format!(
                "api-version: found {}; allowed are {}",
                found.map_or("nothing".to_owned(), |found| format!("`{found}`")),
                VERSIONS.join(", ")
            ),
        )),
    }
}
