//! From PUBLISH to PUBACK with one message in flight, beside one fdatasync of the same disk in the same run.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::durable::topic;
use super::free::{PAYLOAD_BYTES, Parts};
use super::peer::anonymous;
use super::table::{ROUNDS, Spread, head, ratio};
use crate::raw::{self, Login};
use crate::site::Site;

/// Messages of one round.
const MESSAGES: usize = 2_000;
/// How long the gateway may take to find central again.
const CONNECTED: Duration = Duration::from_secs(60);
/// What a queue adds to a message on disk, about.
const FRAME_BYTES: usize = 64;

/// Half and nearly all of a round's times, in microseconds.
struct Percentiles {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Percentiles {
    const fn new() -> Self {
        Self { p50: Vec::new(), p99: Vec::new() }
    }

    fn note(&mut self, mut times: Vec<Duration>) {
        times.sort();
        let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e6;
        self.p50.push(at(50));
        self.p99.push(at(99));
    }

    fn rows(&self, name: &str) -> Spread {
        let p50 = Spread::of(self.p50.clone());
        p50.row(&format!("{name}, p50"), 0);
        Spread::of(self.p99.clone()).row(&format!("{name}, p99"), 0);
        p50
    }
}

/// Runs it, each side in turn. `data` is a directory on the gateway's disk.
///
/// # Errors
/// When a side does not answer.
pub async fn run(site: &mut Site, parts: &Parts<'_>, data: &Path) -> Result<()> {
    let ours = &parts.ours[0];
    let theirs = anonymous(&ours.client_id);
    let telemetry = topic(&ours.client_id);
    let (mut sync, mut durable) = (Percentiles::new(), Percentiles::new());
    let (mut free, mut peer) = (Percentiles::new(), Percentiles::new());
    let (mut beside_central, mut least) = (Percentiles::new(), Percentiles::new());
    let mut least_free = Percentiles::new();
    let record = vec![b'x'; FRAME_BYTES + telemetry.len() + PAYLOAD_BYTES];
    for _ in 0..ROUNDS {
        // central stands on the same disk here, which it does nowhere else: its syncs and the gateway's wait for each other.
        beside_central.note(one_in_flight(ours, parts.port, &telemetry).await?);
        site.stop_central().await?;
        sync.note(fdatasyncs(data.join("bench-fdatasync"), record.clone()).await?);
        durable.note(one_in_flight(ours, parts.port, &telemetry).await?);
        let disk = Some((data.join("bench-least"), record.clone()));
        least.note(with_least_server(disk, &telemetry).await?);
        site.start_central().await?;
        site.gateway_connected(CONNECTED).await?;
        least_free.note(with_least_server(None, "bench/latency").await?);
        free.note(one_in_flight(ours, parts.port, "bench/latency").await?);
        peer.note(one_in_flight(&theirs, parts.mosquitto.port, "bench/latency").await?);
    }
    let what = format!(
        "PUBLISH to PUBACK at QoS 1, one in flight, {PAYLOAD_BYTES} B, {ROUNDS} rounds of {MESSAGES}; beside a \
         write of {} B and one fdatasync on the same disk",
        record.len()
    );
    head(&what, "µs");
    let of_disk = sync.rows("one fdatasync");
    let of_ours = durable.rows("edge-agent, telemetry on disk");
    let of_least = least.rows("the least server: a thread that reads, writes, syncs and answers");
    beside_central.rows("the same, while central stores each on the same disk");
    let of_free = free.rows("edge-agent, free topic");
    let of_least_free = least_free.rows("the least server without a disk: a thread that reads and answers");
    let of_peer = peer.rows("mosquitto, in memory");
    ratio("durable-latency-p50-to-fdatasync", of_ours.median / of_disk.median, "1.5 or less");
    ratio("durable-latency-p50-to-least-server", of_ours.median / of_least.median, "none");
    ratio("free-latency-p50", of_free.median / of_peer.median, "none");
    ratio("free-latency-p50-to-least-server", of_free.median / of_least_free.median, "none");
    Ok(())
}

/// Into a file whose blocks are written already, as a queue's next segment is: no sync has to write the file's length.
async fn fdatasyncs(path: PathBuf, record: Vec<u8>) -> Result<Vec<Duration>> {
    let measured = tokio::task::spawn_blocking(move || {
        let mut file = written_ahead(&path, record.len() * MESSAGES)?;
        let times = (0..MESSAGES).map(|_| {
            let since = Instant::now();
            file.write_all(&record)?;
            file.sync_data()?;
            Ok(since.elapsed())
        });
        let times: std::io::Result<Vec<Duration>> = times.collect();
        std::fs::remove_file(&path)?;
        times
    });
    measured.await?.context("measuring fdatasync")
}

/// A file of written blocks, to be written from its beginning.
fn written_ahead(path: &Path, bytes: usize) -> std::io::Result<std::fs::File> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(&vec![0; bytes])?;
    file.sync_all()?;
    file.rewind()?;
    Ok(file)
}

/// What nothing that answers over a socket can be faster than on this machine: no broker, no queue, one thread that waits in
/// `read`, and the same packet; with `disk` the same record too, written to this file and synced.
async fn with_least_server(disk: Option<(PathBuf, Vec<u8>)>, topic: &str) -> Result<Vec<Duration>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let packet = raw::publish(topic, 1, 1, &[b'x'; PAYLOAD_BYTES]);
    let stream = std::net::TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let mut requested = vec![0; packet.len()];
    let server = tokio::task::spawn_blocking(move || -> Result<()> {
        let (mut client, _) = listener.accept()?;
        client.set_nodelay(true)?;
        let mut file = match &disk {
            Some((path, record)) => Some((written_ahead(path, record.len() * MESSAGES)?, record)),
            None => None,
        };
        for _ in 0..MESSAGES {
            client.read_exact(&mut requested)?;
            if let Some((file, record)) = &mut file {
                file.write_all(record)?;
                file.sync_data()?;
            }
            client.write_all(&[0x40, 2, 0, 1])?;
        }
        if let Some((path, _)) = &disk {
            std::fs::remove_file(path)?;
        }
        Ok(())
    });
    let times = exchanges(stream, packet).await?;
    server.await??;
    Ok(times)
}

async fn one_in_flight(login: &Login, port: u16, topic: &str) -> Result<Vec<Duration>> {
    let stream = login.open(port).await?.into_std()?;
    stream.set_nonblocking(false)?;
    exchanges(stream, raw::publish(topic, 1, 1, &[b'x'; PAYLOAD_BYTES])).await
}

/// Sends the packet and waits for its PUBACK, again and again.
async fn exchanges(stream: std::net::TcpStream, packet: Vec<u8>) -> Result<Vec<Duration>> {
    // A blocking socket: nothing between the answer and the clock.
    let measured = tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (mut stream, mut answer) = (stream, [0; 4]);
        (0..MESSAGES)
            .map(|_| {
                let since = Instant::now();
                stream.write_all(&packet)?;
                stream.read_exact(&mut answer)?;
                let took = since.elapsed();
                ensure!(answer == [0x40, 2, 0, 1], "the answer was {answer:?}");
                Ok(took)
            })
            .collect()
    });
    measured.await?
}
