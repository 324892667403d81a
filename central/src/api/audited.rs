//! Every change that the API is asked for leaves a row in the audit log, and so do reads of logs.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use central_core::access::built_in;
use serde_json::Value;
use tower_service::Service as _;

use super::caller::ClientAddress;
use super::error::ApiError;
use super::log_path::is_log;
use super::noted_reads::NotedReads;
use crate::audit::difference::difference;
use crate::audit::entry::{ActorKind, ChangeOutcome, Entry, EntryKind};
use crate::audit::log::Audit;
use crate::clock::now_ms;
use crate::people::caller::{Caller, Who};
use edge_core::redact::quotes::Quotes;
use edge_core::redact::{self, Named};

/// What a read of a document names; all versions show the same of it.
const VERSION: &str = "api-version=2022-10-31-preview";
/// Bytes of a document that is looked at before and after a change.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Characters of a path in a row; longer ones lead nowhere.
const PATH_LENGTH_MAX: usize = 1024;

/// The body of a request, once its handler has read it.
#[derive(Debug, Clone, Default)]
pub(super) struct SentBody(Arc<OnceLock<Bytes>>);

impl SentBody {
    /// Remembers a body that was read.
    pub(super) fn set(&self, bytes: &Bytes) {
        // A handler reads one body.
        let _ = self.0.set(bytes.clone());
    }
}

/// The row of a request as far as it is known before the answer.
pub(super) fn entry(
    caller: Option<&Caller>,
    kind: EntryKind,
    method: &Method,
    path: &str,
    address: ClientAddress,
) -> Entry {
    let who_kind = match caller.map(|caller| &caller.who) {
        None => ActorKind::Nobody,
        Some(Who::Token(_)) => ActorKind::Token,
        Some(Who::Session(_)) => ActorKind::User,
    };
    Entry {
        at_ms: now_ms(),
        who: caller.map(|caller| caller.name().to_owned()).unwrap_or_default(),
        who_kind,
        kind,
        method: method.to_string(),
        path: path.chars().take(PATH_LENGTH_MAX).collect(),
        address: address.0.to_string(),
    }
}

/// What writes the rows.
#[derive(Clone)]
pub(super) struct Recorder {
    pub(super) audit: Audit,
    /// The API without authorization and rows: what stood before a change, and after, is read from it.
    pub(super) reads: Router,
    pub(super) noted: NotedReads,
}

/// Lets a change through with its row. Behind [`super::auth::authorize`], which says who asks; what is open to everybody writes
/// its rows itself.
pub(super) async fn record(State(recorder): State<Recorder>, mut request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let caller = request.extensions().get::<Caller>().cloned();
    let address = request.extensions().get::<ClientAddress>().copied();
    let (Some(caller), Some(address)) = (caller, address) else { return next.run(request).await };
    if matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) {
        if is_log(uri.path()) {
            return recorder.record_read(&caller, address, request, next).await;
        }
        return next.run(request).await;
    }
    let path = uri.path().to_owned();
    let is_document = method != Method::POST;
    let before = if is_document { recorder.read(&uri, &caller).await } else { None };
    let requested = match method {
        Method::DELETE if path == "/api/ext/session" => EntryKind::SignOut,
        Method::DELETE => EntryKind::Deleted,
        Method::POST if is_command(&path) => EntryKind::Command,
        Method::POST => EntryKind::Action,
        _ if before.is_some() => EntryKind::Updated,
        _ => EntryKind::Created,
    };
    let begun = match recorder.audit.begin(entry(Some(&caller), requested, &method, &path, address)) {
        Ok(begun) => begun,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let sent = SentBody::default();
    request.extensions_mut().insert(sent.clone());
    let response = next.run(request).await;
    let status = response.status();
    let is_done = status.is_success();
    let after = match method {
        _ if !is_done => None,
        Method::POST => sent.0.get().and_then(|bytes| redacted(bytes, &path)),
        Method::DELETE => None,
        _ => recorder.read(&uri, &caller).await,
    };
    let (before, after) = difference(before.as_ref().filter(|_| is_done), after.as_ref());
    let kind = if status == StatusCode::FORBIDDEN { EntryKind::Refused } else { requested };
    recorder.audit.end(
        begun,
        ChangeOutcome {
            status: status.as_u16(),
            kind,
            is_own: caller.permissions.is_within(built_in::VIEWER),
            before,
            after,
        },
    );
    response
}

fn is_command(path: &str) -> bool {
    path.trim_end_matches('/').rsplit('/').nth(1) == Some("commands")
}

impl Recorder {
    /// Lets a read through that is for operators alone, with a row for it and for its repetitions.
    async fn record_read(
        &self,
        caller: &Caller,
        address: ClientAddress,
        request: Request,
        next: Next,
    ) -> Response {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if !self.noted.note(caller, &path, Instant::now()) {
            return next.run(request).await;
        }
        let begun = match self.audit.begin(entry(Some(caller), EntryKind::Read, &method, &path, address)) {
            Ok(begun) => begun,
            Err(error) => return ApiError::from(error).into_response(),
        };
        let response = next.run(request).await;
        let status = response.status();
        if !status.is_success() {
            self.noted.forget(caller, &path);
        }
        let status = status.as_u16();
        let outcome =
            ChangeOutcome { status, kind: EntryKind::Read, is_own: false, before: None, after: None };
        self.audit.end(begun, outcome);
        response
    }

    /// What a GET of a path answers, without its secrets; `None` when it has none.
    async fn read(&self, uri: &Uri, caller: &Caller) -> Option<Value> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("{}?{VERSION}", uri.path()).parse().ok()?;
        request.extensions_mut().insert(caller.clone());
        let Ok(response) = self.reads.clone().call(request).await;
        // A stream of events, say, has no end.
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if response.status() != StatusCode::OK
            || !kind.is_some_and(|kind| kind.starts_with("application/json"))
        {
            return None;
        }
        let bytes = to_bytes(response.into_body(), DOCUMENT_BYTES_MAX).await.ok()?;
        redacted(&bytes, uri.path())
    }
}

fn redacted(bytes: &[u8], path: &str) -> Option<Value> {
    let shown = redact::json(std::str::from_utf8(bytes).ok()?, &Named::of_path(path), &Quotes::default())?;
    serde_json::from_str(&shown).ok()
}
