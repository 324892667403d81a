//! Reading and checking what operators send, which may be large: off the async threads, and before the writer of the store, for which
//! all devices wait.
//!
//! A change depends on what is stored. So that is read, the change is made and checked, and then written if the same is still stored
//! ([`Checked`]).

use tokio::sync::Semaphore;

use crate::error::ServiceError;

/// Documents that are checked at once; others wait. Each takes one processor for some tenths of a second at most.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// How often a change is made anew because another one came between.
pub(crate) const TRIES_MAX: usize = 5;

/// What became of a change that was handed to the writer.
pub(crate) enum Checked<T> {
    Written(T),
    /// Something else is stored than what the change was made of.
    Outdated,
}

/// Runs work that takes long for a large document.
///
/// # Errors
/// The work's own.
pub(crate) async fn check<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let _permit = AT_ONCE.acquire().await.expect("the semaphore is never closed");
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// The error when a change was made anew [`TRIES_MAX`] times.
pub(crate) fn changed_meanwhile(what: &str) -> ServiceError {
    ServiceError::Conflict(format!("{what} was changed by others at the same time; try again"))
}
