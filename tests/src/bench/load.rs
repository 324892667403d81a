//! The load generator: one thread, packets built once, so that the broker is what is measured.
//!
//! Every PUBLISH of a run has the same length, so that a receiver finds the packet identifiers by counting, and a publisher
//! sends slices of one buffer that holds a packet for each identifier of its window. Both check the first byte of every
//! packet: a broker that drops, doubles or damages one ends the run with an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::raw::{self, Login};

/// Bytes of one read: a few hundred packets.
const READ_BYTES: usize = 128 * 1024;
/// How long the rest of a run may take to arrive after the last message was sent.
const DRAIN: Duration = Duration::from_secs(60);

/// One benchmark of publishers and subscribers.
#[derive(Debug, Clone)]
pub struct Load {
    /// Who publishes, and where.
    pub publishers: Vec<(Login, String)>,
    /// Who subscribes, and to what. Every message reaches each of them.
    pub subscribers: Vec<(Login, String)>,
    /// 0 or 1, of both.
    pub qos: u8,
    /// Messages of a publisher that are not acknowledged yet (QoS 1).
    pub window: u16,
    /// Messages that the slowest subscriber may be behind all publishers.
    pub lag_max: u64,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// How long messages are sent.
    pub length: Duration,
}

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Messages sent; with QoS 1 each was acknowledged.
    pub sent: u64,
    /// Messages that arrived at all subscribers together.
    pub delivered: u64,
    /// From the first message to the last arrival, or the last acknowledgement where nobody subscribes.
    pub took: Duration,
}

/// What publishers and subscribers know of each other.
struct Shared {
    sent: AtomicU64,
    received: Vec<AtomicU64>,
    moved: Notify,
}

impl Shared {
    fn slowest(&self) -> Option<u64> {
        self.received.iter().map(|count| count.load(Ordering::Relaxed)).min()
    }
}

impl Load {
    /// Runs it against the broker on `port`, on a thread of its own.
    ///
    /// # Errors
    /// When a message was lost, or arrived as another than it was sent.
    pub async fn run(&self, port: u16) -> Result<Outcome> {
        let load = self.clone();
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load.generate(port))
        })
        .await?
    }

    async fn generate(self, port: u16) -> Result<Outcome> {
        let shared = Arc::new(Shared {
            sent: AtomicU64::new(0),
            received: self.subscribers.iter().map(|_| AtomicU64::new(0)).collect(),
            moved: Notify::new(),
        });
        let length = raw::publish(&self.publishers[0].1, self.qos, 1, &vec![b'x'; self.payload_bytes]).len();
        let mut tasks = tokio::task::JoinSet::new();
        for (index, (login, filter)) in self.subscribers.iter().enumerate() {
            let mut stream = login.open(port).await?;
            raw::subscribed(&mut stream, filter, self.qos).await?;
            let (shared, qos) = (shared.clone(), self.qos);
            // Publishers' topics have one length, and so have their packets: only there does the identifier stand.
            let place = raw::place_of_id(
                &raw::publish(&self.publishers[0].1, qos, 1, &vec![b'x'; self.payload_bytes]),
                &self.publishers[0].1,
            );
            tasks.spawn(async move { receive(stream, &shared, index, qos, length, place).await });
        }
        let mut open = Vec::new();
        for (login, topic) in &self.publishers {
            open.push((login.open(port).await?, Batch::new(topic, &self)?));
        }
        let since = Instant::now();
        let mut publishing = tokio::task::JoinSet::new();
        for (stream, batch) in open {
            ensure!(batch.packet_bytes == length, "the publishers' topics are not of one length");
            let shared = shared.clone();
            let until = since + self.length;
            let (window, lag_max) = (u64::from(self.window), self.lag_max);
            publishing.spawn(async move {
                match batch.qos {
                    0 => send(stream, &batch, &shared, until, lag_max).await,
                    _ => send_acknowledged(stream, &batch, &shared, until, window, lag_max).await,
                }
            });
        }
        while let Some(ended) = publishing.join_next().await {
            ended??;
        }
        let sent = shared.sent.load(Ordering::Relaxed);
        let drained = async {
            // With room for one of one, none is under way.
            space(&shared, 1).await;
        };
        let is_whole = tokio::select! {
            whole = tokio::time::timeout(DRAIN, drained) => whole.is_ok(),
            Some(ended) = tasks.join_next() => return ended?.and(Err(anyhow!("a subscriber ended early"))),
        };
        let took = since.elapsed();
        let counts: Vec<u64> = shared.received.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        ensure!(is_whole, "of {sent} messages arrived at the subscribers: {counts:?}");
        ensure!(counts.iter().all(|count| *count == sent), "of {sent} messages arrived {counts:?}");
        tasks.abort_all();
        Ok(Outcome { sent, delivered: counts.iter().sum(), took })
    }
}

/// A packet for each identifier of a window, one after the other.
struct Batch {
    bytes: Vec<u8>,
    packet_bytes: usize,
    packets: u64,
    qos: u8,
}

impl Batch {
    fn new(topic: &str, load: &Load) -> Result<Self> {
        ensure!(load.window > 0 && load.qos < 2, "a window of at least 1, QoS 0 or 1");
        let payload = vec![b'x'; load.payload_bytes];
        let packets: Vec<Vec<u8>> =
            (1..=load.window).map(|id| raw::publish(topic, load.qos, id, &payload)).collect();
        let packet_bytes = packets[0].len();
        Ok(Self { bytes: packets.concat(), packet_bytes, packets: load.window.into(), qos: load.qos })
    }

