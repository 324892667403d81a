//! The daemon: the one file that joins the rooms, owns their tasks and ends them in order.
//!
//! Started: state, queues, deployment in force, MQTT server, reconciler, link, control socket. Stopped the other way round:
//! clients are let go first, what they handed in is synced, and the containers run on.

use edge_core::error_chain::chain;
use edge_core::link::pace;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_core::deploy::desired::Desired;
use edge_core::deploy::report;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use edge_hub::data_lock::DataLock;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::private_files::{make_new_files_private, make_private};
use edge_hub::tasks::{Tasks, guard};
use futures_util::FutureExt as _;
use mqtt::client::{Proxy, Transport};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::status::HealthReport;
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::authorizer::Authorizer;
use crate::access::certificate;
use crate::access::devices::Devices;
use crate::access::enrolments::Enrolments;
use crate::access::generations::Generations;
use crate::access::identity_state::IdentityState;
use crate::access::module_keys::{self, ModuleKeys};
use crate::access::passwords::Passwords;
use crate::access::removals::Removals;
use crate::access::users::Users;
use crate::c2d::cloud_message_store::CloudMessageStore;
use crate::check;
use crate::clock::now_ms;
use crate::commands::Commands;
use crate::commands::methods;
use crate::config::{Config, Kind, Listen, Upstream};
use crate::control;
use crate::control::context::Control;
use crate::control::socket;
use crate::deployment::deployments::{Deployments, Judgement};
use crate::deployment::docker::host_policy::HostPolicy;
use crate::deployment::docker::{Engine, ModuleContext};
use crate::deployment::reconciler::Reconciler;
use crate::deployment::status::{Deployment, ReconcilerStatus};
use crate::deployment::watched_folder;
use crate::deployment::workload::certificates::ModuleCertificates;
use crate::deployment::workload::{self, About, Workload};
use crate::gateway_service::GatewayService;
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::messages::queues::limits::Limits;
use crate::messages::routing::Router;
use crate::messages::twins::Twins;
use crate::messages::unrouted::Unrouted;
use crate::open_files::file_budget;
use crate::state::State;
use crate::upstream::central;
use crate::upstream::central::uplink::Uplink;
use crate::upstream::forward::{Forwarder, UpstreamProfile};
use crate::upstream::meter::Meter;
use crate::upstream::presence::PresenceChanges;
use crate::upstream::reach;
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
    edge_hub::random::seed()?;
    let config = Config { listen: Listen { connections_max, ..config.listen }, ..config };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    make_new_files_private();
    let _lock = DataLock::acquire(&config.data_dir, "lock", "edge-agent")?;
    make_data_private(&config.data_dir)?;
    let mut daemon = Daemon::start(config).await?;
    tracing::info!("edge-agent ready");
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::warn!(error = %chain(&error), "systemd was not told that edge-agent is ready");
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
    async fn start(config: Config) -> Result<Self> {
        let config = Arc::new(config);
        let (stop, stop_listeners) = (CancellationToken::new(), CancellationToken::new());
        let clients = Clients::new();
        let (state, queues, quarantine) = open(&config, clients.clone()).await?;
        let twins = Twins::load(state.clone())?;
        let devices = Devices::load(state.clone())?;
        let commands = Commands::load(state.clone(), clients.clone(), config.device_id.clone())?;
        let cloud_messages = CloudMessageStore::load(state.clone())?;
        let enrolments = Enrolments::new(config.hostname.clone(), devices.clone());
        let dispatcher = CloudMessageDispatcher::new(Arc::new(cloud_messages.clone()), clients.clone());
        let users = Users::load(state.clone(), config.listen.anonymous_user.clone())?;
        // Everything that keeps something by identity: what stands here forgets with a removal, and nothing else does.
        let kept: Vec<Box<dyn IdentityState>> = vec![
            Box::new(clients.clone()),
            Box::new(twins.clone()),
            Box::new(commands.clone()),
            Box::new(queues.clone()),
            Box::new(cloud_messages.clone()),
            Box::new(users.clone()),
        ];
        let removals = Removals::load(
            state.clone(),
            users.clone(),
            kept,
            Generations::load(state.clone(), Some(queues.clone())),
        );
        let (deployments, outputs) = {
            let (gateway, twins, state) = (config.device_id.clone(), twins.clone(), state.clone());
            let (queues, removals) = (queues.clone(), removals.clone());
            let removal = removals.begin().await;
            let policy = HostPolicy::new(&config);
            let load = move || Deployments::load(gateway, twins, state, queues, removals, &removal, policy);
            tokio::task::spawn_blocking(load).await??
        };
        let deployments = Arc::new(deployments);
        let presence = PresenceChanges::default();
        let unrouted = Arc::new(Unrouted::default());
        let module_keys = ModuleKeys::load(&config.data_dir)?
            .with_numbers(config.device_id.clone(), removals.modules().numbers().clone());
        let limits = config.upstream.as_ref().map(|upstream| upstream.budget).unwrap_or_default();
        let meter = Meter::load(state.clone(), limits)?;
        let upstream = config.upstream.as_ref();
        let hub_name = upstream.and_then(Upstream::hub_name).unwrap_or(config.hostname.as_str()).to_owned();

        // The MQTT server.
        let hosts = vec![hub_name.clone(), config.hostname.clone(), "localhost".to_owned()];
        let authority = certificate::authority(&config);
        let trust = certificate::trust(&config, authority.as_ref())?;
        let authorizer = Authorizer {
            gateway: config.device_id.clone(),
            hosts: hosts.clone().into(),
            module_keys: module_keys.clone(),
            devices,
            users,
            removals: removals.clone(),
            trust: trust.trust(),
            rules: outputs.rules,
            clients: clients.clone(),
        };
        let passwords = Passwords::start()?;
        let front = Arc::new(GatewayService {
            gateway: config.device_id.clone(),
            hosts,
            authorizer: authorizer.clone(),
            passwords: passwords.clone(),
            twins: twins.clone(),
            router: Router {
                gateway: config.device_id.clone(),
                queues: queues.clone(),
                twins: twins.clone(),
                routing: outputs.routing.clone(),
                takes_free: outputs.takes_free,
                unrouted: unrouted.clone(),
            },
            routing: outputs.routing,
            presence: presence.clone(),
            commands: commands.clone(),
            dispatcher: dispatcher.clone(),
            enrolments: enrolments.clone(),
        });
        let keeper = certificate::keeper(&config, authority.clone())?;
        let tls = edge_hub::tls::server_config_for(keeper.served())?;
        let (server, listeners) =
            open_listeners(&config, front, clients.clone(), tls, &stop_listeners).await?;

        // Nobody who was removed while the daemon ended, and nobody whom an older version forgot to forget, is found again by
        // the next one of the name.
        let is_central = matches!(upstream.map(|upstream| &upstream.kind), Some(Kind::Central(_)));
        let knows_devices = !is_central || authorizer.devices.is_told();
        removals.sweep(is_left_behind(&authorizer, &deployments.modules(), knows_devices)).await?;

        let mut tasks = Tasks::new(stop.clone());
        {
            let stop = stop.clone();
            tasks.restarted("removals", move || {
                let (removals, stop) = (removals.clone(), stop.clone());
                async move {
                    removals.run(stop).await;
                    Ok(())
                }
            });
        }
        {
            let stop = stop.clone();
            tasks.essential("certificate", async move {
                keeper.run(stop).await.context("keeping the server's certificate")
            });
        }
        {
            let stop = stop.clone();
            tasks.essential("authorities of devices", async move {
                trust.run(stop).await.context("keeping the authorities of devices")
            });
        }
        {
            let (queues, stop) = (queues.clone(), stop.clone());
            tasks.restarted("expiry of queues", move || {
                let (queues, stop) = (queues.clone(), stop.clone());
                async move {
                    queues.expire(stop).await;
                    Ok(())
                }
            });
        }
        {
            let (dispatcher, stop) = (dispatcher.clone(), stop.clone());
            tasks.restarted("end of messages", move || {
                let (dispatcher, stop) = (dispatcher.clone(), stop.clone());
                async move {
                    dispatcher.expire(stop).await;
                    Ok(())
                }
            });
        }
        {
            let (commands, stop) = (commands.clone(), stop.clone());
            tasks.restarted("end of waiting commands", move || {
                let (commands, stop) = (commands.clone(), stop.clone());
                async move {
                    commands.expire(stop).await;
                    Ok(())
                }
            });
        }
        {
            let (authorizer, stop) = (authorizer.clone(), stop.clone());
            tasks.restarted("authorization of clients", move || {
                let (authorizer, stop) = (authorizer.clone(), stop.clone());
                async move {
                    authorizer.run(stop).await;
                    Ok(())
                }
            });
        }
        {
            let (meter, stop) = (meter.clone(), stop.clone());
            tasks.restarted("budget of the link", move || {
                let (meter, stop) = (meter.clone(), stop.clone());
                async move {
                    meter.run(stop).await;
                    Ok(())
                }
            });
        }

        // The reconciler and its report.
        let (status, deployer_status) = watch::channel(ReconcilerStatus::default());
        let in_force = outputs.reconciler.clone();
        let (health, told_health) = watch::channel(None);
        let reporter = Reporter {
            gateway: config.device_id.clone(),
            host: host(),
            twins: twins.clone(),
            deployment: outputs.reconciler.clone(),
            reconciler: deployer_status.clone(),
            judgement: outputs.judgement.clone(),
            health: told_health,
        };
        {
            let stop = stop.clone();
            tasks.restarted("report", move || {
                let (reporter, stop) = (reporter.clone(), stop.clone());
                async move {
                    reporter.run(stop).await;
                    Ok(())
                }
            });
        }
        {
            let context = ModuleContext::new(&config, &module_keys);
            let about = About {
                keys: module_keys,
                trust_bundle: certificate::trust_bundle(&config),
                certificates: authority.map(|authority| ModuleCertificates {
                    authority,
                    gateway: config.device_id.clone(),
                    hub_name: hub_name.clone(),
                }),
                reconciler: deployer_status.clone(),
            };
            let workload = Arc::new(Workload::new(&config.data_dir, about));
            let reconciler = Reconciler {
                engine: Engine::new(config.docker.socket.clone()),
                workload,
                context,
                deployments: outputs.reconciler,
                status,
            };
            let stop = stop.clone();
            tasks.restarted("reconciler", move || {
                let (reconciler, stop) = (reconciler.clone(), stop.clone());
                async move {
                    reconciler.run(stop).await;
                    Ok(())
                }
            });
        }

        // The link.
        let link = match upstream {
            None => {
                tracing::warn!("no upstream is configured: telemetry stays on this gateway");
                None
            }
            Some(upstream) => {
                let (status, receiver) = watch::channel(LinkStatus {
                    is_connected: false,
                    since_ms: now_ms(),
                    why: String::new(),
                    failure: None,
                });
                let proxy = upstream.proxy();
                if let Some(proxy) = &proxy {
                    tracing::info!(%proxy, "upstream is reached through a proxy");
                }
                let carried = Carried {
                    gateway: config.device_id.clone(),
                    queues: queues.clone(),
                    quarantine: quarantine.clone(),
                    devices: authorizer.devices.clone(),
                    meter: meter.clone(),
                };
                let (stop, upstream) = (stop.clone(), upstream.clone());
                match upstream.kind.clone() {
                    Kind::Central(connection_string) => {
                        let mut uplink = Uplink {
                            upstream: connection_string,
                            keep_alive: upstream.keep_alive,
                            // Replaced before it runs, as soon as its files can be used.
                            transport: Transport::Plain,
                            proxy,
                            queues: queues.clone(),
                            quarantine: quarantine.clone(),
                            meter: meter.clone(),
                            twins,
                            authorizer: authorizer.clone(),
                            deployments: deployments.clone(),
                            commands: commands.clone(),
                            cloud_messages,
                            dispatcher,
                            enrolments,
                            clients: clients.clone(),
                            presence,
                            status,
                            central_version: AtomicU32::new(0),
                            is_store_unnamed: AtomicBool::new(false),
                        };
                        // A panic of a connection is the end of that connection (`Uplink::run`).
                        tasks.essential("link", async move {
                            let transport = reach::usable_transport(&upstream, &uplink.status, &stop).await;
                            if let Some(transport) = transport {
                                uplink.transport = transport;
                                central::run(uplink, stop).await;
                            }
                            anyhow::Ok(())
                        });
                    }
                    _ => {
                        tasks.restarted("link", move || {
                            let (upstream, status, stop) = (upstream.clone(), status.clone(), stop.clone());
                            let (carried, proxy) = (carried.clone(), proxy.clone());
                            async move {
                                let transport = reach::usable_transport(&upstream, &status, &stop).await;
                                if let Some(transport) = transport {
                                    carried.forwarder(&upstream, transport, proxy, status).run(stop).await;
                                }
                                Ok(())
                            }
                        });
                    }
                }
                Some(receiver)
            }
        };

        if let Some(folder) = config.deploy.watch.clone() {
            let (deployments, clients, state) = (deployments.clone(), clients.clone(), state.clone());
            let stop = stop.clone();
            tasks.restarted("folder of manifests", move || {
                let folder = folder.clone();
                let (deployments, clients, state) = (deployments.clone(), clients.clone(), state.clone());
                let watched = watched_folder::run(folder, deployments, clients, state, stop.clone());
                async move { Ok(watched.await?) }
            });
        }

        // The control socket.
        let control = Arc::new(Control {
            passwords,
            gateway: config.device_id.clone(),
            hostname: config.hostname.clone(),
            hub_name,
            clients,
            authorizer,
            deployments,
            judgement: outputs.judgement,
            reconciler: deployer_status,
            queues: queues.clone(),
            unrouted,
            commands: commands.clone(),
            server: server.clone(),
            quarantine: quarantine.clone(),
            state: state.clone(),
            meter,
            upstream: config.upstream.clone(),
            link,
            deployment: in_force,
            config_crc32c: config.crc32c,
        });
        {
            let (control, config, stop) = (control.clone(), config.clone(), stop.clone());
            tasks.restarted("health", move || {
                let (control, config) = (control.clone(), config.clone());
                let (health, stop) = (health.clone(), stop.clone());
                async move {
                    check::watch::run(control, config, health, stop).await;
                    Ok(())
                }
            });
        }
        {
            // Before anybody hears that the daemon is ready.
            let listener = socket::listen(&config.data_dir).context("listening for the command line")?;
            let stop = stop.clone();
            tasks.essential("command line", async move {
                control::serve(control, listener, stop).await;
                anyhow::Ok(())
            });
        }
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
        // The rooms behind the server keep their state until here.
        drop((self.server, self.commands));
        self.state.close().await;
    }
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

