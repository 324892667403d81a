use super::*;
use crate::store::telemetry::{self, Place};
use crate::store::telemetry_reading::page;
use crate::store::{Keep, devices};
use schemas::bag::PropertyBag;

fn message(from: &str, sequence: u64) -> NewMessage {
    NewMessage {
        from: from.parse().unwrap(),
        enqueued_ms: sequence,
        received_ms: 0,
        bag: PropertyBag::new(),
        body: sequence.to_string().into_bytes(),
        place: Some(Place { gateway: "gw".parse().unwrap(), queue: "q".into(), sequence }),
        generation: None,
    }
}

fn via(connection: u64) -> GatewayConnection {
    GatewayConnection { gateway: "gw".parse().unwrap(), connection }
}

async fn site(dir: &std::path::Path) -> (Store, Ingest) {
    let store = crate::store::open(dir, Keep { messages: 100_000, commands: 10 }).unwrap();
    let registered = store.submit(|c| {
        for (id, is_gateway) in [("gw", true), ("press-1", false), ("stranger", false)] {
            let new = crate::new_device::new_device(id.parse().unwrap());
            let device = devices::Device { is_gateway, revision: 1, ..new };
            devices::put(c, &device)?;
        }
        c.execute(
            "INSERT INTO relationships (source, id, name, target) VALUES ('gw', 'r', 'r', 'press-1')",
            [],
        )?;
        Ok::<_, StoreError>(())
    });
    registered.await.unwrap();
    (store.clone(), Ingest::new(store))
}

#[tokio::test]
async fn many_at_once_are_stored_in_their_order_each_once_and_a_refused_one_refuses_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path()).await;
    let gateway = via(1);
    let count = BATCH_MAX as u64 * 2 + 7;
    let mut outcome = Vec::new();
    for sequence in 1..=count {
        let from = if sequence == 5 { "stranger" } else { "press-1" };
        outcome.push(ingest.put(message(from, sequence), Some(gateway.clone())));
    }
    // Sent again before the first was acknowledged.
    outcome.push(ingest.put(message("press-1", 3), Some(gateway.clone())));
    for (index, outcome) in outcome.into_iter().enumerate() {
        let result = outcome.await;
        match index {
            4 => assert!(matches!(result, Err(ServiceError::Forbidden(_))), "{result:?}"),
            _ => result.unwrap(),
        }
    }
    let mut stored = Vec::new();
    loop {
        let after = stored.last().map_or(0, |(id, _)| *id);
        let next =
            store.read(move |c| Ok::<_, StoreError>(page(c, &"press-1".parse().unwrap(), after, 1000)?));
        let next = next.await.unwrap();
        if next.is_empty() {
            break;
        }
        stored.extend(next.into_iter().map(|message| (message.id, message.enqueued_ms)));
    }
    let numbers: Vec<u64> = stored.iter().map(|(_, number)| *number).collect();
    let expected: Vec<u64> = (1..=count).filter(|number| *number != 5).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn a_closed_store_notifies_everybody_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path()).await;
    store.close().await;
    for _ in 0..2 {
        let outcome = ingest.put(message("press-1", 1), None).await;
        assert!(matches!(outcome, Err(ServiceError::Store(StoreError::NotCommitted))), "{outcome:?}");
    }
}

/// Makes the next commit fail: a constraint that is checked then does not hold.
async fn fail_a_commit(store: &Store) {
    let failed = store.submit(|c| {
        c.execute_batch(
            "CREATE TABLE IF NOT EXISTS parent (id INTEGER PRIMARY KEY);
                 CREATE TABLE IF NOT EXISTS child (id REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
                 INSERT INTO child VALUES (1);",
        )?;
        Ok::<_, StoreError>(())
    });
    assert!(matches!(failed.await, Err(StoreError::NotCommitted)));
}

/// The faults that storing a batch can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Statement,
    Commit,
    Panic,
    Locked,
}

const FAULTS: [Fault; 4] = [Fault::Statement, Fault::Commit, Fault::Panic, Fault::Locked];

/// Has one fault happen while batches are on their way.
async fn inject(fault: Fault, store: &Store, dir: &std::path::Path) {
    match fault {
        Fault::Statement => {
            let once = store.submit(|c| {
                c.execute_batch(
                    "CREATE TRIGGER IF NOT EXISTS refuses BEFORE INSERT ON telemetry
                         BEGIN SELECT RAISE(ABORT, 'injected'); END;",
                )?;
                Ok::<_, StoreError>(())
            });
            once.await.unwrap();
            tokio::task::yield_now().await;
            let over = store.submit(|c| Ok::<_, StoreError>(c.execute_batch("DROP TRIGGER refuses")?));
            over.await.unwrap();
        }
        Fault::Commit => fail_a_commit(store).await,
        Fault::Panic => {
            let panicked = store.submit(|_| -> Result<(), StoreError> { panic!("injected") }).await;
            assert!(matches!(panicked, Err(StoreError::NotCommitted)));
        }
        Fault::Locked => {
            let other = Connection::open(dir.join("central.db")).unwrap();
            other.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            other.execute_batch("COMMIT").unwrap();
        }
    }
}

/// What a gateway would still have after it was told how far central is.
async fn watermark(store: &Store) -> u64 {
    let far = store.read(|c| Ok::<_, StoreError>(telemetry::stored(c, &"gw".parse().unwrap())?)).await;
    far.unwrap().queues.get("q").copied().unwrap_or(0)
}

async fn stored_sequences(store: &Store) -> Vec<u64> {
    let all = store.read(|c| {
        let mut statement = c.prepare("SELECT enqueued_ms FROM telemetry ORDER BY id")?;
        let rows = statement.query_map([], |row| row.get::<_, i64>(0))?;
        Ok::<_, StoreError>(rows.collect::<Result<Vec<_>, _>>()?)
    });
    all.await.unwrap().into_iter().map(i64::cast_unsigned).collect()
}

