//! What central tells, by a gateway with everything behind its link and no connection: what the present central sends, and what an older
//! one does not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edge_core::link::budget::Limits as BudgetLimits;
use edge_core::route::QueueClass;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use mqtt::client::Transport;
use schemas::generation::Generation;
use schemas::names::{Identity, ModuleId};
use schemas::redaction::REDACTED;
use schemas::twin::Twin;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::access::authorizer::Authorizer;
use crate::access::devices::Devices;
use crate::access::enrolments::Enrolments;
use crate::access::generations::Generations;
use crate::access::identity_state::IdentityState;
use crate::access::module_keys::ModuleKeys;
use crate::access::removals::Removals;
use crate::access::users::Users;
use crate::c2d::cloud_message_store::CloudMessageStore;
use crate::commands::Commands;
use crate::commands::daemon::DaemonMethods;
use crate::config::BufferSection;
use crate::deployment::deployments::Deployments;
use crate::deployment::docker::host_policy::HostPolicy;
use crate::deployment::restart_requests::RestartRequests;
use crate::diagnostics::log_reader::LogReader;
use crate::diagnostics::uploads::Uploads;
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::messages::queues::destination::Queue;
use crate::messages::queues::limits::Limits;
use crate::messages::record;
use crate::messages::twins::Twins;
use crate::state::State;
use crate::upstream::address::Address;
use crate::upstream::meter::Meter;
use crate::upstream::presence::PresenceChanges;
use crate::upstream::sent_updates::SentUpdates;
use crate::upstream::status::LinkStatus;

pub(in crate::upstream) struct Gateway {
    pub(in crate::upstream) uplink: Uplink,
    state: State,
}

impl Gateway {
    pub(in crate::upstream) async fn start(dir: &Path) -> Self {
        let state = State::open(&dir.join("state")).unwrap();
        if !dir.join("module-key").exists() {
            std::fs::write(dir.join("module-key"), [7; 32]).unwrap();
        }
        let (id, clients): (schemas::names::DeviceId, _) = ("gw".parse().unwrap(), Clients::new());
        let limits = Limits::new(&BufferSection::default());
        let queues =
            Arc::new(Queues::open(&dir.join("buffer"), limits, id.clone(), clients.clone()).unwrap());
        let twins = Twins::load(state.clone()).unwrap();
        let commands = Commands::load(
            state.clone(),
            clients.clone(),
            id.clone(),
            DaemonMethods::new(
                RestartRequests::channel().0,
                LogReader::without_containers(),
                Uploads::without_containers(),
            ),
        )
        .unwrap();
        let cloud_messages = CloudMessageStore::load(state.clone()).unwrap();
        let users = Users::load(state.clone(), None).unwrap();
        // Without the listeners, which are not open here.
        let kept: Vec<Box<dyn IdentityState>> = vec![
            Box::new(twins.clone()),
            Box::new(commands.clone()),
            Box::new(queues.clone()),
            Box::new(cloud_messages.clone()),
            Box::new(users.clone()),
        ];
        let generations = Generations::load(state.clone(), Some(queues.clone()));
        let removals = Removals::load(state.clone(), users.clone(), kept, generations);
        let removal = removals.begin().await;
        let (deployments, outputs) = Deployments::load(
            id.clone(),
            twins.clone(),
            state.clone(),
            queues.clone(),
            removals.clone(),
            &removal,
            HostPolicy::default(),
        )
        .unwrap();
        drop(removal);
        let devices = Devices::load(state.clone()).unwrap();
        let authorizer = Authorizer {
            gateway: id,
            hosts: Arc::new([]),
            module_keys: ModuleKeys::load(dir).unwrap(),
            devices: devices.clone(),
            users,
            removals,
            trust: watch::channel(Arc::default()).1,
            rules: outputs.rules,
            clients: clients.clone(),
        };
        let uplink = Uplink {
            upstream: "HostName=central;DeviceId=gw;SharedAccessKey=a2V5".parse().unwrap(),
            address: Address {
                host: "central".into(),
                port: 1883,
                transport: Transport::Plain,
                proxy: None,
                keep_alive: Duration::from_secs(60),
            },
            queues,
            quarantine: Arc::new(Quarantine::open(&dir.join("quarantine"), 0, 1 << 20, None).unwrap()),
            meter: Meter::load(state.clone(), BudgetLimits::default()).unwrap(),
            twins,
            authorizer,
            deployments: Arc::new(deployments),
            commands,
            dispatcher: CloudMessageDispatcher::new(Arc::new(cloud_messages.clone()), clients.clone()),
            cloud_messages,
            enrolments: Enrolments::new("edge1".into(), devices),
            presence: PresenceChanges::default(),
            clients,
            status: watch::Sender::new(LinkStatus::connected()),
            central_version: AtomicU32::new(0),
            sent_updates: SentUpdates::load(state.clone()),
            is_store_unnamed: AtomicBool::new(false),
        };
        Self { uplink, state }
    }

