//! The main job, proven step by step: central, a gateway, a manifest that becomes containers, telemetry, alarms, twins,
//! commands, an outage, a SIGKILL, and a smaller manifest. Each step prints `PASS` or `FAIL` with what was shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::docker;
use crate::leaf::{Leaf, Seen};
use crate::rest::{Rest, eventually};
use crate::site::Site;

/// How long a step may take.
const STEP: Duration = Duration::from_secs(90);
/// How long central is away in the outage step.
const OUTAGE: Duration = Duration::from_secs(20);

/// The steps so far.
#[derive(Default)]
pub struct Report {
    failed: usize,
    passed: usize,
}

impl Report {
    /// Notes and prints one step; gives its value when it passed.
    fn step<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => {
                self.passed += 1;
                println!("PASS {what}");
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL {what}: {error:#}");
                None
            }
        }
    }

    /// Whether every step passed, and there was one.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// Starts the site up to running modules and two publishing leaf devices.
pub async fn start(site: &mut Site, manifests: &Path, report: &mut Report) -> Result<Vec<Leaf>> {
    let up = site.start_central().await;
    report.step(&format!("central up at http://{}", site.http), up).context("central is needed to go on")?;
    let rest = site.rest()?.clone();

    let connected = async {
        site.init_gateway().await?;
        site.start_agent().await?;
        site.gateway_connected(STEP).await
    }
    .await;
    report
        .step(&format!("gateway {} connected", site.gateway), connected)
        .context("the gateway is needed")?;

    let running = async {
        assign(&rest, &site.gateway, "line-1", &manifests.join("demo.json")).await?;
        containers_are(&site.network, &["filter", "sensor"]).await
    }
    .await;
    let names = |c: &BTreeMap<String, docker::Container>| c.keys().cloned().collect::<Vec<_>>().join(", ");
    let shown = running.as_ref().map(names).unwrap_or_default();
    report.step(&format!("manifest assigned through REST became running containers: {shown}"), running);

    let mut leaves = Vec::new();
    let telemetry = async {
        for id in ["press-1", "press-2"] {
            let mut leaf = Leaf::start(site.add_leaf(id, Duration::from_millis(50)).await?);
            leaf.acknowledged_more(5, STEP).await?;
            leaves.push(leaf);
        }
        eventually("leaf telemetry in central", STEP, || async {
            let messages = rest.messages("press-1").await?;
            Ok((messages.len() >= 5).then_some(messages.len()))
        })
        .await
    }
    .await;
    report.step("leaf telemetry over TLS arrived in central", telemetry);
    Ok(leaves)
}

/// Proves the rest of the main job on a started site.
pub async fn prove(
    site: &mut Site,
    manifests: &Path,
    mut leaves: Vec<Leaf>,
    report: &mut Report,
) -> Result<()> {
    let rest = site.rest()?.clone();
    let gateway = site.gateway.clone();

    let alarm = eventually("an alarm of the filter in central", STEP, || async {
        let messages = rest.messages(&gateway).await?;
        Ok(messages
            .into_iter()
            .find(|m| m["module"] == "filter" && m["body"]["machine"]["temperature"].is_number()))
    })
    .await;
    report.step("sensor -> filter -> central: an alarm came through the module route", alarm);

    report.step("a twin change in central changed the sensor's interval", twin_change(&rest, &gateway).await);
    report.step(
        "a command to the sensor returned its answer and stands in the history",
        command(&rest, &gateway).await,
    );

    let outage = async {
        site.stop_central().await?;
        for leaf in &mut leaves {
            leaf.acknowledged_more(20, OUTAGE).await?;
        }
        // The outage itself is the thing shown here: its length is the point, not a wait for something.
        tokio::time::sleep(OUTAGE).await;
        for leaf in &mut leaves {
            leaf.acknowledged_more(20, OUTAGE).await?;
        }
        site.start_central().await?;
        site.gateway_connected(STEP).await?;
        for (index, leaf) in leaves.iter().enumerate() {
            exactly_once(&rest, &format!("press-{}", index + 1), || leaf.seen()).await?;
        }
        Ok(())
    }
    .await;
    report.step(
        "central away for 20 s while leaves published: every PUBACKed message is there exactly once",
        outage,
    );

    let killed = async {
        let before = docker::running(&site.network).await?;
        for leaf in &mut leaves {
            leaf.acknowledged_more(20, STEP).await?;
        }
        site.kill_agent().await?;
        site.start_agent().await?;
        for leaf in &mut leaves {
            leaf.acknowledged_more(20, STEP).await?;
        }
        site.gateway_connected(STEP).await?;
        for (index, leaf) in leaves.iter().enumerate() {
            ensure!(leaf.seen().connections > 1, "the leaf never noticed the kill");
            exactly_once(&rest, &format!("press-{}", index + 1), || leaf.seen()).await?;
        }
        ensure!(docker::running(&site.network).await? == before, "containers changed: {before:?}");
        Ok(())
    }
    .await;
    report.step("agent SIGKILLed while leaves published: the same, and no container was restarted", killed);

    let without = async {
        let before = docker::running(&site.network).await?;
        assign(&rest, &gateway, "line-1-without-filter", &manifests.join("demo-without-filter.json")).await?;
        let after = containers_are(&site.network, &["sensor"]).await?;
        ensure!(before.get("sensor") == after.get("sensor"), "the sensor was touched: {before:?} {after:?}");
        Ok(())
    }
    .await;
    report.step("a manifest without the filter removed just the filter", without);

    for leaf in leaves {
        leaf.stop().await?;
    }
    Ok(())
}

