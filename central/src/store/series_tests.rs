//! Series hold what was sent, whatever the order of arrival, tails, compactions, deletions and kills.

use std::cell::Cell;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use schemas::bag::PropertyBag;
use schemas::timestamp::rfc3339;

use super::super::series_compaction::{compact, compact_with, trim_age, trim_bytes};
use super::super::series_reading::{SeriesQuery, read};
use super::super::telemetry::{NewMessage, Writing};
use super::super::{devices, modules, schema, telemetry_retention, unreadable};
use super::*;
use crate::series::bucket::Bucket;

const NOW_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

fn open() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let c = schema::open(&dir.path().join("central.db")).unwrap();
    // Nothing here is about the disk.
    c.execute_batch("PRAGMA synchronous = OFF").unwrap();
    for id in ["d", "e"] {
        register(&c, id);
    }
    (dir, c)
}

fn register(c: &Connection, id: &str) {
    devices::put(c, &devices::Device { revision: 1, ..devices::Device::new(id.parse().unwrap()) }).unwrap();
}

fn send(c: &Connection, from: &str, created_ms: Option<u64>, enqueued_ms: u64, body: &[u8]) {
    let mut bag = PropertyBag::new();
    if let Some(created_ms) = created_ms {
        bag.set("iothub-creation-time-utc", rfc3339(created_ms));
    }
    let message = NewMessage {
        from: from.parse().unwrap(),
        enqueued_ms,
        received_ms: NOW_MS,
        bag,
        body: body.to_vec(),
        place: None,
        generation: None,
    };
    let mut writing = Writing::new(c).unwrap();
    writing.insert(&message).unwrap();
    writing.finish().unwrap();
}

fn take_tail(c: &Connection) -> Vec<Added> {
    let tail = read_tail(c).unwrap();
    tail.map(|tail| write_tail(c, &tail).unwrap()).unwrap_or_default()
}

fn all_series(c: &Connection) -> Vec<i64> {
    let mut statement = c.prepare("SELECT id FROM series ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn query(of: &str, name: &str, from_ms: u64, to_ms: u64, step_ms: u64) -> SeriesQuery {
    SeriesQuery {
        of: of.parse().unwrap(),
        component: String::new(),
        names: vec![name.to_owned()],
        from_ms: from_ms - from_ms % step_ms,
        to_ms: to_ms.div_ceil(step_ms) * step_ms,
        step_ms,
    }
}

fn read_name(c: &Connection, query: &SeriesQuery) -> Vec<Bucket> {
    read(c, query).unwrap().remove(0)
}

fn values(c: &Connection, of: &str, name: &str) -> Vec<f64> {
    let buckets = read_name(c, &query(of, name, 0, NOW_MS + HOUR_MS, 1));
    buckets.iter().map(|bucket| bucket.last).collect()
}

/// What is accounted for is what is there.
fn check_usage(c: &Connection) {
    let rows = |sql: &str| -> Vec<(String, i64, i64)> {
        let mut statement = c.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let counted = rows("SELECT device, bytes, points FROM series_usage WHERE bytes <> 0 ORDER BY device");
    let truth = rows(
        "SELECT device, sum(64 + length(rollup) + length(data)), sum(points) FROM series_chunks
         JOIN series ON series.id = series_chunks.series GROUP BY device ORDER BY device",
    );
    assert_eq!(counted, truth);
}

/// Compacted chunks of a series share no times, and none is longer than it may be.
fn check_chunks(c: &Connection) {
    let mut statement = c
        .prepare("SELECT series, first_ms, last_ms, points FROM series_chunks WHERE level = 1 ORDER BY series, first_ms")
        .unwrap();
    let rows = statement
        .query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })
        .unwrap();
    let chunks: Vec<_> = rows.map(Result::unwrap).collect();
    for pair in chunks.windows(2) {
        assert!(pair[0].0 != pair[1].0 || pair[0].2 < pair[1].1, "{pair:?}");
    }
    assert!(
        chunks.iter().all(|chunk| chunk.1 <= chunk.2 && (chunk.1 == chunk.2 || chunk.3 <= 16)),
        "{chunks:?}"
    );
}

/// The buckets by the simplest way: all points in one list.
#[derive(Default)]
struct Reference(BTreeMap<u64, Vec<(bool, Option<f64>)>>);