    async fn killed(self, dir: &Path) -> Self {
        self.uplink.queues.close().await;
        self.uplink.quarantine.close().await;
        let Self { uplink, state } = self;
        drop(uplink);
        state.close().await;
        Self::start(dir).await
    }

    async fn received(&self, topic: &str, message: Value) {
        self.uplink.received(topic, &Bytes::from(message.to_string())).await.unwrap();
    }

    fn twin(&self, of: &str) -> Twin {
        self.uplink.twins.get(&of.parse().unwrap())
    }

    /// central assigns a manifest with these modules, of these generations.
    async fn deploys(&self, version: u64, modules: &[(&str, u64)]) {
        let of = |image: &str| json!({"settings": {"image": image}});
        let named: serde_json::Map<String, Value> =
            modules.iter().map(|(name, _)| ((*name).to_owned(), of("a:1"))).collect();
        let generations: serde_json::Map<String, Value> =
            modules.iter().map(|(name, number)| ((*name).to_owned(), json!(number))).collect();
        let routes = json!({"up": "FROM /messages/* INTO $upstream"});
        let hub = json!({"schemaVersion": "1.1", "routes": routes, "$version": version});
        self.received("$ls/desired/gw/$edgeHub", hub).await;
        let agent = json!({
            "schemaVersion": "1.1", "modules": named, "$version": version, "$generations": generations,
        });
        self.received("$ls/desired/gw/$edgeAgent", agent).await;
    }

    async fn takes(&self, from: &str) -> (Arc<Queue>, u64) {
        let topic = match from.split_once('/') {
            Some((device, module)) => format!("devices/{device}/modules/{module}/messages/events/"),
            None => format!("devices/{from}/messages/events/"),
        };
        let message = record::encode(&topic, b"{}").unwrap();
        let upstream = self.uplink.queues.upstream();
        let sequence = upstream.append(QueueClass::DEFAULT, message, None, None).unwrap().await.unwrap();
        (upstream.queues()[0].clone(), sequence)
    }

    /// Which of the identities of its sender's name a message in the queue is of.
    async fn generation_of(&self, queue: &Queue, sequence: u64) -> Option<Generation> {
        let log = queue.log.clone();
        let records = tokio::task::spawn_blocking(move || log.records().collect::<Vec<_>>()).await.unwrap();
        let mut records = records.into_iter().map(Result::unwrap);
        let message = records.find(|message| message.sequence == sequence).unwrap();
        self.uplink.generation_of(queue, sequence, &message.payload)
    }
}

fn number_of(gateway: &Gateway, module: &str) -> u64 {
    let module = Identity::module("gw".parse().unwrap(), module.parse::<ModuleId>().unwrap());
    gateway.uplink.authorizer.removals.modules().numbers().number(&module)
}

#[tokio::test]
async fn a_desired_section_with_a_redacted_secret_is_refused_and_the_one_before_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path()).await;
    gateway
        .received(
            "$ls/children",
            json!({"children": [{"deviceId": "press-1", "primaryKey": "a2V5", "enabled": true}]}),
        )
        .await;
    for (of, topic) in [("press-1", "$ls/desired/press-1"), ("gw/filter", "$ls/desired/gw/filter")] {
        gateway.received(topic, json!({"apiKey": "k1", "limit": 1, "$version": 1})).await;
        for redacted in [
            json!({"apiKey": REDACTED, "limit": 2, "$version": 2}),
            json!({"deep": {"list": [{"apiKey": REDACTED}]}, "$version": 3}),
        ] {
            gateway.received(topic, redacted).await;
            let desired = gateway.twin(of).desired;
            assert_eq!(
                (desired.version, Value::from(desired.properties)),
                (1, json!({"apiKey": "k1", "limit": 1})),
                "{of}"
            );
        }
        // The next right one is taken.
        gateway.received(topic, json!({"apiKey": "k2", "$version": 4})).await;
        assert_eq!(gateway.twin(of).desired.version, 4, "{of}");
    }
}

