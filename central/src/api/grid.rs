//! `/api/ext/grid`: the list of gateways and devices as the console shows it, and how many there are of each state and template.

use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::Connection;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::StrictQuery;
use crate::diagnosis::device_state::{DeviceState, Verdict};
use crate::diagnosis::device_states::DeviceStates;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::grid::{
    self, GridDetail, GridDevice, GridFilter, GridKind, GridOrder, GridPlace, GridQuery,
};

/// The one organization until there are more.
const ROOT_ORGANIZATION: &str = "root";
/// Rows of a page.
const ROWS_MAX: u32 = 500;
/// Rows of a page when nothing is said.
const ROWS: u32 = 50;

/// Which rows, whatever the page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct CountsQuery {
    /// `all`, `devices` or `gateways`; `all` when left out.
    kind: Option<String>,
    /// In the id or the display name, whatever the case.
    search: Option<String>,
    /// `ok`, `degraded`, `offline`, `blocked`, `waiting` or `unknown`.
    verdict: Option<String>,
    /// The id of a device template; empty for those that have none.
    template: Option<String>,
    /// Those behind this gateway.
    gateway: Option<String>,
    /// Gateways that were given the stored manifest of this id.
    manifest: Option<String>,
}

/// Which rows, and which page of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct GridParameters {
    /// `all`, `devices` or `gateways`; `all` when left out.
    kind: Option<String>,
    /// In the id or the display name, whatever the case.
    search: Option<String>,
    /// `ok`, `degraded`, `offline`, `blocked`, `waiting` or `unknown`.
    verdict: Option<String>,
    /// The id of a device template; empty for those that have none.
    template: Option<String>,
    /// Those behind this gateway.
    gateway: Option<String>,
    /// Gateways that were given the stored manifest of this id.
    manifest: Option<String>,
    /// `id`, `name`, `lastSeen` or `verdict` (what needs a person first); `id` when left out.
    sort: Option<String>,
    /// `asc` or `desc`; `asc` when left out.
    order: Option<String>,
    /// From `nextCursor`.
    cursor: Option<String>,
    /// At most so many, 1 to 500; 50 when left out.
    limit: Option<u32>,
}

/// A page of the list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GridPage {
    value: Vec<GridRow>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// What a registration is.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum RowKind {
    /// A leaf device.
    Device,
    /// A device that runs `edge-agent`.
    Gateway,
}

impl RowKind {
    pub(super) fn of(device: &GridDevice) -> Self {
        if device.is_gateway { Self::Gateway } else { Self::Device }
    }
}

/// A gateway or device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct GridRow {
    id: String,
    display_name: String,
    kind: RowKind,
    /// Null for none.
    template: Option<String>,
    /// The gateway that it is behind.
    gateway: Option<String>,
    organization: &'static str,
    state: DeviceState,
    /// When it last came or went; null when it never did.
    #[schema(format = DateTime)]
    last_seen: Option<String>,
    /// When central received its last message.
    #[schema(format = DateTime)]
    last_telemetry_at: Option<String>,
    /// The stored manifest that a gateway was given.
    manifest: Option<RowManifest>,
    /// Devices behind a gateway.
    children: u64,
}

/// The manifest of a gateway.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RowManifest {
    id: String,
    /// Null when it was deleted since.
    name: Option<String>,
    /// Whether the gateway was given it as it is stored now.
    up_to_date: bool,
}

/// How many there are.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GridCounts {
    total: u64,
    by_verdict: BTreeMap<String, u64>,
    /// Empty for those that have none.
    by_template: BTreeMap<String, u64>,
}

fn wrong(name: &str, found: &str, allowed: &str) -> ApiError {
    ApiError::bad_request("InvalidQuery", format!("{name}: found `{found}`; write {allowed}"))
}

impl CountsQuery {
    fn read(self) -> Result<(GridFilter, Option<Verdict>), ApiError> {
        let kind = match self.kind.as_deref() {
            None | Some("all") => GridKind::All,
            Some("devices") => GridKind::Devices,
            Some("gateways") => GridKind::Gateways,
            Some(other) => return Err(wrong("kind", other, "all, devices or gateways")),
        };
        let verdict = self.verdict.map(|name| {
            let allowed = Verdict::ALL.map(Verdict::as_str).join(", ");
            Verdict::named(&name).ok_or_else(|| wrong("verdict", &name, &allowed))
        });
        let search = self.search.filter(|search| !search.is_empty());
        Ok((
            GridFilter {
                kind,
                search,
                template: self.template,
                gateway: self.gateway,
                manifest: self.manifest,
            },
            verdict.transpose()?,
        ))
    }
}

