//! From a message that came in to the queues that it must stand in: what the routes in force say, done.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use edge_buffer::{Append, AppendError, Fence};
use edge_core::route::{Kind, Message, QueueClass, RouteTable, Sink, TOPIC_PROPERTY, TWIN_CHANGE_SCHEMA};
use edge_hub::service::Rejected;
use futures_util::future::{BoxFuture, join_all};
use schemas::bag::{MESSAGE_BYTES_MAX, PropertyBag, system};
use schemas::names::{DeviceId, Identity, ModuleId};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::clock::steady_ms;
use crate::messages::queues::Queues;
use crate::messages::received::Received;
use crate::messages::record;
use crate::messages::twins::Twins;
use crate::messages::unrouted::Unrouted;

/// Properties that the gateway writes; a client's own are taken out.
const GATEWAY_KEYS: [&str; 6] = [
    system::LINESIDE_QUEUE,
    system::LINESIDE_SEQUENCE,
    system::LINESIDE_ENQUEUED_MS,
    system::LINESIDE_GENERATION,
    system::CONNECTION_DEVICE_ID,
    system::CONNECTION_MODULE_ID,
];

/// How the local user is called in the property bag of a routed free message.
const USER_PROPERTY: &str = "mqtt-user";

/// What the MQTT server must know of the deployment in force.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// `None` before the first deployment: then everything goes to central, so that nothing is lost.
    pub table: Option<RouteTable>,
    /// How many messages came from whom.
    pub received: Received,
    /// How long a message may wait for its sink, unless its route says; `None` for ever.
    pub time_to_live_ms: Option<u64>,
}

/// Puts messages into queues.
pub struct Router {
    pub gateway: DeviceId,
    pub queues: Arc<Queues>,
    /// What conditions may look into.
    pub twins: Twins,
    /// The routes in force.
    pub routing: watch::Receiver<Arc<Routing>>,
    /// Whether any of them takes messages on free topics; looked at for every such message.
    pub takes_free: Arc<AtomicBool>,
    /// What they did not take.
    pub unrouted: Arc<Unrouted>,
}

/// A place, one of its queues and a time to live.
struct Goes {
    sink: Sink,
    class: QueueClass,
    time_to_live_ms: Option<u64>,
}

/// Who sends a message.
struct Sender<'a> {
    from: &'a Identity,
    /// Whose message central gets.
    as_whom: &'a Identity,
    fence: Option<&'a Fence>,
}

/// Ends when the queues that a message goes to have it on disk. Where some have no space, and others took it, it is stored: the
/// copies that were refused stand in the ledgers of their queues (docs/decisions, "One acknowledgement for several routes").
pub type Stored = BoxFuture<'static, Result<(), Rejected>>;

impl Router {
    /// Routes telemetry. Its place in the queues is fixed when this returns. `fence` is its connection's, as in
    /// [`Log::append_fenced`](edge_buffer::Log::append_fenced).
    pub fn telemetry(
        &self,
        from: &Identity,
        mut bag: PropertyBag,
        payload: &Bytes,
        fence: Option<&Fence>,
    ) -> Stored {
        // What the gateway alone may say of a message.
        for key in GATEWAY_KEYS {
            bag.remove(key);
        }
        self.route(Kind::Telemetry, Sender { from, as_whom: from, fence }, &bag, payload)
    }

    /// Routes a message on a free topic. To central it is telemetry of whoever published it, with the topic as a property.
    pub fn free(
        &self,
        from: &Identity,
        topic: &str,
        mut bag: PropertyBag,
        payload: &Bytes,
        fence: Option<&Fence>,
    ) -> Stored {
        // First, because most free topics have no route: their messages are not copied.
        let is_taken = self.routing.borrow().table.as_ref().is_some_and(|table| table.takes_topic(topic));
        if !is_taken {
            return Box::pin(std::future::ready(Ok(())));
        }
        for key in GATEWAY_KEYS {
            bag.remove(key);
        }
        bag.set(TOPIC_PROPERTY, topic);
        if bag.message_bytes(payload) > MESSAGE_BYTES_MAX {
            let why = format!("a route takes messages of at most {MESSAGE_BYTES_MAX} bytes");
            return Box::pin(std::future::ready(Err(Rejected::Wrong(413, why))));
        }
        // central knows devices, not the local users of a gateway: their messages are the gateway's.
        let as_whom = match from.user_name() {
            None => from.clone(),
            Some(user) => {
                bag.set(USER_PROPERTY, user.as_str());
                Identity::device(self.gateway.clone())
            }
        };
        self.route(Kind::Free { topic }, Sender { from, as_whom: &as_whom, fence }, &bag, payload)
    }

