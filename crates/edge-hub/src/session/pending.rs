//! What a session has taken in and not answered yet.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use edge_buffer::AppendError;
use edge_core::dialect::client::Subscribe;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;

use crate::journal::Stored;
use crate::service::Rejected;
use mqtt::codec::packet::SubAck;
use mqtt::codec::reason::Reason;

/// What is being done about a packet of the client.
pub(super) enum Work {
    /// Nothing: only its slot in the order of answers counts.
    Ready,
    /// It was refused; a client of MQTT 5 gets the reason.
    Refused(Reason, String),
    /// A message is being stored, or waits for space in a subscriber's queue.
    Message(BoxFuture<'static, Result<(), Rejected>>),
    /// An event is on its way to the disk.
    Stored(Stored),
    /// A twin request is being answered, with topic and body.
    Twin(BoxFuture<'static, Option<(String, Bytes)>>),
}

/// The packet that answers it.
#[derive(Debug)]
pub(super) enum Reply {
    /// QoS 0.
    Nothing,
    PubAck(u16),
    PubRec(u16),
    PubRel(u16, Reason),
    PubComp(u16, Reason),
    SubAck(Box<Subscribed>),
    UnsubAck(Box<SubAck>),
}

/// A SUBSCRIBE that was checked.
#[derive(Debug)]
pub(super) struct Subscribed {
    pub answer: SubAck,
    pub granted: Vec<Subscribe>,
    /// Whether all retained messages wait for the client that it asked for; else it is closed.
    pub is_within_replay: bool,
}

/// A packet that is answered when the journal has it, in the order in which the journal gets it. It does not wait for the
/// client's messages: they may wait for another client, and that one for these.
pub(super) struct Request {
    pub stored: Option<Stored>,
    pub reply: Reply,
}

/// Ends when the first request may be answered, or will not be; it is taken out then.
///
/// # Errors
/// When the journal does not have it.
pub(super) async fn ready(requests: &mut VecDeque<Request>) -> Result<Reply, AppendError> {
    let Some(first) = requests.front_mut() else { return std::future::pending().await };
    let stored = match &mut first.stored {
        Some(stored) => stored.await.map(drop),
        // It had nothing to store, and waited only for those before it.
        None => Ok(()),
    };
    let reply = requests.pop_front().map_or(Reply::Nothing, |request| request.reply);
    stored.map(|()| reply)
}

/// One message of the client; ends when it may be answered.
pub(super) struct Pending {
    pub work: Work,
    pub reply: Reply,
    /// What it holds in memory.
    pub bytes: usize,
    pub topic: Bytes,
}

pub(super) struct Done {
    pub result: Result<Option<(String, Bytes)>, Failed>,
    pub reply: Reply,
    pub bytes: usize,
    pub topic: Bytes,
}

/// Why it was not done.
pub(super) enum Failed {
    Rejected(Rejected),
    Refused(Reason, String),
}

/// The messages that are not answered yet, in the order of arrival. A client that says nothing has no memory for them.
#[derive(Default)]
pub(super) struct PendingQueue(Option<FuturesOrdered<Pending>>);

impl PendingQueue {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesOrdered::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push_back(&mut self, pending: Pending) {
        self.0.get_or_insert_default().push_back(pending);
    }

    /// The first of them, when it may be answered; `None` when there is none.
    pub(super) async fn next(&mut self) -> Option<Done> {
        self.0.as_mut()?.next().await
    }

    pub(super) fn give_back_memory(&mut self) {
        self.0.take_if(|pending| pending.is_empty());
    }
}

impl Future for Pending {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let result = match &mut self.work {
            Work::Ready => Ok(None),
            Work::Refused(reason, why) => Err(Failed::Refused(*reason, std::mem::take(why))),
            Work::Message(work) => match work.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result.map(|()| None).map_err(Failed::Rejected),
            },
            Work::Stored(stored) => match Pin::new(stored).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => Ok(None),
                Poll::Ready(Err(error)) => {
                    Err(Failed::Rejected(Rejected::Temporary(503, format!("not written to disk: {error}"))))
                }
            },
            Work::Twin(work) => match work.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(answer) => Ok(answer),
            },
        };
        let reply = std::mem::replace(&mut self.reply, Reply::Nothing);
        Poll::Ready(Done { result, reply, bytes: self.bytes, topic: std::mem::take(&mut self.topic) })
    }
}
