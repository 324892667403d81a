//! What durability costs here: the queue against a loop of raw write + fdatasync with the same bytes, on the same disk, in
//! turns; then a backlog: time to open it, memory while it is there, bytes written for each byte of payload.
//!
//! `cargo run --release -p edge-buffer --example append_rate [DIR [SECONDS [BACKLOG_MB]]]`: on the disk under DIR (default:
//! here), SECONDS for each measurement (default 3), a backlog of so many MB (default 2048; 0 for none). Lines that begin
//! with RATIO are for programs.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_buffer::{AppendError, Log, LogOptions, Stats};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error>;

const RECORD_BYTES: usize = 256;
/// What the queue writes around a record.
const FRAME_BYTES: usize = 36;
/// (producers, records each has in flight): one client that waits, 50 that wait, 50 that do not.
const LOADS: [(usize, usize); 3] = [(1, 1), (50, 1), (50, 20)];
const ROUNDS: usize = 3;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let parent = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let backlog_mb: u64 = arguments.next().map_or(Ok(2048), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let time = Duration::from_secs(seconds);
    println!("Durable appends, records of {RECORD_BYTES} B, {ROUNDS} rounds of {seconds} s in turns.\n");
    println!(
        "| producers x in flight | records/batch | queue records/s | raw records/s | ratio | queue p50 us | raw p50 us |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for (producers, in_flight) in LOADS {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let ours = runtime.block_on(appends(&parent, producers, in_flight, time))?;
            let raw = raw(&parent, ours.batch, time)?;
            rounds.push((ours, raw));
        }
        rounds.sort_by(|a, b| (a.0.rate / a.1.rate).total_cmp(&(b.0.rate / b.1.rate)));
        let (ours, raw) = &rounds[ROUNDS / 2];
        let ratio = ours.rate / raw.rate;
        println!(
            "| {producers} x {in_flight} | {} | {:.0} | {:.0} | {ratio:.2} | {} | {} |",
            ours.batch, ours.rate, raw.rate, ours.p50_us, raw.p50_us
        );
        ratios.push(format!("RATIO append-{producers}x{in_flight}-to-raw {ratio:.2}"));
        if (producers, in_flight) == (1, 1) {
            let ratio = ours.p50_us as f64 / raw.p50_us as f64;
            ratios.push(format!("RATIO append-idle-p50-to-raw {ratio:.2}"));
        }
    }
    for ratio in ratios {
        println!("\n{ratio}");
    }
    if backlog_mb > 0 {
        backlog(&runtime, &parent, backlog_mb)?;
    }
    Ok(())
}

struct Measured {
    rate: f64,
    /// Records in one sync.
    batch: usize,
    p50_us: u64,
}

fn median(mut of: Vec<u64>) -> u64 {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or(0)
}

