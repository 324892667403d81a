//! The gateway's metrics for Prometheus, collected from the parts when it scrapes. `crates/edge-core/src/metrics/names.rs` has the
//! names, docs/operating/metrics.md describes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_buffer::{Headroom, Lost};
use edge_core::deploy::observed::ContainerState;
use edge_core::metrics::exposition::{Exposition, SampleValue};
use edge_core::metrics::names;
use edge_hub::metrics::{self, LogNumbers};
use schemas::manifest::PRIORITY_DEFAULT;
use schemas::names::ModuleId;
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::steady_ms;
use crate::control::context::Control;
use crate::messages::queues::QueueStats;
use crate::messages::routing::Routing;

/// Label of central, or of another upstream, among the destinations.
const UPSTREAM: &str = "upstream";
/// Senders that have one count together. No id of a device or module has a space.
const LEAF_DEVICES: &str = "leaf devices";
const LOCAL_USERS: &str = "local users";

/// What the metrics are collected from.
pub struct Metrics {
    pub control: Arc<Control>,
    /// Has the counts of what was received.
    pub routing: watch::Receiver<Arc<Routing>>,
    pub data_dir: PathBuf,
    /// The operating system and the architecture.
    pub host: String,
    pub started: Instant,
    /// Differs from that of every other run of the daemon.
    pub instance: Uuid,
}

impl Metrics {
    /// All metrics, as Prometheus reads them.
    pub fn text(&self) -> String {
        let instance = self.instance.to_string();
        let mut exposition = Exposition::new(&[
            ("iothub", &self.control.hub_name),
            ("edge_device", self.control.gateway.as_str()),
            ("instance_number", &instance),
        ]);
        metrics::program(&mut exposition, "edge-agent", env!("CARGO_PKG_VERSION"));
        let queues = self.control.queues.stats_of_all();
        self.host(&mut exposition);
        self.clients(&mut exposition);
        self.messages(&mut exposition, &queues);
        queue_numbers(&mut exposition, &queues);
        self.losses(&mut exposition, &queues);
        self.logs(&mut exposition, &queues);
        self.link(&mut exposition);
        self.deployment(&mut exposition);
        metrics::mqtt_server(&mut exposition, &self.control.server);
        exposition.into_text()
    }

