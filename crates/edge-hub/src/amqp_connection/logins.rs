//! Proofs: SASL PLAIN, tokens to `$cbs`, and client certificates. They are checked one after the other, by what checks CONNECTs.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use amqp::codec::sasl::{Code, PlainCredentials, SecretBytes};
use edge_core::access::sas::Audience;
use edge_core::access::secret::Secret;
use edge_core::dialect::amqp::error_condition::ErrorCondition;
use edge_core::dialect::amqp::plain;
use schemas::names::Identity;
use tracing::warn;

use super::settings::{IDENTITIES_MAX, REFUSED_PAUSE};
use super::state::{Driver, LoginAttempt, LoginDone, LoginPurpose, Member};
use crate::login::{authenticated, from_now, note_refusal};
use crate::sanitized::Sanitized;
use crate::service::{Admitted, ConnectRequest, Login, Refusal, Service, Transport};

/// What refusals name as the protocol.
const PROTOCOL: &str = "AMQP";

impl<S: Service, T> Driver<S, T> {
    pub(super) fn log_in_plain(&mut self, credentials: PlainCredentials) {
        let PlainCredentials { authentication_id, password: SecretBytes(password), .. } = credentials;
        let Some(audience) = plain::audience(&authentication_id) else {
            let (peer, user) = (self.caller.peer, Sanitized(&authentication_id));
            warn!(%peer, %user, "connection refused: a user name of SASL PLAIN is not DEVICE@sas.HUB");
            return self.engine.authenticated(Code::Auth);
        };
        let password = Some(Secret::new(password.to_vec()));
        let request = ConnectRequest { password, ..self.request(&audience) };
        self.log_in(request, LoginPurpose::Sasl);
    }

    /// The login that a token is for.
    pub(super) fn token_request(&self, audience: Audience, token: &str) -> ConnectRequest {
        let password = Some(Secret::new(token.as_bytes().to_vec()));
        ConnectRequest { password, ..self.request(&audience) }
    }

    /// The login of an identity by the certificate of the TLS handshake; `None` if there was none.
    pub(super) fn certificate_request(&self, who: &Identity) -> Option<ConnectRequest> {
        let Transport::Tls(Some(_)) = &self.caller.transport else { return None };
        Some(self.request(&Audience { host: String::new(), identity: who.clone() }))
    }

    /// As a CONNECT of the same client would be: services know no other.
    fn request(&self, audience: &Audience) -> ConnectRequest {
        let client_id = audience.identity.to_string();
        ConnectRequest {
            user_name: Some(format!("{}/{client_id}/?api-version=2021-04-12", audience.host)),
            client_id,
            password: None,
            transport: self.caller.transport.clone(),
            peer: self.caller.peer,
        }
    }

    pub(super) fn log_in(&mut self, request: ConnectRequest, purpose: LoginPurpose) {
        self.logins.waiting.push_back(LoginAttempt { request, purpose });
    }

    /// Begins with the next login, if none runs.
    pub(super) fn start_login(&mut self) {
        if self.logins.running.is_some() {
            return;
        }
        let Some(attempt) = self.logins.waiting.pop_front() else { return };
        let server = self.server.clone();
        self.logins.running = Some(Box::pin(async move {
            let checked = authenticated(&server, attempt.request.clone());
            let result = match tokio::time::timeout(server.settings.connect_timeout, checked).await {
                Ok(result) => result,
                Err(_) => Err(Refusal::Unavailable(
                    "the client could not be proven within the connect timeout".to_owned(),
                )),
            };
            if result.is_err() {
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            LoginDone { attempt, result }
        }));
    }

    pub(super) fn login_ended(&mut self, done: LoginDone) {
        let LoginDone { attempt: LoginAttempt { request, purpose }, result } = done;
        let admitted = result.and_then(|admitted| self.admit(&request, admitted));
        if let Err(refusal) = &admitted {
            let (client, peer, why) = (&request.client_id, self.caller.peer, refusal.to_string());
            warn!(client = %Sanitized(client), %peer, "AMQP client refused: {}", Sanitized(&why));
            note_refusal(&self.server, &request, PROTOCOL, &why);
        }
        match purpose {
            LoginPurpose::Sasl => self.engine.authenticated(match admitted {
                Ok(()) => Code::Ok,
                Err(Refusal::NotAuthorized(_)) => Code::Auth,
                Err(Refusal::Unavailable(_)) => Code::SystemTemporary,
            }),
            // Why goes to the log and to operators only: whoever it is has proven nothing.
            LoginPurpose::Token { requests, message_id } => match admitted {
                Ok(()) => self.answer_token(requests, message_id, 200, "OK"),
                Err(Refusal::NotAuthorized(_)) => {
                    self.answer_token(requests, message_id, 401, "the token was refused");
                }
                // The SDK for C# gives up for good on 401, and has no other answer than success.
                Err(Refusal::Unavailable(_)) if self.members.is_empty() => {
                    self.close(ErrorCondition::ConnectionForced, "the client cannot be proven now");
                }
                Err(Refusal::Unavailable(_)) => {
                    self.answer_token(requests, message_id, 503, "the client cannot be proven now");
                }
            },
            LoginPurpose::Attach { link, attach, from } => match admitted {
                Ok(()) => self.attach_telemetry(link, &attach, &from),
                Err(Refusal::NotAuthorized(_)) => {
                    self.refuse(link, ErrorCondition::Unauthorized, "the certificate was refused");
                }
                Err(Refusal::Unavailable(_)) => {
                    self.refuse(link, ErrorCondition::Internal, "the client cannot be proven now");
                }
            },
        }
    }

    /// Takes a proof of the client: its first, one more, or one anew.
    fn admit(&mut self, request: &ConnectRequest, admitted: Admitted) -> Result<(), Refusal> {
        let Admitted { identity, proof, ends_at, generation } = admitted;
        let login = Login { client_id: request.client_id.clone(), proof, generation };
        if identity.registration_id().is_some() {
            return Err(Refusal::NotAuthorized("devices do not enrol over AMQP".to_owned()));
        }
        let denied = self.server.service.authorize(&identity, &login).err();
        if let Some(why) = denied {
            return Err(Refusal::NotAuthorized(why.to_string()));
        }
        let is_new = !self.members.contains_key(&identity);
        if is_new && self.members.len() >= IDENTITIES_MAX {
            let why = format!("more than {IDENTITIES_MAX} devices and modules on one connection");
            return Err(Refusal::Unavailable(why));
        }
        if !self.slot.prove(self.server.clients.is_connected(&identity)) {
            return Err(Refusal::Unavailable("no slot is left".to_owned()));
        }
        self.engine.trust();
        let (login, ends_at) = (Arc::new(login), ends_at.map(from_now));
        match self.members.entry(identity.clone()) {
            Entry::Vacant(free) => {
                free.insert(Member { login, ends_at, attachment: None });
            }
            Entry::Occupied(mut member) => {
                let member = member.get_mut();
                (member.login, member.ends_at) = (login, ends_at);
                self.renew(&identity);
            }
        }
        self.expires_at = self.members.values().filter_map(|member| member.ends_at).min();
        Ok(())
    }
}
