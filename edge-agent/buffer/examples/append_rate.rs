//! Durable appends per second of 50 producers, each of which waits for its record of 256 bytes before the next.
//!
//! `cargo run --release -p edge-buffer --example append_rate [DIR [SECONDS]]`: on the disk under DIR (default: here).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_buffer::{Log, LogOptions};

const PRODUCERS: usize = 50;
const RECORD_BYTES: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let dir = tempfile::tempdir_in(parent)?;
    let log = Log::open(dir.path(), LogOptions::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let (appends, slowest_us) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    runtime.block_on(async {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|_| {
                let (log, appends, slowest_us) = (log.clone(), appends.clone(), slowest_us.clone());
                tokio::spawn(async move {
                    let record = Bytes::from(vec![7; RECORD_BYTES]);
                    while Instant::now() < end {
                        let handed_in = Instant::now();
                        log.append(record.clone(), 0).await?;
                        appends.fetch_add(1, Ordering::Relaxed);
                        slowest_us.fetch_max(handed_in.elapsed().as_micros() as u64, Ordering::Relaxed);
                    }
                    Ok::<_, edge_buffer::AppendError>(())
                })
            })
            .collect();
        for producer in producers {
            producer.await??;
        }
        log.close().await;
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    let rate = appends.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    println!("{rate:.0} durable appends/s, slowest {} us", slowest_us.load(Ordering::Relaxed));
    Ok(())
}