    fn host(&self, exposition: &mut Exposition) {
        exposition.metric(&names::AGENT_METADATA).add(&[env!("CARGO_PKG_VERSION"), &self.host], 0_u64);
        exposition.value(&names::AGENT_UPTIME, self.started.elapsed());
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        if let Some(seconds) = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok()) {
            exposition.value(&names::HOST_UPTIME, seconds);
        }
        if let Ok(disk) = rustix::fs::statvfs(&self.data_dir) {
            let name = self.data_dir.to_string_lossy();
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            exposition.metric(&names::DISK_AVAILABLE).add(&[&name], bytes(disk.f_bavail));
            exposition.metric(&names::DISK_TOTAL).add(&[&name], bytes(disk.f_blocks));
        }
    }

    fn clients(&self, exposition: &mut Exposition) {
        let counts = self.control.server.counts();
        let (connects, disconnects) = counts.connects_and_disconnects();
        exposition.value(&names::CONNECTED_CLIENTS, self.control.clients.connected().len());
        exposition.value(&names::CONNECTS, connects);
        exposition.value(&names::DISCONNECTS, disconnects);
        exposition.metric(&names::CONNECTS_FAILED).add(&["not_authenticated"], counts.logins_failed());
    }

    fn messages(&self, exposition: &mut Exposition, queues: &[QueueStats]) {
        let received = self.routing.borrow().received.clone();
        let mut samples = exposition.metric(&names::MESSAGES_RECEIVED);
        for (module, count) in received.of_modules() {
            samples.add(&[&self.of_gateway(module)], count);
        }
        samples.add(&[LEAF_DEVICES], received.of_leaf_devices());
        samples.add(&[LOCAL_USERS], received.of_local_users());

        // Queues of one priority that do otherwise when they are full count as one.
        let mut by_destination: BTreeMap<(String, u32), (u64, u64)> = BTreeMap::new();
        for queue in queues.iter().filter(|queue| !queue.is_over) {
            let to = queue.module.as_ref().map_or_else(|| UPSTREAM.to_owned(), |to| self.of_gateway(to));
            let (waiting, done) =
                by_destination.entry((to, queue.priority.unwrap_or(PRIORITY_DEFAULT))).or_default();
            *waiting += queue.stats.records;
            *done += queue.stats.done;
        }
        let mut samples = exposition.metric(&names::MESSAGES_SENT);
        for ((to, priority), (_, done)) in &by_destination {
            samples.add(&[to, &priority.to_string()], *done);
        }
        let mut samples = exposition.metric(&names::QUEUE_LENGTH);
        for ((to, priority), (waiting, _)) in &by_destination {
            samples.add(&[to, &priority.to_string()], *waiting);
        }
        let times = self.control.queues.send_times.distribution();
        exposition.metric(&names::MESSAGE_SEND_SECONDS).distribution(&[UPSTREAM], &times);

        let mut samples = exposition.metric(&names::MESSAGES_DROPPED);
        samples.add(&["no_route"], self.control.unrouted.total());
        samples.add(&["ttl_expiry"], queues.iter().map(|queue| queue.stats.expired).sum::<u64>());
        exposition.value(&names::MESSAGES_PARTLY_REFUSED, self.control.unrouted.partly());
    }

    fn losses(&self, exposition: &mut Exposition, queues: &[QueueStats]) {
        let quarantine = self.control.quarantine.stats();
        exposition.value(&names::QUARANTINE_MESSAGES, quarantine.records);
        let mut samples = exposition.metric(&names::MESSAGES_LOST);
        let of_queues = queues.iter().filter(|queue| queue.is_shown());
        let of_queues = of_queues.map(|queue| (queue.name.as_str(), &queue.stats.lost));
        for (name, lost) in of_queues.chain([("quarantine", &quarantine.lost)]) {
            for (cause, count) in by_cause(lost) {
                samples.add(&[name, cause], count);
            }
        }
        let loss_records = self.control.quarantine.log().loss_records();
        let loss_records = queues.iter().flat_map(|queue| &queue.loss_records).chain(&loss_records);
        exposition.value(&names::LOSSES_UNREPORTED, loss_records.map(|loss| loss.count).sum::<u64>());
    }

    fn logs(&self, exposition: &mut Exposition, queues: &[QueueStats]) {
        let of_queue =
            |queue: &QueueStats| LogNumbers { name: queue.name.clone(), is_queue: true, stats: queue.stats };
        let others = [
            ("quarantine", self.control.quarantine.stats()),
            ("mqtt", self.control.server.journal_stats()),
            ("state", self.control.state.journal_stats()),
        ];
        let other = |(name, stats): (&str, _)| LogNumbers { name: name.to_owned(), is_queue: false, stats };
        let logs: Vec<LogNumbers> = queues.iter().map(of_queue).chain(others.map(other)).collect();
        metrics::logs(exposition, &logs);
    }

    fn link(&self, exposition: &mut Exposition) {
        if let Some(link) = &self.control.link {
            exposition.value(&names::UPSTREAM_CONNECTED, link.borrow().is_connected);
        }
        let spent = self.control.meter.spent();
        let mut samples = exposition.metric(&names::LINK_BYTES);
        for spent in &spent {
            samples.add(&[spent.cause.name()], spent.bytes);
        }
        let mut samples = exposition.metric(&names::LINK_LIMIT_BYTES);
        for spent in &spent {
            if let Some(limit) = spent.limit {
                samples.add(&[spent.cause.name()], limit);
            }
        }
        let commands = self.control.commands.counts();
        let mut samples = exposition.metric(&names::COMMANDS);
        samples.add(&["waiting"], commands.waiting);
        samples.add(&["running"], commands.running);
        samples.add(&["answered"], commands.unreported);
    }

    /// Only of the modules that the deployment has: containers may have any names.
    fn deployment(&self, exposition: &mut Exposition) {
        let reconciler = self.control.reconciler.borrow().clone();
        exposition.value(&names::DEPLOYMENT_SETTLED, reconciler.is_settled);
        let Some(deployment) = self.control.deployment.borrow().clone() else { return };
        let modules = deployment.desired.modules.keys();
        let runs = |module: &ModuleId| {
            let observed = reconciler.observed.modules.get(module);
            observed
                .is_some_and(|observed| observed.state == ContainerState::Running && !observed.is_unhealthy)
        };
        let mut samples = exposition.metric(&names::MODULE_RUNNING);
        for module in modules.clone() {
            samples.add(&[module.as_str()], runs(module));
        }
        let mut samples = exposition.metric(&names::MODULE_RESTARTS);
        for module in modules {
            samples.add(&[module.as_str()], u64::from(reconciler.restarts.count(module)));
        }
    }

    fn of_gateway(&self, module: &ModuleId) -> String {
        format!("{}/{module}", self.control.gateway)
    }
}

fn queue_numbers(exposition: &mut Exposition, queues: &[QueueStats]) {
    let queues: Vec<&QueueStats> = queues.iter().filter(|queue| !queue.is_over).collect();
    let now_ms = steady_ms();
    let waited = |queue: &QueueStats| match queue.stats.oldest_ms {
        None => Duration::ZERO,
        Some(oldest_ms) => Duration::from_millis(now_ms.saturating_sub(oldest_ms)),
    };
    let mut add = |metric, value: &dyn Fn(&QueueStats) -> SampleValue| {
        let mut samples = exposition.metric(metric);
        for queue in &queues {
            samples.add(&[&queue.name], value(queue));
        }
    };
    add(&names::QUEUE_BYTES, &|queue| queue.stats.bytes.into());
    add(&names::QUEUE_OLDEST, &|queue| waited(queue).into());
    add(&names::QUEUE_STORED, &|queue| queue.stats.appended.into());
    add(&names::QUEUE_REFUSING, &|queue| (queue.stats.headroom == Headroom::Refusing).into());
}

fn by_cause(lost: &Lost) -> [(&'static str, u64); 6] {
    [
        ("expired", lost.expired),
        ("evicted", lost.evicted),
        ("refused", lost.refused),
        ("damaged", lost.damaged),
        ("dropped", lost.dropped),
        ("central-restored", lost.restored),
    ]
}
