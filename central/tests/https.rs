//! The REST API over TLS: with central's own certificate or an operator's, which may change while central serves.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use central::config::Config;
use common::{Central, STEP, start_with};
use edge_tls::config::client_config;
use edge_tls::issue::{Authority, issue_ca, issue_server};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client that trusts one authority and calls central by one name.
struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    name: &'static str,
    token: String,
}

impl Client {
    fn new(central: &Central, ca_pem: &[u8], name: &'static str) -> Self {
        let (address, token) = (central.started.http, central.token.clone());
        Self { address, tls: client_config(ca_pem).unwrap(), name, token }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.address, self.tls.clone(), self.name).await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = self.connect().await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.name,
            self.token,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(STEP, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

async fn connect(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    name: &'static str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    timeout(STEP, TlsConnector::from(tls).connect(name, stream)).await.unwrap()
}

/// On every address of the machine.
fn everywhere(config: &mut Config) {
    config.http.tls = true;
    config.http.listen = SocketAddr::from(([0, 0, 0, 0], 0));
}

fn write_pair(dir: &Path, ca: &Authority, name: &str) {
    let issued = issue_server(ca, &[name.to_owned()]).unwrap();
    std::fs::write(dir.join("server.pem"), issued.chain_pem).unwrap();
    std::fs::write(dir.join("server-key.pem"), issued.key_pem).unwrap();
}

#[tokio::test]
async fn a_devices_value_is_read_over_https_by_who_trusts_centrals_authority_and_knows_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let central = start_with(dir.path(), everywhere).await;
    assert!(central.started.http_url().starts_with("https://"), "{}", central.started.http_url());
    let ca = std::fs::read(dir.path().join("ca.pem")).unwrap();
    let client = Client::new(&central, &ca, "central.test");

    let path = |device: &str, rest: &str| format!("/api/devices/{device}{rest}?api-version=2022-07-31");
    for device in ["press-1", "press-2"] {
        assert_eq!(client.send("PUT", &path(device, ""), "{}").await.0, 200);
    }
    let (_, credentials) = client.send("GET", &path("press-1", "/credentials"), "").await;
    let key = credentials["symmetricKey"]["primaryKey"].as_str().unwrap();
    let mut device = central.client_with_key("press-1", &common::decoded(key));
    device.publish("devices/press-1/messages/events/", r#"{"temperature": 21.5}"#).await;
    let (status, value) = client.send("GET", &path("press-1", "/telemetry/temperature"), "").await;
    assert_eq!((status, &value["value"]), (200, &json!(21.5)), "{value}");

    let (_, page) = client.send("GET", "/api/devices?api-version=2022-07-31&$top=1", "").await;
    assert!(page["nextLink"].as_str().unwrap().starts_with("https://central.test/api/devices?"), "{page}");

    assert!(Client { name: "other.test", ..Client::new(&central, &ca, "") }.connect().await.is_err());
    let stranger = issue_ca("stranger").unwrap();
    assert!(Client::new(&central, stranger.cert_pem.as_bytes(), "central.test").connect().await.is_err());

    let plain = central.http.get(format!("http://{}/api/devices", central.started.http));
    let plain = plain.header("Authorization", &central.token).send().await.unwrap();
    assert_eq!(plain.status(), 400);
    let refusal = plain.text().await.unwrap();
    assert!(refusal.contains("https://"), "{refusal}");
    central.end().await;
}

/// A certificate in `[http]` is the API's alone, one in `[tls]` is the MQTT listener's too.
#[tokio::test]
async fn a_certificate_that_is_replaced_on_disk_is_served_without_a_restart() {
    for is_of_http in [true, false] {
        let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (issue_ca("first").unwrap(), issue_ca("second").unwrap());
        write_pair(files.path(), &first, "central.test");
        let pair = (Some(files.path().join("server.pem")), Some(files.path().join("server-key.pem")));
        let central = start_with(dir.path(), |config| {
            config.http.tls = true;
            if is_of_http {
                (config.http.cert, config.http.key) = pair;
            } else {
                (config.tls.cert, config.tls.key) = pair;
            }
        })
        .await;
        let [before, after] = [&first, &second]
            .map(|authority| Client::new(&central, authority.cert_pem.as_bytes(), "central.test"));
        before.connect().await.unwrap();
        assert!(after.connect().await.is_err());
        let own = std::fs::read(dir.path().join("ca.pem")).unwrap();
        let mqtts = connect(central.started.mqtts, client_config(&own).unwrap(), "central.test").await;
        assert_eq!(mqtts.is_ok(), is_of_http, "the MQTT listener has the certificate of [tls]");

        write_pair(files.path(), &second, "central.test");
        let deadline = Instant::now() + STEP;
        while after.connect().await.is_err() {
            assert!(Instant::now() < deadline, "the new certificate is not served");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(before.connect().await.is_err());
        assert_eq!(after.send("GET", "/api/ext/health", "").await.0, 200);
        central.end().await;
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_served_ends_the_start_with_its_files_name() {
    let (dir, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    (config.http.listen, config.mqtt.mqtts, config.http.tls) = (any, any, true);
    config.http.cert = Some(files.path().join("server.pem"));
    config.http.key = Some(files.path().join("server-key.pem"));
    let refused = central::server::start(config, tokio_util::sync::CancellationToken::new()).await;
    let refused = format!("{:#}", refused.map(|_| ()).unwrap_err());
    assert!(refused.contains("server.pem"), "{refused}");
}
