//! What no client can bring about at will: a session that closes between a choice and its consequence.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use edge_core::dialect::client::Subscribe;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::presence::{Arrival, Entered, Parting};
use super::publish::{Given, copy};
use super::will::Will;
use super::*;
use crate::close_handle::CloseHandle;
use crate::journal::event::Kept;
use crate::journal::{Journal, JournalMax};
use crate::message::Message;
use crate::quota::Resource;
use crate::session_queue::{Budget, Held, Outgoing, SessionQueue};
use crate::subscription::Options;
use crate::table::{Served, split_share};
use mqtt::codec::packet::RetainHandling;

async fn broker(dir: &TempDir) -> (Broker, mpsc::UnboundedReceiver<DueWill>) {
    let max = JournalMax { bytes: 64 << 20, keep_free_bytes: 0 };
    let recovered = Journal::open(dir.path(), None, max).await.unwrap();
    Broker::restore(recovered.journal, &recovered.state, MqttServerSettings::default())
}

fn message(topic: &'static str, payload: &str) -> Message {
    Message {
        topic: Bytes::from_static(topic.as_bytes()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: 1,
        retain: false,
        publisher: 0,
        expires_ms: None,
        properties: None,
    }
}

fn arrival<'a>(
    client_id: &'a str,
    is_clean: bool,
    expiry_s: u32,
    will: Option<&'a Arc<Will>>,
) -> Arrival<'a> {
    let close = Arc::new(CloseHandle::new(&CancellationToken::new()));
    Arrival { client_id, is_clean, expiry_s, will, close }
}

/// A client that is here with this filter; its session outlives it by so many seconds.
fn here(broker: &Broker, client_id: &str, number: u64, expiry_s: u32, filter: &str) -> Entered {
    let entered = broker.enter(|| number, arrival(client_id, false, expiry_s, None));
    let options = Options { qos: 1, ..Options::default() };
    let held = Held { filter: filter.to_owned(), meaning: Subscribe::Free, options };
    if let Some(stored) = broker.subscribe(&entered.session_queue, held, RetainHandling::Send).unwrap().stored
    {
        stored.unawaited();
    }
    entered
}

fn payloads(client: &Entered) -> Vec<String> {
    let budget = Budget { window: 100, bytes: 1 << 20, now_ms: || 0 };
    let taken = client.session_queue.take(client.connection, budget).outgoing;
    let text = |outgoing| match outgoing {
        Outgoing::Publish(copy) => String::from_utf8(copy.message.payload.to_vec()).unwrap(),
        Outgoing::Release(id) => panic!("PUBREL {id}"),
    };
    taken.into_iter().map(text).collect()
}

/// The copy of a shared message, for this member.
fn chosen(
    broker: &Broker,
    filter: &str,
    session_queue: &Arc<SessionQueue>,
    message: &Arc<Message>,
) -> Delivered {
    let (_, plain) = split_share(filter).unwrap();
    let share = broker.table.route(plain).groups[0].share.clone();
    copy(session_queue, &Served { qos: 1, retain_as_published: false, ids: None }, message, Some(share))
}

type Delivered = (Arc<SessionQueue>, crate::message::Delivery);

#[tokio::test]
async fn a_shared_message_goes_to_the_next_member_when_the_chosen_one_closes_before_it_has_it() {
    for expiry_s in [0, 60] {
        let dir = TempDir::new().unwrap();
        let (broker, _wills) = broker(&dir).await;
        let filter = "$share/g/a";
        let one = here(&broker, "one", 1, expiry_s, filter);
        let two = here(&broker, "two", 2, expiry_s, filter);
        let message = Arc::new(message("a", "x"));
        let copy = chosen(&broker, filter, &one.session_queue, &message);
        broker.forget("one").await.unwrap();
        let mut given = Given::default();
        broker.give(message.clone(), vec![copy], Kept::Not, None, &mut given);
        if let Some(stored) = given.stored {
            stored.await.unwrap();
        }
        assert_eq!(payloads(&two), ["x"], "expiry {expiry_s}");
        // Nobody is left: the message is nobody's, and nothing goes round for ever.
        let copy = chosen(&broker, filter, &two.session_queue, &message);
        broker.forget("two").await.unwrap();
        broker.give(message, vec![copy], Kept::Not, None, &mut Given::default());
        let state = broker.journal.state();
        assert_eq!((state.sessions.len(), state.bytes()), (0, 0));
        broker.journal.close().await;
    }
}

