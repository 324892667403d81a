//! Whatever is registered, deleted, moved and added anew, in whichever order, and whatever generation a message is of: a device is
//! shown what it sent and lost itself, and nothing of an earlier one of its id.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rusqlite::Connection;
use schemas::bag::PropertyBag;
use schemas::generation::Generation;
use schemas::link::{Loss, Losses, RemovedDevice};
use schemas::names::{DeviceId, Identity};
use serde_json::{Value, json};

use crate::access::authorize::{Statement, authorize, remove_claim};
use crate::deployments::assignment::{self, Assignment};
use crate::error::ServiceError;
use crate::new_device::new_device;
use crate::store::devices::{self, Device};
use crate::store::modules;
use crate::store::relationships::{self, Relationship};
use crate::store::telemetry::{NewMessage, Writing};
use crate::store::telemetry_reading;
use crate::store::{last_values, losses, schema};

const GATEWAYS: [&str; 2] = ["gw-a", "gw-b"];
const REGISTERED: [&str; 2] = ["press", "lathe"];
/// Added on the first gateway.
const ADDED: &str = "pump";

/// A device while it stood behind a gateway.
#[derive(Debug, Clone)]
struct Stay {
    id: &'static str,
    gateway: &'static str,
    generation: Generation,
    /// Which of all devices it is.
    device: u64,
}

#[derive(Default)]
struct World {
    stays: Vec<Stay>,
    /// By id: which device has it, and behind which gateway it stands.
    now: BTreeMap<&'static str, (u64, Option<&'static str>)>,
    /// Numbers of what was accepted, by device.
    shown: BTreeMap<u64, Vec<u64>>,
    lost: BTreeMap<u64, u64>,
    devices: u64,
    messages: u64,
    losses: u64,
    /// The device that the gateway has under [`ADDED`], and its number there.
    added: Option<(u64, u64)>,
    /// The numbers of those that it removed and has not told of.
    unreported: Vec<u64>,
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn attach(c: &Connection, of: &str, gateway: &str) -> u64 {
    let relationship =
        Relationship { id: format!("to-{of}"), name: "r".into(), source: id(gateway), target: id(of) };
    relationships::put(c, &relationship).unwrap();
    devices::get(c, &id(of)).unwrap().unwrap().attachment
}

impl World {
    fn register_or_delete(&mut self, c: &Connection, random: &mut StdRng) {
        let of = *REGISTERED.choose(random).unwrap();
        if self.now.remove(of).is_some() {
            assert!(devices::delete(c, &id(of)).unwrap());
            return;
        }
        self.devices += 1;
        devices::put(c, &Device { revision: 1, ..new_device(id(of)) }).unwrap();
        self.now.insert(of, (self.devices, None));
    }

    fn move_one(&mut self, c: &Connection, random: &mut StdRng) {
        let of = *REGISTERED.choose(random).unwrap();
        let Some((device, gateway)) = self.now.get_mut(of) else { return };
        if let Some(gateway) = gateway.take() {
            relationships::delete(c, &id(gateway), &format!("to-{of}")).unwrap();
            return;
        }
        let to = *GATEWAYS.choose(random).unwrap();
        let generation = Generation::central(attach(c, of, to));
        *gateway = Some(to);
        self.stays.push(Stay { id: of, gateway: to, generation, device: *device });
    }

    fn add_or_remove_on_gateway(&mut self) {
        match self.added.take() {
            Some((_, number)) => self.unreported.push(number),
            None => {
                self.devices += 1;
                let number = self.devices;
                self.added = Some((self.devices, number));
                let generation = Generation::gateway(number);
                self.stays.push(Stay { id: ADDED, gateway: GATEWAYS[0], generation, device: self.devices });
            }
        }
    }

    fn report_removal(&mut self, c: &Connection) {
        let Some(number) = self.unreported.pop() else { return };
        let removed = RemovedDevice { device_id: id(ADDED), generation: Generation::gateway(number).ended() };
        let existed = self.now.get(ADDED).is_some_and(|(device, _)| *device <= number);
        let is_gone = remove_claim(c, &id(GATEWAYS[0]), &removed).unwrap();
        assert_eq!(is_gone, existed);
        if existed {
            self.now.remove(ADDED);
        }
    }

