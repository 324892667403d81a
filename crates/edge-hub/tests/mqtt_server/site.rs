//! A program behind a server, in memory, and clients in front of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use edge_buffer::{Fence, Log, OpenError};
use edge_core::access::authorization::Rights;
use edge_core::access::proof::Proof;
use edge_core::access::secret::Secret;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::LinkUp;
use edge_hub::clients::Clients;
use edge_hub::mqtt_server::MqttServer;
use edge_hub::service::{Admitted, Client, ClientCert, ConnectRequest, Login, Refusal, Rejected, Service};
use edge_hub::sessions::Sessions;
use edge_hub::settings::MqttServerSettings;
use futures_util::future::BoxFuture;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet,
    QoS,
};
use schemas::bag::PropertyBag;
use schemas::names::Identity;
use schemas::twin::Twin;
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing here takes so long; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the program saw, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Connected(String),
    Disconnected(String),
    Subscribed(String, Subscribe),
    Telemetry(String, String),
    Link(LinkUp, String),
    Free(String, String, String),
    /// Whose, on which free topic (none: telemetry), and what; of telemetry with its bag.
    Will(String, String, String),
}

pub(crate) struct Program {
    seen: mpsc::UnboundedSender<Seen>,
    /// Telemetry is "on disk" while this is true.
    pub(crate) disk: watch::Sender<bool>,
    /// Whether messages on free topics are taken.
    pub(crate) takes_free: AtomicBool,
    /// Whether wills are taken, or refused for now.
    pub(crate) takes_wills: AtomicBool,
    /// Where telemetry goes instead.
    pub(crate) log: Mutex<Option<Log>>,
    twin: Mutex<Twin>,
    /// What the client showed that connected last.
    pub(crate) shown: Mutex<Option<ClientCert>>,
    /// What a client may do; everything when there is nothing here.
    pub(crate) rights: Mutex<Option<Authorize>>,
}

pub(crate) type Authorize = Box<dyn Fn(&Identity) -> Result<Rights, NotAllowed> + Send>;

/// Why the program of these tests lets a client do nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotAllowed(pub(crate) String);

impl Service for Program {
    type Denied = NotAllowed;

    fn may_leave_will(&self, _left_by: &Identity, _topic: &str) -> Result<(), NotAllowed> {
        Ok(())
    }

    fn is_guessable(&self, request: &ConnectRequest) -> bool {
        !request.client_id.starts_with("key-")
    }

    async fn authenticate(self: &Arc<Self>, request: ConnectRequest) -> Result<Admitted, Refusal> {
        *self.shown.lock().unwrap() = request.client_cert().cloned();
        let admit =
            |identity| Admitted { identity, proof: Proof::IdentityAlone, ends_at: None, generation: 0 };
        match request.password.as_ref().and_then(Secret::text) {
            Some("wrong") => Err(Refusal::NotAuthorized("wrong password".into())),
            Some("panic") => panic!("injected"),
            // Of SAS tokens, whose signatures say what is thought of them.
            Some(token) if token.contains("sig=wrong") => Err(Refusal::NotAuthorized("wrong key".into())),
            Some(token) if token.contains("sig=early") => Err(Refusal::Unavailable("not loaded yet".into())),
            Some(token) if token.contains("sig=expired") => {
                let admitted = admit(request.client_id.parse().unwrap());
                Ok(Admitted { ends_at: Some(1), ..admitted })
            }
            Some(token) if token.contains("sig=newer") => {
                let admitted = admit(request.client_id.parse().unwrap());
                Ok(Admitted { generation: 2, ..admitted })
            }
            Some("early") => Err(Refusal::Unavailable("not loaded yet".into())),
            Some("expired") => {
                let admitted = admit(request.client_id.parse().unwrap());
                Ok(Admitted { ends_at: Some(1), ..admitted })
            }
            _ => match request.user_name.as_deref() {
                Some(name @ "plc") => {
                    Ok(admit(Identity::user(&name.parse().unwrap(), &request.client_id).unwrap()))
                }
                _ => request
                    .client_id
                    .parse()
                    .map(admit)
                    .map_err(|why| Refusal::NotAuthorized(format!("{why}"))),
            },
        }
    }

    fn authorize(&self, identity: &Identity, _login: &Login) -> Result<Rights, NotAllowed> {
        let rights = self.rights.lock().unwrap();
        rights.as_ref().map_or_else(|| Ok(Rights::all()), |rights| rights(identity))
    }

