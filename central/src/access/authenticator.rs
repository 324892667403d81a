//! Who may connect to central's own listener, and who may stay connected.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};

use edge_core::access::attestation::Circumstances;
use edge_core::access::authorization::Rights;
use edge_core::access::claim::{Claim, claim};
use edge_core::access::error::AccessError;
use edge_core::access::x509::Trust;
use edge_core::error_chain::chain;
use edge_hub::clients::Clients;
use edge_hub::service::{Admitted, ConnectRequest, Refusal};
use edge_hub::tasks;
use schemas::names::{DeviceId, Identity};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::device_attestation::attestation;
use crate::clock::now_ms;
use crate::store::devices::{self, Device};
use crate::store::{Store, StoreError};

/// Authenticates devices and gateways, and closes the connections of those that may not stay.
pub struct Authenticator {
    store: Store,
    clients: Clients,
    /// The host names that a SAS token may be made for.
    hosts: Vec<String>,
    /// The certificate authorities of devices.
    trust: watch::Receiver<Arc<Trust>>,
    /// Gateways that have connected since central started, and were not deleted since.
    gateways: RwLock<HashSet<DeviceId>>,
}

impl Authenticator {
    pub fn new(
        store: Store,
        clients: Clients,
        hosts: Vec<String>,
        trust: watch::Receiver<Arc<Trust>>,
    ) -> Self {
        Self { store, clients, hosts, trust, gateways: RwLock::default() }
    }

    /// Returns the identity that a CONNECT proves.
    ///
    /// # Errors
    /// [`Refusal::NotAuthorized`], or [`Refusal::Unavailable`] when the store cannot be read.
    pub(crate) async fn authenticate(&self, request: &ConnectRequest) -> Result<Admitted, Refusal> {
        let refused = |error: AccessError| Refusal::NotAuthorized(error.to_string());
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
        let trust = self.trust();
        let under = Circumstances { hosts: &hosts, trust: &trust, now_secs: now_ms() / 1000 };
        let (proof, ends_at) =
            attestation(&device).prove(&identity, &request.evidence(), &under).map_err(refused)?;
        if device.is_gateway {
            self.gateways.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(device.id.clone());
        }
        Ok(Admitted { identity, proof, ends_at: Some(ends_at), generation: device.generation })
    }

    /// Returns true if a client is a gateway, and not one of its modules.
    pub(crate) fn is_gateway(&self, client: &Identity) -> bool {
        let gateways = self.gateways.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        client.module.is_none() && gateways.contains(&client.device)
    }

    /// The certificate authorities of devices.
    pub(crate) fn trust(&self) -> Arc<Trust> {
        self.trust.borrow().clone()
    }

    /// Closes the connection of a device that is blocked, or whose key or certificate is not accepted any more.
    pub(crate) fn review(&self, device: &Device) {
        let (attestation, admission) = (attestation(device), device.admission());
        let trust = self.trust();
        let generation = device.generation;
        self.clients.review_one(&Identity::device(device.id.clone()), |_, login| {
            if login.generation != generation {
                return Err("an operator deleted it, and registered another one of its id".to_owned());
            }
            admission.check().map_err(|why| why.to_string())?;
            if attestation.accepts(&login.proof, &trust) {
                Ok(Rights::default())
            } else {
                Err("its key or certificate is not accepted any more".to_owned())
            }
        });
    }

    /// Notes when a new client connected, and closes its connection if it was blocked, deleted or given another key since its
    /// CONNECT: no connection was there to close then.
    pub(crate) fn review_new(self: &Arc<Self>, identity: Identity) {
        let (this, recovering, of) = (self.clone(), self.clone(), identity.clone());
        let review = async move {
            this.note_seen(&identity.device).await;
            match this.device(&identity.device).await {
                Ok(Some(device)) => this.review(&device),
                Ok(None) => this.clients.disconnect(&identity, "it was deleted while it connected"),
                Err(error) => {
                    tracing::warn!(%identity, error = %chain(&error), "reading a client that connected failed");
                }
            }
        };
        tasks::spawn_recovering(None, "review of a new client", review, move || {
            recovering.clients.disconnect(&of, "whether it may stay could not be found out");
        });
    }

    /// Reviews all clients of central's own listener whenever the certificate authorities of devices change, until `stop`.
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
                    // A device that enrols, or was deleted just now: no authority is behind either.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%identity, error = %chain(&error), "reading a client to review failed");
                    }
                }
            }
        }
    }

    /// Ends the connection and the MQTT session of a device that is not registered any more.
    pub(crate) async fn forget(&self, id: &DeviceId, why: &str) {
        self.gateways.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(id);
        let identity = Identity::device(id.clone());
        if let Err(error) = self.clients.forget(|who| identity.covers(who), why).await {
            tracing::error!(device = %id, error = %chain(&error), "the MQTT session of a deleted device may come back");
        }
    }

    /// Stores that a device is connected now.
    pub(crate) async fn note_seen(&self, device: &DeviceId) {
        let (device, now_ms) = (device.clone(), now_ms());
        let noted = self.store.submit(move |c| Ok::<_, StoreError>(devices::seen(c, &device, now_ms)?)).await;
        if let Err(error) = noted {
            tracing::warn!(error = %chain(&error), "storing when a device was seen failed");
        }
    }

    async fn device(&self, id: &DeviceId) -> Result<Option<Device>, StoreError> {
        let id = id.clone();
        self.store.read(move |c| Ok::<_, StoreError>(devices::get(c, &id)?)).await
    }
}
