//! Breaks a gateway in every way that `edge-agent check` knows, runs it as an operator does, and keeps its answers in
//! docs/operating/check.md. `LINESIDE_WRITE_GOLDEN=1` writes the page anew (as root).

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

#[path = "../../tests/src/port.rs"]
#[allow(unreachable_pub, reason = "the tests of a whole site have it as a library's")]
mod port;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use edge_agent::cli::init::gateway::{InitOptions, UpstreamCa, init};
use edge_agent::config::Config;
use edge_core::clock::BUILT_SECS;
use edge_core::health::facts::{
    DaemonFacts, DiskFacts, EngineFacts, Facts, JournalFacts, LinkFacts, LinkFailure, MemoryFacts,
    ModuleFacts, Probe, QueueFacts, RefusalFacts,
};
use edge_core::health::finding::{CheckId, Finding, Level};
use edge_core::health::findings;
use edge_hub::http_server::{HttpLimits, HttpServer};
use edge_hub::private_files::make_private;
use edge_tls::config::server_config;
use edge_tls::issue::{Authority, issue_ca, issue_server};
use serde_json::json;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use toml::{Table, Value};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating/check.md");
const BEGIN: &str = "<!-- made by edge-agent/tests/check.rs: begin -->\n";
const END: &str = "<!-- made by edge-agent/tests/check.rs: end -->\n";
/// When what the facts of this test tell of happened.
const THEN_MS: u64 = BUILT_SECS * 1000;
/// Nobody's rights.
const NOBODY: u32 = 65_534;

/// What answers on Docker's socket.
#[derive(Clone, Copy, PartialEq)]
enum Docker {
    Answers { has_network: bool },
    Hangs,
    Absent,
}

/// What answers on the daemon's socket.
#[derive(Clone, PartialEq)]
enum Daemon {
    Answers(Box<DaemonFacts>),
    Hangs,
    Absent,
}

/// A gateway on which nothing is wrong, until a row breaks it.
struct Scene {
    dir: tempfile::TempDir,
    docker: Docker,
    daemon: Daemon,
    as_user: Option<u32>,
    files_max: Option<u32>,
    central: SocketAddr,
    held: Vec<TcpListener>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let authority = issue_ca("central").unwrap();
        let central = serve_tls(&authority);
        let ca = dir.path().join("central-ca.pem");
        std::fs::write(&ca, &authority.cert_pem).unwrap();
        let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
        let upstream = format!("HostName=localhost:{};DeviceId=gw;SharedAccessKey={key}", central.port());
        init(InitOptions {
            device_id: "gw".parse().unwrap(),
            hostname: "localhost".into(),
            data_dir: dir.path().join("data"),
            config: dir.path().join("edge.toml"),
            upstream: Some(upstream.parse().unwrap()),
            upstream_ca: Some(UpstreamCa::File(ca)),
        })
        .unwrap();
        make_private(&dir.path().join("data"), &[]).unwrap();
        let (docker, daemon) = (Docker::Answers { has_network: true }, Daemon::Absent);
        let mut scene =
            Self { dir, docker, daemon, as_user: None, files_max: None, central, held: Vec::new() };
        let socket = scene.path("docker.sock").display().to_string();
        scene.set("docker", "socket", socket);
        scene.set("listen", "mqtts", "127.0.0.1:0");
        scene.set("listen", "mqtt", "");
        scene.set("listen", "https", "");
        scene.set("listen", "connections_max", 64);
        let mut policy = Table::new();
        policy.insert("privileged".into(), Value::Boolean(false));
        scene.set("deploy", "policy", policy);
        scene.daemon = Daemon::Answers(Box::new(well()));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn edit(&self, edit: impl FnOnce(&mut Table)) {
        let path = self.path("edge.toml");
        let mut table: Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        edit(&mut table);
        std::fs::write(&path, table.to_string()).unwrap();
    }

    fn set(&self, section: &str, key: &str, value: impl Into<Value>) {
        self.edit(|table| {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            section.as_table_mut().unwrap().insert(key.into(), value.into());
        });
    }