    /// What the gateway of some stay, past or present, tells of it.
    fn speak(&mut self, c: &Connection, random: &mut StdRng) {
        let Some(stay) = self.stays.choose(random).cloned() else { return };
        let mut generation = stay.generation;
        let is_added = stay.id == ADDED;
        let is_over = if is_added {
            self.added.is_none_or(|(device, _)| device != stay.device)
        } else {
            self.now.get(stay.id).is_none_or(|(device, _)| *device != stay.device)
        };
        if is_over && (is_added || random.random()) {
            // The gateway has heard of it, or did it.
            generation = generation.ended();
        }
        let is_loss = random.random_bool(0.3);
        let statement = if is_loss { Statement::Loss } else { Statement::Telemetry };
        let now = self.now.get(stay.id).copied();
        let expected = match now {
            Some((device, gateway)) if device == stay.device => gateway == Some(stay.gateway),
            // It is registered by the message, and a claim of an earlier one ends.
            Some((device, _)) => is_added && device < stay.device && !generation.has_ended && !is_loss,
            None => is_added && !generation.has_ended && !is_loss,
        };
        let of = Identity::device(id(stay.id));
        let decided = authorize(c, &id(stay.gateway), &of, statement, Some(generation));
        assert_eq!(decided.is_ok(), expected, "{stay:?} {statement:?} {generation} {now:?}: {decided:?}");
        if is_added && expected {
            self.now.insert(ADDED, (stay.device, Some(stay.gateway)));
        }
        if is_loss {
            self.losses += 1;
            let sender = if expected { stay.id.to_owned() } else { String::new() };
            let loss = Loss {
                number: self.losses,
                cause: "expired".into(),
                sender,
                first: 1,
                last: 1,
                count: 1,
                from_ms: 1,
                until_ms: 1,
                generation: Some(generation),
            };
            let report = Losses { queue: "q".into(), name: "upstream".into(), losses: vec![loss] };
            assert!(losses::insert(c, &id(GATEWAYS[0]), &report, 1).unwrap());
            *self.lost.entry(stay.device).or_default() += u64::from(expected);
        } else if expected {
            self.messages += 1;
            let message = NewMessage {
                from: of,
                enqueued_ms: self.messages,
                received_ms: 1,
                bag: PropertyBag::new(),
                body: json!({"n": self.messages}).to_string().into_bytes(),
                place: None,
                generation: Some(generation),
            };
            let mut writing = Writing::new(c).unwrap();
            writing.insert(&message).unwrap();
            writing.finish().unwrap();
            self.shown.entry(stay.device).or_default().push(self.messages);
        }
    }

    fn check(&self, c: &Connection) {
        for of in REGISTERED.into_iter().chain([ADDED]) {
            let Some((device, _)) = self.now.get(of) else {
                assert!(devices::get(c, &id(of)).unwrap().is_none(), "{of}");
                continue;
            };
            let shown = self.shown.get(device).cloned().unwrap_or_default();
            let page = telemetry_reading::page(c, &id(of), 0, 1000).unwrap();
            assert_eq!(page.iter().map(|message| message.enqueued_ms).collect::<Vec<_>>(), shown, "{of}");
            let last = last_values::get(c, &Identity::device(id(of)), None, "n").unwrap();
            assert_eq!(last.map(|(_, value)| value.to_string()), shown.last().map(u64::to_string), "{of}");
            assert_eq!(
                telemetry_reading::last_received(c, &id(of)).unwrap().is_some(),
                !shown.is_empty(),
                "{of}"
            );
            let lost = self.lost.get(device).copied().unwrap_or(0);
            assert_eq!(losses::page(c, &id(of), 0, 1000).unwrap().len() as u64, lost, "{of}");
            let totals = losses::totals(c, &id(of)).unwrap();
            assert_eq!(totals.iter().map(|total| total.count).sum::<u64>(), lost, "{of}");
        }
        let all = losses::totals(c, &id(GATEWAYS[0])).unwrap();
        assert_eq!(all.iter().map(|total| total.count).sum::<u64>(), self.losses, "no loss is forgotten");
    }
}

#[test]
fn a_device_is_shown_its_own_messages_and_losses_whatever_an_earlier_one_of_its_id_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..20 {
        let c = schema::open(&dir.path().join(format!("{seed}.db"))).unwrap();
        c.execute_batch("PRAGMA synchronous = OFF").unwrap();
        for gateway in GATEWAYS {
            devices::put(&c, &Device { is_gateway: true, revision: 1, ..new_device(id(gateway)) }).unwrap();
        }
        let (mut random, mut world) = (StdRng::seed_from_u64(seed), World::default());
        for _ in 0..200 {
            match random.random_range(0..10) {
                0 => world.register_or_delete(&c, &mut random),
                1 | 2 => world.move_one(&c, &mut random),
                3 => world.add_or_remove_on_gateway(),
                4 => world.report_removal(&c),
                _ => world.speak(&c, &mut random),
            }
            world.check(&c);
        }
    }
}

