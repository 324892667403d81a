//! What gateways and devices do at central's MQTT server.

use edge_core::error_chain::chain;
use edge_hub::tasks;
use std::sync::Arc;

use bytes::Bytes;
use edge_core::access::attestation::Circumstances;
use edge_core::access::authorization::Rights;
use edge_core::access::claim::{Claim, claim};
use edge_core::access::enrolment;
use edge_core::access::error::AccessError;
use edge_core::access::x509::Trust;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::{LinkDown, LinkUp};
use edge_hub::enrolling;
use edge_hub::service::{Admitted, Client, ConnectRequest, Login, Refusal, Rejected, Service};
use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use schemas::bag::{PropertyBag, system};
use schemas::generation::{Counter, Generation};
use schemas::link::{Hello, Losses, Presence, RemovedDevice, Reported};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::provisioning::{Enrolment, EnrolmentAnswer, Wish};
use schemas::twin::{Section, Twin};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::authorize::{Way, authorize, remove_claim};
use crate::clock::now_ms;
use crate::device_attestation::attestation;
use crate::error::{ServiceError, no_device};
use crate::fleet::Fleet;
use crate::ingest::GatewayConnection;
use crate::store::StoreError;
use crate::store::commands::Outcome;
use crate::store::devices::{self, Device};
use crate::store::losses;
use crate::store::telemetry::{NewMessage, Place};
use crate::store::twins::{self, Half};

impl From<ServiceError> for Rejected {
    fn from(error: ServiceError) -> Self {
        let why = error.to_string();
        match error {
            ServiceError::NotFound(_) => Self::Wrong(404, why),
            ServiceError::Conflict(_) => Self::Wrong(409, why),
            ServiceError::PreconditionFailed(_) => Self::Wrong(412, why),
            ServiceError::Wrong(_) => Self::Wrong(400, why),
            ServiceError::TooLarge(_) => Self::Wrong(413, why),
            ServiceError::QueueFull(_) => Self::Wrong(403, why),
            ServiceError::Forbidden(_) | ServiceError::NotApproved(_) => Self::Wrong(403, why),
            ServiceError::Busy(_) => Self::Temporary(429, why),
            ServiceError::Stopping(_) | ServiceError::Store(_) => Self::Temporary(503, why),
        }
    }
}

impl Fleet {
    /// Takes a telemetry message that `carrier`, a gateway, brought, or its sender itself, or that is the will of `left_by`.
    fn take(
        self: &Arc<Self>,
        carrier: Option<GatewayConnection>,
        left_by: Option<DeviceId>,
        from: Identity,
        mut bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let received_ms = now_ms();
        let (place, enqueued_ms, generation) =
            match place(&mut bag, carrier.as_ref().map(|carrier| &carrier.gateway)) {
                Ok(place) => place,
                Err(why) => return Box::pin(async { Err(Rejected::Wrong(400, why)) }),
            };
        let message = NewMessage {
            from,
            enqueued_ms: enqueued_ms.unwrap_or(received_ms),
            received_ms,
            bag,
            body: payload.into(),
            place,
            generation,
        };
        let stored = match left_by {
            Some(left_by) => self.ingest.put_will(message, left_by),
            None => self.ingest.put(message, carrier),
        };
        stored.map_err(Rejected::from).boxed()
    }
}

/// A will on a free topic: central has no rules that would allow one.
#[derive(Debug, thiserror::Error)]
#[error("{0} may not publish on free topics here")]
pub struct FreeTopicDenied(Identity);

impl Service for Fleet {
    type Denied = FreeTopicDenied;

    fn is_guessable(&self, request: &ConnectRequest) -> bool {
        // Devices and gateways have keys of 256 bits or certificates.
        enrolment::claim(&request.client_id, request.user_name.as_deref().unwrap_or("")).is_some()
    }

