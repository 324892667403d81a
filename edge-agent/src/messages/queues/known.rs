//! Which queues are on disk, as the state knows it: by that a start notices a queue that is gone with the copy of its ledger.
//!
//! A queue whose directory is gone is counted by the copy of its ledger, and the other way round. When both are gone, nobody can
//! say how many messages waited in it; that there was a queue is still known here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use edge_buffer::Lost;
use schemas::gateway_status::LossCounts;

use crate::data_parts::is_gone;
use crate::state::{Namespace, Saved, State, StateError, shaped};

/// The key of what removed queues had lost; a queue's is a path.
const LOST: &str = "lost-of-removed";
/// Missing queues that are named; of the others there is a count.
const NAMED_MAX: usize = 5;

/// The queues that this gateway has had open and not removed.
pub struct KnownQueues {
    data_dir: PathBuf,
    ledgers: PathBuf,
    /// Each by its directory below the data directory.
    missing: Vec<String>,
    known: Mutex<Known>,
    /// One removal at a time: each writes the whole sum.
    removing: tokio::sync::Mutex<()>,
}

struct Known {
    /// `None` once the queues are closed: the state ends after them.
    state: Option<State>,
    /// Each with its write, until that is on disk.
    names: BTreeMap<String, Option<Saved>>,
    /// Lost of queues whose files are gone.
    lost: LossCounts,
}

impl KnownQueues {
    /// What the state knows, compared with what is on disk before a queue is opened. Each queue that is missing is an ERROR in
    /// the log. Blocking.
    pub fn load(state: State, data_dir: &Path, ledgers: &Path) -> Self {
        let (mut names, mut lost) = (BTreeMap::new(), LossCounts::default());
        for (key, value) in state.load::<serde_json::Value>(Namespace::Queues) {
            if key == LOST {
                lost = shaped(Namespace::Queues, &key, value).unwrap_or_default();
            } else {
                names.insert(key, None);
            }
        }
        let missing: Vec<String> = names
            .keys()
            .filter(|name| is_gone(&data_dir.join(name), &copy_of(ledgers, name)))
            .cloned()
            .collect();
        for name in &missing {
            tracing::error!(
                dir = %data_dir.join(name).display(),
                "a queue and the copy of its ledger are missing: what waited in it is lost and cannot be counted"
            );
            // It is known again when it is opened again; one that is not would be reported at each start.
            names.remove(name);
            state.remove(Namespace::Queues, name).later();
        }
        let known = Mutex::new(Known { state: Some(state), names, lost });
        let removing = tokio::sync::Mutex::new(());
        Self { data_dir: data_dir.to_owned(), ledgers: ledgers.to_owned(), missing, known, removing }
    }

    /// Adds the sessions to what was missing; an ERROR in the log. `dir` is theirs.
    #[must_use]
    pub fn without_sessions(mut self, dir: &Path) -> Self {
        tracing::error!(
            dir = %dir.display(),
            "the sessions and the copy of their ledger are missing: what waited in them, and retained messages, are lost and cannot be counted"
        );
        self.missing.extend(self.name_of(dir).map(str::to_owned));
        self
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the known queues")
    }

    /// The queue in this directory is open. Does not wait until that is on disk; see [`KnownQueues::save_again`].
    pub fn opened(&self, dir: &Path) {
        let Some(name) = self.name_of(dir) else { return };
        let mut known = self.known();
        let Known { state: Some(state), names, .. } = &mut *known else { return };
        if !names.contains_key(name) {
            names.insert(name.to_owned(), Some(state.put(Namespace::Queues, name, &true)));
        }
    }

    /// Writes the names again that did not get to the disk because too many writes waited for it or it was full.
    pub fn save_again(&self) {
        let mut known = self.known();
        let Known { state: Some(state), names, .. } = &mut *known else { return };
        for (name, write) in names {
            let Some(is_saved) = write.as_mut().and_then(Saved::is_saved) else { continue };
            *write = (!is_saved).then(|| state.put(Namespace::Queues, name, &true));
        }
    }

    /// The queue in this directory is about to be removed, with its record of what it lost. Ends when that is on disk: the
    /// next start would report the queue as missing.
    ///
    /// # Errors
    /// [`StateError`] when it did not get there: the queue is known and its record is its own as before.
    pub async fn removed(&self, dir: &Path, lost: Lost) -> Result<(), StateError> {
        let Some(name) = self.name_of(dir) else { return Ok(()) };
        let _turn = self.removing.lock().await;
        let (state, before, write) = {
            let mut known = self.known();
            let Some(state) = known.state.clone() else { return Ok(()) };
            (state, known.lost, known.names.remove(name))
        };
        let sum = with(before, &lost);
        let saved = match state.put(Namespace::Queues, LOST, &sum).durable().await {
            Ok(()) => {
                let removed = state.remove(Namespace::Queues, name).durable().await;
                removed.inspect_err(|_| state.put(Namespace::Queues, LOST, &before).later())
            }
            Err(error) => Err(error),
        };
        let mut known = self.known();
        match &saved {
            Ok(()) => known.lost = sum,
            Err(_) => known.names.extend(write.map(|write| (name.to_owned(), write))),
        }
        saved
    }

