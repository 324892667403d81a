//! `/api/devices/{device}/relationships`: which devices are behind a gateway, seen from the gateway and from each of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, OfDevice, StrictPath, StrictQuery};
use super::links::ListAddress;
use super::list::Page;
use super::paging::Paging;
use crate::error::{ServiceError, no_device, no_relationship};
use crate::registry::service::Registry;
use crate::services::Services;
use crate::store::Store;
use crate::store::devices::{self};
use crate::store::relationships::{self, Relationship};
use crate::types::single_line::DisplayName;

/// `/api/devices/{device_id}/relationships/{relationship_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfRelationship {
    /// The gateway, or the device behind it.
    #[param(value_type = String)]
    device_id: DeviceId,
    /// Chosen by the operator.
    relationship_id: String,
}

/// A device's place behind a gateway.
#[derive(Serialize, ToSchema)]
pub struct RelationshipBody {
    id: String,
    name: String,
    /// Id of the gateway.
    source: String,
    /// The device behind it.
    target: String,
}

/// A relationship to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RelationshipRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// 1 to 148 characters on one line.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    name: Option<DisplayName>,
    /// The gateway: the device of the path, or of a path that has the target.
    #[schema(value_type = Option<String>)]
    source: Option<DeviceId>,
    /// The device to put behind the gateway.
    #[schema(value_type = String)]
    target: DeviceId,
}

/// A change of a relationship. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RelationshipChange {
    /// As in the path, when it is given.
    id: Option<String>,
    /// 1 to 148 characters on one line.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    name: Option<DisplayName>,
    /// As it is, when it is given: a device moves to another gateway by another relationship.
    #[schema(value_type = Option<String>)]
    source: Option<DeviceId>,
    /// The device to put behind the gateway in place of the one that is there.
    #[schema(value_type = Option<String>)]
    target: Option<DeviceId>,
}

/// Refuses a body that contradicts its path or what is stored.
fn check_same(field: &str, found: Option<&str>, expected: &str) -> Result<(), ApiError> {
    match found.filter(|found| *found != expected) {
        Some(found) => {
            let why = format!("{field}: found `{found}`; it is `{expected}`");
            Err(ApiError::unprocessable(why))
        }
        None => Ok(()),
    }
}

impl From<Relationship> for RelationshipBody {
    fn from(of: Relationship) -> Self {
        Self { id: of.id, name: of.name, source: of.source.into(), target: of.target.into() }
    }
}

/// Lists the devices behind a gateway, and the gateway that a device is behind.
#[utoipa::path(get, path = "/api/devices/{device_id}/relationships", tag = "relationships",
    params(OfDevice, Paging), security(("token" = [])),
    responses((status = 200, body = Page<RelationshipBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(paging): StrictQuery<Paging>,
    address: ListAddress,
) -> Answer<Json<Page<RelationshipBody>>> {
    let (limit, after) = (paging.limit()?, paging.after());
    let found = store
        .read(move |c| {
            devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
            Ok::<_, ServiceError>(relationships::list_at(c, &of.device_id, &after, limit)?)
        })
        .await?;
    let bodies = found.into_iter().map(RelationshipBody::from).collect();
    Ok(Json(Page::new(bodies, limit, &address, |last| last.id.clone())))
}

/// One relationship, by the gateway or by the device behind it.
#[utoipa::path(get, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), security(("token" = [])),
    responses((status = 200, body = RelationshipBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfRelationship>,
) -> Answer<Json<RelationshipBody>> {
    Ok(Json(stored(&store, of).await?.into()))
}

async fn stored(store: &Store, of: OfRelationship) -> Result<Relationship, ApiError> {
    let read = move |c: &rusqlite::Connection| {
        relationships::get_at(c, &of.device_id, &of.relationship_id)?
            .ok_or_else(|| no_relationship(&of.device_id, &of.relationship_id))
    };
    Ok(store.read(read).await?)
}

/// Puts a device behind a gateway; it may then connect there with its own key.
#[utoipa::path(put, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), request_body = RelationshipRequest, security(("token" = [])),
    responses((status = 200, body = RelationshipBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfRelationship>,
    Body(request): Body<RelationshipRequest>,
) -> Answer<Json<RelationshipBody>> {
    check_same("id", request.id.as_deref(), &of.relationship_id)?;
    let source = match request.source {
        Some(gateway) if request.target == of.device_id => gateway,
        source => {
            check_same("source", source.as_ref().map(DeviceId::as_str), of.device_id.as_str())?;
            of.device_id
        }
    };
    let name = request.name.map_or_else(|| of.relationship_id.clone(), Into::into);
    let relationship = Relationship { id: of.relationship_id, name, source, target: request.target };
    Ok(Json(registry.attach(relationship).await?.into()))
}

/// Changes which device a relationship puts behind its gateway, or its name.
#[utoipa::path(patch, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), request_body = RelationshipChange, security(("token" = [])),
    responses((status = 200, body = RelationshipBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfRelationship>,
    Body(change): Body<RelationshipChange>,
) -> Answer<Json<RelationshipBody>> {
    let stored = stored(&services.store, of).await?;
    check_same("id", change.id.as_deref(), &stored.id)?;
    check_same("source", change.source.as_ref().map(DeviceId::as_str), stored.source.as_str())?;
    let relationship = Relationship {
        name: change.name.map_or(stored.name, Into::into),
        target: change.target.unwrap_or(stored.target),
        ..stored
    };
    Ok(Json(services.registry.attach(relationship).await?.into()))
}

/// Takes a device from behind its gateway; it stays registered.
#[utoipa::path(delete, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(registry): State<Arc<Registry>>,
    StrictPath(of): StrictPath<OfRelationship>,
) -> Answer<StatusCode> {
    registry.detach(of.device_id, of.relationship_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
