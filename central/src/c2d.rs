//! Cloud-to-device messages: queued here, brought to a device at central's own listener or handed to its gateway, and ended.
//!
//! A message waits here, or at the gateway behind which its device stands; who is connected to central's own listener gets it
//! there. What a gateway has taken is expired here all the same when its time is over, should the gateway never come back.

use edge_core::error_chain::chain;
use std::collections::BTreeSet;
use std::sync::Arc;

use edge_core::cloud_message;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::{CloudMessageDispatcher, CloudMessageSource, WaitingMessage};
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use schemas::cloud_message::{CloudMessage, End, Settlement, WAITING_MAX};
use schemas::names::{DeviceId, Identity};

use crate::authorize::{Way, authorize};
use crate::clock::now_ms;
use crate::error::{ServiceError, no_device};
use crate::fleet::Fleet;
use crate::store::cloud_messages::{self, StoredMessage};
use crate::store::commands;
use crate::store::devices::{self, Device};
use crate::store::{Store, StoreError};

/// The messages in the store, as central's dispatcher sees them.
pub struct StoredCloudMessages(Store);

/// central's dispatcher, with the mail in its store.
pub fn dispatcher(store: &Store, clients: Clients) -> CloudMessageDispatcher<StoredCloudMessages> {
    CloudMessageDispatcher::new(Arc::new(StoredCloudMessages(store.clone())), clients)
}

impl CloudMessageSource for StoredCloudMessages {
    async fn waiting(&self, device: &DeviceId, after: u64, limit: usize) -> Vec<WaitingMessage> {
        let (device, limit) = (device.clone(), u32::try_from(limit).unwrap_or(u32::MAX));
        let read = move |c: &Connection| {
            Ok::<_, StoreError>(cloud_messages::waiting_here(c, &device, after, limit)?)
        };
        let stored = self.0.read(read).await.unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "cloud-to-device messages could not be read");
            Vec::new()
        });
        let waiting = |StoredMessage { sequence, attempts, message, .. }| WaitingMessage {
            sequence,
            attempts,
            message,
        };
        stored.into_iter().map(waiting).collect()
    }

    async fn ended(&self, device: &DeviceId, sequence: u64, end: End) {
        let (device, settlement) = (device.clone(), Settlement { end, at_ms: now_ms() });
        let ended = self
            .0
            .submit(move |c| Ok::<_, StoreError>(cloud_messages::end(c, &device, sequence, &settlement)?));
        if let Err(error) = ended.await {
            tracing::error!(sequence, error = %chain(&error), "the end of a cloud-to-device message was not stored");
        }
    }

    async fn not_acknowledged(&self, _device: &DeviceId, sequence: u64) {
        let counted = self.0.submit(move |c| Ok::<_, StoreError>(cloud_messages::attempted(c, sequence)?));
        if let Err(error) = counted.await {
            tracing::error!(sequence, error = %chain(&error), "a vain delivery was not counted");
        }
    }

    async fn expired(&self, now_ms: u64, busy: &BTreeSet<DeviceId>) -> (Vec<(DeviceId, u64)>, Option<u64>) {
        let read = move |c: &Connection| Ok::<_, StoreError>(cloud_messages::expired(c, now_ms)?);
        match self.0.read(read).await {
            Ok((mut over, next)) => {
                over.retain(|(device, _)| !busy.contains(device));
                (over, next)
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "expired cloud-to-device messages could not be read");
                (Vec::new(), None)
            }
        }
    }
}

impl Fleet {
    /// Queues a message for a device and sends it on its way.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Wrong`] with the field, [`ServiceError::TooLarge`], or
    /// [`ServiceError::QueueFull`] when as many wait as may.
    pub async fn send_message(
        self: &Arc<Self>,
        device: DeviceId,
        message: CloudMessage,
    ) -> Result<StoredMessage, ServiceError> {
        cloud_message::check(&message, &device)?;
        let of = device.clone();
        let stored = self.store.submit_then(
            message.size_bytes() + 1024,
            move |c| {
                let device = devices::get(c, &of)?.ok_or_else(|| no_device(&of))?;
                if device.is_gateway {
                    return Err(ServiceError::Wrong(format!(
                        "device `{of}` is a gateway and has no inbox; run a command of it or of a module"
                    )));
                }
                let waiting = cloud_messages::count_waiting(c, &of)?;
                if waiting >= WAITING_MAX {
                    return Err(ServiceError::QueueFull(format!(
                        "{waiting} messages wait for device `{of}` already; wait for it, or purge them"
                    )));
                }
                let sequence = cloud_messages::insert(c, &of, &message)?;
                let stored = cloud_messages::get(c, sequence)?.ok_or(StoreError::NotCommitted)?;
                Ok((stored, device.gateway))
            },
            |_| {},
        );
        let (stored, gateway) = stored.await?;
        self.send_on(&device, gateway.as_ref(), [stored.sequence]);
        Ok(stored)
    }

    /// Sends what waits for a device on its way: to its session at central's own listener, or to its gateway.
    fn send_on(
        self: &Arc<Self>,
        device: &DeviceId,
        gateway: Option<&DeviceId>,
        sequences: impl IntoIterator<Item = u64>,
    ) {
        self.dispatcher.wake(device);
        if let Some(gateway) =
            gateway.filter(|_| !self.clients.is_connected(&Identity::device(device.clone())))
        {
            self.tell_messages(gateway, device, sequences);
        }
    }

    /// The device stands behind another gateway now, or has left central's own listener: the messages and commands that wait are
    /// sent on their way anew.
    pub(crate) async fn send_on_all(self: &Arc<Self>, device: DeviceId) -> Result<(), ServiceError> {
        let of = device.clone();
        let (found, sequences, rows) = self
            .store
            .read(move |c| {
                let waiting = (cloud_messages::sequences(c, &of)?, commands::waiting(c, &of)?);
                Ok::<_, ServiceError>((devices::get(c, &of)?, waiting.0, waiting.1))
            })
            .await?;
        let found = found.as_ref();
        self.send_on(&device, found.and_then(|device| device.gateway.as_ref()), sequences);
        self.carry_on(&device, found.and_then(Device::carrier), rows);
        Ok(())
    }

    /// Takes every message back that waits for a device; gives how many.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn purge_messages(self: &Arc<Self>, device: DeviceId) -> Result<usize, ServiceError> {
        let now_ms = now_ms();
        let purged = self.store.submit(move |c| {
            let gateway = devices::get(c, &device)?.ok_or_else(|| no_device(&device))?.gateway;
            Ok::<_, ServiceError>((cloud_messages::purge(c, &device, now_ms)?, device, gateway))
        });
        let (count, device, gateway) = purged.await?;
        if let Some(gateway) = gateway.filter(|_| count > 0) {
            self.tell_purge(&gateway, &device);
        }
        Ok(count)
    }

    /// A gateway told how a message ended.
    pub(crate) fn settled(
        &self,
        gateway: DeviceId,
        device: DeviceId,
        sequence: u64,
        settlement: Settlement,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        self.store.submit(move |c| {
            authorize(c, &gateway, &Identity::device(device.clone()), Way::Settlement, None)?;
            if !cloud_messages::end(c, &device, sequence, &settlement)? {
                tracing::info!(%device, sequence, "a second end of a cloud-to-device message was left out");
            }
            Ok(())
        })
    }
}
