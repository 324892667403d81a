use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::limits::Keep;
use super::super::telemetry_reading::{Message, page};
use super::super::telemetry_retention::{bytes, trim, trim_bytes};
use super::*;

fn message(sequence: u64, queue: &str, body: &str) -> NewMessage {
    let mut bag = PropertyBag::new();
    bag.set("line", "4");
    NewMessage {
        from: "press-1".parse().unwrap(),
        enqueued_ms: 1000 + sequence,
        received_ms: 2000,
        bag,
        body: body.as_bytes().to_vec(),
        place: Some(Place { gateway: "gw".parse().unwrap(), queue: queue.into(), sequence }),
        generation: None,
    }
}

async fn put(store: &Store, message: NewMessage) -> Stored {
    let stored = store.submit(move |c| {
        let mut writing = Writing::new(c)?;
        let stored = writing.insert(&message)?;
        writing.finish()?;
        Ok::<_, StoreError>(stored)
    });
    stored.await.unwrap()
}

async fn all(store: &Store) -> Vec<Message> {
    store.read(|c| Ok::<_, StoreError>(page(c, &"press-1".parse().unwrap(), 0, 1000)?)).await.unwrap()
}

#[tokio::test]
async fn a_resent_message_is_stored_once_even_after_central_was_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let keep = Keep { messages: 1000, commands: 10 };
    let store = crate::store::open(dir.path(), keep).unwrap();
    assert_eq!(put(&store, message(1, "q", "{}")).await, Stored::New);
    assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::New);
    assert_eq!(put(&store, message(1, "q", "{}")).await, Stored::Already);
    assert_eq!(put(&store, message(1, "other", "{}")).await, Stored::New, "another queue counts by itself");
    store.close().await;
    let store = crate::store::open(dir.path(), keep).unwrap();
    assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::Already);
    assert_eq!(put(&store, message(5, "q", "{}")).await, Stored::New, "a loss is reported elsewhere");
    let stored = all(&store).await;
    assert_eq!(stored.len(), 4);
    assert_eq!(stored[0].enqueued_ms, 1001);
    assert_eq!(stored[0].properties.as_ref().unwrap()["line"], "4");
}

#[tokio::test]
async fn a_message_that_was_refused_is_not_taken_for_stored_because_later_ones_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::open(dir.path(), Keep { messages: 1000, commands: 10 }).unwrap();
    let far = async |store: &Store| {
        let of = "gw".parse().unwrap();
        store.read(move |c| Ok::<_, StoreError>(stored(c, &of)?)).await.unwrap().queues["q"]
    };
    put(&store, message(1, "q", "{}")).await;
    let refused = message(2, "q", "{}").place.unwrap();
    let refuse = move |c: &Connection| {
        let mut writing = Writing::new(c)?;
        writing.refuse(&refused)?;
        Ok::<_, StoreError>(writing.finish()?)
    };
    store.submit(refuse).await.unwrap();
    put(&store, message(3, "q", "{}")).await;
    assert_eq!(far(&store).await, 1, "the gateway must not forget what was refused");
    assert_eq!(put(&store, message(3, "q", "{}")).await, Stored::Already);
    assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::New, "it is taken now");
    assert_eq!(put(&store, message(2, "q", "{}")).await, Stored::Already);
    assert_eq!((far(&store).await, all(&store).await.len()), (3, 3));
}

#[tokio::test]
async fn the_oldest_messages_go_when_there_are_more_than_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::open(dir.path(), Keep { messages: 3, commands: 10 }).unwrap();
    for sequence in 1..=10 {
        put(&store, message(sequence, "q", "{}")).await;
    }
    let enqueued: Vec<u64> = all(&store).await.iter().map(|message| message.enqueued_ms).collect();
    assert_eq!(enqueued, [1008, 1009, 1010]);
}

#[tokio::test]
async fn what_is_kept_of_each_device_is_counted_exactly_and_the_largest_is_evicted() {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    let dir = tempfile::tempdir().unwrap();
    let c = super::super::schema::open(&dir.path().join("central.db")).unwrap();
    let mut random = StdRng::seed_from_u64(5);
    let truth = |c: &Connection| -> Vec<(String, i64, i64)> {
        c.prepare(
            "SELECT device, count(*), sum(length(bag) + length(body) + 128) FROM telemetry GROUP BY device",
        )
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect()
    };
    for sequence in 1..300 {
        let mut new = message(sequence, "q", &"ä".repeat(random.random_range(0..200)));
        new.bag.set("name", "ü€");
        new.from = format!("press-{}", random.random_range(1..5_u32).min(3)).parse().unwrap();
        let mut writing = Writing::new(&c).unwrap();
        writing.insert(&new).unwrap();
        // A resend counts once.
        writing.insert(&new).unwrap();
        writing.finish().unwrap();
        let (per_device, total) = (random.random_range(5_000..20_000), random.random_range(8_000..40_000));
        // At once or in parts, it comes to the same.
        let most = if sequence % 2 == 0 { u64::MAX } else { random.random_range(1..3_000) };
        let gone = || {
            trim_bytes(&c, per_device, total, &mut { most })
                .unwrap()
                .iter()
                .map(|(_, gone)| gone)
                .sum::<usize>()
        };
        while gone() > 0 {}
        let counted: Vec<(String, i64, i64)> = c
            .prepare("SELECT device, messages, bytes FROM telemetry_usage ORDER BY device")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(counted, truth(&c));
        assert!(counted.iter().all(|(_, _, bytes)| unsigned(*bytes) <= per_device));
        assert!(bytes(&c).unwrap() <= total);
    }
    let (most, largest) = (700, 1_000);
    while bytes(&c).unwrap() > 0 {
        let before = bytes(&c).unwrap();
        assert!(trim(&c, 0, &mut { most }).unwrap() > 0);
        assert!(before - bytes(&c).unwrap() <= most + largest);
    }
}

#[tokio::test]
async fn a_gateway_learns_that_central_has_nothing_of_a_log_though_old_epochs_of_another_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::store::open(dir.path(), Keep { messages: 1000, commands: 10 }).unwrap();
    let says = async |store: &Store| {
        let of = "gw".parse().unwrap();
        let stored = store.read(move |c| Ok::<_, StoreError>(stored(c, &of)?)).await.unwrap();
        (stored.is_complete, stored.names_all_logs, stored.queues.len())
    };
    assert_eq!(says(&store).await, (true, true, 0));
    for epoch in 1..=queues::EPOCHS_MAX + 3 {
        put(&store, message(epoch as u64, &format!("log.{epoch:016x}"), "{}")).await;
    }
    assert_eq!(says(&store).await, (false, true, queues::EPOCHS_MAX));
    store.close().await;
}
