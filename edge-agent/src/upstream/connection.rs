//! One MQTT connection to an upstream, from the CONNACK to its end.
//!
//! One task writes and listens, and neither waits for the other: an upstream that reads nothing more is still listened to. The task
//! waits for whatever comes first: a packet from upstream, space to write, something of the gateway's to send, or the time to ping.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use edge_core::link::budget::Cause;
use edge_core::link::liveness::{Liveness, Next};
use edge_hub::tasks::Panicked;
use futures_util::FutureExt as _;
use mqtt::client::{ConnectError, Incoming, ReceiveError, Receiver, Sender};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::meter::Meter;

/// Bytes that wait to be written before no more messages are added. What TLS puts into one record is as much as one write needs; the
/// rest would only wait here, where an alarm cannot overtake it.
pub(super) const OUT_BYTES_MAX: usize = 64 * 1024;
/// How long the end of a connection may take: for acknowledgements of what is in flight, and for the DISCONNECT.
const LEAVING: Duration = Duration::from_secs(1);
/// How long upstream is listened to after a write failed: it may have said why before it closed the connection.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// What one connection carries.
///
/// The connection calls [`Traffic::write`] after everything that happens, then waits for [`Traffic::due`] among other things.
pub(super) trait Traffic: Send {
    /// Why the gateway itself ends a connection that works.
    type End: Error + Send + 'static;

    /// Upstream stores a message that it gets twice only once. If not, the end of the daemon waits a moment for
    /// acknowledgements, so that fewer messages are sent again after a restart.
    const IS_DEDUPLICATED: bool;

    /// Puts what may be sent now into the sender's buffer, up to about [`OUT_BYTES_MAX`].
    ///
    /// # Errors
    /// Why the connection is to end. A DISCONNECT is sent then.
    fn write(&mut self, sender: &mut Sender) -> impl Future<Output = Result<(), Self::End>> + Send;

    /// Waits until [`Traffic::write`] has something new to do. It is dropped whenever something else comes first, and keeps in
    /// `self` what it took.
    ///
    /// # Errors
    /// As [`Traffic::write`].
    fn due(&mut self) -> impl Future<Output = Result<(), Self::End>> + Send;

    /// Takes a packet. The packet id of an answer is free for the next message already.
    ///
    /// # Errors
    /// As [`Traffic::write`].
    fn hear(
        &mut self,
        sender: &mut Sender,
        incoming: Incoming,
    ) -> impl Future<Output = Result<(), Self::End>> + Send;
}

