//! `/api/ext/devices/{device_id}/series`: numbers of a device over a time, in buckets, with the losses of that time.

use axum::extract::{RawQuery, State};
use axum::{Extension, Json};
use central_core::access::permission::Permission;
use schemas::names::{Identity, ModuleId};
use schemas::timestamp::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{OfDevice, StrictPath};
use super::query::QueryPairs;
use crate::clock::now_ms;
use crate::error::{ServiceError, no_device};
use crate::people::caller::Caller;
use crate::series::bucket::{Bucket, step_ms};
use crate::store::Store;
use crate::store::devices;
use crate::store::losses::{self, StoredLoss};
use crate::store::series_reading::{self, SeriesQuery};
use edge_core::redact::names::is_secret_name;

/// Names of one request.
const NAMES_MAX: usize = 20;
/// Buckets of a series.
const POINTS_MAX: u64 = 5000;
/// Buckets when nothing is said.
const POINTS: u64 = 500;
/// The time when nothing is said: a day.
const SPAN_MS: u64 = 24 * 3_600_000;
/// Losses of one answer, the newest ones.
const LOSSES_MAX: u32 = 1000;
/// The year 9000; RFC 3339 writes times up to 9999.
const TIME_MAX_MS: u64 = 221_845_392_000_000;

/// Which numbers, of which time.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(
    dead_code,
    reason = "read from the query itself, which repeats a list once for each item; here for the description"
)]
pub struct SeriesParameters {
    /// A name, 1 to 20 times.
    #[param(value_type = Vec<String>)]
    name: Vec<String>,
    /// A module of the gateway; the device itself when left out.
    #[param(value_type = Option<String>)]
    module: Option<ModuleId>,
    /// A component of the model.
    component: Option<String>,
    /// RFC 3339, or milliseconds since the Unix epoch; a day before `to` when left out.
    from: Option<String>,
    /// As `from`; now when left out.
    to: Option<String>,
    /// At most so many buckets, 2 to 5000; 500 when left out.
    points: Option<u64>,
}

/// Numbers over a time.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeriesBody {
    /// The begin of the first bucket that was looked for: a multiple of the step.
    #[schema(format = DateTime)]
    from: String,
    /// The end of the last one.
    #[schema(format = DateTime)]
    to: String,
    /// Milliseconds of a bucket.
    step_ms: u64,
    /// In the order in which the names were asked for.
    series: Vec<OneSeries>,
    /// What was lost on the way to central in that time.
    losses: Vec<SeriesLoss>,
}

/// One name, in columns: a bucket has the same place in each. Times without numbers are left out.
#[derive(Serialize, ToSchema)]
struct OneSeries {
    name: String,
    /// When each bucket begins, in milliseconds since the Unix epoch.
    t: Vec<u64>,
    min: Vec<f64>,
    avg: Vec<f64>,
    max: Vec<f64>,
    last: Vec<f64>,
    count: Vec<u64>,
}

/// Messages that were lost.
#[derive(Serialize, ToSchema)]
struct SeriesLoss {
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    count: u64,
    /// As in `/losses`.
    cause: String,
}

fn wrong(name: &str, found: &str, allowed: &str) -> ApiError {
    ApiError::bad_request("InvalidQuery", format!("{name}: found `{found}`; write {allowed}"))
}

/// A query as it was asked for.
struct Requesting {
    query: SeriesQuery,
}