/// What a forwarder to an upstream that is not central needs of the other rooms.
#[derive(Clone)]
struct Carried {
    gateway: DeviceId,
    queues: Arc<Queues>,
    quarantine: Arc<Quarantine>,
    devices: Devices,
    meter: Meter,
}

impl Carried {
    fn forwarder(
        self,
        upstream: &Upstream,
        transport: Transport,
        proxy: Option<Proxy>,
        status: watch::Sender<LinkStatus>,
    ) -> Forwarder {
        if matches!(transport, Transport::Plain) {
            tracing::warn!(
                "[upstream] transport = \"plain\": everybody on the way can read and change what is sent"
            );
        }
        let profile = UpstreamProfile::new(upstream, self.devices);
        Forwarder {
            gateway: self.gateway,
            profile: Arc::new(profile),
            address: upstream.address(),
            transport,
            proxy,
            keep_alive: upstream.keep_alive,
            queues: self.queues,
            quarantine: self.quarantine,
            meter: self.meter,
            status,
        }
    }
}

async fn open(config: &Arc<Config>, clients: Clients) -> Result<(State, Arc<Queues>, Arc<Quarantine>)> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let state = State::open(&config.data_dir.join("state"))?;
        let dir = config.data_dir.join("quarantine/upstream");
        let quarantine =
            Quarantine::open(&dir, config.buffer.keep_free_bytes, config.buffer.quarantine_bytes)?;
        let limits = Limits::new(&config.buffer);
        let limits =
            if matches!(config.upstream.as_ref().map(|upstream| &upstream.kind), Some(Kind::Central(_))) {
                limits.settled_by_upstream(pace::MOST as u64)
            } else {
                limits
            };
        let queues =
            Queues::open(&config.data_dir.join("buffer"), limits, config.device_id.clone(), clients)?;
        Ok((state, Arc::new(queues), Arc::new(quarantine)))
    })
    .await?
}

