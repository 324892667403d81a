//! The reconciler on a real Docker Engine: modules become containers, change, crash and go, and others stay untouched.
//!
//! Needs the engine on /var/run/docker.sock and /bin/busybox as one static file (Debian: `apt-get install
//! busybox-static`), from which the image of the test modules is made. Every test has its own gateway id, network and
//! module names, and removes its containers and network.

mod idle_image;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::access::module_keys::{self, ModuleKeys};
use edge_agent::config::Config;
use edge_agent::deployment::artifacts::Artifacts;
use edge_agent::deployment::container_limits::ContainerLimits;
use edge_agent::deployment::docker::host_policy::HostPolicy;
use edge_agent::deployment::docker::logs::{LogRange, logs};
use edge_agent::deployment::docker::{Engine, ModuleContext};
use edge_agent::deployment::reconciler::{Reconciler, plan_once};
use edge_agent::deployment::restart_counts::RestartCounts;
use edge_agent::deployment::restart_requests::{RestartError, RestartRequests};
use edge_agent::deployment::status::{Deployment, ReconcilerStatus};
use edge_agent::deployment::workload::{About, Workload};
use edge_core::deploy;
use edge_core::deploy::observed::ContainerState;
use futures_util::StreamExt as _;
use idle_image::IMAGE;
use schemas::manifest::Manifest;
use schemas::names::ModuleId;
use serde_json::{Value, json};
use test_needs::Need;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What these tests need of the machine.
const NEEDS: [Need; 2] = [Need::Docker, Need::File("/bin/busybox")];
const SOCKET: &str = "/var/run/docker.sock";
/// What a module does: nothing, until it is asked to end.
const IDLE: &str = "trap 'exit 0' TERM; /bin/busybox sleep 100000 & wait";
/// A busy two-core machine, and the planner's first wait of 10 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `docker` and gives what it printed.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().expect("the docker command is installed");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Asks until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A gateway's reconciler with its engine, without the rest of the daemon.
struct Gateway {
    id: String,
    data: tempfile::TempDir,
    deployments: watch::Sender<Option<Arc<Deployment>>>,
    status: watch::Receiver<ReconcilerStatus>,
    restarts: RestartRequests,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Gateway {
    /// `id` is part of everything that is made.
    fn new(id: &str) -> Self {
        clean(id);
        idle_image::make();
        let data = tempfile::tempdir().expect("there is room for a directory");
        std::fs::write(data.path().join(module_keys::FILE), [7; module_keys::SECRET_BYTES])
            .expect("the directory can be written");
        let (deployments, _) = watch::channel(None);
        let (_, status) = watch::channel(ReconcilerStatus::default());
        let (restarts, _) = RestartRequests::channel();
        let mut gateway = Self { id: id.to_owned(), data, deployments, status, restarts, running: None };
        gateway.start();
        gateway
    }

    fn start(&mut self) {
        let keys = ModuleKeys::load(self.data.path()).expect("the secret was written");
        let (status, receiver) = watch::channel(ReconcilerStatus::default());
        self.status = receiver;
        let (restarts, requests) = RestartRequests::channel();
        self.restarts = restarts;
        let ownership = keys.ownership_token();
        let about =
            About { keys, trust_bundle: "PEM".into(), certificates: None, reconciler: self.status.clone() };
        let reconciler = Reconciler {
            engine: Engine::new(SOCKET.into()),
            workload: Arc::new(Workload::new(self.data.path(), about)),
            context: ModuleContext {
                gateway: self.id.parse().expect("the tests' ids are right"),
                hostname: "edge".into(),
                hub_name: "hub".into(),
                network: self.id.clone(),
                ownership,
                policy: HostPolicy::default(),
            },
            deployments: self.deployments.subscribe(),
            status,
            artifacts: Artifacts::default(),
            counts: RestartCounts::default(),
            limits: ContainerLimits::default(),
            requests: Arc::new(tokio::sync::Mutex::new(requests)),
        };
        let stop = CancellationToken::new();
        self.running = Some((tokio::spawn(reconciler.run(stop.clone())), stop));
    }

    async fn stop(&mut self) {
        let (task, stop) = self.running.take().expect("it runs");
        stop.cancel();
        tokio::time::timeout(PATIENCE, task).await.expect("it ends when told").expect("it does not panic");
    }

    /// The container's name of a module: its module id.
    fn name(&self, module: &str) -> String {
        format!("{}-{module}", self.id)
    }

    fn deploy(&self, version: u64, modules: &[(&str, Value)]) {
        let modules: serde_json::Map<String, Value> =
            modules.iter().map(|(name, module)| (self.name(name), module.clone())).collect();
        let document = json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}
        }});
        let manifest =
            Manifest::parse(document.to_string().as_bytes()).expect("the tests' manifests are right");
        let (desired, _) = deploy::check(&manifest).expect("the tests' manifests are right");
        self.deployments.send_replace(Some(Arc::new(Deployment { desired, version, is_atomic: false })));
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&ReconcilerStatus) -> bool) -> ReconcilerStatus {
        let waited =
            tokio::time::timeout(PATIENCE, self.status.wait_for(is_so)).await.map(|s| s.map(|s| s.clone()));
        match waited {
            Ok(Ok(status)) => status,
            other => panic!("{what} did not happen ({}): {:?}", other.is_ok(), self.status.borrow()),
        }
    }

    async fn settled(&mut self, version: u64) -> ReconcilerStatus {
        self.until(&format!("version {version} in force"), |s| s.version == Some(version) && s.is_settled)
            .await
    }

    /// The container's id, and when it was started last.
    fn container(&self, module: &str) -> String {
        docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", &self.name(module)])
            .expect("the container exists")
    }

    fn container_id(&self, module: &str) -> String {
        docker(&["inspect", "--format", "{{.Id}}", &self.name(module)]).expect("the container exists")
    }

    /// The names of all containers of this gateway, sorted.
    fn containers(&self) -> Vec<String> {
        let filter = format!("label=lineside.gateway={}", self.id);
        let listed = docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]);
        let mut names: Vec<String> = listed.expect("the engine answers").lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn is_running(&self, module: &str) -> bool {
        docker(&["inspect", "--format", "{{.State.Running}}", &self.name(module)]).as_deref() == Ok("true")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some((task, stop)) = self.running.take() {
            stop.cancel();
            task.abort();
        }
        clean(&self.id);
    }
}

