//! The metrics of both programs as a real Prometheus scrapes them, and each query of the Grafana dashboard as Prometheus answers it. No
//! containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edge_core::metrics::names::ALL;
use edge_core::metrics::{Exposer, Metric};
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::leaf::Leaf;
use site_tests::port::free_port;
use site_tests::process::Process;
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;
use test_needs::Need;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const NEEDS: [Need; 2] = [Need::Program("prometheus"), Need::Program("promtool")];
const DASHBOARD: &str = include_str!("../../docs/operating/grafana-dashboard.json");
/// In the description of a panel whose queries have no answer in a site that is well.
const EMPTY_IN_HEALTH: &str = "Empty while";
/// A device that is there, and the beginning of ids and paths that an attacker invents.
const DEVICE: &str = "press-of-metrics";
const INVENTED: &str = "invented-";

async fn scrape(port: u16) -> Result<String> {
    let response = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    Ok(response.text().await?)
}

/// A Prometheus that scrapes both programs every two seconds: so long may a scrape take, too.
async fn prometheus(dir: &Path, site: &Site) -> Result<(Process, u16)> {
    let port = free_port()?;
    let job = |name: &str, port: u16| json!({"job_name": name, "static_configs": [{"targets": [format!("127.0.0.1:{port}")]}]});
    // JSON is YAML.
    let config = json!({
        "global": {"scrape_interval": "2s"},
        "scrape_configs": [job("edge-agent", site.gateway_metrics), job("central", site.central_metrics)],
    });
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, config.to_string())?;
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let process = Process::start("prometheus", command, &dir.join("prometheus.log"))?;
    process.line("Server is ready to receive web requests", STEP).await?;
    Ok((process, port))
}

/// The answer of Prometheus to a query: the values, by their labels.
async fn query(port: u16, expression: &str) -> Result<Vec<(Value, f64)>> {
    let url = format!("http://127.0.0.1:{port}/api/v1/query");
    let answer = reqwest::Client::new().get(url).query(&[("query", expression)]).send().await?;
    let answer: Value = answer.json().await?;
    ensure!(answer["status"] == "success", "{expression}: {answer}");
    let samples = answer["data"]["result"].as_array().context("the result is a list")?;
    let value = |sample: &Value| {
        let value = sample["value"][1].as_str().context("a value is a text")?.parse()?;
        Ok((sample["metric"].clone(), value))
    };
    samples.iter().map(value).collect()
}

/// A query of the dashboard.
struct Panel {
    expression: String,
    has_data_in_health: bool,
}

/// The queries, with the variables replaced as Grafana does.
fn panels(site: &Site) -> Vec<Panel> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut panels = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let description = panel["description"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$gateway", &format!("127.0.0.1:{}", site.gateway_metrics))
                .replace("$central", &format!("127.0.0.1:{}", site.central_metrics))
                .replace("$__rate_interval", "1m");
            assert!(!expression.contains('$'), "a variable that this test does not know: {expression}");
            panels.push(Panel { expression, has_data_in_health: !description.starts_with(EMPTY_IN_HEALTH) });
        }
    }
    assert!(panels.len() > 40, "the dashboard was not read rightly");
    panels
}

/// What Prometheus' linter says of a scrape.
async fn lint(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.kill_on_drop(true).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let output = promtool.wait_with_output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// Each metric of a program is in its scrape, with its help and type, and nothing else is.
fn check_names(text: &str, program: Exposer) {
    let exposed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let known: Vec<&&Metric> = ALL.iter().filter(|metric| metric.exposer.includes(program)).collect();
    for metric in &known {
        let line = format!("{} {}", metric.name, metric.kind.as_str());
        assert!(exposed.contains(&line.as_str()), "{program:?} does not expose {line}");
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
    }
    assert_eq!(exposed.len(), known.len(), "{exposed:?}");
}

/// Asks both programs for what nobody has: devices, users, paths and methods.
async fn invent(site: &Site) {
    for number in 0..40 {
        let name = format!("{INVENTED}{number}");
        let user = format!("localhost/{name}/?api-version=2021-04-12");
        let login = Login { client_id: name.clone(), account: Some((user, "password".to_owned())) };
        login.open(site.gateway_mqtt).await.unwrap_err();
        let user = Login { client_id: name.clone(), account: Some((name.clone(), "password".to_owned())) };
        user.open(site.gateway_mqtt).await.unwrap_err();
        let http = reqwest::Client::new();
        for path in [format!("/api/devices/{name}"), format!("/api/{name}"), format!("/{name}")] {
            let url = format!("http://{}{path}?api-version=2022-07-31", site.http);
            http.get(&url).header("Authorization", site.token()).send().await.unwrap();
            let method = reqwest::Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
            http.request(method, url).send().await.unwrap();
        }
    }
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_both_programs_and_answers_each_query_of_the_dashboard() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "metrics-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    site.keep_for(7200).await.unwrap();
    let mut leaf = Leaf::start(site.add_leaf(DEVICE, Duration::from_millis(50)).await.unwrap());
    leaf.acknowledged_more(20, STEP).await.unwrap();

    let (process, port) = prometheus(dir.path(), &site).await.unwrap();
    let panels = panels(&site);
    eventually("each query of the dashboard has data", STEP, || async {
        for panel in &panels {
            let values = query(port, &panel.expression).await?;
            let has_data = !values.is_empty() && values.iter().all(|(_, value)| value.is_finite());
            ensure!(has_data || !panel.has_data_in_health, "{}: {values:?}", panel.expression);
        }
        Ok(Some(()))
    })
    .await
    .unwrap();

    // What it scraped is what happened.
    let acknowledged = leaf.seen().acknowledged.len() as f64;
    for expression in [
        "sum(edgehub_messages_received_total{id=\"leaf devices\"})",
        "sum(edgehub_messages_sent_total{to=\"upstream\"})",
        "sum(lineside_queue_stored_total{queue=\"upstream\"})",
        "sum(edgehub_message_send_duration_seconds_count)",
        "sum(lineside_ingest_messages_total{result=\"stored\"})",
    ] {
        eventually(expression, STEP, || async {
            let values = query(port, expression).await?;
            Ok(values.iter().any(|(_, value)| *value >= acknowledged).then_some(()))
        })
        .await
        .unwrap();
    }
    // A scrape that took too long says so until the next one.
    eventually("both programs are up", STEP, || async {
        Ok((query(port, "up == 1").await?.len() == 2).then_some(()))
    })
    .await
    .unwrap();
    process.kill().await.unwrap();

    invent(&site).await;
    for (port, program) in
        [(site.gateway_metrics, Exposer::EdgeAgent), (site.central_metrics, Exposer::Central)]
    {
        let text = scrape(port).await.unwrap();
        check_names(&text, program);
        assert!(!text.to_lowercase().contains(INVENTED) && !text.contains(DEVICE), "{text}");
        assert!(series(&text) < 400, "{}", series(&text));
        let remarks = lint(&text).await;
        // The names are Azure's.
        let is_of_azure = |line: &&str| {
            line.starts_with("edgeAgent_")
                && line.ends_with("should be written in 'snake_case' not 'camelCase'")
        };
        let others: Vec<&str> = remarks.lines().filter(|line| !is_of_azure(line)).collect();
        assert!(others.is_empty(), "promtool check metrics: {others:?}");
    }
    leaf.stop().await.unwrap();
    site.end(false).await.unwrap();
}