#[tokio::test]
async fn a_module_that_central_replaced_while_it_was_away_is_another_one_here() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path()).await;
    gateway.received("$ls/stored", json!({"queues": {}, "version": 2})).await;
    gateway.deploys(1, &[("filter", 3), ("sensor", 4)]).await;
    let patch = json!({"serial": "old"}).as_object().unwrap().clone();
    for module in ["gw/filter", "gw/sensor"] {
        gateway.uplink.twins.report(&module.parse().unwrap(), &patch, || true).await.unwrap();
        gateway.received(&format!("$ls/desired/{module}"), json!({"limit": 1, "$version": 1})).await;
    }
    let (queue, of_old) = gateway.takes("gw/filter").await;
    let fingerprint = |gateway: &Gateway| {
        let in_force = gateway.uplink.deployments.desired_in_force().unwrap();
        in_force.desired.modules[&"filter".parse().unwrap()].fingerprint.clone()
    };
    let before = (number_of(&gateway, "filter"), number_of(&gateway, "sensor"), fingerprint(&gateway));
    drop(queue);
    let gateway = gateway.killed(dir.path()).await;
    gateway.received("$ls/stored", json!({"queues": {}, "version": 2})).await;

    // The same manifest as before, but for the module that was taken out and put back.
    gateway.deploys(3, &[("filter", 9), ("sensor", 4)]).await;
    assert!(gateway.twin("gw/filter").reported.properties.is_empty(), "the twin of the earlier module");
    assert_eq!(gateway.twin("gw/filter").desired.version, 0, "what was wanted of the earlier module");
    assert_ne!(number_of(&gateway, "filter"), before.0, "the key of the earlier module is still right");
    assert_ne!(fingerprint(&gateway), before.2, "its container stays");
    // The other one is as it was.
    assert_eq!(gateway.twin("gw/sensor").reported.properties["serial"], "old");
    assert_eq!(number_of(&gateway, "sensor"), before.1);
    // What waits in the queue is told from what follows.
    let (queue, of_new) = gateway.takes("gw/filter").await;
    assert_eq!(gateway.generation_of(&queue, of_old).await, Some(Generation::central(3).ended()));
    assert_eq!(gateway.generation_of(&queue, of_new).await, Some(Generation::central(9)));
    drop(queue);

    // InFlightUpdate once more, also by an older central that tells no generations, and after a restart, it is the same one.
    let number = number_of(&gateway, "filter");
    gateway.deploys(3, &[("filter", 9), ("sensor", 4)]).await;
    let gateway = gateway.killed(dir.path()).await;
    gateway.deploys(4, &[("filter", 9), ("sensor", 4)]).await;
    assert_eq!(number_of(&gateway, "filter"), number);
}

/// An older central names what it has by the names that it was given, and tells neither which store it is nor that it knows of restores.
#[tokio::test]
async fn with_a_central_without_epochs_messages_leave_the_disk_when_it_has_them_and_no_sooner() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path()).await;
    // What an older central has: by name, the highest sequence.
    let mut central: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    let mut taken = 0;
    for life in 0..4 {
        let (mut queue, mut last) = gateway.takes("gw").await;
        for _ in 0..4 {
            (queue, last) = gateway.takes("gw").await;
        }
        taken += 5;
        let name = |sequence| {
            let epoch = queue.log.epoch_of(sequence).unwrap();
            crate::messages::queues::name::QueueName { id: queue.log.id(), epoch }.to_string()
        };
        // It stored all but the last two, and the line broke before it could say so.
        central.insert(name(last - 2), last - 2);
        gateway.received("$ls/stored", json!({"queues": central})).await;
        assert_eq!(queue.log.stats().cursor, last - 2, "life {life}");
        assert_eq!(queue.log.stats().records, 2);
        assert!(
            gateway.uplink.is_store_unnamed.load(Ordering::Relaxed),
            "it is not told that central is older"
        );
        assert!(!gateway.uplink.takes_generations(), "it would take them for properties");
        // It was restored from a backup, or the gateway was registered anew: it says less. Nothing is given up for it.
        for less in [json!({"queues": {}}), json!({"queues": {name(last - 2): last - 4}})] {
            gateway.received("$ls/stored", less).await;
            assert_eq!(queue.log.stats().records, 2, "life {life}");
        }
        // The rest is sent, by a name of this life alone: nothing of it is known to central by an earlier one.
        assert_eq!(name(last), name(last - 4));
        central.insert(name(last), last);
        gateway.received("$ls/stored", json!({"queues": central})).await;
        assert_eq!((queue.log.stats().records, queue.log.stats().lost), (0, edge_buffer::Lost::default()));
        drop(queue);
        gateway = gateway.killed(dir.path()).await;
    }
    assert_eq!(central.len(), 4, "each life has a name of its own");
    assert_eq!(central.values().max(), Some(&taken));
}
