//! What is known of each command, in memory and in the state's namespace alike. It calls nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use edge_core::clock::lifetime::Lifetime;
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::Identity;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::access::identity_state::Removed;
use crate::state::{Namespace, Saved, State, StateError};

/// Commands that run at once or whose answers wait for central. Beyond it a command is answered "not connected" at once.
const RUNNING_MAX: usize = 1000;
/// Commands that wait for their targets. Beyond it a command is answered "not kept" at once.
const WAITING_MAX: usize = 1000;
/// Commands that are reported as lost at once; the others on the next connection.
const LOST_MAX: usize = 1000;
/// How long it is remembered that a command was here whose answer central has: by then no copy of it is under way.
const ACKNOWLEDGED_MS: u64 = 3600 * 1000;
/// The same of a command that waited, which a central that was restored from a backup sends once more while it is valid: a week at
/// most.
const ACKNOWLEDGED_WAITED_MS: u64 = 8 * 24 * 3600 * 1000;
/// As many are remembered at the most, the latest.
const ACKNOWLEDGED_MAX: usize = 10_000;

/// What the target answered, or why there is no answer.
pub type Answer = Result<MethodResponse, MethodFailure>;

/// A command in the namespace. The names are on gateways' disks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Entry {
    Waiting(Waiting),
    #[serde(rename_all = "camelCase")]
    Running {
        target: String,
        seconds: u64,
        #[serde(default)]
        has_waited: bool,
    },
    #[serde(rename_all = "camelCase")]
    Answered {
        answer: Answer,
        #[serde(default)]
        has_waited: bool,
    },
    /// central has the answer. By [`crate::clock::steady_ms`].
    #[serde(rename = "told", rename_all = "camelCase")]
    Acknowledged {
        at_ms: u64,
        #[serde(default)]
        has_waited: bool,
    },
}

/// A command that waits for its target.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Waiting {
    /// Ascends: those of one target run in this order.
    pub number: u64,
    pub target: Identity,
    pub request: MethodRequest,
    /// How long it was valid when it came.
    pub seconds: u64,
    /// By [`crate::clock::steady_ms`].
    pub valid_until_ms: u64,
}

impl Waiting {
    fn lifetime(&self) -> Lifetime {
        let from_ms = self.valid_until_ms.saturating_sub(self.seconds.saturating_mul(1000));
        Lifetime { from_ms, until_ms: self.valid_until_ms }
    }
}

/// How many commands stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub waiting: usize,
    /// Called and not answered yet.
    pub running: usize,
    /// Ended, and central does not know it yet.
    pub unreported: usize,
}

pub(super) enum Entered {
    New(Saved),
    /// It is under way, or central has its answer.
    Known,
    /// It has its answer, which is sent again.
    Answered,
    Not(MethodFailure),
}

pub(super) struct Journal {
    entries: BTreeMap<String, Entry>,
    acknowledged: Acknowledged,
    /// Of commands that waited.
    acknowledged_waited: Acknowledged,
    unsent: Vec<String>,
    next_number: u64,
    /// What ends each command that runs.
    running: HashMap<String, (Identity, CancellationToken)>,
    state: State,
}

/// Commands whose answers central has, oldest first: when it got each.
type Acknowledged = VecDeque<(u64, String)>;

/// A command that ran when the daemon ended: its id, its target, and the seconds that it had.
type Interrupted = (String, String, u64);

impl Journal {
    pub(super) fn load(state: State, now_ms: u64) -> Result<(Self, Vec<Interrupted>), StateError> {
        let mut journal = Self {
            entries: BTreeMap::new(),
            acknowledged: Acknowledged::new(),
            acknowledged_waited: Acknowledged::new(),
            unsent: Vec::new(),
            next_number: 0,
            running: HashMap::new(),
            state: state.clone(),
        };
        let mut interrupted = Vec::new();
        for (id, mut entry) in state.load::<Entry>(Namespace::Commands) {
            match &mut entry {
                Entry::Waiting(waiting) if state.has_lost_changes() => {
                    // It may have run since: central ends it when it hears that it is not here.
                    tracing::error!(command = id, target = %waiting.target, "a command that waited is not run: the state has lost changes, and it may have run before");
                    state.remove(Namespace::Commands, &id).later();
                    continue;
                }
                Entry::Waiting(waiting) => {
                    journal.next_number = journal.next_number.max(waiting.number + 1);
                    // With a clock that was set back it waits no longer than it was to.
                    waiting.valid_until_ms = waiting.valid_until_ms.min(now_ms + waiting.seconds * 1000);
                }
                Entry::Running { target, seconds, .. } => {
                    interrupted.push((id.clone(), target.clone(), *seconds))
                }
                Entry::Answered { .. } => {}
                Entry::Acknowledged { at_ms, has_waited } => {
                    journal.acknowledged(*has_waited).push_back(((*at_ms).min(now_ms), id.clone()));
                }
            }
            journal.entries.insert(id, entry);
        }
        for has_waited in [false, true] {
            journal.acknowledged(has_waited).make_contiguous().sort();
        }
        journal.forget_old(now_ms);
        Ok((journal, interrupted))
    }

