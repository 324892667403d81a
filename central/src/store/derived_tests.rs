//! What one sender packs into its messages costs the writer little in each work, and is bounded in all. Counted in steps of SQLite's
//! virtual machine and in rows, not in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rusqlite::Connection;
use schemas::bag::PropertyBag;
use schemas::names::{DeviceId, Identity};
use serde_json::{Map, Value, json};

use super::telemetry::{NewMessage, Writing};
use super::{devices, last_values, modules, schema, series};

const NOW_MS: u64 = 1_800_000_000_000;
/// Steps of one work: a few hundredths of a second. One look at all names of a sender for each new name takes ten times as many.
const STEPS_MAX: u64 = 1_500_000;
/// Steps between two counts.
const STEPS_AT_ONCE: u64 = 1000;

/// A store whose steps are counted.
pub(crate) struct Counted {
    _dir: tempfile::TempDir,
    pub(crate) connection: Connection,
    steps: Arc<AtomicU64>,
}

impl Counted {
    pub(crate) fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&dir.path().join("central.db")).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counted = steps.clone();
        let count = move || {
            counted.fetch_add(STEPS_AT_ONCE, Ordering::Relaxed);
            false
        };
        connection.progress_handler(i32::try_from(STEPS_AT_ONCE).unwrap(), Some(count)).unwrap();
        Self { _dir: dir, connection, steps }
    }

    /// The steps that a work takes, to a thousand for each of its statements.
    pub(crate) fn steps(&self, work: impl FnOnce(&Connection)) -> u64 {
        self.steps.store(0, Ordering::Relaxed);
        work(&self.connection);
        self.steps.load(Ordering::Relaxed)
    }

    fn count(&self, table: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    }

    fn register(&self, id: &str) {
        let new = devices::Device { revision: 1, ..devices::Device::new(id.parse().unwrap()) };
        devices::put(&self.connection, &new).unwrap();
    }

    fn send(&self, from: Identity, component: Option<&str>, body: &Value) {
        let mut bag = PropertyBag::new();
        if let Some(component) = component {
            bag.set("$.sub", component);
        }
        let body = body.to_string().into_bytes();
        let mut writing = Writing::new(&self.connection).unwrap();
        writing
            .insert(&NewMessage {
                from,
                enqueued_ms: NOW_MS,
                received_ms: NOW_MS,
                bag,
                body,
                place: None,
                generation: None,
            })
            .unwrap();
        writing.finish().unwrap();
    }

    /// Writes what is not written yet; gives the most steps of one work.
    fn write(&self) -> u64 {
        let mut most = 0;
        while let Some(tail) = last_values::read_tail(&self.connection).unwrap() {
            for slice in tail.into_slices() {
                most = most.max(self.steps(|c| last_values::write_slice(c, &slice).unwrap()));
            }
        }
        while let Some(tail) = series::read_tail(&self.connection).unwrap() {
            for slice in tail.slices {
                most = most.max(self.steps(|c| drop(series::write_slice(c, &slice).unwrap())));
            }
        }
        most
    }
}

#[test]
fn names_that_were_not_seen_before_cost_the_writer_little_each_and_are_bounded() {
    let counted = Counted::open();
    counted.register("d");
    for message in 0..60 {
        let names = (0..1000).map(|n| (format!("n{message}_{n}"), n.into()));
        counted.send(Identity::device("d".parse().unwrap()), None, &Value::Object(names.collect()));
    }
    let most = counted.write();
    assert!(most <= STEPS_MAX, "{most}");
    assert_eq!(counted.count("series"), series::NAMES_MAX as u64);
    assert!(counted.count("last_values") <= last_values::NAMES_MAX + 100);
    let refused = series::refused(&counted.connection, &"d".parse().unwrap()).unwrap();
    assert_eq!(refused[0].points, 59_000, "what is left out is counted");
}

