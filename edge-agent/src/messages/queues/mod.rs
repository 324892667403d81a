//! The queues on disk: those for central, and those for the inputs of each module with the task that delivers them. A
//! queue is a place and a priority.

#[cfg(test)]
mod ages;
mod delivery;
pub mod destination;
mod expiry;
pub mod known;
pub mod limits;
pub mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use edge_buffer::{Append, AppendError, Fence, LossRecord, Lost, OpenError, Stats};
use edge_core::metrics::histogram::{Histogram, LINK_BOUNDS};
use edge_core::route::{QueueClass, QueuesNeeded, Sink};
use edge_hub::clients::Clients;
use edge_hub::tasks;
use futures_util::future::BoxFuture;
use schemas::manifest::PRIORITY_DEFAULT;
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use delivery::Delivery;
use destination::Destination;
use expiry::Expiry;
use known::KnownQueues;
use limits::{Limits, UPSTREAM};

use crate::access::identity_state::{IdentityState, RemovalError, Removed};
use crate::clock::steady_ms;

/// How often expired messages are looked for. A queue that is read counts them at once.
const EXPIRY_EVERY: Duration = Duration::from_secs(5);

struct Input {
    place: Destination,
    /// `None` when no route leads to the module any more.
    delivery: Option<Delivering>,
}

struct Delivering {
    /// The module is connected and listens.
    wake: Arc<Notify>,
    stop: CancellationToken,
    ended: Option<JoinHandle<()>>,
}

/// All queues of the gateway.
pub struct Queues {
    dir: PathBuf,
    limits: Limits,
    gateway: DeviceId,
    upstream: Destination,
    inputs: Mutex<BTreeMap<ModuleId, Input>>,
    clients: Clients,
    deliveries: TaskTracker,
    /// From sending a message to central to its acknowledgement.
    pub send_times: Histogram,
    expiry: Mutex<Expiry>,
}

/// The numbers of one queue.
pub struct QueueStats {
    /// `upstream`, or `inputs/{module}`; with `@3` behind it for priority 3, and `.refuse` for one that refuses.
    pub name: String,
    /// The module whose input it leads to; `None` for central.
    pub module: Option<ModuleId>,
    /// 0 (first) to 9; `None` for routes without one, which come last.
    pub priority: Option<u32>,
    /// No route leads to it, and it is empty.
    pub is_over: bool,
    /// As the log counts.
    pub stats: Stats,
    /// What was lost, by cause and sender.
    pub loss_records: Vec<LossRecord>,
}

impl QueueStats {
    /// Whether it is used, holds something, or has lost something.
    pub fn is_shown(&self) -> bool {
        !self.is_over || self.stats.lost != Lost::default()
    }
}

