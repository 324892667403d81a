//! Each named task and each thread that writes, of both programs, panics once under traffic: an essential one ends its program in order,
//! with the cause in the log and an exit code that a service manager restarts it for; any other is alone in it, and service goes on. What
//! was acknowledged arrives, once and in order.
//!
//! The programs say which tasks they have and which of them panicked, and panic when the test says so, so nothing depends on times. They
//! need debug assertions for it: those beside this test. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod names;
mod stir;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_hub::tasks::EXIT_CODE;
use site_tests::STEP;
use site_tests::job::exactly_once;
use site_tests::leaf::Leaf;
use site_tests::port::free_port;
use site_tests::process::beside_this;
use site_tests::site::Site;
use stir::Stir;

const DEVICE: &str = "press-1";

/// The files by which one program and this test speak.
struct Files {
    /// Lines `kind name`, and `panicked kind name`.
    tasks: PathBuf,
    panics: PathBuf,
}

impl Files {
    fn new(dir: &Path, program: &str) -> Self {
        Self { tasks: dir.join(format!("{program}.tasks")), panics: dir.join(format!("{program}.panics")) }
    }

    fn env(&self) -> [(&'static str, String); 2] {
        [
            ("LINESIDE_TASKS", self.tasks.display().to_string()),
            ("LINESIDE_PANICS", self.panics.display().to_string()),
        ]
    }

    fn lines(&self) -> BTreeSet<String> {
        let text = std::fs::read_to_string(&self.tasks).unwrap_or_default();
        // A line without its end is still being written.
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// The tasks that have run so far.
    fn tasks(&self) -> BTreeSet<String> {
        self.lines().into_iter().filter(|line| !line.starts_with("panicked ")).collect()
    }

    fn has_panicked(&self, task: &str) -> bool {
        self.lines().contains(&format!("panicked {task}"))
    }

    /// From now on these are to panic, once each.
    fn order<'a>(&self, tasks: impl IntoIterator<Item = &'a String>) {
        let lines: String = tasks.into_iter().map(|task| format!("{task}\n")).collect();
        std::fs::write(&self.panics, lines).unwrap();
    }

    /// The next run of the program panics nowhere.
    fn order_nothing(&self) {
        let _ = std::fs::remove_file(&self.panics);
        let _ = std::fs::remove_file(&self.tasks);
    }

    /// Waits until each of these has run, with what makes it run.
    async fn ran(&self, names: &[&str], stir: &mut Stir) {
        let missing = || {
            let tasks = self.tasks();
            let has = |name: &&&str| !tasks.iter().any(|task| task.split_once(' ').unwrap().1 == **name);
            names.iter().filter(has).copied().collect::<Vec<_>>()
        };
        stir.until(|| missing().is_empty(), || format!("these have not run: {:?}", missing())).await;
    }

    /// Waits until each of these has panicked, with what makes it run.
    async fn panicked(&self, tasks: &[String], stir: &mut Stir) {
        let left = || tasks.iter().filter(|task| !self.has_panicked(task)).collect::<Vec<_>>();
        stir.until(|| left().is_empty(), || format!("these have not panicked: {:?}", left())).await;
    }
}

/// The essential tasks, and those that a panic does not end the program for.
fn parted(tasks: BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    tasks
        .into_iter()
        .filter(|task| !names::ELSEWHERE.contains(&name(task)))
        .partition(|task| task.starts_with("essential "))
}

fn name(task: &str) -> &str {
    task.split_once(' ').unwrap().1
}

/// What the end of a program told of its cause.
fn logged<'a>(log: &'a str, phrase: &str) -> &'a str {
    log.lines().rfind(|line| line.contains(phrase)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_that_panics_ends_its_program_in_order_or_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "panic-gateway", false).unwrap();
    site.agent_program = Some(beside_this("edge-agent").unwrap());
    site.central_program = Some(beside_this("central").unwrap());
    let [of_agent, of_central] = ["gateway", "central"].map(|program| Files::new(dir.path(), program));
    let watched = dir.path().join("manifests");
    std::fs::create_dir(&watched).unwrap();
    let central_mqtt = free_port().unwrap();
    site.agent_env = of_agent.env().to_vec();
    site.agent_env.push(("EDGE_AGENT__DEPLOY__WATCH", watched.display().to_string()));
    site.central_env = of_central.env().to_vec();
    site.central_env.push(("CENTRAL__MQTT__MQTT", format!("127.0.0.1:{central_mqtt}")));
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    let mut edge_toml = std::fs::File::options().append(true).open(site.edge_toml()).unwrap();
    edge_toml.write_all(b"\n[upstream.budget]\ntelemetry_bytes = 1000000000\n").unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut leaf = Leaf::start(site.add_leaf(DEVICE, Duration::from_millis(20)).await.unwrap());
    leaf.acknowledged_more(1, STEP).await.unwrap();
    let mut stir = Stir::new(&site, central_mqtt).await.unwrap();
    of_agent.ran(names::AGENT, &mut stir).await;
    of_central.ran(names::CENTRAL, &mut stir).await;
    let (agent_tasks, central_tasks) = (parted(of_agent.tasks()), parted(of_central.tasks()));

    let (essential, others) = agent_tasks;
    println!("edge-agent: {essential:?}; survives {others:?}");
    for task in &essential {
        let before = site.agent_log().len();
        of_agent.order([task]);
        let ended = stir.beside(site.agent_ends(STEP)).await;
        let code = ended.unwrap_or_else(|error| panic!("{task}: {error:#}"));
        let log = site.agent_log().split_off(before);
        assert_eq!(code, i32::from(EXIT_CODE), "{task}: {log}");
        let logged = logged(&log, "cannot go on and stops");
        assert!(logged.contains(name(task)) && logged.contains("injected"), "{task}: {logged:?}");
        assert!(log.contains("edge-agent stopped"), "{task}: it did not stop in order: {log}");
        of_agent.order_nothing();
        site.start_agent().await.unwrap();
        leaf.acknowledged_more(1, STEP).await.unwrap();
    }
    site.kill_agent().await.unwrap();
    // Before it starts: some of them run only then.
    of_agent.order_nothing();
    of_agent.order(&others);
    site.start_agent().await.unwrap();
    let id = site.agent_id().unwrap();
    of_agent.panicked(&others, &mut stir).await;
    leaf.acknowledged_more(10, STEP).await.unwrap();
    site.link_is(true, STEP).await.unwrap();
    assert_eq!(site.agent_id().unwrap(), id, "the daemon runs on");

    let (essential, others) = central_tasks;
    println!("central: {essential:?}; survives {others:?}");
    for task in &essential {
        let before = site.central_log().len();
        of_central.order([task]);
        let ended = stir.beside(site.central_ends(STEP)).await;
        let code = ended.unwrap_or_else(|error| panic!("{task}: {error:#}"));
        let log = site.central_log().split_off(before);
        assert_eq!(code, i32::from(EXIT_CODE), "{task}: {log}");
        let logged = logged(&log, "central stops");
        assert!(logged.contains(name(task)) && logged.contains("injected"), "{task}: {logged:?}");
        assert!(log.contains("central has stopped"), "{task}: it did not stop in order: {log}");
        of_central.order_nothing();
        site.start_central().await.unwrap();
    }
    site.kill_central().await.unwrap();
    of_central.order_nothing();
    of_central.order(&others);
    site.start_central().await.unwrap();
    let id = site.central_id().unwrap();
    of_central.panicked(&others, &mut stir).await;
    site.gateway_connected(STEP).await.unwrap();
    assert_eq!(site.central_id().unwrap(), id, "central runs on");

    leaf.acknowledged_more(1, STEP).await.unwrap();
    let seen = leaf.stop().await.unwrap();
    let rest = site.rest().unwrap().clone();
    let count = exactly_once(&rest, DEVICE, || seen.clone()).await.unwrap();
    println!("acknowledged {}, arrived {count}, lost 0, twice 0, order kept", seen.acknowledged.len());
    stir.end();
    site.end(false).await.unwrap();
}