    fn telemetry(
        self: &Arc<Self>,
        _client: &Client,
        from: Identity,
        _bag: PropertyBag,
        payload: Bytes,
        fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let text = String::from_utf8_lossy(&payload).into_owned();
        match text.as_str() {
            "wrong" => return Box::pin(async { Err(Rejected::Wrong(400, "bad reading".into())) }),
            "full" => return Box::pin(async { Err(Rejected::Full("the queue is full".into())) }),
            "panic" => panic!("injected"),
            "panic later" => return Box::pin(async { panic!("injected") }),
            "later" => return Box::pin(async { Err(Rejected::Temporary(503, "disk full".into())) }),
            _ => {}
        }
        if let Some(log) = &*self.log.lock().unwrap() {
            let record = Bytes::from(format!("{from} {text}"));
            let append = log.append_fenced(record, 0, None, fence.cloned());
            return Box::pin(async {
                append.await.map(drop).map_err(|error| Rejected::Temporary(503, error.to_string()))
            });
        }
        let _ = self.seen.send(Seen::Telemetry(from.to_string(), text));
        let mut disk = self.disk.subscribe();
        Box::pin(async move {
            disk.wait_for(|is_open| *is_open).await.unwrap();
            Ok(())
        })
    }

    fn telemetry_will(
        self: &Arc<Self>,
        _left_by: &Identity,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        if !self.takes_wills.load(Ordering::Relaxed) {
            return Box::pin(async { Err(Rejected::Temporary(503, "disk full".into())) });
        }
        let text = format!("{bag} {}", String::from_utf8_lossy(&payload));
        let _ = self.seen.send(Seen::Will(from.to_string(), String::new(), text));
        Box::pin(async { Ok(()) })
    }

    fn free_will(
        self: &Arc<Self>,
        of: &Identity,
        topic: &str,
        _bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let text = String::from_utf8_lossy(&payload).into_owned();
        let _ = self.seen.send(Seen::Will(of.to_string(), topic.to_owned(), text));
        Box::pin(async { Ok(()) })
    }

    fn takes_free(&self) -> bool {
        self.takes_free.load(Ordering::Relaxed)
    }

    fn free(
        self: &Arc<Self>,
        client: &Client,
        topic: &str,
        _bag: PropertyBag,
        payload: Bytes,
        _fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        assert_ne!(payload, "panic", "injected");
        let text = String::from_utf8_lossy(&payload).into_owned();
        let _ = self.seen.send(Seen::Free(client.identity.to_string(), topic.to_owned(), text));
        let mut disk = self.disk.subscribe();
        Box::pin(async move {
            disk.wait_for(|is_open| *is_open).await.unwrap();
            Ok(())
        })
    }

    async fn twin(self: &Arc<Self>, _client: &Client) -> Result<Twin, Rejected> {
        Ok(self.twin.lock().unwrap().clone())
    }

    async fn report(self: &Arc<Self>, _client: &Client, patch: Map<String, Value>) -> Result<u64, Rejected> {
        assert!(!patch.contains_key("panic"), "injected");
        // A report that waited would be overtaken by the next one, if the server let it.
        tokio::task::yield_now().await;
        let mut twin = self.twin.lock().unwrap();
        edge_core::twin::patch(&mut twin.reported, &patch)
            .map_err(|e| Rejected::Wrong(413, e.to_string()))?;
        Ok(twin.reported.version)
    }

    fn may_speak_for(&self, client: &Client, _other: &Identity) -> bool {
        self.is_gateway(client)
    }

    fn is_gateway(&self, client: &Client) -> bool {
        client.identity.to_string() == "gw"
    }

    fn link(
        self: &Arc<Self>,
        _client: &Client,
        operation: LinkUp,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let _ = self.seen.send(Seen::Link(operation, String::from_utf8_lossy(&payload).into_owned()));
        Box::pin(async { Ok(()) })
    }

    fn connected(self: &Arc<Self>, client: &Client) {
        let _ = self.seen.send(Seen::Connected(client.identity.to_string()));
    }

    fn disconnected(self: &Arc<Self>, client: &Client, _why: &str) {
        let _ = self.seen.send(Seen::Disconnected(client.identity.to_string()));
    }

    fn subscribed(self: &Arc<Self>, client: &Client, to: &Subscribe) {
        let _ = self.seen.send(Seen::Subscribed(client.identity.to_string(), to.clone()));
    }
}

pub(crate) struct Site {
    pub(crate) program: Arc<Program>,
    pub(crate) clients: Clients,
    pub(crate) server: Arc<MqttServer<Program>>,
    pub(crate) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    stop: CancellationToken,
    served: JoinHandle<()>,
    dir: Option<TempDir>,
}

impl Site {
    pub(crate) async fn open(settings: MqttServerSettings) -> Self {
        Self::open_with(settings, None).await
    }

    pub(crate) async fn open_with(
        settings: MqttServerSettings,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        Self::serve(settings, plain_or_tls(tls)).await
    }

    /// A site whose sessions are in `dir`, which it does not remove.
    pub(crate) async fn open_in(dir: &Path, settings: MqttServerSettings) -> Self {
        Self::serve_in(dir, settings, plain_or_tls(None)).await
    }

