//! The quarantine on a real disk, closed and opened again at each step that a kill can fall into.

use std::sync::Arc;

use edge_buffer::Cause;
use edge_hub::clients::Clients;
use futures_util::FutureExt as _;
use schemas::manifest::PRIORITY_DEFAULT;

use super::*;
use crate::config::BufferSection;
use crate::messages::queues::limits::Limits;

const CLASS: QueueClass = QueueClass { priority: PRIORITY_DEFAULT, full: None };

struct Namespaces {
    queues: Arc<Queues>,
    quarantine: Arc<Quarantine>,
}

fn open(dir: &Path, bytes_max: u64) -> Namespaces {
    let limits = Limits::new(&BufferSection::default());
    let gateway = "gw".parse().unwrap();
    let queues = Queues::open(&dir.join("buffer"), limits, gateway, Clients::new()).unwrap();
    let quarantine = Quarantine::open(&dir.join("quarantine"), 0, bytes_max, None).unwrap();
    Namespaces { queues: Arc::new(queues), quarantine: Arc::new(quarantine) }
}

impl Namespaces {
    async fn message(&self, from: &str, body: &str) -> (Arc<Queue>, u64) {
        let record = record::encode(&format!("devices/{from}/messages/events/"), body.as_bytes()).unwrap();
        let sequence = self.queues.upstream().append(CLASS, record, None, None).unwrap().await.unwrap();
        (self.queues.upstream().queues()[0].clone(), sequence)
    }

    async fn close(self) {
        self.quarantine.close().await;
        self.queues.close().await;
    }

    /// What the quarantine's ledger tells upstream.
    fn lost(&self) -> Vec<(String, Cause, u64, u64, u64)> {
        let loss_records = self.quarantine.log().loss_records().into_iter();
        loss_records.map(|loss| (loss.tag, loss.cause, loss.first, loss.last, loss.count)).collect()
    }

    async fn listed(&self) -> Vec<(u64, String, String)> {
        let entries = self.quarantine.list(0, 100).await.unwrap();
        let text = |entry: &Entry| String::from_utf8(entry.decoded().unwrap().1.to_vec()).unwrap();
        entries.iter().map(|entry| (entry.number, entry.sender().unwrap(), text(entry))).collect()
    }
}

fn why(text: &str) -> Reason {
    Reason { code: Some(0x99), why: text.to_owned() }
}

#[tokio::test]
async fn a_message_that_is_refused_again_after_a_kill_between_the_two_steps_is_not_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 1 << 20);
    let (queue, sequence) = fixture.message("press-1", "bad").await;
    fixture.quarantine.put(&queue, sequence, why("no JSON")).await.unwrap();
    // Killed here: the queue was not advanced.
    drop(queue);
    fixture.close().await;

    let fixture = open(dir.path(), 1 << 20);
    let (_, record) = fixture.queues.upstream().reader().next().await.unwrap();
    assert_eq!(record.sequence, sequence, "it is sent again");
    let queue = fixture.queues.upstream().queues()[0].clone();
    fixture.quarantine.put(&queue, sequence, why("no JSON")).await.unwrap();
    queue.log.advance(sequence);
    assert_eq!(fixture.listed().await, [(1, "press-1".to_owned(), "bad".to_owned())]);
    let entry = fixture.quarantine.show(1).await.unwrap();
    assert_eq!((entry.reason, entry.sequence, entry.priority), (why("no JSON"), sequence, PRIORITY_DEFAULT));
    drop(queue);
    fixture.close().await;
}

#[tokio::test]
async fn what_is_replayed_waits_in_its_queue_again_and_what_is_dropped_is_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 1 << 20);
    for body in ["a", "b", "c", "d"] {
        let (queue, sequence) = fixture.message("press-1", body).await;
        fixture.quarantine.put(&queue, sequence, why("no")).await.unwrap();
        queue.log.advance(sequence);
    }
    fixture.quarantine.drop_one(2, &fixture.queues).await.unwrap();
    fixture.quarantine.replay(3, &fixture.queues).await.unwrap();
    assert!(matches!(fixture.quarantine.show(3).await, Err(QuarantineError::Unknown(3))));
    assert!(matches!(
        fixture.quarantine.drop_one(2, &fixture.queues).await,
        Err(QuarantineError::Unknown(2))
    ));
    assert_eq!(fixture.lost(), [("press-1".to_owned(), Cause::Dropped, 2, 2, 1)]);
    fixture.close().await;

    let fixture = open(dir.path(), 1 << 20);
    assert_eq!(
        fixture.lost(),
        [("press-1".to_owned(), Cause::Dropped, 2, 2, 1)],
        "what is dropped is a loss"
    );
    assert_eq!((fixture.quarantine.stats().lost.dropped, fixture.quarantine.replayed()), (1, 1));
    let bodies: Vec<String> = fixture.listed().await.into_iter().map(|(_, _, body)| body).collect();
    assert_eq!((bodies, fixture.quarantine.stats().records), (vec!["a".to_owned(), "d".to_owned()], 2));
    let (queue, record) = fixture.queues.upstream().reader().next().await.unwrap();
    assert_eq!((record::decode(&record.payload).unwrap().1, record.sequence), (Bytes::from("c"), 5));
    // Refused once more, it is another entry: the operator sees that it did not help.
    fixture.quarantine.put(&queue, 5, why("still no")).await.unwrap();
    assert_eq!(fixture.quarantine.show(5).await.unwrap().reason.why, "still no");
    drop(queue);
    fixture.close().await;
}

