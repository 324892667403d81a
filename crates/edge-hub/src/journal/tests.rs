//! The journal against a model: whatever happens to its file, what is read is the state after some of the events, in
//! order, and never fewer than those that were waited for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use edge_buffer::AppendError;
use proptest::prelude::*;
use tempfile::TempDir;

use super::event::{Event, Kept, Published, Target};
use super::record::{self, Record};
use super::state::State;
use super::{Journal, JournalMax, Recovered};
use crate::message::Message;
use crate::subscription::Options;
use mqtt::codec::packet::PublishProperties;
use mqtt::codec::text::Text;

const MAX: JournalMax = JournalMax { bytes: 64 << 20, keep_free_bytes: 0 };

async fn open(dir: &Path) -> Recovered {
    Journal::open(dir, None, MAX).await.unwrap()
}

fn message() -> impl Strategy<Value = Arc<Message>> {
    let properties =
        (any::<Option<bool>>(), any::<Option<u32>>(), "[a-z]{0,4}").prop_map(|(utf8, expiry, text)| {
            let properties = PublishProperties {
                is_utf8: utf8,
                message_expiry: expiry,
                content_type: (!text.is_empty()).then(|| Text::from(&*text)),
                response_topic: (text.len() > 2).then(|| Text::from("answers")),
                correlation_data: (text.len() > 1).then(|| Bytes::from_static(b"\xff\0")),
                user_properties: (0..text.len()).map(|_| ("name", "value")).collect(),
                ..PublishProperties::default()
            };
            Some(properties).filter(|p| *p != PublishProperties::default()).map(Box::new)
        });
    (
        "[ab]/[ab]",
        proptest::collection::vec(any::<u8>(), 0..20),
        0u8..3,
        any::<bool>(),
        any::<Option<u64>>(),
        properties,
    )
        .prop_map(|(topic, payload, qos, retain, expires_ms, properties)| {
            Arc::new(Message {
                topic: topic.into(),
                payload: payload.into(),
                qos,
                retain,
                publisher: 0,
                expires_ms,
                properties,
            })
        })
}

fn event() -> impl Strategy<Value = Event> {
    let session = 1u64..4;
    let name = prop_oneof![Just("one"), Just("two")].prop_map(Box::<str>::from);
    let filter = prop_oneof![Just("a/#"), Just("$share/g/b")].prop_map(Box::<str>::from);
    let options = (0u8..3, any::<bool>(), any::<bool>(), any::<Option<u32>>()).prop_map(
        |(qos, no_local, retain_as_published, id)| Options { qos, no_local, retain_as_published, id },
    );
    let target = (session.clone(), 1u8..3, any::<bool>(), proptest::collection::vec(1u32.., 0..3)).prop_map(
        |(session, qos, retain, ids)| {
            let ids = if ids.is_empty() { None } else { Some(ids.into()) };
            Target { session, qos, retain, ids }
        },
    );
    let kept = prop_oneof![Just(Kept::Not), Just(Kept::Set), Just(Kept::Cleared)];
    let published = (
        message(),
        kept,
        proptest::option::of((session.clone(), 1u16..4)),
        proptest::collection::vec(target, 0..3),
    )
        .prop_map(|(message, retained, received, targets)| {
            // The key is set by the order, as the broker does.
            Event::Published(Box::new(Published { key: 0, message, retained, received, targets }))
        });
    let id = 1u16..6;
    prop_oneof![
        2 => (session.clone(), name.clone(), any::<u32>()).prop_map(|(session, client_id, expiry_s)| Event::Opened { session, client_id, expiry_s }),
        1 => (session.clone(), any::<u64>(), any::<u32>()).prop_map(|(session, at_ms, expiry_s)| Event::Left { session, at_ms, expiry_s }),
        1 => session.clone().prop_map(|session| Event::Ended { session }),
        1 => (session.clone(), filter.clone(), options).prop_map(|(session, filter, options)| Event::Subscribed { session, filter, options }),
        1 => (session.clone(), filter).prop_map(|(session, filter)| Event::Unsubscribed { session, filter }),
        6 => published,
        1 => (session.clone(), id.clone()).prop_map(|(session, id)| Event::Received { session, id }),
        1 => (session.clone(), id.clone()).prop_map(|(session, id)| Event::Released { session, id }),
        3 => (session.clone(), proptest::collection::vec((1u64..20, id.clone()), 1..3)).prop_map(|(session, keys)| Event::Sent { session, keys }),
        2 => (session.clone(), id.clone()).prop_map(|(session, id)| Event::Taken { session, id }),
        2 => (session.clone(), id.clone()).prop_map(|(session, id)| Event::Settled { session, id }),
        1 => (session.clone(), proptest::collection::vec(1u64..20, 0..3)).prop_map(|(session, keys)| Event::Dropped { session, keys }),
        1 => (session, id).prop_map(|(session, id)| Event::LastId { session, id }),
        1 => (name.clone(), message(), any::<u32>()).prop_map(|(client_id, message, delay_s)| Event::Will { client_id, message, delay_s }),
        1 => (name.clone(), any::<u64>()).prop_map(|(client_id, at_ms)| Event::WillDue { client_id, at_ms }),
        1 => name.prop_map(|client_id| Event::WillGone { client_id }),
    ]
}

