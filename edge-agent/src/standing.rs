//! Whether a client that came in may stay, and what it may do on free topics: judged when it has come in, and again for
//! everybody whenever devices, users or rules change.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_core::access::attestation::{Demand, ModuleAttestation};
use edge_core::access::authorization::{Place, Rights, Subject};
use edge_core::access::proof::{Mark, Proof};
use edge_core::access::x509::Trust;
use edge_hub::clients::Clients;
use edge_hub::service::{Client, Login};
use schemas::manifest::authorization::Authorization;
use schemas::names::{DeviceId, Identity, ModuleId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::devices::Devices;
use crate::module_keys::ModuleKeys;
use crate::users::{User, Users};

/// What the deployment in force says of clients.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The modules that may connect.
    pub modules: BTreeSet<ModuleId>,
    /// What clients may do on free topics.
    pub authorizations: Vec<Authorization>,
}

/// What a client's standing depends on. Cheap to clone.
#[derive(Clone)]
pub struct Standing {
    /// This gateway.
    pub gateway: DeviceId,
    /// The hub's names, which may stand before identities in rules.
    pub hosts: Arc<[String]>,
    /// Keys of its modules.
    pub module_keys: ModuleKeys,
    /// Its leaf devices.
    pub devices: Devices,
    /// Its local users.
    pub users: Users,
    /// The authorities whose certificates clients may show.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// The rules of the deployment in force.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// Who is connected.
    pub clients: Clients,
}

/// Why an identity is not let in, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Out {
    /// For certain.
    #[error("{0}")]
    Refused(String),
    /// central has not told yet.
    #[error("central has not told yet which leaf devices belong here")]
    NotYet,
}

impl Standing {
    /// What a device or module must show; an error when it may not come in whatever it shows.
    ///
    /// # Errors
    /// [`Out`].
    pub fn demand(&self, identity: &Identity) -> Result<Demand, Out> {
        let out = |why: &str| Err(Out::Refused(format!("{identity} is not let in: {why}")));
        if identity.device == self.gateway {
            return match &identity.module {
                Some(module) if self.rules.borrow().modules.contains(module) => {
                    Ok(Demand::Module(ModuleAttestation(self.module_keys.key(module))))
                }
                Some(_) => out("no such module in the deployment"),
                None => out("the gateway itself does not connect to its own door"),
            };
        }
        if identity.module.is_some() {
            return out("it is a module of another gateway");
        }
        match self.devices.get(&identity.device) {
            Some(leaf) => match leaf.blocked() {
                Some(why) => out(why),
                None => Ok(Demand::Device(leaf.attestation)),
            },
            // Azure's Python SDK gives up for good on "not authorised": say it only when it is certain.
            None if !self.devices.is_told() => Err(Out::NotYet),
            None => out("neither assigned to this gateway by central nor added on it"),
        }
    }

    /// What a client that was proven may do now.
    ///
    /// # Errors
    /// Why it may not stay, in words.
    pub fn judge(&self, identity: &Identity, login: &Login) -> Result<Rights, String> {
        if identity.registration_id().is_some() {
            // It enrols itself, which needs no right; central judges it with each of its questions.
            return Ok(Rights::default());
        }
        let user = self.stays(identity, &login.proof)?;
        let rules = self.rules.borrow().clone();
        let speaks_for = user.as_ref().and_then(|user| user.device.as_ref());
        let subject = Subject { identity, client_id: &login.client_id, speaks_for };
        let place = Place { device: &self.gateway, hosts: &self.hosts };
        let rights = Rights::read(&rules.authorizations, &subject, &place);
        match rights.may_connect() {
            true => Ok(rights),
            false => Err("a rule of the manifest denies it to connect".to_owned()),
        }
    }

    /// Whether what proved a client still does; gives the local user that it is.
    fn stays(&self, identity: &Identity, proof: &Proof) -> Result<Option<User>, String> {
        if let Some(name) = identity.user_name() {
            let user = self.users.get(&name).ok_or_else(|| format!("user {name} was removed"))?;
            return match *proof == Proof::Password(Mark::of(user.hash.as_bytes())) {
                true => Ok(Some(user)),
                false => Err(format!("user {name} has another password now")),
            };
        }
        match self.demand(identity) {
            Ok(demand) if demand.stands(proof, &self.trust.borrow()) => Ok(None),
            Ok(_) => Err("its key or certificate is not accepted any more".to_owned()),
            // It came in when central had told; it stays until central says otherwise.
            Err(Out::NotYet) => Ok(None),
            Err(Out::Refused(why)) => Err(why),
        }
    }

    /// Whether a local user may publish telemetry of a device.
    pub fn may_speak_for(&self, client: &Client, device: &Identity) -> bool {
        let user = client.identity.user_name().and_then(|name| self.users.get(&name));
        let is_its_own =
            user.and_then(|user| user.device).is_some_and(|own| *device == Identity::device(own));
        is_its_own && self.devices.get(&device.device).is_some_and(|leaf| leaf.blocked().is_none())
    }

    /// Judges everybody who is connected: who may not stay is disconnected now, and so is who holds a subscription that
    /// it may not have any more.
    pub fn review(&self) {
        self.clients.review(|identity, login| self.judge(identity, login));
    }

    /// Reviews whenever a deployment changes modules or rules, and when the authorities are others, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (mut rules, mut trust) = (self.rules.clone(), self.trust.clone());
        loop {
            let changed = tokio::select! {
                changed = rules.changed() => changed,
                changed = trust.changed() => changed,
                () = stop.cancelled() => return,
            };
            match changed {
                Ok(()) => self.review(),
                // The senders live until the daemon stops.
                Err(_) => return stop.cancelled().await,
            }
        }
    }
}
