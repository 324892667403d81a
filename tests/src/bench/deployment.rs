//! A gateway's start, its memory at idle, and how long a module takes from `apply` to running.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::peer::pss_kb;
use super::table::{ROUNDS, Spread, head, ratio};
use crate::docker::docker;
use crate::job;
use crate::site::Site;

pub(super) fn ms(times: &[Duration]) -> Spread {
    Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e3).collect())
}

/// From the start of the process to its line "edge-agent ready"; leaves it running and connected.
pub async fn start_to_ready(site: &mut Site) -> Result<()> {
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let since = Instant::now();
        site.start_agent().await?;
        starts.push(since.elapsed());
        site.stop_agent().await?;
    }
    head(&format!("Start to ready, {ROUNDS} starts"), "ms");
    ms(&starts).row("edge-agent", 0);

    site.start_agent().await?;
    site.gateway_connected(Duration::from_secs(60)).await?;
    println!("\nMemory at idle, connected to central, no modules\n\n| | PSS kB |\n|---|---|");
    println!("| edge-agent | {} |", pss_kb(site.agent_id()?)?);
    Ok(())
}

/// `edge-agent apply --wait` of one module against plain `docker run` of the same image until it runs.
pub async fn apply_to_running(site: &Site) -> Result<()> {
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
    head(&format!("Apply to running: one module, its image on the machine, {ROUNDS} rounds"), "ms");
    let (ours, theirs) = (ms(&ours), ms(&theirs));
    ours.row("edge-agent apply --wait", 0);
    theirs.row("docker run -d", 0);
    ratio("apply-to-running", ours.median / theirs.median, "none");
    Ok(())
}

pub(super) async fn apply(site: &Site, manifest: &Path) -> Result<()> {
    let file = manifest.to_str().context("the path is not UTF-8")?;
    let (code, out, error) =
        crate::process::run(&mut site.agent_command(&["apply", file, "--wait", "60"])?).await?;
    ensure!(code == 0, "edge-agent apply {file} exited {code}: {out} {error}");
    Ok(())
}
