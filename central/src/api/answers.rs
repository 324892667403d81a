//! Answers that grow with data are made beside the async threads, few at once: devices are served while they are.
//!
//! ```text
//! request of a caller ──> its own turns (2) ──> those of all (4) ──> made on a blocking thread ──> its own bytes (8 MiB) ──> sent
//!                    └ 64 of it wait: 429
//! ```
//!
//! A caller holds the turns of others for as long as its own answers are made and no longer: while its client reads slowly, only its
//! own next answers wait. Changes take turns for each of their polls (`changes`).

mod changes;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinError;

use super::error::ApiError;
use crate::people::caller::{Caller, Who};

/// Answers that are made at once: a little more than there are cores, because each waits for the disk at times.
const AT_ONCE_MAX: usize = 4;
/// Of one caller.
const AT_ONCE_OF_CALLER_MAX: usize = 2;
/// Requests of one caller that wait for their turn; a page of the console asks for a dozen things at once.
const WAITING_OF_CALLER_MAX: usize = 64;
/// Answers of one caller that are made and not sent yet, in units of [`UNIT_BYTES`]: a few of the largest.
const UNITS_OF_CALLER_MAX: u32 = 8 << 20 >> 10;
const UNIT_BYTES: usize = 1 << 10;

/// Whose answers share their turns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    Token(String),
    User(String),
}

impl Identity {
    pub(super) fn of(caller: &Caller) -> Self {
        match &caller.who {
            Who::Token(name) => Self::Token(name.clone()),
            Who::Session(session) => Self::User(session.user.id.to_string()),
        }
    }
}

/// What one caller may have at once.
#[derive(Debug)]
struct Turns {
    making: Arc<Semaphore>,
    /// Polls of changes.
    changing: Arc<Semaphore>,
    waiting: Semaphore,
    units: Arc<Semaphore>,
    /// Bodies that arrive or are worked on, in the same units.
    bodies: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            making: Arc::new(Semaphore::new(AT_ONCE_OF_CALLER_MAX)),
            changing: Arc::new(Semaphore::new(AT_ONCE_OF_CALLER_MAX)),
            waiting: Semaphore::new(WAITING_OF_CALLER_MAX),
            units: Arc::new(Semaphore::new(UNITS_OF_CALLER_MAX as usize)),
            bodies: Arc::new(Semaphore::new(UNITS_OF_CALLER_MAX as usize)),
        }
    }
}

const CLOSED: &str = "the semaphores are never closed";

impl Turns {
    /// A permit of this caller to wait for an event.
    fn place(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.waiting.try_acquire().map_err(|_| {
            ApiError::too_many_requests(format!(
                "{WAITING_OF_CALLER_MAX} requests of this caller wait for their answers already; ask for less at once"
            ))
        })
    }

    /// Waits for one of the caller's own turns, which are those of answers or of changes.
    async fn own(&self, turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
        // Whoever gets a turn at once does not count among those that wait.
        if let Ok(own) = turns.clone().try_acquire_owned() {
            return Ok(own);
        }
        let _place = self.place()?;
        Ok(turns.clone().acquire_owned().await.expect(CLOSED))
    }
}

/// The turns of all callers. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    making: Arc<Semaphore>,
    /// Polls of changes. They have turns of their own: an answer keeps its turn while it waits, for a connection of the store say, and
    /// that may be promised to a change that waits for its next turn.
    changing: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<Identity, Arc<Turns>>>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            making: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            changing: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            of: Arc::default(),
        }
    }
}

impl Answers {
    fn of(&self, identity: &Identity) -> Arc<Turns> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers without a request hold nothing here.
        of.retain(|known, turns| known == identity || Arc::strong_count(turns) > 1);
        of.entry(identity.clone()).or_default().clone()
    }

    /// Runs work on a blocking thread, in the caller's turn. Who gives up waiting costs nothing; what was begun is ended in its turn.
    ///
    /// # Errors
    /// 429 when too much of this caller waits already.
    pub(super) async fn beside<T: Send + 'static>(
        &self,
        identity: &Identity,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turns = self.of(identity);
        let (done, _own) = self.run(&turns, work).await?;
        Ok(done)
    }

    /// Makes the answer to a request of a caller.
    pub(super) async fn make(
        &self,
        identity: &Identity,
        made: impl Future<Output = Response> + Send + 'static,
    ) -> Response {
        let turns = self.of(identity);
        let (response, own) = match self.run(&turns, made).await {
            Ok(made) => made,
            Err(refused) => return refused.into_response(),
        };
        // The turn is kept until the answer has its bytes, so that what is made and not sent stays bounded.
        let response = counted(turns, response).await;
        drop(own);
        response
    }

    async fn run<T: Send + 'static>(
        &self,
        turns: &Turns,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<(T, OwnedSemaphorePermit), ApiError> {
        let own = turns.own(&turns.making).await?;
        let of_all = self.making.clone().acquire_owned().await.expect(CLOSED);
        let runtime = Handle::current();
        let made = tokio::task::spawn_blocking(move || {
            // In here, so that whoever hangs up holds its turns until what it asked for is made.
            let turns = (own, of_all);
            let done = runtime.block_on(work);
            (done, turns.0)
        });
        joined(made.await)
    }
}

