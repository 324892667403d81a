//! Admits devices that enrol themselves, and answers their requests.

use std::sync::Arc;

use edge_core::access::x509::Trust;
use edge_core::dialect::link::LinkDown;
use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use edge_hub::enrolling::Enrolling;
use edge_hub::service::{Admitted, Refusal};
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};
use schemas::provisioning::{Enrolment, EnrolmentAnswer, EnrolmentRequest};

use super::proving::{Proven, Site, prove};
use super::registration::{Registered, assigning, register, status};
use crate::access::admission::Admission;
use crate::access::authenticator::Authenticator;
use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::gateway_sync::service::GatewaySync;
use crate::redelivery::Redelivery;
use crate::store::Store;

/// The enrolments of devices, at central's own listener and through gateways.
pub struct Enrollment {
    store: Store,
    clients: Clients,
    authenticator: Arc<Authenticator>,
    gateway_sync: Arc<GatewaySync>,
    redelivery: Redelivery,
    /// The site's ID scope.
    id_scope: String,
    /// The host name that enrolled devices are assigned to.
    hub: String,
    /// Devices at central's own listener that enrol now.
    enrolling: Enrolling,
}

/// What an enrolment needs.
pub struct EnrollmentParts {
    pub store: Store,
    pub clients: Clients,
    pub authenticator: Arc<Authenticator>,
    pub gateway_sync: Arc<GatewaySync>,
    pub redelivery: Redelivery,
    pub id_scope: String,
    pub hub: String,
}

impl Enrollment {
    pub fn new(parts: EnrollmentParts) -> Self {
        let EnrollmentParts { store, clients, authenticator, gateway_sync, redelivery, id_scope, hub } =
            parts;
        let enrolling = Enrolling::default();
        Self { store, clients, authenticator, gateway_sync, redelivery, id_scope, hub, enrolling }
    }

    /// The site's ID scope.
    pub(crate) fn id_scope(&self) -> &str {
        &self.id_scope
    }

    /// The host name at which devices enrol and to which they are assigned.
    pub(crate) fn hub(&self) -> &str {
        &self.hub
    }

    /// Admits a device that enrols itself at central's own listener.
    ///
    /// # Errors
    /// [`Refusal::NotAuthorized`] when its proof is not accepted, [`Refusal::Unavailable`] when too many devices enrol.
    pub(crate) async fn admit(&self, enrolment: Enrolment) -> Result<Admitted, Refusal> {
        let (shown, site) = (enrolment.clone(), self.site());
        let proven = self.store.read(move |c| prove(c, &shown, &site, None)).await;
        let Proven { ends_at, .. } = proven.map_err(|error| match error {
            ServiceError::Store(_) => Refusal::Unavailable(chain(&error).to_string()),
            error => Refusal::NotAuthorized(error.to_string()),
        })?;
        let identity = self.enrolling.enter(enrolment, None);
        let identity =
            identity.ok_or_else(|| Refusal::Unavailable("too many devices enrol at once".into()))?;
        Ok(Admitted { identity, proof: Default::default(), ends_at: Some(ends_at), generation: 0 })
    }

    /// Answers a request of a device that enrols at central's own listener.
    pub(crate) async fn answer(&self, client: &Identity, request: EnrolmentRequest) -> EnrolmentAnswer {
        match self.enrolling.request_of(client, request) {
            Some(enrolment) => self.enroll(enrolment, None).await,
            None => EnrolmentAnswer::failure(401, "the registration took too long; connect again"),
        }
    }

    /// Returns true if the client was enrolling: its connection has ended.
    pub(crate) fn leave(&self, client: &Identity) -> bool {
        self.enrolling.leave(client)
    }

    /// Answers a device that enrols itself through a gateway.
    pub(crate) fn enroll_through(
        self: &Arc<Self>,
        gateway: DeviceId,
        request_id: String,
        enrolment: Enrolment,
    ) -> BoxFuture<'static, Result<(), ServiceError>> {
        let this = self.clone();
        Box::pin(async move {
            let answer = this.enroll(enrolment, Some(gateway.clone())).await;
            let body = serde_json::to_vec(&answer).expect("an answer has text keys only");
            let operation = LinkDown::Enrolled { request_id };
            // Nobody waits for its acknowledgement; a gateway that is not connected asks again, as its device does.
            drop(this.clients.send_link(&Identity::device(gateway), &operation, body.into()));
            Ok(())
        })
    }

    fn site(&self) -> Site {
        let trust: Arc<Trust> = self.authenticator.trust();
        Site { id_scope: self.id_scope.clone(), trust, now_ms: now_ms() }
    }

    /// Answers a device that enrols itself, at central's own listener or through the gateway `via`.
    async fn enroll(&self, enrolment: Enrolment, via: Option<DeviceId>) -> EnrolmentAnswer {
        let (site, id) = (self.site(), enrolment.registration_id.clone());
        let done = match enrolment.request.clone() {
            EnrolmentRequest::Prove => {
                let read = move |c: &Connection| prove(c, &enrolment, &site, via.as_ref());
                self.store.read(read).await.map(|_| EnrolmentAnswer {
                    status: 200,
                    retry_after: None,
                    body: serde_json::Value::Null,
                })
            }
            EnrolmentRequest::Status { operation_id } => {
                let hub = self.hub.clone();
                let read = move |c: &Connection| {
                    // An operation id alone proves nothing.
                    prove(c, &enrolment, &site, via.as_ref())?;
                    status(c, &enrolment.registration_id, &operation_id, &hub, site.now_ms)
                };
                self.store.read(read).await
            }
            EnrolmentRequest::Register => self.register(enrolment, site, via).await,
        };
        done.unwrap_or_else(|error| {
            tracing::warn!(device = %id, error = %chain(&error), "enrolment of a device was rejected");
            refusal(&error)
        })
    }

    async fn register(
        &self,
        enrolment: Enrolment,
        site: Site,
        via: Option<DeviceId>,
    ) -> Result<EnrolmentAnswer, ServiceError> {
        let (id, gateway) = (enrolment.registration_id.clone(), via.clone());
        let registered = self.store.submit(move |c| register(c, &enrolment, &site, gateway.as_ref()));
        let Registered { operation_id, device, gateways } = registered.await?;
        // It may have connected with another key or certificate than it enrolled with.
        self.authenticator.review(&device);
        let waits = device.admission() == Admission::Waiting;
        tracing::info!(device = %id, gateway = ?via.as_ref().map(DeviceId::as_str), waits_for_approval = waits, "device enrolled itself");
        for gateway in &gateways {
            self.gateway_sync.send_child(gateway, &id);
        }
        if let Some(gateway) = &via {
            self.gateway_sync.send_desired(gateway, Identity::device(id.clone()));
        }
        self.redelivery.redeliver(id).await?;
        Ok(assigning(&operation_id))
    }
}

/// The answer of the Device Provisioning Service for an error.
fn refusal(error: &ServiceError) -> EnrolmentAnswer {
    let text = chain(error).to_string();
    match error {
        ServiceError::NotFound(_) => EnrolmentAnswer::failure(404, &text),
        ServiceError::Forbidden(_) => EnrolmentAnswer::failure(401, &text),
        ServiceError::NotApproved(_) => EnrolmentAnswer::not_approved(&text),
        ServiceError::Busy(_) | ServiceError::Stopping(_) | ServiceError::Store(_) => {
            EnrolmentAnswer::later(&text)
        }
        _ => EnrolmentAnswer::failure(400, &text),
    }
}
