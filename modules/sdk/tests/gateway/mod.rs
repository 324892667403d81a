//! A small gateway for the SDK's tests: a workload API on a socket, and an MQTT listener on TLS that the test answers for.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]
#![allow(dead_code, reason = "the tests of each module use their part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use module_sdk::settings::Settings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, QoS, SubAck, SubscribeReasonCode,
};
use schemas::topics;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a step may take at most on a busy machine.
const STEP: Duration = Duration::from_secs(60);
const PACKET_BYTES_MAX: usize = 1 << 20;

/// Both servers, and what came to the first.
pub(crate) struct Gateway {
    dir: tempfile::TempDir,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// What was signed, as `resource\nexpiry`.
    pub(crate) signed: mpsc::Receiver<String>,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let (signatures, signed) = mpsc::channel(10);
        let workload = UnixListener::bind(socket(dir.path())).unwrap();
        tokio::spawn(workload_api(workload, authority.pem(), signatures));
        Self {
            dir,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            signed,
        }
    }

    /// How the module `gw/filter` reaches it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            identity: "gw/filter".parse().unwrap(),
            generation: "g 1".into(),
            hub_name: "hub.example".into(),
            gateway: "localhost".into(),
            gateway_port: self.listener.local_addr().unwrap().port(),
            workload_socket: socket(self.dir.path()),
            api_version: "2018-06-28".into(),
            token_valid: Duration::from_secs(3600),
        }
    }

    /// The same as a container's environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let settings = self.settings();
        vec![
            ("IOTEDGE_WORKLOADURI", format!("unix://{}", settings.workload_socket.display())),
            ("IOTEDGE_DEVICEID", "gw".to_owned()),
            ("IOTEDGE_MODULEID", "filter".to_owned()),
            ("IOTEDGE_MODULEGENERATIONID", settings.generation),
            ("IOTEDGE_IOTHUBHOSTNAME", settings.hub_name),
            ("IOTEDGE_GATEWAYHOSTNAME", settings.gateway),
            ("IOTEDGE_GATEWAYPORT", settings.gateway_port.to_string()),
            ("IOTEDGE_AUTHSCHEME", "sasToken".to_owned()),
        ]
    }

    /// Starts a module's program as its container would.
    pub(crate) fn run(&self, program: &str) -> tokio::process::Child {
        tokio::process::Command::new(program).envs(self.environment()).kill_on_drop(true).spawn().unwrap()
    }

    /// The next connection up to its CONNECT, not answered yet.
    pub(crate) async fn accept(&self) -> (Connect, Session) {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        let mut session =
            Session { stream: within(self.acceptor.accept(stream)).await.unwrap(), read: Default::default() };
        match session.packet().await {
            Some(Packet::Connect(connect)) => (connect, session),
            other => panic!("expected CONNECT, found {other:?}"),
        }
    }

    /// The next connection, welcomed, its four subscriptions granted and its twin request answered with `desired`.
    pub(crate) async fn welcome(&self, desired: Value) -> Session {
        let (_, mut session) = self.accept().await;
        session.welcome(desired).await;
        session
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("workload.sock")
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(STEP, future).await.expect("the step took too long")
}

async fn workload_api(listener: UnixListener, authority: String, signatures: mpsc::Sender<String>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        let (head, body) = loop {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the request was cut");
            request.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8(request.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let header = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().unwrap())
                });
                if body.len() == header.unwrap_or(0) {
                    break (head.to_owned(), body.to_owned());
                }
            }
        };
        let (status, answer) = match head.lines().next().unwrap() {
            "GET /trust-bundle?api-version=2018-06-28 HTTP/1.1" => {
                ("200 OK", json!({"certificate": authority}))
            }
            "POST /modules/filter/genid/g%201/sign?api-version=2018-06-28 HTTP/1.1" => {
                use base64::Engine as _;
                let body: Value = serde_json::from_str(&body).unwrap();
                assert_eq!((&body["keyId"], &body["algo"]), (&json!("primary"), &json!("HMACSHA256")));
                let data = base64::engine::general_purpose::STANDARD.decode(body["data"].as_str().unwrap());
                signatures.send(String::from_utf8(data.unwrap()).unwrap()).await.unwrap();
                ("200 OK", json!({"digest": "a+b/c="}))
            }
            other => ("404 Not Found", json!({"message": other})),
        };
        let answer = answer.to_string();
        let length = answer.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// One MQTT connection. Dropping it cuts the line.