#[test]
fn modules_that_a_gateway_makes_up_share_what_one_device_may_have() {
    let counted = Counted::open();
    counted.register("gw");
    for round in 0..3 {
        for module in 0..20 {
            let of = format!("gw/made-up-{round}-{module}").parse().unwrap();
            counted.send(of, None, &Value::Object((0..1000).map(|n| (format!("n{n}"), n.into())).collect()));
        }
        let most = counted.write();
        assert!(most <= STEPS_MAX, "{most}");
    }
    assert_eq!(counted.count("series"), series::DEVICE_NAMES_MAX as u64);
    assert!(counted.count("last_values") <= last_values::DEVICE_NAMES_MAX + 1000);
    assert!(counted.count("series_refused") <= 101);
    let newest = last_values::list(&counted.connection, &"gw".parse().unwrap()).unwrap();
    assert!(newest.iter().any(|value| value.from.module.as_ref().unwrap().as_str().contains("-2-")));
}

#[test]
fn names_of_one_message_beyond_the_first_thousand_are_left_out_and_counted() {
    let counted = Counted::open();
    counted.register("d");
    let device: DeviceId = "d".parse().unwrap();
    counted.send(
        Identity::device(device.clone()),
        None,
        &Value::Object((0..3000).map(|n| (format!("n{n:04}"), n.into())).collect()),
    );
    counted.write();
    assert_eq!((counted.count("series"), counted.count("last_values")), (1000, 1000));
    assert_eq!(series::refused(&counted.connection, &device).unwrap()[0].points, 2000);
}

#[test]
fn a_tail_of_many_series_is_charted_once_whichever_of_its_parts_a_kill_comes_behind() {
    for written in 0..4 {
        let counted = Counted::open();
        counted.register("d");
        let c = &counted.connection;
        for message in 0..3 {
            // Times that their sender did not tell: a point that is taken twice counts twice.
            let names = (0..600).map(|n| (format!("n{n}"), (message + n).into()));
            counted.send("d".parse().unwrap(), None, &Value::Object(names.clone().collect()));
            counted.send("d/m".parse().unwrap(), Some("pump"), &Value::Object(names.collect()));
        }
        let sums = |c: &Connection| -> Vec<u64> {
            let of = |of: &str, component: &str, name: &str| {
                let query = super::series_reading::SeriesQuery {
                    of: of.parse().unwrap(),
                    component: component.into(),
                    names: vec![name.into()],
                    from_ms: NOW_MS - 1000,
                    to_ms: NOW_MS + 1000,
                    step_ms: 2000,
                };
                super::series_reading::read(c, &query).unwrap()[0].iter().map(|bucket| bucket.count).sum()
            };
            (0..600)
                .step_by(7)
                .flat_map(|n| {
                    let name = format!("n{n}");
                    [of("d", "", &name), of("d/m", "pump", &name)]
                })
                .collect()
        };
        let tail = series::read_tail(c).unwrap().unwrap();
        assert_eq!(tail.slices.len(), 3);
        for slice in tail.slices.iter().take(written) {
            series::write_slice(c, slice).unwrap();
            assert!(sums(c).iter().all(|count| *count == 3), "{written}");
        }
        // Messages that come between two parts, and what was read before and is written again, change nothing.
        counted.send("d".parse().unwrap(), None, &json!({"other": 1}));
        counted.write();
        for slice in &tail.slices {
            assert!(series::write_slice(c, slice).unwrap().is_empty());
        }
        assert!(sums(c).iter().all(|count| *count == 3), "{written}");
        assert_eq!(counted.count("series"), 1201);
    }
}

