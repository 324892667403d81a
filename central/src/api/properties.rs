//! `…/properties`: the twin of a device or module as IoT Central shows it, in one object.
//!
//! A property's value is the reported one, and the desired one until something is reported. `$metadata` tells the two
//! apart. A writable property is acknowledged as `{"value", "ac", "av", "ad"}` and shown as its plain value.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use central_core::access::further::{LacksFurther, READ_SYSTEM_MODULE};
use edge_core::twin;
use rusqlite::Connection;
use schemas::json;
use schemas::names::{Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde::Serialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::error::{Answer, ErrorBody};
use super::extract::{ApiVersion, JsonBytes, OfDevice, OfModule, StrictPath, StrictQuery, Unmodeled};
use crate::clock::now_ms;
use crate::conformance::{self, Parts};
use crate::deployments::service::DesiredChange;
use crate::error::ServiceError;
use crate::lookup::require;
use crate::people::caller::Caller;
use crate::services::Services;
use crate::store::Store;
use crate::store::cloud_properties;
use crate::store::twins::{self, Half, StoredSection};
use crate::types::component::{self, ComponentName};

/// What a read says of each property beside its value.
const METADATA: &str = "$metadata";

/// Properties of a device, module or component. A component among them has `$metadata` of its own.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Properties {
    /// The values: reported ones, and desired ones until something is reported.
    #[serde(flatten)]
    values: BTreeMap<String, Value>,
    #[serde(rename = "$metadata")]
    metadata: BTreeMap<String, PropertyMetadata>,
}

/// What is known of a property beside its value.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct PropertyMetadata {
    /// When it was last desired or reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    last_update_time: Option<String>,
    /// What an operator wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_value: Option<Value>,
    /// The version of the desired section that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    desired_version: Option<u64>,
    /// What the device says became of it, as HTTP has it: 200 is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_code: Option<Value>,
    /// Of which desired version it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_version: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ack_description: Option<Value>,
}

/// Checks that its maker may read the twin of a module: a gateway's manifest is written into those of its system modules.
pub(super) fn check_module(caller: &Caller, module: &ModuleId) -> Result<(), LacksFurther> {
    if module.is_system() { caller.also_needs(&READ_SYSTEM_MODULE) } else { Ok(()) }
}

/// The properties of a device.
#[utoipa::path(get, path = "/api/devices/{device_id}/properties", tag = "properties",
    params(OfDevice, ApiVersion, Unmodeled),
    security(("token" = [])), responses((status = 200, body = Properties), (status = 404, body = ErrorBody)))]
pub(super) async fn get(
    State(store): State<Store>,
    StrictPath(of): StrictPath<OfDevice>,
    _: StrictQuery<Unmodeled>,
) -> Answer<Json<Properties>> {
    shown(&store, of.into(), None).await
}

/// Merges desired properties of a device; `null` deletes one.
#[utoipa::path(patch, path = "/api/devices/{device_id}/properties", tag = "properties",
    params(OfDevice, ApiVersion, Unmodeled),
    request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(unmodeled): StrictQuery<Unmodeled>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    desire(&services, of.into(), None, DesiredChange::Merge, unmodeled.is_taken(), &body.0).await
}

/// Replaces the desired properties of a device.
#[utoipa::path(put, path = "/api/devices/{device_id}/properties", tag = "properties",
    params(OfDevice, ApiVersion, Unmodeled),
    request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfDevice>,
    StrictQuery(unmodeled): StrictQuery<Unmodeled>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    desire(&services, of.into(), None, DesiredChange::Replace, unmodeled.is_taken(), &body.0).await
}

/// The properties of a module.
#[utoipa::path(get, path = "/api/devices/{device_id}/modules/{module_name}/properties", tag = "properties",
    params(OfModule, ApiVersion), security(("token" = [])),
    responses((status = 200, body = Properties), (status = 404, body = ErrorBody)))]
pub(super) async fn get_of_module(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    StrictPath(of): StrictPath<OfModule>,
) -> Answer<Json<Properties>> {
    check_module(&caller, &of.module_name)?;
    shown(&store, of.into(), None).await
}

/// Merges desired properties of a module; `null` deletes one.
#[utoipa::path(patch, path = "/api/devices/{device_id}/modules/{module_name}/properties", tag = "properties",
    params(OfModule, ApiVersion), request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn patch_of_module(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModule>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    desire(&services, of.into(), None, DesiredChange::Merge, true, &body.0).await
}

