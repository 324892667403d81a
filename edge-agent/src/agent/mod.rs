//! The daemon: it loads the parts, joins them, owns their tasks and ends them in order.
//!
//! Started: state, queues, deployment in force, MQTT server, reconciler, link, control socket. Stopped the other way round:
//! clients are let go first, what they handed in is synced, and the containers run on.

mod certificates;
mod link;
mod parts;
mod report;
mod server;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_core::error_chain::chain;
use edge_hub::data_lock::DataLock;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::private_files::{make_new_files_private, make_private};
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use edge_hub::tasks::{Tasks, guard};
use edge_tls::config::server_config_for;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::parts::Parts;
use self::tasks::restarted;
use crate::access::module_keys;
use crate::check;
use crate::commands::Commands;
use crate::config::{Config, Listen};
use crate::control;
use crate::control::context::Control;
use crate::control::socket;
use crate::data_parts::{LEDGERS, RemovedParts};
use crate::deployment::docker::Engine;
use crate::deployment::status::ReconcilerStatus;
use crate::deployment::workload;
use crate::gateway_service::GatewayService;
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::open_files::file_budget;
use crate::state::State;
use crate::upstream::status::LinkStatus;

/// How long the daemon may take to stop after a task failed that it cannot go on without.
const STOP_AFTER_FAILURE: Duration = Duration::from_secs(20);
/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When something that the daemon cannot do without fails: at the start, or a task that ended by itself.
pub async fn run(config: Config) -> Result<()> {
    // First of all: what opens files before it, such as the sources of random numbers, may panic for want of them.
    let connections_max = file_budget(&config).claim().context("limit of open files")?;
    edge_hub::files::survive_file_size_limit().context("signals")?;
    edge_hub::random::seed()?;
    let config = Config { listen: Listen { connections_max, ..config.listen }, ..config };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    make_new_files_private();
    let _lock = DataLock::acquire(&config.data_dir, "lock", "edge-agent")?;
    make_data_private(&config.data_dir)?;
    // Before anything is stamped by it.
    crate::clock::resume(&config.data_dir, config.data_dir.join(LEDGERS).exists());
    let removed = RemovedParts::find(&config.data_dir);
    let mut daemon = Daemon::start(config, removed).await?;
    tracing::info!("edge-agent ready");
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::warn!(error = %chain(&error), "notifying systemd of readiness failed");
    }
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = daemon.tasks.failed() => Err(failure),
        failure = daemon.listeners.failed() => Err(failure),
    };
    if let Err(failure) = &ended {
        tracing::error!(task = failure.task, cause = failure.cause, "edge-agent cannot go on and stops");
    }
    tracing::info!("edge-agent stops; containers run on");
    // What a panic left may also stop the stop: what was acknowledged is on disk in any case.
    let within = if ended.is_ok() { Duration::MAX } else { STOP_AFTER_FAILURE };
    match tokio::time::timeout(within, guard("stop", daemon.stop())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = %chain(&error), "stopping in order failed"),
        Err(_) => tracing::error!(?within, "stopping in order took too long"),
    }
    tracing::info!("edge-agent stopped");
    Ok(ended?)
}

/// What `init` and older versions left readable for others. Only in a directory that is this daemon's: one that a mistake in
/// edge.toml names shall not lose its permissions.
fn make_data_private(data_dir: &std::path::Path) -> Result<()> {
    if data_dir.join(module_keys::FILE).exists() {
        let changed = make_private(data_dir, &[workload::DIR])?;
        if changed > 0 {
            tracing::info!(changed, dir = %data_dir.display(), "permissions of others removed in the data directory");
        }
    }
    Ok(())
}

struct Daemon {
    tasks: Tasks,
    server: Arc<MqttServer<GatewayService>>,
    listeners: Tasks,
    stop_listeners: CancellationToken,
    stop: CancellationToken,
    commands: Commands,
    queues: Arc<Queues>,
    quarantine: Arc<Quarantine>,
    state: State,
}