    /// What queues had lost whose files were removed since, before the daemon started.
    pub fn lost_of_removed(&self) -> LossCounts {
        self.known().lost
    }

    fn name_of<'a>(&self, dir: &'a Path) -> Option<&'a str> {
        dir.strip_prefix(&self.data_dir).ok().and_then(Path::to_str)
    }

    /// Gives the state back: nothing is opened or removed any more.
    pub fn close(&self) {
        self.save_again();
        self.known().state = None;
    }

    /// What was missing at the start, as `check` and `status` report it.
    pub fn consequence(&self) -> Option<String> {
        let named = self.missing.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match self.missing.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} others"),
        };
        let ledgers = self.ledgers.file_name().unwrap_or_default().display();
        (!self.missing.is_empty()).then(|| {
            format!(
                "{named}{more} and the copies in {ledgers}/ were missing at the start: what waited there is lost, and cannot be counted"
            )
        })
    }
}

impl fmt::Debug for KnownQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownQueues").field("missing", &self.missing).finish_non_exhaustive()
    }
}

/// A sum with the losses of one more queue.
pub fn with(sum: LossCounts, lost: &Lost) -> LossCounts {
    LossCounts {
        expired: sum.expired + lost.expired,
        evicted: sum.evicted + lost.evicted,
        refused: sum.refused + lost.refused,
        damaged: sum.damaged + lost.damaged,
        dropped: sum.dropped + lost.dropped,
        central_restored: sum.central_restored + lost.restored,
    }
}

