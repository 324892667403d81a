//! Images come from a registry that asks for a login: Debian's `docker-registry`, on loopback, with a real engine.
//!
//! Needs the engine on /var/run/docker.sock, and the packages docker-registry and busybox-static.

#[path = "../../tests/src/port.rs"]
#[allow(unreachable_pub, reason = "the tests of a whole site have it as a library's")]
mod port;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_agent::access::module_keys::{self, ModuleKeys};
use edge_agent::deployment::artifacts::Artifacts;
use edge_agent::deployment::container_limits::ContainerLimits;
use edge_agent::deployment::docker::host_policy::HostPolicy;
use edge_agent::deployment::docker::{Engine, ModuleContext};
use edge_agent::deployment::reconciler::Reconciler;
use edge_agent::deployment::restart_counts::RestartCounts;
use edge_agent::deployment::restart_requests::RestartRequests;
use edge_agent::deployment::status::{Deployment, ReconcilerStatus};
use edge_agent::deployment::workload::{About, Workload};
use edge_core::deploy;
use schemas::manifest::Manifest;
use serde_json::json;
use test_needs::Need;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What these tests need of the machine.
const NEEDS: [Need; 3] = [Need::Docker, Need::File("/bin/busybox"), Need::Program("docker-registry")];
const ID: &str = "lineside-test-registry";
const USER: &str = "plant";
const PASSWORD: &str = "open sesame";
/// bcrypt of [`PASSWORD`].
const HASH: &str = "$2a$05$0UUweNbVQHq7v55nJwy2OOEkUQr1UI9UxwlzPSu8kWWxCF7731p5G";
const PATIENCE: Duration = Duration::from_secs(60);

fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().expect("the docker command is installed");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Removes what the test makes, or what an earlier run that was killed has left.
fn clean() {
    let ours = ["ps", "-aq", "--filter", &format!("label=lineside.gateway={ID}")];
    for container in docker(&ours).expect("the engine answers").lines() {
        docker(&["rm", "-f", container]).expect("the container goes");
    }
    let _was_there = docker(&["network", "rm", ID]);
    let images = docker(&["images", "--format", "{{.ID}} {{.Repository}}"]).expect("the engine answers");
    for image in images.lines().filter(|image| image.ends_with(&format!("/{ID}"))) {
        let (id, _) = image.split_once(' ').expect("as the format has it");
        docker(&["rmi", "--force", id]).expect("the image goes");
    }
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It holds nothing but this test's image.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Registry {
    child: Option<Running>,
    address: String,
}

impl Registry {
    fn start(dir: &Path) -> Self {
        let port = port::free_port().expect("a port");
        let (dir_text, address) = (dir.display(), format!("127.0.0.1:{port}"));
        std::fs::write(dir.join("htpasswd"), format!("{USER}:{HASH}\n"))
            .expect("the directory can be written");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {dir_text}/blobs\n\
             http:\n  addr: {address}\nauth:\n  htpasswd:\n    realm: plant\n    path: {dir_text}/htpasswd\n"
        );
        let file = dir.join("registry.yml");
        std::fs::write(&file, config).expect("the directory can be written");
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Self {
            child: Some(Running(child.expect("docker-registry is missing: apt-get install docker-registry"))),
            address,
        };
        let since = Instant::now();
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(since.elapsed() < PATIENCE, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child = None;
        clean();
    }
}

/// Puts an image whose containers sleep for so many seconds into the registry, under a name that the engine has too from then on.
fn publish(dir: &Path, image: &str, address: &str, seconds: u32) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "/bin/busybox is missing: apt-get install busybox-static");
    let tar = dir.join("busybox.tar");
    let packed = Command::new("tar").args(["-C", "/", "-cf"]).arg(&tar).arg("bin/busybox").status();
    assert!(packed.expect("tar is installed").success());
    let entry = format!("ENTRYPOINT [\"/bin/busybox\", \"sleep\", \"{seconds}\"]");
    docker(&["import", "--change", &entry, &tar.display().to_string(), image]).expect("an image");
    // A configuration of its own: the login must not be the one that the pull finds.
    let config = dir.join("docker-config").display().to_string();
    docker(&["--config", &config, "login", "-u", USER, "-p", PASSWORD, address]).expect("the login is right");
    docker(&["--config", &config, "push", image]).expect("the registry takes it");
}