    /// A site whose server is opened by `open`.
    pub(crate) async fn serve<F: Future<Output = ()> + Send + 'static>(
        settings: MqttServerSettings,
        open: impl FnOnce(Arc<MqttServer<Program>>, TcpListener, CancellationToken) -> F,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let mut site = Self::serve_in(dir.path(), settings, open).await;
        site.dir = Some(dir);
        site
    }

    async fn serve_in<F: Future<Output = ()> + Send + 'static>(
        dir: &Path,
        settings: MqttServerSettings,
        serve: impl FnOnce(Arc<MqttServer<Program>>, TcpListener, CancellationToken) -> F,
    ) -> Self {
        let (seen_by, seen) = mpsc::unbounded_channel();
        let program = Arc::new(Program {
            seen: seen_by,
            disk: watch::channel(true).0,
            takes_free: AtomicBool::new(false),
            takes_wills: AtomicBool::new(true),
            log: Mutex::default(),
            twin: Mutex::default(),
            shown: Mutex::default(),
            rights: Mutex::default(),
        });
        let (sessions, stop) = (open(dir, settings).await, CancellationToken::new());
        let clients = sessions.clients();
        let server = MqttServer::new(sessions, program.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(server.clone(), listener, stop.clone()));
        Self { program, clients, server, address, seen, stop, served, dir: None }
    }

    /// What the program sees next.
    pub(crate) async fn sees(&mut self) -> Seen {
        tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("the program saw nothing").unwrap()
    }

    /// Waits until the program sees this, whatever it sees before.
    pub(crate) async fn until_seen(&mut self, expected: Seen) {
        while self.sees().await != expected {}
    }

    /// Tells the server to close.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Closes the server and waits until it is.
    pub(crate) async fn close(self) {
        self.stop();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the server did not close").unwrap();
        tokio::time::timeout(PATIENCE, self.server.close()).await.expect("the journal did not close");
    }

    pub(crate) async fn mqtt(&self, client_id: &str) -> Mqtt {
        Mqtt::connect(self.options(client_id)).await.0
    }

    pub(crate) fn options(&self, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, self.address.ip().to_string(), self.address.port());
        options.set_credentials("hub/user/?api-version=1", "token");
        options.set_max_packet_size(300_000, 300_000);
        // A client that is not polled while its test looks at others sends no pings.
        options.set_keep_alive(Duration::from_secs(3_600));
        options
    }
}

type Serving = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn plain_or_tls(
    tls: Option<Arc<rustls::ServerConfig>>,
) -> impl FnOnce(Arc<MqttServer<Program>>, TcpListener, CancellationToken) -> Serving {
    |server, listener, stop| {
        Box::pin(async move {
            match tls {
                None => server.serve_tcp(listener, stop).await,
                Some(tls) => server.serve_tls(listener, tls, stop).await,
            }
        })
    }
}

/// Opens the sessions as soon as whoever had the directory lets it go.
async fn open(dir: &Path, settings: MqttServerSettings) -> Sessions {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Sessions::open(dir, settings.clone()).await {
            Ok(sessions) => return sessions,
            Err(OpenError::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A client of the library that is as patient as these tests are: its own limit for a CONNACK is five seconds.
fn patient(options: MqttOptions, capacity: usize) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, capacity);
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(PATIENCE.as_secs());
    events.set_network_options(network);
    (client, events)
}

/// A client, and what it received while it waited for something else.
pub(crate) struct Mqtt {
    pub(crate) client: AsyncClient,
    events: EventLoop,
}

impl Mqtt {
    /// Connects and gives whether the session was present.
    pub(crate) async fn connect(options: MqttOptions) -> (Self, bool) {
        let (client, events) = patient(options, 1_000);
        let mut mqtt = Self { client, events };
        match mqtt.packet().await.unwrap() {
            Packet::ConnAck(ack) => (mqtt, ack.session_present),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// The CONNACK code of a refused connection.
    pub(crate) async fn refused(options: MqttOptions) -> ConnectReturnCode {
        let (_client, mut events) = patient(options, 10);
        match events.poll().await {
            Err(ConnectionError::ConnectionRefused(code)) => code,
            other => panic!("{other:?} instead of a refusal"),
        }
    }

    /// The next packet that the server sends, or that the connection ended.
    pub(crate) async fn packet(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            match tokio::time::timeout(PATIENCE, self.events.poll()).await.expect("nothing came") {
                Ok(Event::Incoming(packet)) => return Ok(packet),
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn publish(&self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    /// Subscribes and gives the code of the SUBACK.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> rumqttc::SubscribeReasonCode {
        self.client.subscribe(filter, qos).await.unwrap();
        loop {
            if let Packet::SubAck(ack) = self.packet().await.unwrap() {
                return ack.return_codes[0];
            }
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> (String, String, QoS) {
        loop {
            if let Packet::Publish(publish) = self.packet().await.unwrap() {
                let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                return (publish.topic, payload, publish.qos);
            }
        }
    }

    /// Waits for the next PUBACK.
    pub(crate) async fn acknowledged(&mut self) {
        while !matches!(self.packet().await.unwrap(), Packet::PubAck(_)) {}
    }

    /// Says DISCONNECT and waits for the connection to end.
    pub(crate) async fn closed_by_client(self) {
        self.client.disconnect().await.unwrap();
        self.closed().await;
    }

    /// Waits for the connection to end.
    pub(crate) async fn closed(mut self) {
        while self.packet().await.is_ok() {}
    }
}