fn copy_of(ledgers: &Path, name: &str) -> PathBuf {
    ledgers.join(format!("{name}.ledger"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use bytes::Bytes;
    use edge_core::route::{QueueClass, RouteTable, Sink};
    use edge_hub::clients::Clients;

    use super::super::Queues;
    use super::super::limits::Limits;
    use super::*;

    /// A gateway's queues, opened as the daemon opens them.
    async fn start(dir: &Path, routes: &[(&str, &str)]) -> (State, Queues) {
        let (buffer, ledgers) = (dir.join("buffer"), dir.join("ledgers"));
        let state = State::open(&dir.join("state")).unwrap();
        let known = Arc::new(KnownQueues::load(state.clone(), dir, &ledgers));
        let limits = Limits::default().with_ledgers(buffer.clone(), ledgers.join("buffer")).with_known(known);
        let queues = Queues::open(&buffer, limits, "gw".parse().unwrap(), Clients::new()).unwrap();
        let (table, refused) = RouteTable::parse(routes.iter().copied());
        assert!(refused.is_empty());
        queues.route_to(&table.queues()).unwrap();
        (state, queues)
    }

    async fn stop((state, queues): (State, Queues)) {
        queues.close().await;
        drop(queues);
        state.close().await;
    }

    const INPUT: (&str, &str) = ("in", "FROM /* INTO BrokeredEndpoint(\"/modules/m/inputs/i\")");
    const UP: (&str, &str) = ("up", "FROM /* INTO $upstream");

    async fn fill(queues: &Queues, count: usize) {
        let input = Sink::Input { module: "m".parse().unwrap(), input: "i".to_owned() };
        for sink in [Sink::Upstream, input] {
            for _ in 0..count {
                let record = crate::messages::record::encode("topic", b"body").unwrap();
                queues.append(&sink, QueueClass::DEFAULT, record, None, None).unwrap().await.unwrap();
            }
        }
    }

    fn remove(path: &Path) {
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_start_reports_each_queue_that_is_gone_with_the_copy_of_its_ledger_and_no_other() {
        let files = [
            "buffer/upstream",
            "ledgers/buffer/upstream.ledger",
            "buffer/inputs/m",
            "ledgers/buffer/inputs/m.ledger",
        ];
        for set in 0_u32..1 << files.len() {
            let is_removed = |at: usize| set >> at & 1 == 1;
            let dir = tempfile::tempdir().unwrap();
            let running = start(dir.path(), &[UP, INPUT]).await;
            fill(&running.1, 3).await;
            stop(running).await;
            for (_, file) in files.iter().enumerate().filter(|(at, _)| is_removed(*at)) {
                remove(&dir.path().join(file));
            }

            let running = start(dir.path(), &[UP, INPUT]).await;
            let gone: Vec<&str> = [2, 0]
                .into_iter()
                .filter(|at| is_removed(*at) && is_removed(at + 1))
                .map(|at| files[at])
                .collect();
            let expected =
                (!gone.is_empty()).then(|| gone.join(", ") + " and the copies in ledgers/ were missing");
            let reported = running.1.known().unwrap().consequence();
            assert_eq!(reported.is_some(), expected.is_some(), "{set:b}: {reported:?}");
            if let (Some(reported), Some(expected)) = (reported, expected) {
                assert!(reported.starts_with(&expected), "{set:b}: {reported}");
            }
            let counted: u64 =
                running.1.stats().iter().map(|queue| queue.stats.records + queue.stats.lost.damaged).sum();
            assert_eq!(counted, 6 - 3 * gone.len() as u64, "{set:b}: all others are exact");
            fill(&running.1, 1).await;
            stop(running).await;

            let running = start(dir.path(), &[UP, INPUT]).await;
            assert_eq!(running.1.known().unwrap().consequence(), None, "{set:b}: once");
            stop(running).await;
        }
    }

    #[tokio::test]
    async fn both_trees_removed_are_reported_and_the_gateway_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let running = start(dir.path(), &[UP, INPUT]).await;
        fill(&running.1, 3).await;
        stop(running).await;
        remove(&dir.path().join("buffer"));
        remove(&dir.path().join("ledgers"));
        // The module's route has left meanwhile: its queue is reported all the same, and once.
        let running = start(dir.path(), &[UP]).await;
        let reported = running.1.known().unwrap().consequence().unwrap();
        assert!(reported.starts_with("buffer/inputs/m, buffer/upstream and the copies"), "{reported}");
        let append =
            running.1.append(&Sink::Upstream, QueueClass::DEFAULT, Bytes::from_static(b"x"), None, None);
        append.unwrap().await.unwrap();
        stop(running).await;
        let running = start(dir.path(), &[UP]).await;
        assert_eq!(running.1.known().unwrap().consequence(), None);
        stop(running).await;
    }

    /// What the state has of the queues after a restart: their names, and how many messages removed ones had dropped.
    async fn stored(dir: &Path, known: KnownQueues, state: State) -> (Vec<String>, u64) {
        known.close();
        state.close().await;
        let state = State::open(&dir.join("state")).unwrap();
        let again = KnownQueues::load(state.clone(), dir, &dir.join("ledgers"));
        let mut names = again.missing.clone();
        names.extend(again.known().names.keys().cloned());
        let dropped = again.lost_of_removed().dropped;
        again.close();
        state.close().await;
        (names, dropped)
    }

    #[tokio::test]
    async fn a_name_that_the_state_did_not_take_is_written_again() {
        // By the pass over all queues, or at the end of the daemon.
        for is_before_the_end in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let state = State::open(&dir.path().join("state")).unwrap();
            let known = KnownQueues::load(state.refusing(), dir.path(), &dir.path().join("ledgers"));
            known.opened(&dir.path().join("buffer/upstream"));
            known.save_again();
            known.known().state = Some(state.clone());
            known.opened(&dir.path().join("buffer/inputs/m"));
            if is_before_the_end {
                known.save_again();
                // A second pass, which comes at any time, changes nothing.
                known.save_again();
            }
            let (names, _) = stored(dir.path(), known, state).await;
            assert_eq!(names, ["buffer/inputs/m", "buffer/upstream"]);
        }
    }

    #[tokio::test]
    async fn a_removal_that_was_not_saved_counts_once_when_it_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let queue = dir.path().join("buffer/upstream");
        let state = State::open(&dir.path().join("state")).unwrap();
        let known = KnownQueues::load(state.clone(), dir.path(), &dir.path().join("ledgers"));
        known.opened(&queue);
        let lost = Lost { dropped: 3, ..Lost::default() };
        known.known().state = Some(state.refusing());
        assert!(known.removed(&queue, lost).await.is_err());
        assert_eq!(known.lost_of_removed().dropped, 0, "its files stay, and its own record counts");
        assert!(known.known().names.contains_key("buffer/upstream"));
        known.known().state = Some(state.clone());
        known.removed(&queue, lost).await.unwrap();
        assert_eq!(known.lost_of_removed().dropped, 3);
        assert_eq!(stored(dir.path(), known, state).await, (Vec::new(), 3));
    }

    #[tokio::test]
    async fn what_a_removed_queue_had_lost_stays_on_record() {
        let dir = tempfile::tempdir().unwrap();
        for round in 1..=2 {
            let running = start(dir.path(), &[UP, INPUT]).await;
            fill(&running.1, 3).await;
            stop(running).await;
            let running = start(dir.path(), &[UP]).await;
            let all = running.1.all();
            let (_, queue) = all.iter().find(|(name, _)| name == "inputs/m").unwrap();
            for loss in queue.log.losses_to_report().await.unwrap() {
                queue.log.losses_reported(loss.number);
            }
            drop(all);
            stop(running).await;
            assert!(!dir.path().join("buffer/inputs/m").exists());
            let running = start(dir.path(), &[UP]).await;
            let known = running.1.known().unwrap();
            assert_eq!((known.lost_of_removed().dropped, known.consequence()), (3 * round, None));
            stop(running).await;
        }
    }
}
