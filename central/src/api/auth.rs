//! Who may ask for what: the token of every request, its role, and the API version.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use super::query::check_version;
use super::shown;
use super::token_use::TokenUse;
use crate::clock::now_ms;
use crate::fleet::Fleet;
use crate::store::{StoreError, tokens};
use crate::token::{self, Grant, Presented, Role, Scheme};

/// Open to everybody: they tell nothing about the site.
const OPEN: &[&str] = &["/api/ext/health"];

/// The API's description, open too.
const DESCRIPTION: &str = "/openapi.json";

/// What a browser shows by itself. HTTP Basic counts here alone, and only for reading: a browser sends it along with every
/// request that any page makes to this server, so on the API a foreign page would speak with an operator's token.
const PAGES: &[&str] = &["/"];

/// What decides about requests.
#[derive(Clone)]
pub struct Access {
    fleet: Arc<Fleet>,
    token_use: Arc<TokenUse>,
}

impl Access {
    /// For the tokens of this site.
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet, token_use: Arc::default() }
    }
}

/// Lets a request through when its token may do what it asks, and gives the answer that its role may see.
pub async fn authorize(State(access): State<Access>, request: Request, next: Next) -> Response {
    // The same for everybody, and about names of fields: nothing in it is a secret.
    if request.uri().path() == DESCRIPTION {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let admitted = if OPEN.contains(&path.as_str()) {
        Ok(Role::Viewer)
    } else {
        admit(&access, &parts).await.map(|grant| grant.role)
    };
    let refused = match admitted {
        Ok(role) => {
            let response = next.run(Request::from_parts(parts, body)).await;
            return shown::to_role(role, &path, response).await;
        }
        Err(refused) => refused,
    };
    let must_ask = refused.is_unauthorized() && is_page(&parts);
    let mut response = refused.into_response();
    if must_ask {
        // Makes a browser ask for a password, which is the token.
        let challenge = HeaderValue::from_static("Basic realm=\"central: the token is the password\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn is_page(request: &Parts) -> bool {
    is_read(&request.method) && PAGES.contains(&request.uri.path())
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What the maker of a request may do, when that includes the request.
async fn admit(access: &Access, request: &Parts) -> Result<Grant, ApiError> {
    let (method, path) = (&request.method, request.uri.path());
    let grant = grant(access, request).await?;
    if !is_read(method) && is_of_foreign_page(&request.headers) {
        return Err(ApiError::forbidden(
            "a page of another origin asked for this change; changes come from programs, or from pages of this server",
        ));
    }
    let needed = needed_role(method, path);
    if grant.role < needed {
        return Err(ApiError::forbidden(format!(
            "token `{}` is of role {}; this needs {}",
            grant.name,
            grant.role.as_str(),
            needed.as_str()
        )));
    }
    if path.starts_with("/api/") {
        check_version(request.uri.query().unwrap_or(""), !path.starts_with("/api/ext/"))?;
    }
    if !is_read(method) {
        tracing::info!(token = grant.name, method = %method, path, "change was asked for");
    }
    Ok(grant)
}

/// Whether a browser says that a page of another origin makes the request. Where a proxy adds the token to every request,
/// this alone tells an operator's program from a foreign page. Programs send neither header.
fn is_of_foreign_page(headers: &HeaderMap) -> bool {
    // Set by browsers for https and loopback; pages cannot change it. `none`: the operator typed the address.
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    // Browsers send it with every request that changes something, since 2020.
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.is_none() || host.is_none() || origin != host
}

/// See [`Role`] for why.
fn needed_role(method: &Method, path: &str) -> Role {
    match *method {
        // Whoever makes tokens has every role.
        _ if is_below(path, "/api/apiTokens") => Role::Administrator,
        Method::GET | Method::HEAD if shows_keys(path.trim_end_matches('/')) => Role::Operator,
        // With the group's keys one may enrol anything.
        Method::GET | Method::HEAD if path.starts_with("/api/enrollmentGroups/") => Role::Operator,
        Method::GET | Method::HEAD => Role::Viewer,
        Method::DELETE => Role::Administrator,
        _ => Role::Operator,
    }
}

fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn shows_keys(path: &str) -> bool {
    path.ends_with("/credentials") || path.ends_with("/attestation")
}

async fn grant(access: &Access, request: &Parts) -> Result<Grant, ApiError> {
    let header = request.headers.get(header::AUTHORIZATION).ok_or_else(|| {
        ApiError::unauthorized(
            "the Authorization header is missing; make a token with `central token create`",
        )
    })?;
    let presented = header.to_str().ok().and_then(token::presented);
    // Not looked up, so nobody learns whether it is right.
    if presented.as_ref().is_some_and(|presented| presented.scheme == Scheme::Basic) && !is_page(request) {
        return Err(ApiError::unauthorized(
            "Authorization: found Basic, which is for reading the status page in a browser; write the token's whole line, \
             SharedAccessSignature …, or Bearer …",
        ));
    }
    match judge(access, presented).await {
        Err(error) if error.is_unauthorized() => {
            let address = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|from| from.0);
            Err(access.token_use.wrong(error, address).await)
        }
        other => other,
    }
}

async fn judge(access: &Access, presented: Option<Presented>) -> Result<Grant, ApiError> {
    let hash = presented.map(|presented| presented.hash).ok_or_else(|| {
        ApiError::unauthorized("the Authorization header holds no token: SharedAccessSignature … or Bearer …")
    })?;
    let (wanted, now_ms) = (hash.clone(), now_ms());
    let found = access.fleet.store.read(move |c| Ok::<_, StoreError>(tokens::find(c, &wanted)?)).await?;
    match found {
        Some(grant) if grant.expires_ms > now_ms => {
            access.token_use.note(&access.fleet, &hash, &grant, now_ms);
            Ok(grant)
        }
        Some(grant) => Err(ApiError::unauthorized(format!(
            "token `{}` has expired; make a new one with `central token create`",
            grant.name
        ))),
        None => Err(ApiError::unauthorized("the token is not known here")),
    }
}
