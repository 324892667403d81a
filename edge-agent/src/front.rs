//! The gateway behind its front door: who may come in, and what happens to what they say.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use edge_core::access::claim::{Claim, claim};
use edge_core::access::error::AccessError;
use edge_core::access::proof::Proof;
use edge_core::access::sas;
use edge_core::access::secret::Secret;
use edge_core::dialect::client::Subscribe;
use edge_core::route::{RouteTable, Sink};
use edge_hub::postman::Postman;
use edge_hub::service::{Admitted, Client, ConnectRequest, Refusal, Rejected, Service};
use futures_util::future::{BoxFuture, try_join_all};
use schemas::bag::{PropertyBag, system};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Twin;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};

use crate::clock::now_ms;
use crate::devices::Devices;
use crate::mailbox::Mailbox;
use crate::module_keys::ModuleKeys;
use crate::queues::Queues;
use crate::record;
use crate::twins::{ReportError, Twins};

/// Properties that the gateway writes; a client's own are taken out.
const GATEWAY_KEYS: [&str; 5] = [
    system::LINESIDE_QUEUE,
    system::LINESIDE_SEQUENCE,
    system::LINESIDE_ENQUEUED_MS,
    system::CONNECTION_DEVICE_ID,
    system::CONNECTION_MODULE_ID,
];

/// What the front door must know of the deployment in force.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// `None` before the first deployment: then everything goes to central, so that nothing is lost.
    pub table: Option<RouteTable>,
    /// The modules that may connect.
    pub modules: BTreeSet<ModuleId>,
    /// How long a message may wait for its sink; `None` for ever.
    pub time_to_live_ms: Option<u64>,
}

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
    /// Its queues.
    pub queues: Arc<Queues>,
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

    fn input_record(
        &self,
        from: &Identity,
        module: &ModuleId,
        input: &str,
        bag: &PropertyBag,
        payload: &[u8],
    ) -> Result<Bytes, Rejected> {
        let mut bag = bag.clone();
        bag.set(system::CONNECTION_DEVICE_ID, from.device.as_str());
        if let Some(module) = &from.module {
            bag.set(system::CONNECTION_MODULE_ID, module.as_str());
        }
        let to = Identity::module(self.gateway.clone(), module.clone());
        encode(&schemas::topics::module_input(&to, input, &bag), payload)
    }
}

fn encode(topic: &str, payload: &[u8]) -> Result<Bytes, Rejected> {
    record::encode(topic, payload).map_err(|length| {
        Rejected::Wrong(413, format!("the topic would be {length} bytes; 65,535 are allowed"))
    })
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
        mut bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        // What the gateway alone may say of a message.
        for key in GATEWAY_KEYS {
            bag.remove(key);
        }
        let routing = self.routing.borrow().clone();
        let output = bag.get(system::OUTPUT_NAME);
        let sinks = match &routing.table {
            Some(table) => table.sinks(&from, &self.gateway, output),
            None => vec![Sink::Upstream],
        };
        let expires_ms = routing.time_to_live_ms.map(|ttl| now_ms().saturating_add(ttl));
        let mut appends = Vec::with_capacity(sinks.len());
        for sink in sinks {
            let append = match sink {
                Sink::Upstream => encode(&schemas::topics::telemetry(&from, &bag), &payload).map(|record| {
                    let log = self.queues.upstream();
                    Some(match expires_ms {
                        None => log.append(record, now_ms()),
                        Some(at) => log.append_expiring(record, now_ms(), at),
                    })
                }),
                Sink::Input { module, input } => self
                    .input_record(&from, &module, &input, &bag, &payload)
                    .map(|record| self.queues.append_input(&module, record, expires_ms)),
            };
            match append {
                Ok(append) => appends.extend(append),
                Err(rejected) => return Box::pin(std::future::ready(Err(rejected))),
            }
        }
        if appends.is_empty() {
            tracing::debug!(client = %from, "a message matched no route and was dropped");
        }
        Box::pin(async move {
            match try_join_all(appends).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Rejected::Temporary(503, error.to_string())),
            }
        })
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
                Some(module) => self.queues.wake(module),
                None => self.postman.wake(&client.identity.device),
            }
        }
    }
}
