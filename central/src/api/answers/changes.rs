//! Changes are made beside the async threads too, from the reading of their bodies to their rows in the audit log.
//!
//! ```text
//! body read, within its caller's bytes (8 MiB) ──> a poll of the handler in a turn, on a blocking thread ──> woken: the next poll
//!                                                    └ 64 requests of the caller wait: 429
//! ```
//!
//! Some changes wait for minutes for a device's answer, so a change has a turn and a thread only while its handler runs: each poll takes
//! them anew. Where it once began it is never refused, since a part of it may be done.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header;
use tokio::sync::Notify;

use super::*;
use crate::api::BODY_BYTES_MAX;

/// From the end of a request's head to the last byte of its body.
const BODY_WITHIN: Duration = Duration::from_secs(30);

impl Answers {
    /// Answers a change of a caller.
    pub(in crate::api) async fn change<F>(
        &self,
        identity: &Identity,
        request: Request,
        handle: impl FnOnce(Request) -> F,
    ) -> Response
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let turns = self.of(identity);
        let changed = async {
            let (parts, body) = request.into_parts();
            let _held = turns.body(&parts.headers).await?;
            let body = read(body).await?;
            let request = Request::from_parts(parts, Body::from(body));
            self.in_polls(&turns, handle(request)).await
        };
        match changed.await {
            Ok(response) => counted(turns.clone(), response).await,
            Err(refused) => refused.into_response(),
        }
    }

    /// Runs work on blocking threads, in one of the caller's turns for each poll of it.
    async fn in_polls<T: Send + 'static>(
        &self,
        turns: &Turns,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let woken = Arc::new(Woken::default());
        let mut work: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(work);
        let mut own = turns.own(&turns.changing).await?;
        loop {
            let of_all = self.changing.clone().acquire_owned().await.expect(CLOSED);
            let waker = Waker::from(woken.clone());
            let polled = tokio::task::spawn_blocking(move || {
                let turns = (own, of_all);
                let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
                drop(turns);
                (polled, work)
            });
            match joined(polled.await)? {
                (Poll::Ready(done), _) => return Ok(done),
                (Poll::Pending, rest) => work = rest,
            }
            woken.0.notified().await;
            // Not among those that wait: a change that has begun is never refused (decision 0071).
            own = turns.changing.clone().acquire_owned().await.expect(CLOSED);
        }
    }
}