fn deployment(version: u64, image: &str, address: &str, password: &str) -> Option<Arc<Deployment>> {
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {"registryCredentials": {
            "plant": {"username": USER, "password": password, "address": address}
        }}},
        "modules": {ID: {
            "type": "docker", "status": "running", "restartPolicy": "always", "imagePullPolicy": "on-create",
            "settings": {"image": image},
            // So that each version has a container of its own.
            "env": {"VERSION": {"value": version.to_string()}}
        }}
    }}}});
    let manifest = Manifest::parse(document.to_string().as_bytes()).expect("the manifest is right");
    let (desired, _) = deploy::check(&manifest).expect("the manifest is right");
    Some(Arc::new(Deployment { desired, version, is_atomic: false }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_before_each_create_with_the_manifests_login() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    clean();
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::start(dir.path());
    let image = format!("{}/{ID}:1", registry.address);
    publish(dir.path(), &image, &registry.address, 100_000);
    docker(&["rmi", &image]).expect("the image goes");

    std::fs::write(dir.path().join(module_keys::FILE), [7; module_keys::SECRET_BYTES]).unwrap();
    let keys = ModuleKeys::load(dir.path()).unwrap();
    let (deployments, receiver) = watch::channel(deployment(1, &image, &registry.address, "wrong"));
    let (status, mut seen) = watch::channel(ReconcilerStatus::default());
    let about = About { keys, trust_bundle: "PEM".into(), certificates: None, reconciler: seen.clone() };
    let (_restarts, requests) = RestartRequests::channel();
    let reconciler = Reconciler {
        engine: Engine::new("/var/run/docker.sock".into()),
        workload: Arc::new(Workload::new(dir.path(), about)),
        context: ModuleContext {
            gateway: ID.parse().unwrap(),
            hostname: "edge".into(),
            hub_name: "hub".into(),
            network: ID.into(),
            ownership: "mark".into(),
            policy: HostPolicy::default(),
        },
        deployments: receiver,
        status,
        artifacts: Artifacts::default(),
        counts: RestartCounts::default(),
        limits: ContainerLimits::default(),
        requests: Arc::new(tokio::sync::Mutex::new(requests)),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(reconciler.run(stop.clone()));

    let is_reported =
        |s: &ReconcilerStatus| s.outcome.code == 500 && s.outcome.description.contains("pull image");
    let status = tokio::time::timeout(PATIENCE, seen.wait_for(is_reported)).await.unwrap().unwrap().clone();
    let description = &status.outcome.description;
    assert!(description.contains(&image) && !description.contains(PASSWORD), "{description}");
    assert!(docker(&["image", "inspect", &image]).is_err(), "it was pulled with a wrong login");

    let mut deploy = async |version: u64| {
        deployments.send_replace(deployment(version, &image, &registry.address, PASSWORD));
        let settled = |s: &ReconcilerStatus| s.version == Some(version) && s.is_settled;
        tokio::time::timeout(PATIENCE, seen.wait_for(settled)).await.unwrap().unwrap();
        docker(&["inspect", "--format", "{{.State.Running}} {{.Config.Image}} {{.Path}} {{.Args}}", ID])
            .unwrap()
    };
    assert_eq!(deploy(2).await, format!("true {image} /bin/busybox [sleep 100000]"));

    // The name has moved in the registry, and the engine still has what it meant before.
    let former = docker(&["image", "inspect", "--format", "{{.Id}}", &image]).unwrap();
    publish(dir.path(), &image, &registry.address, 200_000);
    docker(&["tag", &former, &image]).unwrap();
    assert_eq!(deploy(3).await, format!("true {image} /bin/busybox [sleep 200000]"));

    // A registry that is away keeps nobody from what is on this machine.
    drop(registry.child.take());
    assert_eq!(deploy(4).await, format!("true {image} /bin/busybox [sleep 200000]"));

    stop.cancel();
    task.await.unwrap();
}