#[tokio::test]
async fn what_expires_while_its_client_is_away_is_counted_and_takes_no_space_though_nobody_comes() {
    let dir = TempDir::new().unwrap();
    let (broker, _wills) = broker(&dir).await;
    let away = here(&broker, "away", 1, 60, "a");
    broker.leave(&away.session_queue, 1, 60, Parting::Goodbye);
    let publisher = broker.quotas.of_session("publisher");
    for expires_ms in [Some(1_000), None, Some(2_000), Some(1_000)] {
        let route = broker.table.route("a");
        let given = broker.publish(&route, Message { expires_ms, ..message("a", "x") }, None, &publisher);
        given.stored.unwrap().await.unwrap();
    }
    let bytes = broker.journal.state().bytes();
    for (now_ms, expired, left) in [(999, 0, 4), (1_000, 2, 2), (1_000, 2, 2), (3_000, 3, 1)] {
        broker.drop_expired_queued(now_ms);
        assert_eq!(
            broker.counts.copies_expired.load(std::sync::atomic::Ordering::Relaxed),
            expired,
            "at {now_ms}"
        );
        assert_eq!(broker.journal.state().bytes(), bytes / 4 * left, "at {now_ms}");
    }
    broker.journal.close().await;
}

#[tokio::test]
async fn members_of_a_shared_subscription_that_read_nothing_hold_no_more_than_others() {
    let dir = TempDir::new().unwrap();
    let (broker, _wills) = broker(&dir).await;
    let one = here(&broker, "one", 1, 0, "$share/g/a");
    let two = here(&broker, "two", 2, 0, "$share/g/a");
    for n in 0..20_000 {
        let publisher = broker.quotas.of_session("publisher");
        let _ = broker.publish(&broker.table.route("a"), message("a", "x"), None, &publisher);
        assert!(one.session_queue.queued() < 2 << 20, "after {n} messages");
    }
    // Both are closed, and nobody was refused for them.
    assert!(!one.session_queue.is_connected() && !two.session_queue.is_connected());
    broker.journal.close().await;
}

#[tokio::test]
async fn no_will_of_a_client_that_is_forgotten_is_published_whatever_became_of_it_before() {
    let dir = TempDir::new().unwrap();
    let (broker, mut wills) = broker(&dir).await;
    let will = || broker.accept_will("gone", message("will", "gone"), 0).unwrap();
    // Its client is here.
    let gone = broker.enter(|| 1, arrival("gone", true, 0, Some(&will())));
    assert_eq!(broker.journal.state().wills.len(), 1);
    broker.forget("gone").await.unwrap();
    broker.leave(&gone.session_queue, 1, 0, Parting::Lost(Some(will())));
    wills.try_recv().unwrap_err();
    assert!(broker.journal.state().wills.is_empty());
    // It is due, and not published yet; the next one of the name has a will, too.
    let gone = broker.enter(|| 2, arrival("gone", true, 0, Some(&will())));
    broker.leave(&gone.session_queue, 2, 0, Parting::Lost(Some(will())));
    let due = wills.try_recv().unwrap();
    broker.forget("gone").await.unwrap();
    let next = will();
    let next_here = broker.enter(|| 3, arrival("gone", true, 0, Some(&next)));
    assert!(broker.is_void(&due));
    broker.will_is_published(&due);
    assert_eq!(broker.journal.state().wills.len(), 1, "the will of the next one");
    // It is that of a connection that was taken over, of which the journal has nothing.
    let newest = broker.enter(|| 4, arrival("gone", true, 0, None));
    broker.leave(&next_here.session_queue, 3, 0, Parting::Lost(Some(next)));
    let due = wills.try_recv().unwrap();
    assert!(!broker.is_void(&due));
    broker.forget("gone").await.unwrap();
    assert!(broker.is_void(&due));
    broker.will_is_published(&due);
    broker.leave(&newest.session_queue, 4, 0, Parting::Lost(None));
    // It waits for its delay.
    let late = || broker.accept_will("gone", message("will", "late"), 60).unwrap();
    let gone = broker.enter(|| 5, arrival("gone", false, 60, Some(&late())));
    broker.leave(&gone.session_queue, 5, 60, Parting::Lost(Some(late())));
    broker.forget("gone").await.unwrap();
    broker.tick(u64::MAX);
    wills.try_recv().unwrap_err();
    assert!(broker.journal.state().wills.is_empty());
    assert!(broker.client_ids().is_empty());
    broker.journal.close().await;
}

