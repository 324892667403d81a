//! What operators want of gateways and devices: desired properties, and manifests, which are desired properties too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edge_core::twin;
use rusqlite::Connection;
use schemas::manifest::{Manifest, ManifestError};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Section;
use serde_json::{Map, Value};

use crate::clock::now_ms;
use crate::component::{self, ComponentName, has_component};
use crate::error::{ServiceError, no_manifest};
use crate::fleet::{Fleet, Registration};
use crate::lookup::require;
use crate::organizations::Organizations;
use crate::precondition::Precondition;
use crate::store::devices::{self, Device};
use crate::store::manifests::{self, StoredManifest};
use crate::store::modules;
use crate::store::twins::{self, Half};
use crate::store::{commands, last_values, series};
use crate::update::Update;

/// What a desired change makes of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DesiredChange {
    /// RFC 7396 merge.
    Merge,
    Replace,
}

impl Fleet {
    /// Changes a desired section, or only what it has of one component, and tells whom it is for. `wish` has valid keys; it is the
    /// whole section, or the component under its name.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for the device or module; [`ServiceError::Wrong`] when the section grows too large;
    /// [`ServiceError::Conflict`] for a component where a property of another kind stands.
    pub async fn desire(
        self: &Arc<Self>,
        of: Identity,
        change: DesiredChange,
        component: Option<ComponentName>,
        mut wish: Map<String, Value>,
    ) -> Result<(), ServiceError> {
        let (now_ms, clients, target) = (now_ms(), self.clients.clone(), of.clone());
        let whom = of.clone();
        let written = self.store.submit_then(
            1024,
            move |c| {
                let device = require(c, &of)?;
                if of.module.as_ref().is_some_and(ModuleId::is_system) {
                    return Err(ServiceError::Wrong(format!(
                        "module of `{of}`: the manifest writes its properties"
                    )));
                }
                let stored = twins::section(c, &of, Half::Desired)?;
                if stored.is_unreadable && matches!(change, DesiredChange::Merge) {
                    return Err(ServiceError::Conflict(format!(
                        "the desired properties of `{of}` cannot be read, so nothing can be merged into them; write them \
                         whole with PUT"
                    )));
                }
                let mut section = stored.section;
                let reported = twins::section(c, &of, Half::Reported)?.section;
                if let Some(name) = &component {
                    check_component(&of, name, [&section, &reported])?;
                    if change == DesiredChange::Replace {
                        let others = section.properties.iter().filter(|(other, _)| *other != name.as_str());
                        wish.extend(others.map(|(other, value)| (other.clone(), value.clone())));
                    }
                }
                component::mark_known(&mut wish, [&section, &reported])?;
                let mut patch = match change {
                    DesiredChange::Merge => wish,
                    DesiredChange::Replace => twin::difference(&section.properties, &wish),
                };
                component::mark_known(&mut patch, [&section, &reported])?;
                twin::patch(&mut section, &patch)?;
                twins::write(c, &of, Half::Desired, &section, now_ms)?;
                Ok((device, section.version, patch))
            },
            // On the writer's thread: a later version cannot overtake an earlier one on its way to the device.
            move |(_, version, patch): &(Device, u64, _)| clients.send_desired(&target, *version, patch),
        );
        if let Some(gateway) = written.await?.0.carrier() {
            self.tell_desired(gateway, whom);
        }
        Ok(())
    }

    /// Stores a manifest, or changes the stored one; unless `must_exist`, a new one is made.
    ///
    /// # Errors
    /// [`ServiceError::Wrong`] naming the field, [`ServiceError::PreconditionFailed`], [`ServiceError::NotFound`] when `must_exist`.
    pub async fn store_manifest(
        &self,
        id: String,
        change: ManifestChange,
        must_exist: bool,
        precondition: Precondition,
    ) -> Result<StoredManifest, ServiceError> {
        if let Some(data) = &change.data {
            check_manifest(data)?;
        }
        self.store
            .submit(move |c| {
                let stands = manifests::get(c, &id)?;
                if must_exist && stands.is_none() {
                    return Err(no_manifest(&id));
                }
                precondition.check(stands.as_ref().map(StoredManifest::etag).as_deref())?;
                let missing = || ServiceError::Wrong("data: missing; write the manifest".into());
                let old_name = stands.as_ref().map(|stands| stands.display_name.clone());
                let (display_name, data, organizations) = match stands {
                    Some(stands) => (stands.display_name, Some(stands.data), stands.organizations),
                    None => (id.clone(), None, Organizations::default()),
                };
                let mut manifest = StoredManifest {
                    id,
                    display_name: change.display_name.unwrap_or(display_name),
                    data: change.data.or(data).ok_or_else(missing)?,
                    organizations: change.organizations.over(Some(organizations)).unwrap_or_default(),
                    revision: 0,
                };
                manifest.revision = manifests::put(c, &manifest)?;
                if old_name.is_some_and(|old| old != manifest.display_name) {
                    // It stands in what is read of each of them.
                    devices::manifest_renamed(c, &manifest.id)?;
                }
                Ok(manifest)
            })
            .await
    }

    /// Gives a gateway a manifest, as [`Fleet::register`] does.
    ///
    /// # Errors
    /// As [`Fleet::register`].
    pub async fn apply_manifest(
        self: &Arc<Self>,
        gateway: DeviceId,
        manifest: Assignment,
        precondition: Precondition,
    ) -> Result<Device, ServiceError> {
        let change = Registration { manifest: Update::Set(manifest), ..Registration::default() };
        self.register(gateway, change, true, precondition).await
    }
}

