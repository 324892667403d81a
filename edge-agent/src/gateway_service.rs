//! The gateway behind its MQTT server: who may come in, and what happens to what they say.

use edge_core::error_chain::chain;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use edge_buffer::Fence;
use edge_core::access::attestation::Circumstances;
use edge_core::access::authorization::Rights;
use edge_core::access::claim::{Claim, claim};
use edge_core::access::enrolment::{self, EnrolmentClaim};
use edge_core::access::error::AccessError;
use edge_core::access::proof::{KeyFingerprint, Proof};
use edge_core::access::x509::Trust;
use edge_core::dialect::client::Subscribe;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use edge_hub::enrolling;
use edge_hub::service::{Admitted, Client, ConnectRequest, Login, Refusal, Rejected, Service};
use futures_util::future::BoxFuture;
use schemas::bag::PropertyBag;
use schemas::names::{DeviceId, Identity, UserName};
use schemas::provisioning::{EnrolmentAnswer, EnrolmentRequest};
use schemas::twin::Twin;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::access::authorizer::{Authorizer, Denied, Out};
use crate::access::enrolments::Enrolments;
use crate::access::passwords::Passwords;
use crate::c2d::cloud_message_store::CloudMessageStore;
use crate::clock::now_ms;
use crate::commands::Commands;
use crate::messages::routing::{Router, Routing};
use crate::messages::twins::{ReportError, Twins};
use crate::upstream::presence::PresenceChanges;

/// What the gateway does with its clients.
pub struct GatewayService {
    pub gateway: DeviceId,
    /// The host names that SAS tokens may carry.
    pub hosts: Vec<String>,
    /// Who may come in and stay, and what it may do.
    pub authorizer: Authorizer,
    /// Hashes passwords of local users.
    pub passwords: Passwords,
    pub twins: Twins,
    /// Where their messages go.
    pub router: Router,
    /// The deployment in force.
    pub routing: watch::Receiver<Arc<Routing>>,
    /// Who came or went.
    pub presence: PresenceChanges,
    /// Commands, of which some wait for clients.
    pub commands: Commands,
    /// Who brings cloud-to-device messages.
    pub dispatcher: CloudMessageDispatcher<CloudMessageStore>,
    /// Devices that enrol themselves.
    pub enrolments: Enrolments,
}

impl GatewayService {
    /// Admits a client that gives no name as the anonymous user, which has no password that could be taken back.
    fn anonymous(&self, name: &UserName, client_id: &str, generation: u64) -> Result<Admitted, Refusal> {
        let identity = Identity::user(name, client_id)
            .map_err(|why| Refusal::NotAuthorized(format!("the client id of an anonymous client: {why}")))?;
        if self.authorizer.removals.is_pending(&identity) {
            return Err(Out::Removing.into());
        }
        Ok(Admitted { identity, proof: Proof::Password(KeyFingerprint::of(b"")), ends_at: None, generation })
    }

    async fn authenticate_user(
        &self,
        name: UserName,
        request: ConnectRequest,
        generation: u64,
    ) -> Result<Admitted, Refusal> {
        let wrong = || Refusal::NotAuthorized(format!("user `{name}` is unknown or has another password"));
        let identity = Identity::user(&name, &request.client_id)
            .map_err(|why| Refusal::NotAuthorized(format!("the client id of user `{name}`: {why}")))?;
        if self.authorizer.removals.is_pending(&identity) {
            return Err(Out::Removing.into());
        }
        let password = request.password.ok_or_else(wrong)?;
        let hash = self.authorizer.users.get(&name).map(|user| user.hash);
        let proof = Proof::Password(KeyFingerprint::of(hash.as_deref().unwrap_or_default().as_bytes()));
        if hash.as_deref().is_some_and(|hash| self.passwords.was_right(&name, hash, &password)) {
            return Ok(Admitted { identity, proof, ends_at: None, generation });
        }
        match self.passwords.verify(&name, hash, password).await {
            Ok(true) => Ok(Admitted { identity, proof, ends_at: None, generation }),
            Ok(false) => Err(wrong()),
            Err(error) => Err(Refusal::Unavailable(chain(&error).to_string())),
        }
    }
}

impl From<Out> for Refusal {
    fn from(out: Out) -> Self {
        match out {
            Out::NotYet | Out::Removing => Self::Unavailable(out.to_string()),
            Out::Refused(why) => Self::NotAuthorized(why),
        }
    }
}

impl GatewayService {
    async fn enrolling(&self, claim: EnrolmentClaim, request: &ConnectRequest) -> Result<Admitted, Refusal> {
        match self.enrolments.admit(enrolling::shown(claim, request)?, request.peer.ip()).await {
            Ok(identity) => {
                Ok(Admitted { identity, proof: Proof::IdentityAlone, ends_at: None, generation: 0 })
            }
            Err((true, why)) => Err(Refusal::Unavailable(why)),
            Err((false, why)) => Err(Refusal::NotAuthorized(why)),
        }
    }
}

impl Service for GatewayService {
    type Denied = Denied;

    fn is_guessable(&self, request: &ConnectRequest) -> bool {
        let user_name = request.user_name.as_deref().unwrap_or("");
        if enrolment::claim(&request.client_id, user_name).is_some() {
            return true;
        }
        let Ok(Claim::User(name)) = claim(&request.client_id, request.user_name.as_deref()) else {
            // Tokens are made with keys of 256 bits.
            return false;
        };
        let (hash, password) = (self.authorizer.users.get(&name).map(|user| user.hash), &request.password);
        !matches!((hash, password), (Some(hash), Some(password)) if self.passwords.was_right(&name, &hash, password))
    }

    fn has_anonymous_user(&self) -> bool {
        self.authorizer.users.anonymous().is_some()
    }