#[tokio::test]
async fn a_will_is_in_the_journal_until_it_is_published_and_a_newer_one_stays_there() {
    let dir = TempDir::new().unwrap();
    let (broker, mut wills) = broker(&dir).await;
    let will = |text| broker.accept_will("d", message("will", text), 0).unwrap();
    let (first, second) = (will("first"), will("second"));
    let lost = broker.enter(|| 1, arrival("d", true, 0, Some(&first)));
    broker.leave(&lost.session_queue, 1, 0, Parting::Lost(Some(first)));
    let due = wills.try_recv().unwrap();
    assert_eq!(broker.journal.state().wills.len(), 1, "killed now, it is published by the next opening");
    // The client is back with another will before the first one is published.
    broker.enter(|| 2, arrival("d", true, 0, Some(&second)));
    broker.will_is_published(&due);
    let kept = broker.journal.state().wills["d"].message.payload.clone();
    assert_eq!(kept, "second");
    broker.journal.close().await;
}

/// How many wills the journal has, and their bytes.
fn will_sizes(broker: &Broker) -> (u64, u64) {
    let state = broker.journal.state();
    (state.wills.len() as u64, state.wills.values().map(|will| will::size(&will.message)).sum())
}

#[tokio::test]
async fn wills_stay_within_their_bytes_whoever_leaves_them_and_what_was_there_at_a_start_stays() {
    const USER_PROPERTY: usize = 60_000;
    let dir = TempDir::new().unwrap();
    let (broker, wills) = broker(&dir).await;
    let max = MqttServerSettings::default();
    let (mut accepted, mut number) = (0, 0);
    for user in 0..6 {
        for n in 0..200 {
            let client_id = format!("$user:u{user}/c{n}");
            let mut will = message("will", &"x".repeat(60_000));
            let pair = ("k", "v".repeat(USER_PROPERTY));
            let user_properties = [(pair.0, pair.1.as_str())].into_iter().collect();
            will.properties = Some(Box::new(mqtt::codec::packet::PublishProperties {
                user_properties,
                ..Default::default()
            }));
            let Ok(will) = broker.accept_will(&client_id, will, 90_000) else { continue };
            accepted += 1;
            number += 1;
            let here = broker.enter(|| number, arrival(&client_id, false, 100_000, Some(&will)));
            broker.leave(&here.session_queue, number, 100_000, Parting::Lost(Some(will)));
        }
        let own = broker.quotas.of_session(&format!("$user:u{user}/c0")).used(Resource::WillBytes);
        assert!(own <= max.identity.will_bytes_max, "{own} bytes of user {user}");
    }
    let (count, bytes) = will_sizes(&broker);
    assert_eq!(count, accepted);
    assert!(bytes <= max.will_bytes_max && bytes > max.will_bytes_max - 200_000, "{bytes} bytes of all");
    // Each has the bytes that it counts.
    assert!(bytes > accepted * (60_000 + USER_PROPERTY as u64));
    broker.journal.close().await;
    drop((broker, wills));
    // With less space than before, all of them are there, and may come again as they were; nothing new may.
    let recovered =
        Journal::open(dir.path(), None, JournalMax { bytes: 1 << 30, keep_free_bytes: 0 }).await.unwrap();
    let settings = MqttServerSettings { will_bytes_max: 100_000, ..max };
    let (broker, _wills) = Broker::restore(recovered.journal, &recovered.state, settings);
    assert_eq!(will_sizes(&broker), (count, bytes));
    assert_eq!(broker.quotas.all.used(Resource::WillBytes), bytes);
    let again = broker.accept_will("$user:u0/c0", message("will", "again"), 0).unwrap();
    assert_eq!(broker.accept_will("d", message("will", "new"), 0).unwrap_err(), will::WillRefused::Full);
    let here = broker.enter(|| number + 1, arrival("$user:u0/c0", false, 0, Some(&again)));
    drop(again);
    assert!(broker.quotas.all.used(Resource::WillBytes) < bytes - 100_000, "what it replaced is given back");
    broker.leave(&here.session_queue, number + 1, 0, Parting::Goodbye);
    assert_eq!(will_sizes(&broker).0, count - 1);
    assert_eq!(broker.quotas.all.used(Resource::WillBytes), will_sizes(&broker).1);
    broker.journal.close().await;
}

