//! What a session has taken in and not acknowledged yet.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::service::Rejected;

/// What is being done about a packet of the client.
pub(super) enum Work {
    /// Nothing: only its place in the order of acknowledgements counts.
    Ready,
    /// A message is being stored, or waits for room in a subscriber's queue.
    Message(BoxFuture<'static, Result<(), Rejected>>),
    /// A twin request is being answered, with topic and body.
    Twin(BoxFuture<'static, Option<(String, Bytes)>>),
}

/// One packet of the client; ends when it may be acknowledged.
pub(super) struct Pending {
    pub work: Work,
    /// Packet id of the PUBACK; 0 for none.
    pub id: u16,
    /// What it holds in memory.
    pub bytes: usize,
    /// For the log.
    pub topic: Bytes,
}

/// How it ended.
pub(super) struct Done {
    pub result: Result<Option<(String, Bytes)>, Rejected>,
    pub id: u16,
    pub bytes: usize,
    pub topic: Bytes,
}

impl Future for Pending {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let result = match &mut self.work {
            Work::Ready => Ok(None),
            Work::Message(work) => match work.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result.map(|()| None),
            },
            Work::Twin(work) => match work.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(answer) => Ok(answer),
            },
        };
        Poll::Ready(Done { result, id: self.id, bytes: self.bytes, topic: std::mem::take(&mut self.topic) })
    }
}
