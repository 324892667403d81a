//! Starts everything in order, and stops it in order.

use edge_core::error_chain::chain;
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
use edge_hub::tasks::Tasks;
use edge_hub::tls::trust::TrustKeeper;
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::request_counts::RequestCounts;
use crate::audit::log::Audit;
use crate::config::Config;
use crate::device_states::DeviceStates;
use crate::fleet::Fleet;
use crate::live::LiveFeed;
use crate::metrics::Metrics;
use crate::people::service::People;
use crate::store::integrity::{self, Checked, Depth};
use crate::store::{self, LOCK_FILE, Store};

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
    fleet: Arc<Fleet>,
    mqtt_server: Arc<MqttServer<Fleet>>,
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
    edge_hub::random::seed()?;
    let lock = DataLock::acquire(&config.data_dir, LOCK_FILE, "central")?;
    if config.data_dir.join("ca-key.pem").exists() {
        make_private(&config.data_dir, &[])?;
    }
    // Before anything is written: an authority without its store must be seen as what it is.
    let store = open_store(&config).await?;
    let keeper = crate::identity::keeper(&config)?;
    let tls = edge_hub::tls::server_config_for(keeper.served())?;
    let http_keeper = crate::identity::http_keeper(&config)?;
    let http_tls = match (config.http.tls, &http_keeper) {
        (false, _) => None,
        (true, None) => Some(edge_hub::tls::https_config_for(keeper.served())?),
        (true, Some(own)) => Some(edge_hub::tls::https_config_for(own.served())?),
    };
    let settings = MqttServerSettings {
        // A gateway has as many in flight as its line holds; what is read and not stored yet is bounded below.
        receive_max: Some(u16::MAX),
        // Two of the writer's batches: one is written, the other is read meanwhile.
        pending_max: 2 * crate::ingest::BATCH_MAX,
        ..config.limits.settings(connections_max)
    };
    let sessions = Sessions::open(&config.data_dir.join("mqtt"), settings).await?;
    let clients = sessions.clients();
    let hosts = vec![config.hostname.clone(), "localhost".to_owned()];
    let trust =
        TrustKeeper::open(config.tls.device_ca.clone(), Authorities::default()).context("tls.device_ca")?;
    let id_scope = config.dps.id_scope.clone();
    let fleet = Fleet::new(store, clients, hosts, trust.trust(), id_scope, stop.clone()).await?;
    fleet.resume_commands().await?;
    let audit = Audit::new(fleet.store.clone(), config.keep.audit_limits());
    let people =
        People::open(audit, fleet.store.clone(), &config.data_dir).await.context("opening the users")?;

    let mqtt_server = MqttServer::new(sessions, fleet.clone());
    let http = listen("http.listen", config.http.listen).await?;
    let mqtts = listen("mqtt.mqtts", config.mqtt.mqtts).await?;
    let mqtt = match config.mqtt.mqtt {
        Some(address) => Some(listen("mqtt.mqtt", address).await?),
        None => None,
    };
    let wss = match config.mqtt.wss {
        Some(address) => Some(listen("mqtt.wss", address).await?),
        None => None,
    };
    let mut started = Started {
        http: http.local_addr()?,
        is_https: config.http.tls,
        mqtts: mqtts.local_addr()?,
        mqtt: mqtt.as_ref().map(TcpListener::local_addr).transpose()?,
        wss: wss.as_ref().map(TcpListener::local_addr).transpose()?,
        fleet: fleet.clone(),
        mqtt_server: mqtt_server.clone(),
        tasks: Tasks::new(stop.clone()),
        stop: stop.clone(),
        _lock: lock,
    };
    {
        let (dispatcher, stop) = (fleet.dispatcher.clone(), stop.clone());
        started.tasks.restarted("end of messages", move || {
            let (dispatcher, stop) = (dispatcher.clone(), stop.clone());
            async move {
                dispatcher.expire(stop).await;
                Ok(())
            }
        });
    }
    {
        let (fleet, stop) = (fleet.clone(), stop.clone());
        started.tasks.restarted("end of waiting commands", move || {
            let (fleet, stop) = (fleet.clone(), stop.clone());
            async move {
                fleet.expire_commands(stop).await;
                Ok(())
            }
        });
    }
    started.tasks.essential(
        "MQTT over TLS",
        mqtt_server.clone().serve_tls(mqtts, tls.clone(), stop.clone()).map(anyhow::Ok),
    );
    if let Some(wss) = wss {
        // Nothing but WebSockets: the REST API has a listener of its own.
        let served = mqtt_server.clone().serve_https(wss, tls, axum::Router::new(), stop.clone());
        started.tasks.essential("MQTT over WebSocket", served.map(anyhow::Ok));
    }
    for (name, keeper) in [("certificate", Some(keeper)), ("certificate of the REST API", http_keeper)] {
        let Some(keeper) = keeper else { continue };
        let stop = stop.clone();
        started.tasks.essential(name, async move {
            keeper.run(stop).await.with_context(|| format!("keeping the server's {name}"))
        });
    }
    {
        let (fleet, stop) = (fleet.clone(), stop.clone());
        started.tasks.restarted("authorization of clients", move || {
            let (fleet, stop) = (fleet.clone(), stop.clone());
            async move {
                fleet.review_on_change(stop).await;
                Ok(())
            }
        });
    }
    {
        let stop = stop.clone();
        started.tasks.essential("authorities of devices", async move {
            if let Err(error) = trust.run(stop.clone()).await {
                tracing::error!(error = %chain(&error), "changes of the authorities of devices are not noticed any more");
                stop.cancelled().await;
            }
            anyhow::Ok(())
        });
    }
    let states = DeviceStates::new(fleet.clone());
    let live = LiveFeed::new(fleet.clone(), states.clone());
    {
        let (live, stop) = (live.clone(), stop.clone());
        started.tasks.restarted("live stream", move || {
            let (live, stop) = (live.clone(), stop.clone());
            async move {
                live.run(stop).await;
                Ok(())
            }
        });
    }
    if let Some(mqtt) = mqtt {
        started
            .tasks
            .essential("plain MQTT", mqtt_server.clone().serve_tcp(mqtt, stop.clone()).map(anyhow::Ok));
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
    let requests = Arc::new(RequestCounts::default());
    if let Some(address) = config.metrics.listen {
        let metrics = Arc::new(Metrics {
            store: fleet.store.clone(),
            ingest: fleet.ingest.clone(),
            clients: fleet.clients.clone(),
            mqtt_server: mqtt_server.clone(),
            live: live.clone(),
            requests: requests.clone(),
            data_dir: config.data_dir.clone(),
        });
        start_metrics(&mut started.tasks, metrics, address, stop.clone());
    }
    let api =
        crate::api::router(fleet, mqtt_server, people, live, states, Arc::new(config.clone()), requests);
    let per_address = config.http.connections_per_address;
    let served = HttpServer::new("http.listen", limits).serve_tcp(http, per_address, http_tls, api, stop);
    started.tasks.essential("REST API", served.map(anyhow::Ok));
    tracing::info!(http = started.http_url(), mqtts = %started.mqtts, hostname = config.hostname, "central is serving");
    Ok(started)
}

