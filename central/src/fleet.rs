//! What an operator's wish does to gateways and devices: each change is stored, and then told to whom it concerns.

use edge_core::error_chain::chain;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, RwLock};

use edge_core::access::x509::Trust;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use edge_hub::enrolling::Enrolling;
use edge_hub::single_flight::SingleFlight;
use schemas::names::{DeviceId, Identity};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::authorize::{adopt_claim, end_claim};
use crate::c2d::{self, StoredCloudMessages};
use crate::clock::now_ms;
use crate::commands::Running;
use crate::deploy::{Assignment, assign, take_assignment};
use crate::error::{ServiceError, no_device, no_relationship};
use crate::ingest::Ingest;
use crate::link::Outbox;
use crate::lookup::check_capacity;
use crate::new_device::new_device;
use crate::organizations::Organizations;
use crate::precondition::Precondition;
use crate::presence::Connections;
use crate::store::cloud_messages;
use crate::store::devices::{self, Device, Relationship};
use crate::store::enrollments;
use crate::store::{Store, StoreError};
use crate::update::Update;

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
    /// [`ServiceError::Wrong`] with the field, [`ServiceError::PreconditionFailed`], [`ServiceError::NotFound`] for the manifest, or for the
    /// device when `must_exist`.
    pub async fn register(
        self: &Arc<Self>,
        id: DeviceId,
        wish: Registration,
        must_exist: bool,
        precondition: Precondition,
    ) -> Result<Device, ServiceError> {
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
                        return Err(ServiceError::Wrong(format!(
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
    /// [`ServiceError::NotFound`], [`ServiceError::PreconditionFailed`].
    pub async fn remove(
        self: &Arc<Self>,
        id: DeviceId,
        precondition: Precondition,
    ) -> Result<(), ServiceError> {
        let gone = self
            .store
            .submit(move |c| {
                let device = devices::get(c, &id)?.ok_or_else(|| no_device(&id))?;
                precondition.check(Some(&device.etag()))?;
                devices::delete(c, &id)?;
                Ok::<_, ServiceError>(device)
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
    /// [`ServiceError::NotFound`], [`ServiceError::Wrong`] when the source is no gateway or the target is one, or
    /// [`ServiceError::Conflict`] when the target stands behind a gateway already.
    pub async fn attach(self: &Arc<Self>, wish: Relationship) -> Result<Relationship, ServiceError> {
        let relationship = wish.clone();
        let (claimant, replaced) = self
            .store
            .submit(move |c| {
                let gateway = devices::get(c, &wish.source)?.ok_or_else(|| no_device(&wish.source))?;
                let mut target = devices::get(c, &wish.target)?.ok_or_else(|| no_device(&wish.target))?;
                if !gateway.is_gateway {
                    return Err(ServiceError::Wrong(format!(
                        "source: device `{}` is not a gateway; register it with \"type\": [\"iotEdge\"]",
                        gateway.id
                    )));
                }
                if target.is_gateway {
                    return Err(ServiceError::Wrong(format!(
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
                    return Err(ServiceError::Conflict(format!(
                        "target: device `{}` stands behind gateway `{other}`; delete that relationship first",
                        target.id
                    )));
                }
                check_capacity(c, &wish.source)?;
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
    /// [`ServiceError::NotFound`].
    pub async fn detach(self: &Arc<Self>, at: DeviceId, id: String) -> Result<(), ServiceError> {
        let ended = self
            .store
            .submit(move |c| {
                let found =
                    devices::relationship_at(c, &at, &id)?.ok_or_else(|| no_relationship(&at, &id))?;
                devices::delete_relationship(c, &found.source, &id)?;
                cloud_messages::taken_back(c, &found.target)?;
                Ok::<_, ServiceError>(found)
            })
            .await?;
        self.tell_child(&ended.source, &ended.target);
        self.send_on_all(ended.target).await?;
        Ok(())
    }
}