#[tokio::test]
async fn beyond_its_limit_the_oldest_are_evicted_and_are_counted_by_sender() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 64 << 10);
    for n in 0..200 {
        let (queue, sequence) = fixture.message(&format!("press-{}", n % 2), &"x".repeat(1000)).await;
        fixture.quarantine.put(&queue, sequence, why("too long")).await.unwrap();
        queue.log.advance(sequence);
    }
    let stats = fixture.quarantine.stats();
    assert!(stats.bytes <= 64 << 10, "{}", stats.bytes);
    assert_eq!(stats.records + stats.lost.evicted, 200);
    let loss_records = fixture.quarantine.log().loss_records();
    let of =
        |tag: &str| loss_records.iter().filter(|loss| loss.tag == tag).map(|loss| loss.count).sum::<u64>();
    assert!(of("press-0") > 0 && of("press-0") + of("press-1") == stats.lost.evicted, "{loss_records:?}");
    fixture.close().await;
}

#[tokio::test]
async fn a_message_that_is_dropped_before_its_queue_has_gone_over_it_is_lost_once_whatever_dies() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 1 << 20);
    fixture.message("press-1", "waits").await;
    let (queue, sequence) = fixture.message("press-1", "bad").await;
    fixture.quarantine.put(&queue, sequence, why("no JSON")).await.unwrap();
    assert!(fixture.quarantine.holds(&queue, sequence), "it is not sent once more");
    fixture.quarantine.drop_one(1, &fixture.queues).await.unwrap();
    // Killed here: the queue was not advanced, for the one before it is still on its way.
    assert_eq!((queue.log.stats().cursor, queue.log.stats().records), (0, 1));
    drop(queue);
    fixture.close().await;

    let fixture = open(dir.path(), 1 << 20);
    let mut reader = fixture.queues.upstream().reader();
    let (queue, record) = reader.next().await.unwrap();
    assert_eq!(record.sequence, sequence - 1);
    assert!(reader.next().now_or_never().is_none(), "what was dropped does not come again");
    assert_eq!(queue.log.stats().records, 1);
    assert_eq!(fixture.lost(), [("press-1".to_owned(), Cause::Dropped, 1, 1, 1)]);
    drop((queue, reader));
    fixture.close().await;
}

#[tokio::test]
async fn a_message_whose_replay_a_kill_interrupted_is_in_its_queue_once_and_is_not_put_back_again() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 1 << 20);
    for body in ["a", "b"] {
        let (queue, sequence) = fixture.message("press-1", body).await;
        fixture.quarantine.put(&queue, sequence, why("no")).await.unwrap();
        queue.log.take_out(sequence).await.unwrap();
        let number = fixture.quarantine.stats().next_sequence - 1;
        let entry = fixture.quarantine.show(number).await.unwrap();
        fixture.quarantine.append_again(&entry, &fixture.queues).await.unwrap();
    }
    // Killed here, twice: the messages wait again, and their entries are listed.
    fixture.close().await;

    let fixture = open(dir.path(), 1 << 20);
    assert_eq!(fixture.listed().await.len(), 2);
    let replayed = fixture.quarantine.replay(1, &fixture.queues).await;
    assert!(matches!(replayed, Err(QuarantineError::Unknown(1))), "{replayed:?}");
    assert!(matches!(
        fixture.quarantine.drop_one(2, &fixture.queues).await,
        Err(QuarantineError::Unknown(2))
    ));
    assert_eq!((fixture.quarantine.replayed(), fixture.lost()), (2, vec![]));
    let queue = fixture.queues.upstream().queues()[0].clone();
    let bodies: Vec<Bytes> = queue
        .log
        .records()
        .filter(|record| queue.log.is_pending(record.as_ref().unwrap().sequence))
        .map(|record| record::decode(&record.unwrap().payload).unwrap().1)
        .collect();
    assert_eq!(bodies, ["a", "b"]);
    drop(queue);
    fixture.close().await;
}

