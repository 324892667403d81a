//! `/api/ext/overview`: what needs a person, how many there are of each state, and how much arrives and is stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use central_core::access::permission::Permission;
use edge_hub::mqtt_server::MqttServer;
use rusqlite::Connection;
use schemas::timestamp::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Answer, ErrorBody};
use super::grid::RowKind;
use super::why::refusals_for;
use crate::clock::now_ms;
use crate::diagnosis::causes;
use crate::diagnosis::device_state::{DeviceState, Verdict};
use crate::diagnosis::device_states::DeviceStates;
use crate::diagnosis::why::gather;
use crate::error::ServiceError;
use crate::mqtt_service::CentralService;
use crate::people::caller::Caller;
use crate::store::Store;
use crate::store::grid::{self, GridDevice, GridQuery};
use crate::store::{overview, telemetry_reading};

/// Rows of what needs a person.
const ROWS_MAX: usize = 100;
/// Changes that are shown.
const CHANGES_MAX: usize = 20;
/// What paths begin with, behind `/api/` or `/api/ext/`, of which everybody sees the changes. Those of others, such as users and tokens, are
/// for those who may read the audit log.
const SHOWN_TO_ALL: [&str; 4] = ["devices", "deviceTemplates", "deploymentManifests", "enrollmentGroups"];

/// The site at a glance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OverviewBody {
    counts: OverviewCounts,
    /// Gateways first, then by how long it has been so. 100 at most; `counts` has all.
    needs_you: Vec<Need>,
    ingest: IngestBody,
    storage: StorageBody,
    /// The last 20 changes that were requested, the newest first. Without `auditLog.view` only those of devices, templates, manifests and
    /// enrolment groups.
    changes: Vec<OverviewChange>,
}

/// How many there are of each state.
#[derive(Default, Serialize, ToSchema)]
struct OverviewCounts {
    /// By verdict.
    gateways: BTreeMap<&'static str, u64>,
    /// By verdict.
    devices: BTreeMap<&'static str, u64>,
}

/// Whether something presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum NeedGroup {
    /// It was well and is not.
    Now,
    /// It waits, or has never been there.
    Later,
}

/// A gateway or device that needs a person.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Need {
    device: String,
    display_name: String,
    kind: RowKind,
    state: DeviceState,
    /// Since when it is so; null when it never was otherwise.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// The first of the causes at `/why`; null when none is known.
    cause_id: Option<&'static str>,
    /// It in one sentence.
    sentence: String,
    group: NeedGroup,
    /// Devices behind it of which nobody knows while it is away; they are no rows of their own.
    hidden: u64,
}

/// What arrives.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct IngestBody {
    /// Of the last ten seconds.
    messages_per_second: f64,
}

/// What is stored.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StorageBody {
    /// Of the store's file.
    bytes_used: u64,
    /// Left on its disk.
    bytes_free: u64,
    /// Both together.
    limit_bytes: u64,
}

/// A change that was asked for.
#[derive(Serialize, ToSchema)]
struct OverviewChange {
    id: i64,
    #[schema(format = DateTime)]
    at: String,
    who: String,
    kind: String,
    method: String,
    path: String,
    /// Of the answer; null when there was none.
    status: Option<i64>,
}

