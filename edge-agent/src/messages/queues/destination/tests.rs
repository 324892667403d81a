use super::*;
use bytes::Bytes;
use schemas::manifest::{PRIORITY_DEFAULT, WhenFull};

use crate::config::BufferSection;

/// The store of the central that confirms.
const ORIGIN: &str = "00000000000000000000000000000001";

fn of(priority: u32) -> QueueClass {
    QueueClass { priority, full: None }
}

async fn put(place: &Destination, priority: u32, text: &'static str) {
    place.append(of(priority), Bytes::from_static(text.as_bytes()), None, None).unwrap().await.unwrap();
}

async fn take(reader: &mut DestinationReader, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        let (queue, record) = reader.next().await.unwrap();
        queue.log.advance(record.sequence);
        all.push(String::from_utf8(record.payload.to_vec()).unwrap());
    }
    all
}

fn place(dir: &Path) -> Destination {
    Destination::open("upstream".into(), dir.join("upstream"), Limits::default()).unwrap()
}

fn lost(place: &Destination, stored: &Stored) -> u64 {
    place.is_stored(stored).iter().map(|lost| lost.last - lost.first + 1).sum()
}

/// central's word on the epochs of the default queue.
fn stored(place: &Destination, origin: &str, up_to: &[(edge_buffer::Epoch, u64)]) -> Stored {
    let id = place.queues()[0].log.id();
    let name = |epoch| QueueName { id, epoch }.to_string();
    let queues = up_to.iter().map(|(epoch, up_to)| (name(*epoch), *up_to)).collect();
    Stored { queues, origin: Some(origin.into()), is_complete: true, ..Stored::default() }
}

#[tokio::test]
async fn what_central_confirmed_and_lost_is_a_loss_and_another_central_or_a_refusal_is_none() {
    let (one, other) = ("00000000000000000000000000000001", "00000000000000000000000000000002");
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.need([QueueClass::DEFAULT]).unwrap();
    assert_eq!(lost(&place, &stored(&place, one, &[])), 0);
    for text in ["1", "2", "3", "4"] {
        put(&place, PRIORITY_DEFAULT, text).await;
    }
    let log = place.queues()[0].log.clone();
    let epoch = log.epoch_of(1).unwrap();
    assert_eq!(lost(&place, &stored(&place, one, &[(epoch, 1)])), 0);
    assert_eq!(log.stats().cursor, 1);
    log.confirm(2, Some(2));
    log.confirm(4, None);
    // It refused the third, so its word ends before that, and it has the fourth.
    let mut refused = stored(&place, one, &[(epoch, 2)]);
    refused.highest = refused.queues.keys().map(|name| (name.clone(), 4)).collect();
    assert_eq!(lost(&place, &refused), 0);
    assert_eq!(lost(&place, &stored(&place, one, &[(epoch, 1)])), 3, "it was restored");
    assert_eq!(lost(&place, &stored(&place, one, &[(epoch, 1)])), 0, "counted once");
    log.confirm(4, Some(4));
    assert_eq!(lost(&place, &stored(&place, other, &[(epoch, 1)])), 0, "another one owes nothing");
    log.confirm(4, None);
    assert_eq!(lost(&place, &stored(&place, other, &[])), 0, "the gateway was registered anew");
    let loss_records = log.loss_records();
    assert_eq!(
        (loss_records.len(), loss_records[0].cause.name(), loss_records[0].count),
        (1, "central-restored", 3)
    );
    place.close().await;
}

/// How central is when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    /// It has all.
    Same,
    /// Restored from a backup of before the queue.
    Without,
    /// Restored from one that has four messages of it.
    Part,
    /// As `Without`, and it has forgotten old epochs of another queue.
    WithoutAndForgetful,
    /// As that, and of a version that cannot say which logs it knows.
    WithoutAndOlder,
    /// Restored twice, each time to less.
    Twice,
    /// Another central.
    Another,
    /// The gateway was registered anew.
    Anew,
}

impl Back {
    const ALL: [Self; 8] = [
        Self::Same,
        Self::Without,
        Self::Part,
        Self::WithoutAndForgetful,
        Self::WithoutAndOlder,
        Self::Twice,
        Self::Another,
        Self::Anew,
    ];

