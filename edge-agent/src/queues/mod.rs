//! The queues on disk: those for central, and those for the inputs of each module with the task that delivers them. A
//! queue is a place and a priority.

mod delivery;
pub mod limits;
pub mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use edge_buffer::{Append, Gap, OpenError, Stats};
use edge_core::route::{QueueClass, QueuesNeeded, Sink};
use edge_hub::clients::Clients;
use schemas::manifest::PRIORITY_DEFAULT;
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use delivery::Delivery;
use limits::Limits;
use place::Place;

struct Input {
    place: Place,
    /// The module is connected and listens.
    wake: Arc<Notify>,
    stop: CancellationToken,
}

/// All queues of the gateway.
pub struct Queues {
    dir: PathBuf,
    limits: Limits,
    gateway: DeviceId,
    upstream: Place,
    inputs: Mutex<BTreeMap<ModuleId, Input>>,
    clients: Clients,
    deliveries: TaskTracker,
}

/// The numbers of one queue.
pub struct QueueStats {
    /// `upstream`, or `inputs/{module}`; with `@3` behind it for priority 3, and `.refuse` for one that refuses.
    pub name: String,
    /// 0 (first) to 9; `None` for routes without one, which come last.
    pub priority: Option<u32>,
    /// As the log counts.
    pub stats: Stats,
    /// What was lost, by cause and sender.
    pub gaps: Vec<Gap>,
}

impl Queues {
    /// Opens the queues for central. Those of modules follow with the routes. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] when one cannot be opened.
    pub fn open(dir: &Path, limits: Limits, gateway: DeviceId, clients: Clients) -> Result<Self, OpenError> {
        let upstream = Place::open("upstream".to_owned(), dir.join("upstream"), limits.clone())?;
        // What comes before there are routes goes there.
        upstream.need([QueueClass::DEFAULT])?;
        Ok(Self {
            dir: dir.to_owned(),
            limits,
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

    /// The queues for central.
    pub fn upstream(&self) -> &Place {
        &self.upstream
    }

    /// Puts a record into the queue of a sink, for who awaits that at once; `None` when no route leads to that module any more.
    pub fn append(
        &self,
        sink: &Sink,
        class: QueueClass,
        record: bytes::Bytes,
        expires_ms: Option<u64>,
    ) -> Option<Append> {
        match sink {
            Sink::Upstream => self.upstream.append(class, record, expires_ms),
            Sink::Input { module, .. } => self.inputs().get(module)?.place.append(class, record, expires_ms),
        }
    }

    /// A module listens for its inputs: what waits is delivered.
    pub fn wake(&self, module: &ModuleId) {
        if let Some(input) = self.inputs().get(module) {
            input.wake.notify_one();
        }
    }

    /// Opens the queues that routes lead to. Those of a priority that no route has any more drain; those of a module that
    /// no route leads to any more end, and what was still in them is told in the log and forgotten. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] naming the directory; the queues opened before it stay.
    pub fn route_to(&self, needed: &QueuesNeeded) -> Result<(), OpenError> {
        self.upstream.need(needed.upstream.iter().copied().chain([QueueClass::DEFAULT]))?;
        let mut inputs = self.inputs();
        inputs.retain(|module, input| {
            let is_kept = needed.modules.contains_key(module);
            if !is_kept {
                let waiting: u64 =
                    input.place.queues().iter().map(|queue| queue.log.stats().records).sum();
                tracing::warn!(%module, waiting, "no route leads to the module any more; its queues were dropped");
                input.stop.cancel();
                input.place.remove();
            }
            is_kept
        });
        for (module, classes) in &needed.modules {
            if let Some(input) = inputs.get(module) {
                input.place.need(classes.iter().copied())?;
                continue;
            }
            let name = format!("inputs/{module}");
            let place = Place::open(name, self.input_dir(module), self.limits.clone())?;
            place.need(classes.iter().copied())?;
            let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
            let delivery = Delivery {
                to: Identity::module(self.gateway.clone(), module.clone()),
                reader: place.reader(),
                clients: self.clients.clone(),
                wake: wake.clone(),
                stop: stop.clone(),
            };
            self.deliveries.spawn(delivery.run());
            inputs.insert(module.clone(), Input { place, wake, stop });
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

    /// Every queue that is not over, with its name: `upstream`, or `inputs/{module}`; with `@3` behind it for priority 3.
    pub fn all(&self) -> Vec<(String, Arc<place::Queue>)> {
        let mut all = named(&self.upstream);
        for input in self.inputs().values() {
            all.extend(named(&input.place));
        }
        all
    }

    /// The numbers of every queue.
    pub fn stats(&self) -> Vec<QueueStats> {
        let of = |(name, queue): (String, Arc<place::Queue>)| QueueStats {
            name,
            priority: Some(queue.class.priority).filter(|priority| *priority != PRIORITY_DEFAULT),
            stats: queue.log.stats(),
            gaps: queue.log.gaps(),
        };
        self.all().into_iter().map(of).collect()
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
            input.place.close().await;
        }
        self.upstream.close().await;
    }
}

fn named(place: &Place) -> Vec<(String, Arc<place::Queue>)> {
    let queues = place.queues();
    let shown = queues.iter().filter(|queue| !queue.is_over());
    shown.map(|queue| (place.name_of(queue.class), queue.clone())).collect()
}
