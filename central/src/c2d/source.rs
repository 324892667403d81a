//! The C2D messages that wait in the store, for the dispatcher of central's own listener.

use std::collections::BTreeSet;

use edge_core::error_chain::chain;
use edge_hub::cloud_message_dispatcher::{CloudMessageSource, WaitingMessage};
use rusqlite::Connection;
use schemas::cloud_message::{End, Settlement};
use schemas::names::DeviceId;

use crate::clock::now_ms;
use crate::store::cloud_messages::{self, StoredMessage};
use crate::store::{Store, StoreError};

pub(super) struct StoredCloudMessages(pub(super) Store);

impl CloudMessageSource for StoredCloudMessages {
    async fn waiting(&self, device: &DeviceId, after: u64, limit: usize) -> Vec<WaitingMessage> {
        let (device, limit) = (device.clone(), u32::try_from(limit).unwrap_or(u32::MAX));
        let read = move |c: &Connection| {
            Ok::<_, StoreError>(cloud_messages::waiting_here(c, &device, after, limit)?)
        };
        let stored = self.0.read(read).await.unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "reading cloud-to-device messages failed");
            Vec::new()
        });
        let waiting = |StoredMessage { sequence, attempts, lifetime, message, .. }| WaitingMessage {
            sequence,
            attempts,
            lifetime,
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
            tracing::error!(sequence, error = %chain(&error), "storing the end of a cloud-to-device message failed");
        }
    }

    async fn not_acknowledged(&self, _device: &DeviceId, sequence: u64) {
        let counted = self.0.submit(move |c| Ok::<_, StoreError>(cloud_messages::attempted(c, sequence)?));
        if let Err(error) = counted.await {
            tracing::error!(sequence, error = %chain(&error), "counting a delivery without an answer failed");
        }
    }

    async fn devices(&self) -> Vec<DeviceId> {
        let read = |c: &Connection| Ok::<_, StoreError>(cloud_messages::devices_waited_for(c)?);
        self.0.read(read).await.unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "reading for whom cloud-to-device messages wait failed");
            Vec::new()
        })
    }

    async fn expired(&self, now_ms: u64, busy: &BTreeSet<DeviceId>) -> (Vec<(DeviceId, u64)>, Option<u64>) {
        let read = move |c: &Connection| Ok::<_, StoreError>(cloud_messages::expired(c, now_ms)?);
        match self.0.read(read).await {
            Ok((mut over, next)) => {
                over.retain(|(device, _)| !busy.contains(device));
                (over, next)
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "expired reading cloud-to-device messages failed");
                (Vec::new(), None)
            }
        }
    }
}
