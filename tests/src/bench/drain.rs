//! Drain: how fast a backlog goes up. To central, which stores each message once; to an upstream that only acknowledges; and to
//! central at the end of a line of 600 ms.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::durable::topic;
use super::free::{MANY, PAYLOAD_BYTES};
use super::load::Load;
use super::table::ratio;
use crate::line::{Line, Shape};
use crate::null_sink::{NullCertificate, NullSink};
use crate::raw::Login;
use crate::rest::eventually;
use crate::site::Site;

/// A backlog; a gateway that was away for some hours has one.
const MESSAGES: u64 = 1_000_000;
/// The one on the long line.
const MESSAGES_FAR: u64 = 200_000;
const ROUND_TRIP: Duration = Duration::from_millis(600);
/// How long a backlog may take.
const DRAIN: Duration = Duration::from_secs(900);

/// Runs the three. `LINESIDE_DRAIN_MESSAGES` asks for another number of messages.
///
/// # Errors
/// When a message does not arrive.
pub async fn run(dir: &Path) -> Result<()> {
    let requested = std::env::var("LINESIDE_DRAIN_MESSAGES").ok().and_then(|text| text.parse().ok());
    let messages = requested.unwrap_or(MESSAGES);
    println!(
        "\nDrain: a backlog of 50 devices' messages of {PAYLOAD_BYTES} B on disk goes up over TLS\n\n\
         | | messages | s | messages/s |\n|---|---|---|---|"
    );
    let null = to_nobody(&dir.join("null"), messages).await?;
    let central = to_central(&dir.join("near"), messages, None).await?;
    let line = Line::new().context("the line of 600 ms")?;
    line.shape(Shape::of(ROUND_TRIP, 0.0));
    let far = to_central(&dir.join("far"), messages.min(MESSAGES_FAR), Some(line)).await?;
    ratio("drain-central-to-null-sink", central / null, "none");
    ratio("drain-600ms-to-loopback", far / central, "none");
    Ok(())
}

async fn to_nobody(dir: &Path, messages: u64) -> Result<f64> {
    let mut site = Site::new(dir, "drain-null", false)?;
    let ca = dir.join("null-ca.pem");
    let certificate = NullCertificate::make(&ca)?;
    site.init_with(
        &format!("HostName=localhost:{};DeviceId=drain-null;SharedAccessKey=bnVsbA==", site.central_mqtts),
        &ca,
    )
    .await?;
    let stored = fill(&mut site, messages).await?;
    let sink = NullSink::start(site.central_mqtts, &certificate)?;
    let rate = drain(&mut site, stored, "an upstream that only acknowledges").await?;
    ensure!(sink.acknowledged() >= stored, "of {stored} messages {} arrived", sink.acknowledged());
    site.end(false).await?;
    Ok(rate)
}

async fn to_central(dir: &Path, messages: u64, line: Option<Line>) -> Result<f64> {
    let gateway = if line.is_some() { "drain-far" } else { "drain-near" };
    let mut site = Site::new(dir, gateway, false)?;
    if let Some(line) = &line {
        site.behind(line, &line.far.to_string());
    }
    site.start_central().await?;
    site.init_gateway().await?;
    site.stop_central().await?;
    let stored = fill(&mut site, messages).await?;
    site.start_central().await?;
    let what = match &line {
        None => "central, which stores them".to_owned(),
        Some(_) => format!("central, at the end of a line of {ROUND_TRIP:?}"),
    };
    let rate = drain(&mut site, stored, &what).await?;
    let lines = site.agent_log();
    site.end(false).await?;
    let ended = site.agent_log();
    let window =
        ended.lines().skip(lines.lines().count()).find(|line| line.contains("connection to central ended"));
    println!("<!-- {} -->", window.unwrap_or("the log says nothing of the window"));
    Ok(rate)
}

/// Fills the gateway's queue while nobody takes anything from it; gives how many wait. The daemon does not run after it.
async fn fill(site: &mut Site, messages: u64) -> Result<u64> {
    site.start_agent().await?;
    // It is ready for devices a moment before it is for its command line.
    eventually("the daemon's control socket", DRAIN, || async { site.waiting().await.map(Some) }).await?;
    let ids: Vec<String> = (0..MANY).map(|index| format!("drain-{index:02}")).collect();
    let logins: Vec<Login> = site.add_here(&ids).await?;
    while site.waiting().await? < messages {
        let load = Load {
            publishers: logins.iter().map(|login| (login.clone(), topic(&login.client_id))).collect(),
            subscribers: Vec::new(),
            qos: 1,
            window: 100,
            lag_max: u64::MAX,
            payload_bytes: PAYLOAD_BYTES,
            length: Duration::from_millis(200),
        };
        load.run(site.gateway_mqtt).await?;
    }
    let stored = site.waiting().await?;
    site.stop_agent().await?;
    Ok(stored)
}

/// Starts the daemon and takes the time until nothing waits.
async fn drain(site: &mut Site, stored: u64, to: &str) -> Result<f64> {
    site.start_agent().await?;
    let since = Instant::now();
    eventually("the backlog is gone", DRAIN, || async { Ok((site.waiting().await? == 0).then_some(())) })
        .await?;
    let took = since.elapsed().as_secs_f64();
    let rate = stored as f64 / took;
    println!("| {to} | {stored} | {took:.1} | {rate:.0} |");
    Ok(rate)
}