impl Queues {
    /// Opens the queues for central. Those of modules follow with the routes. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] when one cannot be opened.
    pub fn open(dir: &Path, limits: Limits, gateway: DeviceId, clients: Clients) -> Result<Self, OpenError> {
        let upstream = Destination::open(UPSTREAM.to_owned(), dir.join(UPSTREAM), limits.clone())?;
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
            send_times: Histogram::new(&LINK_BOUNDS),
            expiry: Mutex::default(),
        })
    }

    fn inputs(&self) -> MutexGuard<'_, BTreeMap<ModuleId, Input>> {
        self.inputs.lock().expect("nothing panics while it holds the queues")
    }

    /// The queues for central.
    pub fn upstream(&self) -> &Destination {
        &self.upstream
    }

    /// Puts a record into the queue of a sink, for who awaits that at once; `None` when no route leads to that module any more.
    pub fn append(
        &self,
        sink: &Sink,
        class: QueueClass,
        record: bytes::Bytes,
        expires_ms: Option<u64>,
        fence: Option<&Fence>,
    ) -> Option<Append> {
        match sink {
            Sink::Upstream => self.upstream.append(class, record, expires_ms, fence),
            Sink::Input { module, .. } => self
                .inputs()
                .get(module)
                .filter(|input| input.delivery.is_some())?
                .place
                .append(class, record, expires_ms, fence),
        }
    }

    /// A module listens for its inputs: what waits is delivered.
    pub fn wake(&self, module: &ModuleId) {
        if let Some(delivery) = self.inputs().get(module).and_then(|input| input.delivery.as_ref()) {
            delivery.wake.notify_one();
        }
    }

    /// Opens the queues that routes lead to. Those of a priority that no route has any more drain. What waits for a module
    /// that no route leads to any more is given up: it is counted as dropped, and its files go when central knows. Blocking.
    ///
    /// # Errors
    /// [`OpenError`] naming the directory; the queues opened before it stay.
    pub fn route_to(&self, needed: &QueuesNeeded) -> Result<(), OpenError> {
        self.upstream.need(needed.upstream.iter().copied().chain([QueueClass::DEFAULT]))?;
        // Held while files are opened: a message that is routed meanwhile waits for its queue instead of finding none.
        let mut inputs = self.inputs();
        for module in self.modules_on_disk() {
            if !inputs.contains_key(&module) && !needed.modules.contains_key(&module) {
                // Left behind by a daemon that ended before central knew.
                inputs.insert(module.clone(), Input { place: self.input(&module)?, delivery: None });
            }
        }
        for (module, input) in inputs.iter_mut().filter(|(module, _)| !needed.modules.contains_key(*module)) {
            // Stopped before its messages are given up: none of them may be on its way to the module then.
            if let Some(delivery) = input.delivery.take() {
                delivery.stop.cancel();
            }
            input.place.need([])?;
            let waiting = input.place.give_up();
            if waiting > 0 {
                tracing::warn!(%module, waiting, "no route leads to the module any more; what waited for it was dropped");
            }
        }
        for (module, classes) in &needed.modules {
            if !inputs.contains_key(module) {
                inputs.insert(module.clone(), Input { place: self.input(module)?, delivery: None });
            }
            let Some(input) = inputs.get_mut(module) else { continue };
            input.place.need(classes.iter().copied())?;
            if input.delivery.is_some() {
                continue;
            }
            input.delivery = Some(self.deliver(module, &input.place));
        }
        Ok(())
    }

    fn deliver(&self, module: &ModuleId, place: &Destination) -> Delivering {
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let (to, reader) = (Identity::module(self.gateway.clone(), module.clone()), place.reader());
        let (clients, of, until) = (self.clients.clone(), wake.clone(), stop.clone());
        let ended = tasks::spawn_restarted(&self.deliveries, "input of a module", move || {
            Delivery {
                to: to.clone(),
                reader: reader.anew(),
                clients: clients.clone(),
                wake: of.clone(),
                stop: until.clone(),
            }
            .run()
        });
        Delivering { wake, stop, ended: Some(ended) }
    }

    /// Gives up what waits for a module that was removed. What routes bring from then on waits for the next one of its name.
    /// Ends when that is on disk.
    async fn give_up(self: &Arc<Self>, module: &ModuleId) -> Result<(), AppendError> {
        let ended = {
            let mut inputs = self.inputs();
            let Some(input) = inputs.get_mut(module) else { return Ok(()) };
            input.delivery.as_mut().and_then(|delivery| {
                delivery.stop.cancel();
                delivery.ended.take()
            })
        };
        // What it had read is not on its way to the next one.
        if let Some(ended) = ended {
            let _ = ended.await;
        }
        let (this, of) = (self.clone(), module.clone());
        let given_up = tokio::task::spawn_blocking(move || {
            let mut inputs = this.inputs();
            // The lock was free while the task ended: the routes may have changed.
            let Some(input) = inputs.get_mut(&of) else { return (0, Vec::new()) };
            let waiting = input.place.give_up();
            if input.delivery.is_some() {
                input.delivery = Some(this.deliver(&of, &input.place));
            }
            (waiting, input.place.queues().to_vec())
        });
        let given_up = given_up.await;
        let (waiting, queues) =
            given_up.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
        if waiting > 0 {
            tracing::warn!(%module, waiting, "the module was removed; what waited for it was dropped");
        }
        for queue in queues {
            // The loss must be on disk before the removal counts as done, or a restart would deliver to the next module of the name.
            queue.log.written().await?;
        }
        Ok(())
    }

    fn input(&self, module: &ModuleId) -> Result<Destination, OpenError> {
        Destination::open(format!("inputs/{module}"), self.input_dir(module), self.limits.clone())
    }

    /// The modules that have queues on disk.
    fn modules_on_disk(&self) -> BTreeSet<ModuleId> {
        let inputs = self.dir.join("inputs");
        let ledgers = self.limits.ledgers_in(&inputs);
        let entries =
            [Some(inputs), ledgers].into_iter().flatten().filter_map(|dir| std::fs::read_dir(dir).ok());
        let names = entries.flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        // After `@` or `.` comes the class of the queue; a module's own are encoded.
        let modules = names.filter_map(|name| {
            let name = name.split(['@', '.']).next()?.to_owned();
            percent_encoding::percent_decode_str(&name).decode_utf8().ok()?.parse().ok()
        });
        modules.collect()
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
    pub fn all(&self) -> Vec<(String, Arc<destination::Queue>)> {
        let shown = self.named().into_iter().filter(|(.., queue)| !queue.is_over());
        shown.map(|(name, _, queue)| (name, queue)).collect()
    }

    /// Every queue with its name and the module that it leads to.
    fn named(&self) -> Vec<(String, Option<ModuleId>, Arc<destination::Queue>)> {
        let mut all = Vec::new();
        let mut add = |place: &Destination, module: Option<&ModuleId>| {
            let named = |queue: &Arc<destination::Queue>| {
                (place.name_of(queue.class), module.cloned(), queue.clone())
            };
            all.extend(place.queues().iter().map(named));
        };
        add(&self.upstream, None);
        for (module, input) in self.inputs().iter() {
            add(&input.place, Some(module));
        }
        all
    }

    /// The numbers of every queue that is not over, or has lost something: losses stay on record.
    pub fn stats(&self) -> Vec<QueueStats> {
        self.stats_of_all().into_iter().filter(QueueStats::is_shown).collect()
    }

    /// The numbers of every queue that was opened since the start: sums over them never become smaller.
    pub fn stats_of_all(&self) -> Vec<QueueStats> {
        let of = |(name, module, queue): (String, Option<ModuleId>, Arc<destination::Queue>)| QueueStats {
            name,
            module,
            priority: Some(queue.class.priority).filter(|priority| *priority != PRIORITY_DEFAULT),
            is_over: queue.is_over(),
            stats: queue.log.stats(),
            loss_records: queue.log.loss_records(),
        };
        self.named().into_iter().map(of).collect()
    }

    /// Counts what has expired or was removed in each queue, whoever reads it or does not, and sees to it that the state knows them all,
    /// every few seconds until `stop`.
    pub async fn expire(self: Arc<Self>, stop: CancellationToken) {
        loop {
            for (name, queue) in self.all() {
                let check = move || {
                    queue.log.check_files();
                    queue.log.expire(steady_ms())
                };
                let expired = tokio::task::spawn_blocking(check).await;
                match expired {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(queue = name, error = %edge_core::error_chain::chain(&error), "a queue could not be searched for expired messages");
                    }
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // The runtime is shutting down.
                    Err(_) => return,
                }
            }
            self.warn_of_expired();
            if let Some(known) = self.known() {
                known.save_again();
            }
            tokio::select! {
                () = tokio::time::sleep(EXPIRY_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Notes and logs what expired since this was last called, whoever found it.
    fn warn_of_expired(&self) {
        let counts = self.stats_of_all().into_iter().map(|queue| (queue.name, queue.stats.expired));
        let mut expiry = self.expiry.lock().expect("nothing panics with it");
        if let Some((expired, queues)) = expiry.warning(counts, steady_ms()) {
            tracing::warn!(expired, queues, "queued messages expired before they could be delivered");
        }
    }

    /// How long ago messages expired last; `None` when none did since the daemon started.
    pub fn expired_ms_ago(&self) -> Option<u64> {
        self.expiry.lock().expect("nothing panics with it").last_ms().map(|at| steady_ms().saturating_sub(at))
    }

    /// What the state knows of the queues, where it is kept.
    pub fn known(&self) -> Option<&KnownQueues> {
        self.limits.known()
    }

    /// Ends the deliveries and commits everything that was handed in.
    pub async fn close(&self) {
        let inputs = std::mem::take(&mut *self.inputs());
        for delivery in inputs.values().filter_map(|input| input.delivery.as_ref()) {
            delivery.stop.cancel();
        }
        self.deliveries.close();
        self.deliveries.wait().await;
        for input in inputs.values() {
            input.place.close().await;
        }
        self.upstream.close().await;
        if let Some(known) = self.known() {
            known.close();
        }
    }
}

impl IdentityState for Arc<Queues> {
    /// What waits for modules that are not here is theirs who come: a route leads to them.
    fn identities(&self) -> BTreeSet<Identity> {
        BTreeSet::new()
    }

    fn forget<'a>(&'a self, removed: &'a Removed) -> BoxFuture<'a, Result<(), RemovalError>> {
        Box::pin(async move {
            for identity in removed.iter().filter(|identity| identity.device == self.gateway) {
                if let Some(module) = &identity.module {
                    self.give_up(module).await?;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use edge_buffer::Cause;
    use edge_core::route::RouteTable;

    use super::*;

    #[tokio::test]
    async fn what_waits_for_a_module_that_never_starts_or_for_a_link_that_is_down_is_reported_when_it_expires()
     {
        let dir = tempfile::tempdir().unwrap();
        let gateway: DeviceId = "gw".parse().unwrap();
        let queues = Queues::open(dir.path(), Limits::default(), gateway, Clients::new()).unwrap();
        let routes = [
            ("up", "FROM /* INTO $upstream"),
            ("in", "FROM /* INTO BrokeredEndpoint(\"/modules/never/inputs/i\")"),
        ];
        let (table, refused) = RouteTable::parse(routes);
        assert!(refused.is_empty());
        queues.route_to(&table.queues()).unwrap();
        let input = Sink::Input { module: "never".parse().unwrap(), input: "i".to_owned() };
        let soon = steady_ms() + 20;
        for sink in [Sink::Upstream, input] {
            for expires_ms in [Some(soon), Some(soon), None] {
                let record = crate::messages::record::encode("topic", b"body").unwrap();
                queues.append(&sink, QueueClass::DEFAULT, record, expires_ms, None).unwrap().await.unwrap();
            }
        }
        while steady_ms() <= soon {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (queues, stop) = (Arc::new(queues), CancellationToken::new());
        let expiry = tokio::spawn(queues.clone().expire(stop.clone()));
        let counts = |queue: &QueueStats| {
            let expired = queue.loss_records.iter().filter(|loss| loss.cause == Cause::Expired);
            (queue.stats.expired, expired.map(|loss| loss.count).sum::<u64>(), queue.stats.records)
        };
        let all = || queues.stats().iter().all(|queue| counts(queue) == (2, 2, 1));
        // What a delivery has in hand expires at the look after it gave it back.
        tokio::time::timeout(Duration::from_secs(60), async {
            while !all() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("it is told within seconds");
        stop.cancel();
        expiry.await.unwrap();
        queues.close().await;
    }
}
