//! One connection to central, from its start to its end.
//!
//! One task writes and hears. It waits for whatever comes first: something from central, a record of the queues while the
//! window has room, something to tell, or the time to ping.

use std::time::Duration;

use edge_core::dialect::link::LinkDown;
use edge_hub::client::{Incoming, Receiver, Sender};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::telemetry::Telemetry;
use super::tell::Telling;
use super::{Ended, KEEP_ALIVE, Uplink, WRITE_TIMEOUT};

/// Messages that go into one write.
const BATCH: usize = 128;

pub(super) struct Connection<'a> {
    link: &'a Uplink,
    sender: Sender,
    telemetry: Telemetry,
    telling: Telling<'a>,
}

impl<'a> Connection<'a> {
    /// A connection that central has accepted.
    pub(super) fn new(link: &'a Uplink, sender: Sender) -> Self {
        Self { link, sender, telemetry: Telemetry::new(), telling: Telling::all(link) }
    }

    /// Runs it; `Ok` when it was stopped.
    pub(super) async fn run(mut self, mut receiver: Receiver, stop: &CancellationToken) -> Result<(), Ended> {
        self.sender.subscribe(schemas::topics::LINK);
        self.link.enrolments.linked(true);
        let mut reader = self.link.queues.upstream().reader();
        let mut ping = tokio::time::interval_at(Instant::now() + KEEP_ALIVE / 2, KEEP_ALIVE / 2);
        let mut heard = Instant::now();
        loop {
            self.telling.tell(&mut self.sender);
            match tokio::time::timeout(WRITE_TIMEOUT, self.sender.flush()).await {
                Ok(written) => written?,
                Err(_) => return Err(Ended::Stalled),
            }
            tokio::select! {
                () = stop.cancelled() => {
                    self.sender.disconnect();
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.sender.flush()).await;
                    return Ok(());
                }
                incoming = receiver.next() => {
                    heard = Instant::now();
                    self.hear(incoming?).await?;
                    // What came in the same read is heard before anything is written.
                    while let Some(incoming) = receiver.next().now_or_never() {
                        self.hear(incoming?).await?;
                    }
                }
                next = reader.next(), if self.telemetry.free() > 0 => {
                    let (queue, next) = next?;
                    self.telemetry.send(&mut self.sender, &queue, next);
                    for _ in 1..BATCH.min(self.telemetry.free() + 1) {
                        let Some(next) = reader.next().now_or_never() else { break };
                        let (queue, next) = next?;
                        self.telemetry.send(&mut self.sender, &queue, next);
                    }
                }
                () = self.telling.due() => {}
                _ = ping.tick() => {
                    if heard.elapsed() > KEEP_ALIVE * 2 {
                        return Err(Ended::Silent(heard.elapsed()));
                    }
                    self.sender.ping();
                }
            }
        }
    }

    async fn hear(&mut self, incoming: Incoming) -> Result<(), Ended> {
        match incoming {
            Incoming::Acknowledged(packet_id) => {
                self.sender.acknowledged(packet_id);
                if !self.telling.acknowledged(packet_id) {
                    self.telemetry.acknowledged(packet_id);
                }
            }
            Incoming::Subscribed(_) | Incoming::Pong => {}
            Incoming::Message { topic, payload, packet_id } => {
                let told = self.link.told(&topic, &payload).await?;
                if matches!(told, Some(LinkDown::Stored)) {
                    self.telemetry.resume();
                }
                if let Some(packet_id) = packet_id {
                    self.sender.acknowledge(packet_id);
                }
            }
        }
        Ok(())
    }
}
