//! `/api/ext/devices/{device_id}/losses`: what a gateway's queues have lost of what they had taken, or refused.

use axum::Json;
use axum::extract::State;
use schemas::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{OfDevice, StrictPath, StrictQuery};
use crate::error::{ServiceError, no_device};
use crate::store::Store;
use crate::store::devices;
use crate::store::losses::{self, StoredLoss, Total};

/// Which losses a list shows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LossesQuery {
    /// The id of the last one that is known; 0 when left out.
    #[serde(default)]
    after: i64,
    /// At most so many, 1 to 1000; 100 when left out.
    limit: Option<u32>,
    #[serde(rename = "api-version", default)]
    #[param(value_type = Option<String>)]
    _api_version: Option<String>,
}

/// Messages that were lost for one cause, of one sender. It never changes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LossBody {
    /// Ascends over all gateways.
    id: i64,
    /// Whose queue lost them.
    gateway: String,
    /// `upstream`, or `inputs/{module}`; with `@3` behind it for priority 3.
    queue: String,
    /// Who sent them; left out when it is not known, or when more senders lost messages than are kept apart.
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    /// Which of its modules.
    #[serde(skip_serializing_if = "String::is_empty")]
    module: String,
    /// `expired`, `evicted` (gave way to newer ones), `refused` (never taken), `damaged` or `dropped` (given up).
    cause: String,
    /// Of refused ones, the sequence that they would have got.
    first_sequence: u64,
    last_sequence: u64,
    /// How many of those sequences; the others in between were not lost, or stand in other losses.
    count: u64,
    /// When the first was lost, by the gateway's clock.
    from: String,
    /// When the last was lost.
    until: String,
    /// When central heard of it.
    received: String,
}

/// A page of losses.
#[derive(Serialize, ToSchema)]
pub struct LossPage {
    value: Vec<LossBody>,
}

/// What one sender lost in one queue for one cause, ever.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TotalBody {
    gateway: String,
    queue: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    module: String,
    cause: String,
    count: u64,
    from: String,
    until: String,
}

/// Sums of all losses of a gateway or device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TotalsBody {
    /// By cause, of all queues and senders together.
    by_cause: BTreeMap<String, u64>,
    value: Vec<TotalBody>,
}

fn body(loss: StoredLoss) -> LossBody {
    LossBody {
        id: loss.id,
        gateway: loss.gateway,
        queue: loss.queue,
        device: loss.device,
        module: loss.module,
        cause: loss.cause,
        first_sequence: loss.sequences.0,
        last_sequence: loss.sequences.1,
        count: loss.count,
        from: rfc3339(loss.times_ms.0),
        until: rfc3339(loss.times_ms.1),
        received: rfc3339(loss.received_ms),
    }
}

fn total_body(total: Total) -> TotalBody {
    TotalBody {
        gateway: total.gateway,
        queue: total.queue,
        device: total.device,
        module: total.module,
        cause: total.cause,
        count: total.count,
        from: rfc3339(total.times_ms.0),
        until: rfc3339(total.times_ms.1),
    }
}

/// What the queues of a gateway have lost, oldest first; of a leaf device, what was lost of its own messages. The newest
/// 100,000 of all gateways are kept.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/losses", tag = "ext", params(OfDevice, LossesQuery),
    security(("token" = [])), responses((status = 200, body = LossPage), (status = 404, body = ErrorBody)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<LossesQuery>,
) -> Answer<Json<LossPage>> {
    let limit = match query.limit.unwrap_or(100) {
        limit @ 1..=1000 => limit,
        limit => {
            let why = format!("limit: found {limit}; write 1 to 1000");
            return Err(ApiError::bad_request("InvalidQuery", why));
        }
    };
    let read = move |c: &rusqlite::Connection| {
        devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        Ok::<_, ServiceError>(losses::page(c, &of.device_id, query.after, limit)?)
    };
    let page = store.read(read).await?;
    Ok(Json(LossPage { value: page.into_iter().map(body).collect() }))
}

/// The sums of what the queues of a gateway have lost, or of a leaf device's own messages. They are never forgotten.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/losses/totals", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = TotalsBody), (status = 404, body = ErrorBody)))]
pub(super) async fn totals(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<TotalsBody>> {
    let read = move |c: &rusqlite::Connection| {
        devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        Ok::<_, ServiceError>(losses::totals(c, &of.device_id)?)
    };
    let totals = store.read(read).await?;
    let mut by_cause = BTreeMap::new();
    for total in &totals {
        let sum: &mut u64 = by_cause.entry(total.cause.clone()).or_default();
        // Beyond, a reader of JSON would show another number than was sent.
        *sum = sum.saturating_add(total.count).min(losses::COUNT_MAX);
    }
    Ok(Json(TotalsBody { by_cause, value: totals.into_iter().map(total_body).collect() }))
}
