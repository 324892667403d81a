//! Leaf devices that publish numbered telemetry and know what was acknowledged, over the daemon's kills.

use std::time::Duration;

use site_tests::raw::{self, Login};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::broker::STEP;

/// One of several, by its client id.
pub(crate) fn of<'a>(logins: &'a [Login], id: &str) -> &'a Login {
    logins.iter().find(|login| login.client_id == id).expect("it was added")
}

/// Publishes `bodies` at QoS 1, each until it is acknowledged, and waits for its acknowledgement before the next.
pub(crate) async fn publish(port: u16, login: &Login, bodies: impl IntoIterator<Item = String>) {
    publish_with(port, login, "", bodies).await;
}

/// As [`publish`], with a property bag.
pub(crate) async fn publish_with(
    port: u16,
    login: &Login,
    bag: &str,
    bodies: impl IntoIterator<Item = String>,
) {
    let topic = format!("devices/{}/messages/events/{bag}", login.client_id);
    let mut stream = None;
    for body in bodies {
        let packet = raw::publish(&topic, 1, 7, body.as_bytes());
        let until = tokio::time::Instant::now() + STEP;
        while !once(port, login, &mut stream, &packet).await {
            assert!(tokio::time::Instant::now() < until, "{} was never acknowledged", login.client_id);
            stream = None;
            // The daemon is away.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn once(port: u16, login: &Login, stream: &mut Option<TcpStream>, packet: &[u8]) -> bool {
    if stream.is_none() {
        *stream = login.open(port).await.ok();
    }
    let Some(stream) = stream else { return false };
    let mut answer = [0; 4];
    stream.write_all(packet).await.is_ok()
        && matches!(tokio::time::timeout(STEP, stream.read_exact(&mut answer)).await, Ok(Ok(_)))
        && answer == [0x40, 2, 0, 7]
}
