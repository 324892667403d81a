//! `make demo`: a whole site on this machine, until Ctrl-C; with `--once`, every step of the main job proven and ended.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use site_tests::job::{self, Report, say};
use site_tests::leaf::Leaf;
use site_tests::site::Site;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let is_once = std::env::args().any(|argument| argument == "--once");
    let dir = tempfile::Builder::new().prefix("lineside-demo-").tempdir()?;
    let mut site = Site::new(dir.path(), "demo-gateway", true)?;
    ports_are_free(&[site.gateway_mqtts, site.gateway_https])?;
    println!("A site on this machine: central, one gateway, its modules and two leaf devices.");
    println!(
        "{}",
        if is_once { "The ten steps take about a minute." } else { "It is ready in about ten seconds." }
    );
    let mut report = Report::default();
    let ended = tokio::select! {
        ended = demo(&mut site, &mut report, is_once) => ended,
        // Whoever stops the demo, or closes its terminal, leaves nothing running.
        signalled = stopped() => signalled.map(|()| say("\nStopping the site.")),
    };
    let cleaned = site.end(true).await;
    let is_success = ended.is_ok() && cleaned.is_ok() && (report.is_success() || !is_once);
    if !is_success {
        // What a newcomer needs when it went wrong: the logs, kept.
        let kept = dir.keep();
        say(&format!("The logs are kept in {}", kept.display()));
    }
    ended?;
    cleaned?;
    ensure!(is_success, "a step failed");
    if is_once {
        println!("\nEvery step passed, and nothing is left running.");
        println!(
            "Next: `make demo` keeps such a site running; README.md, \"Connect a first device of your own\"."
        );
    }
    Ok(())
}

/// Ends at the first SIGINT, SIGTERM or SIGHUP.
async fn stopped() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

/// Modules reach the gateway at fixed ports; another program there would fail the demo much later.
fn ports_are_free(ports: &[u16]) -> Result<()> {
    for port in ports {
        let holder = edge_hub::listen::holder(*port);
        ensure!(
            holder.is_none(),
            "port {port} is taken by {}; modules know no other, so stop that program first",
            holder.unwrap_or_default()
        );
    }
    Ok(())
}

async fn demo(site: &mut Site, report: &mut Report, is_once: bool) -> Result<()> {
    let manifests = PathBuf::from("manifests");
    let leaves = job::start(site, &manifests, report).await?;
    if is_once {
        return job::prove(site, &manifests, leaves, report).await;
    }
    let password = site.add_administrator(OPERATOR).await?;
    print_addresses(site, &password)?;
    stopped().await?;
    stop(leaves).await
}

/// Whom the demo's console knows.
const OPERATOR: &str = "operator";

/// Prints what to open and what to type next.
fn print_addresses(site: &Site, password: &str) -> Result<()> {
    let agent = std::path::absolute(site_tests::process::binary("edge-agent")?)?;
    let value =
        format!("http://{}/api/devices/press-1/telemetry/temperature?api-version=2022-07-31", site.http);
    println!();
    println!(
        "gateway, MQTT/TLS  {}:{}  trust {}",
        site_tests::site::hostname(),
        site.gateway_mqtts,
        site.gateway_ca().display()
    );
    println!("gateway, plain     127.0.0.1:{}", site.gateway_mqtt);
    println!("edge-agent         {} status --config {}", agent.display(), site.edge_toml().display());
    println!("\nThe latest temperature of the leaf device press-1, from central:");
    println!("    curl -s -H 'Authorization: {}' '{value}'", site.token());
    println!("\nCtrl-C ends it all and leaves nothing behind.");
    println!("The console: http://{}  user {OPERATOR}  password {password}", site.http);
    Ok(())
}

async fn stop(leaves: Vec<Leaf>) -> Result<()> {
    for leaf in leaves {
        leaf.stop().await.context("stopping a leaf device")?;
    }
    Ok(())
}
