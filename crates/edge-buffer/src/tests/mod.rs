//! The log through its own interface, on a real directory and on a disk that fails.

mod damage;
mod disk;
mod epochs;
mod every_step;
mod faults;
mod fence;
mod foreign;
mod lead;
mod limits;
mod loss_records;
mod mirrored;
mod pool;
mod power;
mod queue;
mod removed;
mod set_back;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::{Full, Log, LogOptions, ReadError, Record};

/// No test takes so long: what a log writes by itself would come between what a test counts, or lets fail, on a machine that stands
/// still for a second.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Small segments, no disk reserve, and nothing that it writes by itself after a time.
fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 1024,
        bytes_max: 1 << 20,
        age_max_ms: None,
        keep_free_bytes: 0,
        full: Full::DropOldest,
        pool: None,
        rank: 0,
        tag: None,
        ledger_lag: NEVER,
        ..LogOptions::default()
    }
}

fn payload(n: u64, len: usize) -> Bytes {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(len.max(8), n as u8);
    bytes.into()
}

/// Appends `count` records of `len` bytes, numbered by their sequence, each waited for.
async fn fill(log: &Log, count: u64, len: usize) {
    for _ in 0..count {
        let n = log.stats().next_sequence;
        assert_eq!(log.append(payload(n, len), n).await.unwrap(), n);
    }
}

/// Closes the log and reads all that is not done with.
async fn close_and_read(log: &Log) -> Vec<Record> {
    log.close().await;
    let mut reader = log.reader();
    let mut records = Vec::new();
    loop {
        match reader.next(|| 0).await {
            Ok(record) => records.push(record),
            Err(ReadError::Closed) => return records,
            Err(error) => panic!("{error}"),
        }
    }
}

fn sequences(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.sequence).collect()
}

fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
