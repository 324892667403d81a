//! What a module said and the gateway has not answered yet: telemetry until its PUBACK, twin requests until their answer.
//! Both outlive a connection; after a cut they go out again, in their order.

use std::collections::VecDeque;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::command::{Question, Telemetry};
use crate::twin_error::{TWIN_ANSWER, TwinError};

/// Telemetry without a PUBACK, oldest first, with the packet id of what was sent on this connection. Its bound is the
/// number of slots.
#[derive(Default)]
pub(crate) struct Outbox(VecDeque<(Option<u16>, Telemetry)>);

impl Outbox {
    pub(crate) fn push(&mut self, telemetry: Telemetry) {
        self.0.push_back((None, telemetry));
    }

    /// Sends everything that this connection has not sent yet. `send` returns the packet id.
    pub(crate) fn send_with(&mut self, mut send: impl FnMut(&Telemetry) -> u16) {
        for (packet_id, telemetry) in self.0.iter_mut().filter(|(packet_id, _)| packet_id.is_none()) {
            *packet_id = Some(send(telemetry));
        }
    }

    /// Resolves the `send` of the message with this packet id.
    pub(crate) fn acknowledged(&mut self, packet_id: u16) {
        let position = self.0.iter().position(|(sent, _)| *sent == Some(packet_id));
        if let Some((_, telemetry)) = position.and_then(|position| self.0.remove(position)) {
            // The sender may have given up waiting; the message was delivered all the same.
            let _ = telemetry.done.send(());
        }
    }

    /// The connection ended: everything goes out again on the next one.
    pub(crate) fn cut(&mut self) {
        self.0.iter_mut().for_each(|(packet_id, _)| *packet_id = None);
    }

    /// Whether an answer may still come on this connection.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.0.iter().any(|(packet_id, _)| packet_id.is_some())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

struct PendingQuestion {
    question: Question,
    /// The request's id on this connection and when its answer is overdue; `None` before it went out.
    sent: Option<(String, Instant)>,
    _slot: OwnedSemaphorePermit,
}

/// Twin requests without an answer, oldest first. Their bound is the number of slots.
#[derive(Default)]
pub(crate) struct Questions(VecDeque<PendingQuestion>);

impl Questions {
    pub(crate) fn push(&mut self, question: Question, slot: OwnedSemaphorePermit) {
        self.0.push_back(PendingQuestion { question, sent: None, _slot: slot });
    }

    /// The next request to send; it counts as sent under `request_id()`.
    pub(crate) fn next(
        &mut self,
        now: Instant,
        request_id: impl FnOnce() -> String,
    ) -> Option<(String, &Question)> {
        let pending = self.0.iter_mut().find(|pending| pending.sent.is_none())?;
        let id = request_id();
        pending.sent = Some((id.clone(), now + TWIN_ANSWER));
        Some((id, &pending.question))
    }

    /// Gives the answer with this id to its request.
    pub(crate) fn answered(&mut self, request_id: &str, status: u16, version: Option<u64>, body: &[u8]) {
        let is_it = |pending: &PendingQuestion| pending.sent.as_ref().is_some_and(|(id, _)| id == request_id);
        let Some(pending) = self.0.iter().position(is_it).and_then(|position| self.0.remove(position)) else {
            return;
        };
        let refused = || TwinError::refused(status, body);
        match pending.question {
            Question::Get(done) => {
                let twin = if status == 200 { serde_json::from_slice(body).ok() } else { None };
                let _ = done.send(twin.ok_or_else(refused));
            }
            Question::Report(_, done) => {
                let _ = done.send(version.filter(|_| status < 300).ok_or_else(refused));
            }
        }
    }

    /// When the first answer is overdue.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|pending| pending.sent.as_ref().map(|(_, overdue)| *overdue)).min()
    }

    /// Tells those whose answer is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        let is_overdue =
            |pending: &PendingQuestion| pending.sent.as_ref().is_some_and(|(_, overdue)| *overdue <= now);
        while let Some(pending) = self.0.iter().position(is_overdue).and_then(|index| self.0.remove(index)) {
            match pending.question {
                Question::Get(done) => drop(done.send(Err(TwinError::NoAnswer))),
                Question::Report(_, done) => drop(done.send(Err(TwinError::NoAnswer))),
            }
        }
    }

    /// The connection ended: all are sent again on the next one. Both kinds may be repeated without harm.
    pub(crate) fn cut(&mut self) {
        self.0.iter_mut().for_each(|pending| pending.sent = None);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use std::sync::Arc;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    fn slot() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    fn telemetry(payload: &'static str) -> (Telemetry, oneshot::Receiver<()>) {
        let (done, acknowledged) = oneshot::channel();
        let payload = Bytes::from_static(payload.as_bytes());
        (Telemetry { topic: "t".into(), payload, done, _slot: slot() }, acknowledged)
    }

    #[test]
    fn what_was_not_acknowledged_before_a_cut_goes_out_again_in_order() {
        let mut outbox = Outbox::default();
        let (mut sent_again, mut receivers) = (Vec::new(), Vec::new());
        for payload in ["1", "2", "3", "4"] {
            let (telemetry, acknowledged) = telemetry(payload);
            outbox.push(telemetry);
            receivers.push(acknowledged);
        }
        let mut packet_id = 0;
        outbox.send_with(|_| {
            packet_id += 1;
            packet_id
        });
        assert!(outbox.is_awaiting());
        outbox.acknowledged(2);
        assert_eq!(receivers[1].try_recv(), Ok(()));
        outbox.cut();
        assert!(!outbox.is_awaiting());
        // A packet id of the connection before means nothing now.
        outbox.acknowledged(1);
        outbox.send_with(|telemetry| {
            sent_again.push(telemetry.payload.clone());
            10
        });
        assert_eq!(sent_again, ["1", "3", "4"]);
        assert_eq!(outbox.len(), 3);
    }

    #[test]
    fn a_twin_answer_reaches_who_requested_it_and_an_overdue_one_is_reported() {
        let mut questions = Questions::default();
        let now = Instant::now();
        let (get, mut got) = oneshot::channel();
        let (report, mut reported) = oneshot::channel();
        questions.push(Question::Get(get), slot());
        questions.push(Question::Report(Bytes::from_static(b"{}"), report), slot());
        for id in ["a", "b"] {
            assert_eq!(questions.next(now, || id.to_owned()).unwrap().0, id);
        }
        questions.answered("b", 204, Some(7), b"");
        assert_eq!(reported.try_recv().unwrap().unwrap(), 7);
        questions.expire(now + TWIN_ANSWER);
        assert!(matches!(got.try_recv().unwrap(), Err(TwinError::NoAnswer)));
        assert_eq!(questions.deadline(), None);
    }
}
