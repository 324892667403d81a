//! What an idle connection costs in memory: the difference in PSS over some thousand of them.

use anyhow::{Result, ensure};
use tokio::net::TcpStream;

use super::peer::{Mosquitto, anonymous, settled};
use super::table::ratio;
use crate::crowd::each;
use crate::raw::{self, Login};
use crate::site::Site;

/// Connections of a run.
const CONNECTIONS: usize = 5_000;

/// What a connection costs: when it is just connected, and with one subscription.
struct Cost {
    connected_kb: f64,
    subscribed_kb: f64,
}

/// Runs it on a gateway and a mosquitto that have not had so many clients before: a heap that has grown hides the cost.
///
/// # Errors
/// When a connection is refused.
pub async fn run(site: &Site, mosquitto: &Mosquitto) -> Result<()> {
    let names: Vec<String> = (0..CONNECTIONS).map(|index| format!("idle-{index:04}")).collect();
    let ours = site.add_here(&names).await?;
    let theirs = names.iter().map(|name| anonymous(name)).collect();
    let filter = |login: &Login| format!("devices/{}/messages/devicebound/#", login.client_id);
    let ours = cost(site.agent_id()?, site.gateway_mqtt, ours, filter).await?;
    let theirs = cost(mosquitto.id()?, mosquitto.port, theirs, filter).await?;
    println!("\nMemory of {CONNECTIONS} idle connections: difference in PSS, for each, in kB\n");
    println!("| | connected | with one subscription |\n|---|---|---|");
    for (name, cost) in [("edge-agent", &ours), ("mosquitto", &theirs)] {
        println!("| {name} | {:.2} | {:.2} |", cost.connected_kb, cost.subscribed_kb);
    }
    ratio("idle-connection-kb", ours.connected_kb, "4 kB or less; a figure, no ratio");
    Ok(())
}

async fn cost(
    process: u32,
    port: u16,
    logins: Vec<Login>,
    filter: impl Fn(&Login) -> String,
) -> Result<Cost> {
    let before = settled(process).await?;
    let mut streams = each(logins, move |login| async move {
        let stream = login.open(port).await?;
        Ok((login, stream))
    })
    .await?;
    let connected = settled(process).await?;
    for (login, stream) in &mut streams {
        raw::subscribed(stream, &filter(login), 1).await?;
    }
    let subscribed = settled(process).await?;
    for (login, stream) in &streams {
        ensure!(is_open(stream), "{} was let go", login.client_id);
    }
    let each_kb = |kb: u64| (kb as f64 - before as f64) / CONNECTIONS as f64;
    Ok(Cost { connected_kb: each_kb(connected), subscribed_kb: each_kb(subscribed) })
}

fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
