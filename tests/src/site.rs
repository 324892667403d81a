//! One site: central and one gateway as processes, with their data in a directory of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::timestamp::rfc3339;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::Instant;

use crate::STEP;
use crate::crowd::each;
use crate::leaf::LeafOptions;
use crate::line::Line;
use crate::port::free_port;
use crate::process::{self, Process, binary, run};
use crate::raw::Login;
use crate::rest::{Rest, eventually};

/// How long a program may take to be ready, or to stop, on a busy two-core machine.
const READY: Duration = STEP;
/// How long it is waited for one that may never be ready.
const TRIED: Duration = Duration::from_secs(60);

/// The key of the devices that [`Site::add_here`] adds.
pub const KEY_HERE: [u8; 32] = [7; 32];

/// Where everything is and listens. Ports are fixed at the start so that a restarted program comes back to its own.
pub struct Site {
    /// Data and logs of both programs.
    pub dir: PathBuf,
    /// central's REST API and status page.
    pub http: SocketAddr,
    /// central's MQTT over TLS.
    pub central_mqtts: u16,
    /// Central's port for MQTT over WebSocket.
    pub central_wss: u16,
    /// The gateway's MQTT over TLS. 8883 where modules run: they know no other.
    pub gateway_mqtts: u16,
    /// The gateway's plain MQTT on loopback.
    pub gateway_mqtt: u16,
    /// The gateway's HTTPS: WebSockets and the modules' method API. 443 where modules run: they know no other.
    pub gateway_https: u16,
    /// Metrics of central and of the gateway, on loopback.
    pub central_metrics: u16,
    pub gateway_metrics: u16,
    /// The gateway's device id.
    pub gateway: String,
    /// The gateway's Docker network.
    pub network: String,
    /// What both programs log (`RUST_LOG`).
    pub log_level: &'static str,
    /// Settings of the gateway beside its `edge.toml`.
    pub agent_env: Vec<(&'static str, String)>,
    /// The name under which the gateway knows central.
    pub central_name: String,
    /// Where central listens for MQTT.
    pub central_listen: IpAddr,
    /// What runs central, before its own command line: a network of its own, for example.
    pub central_in: Vec<String>,
    /// What runs the gateway's daemon, before its own command line.
    pub agent_in: Vec<String>,
    /// The daemon's program, when it is another than the command line's.
    pub agent_program: Option<PathBuf>,
    /// central's program, when it is another than the command line's.
    pub central_program: Option<PathBuf>,
    /// Settings of central beside its own.
    pub central_env: Vec<(&'static str, String)>,
    central: Option<Process>,
    agent: Option<Process>,
    rest: Option<Rest>,
    token: String,
    /// When the daemon was started last.
    agent_started: Option<SystemTime>,
    /// How much it had logged then.
    agent_logged: usize,
}

/// The name under which devices on this machine and its containers reach the gateway: the machine's own, where it resolves.
pub fn hostname() -> String {
    use std::net::ToSocketAddrs as _;
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let resolves = (own.trim(), 8883).to_socket_addrs().is_ok_and(|mut addresses| addresses.next().is_some());
    if resolves && own.trim() != "localhost" { own.trim().to_owned() } else { "edge-gateway".to_owned() }
}

/// A program, run by what stands before its command line.
fn within(before: &[String], program: PathBuf) -> Command {
    match before {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

impl Site {
    /// Lays out a site in `dir`; nothing runs yet. With `has_modules` the gateway listens on 8883 of all addresses, as
    /// its modules need; only one such site fits on a machine.
    pub fn new(dir: &Path, gateway: &str, has_modules: bool) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            http: SocketAddr::from(([127, 0, 0, 1], free_port()?)),
            central_mqtts: free_port()?,
            central_wss: free_port()?,
            gateway_mqtts: if has_modules { 8883 } else { free_port()? },
            gateway_mqtt: free_port()?,
            gateway_https: if has_modules { 443 } else { free_port()? },
            central_metrics: free_port()?,
            gateway_metrics: free_port()?,
            gateway: gateway.to_owned(),
            network: format!("lineside-{gateway}"),
            log_level: "info",
            agent_env: Vec::new(),
            central_name: "localhost".to_owned(),
            central_listen: Ipv4Addr::LOCALHOST.into(),
            central_in: Vec::new(),
            agent_in: Vec::new(),
            agent_program: None,
            central_program: None,
            central_env: Vec::new(),
            central: None,
            agent: None,
            rest: None,
            token: String::new(),
            agent_started: None,
            agent_logged: 0,
        })
    }

    /// Puts central behind a line. The test asks its API past the line.
    pub fn behind(&mut self, line: &Line, name: &str) {
        self.central_in = line.inside();
        self.central_name = name.to_owned();
        self.central_listen = Ipv4Addr::UNSPECIFIED.into();
        self.http.set_ip(line.beside.into());
    }

    fn central_dir(&self) -> PathBuf {
        self.dir.join("central")
    }

    pub fn agent_dir(&self) -> PathBuf {
        self.dir.join("gateway")
    }

    /// The gateway's `edge.toml`.
    pub fn edge_toml(&self) -> PathBuf {
        self.dir.join("edge.toml")
    }

    /// The gateway's certificate authority, which leaf devices trust.
    pub fn gateway_ca(&self) -> PathBuf {
        self.agent_dir().join("ca.pem")
    }

    /// Central's certificate authority, which gateways and devices at its own listener trust.
    pub fn central_ca(&self) -> PathBuf {
        self.central_dir().join("ca.pem")
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// The REST client of the site's administrator.
    pub fn rest(&self) -> Result<&Rest> {
        self.rest.as_ref().context("central was not started yet")
    }

    /// A command line of `central`.
    pub fn central_command(&self, arguments: &[&str]) -> Result<Command> {
        let program = self.central_program.clone().map_or_else(|| binary("central"), Ok)?;
        let mut command = within(&self.central_in, program);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.central_dir())
            .env("CENTRAL__HTTP__LISTEN", self.http.to_string())
            .env("CENTRAL__HTTP__BEHIND_TLS_PROXY", (!self.http.ip().is_loopback()).to_string())
            .env("CENTRAL__MQTT__MQTTS", format!("{}:{}", self.central_listen, self.central_mqtts))
            .env("CENTRAL__MQTT__WSS", format!("{}:{}", self.central_listen, self.central_wss))
            .env("CENTRAL__METRICS__LISTEN", format!("127.0.0.1:{}", self.central_metrics))
            .env("CENTRAL__HOSTNAME", &self.central_name)
            .env("RUST_LOG", self.log_level)
            .envs(self.central_env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// A command line of the gateway's `edge-agent`.
    pub fn agent_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("edge-agent")?);
        let everywhere = if self.gateway_mqtts == 8883 { "0.0.0.0" } else { "127.0.0.1" };
        command
            .args(arguments)
            .arg("--config")
            .arg(self.edge_toml())
            .env("EDGE_AGENT__LISTEN__MQTTS", format!("{everywhere}:{}", self.gateway_mqtts))
            .env("EDGE_AGENT__LISTEN__HTTPS", format!("{everywhere}:{}", self.gateway_https))
            .env("EDGE_AGENT__LISTEN__MQTT", format!("127.0.0.1:{}", self.gateway_mqtt))
            .env("EDGE_AGENT__LISTEN__METRICS", format!("127.0.0.1:{}", self.gateway_metrics))
            .env("EDGE_AGENT__DOCKER__NETWORK", &self.network)
            // Modules of these tests are often clients without a container; tests of rollouts are in edge-agent/tests/rollout.
            .env("EDGE_AGENT__DEPLOY__PROBATION_SECS", "0")
            .env("EDGE_AGENT__DEPLOY__FAILURE_POLICY", "hold")
            .env("RUST_LOG", self.log_level)
            .envs(self.agent_env.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts central and waits until it serves. The first time an API token is made.
    pub async fn start_central(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.central_dir())?;
        let log = self.dir.join("central.log");
        let central = Process::start("central", self.central_command(&["serve"])?, &log)?;
        central.line("central ready", READY).await?;
        self.central = Some(central);
        if self.rest.is_none() {
            let (code, out, error) =
                run(&mut self.central_command(&["token", "create", "--role", "administrator"])?).await?;
            ensure!(code == 0, "central token create failed: {error}");
            let token = out.lines().map(str::trim).rfind(|line| line.starts_with("SharedAccessSignature"));
            self.token = token.context("central token create printed no token")?.to_owned();
            self.rest = Some(Rest::new(&self.http.to_string(), &self.token));
        }
        let rest = self.rest()?.clone();
        eventually("central's REST API", READY, || async { rest.get("/api/ext/health").await.map(Some) })
            .await?;
        Ok(())
    }

    /// Adds an administrator of the console, beside central while it serves; gives the made password.
    pub async fn add_administrator(&self, name: &str) -> Result<String> {
        let arguments = ["user", "add", name, "--role", "administrator"];
        let (code, out, error) = run(&mut self.central_command(&arguments)?).await?;
        ensure!(code == 0, "central user add failed: {error}");
        let password = out.lines().map(str::trim).rfind(|line| !line.is_empty());
        Ok(password.context("central user add printed no password")?.to_owned())
    }

    /// Stops central in order.
    pub async fn stop_central(&mut self) -> Result<()> {
        self.central.take().context("central does not run")?.stop(READY).await
    }

    pub async fn kill_central(&mut self) -> Result<()> {
        self.central.take().context("central does not run")?.kill().await
    }

    /// The symmetric key of a device, as central gives it out.
    pub async fn key(&self, device: &str) -> Result<String> {
        let credentials = self.rest()?.get(&format!("/api/devices/{device}/credentials")).await?;
        Ok(credentials["symmetricKey"]["primaryKey"]
            .as_str()
            .context("credentials hold no primaryKey")?
            .to_owned())
    }

    /// Registers the gateway in central and writes its `edge.toml`, keys and certificates.
    pub async fn init_gateway(&self) -> Result<()> {
        let path = format!("/api/devices/{}", self.gateway);
        self.rest()?.put(&path, &json!({"displayName": "Gateway of this site", "type": ["edge"]})).await?;
        let key = self.key(&self.gateway).await?;
        let upstream = format!(
            "HostName={}:{};DeviceId={};SharedAccessKey={key}",
            self.central_name, self.central_mqtts, self.gateway
        );
        self.init_with(&upstream, &self.central_dir().join("ca.pem")).await
    }

    /// Writes `edge.toml`, keys and certificates of a gateway with this upstream.
    pub async fn init_with(&self, upstream: &str, ca: &Path) -> Result<()> {
        let mut init = Command::new(binary("edge-agent")?);
        init.args(["init", "--device-id", &self.gateway, "--hostname", &hostname(), "--upstream", upstream]);
        init.arg("--data-dir").arg(self.agent_dir()).arg("--config").arg(self.edge_toml());
        init.arg("--upstream-ca").arg(ca);
        let (code, _, error) = run(&mut init).await?;
        ensure!(code == 0, "edge-agent init failed: {error}");
        Ok(())
    }

    /// Writes `edge.toml`, keys and certificates of a gateway that stands alone.
    pub async fn init_alone(&self) -> Result<()> {
        let mut init = Command::new(binary("edge-agent")?);
        init.args(["init", "--device-id", &self.gateway, "--hostname", &hostname()]);
        init.arg("--data-dir").arg(self.agent_dir()).arg("--config").arg(self.edge_toml());
        let (code, _, error) = run(&mut init).await?;
        ensure!(code == 0, "edge-agent init failed: {error}");
        Ok(())
    }

    /// Starts the gateway's daemon and waits until it serves.
    pub async fn start_agent(&mut self) -> Result<()> {
        let log = self.dir.join("edge-agent.log");
        let mut run = self.agent_command(&["run"])?;
        if !self.agent_in.is_empty() || self.agent_program.is_some() {
            let program = self.agent_program.clone().map_or_else(|| binary("edge-agent"), Ok)?;
            let inner = std::mem::replace(&mut run, within(&self.agent_in, program));
            run.args(inner.as_std().get_args());
            for (name, value) in inner.as_std().get_envs() {
                run.env(name, value.unwrap_or_default());
            }
        }
        (self.agent_started, self.agent_logged) = (Some(SystemTime::now()), self.agent_log().len());
        let agent = Process::start("edge-agent", run, &log)?;
        agent.line("edge-agent ready", READY).await?;
        self.agent = Some(agent);
        Ok(())
    }

    /// SIGKILLs the gateway's daemon.
    pub async fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.kill().await
    }

    /// Stops the gateway's daemon in order.
    pub async fn stop_agent(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.stop(READY).await
    }

    /// The daemon's process id.
    pub fn agent_id(&self) -> Result<u32> {
        self.agent.as_ref().context("the agent does not run")?.id()
    }

    pub fn central_id(&self) -> Result<u32> {
        self.central.as_ref().context("central does not run")?.id()
    }

    /// What the daemon has logged.
    pub fn agent_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("edge-agent.log")).unwrap_or_default()
    }

    /// What central has logged.
    pub fn central_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("central.log")).unwrap_or_default()
    }

    /// Waits until the daemon ends by itself; gives its exit code.
    pub async fn agent_ends(&mut self, within: Duration) -> Result<i32> {
        self.agent.take().context("the agent does not run")?.ended(within).await
    }

    /// Waits until central ends by itself; gives its exit code.
    pub async fn central_ends(&mut self, within: Duration) -> Result<i32> {
        self.central.take().context("central does not run")?.ended(within).await
    }

    /// Starts central again whenever it ends, as a service manager does, until `until`; gives its exit codes.
    pub async fn keep_central_running(&mut self, until: Instant) -> Vec<i32> {
        let mut codes = Vec::new();
        while Instant::now() < until {
            let Some(central) = &mut self.central else {
                // Why it did not start is in its log, and may pass.
                let _tried = tokio::time::timeout(TRIED, self.start_central()).await;
                continue;
            };
            if let Ok(code) = tokio::time::timeout_at(until, central.wait()).await {
                codes.extend(code.ok());
                self.central = None;
            }
        }
        codes
    }

    /// Speaks with the daemon's control socket, as its command line does.
    fn control(&self) -> Result<reqwest::Client> {
        let socket = self.agent_dir().join("edge-agent.sock");
        Ok(reqwest::Client::builder().unix_socket(socket).build()?)
    }

    /// Messages that wait in all queues of the gateway.
    pub async fn waiting(&self) -> Result<u64> {
        // Not by the command line: starting it five times a second would take its part of the machine.
        let answer = self.control()?.get("http://localhost/status").send().await?;
        let status: Value = answer.error_for_status()?.json().await?;
        Ok(status["queues"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|queue| queue["messages"].as_u64())
            .sum())
    }

    /// Waits until the gateway says that its link is up, or that it is not.
    pub async fn link_is(&self, is_up: bool, within: Duration) -> Result<()> {
        eventually(if is_up { "the link is up" } else { "the link is down" }, within, || async {
            Ok((self.agent_json(&["status"]).await?["upstream"]["connected"] == json!(is_up)).then_some(()))
        })
        .await
    }

    /// What the daemon has used of the CPU so far, of all its threads.
    pub fn agent_cpu(&self) -> Result<Duration> {
        process::cpu(self.agent_id()?)
    }

    /// Waits until central says that the gateway is connected, since its daemon was started last: of a daemon that was killed central
    /// hears a moment later.
    pub async fn gateway_connected(&self, within: Duration) -> Result<()> {
        let (rest, path) = (self.rest()?.clone(), format!("/api/ext/devices/{}/status", self.gateway));
        let started = self.agent_started.unwrap_or(SystemTime::UNIX_EPOCH);
        let started_ms = started.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        let started = rfc3339(u64::try_from(started_ms)?);
        eventually("the gateway is connected", within, || async {
            let status = rest.get(&path).await?;
            let is_since = status["since"].as_str().is_some_and(|since| since >= started.as_str());
            Ok((status["connected"] == json!(true) && is_since).then_some(()))
        })
        .await
    }

    /// What `edge-agent` prints for machines.
    pub async fn agent_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.agent_command(arguments)?;
        let (code, out, error) = run(command.arg("--json")).await?;
        ensure!(code == 0, "edge-agent {} exited {code}: {error}", arguments.join(" "));
        Ok(serde_json::from_str(&out)?)
    }

    /// Waits until the gateway says that a leaf device is connected.
    pub async fn leaf_connected(&self, id: &str, within: Duration) -> Result<()> {
        eventually(&format!("{id} is connected"), within, || async {
            let listed = self.agent_json(&["device", "list"]).await?;
            let mut devices = listed["devices"].as_array().into_iter().flatten();
            Ok(devices.any(|device| device["id"] == id && device["connected"] == true).then_some(()))
        })
        .await
    }

    /// Waits until the gateway knows all these leaf devices.
    pub async fn leaves_known(&self, logins: &[Login]) -> Result<()> {
        eventually("the gateway knows the leaf devices", READY, || async {
            let listed = self.agent_json(&["device", "list"]).await?;
            let devices = listed["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_known = |login: &Login| devices.iter().any(|d| d["id"] == login.client_id.as_str());
            Ok(logins.iter().all(is_known).then_some(()))
        })
        .await
    }

    /// Adds leaf devices on the gateway itself, as `edge-agent device add` does, and gives what each connects with.
    pub async fn add_here(&self, ids: &[String]) -> Result<Vec<Login>> {
        let http = self.control()?;
        let port = self.gateway_mqtt;
        each(ids.to_vec(), move |id| {
            let http = http.clone();
            async move {
                let body = json!({"id": id, "key": STANDARD.encode(KEY_HERE)});
                let answer = http.post("http://localhost/devices").json(&body).send().await?;
                let status = answer.status();
                ensure!(status.is_success(), "adding {id}: {status} {}", answer.text().await?);
                let options = LeafOptions {
                    identity: id.parse()?,
                    key: KEY_HERE.to_vec(),
                    hub_name: "localhost".into(),
                    port,
                    ca: None,
                    interval: Duration::ZERO,
                    padding: 0,
                };
                Ok(options.login())
            }
        })
        .await
    }

    /// Applies a manifest without modules whose one rule lets everybody publish and subscribe below a filter.
    pub async fn open_free_topics(&self, filter: &str) -> Result<()> {
        self.apply_hub(json!({
            "schemaVersion": "1.2",
            "routes": {"upstream": "FROM /messages/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": -1},
            "mqttBroker": {"authorizations": [{
                "identities": ["{{iot:identity}}"],
                "allow": [{"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": [filter]}],
            }]},
        }))
        .await
    }

    /// Applies a manifest without modules by which telemetry waits so long for central.
    pub async fn keep_for(&self, time_to_live_secs: u64) -> Result<()> {
        self.apply_hub(json!({
            "schemaVersion": "1.2",
            "routes": {"upstream": "FROM /messages/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": time_to_live_secs},
        }))
        .await
    }

    /// Applies a manifest without modules, with this desired section of `$edgeHub`.
    pub async fn apply_hub(&self, hub: Value) -> Result<()> {
        let mut manifest: Value = serde_json::from_str(include_str!("../../manifests/demo.json"))?;
        let content = manifest["modulesContent"].as_object_mut().context("modulesContent is an object")?;
        content.retain(|key, _| key.starts_with('$'));
        content["$edgeAgent"]["properties.desired"]["modules"] = json!({});
        content["$edgeHub"]["properties.desired"] = hub;
        let file = self.dir.join("manifest.json");
        std::fs::write(&file, manifest.to_string())?;
        let file = file.to_str().context("the path is not UTF-8")?;
        let (code, out, error) = run(&mut self.agent_command(&["apply", file, "--wait", "180"])?).await?;
        ensure!(code == 0, "edge-agent apply {file} exited {code}: {out} {error}");
        Ok(())
    }

    /// Puts a manifest in force whose modules have no image here: they are known, and nothing of them runs. Whether the engine has missed an
    /// image by the time of the answer (code 3) depends on which of the two is faster.
    pub async fn put_in_force(&self, file: &Path) -> Result<()> {
        let file = file.to_str().context("the path is not UTF-8")?;
        let (code, out, error) = run(&mut self.agent_command(&["apply", file])?).await?;
        let is_in_force = code == 0 || (code == 3 && error.contains("it stays in force"));
        ensure!(is_in_force, "edge-agent apply {file} exited {code}: {out} {error}");
        Ok(())
    }

    /// Registers a leaf device, attaches it to the gateway, and gives what it needs to connect.
    pub async fn add_leaf(&self, id: &str, interval: Duration) -> Result<LeafOptions> {
        let rest = self.rest()?;
        rest.put(&format!("/api/devices/{id}"), &json!({"displayName": id})).await?;
        let relationship = json!({"name": "downstream", "source": self.gateway, "target": id});
        rest.put(&format!("/api/devices/{}/relationships/to-{id}", self.gateway), &relationship).await?;
        Ok(LeafOptions {
            identity: id.parse()?,
            key: STANDARD.decode(self.key(id).await?)?,
            hub_name: "localhost".into(),
            port: self.gateway_mqtts,
            ca: Some(crate::leaf::trust(&std::fs::read(self.gateway_ca())?)?),
            interval,
            padding: 0,
        })
    }

    /// Stops what runs and removes the containers and the network. The data stay in `dir`.
    pub async fn end(&mut self, has_modules: bool) -> Result<()> {
        if let Some(agent) = self.agent.take() {
            agent.stop(READY).await?;
            let log = self.agent_log().split_off(self.agent_logged);
            ensure!(
                !log.contains("the state is in use while the daemon ends"),
                "edge-agent ended before its state was exported"
            );
        }
        if has_modules {
            crate::docker::remove_network(&self.network).await?;
        }
        if let Some(central) = self.central.take() {
            central.stop(READY).await?;
        }
        Ok(())
    }
}

impl Drop for Site {
    /// A test that failed never came to [`Site::end`]: the containers of its gateway must not stand in the way of the next.
    fn drop(&mut self) {
        if self.agent.take().is_none() {
            return;
        }
        let filter = format!("network={}", self.network);
        let remove =
            "docker ps -aq --filter \"$0\" | xargs --no-run-if-empty docker rm -f; docker network rm \"$1\"";
        let _ = std::process::Command::new("sh")
            .args(["-c", remove, &filter, &self.network])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
    }
}