/// Events as a server makes them: keys grow, and no packet id is in flight twice.
fn history() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(event(), 1..60).prop_map(|events| {
        let (mut state, mut history) = (State::default(), Vec::new());
        for (key, mut event) in (1..).zip(events) {
            match &mut event {
                Event::Published(published) => published.key = key,
                Event::Sent { session, keys } => {
                    let Some(session) = state.sessions.get(session) else { continue };
                    let mut ids = Vec::new();
                    keys.retain(|(key, id)| {
                        let is_free = session.flight.iter().all(|sent| sent.id != *id) && !ids.contains(id);
                        ids.push(*id);
                        is_free && session.queue.contains_key(key)
                    });
                    keys.dedup_by_key(|(key, _)| *key);
                    if keys.is_empty() {
                        continue;
                    }
                }
                Event::Taken { session, id } => {
                    let sent =
                        state.sessions.get(session).and_then(|s| s.flight.iter().find(|s| s.id == *id));
                    if sent.is_none_or(|sent| sent.is_taken || sent.place.qos != 2) {
                        continue;
                    }
                }
                _ => {}
            }
            state.apply(&event);
            history.push(event);
        }
        history
    })
}

/// What the counters of a state were before is not told by a snapshot of it.
fn shown(state: &State) -> String {
    let mut sessions = state.sessions.clone();
    for session in sessions.values_mut() {
        for sent in session.flight.iter_mut().filter(|sent| sent.is_taken) {
            (sent.place.retain, sent.place.ids) = (false, None);
        }
    }
    let mut retained: Vec<_> = state.retained.values().collect();
    retained.sort_by_key(|message| message.topic.clone());
    let keys = sessions.values().flat_map(|s| s.queue.keys().copied().chain(s.flight.iter().map(|s| s.key)));
    let messages: Vec<_> = keys.map(|key| (key, state.message(key).cloned())).collect();
    format!("{sessions:?} {retained:?} {:?} {messages:?} {}", state.wills, state.bytes())
}

fn after(events: &[Event]) -> State {
    let mut state = State::default();
    events.iter().for_each(|event| state.apply(event));
    state
}

/// The directory as a kill would leave it now: with the last segment cut off somewhere behind `at_least` bytes.
fn killed(dir: &Path, cut: impl Fn(u64) -> u64) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let last = last_segment(copy.path());
    let file = std::fs::File::options().write(true).open(&last).unwrap();
    file.set_len(cut(file.metadata().unwrap().len())).unwrap();
    copy
}

