//! Numbers over time: how many are stored durably while charts are read, what they take, and how long a day of 100 devices takes, beside
//! plain SQLite rows of the same points.
//!
//! `cargo run --release -p central --example series_bench [-- POINTS]`; 10 million points when nothing is said.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use central::clock::now_ms;
use central::store::devices::{self, Device};
use central::store::series;
use central::store::series_reading::{self, SeriesQuery};
use central::store::telemetry::NewMessage;
use central::store::{self, Keep, Quotas, StoreError};
use central::telemetry::ingest::Ingest;
use rusqlite::Connection;
use schemas::bag::PropertyBag;
use schemas::names::DeviceId;

const DEVICES: u64 = 1000;
const METRICS: u64 = 5;
/// Between two points of a metric.
const EVERY_MS: u64 = 60_000;
/// Messages that wait for their acknowledgement at once.
const IN_FLIGHT: usize = 20_000;
const DAY_MS: u64 = 24 * 3_600_000;
const STEP_MS: u64 = 300_000;
const CHARTED: u64 = 100;

/// A number of a sensor with two decimals.
fn value(device: u64, metric: u64, round: u64) -> f64 {
    let (a, b) = ((round * 37 + device * 101 + metric * 7) % 997, (round / 60 + device) % 24);
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let hundredths = 2000.0 + b as f64 * 20.0 + (a % 60) as f64;
    hundredths / 100.0
}

