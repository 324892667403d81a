//! The registry: each change of an operator is stored, and then sent to the gateway that it concerns.

use std::sync::Arc;

use schemas::names::{DeviceId, Identity};

use super::approval::{Decided, Decision, decide_one};
use super::attest::{Attest, change};
use super::registration::{Registered, Registration, register};
use super::relationships::{Attached, attach, detach};
use crate::access::authenticator::Authenticator;
use crate::clock::now_ms;
use crate::deployments::assignment::check_assignment;
use crate::error::{ServiceError, no_device};
use crate::gateway_sync::service::GatewaySync;
use crate::redelivery::Redelivery;
use crate::store::Store;
use crate::store::devices::{self, Device};
use crate::store::relationships::Relationship;
use crate::types::precondition::Precondition;
use crate::types::update::Update;

/// The registered gateways and devices.
pub struct Registry {
    store: Store,
    authenticator: Arc<Authenticator>,
    gateway_sync: Arc<GatewaySync>,
    redelivery: Redelivery,
}

impl Registry {
    pub fn new(
        store: Store,
        authenticator: Arc<Authenticator>,
        gateway_sync: Arc<GatewaySync>,
        redelivery: Redelivery,
    ) -> Self {
        Self { store, authenticator, gateway_sync, redelivery }
    }

    /// Registers a device or changes its registration; a new one gets its keys. Blocking one disconnects it now, and
    /// assigning a manifest writes the twins of its modules. Unless `must_exist`, an id that a gateway claimed is a new device's.
    ///
    /// # Errors
    /// [`ServiceError::Wrong`] with the field, [`ServiceError::PreconditionFailed`], [`ServiceError::Forbidden`] for an approval,
    /// [`ServiceError::NotFound`] for the manifest, or for the device when `must_exist`.
    pub async fn register(
        &self,
        id: DeviceId,
        request: Registration,
        must_exist: bool,
        precondition: Precondition,
    ) -> Result<Device, ServiceError> {
        let now_ms = now_ms();
        let mut request = request;
        // Read and checked before the writer gets the work, for which all others wait (decision 0064).
        if let Update::Set(manifest) = request.manifest {
            request.manifest = Update::Set(check_assignment(&self.store, manifest).await?);
        }
        let registered =
            self.store.submit(move |c| register(c, id, request, must_exist, &precondition, now_ms)).await?;
        let Registered { device, changed, claimant } = registered;
        self.authenticator.review(&device);
        // The gateway that had claimed the id learns from this that the claim has ended.
        for gateway in device.gateway.iter().chain(&claimant) {
            self.gateway_sync.send_child(gateway, &device.id);
        }
        if !changed.is_empty() {
            tracing::info!(gateway = %device.id, manifest = device.manifest_id, "manifest was assigned");
        }
        for identity in changed {
            self.gateway_sync.send_desired(&device.id, identity);
        }
        Ok(device)
    }

    /// Deletes a device and disconnects it. Devices behind a deleted gateway stay registered.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::PreconditionFailed`].
    pub async fn remove(&self, id: DeviceId, precondition: Precondition) -> Result<(), ServiceError> {
        let removed = self
            .store
            .submit(move |c| {
                let device = devices::get(c, &id)?.ok_or_else(|| no_device(&id))?;
                precondition.check(Some(&device.etag()))?;
                devices::delete(c, &id)?;
                Ok::<_, ServiceError>(device)
            })
            .await?;
        self.authenticator.forget(&removed.id, "an operator deleted it").await;
        if let Some(gateway) = &removed.gateway {
            self.gateway_sync.send_child(gateway, &removed.id);
        }
        tracing::info!(device = %removed.id, "device was deleted");
        Ok(())
    }

    /// Puts a device behind a gateway, in place of the device that the relationship of this id had.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Wrong`] when the source is no gateway or the target is one, or
    /// [`ServiceError::Conflict`] when the target is behind a gateway already.
    pub async fn attach(&self, new: Relationship) -> Result<Relationship, ServiceError> {
        let relationship = new.clone();
        let Attached { claimant, replaced } = self.store.submit(move |c| attach(c, &new)).await?;
        let Relationship { source, target, .. } = &relationship;
        if let Some(claimant) = claimant.filter(|claimant| claimant != source) {
            self.gateway_sync.send_child(&claimant, target);
        }
        if let Some(replaced) = replaced {
            self.gateway_sync.send_child(source, &replaced);
            self.redelivery.redeliver(replaced).await?;
        }
        self.gateway_sync.send_child(source, target);
        self.gateway_sync.send_desired(source, Identity::device(target.clone()));
        self.redelivery.redeliver(target.clone()).await?;
        Ok(relationship)
    }

    /// Takes a device from behind its gateway; `at` is one of the two.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn detach(&self, at: DeviceId, id: String) -> Result<(), ServiceError> {
        let ended = self.store.submit(move |c| detach(c, &at, &id)).await?;
        self.gateway_sync.send_child(&ended.source, &ended.target);
        self.redelivery.redeliver(ended.target).await
    }

    /// Changes how a device proves itself. A connection with a key or certificate that is not accepted any more is closed. With
    /// `must_merge` what is not given stays, if the device proves itself in that way already.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], or [`ServiceError::Wrong`] for a certificate without a thumbprint.
    pub async fn attest(
        &self,
        id: DeviceId,
        attest: Attest,
        must_merge: bool,
    ) -> Result<Device, ServiceError> {
        let written = self
            .store
            .submit(move |c| {
                let mut device = devices::get(c, &id)?.ok_or_else(|| no_device(&id))?;
                change(&mut device, attest, must_merge)?;
                // An operator who sets how a device proves itself takes it over from the gateway.
                device.is_claim = false;
                device.revision = devices::put(c, &device)?;
                Ok::<_, ServiceError>(device)
            })
            .await?;
        tracing::info!(device = %written.id, "how the device proves itself was changed");
        self.admission_changed(&written);
        Ok(written)
    }

    /// Approves or rejects devices; those that do not wait for approval stay as they are. Returns what became of each, in the
    /// order given.
    ///
    /// # Errors
    /// [`ServiceError::Store`]: then nothing is decided.
    pub async fn decide(
        &self,
        ids: Vec<DeviceId>,
        decision: Decision,
    ) -> Result<Vec<(DeviceId, Decided)>, ServiceError> {
        let decided = self
            .store
            .submit(move |c| {
                let each = ids.into_iter().map(|id| decide_one(c, id, decision));
                each.collect::<Result<Vec<_>, ServiceError>>()
            })
            .await?;
        let mut outcomes = Vec::with_capacity(decided.len());
        for (id, outcome, written) in decided {
            if let Some(written) = written {
                self.admission_changed(&written);
                tracing::info!(device = %written.id, ?decision, "device that waited for approval was decided about");
            }
            outcomes.push((id, outcome));
        }
        Ok(outcomes)
    }

    fn admission_changed(&self, device: &Device) {
        self.authenticator.review(device);
        if let Some(gateway) = &device.gateway {
            self.gateway_sync.send_child(gateway, &device.id);
        }
    }
}
