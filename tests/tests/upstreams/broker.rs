//! Debian's mosquitto as an upstream: TLS for the gateway with a client certificate or an account, plain on loopback for the
//! test that looks at what arrives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_tls::issue::{CertificateSpec, Purpose, SERVER_LIFETIME, issue, issue_ca, issue_server};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
pub(crate) use site_tests::STEP;
use site_tests::patient::CONNECT_SECS;
use site_tests::port::free_port;
use site_tests::process::{Process, run};
use site_tests::rest::eventually;
use site_tests::site::Site;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

/// A mosquitto that may be killed and started again on the same ports.
pub(crate) struct Broker {
    dir: PathBuf,
    /// With TLS.
    pub(crate) port: u16,
    /// Without, on loopback.
    pub(crate) plain: u16,
    process: Option<Process>,
}

impl Broker {
    /// Starts one; `settings` are lines for its listener with TLS.
    pub(crate) async fn start(dir: &Path, settings: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let ca = issue_ca("broker").unwrap();
        let server = issue_server(&ca, &["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let spec = CertificateSpec {
            common_name: "gateway",
            names: &[],
            uris: &[],
            purpose: Purpose::Client,
            lifetime: SERVER_LIFETIME,
            validity_max_secs: None,
        };
        let client = issue(&ca, &spec).unwrap();
        for (name, text) in [
            ("ca.pem", &ca.cert_pem),
            ("server.pem", &server.chain_pem),
            ("server-key.pem", &server.key_pem),
            ("client.pem", &client.chain_pem),
            ("client-key.pem", &client.key_pem),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let passwords = dir.join("passwords");
        let (code, _, error) = run(Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&passwords)
            .args(["gateway", "secret"]))
        .await
        .unwrap();
        assert_eq!(code, 0, "{error}");
        let (port, plain) = (free_port().unwrap(), free_port().unwrap());
        let file = |name: &str| dir.join(name).display().to_string();
        // What it acknowledges it has then sent to the looker: messages that wait in its memory for a place in flight would be
        // lost with a kill.
        let config = format!(
            "max_inflight_messages 0\nmax_queued_messages 0\nper_listener_settings true\nuser root\nlog_dest stderr\nlog_type all\nset_tcp_nodelay true\n\
             listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\npassword_file {}\n{settings}\n\
             listener {plain} 127.0.0.1\nallow_anonymous true\n",
            file("ca.pem"),
            file("server.pem"),
            file("server-key.pem"),
            passwords.display(),
        );
        std::fs::write(dir.join("mosquitto.conf"), config).unwrap();
        let mut broker = Self { dir: dir.to_owned(), port, plain, process: None };
        broker.run().await;
        broker
    }

    /// Starts it again.
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(self.dir.join("mosquitto.conf"));
        let process = Process::start("mosquitto", command, &self.dir.join("mosquitto.log")).unwrap();
        process.line("running", STEP).await.unwrap();
        self.process = Some(process);
    }

    pub(crate) async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }

    /// `[upstream]` of a gateway for it, reached on `port`.
    pub(crate) fn upstream(&self, port: u16, more: &str) -> String {
        let file = |name: &str| self.dir.join(name).display().to_string();
        format!(
            "kind = \"mqtt\"\nhost = \"localhost\"\nport = {port}\nca = \"{}\"\nuser_name = \"gateway\"\npassword = \"secret\"\n\
             cert = \"{}\"\nkey = \"{}\"\ntopic = \"site/{{gateway}}/{{device}}/{{module}}/{{output}}\"\n{more}\n",
            file("ca.pem"),
            file("client.pem"),
            file("client-key.pem"),
        )
    }
}

/// A gateway whose `edge.toml` has this `[upstream]`, with leaf devices added on it; it runs.
pub(crate) async fn gateway(dir: &Path, name: &str, upstream: &str) -> Site {
    let mut site = Site::new(dir, name, false).unwrap();
    site.init_alone().await.unwrap();
    set_upstream(&site, upstream);
    start(&mut site).await;
    site
}

/// Starts the daemon and waits until its command line is served too.
pub(crate) async fn start(site: &mut Site) {
    site.start_agent().await.unwrap();
    eventually("the command line is served", STEP, || async { Ok(site.agent_json(&["status"]).await.ok()) })
        .await
        .unwrap();
}

/// Puts another `[upstream]` into `edge.toml`.
pub(crate) fn set_upstream(site: &Site, upstream: &str) {
    let text = std::fs::read_to_string(site.edge_toml()).unwrap();
    let text = text.split("\n[upstream").next().unwrap().trim_end().to_owned();
    std::fs::write(site.edge_toml(), format!("{text}\n\n[upstream]\n{upstream}")).unwrap();
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) topic: String,
    pub(crate) body: String,
    pub(crate) properties: HashMap<String, String>,
}

impl Arrived {
    /// What names it for ever: the gateway's queue and the sequence there.
    pub(crate) fn place(&self) -> (String, u64) {
        (self.properties["$.ls-queue"].clone(), self.properties["$.ls-seq"].parse().unwrap())
    }
}

/// Looks at what arrives, over the broker's kills, and says whether it is there. It is when this returns: what mosquitto gets
/// for nobody it forgets. At QoS 0, so that it has nothing to say: what it would write to a broker that was killed a moment ago ended its
/// connection before all that the broker had sent was read.
pub(crate) async fn observe(plain: u16) -> (mpsc::UnboundedReceiver<Arrived>, watch::Receiver<bool>) {
    let (arrived, seen) = mpsc::unbounded_channel();
    let (there, mut is_there) = watch::channel(false);
    let mut options = MqttOptions::new("looker", "127.0.0.1", plain);
    // A broker that is killed ends the connection by itself; one that is slow must not.
    options
        .set_keep_alive(Duration::from_secs(3600))
        .set_connection_timeout(CONNECT_SECS)
        .set_clean_start(true);
    let (client, mut events) = AsyncClient::new(options, 100);
    tokio::spawn(async move {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    client.subscribe("#", QoS::AtMostOnce).await.unwrap();
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => drop(there.send(true)),
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let properties = publish.properties.unwrap_or_default().user_properties;
                    let message = Arrived {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        body: String::from_utf8_lossy(&publish.payload).into_owned(),
                        properties: properties.into_iter().collect(),
                    };
                    if arrived.send(message).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => {
                    let _ = there.send(false);
                    if arrived.is_closed() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    is_now(&mut is_there, true).await;
    (seen, is_there)
}

/// Waits until the looker is there, or knows that it is not.
pub(crate) async fn is_now(there: &mut watch::Receiver<bool>, spec: bool) {
    let waited = tokio::time::timeout(STEP, there.wait_for(|there| *there == spec)).await;
    waited.unwrap_or_else(|_| panic!("the looker is not {}", if spec { "there" } else { "away" })).unwrap();
}

/// The next `count` messages.
pub(crate) async fn next(seen: &mut mpsc::UnboundedReceiver<Arrived>, count: usize) -> Vec<Arrived> {
    let mut all = Vec::new();
    while all.len() < count {
        match tokio::time::timeout(STEP, seen.recv()).await {
            Ok(Some(message)) => all.push(message),
            _ => panic!("only {} of {count} arrived: {all:?}", all.len()),
        }
    }
    all
}
