//! What operators want of gateways and devices: desired properties, and manifests, which are desired properties too.

use std::sync::Arc;

use edge_core::twin;
use edge_hub::clients::Clients;
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Section;
use serde_json::{Map, Value};

use super::assignment::{Assignment, check_manifest};
use crate::checking;
use crate::clock::now_ms;
use crate::error::{ServiceError, no_manifest};
use crate::gateway_sync::service::GatewaySync;
use crate::lookup::require;
use crate::registry::registration::Registration;
use crate::registry::service::Registry;
use crate::store::Store;
use crate::store::devices::{self, Device};
use crate::store::manifests::{self, StoredManifest};
use crate::store::twins::{self, Half};
use crate::types::component::{self, ComponentName, has_component};
use crate::types::organizations::Organizations;
use crate::types::precondition::Precondition;
use crate::types::update::Update;

/// What a desired change makes of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DesiredChange {
    /// RFC 7396 merge.
    Merge,
    Replace,
}

/// Desired properties and deployment manifests.
pub struct Deployments {
    store: Store,
    clients: Clients,
    gateway_sync: Arc<GatewaySync>,
    registry: Arc<Registry>,
}

impl Deployments {
    pub fn new(
        store: Store,
        clients: Clients,
        gateway_sync: Arc<GatewaySync>,
        registry: Arc<Registry>,
    ) -> Self {
        Self { store, clients, gateway_sync, registry }
    }

    /// Changes the desired section of `of`, or only what it has of one component, and sends the change to the device.
    /// `properties` has valid keys; it is the whole section, or the component under its name.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for the device or module; [`ServiceError::Wrong`] when the section grows too large;
    /// [`ServiceError::Conflict`] for a component whose name a property of another kind has.
    pub async fn desire(
        &self,
        of: Identity,
        change: DesiredChange,
        component: Option<ComponentName>,
        properties: Map<String, Value>,
    ) -> Result<(), ServiceError> {
        let (now_ms, clients, target) = (now_ms(), self.clients.clone(), of.clone());
        let written = self.store.submit_then(
            1024,
            {
                let of = of.clone();
                move |c| desire(c, &of, change, component.as_ref(), properties, now_ms)
            },
            // On the writer's thread: a later version cannot overtake an earlier one on its way to the device.
            move |desired: &Desired| clients.send_desired(&target, desired.version, &desired.patch),
        );
        if let Some(gateway) = written.await?.device.serving_gateway() {
            self.gateway_sync.send_desired(gateway, of);
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
        let mut change = change;
        if let Some(data) = change.data.take() {
            change.data = Some(checking::check(move || check_manifest(&data).map(|()| data)).await?);
        }
        self.store.submit(move |c| store_manifest(c, id, change, must_exist, &precondition)).await
    }

    /// Assigns a manifest to a gateway, as [`Registry::register`] does.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub async fn apply_manifest(
        &self,
        gateway: DeviceId,
        manifest: Assignment,
        precondition: Precondition,
    ) -> Result<Device, ServiceError> {
        let change = Registration { manifest: Update::Set(manifest), ..Registration::default() };
        self.registry.register(gateway, change, true, precondition).await
    }
}

/// A desired section that was changed.
struct Desired {
    device: Device,
    version: u64,
    patch: Map<String, Value>,
}

/// As [`Deployments::desire`], within one transaction.
fn desire(
    c: &Connection,
    of: &Identity,
    change: DesiredChange,
    component: Option<&ComponentName>,
    mut properties: Map<String, Value>,
    now_ms: u64,
) -> Result<Desired, ServiceError> {
    let device = require(c, of)?;
    if of.module.as_ref().is_some_and(ModuleId::is_system) {
        return Err(ServiceError::Wrong(format!("module of `{of}`: the manifest writes its properties")));
    }
    let stored = twins::section(c, of, Half::Desired)?;
    if stored.is_unreadable && matches!(change, DesiredChange::Merge) {
        return Err(ServiceError::Conflict(format!(
            "the desired properties of `{of}` cannot be read, so nothing can be merged into them; write them whole with PUT"
        )));
    }
    let mut section = stored.section;
    let reported = twins::section(c, of, Half::Reported)?.section;
    if let Some(name) = component {
        check_component(of, name, [&section, &reported])?;
        if change == DesiredChange::Replace {
            let others = section.properties.iter().filter(|(other, _)| *other != name.as_str());
            properties.extend(others.map(|(other, value)| (other.clone(), value.clone())));
        }
    }
    component::set_known_markers(&mut properties, [&section, &reported])?;
    let mut patch = match change {
        DesiredChange::Merge => properties,
        DesiredChange::Replace => twin::difference(&section.properties, &properties),
    };
    component::set_known_markers(&mut patch, [&section, &reported])?;
    twin::patch(&mut section, &patch)?;
    twins::write(c, of, Half::Desired, &section, now_ms)?;
    Ok(Desired { device, version: section.version, patch })
}

/// As [`Deployments::store_manifest`], within one transaction; `change.data` is valid.
fn store_manifest(
    c: &Connection,
    id: String,
    change: ManifestChange,
    must_exist: bool,
    precondition: &Precondition,
) -> Result<StoredManifest, ServiceError> {
    let stored = manifests::get(c, &id)?;
    if must_exist && stored.is_none() {
        return Err(no_manifest(&id));
    }
    precondition.check(stored.as_ref().map(StoredManifest::etag).as_deref())?;
    let missing = || ServiceError::Wrong("data: missing; write the manifest".into());
    let old_name = stored.as_ref().map(|stored| stored.display_name.clone());
    let (display_name, data, organizations) = match stored {
        Some(stored) => (stored.display_name, Some(stored.data), stored.organizations),
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
        // The devices that it is assigned to show it.
        devices::manifest_renamed(c, &manifest.id)?;
    }
    Ok(manifest)
}

/// Returns an error if a property that is no component has the name of the component.
fn check_component(of: &Identity, name: &ComponentName, sections: [&Section; 2]) -> Result<(), ServiceError> {
    let property = sections.iter().find_map(|section| section.properties.get(name.as_str()));
    if property.is_some() && !sections.iter().any(|section| has_component(section, name.as_str())) {
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
    pub organizations: Update<Organizations>,
}
