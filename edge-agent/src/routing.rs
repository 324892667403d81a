//! From a message that came in to the queues that it must stand in: what the routes in force say, done.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use edge_core::route::{Kind, Message, RouteTable, Sink};
use edge_hub::service::Rejected;
use futures_util::future::{BoxFuture, try_join_all};
use schemas::bag::{PropertyBag, system};
use schemas::manifest::PRIORITY_DEFAULT;
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::watch;

use crate::clock::now_ms;
use crate::queues::Queues;
use crate::record;
use crate::twins::Twins;

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
    /// How long a message may wait for its sink, unless its route says; `None` for ever.
    pub time_to_live_ms: Option<u64>,
}

/// Puts messages into queues.
pub struct Router {
    /// This gateway.
    pub gateway: DeviceId,
    /// Its queues.
    pub queues: Arc<Queues>,
    /// What conditions may look into.
    pub twins: Twins,
    /// The routes in force.
    pub routing: watch::Receiver<Arc<Routing>>,
}

/// A place, a priority and a time to live.
struct Goes {
    sink: Sink,
    priority: u32,
    time_to_live_ms: Option<u64>,
}

/// Ends when every queue that a message goes to has it on disk.
pub type Stored = BoxFuture<'static, Result<(), Rejected>>;

impl Router {
    /// Routes telemetry. Its place in the queues is fixed when this returns.
    pub fn telemetry(&self, from: &Identity, mut bag: PropertyBag, payload: &Bytes) -> Stored {
        // What the gateway alone may say of a message.
        for key in GATEWAY_KEYS {
            bag.remove(key);
        }
        self.route(Kind::Telemetry, from, &bag, payload)
    }

    fn route(&self, kind: Kind<'_>, from: &Identity, bag: &PropertyBag, payload: &Bytes) -> Stored {
        let routing = self.routing.borrow().clone();
        let goes = match &routing.table {
            None => vec![Goes { sink: Sink::Upstream, priority: PRIORITY_DEFAULT, time_to_live_ms: None }],
            Some(table) => {
                let twin_of = |identity: &Identity| self.twins.get(identity);
                let message = Message::new(kind, from, &self.gateway, bag, payload, &twin_of);
                let targets = table.targets(&message);
                let goes = targets.into_iter().map(|target| Goes {
                    sink: target.sink.clone(),
                    priority: target.priority,
                    time_to_live_ms: target.time_to_live_ms,
                });
                goes.collect()
            }
        };
        let mut appends = Vec::with_capacity(goes.len());
        for Goes { sink, priority, time_to_live_ms } in goes {
            let time_to_live_ms = time_to_live_ms.or(routing.time_to_live_ms);
            let expires_ms = time_to_live_ms.map(|ms| now_ms().saturating_add(ms));
            let record = match &sink {
                Sink::Upstream => encode(&schemas::topics::telemetry(from, bag), payload),
                Sink::Input { module, input } => self.input_record(from, module, input, bag, payload),
            };
            match record {
                Ok(record) => appends.extend(self.queues.append(&sink, priority, record, expires_ms)),
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