    /// Routes a change of reported properties, as a message of the hub's (edgeHub's form): the patch is its body, and
    /// the properties of the sender name who reported it.
    pub fn twin_change(&self, from: &Identity, patch: &Map<String, Value>) -> Stored {
        let takes = self.routing.borrow().table.as_ref().is_some_and(RouteTable::takes_twin_changes);
        if !takes {
            return Box::pin(std::future::ready(Ok(())));
        }
        let mut bag = PropertyBag::new();
        bag.set(system::MESSAGE_SCHEMA, TWIN_CHANGE_SCHEMA);
        bag.set(system::CONTENT_TYPE, "application/json");
        bag.set(system::CONTENT_ENCODING, "utf-8");
        name_sender(&mut bag, from);
        let patch = Value::Object(patch.clone());
        let hub = Identity::module(self.gateway.clone(), ModuleId::edge_hub());
        let body = Bytes::from(patch.to_string());
        self.route(
            Kind::TwinChange { patch: &patch },
            Sender { from, as_whom: &hub, fence: None },
            &bag,
            &body,
        )
    }

    fn route(&self, kind: Kind<'_>, sender: Sender<'_>, bag: &PropertyBag, payload: &Bytes) -> Stored {
        let Sender { from, as_whom, fence } = sender;
        // One version of the routes for the whole message, also if a deployment changes them meanwhile.
        let routing = self.routing.borrow().clone();
        if !matches!(kind, Kind::TwinChange { .. }) {
            routing.received.count(from, &self.gateway);
        }
        let goes = match &routing.table {
            None => vec![Goes { sink: Sink::Upstream, class: QueueClass::DEFAULT, time_to_live_ms: None }],
            Some(table) => {
                let twin_of = |identity: &Identity| self.twins.get(identity);
                let message = Message::new(kind, from, &self.gateway, bag, payload, &twin_of);
                let targets = table.targets(&message);
                let goes = targets.into_iter().map(|target| Goes {
                    sink: target.sink.clone(),
                    class: target.class,
                    time_to_live_ms: target.time_to_live_ms,
                });
                goes.collect()
            }
        };
        let mut appends = Vec::with_capacity(goes.len());
        for Goes { sink, class, time_to_live_ms } in goes {
            let time_to_live_ms = time_to_live_ms.or(routing.time_to_live_ms);
            // On the clock that is never set: a corrected wall clock must expire nothing (docs/decisions/0066).
            let expires_ms = time_to_live_ms.map(|ms| steady_ms().saturating_add(ms));
            let record = match &sink {
                Sink::Upstream => encode(&schemas::topics::telemetry(as_whom, bag), payload),
                Sink::Input { module, input } => self.input_record(from, module, input, bag, payload),
            };
            match record {
                Ok(record) => appends.extend(self.queues.append(&sink, class, record, expires_ms, fence)),
                Err(rejected) => return Box::pin(std::future::ready(Err(rejected))),
            }
        }
        if appends.is_empty() && matches!(kind, Kind::Telemetry) && self.unrouted.count(from) {
            tracing::info!(client = %from, "a message matched no route and was dropped; further ones are counted");
        }
        if appends.len() > 1 {
            // Each queue has a file of its own: they reach the disk side by side.
            appends.iter_mut().for_each(Append::detach);
        }
        let unrouted = self.unrouted.clone();
        Box::pin(async move { outcome(join_all(appends).await, &unrouted) })
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
        // edgeHub passes on the sender and what the sender set. The output is not the receiver's: a module that sends a message
        // on with its properties would send it to two outputs.
        bag.remove(system::OUTPUT_NAME);
        name_sender(&mut bag, from);
        let to = Identity::module(self.gateway.clone(), module.clone());
        encode(&schemas::topics::module_input(&to, input, &bag.system_first()), payload)
    }
}