/// Replaces the desired properties of a module.
#[utoipa::path(put, path = "/api/devices/{device_id}/modules/{module_name}/properties", tag = "properties",
    params(OfModule, ApiVersion), request_body = BTreeMap<String, Value>, security(("token" = [])),
    responses((status = 202, body = Properties), (status = 404, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(super) async fn put_of_module(
    State(services): State<Services>,
    StrictPath(of): StrictPath<OfModule>,
    body: JsonBytes,
) -> Answer<(StatusCode, Json<Properties>)> {
    desire(&services, of.into(), None, DesiredChange::Replace, true, &body.0).await
}

/// Writes desired properties, or those of one component, and what the template keeps for central. They are accepted, not in force: the
/// device says when they are.
pub(super) async fn desire(
    services: &Services,
    of: Identity,
    component: Option<ComponentName>,
    change: DesiredChange,
    takes_unmodeled: bool,
    body: &[u8],
) -> Answer<(StatusCode, Json<Properties>)> {
    let properties = requested(component.as_ref(), change, body)?;
    let is_whole = change == DesiredChange::Replace && component.is_none();
    let target = of.clone();
    let split = move |c: &Connection| match conformance::of_target(c, &target)? {
        Some(model) => Ok((model.split(properties, takes_unmodeled)?, is_whole)),
        // Without a model nothing says which properties are cloud properties, so those that are kept stay.
        None => Ok((Parts { desired: properties, ..Parts::default() }, false)),
    };
    let (parts, is_whole) = services.store.read::<_, ServiceError>(split).await?;
    let is_for_device = !parts.desired.is_empty() || parts.cloud.is_empty();
    // A value of an earlier template is deleted by its name, whatever the template says now.
    let deleted = parts.desired.iter().filter(|(_, value)| value.is_null());
    let mut cloud = parts.cloud;
    cloud.extend(deleted.map(|(name, value)| (name.clone(), value.clone())));
    if is_for_device || is_whole {
        services.deployments.desire(of.clone(), change, component.clone(), parts.desired).await?;
    }
    if of.module.is_none() && component.is_none() && (is_whole || !cloud.is_empty()) {
        let target = of.clone();
        let write = move |c: &Connection| {
            require(c, &target)?;
            Ok::<_, ServiceError>(cloud_properties::write(c, &target.device, &cloud, is_whole, now_ms())?)
        };
        services.store.submit(write).await?;
    }
    Ok((StatusCode::ACCEPTED, shown(&services.store, of, component.as_ref()).await?))
}

/// The properties of a body; those of a component under its name.
fn requested(
    component: Option<&ComponentName>,
    change: DesiredChange,
    body: &[u8],
) -> Result<Map<String, Value>, ServiceError> {
    let properties = match component {
        None => twin::parse_patch(&without_metadata(body))?,
        Some(name) => {
            let mut properties = twin::parse_patch(body)?;
            component::set_marker(&mut properties)?;
            let whole = Map::from_iter([(name.to_string(), Value::Object(properties))]);
            // Once more: it is one level deeper.
            twin::parse_patch(Value::Object(whole).to_string().as_bytes())?
        }
    };
    if change == DesiredChange::Replace {
        twin::check_whole(&properties)?;
    }
    Ok(properties)
}

/// A body without the `$metadata` that a read puts into each component, so that what was read can be written.
fn without_metadata(body: &[u8]) -> Cow<'_, [u8]> {
    let Ok(Value::Object(mut properties)) = json::from_outside(body) else { return body.into() };
    let inner = properties.values_mut().filter_map(Value::as_object_mut);
    let removed: Vec<Value> = inner.filter_map(|inner| inner.remove(METADATA)).collect();
    if removed.is_empty() { body.into() } else { Value::Object(properties).to_string().into_bytes().into() }
}

/// The properties of a device or module, or of one component of it.
pub(super) async fn shown(
    store: &Store,
    of: Identity,
    component: Option<&ComponentName>,
) -> Answer<Json<Properties>> {
    let has_cloud = of.module.is_none() && component.is_none();
    let (desired, reported, cloud) = store
        .read(move |c| {
            require(c, &of)?;
            let half = |half| twins::section(c, &of, half);
            let cloud = if has_cloud { cloud_properties::list(c, &of.device)? } else { BTreeMap::default() };
            Ok::<_, ServiceError>((half(Half::Desired)?, half(Half::Reported)?, cloud))
        })
        .await?;
    let level = Level { desired: &desired, reported: &reported, component: None };
    let mut shown = match component {
        None => level.shown(),
        Some(name) => Level { component: Some(name.as_str()), ..level }.shown(),
    };
    for (name, property) in cloud {
        let last_update_time = Some(rfc3339(property.changed_ms));
        shown.metadata.insert(name.clone(), PropertyMetadata { last_update_time, ..Default::default() });
        shown.values.insert(name, property.value);
    }
    Ok(Json(shown))
}

/// The properties at the top of a twin, or those of one component.
#[derive(Clone, Copy)]
struct Level<'a> {
    desired: &'a StoredSection,
    reported: &'a StoredSection,
    component: Option<&'a str>,
}

