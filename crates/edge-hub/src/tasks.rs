//! Tasks with a name and a known answer to "what if it fails".
//!
//! - An essential task keeps a promise (listeners, what writes to disk): its end or panic ends the program, in order and with
//!   the cause in the log. A service manager starts the program again, on what is on disk.
//! - A restarted task does a job that can begin anew at any time (reconciler, link, reports): a panic is logged, and it runs again
//!   after a wait.
//! - An isolated task serves one connection, message or request: a panic ends that one alone.
//!
//! Two panics end the program wherever they happen: on a thread that writes to disk, and at a lock that another panic has
//! poisoned, because what the lock protects may be half changed in memory, while it is whole on disk.
//!
//! Nothing else in the product starts a task: clippy refuses the methods that do (`clippy.toml`), because a task without a name has no
//! answer, and no test makes it panic.
#![expect(clippy::disallowed_methods, reason = "here tasks get their names")]

#[cfg(debug_assertions)]
mod injected;
mod kind;

use edge_core::error_chain::chain;
use std::any::Any;
use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use kind::Kind;

/// Threads that write to disk: nothing is stored any more without them.
pub const ESSENTIAL_THREADS: [&str; 4] =
    [edge_buffer::threads::COMMIT, edge_buffer::threads::ANSWERS, STATE_THREAD, STORE_THREAD];
/// The thread that writes the gateway's small durable state.
pub const STATE_THREAD: &str = "state";
/// The thread that writes central's store.
pub const STORE_THREAD: &str = "store-writer";
/// How long a restarted task waits after its first panic, doubled with each further one.
const RESTART_FIRST: Duration = Duration::from_secs(1);
const RESTART_LONGEST: Duration = Duration::from_secs(60);
/// A task that ran for so long begins with the shortest wait again.
const RESTART_FORGIVEN: Duration = Duration::from_secs(300);

/// Exit code of a program that an essential task ended (`EX_SOFTWARE` of sysexits.h).
pub const EXIT_CODE: u8 = 70;

/// A thread without which the program cannot go on begins a turn. Its name is one of [`ESSENTIAL_THREADS`].
#[inline]
pub fn essential_turn(name: &'static str) {
    #[cfg(debug_assertions)]
    injected::turn(Kind::Essential, name);
    let _ = name;
}

/// A thread begins a turn of which a panic is caught.
#[inline]
pub fn isolated_turn(name: &'static str) {
    #[cfg(debug_assertions)]
    injected::turn(Kind::Isolated, name);
    let _ = name;
}

/// Has the queues' threads begin their turns here.
pub(crate) fn follow_queue_threads() {
    #[cfg(debug_assertions)]
    edge_buffer::threads::on_turn(essential_turn);
}

/// Runs a task under its name. Not an async function: that would hold the task twice, as its argument and as what it waits for.
fn named<F: Future>(kind: Kind, name: &'static str, task: F) -> impl Future<Output = F::Output> {
    #[cfg(debug_assertions)]
    let task = injected::into(kind, name, task);
    let _ = kind;
    NAME.scope(name, task)
}

tokio::task_local! {
    static NAME: &'static str;
}

static FATAL: LazyLock<watch::Sender<Option<TaskFailure>>> = LazyLock::new(|| watch::Sender::new(None));

/// Why the program must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The task or thread.
    pub task: String,
    /// What happened to it.
    pub cause: String,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task `{}` {}", self.task, self.cause)
    }
}

impl Error for TaskFailure {}

/// A panic that was caught.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task `{task}` panicked: {message}")]
pub struct Panicked {
    pub task: &'static str,
    /// What the panic said.
    pub message: String,
}

/// Name of the task that runs, of its thread otherwise.
pub(crate) fn current_name() -> String {
    let of_thread = || std::thread::current().name().unwrap_or("unnamed").to_owned();
    NAME.try_with(|name| (*name).to_owned()).unwrap_or_else(|_| of_thread())
}

/// What a panic's payload says.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

