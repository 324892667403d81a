//! `make bench`: every benchmark, or those whose names are given: deployment, modules, free, durable, latency, idle, drain, fleet. Prints Markdown
//! tables, ready for docs/benchmarks.md, and ends each benchmark with `RATIO name ours/theirs`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use site_tests::bench::free::{MANY, Parts};
use site_tests::bench::peer::Mosquitto;
use site_tests::bench::{deployment, drain, durable, fleet, free, idle, latency, modules};
use site_tests::raw::Login;
use site_tests::site::Site;

const ALL: [&str; 8] = ["deployment", "modules", "free", "durable", "latency", "idle", "drain", "fleet"];
/// Those that start programs of their own.
const OWN: [&str; 2] = ["drain", "fleet"];

#[tokio::main]
async fn main() -> Result<()> {
    let mut chosen: Vec<String> = std::env::args().skip(1).collect();
    for name in &chosen {
        ensure!(ALL.contains(&name.as_str()), "`{name}` is no benchmark; write some of {}", ALL.join(", "));
    }
    if chosen.is_empty() {
        chosen = ALL.map(str::to_owned).to_vec();
    }
    let dir = tempfile::Builder::new().prefix("lineside-bench-").tempdir()?;
    println!("{}", machine());
    let (own, shared): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|name| OWN.contains(&name.as_str()));
    if !shared.is_empty() {
        let mut site = Site::new(dir.path(), "bench-gateway", true)?;
        let measured = measure(&mut site, dir.path(), &shared).await;
        let ended = site.end(true).await;
        measured?;
        ended?;
    }
    if own.iter().any(|name| name == "drain") {
        drain::run(&dir.path().join("drain")).await?;
    }
    if own.iter().any(|name| name == "fleet") {
        fleet::run(&dir.path().join("fleet")).await?;
    }
    Ok(())
}

async fn measure(site: &mut Site, dir: &Path, chosen: &[String]) -> Result<()> {
    let is_chosen = |name: &str| chosen.iter().any(|chosen| chosen == name);
    site.start_central().await?;
    site.init_gateway().await?;
    if is_chosen("deployment") {
        deployment::start_to_ready(site).await?;
        deployment::apply_to_running(site).await?;
    } else {
        site.start_agent().await?;
    }
    if is_chosen("modules") {
        modules::run_all(site).await?;
    }
    site.open_free_topics("bench/#").await?;
    let mosquitto = Mosquitto::start(dir).await?;
    let mut ours: Vec<Login> = Vec::new();
    for index in 0..=MANY {
        ours.push(site.add_leaf(&format!("bench-{index:02}"), Duration::ZERO).await?.login());
    }
    site.leaves_known(&ours).await?;
    // First, while neither side's heap has grown.
    if is_chosen("idle") {
        idle::run(site, &mosquitto).await?;
    }
    let parts =
        Parts { ours: &ours, port: site.gateway_mqtt, agent: site.agent_id()?, mosquitto: &mosquitto };
    if is_chosen("free") {
        free::run(&parts).await?;
    }
    if is_chosen("latency") {
        latency::run(site, &parts, dir).await?;
    }
    if is_chosen("durable") {
        durable::run(site, &parts, dir).await?;
    }
    mosquitto.stop().await
}

/// On what it was measured.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores ({}), kernel {}, load before the run {}",
        model.map_or("unknown", |(_, name)| name),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("unknown")
    )
}
