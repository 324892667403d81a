//! `/api/ext/devices/{device_id}/messages/devicebound`: cloud-to-device messages, which IoT Central has no path for. The
//! terms are those of IoT Hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::cloud_message::{Ack, CloudMessage, End, TIME_TO_LIVE_MS};
use schemas::timestamp::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, ErrorBody};
use super::extract::{Body, OfDevice, StrictPath, StrictQuery};
use super::list::Page;
use crate::c2d::service::C2d;
use crate::clock::now_ms;
use crate::error::{ServiceError, no_device};
use crate::store::Store;
use crate::store::cloud_messages::{self, Feedback, StoredMessage};
use crate::store::devices;

/// A message to send. One of `body`, `bodyText` and `bodyBase64` holds what is sent; all left out, it is empty.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct MessageRequest {
    /// Up to 128 characters; one is made when it is left out.
    message_id: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    /// `application/json` when it is left out and `body` is given.
    content_type: Option<String>,
    /// `utf-8` when it is left out and `body` is given.
    content_encoding: Option<String>,
    /// `none`, `positive`, `negative` or `full`: which ends of the message stand in the feedback.
    #[serde(default)]
    #[schema(value_type = AckKind, required = false)]
    ack: Ack,
    /// RFC 3339, at most 48 hours ahead; in an hour when it and `timeToLiveSecs` are left out.
    expiry_time: Option<String>,
    /// Seconds for which the message waits, instead of `expiryTime`.
    time_to_live_secs: Option<u64>,
    /// Application properties of the message; none when left out.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// Any JSON, sent as such.
    body: Option<Value>,
    /// Text, sent as it is.
    body_text: Option<String>,
    /// Body that is not JSON, base64.
    body_base64: Option<String>,
}

impl MessageRequest {
    fn message(self, now_ms: u64) -> Result<CloudMessage, ApiError> {
        let wrong = |why: String| Err(ApiError::unprocessable(why));
        let (mut content_type, mut content_encoding) = (self.content_type, self.content_encoding);
        let body = match (self.body, self.body_text, self.body_base64) {
            (None, None, None) => Vec::new(),
            (Some(json), None, None) => {
                content_type.get_or_insert_with(|| "application/json".into());
                content_encoding.get_or_insert_with(|| "utf-8".into());
                json.to_string().into_bytes()
            }
            (None, Some(text), None) => text.into_bytes(),
            (None, None, Some(base64)) => match STANDARD.decode(&base64) {
                Ok(bytes) => bytes,
                Err(error) => return wrong(format!("bodyBase64: {error}")),
            },
            _ => return wrong("body: give one of body, bodyText and bodyBase64".into()),
        };
        let expires_ms = match (self.expiry_time, self.time_to_live_secs) {
            (None, None) => now_ms + TIME_TO_LIVE_MS,
            (None, Some(secs)) => now_ms.saturating_add(secs.saturating_mul(1000)),
            (Some(text), None) => match parse_rfc3339(&text) {
                Some(at) => at,
                None => return wrong(format!("expiryTime: found `{text}`; write RFC 3339")),
            },
            (Some(_), Some(_)) => {
                return wrong("expiryTime: give it or timeToLiveSecs, not both".into());
            }
        };
        Ok(CloudMessage {
            message_id: self.message_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            correlation_id: self.correlation_id,
            user_id: self.user_id,
            content_type,
            content_encoding,
            ack: self.ack,
            properties: self.properties,
            enqueued_ms: now_ms,
            expires_ms,
            body,
        })
    }
}

/// Sends a message to a device. It waits, at most until its expiry, until the device has acknowledged it.
#[utoipa::path(post, path = "/api/ext/devices/{device_id}/messages/devicebound", tag = "ext", params(OfDevice),
    request_body = MessageRequest, security(("token" = [])),
    responses((status = 201, body = CloudMessageBody), (status = 404, body = ErrorBody),
        (status = 403, description = "50 messages wait already", body = ErrorBody),
        (status = 413, description = "more than 64 KB with its properties", body = ErrorBody),
        (status = 422, body = ErrorBody)))]
pub(super) async fn send(
    State(c2d): State<Arc<C2d>>,
    StrictPath(of): StrictPath<OfDevice>,
    Body(request): Body<MessageRequest>,
) -> Answer<(StatusCode, Json<CloudMessageBody>)> {
    let stored = c2d.send(of.device_id, request.message(now_ms())?).await?;
    Ok((StatusCode::CREATED, Json(body(&stored))))
}

/// Which messages a list shows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// The sequence or feedback id of the last one that is known; 0 when left out.
    #[serde(default)]
    after: u64,
    /// At most so many, 1 to 100; 25 when left out.
    limit: Option<u32>,
    #[serde(rename = "api-version", default)]
    #[param(value_type = Option<String>)]
    _api_version: Option<String>,
}

impl ListQuery {
    fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(25) {
            limit @ 1..=100 => Ok(limit),
            limit => {
                Err(ApiError::bad_request("InvalidQuery", format!("limit: found {limit}; write 1 to 100")))
            }
        }
    }
}

/// The messages of a device that wait, and the last 100 that ended, oldest first, each with its state.
#[utoipa::path(get, path = "/api/ext/devices/{device_id}/messages/devicebound", tag = "ext",
    params(OfDevice, ListQuery), security(("token" = [])),
    responses((status = 200, body = Page<CloudMessageBody>), (status = 404, body = ErrorBody)))]