/// Starts the listener of the metrics. central does its work without it.
fn start_metrics(
    tasks: &mut Tasks,
    metrics: Arc<Metrics<Fleet>>,
    address: SocketAddr,
    stop: CancellationToken,
) {
    tasks.restarted("metrics", move || {
        let (metrics, stop) = (metrics.clone(), stop.clone());
        let collect = move || {
            let metrics = metrics.clone();
            async move { metrics.text().await }
        };
        listener::serve("metrics.listen", address, collect, stop).map(Ok)
    });
}

impl Started {
    /// Address of the REST API and the status page.
    pub fn http_url(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.http)
    }

    /// What central decides with; for tests that look behind the servers.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// Waits for the stop, then until every connection has ended and everything taken in is committed.
    ///
    /// # Errors
    /// A server or the store's writer that ends by itself ends all of central: acknowledging nothing is better than a
    /// central that looks well and stores nothing.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let ended = tokio::select! {
            // First: told to stop, the servers end too, and that is no fault.
            biased;
            () = self.stop.cancelled() => Ok(()),
            failure = self.tasks.failed() => Err(failure.into()),
            () = self.fleet.store.ended() => {
                Err(anyhow::anyhow!("the store's writer ended by itself; the log tells why"))
            }
        };
        if let Err(error) = &ended {
            tracing::error!(error = format!("{error:#}"), "central stops");
            self.stop.cancel();
        }
        self.fleet.store.give_up_after(LOCKED_STOP_WITHIN);
        if tokio::time::timeout(STOP_WITHIN, self.tasks.join()).await.is_err() {
            tracing::warn!(seconds = STOP_WITHIN.as_secs(), "connections that did not end in time were cut");
            self.tasks.shutdown().await;
        }
        self.mqtt_server.close().await;
        self.fleet.store.close().await;
        tracing::info!("central has stopped");
        ended
    }
}

/// Opens the store and checks it.
async fn open_store(config: &Config) -> anyhow::Result<Store> {
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