/// Why a connection ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError<E: Error + 'static> {
    #[error("could not connect")]
    Connect(#[source] ConnectError),
    #[error("connection lost")]
    Receive(#[source] ReceiveError),
    #[error("connection lost while writing")]
    Write(#[source] io::Error),
    #[error("{peer} said nothing for {silent:?}")]
    Silent { peer: &'static str, silent: Duration },
    #[error(transparent)]
    Ended(E),
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// How a connection ends: `Ok` at the stop.
pub(super) type Outcome<E> = Result<(), ConnectionError<E>>;

/// A connection that upstream has accepted.
pub(super) struct Connection {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    /// As in CONNECT.
    pub(super) keep_alive: Duration,
    /// What errors call upstream.
    pub(super) peer: &'static str,
    /// Counts the pings.
    pub(super) meter: Meter,
}

impl Connection {
    /// Carries `traffic` until the connection ends.
    ///
    /// # Errors
    /// Why it ended before the stop.
    pub(super) async fn carry<T: Traffic>(
        mut self,
        traffic: &mut T,
        stop: &CancellationToken,
    ) -> Outcome<T::End> {
        let outcome = self.run(traffic, stop).await;
        if let Ok(()) | Err(ConnectionError::Ended(_)) = outcome {
            self.sender.disconnect();
            // A peer that does not read it is left without.
            let _ = tokio::time::timeout(LEAVING, self.sender.flush()).await;
        }
        outcome
    }

    async fn run<T: Traffic>(&mut self, traffic: &mut T, stop: &CancellationToken) -> Outcome<T::End> {
        let began = Instant::now();
        let mut liveness = Liveness::new(self.keep_alive);
        loop {
            traffic.write(&mut self.sender).await.map_err(ConnectionError::Ended)?;
            let wait = match liveness.next(began.elapsed()) {
                Next::Wait(until) => until,
                Next::Ask => {
                    ping(&mut self.sender, &self.meter);
                    continue;
                }
                // It may have spoken while the disk kept us from listening.
                Next::Dead(silent) => match self.receiver.next().now_or_never() {
                    None => return Err(ConnectionError::Silent { peer: self.peer, silent }),
                    Some(incoming) => {
                        liveness.heard(began.elapsed());
                        self.hear(traffic, incoming).await?;
                        continue;
                    }
                },
            };
            tokio::select! {
                () = stop.cancelled() => {
                    self.await_answers(traffic).await;
                    return Ok(());
                }
                incoming = self.receiver.next() => {
                    liveness.heard(began.elapsed());
                    self.hear(traffic, incoming).await?;
                    // What came in the same read is heard before anything is written.
                    while let Some(incoming) = self.receiver.next().now_or_never() {
                        self.hear(traffic, incoming).await?;
                    }
                }
                written = self.sender.flush(), if self.sender.has_output() => match written {
                    Ok(()) => liveness.said(began.elapsed()),
                    Err(error) => return Err(self.broken(traffic, error).await),
                },
                due = traffic.due() => due.map_err(ConnectionError::Ended)?,
                () = tokio::time::sleep_until(began + wait) => {}
            }
        }
    }

    async fn hear<T: Traffic>(
        &mut self,
        traffic: &mut T,
        incoming: Result<Incoming, ReceiveError>,
    ) -> Outcome<T::End> {
        let incoming = incoming.map_err(ConnectionError::Receive)?;
        if let Incoming::Acknowledged(packet_id)
        | Incoming::Refused { packet_id, .. }
        | Incoming::Subscribed(packet_id) = &incoming
        {
            self.sender.acknowledged(*packet_id);
        }
        traffic.hear(&mut self.sender, incoming).await.map_err(ConnectionError::Ended)
    }

    /// Waits a moment for the acknowledgements of what is in flight, where a repetition would count twice.
    async fn await_answers<T: Traffic>(&mut self, traffic: &mut T) {
        let until = Instant::now() + LEAVING;
        while !T::IS_DEDUPLICATED && !self.sender.is_idle() {
            let is_over = tokio::select! {
                incoming = self.receiver.next() => self.hear(traffic, incoming).await.is_err(),
                written = self.sender.flush(), if self.sender.has_output() => written.is_err(),
                () = tokio::time::sleep_until(until) => true,
            };
            if is_over {
                return;
            }
        }
    }

    /// A write failed: what upstream sent before is heard first, since the reason may be in it.
    async fn broken<T: Traffic>(&mut self, traffic: &mut T, error: io::Error) -> ConnectionError<T::End> {
        let until = Instant::now() + LAST_PACKETS;
        loop {
            let heard = match tokio::time::timeout_at(until, self.receiver.next()).await {
                Ok(incoming) => self.hear(traffic, incoming).await,
                Err(_) => return ConnectionError::Write(error),
            };
            match heard {
                Ok(()) => {}
                // Everything else that the socket says now is this error once more.
                Err(ConnectionError::Receive(ReceiveError::Closed | ReceiveError::Io(_))) => {
                    return ConnectionError::Write(error);
                }
                Err(why) => return why,
            }
        }
    }
}

/// Queues a PINGREQ and counts its bytes, and those of its answer.
pub(super) fn ping(sender: &mut Sender, meter: &Meter) {
    sender.ping();
    meter.count(Cause::Link, 4);
}
