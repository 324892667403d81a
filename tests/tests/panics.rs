//! Each named task of both programs panics once under traffic: an essential one ends its program in order, with the cause in the log and
//! an exit code that a service manager restarts it for; any other is alone in it, and service goes on. What was acknowledged arrives,
//! once and in order.
//!
//! The programs say themselves which tasks they have, so a new one is in the test. It needs programs with debug assertions, which have
//! the means to inject panics: those beside this test. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use site_tests::job::exactly_once;
use site_tests::leaf::Leaf;
use site_tests::process::beside_this;
use site_tests::rest::eventually;
use site_tests::site::Site;

const STEP: Duration = Duration::from_secs(60);
const DEVICE: &str = "press-1";
/// From the start of a program to its first panic: everybody is back by then.
const FIRST_MS: usize = 1500;
/// From one panic that is survived to the next.
const EACH_MS: usize = 150;

/// The tasks in a file of `kind name`: the essential ones, and the others.
fn tasks(file: &Path) -> (Vec<String>, Vec<String>) {
    let text = std::fs::read_to_string(file).unwrap();
    let all: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    all.into_iter().partition(|task| task.starts_with("essential "))
}

fn name(task: &str) -> &str {
    task.split_once(' ').unwrap().1
}

fn plan<'a>(tasks: impl IntoIterator<Item = &'a String>) -> String {
    let each = tasks.into_iter().enumerate().map(|(n, task)| format!("{task}={}", FIRST_MS + n * EACH_MS));
    each.collect::<Vec<_>>().join(";")
}

fn panics(log: &str) -> usize {
    log.lines().filter(|line| line.contains("injected") && line.contains("panic")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_that_panics_ends_its_program_in_order_or_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "panic-gateway", false).unwrap();
    site.agent_program = Some(beside_this("edge-agent").unwrap());
    site.central_program = Some(beside_this("central").unwrap());
    let files = ["gateway.tasks", "central.tasks"].map(|name| dir.path().join(name));
    let watched = dir.path().join("manifests");
    std::fs::create_dir(&watched).unwrap();
    let [of_agent, of_central] = files.each_ref().map(|file| file.display().to_string());
    let agent_env =
        [("LINESIDE_TASKS", of_agent), ("EDGE_AGENT__DEPLOY__WATCH", watched.display().to_string())];
    site.agent_env = agent_env.to_vec();
    site.central_env = vec![("LINESIDE_TASKS", of_central)];
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let mut leaf = Leaf::start(site.add_leaf(DEVICE, Duration::from_millis(20)).await.unwrap());
    leaf.acknowledged_more(1, STEP).await.unwrap();
    // What runs only when it has something to do.
    let rest = site.rest().unwrap().clone();
    rest.post(&format!("/api/ext/devices/{DEVICE}/cloudToDeviceMessages"), &json!({"body": "x"})).await.ok();
    leaf.acknowledged_more(20, STEP).await.unwrap();

    let (essential, others) = tasks(&files[0]);
    println!("edge-agent: {essential:?}; survives {others:?}");
    assert!(essential.len() >= 8 && others.len() >= 8, "{essential:?} {others:?}");
    let kept = site.agent_env.clone();
    for task in &essential {
        site.kill_agent().await.unwrap();
        site.agent_env.push(("LINESIDE_PANICS", plan([task])));
        site.start_agent().await.unwrap();
        let code = site.agent_ends(STEP).await.unwrap_or_else(|error| panic!("{task}: {error:#}"));
        assert_eq!(code, 70, "{task}: {}", site.agent_log());
        let log = site.agent_log();
        let told = log.lines().rfind(|line| line.contains("cannot go on and stops")).unwrap_or_default();
        assert!(told.contains(name(task)) && told.contains("injected"), "{task}: {told:?}");
        assert!(log.contains("edge-agent stopped"), "{task}: it did not stop in order");
        site.agent_env = kept.clone();
        site.start_agent().await.unwrap();
        leaf.acknowledged_more(1, STEP).await.unwrap();
    }
    site.kill_agent().await.unwrap();
    let before = panics(&site.agent_log());
    site.agent_env.push(("LINESIDE_PANICS", plan(&others)));
    site.start_agent().await.unwrap();
    let id = site.agent_id().unwrap();
    eventually("each of the other tasks panicked", STEP, || async {
        // Some run only when there is something to do: they need not have run again.
        Ok((panics(&site.agent_log()) - before + 2 >= others.len()).then_some(()))
    })
    .await
    .unwrap();
    leaf.acknowledged_more(10, STEP).await.unwrap();
    site.link_is(true, STEP).await.unwrap();
    assert_eq!(site.agent_id().unwrap(), id, "the daemon runs on");

    let (essential, others) = tasks(&files[1]);
    println!("central: {essential:?}; survives {others:?}");
    assert!(essential.len() >= 5 && others.len() >= 2, "{essential:?} {others:?}");
    let kept = site.central_env.clone();
    for task in &essential {
        site.kill_central().await.unwrap();
        site.central_env.push(("LINESIDE_PANICS", plan([task])));
        site.start_central().await.unwrap();
        let code = site.central_ends(STEP).await.unwrap_or_else(|error| panic!("{task}: {error:#}"));
        assert_ne!(code, 0, "{task}");
        let log = site.central_log();
        let told = log.lines().rfind(|line| line.contains("central stops")).unwrap_or_default();
        assert!(told.contains(name(task)) && told.contains("injected"), "{task}: {told:?}");
        site.central_env = kept.clone();
        site.start_central().await.unwrap();
    }
    site.kill_central().await.unwrap();
    site.central_env.push(("LINESIDE_PANICS", plan(&others)));
    let before = panics(&site.central_log());
    site.start_central().await.unwrap();
    let id = site.central_id().unwrap();
    eventually("each of the other tasks of central panicked", STEP, || async {
        Ok((panics(&site.central_log()) - before + 1 >= others.len()).then_some(()))
    })
    .await
    .unwrap();
    site.gateway_connected(STEP).await.unwrap();
    assert_eq!(site.central_id().unwrap(), id, "central runs on");

    leaf.acknowledged_more(1, STEP).await.unwrap();
    let seen = leaf.stop().await.unwrap();
    let count = exactly_once(&rest, DEVICE, || seen.clone()).await.unwrap();
    println!("acknowledged {}, arrived {count}, lost 0, twice 0, order kept", seen.acknowledged.len());
    site.end(false).await.unwrap();
}