    fn knows(&self, request: &ConnectRequest) -> bool {
        match claim(&request.client_id, request.user_name.as_deref()) {
            Ok(Claim::User(name)) => self.authorizer.users.get(&name).is_some(),
            Ok(Claim::Identity(identity)) if identity.device == self.gateway => {
                let modules = &self.authorizer.rules.borrow().modules;
                identity.module.is_some_and(|module| modules.contains(&module))
            }
            Ok(Claim::Identity(identity)) => self.authorizer.devices.get(&identity.device).is_some(),
            Err(_) => false,
        }
    }

    async fn authenticate(self: &Arc<Self>, request: ConnectRequest) -> Result<Admitted, Refusal> {
        let refused = |error: AccessError| Refusal::NotAuthorized(error.to_string());
        if let Some(claim) = enrolment::claim(&request.client_id, request.user_name.as_deref().unwrap_or(""))
        {
            return self.enrolling(claim.map_err(refused)?, &request).await;
        }
        // Before anything is looked up: who is removed from here on is found by it.
        let generation = self.authorizer.removals.count();
        if let Some(name) = self.authorizer.users.anonymous()
            && request.is_anonymous()
            && request.transport.is_plain()
        {
            return self.anonymous(name, &request.client_id, generation);
        }
        let identity = match claim(&request.client_id, request.user_name.as_deref()).map_err(refused)? {
            Claim::Identity(identity) => identity,
            Claim::User(name) => return self.authenticate_user(name, request, generation).await,
        };
        let demand = self.authorizer.demand(&identity)?;
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        let trust: Arc<Trust> = self.authorizer.trust.borrow().clone();
        let under = Circumstances { hosts: &hosts, trust: &trust, now_secs: now_ms() / 1000 };
        let evidence = request.evidence();
        let (proof, ends_at) = demand.prove(&identity, &evidence, &under).map_err(|error| {
            // Nobody proves this clock, and Azure's Python SDK gives up for good on "not authorised".
            if demand.only_time_speaks_against(&identity, &evidence, &under, &error) {
                return Refusal::Unavailable(format!("{error}; the clock of this gateway may be wrong"));
            }
            refused(error)
        })?;
        Ok(Admitted { identity, proof, ends_at: Some(ends_at), generation })
    }

    fn authorize(&self, identity: &Identity, login: &Login) -> Result<Rights, Denied> {
        self.authorizer.authorize(identity, login)
    }

    fn may_speak_for(&self, client: &Client, other: &Identity) -> bool {
        self.authorizer.may_send(&client.identity, other).is_ok()
    }

    fn telemetry(
        self: &Arc<Self>,
        _client: &Client,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
        fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        self.router.telemetry(&from, bag, &payload, fence)
    }

    fn telemetry_will(
        self: &Arc<Self>,
        left_by: &Identity,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        if let Err(denied) = self.authorizer.may_send(left_by, &from) {
            return Box::pin(std::future::ready(Err(Rejected::Wrong(403, denied.to_string()))));
        }
        self.router.telemetry(&from, bag, &payload, None)
    }

    fn may_leave_will(&self, left_by: &Identity, topic: &str) -> Result<(), Denied> {
        self.authorizer.may_publish(left_by, topic)
    }

    fn is_removed(&self, client: &Client) -> bool {
        self.authorizer.removals.is_since(&client.identity, client.login.generation)
    }

    fn takes_free(&self) -> bool {
        self.router.takes_free.load(Ordering::Relaxed)
    }

    fn free(
        self: &Arc<Self>,
        client: &Client,
        topic: &str,
        bag: PropertyBag,
        payload: Bytes,
        fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        self.router.free(&client.identity, topic, bag, &payload, fence)
    }

    fn free_will(
        self: &Arc<Self>,
        of: &Identity,
        topic: &str,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        self.router.free(of, topic, bag, &payload, None)
    }

    async fn twin(self: &Arc<Self>, client: &Client) -> Result<Twin, Rejected> {
        Ok(self.twins.get(&client.identity))
    }

    async fn report(self: &Arc<Self>, client: &Client, patch: Map<String, Value>) -> Result<u64, Rejected> {
        let is_here = || !self.is_removed(client);
        let reported = self.twins.report(&client.identity, &patch, is_here).await;
        let version = reported.map_err(|error| match error {
            ReportError::Patch(error) => Rejected::Wrong(error.status(), error.to_string()),
            ReportError::State(error) => Rejected::Temporary(503, chain(&error).to_string()),
            ReportError::Removed => Rejected::Wrong(404, error.to_string()),
        })?;
        if let Err(rejected) = self.router.twin_change(&client.identity, &patch).await {
            // The twin is on disk: a full queue must not make its owner report again. The ledger has the lost message.
            tracing::debug!(client = %client.identity, %rejected, "a twin change was not taken by its routes");
        }
        Ok(version)
    }

    async fn enrol(self: &Arc<Self>, client: &Client, request: EnrolmentRequest) -> EnrolmentAnswer {
        self.enrolments.answer(&client.identity, request, client.peer.ip()).await
    }

    fn connected(self: &Arc<Self>, client: &Client) {
        self.presence.note(&client.identity);
    }

    fn disconnected(self: &Arc<Self>, client: &Client, _why: &str) {
        if self.enrolments.leave(&client.identity) {
            return;
        }
        self.presence.note(&client.identity);
    }

    fn subscribed(self: &Arc<Self>, client: &Client, to: &Subscribe) {
        match to {
            Subscribe::Inbox { of } => match &of.module {
                Some(module) => self.router.queues.wake(module),
                None => self.dispatcher.wake(&client.identity.device),
            },
            Subscribe::MethodCalls => self.commands.wake(&client.identity),
            _ => {}
        }
    }
}