    fn facts(&mut self) -> &mut DaemonFacts {
        let Daemon::Answers(facts) = &mut self.daemon else { panic!("no daemon answers") };
        facts
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.data(name)).unwrap();
    }

    /// What `edge-agent check --json` says.
    async fn check(&self) -> Vec<Finding> {
        let stop = CancellationToken::new();
        let _serving = (self.serve_docker(&stop), self.serve_daemon(&stop), stop.drop_guard());
        let mut command = tokio::process::Command::new("sh");
        let limit = self.files_max.map_or_else(|| ":".to_owned(), |max| format!("ulimit -n {max}"));
        command.args(["-c", &format!("{limit}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_edge-agent")]);
        command.args(["check", "--json", "--config"]).arg(self.path("edge.toml"));
        if let Some(user) = self.as_user {
            command.uid(user).gid(user);
        }
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let findings: Vec<Finding> = serde_json::from_str(&said)
            .unwrap_or_else(|error| panic!("{error}: {said}{}", String::from_utf8_lossy(&output.stderr)));
        let has_error = findings.iter().any(|finding| finding.level == Level::Error);
        assert_eq!(output.status.code(), Some(i32::from(has_error)), "{said}");
        findings
    }

    fn serve_docker(&self, stop: &CancellationToken) -> Option<UnixListener> {
        let listener = UnixListener::bind(self.path("docker.sock")).unwrap();
        let Docker::Answers { has_network } = self.docker else {
            if self.docker == Docker::Absent {
                std::fs::remove_file(self.path("docker.sock")).unwrap();
            }
            return Some(listener);
        };
        let answer = move |uri: axum::http::Uri| async move {
            let path = uri.path();
            let (status, body) = match () {
                () if path.ends_with("/version") => (
                    StatusCode::OK,
                    json!({"Version": "27.5.1", "ApiVersion": "1.47", "MinAPIVersion": "1.24"}),
                ),
                () if path.ends_with("/info") => {
                    (StatusCode::OK, json!({"ServerVersion": "27.5.1", "LoggingDriver": "local"}))
                }
                () if path.contains("/networks/") && has_network => {
                    (StatusCode::OK, json!({"Name": "azure-iot-edge"}))
                }
                () => (StatusCode::NOT_FOUND, json!({"message": format!("{path} not found")})),
            };
            (status, Json(body))
        };
        let router = Router::new().fallback(answer);
        serve(listener, router, stop);
        None
    }

    fn serve_daemon(&self, stop: &CancellationToken) -> Option<UnixListener> {
        let facts = match &self.daemon {
            Daemon::Absent => return None,
            Daemon::Hangs => return Some(UnixListener::bind(self.data("edge-agent.sock")).unwrap()),
            Daemon::Answers(facts) => facts.clone(),
        };
        let mut facts = *facts;
        if facts.config_crc32c.is_none() {
            facts.config_crc32c = Config::load(&self.path("edge.toml")).ok().map(|config| config.crc32c);
        }
        // Where it cannot be used there is no socket either.
        let Ok(listener) = UnixListener::bind(self.data("edge-agent.sock")) else { return None };
        std::fs::set_permissions(self.data("edge-agent.sock"), PermissionsExt::from_mode(0o600)).unwrap();
        serve(listener, Router::new().route("/facts", get(|| async move { Json(facts) })), stop);
        None
    }

    /// A text without what is different at each run.
    fn steady(&self, text: &str) -> String {
        let dir = self.dir.path().display().to_string();
        let mut text = text
            .replace(&format!("{dir}/data"), "/var/lib/edge-agent")
            .replace(&format!("{dir}/docker.sock"), "/var/run/docker.sock")
            .replace(&dir, "/etc/edge-agent")
            .replace(&format!("localhost:{}", self.central.port()), "central:8883");
        text = text.replace(&format!("127.0.0.1:{}", self.central.port()), "10.0.0.5:8883");
        for held in &self.held {
            text = text.replace(&held.local_addr().unwrap().port().to_string(), "8883");
        }
        if let Some((before, _)) = text.split_once("does not resolve here: ") {
            text = format!("{before}does not resolve here: Name or service not known");
        }
        let mut words: Vec<&str> = text.split(' ').collect();
        for at in 1..words.len() {
            if words[at].starts_with("GB") && words[at - 1].parse::<f64>().is_ok() {
                words[at - 1] = "…";
            }
        }
        words.join(" ")
    }
}

