//! Everything that makes a task of either program run: connections of each kind, messages and commands each way, tokens, passwords. A
//! request may meet the panic of the test, so one that fails is no failure here.

use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};
use serde_json::json;
use site_tests::leaf::{LeafOptions, trust};
use site_tests::raw::{self, Login};
use site_tests::rest::Rest;
use site_tests::site::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// When what is waited for must have happened.
const WITHIN: Duration = Duration::from_secs(600);
/// What one request may take: its connection may be the one that a panic ended.
const EACH: Duration = Duration::from_secs(5);
/// Messages that are handed in at once: so many that another thread answers a part of them.
const BURST: u16 = 900;
/// Behind the gateway.
const LEAF: &str = "stirred";
/// At central's own listeners.
const DIRECT: &str = "stirred-direct";

pub(crate) struct Stir {
    rest: Rest,
    gateway: String,
    http: std::net::SocketAddr,
    socket: std::path::PathBuf,
    burst: Login,
    direct: Login,
    gateway_mqtt: u16,
    central_mqtt: u16,
    /// Where connections are opened and closed.
    https: [u16; 2],
    /// Where metrics are scraped.
    metrics: [u16; 2],
    listening: Vec<JoinHandle<()>>,
    round: u64,
}

impl Stir {
    pub(crate) async fn new(site: &Site, central_mqtt: u16) -> Result<Self> {
        // An input that a module would have, beside what goes to central.
        let hub = json!({
            "schemaVersion": "1.2",
            "routes": {
                "upstream": "FROM /messages/* INTO $upstream",
                "input": "FROM /messages/* WHERE never = 'so' INTO BrokeredEndpoint(\"/modules/absent/inputs/in\")",
            },
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        });
        site.apply_hub(hub).await?;
        let rest = site.rest()?.clone();
        rest.put(&format!("/api/devices/{DIRECT}"), &json!({"displayName": "at central"})).await?;
        let leaf = site.add_leaf(LEAF, Duration::ZERO).await?;
        let direct = LeafOptions {
            identity: DIRECT.parse()?,
            key: STANDARD.decode(site.key(DIRECT).await?)?,
            port: site.central_mqtts,
            ca: Some(trust(&std::fs::read(site.central_ca())?)?),
            ..leaf.clone()
        };
        let burst = site.add_here(&["stirring".to_owned()]).await?.pop().context("it was added")?;
        let logins = [leaf.login(), burst.clone()];
        site.leaves_known(&logins).await?;
        Ok(Self {
            rest,
            gateway: site.gateway.clone(),
            http: site.http,
            socket: site.agent_dir().join("edge-agent.sock"),
            burst,
            direct: direct.login(),
            gateway_mqtt: site.gateway_mqtt,
            central_mqtt,
            https: [site.gateway_https, site.central_wss],
            metrics: [site.gateway_metrics, site.central_metrics],
            listening: [leaf, direct].iter().map(|device| tokio::spawn(listen(device.client(50)))).collect(),
            round: 0,
        })
    }

    /// Stirs until something is so.
    pub(crate) async fn until(&mut self, is_so: impl Fn() -> bool, story: impl Fn() -> String) {
        let deadline = tokio::time::Instant::now() + WITHIN;
        while !is_so() {
            assert!(tokio::time::Instant::now() < deadline, "{}", story());
            self.round().await;
        }
    }