    async fn authenticate(self: &Arc<Self>, request: ConnectRequest) -> Result<Admitted, Refusal> {
        let refused = |error: AccessError| Refusal::NotAuthorized(error.to_string());
        if let Some(claim) = enrolment::claim(&request.client_id, request.user_name.as_deref().unwrap_or(""))
        {
            return self.admit_enrolling(enrolling::shown(claim.map_err(refused)?, &request)?).await;
        }
        let identity = match claim(&request.client_id, request.user_name.as_deref()).map_err(refused)? {
            Claim::Identity(identity) => identity,
            Claim::User(user) => {
                return Err(Refusal::NotAuthorized(format!("user `{user}`: users connect at gateways")));
            }
        };
        if identity.module.is_some() {
            return Err(Refusal::NotAuthorized(format!(
                "module {identity} connects at its gateway, not here"
            )));
        }
        let device = self
            .device(&identity.device)
            .await
            .map_err(|error| Refusal::Unavailable(chain(&error).to_string()))?
            .ok_or_else(|| Refusal::NotAuthorized(format!("device `{identity}` is not registered")))?;
        if let Err(why) = device.admission().check() {
            return Err(Refusal::NotAuthorized(format!("device `{identity}`: {why}")));
        }
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        let trust: Arc<Trust> = self.trust.borrow().clone();
        let under = Circumstances { hosts: &hosts, trust: &trust, now_secs: now_ms() / 1000 };
        let (proof, ends_at) =
            attestation(&device).prove(&identity, &request.evidence(), &under).map_err(refused)?;
        if device.is_gateway {
            self.gateways.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(device.id.clone());
        }
        Ok(Admitted { identity, proof, ends_at: Some(ends_at), generation: device.generation })
    }

    /// Nothing on free topics: central has no rules for them. Who is blocked or has another key is found in the store
    /// by [`Fleet::review`], when that has changed.
    fn authorize(&self, _identity: &Identity, _login: &Login) -> Result<Rights, FreeTopicDenied> {
        Ok(Rights::default())
    }

    fn telemetry(
        self: &Arc<Self>,
        client: &Client,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let carrier = self.is_gateway(client).then(|| GatewayConnection {
            gateway: client.identity.device.clone(),
            connection: client.connection,
        });
        self.take(carrier, None, from, bag, payload)
    }

    fn telemetry_will(
        self: &Arc<Self>,
        left_by: &Identity,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        self.take(None, Some(left_by.device.clone()), from, bag, payload)
    }

    /// Nothing on free topics, as for what it publishes.
    fn may_leave_will(&self, left_by: &Identity, _topic: &str) -> Result<(), FreeTopicDenied> {
        Err(FreeTopicDenied(left_by.clone()))
    }

    async fn twin(self: &Arc<Self>, client: &Client) -> Result<Twin, Rejected> {
        let of = client.identity.clone();
        Ok(self.store.read(move |c| Ok::<_, ServiceError>(twins::twin(c, &of)?)).await?)
    }

    async fn report(self: &Arc<Self>, client: &Client, patch: Map<String, Value>) -> Result<u64, Rejected> {
        let (of, now_ms) = (client.identity.clone(), now_ms());
        let written = self.store.submit(move |c| {
            if devices::get(c, &of.device)?.is_none() {
                return Err(no_device(&of.device));
            }
            let mut section = twins::section(c, &of, Half::Reported)?.section;
            edge_core::twin::patch(&mut section, &patch).map_err(|error| match error.status() {
                413 => ServiceError::TooLarge(error.to_string()),
                _ => error.into(),
            })?;
            twins::write(c, &of, Half::Reported, &section, now_ms)?;
            Ok(section.version)
        });
        Ok(written.await?)
    }

    /// A gateway's word is looked at when it is stored, not here: refusing the topic would close the connection, and a
    /// message of a device that was moved to another gateway would then keep everything behind it from ever arriving.
    fn may_speak_for(&self, client: &Client, other: &Identity) -> bool {
        self.is_gateway(client) && (other.module.is_none() || other.device == client.identity.device)
    }

