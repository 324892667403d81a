//! Tasks with a name and a known answer to "what if it fails".
//!
//! - An essential task keeps a promise (listeners, what writes to disk): its end or panic ends the program, in order and with
//!   the cause in the log. A service manager starts the program again, on what is on disk.
//! - A restarted task does a job that can begin anew at any time (deployer, link, reports): a panic is logged, and it runs again
//!   after a wait.
//! - An isolated task serves one connection, message or request: a panic ends that one alone.
//!
//! Two panics end the program wherever they happen: on a thread that writes to disk, and at a lock that another panic has
//! poisoned, because what the lock protects may be half changed in memory, while it is whole on disk.
//!
//! Nothing else in the product starts a task: clippy refuses the methods that do (`clippy.toml`), because a task without a name has no
//! answer, and no test makes it panic.
#![expect(clippy::disallowed_methods, reason = "here tasks get their names")]

use edge_core::error_chain::chain;
use std::any::Any;
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

/// What a task's panic or end means, as the table of the module's page has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Essential,
    Restarted,
    Isolated,
}

impl Kind {
    #[cfg(debug_assertions)]
    fn as_str(self) -> &'static str {
        match self {
            Self::Essential => "essential",
            Self::Restarted => "restarted",
            Self::Isolated => "isolated",
        }
    }
}

/// Panics that a test injects into the tasks and threads of a running program. Debug builds only: what is shipped has none of it.
///
/// `LINESIDE_TASKS` names a file to which a line is appended for each task when it first runs, `kind name`, and when it panics here,
/// `panicked kind name`. `LINESIDE_PANICS` names a file to which a test writes the tasks that are to panic, once each, as lines
/// `kind name`.
#[cfg(debug_assertions)]
mod injected {
    use std::collections::BTreeSet;
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    use futures_util::future::{Either, FutureExt as _, lazy};
    use tokio::sync::watch;

    use super::Kind;

    const LOOK_EVERY: Duration = Duration::from_millis(20);

    struct Plan {
        has_panics: bool,
        /// Tasks that are to panic now.
        due: watch::Sender<BTreeSet<String>>,
        tasks: Option<PathBuf>,
        /// What was written to `tasks`.
        noted: Mutex<BTreeSet<String>>,
    }

    static PLAN: LazyLock<Plan> = LazyLock::new(|| {
        let panics = std::env::var_os("LINESIDE_PANICS").map(PathBuf::from);
        let (has_panics, due) = (panics.is_some(), watch::Sender::new(BTreeSet::new()));
        if let Some(panics) = panics {
            let due = due.clone();
            let _for_a_test = std::thread::Builder::new()
                .name("injected-panics".into())
                .spawn(move || follow(&panics, &due));
        }
        let tasks = std::env::var_os("LINESIDE_TASKS").map(PathBuf::from);
        Plan { has_panics, due, tasks, noted: Mutex::default() }
    });

