//! `/api/deploymentManifests`: manifests that are stored; a device's PATCH assigns one.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{ApiVersion, Body, StrictPath, StrictQuery};
use super::links::ListAddress;
use super::list::Page;
use super::paging::{Conditions, Paging};
use crate::deployments::service::Deployments;
use crate::deployments::service::ManifestChange;
use crate::error::{ServiceError, no_manifest};
use crate::store::Store;
use crate::store::etag;
use crate::store::manifests::{self, ManifestText, StoredManifest};
use crate::types::organizations::Organizations;
use crate::types::precondition::Precondition;
use crate::types::single_line::DisplayName;
use crate::types::update::Update;

/// `/api/deploymentManifests/{manifest_id}`
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct OfManifest {
    /// Chosen by the operator.
    manifest_id: String,
}

impl OfManifest {
    pub(super) fn id(&self) -> &str {
        &self.manifest_id
    }
}

/// A deployment manifest as it is stored.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestBody {
    id: String,
    display_name: String,
    etag: String,
    /// As it was given.
    #[schema(value_type = Value)]
    data: Box<RawValue>,
    /// What it belongs to: one organization, or the whole site when it is left out.
    #[serde(skip_serializing_if = "Organizations::is_empty")]
    #[schema(value_type = Vec<String>, required = false, max_items = 1)]
    organizations: Organizations,
}

/// A manifest to store. What is left out stays as it is; a new one needs `data`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ManifestRequest {
    /// As in the path, when it is given.
    id: Option<String>,
    /// 1 to 148 characters on one line.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 148)]
    display_name: Option<DisplayName>,
    /// An IoT Edge deployment manifest, `modulesContent` on top.
    data: Option<Value>,
    /// What it belongs to: one organization, or the whole site when it is `[]` or `null`.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, max_items = 1)]
    organizations: Update<Organizations>,
    /// As read, to change nothing else than that.
    etag: Option<String>,
}

impl From<ManifestText> for ManifestBody {
    fn from(of: ManifestText) -> Self {
        let etag = etag::of_revision(of.revision);
        Self {
            id: of.id,
            display_name: of.display_name,
            etag,
            data: of.data,
            organizations: of.organizations,
        }
    }
}

/// Lists stored manifests, by id unless another order is asked for.
#[utoipa::path(get, path = "/api/deploymentManifests", tag = "deploymentManifests", params(Paging, Conditions),
    security(("token" = [])), responses((status = 200, body = Page<ManifestBody>)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictQuery(paging): StrictQuery<Paging>,
    StrictQuery(conditions): StrictQuery<Conditions>,
    address: ListAddress,
) -> Answer<Json<Page<ManifestBody>>> {
    let selection = conditions.selection(&paging, &manifests::LISTED)?;
    let read = move |c: &Connection| Ok::<_, ServiceError>(manifests::select(c, &selection)?);
    let (found, position) = store.read(read).await?;
    let bodies = found.into_iter().map(ManifestBody::from).collect();
    Ok(Json(Page::continued(bodies, &address, position)))
}

/// One stored manifest.
#[utoipa::path(get, path = "/api/deploymentManifests/{manifest_id}", tag = "deploymentManifests",
    params(OfManifest, ApiVersion), security(("token" = [])),
    responses((status = 200, body = ManifestBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfManifest>,
) -> Answer<Json<ManifestBody>> {
    let found = store
        .read(move |c| manifests::text(c, &of.manifest_id)?.ok_or_else(|| no_manifest(&of.manifest_id)))
        .await?;
    Ok(Json(found.into()))
}

/// Stores a manifest. Gateways that have it assigned keep what they have until it is assigned again.
#[utoipa::path(put, path = "/api/deploymentManifests/{manifest_id}", tag = "deploymentManifests",
    params(OfManifest, ApiVersion), request_body = ManifestRequest, security(("token" = [])),
    responses((status = 200, body = ManifestBody),
        (status = 422, description = "names the field, what was found and what is allowed", body = ErrorBody)))]
pub(super) async fn put(
    State(deployments): State<Arc<Deployments>>,
    StrictPath(of): StrictPath<OfManifest>,
    precondition: Precondition,
    Body(request): Body<ManifestRequest>,
) -> Answer<Json<ManifestBody>> {
    store(&deployments, of.manifest_id, request, false, precondition).await
}

/// Changes a stored manifest. Gateways that have it assigned keep what they have until it is assigned again.
#[utoipa::path(patch, path = "/api/deploymentManifests/{manifest_id}", tag = "deploymentManifests",
    params(OfManifest, ApiVersion), request_body = ManifestRequest, security(("token" = [])),
    responses((status = 200, body = ManifestBody), (status = 404, body = ErrorBody),
        (status = 422, description = "names the field, what was found and what is allowed", body = ErrorBody)))]
pub(super) async fn patch(
    State(deployments): State<Arc<Deployments>>,
    StrictPath(of): StrictPath<OfManifest>,
    precondition: Precondition,
    Body(request): Body<ManifestRequest>,
) -> Answer<Json<ManifestBody>> {
    store(&deployments, of.manifest_id, request, true, precondition).await
}

async fn store(
    deployments: &Deployments,
    id: String,
    request: ManifestRequest,
    must_exist: bool,
    precondition: Precondition,
) -> Answer<Json<ManifestBody>> {
    if let Some(other) = request.id.filter(|other| *other != id) {
        return Err(ApiError::unprocessable(format!("id: found `{other}`; the path says `{id}`")));
    }
    let change = ManifestChange {
        display_name: request.display_name.map(Into::into),
        data: request.data,
        organizations: request.organizations,
    };
    let stored =
        deployments.store_manifest(id, change, must_exist, precondition.with_body(request.etag)).await?;
    let data = serde_json::value::to_raw_value(&stored.data)
        .map_err(|_| ApiError::internal("the manifest that was stored could not be written"))?;
    let StoredManifest { id, display_name, organizations, revision, .. } = stored;
    Ok(Json(ManifestText { id, display_name, data, organizations, revision }.into()))
}

/// Deletes a stored manifest that is assigned to no gateway.
#[utoipa::path(delete, path = "/api/deploymentManifests/{manifest_id}", tag = "deploymentManifests",
    params(OfManifest, ApiVersion), security(("token" = [])),
    responses((status = 204), (status = 404, body = ErrorBody),
        (status = 409, description = "it is assigned to a gateway", body = ErrorBody)))]
pub(super) async fn delete(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfManifest>,
    precondition: Precondition,
) -> Answer<StatusCode> {
    store
        .submit(move |c| {
            let id = &of.manifest_id;
            let found = manifests::get(c, id)?;
            if let Some(found) = &found {
                precondition.check(Some(&found.etag()))?;
            }
            if let (gateways, Some(first)) = manifests::assignments(c, id)? {
                return Err(ServiceError::Conflict(format!(
                    "deployment manifest `{id}` is assigned to {gateways} gateways, `{first}` among them; assign another to \
                     them first, or take it away with \"deploymentManifest\": null"
                )));
            }
            let is_deleted = manifests::delete(c, id)?;
            is_deleted.then_some(()).ok_or_else(|| no_manifest(id))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
