//! The node `$cbs`: tokens come in, answers go out.

use amqp::codec::definitions::MessageId;
use amqp::codec::delivery_state::DeliveryState;
use amqp::engine::connection::Outgoing;
use amqp::engine::event::{Delivery, LinkId, NotSent};
use bytes::Bytes;
use edge_core::access::sas::audiences;
use edge_core::dialect::amqp::put_token::{self, Malformed, PutToken};

use super::settings::ANSWERS_MAX;
use super::state::{Driver, LoginPurpose};
use crate::service::Service;

impl<S: Service, T> Driver<S, T> {
    pub(super) fn take_token(&mut self, delivery: Delivery) {
        let requests = delivery.id.link;
        if !delivery.is_settled {
            // The request has arrived; whether the token is right is said by the answer.
            self.engine.settle(delivery.id, DeliveryState::Accepted);
        }
        let PutToken { message_id, token } = match put_token::read(delivery.payload) {
            Ok(request) => request,
            Err(Malformed { message_id, why }) => return self.answer_token(requests, message_id, 400, why),
        };
        let audiences = audiences(&token);
        let mut attempts = audiences.into_iter().map(|audience| self.token_request(audience, &token));
        let Some(first) = attempts.next() else {
            let why = "the resource of the token is no device or module";
            return self.answer_token(requests, message_id, 400, why);
        };
        // An id with a percent sign can be read in two ways; the one that somebody has is meant.
        let is_known = |request: &_| self.server.service.knows(request);
        let request = if is_known(&first) { first } else { attempts.find(is_known).unwrap_or(first) };
        self.log_in(request, LoginPurpose::Token { requests, message_id });
    }

    /// Answers a request, as soon as the client takes it.
    pub(super) fn answer_token(
        &mut self,
        requests: LinkId,
        message_id: Option<MessageId>,
        status: u16,
        description: &str,
    ) {
        if self.tokens.waiting.len() >= ANSWERS_MAX {
            // A client that attaches links and requests, and takes no answer.
            self.tokens.waiting.pop_front();
        }
        self.tokens.waiting.push_back((requests, put_token::answer(message_id, status, description)));
    }

    /// Sends the answers that wait, as far as the client has given credit: uamqp gives it after its request only.
    pub(super) fn send_answers(&mut self) {
        while let Some((requests, payload)) = self.tokens.waiting.front().cloned() {
            let Some(link) = self.tokens.link else { return };
            // Clients for .NET make a GUID of a tag, which has 16 bytes.
            let tag = Bytes::copy_from_slice(&self.tokens.sent.to_be_bytes());
            match self.engine.send(link, Outgoing { tag, payload, is_settled: true }) {
                Ok(_) | Err(NotSent::TooLarge(_)) => {
                    self.tokens.sent += 1;
                    self.tokens.waiting.pop_front();
                    self.answered(requests);
                }
                Err(NotSent::NoCredit | NotSent::TooMany) => return,
                Err(NotSent::Gone) => {
                    self.tokens.link = None;
                    return;
                }
            }
        }
    }
}