fn serve(listener: UnixListener, router: Router, stop: &CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move {
        HttpServer::new("test", HttpLimits::default()).serve_unix(listener, router, stop).await;
    });
}

/// Completes TLS handshakes as `localhost`, for as long as the test runs.
fn serve_tls(authority: &Authority) -> SocketAddr {
    let issued = issue_server(authority, &["localhost".to_owned()]).unwrap();
    let config = server_config(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, config) = (stream.unwrap(), Arc::clone(&config));
            std::thread::spawn(move || {
                let mut connection = rustls::ServerConnection::new(config).unwrap();
                while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
                // Until the other side has ended it.
                let _ = connection.complete_io(&mut stream);
            });
        }
    });
    address
}

/// A daemon on which nothing is wrong.
fn well() -> DaemonFacts {
    let module = ModuleFacts {
        name: "filter".into(),
        shall_run: true,
        status: "running".into(),
        reason: "running".into(),
        ..ModuleFacts::default()
    };
    let mut facts = DaemonFacts {
        version: env!("CARGO_PKG_VERSION").into(),
        clock_offset_ms: Some(120),
        link: Some(LinkFacts { is_connected: true, since_ms: THEN_MS, ..LinkFacts::default() }),
        modules: vec![module],
        queues: vec![QueueFacts {
            name: "upstream".into(),
            headroom: "enough".into(),
            ..QueueFacts::default()
        }],
        clients: 3,
        connections_max: 64,
        ..DaemonFacts::default()
    };
    facts.deployment.version = Some(7);
    facts
}

/// How a row breaks its gateway.
enum Break {
    /// As it breaks in the field; `edge-agent check` runs against it.
    Real(fn(&mut Scene)),
    /// The daemon tells it; `edge-agent check` asks a socket that answers so.
    InDaemon(fn(&mut DaemonFacts)),
    /// Nothing that a test may break on its host: the facts say so.
    Facts(fn(&mut Facts)),
}

struct Row {
    id: CheckId,
    broken: &'static str,
    level: Level,
    breaks: Break,
    needs_root: bool,
}

fn row(id: CheckId, broken: &'static str, level: Level, breaks: Break) -> Row {
    Row { id, broken, level, breaks, needs_root: false }
}

fn module(facts: &mut DaemonFacts, status: &str, reason: &str, next_try: Option<&str>) {
    let module = &mut facts.modules[0];
    (module.status, module.reason) = (status.into(), reason.into());
    module.next_try = next_try.map(str::to_owned);
}

fn away(facts: &mut DaemonFacts, why: &str, failure: LinkFailure) {
    facts.link = Some(LinkFacts {
        is_connected: false,
        since_ms: THEN_MS,
        why: format!("could not connect: {why}"),
        failure: Some(failure),
    });
}