impl Reference {
    fn add(&mut self, at_ms: u64, is_stated: bool, value: Option<f64>) {
        let here = self.0.entry(at_ms).or_default();
        if is_stated {
            here.retain(|(is_stated, _)| !is_stated);
        }
        here.push((is_stated, value));
    }

    fn buckets(&self, query: &SeriesQuery) -> Vec<Bucket> {
        let mut found: BTreeMap<u64, Vec<(u64, f64)>> = BTreeMap::new();
        for (at_ms, here) in self.0.range(query.from_ms..query.to_ms) {
            for (_, value) in here {
                if let Some(value) = value {
                    found.entry(at_ms / query.step_ms).or_default().push((*at_ms, *value));
                }
            }
        }
        let bucket = |(number, points): (u64, Vec<(u64, f64)>)| {
            let values = || points.iter().map(|(_, value)| *value);
            Bucket {
                start_ms: number * query.step_ms,
                min: values().fold(f64::MAX, f64::min),
                max: values().fold(f64::MIN, f64::max),
                sum: values().sum(),
                count: points.len() as u64,
                last: points[points.len() - 1].1,
                last_at_ms: points[points.len() - 1].0,
            }
        };
        found.into_iter().map(bucket).collect()
    }
}

/// A step of the property test.
#[derive(Debug, Clone)]
enum Step {
    /// Seconds before now, whether the device tells the time, and the value in quarters; `None` for a text.
    Send(u64, bool, Option<i16>),
    /// Messages in time, one every so many seconds.
    Run(u64, u64, u8),
    Tail,
    Compact,
    Read(u64, u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let back = prop_oneof![0..60_u64, 0..20_000_u64, 0..200_000_u64];
    let value = prop::option::weighted(0.9, any::<i16>());
    prop_oneof![
        4 => (back.clone(), any::<bool>(), value).prop_map(|(back, stated, value)| Step::Send(back, stated, value)),
        2 => (back.clone(), 1..400_u64, 1..40_u8).prop_map(|(back, every, count)| Step::Run(back, every, count)),
        2 => Just(Step::Tail),
        2 => Just(Step::Compact),
        2 => (back.clone(), back, 0..7_usize).prop_map(|(from, to, step)| Step::Read(from, to, step)),
    ]
}

/// Sends a point, and adds it to the reference.
fn put(c: &Connection, reference: &mut Reference, back: u64, is_stated: bool, value: Option<i16>) {
    let at_ms = NOW_MS - back * 1000;
    let body = match value {
        Some(value) => format!(r#"{{"t": {}, "x": 1}}"#, f64::from(value) / 4.0),
        None => r#"{"t": "broken", "x": 1}"#.to_owned(),
    };
    if is_stated {
        send(c, "d", Some(at_ms), NOW_MS, body.as_bytes());
    } else {
        send(c, "d", None, at_ms, body.as_bytes());
    }
    reference.add(at_ms, is_stated, value.map(|value| f64::from(value) / 4.0));
    // Another sender's are not its own.
    send(c, "e", Some(at_ms), NOW_MS, br#"{"t": 9}"#);
}

#[test]
fn a_series_reads_as_its_points_in_one_sorted_list_whatever_order_they_come_in_and_whenever_they_are_compacted()
 {
    const STEPS: [u64; 7] = [1, 1000, 60_000, 300_000, HOUR_MS, 6 * HOUR_MS, 24 * HOUR_MS];
    let config = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..50))| {
        let (_dir, c) = open();
        let mut reference = Reference::default();
        let mut reads = Vec::new();
        for step in steps {
            match step {
                Step::Send(back, is_stated, value) => put(&c, &mut reference, back, is_stated, value),
                Step::Run(back, every, count) => {
                    for n in 0..u64::from(count) {
                        put(&c, &mut reference, back + n * every, n % 5 != 0, Some(n as i16));
                    }
                }
                Step::Tail => drop(take_tail(&c)),
                Step::Compact => {
                    for series in all_series(&c) {
                        compact(&c, series).unwrap();
                    }
                    check_usage(&c);
                    check_chunks(&c);
                }
                Step::Read(from, to, step) => {
                    let (from_ms, to_ms) = (NOW_MS - from.max(to) * 1000, NOW_MS - from.min(to) * 1000);
                    reads.push(query("d", "t", from_ms, to_ms + 1, STEPS[step]));
                }
            }
            if let Some(query) = reads.last().filter(|_| matches!(step, Step::Read(..))) {
                prop_assert_eq!(read_name(&c, query), reference.buckets(query), "{:?}", query);
            }
        }
        for step_ms in STEPS {
            let query = query("d", "t", NOW_MS - 300_000_000, NOW_MS + 1, step_ms);
            prop_assert_eq!(read_name(&c, &query), reference.buckets(&query));
        }
    });
}

