//! A well-behaved device beside the others: how long it waits for its acknowledgements, and for a new connection.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::STEP;
use crate::raw::{self, Login};

/// How often it does both.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long it had to wait, shortest first.
#[derive(Debug)]
pub struct Waited {
    /// From PUBLISH to PUBACK of durable telemetry on a connection that stays.
    pub acknowledged: Vec<Duration>,
    /// From the start of a connection to its CONNACK.
    pub connected: Vec<Duration>,
}

impl Waited {
    /// How long it waited at most in nine of ten cases, for a PUBACK and for a CONNACK. The tenth is the machine's: it may not run a process
    /// for seconds, or hold up one write to its disk, while nothing is wrong with the gateway. Beyond [`STEP`] the probe gives up.
    pub fn mostly(&self) -> [Duration; 2] {
        [&self.acknowledged, &self.connected].map(|times| times[(times.len() * 9 / 10).min(times.len() - 1)])
    }
}

pub struct Probe {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<Waited>>,
}

impl Probe {
    /// Starts it: one account publishes, the other one connects anew each time.
    pub fn start(port: u16, publisher: Login, comer: Login) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(probe(port, publisher, comer, stopped)) }
    }

    /// Ends it, prints what it saw, and gives it.
    ///
    /// # Errors
    /// When it was not served.
    pub async fn end(self) -> Result<Waited> {
        let _ = self.stop.send(true);
        let mut waited = self.task.await??;
        waited.acknowledged.sort();
        waited.connected.sort();
        for (what, times) in [("PUBACK", &waited.acknowledged), ("CONNACK", &waited.connected)] {
            let (middle, most) = (times.get(times.len() / 2), times.last());
            println!("probe: {} x {what}, median {middle:?}, longest {most:?}", times.len());
        }
        ensure!(!waited.acknowledged.is_empty(), "the probe did nothing");
        Ok(waited)
    }
}

async fn probe(port: u16, publisher: Login, comer: Login, stopped: watch::Receiver<bool>) -> Result<Waited> {
    let topic = format!("devices/{}/messages/events/", publisher.client_id);
    let packet = raw::publish(&topic, 1, 1, b"{\"probe\":true}");
    let mut stream = publisher.open(port).await?;
    let mut waited = Waited { acknowledged: Vec::new(), connected: Vec::new() };
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Once at least, however short the attack was.
    loop {
        ticks.tick().await;
        let since = Instant::now();
        stream.write_all(&packet).await?;
        let mut answer = [0; 4];
        tokio::time::timeout(STEP, stream.read_exact(&mut answer))
            .await
            .context("the probe's message was not acknowledged")?
            .context("the probe's connection was closed")?;
        ensure!(answer == [0x40, 2, 0, 1], "the probe was answered {answer:?}");
        waited.acknowledged.push(since.elapsed());

        let since = Instant::now();
        let _coming =
            tokio::time::timeout(STEP, comer.open(port)).await.context("nobody may connect any more")??;
        waited.connected.push(since.elapsed());
        if *stopped.borrow() {
            return Ok(waited);
        }
    }
}
