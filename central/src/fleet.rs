//! What an operator's wish does to gateways and devices: each change is stored, and then told to whom it concerns.

use edge_core::error_chain::chain;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};

use edge_core::access::x509::Trust;
use edge_core::twin;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use edge_hub::enrolling::Enrolling;
use edge_hub::single_flight::SingleFlight;
use rusqlite::Connection;
use schemas::link::CHILDREN_MAX;
use schemas::manifest::ManifestError;
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::authorize::{adopt_claim, end_claim};
use crate::c2d::{self, StoredCloudMessages};
use crate::clock::now_ms;
use crate::commands::Running;
use crate::component::InvalidMarker;
use crate::deploy::{Assignment, assign, take_assignment};
use crate::ingest::Ingest;
use crate::link::Outbox;
use crate::organizations::Organizations;
use crate::precondition::Precondition;
use crate::presence::Connections;
use crate::store::cloud_messages;
use crate::store::devices::{self, Device, Relationship};
use crate::store::enrollments;
use crate::store::twins::{self, Half};
use crate::store::{Store, StoreError};
use crate::update::Update;

/// Why something was not done. The variants are what a caller tells apart: IoT Central's status codes.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// There is no such thing. 404.
    #[error("{0}")]
    NotFound(String),
    /// It contradicts what stands. 409.
    #[error("{0}")]
    Conflict(String),
    /// It is not in the state that the change was made for. 412.
    #[error("{0}")]
    PreconditionFailed(String),
    /// It was understood and is wrong; the message names the field. 422.
    #[error("{0}")]
    Wrong(String),
    /// Larger than it may be. 413.
    #[error("{0}")]
    TooLarge(String),
    /// As much waits as may. 403, as IoT Hub answers.
    #[error("{0}")]
    QueueFull(String),
    /// Too much at once. 429.
    #[error("{0}")]
    Busy(String),
    /// The sender may not speak for the identity. 403.
    #[error("{0}")]
    Forbidden(String),
    /// The device waits for an operator's approval, or was blocked. 403; the Device Provisioning Service's error 400209.
    #[error("{0}")]
    NotApproved(String),
    /// central is stopping. 503.
    #[error("{0}")]
    Stopping(String),
    /// The store failed. 503.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for FleetError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<ManifestError> for FleetError {
    fn from(error: ManifestError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<twin::PatchError> for FleetError {
    fn from(error: twin::PatchError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<InvalidMarker> for FleetError {
    fn from(error: InvalidMarker) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// All gateways and devices, and the way to them. One for the whole program.
pub struct Fleet {
    pub store: Store,
    /// The way of telemetry into it.
    pub(crate) ingest: Ingest,
    /// Who is connected to central's own listener.
    pub clients: Clients,
    /// Who is connected where.
    pub connections: Connections,
    /// The names by which devices may call central in their SAS tokens.
    pub hosts: Vec<String>,
    /// Those whose certificates devices may show.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// What devices that enrol themselves must know of this site.
    pub id_scope: String,
    /// Devices that enrol themselves now.
    pub(crate) enrolling: Enrolling,
    /// Gateways that have connected; every one of them is in the registry.
    pub(crate) gateways: RwLock<HashSet<DeviceId>>,
    /// What gateways are still to be told.
    pub(crate) outbox: Outbox,
    /// Brings cloud-to-device messages at central's own listener.
    pub dispatcher: CloudMessageDispatcher<StoredCloudMessages>,
    /// Commands that wait for their answer.
    pub(crate) running: Mutex<HashMap<String, Running>>,
    /// Devices whose waiting commands are being run at central's own listener.
    pub(crate) command_rounds: SingleFlight<DeviceId>,
    /// Told when the next command to expire may be another one.
    pub(crate) waiting_changed: Notify,
    pub(crate) stop: CancellationToken,
}

/// A wish for a device's registration; `None` and [`Update::Keep`] leave what stands.
#[derive(Debug, Default)]
pub struct Registration {
    /// For people; the id when nothing was ever given.
    pub display_name: Option<String>,
    /// A device template's id.
    pub template: Update<String>,
    /// Whether it is a gateway. Only for a new one.
    pub is_gateway: Option<bool>,
    pub enabled: Option<bool>,
    /// Whether its values are made up.
    pub simulated: Option<bool>,
    /// What it belongs to.
    pub organizations: Update<Organizations>,
    /// The manifest to assign.
    pub manifest: Update<Assignment>,
}

impl Fleet {
    /// Joins the store and the MQTT server.
    ///
    /// # Errors
    /// [`StoreError`] when the site's ID scope cannot be read.
    pub async fn new(
        store: Store,
        clients: Clients,
        hosts: Vec<String>,
        trust: watch::Receiver<Arc<Trust>>,
        id_scope: Option<String>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let scope =
            store.submit(move |c| Ok::<_, StoreError>(enrollments::id_scope(c, id_scope.as_deref())?));
        let id_scope = scope.await?;
        Ok(Arc::new(Self {
            dispatcher: c2d::dispatcher(&store, clients.clone()),
            ingest: Ingest::new(store.clone()),
            store,
            clients,
            connections: Connections::default(),
            hosts,
            trust,
            id_scope,
            enrolling: Enrolling::default(),
            gateways: RwLock::default(),
            outbox: Outbox::default(),
            running: Mutex::default(),
            command_rounds: SingleFlight::default(),
            waiting_changed: Notify::new(),
            stop,
        }))
    }

    /// Registers a device or changes its registration; a new one gets its keys. Blocking one disconnects it now, and
    /// assigning a manifest writes the twins of its modules. Unless `must_exist`, an id that a gateway claimed is a new device's.
    ///
    /// # Errors
    /// [`FleetError::Wrong`] with the field, [`FleetError::PreconditionFailed`], [`FleetError::NotFound`] for the manifest, or for the
    /// device when `must_exist`.
    pub async fn register(
        self: &Arc<Self>,
        id: DeviceId,
        wish: Registration,
        must_exist: bool,
        precondition: Precondition,
    ) -> Result<Device, FleetError> {
        let now_ms = now_ms();
        let (written, changed, claimant) = self
            .store
            .submit(move |c| {
                let mut claimant = None;
                let standing = devices::get(c, &id)?;
                if standing.is_none() && must_exist {
                    return Err(no_device(&id));
                }
                precondition.check(standing.as_ref().map(Device::etag).as_deref())?;
                let mut device = match standing {
                    Some(device) if device.is_claim && !must_exist => {
                        claimant = device.gateway.clone();
                        end_claim(c, device)?
                    }
                    Some(device) => device,
                    None => new_device(id),
                };
                let is_new = device.revision == 0;
                if let Some(is_gateway) = wish.is_gateway {
                    if !is_new && is_gateway != device.is_gateway {
                        return Err(FleetError::Wrong(format!(
                            "type: device `{}` is {}a gateway and stays so; delete it and register it anew",
                            device.id,
                            if device.is_gateway { "" } else { "not " }
                        )));
                    }
                    device.is_gateway = is_gateway;
                }
                device.display_name = wish.display_name.unwrap_or(device.display_name);
                device.template = wish.template.over(device.template);
                if let Some(enabled) = wish.enabled {
                    device.set_enabled(enabled);
                }
                device.simulated = wish.simulated.unwrap_or(device.simulated);
                let organizations = wish.organizations.over(Some(device.organizations));
                device.organizations = organizations.unwrap_or_default();
                let mut changed = Vec::new();
                match wish.manifest {
                    Update::Keep => {}
                    Update::Clear => take_assignment(c, &mut device)?,
                    Update::Set(manifest) => changed = assign(c, &mut device, manifest, now_ms)?,
                }
                device.revision += 1;
                devices::put(c, &device)?;
                Ok((device, changed, claimant))
            })
            .await?;
        self.review(&written);
        for gateway in written.gateway.iter().chain(&claimant) {
            self.tell_child(gateway, &written.id);
        }
        if !changed.is_empty() {
            tracing::info!(gateway = %written.id, manifest = written.manifest_id, "manifest was assigned");
        }
        for identity in changed {
            self.tell_desired(&written.id, identity);
        }
        Ok(written)
    }

    /// Forgets a device and disconnects it. Devices behind a deleted gateway stay registered.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::PreconditionFailed`].
    pub async fn remove(
        self: &Arc<Self>,
        id: DeviceId,
        precondition: Precondition,
    ) -> Result<(), FleetError> {
        let gone = self
            .store
            .submit(move |c| {
                let device = devices::get(c, &id)?.ok_or_else(|| no_device(&id))?;
                precondition.check(Some(&device.etag()))?;
                devices::delete(c, &id)?;
                Ok::<_, FleetError>(device)
            })
            .await?;
        self.gateways.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&gone.id);
        self.forget_connection(&gone.id, "an operator deleted it").await;
        if let Some(gateway) = &gone.gateway {
            self.tell_child(gateway, &gone.id);
        }
        tracing::info!(device = %gone.id, "device was deleted");
        Ok(())
    }

    /// Ends the connection and the MQTT session of a device that is not registered any more.
    pub(crate) async fn forget_connection(&self, id: &DeviceId, why: &str) {
        let identity = Identity::device(id.clone());
        if let Err(error) = self.clients.forget(|who| identity.covers(who), why).await {
            tracing::error!(device = %id, error = %chain(&error), "the MQTT session of a deleted device may come back");
        }
    }

    /// Puts a device behind a gateway, in place of the device that the relationship of this id had.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Wrong`] when the source is no gateway or the target is one, or
    /// [`FleetError::Conflict`] when the target stands behind a gateway already.
    pub async fn attach(self: &Arc<Self>, wish: Relationship) -> Result<Relationship, FleetError> {
        let relationship = wish.clone();
        let (claimant, replaced) = self
            .store
            .submit(move |c| {
                let gateway = devices::get(c, &wish.source)?.ok_or_else(|| no_device(&wish.source))?;
                let mut target = devices::get(c, &wish.target)?.ok_or_else(|| no_device(&wish.target))?;
                if !gateway.is_gateway {
                    return Err(FleetError::Wrong(format!(
                        "source: device `{}` is not a gateway; register it with \"type\": [\"iotEdge\"]",
                        gateway.id
                    )));
                }
                if target.is_gateway {
                    return Err(FleetError::Wrong(format!(
                        "target: device `{}` is a gateway itself",
                        target.id
                    )));
                }
                let claimant = target.gateway.clone().filter(|_| target.is_claim);
                if target.is_claim {
                    adopt_claim(c, &mut target)?;
                }
                let same = devices::relationship(c, &wish.source, &wish.id)?;
                let stands = same.as_ref().is_some_and(|same| same.target == wish.target);
                let replaced = same.map(|same| same.target).filter(|_| !stands);
                if let Some(other) = target.gateway.filter(|_| !stands) {
                    return Err(FleetError::Conflict(format!(
                        "target: device `{}` stands behind gateway `{other}`; delete that relationship first",
                        target.id
                    )));
                }
                check_room(c, &wish.source)?;
                for moved in replaced.iter().chain((!stands).then_some(&wish.target)) {
                    cloud_messages::taken_back(c, moved)?;
                }
                devices::put_relationship(c, &wish)?;
                Ok((claimant, replaced))
            })
            .await?;
        if let Some(claimant) = claimant.filter(|claimant| *claimant != relationship.source) {
            self.tell_child(&claimant, &relationship.target);
        }
        if let Some(replaced) = replaced {
            self.tell_child(&relationship.source, &replaced);
            self.send_on_all(replaced).await?;
        }
        self.tell_child(&relationship.source, &relationship.target);
        self.tell_desired(&relationship.source, Identity::device(relationship.target.clone()));
        self.send_on_all(relationship.target.clone()).await?;
        Ok(relationship)
    }

    /// Takes a device from behind its gateway; `at` is one of the two.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn detach(self: &Arc<Self>, at: DeviceId, id: String) -> Result<(), FleetError> {
        let ended = self
            .store
            .submit(move |c| {
                let found =
                    devices::relationship_at(c, &at, &id)?.ok_or_else(|| no_relationship(&at, &id))?;
                devices::delete_relationship(c, &found.source, &id)?;
                cloud_messages::taken_back(c, &found.target)?;
                Ok::<_, FleetError>(found)
            })
            .await?;
        self.tell_child(&ended.source, &ended.target);
        self.send_on_all(ended.target).await?;
        Ok(())
    }
}

/// A device that nobody has connected as yet, with keys of its own.
pub(crate) fn new_device(id: DeviceId) -> Device {
    Device { keys: Some(new_keys()), ..Device::new(id) }
}

/// Two keys that nobody has had before.
pub(crate) fn new_keys() -> devices::Keys {
    devices::Keys { primary: new_key(), secondary: new_key() }
}

/// A symmetric key, base64.
pub(crate) fn new_key() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 32]>())
}

