//! A gateway with its daemon as a process, its own network, and modules on the real engine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use edge_agent::cli::init::gateway::{InitOptions, init};
use serde_json::{Map, Value, json};
use toml::Table;

use crate::engine_socket;
use crate::idle_image::{self, IMAGE};

pub(crate) const SOCKET: &str = "/var/run/docker.sock";
/// What a module does: nothing, until it is asked to end.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; /bin/busybox sleep 100000 & wait";
/// A busy two-core machine, and what the daemon itself waits for: 10 and 20 s before restarts, a minute between looks at an engine that
/// gives no events, and half a minute for an engine that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A probation within which a failure comes however busy the machine is; it ends with the failure.
pub(crate) const PROBATION_LONG_SECS: i64 = 600;

/// Runs `docker` and gives what it printed.
pub(crate) fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().expect("the docker command is installed");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Runs a test of each case, some at one time: most of the time they wait.
pub(crate) fn side_by_side<T: Sync>(cases: &[T], at_one_time: usize, test: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_one_time.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    test(case);
                }
            });
        }
    });
}

/// Asks until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) struct Gateway {
    id: String,
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    /// The engine that has its containers.
    engine: String,
}

impl Gateway {
    /// `id` is part of everything that is made.
    pub(crate) fn new(id: &str, probation_secs: i64) -> Self {
        clean(id);
        idle_image::make();
        let dir = tempfile::tempdir().expect("there is room for a directory");
        init(InitOptions {
            device_id: id.parse().expect("the tests' ids are right"),
            hostname: "localhost".into(),
            data_dir: dir.path().join("data"),
            config: dir.path().join("edge.toml"),
            upstream: None,
            upstream_ca: None,
        })
        .expect("a gateway is made");
        let gateway = Self { id: id.to_owned(), dir, daemon: None, engine: SOCKET.to_owned() };
        gateway.configure([
            ("docker", "socket", SOCKET.into()),
            ("docker", "network", id.into()),
            ("listen", "mqtts", "127.0.0.1:0".into()),
            ("listen", "mqtt", "".into()),
            ("listen", "https", "".into()),
            ("listen", "metrics", "".into()),
            ("listen", "connections_max", 64.into()),
            ("deploy", "probation_secs", probation_secs.into()),
        ]);
        gateway
    }

    fn configure<const N: usize>(&self, values: [(&str, &str, toml::Value); N]) {
        let mut text: Table =
            std::fs::read_to_string(self.config()).expect("it was written").parse().expect("it is TOML");
        for (section, key, value) in values {
            let section = text.entry(section).or_insert_with(|| Table::new().into());
            section.as_table_mut().expect("it is one").insert(key.into(), value);
        }
        std::fs::write(self.config(), text.to_string()).expect("it can be written");
    }

    /// Starts the daemon again with another probation for the deployments to come. The engine is behind `socket`.
    pub(crate) fn start_with_probation(&mut self, probation_secs: i64, socket: &str) {
        self.stop();
        self.set_probation(probation_secs);
        self.start(socket);
    }