    /// The bytes of some packets after `sent_bytes`, without turning around.
    fn slice(&self, sent_bytes: u64, packets: u64) -> &[u8] {
        let start = usize::try_from(sent_bytes % self.bytes.len() as u64).expect("less than the buffer");
        let end = start + self.packet_bytes * usize::try_from(packets).expect("at most a window");
        &self.bytes[start..end.min(self.bytes.len())]
    }
}

/// Waits until the slowest subscriber is less than `lag_max` behind; gives how many more messages may go out.
async fn space(shared: &Shared, lag_max: u64) -> u64 {
    loop {
        let moved = shared.moved.notified();
        let mut moved = std::pin::pin!(moved);
        // From here on nothing is missed, so that the look below is not too old.
        moved.as_mut().enable();
        let Some(slowest) = shared.slowest() else { return u64::MAX };
        let ahead = shared.sent.load(Ordering::Relaxed).saturating_sub(slowest);
        if ahead < lag_max {
            return lag_max - ahead;
        }
        moved.await;
    }
}

/// QoS 0: as fast as the slowest subscriber takes it.
async fn send(stream: TcpStream, batch: &Batch, shared: &Shared, until: Instant, lag_max: u64) -> Result<()> {
    let mut bytes = 0;
    while Instant::now() < until {
        let packets = space(shared, lag_max).await.min(batch.packets);
        let mut slice = batch.slice(bytes, packets);
        let whole = slice.len();
        // Counted before it is sent, so that nobody receives what was not counted.
        shared.sent.fetch_add((whole / batch.packet_bytes) as u64, Ordering::Relaxed);
        while !slice.is_empty() {
            stream.writable().await?;
            match stream.try_write(slice) {
                Ok(written) => slice = &slice[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("publishing"),
            }
        }
        bytes += whole as u64;
    }
    Ok(())
}

/// QoS 1: as many as the window and the slowest subscriber allow; ends when the last one is acknowledged.
async fn send_acknowledged(
    stream: TcpStream,
    batch: &Batch,
    shared: &Shared,
    until: Instant,
    window: u64,
    lag_max: u64,
) -> Result<()> {
    let packet = batch.packet_bytes as u64;
    // What was begun, what was sent, what was acknowledged; of the answers, how many bytes.
    let (mut begun, mut bytes, mut answer_bytes) = (0_u64, 0_u64, 0_u64);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let acknowledged = answer_bytes / 4;
        if bytes == begun * packet && Instant::now() < until {
            let free = window - (begun - acknowledged);
            let ahead = match free {
                0 => 0,
                _ => match shared.slowest() {
                    None => u64::MAX,
                    Some(slowest) => {
                        lag_max.saturating_sub(shared.sent.load(Ordering::Relaxed).saturating_sub(slowest))
                    }
                },
            };
            if free > 0 && ahead == 0 && begun == acknowledged {
                space(shared, lag_max).await;
                continue;
            }
            let packets = free.min(ahead);
            begun += packets;
            shared.sent.fetch_add(packets, Ordering::Relaxed);
        }
        if acknowledged == begun && Instant::now() >= until {
            return Ok(());
        }
        let left = begun * packet - bytes;
        let interest = if left > 0 { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let ready = stream.ready(interest).await?;
        if ready.is_writable() && left > 0 {
            let slice = batch.slice(bytes, batch.packets);
            let slice = &slice[..slice.len().min(usize::try_from(left).expect("at most a window"))];
            match stream.try_write(slice) {
                Ok(written) => bytes += written as u64,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("publishing"),
            }
        }
        if ready.is_readable() {
            match stream.try_read(&mut buffer) {
                Ok(0) => bail!("the broker closed a publisher's connection"),
                Ok(read) => {
                    let first = usize::try_from((4 - answer_bytes % 4) % 4).expect("less than 4");
                    let mut places = (first..read).step_by(4);
                    ensure!(places.all(|place| buffer[place] == 0x40), "an answer is no PUBACK");
                    answer_bytes += read as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("reading PUBACKs"),
            }
        }
    }
}

/// Counts what arrives at one subscriber, and acknowledges it where it wants that.
async fn receive(
    stream: TcpStream,
    shared: &Shared,
    index: usize,
    qos: u8,
    packet_bytes: usize,
    place_of_id: usize,
) -> Result<()> {
    let (mut buffer, mut held) = (vec![0; READ_BYTES], 0);
    let mut answers: Vec<u8> = Vec::with_capacity(READ_BYTES / packet_bytes * 4);
    loop {
        stream.readable().await?;
        let read = match stream.try_read(&mut buffer[held..]) {
            Ok(0) => bail!("the broker closed a subscriber's connection"),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("receiving"),
        };
        held += read;
        let whole = held / packet_bytes;
        for packet in buffer[..whole * packet_bytes].chunks_exact(packet_bytes) {
            ensure!(packet[0] == 0x30 | (qos << 1), "a packet that arrived begins with {:#x}", packet[0]);
            if qos > 0 {
                answers.extend([0x40, 2, packet[place_of_id], packet[place_of_id + 1]]);
            }
        }
        buffer.copy_within(whole * packet_bytes..held, 0);
        held -= whole * packet_bytes;
        shared.received[index].fetch_add(whole as u64, Ordering::Relaxed);
        shared.moved.notify_waiters();
        let mut rest = answers.as_slice();
        while !rest.is_empty() {
            match stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(error).context("acknowledging"),
            }
        }
        answers.clear();
    }
}