    fn is_gateway(&self, client: &Client) -> bool {
        let gateways = self.gateways.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        client.identity.module.is_none() && gateways.contains(&client.identity.device)
    }

    fn link(
        self: &Arc<Self>,
        client: &Client,
        operation: LinkUp,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let gateway = client.identity.device.clone();
        let done =
            match &operation {
                LinkUp::Hello => read::<Hello>(&payload).map(|hello| {
                    self.connections.greeted(&gateway, client.connection, hello.version);
                    if let Some(number) = hello.asks_time {
                        self.tell_time(gateway.clone(), client.connection, number);
                    }
                    std::future::ready(Ok(())).boxed()
                }),
                LinkUp::Reported(of) => {
                    read(&payload).map(|section| self.reported(gateway, of.clone(), section, payload.len()))
                }
                LinkUp::Presence => read(&payload)
                    .map(|presence| self.presence(gateway, client.connection, presence, payload.len())),
                LinkUp::Answer { command_id } => read::<Outcome>(&payload)
                    .map(|outcome| self.end(command_id.clone(), Some(gateway), outcome)),
                LinkUp::Removed => read(&payload).map(|removed| self.claim_removed(gateway, removed)),
                LinkUp::Losses => read(&payload).map(|losses| self.lost(gateway, losses, payload.len())),
                LinkUp::Enrol { request_id } => read(&payload)
                    .map(|enrolment| self.enroll_through(gateway, request_id.clone(), enrolment)),
                LinkUp::Settled { device, sequence } => read(&payload)
                    .map(|settlement| self.settled(gateway, device.clone(), *sequence, settlement)),
            };
        match done {
            Ok(done) => Box::pin(async move { done.await.map_err(Rejected::from) }),
            Err(why) => Box::pin(async move { Err(Rejected::Wrong(400, format!("{operation}: {why}"))) }),
        }
    }

    async fn enrol(self: &Arc<Self>, client: &Client, wish: Wish) -> EnrolmentAnswer {
        match self.enrolling.asks(&client.identity, wish) {
            Some(enrolment) => self.enroll(enrolment, None).await,
            None => EnrolmentAnswer::failure(401, "the registration took too long; connect again"),
        }
    }

    fn connected(self: &Arc<Self>, client: &Client) {
        if client.identity.is_local() {
            return;
        }
        self.connections.came(&client.identity, client.connection, now_ms());
        let (fleet, identity) = (self.clone(), client.identity.clone());
        let (recovering, of) = (self.clone(), client.identity.clone());
        let review = async move {
            fleet.note_seen(&identity.device).await;
            // Blocked, deleted or given another key between its CONNECT and now: nobody was found to close then.
            match fleet.device(&identity.device).await {
                Ok(Some(device)) => fleet.review(&device),
                Ok(None) => fleet.clients.disconnect(&identity, "it was deleted while it connected"),
                Err(error) => {
                    tracing::warn!(%identity, error = %chain(&error), "a client that came in could not be judged again")
                }
            }
        };
        tasks::spawn_recovering(None, "review of a new client", review, move || {
            recovering.clients.disconnect(&of, "whether it may stay could not be found out");
        });
    }

    fn disconnected(self: &Arc<Self>, client: &Client, _why: &str) {
        if self.enrolling.leave(&client.identity) {
            return;
        }
        self.connections.went(&client.identity, client.connection);
        let (fleet, device) = (self.clone(), client.identity.device.clone());
        tasks::spawn("end of a connection", async move {
            fleet.note_seen(&device).await;
            if let Err(error) = fleet.send_on_all(device).await {
                tracing::error!(error = %chain(&error), "what waits for the device was not handed to the gateway");
            }
        });
    }

    fn subscribed(self: &Arc<Self>, client: &Client, to: &Subscribe) {
        match to {
            Subscribe::Link if self.is_gateway(client) => {
                self.tell_everything(client.identity.device.clone())
            }
            Subscribe::Inbox { of } if of.module.is_none() => self.dispatcher.wake(&of.device),
            // A gateway takes its own and its devices' commands on its link.
            Subscribe::MethodCalls if !self.is_gateway(client) => {
                self.run_waiting(client.identity.device.clone());
            }
            _ => {}
        }
    }
}

