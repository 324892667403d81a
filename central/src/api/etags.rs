//! Etags: a change may name the state that it was made for, and is refused when another one has come in between.
//!
//! | | of a read | of a change |
//! |---|---|---|
//! | `If-Match` | - | 412 unless it names what is stored; `*` is anything that exists |
//! | `If-None-Match` | 304 when it names what is stored | 412 when it names what is stored; with `*` only something new is made |
//! | `etag` in the body | - | 412 unless it is that of what is stored |
//!
//! [`CONDITIONAL`] has the paths for which this holds: their handlers check a [`Precondition`] where they write. At all other paths a
//! change that names a state is refused, because nobody would compare it.

use std::convert::Infallible;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};

use super::error::ApiError;
use crate::error::ServiceError;
use crate::types::precondition::{Precondition, Tags};

/// Paths of things that have an etag, and of changes of them.
const CONDITIONAL: [&str; 6] = [
    "/api/devices/{device_id}",
    "/api/devices/{device_id}/applyDeploymentManifest",
    "/api/deploymentManifests/{manifest_id}",
    "/api/deviceTemplates/{template_id}",
    "/api/enrollmentGroups/{group_id}",
    "/api/enrollmentGroups/{group_id}/certificates/{entry}",
];

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Puts the etag of a JSON answer into its header, answers 304 to whoever has that state, and refuses conditions that nobody would
/// check.
pub(super) async fn tag(request: Request, next: Next) -> Response {
    #[derive(Deserialize)]
    struct Tagged {
        etag: Option<String>,
    }

    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !CONDITIONAL.contains(&path) {
        return match check_no_condition(request.headers(), is_read) {
            Ok(()) => next.run(request).await,
            Err(refused) => refused.into_response(),
        };
    }
    let known = Tags::of(request.headers(), &header::IF_NONE_MATCH).filter(|_| is_read);
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // All of it is in memory already, in the handler's body.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return ApiError::internal("the answer could not be read for its etag").into_response();
    };
    let tag = serde_json::from_slice::<Tagged>(&bytes).ok().and_then(|tagged| tagged.etag);
    if let Some(value) = tag.as_deref().and_then(|tag| HeaderValue::try_from(tag).ok()) {
        parts.headers.insert(header::ETAG, value);
    }
    if known.is_some_and(|known| known.name(tag.as_deref())) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// What has no etag is not in the state that a change names. `*` names none, and clients send it with every change.
fn check_no_condition(headers: &HeaderMap, is_read: bool) -> Result<(), ApiError> {
    let conditions = [header::IF_MATCH, header::IF_NONE_MATCH];
    let named = conditions.iter().find(|name| {
        let tags = Tags::of(headers, name);
        tags.is_some_and(|tags| tags != Tags::Any || **name == header::IF_NONE_MATCH)
    });
    match named.filter(|_| !is_read) {
        None => Ok(()),
        Some(name) => {
            let why = format!("{name}: what this path changes has no etag; leave the header out");
            Err(ServiceError::PreconditionFailed(why).into())
        }
    }
}

/// Adds the conditions to the description of the paths for which they hold, and their answers to all.
pub(super) fn describe(description: &mut OpenApi) {
    for (path, item) in &mut description.paths.paths {
        let is_conditional = CONDITIONAL.contains(&path.as_str());
        let PathItem { get, put, post, patch, delete, .. } = item;
        if let Some(get) = get.as_mut().filter(|_| is_conditional) {
            add(get, &[("If-None-Match", "An etag that the caller has: 304 when it is still current.")]);
            let unchanged = ResponseBuilder::new().description("`If-None-Match` has the current etag");
            get.responses.responses.insert("304".into(), RefOr::T(unchanged.build()));
        }
        for change in [put, post, patch, delete].into_iter().flatten() {
            if is_conditional {
                let if_match = ("If-Match", "The etag of what is to be changed; `*` when there is anything.");
                let if_none_match = ("If-None-Match", "`*` to change nothing that is there already.");
                add(change, &[if_match, if_none_match]);
            }
            let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
            let failed = ResponseBuilder::new()
                .description("it is not in the state that `If-Match`, `If-None-Match` or `etag` names")
                .content("application/json", body);
            change.responses.responses.insert("412".into(), RefOr::T(failed.build()));
        }
    }
}

fn add(operation: &mut Operation, headers: &[(&str, &str)]) {
    let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).build();
    let parameter = |(name, description): &(&str, &str)| -> RefOr<Parameter> {
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Header);
        RefOr::T(parameter.description(Some(*description)).schema(Some(text())).build())
    };
    operation.parameters.get_or_insert_default().extend(headers.iter().map(parameter));
}
