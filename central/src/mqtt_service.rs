//! What gateways and devices do at central's MQTT server: each operation goes to the service that does it.

use std::sync::Arc;

use bytes::Bytes;
use edge_buffer::Fence;
use edge_core::access::authorization::Rights;
use edge_core::access::enrolment;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::LinkUp;
use edge_core::error_chain::chain;
use edge_hub::enrolling;
use edge_hub::service::{Admitted, Client, ConnectRequest, Login, Refusal, Rejected, Service};
use edge_hub::tasks;
use futures_util::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use schemas::bag::PropertyBag;
use schemas::json::JsonError;
use schemas::link::Hello;
use schemas::names::{DeviceId, Identity};
use schemas::provisioning::{EnrolmentAnswer, EnrolmentRequest};
use schemas::twin::Twin;
use serde_json::{Map, Value};

use crate::clock::now_ms;
use crate::error::{ServiceError, no_device};
use crate::services::Services;
use crate::store::commands::Outcome;
use crate::store::devices;
use crate::store::telemetry::NewMessage;
use crate::store::twins::{self, Half};
use crate::telemetry::fences::GatewayConnection;
use crate::telemetry::position::GatewayProperties;

impl From<ServiceError> for Rejected {
    fn from(error: ServiceError) -> Self {
        let why = chain(&error).to_string();
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

/// central behind its MQTT server.
pub struct CentralService(Services);

impl CentralService {
    pub fn new(services: Services) -> Arc<Self> {
        Arc::new(Self(services))
    }

    /// Stores a telemetry message that `serving_gateway`, a gateway, or its sender itself sent, or that is the will of `left_by`.
    fn store_message(
        &self,
        serving_gateway: Option<GatewayConnection>,
        left_by: Option<DeviceId>,
        fence: Option<&Fence>,
        from: Identity,
        mut bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let received_ms = now_ms();
        let gateway = serving_gateway.as_ref().map(|serving_gateway| &serving_gateway.gateway);
        let GatewayProperties { place, enqueued_ms, generation } =
            match GatewayProperties::take(&mut bag, gateway) {
                Ok(properties) => properties,
                Err(error) => return rejected(400, error.to_string()),
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
        let stored = match (left_by, serving_gateway) {
            (Some(left_by), _) => self.0.telemetry.put_will(message, left_by),
            (None, Some(gateway)) => self.0.telemetry.put(message, Some(gateway)),
            (None, None) => self.0.telemetry.put_of_device(message, fence),
        };
        stored.map_err(Rejected::from).boxed()
    }

    fn is_gateway(&self, client: &Client) -> bool {
        self.0.authenticator.is_gateway(&client.identity)
    }

    /// Begins an operation of a gateway's link.
    fn begin_link_operation(
        &self,
        client: &Client,
        operation: &LinkUp,
        payload: &Bytes,
    ) -> Result<BoxFuture<'static, Result<(), ServiceError>>, JsonError> {
        let Services { gateway_reports, gateway_sync, connections, commands, c2d, .. } = &self.0;
        let gateway = client.identity.device.clone();
        let size_bytes = payload.len();
        Ok(match operation {
            LinkUp::Hello => {
                let hello: Hello = read(payload)?;
                connections.greeted(&gateway, client.connection, hello.version);
                if let Some(number) = hello.time_request {
                    gateway_sync.answer_time(gateway, client.connection, number);
                }
                std::future::ready(Ok(())).boxed()
            }
            LinkUp::Reported(of) => gateway_reports.reported(gateway, of.clone(), read(payload)?, size_bytes),
            LinkUp::Presence => {
                gateway_reports.presence(gateway, client.connection, read(payload)?, size_bytes)
            }
            LinkUp::Answer { command_id } => {
                let outcome: Outcome = read(payload)?;
                commands.end(command_id.clone(), Some(gateway), outcome)
            }
            LinkUp::Removed => gateway_reports.removed(gateway, read(payload)?),
            LinkUp::Losses => gateway_reports.lost(gateway, read(payload)?, size_bytes),
            LinkUp::Enrol { request_id } => {
                self.0.enrollment.enroll_through(gateway, request_id.clone(), read(payload)?)
            }
            LinkUp::Settled { device, sequence } => {
                c2d.settled(gateway, device.clone(), *sequence, read(payload)?)
            }
        })
    }
}

/// A will on a free topic: central has no rules that would allow one.
#[derive(Debug, thiserror::Error)]
#[error("{0} may not publish on free topics here")]
pub struct FreeTopicDenied(Identity);

impl Service for CentralService {
    type Denied = FreeTopicDenied;

    fn is_guessable(&self, request: &ConnectRequest) -> bool {
        // Devices and gateways have keys of 256 bits or certificates.
        enrolment::claim(&request.client_id, request.user_name.as_deref().unwrap_or("")).is_some()
    }

    async fn authenticate(self: &Arc<Self>, request: ConnectRequest) -> Result<Admitted, Refusal> {
        match enrolment::claim(&request.client_id, request.user_name.as_deref().unwrap_or("")) {
            Some(claim) => {
                let claim = claim.map_err(|error| Refusal::NotAuthorized(error.to_string()))?;
                self.0.enrollment.admit(enrolling::shown(claim, &request)?).await
            }
            None => self.0.authenticator.authenticate(&request).await,
        }
    }

    /// Nothing on free topics: central has no rules for them. [`Authenticator::review`] closes the connections of devices that
    /// are blocked or get another key.
    ///
    /// [`Authenticator::review`]: crate::access::authenticator::Authenticator::review
    fn authorize(&self, _identity: &Identity, _login: &Login) -> Result<Rights, FreeTopicDenied> {
        Ok(Rights::default())
    }

    fn telemetry(
        self: &Arc<Self>,
        client: &Client,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
        fence: Option<&Fence>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let serving_gateway = self.is_gateway(client).then(|| GatewayConnection {
            gateway: client.identity.device.clone(),
            connection: client.connection,
        });
        self.store_message(serving_gateway, None, fence, from, bag, payload)
    }

    fn telemetry_will(
        self: &Arc<Self>,
        left_by: &Identity,
        from: Identity,
        bag: PropertyBag,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        self.store_message(None, Some(left_by.device.clone()), None, from, bag, payload)
    }

    /// Nothing on free topics, as for what it publishes.
    fn may_leave_will(&self, left_by: &Identity, _topic: &str) -> Result<(), FreeTopicDenied> {
        Err(FreeTopicDenied(left_by.clone()))
    }

    async fn twin(self: &Arc<Self>, client: &Client) -> Result<Twin, Rejected> {
        let of = client.identity.clone();
        Ok(self.0.store.read(move |c| Ok::<_, ServiceError>(twins::twin(c, &of)?)).await?)
    }

    async fn report(self: &Arc<Self>, client: &Client, patch: Map<String, Value>) -> Result<u64, Rejected> {
        let (of, now_ms) = (client.identity.clone(), now_ms());
        let written = self.0.store.submit(move |c| {
            // It may have been deleted a moment ago: its connection is closed after that.
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

    /// Whether the gateway may speak for the device is checked when the message is stored, not here: refusing the topic would
    /// close the connection, and a message of a device that was moved to another gateway would then keep everything behind it
    /// from ever arriving.
    fn may_speak_for(&self, client: &Client, other: &Identity) -> bool {
        self.is_gateway(client) && (other.module.is_none() || other.device == client.identity.device)
    }

    fn is_gateway(&self, client: &Client) -> bool {
        Self::is_gateway(self, client)
    }

    fn link(
        self: &Arc<Self>,
        client: &Client,
        operation: LinkUp,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        match self.begin_link_operation(client, &operation, &payload) {
            Ok(done) => done.map_err(Rejected::from).boxed(),
            Err(error) => rejected(400, format!("{operation}: {error}")),
        }
    }

    async fn enrol(self: &Arc<Self>, client: &Client, request: EnrolmentRequest) -> EnrolmentAnswer {
        self.0.enrollment.answer(&client.identity, request).await
    }

    fn connected(self: &Arc<Self>, client: &Client) {
        // A device that enrols is no device yet, so it is not shown as connected.
        if client.identity.is_local() {
            return;
        }
        self.0.connections.connected(&client.identity, client.connection, now_ms());
        self.0.authenticator.review_new(client.identity.clone());
    }

    fn disconnected(self: &Arc<Self>, client: &Client, _why: &str) {
        if self.0.enrollment.leave(&client.identity) {
            return;
        }
        self.0.connections.disconnected(&client.identity, client.connection);
        let (services, device) = (self.0.clone(), client.identity.device.clone());
        tasks::spawn("end of a connection", async move {
            services.authenticator.note_seen(&device).await;
            if let Err(error) = services.redelivery.redeliver(device).await {
                tracing::error!(error = %chain(&error), "handing a device's messages and commands to its gateway failed");
            }
        });
    }

    fn subscribed(self: &Arc<Self>, client: &Client, to: &Subscribe) {
        match to {
            Subscribe::Link if self.is_gateway(client) => {
                self.0.gateway_sync.send_everything(client.identity.device.clone());
            }
            Subscribe::Inbox { of } if of.module.is_none() => self.0.c2d.wake(&of.device),
            // A gateway takes its own and its devices' commands on its link.
            Subscribe::MethodCalls if !self.is_gateway(client) => {
                self.0.waiting_commands.run(client.identity.device.clone());
            }
            _ => {}
        }
    }
}

fn rejected(status: u16, why: String) -> BoxFuture<'static, Result<(), Rejected>> {
    std::future::ready(Err(Rejected::Wrong(status, why))).boxed()
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Result<T, JsonError> {
    schemas::json::from_link(payload)
}