#[test]
fn the_next_gateway_of_an_id_has_lost_nothing_and_no_count_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    let gateway = Device { is_gateway: true, revision: 1, ..new_device(id("gw-a")) };
    devices::put(&c, &gateway).unwrap();
    let loss = |number, sender: &str, cause: &str| Loss {
        number,
        cause: cause.into(),
        sender: sender.into(),
        first: 1,
        last: 5,
        count: 5,
        from_ms: 1,
        until_ms: 2,
        generation: None,
    };
    let report = vec![loss(1, "gw-a/filter", "expired"), loss(2, "", losses::CENTRAL_RESTORED)];
    let report = Losses { queue: "q".into(), name: "upstream".into(), losses: report };
    assert!(losses::insert(&c, &id("gw-a"), &report, 1).unwrap());
    devices::delete(&c, &id("gw-a")).unwrap();
    devices::put(&c, &gateway).unwrap();
    assert_eq!(losses::page(&c, &id("gw-a"), 0, 10).unwrap(), []);
    assert_eq!(losses::totals(&c, &id("gw-a")).unwrap(), []);
    assert_eq!(losses::lost_by_restore(&c).unwrap(), 5);
}

/// The manifest with these modules.
fn manifest(modules: &[&str]) -> Assignment {
    let module = json!({
        "type": "docker", "status": "running", "restartPolicy": "always", "version": "1.0",
        "settings": {"image": "nobody/pulls:1", "createOptions": "{}"},
    });
    let modules: BTreeMap<&str, Value> = modules.iter().map(|name| (*name, module.clone())).collect();
    Assignment::Given(json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "systemModules": {},
            "modules": modules,
        }},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    }}))
}

#[test]
fn a_module_that_left_the_manifest_and_came_back_is_shown_nothing_of_the_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    let gateway = Device { is_gateway: true, revision: 1, ..new_device(id("gw-a")) };
    devices::put(&c, &gateway).unwrap();
    let assign =
        |modules: &[&str]| assignment::assign(&c, &mut gateway.clone(), manifest(modules), 1).unwrap();
    let generation = |name: &str| modules::generation(&c, &id("gw-a"), &name.parse().unwrap()).unwrap();
    let filter: Identity = "gw-a/filter".parse().unwrap();
    let send = |of: Option<u64>, value: u64| {
        let generation = of.map(Generation::central);
        authorize(&c, &id("gw-a"), &filter, Statement::Telemetry, generation)?;
        let message = NewMessage {
            from: filter.clone(),
            enqueued_ms: 1,
            received_ms: 1,
            bag: PropertyBag::new(),
            body: json!({"n": value}).to_string().into_bytes(),
            place: None,
            generation,
        };
        let mut writing = Writing::new(&c).unwrap();
        writing.insert(&message).unwrap();
        writing.finish().unwrap();
        Ok::<_, ServiceError>(())
    };
    let last = || {
        let found = last_values::get(&c, &filter, None, "n").unwrap();
        found.map(|(_, value)| serde_json::from_str::<Value>(value.get()).unwrap())
    };

    assign(&["filter", "stays"]);
    let (first, stays) = (generation("filter"), generation("stays"));
    send(Some(first), 1).unwrap();
    assert_eq!(last(), Some(json!(1)));
    assign(&["filter", "stays", "other"]);
    assert_eq!((generation("filter"), generation("stays")), (first, stays), "neither left");
    assert_eq!(last(), Some(json!(1)));
    assign(&["stays"]);
    assign(&["filter", "stays"]);
    assert!(generation("filter") > first);
    assert_eq!(generation("stays"), stays);
    assert_eq!(last(), None);
    assert!(send(Some(first), 2).is_err(), "what the earlier one left in a queue");
    assert!(send(Some(0), 2).is_err(), "what one from before generations left in a queue");
    send(Some(generation("filter")), 3).unwrap();
    assert_eq!(last(), Some(json!(3)));
    send(None, 4).unwrap();
    assert_eq!(last(), Some(json!(4)), "a gateway that knows no generations");
}
