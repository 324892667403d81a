//! Each kind of task against each way of failing.

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
    for (ending, cause) in [("panic", "panicked: injected"), ("error", "failed: injected"), ("end", ENDED)] {
        let fail = move || async move {
            match ending {
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
            ended = tasks.failed() => panic!("{ending}: a restarted task ended the program: {ended}"),
            () = again => {}
        }
        tasks.essential("listener", fail());
        let failure = tasks.failed().await;
        assert_eq!((failure.task.as_str(), failure.cause.as_str()), ("listener", cause));
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(60), tasks.join())
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