fn last_segment(dir: &Path) -> PathBuf {
    let segments = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    segments.filter(|path| path.extension().is_some_and(|e| e == "segment")).max().unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_event_reads_back_as_it_was_written(event in event()) {
        prop_assert_eq!(record::decode(&record::of_event(&event)), Ok(Record::Event(event.clone())));
        prop_assert_eq!(record::decode(&record::of_part(&event)), Ok(Record::Part(event)));
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 0u8..40) {
        let _ = record::decode(&Bytes::from([&[1, kind][..], &bytes].concat()));
        let _ = record::decode(&Bytes::from(bytes));
    }

    #[test]
    fn the_events_of_a_state_make_the_same_state(events in history()) {
        let state = after(&events);
        let again = after(&state.events().collect::<Vec<_>>());
        prop_assert_eq!(shown(&again), shown(&state));
    }

    #[test]
    fn a_torn_journal_is_the_state_after_some_of_the_events_and_all_that_were_waited_for(
        events in history().prop_filter("an empty one has nothing to wait for", |events| !events.is_empty()),
        waited in any::<prop::sample::Index>(),
        snapshot in proptest::option::of(any::<prop::sample::Index>()),
        cut in 0.0f64..=1.0,
    ) {
        run(async {
            let dir = TempDir::new().unwrap();
            let journal = open(dir.path()).await.journal;
            let waited = waited.index(events.len()) + 1;
            let snapshot = snapshot.map(|at| at.index(waited));
            let mut whole_bytes = 0;
            for (n, event) in events.iter().enumerate() {
                let stored = journal.write(event);
                if snapshot == Some(n) {
                    journal.snapshot().await.unwrap();
                }
                if n + 1 == waited {
                    stored.await.unwrap();
                    // There is one segment: this is its length.
                    whole_bytes = journal.shared.log.stats().bytes;
                } else {
                    stored.unawaited();
                }
            }
            assert_eq!(shown(&journal.state()), shown(&after(&events)));
            journal.close().await;
            let torn = killed(dir.path(), |bytes| whole_bytes + ((bytes.saturating_sub(whole_bytes)) as f64 * cut) as u64);
            let read = open(torn.path()).await;
            assert_eq!(read.skipped, 0);
            let possible: Vec<String> = (waited..=events.len()).map(|n| shown(&after(&events[..n]))).collect();
            assert!(possible.contains(&shown(&read.state)), "{:?}\nis none of\n{possible:#?}", shown(&read.state));
            let whole = open(dir.path()).await;
            assert_eq!(shown(&whole.state), shown(&after(&events)));
        });
    }
}

#[test]
fn a_snapshot_that_did_not_end_is_ignored() {
    run(async {
        let dir = TempDir::new().unwrap();
        let journal = open(dir.path()).await.journal;
        let opened = Event::Opened { session: 1, client_id: "d1".into(), expiry_s: 60 };
        journal.write(&opened).await.unwrap();
        journal.shared.log.append(record::SNAPSHOT_BEGUN, 0).await.unwrap();
        let meanwhile = Event::Subscribed { session: 1, filter: "a".into(), options: Options::default() };
        journal.write(&meanwhile).await.unwrap();
        journal.close().await;
        let read = open(dir.path()).await;
        assert_eq!(shown(&read.state), shown(&after(&[opened, meanwhile])));
        assert_eq!(read.state.next_session(), 2);
    });
}