/// The end of work on a blocking thread.
fn joined<T>(done: Result<T, JoinError>) -> Result<T, ApiError> {
    match done {
        Ok(done) => Ok(done),
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => Err(ApiError::internal("central is stopping")),
    }
}

/// An answer that counts against its caller until it is sent.
async fn counted(turns: Arc<Turns>, response: Response) -> Response {
    // A stream of events has no length: it holds nothing of what it tells.
    let Some(length) = response.body().size_hint().exact() else { return response };
    // An answer that is larger than all that a caller may have is sent when nothing else of it is.
    let units = u32::try_from(length / UNIT_BYTES as u64).unwrap_or(u32::MAX).min(UNITS_OF_CALLER_MAX);
    let held = turns.units.clone().acquire_many_owned(units).await;
    response.map(|body| Body::new(Held { body, _turns: turns, _units: held.ok() }))
}

/// A body, with what its caller has left of its bytes while it is sent.
struct Held {
    body: Body,
    /// Kept, so that the caller's next request finds them.
    _turns: Arc<Turns>,
    _units: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use axum::http::StatusCode;
    use tokio::sync::oneshot;

    use super::*;

    fn token(name: &str) -> Identity {
        Identity::Token(name.to_owned())
    }

    /// A thread that a test waits for.
    const STEP: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_answer_that_takes_a_thread_for_long_leaves_the_async_threads_free() {
        let answers = Answers::default();
        let (release, released) = std::sync::mpsc::channel::<()>();
        // The one async thread of this test releases what would hold it.
        let caller = token("a");
        let making = answers.beside(&caller, async move { released.recv_timeout(STEP).is_ok() });
        let releasing = async {
            tokio::task::yield_now().await;
            release.send(()).unwrap();
        };
        assert!(tokio::join!(making, releasing).0.unwrap());
    }

    #[tokio::test]
    async fn few_answers_are_made_at_once_fewer_of_one_caller_and_who_requests_more_waits_or_is_refused() {
        let answers = Answers::default();
        let running = Arc::new(AtomicUsize::new(0));
        let (release, _) = tokio::sync::broadcast::channel::<()>(1);
        let ask = |name: &str| {
            let (answers, running, identity) = (answers.clone(), running.clone(), token(name));
            let mut released = release.subscribe();
            tokio::spawn(async move {
                let work = async move {
                    running.fetch_add(1, Ordering::SeqCst);
                    let _ = released.recv().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                answers.beside(&identity, work).await.is_ok()
            })
        };
        let until_running = async |count: usize| {
            while running.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let mut pending: Vec<_> =
            (0..AT_ONCE_OF_CALLER_MAX + WAITING_OF_CALLER_MAX).map(|_| ask("a")).collect();
        until_running(AT_ONCE_OF_CALLER_MAX).await;
        while answers.of(&token("a")).waiting.available_permits() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!ask("a").await.unwrap(), "one more of the same caller is refused");
        // Others have their turns all the same, up to what all may have.
        pending.extend((0..2).map(|_| ask("b")));
        until_running(AT_ONCE_MAX).await;
        pending.push(ask("c"));
        let releasing = tokio::spawn({
            let release = release.clone();
            async move {
                loop {
                    let _ = release.send(());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
        for pending in pending {
            assert!(tokio::time::timeout(STEP, pending).await.unwrap().unwrap());
        }
        releasing.abort();
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_caller_that_reads_slowly_has_only_its_own_next_answers_wait() {
        let answers = Answers::default();
        let large = || async { Response::new(Body::from(vec![0; 5 << 20])) };
        let unread = answers.make(&token("a"), large()).await;
        assert_eq!((unread.status(), unread.body().size_hint().exact()), (StatusCode::OK, Some(5 << 20)));
        let caller = token("a");
        let mut next = Box::pin(answers.make(&caller, large()));
        while answers.of(&token("a")).making.available_permits() == AT_ONCE_OF_CALLER_MAX
            || answers.making.available_permits() < AT_ONCE_MAX
        {
            let polled = tokio::time::timeout(Duration::from_millis(1), &mut next).await;
            assert!(polled.is_err(), "it waits until the first is read");
        }
        let other = answers.make(&token("b"), large()).await;
        assert_eq!(other.status(), StatusCode::OK);
        drop(unread);
        tokio::time::timeout(STEP, next).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_given_up_holds_its_turn_until_it_is_made() {
        let answers = Answers::default();
        let (release, released) = oneshot::channel::<()>();
        let caller = token("a");
        let mut given_up = Box::pin(answers.beside(&caller, async move { released.await.is_ok() }));
        while answers.making.available_permits() == AT_ONCE_MAX {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut given_up).await.is_err());
        }
        drop(given_up);
        assert_eq!(answers.making.available_permits(), AT_ONCE_MAX - 1);
        release.send(()).unwrap();
        while answers.making.available_permits() < AT_ONCE_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
