//! `/api/devices/{gateway}/relationships`: which devices stand behind a gateway.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::names::DeviceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, At, Body, OfDevice};
use crate::fleet::{Fleet, FleetError, no_device};
use crate::store::devices::{self, Relationship};

/// `/api/devices/{device_id}/relationships/{relationship_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfRelationship {
    /// The gateway.
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
    /// The gateway.
    source: String,
    /// The device behind it.
    target: String,
}

/// A wish for a relationship.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct RelationshipWish {
    /// As in the path, when it is given.
    id: Option<String>,
    name: Option<String>,
    /// As in the path, when it is given.
    source: Option<String>,
    /// The device to put behind the gateway.
    #[schema(value_type = String)]
    target: DeviceId,
}

impl From<Relationship> for RelationshipBody {
    fn from(of: Relationship) -> Self {
        Self { id: of.id, name: of.name, source: of.source.into(), target: of.target.into() }
    }
}

/// Lists the devices behind a gateway.
#[utoipa::path(get, path = "/api/devices/{device_id}/relationships", tag = "relationships",
    params(OfDevice, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn list(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<Json<Value>> {
    let all = fleet
        .store
        .read(move |c| {
            devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
            Ok::<_, FleetError>(devices::relationships(c, &of.device_id)?)
        })
        .await?;
    let value: Vec<RelationshipBody> = all.into_iter().map(Into::into).collect();
    Ok(Json(json!({"value": value})))
}

/// One relationship.
#[utoipa::path(get, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), security(("token" = [])),
    responses((status = 200, body = RelationshipBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfRelationship>,
) -> Answer<Json<RelationshipBody>> {
    let found = fleet
        .store
        .read(move |c| {
            devices::relationship(c, &of.device_id, &of.relationship_id)?.ok_or_else(|| {
                FleetError::NotFound(format!(
                    "gateway `{}` has no relationship `{}`",
                    of.device_id, of.relationship_id
                ))
            })
        })
        .await?;
    Ok(Json(found.into()))
}

/// Puts a device behind a gateway; it may then connect there with its own key.
#[utoipa::path(put, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), request_body = RelationshipWish, security(("token" = [])),
    responses((status = 200, body = RelationshipBody), (status = 409, body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfRelationship>,
    Body(wish): Body<RelationshipWish>,
) -> Answer<Json<RelationshipBody>> {
    for (field, found, expected) in
        [("id", &wish.id, of.relationship_id.as_str()), ("source", &wish.source, of.device_id.as_str())]
    {
        if let Some(found) = found.as_ref().filter(|found| *found != expected) {
            return Err(ApiError::unprocessable(format!(
                "{field}: found `{found}`; the path says `{expected}`"
            )));
        }
    }
    let name = wish.name.unwrap_or_else(|| of.relationship_id.clone());
    let relationship =
        Relationship { id: of.relationship_id, name, source: of.device_id, target: wish.target };
    Ok(Json(fleet.attach(relationship).await?.into()))
}

/// Takes a device from behind its gateway; it stays registered.
#[utoipa::path(delete, path = "/api/devices/{device_id}/relationships/{relationship_id}", tag = "relationships",
    params(OfRelationship, ApiVersion), security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody)))]
pub(super) async fn delete(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfRelationship>,
) -> Answer<StatusCode> {
    fleet.detach(of.device_id, of.relationship_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
