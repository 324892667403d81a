//! central's metrics for Prometheus, collected from the parts when it scrapes. `crates/edge-core/src/metrics/names.rs` has the names,
//! docs/operating/metrics.md describes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edge_core::metrics::exposition::Exposition;
use edge_core::metrics::names;
use edge_hub::clients::Clients;
use edge_hub::metrics::{self, LogNumbers};
use edge_hub::mqtt_server::MqttServer;

use crate::api::request_counts::RequestCounts;
use crate::live::LiveFeed;
use crate::store::{FILE, Store};
use crate::telemetry::ingest::Ingest;

/// How long the store may take to tell what it keeps; without an answer those metrics are left out.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// What the metrics are collected from. `S` is the service behind the MQTT server.
pub struct Metrics<S> {
    pub store: Store,
    pub ingest: Ingest,
    pub clients: Clients,
    pub mqtt_server: Arc<MqttServer<S>>,
    pub live: LiveFeed,
    pub requests: Arc<RequestCounts>,
    pub data_dir: PathBuf,
}

impl<S> Metrics<S> {
    /// All metrics, as Prometheus reads them.
    pub async fn text(&self) -> String {
        let mut exposition = Exposition::default();
        metrics::program(&mut exposition, "central", env!("CARGO_PKG_VERSION"));
        self.connections(&mut exposition);
        self.ingest(&mut exposition);
        self.store(&mut exposition).await;
        self.api(&mut exposition);
        metrics::mqtt_server(&mut exposition, &self.mqtt_server);
        let stats = self.mqtt_server.journal_stats();
        metrics::logs(&mut exposition, &[LogNumbers { name: "mqtt".to_owned(), is_queue: false, stats }]);
        exposition.into_text()
    }

    fn connections(&self, exposition: &mut Exposition) {
        let (connects, disconnects) = self.mqtt_server.counts().connects_and_disconnects();
        exposition.value(&names::MQTT_CONNECTIONS, self.clients.connected().len());
        exposition.value(&names::MQTT_CONNECTS, connects);
        exposition.value(&names::MQTT_DISCONNECTS, disconnects);
    }

    fn ingest(&self, exposition: &mut Exposition) {
        let (stored, rejected) = self.ingest.stored_and_rejected();
        let mut samples = exposition.metric(&names::INGEST_MESSAGES);
        samples.add(&["stored"], stored);
        samples.add(&["rejected"], rejected);
        let (waiting, _) = self.ingest.waiting_messages();
        exposition.value(&names::INGEST_WAITING, waiting);
    }

    async fn store(&self, exposition: &mut Exposition) {
        let numbers = self.store.numbers();
        exposition.value(&names::INGEST_POINTS, numbers.points);
        exposition.metric(&names::STORE_COMMIT_SECONDS).distribution(&[], &numbers.commit_times);
        let (writes, oldest) = self.store.waiting();
        exposition.value(&names::STORE_WAITING, writes);
        exposition.value(&names::STORE_OLDEST, oldest);
        let disk = self.store.disk();
        exposition.value(&names::STORE_FREE_BYTES, disk.free_bytes);
        exposition.value(&names::STORE_FAILING, disk.is_low || self.store.failure().is_some());
        let kept = tokio::time::timeout(READ_WITHIN, self.store.kept_bytes()).await;
        let mut samples = exposition.metric(&names::STORE_BYTES);
        for (part, file) in [("file", FILE.to_owned()), ("log", format!("{FILE}-wal"))] {
            if let Ok(file) = std::fs::metadata(self.data_dir.join(file)) {
                samples.add(&[part], file.len());
            }
        }
        if let Ok(Ok(kept)) = kept {
            samples.add(&["telemetry"], kept.telemetry);
            samples.add(&["series"], kept.series);
        }
    }

    fn api(&self, exposition: &mut Exposition) {
        let mut samples = exposition.metric(&names::HTTP_REQUESTS);
        for ((method, path, status), count) in self.requests.all() {
            samples.add(&[method, &path, &status.to_string()], count);
        }
        exposition.value(&names::EVENT_SUBSCRIBERS, self.live.subscriber_count());
    }
}
