//! What both programs expose to Prometheus: the metrics of their MQTT server, of their logs and of the process, and the listener
//! that answers `GET /metrics`. Each program adds its own (docs/operating/metrics.md).

pub mod listener;
mod process;

use edge_buffer::{SYNC_BOUNDS, Stats};
use edge_core::metrics::exposition::Exposition;
use edge_core::metrics::histogram::Distribution;
use edge_core::metrics::names;

use crate::mqtt_server::MqttServer;

/// The program and the process that it runs in.
pub fn program(exposition: &mut Exposition, name: &str, version: &str) {
    exposition.metric(&names::BUILD_INFO).add(&[name, version], 1_u64);
    process::expose(exposition);
}

/// The sessions of an MQTT server, and what it refused.
pub fn mqtt_server<S>(exposition: &mut Exposition, server: &MqttServer<S>) {
    exposition.value(&names::MQTT_SESSIONS, server.session_count());
    let mut samples = exposition.metric(&names::MQTT_REFUSALS);
    for (cause, count) in server.counts().all() {
        samples.add(&[cause], count);
    }
}

/// A log on disk.
pub struct LogNumbers {
    pub name: String,
    /// Its bytes are exposed by another metric.
    pub is_queue: bool,
    pub stats: Stats,
}

/// The logs on disk, all of the program in one call.
pub fn logs(exposition: &mut Exposition, logs: &[LogNumbers]) {
    let mut samples = exposition.metric(&names::LOG_BYTES);
    for log in logs.iter().filter(|log| !log.is_queue) {
        samples.add(&[&log.name], log.stats.bytes);
    }
    let mut samples = exposition.metric(&names::LOG_SEGMENTS);
    for log in logs {
        samples.add(&[&log.name], log.stats.segments);
    }
    let mut samples = exposition.metric(&names::LOG_WRITTEN_BYTES);
    for log in logs {
        samples.add(&[&log.name], log.stats.written_bytes);
    }
    let mut times = Distribution::new(&SYNC_BOUNDS);
    for log in logs {
        times.add(&log.stats.sync_times.counts, log.stats.sync_times.sum);
    }
    exposition.metric(&names::LOG_SYNC_SECONDS).distribution(&[], &times);
}