    /// For the next start of the daemon.
    pub(crate) fn set_probation(&self, probation_secs: i64) {
        self.configure([("deploy", "probation_secs", probation_secs.into())]);
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("edge.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the daemon and waits until it answers. The engine is behind `socket`.
    pub(crate) fn start(&mut self, socket: &str) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log"));
        let daemon = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
            .args(["run", "--config"])
            .arg(self.config())
            .env("EDGE_AGENT__DOCKER__SOCKET", socket)
            .stdin(Stdio::null())
            .stdout(log.as_ref().expect("the log can be written").try_clone().expect("a file is shared"))
            .stderr(log.expect("the log can be written"))
            .spawn();
        self.daemon = Some(daemon.expect("edge-agent starts"));
        until("the daemon answers", || self.agent(&["status", "--json"]).ok());
    }

    /// Starts the daemon with another engine than the machine's.
    pub(crate) fn behind(&mut self, engine: &str) {
        self.engine = engine.to_owned();
        self.start(engine);
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// Waits for the end of a daemon that somebody kills; false if it runs on.
    pub(crate) fn has_ended(&mut self, within: Duration) -> bool {
        let end = Instant::now() + within;
        let daemon = self.daemon.as_mut().expect("it was started");
        while Instant::now() < end {
            if daemon.try_wait().expect("it is a child").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Ends the daemon in order: what it has shown is on the disk then, which a kill may be too early for.
    pub(crate) fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is a child");
        let status = daemon.wait().expect("it is a child");
        assert_eq!(status.code(), Some(0), "the daemon does not end in order");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ended_already = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Runs a command of `edge-agent`: what it printed, or its exit code and its message.
    pub(crate) fn agent(&self, arguments: &[&str]) -> Result<String, (i32, String)> {
        self.agent_with(arguments, &[])
    }

    /// As [`Gateway::agent`], with variables of the environment.
    pub(crate) fn agent_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<String, (i32, String)> {
        let output = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .envs(variables.iter().copied())
            .output()
            .expect("edge-agent starts");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err((output.status.code().unwrap_or(-1), message))
        }
    }

    /// What it prints for machines.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.agent(&[arguments, &["--json"]].concat());
        serde_json::from_str(&printed.expect("it is answered")).expect("it is JSON")
    }

    /// The container's name of a module: its module id.
    pub(crate) fn name(&self, module: &str) -> String {
        format!("{}-{module}", self.id)
    }

    /// Writes a manifest of these modules and gives its file.
    pub(crate) fn manifest(&self, agent: Value, modules: &[(&str, Value)]) -> String {
        let modules: Map<String, Value> =
            modules.iter().map(|(name, module)| (self.name(name), module.clone())).collect();
        let mut section = json!({"schemaVersion": "1.1", "modules": modules});
        section.as_object_mut().expect("it is one").extend(agent.as_object().expect("it is one").clone());
        let document = json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": section},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}
        }});
        let file = self.dir.path().join("manifest.json");
        std::fs::write(&file, document.to_string()).expect("it can be written");
        file.display().to_string()
    }

    /// Applies a manifest of these modules and waits for its end.
    pub(crate) fn apply(&self, modules: &[(&str, Value)]) -> Result<String, (i32, String)> {
        self.agent(&["apply", &self.manifest(json!({}), modules), "--wait"])
    }

    fn inspected(&self, module: &str) -> Result<Value, String> {
        let path = format!("/containers/{}/json", self.name(module));
        engine_socket::request(&self.engine, "GET", &path, "")
    }

    /// The container's id, when it was started last, and its environment, each followed by a space.
    pub(crate) fn container(&self, module: &str) -> Result<String, String> {
        let found = self.inspected(module)?;
        let environment = found["Config"]["Env"].as_array().into_iter().flatten();
        let texts = [&found["Id"], &found["State"]["StartedAt"]].into_iter().chain(environment);
        Ok(texts.map(|text| format!("{} ", text.as_str().unwrap_or_default())).collect())
    }

    pub(crate) fn is_running(&self, module: &str) -> bool {
        self.inspected(module).is_ok_and(|found| found["State"]["Running"] == true)
    }

    /// The modules that have containers, sorted; a replacement's name ends in `.next`.
    pub(crate) fn containers(&self) -> Vec<String> {
        // {"label":["lineside.gateway=ID"]}
        let path =
            format!("/containers/json?all=1&filters=%7B%22label%22:[%22lineside.gateway={}%22]%7D", self.id);
        let listed = engine_socket::request(&self.engine, "GET", &path, "").expect("the engine answers");
        let prefix = format!("/{}-", self.id);
        let names = listed.as_array().into_iter().flatten().filter_map(|listed| listed["Names"][0].as_str());
        let mut names: Vec<String> =
            names.map(|name| name.strip_prefix(&prefix).unwrap_or(name).to_owned()).collect();
        names.sort();
        names
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        clean(&self.id);
    }
}

/// Removes what a test of this gateway id made, or an earlier run of it that was killed.
pub(crate) fn clean(id: &str) {
    let listed = docker(&["ps", "-aq", "--filter", &format!("name=^/{id}-")]).expect("the engine answers");
    for container in listed.lines() {
        let _gone_already = docker(&["rm", "-f", "-v", container]);
    }
    let _never_made = docker(&["network", "rm", id]);
}

/// A module that does nothing, with these create options and other members beside.
pub(crate) fn module(options: Value, extra: Value) -> Value {
    let mut all = json!({"Cmd": [IDLE]});
    all.as_object_mut().expect("it is one").extend(options.as_object().expect("it is one").clone());
    let mut module = json!({
        "imagePullPolicy": "never",
        "restartPolicy": "always",
        "settings": {"image": IMAGE, "createOptions": all.to_string()},
    });
    module.as_object_mut().expect("it is one").extend(extra.as_object().expect("it is one").clone());
    module
}

/// A module that does nothing; another level is another container.
pub(crate) fn idle(level: u32) -> Value {
    module(json!({}), json!({"env": {"LEVEL": {"value": level}}}))
}
