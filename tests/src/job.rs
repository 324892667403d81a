//! The main job, proven step by step: central, a gateway, a manifest that becomes containers, telemetry, alarms, twins,
//! commands, an outage, a SIGKILL, and a smaller manifest. Each step prints `PASS` or `FAIL` with what was shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use schemas::timestamp::parse_rfc3339;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::STEP;
use crate::docker;
use crate::leaf::{Leaf, Seen};
use crate::rest::{Rest, eventually};
use crate::site::Site;

/// How long central is away in the outage step.
const OUTAGE: Duration = Duration::from_secs(20);

/// The steps so far, printed as they end.
#[derive(Default)]
pub struct Report {
    failed: usize,
    passed: usize,
}

impl Report {
    /// Runs a step and prints `PASS` or `FAIL` with its time and its figures, which are the text that the step returns.
    /// Returns the step's value when it passed.
    async fn step<T>(&mut self, what: &str, work: impl Future<Output = Result<(T, String)>>) -> Option<T> {
        let since = Instant::now();
        let result = with_progress(what, work).await;
        let took = since.elapsed().as_secs_f64();
        match result {
            Ok((value, figures)) => {
                self.passed += 1;
                let separator = if figures.is_empty() { "" } else { ": " };
                say(&format!("PASS {took:5.1} s  {what}{separator}{figures}"));
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                say(&format!("FAIL {took:5.1} s  {what}: {error:#}"));
                None
            }
        }
    }

    /// Returns true if there was a step and every step passed.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

/// Runs a step and shows that it is under way: a line that counts seconds on a terminal, a line every 15 s elsewhere.
async fn with_progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    use std::io::IsTerminal as _;
    let mut work = std::pin::pin!(work);
    let is_terminal = std::io::stdout().is_terminal();
    let period = Duration::from_secs(if is_terminal { 1 } else { 15 });
    let since = Instant::now();
    let mut ticks = tokio::time::interval_at(since + period, period);
    loop {
        tokio::select! {
            done = &mut work => {
                if is_terminal {
                    write("\r\x1b[2K");
                }
                return done;
            }
            _ = ticks.tick() => {
                let secs = since.elapsed().as_secs();
                if is_terminal {
                    write(&format!("\r\x1b[2K...  {secs:5} s  {what}"));
                } else {
                    say(&format!("...  {secs:5} s  {what}"));
                }
            }
        }
    }
}

/// Prints a line. A terminal that is gone does not end the demo: it has a site to stop.
pub fn say(line: &str) {
    write(&format!("{line}\n"));
}