impl Fleet {
    /// Closes the connection of a device at central's own listener when it may not stay any more: blocked, or proven by
    /// what proves it no longer.
    pub(crate) fn review(&self, device: &Device) {
        let (attestation, admission) = (attestation(device), device.admission());
        let trust = self.trust.borrow().clone();
        let generation = device.generation;
        self.clients.review_one(&Identity::device(device.id.clone()), |_, login| {
            if login.generation != generation {
                return Err("an operator deleted it, and registered another one of its id".to_owned());
            }
            admission.check().map_err(|why| why.to_string())?;
            if attestation.stands(&login.proof, &trust) {
                Ok(Rights::default())
            } else {
                Err("its key or certificate is not accepted any more".to_owned())
            }
        });
    }

    /// Judges everybody at central's own listener whenever the authorities of devices are others, until `stop`.
    pub(crate) async fn review_on_change(self: Arc<Self>, stop: CancellationToken) {
        let mut trust = self.trust.clone();
        loop {
            let changed = tokio::select! {
                changed = trust.changed() => changed,
                () = stop.cancelled() => return,
            };
            if changed.is_err() {
                // The sender lives until central stops.
                return stop.cancelled().await;
            }
            for (identity, _) in self.clients.connected() {
                match self.device(&identity.device).await {
                    Ok(Some(device)) => self.review(&device),
                    // Somebody who enrols, or was deleted just now: neither is judged by an authority.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%identity, error = %chain(&error), "a client could not be judged again")
                    }
                }
            }
        }
    }

    async fn device(&self, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let id = id.clone();
        self.store.read(move |c| Ok::<_, StoreError>(devices::get(c, &id)?)).await
    }

    async fn note_seen(&self, device: &DeviceId) {
        let (device, now_ms) = (device.clone(), now_ms());
        let noted = self.store.submit(move |c| Ok::<_, StoreError>(devices::seen(c, &device, now_ms)?)).await;
        if let Err(error) = noted {
            tracing::warn!(error = %chain(&error), "when a device was seen was not stored");
        }
    }

    /// Answers a device that enrols itself through a gateway.
    fn enroll_through(
        self: &Arc<Self>,
        gateway: DeviceId,
        request_id: String,
        enrolment: Enrolment,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let fleet = self.clone();
        Box::pin(async move {
            let answer = fleet.enroll(enrolment, Some(gateway.clone())).await;
            let body = serde_json::to_vec(&answer).expect("an answer has text keys only");
            // Sent now; a gateway that is gone asks again, as its device does.
            drop(fleet.clients.send_link(
                &Identity::device(gateway),
                &LinkDown::Enrolled { request_id },
                body.into(),
            ));
            Ok(())
        })
    }

    fn reported(
        &self,
        gateway: DeviceId,
        of: Identity,
        reported: Reported,
        size_bytes: usize,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let Reported { section, generation } = reported;
        if let Err(error) = check_report(&of, &section) {
            return std::future::ready(Err(error)).boxed();
        }
        let now_ms = now_ms();
        let work = move |c: &rusqlite::Connection| {
            authorize(c, &gateway, &of, Way::Reported, generation)?;
            if of.module.is_none()
                && let Some(Generation { number, counter: Counter::Central, .. }) = generation
                && devices::get(c, &of.device)?.is_some_and(|device| device.attachment != number)
            {
                // The gateway has not heard yet that this is another device; taken, or it would be sent for ever.
                tracing::info!(device = %of, %gateway, "reported properties of an earlier device of this id were left out");
                return Ok(());
            }
            let stands = twins::section(c, &of, Half::Reported)?.section;
            // A gateway that lost its data counts from the beginning again: another version is news, not only a higher.
            if stands.version != section.version || stands.properties != section.properties {
                twins::write(c, &of, Half::Reported, &section, now_ms)?;
            }
            Ok(())
        };
        self.store.submit_then(size_bytes, work, |()| {})
    }

    /// A device that was added on its gateway was removed there: its registration ends, unless an operator has taken it over.
    fn claim_removed(
        self: &Arc<Self>,
        gateway: DeviceId,
        removed: RemovedDevice,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let fleet = self.clone();
        Box::pin(async move {
            let id = removed.device_id.clone();
            let is_gone = fleet.store.submit(move |c| remove_claim(c, &gateway, &removed)).await?;
            if is_gone {
                fleet.forget_connection(&id, "it was removed on its gateway").await;
            }
            Ok(())
        })
    }

    fn lost(
        &self,
        gateway: DeviceId,
        mut losses: Losses,
        size_bytes: usize,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        if let Err(error) = losses::check(&mut losses) {
            return std::future::ready(Err(ServiceError::Wrong(error.to_string()))).boxed();
        }
        let now_ms = now_ms();
        let work = move |c: &rusqlite::Connection| {
            check_senders(c, &gateway, &mut losses)?;
            if losses::insert(c, &gateway, &losses, now_ms)? {
                for loss in losses.losses.iter().filter(|loss| loss.cause == losses::CENTRAL_RESTORED) {
                    let (queue, first, last, count) = (&losses.name, loss.first, loss.last, loss.count);
                    tracing::error!(%gateway, queue, first, last, count, "messages that central had confirmed are not in its store, which was restored from a backup; the gateway has deleted them");
                }
                Ok(())
            } else {
                Err(ServiceError::Forbidden("the gateway brings more queues than one may have".into()))
            }
        };
        self.store.submit_then(size_bytes, work, |()| {})
    }

    fn presence(
        self: &Arc<Self>,
        gateway: DeviceId,
        connection: u64,
        mut presence: Presence,
        size_bytes: usize,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let (fleet, now_ms) = (self.clone(), now_ms());
        let told = self.store.submit_then(
            size_bytes,
            move |c| {
                let mut known = Vec::with_capacity(presence.clients.len());
                let (mut strangers, mut why) = (0, None);
                for client in presence.clients {
                    match authorize(c, &gateway, &client.identity, Way::Presence, client.generation) {
                        Ok(()) if client.identity.device == gateway => known.push(client),
                        Ok(()) => {
                            devices::seen(c, &client.identity.device, now_ms)?;
                            known.push(client);
                        }
                        Err(ServiceError::Store(error)) => return Err(error.into()),
                        Err(error) => {
                            strangers += 1;
                            why.get_or_insert(error);
                        }
                    }
                }
                if let Some(error) = why {
                    tracing::warn!(%gateway, strangers, error = %chain(&error), "presence of strangers was left out");
                }
                presence.clients = known;
                Ok((gateway, presence))
            },
            move |(gateway, presence)| {
                if let Err(error) = fleet.connections.told(gateway, connection, presence) {
                    // It begins again on its next connection.
                    tracing::error!(%gateway, error = %chain(&error), "the gateway's list of clients was given up");
                    let gateway = Identity::device(gateway.clone());
                    fleet.clients.disconnect(&gateway, "a part of its list of clients is missing");
                }
            },
        );
        told.map_ok(|_| ()).boxed()
    }
}

