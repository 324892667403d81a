//! Writes log lines on a thread of its own, so that no task waits for whoever reads the log.
//!
//! Lines wait in a buffer of [`BUFFER_BYTES_MAX`]. What comes while it is full is dropped and counted, and the count is written
//! when there is space again. Errors of the sink (a closed pipe, a full disk) are counted and otherwise ignored.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Some seconds of a busy log.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Between two tries at a sink that somebody made non-blocking and that takes nothing now.
const RETRY_AFTER: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    dropped_now: u64,
    is_writing: bool,
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    filled: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Writer(Arc<Shared>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.filled.notify_all();
    }
}

impl Writer {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(sink: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = shared.clone();
        std::thread::Builder::new().name("log-writer".into()).spawn(move || run(&thread, sink))?;
        Ok(Self(shared))
    }

    /// Gives in a line. Never waits for the sink.
    pub(super) fn write(&self, line: String) {
        let mut buffer = self.0.lock();
        if buffer.bytes.len() + line.len() > BUFFER_BYTES_MAX {
            buffer.dropped_now += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        buffer.bytes.extend_from_slice(line.as_bytes());
        drop(buffer);
        self.0.filled.notify_one();
    }

    /// Waits until everything handed in is written, `max` at most.
    pub(super) fn flush(&self, max: Duration) {
        let deadline = Instant::now() + max;
        let mut buffer = self.0.lock();
        while buffer.is_writing || !buffer.bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            buffer = self.0.written.wait_timeout(buffer, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lines that did not reach the sink since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

fn run(shared: &Shared, mut sink: impl Write) {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = shared.lock();
        while buffer.bytes.is_empty() && buffer.dropped_now == 0 {
            if buffer.is_over {
                return;
            }
            buffer = shared.filled.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut buffer.bytes, &mut bytes);
        let dropped = std::mem::take(&mut buffer.dropped_now);
        buffer.is_writing = true;
        drop(buffer);
        if dropped > 0 {
            bytes.extend_from_slice(
                format!("{dropped} log lines dropped here: the log's reader was too slow\n").as_bytes(),
            );
        }
        let lost = put(&mut sink, &bytes);
        shared.dropped.fetch_add(lost, Ordering::Relaxed);
        bytes.clear();
        shared.lock().is_writing = false;
        shared.written.notify_all();
    }
}

/// Writes all, and gives the number of lines that the sink did not take.
fn put(sink: &mut impl Write, bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_AFTER),
            Ok(_) | Err(_) => return rest.iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
    let _ = sink.flush();
    0
}
