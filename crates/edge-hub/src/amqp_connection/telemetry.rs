//! Telemetry of an identity: taken in the order of arrival, answered when it is on disk.

use std::time::Duration;

use amqp::codec::delivery_state::{DeliveryState, Rejected as RejectedState};
use amqp::engine::event::Delivery;
use edge_buffer::Fence;
use edge_core::dialect::amqp::error_condition::ErrorCondition;
use edge_core::dialect::amqp::message::{self, Telemetry};
use edge_core::error_chain::chain;
use futures_util::future::{BoxFuture, join_all};
use schemas::bag::{MESSAGE_BYTES_MAX, PropertyBag};
use schemas::names::Identity;
use tokio::time::Instant;
use tracing::warn;

use super::state::{Attachment, Driver, Stored};
use crate::counts::count;
use crate::message::TELEMETRY_TOPIC_BYTES_MAX;
use crate::quota::{Rate, Usage};
use crate::sanitized::Sanitized;
use crate::service::{Client, Rejected, Service};

/// What a message that is being stored holds besides its payload: its future, its slots in queues.
const PENDING_BYTES: usize = 512;
/// Between two lines of one client about a queue without space.
const FULL_LOGGED_EVERY: Duration = Duration::from_secs(60);

impl<S: Service, T> Driver<S, T> {
    pub(super) fn take_telemetry(&mut self, from: &Identity, delivery: Delivery) {
        let Delivery { id, message_format, is_settled, payload, .. } = delivery;
        let bytes = payload.len();
        let Some(attachment) = self.members.get(from).and_then(|member| member.attachment.as_ref()) else {
            return;
        };
        let (connection, fence) = (attachment.connection.clone(), attachment.fence.clone());
        if fence.is_set() {
            // Its links are being detached, and all of this is sent again.
            return;
        }
        let read = message::telemetry(message_format, payload)
            .map_err(|error| (error.condition(), chain(&error).to_string()))
            .and_then(within_size);
        let messages = match read {
            Ok(messages) => messages,
            Err((condition, why)) => {
                count(&self.server.counts().publishes_refused);
                self.log_refused(from, &why);
                if !is_settled {
                    self.engine.settle(id, rejected(condition, &why));
                }
                return self.answered(id.link);
            }
        };
        let held = bytes + messages.len() * PENDING_BYTES;
        self.count_rates(&connection.session_queue.usage, messages.len(), bytes);
        let stored = self.store(messages, from, &connection.client, &fence);
        self.pending_bytes += held;
        let (from, number) = (from.clone(), connection.client.connection);
        self.pending.push(Box::pin(async move {
            let result = stored.await;
            Stored { delivery: id, is_settled, from, number, result, bytes: held }
        }));
    }

    /// Gives the messages of a delivery to the service, in their order. The future ends when all of them are on disk, or are not.
    fn store(
        &self,
        mut messages: Vec<Telemetry>,
        from: &Identity,
        client: &Client,
        fence: &Fence,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let service = &self.server.service;
        let store = |Telemetry { bag, body }| service.telemetry(client, from.clone(), bag, body, Some(fence));
        if messages.len() == 1
            && let Some(one) = messages.pop()
        {
            return store(one);
        }
        let stored: Vec<_> = messages.into_iter().map(store).collect();
        Box::pin(async move { worst(join_all(stored).await) })
    }

    fn count_rates(&mut self, usage: &Usage, messages: usize, bytes: usize) {
        let mut done = [0; Rate::COUNT];
        done[Rate::Packets as usize] = 1;
        done[Rate::Messages as usize] = messages as u64;
        done[Rate::Bytes as usize] = bytes as u64;
        if let Some(until) = usage.count(done) {
            count(&self.server.counts().clients_paused);
            self.paused_until = self.paused_until.max(Some(until));
        }
    }

    /// Answers a delivery whose fate is known.
    pub(super) fn settle(&mut self, stored: Stored) {
        let Stored { delivery, is_settled, from, number, result, bytes } = stored;
        self.pending_bytes -= bytes;
        let outcome = match result {
            Ok(()) => DeliveryState::Accepted,
            Err(Rejected::Wrong(status, why)) => {
                count(&self.server.counts().messages_wrong);
                self.log_refused(&from, &format!("{status}, dropped: {why}"));
                rejected(ErrorCondition::of_status(status), &why)
            }
            Err(Rejected::Full(why)) => {
                count(&self.server.counts().messages_without_space);
                self.note_full(&from, &why);
                // SDKs send what was released again.
                DeliveryState::Released
            }
            Err(Rejected::Temporary(status, why)) => {
                self.log_refused(&from, &format!("{status}, for now, not accepted: {why}"));
                let is_current = |at: &mut Attachment| at.connection.client.connection == number;
                if self.attachment(&from).is_some_and(is_current) {
                    let why = "a message could not be taken now";
                    self.detach_all(&from, ErrorCondition::Internal, why);
                }
                return;
            }
        };
        if !is_settled {
            self.engine.settle(delivery, outcome);
        }
        self.answered(delivery.link);
    }

    /// Logs the first message that there is no space for, and one a minute: a disk that is full must not get a line for each.
    fn note_full(&mut self, from: &Identity, why: &str) {
        let Some(attachment) = self.attachment(from) else { return };
        if attachment.full_since.is_none_or(|since| since.elapsed() >= FULL_LOGGED_EVERY) {
            attachment.full_since = Some(Instant::now());
            self.log_refused(from, &format!("it does not fit: {why}"));
        }
    }

    fn log_refused(&self, from: &Identity, why: &str) {
        let peer = self.caller.peer;
        warn!(client = %from, %peer, "message refused: {}", Sanitized(why));
    }
}

/// No message may be larger than over MQTT: one in a batch neither.
fn within_size(messages: Vec<Telemetry>) -> Result<Vec<Telemetry>, (ErrorCondition, String)> {
    let is_too_large = |one: &Telemetry| one.bag.message_bytes(&one.body) > MESSAGE_BYTES_MAX;
    if messages.iter().any(is_too_large) {
        return Err((
            ErrorCondition::MessageSize,
            format!("a message of more than {MESSAGE_BYTES_MAX} bytes"),
        ));
    }
    if !messages.iter().all(|one| fits_in_a_topic(&one.bag)) {
        let why = format!("a property bag of more than {TELEMETRY_TOPIC_BYTES_MAX} bytes");
        return Err((ErrorCondition::MessageSize, why));
    }
    Ok(messages)
}

/// Whether a bag is short enough for a topic: upstream gets it as one.
fn fits_in_a_topic(bag: &PropertyBag) -> bool {
    // Percent-encoding makes three bytes of one at worst; a bag that is small even so is not written for this.
    let longest = bag.message_bytes(&[]) * 3 + bag.iter().count() * 2;
    longest <= TELEMETRY_TOPIC_BYTES_MAX || bag.to_string().len() <= TELEMETRY_TOPIC_BYTES_MAX
}

/// The result of a batch: one message that can be sent again decides for all, or it would be lost.
fn worst(results: Vec<Result<(), Rejected>>) -> Result<(), Rejected> {
    let rank = |rejected: &Rejected| match rejected {
        Rejected::Wrong(..) => 0,
        Rejected::Full(_) => 1,
        Rejected::Temporary(..) => 2,
    };
    results.into_iter().filter_map(Result::err).max_by_key(rank).map_or(Ok(()), Err)
}

fn rejected(condition: ErrorCondition, why: &str) -> DeliveryState {
    DeliveryState::Rejected(RejectedState { error: Some(condition.error(why)) })
}
