//! `/api/ext/deploymentManifests/{manifest_id}/rollout`: how far each gateway is with a stored manifest.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{StrictPath, StrictQuery};
use super::manifests::OfManifest;
use crate::deployments::rollout::{RolloutProgress, RolloutState};
use crate::diagnosis::device_state::DeviceState;
use crate::diagnosis::device_states::DeviceStates;
use crate::error::{ServiceError, no_manifest};
use crate::store::grid::{self, GridDevice, GridFilter, GridKind, GridQuery};
use crate::store::{Store, manifests};

/// Rows of a page.
const ROWS_MAX: u32 = 500;
/// Rows of a page when nothing is said.
const ROWS: u32 = 100;

/// Which gateways.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RolloutQuery {
    /// `failed`, `outOfDate`, `notDelivered`, `applying` or `running`; all when left out.
    state: Option<String>,
    /// From `nextCursor`.
    cursor: Option<String>,
    /// At most so many, 1 to 500; 100 when left out.
    limit: Option<u32>,
}

/// The gateways of a manifest, those first that need a person.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RolloutBody {
    /// All gateways that the manifest is assigned to, by state.
    counts: BTreeMap<&'static str, u64>,
    /// How many that are.
    total: u64,
    value: Vec<RolloutRow>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// A gateway with the manifest.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RolloutRow {
    gateway: String,
    display_name: String,
    state: RolloutState,
    /// As the gateway reports it; null when it reports none.
    reason: Option<String>,
    /// Whether the gateway was given the manifest as it is stored now.
    up_to_date: bool,
    /// `$version` of the desired section of `$edgeAgent`.
    desired_version: u64,
    /// `$version` of the desired section that the gateway looked at last; 0 for none.
    taken_version: u64,
    /// How the gateway is.
    gateway_state: DeviceState,
}

/// A gateway before it is shown.
struct Found {
    device: GridDevice,
    progress: RolloutProgress,
    state: RolloutState,
    is_up_to_date: bool,
}

impl Found {
    /// By which rows are sorted and cursors say where a page begins.
    fn key(&self) -> (u8, String) {
        (self.state as u8, self.device.id.to_string())
    }
}

impl RolloutQuery {
    fn limit(&self) -> Result<usize, ApiError> {
        match self.limit.unwrap_or(ROWS) {
            limit @ 1..=ROWS_MAX => Ok(limit as usize),
            limit => {
                let why = format!("limit: found {limit}; write 1 to {ROWS_MAX}");
                Err(ApiError::bad_request("InvalidQuery", why))
            }
        }
    }

    fn state(&self) -> Result<Option<RolloutState>, ApiError> {
        let Some(name) = &self.state else { return Ok(None) };
        let found = RolloutState::ALL.into_iter().find(|state| state.as_str() == name);
        let wrong = || {
            let allowed = RolloutState::ALL.map(RolloutState::as_str).join(", ");
            ApiError::bad_request("InvalidQuery", format!("state: found `{name}`; write {allowed}"))
        };
        found.map(Some).ok_or_else(wrong)
    }

    /// The row that the page follows.
    fn after(&self) -> Result<Option<(u8, String)>, ApiError> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let read = text.split_once('.').and_then(|(rank, id)| Some((rank.parse().ok()?, id.to_owned())));
        let why = "cursor: write the nextCursor of a page of this rollout";
        read.map(Some).ok_or_else(|| ApiError::bad_request("InvalidQuery", why.to_owned()))
    }
}

/// How far each gateway that a stored manifest is assigned to is with it: not delivered, being carried out, running, failed with the reason, or
/// out of date because the stored manifest was changed since.
#[utoipa::path(get, path = "/api/ext/deploymentManifests/{manifest_id}/rollout", tag = "ext",
    params(OfManifest, RolloutQuery), security(("token" = [])),
    responses((status = 200, body = RolloutBody), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    Extension(states): Extension<DeviceStates>,
    StrictPath(of): StrictPath<OfManifest>,
    StrictQuery(query): StrictQuery<RolloutQuery>,
) -> Answer<Json<RolloutBody>> {
    let (limit, state, after) = (query.limit()?, query.state()?, query.after()?);
    let read = move |c: &Connection| {
        let id = of.id();
        manifests::display_name(c, id)?.ok_or_else(|| no_manifest(id))?;
        let mut found = find(c, &states, id)?;
        let mut counts: BTreeMap<&'static str, u64> =
            RolloutState::ALL.into_iter().map(|state| (state.as_str(), 0)).collect();
        for gateway in &found {
            *counts.entry(gateway.state.as_str()).or_default() += 1;
        }
        let total = found.len() as u64;
        found.retain(|gateway| {
            state.is_none_or(|state| state == gateway.state)
                && after.as_ref().is_none_or(|after| gateway.key() > *after)
        });
        found.sort_by_cached_key(Found::key);
        let has_more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| has_more).map(Found::key);
        let value = found.into_iter().map(|gateway| row(c, &states, gateway)).collect::<Result<_, _>>()?;
        let next_cursor = last.map(|(rank, id)| format!("{rank}.{id}"));
        Ok::<_, ServiceError>(RolloutBody { counts, total, value, next_cursor })
    };
    Ok(Json(store.read(read).await?))
}

/// The gateways that a manifest is assigned to.
fn find(c: &Connection, states: &DeviceStates, manifest: &str) -> Result<Vec<Found>, ServiceError> {
    let out_of_date = manifests::out_of_date(c, manifest)?;
    let filter =
        GridFilter { kind: GridKind::Gateways, manifest: Some(manifest.to_owned()), ..GridFilter::default() };
    let mut found = Vec::new();
    grid::scan(c, &GridQuery { filter, ..GridQuery::default() }, |device| {
        let progress = states.report(c, &device)?.rollout;
        let is_up_to_date = !out_of_date.contains(device.id.as_str());
        // What failed still needs a person first, also when the stored manifest was changed since.
        let state = if is_up_to_date { progress.state } else { progress.state.min(RolloutState::OutOfDate) };
        found.push(Found { device, progress, state, is_up_to_date });
        Ok::<_, ServiceError>(true)
    })?;
    Ok(found)
}

fn row(c: &Connection, states: &DeviceStates, found: Found) -> rusqlite::Result<RolloutRow> {
    let Found { device, progress, state, is_up_to_date } = found;
    Ok(RolloutRow {
        gateway_state: states.of(c, &device)?,
        desired_version: device.report_versions.0.map_or(0, i64::cast_unsigned),
        gateway: device.id.into(),
        display_name: device.display_name,
        state,
        reason: progress.reason,
        up_to_date: is_up_to_date,
        taken_version: progress.taken_version,
    })
}