async fn open_listeners(
    config: &Config,
    front: Arc<GatewayService>,
    clients: Clients,
    tls: Arc<rustls::ServerConfig>,
    stop: &CancellationToken,
) -> Result<(Arc<MqttServer<GatewayService>>, Tasks)> {
    let api = methods::router(front.clone(), clients.clone());
    let settings = config.limits.settings(config.listen.connections_max);
    let server = MqttServer::open(&config.data_dir.join("mqtt"), front, clients, settings).await?;
    let mut listeners = Tasks::new(stop.clone());
    let bind = async |address| {
        edge_hub::listen::bind(address).await.with_context(|| format!("listening on {address}"))
    };
    let listener = bind(config.listen.mqtts).await?;
    listeners.essential(
        "MQTT over TLS",
        server.clone().serve_tls(listener, tls.clone(), stop.clone()).map(anyhow::Ok),
    );
    tracing::info!(address = %config.listen.mqtts, "MQTT over TLS is served");
    if let Some(address) = config.listen.https {
        let listener = bind(address).await.context(
            "[listen] https: MQTT over WebSocket and the modules' method API; write \"\" for none",
        )?;
        listeners
            .essential("HTTPS", server.clone().serve_https(listener, tls, api, stop.clone()).map(anyhow::Ok));
        tracing::info!(%address, "MQTT over WebSocket and the modules' method API are served");
    }
    if let Some(address) = config.listen.mqtt {
        if !address.ip().is_loopback() {
            bail!("[listen] mqtt: found {address}; plain MQTT is served on loopback only");
        }
        listeners.essential(
            "plain MQTT",
            server.clone().serve_tcp(bind(address).await?, stop.clone()).map(anyhow::Ok),
        );
        let anonymous_user = config.listen.anonymous_user.as_ref().map(tracing::field::display);
        tracing::info!(%address, anonymous_user, "plain MQTT is served on loopback");
    }
    Ok((server, listeners))
}