/// The device of an identity, which must be registered, and whose module must be known.
///
/// # Errors
/// [`FleetError::NotFound`].
pub fn require(c: &Connection, of: &Identity) -> Result<Device, FleetError> {
    let device = devices::get(c, &of.device)?.ok_or_else(|| no_device(&of.device))?;
    match &of.module {
        Some(module) if !modules(c, &of.device)?.contains(module) => Err(FleetError::NotFound(format!(
            "gateway `{}` has no module `{module}`; assign a manifest that has it",
            of.device
        ))),
        _ => Ok(device),
    }
}

/// The modules of a gateway: those of its manifest, and those that have a twin. `$edgeAgent` and `$edgeHub` included.
///
/// # Errors
/// [`FleetError::Store`].
pub fn modules(c: &Connection, gateway: &DeviceId) -> Result<BTreeSet<ModuleId>, FleetError> {
    let agent = Identity::module(gateway.clone(), ModuleId::edge_agent());
    let desired = twins::section(c, &agent, Half::Desired)?.section.properties;
    let in_manifest = desired.get("modules").and_then(Value::as_object);
    let named =
        in_manifest.into_iter().flat_map(|modules| modules.keys()).filter_map(|name| name.parse().ok());
    Ok(twins::modules(c, gateway)?.into_iter().chain(named).collect())
}

/// Makes sure that one more device may stand behind a gateway.
///
/// # Errors
/// [`FleetError::Wrong`] when it may not.
pub(crate) fn check_room(c: &Connection, gateway: &DeviceId) -> Result<(), FleetError> {
    match devices::children_count(c, gateway)? {
        count if count >= CHILDREN_MAX => Err(FleetError::Wrong(format!(
            "target: gateway `{gateway}` has {count} devices behind it, which is the most that one may have"
        ))),
        _ => Ok(()),
    }
}

/// The error for a device that is not registered.
pub fn no_device(id: &DeviceId) -> FleetError {
    FleetError::NotFound(format!("device `{id}` is not registered"))
}

/// The error for a relationship that a device has at neither end.
pub fn no_relationship(device: &DeviceId, id: &str) -> FleetError {
    FleetError::NotFound(format!("device `{device}` has no relationship `{id}`"))
}

/// The error for a manifest that is not stored.
pub fn no_manifest(id: &str) -> FleetError {
    FleetError::NotFound(format!("deployment manifest `{id}` is not stored"))
}
