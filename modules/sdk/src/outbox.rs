//! What a module said and the gateway has not answered yet: telemetry until its PUBACK, twin requests until their answer.
//! Both outlive a connection; after a cut they go out again, in their order.

use std::collections::VecDeque;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::command::{Question, Telemetry};
use crate::twin_error::{TWIN_ANSWER, TwinError};

/// Where a message stands on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not given to the MQTT client yet.
    Waiting,
    /// Given to it; the packet id is not known yet.
    HandedOver,
    /// Written under this packet id.
    InFlight(u16),
}

/// Telemetry without a PUBACK, oldest first. Its bound is the number of slots.
#[derive(Default)]
pub(crate) struct Outbox(VecDeque<(Stage, Telemetry)>);

impl Outbox {
    pub(crate) fn push(&mut self, telemetry: Telemetry) {
        self.0.push_back((Stage::Waiting, telemetry));
    }

    /// The next message to give to the MQTT client. It counts as given.
    pub(crate) fn hand_over(&mut self) -> Option<&Telemetry> {
        let (stage, telemetry) = self.0.iter_mut().find(|(stage, _)| *stage == Stage::Waiting)?;
        *stage = Stage::HandedOver;
        Some(telemetry)
    }

    /// Notes that the MQTT client wrote the oldest message it was given, under this packet id.
    pub(crate) fn written(&mut self, packet_id: u16) {
        if let Some((stage, _)) = self.0.iter_mut().find(|(stage, _)| *stage == Stage::HandedOver) {
            *stage = Stage::InFlight(packet_id);
        }
    }

    /// Tells the sender of the message with this packet id that it is done.
    pub(crate) fn acknowledged(&mut self, packet_id: u16) {
        let position = self.0.iter().position(|(stage, _)| *stage == Stage::InFlight(packet_id));
        if let Some((_, telemetry)) = position.and_then(|position| self.0.remove(position)) {
            // The sender may have given up waiting; the message was delivered all the same.
            let _ = telemetry.done.send(());
        }
    }

    /// The connection ended: everything goes out again on the next one.
    pub(crate) fn cut(&mut self) {
        self.0.iter_mut().for_each(|(stage, _)| *stage = Stage::Waiting);
    }

    /// Whether an answer may still come on this connection.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.0.iter().any(|(stage, _)| *stage != Stage::Waiting)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

struct Asked {
    question: Question,
    /// The request's id on this connection and when its answer is overdue; `None` before it went out.
    sent: Option<(String, Instant)>,
    _slot: OwnedSemaphorePermit,
}

/// Twin requests without an answer, oldest first. Their bound is the number of slots.
#[derive(Default)]
pub(crate) struct Questions(VecDeque<Asked>);

impl Questions {
    pub(crate) fn push(&mut self, question: Question, slot: OwnedSemaphorePermit) {
        self.0.push_back(Asked { question, sent: None, _slot: slot });
    }

    /// The next request to send; it counts as sent under `request_id()`.
    pub(crate) fn hand_over(
        &mut self,
        now: Instant,
        request_id: impl FnOnce() -> String,
    ) -> Option<(String, &Question)> {
        let asked = self.0.iter_mut().find(|asked| asked.sent.is_none())?;
        let id = request_id();
        asked.sent = Some((id.clone(), now + TWIN_ANSWER));
        Some((id, &asked.question))
    }

    /// Gives the answer with this id to who asked.
    pub(crate) fn answered(&mut self, request_id: &str, status: u16, version: Option<u64>, body: &[u8]) {
        let is_it = |asked: &Asked| asked.sent.as_ref().is_some_and(|(id, _)| id == request_id);
        let Some(asked) = self.0.iter().position(is_it).and_then(|position| self.0.remove(position)) else {
            return;
        };
        let refused = || TwinError::refused(status, body);
        match asked.question {
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
        self.0.iter().filter_map(|asked| asked.sent.as_ref().map(|(_, overdue)| *overdue)).min()
    }

    /// Tells those whose answer is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        let is_overdue = |asked: &Asked| asked.sent.as_ref().is_some_and(|(_, overdue)| *overdue <= now);
        while let Some(asked) = self.0.iter().position(is_overdue).and_then(|index| self.0.remove(index)) {
            match asked.question {
                Question::Get(done) => drop(done.send(Err(TwinError::NoAnswer))),
                Question::Report(_, done) => drop(done.send(Err(TwinError::NoAnswer))),
            }
        }
    }

    /// The connection ended: all are asked again on the next one. Both kinds may be repeated without harm.
    pub(crate) fn cut(&mut self) {
        self.0.iter_mut().for_each(|asked| asked.sent = None);
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
        let (mut handed, mut receivers) = (Vec::new(), Vec::new());
        for payload in ["1", "2", "3", "4"] {
            let (telemetry, acknowledged) = telemetry(payload);
            outbox.push(telemetry);
            receivers.push(acknowledged);
        }
        for packet_id in [1, 2, 3] {
            outbox.hand_over().unwrap();
            outbox.written(packet_id);
        }
        outbox.acknowledged(2);
        assert_eq!(receivers[1].try_recv(), Ok(()));
        outbox.cut();
        while let Some(telemetry) = outbox.hand_over() {
            handed.push(telemetry.payload.clone());
        }
        assert_eq!(handed, ["1", "3", "4"]);
        // A packet id of the connection before means nothing now.
        outbox.acknowledged(1);
        assert_eq!(outbox.len(), 3);
    }

    #[test]
    fn a_twin_answer_reaches_who_asked_and_an_overdue_one_is_told() {
        let mut questions = Questions::default();
        let now = Instant::now();
        let (get, mut got) = oneshot::channel();
        let (report, mut reported) = oneshot::channel();
        questions.push(Question::Get(get), slot());
        questions.push(Question::Report(Bytes::from_static(b"{}"), report), slot());
        for id in ["a", "b"] {
            assert_eq!(questions.hand_over(now, || id.to_owned()).unwrap().0, id);
        }
        questions.answered("b", 204, Some(7), b"");
        assert_eq!(reported.try_recv().unwrap().unwrap(), 7);
        questions.expire(now + TWIN_ANSWER);
        assert!(matches!(got.try_recv().unwrap(), Err(TwinError::NoAnswer)));
        assert_eq!(questions.deadline(), None);
    }
}
