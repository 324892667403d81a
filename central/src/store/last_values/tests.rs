use super::super::error::StoreError;
use super::super::limits::Keep;
use super::super::{devices, schema};
use super::*;
use crate::store::telemetry::{NewMessage, Writing};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use schemas::bag::PropertyBag;
use schemas::timestamp::rfc3339;

const NOW_MS: u64 = 1_800_000_000_000;

fn open() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let connection = schema::open(&dir.path().join("central.db")).unwrap();
    // Nothing here is about the disk.
    connection.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
    (dir, connection)
}

fn message(from: &str, body: &[u8], properties: &[(&str, &str)]) -> NewMessage {
    let mut bag = PropertyBag::new();
    for (name, value) in properties {
        bag.set(name, *value);
    }
    let from = from.parse().unwrap();
    NewMessage {
        from,
        enqueued_ms: NOW_MS,
        received_ms: NOW_MS,
        bag,
        body: body.to_vec(),
        place: None,
        generation: None,
    }
}

fn store(connection: &Connection, messages: &[NewMessage]) {
    let mut writing = Writing::new(connection).unwrap();
    for message in messages {
        writing.insert(message).unwrap();
    }
    writing.finish().unwrap();
}

fn register(connection: &Connection, id: &str) {
    let new = devices::Device { revision: 1, ..devices::Device::new(id.parse().unwrap()) };
    devices::put(connection, &new).unwrap();
}

/// Brings the rows to where the messages are.
fn fold(connection: &Connection) {
    while let Some(tail) = read_tail(connection).unwrap() {
        tail.into_slices().iter().for_each(|slice| write_slice(connection, slice).unwrap());
    }
}

fn value(connection: &Connection, of: &str, component: Option<&str>, name: &str) -> Option<(u64, String)> {
    let found = get(connection, &of.parse().unwrap(), component, name).unwrap();
    found.map(|(at_ms, value)| (at_ms, value.get().to_owned()))
}

/// A message whose time is known, of however many clocks it is told.
#[derive(Debug, Clone)]
struct Sent {
    from: &'static str,
    component: Option<&'static str>,
    at_ms: u64,
    created: Option<(&'static str, u64)>,
    enqueued_ms: u64,
    names: Vec<&'static str>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let clocks = (0..1_000_000_u64, 0..6_u8, 0..100_000_u64);
    let names = proptest::sample::subsequence(vec!["t", "p", "ü", "a b"], 1..4);
    let from = prop_oneof![Just("press-1"), Just("press-2"), Just("gw/filter")];
    (from, proptest::option::of(Just("pump")), clocks, names).prop_map(|(from, component, clocks, names)| {
        let (ago_ms, clock, late_ms) = clocks;
        let made_ms = NOW_MS - ago_ms;
        let (key, after_ms) = ("$.ctime", (made_ms + late_ms).min(NOW_MS));
        let (at_ms, created, enqueued_ms) = match clock {
            0 => (made_ms, None, made_ms),
            1 => (made_ms, Some((key, made_ms)), after_ms),
            2 => (made_ms, Some(("iothub-creation-time-utc", made_ms)), after_ms),
            // A device whose clock is far ahead, and one whose clock was never set.
            3 => (made_ms, Some((key, NOW_MS + 86_400_000)), made_ms),
            4 => (made_ms, Some((key, 1000 + ago_ms)), made_ms),
            // A gateway that is far ahead: only central knows when it got the message.
            _ => (NOW_MS, None, NOW_MS + 86_400_000 + ago_ms),
        };
        Sent { from, component, at_ms, created, enqueued_ms, names }
    })
}

/// Stores what was sent in another order, in batches, with the rows written behind some of them; gives the order of arrival.
fn store_shuffled(connection: &Connection, sent: &[Sent], seed: u64, batch: usize) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut arrivals: Vec<usize> = (0..sent.len()).collect();
    arrivals.shuffle(&mut random);
    for batch in arrivals.chunks(batch) {
        let messages: Vec<NewMessage> = batch
            .iter()
            .map(|number| {
                let sent = &sent[*number];
                let body: serde_json::Map<String, serde_json::Value> =
                    sent.names.iter().map(|name| ((*name).to_owned(), (*number).into())).collect();
                let body = serde_json::Value::Object(body).to_string();
                let created = sent.created.map(|(key, at_ms)| (key, rfc3339(at_ms)));
                let created = created.iter().map(|(key, at)| (*key, at.as_str()));
                let component = sent.component.map(|component| (system::COMPONENT, component));
                let properties: Vec<(&str, &str)> = created.chain(component).collect();
                let new = message(sent.from, body.as_bytes(), &properties);
                NewMessage { enqueued_ms: sent.enqueued_ms, ..new }
            })
            .collect();
        store(connection, &messages);
        if random.random_bool(0.4) {
            fold(connection);
        }
    }
    arrivals
}

