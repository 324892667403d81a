//! Assigning a manifest to a gateway: its sections become the desired sections of the gateway's modules.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use schemas::manifest::{Manifest, ManifestError};
use schemas::names::{Identity, ModuleId};
use schemas::twin::Section;
use serde_json::{Map, Value};

use crate::checking;
use crate::error::{ServiceError, no_manifest};
use crate::store::Store;
use crate::store::devices::Device;
use crate::store::manifests;
use crate::store::modules;
use crate::store::twins::{self, Half};
use crate::store::{commands, last_values, series};

/// The manifest that a gateway shall run.
#[derive(Debug)]
pub enum Assignment {
    /// The stored one of this id, as it is now.
    Stored(String),
    /// This one, which is not stored for other gateways.
    Given(Value),
    /// This one, which is the stored one of this id, or what the gateway was assigned under it.
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
pub(super) fn check_manifest(data: &Value) -> Result<(), ServiceError> {
    let wrong = |error: ManifestError| ServiceError::Wrong(format!("data: {error}"));
    let manifest = Manifest::parse(data.to_string().as_bytes()).map_err(wrong)?;
    edge_core::deploy::check(&manifest).map_err(wrong)?;
    Ok(())
}

/// Checks the manifest that a gateway shall run, before it is handed to the writer.
pub(crate) async fn check_assignment(
    store: &Store,
    manifest: Assignment,
) -> Result<Assignment, ServiceError> {
    match manifest {
        Assignment::Stored(id) => {
            let of = id.clone();
            let read = move |c: &Connection| Ok::<_, ServiceError>(manifests::get(c, &of)?);
            let stored = store.read(read).await?.ok_or_else(|| no_manifest(&id))?;
            // What an earlier version took may be wrong for this one.
            checking::check(move || check_manifest(&stored.data)).await?;
            Ok(Assignment::Stored(id))
        }
        Assignment::Given(data) => {
            checking::check(move || check_manifest(&data).map(|()| Assignment::Given(data))).await
        }
        Assignment::Named(id, data) => {
            checking::check(move || check_manifest(&data).map(|()| Assignment::Named(id, data))).await
        }
    }
}

/// Writes a checked manifest's sections into the twins of a gateway's modules; returns those that changed. What is kept of a module
/// that is not in the manifest is deleted: the next one of its name is another module. `$edgeHub` without a section has no routes.
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
    let mut sections = Manifest::sections(&data)?;
    manifests::put_assigned(c, &gateway.id, &data)?;
    gateway.manifest_id = id;
    sections.entry(ModuleId::edge_hub()).or_default();
    delete_others(c, gateway, &sections)?;
    // Before the sections are written: it reads what the manifest before named.
    count_generations(c, gateway, &sections)?;
    write_sections(c, gateway, sections, now_ms)
}

/// The desired sections of a manifest, by module.
type Sections = BTreeMap<ModuleId, Map<String, Value>>;

/// Deletes what is kept of modules that are not in the manifest.
fn delete_others(c: &Connection, gateway: &Device, sections: &Sections) -> Result<(), ServiceError> {
    for module in twins::modules(c, &gateway.id)?.into_iter().chain(commands::modules(c, &gateway.id)?) {
        let is_in_manifest = sections.contains_key(&module) || names(sections).contains(module.as_str());
        if !is_in_manifest && !module.is_system() {
            let identity = Identity::module(gateway.id.clone(), module);
            twins::delete(c, &identity)?;
            commands::delete(c, &identity)?;
            last_values::delete(c, &identity)?;
            series::delete(c, &identity)?;
        }
    }
    Ok(())
}

/// Ends the generations of modules that the manifest before named, and begins those of modules that only this one names.
fn count_generations(c: &Connection, gateway: &Device, sections: &Sections) -> Result<(), ServiceError> {
    let agent = Identity::module(gateway.id.clone(), ModuleId::edge_agent());
    let agent = twins::section(c, &agent, Half::Desired)?;
    // An unreadable section does not make every module a new one.
    if agent.is_unreadable {
        return Ok(());
    }
    let before = agent.section.properties.get("modules").and_then(Value::as_object);
    let before: BTreeSet<&str> = before.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    for left in before.difference(&names(sections)).filter_map(|name| name.parse().ok()) {
        modules::delete(c, &gateway.id, &left)?;
    }
    for added in names(sections).difference(&before).filter_map(|name| name.parse().ok()) {
        modules::add(c, &gateway.id, &added)?;
    }
    Ok(())
}

/// Writes the sections that are other than the stored ones; returns whose they are.
fn write_sections(
    c: &Connection,
    gateway: &Device,
    sections: Sections,
    now_ms: u64,
) -> Result<Vec<Identity>, ServiceError> {
    let mut changed = Vec::new();
    for (module, properties) in sections {
        let identity = Identity::module(gateway.id.clone(), module);
        let stored = twins::section(c, &identity, Half::Desired)?;
        let is_unreadable = stored.is_unreadable;
        let stored = stored.section;
        // A section that was never written has to be, even when it is empty: version 0 says that there is none.
        if stored.version == 0 || is_unreadable || stored.properties != properties {
            let section = Section { version: stored.version + 1, properties };
            twins::write(c, &identity, Half::Desired, &section, now_ms)?;
            changed.push(identity);
        }
    }
    Ok(changed)
}

/// Removes the assignment of a manifest. The gateway keeps what it has until another manifest is assigned, as it does at
/// IoT Hub when its deployment is deleted.
pub(crate) fn remove_assignment(c: &Connection, gateway: &mut Device) -> Result<(), ServiceError> {
    gateway.manifest_id = None;
    Ok(manifests::delete_assigned(c, &gateway.id)?)
}

/// The modules that `$edgeAgent`'s section names.
fn names(sections: &Sections) -> BTreeSet<&str> {
    let section = sections.get(&ModuleId::edge_agent());
    let modules = section.and_then(|section| section.get("modules")).and_then(Value::as_object);
    modules.into_iter().flat_map(Map::keys).map(String::as_str).collect()
}
