//! One connection to central, from its start to its end.
//!
//! One task writes and hears, and neither waits for the other: a line that takes nothing more is still listened to. It waits
//! for whatever comes first: something from central, room to write, a record of the queues while the window has room,
//! something to tell, or the time to ask whether anybody is there.

use std::time::Duration;

use edge_core::dialect::link::LinkDown;
use edge_core::link::liveness::{Liveness, Next};
use edge_hub::client::{Incoming, Receiver, Sender};
use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::telemetry::Telemetry;
use super::tell::Telling;
use super::{Ended, Uplink};

/// Messages that are taken from the queues at once: as many as the write below holds.
const BATCH: usize = 512;
/// Bytes that wait to be written before more is taken from the queues. Some of what TLS puts into one record is as much as
/// one write needs to be; the rest would only wait here, where an alarm cannot overtake it.
const OUT_BYTES_MAX: usize = 64 * 1024;

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
    pub(super) async fn run(
        &mut self,
        mut receiver: Receiver,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        self.sender.subscribe(schemas::topics::LINK);
        self.link.enrolments.linked(true);
        let mut reader = self.link.queues.upstream().reader();
        let began = Instant::now();
        let mut liveness = Liveness::new(self.link.keep_alive);
        loop {
            self.telling.tell(&mut self.sender);
            let wait = match liveness.next(began.elapsed()) {
                Next::Wait(until) => until,
                Next::Ask => {
                    self.sender.ping();
                    continue;
                }
                // It may have spoken while the disk kept us from listening.
                Next::Dead(silent) => match receiver.next().now_or_never() {
                    None => return Err(Ended::Silent(silent)),
                    Some(incoming) => {
                        liveness.heard(began.elapsed());
                        self.hear(incoming?).await?;
                        continue;
                    }
                },
            };
            let may_send = self.telemetry.free() > 0 && self.sender.waiting_bytes() < OUT_BYTES_MAX;
            tokio::select! {
                () = stop.cancelled() => {
                    self.sender.disconnect();
                    let _ = tokio::time::timeout(Duration::from_secs(1), self.sender.flush()).await;
                    return Ok(());
                }
                incoming = receiver.next() => {
                    liveness.heard(began.elapsed());
                    self.hear(incoming?).await?;
                    // What came in the same read is heard before anything is written.
                    while let Some(incoming) = receiver.next().now_or_never() {
                        self.hear(incoming?).await?;
                    }
                }
                written = self.sender.flush(), if self.sender.has_output() => {
                    written?;
                    liveness.said(began.elapsed());
                }
                next = reader.next(), if may_send => {
                    let (queue, next) = next?;
                    self.telemetry.send(&mut self.sender, &queue, next);
                    for _ in 1..BATCH.min(self.telemetry.free() + 1) {
                        if self.sender.waiting_bytes() >= OUT_BYTES_MAX {
                            break;
                        }
                        let Some(next) = reader.next().now_or_never() else { break };
                        let (queue, next) = next?;
                        self.telemetry.send(&mut self.sender, &queue, next);
                    }
                }
                () = self.telling.due() => {}
                () = tokio::time::sleep_until(began + wait) => {}
            }
        }
    }

    /// Says in the log what the line was like.
    pub(super) fn sum_up(&self) {
        let pace = self.telemetry.pace();
        let (round_trip, per_second) = (pace.round_trip(), pace.rate().round());
        tracing::info!(?round_trip, per_second, window = pace.window(), "the connection to central ended");
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
