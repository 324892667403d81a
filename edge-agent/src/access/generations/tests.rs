//! Devices and users that are added, removed and added anew in whichever order, with the daemon killed between the steps of a
//! removal: nothing of an earlier one is a later one's.

use std::collections::BTreeMap;
use std::path::Path;

use edge_core::access::attestation::Attestation;
use edge_core::route::{QueueClass, Sink};
use edge_hub::clients::Clients;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use schemas::link::{Child, Children};
use schemas::names::DeviceId;
use serde_json::json;

use super::*;
use crate::access::devices::Devices;
use crate::access::removals::Removals;
use crate::access::users::{User, Users};
use crate::messages::queues::limits::Limits;
use crate::messages::record;
use crate::messages::twins::Twins;

/// What a daemon keeps by identity.
struct Daemon {
    state: State,
    queues: Arc<Queues>,
    devices: Devices,
    users: Users,
    twins: Twins,
    removals: Removals,
}

impl Daemon {
    /// Starts as `agent.rs` does: a removal that had begun is finished first.
    async fn start(dir: &Path) -> Self {
        let (state, gateway) = (State::open(&dir.join("state")).unwrap(), "gw".parse().unwrap());
        let queues = Queues::open(&dir.join("buffer"), Limits::default(), gateway, Clients::new()).unwrap();
        let queues = Arc::new(queues);
        let (users, twins) = (Users::load(state.clone(), None).unwrap(), Twins::load(state.clone()).unwrap());
        let kept: Vec<Box<dyn IdentityState>> = vec![Box::new(twins.clone()), Box::new(users.clone())];
        let generations = Generations::load(state.clone(), Some(queues.clone()));
        let removals = Removals::load(state.clone(), users.clone(), kept, generations);
        let devices = Devices::load(state.clone()).unwrap();
        let is_gone = |identity: &Identity| !identity.is_local() && devices.get(&identity.device).is_none();
        removals.sweep(is_gone).await.unwrap();
        Self { state, queues, devices, users, twins, removals }
    }

    async fn killed(self, dir: &Path) -> Self {
        self.queues.close().await;
        let state = self.state.clone();
        drop(self);
        state.close().await;
        Self::start(dir).await
    }

    fn upstream(&self) -> Arc<Queue> {
        self.queues.upstream().queues()[0].clone()
    }
}

/// Added on the gateway, and registered at central.
const ADDED: [&str; 2] = ["pump", "valve"];
const REGISTERED: [&str; 2] = ["press", "lathe"];