#[test]
fn values_that_arrive_in_any_order_are_those_of_the_messages_in_theirs() {
    let (_dir, connection) = open();
    let all = (proptest::collection::vec(sent(), 1..60), any::<u64>(), 1..20_usize);
    let check = |(sent, seed, batch): (Vec<Sent>, u64, usize)| {
        connection.execute_batch("ROLLBACK; BEGIN").unwrap();
        for device in ["press-1", "press-2", "gw"] {
            register(&connection, device);
        }
        let arrivals = store_shuffled(&connection, &sent, seed, batch);
        // The reference: the messages sorted, each name taken from the last one that has it. What was made and enqueued in the
        // same millisecond stays in the order of its queue, which is that of arrival.
        let mut sorted: Vec<(usize, &Sent)> =
            arrivals.iter().map(|number| (*number, &sent[*number])).collect();
        sorted.sort_by_key(|(_, sent)| (sent.at_ms, sent.enqueued_ms));
        let mut expected = HashMap::new();
        for (number, sent) in sorted {
            for name in &sent.names {
                expected.insert((sent.from, sent.component, *name), (sent.at_ms, number.to_string()));
            }
        }
        for _ in 0..2 {
            for from in ["press-1", "press-2", "gw/filter"] {
                for component in [None, Some("pump")] {
                    for name in ["t", "p", "ü", "a b"] {
                        let found = value(&connection, from, component, name);
                        prop_assert_eq!(found.as_ref(), expected.get(&(from, component, name)));
                    }
                }
            }
            fold(&connection);
        }
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(64)).run(&all, check).unwrap();
}

#[test]
fn a_value_is_kept_as_it_was_written() {
    let (_dir, connection) = open();
    let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?";
    register(&connection, "d");
    let check = |text: String| {
        store(&connection, &[message("d", format!("{{\"n\": {text} }}").as_bytes(), &[])]);
        prop_assert_eq!(value(&connection, "d", None, "n"), Some((NOW_MS, text.clone())));
        fold(&connection);
        prop_assert_eq!(value(&connection, "d", None, "n"), Some((NOW_MS, text)));
        Ok(())
    };
    TestRunner::new(ProptestConfig::with_cases(64)).run(&number, check).unwrap();
}