async fn appends(
    parent: &Path,
    producers: usize,
    in_flight: usize,
    time: Duration,
) -> Result<Measured, Failure> {
    let dir = tempfile::tempdir_in(parent)?;
    let log = Log::open(dir.path(), LogOptions::default())?;
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..producers {
        let log = log.clone();
        tasks.spawn(async move {
            let record = Bytes::from(vec![7; RECORD_BYTES]);
            let (mut count, mut times) = (0_u64, Vec::new());
            let mut waiting = VecDeque::with_capacity(in_flight);
            // As a session does: what one client has in flight is answered in its order.
            while begin.elapsed() < time {
                while waiting.len() < in_flight {
                    let mut append = log.append_awaited(record.clone(), 0, None);
                    if in_flight > 1 {
                        append.detach();
                    }
                    waiting.push_back((Instant::now(), append));
                }
                if let Some((submitted, append)) = waiting.pop_front() {
                    append.await?;
                    count += 1;
                    if count.is_multiple_of(16) {
                        times.push(submitted.elapsed().as_micros() as u64);
                    }
                }
            }
            for (_, append) in waiting {
                append.await?;
                count += 1;
            }
            Ok::<_, AppendError>((count, times))
        });
    }
    let (mut count, mut times) = (0, Vec::new());
    while let Some(ended) = tasks.join_next().await {
        let (of_one, mut its_times) = ended??;
        count += of_one;
        times.append(&mut its_times);
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    let stats = log.stats();
    log.close().await;
    let batch = (count / stats.syncs.max(1)).max(1) as usize;
    Ok(Measured { rate, batch, p50_us: median(times) })
}

/// The same batches with nothing but the system calls, into a file that grows as they come.
fn raw(parent: &Path, batch: usize, time: Duration) -> Result<Measured, Failure> {
    let file = tempfile::tempfile_in(parent)?;
    let bytes = vec![7; batch * (RECORD_BYTES + FRAME_BYTES)];
    let (mut offset, mut syncs, mut times) = (0, 0_u64, Vec::new());
    let begin = Instant::now();
    while begin.elapsed() < time {
        let submitted = Instant::now();
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        offset += bytes.len() as u64;
        syncs += 1;
        times.push(submitted.elapsed().as_micros() as u64);
    }
    let rate = (syncs * batch as u64) as f64 / begin.elapsed().as_secs_f64();
    Ok(Measured { rate, batch, p50_us: median(times) })
}

/// Fills a log with `mb` MB of payload, opens it again, and reads it.
fn backlog(runtime: &tokio::runtime::Runtime, parent: &Path, mb: u64) -> Result<(), Failure> {
    const BYTES: usize = 1024;
    let dir = tempfile::tempdir_in(parent)?;
    let options = LogOptions { bytes_max: u64::MAX, ..LogOptions::default() };
    let count = mb * 1_000_000 / BYTES as u64;
    let log = Log::open(dir.path(), options.clone())?;
    let before = device_bytes(parent);
    let begin = Instant::now();
    let stats: Stats = runtime.block_on(async {
        let record = Bytes::from(vec![7; BYTES]);
        let mut appends = VecDeque::new();
        for _ in 0..count {
            appends.push_back(log.append(record.clone(), 0));
            if appends.len() >= 1000
                && let Some(append) = appends.pop_front()
            {
                append.await?;
            }
        }
        for append in appends {
            append.await?;
        }
        let stats = log.stats();
        log.close().await;
        Ok::<_, AppendError>(stats)
    })?;
    let fill = begin.elapsed();
    let on_device = device_bytes(parent).zip(before).map(|(after, before)| after - before);
    drop(log);
    let memory_before = memory_kb();
    let begin = Instant::now();
    let log = Log::open(dir.path(), options)?;
    let open = begin.elapsed();
    let memory_opened = memory_kb();
    let peak = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    runtime.block_on(async {
        let mut reader = log.reader();
        for n in 1..=count {
            let record = reader.next(|| 0).await?;
            if n.is_multiple_of(1000) {
                log.advance(record.sequence);
                peak.fetch_max(memory_kb(), Ordering::Relaxed);
            }
        }
        Ok::<_, edge_buffer::ReadError>(())
    })?;
    let read = begin.elapsed();
    runtime.block_on(log.close());
    let payload = (count * BYTES as u64) as f64;
    println!("\nA backlog of {mb} MB in {count} records of {BYTES} B.\n");
    println!("| | |\n|---|---|");
    println!("| filled, records/s | {:.0} |", count as f64 / fill.as_secs_f64());
    println!("| open again, ms | {} |", open.as_millis());
    println!("| memory for it (RSS) after open, kB | {} |", memory_opened.saturating_sub(memory_before));
    println!("| memory of the process (RSS) while it is read, peak kB | {} |", peak.load(Ordering::Relaxed));
    println!("| read, records/s | {:.0} |", count as f64 / read.as_secs_f64());
    println!(
        "| bytes written to files for each byte of payload | {:.3} |",
        stats.written_bytes as f64 / payload
    );
    if let Some(bytes) = on_device {
        println!("| bytes on the device, all programs' | {:.3} |", bytes as f64 / payload);
    }
    println!("RATIO backlog-written-per-payload-byte {:.3}", stats.written_bytes as f64 / payload);
    println!("VALUE backlog-open-ms {}", open.as_millis());
    Ok(())
}

/// Resident memory of this process.
fn memory_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes that were written to the block device under `path`; `None` when it has none of its own.
fn device_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let device = File::open(path).and_then(|file| file.metadata()).map(|metadata| metadata.dev()).ok()?;
    // The kernel's encoding of major and minor numbers.
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let stat: io::Result<String> = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"));
    let sectors: u64 = stat.ok()?.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}