/// Stores a manifest in central and assigns it to a gateway.
pub async fn assign(rest: &Rest, gateway: &str, id: &str, file: &Path) -> Result<()> {
    let data: Value =
        serde_json::from_slice(&std::fs::read(file).with_context(|| format!("reading {file:?}"))?)?;
    rest.put(&format!("/api/deploymentManifests/{id}"), &json!({"displayName": id, "data": data})).await?;
    rest.patch(&format!("/api/devices/{gateway}"), &json!({"deploymentManifest": {"id": id}})).await?;
    Ok(())
}

/// Waits until exactly these containers run on a network.
pub async fn containers_are(network: &str, names: &[&str]) -> Result<BTreeMap<String, docker::Container>> {
    eventually(&format!("containers {names:?} run"), STEP, || async {
        let running = docker::running(network).await?;
        Ok(running.keys().map(String::as_str).eq(names.iter().copied()).then_some(running))
    })
    .await
}

/// Waits until every number that `seen` says was acknowledged is stored; each stored number must be there once.
pub async fn exactly_once(rest: &Rest, device: &str, seen: impl Fn() -> Seen) -> Result<()> {
    let goal = seen().acknowledged;
    let stored =
        eventually(&format!("{} acknowledged messages of {device} in central", goal.len()), STEP, || async {
            let messages = rest.messages(device).await?;
            let numbers: Vec<u64> = messages.iter().filter_map(|m| m["body"]["n"].as_u64()).collect();
            Ok(goal.is_subset(&numbers.iter().copied().collect()).then_some(numbers))
        })
        .await?;
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for number in &stored {
        *counts.entry(*number).or_default() += 1;
    }
    let twice: Vec<&u64> = counts.iter().filter(|(_, count)| **count > 1).map(|(n, _)| n).collect();
    ensure!(twice.is_empty(), "{device}: stored more than once: {twice:?}");
    ensure!(stored.is_sorted(), "{device}: not in order");
    Ok(())
}

async fn twin_change(rest: &Rest, gateway: &str) -> Result<()> {
    let path = format!("/api/devices/{gateway}/modules/sensor/properties");
    rest.patch(&path, &json!({"intervalMs": 200})).await?;
    eventually("the sensor reports intervalMs 200", STEP, || async {
        let twin = rest.get(&format!("/api/ext/devices/{gateway}/twin?module=sensor")).await?;
        Ok((twin["reported"]["intervalMs"] == 200).then_some(()))
    })
    .await?;
    let count = || async {
        let messages = rest.messages(gateway).await?;
        Ok::<_, anyhow::Error>(messages.iter().filter(|m| m["module"] == "sensor").count())
    };
    // At one message a second, 20 more would take 20 s; at 200 ms they take 4.
    let (before, since) = (count().await?, tokio::time::Instant::now());
    eventually("20 further readings", Duration::from_secs(12), || async {
        Ok((count().await? >= before + 20).then_some(()))
    })
    .await?;
    ensure!(since.elapsed() < Duration::from_secs(12), "20 readings took {:?}", since.elapsed());
    Ok(())
}

async fn command(rest: &Rest, gateway: &str) -> Result<()> {
    let path = format!("/api/devices/{gateway}/modules/sensor/commands/reset");
    let answer = rest.post(&path, &json!({"request": {"reason": "demo"}, "responseTimeout": 20})).await?;
    ensure!(answer["responseCode"] == 200 && answer["response"]["reset"] == true, "the answer was {answer}");
    let history = rest.get(&path).await?;
    let Some(history) = history["value"].as_array() else { bail!("the history was {history}") };
    ensure!(
        history.iter().any(|row| row["id"] == answer["id"] && row["responseCode"] == 200),
        "the history does not hold {answer}: {history:?}"
    );
    Ok(())
}
