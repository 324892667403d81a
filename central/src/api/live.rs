//! `/api/ext/events`: what changes, as server-sent events.
//!
//! A stream ends after some minutes, and its reader comes again with the id of its last event; and it ends when the token or session
//! ends that opened it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use central_core::access::permission::Permission;
use futures_util::stream;
use schemas::names::DeviceId;
use serde::Deserialize;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::answers::{Answers, Identity};
use super::caller::ClientAddress;
use super::credentials::{Credentials, Watch};
use super::error::{Answer, ApiError, ErrorBody};
use super::query::QueryPairs;
use crate::deployments::quotes::{GatewayQuotes, ManifestQuotes};
use crate::live::ring::{Batch, Event};
use crate::live::shares::Subscriber;
use crate::live::{LiveFeed, Subscription};
use crate::people::authority::Credential;
use crate::people::caller::Caller;
use crate::services::Services;
use edge_core::redact::{self, Named};

/// Devices of one stream.
const DEVICES_MAX: usize = 100;
/// How often a stream that has nothing to tell says that it lives.
const PING_EVERY: Duration = Duration::from_secs(15);
/// How long a stream lasts: less than the longest request, and than proxies give one.
const LASTS: Duration = Duration::from_secs(5 * 60);
/// After how long a reader comes again.
const RETRY_MS: u64 = 2000;
/// Read by browsers and by what takes their place.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(
    dead_code,
    reason = "read from the query itself, which repeats a list once for each item; here for the description"
)]
pub struct EventsQuery {
    /// A device, up to 100 of them: its messages, state, commands and properties. Of all devices the states, when left out.
    #[param(value_type = Option<Vec<String>>)]
    device: Option<Vec<String>>,
}

/// Who reads a stream, by what, and from where.
type Reader = (Extension<Caller>, Extension<Credential>, Extension<ClientAddress>);

/// What changes from now on, as server-sent events. `state` when a device comes, goes, is registered, blocked or deleted, and when a
/// gateway's report changes; of the devices that are named also `telemetry`, `command` and `properties`. With the header
/// `Last-Event-ID` the stream goes on behind that event; when central has not all that came since, and when a reader takes too
/// slowly, it begins with `resync`, and the reader reads everything anew. The stream ends after 5 minutes.
#[utoipa::path(get, path = "/api/ext/events", tag = "ext", params(EventsQuery), security(("token" = [])),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 400, body = ErrorBody)))]
pub(super) async fn events(
    State(services): State<Services>,
    Extension(feed): Extension<LiveFeed>,
    reader: Reader,
    shared: (Extension<Credentials>, Extension<Answers>),
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer<Response> {
    let (Extension(caller), Extension(credential), Extension(address)) = reader;
    let (Extension(credentials), Extension(answers)) = shared;
    let devices = devices(query.as_deref().unwrap_or(""))?;
    let last = headers.get(LAST_EVENT_ID).map(|last| last.to_str().unwrap_or(""));
    let identity = Identity::of(&caller);
    let subscriber = Subscriber { identity: format!("{identity:?}"), address: address.0 };
    let subscribed = feed.subscribe(subscriber, devices, last).await;
    let subscription = subscribed.map_err(|none| ApiError::too_many_requests(none.to_string()))?;
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.reset();
    // A reader that is new learns where it begins, so that it can come again before its first event.
    let first = format!("retry: {RETRY_MS}\nid: {}\n\n", subscription.id(subscription.behind()));
    let stream = Stream {
        first: last.is_none().then_some(first),
        subscription,
        sees_secrets: caller.may(Permission::SecretsView),
        watch: credentials.watch(credential, caller.permissions),
        identity,
        answers,
        quotes: services.manifest_quotes.clone(),
        pings,
        ends_at: Instant::now() + LASTS,
        stop: services.stop.clone(),
    };
    let body = Body::from_stream(stream::unfold(stream, |mut stream| async move {
        let text = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), stream))
    }));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // For nginx, which keeps answers until it has a page of them.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

fn devices(query: &str) -> Result<Option<BTreeSet<DeviceId>>, ApiError> {
    let wrong = |why: String| ApiError::bad_request("InvalidQuery", format!("device: {why}"));
    let mut devices = BTreeSet::new();
    for (_, value) in QueryPairs::parse(query)?.0.into_iter().filter(|(name, _)| name == "device") {
        devices.insert(value.parse().map_err(|error| wrong(format!("{error}")))?);
    }
    if devices.len() > DEVICES_MAX {
        return Err(wrong(format!("found {} of them; {DEVICES_MAX} are allowed", devices.len())));
    }
    Ok(Some(devices).filter(|devices| !devices.is_empty()))
}

struct Stream {
    first: Option<String>,
    subscription: Subscription,
    sees_secrets: bool,
    watch: Watch,
    identity: Identity,
    answers: Answers,
    quotes: Arc<ManifestQuotes>,
    pings: Interval,
    ends_at: Instant,
    stop: CancellationToken,
}

impl Stream {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if self.stop.is_cancelled() || self.watch.is_over() || Instant::now() >= self.ends_at {
                return None;
            }
            if let Some(batch) = self.subscription.read() {
                self.pings.reset();
                self.redact(&batch).await?;
                return Some(self.lines(&batch));
            }
            tokio::select! {
                () = self.subscription.changed() => {}
                _ = self.pings.tick() => return Some(": ping\n\n".to_owned()),
                () = tokio::time::sleep_until(self.ends_at) => return None,
                () = self.watch.over() => return None,
                () = self.stop.cancelled() => return None,
            }
        }
    }

    /// Makes what viewers see of these events, once for all of them, in a turn of the reader's. `None` ends the stream: the reader
    /// asks for too much at once, and comes again.
    async fn redact(&self, batch: &Batch) -> Option<()> {
        if self.sees_secrets || batch.events.iter().all(|event| event.redacted.get().is_some()) {
            return Some(());
        }
        let (events, quotes) = (batch.events.clone(), self.quotes.now().await.ok()?);
        let redacting = async move {
            for event in &events {
                event.redacted.get_or_init(|| redacted(event, &quotes));
            }
        };
        self.answers.beside(&self.identity, redacting).await.ok()
    }

    fn lines(&self, batch: &Batch) -> String {
        let mut lines = String::new();
        if batch.is_resync {
            let id = self.subscription.id(batch.up_to);
            let _ = write!(lines, "event: resync\nid: {id}\ndata: {{}}\n\n");
        }
        for event in &batch.events {
            let (name, id) = (event.kind.as_str(), self.subscription.id(event.number));
            let data = shown(event, self.sees_secrets);
            let _ = write!(lines, "event: {name}\nid: {id}\ndata: {data}\n\n");
        }
        lines
    }
}

/// The data of an event as its reader may see it; who may read no secrets sees those that [`Stream::redact`] made. JSON has no line breaks of its own.
fn shown(event: &Event, sees_secrets: bool) -> &str {
    if sees_secrets {
        return &event.data;
    }
    event.redacted.get().map_or("{}", String::as_str)
}

/// The data of an event as viewers see it.
fn redacted(event: &Event, quotes: &GatewayQuotes) -> String {
    let quotes = quotes.named_in(event.device.as_str(), &event.data);
    redact::json(&event.data, &Named::default(), &quotes).map_or_else(|| "{}".to_owned(), Cow::into_owned)
}