impl<'a> Level<'a> {
    fn properties(&self, section: &'a StoredSection) -> Option<&'a Map<String, Value>> {
        match self.component {
            None => Some(&section.section.properties),
            Some(component) => section.section.properties.get(component)?.as_object(),
        }
    }

    /// When a property changed, and the version of the section then.
    fn touched(&self, section: &StoredSection, name: &str) -> Option<(u64, u64)> {
        let Some(component) = self.component else { return section.touched.get(name).copied() };
        // Sections of earlier versions know when the component changed.
        let own = section.touched.get(&ComponentName::touched_key(component, name));
        own.or_else(|| section.touched.get(component)).copied()
    }

    fn shown(self) -> Properties {
        let nothing = Map::new();
        let desired = self.properties(self.desired).unwrap_or(&nothing);
        let reported = self.properties(self.reported).unwrap_or(&nothing);
        let (mut values, mut metadata) = (BTreeMap::new(), BTreeMap::new());
        for name in desired.keys().chain(reported.keys().filter(|name| !desired.contains_key(*name))) {
            let halves = [desired.get(name), reported.get(name)];
            if self.component.is_none() && halves.into_iter().flatten().any(component::is_component) {
                let inner = Level { component: Some(name), ..self }.shown();
                values.insert(name.clone(), inner.into());
                continue;
            }
            if self.component.is_some() && name == component::MARKER {
                continue;
            }
            let (value, about) = self.property(name, halves);
            values.insert(name.clone(), value);
            metadata.insert(name.clone(), about);
        }
        Properties { values, metadata }
    }

    /// The value of a property, and what `$metadata` says of it.
    fn property(&self, name: &str, [desired, reported]: [Option<&Value>; 2]) -> (Value, PropertyMetadata) {
        let at = |section| self.touched(section, name);
        let last = [at(self.reported), at(self.desired)].into_iter().flatten().max();
        let version = at(self.desired).map_or(self.desired.section.version, |(_, version)| version);
        let about = PropertyMetadata {
            last_update_time: last.map(|(at_ms, _)| rfc3339(at_ms)),
            desired_value: desired.cloned(),
            desired_version: desired.map(|_| version),
            ..PropertyMetadata::default()
        };
        match reported {
            Some(reported) => plain_value(reported, about),
            None => (desired.cloned().unwrap_or_default(), about),
        }
    }
}

impl From<Properties> for Value {
    fn from(properties: Properties) -> Self {
        serde_json::json!(properties)
    }
}

/// The value inside an acknowledgement, whose other fields go to `about`; any other value as it is.
fn plain_value(reported: &Value, about: PropertyMetadata) -> (Value, PropertyMetadata) {
    let (Some(value), Some(code)) = (reported.get("value"), reported.get("ac")) else {
        return (reported.clone(), about);
    };
    let about = PropertyMetadata {
        ack_code: Some(code.clone()),
        ack_version: reported.get("av").cloned(),
        ack_description: reported.get("ad").cloned(),
        ..about
    };
    (value.clone(), about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::twin::Section;
    use serde_json::json;

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
        let level = Level { desired: &desired, reported: &reported, component: None };
        let shown = Value::from(level.shown());
        assert_eq!((&shown["a"], &shown["b"], &shown["c"]), (&json!(7), &json!(2), &json!({"value": 1})));
        assert_eq!(
            shown["$metadata"]["a"],
            json!({"lastUpdateTime": "1970-01-01T00:00:03.000Z", "desiredValue": 1, "desiredVersion": 3,
                "ackCode": 200, "ackVersion": 3, "ackDescription": "done"})
        );
        assert_eq!(shown["$metadata"]["b"]["desiredVersion"], 4);
    }

    #[test]
    fn a_component_is_shown_with_its_own_metadata_without_its_marker_and_its_acknowledgements_unwrapped() {
        let desired = section(
            4,
            json!({"settings": {"__t": "c", "fan": 7, "volt": 5}, "plain": {"x": 1}}),
            &[("settings", 1000, 2), ("settings.fan", 1000, 2), ("settings.volt", 4000, 4)],
        );
        let reported = section(
            9,
            json!({"settings": {"__t": "c", "fan": {"value": 6, "ac": 202, "av": 2, "ad": "slow"}, "rpm": 90}}),
            &[("settings", 3000, 9), ("settings.fan", 3000, 8)],
        );
        let level = Level { desired: &desired, reported: &reported, component: None };
        let shown = Value::from(level.shown());
        let settings = json!({"fan": 6, "volt": 5, "rpm": 90, "$metadata": {
            "fan": {"lastUpdateTime": "1970-01-01T00:00:03.000Z", "desiredValue": 7, "desiredVersion": 2,
                "ackCode": 202, "ackVersion": 2, "ackDescription": "slow"},
            "volt": {"lastUpdateTime": "1970-01-01T00:00:04.000Z", "desiredValue": 5, "desiredVersion": 4},
            "rpm": {"lastUpdateTime": "1970-01-01T00:00:03.000Z"}}});
        assert_eq!((&shown["settings"], &shown["plain"]), (&settings, &json!({"x": 1})));
        assert_eq!(shown["$metadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["plain"]);
        let alone = Level { component: Some("settings"), ..level };
        assert_eq!(Value::from(alone.shown()), settings);
    }
}
