//! `/api/ext/deviceTemplates/{template_id}/overview`: what the overview of a template's devices shows, and in which order.

use axum::Json;
use axum::extract::State;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::device_templates::OfTemplate;
use super::error::{Answer, ErrorBody};
use super::extract::{Body, StrictPath};
use crate::error::ServiceError;
use crate::store::{Store, overview_tiles, templates};
use crate::templates::no_template;
use crate::types::overview_tile::{OverviewTile, check};

/// The tiles of an overview.
#[derive(Serialize, ToSchema)]
pub(super) struct OverviewTiles {
    /// In their order; empty when none were arranged: then the overview is made of what devices send.
    tiles: Vec<OverviewTile>,
    /// The version of the template that they were arranged for; null for none. A version without tiles has those of the one before.
    template: Option<String>,
}

/// The tiles that an overview shall have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct OverviewTilesRequest {
    /// In their order, at most 60; an empty list leaves the overview to what devices send.
    #[schema(max_items = 60)]
    tiles: Vec<OverviewTile>,
}

/// The number behind the semicolon of a template's id.
fn version_of(id: &str) -> u64 {
    id.rsplit_once(';').and_then(|(_, version)| version.parse().ok()).unwrap_or(0)
}

/// The tiles of a template, or else those of the version before that has some.
fn find(c: &Connection, id: &str) -> Result<OverviewTiles, ServiceError> {
    if !templates::exists(c, id)? {
        return Err(no_template(id));
    }
    let mut candidates: Vec<String> = templates::versions(c, id)?.into_iter().map(|row| row.id).collect();
    candidates.retain(|other| version_of(other) <= version_of(id));
    candidates.sort_by_key(|other| std::cmp::Reverse(version_of(other)));
    for candidate in candidates {
        if let Some(tiles) = overview_tiles::get(c, &candidate)? {
            return Ok(OverviewTiles { tiles, template: Some(candidate) });
        }
    }
    Ok(OverviewTiles { tiles: Vec::new(), template: None })
}

/// What the overview of the devices of a template shows. IoT Central keeps views in a document of its own too; its API has no path for them.
#[utoipa::path(get, path = "/api/ext/deviceTemplates/{template_id}/overview", tag = "ext", params(OfTemplate),
    security(("token" = [])), responses((status = 200, body = OverviewTiles), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
) -> Answer<Json<OverviewTiles>> {
    Ok(Json(store.read(move |c: &Connection| find(c, &of.template_id)).await?))
}

/// Arranges the overview of the devices of a template. The template stays as it is, and needs no new version.
#[utoipa::path(put, path = "/api/ext/deviceTemplates/{template_id}/overview", tag = "ext", params(OfTemplate),
    request_body = OverviewTilesRequest, security(("token" = [])),
    responses((status = 200, body = OverviewTiles), (status = 404, body = ErrorBody),
        (status = 422, description = "names the field, what was found and what is allowed", body = ErrorBody)))]
pub(super) async fn put(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfTemplate>,
    Body(request): Body<OverviewTilesRequest>,
) -> Answer<Json<OverviewTiles>> {
    check(&request.tiles).map_err(|error| ServiceError::Wrong(error.to_string()))?;
    let write = move |c: &Connection| {
        if !templates::exists(c, &of.template_id)? {
            return Err(no_template(&of.template_id));
        }
        overview_tiles::put(c, &of.template_id, &request.tiles)?;
        find(c, &of.template_id)
    };
    Ok(Json(store.submit(write).await?))
}
