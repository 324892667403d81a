//! Who may ask for what: the token or session of every request, its permissions, and the API version.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use central_core::access::built_in::{BUILT_IN, Holds};
use central_core::access::permission::{Permission, Permissions};
use edge_hub::http_server::Proof;
use percent_encoding::percent_decode_str;

use super::answers::{Answers, Identity};
use super::caller::ClientAddress;
use super::credentials::Credentials;
use super::error::ApiError;
use super::links::PublicAddress;
use super::log_path::is_log;
use super::needed::{Needed, needed};
use super::query::check_version;
use super::token_use::TokenUse;
use super::{assets, audited, session, shown};
use crate::audit::entry::EntryKind;
use crate::clock::now_ms;
use crate::deployments::quotes::ManifestQuotes;
use crate::services::Services;
use crate::store::Store;

use crate::people::authority::{Credential, RequestAuthority};
use crate::people::caller::{Caller, Who};
use crate::people::service::People;
use crate::store::{StoreError, tokens};
use crate::token::{self, Grant, Presented, Scheme};

/// Open to everybody: they tell nothing about the site, or are how one gets in.
const OPEN: &[(Method, &str)] = &[
    (Method::GET, "/api/ext/health"),
    (Method::GET, "/api/ext/setup"),
    (Method::POST, "/api/ext/setup"),
    (Method::POST, "/api/ext/session"),
];

/// Where changes of tokens, users, roles and sessions are asked for.
const CREDENTIALS: &[&str] =
    &["/api/apiTokens", "/api/users", "/api/ext/users/", "/api/ext/roles/", "/api/ext/session"];

/// The API's description, open too.
const DESCRIPTION: &str = "/openapi.json";

/// What a browser shows by itself. HTTP Basic counts here alone, and only for reading: a browser sends it along with every
/// request that any page makes to this server, so on the API a foreign page would speak with an operator's token.
const PAGES: &[&str] = &["/status"];

/// Bytes of a body that anybody may send: a name and a password, both of which have their own bounds.
const OPEN_BODY_BYTES_MAX: usize = 16 * 1024;

/// From the end of the head of such a request to the last byte of its body.
const OPEN_BODY_WITHIN: Duration = Duration::from_secs(10);

/// What tells its reader of changes for minutes, at the reader's pace.
const STREAM: &str = "/api/ext/events";

/// What decides about requests.
#[derive(Clone)]
pub struct Access {
    store: Store,
    people: Arc<People>,
    token_use: Arc<TokenUse>,
    answers: Answers,
    credentials: Credentials,
    quotes: Arc<ManifestQuotes>,
    is_behind_proxy: bool,
}

impl Access {
    /// For the tokens and users of this site.
    pub fn new(services: &Services, people: Arc<People>, address: &PublicAddress) -> Self {
        let store = services.store.clone();
        Self {
            credentials: Credentials::new(store.clone(), services.stop.clone()),
            quotes: services.manifest_quotes.clone(),
            store,
            people,
            token_use: Arc::default(),
            answers: Answers::default(),
            is_behind_proxy: address.is_behind_proxy(),
        }
    }
}

/// Who was admitted, and by what.
struct Admitted {
    caller: Caller,
    authority: RequestAuthority,
}

impl Access {
    /// The answer to a request that may be made, as its maker may see it. It is made beside the async threads.
    async fn answer(&self, admitted: Admitted, mut request: Request, next: Next) -> Response {
        let Admitted { caller, authority } = admitted;
        let (identity, permissions) = (Identity::of(&caller), caller.permissions);
        let path = request.uri().path().to_owned();
        // A log is read from its gateway: what waits for another machine holds no turn meanwhile.
        let waits = !is_read(request.method()) || is_log(&path);
        let extensions = request.extensions_mut();
        extensions.insert(authority.credential.clone());
        extensions.insert(authority);
        extensions.insert(caller);
        extensions.insert(self.answers.clone());
        extensions.insert(self.credentials.clone());
        if path == STREAM {
            return next.run(request).await;
        }
        let changes_credentials = CREDENTIALS.iter().any(|root| path.starts_with(root));
        let quotes = self.quotes.clone();
        let make = |request| async move {
            shown::to_caller(permissions, &path, next.run(request).await, &quotes).await
        };
        if !waits {
            return self.answers.make(&identity, make(request)).await;
        }
        let response = self.answers.change(&identity, request, make).await;
        if changes_credentials {
            self.credentials.may_have_changed();
        }
        response
    }
}