    /// What it says on each new connection; of the other queue it has all.
    fn says(self, queue: &QueueName, other: &QueueName) -> Vec<Stored> {
        let says = |up_to: u64| {
            let of_queue = (up_to > 0).then(|| (queue.to_string(), up_to));
            Stored {
                queues: of_queue.into_iter().chain([(other.to_string(), 1)]).collect(),
                origin: Some(ORIGIN.to_owned()),
                is_complete: true,
                names_all_logs: true,
                ..Stored::default()
            }
        };
        let forgetful = Stored { is_complete: false, ..says(0) };
        match self {
            Self::Same => vec![says(10)],
            Self::Without => vec![says(0)],
            Self::Part => vec![says(4)],
            Self::WithoutAndForgetful => vec![forgetful],
            Self::WithoutAndOlder => vec![Stored { names_all_logs: false, ..forgetful }],
            Self::Twice => vec![says(7), says(2)],
            Self::Another => vec![Stored { origin: Some(format!("{:032x}", 2)), ..says(0) }],
            Self::Anew => vec![Stored { queues: [].into(), ..says(0) }],
        }
    }

    fn lost(self) -> u64 {
        match self {
            Self::Same | Self::WithoutAndOlder | Self::Another | Self::Anew => 0,
            Self::Without | Self::WithoutAndForgetful => 10,
            Self::Part => 6,
            Self::Twice => 8,
        }
    }
}

/// How the daemon runs between the moment when the queue leaves and the one when central is back.
#[derive(Clone, Copy, Debug)]
enum Since {
    Running,
    Restarted,
    RestartedTwice,
    /// It now does otherwise when a queue is full, so the queues of a class are called otherwise.
    Refusing,
}

impl Since {
    const ALL: [Self; 4] = [Self::Running, Self::Restarted, Self::RestartedTwice, Self::Refusing];

    async fn pass(self, opened: Destination, dir: &Path) -> Destination {
        let limits = match self {
            Self::Running => return opened,
            Self::Restarted | Self::RestartedTwice => Limits::default(),
            Self::Refusing => {
                Limits::new(&BufferSection { full: WhenFull::Refuse, ..BufferSection::default() })
            }
        };
        let mut opened = opened;
        for _ in 0..if matches!(self, Self::RestartedTwice) { 2 } else { 1 } {
            opened.close().await;
            opened = Destination::open("upstream".into(), dir.join("upstream"), limits.clone()).unwrap();
            opened.need([QueueClass::DEFAULT]).unwrap();
        }
        opened
    }
}

fn name_of(log: &Log) -> QueueName {
    QueueName { id: log.id(), epoch: log.epoch_of(1).unwrap() }
}

#[tokio::test]
async fn what_central_confirmed_of_a_queue_outlives_its_route_however_central_comes_back() {
    for class in [of(3), QueueClass { priority: PRIORITY_DEFAULT, full: Some(WhenFull::Refuse) }] {
        for (since, back) in Since::ALL.into_iter().flat_map(|since| Back::ALL.map(|back| (since, back))) {
            let case = format!("{class:?} {since:?} {back:?}");
            let dir = tempfile::tempdir().unwrap();
            let opened = place(dir.path());
            opened.need([QueueClass::DEFAULT]).unwrap();
            assert_eq!(lost(&opened, &stored(&opened, ORIGIN, &[])), 0);
            put(&opened, PRIORITY_DEFAULT, "other").await;
            let other = opened.queues()[0].log.clone();
            other.confirm(1, Some(1));
            // The route comes while central is connected.
            opened.need([QueueClass::DEFAULT, class]).unwrap();
            let log = opened.queues().iter().find(|queue| queue.class == class).unwrap().log.clone();
            for n in 1..=10 {
                opened.append(class, Bytes::from_static(b"x"), None, None).unwrap().await.unwrap();
                log.confirm(n, Some(n));
            }
            let says = back.says(&name_of(&log), &name_of(&other));
            drop((log, other));
            opened.need([QueueClass::DEFAULT]).unwrap();

            let opened = since.pass(opened, dir.path()).await;
            let counted: u64 = says.iter().map(|stored| lost(&opened, stored)).sum();
            assert_eq!(counted, back.lost(), "{case}");
            let opened = Since::Restarted.pass(opened, dir.path()).await;
            assert_eq!(lost(&opened, says.last().unwrap()), 0, "{case}: counted once");
            let recorded: u64 = opened.queues().iter().map(|queue| queue.log.stats().lost.restored).sum();
            assert_eq!(recorded, back.lost(), "{case}: on record for good");
            opened.close().await;
        }
    }
}

#[tokio::test]
async fn messages_in_a_queue_of_the_policy_that_the_gateway_has_now_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let refusing = QueueClass { priority: 3, full: Some(WhenFull::Refuse) };
    let opened = place(dir.path());
    opened.need([QueueClass::DEFAULT, refusing]).unwrap();
    opened.append(refusing, Bytes::from_static(b"waits"), None, None).unwrap().await.unwrap();
    let opened = Since::Refusing.pass(opened, dir.path()).await;
    assert_eq!(take(&mut opened.reader(), 1).await, ["waits"]);
    opened.close().await;
}