/// Where a page begins, by its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Cursor {
    Id(String),
    Name(String, String),
    LastSeen(i64, String),
    Verdict(u8, String),
}

impl Cursor {
    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a cursor has texts and numbers only"))
    }

    fn read(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// How rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Stored(GridOrder),
    Verdict,
}

impl Sort {
    fn read(text: Option<&str>) -> Result<Self, ApiError> {
        Ok(match text {
            None | Some("id") => Self::Stored(GridOrder::Id),
            Some("name") => Self::Stored(GridOrder::Name),
            Some("lastSeen") => Self::Stored(GridOrder::LastSeen),
            Some("verdict") => Self::Verdict,
            Some(other) => return Err(wrong("sort", other, "id, name, lastSeen or verdict")),
        })
    }

    /// Where the rows behind one begin.
    fn behind(self, device: &GridDevice, state: &DeviceState) -> Cursor {
        let id = device.id.to_string();
        match self {
            Self::Stored(GridOrder::Id) => Cursor::Id(id),
            Self::Stored(GridOrder::Name) => Cursor::Name(device.display_name.clone(), id),
            Self::Stored(GridOrder::LastSeen) => {
                Cursor::LastSeen(device.last_seen_ms.unwrap_or(0).cast_signed(), id)
            }
            Self::Verdict => Cursor::Verdict(state.verdict as u8, id),
        }
    }
}

/// A page to read.
struct Reading {
    query: GridQuery,
    verdict: Option<Verdict>,
    sort: Sort,
    /// Of the order by verdict.
    after: Option<(u8, String)>,
    limit: usize,
}

impl Reading {
    fn of(request: GridParameters) -> Result<Self, ApiError> {
        let GridParameters { kind, search, verdict, template, gateway, manifest, sort, order, cursor, limit } =
            request;
        let (filter, verdict) = CountsQuery { kind, search, verdict, template, gateway, manifest }.read()?;
        let limit = match limit.unwrap_or(ROWS) {
            limit @ 1..=ROWS_MAX => limit as usize,
            limit => return Err(wrong("limit", &limit.to_string(), &format!("1 to {ROWS_MAX}"))),
        };
        let is_descending = match order.as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => return Err(wrong("order", other, "asc or desc")),
        };
        let sort = Sort::read(sort.as_deref())?;
        let mut query = GridQuery { filter, is_descending, ..GridQuery::default() };
        if let Sort::Stored(order) = sort {
            query.order = order;
        }
        let mut after = None;
        if let Some(text) = cursor {
            match (sort, Cursor::read(&text)) {
                (Sort::Verdict, Some(Cursor::Verdict(rank, id))) => after = Some((rank, id)),
                (Sort::Stored(GridOrder::Id), Some(Cursor::Id(id))) => query.after = Some(GridPlace::Id(id)),
                (Sort::Stored(GridOrder::Name), Some(Cursor::Name(name, id))) => {
                    query.after = Some(GridPlace::Name(name, id));
                }
                (Sort::Stored(GridOrder::LastSeen), Some(Cursor::LastSeen(at_ms, id))) => {
                    query.after = Some(GridPlace::LastSeen(at_ms, id));
                }
                _ => return Err(wrong("cursor", &text, "the nextCursor of a page in the same order")),
            }
        }
        Ok(Self { query, verdict, sort, after, limit })
    }

    fn read(&self, c: &Connection, states: &DeviceStates) -> Result<GridPage, StoreError> {
        let mut rows = match self.sort {
            Sort::Stored(_) => self.in_order(c, states)?,
            Sort::Verdict => self.by_verdict(c, states)?,
        };
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next =
            rows.last().filter(|_| has_more).map(|(device, state)| self.sort.behind(device, state).text());
        let (devices, states): (Vec<GridDevice>, Vec<DeviceState>) = rows.into_iter().unzip();
        let mut details = grid::details(c, &devices)?;
        let row = |(device, state): (GridDevice, DeviceState)| {
            let detail = details.remove(device.id.as_str()).unwrap_or_default();
            row(device, state, detail)
        };
        Ok(GridPage { value: devices.into_iter().zip(states).map(row).collect(), next_cursor: next })
    }

    /// One row more than the page, in an order that the store has.
    fn in_order(
        &self,
        c: &Connection,
        states: &DeviceStates,
    ) -> Result<Vec<(GridDevice, DeviceState)>, StoreError> {
        let mut rows = Vec::new();
        grid::scan(c, &self.query, |device| {
            let state = states.of(c, &device)?;
            if self.verdict.is_none_or(|verdict| verdict == state.verdict) {
                rows.push((device, state));
            }
            Ok::<_, StoreError>(rows.len() <= self.limit)
        })?;
        Ok(rows)
    }

    /// One row more than the page; all registrations are read, and the first ones kept.
    fn by_verdict(
        &self,
        c: &Connection,
        states: &DeviceStates,
    ) -> Result<Vec<(GridDevice, DeviceState)>, StoreError> {
        let is_descending = self.query.is_descending;
        // `kept` sorts, so the order in which the store is read does not count.
        let query = GridQuery { is_descending: false, ..self.query.clone() };
        let mut kept: BTreeSet<(u8, String)> = BTreeSet::new();
        grid::scan(c, &query, |device| {
            let state = states.of(c, &device)?;
            let key = (state.verdict as u8, device.id.to_string());
            let is_behind = self
                .after
                .as_ref()
                .is_none_or(|after| if is_descending { key < *after } else { key > *after });
            if is_behind && self.verdict.is_none_or(|verdict| verdict == state.verdict) {
                kept.insert(key);
                if kept.len() > self.limit + 1 {
                    if is_descending {
                        kept.pop_first();
                    } else {
                        kept.pop_last();
                    }
                }
            }
            Ok::<_, StoreError>(true)
        })?;
        let ids: Vec<_> = kept.iter().filter_map(|(_, id)| id.parse().ok()).collect();
        let mut found: BTreeMap<String, GridDevice> =
            grid::of_ids(c, &ids)?.into_iter().map(|device| (device.id.to_string(), device)).collect();
        let mut rows = Vec::new();
        for (_, id) in kept {
            if let Some(device) = found.remove(&id) {
                let state = states.of(c, &device)?;
                rows.push((device, state));
            }
        }
        if is_descending {
            rows.reverse();
        }
        Ok(rows)
    }
}

