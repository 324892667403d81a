use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ORIGIN: &str = "00000000000000000000000000000001";

fn stored(opened: Option<&str>) -> Stored {
    let queues = BTreeMap::from([("q.1".to_owned(), 1)]);
    Stored { queues, origin: Some(ORIGIN.into()), opened: opened.map(str::to_owned), ..Stored::default() }
}

fn loss(number: u64, sender: &str, first: u64, last: u64, count: u64) -> Loss {
    Loss {
        number,
        cause: "expired".into(),
        sender: sender.into(),
        first,
        last,
        count,
        from_ms: number,
        until_ms: number,
        generation: None,
    }
}

fn losses(queue: &str, losses: Vec<Loss>) -> SentUpdate {
    SentUpdate::of(&Losses { queue: queue.into(), name: "upstream".into(), losses })
}

fn removed(device: &str) -> SentUpdate {
    SentUpdate { topic: "$ls/removed".into(), payload: format!(r#"{{"deviceId":"{device}"}}"#) }
}

/// What an opening of central's store is told again, acknowledged.
fn sent_again(updates: &SentUpdates, opened: &str) -> Vec<SentUpdate> {
    updates.compare(&stored(Some(opened)));
    let sent: Vec<_> = std::iter::from_fn(|| updates.next_unsent()).collect();
    for _ in &sent {
        updates.acknowledged();
    }
    sent
}

async fn restarted(updates: SentUpdates, dir: &std::path::Path) -> SentUpdates {
    let state = updates.state.clone();
    drop(updates);
    state.close().await;
    SentUpdates::load(State::open(dir).unwrap())
}

#[tokio::test]
async fn what_was_reported_is_reported_again_to_each_opening_of_centrals_store_once() {
    let dir = tempfile::tempdir().unwrap();
    let updates = SentUpdates::load(State::open(dir.path()).unwrap());
    assert!(sent_again(&updates, "a").is_empty());
    let all = [removed("press-1"), losses("q.1", vec![loss(1, "press-1", 1, 4, 4)]), removed("press-2")];
    for update in &all {
        updates.keep(update.clone());
    }
    assert!(sent_again(&updates, "a").is_empty(), "the opening that acknowledged them");
    let updates = restarted(updates, dir.path()).await;
    assert!(sent_again(&updates, "a").is_empty(), "after a restart of the gateway too");
    assert_eq!(sent_again(&updates, "b"), all);
    assert!(sent_again(&updates, "b").is_empty());
    let updates = restarted(updates, dir.path()).await;
    assert_eq!(sent_again(&updates, "c"), all);

    // The connection ends before central has acknowledged all.
    updates.compare(&stored(Some("d")));
    assert!(updates.is_resending());
    updates.next_unsent().unwrap();
    updates.acknowledged();
    assert_eq!(sent_again(&updates, "d"), all);
    updates.compare(&stored(None));
    assert!(updates.next_unsent().is_none(), "an older central names no opening");
}

#[tokio::test]
async fn another_central_and_one_that_registered_the_gateway_anew_are_sent_nothing_of_before() {
    let other = Stored { origin: Some("2".into()), ..stored(Some("b")) };
    let anew = Stored { queues: BTreeMap::new(), ..stored(Some("a")) };
    for central in [other, anew] {
        let dir = tempfile::tempdir().unwrap();
        let updates = SentUpdates::load(State::open(dir.path()).unwrap());
        updates.compare(&stored(Some("a")));
        updates.keep(removed("press-1"));
        updates.compare(&central);
        assert!(updates.next_unsent().is_none(), "{central:?}");
        let updates = restarted(updates, dir.path()).await;
        updates.compare(&stored(Some("c")));
        assert!(updates.next_unsent().is_none(), "{central:?}");
    }
}

/// What a central counts that takes a loss of a queue by its number once, as central does.
fn counted(before: &BTreeMap<String, u64>, sent: &[SentUpdate]) -> u64 {
    let mut watermarks = before.clone();
    let mut sum = 0;
    for losses in sent.iter().filter_map(SentUpdate::losses) {
        let watermark = watermarks.entry(losses.queue).or_default();
        for loss in losses.losses {
            if loss.number > *watermark {
                *watermark = loss.number;
                sum += loss.count;
            }
        }
    }
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However many losses were told: a central that went back to before all of them has the sum, one that went back to any other
    /// moment no less than it has lost, and one that did not go back counts nothing twice.
    #[test]
    fn no_loss_that_was_reported_goes_uncounted_after_central_went_back(
        sent in proptest::collection::vec((0..3_u8, 0..4_u8, 1..50_u64), 1..3000),
        back_to in 0.0..1.0_f64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let updates = SentUpdates::load(State::open(dir.path()).unwrap());
        updates.compare(&stored(Some("a")));
        let back_to = (sent.len() as f64 * back_to) as usize;
        let (mut numbers, mut at_back) = (BTreeMap::<String, u64>::new(), BTreeMap::new());
        let (mut all, mut since) = (0, 0);
        for (at, (queue, sender, count)) in sent.into_iter().enumerate() {
            if at == back_to {
                at_back = numbers.clone();
            }
            let queue = format!("queue-{queue}.1");
            let number = numbers.entry(queue.clone()).or_default();
            *number += 1;
            let first = *number * 100;
            updates.keep(losses(&queue, vec![loss(*number, &format!("press-{sender}"), first, first + 60, count)]));
            all += count;
            since += if at >= back_to { count } else { 0 };
        }
        prop_assert!(updates.kept().updates.len() <= KEPT_MAX && updates.kept().bytes <= BYTES_MAX);
        let again = sent_again(&updates, "b");
        prop_assert_eq!(counted(&BTreeMap::new(), &again), all);
        prop_assert_eq!(counted(&numbers, &again), 0);
        let counted = counted(&at_back, &again);
        prop_assert!((since..=all).contains(&counted), "{} of {} to {}", counted, since, all);
        if all == since {
            prop_assert_eq!(counted, all);
        }
    }
}

#[tokio::test]
async fn losses_within_a_range_that_central_lost_are_not_counted_besides_it() {
    let dir = tempfile::tempdir().unwrap();
    let updates = SentUpdates::load(State::open(dir.path()).unwrap());
    updates.compare(&stored(Some("a")));
    let refused = Loss { cause: "refused".into(), ..loss(4, "press-1", 120, 120, 3) };
    updates.keep(losses("q.1", vec![loss(1, "press-1", 50, 60, 11), loss(2, "press-1", 95, 104, 10)]));
    updates.keep(losses("q.2", vec![loss(3, "press-2", 101, 110, 10), refused]));
    updates.keep(losses("other.1", vec![loss(1, "press-1", 101, 110, 10)]));
    // Sequences 101 to 130.
    updates.lost_by_central("q", 101, 130);
    let again = sent_again(&updates, "b");
    let counts: Vec<(u64, u64)> = again
        .iter()
        .filter_map(SentUpdate::losses)
        .flat_map(|losses| losses.losses)
        .map(|loss| (loss.number, loss.count))
        .collect();
    assert_eq!(counts, [(1, 11), (2, 6), (4, 3), (1, 10)]);
}