/// Lets a request through when its maker may do what it asks, and gives the answer that its maker may see. Behind it
/// each request has a [`ClientAddress`] and, except at open paths, a [`Caller`].
pub async fn authorize(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let address = ClientAddress::of(&parts, access.is_behind_proxy);
    parts.extensions.insert(address);
    let path = parts.uri.path().to_owned();
    // The same for everybody, and about names of fields, or the console's files: nothing in it is a secret.
    if path == DESCRIPTION || assets::is_console(&parts.method, &path) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let admitted = if is_open(&parts.method, &path) {
        check_origin(&parts).and_then(|()| check_json(&parts)).map(|()| None)
    } else {
        admit(&access, &parts, address).await.map(Some)
    };
    let refused = match admitted {
        Ok(None) => match open_body(&parts, body).await {
            Ok(body) => {
                let response = next.run(Request::from_parts(parts, body)).await;
                return shown::to_everybody(&path, response).await;
            }
            Err(refused) => refused,
        },
        Ok(Some(admitted)) => {
            if let Some(proof) = parts.extensions.get::<Proof>() {
                proof.is_given();
            }
            return access.answer(admitted, Request::from_parts(parts, body), next).await;
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

/// The body of a request that anybody may make.
async fn open_body(request: &Parts, body: Body) -> Result<Body, ApiError> {
    let too_large = || {
        ApiError::payload_too_large(format!(
            "the body has more than {OPEN_BODY_BYTES_MAX} bytes, or ended early"
        ))
    };
    let length = request.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length
        .and_then(|length| length.parse::<usize>().ok())
        .is_some_and(|length| length > OPEN_BODY_BYTES_MAX)
    {
        return Err(too_large());
    }
    let read = tokio::time::timeout(OPEN_BODY_WITHIN, to_bytes(body, OPEN_BODY_BYTES_MAX)).await;
    let read =
        read.map_err(|_| ApiError::timeout(format!("the body did not arrive within {OPEN_BODY_WITHIN:?}")))?;
    Ok(Body::from(read.map_err(|_| too_large())?))
}

fn is_page(request: &Parts) -> bool {
    is_read(&request.method) && PAGES.contains(&request.uri.path())
}

fn is_open(method: &Method, path: &str) -> bool {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    OPEN.iter().any(|(open, of)| open == method && *of == path)
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Who makes a request, when that one may. Who is known and may not is written down.
async fn admit(access: &Access, request: &Parts, address: ClientAddress) -> Result<Admitted, ApiError> {
    let (method, path) = (&request.method, request.uri.path());
    let (caller, credential) = caller(access, request, address).await?;
    let needed = check(&caller, request).inspect_err(|refused| {
        if refused.is_forbidden() && !is_read(method) {
            let entry = audited::entry(Some(&caller), EntryKind::Refused, method, path, address);
            access.people.audit().note(entry, 403);
        }
    })?;
    if !is_read(method) {
        tracing::info!(kind = caller.kind(), name = caller.name(), method = %method, path, "change was requested");
    }
    Ok(Admitted { caller, authority: RequestAuthority { credential, needed } })
}

/// Checks that a request may be made; the permission that it needs.
fn check(caller: &Caller, request: &Parts) -> Result<Option<Permission>, ApiError> {
    let path = request.uri.path();
    check_origin(request)?;
    if caller.session().is_some() {
        check_json(request)?;
    }
    let needed = match password_of(path) {
        Some(user) if caller.session().is_some_and(|session| session.user.id.is(&user)) => {
            Some(Needed::Nothing)
        }
        _ => needed(&request.method, path),
    };
    let permission = match needed {
        Some(Needed::Nothing) => None,
        Some(Needed::One(permission)) if caller.may(permission) => Some(permission),
        Some(Needed::One(permission)) => return Err(lacks(caller, permission)),
        // Whoever may do everything learns from the router what is wrong with the path or the method.
        None if caller.permissions == Permissions::ALL => None,
        None => return Err(ApiError::not_found(format!("there is no operation {} {path}", request.method))),
    };
    if path.starts_with("/api/") {
        check_version(request.uri.query().unwrap_or(""), !path.starts_with("/api/ext/"))?;
    }
    Ok(permission)
}

fn check_origin(request: &Parts) -> Result<(), ApiError> {
    if !is_read(&request.method) && is_of_foreign_page(&request.headers) {
        return Err(ApiError::forbidden(
            "a page of another origin requested this change; changes come from programs, or from pages of this server",
        ));
    }
    Ok(())
}

/// A browser adds a session's cookie by itself. It sends no JSON for a page of another origin without asking this server first,
/// which answers no such question: where its other signs are missing, this one still tells.
fn check_json(request: &Parts) -> Result<(), ApiError> {
    let has_body = || {
        let length = request.headers.get(header::CONTENT_LENGTH);
        length.is_some_and(|length| length != "0") || request.headers.contains_key(header::TRANSFER_ENCODING)
    };
    // No form of a page can send a DELETE.
    if is_read(&request.method) || (request.method == Method::DELETE && !has_body()) {
        return Ok(());
    }
    let content_type = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::unsupported_media_type(format!(
        "Content-Type: found `{}`; a change that is requested without a token is application/json",
        media_type.escape_debug()
    )))
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

fn lacks(caller: &Caller, permission: Permission) -> ApiError {
    let has_it = BUILT_IN.iter().filter(|role| matches!(role.holds, Holds::Site(of) if of.has(permission)));
    let roles: Vec<&str> = has_it.map(|role| role.display_name).collect();
    ApiError::forbidden(format!(
        "{} `{}` lacks the permission {}, which these roles have: {}",
        caller.kind(),
        caller.name(),
        permission.id(),
        roles.join(", ")
    ))
}

/// The user of `/api/ext/users/{user_id}/password`.
fn password_of(path: &str) -> Option<String> {
    let (user, of) = path.strip_prefix("/api/ext/users/")?.split_once('/')?;
    let user = percent_decode_str(user).decode_utf8_lossy();
    (of == "password").then(|| user.into_owned())
}

async fn caller(
    access: &Access,
    request: &Parts,
    address: ClientAddress,
) -> Result<(Caller, Credential), ApiError> {
    let Some(header) = request.headers.get(header::AUTHORIZATION) else {
        return of_session(access, request).await;
    };
    let presented = header.to_str().ok().and_then(token::presented);
    // Not looked up, so nobody learns whether it is right.
    if presented.as_ref().is_some_and(|presented| presented.scheme == Scheme::Basic) && !is_page(request) {
        return Err(ApiError::unauthorized(
            "Authorization: found Basic, which is for reading the status page in a browser; write the token's whole line, \
             SharedAccessSignature …, or Bearer …",
        ));
    }
    match of_token(access, presented).await {
        Err(error) if error.is_unauthorized() => Err(access.token_use.wrong(error, address).await),
        other => other.map(|(grant, hash)| {
            let caller = Caller { permissions: grant.roles.permissions(), who: Who::Token(grant.name) };
            (caller, Credential::Token(hash))
        }),
    }
}

async fn of_session(access: &Access, request: &Parts) -> Result<(Caller, Credential), ApiError> {
    let secret = session::cookie(&request.headers).ok_or_else(|| {
        ApiError::unauthorized(
            "the Authorization header is missing; make a token with `central token create`, or sign in",
        )
    })?;
    let session = access.people.session(secret).await?;
    let session = session.ok_or_else(|| ApiError::unauthorized("the session has ended; sign in again"))?;
    let permissions = session.user.roles.permissions();
    let credential = Credential::Session(session.hash.clone());
    Ok((Caller { who: Who::Session(session), permissions }, credential))
}

async fn of_token(access: &Access, presented: Option<Presented>) -> Result<(Grant, String), ApiError> {
    let hash = presented.map(|presented| presented.hash).ok_or_else(|| {
        ApiError::unauthorized("the Authorization header holds no token: SharedAccessSignature … or Bearer …")
    })?;
    let (hash_sought, now_ms) = (hash.clone(), now_ms());
    let found = access.store.read(move |c| Ok::<_, StoreError>(tokens::find(c, &hash_sought)?)).await?;
    match found {
        Some(grant) if grant.expires_ms > now_ms => {
            access.token_use.note(&access.store, &hash, &grant, now_ms);
            Ok((grant, hash))
        }
        Some(grant) => Err(ApiError::unauthorized(format!(
            "token `{}` has expired; make a new one with `central token create`",
            grant.name
        ))),
        None => Err(ApiError::unauthorized("the token is not known here")),
    }
}