/// Removes what a test of this gateway id made, or an earlier run of it that was killed.
fn clean(id: &str) {
    let listed = docker(&["ps", "-aq", "--filter", &format!("name=^/{id}-")]).expect("the engine answers");
    for container in listed.lines() {
        let _gone_already = docker(&["rm", "-f", container]);
    }
    let _never_made = docker(&["network", "rm", id]);
}

fn idle(extra: Value) -> Value {
    let mut module = json!({
        "imagePullPolicy": "never",
        "restartPolicy": "always",
        "settings": {"image": IMAGE, "createOptions": json!({"Cmd": [IDLE]}).to_string()},
    });
    module.as_object_mut().expect("it is one").extend(extra.as_object().expect("it is one").clone());
    module
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_becomes_containers_and_a_change_touches_only_what_it_changes() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-change");
    gateway.deploy(1, &[("a", idle(json!({}))), ("b", idle(json!({})))]);
    gateway.settled(1).await;
    let (a, b) = (gateway.container("a"), gateway.container("b"));
    let seen = docker(&[
        "exec",
        &gateway.name("a"),
        "/bin/busybox",
        "sh",
        "-c",
        "/bin/busybox env; /bin/busybox ls /var/run/iotedge",
    ]);
    let seen = seen.unwrap();
    for desired_now in [
        "IOTEDGE_DEVICEID=lineside-test-change",
        "IOTEDGE_MODULEID=lineside-test-change-a",
        "IOTEDGE_WORKLOADURI=unix:///var/run/iotedge/workload.sock",
        "\nworkload.sock",
    ] {
        assert!(seen.contains(desired_now), "{desired_now:?} in {seen}");
    }

    let limits = "{{.HostConfig.PidsLimit}} {{.HostConfig.LogConfig}} {{.HostConfig.SecurityOpt}}";
    assert_eq!(
        docker(&["inspect", "-f", limits, &gateway.name("a")]).unwrap(),
        "4096 {json-file map[max-file:3 max-size:10m]} [no-new-privileges]"
    );

    gateway.deploy(2, &[("a", idle(json!({"env": {"LEVEL": {"value": "2"}}}))), ("b", idle(json!({})))]);
    gateway.settled(2).await;
    assert_ne!(gateway.container("a"), a, "another environment needs another container");
    assert_eq!(gateway.container("b"), b, "b was touched");
    let a = gateway.container("a");

    let with_env = idle(json!({"env": {"LEVEL": {"value": "2"}}}));
    gateway.deploy(3, &[("a", with_env.clone()), ("b", idle(json!({"status": "stopped"})))]);
    gateway.settled(3).await;
    assert!(!gateway.is_running("b"));
    assert_eq!(gateway.container("b"), b, "to be stopped is no reason to be made anew");

    gateway.deploy(4, &[("a", with_env)]);
    let status = gateway.settled(4).await;
    let left: Vec<&str> = status.observed.modules.keys().map(ModuleId::as_str).collect();
    assert_eq!(left, [gateway.name("a")]);
    assert!(docker(&["inspect", &gateway.name("b")]).is_err(), "b was removed");
    assert_eq!(gateway.container("a"), a, "a was touched");
    assert!(!gateway.data.path().join("workload").join(gateway.name("b")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_crashed_is_started_again_and_its_neighbour_is_left_alone() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-crash");
    gateway.deploy(1, &[("a", idle(json!({}))), ("b", idle(json!({})))]);
    gateway.settled(1).await;
    let (a, b) = (gateway.container("a"), gateway.container("b"));
    docker(&["kill", &gateway.name("a")]).unwrap();
    let status = gateway.until("the crash is seen", |s| !s.is_settled).await;
    assert!(
        status.plan.contains(", restart 1\n") || status.plan.contains(": restart 1\n"),
        "{}",
        status.plan
    );
    let id: ModuleId = gateway.name("a").parse().unwrap();
    let status = gateway.until("a restart", |s| s.is_settled && s.restarts.count(&id) == 1).await;
    assert_eq!((status.outcome.code, status.outcome.description.as_str()), (200, ""));
    assert!(gateway.is_running("a"));
    let container = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(container(&gateway.container("a")), container(&a), "the same container runs again");
    assert_eq!(gateway.container("b"), b, "b was touched");
}

/// As the engine's own stop leaves a module that ends in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_ended_with_code_0_is_started_again_under_every_policy_but_never() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-ended");
    let policies = ["always", "on-failure", "on-unhealthy", "never"];
    // What the engine tells to end before it has said how would be killed in the end.
    let options = json!({"Cmd": [IDLE.replace("TERM;", "TERM; echo ready;")]}).to_string();
    let module = |policy: &str| {
        idle(json!({"restartPolicy": policy, "settings": {"image": IMAGE, "createOptions": options}}))
    };
    let modules: Vec<(&str, Value)> = policies.iter().map(|policy| (*policy, module(policy))).collect();
    gateway.deploy(1, &modules);
    gateway.settled(1).await;
    let names: Vec<String> = policies.iter().map(|policy| gateway.name(policy)).collect();
    for name in &names {
        until("it is ready", async || docker(&["logs", name]).unwrap() == "ready").await;
    }
    let stop: Vec<&str> =
        ["stop", "--time", "120"].into_iter().chain(names.iter().map(String::as_str)).collect();
    docker(&stop).unwrap();
    let ids: Vec<ModuleId> = names.iter().map(|name| name.parse().unwrap()).collect();
    let status = gateway
        .until("three restarts", |s| ids[..3].iter().all(|id| s.restarts.count(id) == 1) && s.is_settled)
        .await;
    assert!(status.plan.contains("ended with code 0; its restart policy leaves it so"), "{}", status.plan);
    assert_eq!(policies.map(|policy| gateway.is_running(policy)), [true, true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_stays_when_the_engine_refuses_its_replacement_or_that_does_not_start() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-refused");
    gateway.deploy(1, &[("a", idle(json!({})))]);
    gateway.settled(1).await;
    let before = gateway.container_id("a");
    let with = |host: Value| {
        let options = json!({"Cmd": [IDLE], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host}).to_string();
        idle(json!({"settings": {"image": IMAGE, "createOptions": options}}))
    };
    let device = json!([{"PathOnHost": "/dev/not-plugged-in", "PathInContainer": "/dev/x", "CgroupPermissions": "rw"}]);
    // Removed with the others: its name begins as theirs do.
    let holder = gateway.name("holder");
    docker(&["run", "-d", "--name", &holder, "-p", "80", IMAGE, IDLE]).unwrap();
    let port = "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}";
    let port = docker(&["inspect", "-f", port, &holder]).unwrap();
    let missing =
        json!({"image": "lineside/never-built:1", "createOptions": json!({"Cmd": [IDLE]}).to_string()});
    let refused = [
        (with(json!({"Memory": 1000})), "emory limit"),
        (idle(json!({"settings": missing})), "never-built"),
        (with(json!({"Devices": device})), "not-plugged-in"),
        (with(json!({"PortBindings": {"80/tcp": [{"HostPort": port}]}})), "already allocated"),
    ];
    for (version, (module, why)) in (2..).zip(refused) {
        gateway.deploy(version, &[("a", module)]);
        let status = gateway
            .until(&format!("`{why}` is told"), |s| {
                s.version == Some(version) && s.outcome.code == 500 && s.outcome.description.contains(why)
            })
            .await;
        assert!(!status.is_settled);
        assert!(gateway.is_running("a"), "{why}");
        assert_eq!(gateway.container_id("a"), before, "{why}");
        assert_eq!(gateway.containers(), [gateway.name("a")], "{why}");
    }
    gateway.deploy(9, &[("a", idle(json!({"env": {"LEVEL": {"value": "2"}}})))]);
    gateway.settled(9).await;
    assert_ne!(gateway.container_id("a"), before);
    assert!(gateway.is_running("a"));
    assert_eq!(gateway.containers(), [gateway.name("a")]);
}

/// Every state that a kill can leave between the steps of a replacement.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_was_cut_off_ends_with_one_container_of_the_module() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-cut");
    gateway.deploy(1, &[("a", idle(json!({})))]);
    gateway.settled(1).await;
    let labels = docker(&["inspect", "-f", "{{json .Config.Labels}}", &gateway.name("a")]).unwrap();
    let labels: serde_json::Map<String, Value> = serde_json::from_str(&labels).unwrap();
    let (name, next) = (gateway.name("a"), format!("{}.next", gateway.name("a")));
    let create = |name: &str, fingerprint: &str| {
        let mut arguments = vec!["create".to_owned(), "--name".to_owned(), name.to_owned()];
        for (label, value) in &labels {
            let value = if label == "lineside.fingerprint" { fingerprint } else { value.as_str().unwrap() };
            arguments.extend(["--label".to_owned(), format!("{label}={value}")]);
        }
        arguments.extend([IMAGE.to_owned(), IDLE.to_owned()]);
        docker(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
    };
    // What is done to the wanted container, which becomes the replacement, and to the one that it replaces; the kill follows.
    let cuts: [(&str, bool, bool, bool); 5] = [
        ("the new one was created, the old one runs", false, true, true),
        ("the new one was created, the old one was stopped", false, true, false),
        ("the new one was started, the old one was stopped", true, true, false),
        ("the new one was started, the old one is gone", true, false, false),
        ("the new one was created, the old one is gone", false, false, false),
    ];
    for (cut, is_new_running, has_old, is_old_running) in cuts {
        gateway.stop().await;
        let desired_now = gateway.container_id("a");
        docker(&["rename", &name, &next]).unwrap();
        if !is_new_running {
            docker(&["rm", "-f", &next]).unwrap();
            create(&next, labels["lineside.fingerprint"].as_str().unwrap());
        }
        if has_old {
            create(&name, "earlier");
        }
        if is_old_running {
            docker(&["start", &name]).unwrap();
        }
        gateway.start();
        gateway.settled(1).await;
        assert_eq!(gateway.containers(), std::slice::from_ref(&name), "{cut}");
        assert!(gateway.is_running("a"), "{cut}");
        let fingerprint = "{{index .Config.Labels \"lineside.fingerprint\"}}";
        let found = docker(&["inspect", "-f", fingerprint, &name]).unwrap();
        assert_eq!(json!(found), labels["lineside.fingerprint"], "{cut}");
        if is_new_running {
            assert_eq!(gateway.container_id("a"), desired_now, "{cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_again_adopts_what_runs_and_serves_it() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-adopt");
    gateway.deploy(1, &[("a", idle(json!({})))]);
    gateway.settled(1).await;
    let a = gateway.container("a");
    gateway.stop().await;
    assert_eq!(gateway.container("a"), a, "containers run on without the daemon");
    gateway.start();
    gateway.settled(1).await;
    assert_eq!(gateway.container("a"), a, "a was touched");
    let socket = gateway.data.path().join("workload").join(gateway.name("a")).join("workload.sock");
    std::os::unix::net::UnixStream::connect(socket).unwrap();
    docker(&["exec", &gateway.name("a"), "/bin/busybox", "test", "-S", "/var/run/iotedge/workload.sock"])
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_deployment_nothing_is_touched_and_a_strangers_container_never_is() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-stranger");
    let stranger = gateway.name("a");
    docker(&["run", "-d", "--name", &stranger, IMAGE, IDLE]).unwrap();
    let before = gateway.container("a");
    gateway.deploy(1, &[("a", idle(json!({}))), ("b", idle(json!({})))]);
    let b: ModuleId = gateway.name("b").parse().unwrap();
    let status = gateway
        .until("a is told and b runs", |s| {
            let b = s.observed.modules.get(&b);
            s.outcome.description.contains(&stranger) && b.is_some_and(|b| b.state == ContainerState::Running)
        })
        .await;
    assert_eq!(status.outcome.code, 500);
    assert!(status.outcome.description.contains("already in use"), "{}", status.outcome.description);
    assert!(!status.is_settled && gateway.is_running("b"));
    assert_eq!(gateway.container("a"), before, "the stranger was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_the_operator_changes_nothing_and_says_so_when_the_engine_is_away() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-plan");
    gateway.deploy(1, &[("a", idle(json!({})))]);
    gateway.settled(1).await;
    let a = gateway.container("a");
    gateway.stop().await;
    gateway.deploy(2, &[("b", idle(json!({})))]);
    let desired_now = gateway.deployments.borrow().clone().unwrap();
    let file = gateway.data.path().join("edge.toml");
    let config = |socket: &str| {
        let text = format!(
            "device_id = \"{}\"\nhostname = \"edge\"\ndata_dir = \"/nowhere\"\n[docker]\nsocket = \"{socket}\"\n",
            gateway.id
        );
        std::fs::write(&file, text).unwrap();
        Config::load(&file).unwrap()
    };
    let keys = ModuleKeys::load(gateway.data.path()).unwrap();
    let plan = plan_once(&config(SOCKET), &keys, &desired_now.desired).await.unwrap().to_string();
    let steps: Vec<(&str, &str)> = plan
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(verb, rest)| (verb, rest.split_whitespace().next().unwrap_or_default()))
        .collect();
    let (name_a, name_b) = (gateway.name("a"), gateway.name("b"));
    let expected = [("create", &*name_b), ("stop", &*name_a), ("remove", &*name_a), ("start", &*name_b)];
    assert_eq!(steps, expected, "{plan}");
    assert_eq!(gateway.container("a"), a, "a was touched");
    assert!(docker(&["inspect", &name_b]).is_err(), "b was made");
    let error = plan_once(&config("/nowhere/docker.sock"), &keys, &desired_now.desired)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/docker.sock") && error.contains("does not answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_arrive_keeps_nobody_down_and_goes_with_the_manifest_that_named_it() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-pull");
    gateway.deploy(1, &[("a", idle(json!({})))]);
    gateway.settled(1).await;
    // A registry that takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("127.0.0.1:{}/acme/b:1", silent.local_addr().unwrap().port());
    let b = idle(json!({"imagePullPolicy": "on-create", "settings": {"image": image}}));
    // Its change waits for the image of the other, and it is looked after meanwhile.
    let changed = idle(json!({"env": {"LEVEL": {"value": "2"}}}));
    let before = gateway.container_id("a");
    gateway.deploy(2, &[("a", changed), ("b", b)]);
    gateway
        .until("the pull begins", |s| s.version == Some(2) && s.outcome.description.contains("pulled"))
        .await;
    docker(&["kill", &gateway.name("a")]).unwrap();
    let id: ModuleId = gateway.name("a").parse().unwrap();
    gateway.until("a restart beside the pull", |s| s.restarts.count(&id) == 1).await;
    assert!(gateway.is_running("a"));
    assert_eq!(gateway.container_id("a"), before, "nothing is replaced while an image is pulled");
    gateway.deploy(3, &[("a", idle(json!({}))), ("c", idle(json!({})))]);
    gateway.settled(3).await;
    assert!(gateway.is_running("c"));
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_that_came_with_an_image_make_no_container_this_gateways() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("forged");
    let secret = gateway.data.path().join(module_keys::FILE);
    let names = ["..", ".", "../x", "/", "a/b", "", "%2e%2e", "forged-a", "forged-b"];
    let mut strangers = Vec::new();
    for (index, name) in names.iter().enumerate() {
        // With a mark too, which an image's author can only guess.
        for ownership in [None, Some("0000")] {
            let image = format!("lineside/test-forged-{index}:1");
            let mut changes = vec![
                "ENTRYPOINT [\"/bin/busybox\", \"sh\", \"-c\"]".to_owned(),
                "LABEL lineside.gateway=forged".to_owned(),
                format!("LABEL lineside.module=\"{name}\""),
                "LABEL lineside.fingerprint=0".to_owned(),
            ];
            changes.extend(ownership.map(|ownership| format!("LABEL lineside.mark={ownership}")));
            let changes: Vec<&str> = changes.iter().flat_map(|change| ["--change", change]).collect();
            let container = format!("forged-stranger-{index}-{}", ownership.is_some());
            docker(&["create", "--name", &container, IMAGE, "true"]).unwrap();
            docker(&[&["commit"], changes.as_slice(), &[container.as_str(), image.as_str()]].concat())
                .unwrap();
            docker(&["rm", &container]).unwrap();
            docker(&["run", "-d", "--name", &container, &image, IDLE]).unwrap();
            docker(&["rmi", "-f", &image]).unwrap();
            strangers
                .push(docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", &container]).unwrap());
        }
    }
    gateway.deploy(1, &[("a", idle(json!({})))]);
    gateway.settled(1).await;
    gateway.deploy(2, &[]);
    gateway.settled(2).await;
    assert!(secret.exists() && gateway.data.path().join("workload").exists());
    for stranger in strangers {
        let id = stranger.split(' ').next().unwrap();
        assert_eq!(
            docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", id]),
            Ok(stranger.clone())
        );
    }
    let status = gateway.status.borrow().clone();
    assert!(status.observed.modules.is_empty(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_started_again_while_another_one_takes_long_to_stop() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-slow-stop");
    // It does not end before the engine kills it.
    let stubborn = |level: &str| {
        let options =
            json!({"Cmd": ["trap '' TERM; while :; do /bin/busybox sleep 1; done"], "StopTimeout": 300});
        idle(json!({
            "env": {"LEVEL": {"value": level}},
            "settings": {"image": IMAGE, "createOptions": options.to_string()},
        }))
    };
    gateway.deploy(1, &[("a", stubborn("1")), ("b", idle(json!({})))]);
    gateway.settled(1).await;
    let (a, b) = (gateway.container("a"), gateway.container("b"));
    gateway.deploy(2, &[("a", stubborn("2")), ("b", idle(json!({})))]);
    let id: ModuleId = gateway.name("a").parse().unwrap();
    gateway.until("a is being replaced", |s| s.version == Some(2) && s.plan.contains("replace")).await;
    docker(&["kill", &gateway.name("b")]).unwrap();
    let b_id: ModuleId = gateway.name("b").parse().unwrap();
    gateway.until("b is started again", |s| s.restarts.count(&b_id) == 1).await;
    assert!(gateway.is_running("b") && gateway.container("b") != b);
    assert_eq!(gateway.container("a"), a, "a has ended already: the test shows nothing");
    docker(&["kill", &gateway.name("a")]).unwrap();
    let status = gateway.settled(2).await;
    assert_ne!(gateway.container("a"), a);
    assert!(status.observed.modules.contains_key(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_memory_ended_says_so() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-memory");
    let options = json!({"Cmd": ["exec /bin/busybox tail /dev/zero"],
        "HostConfig": {"Memory": 16_777_216, "MemorySwap": 16_777_216}});
    let settings = json!({"image": IMAGE, "createOptions": options.to_string()});
    gateway.deploy(1, &[("a", idle(json!({"restartPolicy": "never", "settings": settings})))]);
    let id: ModuleId = gateway.name("a").parse().unwrap();
    let desired = gateway.deployments.borrow().clone().unwrap().desired.clone();
    // The engine may report the end of the memory after that of the container.
    gateway
        .until("a has ended, and says why", |s| {
            let progress = s.progress(&desired, 0);
            let states = progress.modules();
            states.get(&id).is_some_and(|a| a.reason == "ended with code 137, because memory ran out")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_restarted_by_an_operator_and_its_log_is_read() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let mut gateway = Gateway::new("lineside-test-by-hand");
    let says = |policy: &str, script: &str| {
        let options = json!({"Cmd": [script]}).to_string();
        idle(json!({"restartPolicy": policy, "settings": {"image": IMAGE, "createOptions": options}}))
    };
    let counts = "echo one; echo two >&2; trap 'exit 0' TERM; /bin/busybox sleep 100000 & wait";
    gateway.deploy(
        1,
        &[
            ("a", says("always", counts)),
            ("ends", says("never", "echo end; exit 3")),
            ("off", {
                let mut off = idle(json!({}));
                off["status"] = json!("stopped");
                off
            }),
        ],
    );
    let id = |gateway: &Gateway, name: &str| -> ModuleId { gateway.name(name).parse().unwrap() };
    let ends = id(&gateway, "ends");
    gateway
        .until("a runs and the other has ended", |s| {
            let state = s.observed.modules.get(&ends).map(|seen| seen.state);
            state == Some(ContainerState::Exited { code: 3 }) && s.observed.modules.len() == 3
        })
        .await;
    let before = gateway.container("a");
    gateway.restarts.restart(id(&gateway, "a")).await.unwrap();
    let after = gateway.container("a");
    assert!(after != before && after[..64] == before[..64], "the same container, started again: {after}");
    // Also one that its policy leaves as it ended.
    let started = gateway.container("ends");
    gateway.restarts.restart(ends).await.unwrap();
    assert_ne!(gateway.container("ends"), started);
    for (name, expected) in [
        ("off", RestartError::NotToRun { module: id(&gateway, "off") }),
        ("nobody", RestartError::NotInManifest { module: id(&gateway, "nobody") }),
    ] {
        assert_eq!(gateway.restarts.restart(id(&gateway, name)).await, Err(expected));
    }
    let a = id(&gateway, "a");
    let status = gateway.until("a is looked at again", |s| s.observed.modules.contains_key(&a)).await;
    assert_eq!(status.restarts.count(&a), 0, "IoT Edge does not count these either");

    let docker = Engine::new(SOCKET.into()).client().await.unwrap();
    let read = async |range: LogRange| {
        let parts = logs(&docker, &gateway.container_id("a"), &range);
        let parts: Vec<_> = parts.map(Result::unwrap).collect().await;
        let mut lines: Vec<String> =
            String::from_utf8(parts.concat()).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    // What runs has not written by the time that it is called running.
    let twice = ["one", "one", "two", "two"];
    until("a has written twice", async || read(LogRange::default()).await == twice).await;
    assert_eq!(read(LogRange { tail: Some(1), ..LogRange::default() }).await.len(), 1);
    assert!(read(LogRange { until_ms: Some(1000), ..LogRange::default() }).await.is_empty());
    let timed = read(LogRange { timestamps: true, tail: Some(1), ..LogRange::default() }).await;
    assert!(timed[0].starts_with("20"), "{timed:?}");
}