fn rows() -> Vec<Row> {
    use Break::{Facts as InFacts, InDaemon, Real};
    use Level::{Error, Info, Warn};
    let mut as_another_user = vec![
        row(CheckId::Config, "another user runs `check`", Error, Real(|scene| scene.as_user = Some(NOBODY))),
        row(
            CheckId::DataDir,
            "another user, who may read edge.toml, runs `check`",
            Error,
            Real(|scene| {
                scene.as_user = Some(NOBODY);
                let mode = PermissionsExt::from_mode(0o644);
                std::fs::set_permissions(scene.path("edge.toml"), mode).unwrap();
            }),
        ),
        row(
            CheckId::Docker,
            "the socket is for root alone, and the daemon's user is another one",
            Error,
            Real(|scene| {
                scene.as_user = Some(NOBODY);
                for path in ["edge.toml", "data"] {
                    std::os::unix::fs::chown(scene.path(path), Some(NOBODY), None).unwrap();
                }
            }),
        ),
    ];
    for row in &mut as_another_user {
        row.needs_root = true;
    }
    let mut rows = vec![
        row(
            CheckId::Config,
            "a key in edge.toml has a typing mistake",
            Error,
            Real(|scene| scene.set("buffer", "max_byte", 1)),
        ),
        row(
            CheckId::Config,
            "edge.toml is not there",
            Error,
            Real(|scene| std::fs::remove_file(scene.path("edge.toml")).unwrap()),
        ),
        row(
            CheckId::ConfigInUse,
            "edge.toml was changed after the start",
            Warn,
            InDaemon(|facts| facts.config_crc32c = Some(1)),
        ),
        row(
            CheckId::DataDir,
            "the disk of the data directory is not mounted",
            Error,
            Real(|scene| std::fs::remove_dir_all(scene.path("data")).unwrap()),
        ),
        row(
            CheckId::Permissions,
            "`chmod o+r module-key`",
            Warn,
            Real(|scene| {
                std::fs::set_permissions(scene.data("module-key"), PermissionsExt::from_mode(0o604)).unwrap();
            }),
        ),
        row(
            CheckId::Clock,
            "a board without a battery, before its time server answered",
            Error,
            InFacts(|facts| facts.now_secs = 946_684_800),
        ),
        row(
            CheckId::ClockOffset,
            "the clock is 10 minutes ahead",
            Error,
            InDaemon(|facts| facts.clock_offset_ms = Some(600_000)),
        ),
        row(
            CheckId::ClockOffset,
            "the clock is a minute behind",
            Warn,
            InDaemon(|facts| facts.clock_offset_ms = Some(-60_000)),
        ),
        row(
            CheckId::Disk,
            "less is free than `keep_free_bytes`",
            Error,
            Real(|scene| scene.set("buffer", "keep_free_bytes", 1_i64 << 53)),
        ),
        row(
            CheckId::Disk,
            "a faulty disk was mounted again for reading only",
            Error,
            InFacts(|facts| {
                facts.host.disk = Probe::Found(DiskFacts { is_read_only: true, ..DiskFacts::default() });
            }),
        ),
        row(
            CheckId::Inodes,
            "millions of small files",
            Error,
            InFacts(|facts| {
                let disk = DiskFacts { free_inodes: 12, total_inodes: 655_360, ..DiskFacts::default() };
                facts.host.disk = Probe::Found(disk);
            }),
        ),
        row(
            CheckId::Memory,
            "a module that leaks",
            Warn,
            InFacts(|facts| {
                let memory = MemoryFacts { available_bytes: 41_000_000, total_bytes: 1_024_000_000 };
                facts.host.memory = Probe::Found(memory);
            }),
        ),
        row(
            CheckId::OpenFiles,
            "`ulimit -n 600`, and 10,000 connections configured",
            Warn,
            Real(|scene| {
                scene.files_max = Some(600);
                scene.set("listen", "connections_max", 10_000);
            }),
        ),
        row(CheckId::OpenFiles, "`ulimit -n 100`", Error, Real(|scene| scene.files_max = Some(100))),
        row(
            CheckId::Hostname,
            "`hostname` is in no DNS",
            Warn,
            Real(|scene| {
                scene.edit(|table| {
                    table.insert("hostname".into(), Value::String("edge.invalid".into()));
                });
            }),
        ),
        row(
            CheckId::Listeners,
            "another program holds the port",
            Error,
            Real(|scene| {
                let held = TcpListener::bind("127.0.0.1:0").unwrap();
                scene.set("listen", "mqtts", held.local_addr().unwrap().to_string());
                scene.held.push(held);
                scene.daemon = Daemon::Absent;
            }),
        ),
        row(CheckId::Daemon, "the daemon does not run", Error, Real(|scene| scene.daemon = Daemon::Absent)),
        row(
            CheckId::Daemon,
            "the daemon was killed (SIGKILL): its socket is still there",
            Error,
            Real(|scene| {
                drop(std::os::unix::net::UnixListener::bind(scene.data("edge-agent.sock")).unwrap());
                scene.daemon = Daemon::Absent;
            }),
        ),
        row(
            CheckId::Daemon,
            "the daemon is stopped (SIGSTOP) or stuck",
            Error,
            Real(|scene| scene.daemon = Daemon::Hangs),
        ),
        row(
            CheckId::DaemonVersion,
            "a new version was installed, the old one still runs",
            Info,
            InDaemon(|facts| facts.version = "0.0.9".into()),
        ),
        row(CheckId::ModuleKeys, "the secret is lost", Error, Real(|scene| scene.remove("module-key"))),
        row(
            CheckId::ModuleKeys,
            "a bit of the secret flipped",
            Error,
            Real(|scene| {
                let mut secret = std::fs::read(scene.data("module-key")).unwrap();
                secret[5] ^= 1;
                std::fs::write(scene.data("module-key"), secret).unwrap();
            }),
        ),
        row(CheckId::Ca, "ca.pem is lost", Error, Real(|scene| scene.remove("ca.pem"))),
        row(
            CheckId::Ca,
            "the gateway's CA ended yesterday",
            Error,
            InFacts(|facts| {
                let path = "/var/lib/edge-agent/ca.pem".into();
                let not_after_secs = facts.now_secs - 86_400;
                facts.certificates.ca = Probe::Found(edge_core::health::facts::CaFacts {
                    path,
                    not_before_secs: 0,
                    not_after_secs,
                });
            }),
        ),
        row(
            CheckId::Ca,
            "the gateway's CA was made while the clock was ahead",
            Error,
            InFacts(|facts| {
                let path = "/var/lib/edge-agent/ca.pem".into();
                let not_before_secs = facts.now_secs + 300 * 86_400;
                let not_after_secs = not_before_secs + 3_650 * 86_400;
                facts.certificates.ca =
                    Probe::Found(edge_core::health::facts::CaFacts { path, not_before_secs, not_after_secs });
            }),
        ),
        row(CheckId::CaKey, "ca-key.pem is lost", Warn, Real(|scene| scene.remove("ca-key.pem"))),
        row(
            CheckId::CaKey,
            "ca-key.pem is of another CA",
            Error,
            Real(|scene| std::fs::write(scene.data("ca-key.pem"), issue_ca("x").unwrap().key_pem).unwrap()),
        ),
        row(
            CheckId::ServerCertificate,
            "server-key.pem is of another certificate",
            Error,
            Real(|scene| {
                let other = issue_server(&issue_ca("x").unwrap(), &["localhost".into()]).unwrap();
                std::fs::write(scene.data("server-key.pem"), other.key_pem).unwrap();
            }),
        ),
        row(CheckId::ServerCertificate, "server.pem is lost", Warn, Real(|scene| scene.remove("server.pem"))),
        row(
            CheckId::DeviceCa,
            "the file of `[tls] device_ca` is lost",
            Error,
            Real(|scene| scene.set("tls", "device_ca", "/etc/edge-agent/devices-ca.pem")),
        ),
        row(
            CheckId::UpstreamCa,
            "the file of `[upstream] ca` is empty",
            Error,
            Real(|scene| std::fs::write(scene.data("upstream-ca.pem"), "").unwrap()),
        ),
        row(
            CheckId::Upstream,
            "no `[upstream]`",
            Info,
            Real(|scene| scene.edit(|table| drop(table.remove("upstream")))),
        ),
        row(
            CheckId::UpstreamEncryption,
            "`transport = \"plain\"`",
            Warn,
            Real(|scene| {
                scene.edit(|table| {
                    let mut plain = Table::new();
                    for (key, value) in [("kind", "mqtt"), ("host", "localhost"), ("transport", "plain")] {
                        plain.insert(key.into(), Value::String(value.into()));
                    }
                    table.insert("upstream".into(), Value::Table(plain));
                });
            }),
        ),
        row(
            CheckId::UpstreamReachable,
            "`[upstream] ca` is another CA than central's",
            Error,
            Real(|scene| {
                std::fs::write(scene.data("upstream-ca.pem"), issue_ca("central").unwrap().cert_pem).unwrap();
            }),
        ),
        row(
            CheckId::UpstreamReachable,
            "central is not there",
            Warn,
            Real(|scene| {
                let free = SocketAddr::from(([127, 0, 0, 1], port::free_port().unwrap()));
                let text = std::fs::read_to_string(scene.path("edge.toml")).unwrap();
                let text = text.replace(
                    &format!("localhost:{}", scene.central.port()),
                    &format!("localhost:{}", free.port()),
                );
                std::fs::write(scene.path("edge.toml"), text).unwrap();
                scene.central = free;
            }),
        ),
        row(
            CheckId::Link,
            "the key in the connection string is wrong, or the gateway is blocked at central",
            Error,
            InDaemon(|facts| {
                away(facts, "refused by the server: not authorized", LinkFailure::NotAuthorized)
            }),
        ),
        row(
            CheckId::Link,
            "the line is down",
            Warn,
            InDaemon(|facts| away(facts, "connecting: connection refused", LinkFailure::Unreachable)),
        ),
        row(
            CheckId::LinkBudget,
            "the day's budget of telemetry is used up",
            Warn,
            InDaemon(|facts| {
                facts.budgets_used_up = vec!["telemetry".into()];
                facts.budget_resets_in_secs = 20_000;
            }),
        ),
        row(CheckId::Docker, "Docker does not run", Error, Real(|scene| scene.docker = Docker::Absent)),
        row(
            CheckId::Docker,
            "Docker hangs (SIGSTOP): it accepts and never answers",
            Error,
            Real(|scene| scene.docker = Docker::Hangs),
        ),
        row(
            CheckId::DockerLogs,
            "Docker's own default",
            Info,
            InFacts(|facts| {
                let engine = EngineFacts {
                    version: "27.5.1".into(),
                    logging_driver: "json-file".into(),
                    logs_are_bounded: Some(false),
                };
                facts.docker.engine = Probe::Found(engine);
            }),
        ),
        row(
            CheckId::DockerNetwork,
            "`docker network rm azure-iot-edge`",
            Info,
            Real(|scene| scene.docker = Docker::Answers { has_network: false }),
        ),
        row(
            CheckId::DeployPolicy,
            "no `[deploy.policy]`",
            Info,
            Real(|scene| scene.edit(|table| drop(table.remove("deploy")))),
        ),
        row(
            CheckId::WatchFolder,
            "the folder of `[deploy] watch` is not there",
            Error,
            Real(|scene| scene.set("deploy", "watch", "/etc/edge-agent/manifests")),
        ),
        row(
            CheckId::Deployment,
            "a manifest that this gateway refuses",
            Error,
            InDaemon(|facts| {
                let problem = "module `filter`: settings.image: found `filter:`; write name:tag";
                facts.deployment.problem = Some(problem.into());
            }),
        ),
        row(
            CheckId::Deployment,
            "an update whose image cannot be pulled",
            Error,
            InDaemon(|facts| {
                let reason = "runs as it was before: could not pull image acme/filter:2: manifest unknown";
                module(facts, "running", reason, Some("2026-11-29T03:12:40.000Z"));
                facts.modules[0].has_failed = true;
            }),
        ),
        row(
            CheckId::Deployment,
            "nothing was assigned",
            Info,
            InDaemon(|facts| facts.deployment.version = None),
        ),
        row(
            CheckId::Modules,
            "a module crashes",
            Error,
            InDaemon(|facts| {
                let reason = "ended with code 3; restart 4 of 20";
                module(facts, "backoff", reason, Some("2026-11-29T03:12:40.000Z"));
            }),
        ),
        row(
            CheckId::Modules,
            "its image does not exist",
            Error,
            InDaemon(|facts| {
                let reason = "could not pull image acme/filter:9: manifest unknown (3 tries failed)";
                module(facts, "backoff", reason, Some("2026-11-29T03:12:40.000Z"));
            }),
        ),
        row(
            CheckId::ModuleHealth,
            "its health check fails",
            Error,
            InDaemon(|facts| module(facts, "unhealthy", "its health check fails; restart 1 of 20", None)),
        ),
        row(
            CheckId::ModuleTransport,
            "a manifest sets `UpstreamProtocol` to `Amqp`",
            Warn,
            InDaemon(|facts| {
                facts.modules[0].amqp = Some(
                    "the manifest sets UpstreamProtocol=Amqp, and this gateway does not speak AMQP; leave it out, or set it to Mqtt"
                        .into(),
                );
            }),
        ),
        row(
            CheckId::Routes,
            "a route to a module that is in no manifest",
            Error,
            InDaemon(|facts| {
                facts.deployment.routes_refused =
                    vec!["route `alarms`: sends to module `filtre`, which is not in the manifest".into()];
            }),
        ),
        row(
            CheckId::QueueSpace,
            "the queue is full, and old messages give way",
            Error,
            InDaemon(|facts| facts.queues[0].headroom = "evicting".into()),
        ),
        row(
            CheckId::QueueSpace,
            "the queue is full, and `full = \"refuse\"`",
            Error,
            InDaemon(|facts| facts.queues[0].headroom = "refusing".into()),
        ),
        row(
            CheckId::QueueSpace,
            "the disk refuses to be written",
            Error,
            InDaemon(|facts| {
                facts.journals = vec![JournalFacts {
                    name: "buffer/upstream".into(),
                    of: "telemetry".into(),
                    failing: Some(
                        "could not begin a segment for 24 s: Operation not permitted (os error 1)".into(),
                    ),
                    ..JournalFacts::default()
                }];
            }),
        ),
        row(
            CheckId::Backlog,
            "a module that takes no messages",
            Warn,
            InFacts(|facts| {
                let queue = QueueFacts {
                    name: "inputs/filter".into(),
                    messages: 4_312,
                    oldest_secs: Some(18_000),
                    headroom: "enough".into(),
                };
                facts.daemon = Some(DaemonFacts { queues: vec![queue], ..well() });
            }),
        ),
        row(
            CheckId::Losses,
            "messages expired while the line was down",
            Warn,
            InDaemon(|facts| {
                facts.lost = vec![("expired".into(), 812)];
                facts.lost_unreported = 812;
            }),
        ),
        row(
            CheckId::Losses,
            "messages expired, and central knows",
            Warn,
            InDaemon(|facts| {
                facts.lost = vec![("expired".into(), 812)];
                facts.expired_secs_ago = Some(120);
            }),
        ),
        row(
            CheckId::Quarantine,
            "central rejects messages because of their content",
            Warn,
            InDaemon(|facts| facts.quarantined = 3),
        ),
        row(
            CheckId::Unrouted,
            "a device sends what no route takes",
            Warn,
            InDaemon(|facts| {
                facts.unrouted = 96;
                facts.unrouted_most = vec![("press-7".into(), 96)];
            }),
        ),
        row(
            CheckId::StoreDamage,
            "a file of a queue cannot be read",
            Error,
            InDaemon(|facts| facts.damaged_files = 1),
        ),
        row(
            CheckId::StoreDamage,
            "a segment of the MQTT journal is gone",
            Error,
            InDaemon(|facts| {
                facts.journals = vec![JournalFacts {
                    name: "mqtt".into(),
                    of: "sessions and retained messages".into(),
                    damaged: 400,
                    damaged_ever: 400,
                    failing: None,
                }];
            }),
        ),
        row(CheckId::Connections, "every place is taken", Error, InDaemon(|facts| facts.clients = 64)),
        row(
            CheckId::IdentityConflict,
            "two devices have one key",
            Error,
            InDaemon(|facts| {
                facts.conflicts = vec!["press-7 14 times in 5 min, from 10.0.3.7, 10.0.3.9".into()];
            }),
        ),
        row(
            CheckId::Refusals,
            "a device with a wrong key",
            Warn,
            InFacts(|facts| {
                let refusal = RefusalFacts {
                    identity: "press-7".into(),
                    why: "the signature was made with another key than press-7's".into(),
                    from: "10.0.3.7".into(),
                    protocol: "MQTT 3.1.1".into(),
                    last_ms: facts.now_secs * 1000 - 60_000,
                    count: 14,
                    ..RefusalFacts::default()
                };
                facts.daemon = Some(DaemonFacts { refusals: vec![refusal], ..well() });
            }),
        ),
    ];
    rows.extend(as_another_user);
    rows.sort_by_key(|row| row.id);
    rows
}