#[test]
fn a_kill_between_any_two_steps_of_a_compaction_loses_nothing_and_takes_nothing_twice() {
    let (dir, c) = open();
    let mut random = StdRng::seed_from_u64(7);
    let mut reference = Reference::default();
    for n in 0..300_u64 {
        // Late points among them, so that chunks are rewritten.
        let at_ms = NOW_MS - random.random_range(0..400) * 60_000;
        send(&c, "d", Some(at_ms), NOW_MS, format!(r#"{{"t": {n}}}"#).as_bytes());
        reference.add(at_ms, true, Some(n as f64));
        if n % 10 == 9 {
            take_tail(&c);
        }
        if n == 150 {
            compact(&c, 1).unwrap();
        }
    }
    let queries =
        [60_000, HOUR_MS].map(|step_ms| query("d", "t", NOW_MS - 500 * 60_000, NOW_MS + 1, step_ms));
    let copies = Cell::new(0);
    c.execute_batch("BEGIN IMMEDIATE").unwrap();
    compact_with(&c, 1, |_| {
        // What a kill leaves is what stands in the files now.
        let place = dir.path().join(format!("killed-{}", copies.get()));
        std::fs::create_dir(&place).unwrap();
        for file in ["central.db", "central.db-wal"] {
            std::fs::copy(dir.path().join(file), place.join(file)).unwrap();
        }
        let after = schema::open(&place.join("central.db")).unwrap();
        for query in &queries {
            assert_eq!(read_name(&after, query), reference.buckets(query));
        }
        compact(&after, 1).unwrap();
        for query in &queries {
            assert_eq!(read_name(&after, query), reference.buckets(query));
        }
        copies.set(copies.get() + 1);
    })
    .unwrap();
    assert!(copies.get() > 30, "{}", copies.get());
    c.execute_batch("COMMIT").unwrap();
    for query in &queries {
        assert_eq!(read_name(&c, query), reference.buckets(query));
    }
    check_usage(&c);
    check_chunks(&c);
    let loose: i64 =
        c.query_row("SELECT count(*) FROM series_chunks WHERE level = 0", [], |row| row.get(0)).unwrap();
    assert_eq!(loose, 0);
}

fn write_tail(c: &Connection, tail: &SeriesTail) -> rusqlite::Result<Vec<Added>> {
    let written =
        tail.slices.iter().map(|slice| write_slice(c, slice)).collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(written.concat())
}

#[test]
fn a_tail_is_written_once_also_by_two_programs_and_after_a_failed_commit() {
    let (_dir, c) = open();
    for n in 0..5 {
        send(&c, "d", None, NOW_MS, format!(r#"{{"t": {n}}}"#).as_bytes());
    }
    let (one, other) = (read_tail(&c).unwrap().unwrap(), read_tail(&c).unwrap().unwrap());
    c.execute_batch("BEGIN").unwrap();
    assert_eq!(write_tail(&c, &one).unwrap().len(), 1);
    c.execute_batch("ROLLBACK").unwrap();
    assert_eq!(write_tail(&c, &one).unwrap().len(), 1);
    assert!(write_tail(&c, &other).unwrap().is_empty());
    assert!(read_tail(&c).unwrap().is_none());
    let buckets = read_name(&c, &query("d", "t", NOW_MS - 1, NOW_MS + 1, 1000));
    assert_eq!((buckets[0].count, buckets[0].last), (5, 4.0));
}

#[test]
fn nothing_of_a_removed_device_or_module_is_left_to_the_next_of_its_name() {
    let (_dir, c) = open();
    let (d, module): (DeviceId, Identity) = ("d".parse().unwrap(), "d/m".parse().unwrap());
    // 0: in chunks that were compacted; 1: in loose ones; 2: in messages; 3: in a tail that was read before.
    for depth in 0..4 {
        for of in ["d", "d/m"] {
            send(&c, of, None, NOW_MS, br#"{"t": 1}"#);
        }
        if depth < 2 {
            take_tail(&c);
        }
        if depth == 0 {
            all_series(&c).into_iter().for_each(|series| compact(&c, series).unwrap());
        }
        let before = if depth == 3 { read_tail(&c).unwrap() } else { None };
        modules::delete(&c, &d, module.module.as_ref().unwrap()).unwrap();
        if let Some(tail) = &before {
            assert!(write_tail(&c, tail).unwrap().is_empty());
        }
        assert!(values(&c, "d/m", "t").is_empty(), "{depth}");
        assert!(!values(&c, "d", "t").is_empty(), "{depth}");
        check_usage(&c);
        let before = if depth == 3 { read_tail(&c).unwrap() } else { None };
        devices::delete(&c, &d).unwrap();
        register(&c, "d");
        if let Some(tail) = &before {
            assert!(write_tail(&c, tail).unwrap().is_empty());
        }
        take_tail(&c);
        for of in ["d", "d/m"] {
            assert!(values(&c, of, "t").is_empty(), "{of}: {depth}");
            send(&c, of, None, NOW_MS, br#"{"t": 2}"#);
            assert_eq!(values(&c, of, "t"), [2.0], "{of}: {depth}");
        }
        take_tail(&c);
        assert_eq!(values(&c, "d/m", "t"), [2.0]);
        devices::delete(&c, &d).unwrap();
        register(&c, "d");
        check_usage(&c);
    }
    let left: i64 = c.query_row("SELECT count(*) FROM series_chunks", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_device_that_sends_hostile_bodies_gets_so_many_series_and_the_operator_learns_it() {
    let (_dir, c) = open();
    c.execute_batch("BEGIN").unwrap();
    for n in 0..3 {
        let names: Vec<String> = (0..100_000).map(|name| format!(r#""{n}-{name}": 1"#)).collect();
        send(&c, "d", None, NOW_MS, format!("{{{}}}", names.join(",")).as_bytes());
    }
    let long = "x".repeat(1_000_000);
    send(&c, "d", None, NOW_MS, format!(r#"{{"{long}": 1, "a": 5e400, "b": -1e308}}"#).as_bytes());
    let deep = format!(r#"{{"deep": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    send(&c, "d", None, NOW_MS, deep.as_bytes());
    send(&c, "d", None, NOW_MS, b"\xff\xff{}");
    send(&c, "e", None, NOW_MS, br#"{"t": 1}"#);
    take_tail(&c);
    let count: i64 =
        c.query_row("SELECT count(*) FROM series WHERE device = 'd'", [], |row| row.get(0)).unwrap();
    assert_eq!(count, NAMES_MAX as i64);
    let refused = refused(&c, &"d".parse().unwrap()).unwrap();
    assert_eq!((refused.len(), refused[0].module.as_deref()), (1, None));
    assert!(refused[0].points > 1000 && refused[0].name.len() <= 1024, "{refused:?}");
    assert_eq!(values(&c, "e", "t"), [1.0], "others are charted");
    assert!(take_tail(&c).is_empty());
}

#[test]
fn numbers_are_numbers_and_what_is_none_corrects_one_and_begins_no_series() {
    let (_dir, c) = open();
    let at = |back: u64| Some(NOW_MS - back);
    send(&c, "d", at(5), NOW_MS, br#"{"text": "1", "flag": true, "none": null, "list": [1], "t": -0.5e1}"#);
    send(&c, "d", at(4), NOW_MS, br#"{"t": 2}"#);
    send(&c, "d", at(4), NOW_MS, br#"{"t": "not a number"}"#);
    send(&c, "d", at(3), NOW_MS, br#"{"t": 3, "t": 4}"#);
    for step in 0..3 {
        assert_eq!(values(&c, "d", "t"), [-5.0, 4.0], "{step}");
        take_tail(&c);
        if step == 1 {
            compact(&c, 1).unwrap();
        }
    }
    let names: Vec<String> = {
        let mut statement = c.prepare("SELECT name FROM series").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(names, ["t"]);
}

#[test]
fn a_chunk_that_was_damaged_is_reported_and_left_out_and_the_others_are_read_and_compacted() {
    let (_dir, c) = open();
    let mut reference = Reference::default();
    for n in 0..100_u64 {
        let at_ms = NOW_MS - 60_000 * (100 - n);
        send(&c, "d", Some(at_ms), NOW_MS, format!(r#"{{"t": {n}}}"#).as_bytes());
        reference.add(at_ms, true, Some(n as f64));
        if n % 4 == 3 {
            take_tail(&c);
        }
        if n == 63 {
            compact(&c, 1).unwrap();
        }
    }
    let damage = "UPDATE series_chunks SET data = zeroblob(30), rollup = x'01' WHERE id IN
        (SELECT min(id) FROM series_chunks WHERE level = ?1) RETURNING first_ms, last_ms";
    for level in [COMPACT, LOOSE] {
        let (first, last): (i64, i64) =
            c.query_row(damage, [level], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        reference.0.retain(|at_ms, _| !(unsigned(first)..=unsigned(last)).contains(at_ms));
    }
    let queries =
        [60_000, HOUR_MS].map(|step_ms| query("d", "t", NOW_MS - 200 * 60_000, NOW_MS + 1, step_ms));
    let before = unreadable::count();
    for _ in 0..2 {
        for query in &queries {
            assert_eq!(read_name(&c, query), reference.buckets(query));
        }
        compact(&c, 1).unwrap();
    }
    assert!(unreadable::count() > before);
}

#[test]
fn points_stay_when_their_messages_are_trimmed_and_go_by_age_and_by_bytes_of_the_largest() {
    let (_dir, c) = open();
    c.execute_batch("BEGIN").unwrap();
    for n in 0..400_u64 {
        let at_ms = NOW_MS - (400 - n) * HOUR_MS;
        send(&c, "d", Some(at_ms), NOW_MS, format!(r#"{{"t": {n}, "u": {}}}"#, (n as f64).sqrt()).as_bytes());
        if n % 4 == 0 {
            send(&c, "e", Some(at_ms), NOW_MS, br#"{"t": 1}"#);
        }
    }
    telemetry_retention::trim(&c, 1, &mut { u64::MAX }).unwrap();
    assert_eq!(values(&c, "d", "t").len(), 400, "the messages are gone");
    all_series(&c).into_iter().for_each(|series| compact(&c, series).unwrap());
    trim_age(&c, NOW_MS - 300 * HOUR_MS, &mut { u64::MAX }).unwrap();
    let left = values(&c, "d", "t");
    assert!((300..316).contains(&left.len()) && left.last() == Some(&399.0), "{}", left.len());
    check_usage(&c);
    let bytes = |device: &str| -> u64 {
        let sql = "SELECT bytes FROM series_usage WHERE device = ?1";
        unsigned(c.query_row(sql, [device], |row| row.get(0)).unwrap())
    };
    let (of_d, of_e) = (bytes("d"), bytes("e"));
    trim_bytes(&c, of_d - 1, u64::MAX, &mut { u64::MAX }).unwrap();
    assert!(bytes("d") < of_d && bytes("e") == of_e);
    // All together: the largest gives way, and no other.
    while usage(&c).unwrap().0 > 2 * of_e {
        trim_bytes(&c, u64::MAX, 2 * of_e, &mut { u64::MAX }).unwrap();
    }
    assert_eq!(bytes("e"), of_e);
    assert_eq!(values(&c, "d", "t").last(), Some(&399.0), "the newest stay");
    check_usage(&c);
}

#[test]
fn messages_of_an_older_store_become_series_and_those_of_earlier_devices_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    let old = schema::tests::before(&path, "CREATE TABLE series ");
    let insert = "INSERT INTO telemetry (device, module, enqueued_ms, received_ms, bag, body)
        VALUES (?1, ?2, 1800000000000, 1800000000000, '{}', CAST(?3 AS BLOB))";
    for n in 0..3 {
        old.execute(insert, ("d", None::<&str>, format!(r#"{{"t": {n}}}"#))).unwrap();
        old.execute(insert, ("d", Some("m"), format!(r#"{{"t": {n}}}"#))).unwrap();
        old.execute(insert, ("gone", None::<&str>, r#"{"t": 1}"#)).unwrap();
    }
    old.execute_batch(
        "INSERT INTO devices (id, display_name, is_gateway, enabled, revision, telemetry_after) VALUES ('d', '', 1, 1, 1, 1);
         INSERT INTO modules VALUES ('d', 'm', 1, 5);",
    )
    .unwrap();
    drop(old);
    let c = schema::open(&path).unwrap();
    for _ in 0..2 {
        let counts = ["d", "d/m"].map(|of| {
            let buckets = read_name(&c, &query(of, "t", NOW_MS - 1, NOW_MS + 1, 1000));
            buckets.iter().map(|bucket| bucket.count).sum::<u64>()
        });
        assert_eq!(counts, [2, 1]);
        take_tail(&c);
    }
    assert_eq!(all_series(&c).len(), 2);
}