pub(super) async fn list(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Answer<Json<Page<CloudMessageBody>>> {
    let limit = query.limit()?;
    let read = move |c: &rusqlite::Connection| {
        devices::get(c, &of.device_id)?.ok_or_else(|| no_device(&of.device_id))?;
        Ok::<_, ServiceError>(cloud_messages::page(c, &of.device_id, query.after, limit)?)
    };
    let page = store.read(read).await?;
    Ok(Json(Page::whole(page.iter().map(body).collect())))
}

/// Takes every message back that waits for a device.
#[utoipa::path(delete, path = "/api/ext/devices/{device_id}/messages/devicebound", tag = "ext", params(OfDevice),
    security(("token" = [])), responses((status = 200, body = PurgeBody), (status = 404, body = ErrorBody)))]
pub(super) async fn purge(
    State(c2d): State<Arc<C2d>>,
    StrictPath(of): StrictPath<OfDevice>,
) -> Answer<Json<PurgeBody>> {
    let purged = c2d.purge(of.device_id.clone()).await?;
    Ok(Json(PurgeBody { device_id: of.device_id.into(), total_messages_purged: purged as u64 }))
}

/// What was taken back.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PurgeBody {
    device_id: String,
    total_messages_purged: u64,
}

/// The ends of messages whose senders asked for them by `ack`, of all devices, oldest first; the last 10,000 are kept.
#[utoipa::path(get, path = "/api/ext/messages/feedback", tag = "ext", params(ListQuery), security(("token" = [])),
    responses((status = 200, body = Page<FeedbackBody>)))]
pub(super) async fn feedback(
    State(store): State<Store>,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Answer<Json<Page<FeedbackBody>>> {
    let limit = query.limit()?;
    let read = move |c: &rusqlite::Connection| {
        Ok::<_, ServiceError>(cloud_messages::feedback(c, query.after, limit)?)
    };
    let records = store.read(read).await?;
    let body = |record: &Feedback| FeedbackBody {
        id: record.id,
        device_id: record.device.to_string(),
        original_message_id: record.message_id.clone(),
        status_code: record.settlement.end.feedback_code(),
        description: description(&record.settlement.end).to_owned(),
        enqueued_time_utc: rfc3339(record.settlement.at_ms),
    };
    Ok(Json(Page::whole(records.iter().map(body).collect())))
}

/// The end of a message, in IoT Hub's terms.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FeedbackBody {
    id: u64,
    device_id: String,
    original_message_id: String,
    /// `Success`, `Expired`, `DeliveryCountExceeded`, `Rejected` or `Purged`.
    status_code: &'static str,
    description: String,
    #[schema(format = DateTime)]
    enqueued_time_utc: String,
}

fn description(end: &End) -> &str {
    match end {
        End::Rejected { reason } => reason,
        other => other.feedback_code(),
    }
}

/// A cloud-to-device message that waits, or was ended lately.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CloudMessageBody {
    /// Ascends over all devices.
    sequence: u64,
    device_id: String,
    message_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[schema(inline, value_type = AckKind)]
    ack: Ack,
    properties: BTreeMap<String, String>,
    #[schema(format = DateTime)]
    enqueued_time: String,
    #[schema(format = DateTime)]
    expiry_time: String,
    /// Body of the message, when it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    /// Its bytes, when they are no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(content_encoding = "base64")]
    body_base64: Option<String>,
    state: MessageState,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    ended_time: Option<String>,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Which feedback about a message its sender requests.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes schemas::cloud_message::Ack")]
enum AckKind {
    /// No feedback.
    None,
    /// That the device has it.
    Positive,
    /// That the device will not have it.
    Negative,
    /// Feedback of the delivery, and of the end without one.
    Full,
}

/// Where a message is, or how it ended.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum MessageState {
    /// It waits at central.
    Queued,
    /// The device's gateway has it.
    AtGateway,
    /// The device acknowledged it.
    Delivered,
    /// Its time was over.
    Expired,
    /// The device never acknowledged it.
    DeliveryCountExceeded,
    /// It could not be kept or delivered.
    Rejected,
    /// An operator took it back.
    Purged,
}

impl MessageState {
    fn of(stored: &StoredMessage) -> Self {
        match stored.ended.as_ref().map(|settlement| &settlement.end) {
            None if stored.taken_ms.is_some() => Self::AtGateway,
            None => Self::Queued,
            Some(End::Delivered) => Self::Delivered,
            Some(End::Expired) => Self::Expired,
            Some(End::DeliveryCountExceeded) => Self::DeliveryCountExceeded,
            Some(End::Rejected { .. }) => Self::Rejected,
            Some(End::Purged) => Self::Purged,
        }
    }
}

fn body(stored: &StoredMessage) -> CloudMessageBody {
    let message = stored.message.clone();
    // What is nested too deep is shown as bytes, so that every answer can be read again.
    let (body, body_base64) = match schemas::json::from_outside::<Value>(&message.body) {
        Ok(json) => (Some(json), None),
        Err(_) => (None, Some(STANDARD.encode(&message.body))),
    };
    let reason = match stored.ended.as_ref().map(|settlement| &settlement.end) {
        Some(End::Rejected { reason }) => Some(reason.clone()),
        _ => None,
    };
    CloudMessageBody {
        sequence: stored.sequence,
        device_id: stored.device.to_string(),
        message_id: message.message_id,
        correlation_id: message.correlation_id,
        user_id: message.user_id,
        content_type: message.content_type,
        content_encoding: message.content_encoding,
        ack: message.ack,
        properties: message.properties,
        enqueued_time: rfc3339(message.enqueued_ms),
        expiry_time: rfc3339(message.expires_ms),
        body,
        body_base64,
        state: MessageState::of(stored),
        ended_time: stored.ended.as_ref().map(|settlement| rfc3339(settlement.at_ms)),
        reason,
    }
}