/// Leaves senders out of losses for whom the gateway does not speak: the messages are lost all the same, and nobody else has
/// lost them.
fn check_senders(
    c: &rusqlite::Connection,
    gateway: &DeviceId,
    losses: &mut Losses,
) -> Result<(), ServiceError> {
    let (mut left_out, mut why) = (0, None);
    for loss in losses.losses.iter_mut().filter(|loss| !loss.sender.is_empty()) {
        let may = match loss.sender.parse::<Identity>() {
            Ok(of) => authorize(c, gateway, &of, Way::Loss, loss.generation),
            Err(error) => Err(ServiceError::Wrong(format!("sender: {error}"))),
        };
        match may {
            Ok(()) => {}
            Err(ServiceError::Store(error)) => return Err(error.into()),
            Err(error) => {
                loss.sender.clear();
                left_out += 1;
                why.get_or_insert(error);
            }
        }
    }
    if let Some(error) = why {
        tracing::warn!(%gateway, losses = left_out, error = %chain(&error), "senders of lost messages were left out");
    }
    Ok(())
}

/// The largest reported section that a gateway tells of itself: its report on a manifest of some hundred modules.
const REPORT_BYTES_MAX: usize = 256 * 1024;

/// Makes sure that a reported section is no larger than what its owner may report.
fn check_report(of: &Identity, section: &Section) -> Result<(), ServiceError> {
    let is_system = of.module.as_ref().is_some_and(ModuleId::is_system);
    // Counted as the gateway counts them for a patch, with some room for another version's count.
    let max = if is_system { REPORT_BYTES_MAX } else { 2 * edge_core::twin::SECTION_BYTES_MAX };
    let bytes = serde_json::to_vec(&section.properties).map_or(usize::MAX, |text| text.len());
    if bytes > max {
        let why = format!("the reported section of `{of}` has {bytes} bytes; {max} are allowed");
        return Err(ServiceError::TooLarge(why));
    }
    if i64::try_from(section.version).is_err() {
        return Err(ServiceError::Wrong(format!(
            "the reported section of `{of}` has version {}",
            section.version
        )));
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    schemas::json::from_link(payload).map_err(|error| error.to_string())
}

/// The longest id of a gateway's queue: a gateway makes UUIDs.
const QUEUE_ID_BYTES_MAX: usize = 128;

/// A message's place in its gateway's queue, when the gateway accepted it, and which of the devices of its name sent it.
type StoredPosition = (Option<Place>, Option<u64>, Option<Generation>);

/// Takes the link's properties out of a bag: the message's place in its gateway's queue, and when the gateway accepted
/// it. Only a gateway's own word counts: from others they are left out, and of several the last is taken, which the
/// gateway put behind whatever the device had written. A device could make later messages look like resends otherwise.
fn place(bag: &mut PropertyBag, gateway: Option<&DeviceId>) -> Result<StoredPosition, String> {
    let mut take = |name: &str| {
        let last = bag.iter().filter(|(key, _)| *key == name).last();
        let value = last.map(|(_, value)| value.unwrap_or("").to_owned());
        bag.remove(name);
        value
    };
    let queue = take(system::LINESIDE_QUEUE);
    let sequence = take(system::LINESIDE_SEQUENCE);
    let enqueued_ms = take(system::LINESIDE_ENQUEUED_MS);
    let generation = take(system::LINESIDE_GENERATION);
    let Some(gateway) = gateway else { return Ok((None, None, None)) };
    let generation = generation.map(|text| text.parse::<Generation>()).transpose();
    let generation = generation.map_err(|error| error.to_string())?;
    let number = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| format!("{name}: found `{text}`; write a number"))
        }
    };
    let enqueued_ms = number(system::LINESIDE_ENQUEUED_MS, enqueued_ms)?;
    match (queue, number(system::LINESIDE_SEQUENCE, sequence)?) {
        (None, None) => Ok((None, enqueued_ms, generation)),
        (Some(queue), Some(_)) if queue.len() > QUEUE_ID_BYTES_MAX => Err(format!(
            "{}: found {} bytes; {QUEUE_ID_BYTES_MAX} are allowed",
            system::LINESIDE_QUEUE,
            queue.len()
        )),
        (Some(_), Some(sequence)) if i64::try_from(sequence).is_err() => {
            Err(format!("{}: found {sequence}; {} is the most", system::LINESIDE_SEQUENCE, i64::MAX))
        }
        (Some(queue), Some(sequence)) => {
            Ok((Some(Place { gateway: gateway.clone(), queue, sequence }), enqueued_ms, generation))
        }
        _ => Err(format!("{} and {} come together", system::LINESIDE_QUEUE, system::LINESIDE_SEQUENCE)),
    }
}
