//! central with a fleet: what a list of 100,000 devices takes to read, what 2,000 connected gateways take in memory, and how long
//! a message needs from its device to a reader of the event stream. No gateway program runs: the connections are the benchmark's.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};
use serde_json::json;
use tokio::task::JoinSet;

use super::peer::settled;
use super::table::{Spread, head, ratio};
use crate::crowd::each;
use crate::leaf::{LeafOptions, trust};
use crate::site::Site;

/// Devices of the list.
const DEVICES: usize = 100_000;
/// Gateways that are connected.
const GATEWAYS: usize = 2_000;
/// How often each page of the list is asked for.
const READS: usize = 15;
/// Messages of the event stream's run: ten seconds of 1,000 a second.
const MESSAGES: u64 = 10_000;
/// Between two messages of that run.
const EVERY: Duration = Duration::from_millis(1);
/// How long the last of them may be on its way.
const ARRIVES: Duration = Duration::from_secs(60);
/// The device whose events are read.
const WATCHED: &str = "watched";

/// Runs the three, on a central of their own. `LINESIDE_FLEET_DEVICES` asks for another number of devices.
///
/// # Errors
/// When central refuses a device, or an event does not arrive.
pub async fn run(dir: &Path) -> Result<()> {
    let requested = std::env::var("LINESIDE_FLEET_DEVICES").ok().and_then(|text| text.parse().ok());
    let devices: usize = requested.unwrap_or(DEVICES);
    let mut site = Site::new(dir, "fleet", false)?;
    site.start_central().await?;
    events(&site).await?;
    gateways(&site).await?;
    lists(&site, devices).await?;
    site.end(false).await
}

/// A device or gateway at central's own listener.
async fn connection(site: &Site, id: &str) -> Result<LeafOptions> {
    Ok(LeafOptions {
        identity: id.parse()?,
        key: base64::Engine::decode(&base64::engine::general_purpose::STANDARD, site.key(id).await?)?,
        hub_name: "localhost".into(),
        port: site.central_mqtts,
        ca: Some(trust(&std::fs::read(site.central_ca())?)?),
        interval: Duration::ZERO,
        padding: 0,
    })
}

/// Polls until the connection is accepted.
async fn connected(events: &mut EventLoop) -> Result<()> {
    loop {
        if let Event::Incoming(Packet::ConnAck(_)) = events.poll().await? {
            return Ok(());
        }
    }
}

/// Registers gateways, connects them, each with the subscription and the greeting of the link, and reads central's memory.
async fn gateways(site: &Site) -> Result<()> {
    let rest = site.rest()?.clone();
    let names: Vec<String> = (0..GATEWAYS).map(|index| format!("gateway-{index:04}")).collect();
    each(names.clone(), |name| {
        let rest = rest.clone();
        async move { rest.put(&format!("/api/devices/{name}"), &json!({"type": ["edge"]})).await }
    })
    .await?;
    let process = site.central_id()?;
    let before = settled(process).await?;
    let mut held = JoinSet::new();
    let mut clients = Vec::with_capacity(GATEWAYS);
    for name in &names {
        let (client, mut events): (AsyncClient, _) = connection(site, name).await?.client(10);
        connected(&mut events).await.with_context(|| format!("{name} connects"))?;
        client.subscribe("$ls/#", QoS::AtLeastOnce).await?;
        client.publish("$ls/hello", QoS::AtLeastOnce, false, json!({"version": 1}).to_string()).await?;
        held.spawn(async move { while events.poll().await.is_ok() {} });
        clients.push(client);
    }
    let after = settled(process).await?;
    ensure!(held.try_join_next().is_none(), "a gateway's connection ended");
    let states = rest.get("/api/ext/grid/counts?kind=gateways").await?;
    println!("\nMemory of central with {GATEWAYS} gateways connected over TLS (PSS)\n");
    println!("| | MB |\n|---|---|");
    println!("| before they connect | {:.1} |", before as f64 / 1024.0);
    println!("| connected | {:.1} |", after as f64 / 1024.0);
    println!("<!-- states: {} -->", states["byVerdict"]);
    ratio("fleet-2000-gateways-mb", after as f64 / 1024.0, "256 or less; a figure, no ratio");
    Ok(())
}