/// The site at a glance.
#[utoipa::path(get, path = "/api/ext/overview", tag = "ext", security(("token" = [])),
    responses((status = 200, body = OverviewBody), (status = 503, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    Extension(states): Extension<DeviceStates>,
    Extension(mqtt_server): Extension<Arc<MqttServer<CentralService>>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Json<OverviewBody>> {
    let (refused, bytes_free) = (refusals_for(&caller, &mqtt_server), store.disk().free_bytes);
    let sees_all_changes = caller.may(Permission::AuditLogView);
    let read = move |c: &Connection| {
        let now_ms = now_ms();
        let (counts, needs, hidden) = survey(c, &states)?;
        let mut needs_you = Vec::with_capacity(needs.len());
        for (device, state) in needs.into_values() {
            let (_, facts) = gather(c, &states, refused.as_deref(), &device.id, now_ms)?;
            let cause = causes::causes(&facts).into_iter().next();
            needs_you.push(Need {
                display_name: device.display_name.clone(),
                kind: RowKind::of(&device),
                since: state.since.clone(),
                cause_id: cause.as_ref().map(|cause| cause.id),
                sentence: cause
                    .map(|cause| cause.sentence)
                    .or_else(|| state.reason.clone())
                    .unwrap_or_default(),
                group: group(&state),
                hidden: hidden.get(device.id.as_str()).copied().unwrap_or(0),
                state,
                device: device.id.into(),
            });
        }
        let bytes_used = overview::bytes_used(c)?;
        let changes = overview::changes(c, CHANGES_MAX, |path| sees_all_changes || is_shown_to_all(path))?;
        let changes = changes.into_iter().map(|change| OverviewChange {
            id: change.id,
            at: rfc3339(change.at_ms),
            who: change.who,
            kind: change.kind,
            method: change.method,
            path: change.path,
            status: change.status,
        });
        Ok::<_, ServiceError>(OverviewBody {
            counts,
            needs_you,
            ingest: IngestBody { messages_per_second: telemetry_reading::rate(c, now_ms)? },
            storage: StorageBody {
                bytes_used,
                bytes_free,
                limit_bytes: bytes_used.saturating_add(bytes_free),
            },
            changes: changes.collect(),
        })
    };
    Ok(Json(store.read(read).await?))
}

fn is_shown_to_all(path: &str) -> bool {
    let area = path.strip_prefix("/api/").map(|path| path.strip_prefix("ext/").unwrap_or(path));
    area.and_then(|area| area.split('/').next()).is_some_and(|area| SHOWN_TO_ALL.contains(&area))
}

/// What comes first: what presses, gateways before devices, and of each what has been so the longest.
type Rank = (NeedGroup, bool, bool, Option<String>, String);

/// Counts, what needs a person, and how many devices each gateway that is away hides.
type Survey = (OverviewCounts, BTreeMap<Rank, (GridDevice, DeviceState)>, HashMap<String, u64>);

fn survey(c: &Connection, states: &DeviceStates) -> Result<Survey, ServiceError> {
    let (mut counts, mut needs, mut hidden) = (OverviewCounts::default(), BTreeMap::new(), HashMap::new());
    grid::scan(c, &GridQuery::default(), |device| {
        let state = states.of(c, &device)?;
        let of_kind = if device.is_gateway { &mut counts.gateways } else { &mut counts.devices };
        *of_kind.entry(state.verdict.as_str()).or_default() += 1;
        let gateway = device.gateway.as_ref().map(|(gateway, _)| gateway);
        match (state.verdict, gateway) {
            (Verdict::Ok | Verdict::Blocked, _) => {}
            // Its gateway is the row.
            (Verdict::Unknown, Some(gateway)) if !states.is_connected(gateway) => {
                *hidden.entry(gateway.to_string()).or_default() += 1;
            }
            _ => {
                needs.insert(rank(&device, &state), (device, state));
                if needs.len() > ROWS_MAX {
                    needs.pop_last();
                }
            }
        }
        Ok::<_, ServiceError>(true)
    })?;
    Ok((counts, needs, hidden))
}

fn rank(device: &GridDevice, state: &DeviceState) -> Rank {
    let since = state.since.clone();
    // A missing time sorts before all others, so whether there is one counts first.
    (group(state), !device.is_gateway, since.is_none(), since, device.id.to_string())
}

fn group(state: &DeviceState) -> NeedGroup {
    match state.verdict {
        Verdict::Offline | Verdict::Degraded => NeedGroup::Now,
        _ => NeedGroup::Later,
    }
}
