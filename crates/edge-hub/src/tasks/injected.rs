//! Panics that a test injects into the tasks and threads of a running program. Debug builds only: what is shipped has none of it.
//!
//! `LINESIDE_TASKS` names a file to which a line is appended for each task when it first runs, `kind name`, and when it panics here,
//! `panicked kind name`. `LINESIDE_PANICS` names a file to which a test writes the tasks that are to panic, once each, as lines
//! `kind name`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, FutureExt as _, lazy};
use tokio::sync::watch;

use super::kind::Kind;

const CHECK_EVERY: Duration = Duration::from_millis(20);

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
        let _for_a_test =
            std::thread::Builder::new().name("injected-panics".into()).spawn(move || follow(&panics, &due));
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
        std::thread::sleep(CHECK_EVERY);
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
pub(super) fn into<F: Future>(kind: Kind, name: &'static str, task: F) -> impl Future<Output = F::Output> {
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
