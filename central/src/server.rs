//! Starts everything in order, and stops it in order.

use edge_core::error_chain::chain;
use edge_tls::config::{https_config_for, server_config_for};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edge_core::access::x509::Authorities;
use edge_hub::data_lock::DataLock;
use edge_hub::files::FileBudget;
use edge_hub::http_server::{HttpLimits, HttpServer};
use edge_hub::metrics::listener;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::private_files::make_private;
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use edge_hub::tasks::{self, TaskFailure, Tasks};
use edge_tls::keep::Keeper;
use edge_tls::trust::TrustKeeper;
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::request_counts::RequestCounts;
use crate::audit::log::Audit;
use crate::config::Config;
use crate::diagnosis::device_states::DeviceStates;
use crate::live::LiveFeed;
use crate::metrics::Metrics;
use crate::mqtt_service::CentralService;
use crate::people::service::People;
use crate::services::{Services, SiteNames};
use crate::store::integrity::{self, Checked, Depth};
use crate::store::{self, LOCK_FILE, Store, StoreError, age_clock_task, devices};

/// How long requests and connections may take to end before they are cut.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Open files of everything that is no client: the store, the log, the session journal.
const FILES_RESERVED: u64 = 250;
/// From the connection of a REST client to the end of its request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The longest request: a command waits 300 s for its target to connect, 300 s for its answer, and for the gateway.
const REQUEST_MAX: Duration = Duration::from_secs(630);
/// How long an operator's client may take nothing of its answer.
const STALL_MAX: Duration = Duration::from_secs(30);
/// How long the check of the store's telemetry may keep a start waiting.
const CHECK_WITHIN: Duration = Duration::from_secs(20);
/// How long works that wait for another program to free the store are waited for when central stops.
const LOCKED_STOP_WITHIN: Duration = Duration::from_secs(2);

/// A central that serves.
pub struct Started {
    /// REST API and status page.
    pub http: SocketAddr,
    /// Whether [`Started::http`] speaks TLS.
    pub is_https: bool,
    /// MQTT over TLS.
    pub mqtts: SocketAddr,
    /// Plain MQTT.
    pub mqtt: Option<SocketAddr>,
    /// MQTT over WebSocket over TLS.
    pub wss: Option<SocketAddr>,
    services: Services,
    mqtt_server: Arc<MqttServer<CentralService>>,
    tasks: Tasks,
    stop: CancellationToken,
    _lock: DataLock,
}

/// How open files are shared between the store, the API and the gateways' connections.
pub fn file_budget(config: &Config) -> FileBudget {
    FileBudget {
        reserved: FILES_RESERVED + (config.http.connections_max + listener::CONNECTIONS_MAX) as u64,
        connections_max: config.mqtt.connections_max,
        files_per_connection: 1,
    }
}

/// Opens the store, makes the certificate, and serves until `stop`.
///
/// # Errors
/// What could not be opened, made or listened on.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Started> {
    let connections_max = file_budget(&config).claim().context("limit of open files")?;
    edge_hub::files::survive_file_size_limit().context("signals")?;
    edge_hub::random::seed()?;
    let lock = DataLock::acquire(&config.data_dir, LOCK_FILE, "central")?;
    if config.data_dir.join("ca-key.pem").exists() {
        make_private(&config.data_dir, &[])?;
    }
    // Before anything is written: an authority without its store must be seen as what it is.
    let store = open_store(&config).await?;
    let is_trusted = store.read(|c| Ok::<_, StoreError>(devices::trust_authority(c)?)).await?;
    let certificates = Certificates::open(&config, is_trusted)?;
    store.submit(|c| Ok::<_, StoreError>(devices::note_authority(c)?)).await?;
    let sessions =
        Sessions::open(&config.data_dir.join("mqtt"), mqtt_settings(&config, connections_max)).await?;
    let trust =
        TrustKeeper::open(config.tls.device_ca.clone(), Authorities::default()).context("tls.device_ca")?;
    let names = SiteNames {
        hosts: vec![config.hostname.clone(), "localhost".to_owned()],
        id_scope: config.dps.id_scope.clone(),
    };
    let services = Services::new(store, sessions.clients(), names, trust.trust(), stop.clone()).await?;
    services.commands.resume().await?;
    let audit = Audit::new(services.store.clone(), config.keep.audit_limits());
    let people =
        People::open(audit, services.store.clone(), &config.data_dir).await.context("opening the users")?;
    let mqtt_server = MqttServer::new(sessions, CentralService::new(services.clone()));
    let listeners = Listeners::bind(&config).await?;
    let mut started = Started {
        http: listeners.http.local_addr()?,
        is_https: config.http.tls,
        mqtts: listeners.mqtts.local_addr()?,
        mqtt: listeners.mqtt.as_ref().map(TcpListener::local_addr).transpose()?,
        wss: listeners.wss.as_ref().map(TcpListener::local_addr).transpose()?,
        services: services.clone(),
        mqtt_server: mqtt_server.clone(),
        tasks: Tasks::new(stop.clone()),
        stop: stop.clone(),
        _lock: lock,
    };
    let states = DeviceStates::new(services.clients.clone(), services.connections.clone());
    let live = LiveFeed::new(services.store.clone(), states.clone());
    let requests = Arc::new(RequestCounts::default());
    if let Some(address) = config.metrics.listen {
        let metrics = Metrics {
            store: services.store.clone(),
            ingest: services.telemetry.clone(),
            clients: services.clients.clone(),
            mqtt_server: mqtt_server.clone(),
            live: live.clone(),
            requests: requests.clone(),
            data_dir: config.data_dir.clone(),
        };
        started.serve_metrics(Arc::new(metrics), address);
    }
    let settings = Arc::new(config.clone());
    let api = crate::api::router(services, mqtt_server, people, live.clone(), states, settings, requests);
    started.run_in_background(live, trust);
    started.serve(listeners, &certificates, api, &config);
    started.keep(certificates);
    tracing::info!(http = started.http_url(), mqtts = %started.mqtts, hostname = config.hostname, "central is serving");
    Ok(started)
}

