//! The services of central, joined.

use std::sync::Arc;

use edge_core::access::x509::Trust;
use edge_hub::clients::Clients;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::access::authenticator::Authenticator;
use crate::c2d::service::C2d;
use crate::commands::module_logs::ModuleLogs;
use crate::commands::service::Commands;
use crate::commands::waiting::WaitingCommands;
use crate::deployments::quotes::ManifestQuotes;
use crate::deployments::service::Deployments;
use crate::enrollment::service::{Enrollment, EnrollmentParts};
use crate::gateway_sync::connections::Connections;
use crate::gateway_sync::reports::GatewayReports;
use crate::gateway_sync::service::GatewaySync;
use crate::redelivery::Redelivery;
use crate::registry::service::Registry;
use crate::store::{Store, StoreError, enrollments};
use crate::telemetry::ingest::Ingest;

/// Holds the services, and does nothing itself. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    pub store: Store,
    /// The clients of central's own listener.
    pub clients: Clients,
    pub connections: Arc<Connections>,
    pub authenticator: Arc<Authenticator>,
    pub gateway_sync: Arc<GatewaySync>,
    pub gateway_reports: Arc<GatewayReports>,
    pub commands: Arc<Commands>,
    pub waiting_commands: Arc<WaitingCommands>,
    pub module_logs: ModuleLogs,
    pub c2d: Arc<C2d>,
    pub redelivery: Redelivery,
    pub registry: Arc<Registry>,
    pub deployments: Arc<Deployments>,
    pub manifest_quotes: Arc<ManifestQuotes>,
    pub enrollment: Arc<Enrollment>,
    pub telemetry: Ingest,
    /// Cancelled when central stops.
    pub stop: CancellationToken,
}

/// The names by which devices know this central.
pub struct SiteNames {
    /// Host names that a SAS token may be made for; enrolled devices are assigned to the first.
    pub hosts: Vec<String>,
    /// The ID scope; `None`: the one that the store has.
    pub id_scope: Option<String>,
}

impl Services {
    /// Joins the services over a store and an MQTT server's clients.
    ///
    /// # Errors
    /// [`StoreError`] when the site's ID scope cannot be read.
    pub async fn new(
        store: Store,
        clients: Clients,
        names: SiteNames,
        trust: watch::Receiver<Arc<Trust>>,
        stop: CancellationToken,
    ) -> Result<Self, StoreError> {
        let SiteNames { hosts, id_scope } = names;
        let hub = hosts[0].clone();
        let scope =
            store.submit(move |c| Ok::<_, StoreError>(enrollments::id_scope(c, id_scope.as_deref())?));
        let id_scope = scope.await?;
        let connections = Arc::new(Connections::default());
        let command_changed = Arc::new(Notify::new());
        let authenticator = Arc::new(Authenticator::new(store.clone(), clients.clone(), hosts, trust));
        let gateway_sync = Arc::new(GatewaySync::new(
            store.clone(),
            clients.clone(),
            connections.clone(),
            command_changed.clone(),
        ));
        let commands = Arc::new(Commands::new(store.clone(), clients.clone(), stop.clone()));
        let waiting_commands = Arc::new(WaitingCommands::new(
            store.clone(),
            clients.clone(),
            commands.clone(),
            gateway_sync.clone(),
            command_changed,
            stop.clone(),
        ));
        let c2d = Arc::new(C2d::new(store.clone(), clients.clone(), gateway_sync.clone()));
        let redelivery = Redelivery::new(store.clone(), c2d.clone(), waiting_commands.clone());
        let registry = Arc::new(Registry::new(
            store.clone(),
            authenticator.clone(),
            gateway_sync.clone(),
            redelivery.clone(),
        ));
        let deployments =
            Deployments::new(store.clone(), clients.clone(), gateway_sync.clone(), registry.clone());
        let reports = (store.clone(), clients.clone(), connections.clone(), authenticator.clone());
        let gateway_reports = GatewayReports::new(reports.0, reports.1, reports.2, reports.3);
        let enrollment = Enrollment::new(EnrollmentParts {
            store: store.clone(),
            clients: clients.clone(),
            authenticator: authenticator.clone(),
            gateway_sync: gateway_sync.clone(),
            redelivery: redelivery.clone(),
            id_scope,
            hub,
        });
        Ok(Self {
            telemetry: Ingest::new(store.clone()),
            manifest_quotes: Arc::new(ManifestQuotes::new(store.clone())),
            module_logs: ModuleLogs::new(store.clone(), commands.clone()),
            store,
            clients,
            connections,
            authenticator,
            gateway_sync,
            gateway_reports: Arc::new(gateway_reports),
            commands,
            waiting_commands,
            c2d,
            redelivery,
            registry,
            deployments: Arc::new(deployments),
            enrollment: Arc::new(enrollment),
            stop,
        })
    }
}