#[derive(Default)]
struct Model {
    /// The devices that are here.
    here: BTreeMap<&'static str, Generation>,
    /// Of each message in the queue, by its sequence: whose it is.
    queued: BTreeMap<u64, (&'static str, Generation)>,
    central: u64,
    /// Removed, and central does not know; how far the queue was then.
    unreported: Vec<(&'static str, Generation, u64)>,
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn identity(text: &str) -> Identity {
    Identity::device(id(text))
}

fn child(name: &str, generation: u64) -> Child {
    Child {
        device_id: id(name),
        primary_key: "aw==".into(),
        secondary_key: String::new(),
        thumbprints: Vec::new(),
        is_ca_signed: false,
        enabled: true,
        generation: Some(generation),
    }
}

impl Model {
    /// A device is here, and finds nothing of an earlier one. It leaves what the next one must not find.
    async fn came(&mut self, daemon: &Daemon, name: &'static str) {
        let generation = daemon.devices.generation(&id(name)).unwrap();
        self.here.insert(name, generation);
        let found = daemon.twins.get(&identity(name)).reported.properties;
        assert!(found.is_empty(), "{name} found a twin: {found:?}");
        let patch = json!({"serial": generation.to_string()}).as_object().unwrap().clone();
        daemon.twins.report(&identity(name), &patch, || true).await.unwrap();
        let user = User { hash: "h".into(), device: Some(id(name)) };
        daemon.users.add(name.parse().unwrap(), user).await.unwrap();
    }

    async fn change_added(&mut self, daemon: Daemon, dir: &Path, random: &mut StdRng) -> Daemon {
        let name = *ADDED.choose(random).unwrap();
        let Some(generation) = self.here.remove(name) else {
            let earlier = daemon.removals.generations().highest(&identity(name));
            let key = Attestation::Keys(vec![vec![1; 16]]);
            daemon.devices.add(id(name), &key, earlier).await.unwrap();
            self.came(&daemon, name).await;
            return daemon;
        };
        let steps = random.random_range(0..=3);
        {
            let removal = daemon.removals.begin().await;
            removal.note_devices([(id(name), Some(generation))]);
            if steps > 0 {
                daemon.devices.remove(&id(name)).await.unwrap();
            }
            if steps > 1 {
                removal.finish().await.unwrap();
            }
        }
        self.unreported.push((name, generation.ended(), daemon.upstream().log.stats().next_sequence));
        if steps == 3 {
            return daemon;
        }
        let daemon = daemon.killed(dir).await;
        if steps == 0 {
            // Its owner was told nothing, and removes it again.
            daemon.devices.remove(&id(name)).await.unwrap();
        }
        daemon
    }

    /// central deletes a device, registers it, or both while the gateway is away; it tells so until it has been heard.
    async fn change_registered(&mut self, mut daemon: Daemon, dir: &Path, random: &mut StdRng) -> Daemon {
        let name = *REGISTERED.choose(random).unwrap();
        let is_registered = self.here.remove(name).is_none() || random.random();
        self.central += 1;
        let children = is_registered.then(|| child(name, self.central)).into_iter().collect();
        let removed = if is_registered { Vec::new() } else { vec![id(name)] };
        let change = Children { is_difference: true, children, removed, ..Children::default() };
        loop {
            let steps = random.random_range(0..=4);
            let removal = daemon.removals.begin().await;
            let taken = daemon.devices.take_list(change.clone()).unwrap();
            removal.note_devices(taken.left.iter().cloned());
            if steps > 0 {
                taken.durable().await.unwrap();
            } else {
                drop(taken);
            }
            if steps > 1 {
                removal.finish().await.unwrap();
            } else {
                drop(removal);
            }
            if steps > 2 {
                break;
            }
            daemon = daemon.killed(dir).await;
        }
        if is_registered {
            self.came(&daemon, name).await;
        }
        daemon
    }

    async fn send(&mut self, daemon: &Daemon, random: &mut StdRng) {
        let here: Vec<_> = self.here.clone().into_iter().collect();
        let Some((name, generation)) = here.choose(random).copied() else { return };
        let record = record::encode(&format!("devices/{name}/messages/events/"), b"{}").unwrap();
        let append = daemon.queues.append(&Sink::Upstream, QueueClass::DEFAULT, record, None, None).unwrap();
        self.queued.insert(append.await.unwrap(), (name, generation));
    }

    /// central has some of the messages.
    fn drain(&mut self, daemon: &Daemon, random: &mut StdRng) {
        let queued: Vec<u64> = self.queued.keys().copied().collect();
        let Some(up_to) = queued.choose(random) else { return };
        daemon.upstream().log.advance(*up_to);
        self.queued.retain(|sequence, _| sequence > up_to);
    }

    fn report(&mut self, daemon: &Daemon) {
        let generations = daemon.removals.generations();
        while let Some(removed) = generations.next_unreported() {
            let is_it = |(name, generation, _): &(&str, Generation, u64)| {
                *name == removed.device_id.as_str() && *generation == removed.generation
            };
            let at = self.unreported.iter().position(is_it).expect("told once, after the removal");
            let (name, generation, _) = self.unreported.swap_remove(at);
            assert!(
                !self.queued.values().any(|of| of.0 == name && of.1.ended() == generation),
                "{name} has more"
            );
            generations.acknowledged(&removed);
        }
        // What others have sent before stands before the end, too.
        let waits = |of: &(&str, Generation, u64)| self.queued.keys().any(|sequence| *sequence < of.2);
        assert!(self.unreported.iter().all(waits), "not told: {:?}", self.unreported);
    }

    fn check(&self, daemon: &Daemon) {
        let queue = daemon.upstream();
        for (sequence, (name, generation)) in &self.queued {
            let now = || daemon.devices.generation(&id(name));
            let found = daemon.removals.generations().of(&identity(name), &queue, *sequence, now);
            let is_here = self.here.get(name) == Some(generation);
            let expected = if is_here { *generation } else { generation.ended() };
            assert_eq!(found, Some(expected), "message {sequence} of {name}");
        }
        for name in ADDED.into_iter().chain(REGISTERED) {
            assert!(!daemon.removals.is_pending(&identity(name)), "the removal of {name} is not finished");
            let serial = daemon.twins.get(&identity(name)).reported.properties.get("serial").cloned();
            let own = self.here.get(name).map(|generation| json!(generation.to_string()));
            assert_eq!(serial, own, "the twin of {name}");
            assert_eq!(
                daemon.users.get(&name.parse().unwrap()).is_some(),
                own.is_some(),
                "the user of {name}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_of_an_earlier_device_is_a_later_ones_and_a_removal_that_began_is_finished() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let (mut random, mut model) = (StdRng::seed_from_u64(seed), Model::default());
        let mut daemon = Daemon::start(dir.path()).await;
        for _ in 0..40 {
            match random.random_range(0..10) {
                0 | 1 => daemon = model.change_added(daemon, dir.path(), &mut random).await,
                2 | 3 => daemon = model.change_registered(daemon, dir.path(), &mut random).await,
                4 => daemon = daemon.killed(dir.path()).await,
                5 => model.drain(&daemon, &mut random),
                6 => model.report(&daemon),
                _ => model.send(&daemon, &mut random).await,
            }
            model.check(&daemon);
        }
        daemon.queues.close().await;
        daemon.state.close().await;
    }
}

#[test]
fn a_message_keeps_its_generation_when_it_is_put_back_from_the_quarantine() {
    let of = Generation::central(7).ended();
    for topic in ["devices/press/messages/events/", "devices/press/messages/events/a=b&%24.ct=x%2Fy"] {
        let plain = record::encode(topic, b"body").unwrap();
        assert_eq!(record::generation(&plain), None);
        let kept = record::with_generation(&plain, of);
        let again = record::with_generation(&kept, Generation::central(9));
        for kept in [kept, again] {
            let origin = record::Origin { quarantine: uuid::Uuid::nil(), epoch: None, number: 3 };
            let back = record::put_back(&origin, &kept);
            assert_eq!(record::generation(&back), Some(of), "{topic}");
            assert_eq!(record::sender(&back).as_deref(), Some("press"));
            assert_eq!(&record::decode(&back).unwrap().1[..], b"body");
        }
    }
}
