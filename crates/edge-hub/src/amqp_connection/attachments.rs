//! Identities that have links: they are connected clients, as those of MQTT are.

use std::sync::Arc;

use amqp::codec::performative::Attach;
use amqp::engine::event::LinkId;
use edge_buffer::Fence;
use edge_core::dialect::amqp::error_condition::ErrorCondition;
use mqtt::codec::packet::Version;
use mqtt::codec::reason::Reason;
use schemas::names::Identity;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::settings::{DELIVERY_BYTES_MAX, IDENTITY_LINKS_MAX, TELEMETRY_WINDOW};
use super::state::{Attachment, Closing, Driver, Link, Member};
use super::window::Window;
use crate::close_handle::CloseHandle;
use crate::counts::count;
use crate::quota::{Resource, Used};
use crate::service::{Client, Login, Service};

impl<S: Service, T> Driver<S, T> {
    /// Attaches a link of an identity that was proven.
    pub(super) fn attach_telemetry(&mut self, link: LinkId, attach: &Attach, from: &Identity) {
        let Some(member) = self.members.get(from) else {
            return self.refuse(link, ErrorCondition::Unauthorized, &format!("no token of {from} was put"));
        };
        let links = member.attachment.as_ref().map_or(0, |attachment| attachment.links);
        if links >= IDENTITY_LINKS_MAX {
            let why = format!("more than {IDENTITY_LINKS_MAX} links of {from}");
            return self.refuse(link, ErrorCondition::ResourceLimit, &why);
        }
        let held = match (links, self.admissible(from, &member.login)) {
            (1.., _) => None,
            (0, Ok(held)) => Some(held),
            (0, Err((condition, why))) => return self.refuse(link, condition, &why),
        };
        let window = Window::new(TELEMETRY_WINDOW);
        if !self.accept(link, attach, DELIVERY_BYTES_MAX) {
            return;
        }
        self.engine.grant(link, window.max());
        self.links.insert(link, Link::Telemetry { from: from.clone(), window });
        if let Some(held) = held {
            self.enter(from, held);
        }
        if let Some(attachment) = self.attachment(from) {
            attachment.links += 1;
        }
    }

    /// Whether an identity may become a connected client, with its share of connections.
    fn admissible(&self, from: &Identity, login: &Login) -> Result<Used, (ErrorCondition, String)> {
        // The proof may be worth nothing since it was shown.
        if let Err(denied) = self.server.service.authorize(from, login) {
            return Err((ErrorCondition::Unauthorized, denied.to_string()));
        }
        let takes_over = self.server.clients.is_connected(from);
        let usage = self.server.broker.quotas.of_session(&from.to_string());
        usage.hold(Resource::Connections, takes_over).map_err(|exceeded| {
            count(&self.server.counts().quotas_exceeded);
            (ErrorCondition::ResourceLimit, exceeded.to_string())
        })
    }

    /// Enters an identity as a connected client. An older connection of it ends, whatever that one speaks.
    fn enter(&mut self, from: &Identity, held: Used) {
        let Some(member) = self.members.get_mut(from) else { return };
        let (server, peer) = (&self.server, self.caller.peer);
        // Its own end: the end of all is the task's to see.
        let close = Arc::new(CloseHandle::new(&CancellationToken::new()));
        let number = server.clients.number();
        let queue = server.broker.queue_of_connection(&from.to_string());
        let client = Client { identity: from.clone(), connection: number, peer, login: member.login.clone() };
        // Nothing of MQTT is sent to it: it holds no subscription.
        let connection = server.clients.enter(client, Version::V4, queue, close.clone());
        info!(client = %from, %peer, "client connected over AMQP");
        count(&server.broker.counts.connects);
        let identity = from.clone();
        self.closings.push(Box::pin(async move {
            let why = close.closed().await.map(|(why, reason)| (why.to_owned(), reason));
            Closing { identity, number, why }
        }));
        // Among those that a review checks by now, so no change falls between the two.
        connection.authorize(|identity, login| server.service.authorize(identity, login));
        server.clients.changed();
        server.service.connected(&connection.client);
        let (fence, links, full_since) = (Fence::default(), 0, None);
        member.attachment = Some(Attachment { connection, links, fence, full_since, _held: held });
    }