    /// The entry as a command that comes finds it; `None` for a new one.
    pub(super) fn known(&mut self, id: &str) -> Option<Entered> {
        match self.entries.get(id)? {
            Entry::Waiting(_) | Entry::Running { .. } | Entry::Acknowledged { .. } => Some(Entered::Known),
            Entry::Answered { .. } => {
                self.unsent.push(id.to_owned());
                Some(Entered::Answered)
            }
        }
    }

    fn put(&mut self, id: &str, entry: Entry) -> Saved {
        let saved = self.state.put(Namespace::Commands, id, &entry);
        self.entries.insert(id.to_owned(), entry);
        saved
    }

    fn count(&self, of: impl Fn(&Entry) -> bool) -> usize {
        self.entries.values().filter(|entry| of(entry)).count()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            waiting: self.count(|entry| matches!(entry, Entry::Waiting(_))),
            running: self.count(|entry| matches!(entry, Entry::Running { .. })),
            unreported: self.count(|entry| matches!(entry, Entry::Answered { .. })),
        }
    }

    /// Notes a command that is to run now.
    pub(super) fn enter_running(&mut self, id: &str, target: &Identity, request: &MethodRequest) -> Entered {
        if let Some(known) = self.known(id) {
            return known;
        }
        if self.count(|entry| matches!(entry, Entry::Running { .. } | Entry::Answered { .. })) >= RUNNING_MAX
        {
            return Entered::Not(MethodFailure::NotConnected { target: target.to_string() });
        }
        let seconds = request.connect_timeout_in_seconds + request.response_timeout_in_seconds;
        self.running.insert(id.to_owned(), (target.clone(), CancellationToken::new()));
        let running = Entry::Running { target: target.to_string(), seconds, has_waited: false };
        Entered::New(self.put(id, running))
    }

    /// Notes a command that waits for its target.
    pub(super) fn enter_waiting(
        &mut self,
        id: &str,
        target: &Identity,
        request: &MethodRequest,
        seconds: u64,
        now_ms: u64,
    ) -> Entered {
        if let Some(known) = self.known(id) {
            return known;
        }
        if self.count(|entry| matches!(entry, Entry::Waiting(_))) >= WAITING_MAX {
            return Entered::Not(MethodFailure::QueueFull { target: target.to_string(), most: WAITING_MAX });
        }
        let number = self.next_number;
        self.next_number += 1;
        let waiting = Waiting {
            number,
            target: target.clone(),
            request: request.clone(),
            seconds,
            valid_until_ms: now_ms.saturating_add(seconds.saturating_mul(1000)),
        };
        Entered::New(self.put(id, Entry::Waiting(waiting)))
    }

    /// Forgets a command that was not saved, unless it runs already: a later write may have gone well.
    pub(super) fn forget(&mut self, id: &str, is_to_wait: bool) {
        if self.entries.get(id).is_some_and(|entry| matches!(entry, Entry::Waiting(_)) == is_to_wait) {
            self.entries.remove(id);
            self.running.remove(id);
        }
    }

    /// What ends a command that runs: its target was removed.
    pub(super) fn ended(&self, id: &str) -> CancellationToken {
        self.running.get(id).map_or_else(CancellationToken::new, |(_, ended)| ended.clone())
    }

    /// Ends what waits for identities that were removed, and the commands of them that run.
    pub(super) fn end_of(&mut self, removed: &Removed) -> Vec<(String, Identity, Saved)> {
        for (_, ended) in self.running.values().filter(|(target, _)| removed.covers(target)) {
            ended.cancel();
        }
        let waiting = self.waiting().filter(|(_, waiting)| removed.covers(&waiting.target));
        let gone: Vec<(String, Identity)> =
            waiting.map(|(id, waiting)| (id.clone(), waiting.target.clone())).collect();
        let end = |(id, target): (String, Identity)| {
            let failure = MethodFailure::NotConnected { target: target.to_string() };
            let saved = self.answer(&id, Err(failure));
            (id, target, saved)
        };
        gone.into_iter().map(end).collect()
    }

    /// The targets of commands that wait.
    pub(super) fn targets(&self) -> BTreeSet<Identity> {
        self.waiting().map(|(_, waiting)| waiting.target.clone()).collect()
    }

    fn waiting(&self) -> impl Iterator<Item = (&String, &Waiting)> {
        self.entries.iter().filter_map(|(id, entry)| match entry {
            Entry::Waiting(waiting) => Some((id, waiting)),
            _ => None,
        })
    }

    /// Takes the first command that waits for a target and is valid: it runs, and is on disk as such when the write is.
    pub(super) fn begin(
        &mut self,
        target: &Identity,
        is_valid: impl Fn(Lifetime) -> bool,
    ) -> Option<(String, Waiting, Saved)> {
        let (id, waiting) = self
            .waiting()
            .filter(|(_, waiting)| waiting.target == *target && is_valid(waiting.lifetime()))
            .min_by_key(|(_, waiting)| waiting.number)
            .map(|(id, waiting)| (id.clone(), waiting.clone()))?;
        let seconds = waiting.request.response_timeout_in_seconds;
        let running = Entry::Running { target: target.to_string(), seconds, has_waited: true };
        let saved = self.put(&id, running);
        self.running.insert(id.clone(), (target.clone(), CancellationToken::new()));
        Some((id, waiting, saved))
    }

    /// Lets a command wait again that was not called, unless its target was removed.
    pub(super) fn give_back(&mut self, id: &str, waiting: Waiting) {
        let is_over = self.running.remove(id).is_some_and(|(_, ended)| ended.is_cancelled());
        if is_over {
            let target = waiting.target.to_string();
            self.answer(id, Err(MethodFailure::NotConnected { target })).later();
            return;
        }
        self.put(id, Entry::Waiting(waiting)).later();
    }

    /// The commands that wait, valid no more, and when the next one's time is over.
    pub(super) fn overdue(&self, now_ms: u64) -> (Vec<(String, Waiting)>, Option<u64>) {
        let (over, open): (Vec<_>, Vec<_>) =
            self.waiting().partition(|(_, waiting)| waiting.valid_until_ms <= now_ms);
        let next = open.iter().map(|(_, waiting)| waiting.valid_until_ms).min();
        (over.into_iter().map(|(id, waiting)| (id.clone(), waiting.clone())).collect(), next)
    }

    /// Ends a command that waits, if it still does.
    pub(super) fn end_waiting(&mut self, id: &str, answer: Answer) -> Option<Saved> {
        match self.entries.get(id) {
            Some(Entry::Waiting(_)) => Some(self.answer(id, answer)),
            _ => None,
        }
    }

    pub(super) fn answer(&mut self, id: &str, answer: Answer) -> Saved {
        self.running.remove(id);
        self.unsent.push(id.to_owned());
        let has_waited = match self.entries.get(id) {
            Some(Entry::Waiting(_)) => true,
            Some(Entry::Running { has_waited, .. } | Entry::Answered { has_waited, .. }) => *has_waited,
            Some(Entry::Acknowledged { .. }) | None => false,
        };
        self.put(id, Entry::Answered { answer, has_waited })
    }

    /// Answers what central says was taken and is not known here.
    pub(super) fn answer_lost(&mut self, taken: BTreeMap<String, Identity>) -> Vec<(String, Saved)> {
        let lost = taken.into_iter().filter(|(id, _)| !self.entries.contains_key(id)).take(LOST_MAX);
        let lost: Vec<_> = lost.collect();
        let answer = |(id, target): (String, Identity)| {
            let answer = Err(MethodFailure::Lost { target: target.to_string() });
            self.unsent.push(id.clone());
            let saved = self.put(&id, Entry::Answered { answer, has_waited: true });
            (id, saved)
        };
        lost.into_iter().map(answer).collect()
    }

    pub(super) fn all_unsent(&mut self) {
        let answered =
            |(id, entry): (&String, &Entry)| matches!(entry, Entry::Answered { .. }).then(|| id.clone());
        self.unsent = self.entries.iter().filter_map(answered).collect();
    }

    pub(super) fn next_unsent(&mut self) -> Option<(String, Answer)> {
        let id = self.unsent.pop()?;
        match self.entries.get(&id) {
            Some(Entry::Answered { answer, .. }) => Some((id, answer.clone())),
            _ => None,
        }
    }

    fn acknowledged(&mut self, has_waited: bool) -> &mut Acknowledged {
        if has_waited { &mut self.acknowledged_waited } else { &mut self.acknowledged }
    }

    /// central has the answer.
    pub(super) fn note_acknowledged(&mut self, id: &str, now_ms: u64) {
        let Some(Entry::Answered { has_waited, .. }) = self.entries.get(id) else { return };
        let has_waited = *has_waited;
        self.put(id, Entry::Acknowledged { at_ms: now_ms, has_waited }).later();
        self.acknowledged(has_waited).push_back((now_ms, id.to_owned()));
        self.forget_old(now_ms);
    }

    fn forget_old(&mut self, now_ms: u64) {
        for (has_waited, for_ms) in [(false, ACKNOWLEDGED_MS), (true, ACKNOWLEDGED_WAITED_MS)] {
            while let Some((at_ms, _)) = self.acknowledged(has_waited).front() {
                if at_ms.saturating_add(for_ms) > now_ms
                    && self.acknowledged(has_waited).len() <= ACKNOWLEDGED_MAX
                {
                    break;
                }
                if let Some((_, id)) = self.acknowledged(has_waited).pop_front() {
                    self.entries.remove(&id);
                    self.state.remove(Namespace::Commands, &id).later();
                }
            }
        }
    }
}
