//! `…/properties`: the twin of a device or module as IoT Central shows it, in one object.
//!
//! A property's value is the reported one, and the desired one until something is reported. `$metadata` tells the two
//! apart. A writable property is acknowledged as `{"value", "ac", "av", "ad"}` and shown as its plain value.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemas::names::Identity;
use schemas::timestamp::rfc3339;
use serde_json::{Map, Value, json};

use super::error::{Answer, ErrorBody};
use super::extract::{ApiVersion, At, JsonBytes, OfDevice, OfModule};
use crate::deploy::DesiredChange;
use crate::fleet::{Fleet, FleetError, require};
use crate::store::twins::{self, Half, StoredSection};

/// The properties of a device.
#[utoipa::path(get, path = "/api/devices/{device_id}/properties", tag = "properties", params(OfDevice, ApiVersion),
    security(("token" = [])), responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn get(State(fleet): State<Arc<Fleet>>, At(of): At<OfDevice>) -> Answer<Json<Value>> {
    shown(&fleet, of.into()).await
}

/// Merges desired properties of a device; `null` deletes one.
#[utoipa::path(patch, path = "/api/devices/{device_id}/properties", tag = "properties", params(OfDevice, ApiVersion),
    request_body = Value, security(("token" = [])),
    responses((status = 202, body = Value), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Value>)> {
    desire(&fleet, of.into(), DesiredChange::Merge, &body.0).await
}

/// Replaces the desired properties of a device.
#[utoipa::path(put, path = "/api/devices/{device_id}/properties", tag = "properties", params(OfDevice, ApiVersion),
    request_body = Value, security(("token" = [])),
    responses((status = 202, body = Value), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfDevice>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Value>)> {
    desire(&fleet, of.into(), DesiredChange::Replace, &body.0).await
}

/// The properties of a module.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/properties", tag = "properties",
    params(OfModule, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Value), (status = 404, body = ErrorBody)))]
pub(super) async fn get_of_module(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfModule>,
) -> Answer<Json<Value>> {
    shown(&fleet, of.into()).await
}

/// Merges desired properties of a module; `null` deletes one.
#[utoipa::path(patch, path = "/api/devices/{device_id}/modules/{module_name}/properties", tag = "properties",
    params(OfModule, ApiVersion), request_body = Value, security(("token" = [])),
    responses((status = 202, body = Value), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch_of_module(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfModule>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Value>)> {
    desire(&fleet, of.into(), DesiredChange::Merge, &body.0).await
}

/// Replaces the desired properties of a module.
#[utoipa::path(put, path = "/api/devices/{device_id}/modules/{module_name}/properties", tag = "properties",
    params(OfModule, ApiVersion), request_body = Value, security(("token" = [])),
    responses((status = 202, body = Value), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put_of_module(
    State(fleet): State<Arc<Fleet>>,
    At(of): At<OfModule>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Value>)> {
    desire(&fleet, of.into(), DesiredChange::Replace, &body.0).await
}

/// Writes desired properties. They are accepted, not in force: the device says when they are.
async fn desire(
    fleet: &Arc<Fleet>,
    of: Identity,
    change: DesiredChange,
    body: &[u8],
) -> Answer<(StatusCode, Json<Value>)> {
    let wish = edge_core::twin::parse_patch(body).map_err(FleetError::from)?;
    fleet.desire(of.clone(), change, wish).await?;
    Ok((StatusCode::ACCEPTED, shown(fleet, of).await?))
}

async fn shown(fleet: &Arc<Fleet>, of: Identity) -> Answer<Json<Value>> {
    let (desired, reported) = fleet
        .store
        .read(move |c| {
            require(c, &of)?;
            let half = |half| twins::section(c, &of, half);
            Ok::<_, FleetError>((half(Half::Desired)?, half(Half::Reported)?))
        })
        .await?;
    Ok(Json(Value::Object(merged(&desired, &reported))))
}

fn merged(desired: &StoredSection, reported: &StoredSection) -> Map<String, Value> {
    let (wanted, told) = (&desired.section.properties, &reported.section.properties);
    let mut shown = Map::new();
    let mut metadata = Map::new();
    for name in wanted.keys().chain(told.keys().filter(|name| !wanted.contains_key(*name))) {
        let mut about = Map::new();
        let time = |of: &StoredSection| of.touched.get(name).map(|(at_ms, _)| *at_ms);
        if let Some(at_ms) = time(reported).max(time(desired)) {
            about.insert("lastUpdateTime".into(), rfc3339(at_ms).into());
        }
        if let Some(value) = wanted.get(name) {
            about.insert("desiredValue".into(), value.clone());
            let version = desired.touched.get(name).map_or(desired.section.version, |(_, version)| *version);
            about.insert("desiredVersion".into(), version.into());
        }
        let value = match told.get(name) {
            Some(told) => plain_value(told, &mut about),
            None => wanted[name].clone(),
        };
        shown.insert(name.clone(), value);
        metadata.insert(name.clone(), about.into());
    }
    shown.insert("$metadata".into(), metadata.into());
    shown
}

/// The value inside an acknowledgement, whose other fields go to `about`; any other value as it is.
fn plain_value(told: &Value, about: &mut Map<String, Value>) -> Value {
    match (told.get("value"), told.get("ac")) {
        (Some(value), Some(code)) => {
            about.insert("ackCode".into(), code.clone());
            for (from, to) in [("av", "ackVersion"), ("ad", "ackDescription")] {
                if let Some(field) = told.get(from) {
                    about.insert(to.into(), field.clone());
                }
            }
            value.clone()
        }
        _ => json!(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::twin::Section;

    fn section(version: u64, properties: Value, touched: &[(&str, u64, u64)]) -> StoredSection {
        StoredSection {
            section: Section { version, properties: properties.as_object().unwrap().clone() },
            touched: touched
                .iter()
                .map(|(name, at, version)| ((*name).to_owned(), (*at, *version)))
                .collect(),
            is_unreadable: false,
        }
    }

    #[test]
    fn the_reported_value_is_shown_and_the_desired_one_until_then() {
        let desired = section(4, json!({"a": 1, "b": 2}), &[("a", 1000, 3), ("b", 2000, 4)]);
        let reported = section(
            9,
            json!({"a": {"value": 7, "ac": 200, "av": 3, "ad": "done"}, "c": {"value": 1}}),
            &[("a", 3000, 9)],
        );
        let shown = Value::Object(merged(&desired, &reported));
        assert_eq!((&shown["a"], &shown["b"], &shown["c"]), (&json!(7), &json!(2), &json!({"value": 1})));
        assert_eq!(
            shown["$metadata"]["a"],
            json!({"lastUpdateTime": "1970-01-01T00:00:03.000Z", "desiredValue": 1, "desiredVersion": 3,
                "ackCode": 200, "ackVersion": 3, "ackDescription": "done"})
        );
        assert_eq!(shown["$metadata"]["b"]["desiredVersion"], 4);
    }
}