struct Figures {
    points_per_second: f64,
    megabytes_per_million: f64,
    query_ms: f64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn per_second(points: u64, took: Duration) -> f64 {
    points as f64 / took.as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes_per_million(bytes: u64, points: u64) -> f64 {
    bytes as f64 / points as f64
}

async fn central_figures(dir: &std::path::Path, rounds: u64, begin_ms: u64) -> anyhow::Result<Figures> {
    let quotas =
        Quotas { device_bytes: u64::MAX >> 1, total_bytes: Some(u64::MAX >> 1), ..Quotas::default() };
    let store = store::open_with(dir, Keep { messages: u64::MAX >> 1, commands: 10 }, quotas)?;
    store
        .submit(|c| {
            for device in 0..DEVICES {
                let id: DeviceId = format!("d{device}").parse().expect("the name is one");
                devices::put(c, &Device { revision: 1, ..Device::new(id) })?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    let ingest = Ingest::new(store.clone());
    let reading = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let query = query(3, begin_ms, begin_ms + DAY_MS);
                let _ = store.read(move |c| Ok::<_, StoreError>(series_reading::read(c, &query)?)).await;
            }
        }
    });
    let since = Instant::now();
    let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
    for round in 0..rounds {
        for device in 0..DEVICES {
            let mut body = String::from("{");
            for metric in 0..METRICS {
                let comma = if metric == 0 { "" } else { "," };
                body.push_str(&format!("{comma}\"m{metric}\":{}", value(device, metric, round)));
            }
            body.push('}');
            let message = NewMessage {
                from: format!("d{device}").parse().context("name of a device")?,
                enqueued_ms: begin_ms + round * EVERY_MS,
                received_ms: now_ms(),
                bag: PropertyBag::new(),
                body: body.into_bytes(),
                place: None,
                generation: None,
            };
            if waiting.len() >= IN_FLIGHT
                && let Some(oldest) = waiting.pop_front()
            {
                let stored: futures_util::future::BoxFuture<'static, _> = oldest;
                stored.await?;
            }
            waiting.push_back(ingest.put(message, None));
        }
    }
    for stored in waiting {
        stored.await?;
    }
    let points = rounds * DEVICES * METRICS;
    let stored_in = since.elapsed();
    loop {
        let (_, taken) = store.read(|c| Ok::<_, StoreError>(series::usage(c)?)).await?;
        if taken >= points {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all points were in series {:.1} s after the first message", since.elapsed().as_secs_f64());
    reading.abort();
    // Until nothing more is compacted.
    let (mut bytes, mut settled) = (0, 0);
    while settled < 15 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (now, _) = store.read(|c| Ok::<_, StoreError>(series::usage(c)?)).await?;
        settled = if now == bytes { settled + 1 } else { 0 };
        bytes = now;
    }
    let end_ms = begin_ms + rounds * EVERY_MS;
    let mut best = f64::MAX;
    for _ in 0..4 {
        let since = Instant::now();
        let found = store
            .read(move |c| {
                let mut buckets = 0;
                for device in 0..CHARTED {
                    let query = query(device, end_ms.saturating_sub(DAY_MS), end_ms);
                    buckets += series_reading::read(c, &query)?.iter().map(Vec::len).sum::<usize>();
                }
                Ok::<_, StoreError>(buckets)
            })
            .await?;
        anyhow::ensure!(found > 0, "the charts are empty");
        best = best.min(since.elapsed().as_secs_f64() * 1000.0);
    }
    store.close().await;
    Ok(Figures {
        points_per_second: per_second(points, stored_in),
        megabytes_per_million: megabytes_per_million(bytes, points),
        query_ms: best,
    })
}

fn query(device: u64, from_ms: u64, to_ms: u64) -> SeriesQuery {
    SeriesQuery {
        of: format!("d{device}").parse().expect("the name is one"),
        component: String::new(),
        names: vec!["m0".to_owned()],
        from_ms: from_ms - from_ms % STEP_MS,
        to_ms: to_ms.div_ceil(STEP_MS) * STEP_MS,
        step_ms: STEP_MS,
    }
}

/// A row for each point by series and time, in transactions of 5,000.
fn plain_figures(dir: &std::path::Path, rounds: u64, begin_ms: u64) -> anyhow::Result<Figures> {
    let path = dir.join("plain.db");
    let c = Connection::open(&path)?;
    c.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE points (series INTEGER, at_ms INTEGER, value REAL, PRIMARY KEY (series, at_ms)) WITHOUT ROWID;",
    )?;
    let since = Instant::now();
    for round in 0..rounds {
        c.execute_batch("BEGIN")?;
        let mut insert = c.prepare_cached("INSERT INTO points VALUES (?1, ?2, ?3)")?;
        for device in 0..DEVICES {
            for metric in 0..METRICS {
                let series = (device * METRICS + metric).cast_signed();
                insert.execute((
                    series,
                    (begin_ms + round * EVERY_MS).cast_signed(),
                    value(device, metric, round),
                ))?;
            }
        }
        c.execute_batch("COMMIT")?;
    }
    let (points, took) = (rounds * DEVICES * METRICS, since.elapsed());
    c.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let bytes = std::fs::metadata(&path)?.len();
    let end_ms = begin_ms + rounds * EVERY_MS;
    let mut best = f64::MAX;
    for _ in 0..4 {
        let since = Instant::now();
        let mut select = c.prepare_cached(
            "SELECT at_ms / ?4, min(value), avg(value), max(value), count(*) FROM points
             WHERE series = ?1 AND at_ms >= ?2 AND at_ms < ?3 GROUP BY 1",
        )?;
        let mut buckets = 0;
        for device in 0..CHARTED {
            let of = (
                (device * METRICS).cast_signed(),
                end_ms.saturating_sub(DAY_MS).cast_signed(),
                end_ms.cast_signed(),
                STEP_MS.cast_signed(),
            );
            buckets += select.query_map(of, |row| row.get::<_, f64>(2))?.count();
        }
        anyhow::ensure!(buckets > 0, "the charts are empty");
        best = best.min(since.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(Figures {
        points_per_second: per_second(points, took),
        megabytes_per_million: megabytes_per_million(bytes, points),
        query_ms: best,
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let points: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse().context("the number of points")?,
        None => 10_000_000,
    };
    let rounds = (points / DEVICES / METRICS).max(1);
    let begin_ms = now_ms() - rounds * EVERY_MS;
    let dir = tempfile::tempdir()?;
    let ours = central_figures(dir.path(), rounds, begin_ms).await?;
    let theirs = plain_figures(dir.path(), rounds, begin_ms)?;
    println!(
        "| {} points | points/s, durable | MB per million points | 24 h of {CHARTED} devices, ms |",
        rounds * DEVICES * METRICS
    );
    println!("|---|---|---|---|");
    for (name, figures) in [("central (with the messages)", &ours), ("plain SQLite rows", &theirs)] {
        let Figures { points_per_second, megabytes_per_million, query_ms } = figures;
        println!("| {name} | {points_per_second:.0} | {megabytes_per_million:.2} | {query_ms:.1} |");
    }
    println!("RATIO series-ingest {:.2}", ours.points_per_second / theirs.points_per_second);
    println!("RATIO series-bytes {:.2}", ours.megabytes_per_million / theirs.megabytes_per_million);
    println!("RATIO series-chart {:.2}", ours.query_ms / theirs.query_ms);
    Ok(())
}