/// What a client does next.
#[derive(Debug, Clone)]
enum Step {
    /// A will of so many bytes, when there is one, and its delay.
    Enter {
        is_clean: bool,
        expiry_s: u32,
        will: Option<(usize, u32)>,
    },
    Leave {
        is_lost: bool,
    },
    /// What is due of wills is published.
    PublishWills,
    Forget,
    Subscribe(&'static str),
    Unsubscribe(&'static str),
    Retain {
        topic: &'static str,
        bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let topic = || prop::sample::select(vec!["a", "b/c", "x/x/x/x/x/x/x/x/x/x/x/x"]);
    prop_oneof![
        (any::<bool>(), 0u32..2, prop::option::of((0usize..50, 0u32..2)))
            .prop_map(|(is_clean, expiry, will)| Step::Enter { is_clean, expiry_s: expiry * 60, will }),
        any::<bool>().prop_map(|is_lost| Step::Leave { is_lost }),
        Just(Step::PublishWills),
        Just(Step::Forget),
        topic().prop_map(Step::Subscribe),
        topic().prop_map(Step::Unsubscribe),
        (topic(), 0usize..50).prop_map(|(topic, bytes)| Step::Retain { topic, bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_identities_use_is_what_their_sessions_wills_and_retained_messages_are_whatever_they_do(
        steps in prop::collection::vec((prop::sample::select(vec!["d", "$user:u/one", "$user:u/two"]), step()), 1..80),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let (broker, mut wills) = broker(&dir).await;
            let mut here: BTreeMap<&str, (Entered, Option<Arc<Will>>)> = BTreeMap::new();
            let mut publish_wills = || while let Ok(due) = wills.try_recv() { broker.will_is_published(&due) };
            let mut owners: BTreeMap<&str, Arc<crate::quota::Usage>> = BTreeMap::new();
            for (number, (client, step)) in steps.into_iter().enumerate() {
                let entered = here.get(client).map(|(entered, _)| entered);
                match step {
                    Step::Enter { is_clean, expiry_s, will } => {
                        let will = will.map(|(bytes, delay_s)| {
                            broker.accept_will(client, message("will", &"x".repeat(bytes)), delay_s).unwrap()
                        });
                        let entered = broker.enter(|| number as u64, arrival(client, is_clean, expiry_s, will.as_ref()));
                        here.insert(client, (entered, will));
                    }
                    Step::Leave { is_lost } => {
                        if let Some((entered, will)) = here.remove(client) {
                            let Entered { session_queue, connection, expiry_s, .. } = &entered;
                            let parting = if is_lost { Parting::Lost(will) } else { Parting::Goodbye };
                            broker.leave(session_queue, *connection, *expiry_s, parting);
                        }
                    }
                    Step::PublishWills => publish_wills(),
                    Step::Forget => {
                        broker.forget(client).unawaited();
                        here.remove(client);
                    }
                    Step::Subscribe(filter) => {
                        let held = Held { filter: filter.into(), meaning: Subscribe::Free, options: Options::default() };
                        if let Some(entered) = entered {
                            broker.subscribe(&entered.session_queue, held, RetainHandling::Send).unwrap();
                        }
                    }
                    Step::Unsubscribe(filter) => {
                        entered.and_then(|entered| broker.unsubscribe(&entered.session_queue, filter));
                    }
                    Step::Retain { topic, bytes } => {
                        let payload = Bytes::from(vec![b'x'; bytes]);
                        let message = Message { payload, retain: true, ..message(topic, "") };
                        let owner = broker.quotas.of_session(client);
                        broker.publish(&broker.table.route(topic), message, None, &owner);
                        if bytes == 0 { owners.remove(topic) } else { owners.insert(topic, owner) };
                    }
                }
            }
            publish_wills();
            let sessions = broker.journal.state().sessions.len() as u64;
            let (device, user) = (broker.quotas.of_session("d"), broker.quotas.of_session("$user:u/one"));
            let used = |resource| device.used(resource) + user.used(resource);
            let all = &broker.quotas.all;
            assert_eq!(used(Resource::Sessions), sessions);
            let wills = will_sizes(&broker);
            assert_eq!((used(Resource::Wills), used(Resource::WillBytes)), wills);
            assert_eq!((all.used(Resource::Wills), all.used(Resource::WillBytes)), wills);
            let filters: u64 = broker.sessions().all().iter().flat_map(|session_queue| session_queue.held().clone())
                .map(|held| crate::quota::subscription_bytes(&held.filter)).sum();
            assert_eq!(used(Resource::SubscriptionBytes), filters);
            for owner in [&device, &user] {
                let retained = owners.values().filter(|usage| Arc::ptr_eq(usage, owner)).count() as u64;
                assert_eq!(owner.used(Resource::RetainedMessages), retained);
                assert_eq!(owner.used(Resource::RetainedBytes) == 0, retained == 0);
            }
            broker.journal.close().await;
        });
    }
}