/// The answer to the sender of a message that was given to some queues.
fn outcome(stored: Vec<Result<u64, AppendError>>, unrouted: &Unrouted) -> Result<(), Rejected> {
    // The worst failure decides, except that a full queue is no reason to repeat what another queue has.
    let is_taken = stored.iter().any(Result::is_ok);
    let (mut full, mut too_long) = (None, None);
    for error in stored.into_iter().filter_map(Result::err) {
        match error {
            AppendError::Full { .. } | AppendError::Busy => full = Some(error),
            AppendError::TooLong { .. } => too_long = Some(error),
            // Nothing is known of this copy: the sender is to send it again, whatever became of the others.
            AppendError::Write { .. } | AppendError::Fenced | AppendError::Closed => {
                return Err(Rejected::Temporary(503, error.to_string()));
            }
        }
    }
    if let Some(error) = too_long {
        // It will never fit, however often it is sent.
        return Err(Rejected::Wrong(413, error.to_string()));
    }
    match full {
        None => Ok(()),
        // Acknowledged: sent again, it would be stored twice where it was taken (docs/decisions/0011).
        Some(_) if is_taken => {
            unrouted.count_partly();
            Ok(())
        }
        Some(error) => Err(Rejected::Full(error.to_string())),
    }
}

/// Writes who a message is from.
fn name_sender(bag: &mut PropertyBag, from: &Identity) {
    bag.set(system::CONNECTION_DEVICE_ID, from.device.as_str());
    if let Some(module) = &from.module {
        bag.set(system::CONNECTION_MODULE_ID, module.as_str());
    }
}