/// A gateway that sends everything, over reconnects, while faults are injected at moments drawn from `seed`.
async fn nothing_is_lost_with(seed: u64) {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    const COUNT: u64 = 400;
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path()).await;
    let (mut next, mut connection, mut faults) = (1, 1, 0);
    while next <= COUNT {
        let until = (next + random.random_range(1..60)).min(COUNT + 1);
        let mut sent: Vec<_> =
            (next..until).map(|n| ingest.put(message("press-1", n), Some(via(connection)))).collect();
        if faults < 12 && random.random_bool(0.7) {
            inject(FAULTS[random.random_range(0..FAULTS.len())], &store, dir.path()).await;
            faults += 1;
            // The gateway has sent more before it hears of the fault.
            let more = (until + random.random_range(0..40)).min(COUNT + 1);
            sent.extend((until..more).map(|n| ingest.put(message("press-1", n), Some(via(connection)))));
        }
        let mut is_failed = false;
        for stored in sent {
            match stored.await {
                Ok(()) => assert!(!is_failed, "seed {seed}: stored behind a message that was not"),
                Err(_) => is_failed = true,
            }
        }
        connection += u64::from(is_failed);
        // Everything up to the watermark is deleted at the gateway; it must be here, once, in order.
        let far = watermark(&store).await;
        let stored = stored_sequences(&store).await;
        assert_eq!(stored, (1..=far).collect::<Vec<_>>(), "seed {seed}");
        next = far + 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watermark_has_no_holes_whatever_fails_at_whichever_moment() {
    for seed in 0..25 {
        nothing_is_lost_with(seed).await;
    }
}

#[tokio::test]
async fn after_a_failed_commit_nothing_of_the_connection_is_stored_until_the_gateway_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path()).await;
    ingest.put(message("press-1", 1), Some(via(1))).await.unwrap();
    // In one group with what makes its commit fail.
    let first = ingest.put(message("press-1", 2), Some(via(1)));
    fail_a_commit(&store).await;
    let first = first.await;
    let later = ingest.put(message("press-1", 3), Some(via(1))).await;
    match first {
        Ok(()) => later.unwrap(),
        Err(_) => {
            assert!(matches!(later, Err(ServiceError::Store(StoreError::NotCommitted))), "{later:?}")
        }
    }
    let far = watermark(&store).await;
    assert_eq!(stored_sequences(&store).await, (1..=far).collect::<Vec<_>>());
    for sequence in far + 1..=4 {
        ingest.put(message("press-1", sequence), Some(via(2))).await.unwrap();
    }
    assert_eq!(stored_sequences(&store).await, [1, 2, 3, 4]);
}

/// A device that is connected to central itself sends what failed again on its next connection, and its order stays.
#[tokio::test]
async fn after_a_failed_commit_nothing_of_a_devices_own_connection_is_stored_until_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path()).await;
    let of_device = |n: u64| {
        let body = n.to_string().into_bytes();
        NewMessage { place: None, body, ..message("press-1", 0) }
    };
    let (mut connection, mut other) = (Fence::default(), Fence::default());
    let mut failures = 0;
    for n in 0..40_u64 {
        if n % 4 == 1 {
            // The writer is held, so that what comes meanwhile is in its group, which fails.
            let (release, held) = std::sync::mpsc::channel::<()>();
            let holding = store.submit(move |_| {
                let _released = held.recv();
                Ok::<_, StoreError>(())
            });
            let first = ingest.put_of_device(of_device(n), Some(&connection));
            let beside = ingest.put_of_device(of_device(1000 + n), Some(&other));
            let failing = fail_a_commit(&store);
            let (_, first, beside, _) = tokio::join!(failing, first, beside, async {
                drop(release);
                holding.await
            });
            let later = ingest.put_of_device(of_device(n + 1), Some(&connection)).await;
            assert_eq!(first.is_err(), connection.is_set());
            assert_eq!(beside.is_err(), other.is_set());
            if first.is_err() {
                failures += 1;
                assert!(matches!(later, Err(ServiceError::Store(StoreError::NotCommitted))), "{later:?}");
                connection = Fence::default();
                ingest.put_of_device(of_device(n), Some(&connection)).await.unwrap();
                ingest.put_of_device(of_device(n + 1), Some(&connection)).await.unwrap();
            } else {
                later.unwrap();
            }
            other = Fence::default();
        } else if n % 4 != 2 {
            ingest.put_of_device(of_device(n), Some(&connection)).await.unwrap();
        }
    }
    assert!(failures > 0);
    let bodies: Vec<String> = store
        .read(|c| {
            let mut statement = c.prepare("SELECT body FROM telemetry WHERE length(body) < 4 ORDER BY id")?;
            let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
            rows.map(|body| Ok(String::from_utf8_lossy(&body?).into_owned()))
                .collect::<Result<_, ServiceError>>()
        })
        .await
        .unwrap();
    let expected: Vec<String> = (0..40).map(|n: u64| n.to_string()).collect();
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn another_program_that_holds_the_store_for_seconds_stops_nothing_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ingest) = site(dir.path()).await;
    let other = Connection::open(dir.path().join("central.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stored = ingest.put(message("press-1", 1), Some(via(1)));
    // Longer than SQLite's own wait of 5 s.
    let release = tokio::task::spawn_blocking(move || {
        std::thread::sleep(std::time::Duration::from_secs(8));
        other.execute_batch("COMMIT").unwrap();
    });
    stored.await.unwrap();
    release.await.unwrap();
    ingest.put(message("press-1", 2), Some(via(1))).await.unwrap();
    assert_eq!(watermark(&store).await, 2);
}