thread_local! {
    /// What runs on this thread may panic without harm.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs a part of which a panic is its error alone, on whatever thread: a library that panics where others return an error. It
/// must hold no lock of others.
///
/// # Errors
/// What the panic said.
pub fn caught<T>(part: impl FnOnce() -> T) -> std::thread::Result<T> {
    let was_caught = IS_CAUGHT.replace(true);
    let result = std::panic::catch_unwind(AssertUnwindSafe(part));
    IS_CAUGHT.set(was_caught);
    result
}

/// Called for each panic: tells [`fatal`] when the program cannot go on.
pub(crate) fn observe_panic(thread: &str, message: &str) {
    if IS_CAUGHT.get() {
        return;
    }
    let is_of_writer = ESSENTIAL_THREADS.contains(&thread);
    // As `Result::expect` writes the error of `Mutex::lock`.
    let is_poisoned = message.contains("PoisonError");
    if is_of_writer || is_poisoned {
        let failure = TaskFailure { task: current_name(), cause: format!("panicked: {message}") };
        report_fatal(failure);
    }
}

/// The first failure is the cause of those after it.
fn report_fatal(failure: TaskFailure) {
    FATAL.send_if_modified(|first| {
        let is_first = first.is_none();
        first.get_or_insert(failure);
        is_first
    });
}

/// Ends when a panic happened after which the program cannot go on. Panics are seen from [`crate::logging::start`] on.
pub async fn fatal() -> TaskFailure {
    let mut fatal = FATAL.subscribe();
    match fatal.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
        Ok(Some(failure)) => failure,
        // The sender is a static.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Runs an isolated task.
pub fn spawn<F>(name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(named(Kind::Isolated, name, task))
}

/// Runs an isolated task, which `tracker` waits for. When it panics, `recover` releases what others wait for.
pub fn spawn_recovering<F>(
    tracker: Option<&TaskTracker>,
    name: &'static str,
    task: F,
    recover: impl FnOnce() + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let guarded = async move {
        // The panic was logged.
        if guard(name, task).await.is_err() {
            recover();
        }
    };
    match tracker {
        Some(tracker) => tracker.spawn(guarded),
        None => tokio::spawn(guarded),
    };
}

/// Runs an isolated task that `tracker` waits for.
pub fn spawn_tracked<F>(tracker: &TaskTracker, name: &'static str, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tracker.spawn(named(Kind::Isolated, name, task))
}

/// Runs what `make` gives, and again after a panic, until it ends. `tracker` waits for that.
pub fn spawn_restarted<F>(
    tracker: &TaskTracker,
    name: &'static str,
    mut make: impl FnMut() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tracker.spawn(async move {
        while guard_as(Kind::Restarted, name, make()).await.is_err() {
            tokio::time::sleep(RESTART_FIRST).await;
        }
    })
}

/// Runs an isolated task as one of a set.
pub fn spawn_in<F>(set: &mut JoinSet<F::Output>, name: &'static str, task: F) -> AbortHandle
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    set.spawn(named(Kind::Isolated, name, task))
}

/// Runs a task whose panic ends the program, where no [`Tasks`] is at hand. Its end is no failure.
pub fn spawn_essential<F>(name: &'static str, task: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(panicked) = guard_as(Kind::Essential, name, task).await {
            report_fatal(TaskFailure { task: name.to_owned(), cause: cause(Err(panicked)) });
        }
    })
}

/// Runs a part of a task whose panic is an error of this part alone.
///
/// # Errors
/// [`Panicked`]. What the part held was dropped.
pub async fn guard<F: Future>(name: &'static str, part: F) -> Result<F::Output, Panicked> {
    guard_as(Kind::Isolated, name, part).await
}

async fn guard_as<F: Future>(kind: Kind, name: &'static str, part: F) -> Result<F::Output, Panicked> {
    AssertUnwindSafe(named(kind, name, part))
        .catch_unwind()
        .await
        .map_err(|payload| Panicked { task: name, message: message(&*payload).to_owned() })
}

type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// The tasks of a program, each with an owner here that waits for its end.
pub struct Tasks {
    set: JoinSet<TaskFailure>,
    stop: CancellationToken,
    restart_first: Duration,
}

impl Tasks {
    /// `stop` is the token that the tasks end at.
    pub fn new(stop: CancellationToken) -> Self {
        Self { set: JoinSet::new(), stop, restart_first: RESTART_FIRST }
    }

    /// Runs a task whose end before the stop ends the program.
    pub fn essential<F, E>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.set.spawn(async move {
            let task = async { task.await.map_err(Into::into) };
            let ended = guard_as(Kind::Essential, name, task).await;
            TaskFailure { task: name.to_owned(), cause: cause(ended) }
        });
    }

    /// Runs what `make` gives, and again after a panic or an error, until it ends at the stop.
    pub fn restarted<F>(&mut self, name: &'static str, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let (stop, first) = (self.stop.clone(), self.restart_first);
        self.set.spawn(async move {
            let mut wait = first;
            loop {
                let began = tokio::time::Instant::now();
                let running: Pin<Box<dyn Future<Output = Ended> + Send>> = Box::pin(make());
                let ended = guard_as(Kind::Restarted, name, running).await;
                if stop.is_cancelled() {
                    break;
                }
                if began.elapsed() > RESTART_FORGIVEN {
                    wait = first;
                }
                error!(name, cause = cause(ended), ?wait, "task failed; it is started again");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => break,
                }
                wait = (2 * wait).min(RESTART_LONGEST);
            }
            TaskFailure { task: name.to_owned(), cause: ENDED.to_owned() }
        });
    }

    /// Ends with the first essential task that ended by itself, or with [`fatal`].
    pub async fn failed(&mut self) -> TaskFailure {
        tokio::select! {
            biased;
            failure = fatal() => failure,
            Some(ended) = self.set.join_next() => ended.unwrap_or_else(|error| TaskFailure {
                task: "unnamed".to_owned(),
                cause: error.to_string(),
            }),
        }
    }

    /// Ends all of them where they are: those that did not end in time.
    pub async fn shutdown(&mut self) {
        self.set.shutdown().await;
    }

    /// Waits until all have ended, after the stop.
    pub async fn join(&mut self) {
        while let Some(ended) = self.set.join_next().await {
            match ended {
                Ok(failure) if failure.cause == ENDED => {}
                Ok(failure) => {
                    warn!(task = failure.task, cause = failure.cause, "a task did not end in order")
                }
                Err(error) => warn!(error = %chain(&error), "a task did not end in order"),
            }
        }
    }
}

const ENDED: &str = "ended by itself";

fn cause(ended: Result<Ended, Panicked>) -> String {
    match ended {
        Ok(Ok(())) => ENDED.to_owned(),
        Ok(Err(error)) => {
            let mut text = format!("failed: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            text
        }
        Err(panicked) => format!("panicked: {}", panicked.message),
    }
}

#[cfg(test)]
mod tests;