    /// Takes up the lines of the file as they come.
    fn follow(panics: &Path, due: &watch::Sender<BTreeSet<String>>) {
        let mut seen = BTreeSet::new();
        loop {
            let text = std::fs::read_to_string(panics).unwrap_or_default();
            // A line without its end is still being written.
            for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                if seen.insert(line.to_owned()) {
                    due.send_if_modified(|due| due.insert(line.to_owned()));
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn noted() -> MutexGuard<'static, BTreeSet<String>> {
        PLAN.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a line to the file of tasks, the first time.
    fn note(line: String) {
        if let Some(file) = &PLAN.tasks
            && noted().insert(line.clone())
        {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
            // In one write: another task writes its line at the same time.
            let _for_a_test = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        }
    }

    /// True for one of the runs of a task that is to panic.
    fn claim(task: &str) -> bool {
        let is_claimed = PLAN.due.send_if_modified(|due| due.remove(task));
        if is_claimed {
            note(format!("panicked {task}"));
        }
        is_claimed
    }

    /// Notes a task when it first runs, and has it panic where a test orders that.
    pub(super) fn into<F: Future>(
        kind: Kind,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = F::Output> {
        // A large future is put on the heap: without optimisation each layer around it takes its size on the stack once more. Those of
        // connections are smaller and stay where they are: they are most of what an idle connection costs.
        const INLINE_BYTES_MAX: usize = 8 << 10;
        if size_of::<F>() <= INLINE_BYTES_MAX && !PLAN.has_panics {
            let noted = lazy(move |_| note(format!("{} {name}", kind.as_str())));
            return Either::Left(noted.then(move |()| task));
        }
        let mut task = Box::pin(task);
        Either::Right(async move {
            tokio::select! {
                biased;
                // First: a task that ends at once is noted too, and may panic.
                () = panic_due(kind, name) => panic!("injected"),
                ended = &mut task => ended,
            }
        })
    }

    /// Ends when the task is to panic.
    async fn panic_due(kind: Kind, name: &'static str) {
        let task = format!("{} {name}", kind.as_str());
        note(task.clone());
        if !PLAN.has_panics {
            return std::future::pending().await;
        }
        let mut due = PLAN.due.subscribe();
        loop {
            // The sender is a static.
            let _is_open = due.wait_for(|due| due.contains(&task)).await.is_ok();
            if claim(&task) {
                return;
            }
        }
    }

    /// Panics when the thread is to.
    pub(super) fn turn(kind: Kind, name: &'static str) {
        let task = format!("{} {name}", kind.as_str());
        note(task.clone());
        if PLAN.has_panics && claim(&task) {
            panic!("injected");
        }
    }
}

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

/// Called for each panic: tells [`fatal`] when the program cannot go on.
pub(crate) fn observe_panic(thread: &str, message: &str) {
    let is_of_writer = ESSENTIAL_THREADS.contains(&thread);
    // As `Result::expect` writes the error of `Mutex::lock`.
    let is_poisoned = message.contains("PoisonError");
    if is_of_writer || is_poisoned {
        let failure = TaskFailure { task: current_name(), cause: format!("panicked: {message}") };
        tell_fatal(failure);
    }
}

/// The first failure is the cause of those after it.
fn tell_fatal(failure: TaskFailure) {
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
            tell_fatal(TaskFailure { task: name.to_owned(), cause: cause(Err(panicked)) });
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
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is told to all is told to every test of this process.
    static SERIAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    fn boxed(error: &str) -> Ended {
        Err(error.into())
    }

    /// Each kind of task against each way of failing.
    #[tokio::test]
    async fn an_essential_task_ends_the_program_with_its_cause_and_any_other_runs_again() {
        let _serial = SERIAL.lock().await;
        for (way, cause) in [("panic", "panicked: injected"), ("error", "failed: injected"), ("end", ENDED)] {
            let fail = move || async move {
                match way {
                    "panic" => panic!("injected"),
                    "error" => boxed("injected"),
                    _ => Ok(()),
                }
            };
            let stop = CancellationToken::new();
            let mut tasks = Tasks::new(stop.clone());
            tasks.restart_first = Duration::from_millis(10);
            let runs = Arc::new(AtomicU32::new(0));
            let counted = runs.clone();
            tasks.restarted("report", move || {
                counted.fetch_add(1, Ordering::Relaxed);
                fail()
            });
            let again = async {
                while runs.load(Ordering::Relaxed) < 4 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                ended = tasks.failed() => panic!("{way}: a restarted task ended the program: {ended}"),
                () = again => {}
            }
            tasks.essential("listener", fail());
            let failure = tasks.failed().await;
            assert_eq!((failure.task.as_str(), failure.cause.as_str()), ("listener", cause));
            stop.cancel();
            tokio::time::timeout(Duration::from_secs(1), tasks.join())
                .await
                .expect("everything ends at the stop");
        }
    }

    #[tokio::test]
    async fn a_panic_of_an_isolated_task_is_its_own() {
        let panicked = spawn("connection", async { panic!("injected") });
        let other = spawn("connection", async { current_name() });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(other.await.unwrap(), "connection");
        let caught = guard("link", async { panic!("injected {}", 1) }).await;
        let panicked: Panicked = caught.unwrap_err();
        assert_eq!(panicked.to_string(), "task `link` panicked: injected 1");
    }

    #[tokio::test]
    async fn only_a_writers_thread_and_a_poisoned_lock_end_the_program_from_anywhere() {
        let _serial = SERIAL.lock().await;
        observe_panic("tokio-runtime-worker", "index out of bounds");
        observe_panic("blocking-1", "called `Option::unwrap()` on a `None` value");
        assert!(fatal().now_or_never().is_none());
        let lock = Mutex::new(());
        let poisoned = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let _held = lock.lock().unwrap();
            panic!("injected");
        }));
        assert!(poisoned.is_err());
        let second = std::panic::catch_unwind(AssertUnwindSafe(|| {
            drop(lock.lock().expect("nothing panics while it holds the list"));
        }));
        let payload = second.unwrap_err();
        observe_panic("tokio-runtime-worker", message(&*payload));
        assert!(fatal().await.cause.contains("PoisonError"));
        FATAL.send_replace(None);
        for thread in ESSENTIAL_THREADS {
            observe_panic(thread, "injected");
            assert!(fatal().await.cause.contains("injected"));
            FATAL.send_replace(None);
        }
    }
}