impl Row {
    /// The finding, with what differs from run to run taken out.
    async fn run(&self) -> Finding {
        let mut scene = Scene::new();
        let found = match self.breaks {
            Break::Real(breaks) => {
                breaks(&mut scene);
                scene.check().await
            }
            Break::InDaemon(breaks) => {
                breaks(scene.facts());
                scene.check().await
            }
            Break::Facts(breaks) => {
                let mut facts = Facts { now_secs: BUILT_SECS + 86_400, ..Facts::default() };
                facts.host.data_dir = "/var/lib/edge-agent".into();
                breaks(&mut facts);
                findings(&facts)
            }
        };
        let of = |id| found.iter().find(|finding| finding.id == id);
        let finding = of(self.id)
            .unwrap_or_else(|| panic!("{}: {} is not found: {found:?}", self.broken, self.id.name()));
        assert_eq!(finding.level, self.level, "{}: {finding}", self.broken);
        let (evidence, mend) = (scene.steady(&finding.evidence), scene.steady(&finding.mend));
        Finding { evidence, mend, ..finding.clone() }
    }
}

fn page_row(row: &Row, finding: &Finding) -> String {
    let seen = match row.breaks {
        Break::Real(_) => "",
        Break::InDaemon(_) => " ¹",
        Break::Facts(_) => " ²",
    };
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}` | {}{seen} | {} | {} | {} |\n",
        finding.id.name(),
        cell(row.broken),
        finding.level,
        cell(&finding.evidence),
        cell(&finding.mend)
    )
}

#[tokio::test]
async fn nothing_is_wrong_with_a_gateway_that_is_well() {
    let scene = Scene::new();
    let found = scene.check().await;
    let bad: Vec<&Finding> = found.iter().filter(|finding| finding.level > Level::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
    // Whatever a row below finds was looked at here too.
    let missing: Vec<&str> = CheckId::ALL
        .iter()
        .filter(|id| !found.iter().any(|finding| finding.id == **id))
        .map(|id| id.name())
        .collect();
    assert_eq!(missing, ["device-ca", "watch-folder"], "asked only when they are configured");
}

#[test]
fn every_check_has_a_row_that_breaks_it() {
    let rows = rows();
    for id in CheckId::ALL {
        assert!(rows.iter().any(|row| row.id == *id), "no row breaks {}", id.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_thing_is_found_with_its_level_and_mend_as_the_page_says() {
    let is_root = test_needs::is_root();
    if !is_root {
        test_needs::skip("rows of another user's files, and whether the page has no others: it needs root");
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page says where the table begins");
    let (table, after) = rest.split_once(END).expect("the page says where the table ends");
    let mut made = String::from(
        "| Check | What was broken | Level | What `check` says | What to do |\n|---|---|---|---|---|\n",
    );
    let mut absent = Vec::new();
    for row in rows() {
        if row.needs_root && !is_root {
            continue;
        }
        let finding = row.run().await;
        let line = page_row(&row, &finding);
        if !table.contains(&line) {
            absent.push(line.clone());
        }
        made.push_str(&line);
    }
    if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
        assert!(is_root, "some rows need another user");
        std::fs::write(PAGE, format!("{before}{BEGIN}{made}{END}{after}")).unwrap();
        return;
    }
    assert!(
        absent.is_empty(),
        "not in the page; write it with LINESIDE_WRITE_GOLDEN=1:\n{}",
        absent.concat()
    );
    assert!(
        !is_root || table == made,
        "the page has rows that nothing makes; write it with LINESIDE_WRITE_GOLDEN=1"
    );
}