#[test]
fn a_value_stays_when_any_number_of_later_messages_do_not_carry_it() {
    let (_dir, connection) = open();
    register(&connection, "d");
    store(&connection, &[message("d", br#"{"rare": 1}"#, &[])]);
    let others = vec![message("d", br#"{"often": 2}"#, &[]); 6000];
    store(&connection, &others);
    assert_eq!(value(&connection, "d", None, "rare"), Some((NOW_MS, "1".into())));
    crate::store::telemetry_retention::trim(&connection, 5000, &mut { u64::MAX }).unwrap();
    assert_eq!(value(&connection, "d", None, "rare"), Some((NOW_MS, "1".into())));
    store(&connection, &[message("d", br#"{"new": 1}"#, &[])]);
    crate::store::telemetry_retention::trim_bytes(&connection, 0, 0, &mut { u64::MAX }).unwrap();
    for name in ["rare", "new"] {
        assert_eq!(value(&connection, "d", None, name), Some((NOW_MS, "1".into())));
    }
}

#[test]
fn bodies_of_every_encoding_have_values_and_what_is_no_object_has_none() {
    let (_dir, connection) = open();
    let units: Vec<u8> = r#"{"wide": "ü"}"#.encode_utf16().flat_map(u16::to_be_bytes).collect();
    store(
        &connection,
        &[
            message("d", b"\xef\xbb\xbf{\"marked\": true}", &[]),
            message("d", &units, &[("$.ce", "UTF-16BE")]),
            message("d", &[b"\xfe\xff", units.as_slice()].concat(), &[]),
            message("d", br#"{"twice": 1, "twice": [2, {"x": null}]}"#, &[]),
            message("d", br#"{"half": 1, "#, &[]),
            message("d", br#"{"behind": 1} x"#, &[]),
            message("d", b"[1]", &[]),
            message("d", b"\xff\xfe{", &[]),
            message("d", b"", &[]),
        ],
    );
    register(&connection, "d");
    fold(&connection);
    let found = |name: &str| value(&connection, "d", None, name).map(|(_, value)| value);
    assert_eq!(found("marked").as_deref(), Some("true"));
    assert_eq!(found("wide").as_deref(), Some("\"ü\""));
    assert_eq!(found("twice").as_deref(), Some(r#"[2, {"x": null}]"#));
    assert_eq!((found("half"), found("behind")), (None, None));
}

#[test]
fn a_long_value_is_read_from_its_message_and_one_that_is_nested_too_deep_is_left_out() {
    let (_dir, connection) = open();
    let long = format!("\"{}\"", "x".repeat(VALUE_BYTES_MAX));
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let body = format!("{{\"long\": {long}, \"deep\": {deep}, \"short\": 1}}");
    register(&connection, "d");
    store(&connection, &[message("d", body.as_bytes(), &[])]);
    fold(&connection);
    assert_eq!(value(&connection, "d", None, "long"), Some((NOW_MS, long)));
    assert_eq!(value(&connection, "d", None, "deep"), None);
    assert_eq!(value(&connection, "d", None, "short"), Some((NOW_MS, "1".into())));
}

#[test]
fn of_more_names_than_are_kept_those_with_the_newest_values_stay() {
    let (_dir, connection) = open();
    for round in 0..30_u64 {
        let messages: Vec<NewMessage> = (0..100)
            .map(|n| {
                let body = format!("{{\"n{}\": {round}}}", round * 100 + n);
                let new = message("d", body.as_bytes(), &[]);
                NewMessage { enqueued_ms: NOW_MS - 1_000_000 + round * 100 + n, ..new }
            })
            .collect();
        store(&connection, &messages);
        register(&connection, "d");
        fold(&connection);
    }
    let count: u64 =
        connection.query_row("SELECT count(*) FROM last_values", [], |row| row.get(0).map(unsigned)).unwrap();
    assert!((NAMES_MAX..=NAMES_MAX + NAMES_OVER).contains(&count), "{count}");
    assert!(
        value(&connection, "d", None, "n2999").is_some() && value(&connection, "d", None, "n0").is_none()
    );
}

#[test]
fn what_an_earlier_device_or_module_sent_is_no_value_of_the_next_one_whenever_it_was_read() {
    let (_dir, connection) = open();
    for is_read_before in [true, false] {
        register(&connection, "d");
        let senders = ["d", "d/m", "d/n"];
        store(&connection, &senders.map(|from| message(from, br#"{"t": 1}"#, &[])));
        let unwritten = read_tail(&connection).unwrap().unwrap();
        if is_read_before {
            fold(&connection);
        }
        delete(&connection, &"d/m".parse().unwrap()).unwrap();
        let found = senders.map(|from| value(&connection, from, None, "t").is_some());
        assert_eq!(found, [true, false, true]);
        devices::delete(&connection, &"d".parse().unwrap()).unwrap();
        register(&connection, "d");
        unwritten.into_slices().iter().for_each(|slice| write_slice(&connection, slice).unwrap());
        assert_eq!(senders.map(|from| value(&connection, from, None, "t")), [None, None, None]);
        fold(&connection);
        assert_eq!(senders.map(|from| value(&connection, from, None, "t")), [None, None, None]);
        store(&connection, &[message("d/m", br#"{"t": 2}"#, &[])]);
        assert_eq!(value(&connection, "d/m", None, "t"), Some((NOW_MS, "2".into())));
    }
}

#[tokio::test]
async fn a_store_of_an_older_version_has_the_last_values_of_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(super::super::paths::FILE);
    let old = schema::tests::before(&path, "CREATE TABLE last_values");
    old.execute_batch("BEGIN").unwrap();
    old.execute(
        "INSERT INTO devices (id, display_name, is_gateway, enabled, revision) VALUES ('d', 'd', 0, 1, 1)",
        [],
    )
    .unwrap();
    let count: u64 = 12_000;
    for n in 0..count {
        let (bag, body) = match n {
            7 => (r#"{"$.ctime":"2027-01-15T08:00:00Z"}"#, r#"{"t": 7, "rare": 1.50}"#.to_owned()),
            _ => ("{}", format!("{{\"t\": {n}}}")),
        };
        old.execute(
            "INSERT INTO telemetry (device, module, enqueued_ms, received_ms, bag, body)
                 VALUES (?1, NULL, ?2, ?2, ?3, ?4)",
            ("d", integer(NOW_MS + n), bag, body.as_bytes()),
        )
        .unwrap();
    }
    old.execute_batch("COMMIT").unwrap();
    drop(old);
    let store = crate::store::open(dir.path(), Keep { messages: 100_000, commands: 10 }).unwrap();
    let t = Some((NOW_MS + count - 1, (count - 1).to_string()));
    let rare = Some((NOW_MS, "1.50".to_owned()));
    let read = async || {
        let all = store.read(|c| {
            let up_to = LAST_VALUES.state(c)?.up_to;
            let all = (value(c, "d", None, "t"), value(c, "d", None, "rare"), up_to);
            Ok::<_, StoreError>(all)
        });
        all.await.unwrap()
    };
    // Made 7 ms before it was enqueued. Right at once, and still when all are in the rows.
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let found = read().await;
        assert_eq!((&found.0, &found.1), (&t, &rare));
        if found.2 == count.cast_signed() {
            break;
        }
    }
    store.close().await;
}
