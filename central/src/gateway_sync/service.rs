//! Sends gateways what they must know: the devices behind them, their desired sections, and what waits for those devices. All of
//! it when a gateway subscribes, and afterwards what changed.
//!
//! It is level-triggered. A change only notes *which* state changed; the state is read when it is sent, by one task for
//! each gateway, so that an older state never overtakes a newer one and many changes become one message. A gateway that
//! is not connected is sent everything when it subscribes again.

use std::sync::Arc;

use bytes::Bytes;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::LinkDown;
use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use edge_hub::delivery::NotDelivered;
use edge_hub::tasks;
use schemas::link::CentralTime;
use schemas::names::{DeviceId, Identity};
use tokio::sync::Notify;

use super::connections::Connections;
use super::messages::{self, Recipient, json};
use super::outbox::{Outbox, Update};
use crate::clock::now_ms;
use crate::store::cloud_messages;
use crate::store::commands;
use crate::store::{Store, StoreError};

/// central's messages to gateways.
pub struct GatewaySync {
    store: Store,
    clients: Clients,
    connections: Arc<Connections>,
    outbox: Outbox,
    /// Woken when a gateway has taken a command.
    command_taken: Arc<Notify>,
}

impl GatewaySync {
    pub fn new(
        store: Store,
        clients: Clients,
        connections: Arc<Connections>,
        command_taken: Arc<Notify>,
    ) -> Self {
        Self { store, clients, connections, outbox: Outbox::default(), command_taken }
    }

    /// Sends a device that is behind a gateway, has changed, or is behind it no longer.
    pub(crate) fn send_child(self: &Arc<Self>, gateway: &DeviceId, device: &DeviceId) {
        self.send_updates(gateway, [Update::Child(device.clone())]);
    }

    pub(crate) fn send_desired(self: &Arc<Self>, gateway: &DeviceId, of: Identity) {
        self.send_updates(gateway, [Update::Desired(of)]);
    }

    /// Sends cloud-to-device messages of a device behind the gateway.
    pub(crate) fn send_messages(
        self: &Arc<Self>,
        gateway: &DeviceId,
        device: &DeviceId,
        sequences: impl IntoIterator<Item = u64>,
    ) {
        let messages = sequences.into_iter().map(|sequence| Update::Message(device.clone(), sequence));
        self.send_updates(gateway, messages);
    }

    /// Sends waiting commands, by their rows.
    pub(crate) fn send_commands(self: &Arc<Self>, gateway: &DeviceId, rows: impl IntoIterator<Item = u64>) {
        self.send_updates(gateway, rows.into_iter().map(Update::Command));
    }

    /// Sends which cloud-to-device messages of a device were purged.
    pub(crate) fn send_purge(self: &Arc<Self>, gateway: &DeviceId, device: &DeviceId) {
        self.send_updates(gateway, [Update::Purge(device.clone())]);
    }

    /// Sends everything to a gateway that has just subscribed.
    pub(crate) fn send_everything(self: &Arc<Self>, gateway: DeviceId) {
        let (sync, recovering, of) = (self.clone(), self.clone(), gateway.clone());
        let everything = async move {
            let to = gateway.clone();
            match sync.store.read(move |c| messages::everything(c, &to)).await {
                Ok(updates) => sync.send_updates(&gateway, updates),
                Err(error) => {
                    tracing::error!(%gateway, error = %chain(&error), "reading the state of a gateway failed");
                    sync.send_on_next_connection(gateway);
                }
            }
        };
        tasks::spawn_recovering(None, "state of a gateway", everything, move || {
            recovering.send_on_next_connection(of);
        });
    }

    /// Ends the connection of a gateway that would wait for ever for its state: a new connection subscribes again.
    fn send_on_next_connection(&self, gateway: DeviceId) {
        self.outbox.forget(&gateway);
        self.clients.disconnect(&Identity::device(gateway), "central could not read its state");
    }