#[test]
fn a_snapshot_lets_go_of_what_is_before_it_and_events_go_on_meanwhile() {
    run(async {
        let dir = TempDir::new().unwrap();
        let journal = open(dir.path()).await.journal;
        journal.write(&Event::Opened { session: 1, client_id: "d1".into(), expiry_s: 60 }).await.unwrap();
        let payload = Bytes::from(vec![7; 60_000]);
        for key in 1..=200 {
            let message = Message { topic: "a".into(), payload: payload.clone(), qos: 1, ..Message::empty() };
            let targets = vec![Target { session: 1, qos: 1, retain: false, ids: None }];
            let (message, retained) = (Arc::new(message), Kept::Not);
            let published = Published { key, message, retained, received: None, targets };
            journal.write(&Event::Published(Box::new(published))).await.unwrap();
            if key > 5 {
                journal.note(&Event::Dropped { session: 1, keys: vec![key - 5] });
            }
        }
        let before = journal.shared.log.stats().bytes;
        let writing = async {
            for id in 1..=50 {
                journal.write(&Event::Received { session: 1, id }).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(journal.snapshot(), writing);
        written.unwrap();
        let expected = shown(&journal.state());
        journal.close().await;
        let read = open(dir.path()).await;
        assert_eq!(shown(&read.state), expected);
        assert_eq!(read.state.sessions[&1].received.len(), 50);
        assert!(read.journal.shared.log.stats().bytes < before / 2, "the old segments are gone");
    });
}

#[test]
fn a_full_journal_refuses_and_is_whole_again_when_there_is_less_to_keep() {
    run(async {
        let dir = TempDir::new().unwrap();
        let max = JournalMax { bytes: 16 << 20, keep_free_bytes: 0 };
        let journal = Journal::open(dir.path(), None, max).await.unwrap().journal;
        journal.note(&Event::Opened { session: 1, client_id: "d".into(), expiry_s: 60 });
        let message =
            Arc::new(Message { payload: vec![7; 10_000].into(), topic: "t".into(), ..Message::empty() });
        let publish = async |key: u64| {
            let targets = vec![Target { session: 1, qos: 1, retain: false, ids: None }];
            let (message, retained) = (message.clone(), Kept::Not);
            let published = Published { key, message, retained, received: None, targets };
            journal.write(&Event::Published(Box::new(published))).await
        };
        let mut key = 1;
        let why = loop {
            match publish(key).await {
                Ok(()) => key += 1,
                Err(why) => break why,
            }
        };
        assert!(matches!(why, AppendError::Full { .. }) && key > 1_000, "{why} after {key}");
        // All of it is still wanted: a snapshot would not fit either, and does not try.
        let held = journal.shared.log.stats().bytes;
        for _ in 0..100 {
            assert!(matches!(journal.snapshot().await, Err(AppendError::Full { .. })));
        }
        assert_eq!(journal.shared.log.stats().bytes, held);
        // The client takes its messages; that is refused to the disk and true all the same, and makes room.
        journal.note(&Event::Dropped { session: 1, keys: (1..=key - 10).collect() });
        journal.snapshot().await.unwrap();
        // The thread that writes gives the old segments back by itself, and at once.
        while journal.shared.log.stats().bytes > max.bytes {
            tokio::task::yield_now().await;
        }
        publish(key + 1).await.unwrap();
        let expected = shown(&journal.state());
        journal.close().await;
        let read = Journal::open(dir.path(), None, max).await.unwrap();
        assert_eq!((shown(&read.state), read.state.sessions[&1].queue.len()), (expected, 11));
    });
}

#[test]
fn a_record_that_cannot_be_read_is_skipped_and_counted() {
    run(async {
        let dir = TempDir::new().unwrap();
        let journal = open(dir.path()).await.journal;
        for (n, bytes) in [&b"\x02\x01"[..], b"\x01\x63", b"", b"\x01\x01\xff\xff"].iter().enumerate() {
            journal.shared.log.append(Bytes::from_static(bytes), 0).await.unwrap();
            let session = n as u64 + 1;
            journal.write(&Event::Opened { session, client_id: "d".into(), expiry_s: 1 }).await.unwrap();
        }
        journal.close().await;
        let read = open(dir.path()).await;
        assert_eq!((read.skipped, read.state.sessions.len()), (4, 4));
    });
}

#[test]
fn a_newest_segment_that_is_gone_after_a_kill_is_counted_and_not_taken_for_a_new_journal() {
    run(async {
        let dir = TempDir::new().unwrap();
        let journal = open(dir.path()).await.journal;
        for session in 1..=400 {
            journal.write(&Event::Opened { session, client_id: "d".into(), expiry_s: 60 }).await.unwrap();
        }
        // A copy at this moment is what a kill leaves.
        let killed = TempDir::new().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, killed.path().join(path.file_name().unwrap())).unwrap();
        }
        let segments = || {
            let paths = std::fs::read_dir(killed.path()).unwrap().map(|entry| entry.unwrap().path());
            let mut segments: Vec<_> =
                paths.filter(|path| path.extension().is_some_and(|e| e == "segment")).collect();
            segments.sort();
            segments
        };
        std::fs::remove_file(segments().pop().unwrap()).unwrap();
        let read = open(killed.path()).await;
        // The events, and the record that the first open wrote.
        assert_eq!((read.skipped, read.state.sessions.len()), (401, 0));
        assert_eq!(read.journal.stats().damaged, 401);
        read.journal.close().await;
        let again = open(killed.path()).await;
        assert_eq!(
            (again.skipped, again.journal.stats().lost.damaged),
            (0, 401),
            "told once, and remembered"
        );
    });
}
