//! Cloud-to-device messages: queued here, sent to a device at central's own listener or handed to its gateway, and ended.
//!
//! A message waits here, or at the gateway of its device; who is connected to central's own listener gets it
//! there. What a gateway has taken is expired here all the same when its time is over, should the gateway never come back.

use std::sync::Arc;

use edge_core::cloud_message;
use edge_core::error_chain::chain;
use edge_hub::age_clock;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use schemas::cloud_message::{CloudMessage, Settlement, WAITING_MAX};
use schemas::names::{DeviceId, Identity};
use tokio_util::sync::CancellationToken;

use super::source::StoredCloudMessages;
use crate::access::authorize::{Statement, authorize};
use crate::clock::{now_ms, stamp_ms};
use crate::error::{ServiceError, no_device};
use crate::gateway_sync::service::GatewaySync;
use crate::store::cloud_messages::{self, StoredMessage};
use crate::store::devices;
use crate::store::{Store, StoreError};

/// The C2D messages of all devices.
pub struct C2d {
    store: Store,
    clients: Clients,
    gateway_sync: Arc<GatewaySync>,
    /// Sends messages to devices at central's own listener.
    dispatcher: CloudMessageDispatcher<StoredCloudMessages>,
}

impl C2d {
    pub fn new(store: Store, clients: Clients, gateway_sync: Arc<GatewaySync>) -> Self {
        let source = Arc::new(StoredCloudMessages(store.clone()));
        let dispatcher = CloudMessageDispatcher::new(source, clients.clone());
        Self { store, clients, gateway_sync, dispatcher }
    }

    /// Sends what waits for a device that has subscribed at central's own listener.
    pub(crate) fn wake(&self, device: &DeviceId) {
        self.dispatcher.wake(device);
    }

    /// Ends messages that expire, until `stop`.
    pub(crate) async fn expire(&self, stop: CancellationToken) {
        tokio::join!(self.dispatcher.expire(stop.clone()), self.deliver_when_clock_is_set(stop));
    }

    /// Sends what waits for devices behind gateways each time when the wall clock was set, until `stop`: what was held may be
    /// valid now.
    async fn deliver_when_clock_is_set(&self, stop: CancellationToken) {
        let mut settings = age_clock::settings();
        while let Some(Ok(())) = stop.run_until_cancelled(settings.changed()).await {
            match self.store.read(waiting_behind_gateways).await {
                Ok(waiting) => {
                    for (device, gateway, sequences) in waiting {
                        self.deliver(&device, Some(&gateway), sequences);
                    }
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "reading the messages that wait failed; gateways get them with their next connection");
                }
            }
        }
    }

    /// Queues a message for a device and sends it.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Wrong`] with the field, [`ServiceError::TooLarge`], or
    /// [`ServiceError::QueueFull`] when as many wait as may.
    pub async fn send(&self, device: DeviceId, message: CloudMessage) -> Result<StoredMessage, ServiceError> {
        cloud_message::check(&message, &device)?;
        let (of, age_ms) = (device.clone(), stamp_ms());
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
                let sequence = cloud_messages::insert(c, &of, &message, age_ms)?;
                let stored = cloud_messages::get(c, sequence)?.ok_or(StoreError::NotCommitted)?;
                Ok((stored, device.gateway))
            },
            |_| {},
        );
        let (stored, gateway) = stored.await?;
        self.deliver(&device, gateway.as_ref(), [stored.sequence]);
        Ok(stored)
    }

    /// Sends waiting messages to the device's session at central's own listener, or to its gateway.
    pub(crate) fn deliver(
        &self,
        device: &DeviceId,
        gateway: Option<&DeviceId>,
        sequences: impl IntoIterator<Item = u64>,
    ) {
        self.dispatcher.wake(device);
        if let Some(gateway) =
            gateway.filter(|_| !self.clients.is_connected(&Identity::device(device.clone())))
        {
            self.gateway_sync.send_messages(gateway, device, sequences);
        }
    }

    /// Purges the messages that wait for a device; returns how many.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn purge(&self, device: DeviceId) -> Result<usize, ServiceError> {
        let now_ms = now_ms();
        let purged = self.store.submit(move |c| {
            let gateway = devices::get(c, &device)?.ok_or_else(|| no_device(&device))?.gateway;
            Ok::<_, ServiceError>((cloud_messages::purge(c, &device, now_ms)?, device, gateway))
        });
        let (count, device, gateway) = purged.await?;
        if let Some(gateway) = gateway.filter(|_| count > 0) {
            self.gateway_sync.send_purge(&gateway, &device);
        }
        Ok(count)
    }

    /// Stores how a message ended, as its gateway says.
    pub(crate) fn settled(
        &self,
        gateway: DeviceId,
        device: DeviceId,
        sequence: u64,
        settlement: Settlement,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        // The gateway's clock may be ahead.
        let settlement = Settlement { at_ms: settlement.at_ms.min(now_ms()), ..settlement };
        self.store.submit(move |c| {
            authorize(c, &gateway, &Identity::device(device.clone()), Statement::Settlement, None)?;
            if !cloud_messages::end(c, &device, sequence, &settlement)? {
                // Nearly always a repetition: gateways repeat what they reported to a store that was opened anew.
                tracing::debug!(%device, sequence, "a second end of a cloud-to-device message was left out");
            }
            Ok(())
        })
    }
}

/// The messages that wait for devices behind gateways, each device with its gateway.
fn waiting_behind_gateways(c: &Connection) -> Result<Vec<(DeviceId, DeviceId, Vec<u64>)>, StoreError> {
    let mut waiting = Vec::new();
    for device in cloud_messages::devices_waited_for(c)? {
        if let Some(gateway) = devices::get(c, &device)?.and_then(|device| device.gateway) {
            let sequences = cloud_messages::sequences(c, &device)?;
            waiting.push((device, gateway, sequences));
        }
    }
    Ok(waiting)
}
