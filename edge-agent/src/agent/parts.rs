//! The parts of the daemon: loaded from its data directory, and joined with each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use edge_core::link::pace;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use schemas::names::{Identity, ModuleId};
use tokio::sync::{Mutex, mpsc, watch};

use super::certificates::Certificates;
use crate::access::authorizer::Authorizer;
use crate::access::devices::Devices;
use crate::access::enrolments::Enrolments;
use crate::access::generations::Generations;
use crate::access::identity_state::{IdentityState, RemovalError};
use crate::access::module_keys::ModuleKeys;
use crate::access::passwords::Passwords;
use crate::access::removals::Removals;
use crate::access::users::Users;
use crate::c2d::cloud_message_store::CloudMessageStore;
use crate::commands::Commands;
use crate::commands::daemon::DaemonMethods;
use crate::config::{Config, Kind, ProxyChoice, Upstream};
use crate::data_parts::{LEDGERS, RemovedParts};
use crate::deployment::artifacts::Artifacts;
use crate::deployment::deployments::{DeployPolicy, Deployments, Outputs};
use crate::deployment::docker::Engine;
use crate::deployment::docker::host_policy::HostPolicy;
use crate::deployment::restart_requests::{RestartRequest, RestartRequests};
use crate::deployment::status::ReconcilerStatus;
use crate::diagnostics::blob_store::{BlobStore, SILENCE_MAX};
use crate::diagnostics::bundle;
use crate::diagnostics::log_reader::LogReader;
use crate::diagnostics::uploads::{UploadSettings, Uploads};
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::messages::queues::known::KnownQueues;
use crate::messages::queues::limits::Limits;
use crate::messages::twins::Twins;
use crate::messages::unrouted::Unrouted;
use crate::state::State;
use crate::upstream::meter::Meter;
use crate::upstream::presence::PresenceChanges;

pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    /// The hub's name in tokens and connection strings.
    pub(super) hub_name: String,
    /// The names under which clients may address this gateway.
    pub(super) hosts: Vec<String>,
    pub(super) clients: Clients,
    pub(super) state: State,
    pub(super) queues: Arc<Queues>,
    pub(super) quarantine: Arc<Quarantine>,
    pub(super) unrouted: Arc<Unrouted>,
    pub(super) twins: Twins,
    pub(super) commands: Commands,
    /// To restart modules by hand.
    pub(super) restarts: RestartRequests,
    /// What the reconciler sees and does, which it writes.
    pub(super) reconciler_status: watch::Sender<ReconcilerStatus>,
    /// The reconciler's end of `restarts`.
    pub(super) restart_requests: Arc<Mutex<mpsc::Receiver<RestartRequest>>>,
    pub(super) cloud_messages: CloudMessageStore,
    pub(super) dispatcher: CloudMessageDispatcher<CloudMessageStore>,
    pub(super) deployments: Arc<Deployments>,
    /// Images and volumes of deployments.
    pub(super) artifacts: Artifacts,
    pub(super) outputs: Outputs,
    pub(super) authorizer: Authorizer,
    pub(super) passwords: Passwords,
    pub(super) enrolments: Enrolments,
    pub(super) presence: PresenceChanges,
    pub(super) meter: Meter,
}

impl Parts {
    pub(super) async fn load(
        config: Arc<Config>,
        clients: Clients,
        removed: RemovedParts,
    ) -> Result<(Self, Certificates)> {
        let (state, queues, quarantine) = open(&config, clients.clone(), removed).await?;
        let twins = Twins::load(state.clone())?;
        let devices = Devices::load(state.clone())?;
        let (restarts, restart_requests) = RestartRequests::channel();
        let hub_name = config.upstream.as_ref().and_then(Upstream::hub_name);
        let hub_name = hub_name.unwrap_or(config.hostname.as_str()).to_owned();
        let (reconciler_status, reconciler) = watch::channel(ReconcilerStatus::default());
        let logs = LogReader {
            engine: Engine::new(config.docker.socket.clone()),
            reconciler,
            hub_name: hub_name.as_str().into(),
            gateway: config.device_id.clone(),
        };
        let uploads = Uploads::new(upload_settings(&config), logs.clone());
        let daemon = DaemonMethods::new(restarts.clone(), logs, uploads);
        let commands = Commands::load(state.clone(), clients.clone(), config.device_id.clone(), daemon)?;
        let cloud_messages = CloudMessageStore::load(state.clone())?;
        let enrolments = Enrolments::new(config.hostname.clone(), devices.clone());
        let dispatcher = CloudMessageDispatcher::new(Arc::new(cloud_messages.clone()), clients.clone());
        let users = Users::load(state.clone(), config.listen.anonymous_user.clone())?;
        // Everything that keeps something by identity: what is listed here forgets with a removal, and nothing else does.
        let kept: Vec<Box<dyn IdentityState>> = vec![
            Box::new(clients.clone()),
            Box::new(twins.clone()),
            Box::new(commands.clone()),
            Box::new(queues.clone()),
            Box::new(cloud_messages.clone()),
            Box::new(users.clone()),
        ];
        let generations = Generations::load(state.clone(), Some(queues.clone()));
        let removals = Removals::load(state.clone(), users.clone(), kept, generations);
        let (deployments, outputs) = {
            let (gateway, twins, state) = (config.device_id.clone(), twins.clone(), state.clone());
            let (queues, removals) = (queues.clone(), removals.clone());
            let removal = removals.begin().await;
            let policy =
                DeployPolicy { host: HostPolicy::new(&config), on_failure: config.deploy.failure_policy };
            let load = move || Deployments::load(gateway, twins, state, queues, removals, &removal, policy);
            tokio::task::spawn_blocking(load).await??
        };
        let module_keys = ModuleKeys::load(&config.data_dir)?
            .with_numbers(config.device_id.clone(), removals.modules().numbers().clone());
        let limits = config.upstream.as_ref().map(|upstream| upstream.budget).unwrap_or_default();
        let meter = Meter::load(state.clone(), limits)?;
        let hosts = vec![hub_name.clone(), config.hostname.clone(), "localhost".to_owned()];
        let certificates = Certificates::load(&config)?;
        let authorizer = Authorizer {
            gateway: config.device_id.clone(),
            hosts: hosts.clone().into(),
            module_keys,
            devices,
            users,
            removals,
            trust: certificates.trust.trust(),
            rules: outputs.rules.clone(),
            clients: clients.clone(),
        };
        let artifacts = Artifacts::load(state.clone());
        let parts = Self {
            config,
            hub_name,
            hosts,
            clients,
            state,
            queues,
            quarantine,
            unrouted: Arc::default(),
            twins,
            commands,
            restarts,
            reconciler_status,
            restart_requests: Arc::new(Mutex::new(restart_requests)),
            cloud_messages,
            dispatcher,
            deployments: Arc::new(deployments),
            artifacts,
            outputs,
            authorizer,
            passwords: Passwords::start()?,
            enrolments,
            presence: PresenceChanges::default(),
            meter,
        };
        Ok((parts, certificates))
    }