/// Keeps the reported sections of `$edgeAgent` and `$edgeHub` true.
#[derive(Clone)]
struct Reporter {
    gateway: DeviceId,
    host: report::Host,
    twins: Twins,
    deployment: watch::Receiver<Option<Arc<Deployment>>>,
    reconciler: watch::Receiver<ReconcilerStatus>,
    judgement: watch::Receiver<Judgement>,
    health: watch::Receiver<Option<HealthReport>>,
}

impl Reporter {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            self.report();
            let changed = tokio::select! {
                changed = self.reconciler.changed() => changed,
                changed = self.judgement.changed() => changed,
                changed = self.health.changed() => changed,
                () = stop.cancelled() => return,
            };
            if changed.is_err() {
                // The senders live until the daemon stops.
                return stop.cancelled().await;
            }
        }
    }

    fn report(&mut self) {
        let status = self.reconciler.borrow_and_update().clone();
        let judgement = self.judgement.borrow_and_update().clone();
        let health = self.health.borrow_and_update().clone();
        let with_health = |mut section: Map<String, Value>| {
            if let Some(health) = &health {
                let health = serde_json::to_value(health).expect("a report has a JSON form");
                section.insert("health".to_owned(), health);
            }
            report::bounded(section)
        };
        let Some(versions) = judgement.versions else {
            // What is wrong with a gateway is told before it has a manifest, too.
            if health.is_some() {
                let agent = Identity::module(self.gateway.clone(), ModuleId::edge_agent());
                self.twins.replace_reported(&agent, with_health(Map::new()));
            }
            return;
        };
        let outcome = |desired_version| match &judgement.problem {
            Some(problem) => {
                let code = schemas::status::code::REFUSED;
                report::Outcome { desired_version, code, description: problem.clone() }
            }
            None => report::Outcome {
                desired_version,
                code: status.outcome.code,
                description: status.outcome.description.clone(),
            },
        };
        let identity = |module| Identity::module(self.gateway.clone(), module);
        let in_force = self.deployment.borrow().clone();
        let none = Desired::default();
        let desired = in_force.as_ref().map_or(&none, |deployment| &deployment.desired);
        let agent = outcome(versions.edge_agent);
        let progress = status.progress(desired, now_ms());
        let agent = report::edge_agent(&self.host, &progress, &agent, &judgement.warnings);
        self.twins.replace_reported(&identity(ModuleId::edge_agent()), with_health(agent));
        let mut hub = outcome(versions.edge_hub);
        if judgement.problem.is_none() {
            // What Docker does is no fault of the routes.
            (hub.code, hub.description) = if judgement.routes_refused.is_empty() {
                (schemas::status::code::SUCCESS, String::new())
            } else {
                (schemas::status::code::REFUSED, judgement.routes_refused.join("\n"))
            };
        }
        self.twins.replace_reported(&identity(ModuleId::edge_hub()), report::edge_hub(&hub));
    }
}

fn host() -> report::Host {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let version = release.lines().find_map(|line| line.strip_prefix("VERSION_ID=")).unwrap_or_default();
    report::Host {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: schemas::status::Platform {
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            version: version.trim_matches('"').to_owned(),
        },
    }
}