    /// Answers a gateway's question for the time; of several that come faster than they are answered, the newest.
    pub(crate) fn answer_time(self: &Arc<Self>, gateway: DeviceId, connection: u64, number: u64) {
        if !self.connections.request_time(&gateway, connection, number) {
            return;
        }
        let (sync, recovering, requesting) = (self.clone(), self.clone(), gateway.clone());
        let answers = async move {
            let of = Identity::device(gateway.clone());
            while let Some(number) = sync.connections.next_time_request(&gateway) {
                let payload = json(&CentralTime { time_request: number, now_ms: now_ms() });
                if let Err(why) = sync.clients.send_link(&of, &LinkDown::Time, payload).await {
                    tracing::debug!(%gateway, %why, "sending the time to a gateway failed");
                }
            }
        };
        tasks::spawn_recovering(None, "time for a gateway", answers, move || {
            // The next question begins anew.
            while recovering.connections.next_time_request(&requesting).is_some() {}
        });
    }

    fn send_updates(self: &Arc<Self>, gateway: &DeviceId, updates: impl IntoIterator<Item = Update>) {
        if self.outbox.put(gateway, updates) {
            let (sync, recovering, of) = (self.clone(), self.clone(), gateway.clone());
            let sending = sync.send_outbox(gateway.clone());
            tasks::spawn_recovering(None, "updates of a gateway", sending, move || {
                recovering.send_on_next_connection(of);
            });
        }
    }

    async fn send_outbox(self: Arc<Self>, gateway: DeviceId) {
        while let Some(batch) = self.outbox.next(&gateway) {
            if !self.clients.is_connected(&Identity::device(gateway.clone())) {
                // A list of thousands is not read for nobody.
                self.drop_outbox(&gateway);
                return;
            }
            let recipient = Recipient {
                gateway: gateway.clone(),
                link_version: self.connections.link_version(&gateway),
                opened: self.store.opened(),
            };
            let messages = match self.store.read(move |c| messages::messages(c, &recipient, batch)).await {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::error!(%gateway, error = %chain(&error), "reading the state of a gateway failed");
                    self.send_on_next_connection(gateway);
                    return;
                }
            };
            for (operation, payload) in messages {
                if !self.send(&gateway, operation, payload).await {
                    return;
                }
            }
        }
    }

    /// Drops the updates of a connection that has ended, or does not take them: the gateway is sent everything when it
    /// subscribes. One that has subscribed meanwhile, while the task still sent on the connection before, is sent everything now.
    fn drop_outbox(self: &Arc<Self>, gateway: &DeviceId) {
        self.outbox.forget(gateway);
        if self.clients.has_subscribed(&Identity::device(gateway.clone()), &Subscribe::Link) {
            self.send_everything(gateway.clone());
        }
    }

    /// Sends one message to a gateway, and notes what it has taken. Returns false if nothing more is sent on this connection.
    async fn send(self: &Arc<Self>, gateway: &DeviceId, operation: LinkDown, payload: Bytes) -> bool {
        let this = Identity::device(gateway.clone());
        if let Err(why) = self.clients.send_link(&this, &operation, payload).await {
            tracing::debug!(%gateway, %operation, %why, "sending to a gateway failed");
            self.drop_outbox(gateway);
            if matches!(why, NotDelivered::Busy) {
                // It is still connected, and would never get what was left out.
                self.clients.disconnect(&this, "it takes central's messages too slowly");
            }
            return false;
        }
        match operation {
            LinkDown::Message { sequence, .. } => self.note_message_taken(gateway.clone(), sequence).await,
            LinkDown::Command { command_id, .. } => {
                self.note_command_taken(gateway.clone(), command_id).await;
            }
            _ => {}
        }
        true
    }

    async fn note_message_taken(&self, gateway: DeviceId, sequence: u64) {
        let now_ms = now_ms();
        let noted = self
            .store
            .submit(move |c| Ok::<_, StoreError>(cloud_messages::taken(c, &gateway, sequence, now_ms)?))
            .await;
        if let Err(error) = noted {
            // The gateway knows the message when it is sent again.
            tracing::warn!(sequence, error = %chain(&error), "storing that a gateway took a message failed");
        }
    }

    async fn note_command_taken(&self, gateway: DeviceId, id: String) {
        let now_ms = now_ms();
        let noted = self
            .store
            .submit(move |c| Ok::<_, StoreError>(commands::take(c, &id, Some(&gateway), now_ms)?))
            .await;
        match noted {
            Ok(_) => self.command_taken.notify_one(),
            // The gateway knows the command when it is sent again.
            Err(error) => {
                tracing::warn!(error = %chain(&error), "storing that a gateway took a command failed");
            }
        }
    }
}
