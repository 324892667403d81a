//! The server: its bounds, its counts, and what its listeners and sessions share.

use edge_core::error_chain::chain;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::attempts::Attempts;
use crate::broker::{Broker, wills};
use crate::clients::Clients;
use crate::connection_slots::{ConnectionSlotLimits, ConnectionSlots};
use crate::counts::Counts;
use crate::keeper;
use crate::refusals::Refusals;
use crate::service::Service;
use crate::sessions::Sessions;
use crate::settings::MqttServerSettings;
use crate::tasks;

/// A server: one set of clients and free topics, over any number of listeners.
pub struct MqttServer<S> {
    pub(crate) service: Arc<S>,
    pub(crate) clients: Clients,
    pub(crate) settings: MqttServerSettings,
    pub(crate) broker: Arc<Broker>,
    pub(crate) attempts: Attempts,
    pub(crate) slots: ConnectionSlots,
    pub(crate) refusals: Refusals,
    keeper: Mutex<Option<JoinHandle<()>>>,
    stop_keeper: DropGuard,
}

impl<S> MqttServer<S> {
    /// The numbers of the journal of sessions and retained messages.
    pub fn journal_stats(&self) -> edge_buffer::Stats {
        self.broker.journal.stats()
    }

    /// What was refused or let go so far.
    pub fn counts(&self) -> &Counts {
        &self.broker.counts
    }

    /// Clients that have a session, connected or not.
    pub fn session_count(&self) -> usize {
        self.broker.session_count()
    }
}

impl<S: Service> MqttServer<S> {
    /// A server whose listeners are not open yet. The sessions begin to expire, and wills that are due are published.
    pub fn new(sessions: Sessions, service: Arc<S>) -> Arc<Self> {
        let Sessions { settings, broker, due_wills, clients } = sessions;
        let stop = CancellationToken::new();
        let (keeps, finish) = (keeper::keep(broker.clone(), stop.clone()), settings.finish_timeout);
        let wills = wills::publish(broker.clone(), service.clone(), due_wills, stop.clone(), finish);
        let keeper = tasks::spawn_essential("MQTT sessions", async move {
            tokio::join!(keeps, wills);
        });
        let slots = ConnectionSlots::new(ConnectionSlotLimits {
            connections: settings.connections_max,
            unproven: settings.unproven_max,
            of_address: settings.address_connections_max,
            connects_per_second: settings.address_connects_per_second,
        });
        let (keeper, stop_keeper) = (Mutex::new(Some(keeper)), stop.drop_guard());
        let attempts = Attempts::new(settings.throttle.clone());
        let refusals = Refusals::default();
        Arc::new(Self { service, clients, settings, broker, attempts, slots, refusals, keeper, stop_keeper })
    }

    pub fn settings(&self) -> &MqttServerSettings {
        &self.settings
    }

    /// The clients that were refused last.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Writes what the journal was handed and lets its directory go. After the listeners have ended.
    pub async fn close(&self) {
        self.stop_keeper.token().cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(error = %chain(&error), "the keeper of the MQTT sessions failed");
        }
        self.broker.journal.close().await;
    }
}
