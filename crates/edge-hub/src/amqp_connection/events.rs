//! What each event of the engine does.

use amqp::codec::definitions::Role;
use amqp::codec::performative::Attach;
use amqp::codec::sasl::Code;
use amqp::codec::terminus::AnyTarget;
use amqp::engine::event::{Closure, Credentials, Delivery, Event, LinkId};
use edge_core::dialect::amqp::address::{self, Purpose};
use edge_core::dialect::amqp::error_condition::ErrorCondition;
use tracing::{debug, warn};

use super::settings::{CBS_LINKS_MAX, TOKEN_BYTES_MAX, TOKENS_WINDOW};
use super::state::{Driver, End, Link, LoginPurpose};
use super::window::Window;
use crate::sanitized::Sanitized;
use crate::service::Service;

impl<S: Service, T> Driver<S, T> {
    pub(super) fn on(&mut self, event: Event) {
        match event {
            Event::Authenticate(Credentials::Plain(credentials)) => self.log_in_plain(credentials),
            Event::Authenticate(Credentials::Anonymous | Credentials::External(_)) => {
                self.engine.authenticated(Code::Ok);
            }
            Event::Opened(open) => {
                let (peer, container) = (self.caller.peer, Sanitized(&open.container_id));
                debug!(%peer, %container, "AMQP connection opened");
            }
            Event::Attach(link, attach) => self.attach(link, attach),
            // Answers are sent when there is credit; a client that drains has no answer to come.
            Event::Credit { link, is_drain, .. } => {
                self.send_answers();
                if is_drain {
                    self.engine.drained(link);
                }
            }
            Event::Delivery(delivery) => self.deliver(delivery),
            // What is sent to clients is sent settled.
            Event::Outcome { .. } => {}
            Event::Detached(link, _) => self.detached(link),
            Event::Closed(closure) => self.closed(closure),
        }
    }

    /// Ends the connection, with an error for the client once what was taken in is answered.
    pub(super) fn close(&mut self, condition: ErrorCondition, why: &str) {
        if self.end.is_none() {
            self.end = Some(End { why: why.to_owned(), error: Some(condition.error(why)) });
        }
    }

    fn closed(&mut self, closure: Closure) {
        let peer = self.caller.peer;
        let why = match closure {
            Closure::Client(None) => "the client closed the connection".to_owned(),
            Closure::Client(Some(error)) => {
                let description = error.description.unwrap_or_default();
                format!("the client closed the connection: {} {description}", error.condition)
            }
            Closure::Fault(error) => {
                let why = error.description.unwrap_or_else(|| error.condition.to_string());
                warn!(%peer, "AMQP connection ended: {}", Sanitized(&why));
                format!("refused: {why}")
            }
            Closure::Server => "closed by the server".to_owned(),
            Closure::TimedOut => {
                warn!(%peer, "connection refused: no AMQP open within the connect timeout");
                "no open within the connect timeout".to_owned()
            }
        };
        self.end.get_or_insert(End { why, error: None });
    }

    fn attach(&mut self, link: LinkId, attach: Box<Attach>) {
        let address = match attach.role {
            Role::Sender => match &attach.target {
                Some(AnyTarget::Node(target)) => target.address.as_deref(),
                _ => None,
            },
            Role::Receiver => attach.source.as_ref().and_then(|source| source.address.as_deref()),
        };
        let Some(address) = address else {
            return self.refuse(link, ErrorCondition::InvalidField, "the attach names no address");
        };
        match address::parse(attach.role, address) {
            Ok(Purpose::TokenRequests | Purpose::TokenAnswers) => self.attach_cbs(link, attach),
            Ok(Purpose::Telemetry { from }) if self.members.contains_key(&from) => {
                self.attach_telemetry(link, &attach, &from);
            }
            Ok(Purpose::Telemetry { from }) => match self.certificate_request(&from) {
                Some(request) => self.log_in(request, LoginPurpose::Attach { link, attach, from }),
                None => {
                    self.refuse(link, ErrorCondition::Unauthorized, &format!("no token of {from} was put"))
                }
            },
            Err(error) => self.refuse(link, error.condition(), &error.to_string()),
        }
    }

    fn attach_cbs(&mut self, link: LinkId, attach: Box<Attach>) {
        let is_cbs = |link: &&Link| !matches!(link, Link::Telemetry { .. });
        if self.links.values().filter(is_cbs).count() >= CBS_LINKS_MAX {
            return self.refuse(link, ErrorCondition::ResourceLimit, "too many links to $cbs");
        }
        if !self.accept(link, &attach, TOKEN_BYTES_MAX) {
            return;
        }
        match attach.role {
            Role::Sender => {
                let window = Window::new(TOKENS_WINDOW);
                self.engine.grant(link, window.max());
                self.links.insert(link, Link::TokenRequests(window));
            }
            Role::Receiver => {
                self.tokens.link = Some(link);
                self.links.insert(link, Link::TokenAnswers);
            }
        }
    }

    /// Answers an attach with what the client wrote, and the longest message that is taken there. False if the link is gone.
    pub(super) fn accept(&mut self, link: LinkId, attach: &Attach, bytes_max: u64) -> bool {
        let answer = Attach {
            source: attach.source.clone(),
            target: attach.target.clone(),
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode: attach.rcv_settle_mode,
            max_message_size: Some(bytes_max),
            ..Attach::default()
        };
        self.engine.accept(link, answer)
    }

    pub(super) fn refuse(&mut self, link: LinkId, condition: ErrorCondition, why: &str) {
        let peer = self.caller.peer;
        warn!(%peer, condition = condition.name(), "AMQP link refused: {}", Sanitized(why));
        self.engine.refuse(link, condition.error(why));
    }

    fn deliver(&mut self, delivery: Delivery) {
        match self.links.get_mut(&delivery.id.link) {
            Some(Link::TokenRequests(window)) => {
                window.arrived();
                self.take_token(delivery);
            }
            Some(Link::Telemetry { from, window }) => {
                window.arrived();
                let from = from.clone();
                self.take_telemetry(&from, delivery);
            }
            // A link that was detached here a moment ago.
            Some(Link::TokenAnswers) | None => {}
        }
    }

    /// A delivery of a link was answered.
    pub(super) fn answered(&mut self, link: LinkId) {
        if let Some(Link::TokenRequests(window) | Link::Telemetry { window, .. }) = self.links.get_mut(&link)
            && let Some(credit) = window.answered()
        {
            self.engine.grant(link, credit);
        }
    }

    fn detached(&mut self, link: LinkId) {
        match self.links.remove(&link) {
            Some(Link::Telemetry { from, .. }) => self.link_left(&from),
            Some(Link::TokenAnswers) => {
                self.tokens.link.take_if(|answers| *answers == link);
            }
            Some(Link::TokenRequests(_)) | None => {}
        }
    }
}
