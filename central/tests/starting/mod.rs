//! Processes that a test starts beside centrals of its own. Between its fork and its exec a process has open what the test's process has,
//! the lock files of these centrals too; a lock is free once nobody has its file open any more.

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

static STARTING: Mutex<()> = Mutex::new(());

/// Held while a process is started, which ends with its exec. Taken for a moment by whoever needs a lock that was free before.
#[allow(unreachable_pub, reason = "a module of each test file, not of a library")]
pub fn starting() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[allow(dead_code, unreachable_pub, reason = "each test file uses its part of this, and is no library")]
pub fn started(command: &mut Command) -> Child {
    let _starting = starting();
    command.spawn().unwrap()
}

/// Runs a command to its end.
#[allow(dead_code, unreachable_pub, reason = "each test file uses its part of this, and is no library")]
pub fn output(command: &mut Command) -> Output {
    started(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap()
}
