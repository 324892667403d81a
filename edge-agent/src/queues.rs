//! The queues on disk: one for central, and one for the inputs of each module, with the task that delivers it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use edge_buffer::{Append, Gap, Log, LogOptions, OpenError, Stats};
use edge_hub::clients::Clients;
use edge_hub::delivery::NotDelivered;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::now_ms;
use crate::record;

/// Messages on their way to one module at a time.
const WINDOW: usize = 64;
/// When a module is there but slow, how long until it is tried again.
const SLOW_MODULE: Duration = Duration::from_secs(1);

struct Input {
    log: Log,
    /// The module is connected and listens.
    wake: Arc<Notify>,
    stop: CancellationToken,
}

/// All queues of the gateway.
pub struct Queues {
    dir: PathBuf,
    options: LogOptions,
    gateway: DeviceId,
    upstream: Log,
    inputs: Mutex<BTreeMap<ModuleId, Input>>,
    clients: Clients,
    deliveries: TaskTracker,
}

/// The numbers of one queue.
pub struct QueueStats {
    /// `upstream`, or `inputs/{module}`.
    pub name: String,
    /// As the log counts.
    pub stats: Stats,
    /// What was lost, by cause and sender.
    pub gaps: Vec<Gap>,
}

impl QueueStats {
    fn of(name: String, log: &Log) -> Self {
        Self { name, stats: log.stats(), gaps: log.gaps() }
    }
}

impl Queues {
    /// Opens the queue for central. Those of modules follow with the routes. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be opened.
    pub fn open(
        dir: &Path,
        options: LogOptions,
        gateway: DeviceId,
        clients: Clients,
    ) -> Result<Self, OpenError> {
        let upstream = Log::open(&dir.join("upstream"), options.clone())?;
        Ok(Self {
            dir: dir.to_owned(),
            options,
            gateway,
            upstream,
            inputs: Mutex::default(),
            clients,
            deliveries: TaskTracker::new(),
        })
    }

    fn inputs(&self) -> MutexGuard<'_, BTreeMap<ModuleId, Input>> {
        self.inputs.lock().expect("nothing panics while it holds the queues")
    }

    /// The queue for central.
    pub fn upstream(&self) -> &Log {
        &self.upstream
    }

    /// Puts a record into a module's queue; `None` when no route leads to that module any more.
    pub fn append_input(
        &self,
        module: &ModuleId,
        record: bytes::Bytes,
        expires_ms: Option<u64>,
    ) -> Option<Append> {
        let inputs = self.inputs();
        let log = &inputs.get(module)?.log;
        Some(match expires_ms {
            None => log.append(record, now_ms()),
            Some(at) => log.append_expiring(record, now_ms(), at),
        })
    }

    /// A module listens for its inputs: what waits is delivered.
    pub fn wake(&self, module: &ModuleId) {
        if let Some(input) = self.inputs().get(module) {
            input.wake.notify_one();
        }
    }

    /// Opens the queues of the modules that routes lead to and ends those that no route leads to any more; what was
    /// still in one of those is told in the log and forgotten. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] naming the directory; the queues opened before it stay.
    pub fn route_to(&self, modules: &BTreeSet<ModuleId>) -> Result<(), OpenError> {
        let mut inputs = self.inputs();
        inputs.retain(|module, input| {
            let is_kept = modules.contains(module);
            if !is_kept {
                let waiting = input.log.stats().records;
                tracing::warn!(%module, waiting, "no route leads to the module any more; its queue was dropped");
                input.stop.cancel();
                self.forget(module);
            }
            is_kept
        });
        for module in modules {
            if inputs.contains_key(module) {
                continue;
            }
            let log = Log::open(&self.input_dir(module), self.options.clone())?;
            let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
            let delivery = Delivery {
                to: Identity::module(self.gateway.clone(), module.clone()),
                log: log.clone(),
                clients: self.clients.clone(),
                wake: wake.clone(),
                stop: stop.clone(),
            };
            self.deliveries.spawn(delivery.run());
            inputs.insert(module.clone(), Input { log, wake, stop });
        }
        Ok(())
    }

    fn input_dir(&self, module: &ModuleId) -> PathBuf {
        // A module's name may hold characters that a file's may not, and may be `..`.
        let name: String = module
            .as_str()
            .bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() || b == b'-' || b == b'_' {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02x}")
                }
            })
            .collect();
        self.dir.join("inputs").join(name)
    }

    fn forget(&self, module: &ModuleId) {
        let dir = self.input_dir(module);
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "the dropped queue's files were not removed");
        }
    }

    /// The numbers of every queue.
    pub fn stats(&self) -> Vec<QueueStats> {
        let mut all = vec![QueueStats::of("upstream".into(), &self.upstream)];
        let inputs = self.inputs();
        all.extend(
            inputs.iter().map(|(module, input)| QueueStats::of(format!("inputs/{module}"), &input.log)),
        );
        all
    }

    /// Ends the deliveries and commits everything that was handed in.
    pub async fn close(&self) {
        let inputs = std::mem::take(&mut *self.inputs());
        for input in inputs.values() {
            input.stop.cancel();
        }
        self.deliveries.close();
        self.deliveries.wait().await;
        for input in inputs.values() {
            input.log.close().await;
        }
        self.upstream.close().await;
    }
}

struct Delivery {
    to: Identity,
    log: Log,
    clients: Clients,
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl Delivery {
    /// Delivers in order, forgets what the module acknowledged, and starts over from there when the module was away.
    async fn run(self) {
        let mut reader = self.log.reader();
        let mut in_flight = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some((sequence, delivered)) = in_flight.next(), if !in_flight.is_empty() => match delivered {
                    Ok(()) => self.log.advance(sequence),
                    Err(why) => {
                        in_flight = FuturesOrdered::new();
                        if !self.module_is_back(why).await {
                            return;
                        }
                        reader.rewind();
                    }
                },
                next = reader.next(now_ms), if in_flight.len() < WINDOW => match next {
                    Ok(next) => {
                        let delivery = match record::decode(&next.payload) {
                            Some((topic, body)) => self.clients.deliver(&self.to, topic.to_owned(), body),
                            None => {
                                tracing::error!(module = %self.to, sequence = next.sequence, "a queued message could not be read and was skipped");
                                Box::pin(std::future::ready(Ok(())))
                            }
                        };
                        in_flight.push_back(async move { (next.sequence, delivery.await) });
                    }
                    Err(error) => {
                        tracing::error!(module = %self.to, %error, "the module's queue cannot be read; deliveries ended");
                        return;
                    }
                },
            }
        }
    }

    async fn module_is_back(&self, why: NotDelivered) -> bool {
        let is_slow = matches!(why, NotDelivered::Busy);
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.wake.notified() => true,
            // A queue of the session that was full says nothing when it has room again.
            () = tokio::time::sleep(SLOW_MODULE), if is_slow => true,
        }
    }
}