fn row(device: GridDevice, state: DeviceState, detail: GridDetail) -> GridRow {
    GridRow {
        kind: RowKind::of(&device),
        id: device.id.into(),
        display_name: device.display_name,
        template: device.template,
        gateway: device.gateway.map(|(id, _)| id.into()),
        organization: ROOT_ORGANIZATION,
        state,
        last_seen: device.last_seen_ms.map(rfc3339),
        last_telemetry_at: detail.last_telemetry_ms.map(rfc3339),
        manifest: detail.manifest.map(|manifest| RowManifest {
            id: manifest.id,
            name: manifest.name,
            up_to_date: manifest.is_up_to_date,
        }),
        children: detail.children,
    }
}

/// Gateways and devices with their states, in pages.
#[utoipa::path(get, path = "/api/ext/grid", tag = "ext", params(GridParameters), security(("token" = [])),
    responses((status = 200, body = GridPage), (status = 400, body = ErrorBody)))]
pub(super) async fn list(
    State(store): State<Store>,
    Extension(states): Extension<DeviceStates>,
    StrictQuery(query): StrictQuery<GridParameters>,
) -> Answer<Json<GridPage>> {
    let reading = Reading::of(query)?;
    Ok(Json(store.read(move |c| reading.read(c, &states)).await?))
}

/// How many gateways and devices there are, by state and by template.
#[utoipa::path(get, path = "/api/ext/grid/counts", tag = "ext", params(CountsQuery), security(("token" = [])),
    responses((status = 200, body = GridCounts), (status = 400, body = ErrorBody)))]
pub(super) async fn counts(
    State(store): State<Store>,
    Extension(states): Extension<DeviceStates>,
    StrictQuery(query): StrictQuery<CountsQuery>,
) -> Answer<Json<GridCounts>> {
    let (filter, verdict) = query.read()?;
    let query = GridQuery { filter, ..GridQuery::default() };
    let read = move |c: &Connection| {
        let mut counts = GridCounts::default();
        grid::scan(c, &query, |device| {
            let state = states.of(c, &device)?;
            if verdict.is_none_or(|verdict| verdict == state.verdict) {
                counts.total += 1;
                *counts.by_verdict.entry(state.verdict.as_str().to_owned()).or_default() += 1;
                *counts.by_template.entry(device.template.unwrap_or_default()).or_default() += 1;
            }
            Ok::<_, StoreError>(true)
        })?;
        Ok::<_, StoreError>(counts)
    };
    Ok(Json(store.read(read).await?))
}