#[tokio::test]
async fn the_highest_priority_leaves_first_and_each_in_its_own_order() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.need([PRIORITY_DEFAULT, 3, 0].map(of)).unwrap();
    for (priority, text) in
        [(PRIORITY_DEFAULT, "c1"), (3, "b1"), (PRIORITY_DEFAULT, "c2"), (0, "a1"), (3, "b2"), (0, "a2")]
    {
        put(&place, priority, text).await;
    }
    let mut reader = place.reader();
    assert_eq!(take(&mut reader, 4).await, ["a1", "a2", "b1", "b2"]);
    // A head of the default queue was read already: an alarm still overtakes it.
    put(&place, 0, "a3").await;
    assert_eq!(take(&mut reader, 2).await, ["a3", "c1"]);
    let (queue, unsent) = reader.next().await.unwrap();
    assert_eq!((&unsent.payload[..], queue.class), (&b"c2"[..], QueueClass::DEFAULT));
    reader.rewind();
    assert_eq!(take(&mut reader, 1).await, ["c2"], "what was not done with is read again");
    assert!(reader.next().now_or_never().is_none());
    place.close().await;
}

#[tokio::test]
async fn a_queue_that_no_route_leads_to_drains_and_its_files_go_when_the_daemon_stops() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("upstream@3");
    let opened = place(dir.path());
    opened.need([PRIORITY_DEFAULT, 3].map(of)).unwrap();
    put(&opened, 3, "old").await;
    opened.need([QueueClass::DEFAULT]).unwrap();
    opened.close().await;
    assert!(old.is_dir(), "something still waits there");

    let opened = place(dir.path());
    opened.need([QueueClass::DEFAULT]).unwrap();
    let mut reader = opened.reader();
    put(&opened, PRIORITY_DEFAULT, "new").await;
    assert_eq!(take(&mut reader, 2).await, ["old", "new"]);
    // A message that was routed a moment before the routes changed is not lost either.
    put(&opened, 7, "late").await;
    assert_eq!(take(&mut reader, 1).await, ["late"]);
    drop(reader);
    opened.close().await;
    assert!(!old.is_dir() && dir.path().join("upstream").is_dir());
}

#[tokio::test]
async fn a_reader_follows_when_routes_bring_a_new_priority() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.need([QueueClass::DEFAULT]).unwrap();
    let mut reader = place.reader();
    let (next, ()) = tokio::join!(reader.next(), async {
        place.need([PRIORITY_DEFAULT, 1].map(of)).unwrap();
        put(&place, 1, "first").await;
    });
    assert_eq!(next.unwrap().0.class.priority, 1);
    place.close().await;
}

#[tokio::test]
async fn a_route_that_refuses_has_a_queue_of_its_own_which_has_equal_turns_with_the_other_of_its_priority() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let refusing = QueueClass { priority: 3, full: Some(WhenFull::Refuse) };
    // What the gateway does anyway is no class of its own.
    let dropping = QueueClass { priority: 3, full: Some(WhenFull::DropOldest) };
    place.need([of(3), refusing, dropping]).unwrap();
    let names: Vec<String> = place.queues().iter().map(|queue| place.name_of(queue.class)).collect();
    assert_eq!(names, ["upstream@3", "upstream@3.refuse"]);
    for n in 0..6 {
        let class = if n % 2 == 0 { refusing } else { dropping };
        place.append(class, Bytes::from(n.to_string()), None, None).unwrap().await.unwrap();
        let now = stamp_ms();
        while stamp_ms() == now {
            tokio::task::yield_now().await;
        }
    }
    let mut reader = place.reader();
    assert_eq!(take(&mut reader, 6).await, ["0", "1", "2", "3", "4", "5"]);
    place.close().await;
}

#[tokio::test]
async fn a_message_that_expires_while_it_waits_for_its_turn_is_counted_and_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    place.need([PRIORITY_DEFAULT, 0].map(of)).unwrap();
    let soon = steady_ms() + 300;
    let short = Bytes::from_static(b"short");
    place.append(QueueClass::DEFAULT, short, Some(soon), None).unwrap().await.unwrap();
    put(&place, 0, "alarm").await;
    put(&place, 0, "alarm 2").await;
    let mut reader = place.reader();
    assert_eq!(take(&mut reader, 1).await, ["alarm"]);
    while steady_ms() <= soon {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(take(&mut reader, 1).await, ["alarm 2"]);
    assert!(reader.next().now_or_never().is_none());
    let expired: u64 = place.queues().iter().map(|queue| queue.log.stats().expired).sum();
    assert_eq!(expired, 1);
    place.close().await;
}