/// Registers many devices and reads pages of their list.
async fn lists(site: &Site, devices: usize) -> Result<()> {
    let rest = site.rest()?.clone();
    let since = Instant::now();
    each((0..devices).collect(), |index: usize| {
        let rest = rest.clone();
        async move {
            let name = json!({"displayName": format!("Press {index} of hall {}", index % 97)});
            rest.put(&format!("/api/devices/press-{index:06}"), &name).await
        }
    })
    .await?;
    println!("\n{devices} devices registered in {:.0} s, each by a request", since.elapsed().as_secs_f64());
    let what = format!("The list of {devices} devices, {READS} requests each");
    head(&what, "ms");
    let pages = [
        ("first 100 rows", "/api/ext/grid?kind=devices&limit=100"),
        ("first 100 rows by name, descending", "/api/ext/grid?kind=devices&limit=100&sort=name&order=desc"),
        ("first 100 rows by when last seen", "/api/ext/grid?kind=devices&limit=100&sort=lastSeen&order=desc"),
        ("counts of all", "/api/ext/grid/counts?kind=devices"),
        ("search for a word that few have", "/api/ext/grid?kind=devices&limit=100&search=press-0999"),
        ("search for a word that none has", "/api/ext/grid?kind=devices&limit=100&search=no-such-thing"),
        ("of one state", "/api/ext/grid?kind=devices&limit=100&verdict=offline"),
    ];
    let mut slowest: f64 = 0.0;
    for (name, path) in pages {
        let mut times = Vec::with_capacity(READS);
        for _ in 0..READS {
            let since = Instant::now();
            rest.get(path).await?;
            times.push(since.elapsed().as_secs_f64() * 1000.0);
        }
        let spread = Spread::of(times);
        spread.row(name, 1);
        slowest = slowest.max(spread.median);
    }
    ratio("fleet-list-slowest-ms", slowest, "first rows 300, filters 500; a figure, no ratio");
    Ok(())
}

/// One device sends 1,000 messages a second, and a reader of the event stream says when each has come.
async fn events(site: &Site) -> Result<()> {
    site.rest()?.put(&format!("/api/devices/{WATCHED}"), &json!({})).await?;
    let url = format!("http://{}/api/ext/events?device={WATCHED}", site.http);
    let mut stream = reqwest::Client::new()
        .get(url)
        .header("Authorization", site.token())
        .send()
        .await?
        .error_for_status()?;
    let (client, mut connection) = connection(site, WATCHED).await?.client(1_000);
    connected(&mut connection).await?;
    let since = Instant::now();
    let driver = tokio::spawn(async move { while connection.poll().await.is_ok() {} });
    let sender = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        for number in 0..MESSAGES {
            ticks.tick().await;
            let body = json!({"n": number, "sentUs": since.elapsed().as_micros() as u64}).to_string();
            let topic = format!("devices/{WATCHED}/messages/events/");
            client.publish(topic, QoS::AtLeastOnce, false, body).await?;
        }
        Ok::<_, anyhow::Error>(client)
    });
    let (mut text, mut times, mut last) = (String::new(), Vec::new(), None);
    let reads = async {
        while last != Some(MESSAGES - 1) {
            let piece = stream.chunk().await?.context("the event stream ended")?;
            let now = since.elapsed().as_secs_f64() * 1000.0;
            text.push_str(std::str::from_utf8(&piece)?);
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let Some(data) = event.lines().find_map(|line| line.strip_prefix("data:")) else { continue };
                let data: serde_json::Value = serde_json::from_str(data)?;
                let values = &data["values"];
                if let (Some(number), Some(sent)) = (values["n"].as_u64(), values["sentUs"].as_f64()) {
                    last = Some(number);
                    times.push(now - sent / 1000.0);
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(ARRIVES, reads).await.context("the last message came in no event")??;
    let client = sender.await??;
    let seconds = since.elapsed().as_secs_f64();
    client.disconnect().await?;
    driver.await?;
    let shown = times.len();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "\nFrom a device to a reader of the event stream: {MESSAGES} messages over TLS in {seconds:.1} s, \
         {shown} of them in an event of their own\n\n| | ms p50 | p99 | max |\n|---|---|---|---|"
    );
    println!("| central | {:.1} | {:.1} | {:.1} |", at(0.5), at(0.99), at(1.0));
    ratio("fleet-event-p99-ms", at(0.99), "1000 or less; a figure, no ratio");
    Ok(())
}