pub(crate) struct Session {
    stream: TlsStream<TcpStream>,
    read: bytes::BytesMut,
}

impl Session {
    /// The next packet; `None` when the module has closed the connection.
    pub(crate) async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.read, PACKET_BYTES_MAX) {
                return Some(packet);
            }
            // A module that left in order closes the line without a TLS farewell: an error here is an end too.
            if within(self.stream.read_buf(&mut self.read)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub(crate) async fn write(&mut self, packet: Packet) {
        let mut bytes = bytes::BytesMut::new();
        packet.write(&mut bytes, PACKET_BYTES_MAX).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub(crate) async fn welcome(&mut self, desired: Value) {
        self.write(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await;
        for expected in [
            "devices/gw/modules/filter/inputs/#",
            topics::METHOD_CALLS,
            topics::TWIN_RESPONSES,
            topics::TWIN_DESIRED,
        ] {
            let Some(Packet::Subscribe(subscribe)) = self.packet().await else {
                panic!("expected SUBSCRIBE")
            };
            assert_eq!(subscribe.filters[0].path, expected);
            let granted = vec![SubscribeReasonCode::Success(subscribe.filters[0].qos)];
            self.write(Packet::SubAck(SubAck::new(subscribe.pkid, granted))).await;
        }
        // Telemetry of a connection before may stand in front of the twin request; it is left for the test.
        let mut early = Vec::new();
        loop {
            match self.packet().await {
                Some(Packet::Publish(publish)) if publish.topic.starts_with("$iothub/twin/GET/?$rid=") => {
                    assert_eq!(publish.payload, " ");
                    let id = publish.topic.rsplit_once('=').unwrap().1.to_owned();
                    let twin = json!({"desired": desired, "reported": {"$version": 1}}).to_string();
                    self.publish(topics::twin_response(200, &id, None), QoS::AtMostOnce, 0, &twin).await;
                    break;
                }
                Some(Packet::Publish(publish)) => early.push(publish),
                other => panic!("expected a twin request, found {other:?}"),
            }
        }
        let mut unread = bytes::BytesMut::new();
        for publish in early {
            Packet::Publish(publish).write(&mut unread, PACKET_BYTES_MAX).unwrap();
        }
        unread.extend_from_slice(&self.read);
        self.read = unread;
    }

    pub(crate) async fn publish(&mut self, topic: String, qos: QoS, packet_id: u16, payload: &str) {
        let mut publish = Publish::new(topic, qos, payload);
        publish.pkid = packet_id;
        self.write(Packet::Publish(publish)).await;
    }

    /// The next packet, which must be a PUBLISH.
    pub(crate) async fn published(&mut self) -> Publish {
        match self.packet().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("expected PUBLISH, found {other:?}"),
        }
    }

    /// The next reported patch, granted.
    pub(crate) async fn reported(&mut self) -> Value {
        let report = self.published().await;
        let id = report.topic.strip_prefix("$iothub/twin/PATCH/properties/reported/?$rid=").unwrap();
        self.publish(topics::twin_response(204, id, Some(2)), QoS::AtMostOnce, 0, "").await;
        serde_json::from_slice(&report.payload).unwrap()
    }

    /// Tells a module to stop as an engine does, and waits until it has said goodbye and ended well.
    pub(crate) async fn stop(mut self, mut module: tokio::process::Child) {
        let kill = format!("kill -TERM {}", module.id().unwrap());
        assert!(tokio::process::Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
        loop {
            match self.packet().await {
                Some(Packet::Publish(publish)) if publish.qos != QoS::AtMostOnce => {
                    self.acknowledge(&publish).await
                }
                Some(Packet::Disconnect) => break,
                Some(_) => {}
                None => panic!("the module closed the line without a goodbye"),
            }
        }
        assert!(within(module.wait()).await.unwrap().success());
    }

    pub(crate) async fn acknowledge(&mut self, publish: &Publish) {
        self.write(Packet::PubAck(PubAck::new(publish.pkid))).await;
    }
}
