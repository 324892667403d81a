//! `make bench`: what Lineside costs and does, with the peer in the same run. Prints one table per benchmark and ends
//! each with `RATIO name ours/theirs`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use site_tests::docker::docker;
use site_tests::job;
use site_tests::leaf::LeafOptions;
use site_tests::process::Process;
use site_tests::site::Site;
use tokio::process::Command;

const PUBLISHERS: usize = 50;
const MESSAGES_EACH: usize = 4_000;
const BODY_BYTES: usize = 256;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("lineside-bench-").tempdir()?;
    let mut site = Site::new(dir.path(), "bench-gateway", true)?;
    let measured = measure(&mut site, dir.path()).await;
    let ended = site.end(true).await;
    measured?;
    ended
}

async fn measure(site: &mut Site, dir: &Path) -> Result<()> {
    site.start_central().await?;
    site.init_gateway().await?;

    println!("Start to ready (3 starts)");
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let since = Instant::now();
        site.start_agent().await?;
        starts.push(since.elapsed());
        site.stop_agent().await?;
    }
    starts.sort();
    println!("| edge-agent start to ready | min ms | median ms | max ms |");
    println!("|---|---|---|---|");
    println!("| | {} | {} | {} |", starts[0].as_millis(), starts[1].as_millis(), starts[2].as_millis());

    site.start_agent().await?;
    site.gateway_connected(Duration::from_secs(60)).await?;
    println!("\nMemory at idle, connected to central, no modules");
    println!("| | PSS kB |\n|---|---|");
    println!("| edge-agent | {} |", pss_kb(site.agent_id()?)?);

    apply_to_running(site).await?;
    durable_telemetry(site, dir).await
}

/// The proportional set size of a process: its own pages and its share of the shared ones.
fn pss_kb(process: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line =
        rollup.lines().find(|line| line.starts_with("Pss:")).context("smaps_rollup has no Pss line")?;
    Ok(line.split_whitespace().nth(1).context("Pss has no value")?.parse()?)
}

/// `edge-agent apply --wait` of one module against plain `docker run` of the same image until it runs.
async fn apply_to_running(site: &Site) -> Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let manifests = PathBuf::from("manifests");
    let empty = site.dir.join("empty.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(manifests.join("demo-without-filter.json"))?)?;
    manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"] = serde_json::json!({});
    std::fs::write(&empty, manifest.to_string())?;
    for _ in 0..ROUNDS {
        let since = Instant::now();
        apply(site, &manifests.join("demo-without-filter.json")).await?;
        job::containers_are(&site.network, &["sensor"]).await?;
        ours.push(since.elapsed());
        apply(site, &empty).await?;
        job::containers_are(&site.network, &[]).await?;

        let since = Instant::now();
        let run = ["run", "-d", "--name", "lineside-bench-plain", "--network", &site.network];
        docker(&[&run[..], &["lineside/simulated-sensor:1"]].concat()).await?;
        theirs.push(since.elapsed());
        docker(&["rm", "-f", "lineside-bench-plain"]).await?;
    }
    ours.sort();
    theirs.sort();
    println!("\nApply to running: one module, image on the machine ({ROUNDS} rounds)");
    println!("| | min ms | median ms | max ms |\n|---|---|---|---|");
    for (name, times) in [("edge-agent apply --wait", &ours), ("docker run -d", &theirs)] {
        println!(
            "| {name} | {} | {} | {} |",
            times[0].as_millis(),
            times[1].as_millis(),
            times[2].as_millis()
        );
    }
    println!("RATIO apply-to-running {:.2}", ours[1].as_secs_f64() / theirs[1].as_secs_f64());
    Ok(())
}

async fn apply(site: &Site, manifest: &Path) -> Result<()> {
    let file = manifest.to_str().context("the path is not UTF-8")?;
    let (code, out, error) =
        site_tests::process::run(&mut site.agent_command(&["apply", file, "--wait", "60"])?).await?;
    ensure!(code == 0, "edge-agent apply {file} exited {code}: {out} {error}");
    Ok(())
}

/// QoS 1 from 50 publishers, each with 100 in flight: ours acknowledges after fdatasync, mosquitto from memory.
async fn durable_telemetry(site: &mut Site, dir: &Path) -> Result<()> {
    let config = dir.join("mosquitto.conf");
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    std::fs::write(
        &config,
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n\
             log_dest stderr\nlog_type information\nlog_type notice\nlog_type error\n"
        ),
    )?;
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(&config);
    let mosquitto = Process::start("mosquitto", command, &dir.join("mosquitto.log"))?;
    mosquitto.line("running", Duration::from_secs(10)).await?;

    // One identity per publisher, over plain loopback on both sides.
    let mut leaves = Vec::new();
    for index in 0..PUBLISHERS {
        let mut leaf = site.add_leaf(&format!("bench-{index}"), Duration::ZERO).await?;
        leaf.ca = None;
        leaf.port = site.gateway_mqtt;
        leaves.push(leaf);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(round(leaves.iter().map(|leaf| (leaf.client(100), topic(leaf))).collect()).await?);
        let plain = |leaf: &LeafOptions| {
            let mut options = MqttOptions::new(leaf.identity.to_string(), "127.0.0.1", port);
            options.set_inflight(100).set_clean_session(true);
            (AsyncClient::new(options, 200), topic(leaf))
        };
        theirs.push(round(leaves.iter().map(plain).collect()).await?);
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    println!(
        "\nQoS 1 telemetry, {PUBLISHERS} publishers x {MESSAGES_EACH} messages of {BODY_BYTES} B, 100 in flight, {ROUNDS} rounds"
    );
    println!("| | acknowledged/s min | median | max |\n|---|---|---|---|");
    for (name, rates) in [("edge-agent, on disk before PUBACK", &ours), ("mosquitto, in memory", &theirs)] {
        println!("| {name} | {:.0} | {:.0} | {:.0} |", rates[0], rates[1], rates[2]);
    }
    println!("RATIO durable-telemetry-50 {:.2}", ours[1] / theirs[1]);
    mosquitto.stop(Duration::from_secs(10)).await
}

fn topic(leaf: &LeafOptions) -> String {
    schemas::topics::telemetry(&leaf.identity, &schemas::bag::PropertyBag::new())
}

/// All publishers at once; gives messages acknowledged per second over the whole round, connecting not counted.
async fn round(clients: Vec<((AsyncClient, EventLoop), String)>) -> Result<f64> {
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(clients.len() + 1));
    let mut tasks = tokio::task::JoinSet::new();
    for ((client, mut events), topic) in clients {
        let start = start.clone();
        tasks.spawn(async move {
            while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
            start.wait().await;
            let publisher = client.clone();
            tokio::spawn(async move {
                for _ in 0..MESSAGES_EACH {
                    publisher.publish(topic.clone(), QoS::AtLeastOnce, false, vec![b'x'; BODY_BYTES]).await?;
                }
                Ok::<_, rumqttc::ClientError>(())
            });
            let mut acknowledged = 0;
            while acknowledged < MESSAGES_EACH {
                if matches!(events.poll().await?, Event::Incoming(Packet::PubAck(_))) {
                    acknowledged += 1;
                }
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    start.wait().await;
    let since = Instant::now();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok((PUBLISHERS * MESSAGES_EACH) as f64 / since.elapsed().as_secs_f64())
}