fn mqtt_settings(config: &Config, connections_max: usize) -> MqttServerSettings {
    let limits = config.limits.settings(connections_max);
    MqttServerSettings {
        // A gateway has as many in flight as its window holds; what is read and not stored yet is bounded below.
        receive_max: Some(u16::MAX),
        // Two of the writer's batches: one is written, the other is read meanwhile.
        pending_max: 2 * crate::telemetry::ingest::BATCH_MAX,
        // Something of the disk is left for sessions when telemetry is refused.
        keep_free_bytes: config
            .keep
            .free_bytes
            .map_or(limits.keep_free_bytes, |free| free / 2)
            .min(limits.keep_free_bytes),
        ..limits
    }
}

/// The certificates that central serves with.
struct Certificates {
    keeper: Keeper,
    mqtt_tls: Arc<rustls::ServerConfig>,
    /// Of the REST API, when it has one of its own.
    http_keeper: Option<Keeper>,
    http_tls: Option<Arc<rustls::ServerConfig>>,
}

impl Certificates {
    fn open(config: &Config, is_trusted: bool) -> anyhow::Result<Self> {
        let keeper = crate::identity::keeper(config, is_trusted)?;
        let mqtt_tls = server_config_for(keeper.served())?;
        let http_keeper = crate::identity::http_keeper(config)?;
        let http_tls = match (config.http.tls, &http_keeper) {
            (false, _) => None,
            (true, None) => Some(https_config_for(keeper.served())?),
            (true, Some(own)) => Some(https_config_for(own.served())?),
        };
        Ok(Self { keeper, mqtt_tls, http_keeper, http_tls })
    }
}

/// The sockets that central listens on.
struct Listeners {
    http: TcpListener,
    mqtts: TcpListener,
    mqtt: Option<TcpListener>,
    wss: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            http: listen("http.listen", config.http.listen).await?,
            mqtts: listen("mqtt.mqtts", config.mqtt.mqtts).await?,
            mqtt: listen_if("mqtt.mqtt", config.mqtt.mqtt).await?,
            wss: listen_if("mqtt.wss", config.mqtt.wss).await?,
        })
    }
}

impl Started {
    /// Starts the tasks that no client waits for.
    fn run_in_background(&mut self, live: LiveFeed, trust: TrustKeeper) {
        let Services { c2d, waiting_commands, authenticator, .. } = self.services.clone();
        self.restarted("expiry of cloud-to-device messages", move |stop| {
            let c2d = c2d.clone();
            async move { c2d.expire(stop).await }
        });
        self.restarted("expiry of waiting commands", move |stop| {
            let waiting_commands = waiting_commands.clone();
            async move { waiting_commands.expire(stop).await }
        });
        let store = self.services.store.clone();
        self.restarted("clock of ages", move |stop| age_clock_task::keep(store.clone(), stop));
        self.restarted("authorization of clients", move |stop| {
            let authenticator = authenticator.clone();
            async move { authenticator.review_on_change(stop).await }
        });
        self.restarted("live stream", move |stop| live.clone().run(stop));
        let stop = self.stop.clone();
        self.tasks.essential("authorities of devices", async move {
            if let Err(error) = trust.run(stop.clone()).await {
                tracing::error!(error = %chain(&error), "watching the certificate authorities of devices failed");
                stop.cancelled().await;
            }
            anyhow::Ok(())
        });
    }