impl Daemon {
    async fn start(config: Config, removed: RemovedParts) -> Result<Self> {
        let (stop, stop_listeners) = (CancellationToken::new(), CancellationToken::new());
        let settings = MqttServerSettings {
            // Something of the disk is left for sessions when the queues have filled theirs.
            keep_free_bytes: config.buffer.keep_free_bytes / 2,
            journal_ledger_copy: Some(config.data_dir.join(LEDGERS).join("mqtt.ledger")),
            ..config.limits.settings(config.listen.connections_max)
        };
        let sessions = Sessions::open(&config.data_dir.join("mqtt"), settings).await?;
        let (parts, certificates) = Parts::load(Arc::new(config), sessions.clients(), removed).await?;
        let tls = server_config_for(certificates.keeper.served())?;
        let (server, listeners) = server::open(&parts, sessions, tls, &stop_listeners).await?;
        parts.sweep().await?;

        let mut tasks = Tasks::new(stop.clone());
        tasks::start(&mut tasks, &parts, &stop);
        let authority = certificates.keep(&mut tasks, &stop);
        let (health, reported_health) = watch::channel(None);
        let reconciler = tasks::start_reconciler(&mut tasks, &parts, authority, reported_health, &stop);
        let link = link::start(&mut tasks, &parts, &stop);
        tasks::start_rollout(&mut tasks, &parts, reconciler.clone(), link.clone(), &stop);

        let control = Arc::new(control(&parts, server.clone(), reconciler, link));
        tasks::start_metrics(&mut tasks, &parts, &control, &stop);
        let watched = (control.clone(), parts.config.clone(), health);
        restarted(&mut tasks, "health", &stop, watched, |(control, config, health), stop| {
            check::watch::run(control, config, health, stop)
        });
        // Before anybody hears that the daemon is ready.
        let listener = socket::listen(&parts.config.data_dir).with_context(|| {
            let path = socket::socket(&parts.config.data_dir);
            format!(
                "listening for the command line at {} failed; remove what is there, or give its directory back to this user",
                path.display()
            )
        })?;
        let stop_control = stop.clone();
        tasks.essential("command line", async move {
            control::serve(control, listener, stop_control).await;
            anyhow::Ok(())
        });
        let Parts { commands, queues, quarantine, state, .. } = parts;
        Ok(Self { tasks, server, listeners, stop_listeners, stop, commands, queues, quarantine, state })
    }

    async fn stop(mut self) {
        self.stop_listeners.cancel();
        self.listeners.join().await;
        self.server.close().await;
        self.stop.cancel();
        self.tasks.join().await;
        self.commands.close().await;
        self.queues.close().await;
        self.quarantine.close().await;
        // What is behind the server holds the state until here.
        drop((self.server, self.commands));
        self.state.close().await;
    }
}

/// What the command line asks and commands.
fn control(
    parts: &Parts,
    server: Arc<MqttServer<GatewayService>>,
    reconciler: watch::Receiver<ReconcilerStatus>,
    link: Option<watch::Receiver<LinkStatus>>,
) -> Control {
    Control {
        passwords: parts.passwords.clone(),
        gateway: parts.config.device_id.clone(),
        hostname: parts.config.hostname.clone(),
        hub_name: parts.hub_name.clone(),
        clients: parts.clients.clone(),
        authorizer: parts.authorizer.clone(),
        deployments: parts.deployments.clone(),
        acceptance: parts.outputs.acceptance.clone(),
        reconciler,
        queues: parts.queues.clone(),
        unrouted: parts.unrouted.clone(),
        commands: parts.commands.clone(),
        server,
        quarantine: parts.quarantine.clone(),
        state: parts.state.clone(),
        meter: parts.meter.clone(),
        upstream: parts.config.upstream.clone(),
        link,
        deployment: parts.outputs.reconciler.clone(),
        restarts: parts.restarts.clone(),
        engine: Engine::new(parts.config.docker.socket.clone()),
        config_crc32c: parts.config.crc32c,
    }
}