fn encode(topic: &str, payload: &[u8]) -> Result<Bytes, Rejected> {
    record::encode(topic, payload).map_err(|length| {
        Rejected::Wrong(413, format!("the topic would be {length} bytes; 65,535 are allowed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_core::route::RouteText;
    use schemas::manifest::WhenFull;

    use crate::config::{BufferSection, QueueSection};
    use crate::messages::queues::limits::Limits;
    use edge_hub::clients::Clients;
    use serde_json::json;

    use crate::state::State;

    async fn router(dir: &std::path::Path, routes: &[(&str, &str)]) -> Router {
        router_with(dir, routes, Limits::default()).await
    }

    async fn router_with<'a, R: Into<RouteText<'a>> + Copy>(
        dir: &std::path::Path,
        routes: &[(&'a str, R)],
        limits: Limits,
    ) -> Router {
        let gateway: DeviceId = "gw".parse().unwrap();
        let state = State::open(&dir.join("state")).unwrap();
        let queues = Queues::open(&dir.join("buffer"), limits, gateway.clone(), Clients::new()).unwrap();
        let (table, refused) = RouteTable::parse(routes.iter().copied());
        assert!(refused.is_empty(), "{refused:?}");
        let takes_free = Arc::new(AtomicBool::new(table.takes_free()));
        queues.route_to(&table.queues()).unwrap();
        let routing = Routing { table: Some(table), ..Routing::default() };
        let (_, routing) = watch::channel(Arc::new(routing));
        let (queues, twins) = (Arc::new(queues), Twins::load(state).unwrap());
        Router { gateway, queues, twins, routing, takes_free, unrouted: Arc::default() }
    }

    /// What waits for central, as topic and body.
    async fn waiting(router: &Router, count: usize) -> Vec<(String, String)> {
        let mut reader = router.queues.upstream().reader();
        let mut all = Vec::new();
        for _ in 0..count {
            let (_, record) = reader.next().await.unwrap();
            let (topic, body) = record::decode(&record.payload).unwrap();
            all.push((topic.to_owned(), String::from_utf8(body.to_vec()).unwrap()));
        }
        all
    }

    #[tokio::test]
    async fn a_free_message_reaches_central_as_telemetry_of_its_publisher_with_the_topic_as_a_property() {
        let dir = tempfile::tempdir().unwrap();
        let routes = [("t", "FROM /mqtt/line1/+/temperature WHERE $body > 20 INTO $upstream")];
        let router = router(dir.path(), &routes).await;
        let mut claims = PropertyBag::new();
        claims.set("unit", "C");
        claims.set(system::CONNECTION_DEVICE_ID, "somebody-else");
        let plc = Identity::user(&"plc".parse().unwrap(), "plc 7").unwrap();
        for (from, topic, body) in [
            ("press-1".parse().unwrap(), "line1/press/temperature", "21.5"),
            ("press-1".parse().unwrap(), "line1/press/temperature", "19"),
            ("press-1".parse().unwrap(), "line1/press/pressure", "30"),
            (plc, "line1/oven/temperature", "200"),
        ] {
            router.free(&from, topic, claims.clone(), &Bytes::from(body), None).await.unwrap();
        }
        let message = |topic: &str, body: &str| (topic.to_owned(), body.to_owned());
        assert_eq!(
            waiting(&router, 2).await,
            [
                message(
                    "devices/press-1/messages/events/unit=C&mqtt-topic=line1%2Fpress%2Ftemperature",
                    "21.5"
                ),
                message(
                    "devices/gw/messages/events/unit=C&mqtt-topic=line1%2Foven%2Ftemperature&mqtt-user=plc",
                    "200"
                ),
            ]
        );
        assert_eq!(router.queues.upstream().queues()[0].log.stats().records, 2);
    }

    #[tokio::test]
    async fn a_twin_change_is_a_message_of_the_hub_that_names_who_reported_it() {
        let dir = tempfile::tempdir().unwrap();
        let routes = [("c", "FROM /twinChangeNotifications WHERE $body.mode = 'eco' INTO $upstream")];
        let router = router(dir.path(), &routes).await;
        let patch = |value: Value| value.as_object().unwrap().clone();
        let sensor = "gw/sensor".parse().unwrap();
        router.twin_change(&sensor, &patch(json!({"mode": "full"}))).await.unwrap();
        router.twin_change(&sensor, &patch(json!({"mode": "eco"}))).await.unwrap();
        let [(topic, body)] = &waiting(&router, 1).await[..] else { panic!("one message") };
        assert_eq!(
            topic,
            "devices/gw/modules/$edgeHub/messages/events/%24.schema=twinChangeNotification\
             &%24.ct=application%2Fjson&%24.ce=utf-8&%24.cdid=gw&%24.cmid=sensor"
        );
        assert_eq!(body, r#"{"mode":"eco"}"#);
        assert_eq!(router.queues.upstream().queues()[0].log.stats().records, 1);
    }

    /// Limits of one queue: all others have room.
    fn limited(name: &str) -> Limits {
        let own = QueueSection { max_bytes: Some(2_000), max_age_secs: None };
        let queues = [(name.to_owned(), own)].into();
        Limits::new(&BufferSection { keep_free_bytes: 0, queues, ..BufferSection::default() })
    }

    fn text(query: &str, full: WhenFull) -> RouteText<'_> {
        RouteText { full: Some(full), ..query.into() }
    }

    #[tokio::test]
    async fn one_of_several_routes_that_refuses_holds_nothing_up_and_counts_its_copies() {
        let dir = tempfile::tempdir().unwrap();
        let routes = [
            ("up", text("FROM /messages/* INTO $upstream", WhenFull::DropOldest)),
            ("in", text("FROM /* INTO BrokeredEndpoint(\"/modules/m/inputs/i\")", WhenFull::Refuse)),
        ];
        let router = router_with(dir.path(), &routes, limited("inputs/m.refuse")).await;
        let press = "press-1".parse().unwrap();
        for _ in 0..20 {
            router.telemetry(&press, PropertyBag::new(), &Bytes::from(vec![b'x'; 200]), None).await.unwrap();
        }
        let stats = router.queues.stats();
        let of = |name: &str| stats.iter().find(|queue| queue.name == name).unwrap();
        let input = of("inputs/m.refuse");
        assert_eq!(of("upstream").stats.records, 20);
        assert!(input.stats.records > 0 && input.stats.refused > 0, "{:?}", input.stats);
        assert_eq!(input.stats.records + input.stats.refused, 20, "the first ones are kept");
        assert_eq!(
            (&*input.loss_records[0].tag, input.loss_records[0].count),
            ("press-1", input.stats.refused)
        );
        assert_eq!(router.unrouted.partly(), input.stats.refused);
    }

    #[tokio::test]
    async fn a_message_that_no_queue_took_is_refused_and_its_sender_learns_it() {
        let dir = tempfile::tempdir().unwrap();
        let routes = [("up", text("FROM /messages/* INTO $upstream", WhenFull::Refuse))];
        let router = router_with(dir.path(), &routes, limited("upstream.refuse")).await;
        let press = "press-1".parse().unwrap();
        let mut taken = 0;
        let refused = loop {
            match router.telemetry(&press, PropertyBag::new(), &Bytes::from(vec![b'x'; 200]), None).await {
                Ok(()) => taken += 1,
                Err(refused) => break refused,
            }
        };
        assert!(
            taken > 0 && matches!(&refused, Rejected::Full(why) if why.contains("limits")),
            "{refused:?}"
        );
        // A twin change that finds no room does not fail whoever reported it: see GatewayService::report.
        assert_eq!(router.unrouted.partly(), 0);
    }

    #[tokio::test]
    async fn what_waits_for_a_module_that_no_route_leads_to_is_reported_as_dropped_before_its_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let routes = [("in", "FROM /messages/* INTO BrokeredEndpoint('/modules/m.1/inputs/i')")];
        let router = router(dir.path(), &routes).await;
        for _ in 0..5 {
            let body = Bytes::from_static(b"x");
            router.telemetry(&"press-1".parse().unwrap(), PropertyBag::new(), &body, None).await.unwrap();
        }
        router.queues.close().await;
        drop(router);
        let open = || {
            let gateway = "gw".parse().unwrap();
            let queues =
                Queues::open(&dir.path().join("buffer"), Limits::default(), gateway, Clients::new()).unwrap();
            queues.route_to(&RouteTable::default().queues()).unwrap();
            queues
        };
        // The routes changed while the daemon was away, and it ends again before central knows.
        open().close().await;
        let queues = open();
        let all = queues.all();
        let (name, queue) = all.iter().find(|(name, _)| name.starts_with("inputs")).unwrap();
        let loss_records = queue.log.losses_to_report().await.unwrap();
        let [loss] = &loss_records[..] else { panic!("{loss_records:?}") };
        assert_eq!(
            (name.as_str(), loss.cause.name(), &*loss.tag, loss.count),
            ("inputs/m.1", "dropped", "press-1", 5)
        );
        queue.log.losses_reported(loss.number);
        queues.close().await;
        assert_eq!(std::fs::read_dir(dir.path().join("buffer/inputs")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_module_gets_the_senders_properties_without_its_output_and_none_that_a_sender_made_up() {
        let dir = tempfile::tempdir().unwrap();
        let routes = [("in", "FROM /messages/* INTO BrokeredEndpoint('/modules/m/inputs/i')")];
        let router = router(dir.path(), &routes).await;
        let mut bag = PropertyBag::new();
        bag.set("edgeMessageId", "the-senders");
        bag.set(system::OUTPUT_NAME, "alerts");
        bag.set("mqtt-retain", "true");
        bag.set(system::CONNECTION_DEVICE_ID, "somebody-else");
        for from in ["press-1", "press-1", "gw/cam"] {
            router
                .telemetry(&from.parse().unwrap(), bag.clone(), &Bytes::from_static(b"x"), None)
                .await
                .unwrap();
        }
        let stats = router.queues.all();
        let (_, queue) = stats.iter().find(|(name, _)| name == "inputs/m").unwrap();
        let mut count = 0;
        for record in queue.log.records() {
            let record = record.unwrap();
            let (topic, _) = record::decode(&record.payload).unwrap();
            let (place, bag) = topic.rsplit_once('/').unwrap();
            assert_eq!(place, "devices/gw/modules/m/inputs/i");
            let bag = PropertyBag::parse(bag);
            let of = |key: &str| {
                bag.iter().filter(|(name, _)| *name == key).filter_map(|(_, value)| value).collect::<Vec<_>>()
            };
            assert_eq!(of("mqtt-retain"), ["true"]);
            // A name of edgeHub's own properties that a sender uses is the sender's: nothing is added under it.
            assert_eq!(of("edgeMessageId"), ["the-senders"]);
            assert!(of("edgeHubOriginInterface").is_empty() && of(system::OUTPUT_NAME).is_empty(), "{topic}");
            assert_eq!(of(system::CONNECTION_DEVICE_ID).len(), 1, "{topic}");
            count += 1;
        }
        assert_eq!(count, 3);
    }
}