#[test]
fn of_a_sender_that_is_deleted_between_two_parts_only_what_it_sends_afterwards_is_charted() {
    let all = |n: usize| (0..n).map(|n| (format!("n{n}"), n.into())).collect::<Map<_, _>>();
    for deleted in ["d", "e", "d/m"] {
        let counted = Counted::open();
        let c = &counted.connection;
        let deleted: Identity = deleted.parse().unwrap();
        let senders: [Identity; 3] = ["d", "d/m", "e"].map(|of| of.parse().unwrap());
        ["d", "e"].into_iter().for_each(|id| counted.register(id));
        senders.iter().for_each(|from| counted.send(from.clone(), None, &Value::Object(all(700))));
        let tail = series::read_tail(c).unwrap().unwrap();
        series::write_slice(c, &tail.slices[0]).unwrap();
        match &deleted.module {
            None => {
                devices::delete(c, &deleted.device).unwrap();
                counted.register(deleted.device.as_str());
            }
            Some(module) => modules::delete(c, &deleted.device, module).unwrap(),
        }
        for slice in &tail.slices[1..] {
            assert!(series::write_slice(c, slice).unwrap().is_empty(), "{deleted}");
        }
        counted.send(deleted.clone(), None, &Value::Object(all(20)));
        counted.write();
        for from in senders {
            let is_gone = from == deleted || (deleted.module.is_none() && from.device == deleted.device);
            let points: i64 = c
                .query_row(
                    "SELECT ifnull(sum(points), 0) FROM series_chunks JOIN series ON series.id = series
                     WHERE device = ?1 AND module = ?2",
                    super::derived::columns(&from),
                    |row| row.get(0),
                )
                .unwrap();
            let expected = match (from == deleted, is_gone) {
                (true, _) => 20,
                (false, true) => 0,
                (false, false) => 700,
            };
            assert_eq!(points, expected, "{from} when {deleted} was deleted");
        }
    }
}

/// What a sender may think of.
#[derive(Debug, Clone)]
struct Hostile {
    messages: usize,
    names: usize,
    name_bytes: usize,
    value: Value,
    modules: usize,
    components: usize,
    /// Whether each message has other names.
    are_new: bool,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let mut deep = json!(1);
    for _ in 0..30 {
        deep = json!({"in": [deep]});
    }
    let values =
        prop::sample::select(vec![json!(1), json!("x".repeat(5000)), json!("text"), json!(null), deep]);
    let counts = (1..12_usize, prop::sample::select(vec![1_usize, 40, 700, 1100]));
    let names = prop::sample::select(vec![1_usize, 20, 1000, 1030]);
    (counts, names, values, 0..12_usize, 1..12_usize, any::<bool>()).prop_map(
        |((messages, names), name_bytes, value, modules, components, are_new)| Hostile {
            messages,
            names,
            name_bytes,
            value,
            modules,
            components,
            are_new,
        },
    )
}

#[test]
fn whatever_a_sender_packs_into_messages_no_work_of_the_writer_is_long_and_the_tables_are_bounded() {
    // Few: each takes some tenths of a second.
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 16, failure_persistence: None, ..Default::default() });
    let all = prop::collection::vec(hostile(), 1..3);
    let outcome = runner.run(&all, |all| {
        let counted = Counted::open();
        counted.register("gw");
        counted.register("victim");
        for (round, of) in all.iter().enumerate() {
            for message in 0..of.messages {
                let from = match of.modules {
                    0 => "gw".parse().unwrap(),
                    modules => format!("gw/m{round}-{}", message % modules).parse().unwrap(),
                };
                let names = (0..of.names).map(|n| {
                    let of_message = if of.are_new { message } else { 0 };
                    (format!("{}{round}_{of_message}_{n}", "n".repeat(of.name_bytes)), of.value.clone())
                });
                let body = Value::Object(names.collect::<Map<_, _>>());
                counted.send(from, Some(&format!("c{}", message % of.components)), &body);
            }
            counted.send("victim".parse().unwrap(), None, &json!({"t": round}));
            let most = counted.write();
            prop_assert!(most <= STEPS_MAX, "{most}");
            prop_assert!(counted.count("series") <= series::DEVICE_NAMES_MAX as u64 + 1);
            prop_assert!(counted.count("last_values") <= last_values::DEVICE_NAMES_MAX + 1001);
            let victim =
                last_values::get(&counted.connection, &"victim".parse().unwrap(), None, "t").unwrap();
            let (_, value) = victim.unwrap();
            prop_assert_eq!(value.get(), round.to_string());
        }
        Ok(())
    });
    outcome.unwrap();
}