impl Requesting {
    fn read(of: OfDevice, query: &str, now_ms: u64) -> Result<Self, ApiError> {
        let pairs = QueryPairs::parse(query)?;
        let names: Vec<String> =
            pairs.0.iter().filter(|(name, _)| name == "name").map(|(_, value)| value.clone()).collect();
        if names.is_empty() || names.len() > NAMES_MAX {
            return Err(wrong("name", &format!("{} of them", names.len()), &format!("1 to {NAMES_MAX}")));
        }
        let module = pairs.get("module").map(str::parse::<ModuleId>).transpose();
        let module =
            module.map_err(|error| ApiError::bad_request("InvalidQuery", format!("module: {error}")))?;
        let time = |name: &str| -> Result<Option<u64>, ApiError> {
            let Some(text) = pairs.get(name) else { return Ok(None) };
            let read = text.parse().ok().or_else(|| parse_rfc3339(text));
            let read = read.filter(|at_ms: &u64| *at_ms <= TIME_MAX_MS);
            read.map(Some)
                .ok_or_else(|| wrong(name, text, "a time like 2026-05-01T10:00:00Z, or milliseconds"))
        };
        let to_ms = time("to")?.unwrap_or(now_ms);
        let from_ms = time("from")?.unwrap_or(to_ms.saturating_sub(SPAN_MS));
        if from_ms >= to_ms {
            return Err(wrong("from", &rfc3339(from_ms), "a time before `to`"));
        }
        let points = match pairs.get("points") {
            None => POINTS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|points| (2..=POINTS_MAX).contains(points))
                .ok_or_else(|| wrong("points", text, &format!("2 to {POINTS_MAX}")))?,
        };
        let step_ms = step_ms(from_ms, to_ms, points);
        let query = SeriesQuery {
            of: Identity { device: of.device_id, module },
            component: pairs.get("component").unwrap_or_default().to_owned(),
            names,
            from_ms: from_ms - from_ms % step_ms,
            to_ms: to_ms.div_ceil(step_ms) * step_ms,
            step_ms,
        };
        Ok(Self { query })
    }
}

fn one(name: String, buckets: &[Bucket]) -> OneSeries {
    // JSON has no infinity: a mean of the greatest numbers may be one.
    let column = |of: fn(&Bucket) -> f64| -> Vec<f64> {
        buckets.iter().map(|bucket| of(bucket).clamp(f64::MIN, f64::MAX)).collect()
    };
    OneSeries {
        name,
        t: buckets.iter().map(|bucket| bucket.start_ms).collect(),
        min: column(|bucket| bucket.min),
        avg: column(Bucket::avg),
        max: column(|bucket| bucket.max),
        last: column(|bucket| bucket.last),
        count: buckets.iter().map(|bucket| bucket.count).collect(),
    }
}

fn loss(loss: StoredLoss) -> SeriesLoss {
    SeriesLoss {
        from: rfc3339(loss.times_ms.0),
        to: rfc3339(loss.times_ms.1),
        count: loss.count,
        cause: loss.cause,
    }
}

/// Numbers that a device or module sent under some names, by the time at which they were made: the least, the mean, the greatest, the
/// last and how many, in buckets of one length. A day of 500 buckets has steps of 5 minutes.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/series", tag = "ext", params(OfDevice, SeriesParameters),
    security(("token" = [])), responses((status = 200, body = SeriesBody), (status = 400, body = ErrorBody),
        (status = 403, description = "a viewer asks for a name that holds a secret", body = ErrorBody),
        (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfDevice>,
    RawQuery(query): RawQuery,
) -> Answer<Json<SeriesBody>> {
    let Requesting { query } = Requesting::read(of, query.as_deref().unwrap_or(""), now_ms())?;
    if !caller.may(Permission::SecretsView)
        && let Some(name) = query.names.iter().find(|name| is_secret_name(name))
    {
        return Err(ApiError::forbidden(format!(
            "`{name}` may hold a secret; it needs the permission secrets.view"
        )));
    }
    let requested = query.clone();
    let read = move |c: &rusqlite::Connection| {
        let device = &query.of.device;
        devices::get(c, device)?.ok_or_else(|| no_device(device))?;
        let losses = losses::between(c, device, query.from_ms, query.to_ms, LOSSES_MAX)?;
        Ok::<_, ServiceError>((series_reading::read(c, &query)?, losses))
    };
    let (found, losses) = store.read(read).await?;
    Ok(Json(SeriesBody {
        from: rfc3339(requested.from_ms),
        to: rfc3339(requested.to_ms),
        step_ms: requested.step_ms,
        series: requested.names.into_iter().zip(&found).map(|(name, buckets)| one(name, buckets)).collect(),
        losses: losses.into_iter().map(loss).collect(),
    }))
}