    fn restarted<F>(&mut self, name: &'static str, run: impl Fn(CancellationToken) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tasks.restarted(name, move || {
            let done = run(stop.clone());
            async move {
                done.await;
                Ok(())
            }
        });
    }

    /// Starts the MQTT server and the REST API.
    fn serve(
        &mut self,
        listeners: Listeners,
        certificates: &Certificates,
        api: axum::Router,
        config: &Config,
    ) {
        let Listeners { http, mqtts, mqtt, wss } = listeners;
        let (server, stop, tls) = (&self.mqtt_server, &self.stop, &certificates.mqtt_tls);
        let served = server.clone().serve_tls(mqtts, tls.clone(), stop.clone());
        self.tasks.essential("MQTT over TLS", served.map(anyhow::Ok));
        if let Some(wss) = wss {
            // Nothing but WebSockets: the REST API has a listener of its own.
            let served = server.clone().serve_https(wss, tls.clone(), axum::Router::new(), stop.clone());
            self.tasks.essential("MQTT over WebSocket", served.map(anyhow::Ok));
        }
        if let Some(mqtt) = mqtt {
            let served = server.clone().serve_tcp(mqtt, stop.clone());
            self.tasks.essential("plain MQTT", served.map(anyhow::Ok));
        }
        let limits = HttpLimits {
            connections_max: config.http.connections_max,
            head_timeout: HEAD_WITHIN,
            stall_timeout: STALL_MAX,
            request_timeout: REQUEST_MAX,
            finish_timeout: STOP_WITHIN,
            // Bodies are read by the API, once it knows who sends them.
            ..HttpLimits::default()
        };
        let (per_address, http_tls) = (config.http.connections_per_address, certificates.http_tls.clone());
        let http_server = HttpServer::new("http.listen", limits);
        let served = http_server.serve_tcp(http, per_address, http_tls, api, stop.clone());
        self.tasks.essential("REST API", served.map(anyhow::Ok));
    }

    /// Starts the listener of the metrics. central does its work without it.
    fn serve_metrics(&mut self, metrics: Arc<Metrics<CentralService>>, address: SocketAddr) {
        let stop = self.stop.clone();
        self.tasks.restarted("metrics", move || {
            let metrics = metrics.clone();
            let collect = move || {
                let metrics = metrics.clone();
                async move { metrics.text().await }
            };
            listener::serve("metrics.listen", address, collect, stop.clone()).map(Ok)
        });
    }

    /// Renews certificates, or reloads them when their files change.
    fn keep(&mut self, certificates: Certificates) {
        let Certificates { keeper, http_keeper, .. } = certificates;
        for (name, keeper) in [("certificate", Some(keeper)), ("certificate of the REST API", http_keeper)] {
            let Some(keeper) = keeper else { continue };
            let stop = self.stop.clone();
            self.tasks.essential(name, async move {
                keeper.run(stop).await.with_context(|| format!("keeping the server's {name}"))
            });
        }
    }

    /// Address of the REST API and the status page.
    pub fn http_url(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.http)
    }

    /// The store; for tests that look behind the servers.
    pub fn store(&self) -> &Store {
        &self.services.store
    }

    /// The services; for tests that look behind the servers.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Waits for the stop, then until every connection has ended and everything taken in is committed.
    ///
    /// # Errors
    /// A server or the store's writer that ends by itself ends all of central: acknowledging nothing is better than a
    /// central that seems well and stores nothing.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let ended = tokio::select! {
            // First: at a stop the servers end too, and that is no fault.
            biased;
            () = self.stop.cancelled() => Ok(()),
            failure = self.tasks.failed() => Err(failure.into()),
            () = self.services.store.ended() => {
                let cause = "ended by itself; the log tells why".to_owned();
                Err(TaskFailure { task: tasks::STORE_THREAD.to_owned(), cause }.into())
            }
        };
        if let Err(error) = &ended {
            tracing::error!(error = format!("{error:#}"), "central stops");
            self.stop.cancel();
        }
        self.services.store.give_up_after(LOCKED_STOP_WITHIN);
        if tokio::time::timeout(STOP_WITHIN, self.tasks.join()).await.is_err() {
            tracing::warn!(seconds = STOP_WITHIN.as_secs(), "connections that did not end in time were cut");
            self.tasks.shutdown().await;
        }
        self.mqtt_server.close().await;
        self.services.store.close().await;
        tracing::info!("central has stopped");
        ended
    }
}

/// Opens the store, whose lock is held, and checks it.
async fn open_store(config: &Config) -> anyhow::Result<Store> {
    store::forget_cached(&config.data_dir)?;
    let store = store::open_with(&config.data_dir, config.keep.limits(), config.keep.quotas())?;
    let path = config.data_dir.join(store::FILE);
    let check = move || integrity::check(&path, Depth::AtStart, CHECK_WITHIN);
    let checked = tokio::task::spawn_blocking(check).await.context("checking the store")??;
    if checked == Checked::InPart {
        tracing::warn!(
            seconds = CHECK_WITHIN.as_secs(),
            "the store was not checked to its end, it is too large for that; `central backup` checks all of it"
        );
    }
    Ok(store)
}

async fn listen(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    edge_hub::listen::bind(address)
        .await
        .with_context(|| format!("listening on {address}; set {key} to a free address of this machine"))
}

async fn listen_if(key: &str, address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    match address {
        Some(address) => Ok(Some(listen(key, address).await?)),
        None => Ok(None),
    }
}
