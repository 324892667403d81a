//! Telemetry: fifty publishers at QoS 1. A gateway acknowledges what is on disk, mosquitto what is in memory, and neither has
//! anybody to send it to: central is away. Once more with central, which stores it in the same seconds on the same two
//! cores. Then how fast the gateway's backlog goes up.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::free::{MANY, PAYLOAD_BYTES, Parts};
use super::load::{Load, Outcome};
use super::peer::{Mosquitto, anonymous};
use super::table::{ROUNDS, Spread, head, ratio};
use crate::raw::Login;
use crate::rest::eventually;
use crate::site::Site;

/// Messages of each publisher in flight.
const WINDOW: u16 = 100;
/// How long one round sends. What a round stores has to go up to central before the next.
const LENGTH: Duration = Duration::from_secs(2);
/// How long that may take.
const DRAIN: Duration = Duration::from_secs(300);
/// How long the gateway may take to find central again.
const CONNECTED: Duration = Duration::from_secs(60);

/// A device's telemetry topic with an empty bag.
pub fn topic(device: &str) -> String {
    format!("devices/{device}/messages/events/")
}

/// Runs it, each side in turn.
///
/// # Errors
/// When a side acknowledges nothing any more, or the backlog does not go up.
pub async fn run(site: &mut Site, parts: &Parts<'_>, dir: &Path) -> Result<()> {
    let theirs: Vec<Login> = (0..MANY).map(|index| anonymous(&format!("bench-{index:02}"))).collect();
    let (mut our_rates, mut their_rates, mut drains) = (Vec::new(), Vec::new(), Vec::new());
    let (mut persistent_rates, mut beside_central) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let beside = outcome(&parts.ours[..MANY], parts.port).await?;
        beside_central.push(beside.sent as f64 / beside.took.as_secs_f64());
        drained(site).await?;
        site.stop_central().await?;
        let ours = outcome(&parts.ours[..MANY], parts.port).await?;
        our_rates.push(ours.sent as f64 / ours.took.as_secs_f64());
        site.start_central().await?;
        site.gateway_connected(CONNECTED).await?;
        // The link must not take the machine from mosquitto's round: it goes up first, which is a figure of its own.
        drains.push(drained(site).await?);
        let peer = outcome(&theirs, parts.mosquitto.port).await?;
        their_rates.push(peer.sent as f64 / peer.took.as_secs_f64());
        // A new one for each round: its database grows with what waits for the absent session.
        let persistent = Mosquitto::start_persistent(dir).await?;
        anonymous("bench-absent").leave_session(persistent.port, "devices/+/messages/events/#").await?;
        let peer = outcome(&theirs, persistent.port).await?;
        persistent_rates.push(peer.sent as f64 / peer.took.as_secs_f64());
        persistent.stop().await?;
        std::fs::remove_dir_all(dir.join("mosquitto-data"))?;
    }
    let (ours, theirs) = (Spread::of(our_rates), Spread::of(their_rates));
    let what = format!(
        "QoS 1 telemetry, {MANY} publishers, {PAYLOAD_BYTES} B, {WINDOW} in flight each, {ROUNDS} rounds of \
         {LENGTH:?}; mosquitto has no subscriber, and the gateway's central is away"
    );
    head(&what, "acknowledged/s");
    ours.row("edge-agent, on disk before PUBACK", 0);
    let beside = Spread::of(beside_central);
    beside.row("the same, while central gets and stores it on the same cores", 0);
    theirs.row("mosquitto, in memory", 0);
    let persistent = Spread::of(persistent_rates);
    persistent.row("mosquitto, kept for an absent session, its database written once a second", 0);
    ratio("durable-telemetry-50", ours.median / theirs.median, "3 or more");
    ratio("durable-telemetry-50-beside-central", beside.median / theirs.median, "none");
    ratio("durable-telemetry-50-to-persistence", ours.median / persistent.median, "none");

    head("Drain: the backlog of each of those rounds goes up to central, which stores it", "messages/s");
    Spread::of(drains).row("edge-agent to central", 0);
    Ok(())
}

/// Waits until nothing waits any more; messages a second from now until then.
async fn drained(site: &Site) -> Result<f64> {
    let (left, since) = (site.waiting().await?, Instant::now());
    eventually("the backlog is in central", DRAIN, || async {
        Ok((site.waiting().await? == 0).then_some(()))
    })
    .await?;
    Ok(left as f64 / since.elapsed().as_secs_f64())
}

async fn outcome(logins: &[Login], port: u16) -> Result<Outcome> {
    let load = Load {
        publishers: logins.iter().map(|login| (login.clone(), topic(&login.client_id))).collect(),
        subscribers: Vec::new(),
        qos: 1,
        window: WINDOW,
        lag_max: u64::MAX,
        payload_bytes: PAYLOAD_BYTES,
        length: LENGTH,
    };
    load.run(port).await
}
