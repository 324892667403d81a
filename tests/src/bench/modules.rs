//! Many modules: their start beside a plain loop of `docker run`, a change of one of them, a plan, and what a gateway with them costs at idle.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::deployment::{apply, ms};
use super::peer::settled;
use super::table::{ROUNDS, head, ratio};
use crate::docker::{busybox_image, docker};
use crate::process::run;
use crate::site::Site;

const IMAGE: &str = "lineside-bench/idle:1";
/// Modules of the largest deployment.
const MANY: usize = 50;
/// How long the daemon's use of the CPU is measured: its slow look at all containers is in it.
const IDLE: Duration = Duration::from_secs(60);

/// Runs it on a gateway without modules, and leaves it so.
///
/// # Errors
/// When a deployment fails, or a change of one module touches another one's container.
pub async fn run_all(site: &Site) -> Result<()> {
    busybox_image(IMAGE).await?;
    let result = measure(site).await;
    docker(&["rmi", "--force", IMAGE]).await?;
    result
}

async fn measure(site: &Site) -> Result<()> {
    let none = manifest(site, 0, "")?;
    let mut costs = vec![cost(site, 0).await?];
    apply(site, &manifest(site, 10, "")?).await?;
    costs.push(cost(site, 10).await?);
    apply(site, &none).await?;

    let (mut ours, mut theirs, mut plans, mut changes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let all = manifest(site, MANY, "")?;
        let since = Instant::now();
        apply(site, &all).await?;
        ours.push(since.elapsed());
        let before = containers(site).await?;
        ensure!(before.len() == MANY, "{} of {MANY} modules run", before.len());

        let since = Instant::now();
        plan(site, &all).await?;
        plans.push(since.elapsed());

        let changed = manifest(site, MANY, "changed")?;
        let since = Instant::now();
        apply(site, &changed).await?;
        changes.push(since.elapsed());
        let touched = containers(site).await?.difference(&before).count();
        ensure!(touched == 1, "a change of one module made {touched} new containers");

        if round + 1 == ROUNDS {
            costs.push(cost(site, MANY).await?);
        }
        apply(site, &none).await?;
        theirs.push(plain(site).await?);
    }
    head(&format!("{MANY} modules, their image on the machine, {ROUNDS} rounds"), "ms");
    let (ours, theirs) = (ms(&ours), ms(&theirs));
    ours.row("edge-agent apply --wait, until all run", 0);
    theirs.row("a loop of docker run -d", 0);
    ms(&plans).row("edge-agent plan, nothing to do", 0);
    ms(&changes).row("edge-agent apply --wait of a change of one module: one new container", 0);
    println!(
        "\nAt idle, over {} s\n\n| modules | PSS kB | CPU % of one core |\n|---|---|---|",
        IDLE.as_secs()
    );
    for (count, pss, cpu) in costs {
        println!("| {count} | {pss} | {cpu:.2} |");
    }
    ratio("apply-fifty", ours.median / theirs.median, "1.15 or less");
    Ok(())
}

fn name(index: usize) -> String {
    format!("lineside-bench-{index:02}")
}

/// Writes a manifest of modules that sleep; the last one's environment has `value`. They end at once: what is measured is the start.
fn manifest(site: &Site, count: usize, value: &str) -> Result<PathBuf> {
    let options = json!({"Entrypoint": ["/bin/busybox", "sleep", "1000000"], "StopSignal": "SIGKILL"});
    let module = |index: usize| {
        let env = if index + 1 == count { json!({"VALUE": {"value": value}}) } else { json!({}) };
        let settings = json!({"image": IMAGE, "createOptions": options.to_string()});
        (name(index), json!({"settings": settings, "env": env, "imagePullPolicy": "never"}))
    };
    let modules: serde_json::Map<String, Value> = (0..count).map(module).collect();
    let document = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}}
    }});
    let file = site.dir.join(format!("modules-{count}-{value}.json"));
    std::fs::write(&file, document.to_string())?;
    Ok(file)
}

async fn plan(site: &Site, manifest: &Path) -> Result<()> {
    let file = manifest.to_str().context("the path is not UTF-8")?;
    let (code, out, error) = run(&mut site.agent_command(&["plan", file])?).await?;
    ensure!(code == 0 && out.trim() == "nothing to do", "edge-agent plan exited {code}: {out} {error}");
    Ok(())
}

/// The ids of the containers that run on the modules' network.
async fn containers(site: &Site) -> Result<BTreeSet<String>> {
    let filter = format!("network={}", site.network);
    let listed = docker(&["ps", "--quiet", "--no-trunc", "--filter", &filter]).await?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// The same containers by hand, one after the other.
async fn plain(site: &Site) -> Result<Duration> {
    let since = Instant::now();
    for index in 0..MANY {
        let options = ["run", "--detach", "--name", &name(index), "--network", &site.network];
        let command = ["--entrypoint", "/bin/busybox", IMAGE, "sleep", "1000000"];
        docker(&[&options[..], &command].concat()).await?;
    }
    let took = since.elapsed();
    let names: Vec<String> = (0..MANY).map(name).collect();
    let mut remove = vec!["rm", "--force"];
    remove.extend(names.iter().map(String::as_str));
    docker(&remove).await?;
    Ok(took)
}

/// Modules, PSS in kB, and the share of one core in percent, at idle.
async fn cost(site: &Site, count: usize) -> Result<(usize, u64, f64)> {
    let pss = settled(site.agent_id()?).await?;
    let before = site.agent_cpu()?;
    tokio::time::sleep(IDLE).await;
    let used = site.agent_cpu()?.saturating_sub(before);
    Ok((count, pss, used.as_secs_f64() / IDLE.as_secs_f64() * 100.0))
}