    /// Stirs until something else has ended.
    pub(crate) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            ended = other => ended,
            () = async { loop { self.round().await } } => unreachable!("it stirs for ever"),
        }
    }

    async fn round(&mut self) {
        self.round += 1;
        let this = &*self;
        let what = async {
            tokio::join!(
                quietly(this.burst()),
                quietly(this.central_mqtt()),
                quietly(this.connections()),
                quietly(this.metrics()),
                quietly(this.messages()),
                quietly(this.commands()),
                quietly(this.token()),
                quietly(this.user()),
            )
        };
        what.await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Telemetry of a device at the gateway, as fast as it is taken.
    async fn burst(&self) -> Result<()> {
        let mut stream = self.burst.open(self.gateway_mqtt).await?;
        let topic = format!("devices/{}/messages/events/", self.burst.client_id);
        let packets: Vec<u8> = (1..=BURST).flat_map(|id| raw::publish(&topic, 1, id, b"{}")).collect();
        stream.write_all(&packets).await?;
        let mut answers = vec![0; 4 * usize::from(BURST)];
        stream.read_exact(&mut answers).await?;
        Ok(())
    }

    async fn central_mqtt(&self) -> Result<()> {
        let login = Login { client_id: DIRECT.to_owned(), ..self.direct.clone() };
        // In turns with the one that listens, which it replaces.
        if self.round.is_multiple_of(4) {
            drop(login.open(self.central_mqtt).await?);
        } else {
            drop(TcpStream::connect(("127.0.0.1", self.central_mqtt)).await?);
        }
        Ok(())
    }

    async fn connections(&self) -> Result<()> {
        for port in self.https {
            drop(TcpStream::connect(("127.0.0.1", port)).await?);
        }
        Ok(())
    }

    async fn metrics(&self) -> Result<()> {
        for port in self.metrics {
            reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?.text().await?;
        }
        Ok(())
    }

    async fn messages(&self) -> Result<()> {
        for device in [LEAF, DIRECT] {
            let path = format!("/api/ext/devices/{device}/messages/devicebound");
            self.rest.post(&path, &json!({"bodyText": "x", "timeToLiveSecs": 60})).await?;
        }
        self.rest.patch(&format!("/api/devices/{LEAF}/properties"), &json!({"round": self.round})).await?;
        Ok(())
    }

    async fn commands(&self) -> Result<()> {
        for device in [LEAF, DIRECT] {
            let path = format!("/api/devices/{device}/commands/stir");
            let waits = json!({"request": {}, "validFor": 60, "responseTimeout": 5});
            self.rest.post(&path, &waits).await?;
            self.rest.post(&path, &json!({"request": {}, "responseTimeout": 5})).await?;
        }
        // Of no module: nothing is connected to.
        let upload =
            json!({"schemaVersion": "1.0", "items": [], "sasUrl": "https://store.invalid/logs?sig=x"});
        let path = format!("/api/devices/{}/modules/$edgeAgent/commands/UploadModuleLogs", self.gateway);
        self.rest.post(&path, &json!({"request": upload, "responseTimeout": 5})).await?;
        Ok(())
    }

    /// Of each token it is noted now and then that it was used.
    async fn token(&self) -> Result<()> {
        let path = format!("/api/apiTokens/stir-{}", self.round);
        let made = self.rest.put(&path, &json!({"roles": [{"role": "viewer"}]})).await?;
        let token = made["token"].as_str().context("a new token is shown")?;
        Rest::new(&self.http.to_string(), token).get("/api/devices").await?;
        self.rest.send(Method::DELETE, &path, None).await?;
        Ok(())
    }

    /// A password of a new user is hashed.
    async fn user(&self) -> Result<()> {
        let http = reqwest::Client::builder().unix_socket(self.socket.clone()).build()?;
        let name = format!("stir-{}", self.round);
        http.post("http://localhost/users").json(&json!({"name": name})).send().await?;
        http.delete(format!("http://localhost/users/{name}")).send().await?;
        Ok(())
    }

    pub(crate) fn end(self) {
        for listening in self.listening {
            listening.abort();
        }
    }
}

async fn quietly(what: impl Future<Output = Result<()>>) {
    // It may have met the panic, or a program that is starting.
    let _ = tokio::time::timeout(EACH, what).await;
}

/// A device that comes again and again, answers methods and takes messages.
async fn listen((client, mut events): (AsyncClient, EventLoop)) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let inbox = format!("devices/{}/messages/devicebound/#", events.mqtt_options.client_id());
                for filter in ["$iothub/methods/POST/#", &inbox] {
                    let _is_full = client.try_subscribe(filter, QoS::AtLeastOnce);
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                if let Some((_, rid)) = publish.topic.split_once("$rid=") {
                    let answer = format!("$iothub/methods/res/200/?$rid={rid}");
                    let _is_full = client.try_publish(answer, QoS::AtLeastOnce, false, "{}");
                }
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