    pub(super) fn attachment(&mut self, from: &Identity) -> Option<&mut Attachment> {
        self.members.get_mut(from)?.attachment.as_mut()
    }

    /// The client has proven an identity anew. What it has goes on with the new proof.
    pub(super) fn renew(&mut self, identity: &Identity) {
        let (server, peer) = (self.server.clone(), self.caller.peer);
        let Some(member) = self.members.get_mut(identity) else { return };
        let login = member.login.clone();
        let Some(attachment) = &mut member.attachment else { return };
        // Otherwise a newer connection has taken over, and its close handle says so.
        if let Some(renewed) = server.clients.renew(&attachment.connection, login) {
            renewed.authorize(|identity, login| server.service.authorize(identity, login));
            attachment.connection = renewed;
            info!(client = %identity, %peer, "client has proven its identity anew");
        }
    }

    /// A link of an identity is gone.
    pub(super) fn link_left(&mut self, from: &Identity) {
        let Some(attachment) = self.attachment(from) else { return };
        attachment.links = attachment.links.saturating_sub(1);
        if attachment.links == 0 {
            self.leave(from, "the client detached its links");
        }
    }

    /// Somebody else closed an attachment: a newer connection, a review or an operator.
    pub(super) fn closed_elsewhere(&mut self, closing: Closing) {
        let Closing { identity, number, why } = closing;
        let is_current = |attachment: &mut Attachment| attachment.connection.client.connection == number;
        if !self.attachment(&identity).is_some_and(is_current) {
            return;
        }
        let Some((why, reason)) = why else { return };
        let condition = match reason {
            Reason::SESSION_TAKEN_OVER => ErrorCondition::Stolen,
            Reason::NOT_AUTHORIZED => ErrorCondition::Unauthorized,
            _ => ErrorCondition::ConnectionForced,
        };
        if reason == Reason::NOT_AUTHORIZED {
            // Its proof is worth nothing any more.
            self.detach_all(&identity, condition, &why);
            self.forget(&identity);
        } else {
            self.detach_all(&identity, condition, &why);
        }
    }

    /// Ends what has a proof that is worth nothing any more.
    pub(super) fn expire_members(&mut self, now: Instant) {
        let is_over = |member: &Member| member.ends_at.is_some_and(|at| at <= now);
        let expired: Vec<(Identity, &'static str)> = self
            .members
            .iter()
            .filter(|(_, member)| is_over(member))
            .map(|(identity, member)| (identity.clone(), member.login.proof.expired()))
            .collect();
        for (identity, why) in expired {
            self.detach_all(&identity, ErrorCondition::Unauthorized, why);
            self.forget(&identity);
        }
        self.expires_at = self.members.values().filter_map(|member| member.ends_at).min();
    }

    /// Forgets a proof. A connection without any has the time again that a new one has: it must not keep a slot for ever.
    fn forget(&mut self, identity: &Identity) {
        self.members.remove(identity);
        if self.members.is_empty() {
            self.deadline = Instant::now() + self.server.settings.connect_timeout;
        }
    }

    /// Detaches the links of an identity. The connection goes on for the others.
    pub(super) fn detach_all(&mut self, identity: &Identity, condition: ErrorCondition, why: &str) {
        let is_of = |link: &Link| matches!(link, Link::Telemetry { from, .. } if from == identity);
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| is_of(link)).map(|(id, _)| *id).collect();
        for link in links {
            self.links.remove(&link);
            self.engine.detach(link, Some(condition.error(why)));
        }
        self.leave(identity, why);
    }

    /// An identity is no connected client any more.
    pub(super) fn leave(&mut self, identity: &Identity, why: &str) {
        let attachment = self.members.get_mut(identity).and_then(|member| member.attachment.take());
        let Some(attachment) = attachment else { return };
        let (server, connection) = (&self.server, &attachment.connection);
        let was_current = server.clients.leave(connection);
        count(&server.broker.counts.disconnects);
        info!(client = %identity, %why, "client disconnected");
        if was_current {
            server.service.disconnected(&connection.client, why);
        }
        // Ends the wait for its end.
        connection.end(why, Reason::SUCCESS);
        if !connection.session_queue.close().is_empty() {
            warn!(client = %identity, "messages for a client were dropped with its AMQP connection");
        }
    }
}
