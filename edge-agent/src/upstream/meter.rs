//! The link's budget, counted on disk: what was claimed is saved before it is sent, and a day begins at its hour.

use edge_core::error_chain::chain;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use edge_core::link::budget::{Budget, Cause, Limits, May, Saved};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::state::{Namespace, State, StateError};
use edge_hub::tasks;

const KEY: &str = "upstream";
/// How often the clocks are looked at, and the counts of unlimited causes saved.
const CHECKS_EVERY: Duration = Duration::from_secs(20);
/// How long until a claim that was not saved is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The budget of the link. Cheap to clone.
#[derive(Clone)]
pub struct Meter {
    inner: Arc<Mutex<Inner>>,
    state: State,
    changed: watch::Sender<()>,
}

struct Inner {
    budget: Budget,
    /// A claim is on its way to the disk; until it is there nothing of a limited cause goes.
    is_saving: bool,
    checked: Instant,
}

/// What a cause has spent today.
pub struct Spent {
    pub cause: Cause,
    pub bytes: u64,
    /// Bytes of a day, where there is a limit.
    pub limit: Option<u64>,
}

impl Meter {
    /// Goes on from what is saved.
    ///
    /// # Errors
    /// [`StateError`] when what is saved cannot be read.
    pub fn load(state: State, limits: Limits) -> Result<Self, StateError> {
        let saved = state.load::<Saved>(Namespace::Budget).into_iter().find(|(key, _)| key == KEY);
        let budget = Budget::new(limits, saved.map(|(_, saved)| saved), now_ms());
        let inner = Inner { budget, is_saving: false, checked: Instant::now() };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), state, changed: watch::Sender::new(()) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the budget")
    }

    /// Whether so many bytes may be sent now; they are counted then. Otherwise try again when [`Meter::changes`] says so.
    pub fn spend(&self, cause: Cause, bytes: u64) -> bool {
        let mut inner = self.inner();
        inner.check();
        if inner.is_saving && inner.budget.spent(cause).1.is_some() {
            return false;
        }
        let may = inner.budget.spend(cause, bytes);
        self.may(inner, may)
    }

    /// Whether the next message of a cause may be sent, however large it is: [`Meter::count`] follows when it was.
    pub fn is_ready(&self, cause: Cause) -> bool {
        let mut inner = self.inner();
        if inner.is_saving && inner.budget.spent(cause).1.is_some() {
            return false;
        }
        let may = inner.budget.ready(cause);
        self.may(inner, may)
    }

    fn may(&self, mut inner: MutexGuard<'_, Inner>, may: May) -> bool {
        if may == May::Save {
            inner.is_saving = true;
            let saved = inner.budget.to_save();
            drop(inner);
            let recovering = self.clone();
            tasks::spawn_recovering(None, "budget of the link", self.clone().claim(saved), move || {
                // The next message that wants to be sent tries it again.
                recovering.inner().is_saving = false;
                recovering.changed.send_replace(());
            });
        }
        may == May::Send
    }

    /// Counts bytes that came, or that could not wait.
    pub fn count(&self, cause: Cause, bytes: u64) {
        let mut inner = self.inner();
        inner.check();
        inner.budget.count(cause, bytes);
    }

    /// Whether a cause has used up its bytes.
    pub fn is_used_up(&self, cause: Cause) -> bool {
        self.inner().budget.is_used_up(cause)
    }

    async fn claim(self, saved: Saved) {
        while let Err(error) = self.state.put(Namespace::Budget, KEY, &saved).durable().await {
            tracing::error!(error = %chain(&error), "what the link may cost could not be saved; it waits");
            tokio::time::sleep(AGAIN).await;
        }
        self.inner().is_saving = false;
        self.changed.send_replace(());
    }

    /// Says when bytes that might not be sent may be tried again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Reads the clocks and saves at intervals, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let wait = CHECKS_EVERY.min(Duration::from_millis(self.resets_in_ms() + 1));
            let is_stopped = tokio::time::timeout(wait, stop.cancelled()).await.is_ok();
            let mut inner = self.inner();
            let is_new = inner.check();
            let saved = if is_stopped { inner.budget.to_save_at_end() } else { inner.budget.to_save() };
            drop(inner);
            self.state.put(Namespace::Budget, KEY, &saved).later();
            if is_new {
                tracing::info!("a new day of the link's budget began");
                self.changed.send_replace(());
            }
            if is_stopped {
                return;
            }
        }
    }

    /// What was spent today, of the causes that have spent something or have a limit.
    pub fn spent(&self) -> Vec<Spent> {
        let inner = self.inner();
        let all = Cause::ALL.into_iter().map(|cause| {
            let (bytes, limit) = inner.budget.spent(cause);
            Spent { cause, bytes, limit }
        });
        all.filter(|spent| spent.bytes > 0 || spent.limit.is_some()).collect()
    }

    /// How long until a new day begins.
    pub fn resets_in_ms(&self) -> u64 {
        self.inner().budget.resets_in_ms(now_ms())
    }
}

impl Inner {
    fn check(&mut self) -> bool {
        let by = self.checked.elapsed();
        if by.as_millis() == 0 {
            return false;
        }
        self.checked += Duration::from_millis(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
        self.budget.passed(now_ms(), u64::try_from(by.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(telemetry: u64) -> Limits {
        // No day begins while the test runs.
        let reset_hour = ((now_ms() / 3_600_000 + 12) % 24) as u8;
        let mut limits = Limits { reset_hour, ..Limits::default() };
        limits.bytes[Cause::Telemetry as usize] = Some(telemetry);
        limits
    }

    async fn spend(meter: &Meter, bytes: u64) -> bool {
        let mut changes = meter.changes();
        loop {
            if meter.spend(Cause::Telemetry, bytes) {
                return true;
            }
            if !meter.inner().is_saving && !changes.has_changed().unwrap() {
                return false;
            }
            changes.changed().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_restart_gives_no_second_budget_whether_in_order_or_by_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let limits = limits(100_000);
        let state = State::open(dir.path()).unwrap();
        let meter = Meter::load(state.clone(), limits).unwrap();
        assert!(spend(&meter, 60_000).await);
        // As after a kill: the state has what was claimed.
        drop(meter);
        state.close().await;
        let state = State::open(dir.path()).unwrap();
        let meter = Meter::load(state.clone(), limits).unwrap();
        let before = meter.spent()[0].bytes;
        assert!((60_000..=80_000).contains(&before), "{before}");
        assert!(spend(&meter, 20_000).await);
        assert!(!spend(&meter, 50_000).await, "the day's bytes are used up");
        assert!(meter.spend(Cause::Commands, 1 << 30), "commands have their own");
        let stop = CancellationToken::new();
        stop.cancel();
        meter.clone().run(stop).await;
        drop(meter);
        state.close().await;
        let state = State::open(dir.path()).unwrap();
        let meter = Meter::load(state, limits).unwrap();
        assert_eq!(meter.spent()[0].bytes, before + 20_000);
    }
}
