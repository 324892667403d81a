//! Whether what operators write to a device fits the model of its template.
//!
//! Devices without a template, with one that is not stored here, and modules have no model here: nothing of theirs is checked.

use central_core::model::types::{Content, ContentKind, Interface, Model, Schema};
use central_core::model::values::{self, Strictness};
use rusqlite::Connection;
use schemas::names::Identity;
use serde_json::{Map, Value};

use crate::error::ServiceError;
use crate::store::devices;
use crate::store::templates as stored;
use crate::templates;
use crate::types::component::{self, MARKER};

/// The model of a device's template.
pub struct DeviceModel {
    model: Model,
    template: String,
}

/// What a write of properties is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The answer to the device.
    pub desired: Map<String, Value>,
    /// What central keeps for itself.
    pub cloud: Map<String, Value>,
}

/// The model of a device; `None` where there is none to check against.
///
/// # Errors
/// [`ServiceError::Store`].
pub fn of_target(c: &Connection, target: &Identity) -> Result<Option<DeviceModel>, ServiceError> {
    if target.module.is_some() {
        return Ok(None);
    }
    let device = devices::get(c, &target.device)?;
    let Some(template) = device.and_then(|device| device.template) else { return Ok(None) };
    let Some(found) = stored::get(c, &template)? else { return Ok(None) };
    // One that was stored by a version with other rules checks nothing.
    Ok(templates::model_of(&found.document).ok().map(|model| DeviceModel { model, template }))
}

impl DeviceModel {
    /// Checks properties that are to be written, and returns which of them are for central alone. A component is under its name.
    ///
    /// # Errors
    /// [`ServiceError::Wrong`] with every property that does not fit.
    pub fn split(
        &self,
        properties: Map<String, Value>,
        takes_unmodeled: bool,
    ) -> Result<Parts, ServiceError> {
        let Some(root) = self.model.root() else {
            return Ok(Parts { desired: properties, ..Parts::default() });
        };
        let mut checker = Checker { of: self, takes_unmodeled, faults: Vec::new() };
        let mut parts = Parts::default();
        for (name, mut value) in properties {
            checker.property(root, None, &name, &value);
            if let Value::Object(inner) = &mut value
                && self.model.component(root, &name).is_some()
            {
                component::set_marker(inner)?;
            }
            if self.is_cloud(root, &name) {
                parts.cloud.insert(name, value);
            } else {
                parts.desired.insert(name, value);
            }
        }
        checker.end()?;
        Ok(parts)
    }

    fn is_cloud(&self, root: &Interface, name: &str) -> bool {
        self.model.content(root, name).is_some_and(Content::is_cloud_property)
    }

    /// Checks what a command is to be run with. Commands that the model does not have are not checked.
    ///
    /// # Errors
    /// [`ServiceError::Wrong`] with every place that does not fit.
    pub fn check_command(&self, method: &str, payload: &Value) -> Result<(), ServiceError> {
        let (component, name) = match method.split_once('*') {
            Some((component, name)) => (Some(component), name),
            None => (None, method),
        };
        let root = self.model.root();
        let interface = match component {
            Some(component) => root.and_then(|root| self.model.component(root, component)),
            None => root,
        };
        let command = interface.and_then(|interface| self.model.content(interface, name));
        let Some(ContentKind::Command { request, .. }) = command.map(|content| &content.kind) else {
            return Ok(());
        };
        let mut checker = Checker { of: self, takes_unmodeled: true, faults: Vec::new() };
        match request {
            None if payload.is_null() => {}
            None => checker.add("request", format!("found {}; the command takes none", short(payload))),
            Some(request) if payload.is_null() => {
                checker.add("request", format!("missing; it is `{}`", request.name));
            }
            Some(request) => checker.value("request", payload, &request.schema),
        }
        checker.end()
    }
}

/// A value in a message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

struct Checker<'m> {
    of: &'m DeviceModel,
    takes_unmodeled: bool,
    faults: Vec<String>,
}

impl Checker<'_> {
    fn add(&mut self, at: &str, why: String) {
        self.faults.push(format!("{at}: {why}"));
    }

    fn end(self) -> Result<(), ServiceError> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let (template, faults) = (&self.of.template, self.faults.join("; "));
        Err(ServiceError::Wrong(format!("{faults} (device template `{template}`)")))
    }

    fn value(&mut self, at: &str, value: &Value, schema: &Schema) {
        for fault in values::check(value, schema, Strictness::IotCentral) {
            let place = match fault.path.as_str() {
                "" => at.to_owned(),
                path if path.starts_with('[') => format!("{at}{path}"),
                path => format!("{at}.{path}"),
            };
            self.add(&place, format!("found {}; write {}", fault.found, fault.expected));
        }
    }

    fn property(&mut self, interface: &Interface, component: Option<&str>, name: &str, value: &Value) {
        let at = component.map_or_else(|| name.to_owned(), |component| format!("{component}.{name}"));
        let Some(content) = self.of.model.content(interface, name) else {
            if !self.takes_unmodeled && !value.is_null() {
                self.add(
                    &at,
                    "not in the template; add `unmodeled=true` to the address to write it all the same"
                        .to_owned(),
                );
            }
            return;
        };
        match &content.kind {
            ContentKind::Property { writable, .. } if !writable && !content.is_cloud_property() => {
                if !value.is_null() {
                    self.add(&at, "it is read-only: the device alone writes it".to_owned());
                }
            }
            ContentKind::Property { schema, .. } => {
                // What takes a property away has no schema.
                if !value.is_null() {
                    let before = self.faults.len();
                    self.value(&at, value, schema);
                    // A value of the wrong type needs no second fault about its range.
                    if self.faults.len() == before {
                        self.range(&at, value, content);
                    }
                }
            }
            ContentKind::Component { .. } if component.is_none() => match value {
                Value::Object(properties) => self.component(interface, name, properties),
                Value::Null => {}
                other => self.add(&at, format!("found {}; it is a component: write an object", short(other))),
            },
            ContentKind::Telemetry { .. } => self.add(&at, "it is telemetry".to_owned()),
            ContentKind::Command { .. } => self.add(&at, "it is a command".to_owned()),
            ContentKind::Component { .. } | ContentKind::Relationship(_) => {
                self.add(&at, "it is no property".to_owned());
            }
        }
    }

    /// IoT Central's `minValue` and `maxValue`.
    fn range(&mut self, at: &str, value: &Value, content: &Content) {
        let Some(number) = value.as_f64() else { return };
        let bound = |name: &str| content.other.get(name).and_then(Value::as_f64);
        if let Some(min) = bound("minValue").filter(|min| number < *min) {
            self.add(at, format!("found {number}; write at least {min}"));
        }
        if let Some(max) = bound("maxValue").filter(|max| number > *max) {
            self.add(at, format!("found {number}; write at most {max}"));
        }
    }

    fn component(&mut self, root: &Interface, component: &str, properties: &Map<String, Value>) {
        // `property` came here because the model has it.
        let Some(interface) = self.of.model.component(root, component) else {
            return;
        };
        for (name, value) in properties.iter().filter(|(name, _)| *name != MARKER) {
            self.property(interface, Some(component), name, value);
        }
    }
}