    /// Removes what is kept of identities that are not here any more: of those removed while the daemon ended, and those that an
    /// older version did not forget. The next one of the name must not find it.
    pub(super) async fn sweep(&self) -> Result<(), RemovalError> {
        let is_central = matches!(self.upstream_kind(), Some(Kind::Central(_)));
        let knows_devices = !is_central || self.authorizer.devices.has_list();
        let modules = self.deployments.modules();
        let is_gone = is_left_behind(&self.authorizer, &modules, knows_devices);
        self.authorizer.removals.sweep(is_gone).await
    }

    fn upstream_kind(&self) -> Option<&Kind> {
        self.config.upstream.as_ref().map(|upstream| &upstream.kind)
    }
}

fn upload_settings(config: &Config) -> UploadSettings {
    // Stores are reached as upstream is.
    let proxy = config.upstream.as_ref().map_or(ProxyChoice::Environment, |upstream| upstream.proxy.clone());
    UploadSettings {
        config: config.file.clone(),
        write_bundle: bundle::write_upload,
        data_dir: config.data_dir.clone(),
        keep_free_bytes: config.buffer.keep_free_bytes,
        store: BlobStore { proxy, silence_max: SILENCE_MAX },
    }
}

async fn open(
    config: &Arc<Config>,
    clients: Clients,
    removed: RemovedParts,
) -> Result<(State, Arc<Queues>, Arc<Quarantine>)> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let (data_dir, ledgers) = (&config.data_dir, config.data_dir.join(LEDGERS));
        let state =
            State::open_with(&data_dir.join("state"), Some(&ledgers.join("state.ledger")), removed.state)?;
        let known = KnownQueues::load(state.clone(), data_dir, &ledgers);
        let known = if removed.sessions { known.without_sessions(&data_dir.join("mqtt")) } else { known };
        let known = Arc::new(known);
        let quarantine_dir = data_dir.join("quarantine/upstream");
        let quarantine = Quarantine::open(
            &quarantine_dir,
            config.buffer.keep_free_bytes,
            config.buffer.quarantine_bytes,
            Some(ledgers.join("quarantine/upstream.ledger")),
        )?;
        known.opened(&quarantine_dir);
        let buffer = data_dir.join("buffer");
        let limits = Limits::new(&config.buffer)
            .with_ledgers(buffer.clone(), ledgers.join("buffer"))
            .with_known(known);
        let limits =
            if matches!(config.upstream.as_ref().map(|upstream| &upstream.kind), Some(Kind::Central(_))) {
                limits.settled_by_upstream(pace::MOST as u64)
            } else {
                limits
            };
        let queues = Queues::open(&buffer, limits, config.device_id.clone(), clients)?;
        Ok((state, Arc::new(queues), Arc::new(quarantine)))
    })
    .await?
}

/// Who is not here any more, of those of whom something is kept.
fn is_left_behind(
    authorizer: &Authorizer,
    modules: &BTreeSet<ModuleId>,
    knows_devices: bool,
) -> impl Fn(&Identity) -> bool {
    move |identity| match (&identity.module, identity.user_name()) {
        (_, Some(user)) => authorizer.users.get(&user).is_none(),
        _ if identity.is_local() => false,
        (None, _) if identity.device == authorizer.gateway => false,
        (Some(module), _) if identity.device == authorizer.gateway => {
            !module.is_system() && !modules.contains(module)
        }
        _ => knows_devices && authorizer.devices.get(&identity.device).is_none(),
    }
}