fn write(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A count with a comma between thousands.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Starts the site up to running modules and two publishing leaf devices.
pub async fn start(site: &mut Site, manifests: &Path, report: &mut Report) -> Result<Vec<Leaf>> {
    let address = site.http;
    report
        .step("central serves", async {
            site.start_central().await?;
            Ok(((), format!("http://{address}")))
        })
        .await
        .context("central is needed to go on")?;
    let rest = site.rest()?.clone();

    report
        .step(&format!("the gateway {} connects to central", site.gateway), async {
            site.init_gateway().await?;
            site.start_agent().await?;
            site.gateway_connected(STEP).await?;
            Ok(((), String::new()))
        })
        .await
        .context("the gateway is needed to go on")?;

    report
        .step("a manifest assigned through REST becomes running containers", async {
            assign(&rest, &site.gateway, "line-1", &manifests.join("demo.json")).await?;
            let running = containers_are(&site.network, &["filter", "sensor"]).await?;
            Ok(((), running.keys().cloned().collect::<Vec<_>>().join(", ")))
        })
        .await;

    let mut leaves = Vec::new();
    report
        .step("telemetry of leaf devices arrives in central over TLS", async {
            for id in ["press-1", "press-2"] {
                let mut leaf = Leaf::start(site.add_leaf(id, Duration::from_millis(50)).await?);
                leaf.acknowledged_more(5, STEP).await?;
                leaves.push(leaf);
            }
            let count = eventually("leaf telemetry in central", STEP, || async {
                let messages = rest.messages("press-1").await?;
                Ok((messages.len() >= 5).then_some(messages.len()))
            })
            .await?;
            Ok(((), format!("{} messages of press-1", grouped(count))))
        })
        .await;
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

    report
        .step("a sensor's reading becomes an alarm of the filter module and arrives in central", async {
            let alarm = eventually("an alarm of the filter in central", STEP, || async {
                let messages = rest.messages(&gateway).await?;
                Ok(messages
                    .into_iter()
                    .find(|m| m["module"] == "filter" && m["body"]["machine"]["temperature"].is_number()))
            })
            .await?;
            Ok(((), format!("{} degrees", alarm["body"]["machine"]["temperature"])))
        })
        .await;
    report
        .step("a desired property set in central changes the sensor's interval", async {
            twin_change(&rest, &gateway).await?;
            Ok(((), "1000 ms to 200 ms".to_owned()))
        })
        .await;
    report
        .step("a command to the sensor is answered and stands in the history", async {
            Ok(((), command(&rest, &gateway).await?))
        })
        .await;
    report
        .step("central is away for 20 s while leaf devices publish", async {
            site.stop_central().await?;
            for leaf in &mut leaves {
                leaf.acknowledged_more(20, STEP).await?;
            }
            // The outage itself is the thing shown here: its length is the point, not a wait for something.
            tokio::time::sleep(OUTAGE).await;
            for leaf in &mut leaves {
                leaf.acknowledged_more(20, STEP).await?;
            }
            site.start_central().await?;
            site.gateway_connected(STEP).await?;
            Ok(((), all_exactly_once(&rest, &leaves).await?))
        })
        .await;
    report
        .step("the agent is killed with SIGKILL while leaf devices publish", async {
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
            let figures = all_exactly_once(&rest, &leaves).await?;
            ensure!(leaves.iter().all(|leaf| leaf.seen().connections > 1), "a leaf never noticed the kill");
            ensure!(docker::running(&site.network).await? == before, "containers changed: {before:?}");
            Ok(((), format!("{figures}; no container restarted")))
        })
        .await;
    report
        .step("a manifest without the filter removes just the filter", async {
            let before = docker::running(&site.network).await?;
            assign(&rest, &gateway, "line-1-without-filter", &manifests.join("demo-without-filter.json"))
                .await?;
            let after = containers_are(&site.network, &["sensor"]).await?;
            ensure!(
                before.get("sensor") == after.get("sensor"),
                "the sensor was touched: {before:?} {after:?}"
            );
            Ok(((), "the sensor runs on".to_owned()))
        })
        .await;
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

/// [`exactly_once`] of the devices `press-1`, `press-2`, …, as figures for the report.
async fn all_exactly_once(rest: &Rest, leaves: &[Leaf]) -> Result<String> {
    let mut acknowledged = 0;
    for (index, leaf) in leaves.iter().enumerate() {
        acknowledged += exactly_once(rest, &format!("press-{}", index + 1), || leaf.seen()).await?;
    }
    Ok(format!("{} acknowledged messages, 0 lost, 0 twice", grouped(acknowledged)))
}

/// Waits until every number that `seen` says was acknowledged is stored, once and in order, and returns how many those are.
pub async fn exactly_once(rest: &Rest, device: &str, seen: impl Fn() -> Seen) -> Result<usize> {
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
    Ok(goal.len())
}

async fn twin_change(rest: &Rest, gateway: &str) -> Result<()> {
    let path = format!("/api/devices/{gateway}/modules/sensor/properties");
    rest.patch(&path, &json!({"intervalMs": 200})).await?;
    eventually("the sensor reports intervalMs 200", STEP, || async {
        let twin = rest.get(&format!("/api/ext/devices/{gateway}/twin?module=sensor")).await?;
        Ok((twin["reported"]["intervalMs"] == 200).then_some(()))
    })
    .await?;
    // The sensor's own clock says when it read. At the former interval no two readings are less than a second apart, on no machine.
    let read_at = || async {
        let messages = rest.messages(gateway).await?;
        let of_sensor = messages.iter().filter(|message| message["module"] == "sensor");
        let times = of_sensor.filter_map(|message| parse_rfc3339(message["body"]["timeCreated"].as_str()?));
        Ok::<Vec<u64>, anyhow::Error>(times.collect())
    };
    let before = read_at().await?.len();
    let times = eventually("40 further readings", STEP, || async {
        let times = read_at().await?.split_off(before);
        Ok((times.len() >= 40).then_some(times))
    })
    .await?;
    let soon = times.windows(2).filter(|pair| pair[1].abs_diff(pair[0]) < 900).count();
    ensure!(soon >= 20, "of {} readings {soon} came soon after another: {times:?}", times.len());
    Ok(())
}

/// Sends a command and returns its answer.
async fn command(rest: &Rest, gateway: &str) -> Result<String> {
    let path = format!("/api/devices/{gateway}/modules/sensor/commands/reset");
    let answer = rest.post(&path, &json!({"request": {"reason": "demo"}, "responseTimeout": 60})).await?;
    ensure!(answer["responseCode"] == 200 && answer["response"]["reset"] == true, "the answer was {answer}");
    let history = rest.get(&path).await?;
    let Some(history) = history["value"].as_array() else { bail!("the history was {history}") };
    ensure!(
        history.iter().any(|row| row["id"] == answer["id"] && row["responseCode"] == 200),
        "the history does not hold {answer}: {history:?}"
    );
    Ok(answer["response"].to_string())
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn counts_have_a_comma_between_thousands() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (4312, "4,312"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(count), text);
        }
    }
}