/// Refuses to make a component of a property that is none.
fn check_component(of: &Identity, name: &ComponentName, sections: [&Section; 2]) -> Result<(), ServiceError> {
    let stands = sections.iter().find_map(|section| section.properties.get(name.as_str()));
    if stands.is_some() && !sections.iter().any(|section| has_component(section, name.as_str())) {
        return Err(ServiceError::Conflict(format!(
            "component `{name}`: `{of}` has a property of this name that is no component; write it with …/properties"
        )));
    }
    Ok(())
}

/// A change of a stored manifest; what is `None` or [`Update::Keep`] stays.
#[derive(Debug, Default)]
pub struct ManifestChange {
    pub display_name: Option<String>,
    pub data: Option<Value>,
    /// What it belongs to.
    pub organizations: Update<Organizations>,
}

/// The manifest that a gateway shall run.
#[derive(Debug)]
pub enum Assignment {
    /// The stored one of this id, as it is now.
    Stored(String),
    /// This one, which is not stored for other gateways.
    Given(Value),
    /// This one, which is the stored one of this id, or what the gateway was given under it.
    Named(String, Value),
}

impl Assignment {
    /// The manifest, and the id under which it is stored.
    fn find(self, c: &Connection, gateway: &Device) -> Result<(Value, Option<String>), ServiceError> {
        match self {
            Self::Stored(id) => {
                let stored = manifests::get(c, &id)?.ok_or_else(|| no_manifest(&id))?;
                Ok((stored.data, Some(id)))
            }
            Self::Given(data) => Ok((data, None)),
            Self::Named(id, data) => {
                let is_stored = manifests::get(c, &id)?.is_some_and(|stored| stored.data == data);
                let is_assigned = gateway.manifest_id.as_ref() == Some(&id)
                    && manifests::assigned::<Value>(c, &gateway.id)?.is_some_and(|assigned| assigned == data);
                if is_stored || is_assigned {
                    return Ok((data, Some(id)));
                }
                Err(ServiceError::Wrong(format!(
                    "data: it is not what is stored as deployment manifest `{id}`; leave out the id, or store it there first"
                )))
            }
        }
    }
}

/// Reads the whole manifest, routes included, with what the gateway will read it with.
fn check_manifest(data: &Value) -> Result<(), ServiceError> {
    let wrong = |error: ManifestError| ServiceError::Wrong(format!("data: {error}"));
    let manifest = Manifest::parse(data.to_string().as_bytes()).map_err(wrong)?;
    edge_core::deploy::check(&manifest).map_err(wrong)?;
    Ok(())
}

/// Writes a manifest's sections into the twins of a gateway's modules; gives those that changed. What is kept of a module
/// that is not in the manifest goes: the next one of its name is another module. `$edgeHub` without a section has no routes.
pub(crate) fn assign(
    c: &Connection,
    gateway: &mut Device,
    manifest: Assignment,
    now_ms: u64,
) -> Result<Vec<Identity>, ServiceError> {
    let (data, id) = manifest.find(c, gateway)?;
    if !gateway.is_gateway {
        return Err(ServiceError::Wrong(format!(
            "deploymentManifest: device `{}` is not a gateway; register it with \"type\": [\"iotEdge\"]",
            gateway.id
        )));
    }
    check_manifest(&data)?;
    let mut sections = Manifest::sections(&data)?;
    manifests::put_assigned(c, &gateway.id, &data)?;
    gateway.manifest_id = id;
    sections.entry(ModuleId::edge_hub()).or_default();
    for module in twins::modules(c, &gateway.id)?.into_iter().chain(commands::modules(c, &gateway.id)?) {
        let is_in_manifest = sections.contains_key(&module) || names(&sections).contains(module.as_str());
        if !is_in_manifest && !module.is_system() {
            let identity = Identity::module(gateway.id.clone(), module);
            twins::delete(c, &identity)?;
            commands::delete(c, &identity)?;
            last_values::delete(c, &identity)?;
            series::delete(c, &identity)?;
        }
    }
    let agent =
        twins::section(c, &Identity::module(gateway.id.clone(), ModuleId::edge_agent()), Half::Desired)?;
    let before = agent.section.properties.get("modules").and_then(Value::as_object);
    let before: BTreeSet<&str> = before.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    // What cannot be read is no reason to take every module for a new one.
    if !agent.is_unreadable {
        for left in before.difference(&names(&sections)).filter_map(|name| name.parse().ok()) {
            modules::delete(c, &gateway.id, &left)?;
        }
        for added in names(&sections).difference(&before).filter_map(|name| name.parse().ok()) {
            modules::add(c, &gateway.id, &added)?;
        }
    }
    let mut changed = Vec::new();
    for (module, properties) in sections {
        let identity = Identity::module(gateway.id.clone(), module);
        let stored = twins::section(c, &identity, Half::Desired)?;
        let stands = stored.section;
        if stands.version == 0 || stored.is_unreadable || stands.properties != properties {
            let section = Section { version: stands.version + 1, properties };
            twins::write(c, &identity, Half::Desired, &section, now_ms)?;
            changed.push(identity);
        }
    }
    Ok(changed)
}

/// Takes the assignment of a manifest away. The gateway keeps what it was given until another manifest is assigned, as it does at
/// IoT Hub when its deployment is deleted.
pub(crate) fn take_assignment(c: &Connection, gateway: &mut Device) -> Result<(), ServiceError> {
    gateway.manifest_id = None;
    Ok(manifests::delete_assigned(c, &gateway.id)?)
}

/// The modules that `$edgeAgent`'s section names.
fn names(sections: &BTreeMap<ModuleId, Map<String, Value>>) -> BTreeSet<&str> {
    let section = sections.get(&ModuleId::edge_agent());
    let modules = section.and_then(|section| section.get("modules")).and_then(Value::as_object);
    modules.into_iter().flat_map(Map::keys).map(String::as_str).collect()
}