impl Turns {
    /// Waits until a body may be held in memory.
    async fn body(&self, headers: &axum::http::HeaderMap) -> Result<OwnedSemaphorePermit, ApiError> {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // Without a length it may have any.
        let unknown = if headers.contains_key(header::TRANSFER_ENCODING) { BODY_BYTES_MAX } else { 0 };
        let length = length.unwrap_or(unknown).min(BODY_BYTES_MAX);
        let units = u32::try_from(length.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(UNITS_OF_CALLER_MAX);
        if let Ok(held) = self.bodies.clone().try_acquire_many_owned(units) {
            return Ok(held);
        }
        let _place = self.place()?;
        Ok(self.bodies.clone().acquire_many_owned(units).await.expect(CLOSED))
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    read.map_err(|_| ApiError::timeout(format!("the body did not arrive within {BODY_WITHIN:?}")))?.map_err(
        |_| {
            let why = format!("the body has more than {BODY_BYTES_MAX} bytes, or ended early");
            ApiError::bad_request("InvalidBody", why)
        },
    )
}

/// Notes that a poll would do something.
#[derive(Debug, Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use tokio::sync::{Barrier, oneshot};

    use super::*;

    const STEP: Duration = Duration::from_secs(60);

    fn token(name: &str) -> Identity {
        Identity::Token(name.to_owned())
    }

    fn put(body: Body, length: Option<usize>) -> Request {
        let request = Request::builder().method(Method::PUT);
        match length {
            Some(length) => request.header(header::CONTENT_LENGTH, length),
            None => request.header(header::TRANSFER_ENCODING, "chunked"),
        }
        .body(body)
        .unwrap()
    }

    #[tokio::test]
    async fn a_change_that_takes_a_thread_for_long_leaves_the_async_threads_free() {
        let answers = Answers::default();
        let (release, released) = std::sync::mpsc::channel::<()>();
        // The one async thread of this test releases what would hold it.
        let caller = token("a");
        let making = answers.change(&caller, put(Body::from("{}"), Some(2)), |_| async move {
            // Behind a wait too.
            tokio::task::yield_now().await;
            released.recv_timeout(STEP).unwrap();
            StatusCode::OK.into_response()
        });
        let releasing = async {
            tokio::task::yield_now().await;
            release.send(()).unwrap();
        };
        assert_eq!(tokio::join!(making, releasing).0.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn changes_that_wait_for_others_hold_neither_turns_nor_threads_and_all_of_them_end() {
        const CHANGES: usize = 200;
        let answers = Answers::default();
        let waiting = Arc::new(Barrier::new(CHANGES + 1));
        let mut changes = Vec::new();
        for _ in 0..CHANGES {
            // As many at once as may wait for their first turn.
            while answers.of(&token("a")).waiting.available_permits() == 0 {
                tokio::task::yield_now().await;
            }
            let (answers, waiting) = (answers.clone(), waiting.clone());
            changes.push(tokio::spawn(async move {
                let handle = |_| async move {
                    waiting.wait().await;
                    StatusCode::NO_CONTENT.into_response()
                };
                answers.change(&token("a"), put(Body::empty(), Some(0)), handle).await.status()
            }));
            tokio::task::yield_now().await;
        }
        while answers.changing.available_permits() < AT_ONCE_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The same caller reads meanwhile.
        let caller = token("a");
        let read = answers.make(&caller, async { StatusCode::OK.into_response() });
        assert_eq!(tokio::time::timeout(STEP, read).await.unwrap().status(), StatusCode::OK);
        tokio::time::timeout(STEP, waiting.wait()).await.unwrap();
        for change in changes {
            assert_eq!(change.await.unwrap(), StatusCode::NO_CONTENT);
        }
    }

    /// As a connection of the store is promised to who waits for it first.
    #[tokio::test]
    async fn answers_that_wait_for_what_is_promised_to_a_change_do_not_keep_the_change_from_its_turn() {
        let answers = Answers::default();
        let connection = Arc::new(tokio::sync::Semaphore::new(0));
        let waits = |connection: &Arc<tokio::sync::Semaphore>| {
            let connection = connection.clone();
            async move {
                let _held = connection.acquire().await.unwrap();
                StatusCode::OK.into_response()
            }
        };
        let (of, work) = (answers.clone(), waits(&connection));
        let (begin, begun) = oneshot::channel();
        let work = async move {
            begin.send(()).unwrap();
            work.await
        };
        let change = tokio::spawn(async move {
            of.change(&token("a"), put(Body::empty(), Some(0)), |_| work).await.status()
        });
        // The change waits for it first.
        tokio::time::timeout(STEP, begun).await.unwrap().unwrap();
        tokio::time::timeout(STEP, async {
            while answers.changing.available_permits() < AT_ONCE_MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        let reads: Vec<_> = (0..AT_ONCE_OF_CALLER_MAX)
            .map(|_| {
                let (of, work) = (answers.clone(), waits(&connection));
                tokio::spawn(async move { of.make(&token("a"), work).await.status() })
            })
            .collect();
        tokio::time::timeout(STEP, async {
            while answers.of(&token("a")).making.available_permits() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        connection.add_permits(1);
        let all = async {
            assert_eq!(change.await.unwrap(), StatusCode::OK);
            for read in reads {
                assert_eq!(read.await.unwrap(), StatusCode::OK);
            }
        };
        tokio::time::timeout(STEP, all).await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_whose_bodies_come_slowly_has_only_its_own_next_changes_wait() {
        let answers = Answers::default();
        let done = |_| async { StatusCode::OK.into_response() };
        let mut slow = Vec::new();
        for length in std::iter::repeat_n(None, (8 << 20) / BODY_BYTES_MAX) {
            let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
            let answers = answers.clone();
            slow.push(tokio::spawn(async move {
                answers.change(&token("a"), put(body, length), done).await.status()
            }));
        }
        let bodies = answers.of(&token("a")).bodies.clone();
        while bodies.available_permits() * UNIT_BYTES >= BODY_BYTES_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let caller = token("a");
        let mut next = Box::pin(answers.change(&caller, put(Body::empty(), None), done));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err());
        let other = answers.change(&token("b"), put(Body::from("{}"), Some(2)), done).await;
        assert_eq!(other.status(), StatusCode::OK);
        for slow in slow {
            slow.abort();
        }
        assert_eq!(tokio::time::timeout(STEP, next).await.unwrap().status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_refused_before_its_handler_begins() {
        let answers = Answers::default();
        for length in [None, Some(BODY_BYTES_MAX + 1)] {
            let (begun, has_begun) = oneshot::channel::<()>();
            let body = Body::from(vec![b' '; BODY_BYTES_MAX + 1]);
            let caller = token("a");
            let answer = answers.change(&caller, put(body, length), |_| async move {
                let _ = begun.send(());
                StatusCode::OK.into_response()
            });
            assert_eq!(answer.await.status(), StatusCode::BAD_REQUEST);
            assert!(has_begun.await.is_err());
        }
    }
}
