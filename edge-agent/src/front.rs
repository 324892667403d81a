//! The gateway behind its front door: who may come in, and what happens to what they say.

use std::sync::Arc;

use bytes::Bytes;
use edge_core::access::claim::{Claim, claim};
use edge_core::access::error::AccessError;
use edge_core::access::proof::Proof;
use edge_core::access::sas;
use edge_core::access::secret::Secret;
use edge_core::dialect::client::Subscribe;
use edge_hub::postman::Postman;
use edge_hub::service::{Admitted, Client, ConnectRequest, Refusal, Rejected, Service};
use futures_util::future::BoxFuture;
use schemas::bag::PropertyBag;
use schemas::names::{DeviceId, Identity};
use schemas::twin::Twin;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};

use crate::clock::now_ms;
use crate::devices::Devices;
use crate::mailbox::Mailbox;
use crate::module_keys::ModuleKeys;
use crate::routing::{Router, Routing};
use crate::twins::{ReportError, Twins};

/// What the gateway does with its clients.
pub struct Front {
    /// This gateway.
    pub gateway: DeviceId,
    /// The host names that SAS tokens may carry.
    pub hosts: Vec<String>,
    /// Keys of its modules.
    pub module_keys: ModuleKeys,
    /// Its leaf devices.
    pub devices: Devices,
    /// Their twins.
    pub twins: Twins,
    /// Where their messages go.
    pub router: Router,
    /// The deployment in force.
    pub routing: watch::Receiver<Arc<Routing>>,
    /// Told when somebody came or went.
    pub presence: Arc<Notify>,
    /// Who brings cloud-to-device messages.
    pub postman: Postman<Mailbox>,
}

impl Front {
    fn keys_of(&self, identity: &Identity) -> Result<Vec<Vec<u8>>, Refusal> {
        let unknown = |why: &str| Refusal::NotAuthorized(format!("{identity} is not known here: {why}"));
        if identity.device == self.gateway {
            return match &identity.module {
                Some(module) if self.routing.borrow().modules.contains(module) => {
                    Ok(vec![self.module_keys.key(module)])
                }
                Some(_) => Err(unknown("no such module in the deployment")),
                None => Err(unknown("the gateway itself does not connect to its own door")),
            };
        }
        if identity.module.is_some() {
            return Err(unknown("it is a module of another gateway"));
        }
        match self.devices.get(&identity.device) {
            Some(leaf) if leaf.is_enabled => Ok(leaf.keys),
            Some(_) => Err(Refusal::NotAuthorized(format!("{identity} is blocked"))),
            // Azure's Python SDK gives up for good on "not authorised": say it only when it is certain.
            None if !self.devices.is_told() => {
                Err(Refusal::Unavailable("central has not told yet which leaf devices belong here".into()))
            }
            None => Err(unknown("neither assigned to this gateway by central nor added on it")),
        }
    }
}

impl Service for Front {
    async fn authenticate(self: &Arc<Self>, request: ConnectRequest) -> Result<Admitted, Refusal> {
        let refused = |error: AccessError| Refusal::NotAuthorized(error.to_string());
        let identity = match claim(&request.client_id, request.user_name.as_deref()).map_err(refused)? {
            Claim::Identity(identity) => identity,
            Claim::User(user) => {
                return Err(Refusal::NotAuthorized(format!("user `{user}` is not known here")));
            }
        };
        let keys = self.keys_of(&identity)?;
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        let token = request.password.as_ref().and_then(Secret::text).unwrap_or("");
        let token = sas::verify(token, &identity, &hosts, &keys, now_ms() / 1000).map_err(refused)?;
        Ok(Admitted { identity, proof: Proof::Key(token.key), ends_at: Some(token.ends_at()) })
    }

    fn telemetry(
        self: &Arc<Self>,
        _client: &Client,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        self.router.telemetry(&from, bag, &payload)
    }

    async fn twin(self: &Arc<Self>, client: &Client) -> Result<Twin, Rejected> {
        Ok(self.twins.get(&client.identity))
    }

    async fn report(self: &Arc<Self>, client: &Client, patch: Map<String, Value>) -> Result<u64, Rejected> {
        self.twins.report(&client.identity, &patch).await.map_err(|error| match error {
            ReportError::Patch(error) => Rejected::Wrong(400, error.to_string()),
            ReportError::State(error) => Rejected::Temporary(503, error.to_string()),
        })
    }

    fn connected(self: &Arc<Self>, client: &Client) {
        tracing::info!(client = %client.identity, peer = %client.peer, "client connected");
        self.presence.notify_one();
    }

    fn disconnected(self: &Arc<Self>, client: &Client, why: &str) {
        tracing::info!(client = %client.identity, why, "client disconnected");
        self.presence.notify_one();
    }

    fn subscribed(self: &Arc<Self>, client: &Client, to: &Subscribe) {
        if let Subscribe::Inbox { of } = to {
            match &of.module {
                Some(module) => self.router.queues.wake(module),
                None => self.postman.wake(&client.identity.device),
            }
        }
    }
}