#[tokio::test]
async fn a_message_that_was_put_back_and_sent_before_a_kill_is_not_in_quarantine_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 1 << 20);
    let (queue, sequence) = fixture.message("press-1", "a").await;
    fixture.quarantine.put(&queue, sequence, why("no")).await.unwrap();
    queue.log.advance(sequence);
    let entry = fixture.quarantine.show(1).await.unwrap();
    fixture.quarantine.append_again(&entry, &fixture.queues).await.unwrap();
    let (queue, record) = fixture.queues.upstream().reader().next().await.unwrap();
    fixture.quarantine.before_sending(&record.payload).await.unwrap();
    queue.log.advance(record.sequence);
    // Killed here: upstream has it, and nothing else was done.
    drop(queue);
    fixture.close().await;

    let fixture = open(dir.path(), 1 << 20);
    assert_eq!(fixture.listed().await, []);
    assert_eq!(fixture.quarantine.replayed(), 1);
    fixture.close().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if from.is_dir() {
            copy(&from, &to.join(name))
        } else {
            std::fs::copy(&from, to.join(name)).unwrap();
        }
    }
}

/// Each part of the data directory that can go back, against each moment of a replay at which the backup was taken, and marks with
/// and without epochs.
#[tokio::test]
async fn an_entry_of_a_quarantine_that_went_back_is_never_taken_for_one_that_was_put_back() {
    for parts in [&["quarantine"][..], &["buffer"], &["quarantine", "buffer"], &[]] {
        for has_epoch in [true, false] {
            for set_aside in [0, 1, 3] {
                went_back(parts, has_epoch, set_aside).await;
            }
        }
    }
}

async fn went_back(parts: &[&str], has_epoch: bool, set_aside: usize) {
    let dir = tempfile::tempdir().unwrap();
    let fixture = open(dir.path(), 1 << 20);
    let refuse = async |fixture: &Namespaces, body: &str| {
        let (queue, sequence) = fixture.message("press-1", body).await;
        fixture.quarantine.put(&queue, sequence, why("no")).await.unwrap();
        queue.log.take_out(sequence).await.unwrap();
    };
    for n in 0..set_aside {
        refuse(&fixture, &format!("before {n}")).await;
    }
    fixture.close().await;
    let backup = tempfile::tempdir().unwrap();
    copy(dir.path(), backup.path());

    let fixture = open(dir.path(), 1 << 20);
    for n in 0..2 {
        refuse(&fixture, &format!("after {n}")).await;
        let number = fixture.quarantine.stats().next_sequence - 1;
        let entry = fixture.quarantine.show(number).await.unwrap();
        let origin = Origin {
            quarantine: fixture.quarantine.log.id(),
            epoch: has_epoch.then(|| fixture.quarantine.log.epoch_of(number).unwrap()),
            number,
        };
        let record = record::put_back(&origin, &entry.message);
        fixture.queues.upstream().append(CLASS, record, None, None).unwrap().await.unwrap();
        if n == 0 {
            fixture.quarantine.log.take_out(number).await.unwrap();
        }
    }
    fixture.close().await;
    for part in parts {
        std::fs::remove_dir_all(dir.path().join(part)).unwrap();
        copy(&backup.path().join(part), &dir.path().join(part));
    }

    let fixture = open(dir.path(), 1 << 20);
    let before: Vec<String> = fixture.listed().await.into_iter().map(|(.., body)| body).collect();
    for n in 0..3 {
        refuse(&fixture, &format!("new {n}")).await;
    }
    // All that waits is sent; what is refused again is set aside again.
    let mut reader = fixture.queues.upstream().reader();
    let mut sent = Vec::new();
    while let Some(next) = reader.next().now_or_never() {
        let (queue, record) = next.unwrap();
        if !fixture.quarantine.holds(&queue, record.sequence) {
            fixture.quarantine.before_sending(&record.payload).await.unwrap();
            sent.push(String::from_utf8(record::decode(&record.payload).unwrap().1.to_vec()).unwrap());
        }
    }
    let case = format!("{parts:?}, epochs {has_epoch}, {set_aside} before");
    let left: Vec<String> = fixture.listed().await.into_iter().map(|(.., body)| body).collect();
    for n in 0..3 {
        assert!(left.contains(&format!("new {n}")), "{case}: new {n} was swallowed: {left:?}");
    }
    for body in before {
        assert!(left.contains(&body) || sent.contains(&body), "{case}: {body} was swallowed");
    }
    drop(reader);
    fixture.close().await;
}
