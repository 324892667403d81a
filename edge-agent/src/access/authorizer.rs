//! Whether a client that came in may stay, and what it may do on free topics: checked when it has come in, and again for
//! everybody whenever devices, users or rules change.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_core::access::attestation::{Demand, ModuleAttestation};
use edge_core::access::authorization::{AuthorizedClient, HubNames, Rights};
use edge_core::access::proof::{KeyFingerprint, Proof};
use edge_core::access::x509::Trust;
use edge_core::dialect::client::BRIDGES;
use edge_hub::clients::Clients;
use edge_hub::service::Login;
use schemas::generation::Generation;
use schemas::manifest::authorization::Authorization;
use schemas::names::{DeviceId, Identity, ModuleId, UserName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access::devices::Devices;
use crate::access::module_keys::ModuleKeys;
use crate::access::removals::Removals;
use crate::access::users::{User, Users};

/// What the deployment in force says of clients.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The modules that may connect.
    pub modules: BTreeSet<ModuleId>,
    /// What clients may do on free topics.
    pub authorizations: Vec<Authorization>,
}

/// What a client's authorization depends on. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    pub gateway: DeviceId,
    /// The hub's names, which may stand before identities in rules.
    pub hosts: Arc<[String]>,
    /// Keys of its modules.
    pub module_keys: ModuleKeys,
    pub devices: Devices,
    pub users: Users,
    /// Those who were here before.
    pub removals: Removals,
    /// The authorities whose certificates clients may show.
    pub trust: watch::Receiver<Arc<Trust>>,
    /// The rules of the deployment in force.
    pub rules: watch::Receiver<Arc<Rules>>,
    pub clients: Clients,
}

/// Why an identity is not admitted, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Out {
    #[error("{0}")]
    Refused(String),
    /// central has not sent yet.
    #[error("central has not sent the list of leaf devices yet")]
    NotYet,
    /// What an earlier identity of its name has left is still being removed.
    #[error("an earlier device, module or user of this name is still being removed")]
    Removing,
}

/// Why a client that was admitted may not stay, or may not send or publish something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(transparent)]
    Out(#[from] Out),
    #[error("it was removed")]
    Removed,
    #[error("user {0} was removed")]
    UserRemoved(UserName),
    #[error("user {0} has another password now")]
    PasswordChanged(UserName),
    #[error("its key or certificate is not accepted any more")]
    ProofInvalid,
    #[error("a rule of the manifest denies it to connect")]
    Connect,
    #[error("no rule of the manifest allows it")]
    Publish,
    #[error("{of} may not connect: {why}")]
    SenderBlocked { of: Identity, why: &'static str },
    #[error("device {0} is not known here")]
    SenderUnknown(Identity),
    #[error("{client} may not send messages of {of}")]
    SpeaksForAnother { client: Identity, of: Identity },
}

impl Authorizer {
    /// What a device or module must show; an error when it may not come in whatever it shows.
    ///
    /// # Errors
    /// [`Out`].
    pub fn demand(&self, identity: &Identity) -> Result<Demand, Out> {
        let out = |why: &str| Err(Out::Refused(format!("{identity} may not connect: {why}")));
        if self.removals.is_pending(identity) {
            return Err(Out::Removing);
        }
        if identity.device == self.gateway {
            return match &identity.module {
                Some(module) if self.rules.borrow().modules.contains(module) => {
                    Ok(Demand::Module(ModuleAttestation(self.module_keys.key(module))))
                }
                Some(_) => out("no such module in the deployment"),
                None => out("the gateway itself does not connect to its own listener"),
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
            None if !self.devices.has_list() => Err(Out::NotYet),
            None => out("neither assigned to this gateway by central nor added on it"),
        }
    }

    /// What a client that was proven may do now.
    ///
    /// # Errors
    /// [`Denied`]: it may not stay.
    pub fn authorize(&self, identity: &Identity, login: &Login) -> Result<Rights, Denied> {
        if identity.registration_id().is_some() {
            // It enrols itself, which needs no right; central decides with each of its requests.
            return Ok(Rights::default());
        }
        if self.removals.is_since(identity, login.generation) {
            return Err(Denied::Removed);
        }
        let user = self.stays(identity, &login.proof)?;
        let rights = self.rights(identity, &login.client_id, user.as_ref());
        if rights.may_connect() { Ok(rights) } else { Err(Denied::Connect) }
    }

    /// Whether what proved a client still does; gives the local user that it is.
    fn stays(&self, identity: &Identity, proof: &Proof) -> Result<Option<User>, Denied> {
        if let Some(name) = identity.user_name() {
            let user = self.users.get(&name).ok_or_else(|| Denied::UserRemoved(name.clone()))?;
            return if *proof == Proof::Password(KeyFingerprint::of(user.hash.as_bytes())) {
                Ok(Some(user))
            } else {
                Err(Denied::PasswordChanged(name))
            };
        }
        match self.demand(identity) {
            Ok(demand) if demand.accepts(proof, &self.trust.borrow()) => Ok(None),
            Ok(_) => Err(Denied::ProofInvalid),
            // It was admitted when central had sent its list; it stays until central sends another.
            Err(Out::NotYet) => Ok(None),
            Err(out @ (Out::Refused(_) | Out::Removing)) => Err(out.into()),
        }
    }

    /// Whether a client may send telemetry of `of`, by a message or a will: its own, and a local user its device's.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may_send(&self, client: &Identity, of: &Identity) -> Result<(), Denied> {
        let user = self.known(client)?;
        if *of == *client && user.is_none() {
            return Ok(());
        }
        match user.and_then(|user| user.device) {
            Some(own) if *of == Identity::device(own.clone()) => match self.devices.get(&own) {
                Some(leaf) => match leaf.blocked() {
                    Some(why) => Err(Denied::SenderBlocked { of: of.clone(), why }),
                    None => Ok(()),
                },
                None => Err(Denied::SenderUnknown(of.clone())),
            },
            _ => Err(Denied::SpeaksForAnother { client: client.clone(), of: of.clone() }),
        }
    }

    /// Whether a client may publish on a free topic, though it may have gone: a will.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn may_publish(&self, client: &Identity, topic: &str) -> Result<(), Denied> {
        let user = self.known(client)?;
        let rights = self.rights(client, &client.client_id(), user.as_ref());
        // The state of a bridge, which its own account alone sees.
        let needs_no_rule = topic.starts_with(BRIDGES);
        if rights.may_connect() && (needs_no_rule || rights.may_publish(topic)) {
            Ok(())
        } else {
            Err(Denied::Publish)
        }
    }

    /// Whether a client that was proven before is still one; gives the local user that it is.
    fn known(&self, client: &Identity) -> Result<Option<User>, Denied> {
        if self.removals.is_pending(client) {
            return Err(Out::Removing.into());
        }
        if let Some(name) = client.user_name() {
            return self.users.get(&name).map(Some).ok_or(Denied::UserRemoved(name));
        }
        match self.demand(client) {
            // It was admitted when central had sent its list; it stays until central sends another.
            Ok(_) | Err(Out::NotYet) => Ok(None),
            Err(out @ (Out::Refused(_) | Out::Removing)) => Err(out.into()),
        }
    }

    fn rights(&self, identity: &Identity, client_id: &str, user: Option<&User>) -> Rights {
        let rules = self.rules.borrow().clone();
        let speaks_for = user.and_then(|user| user.device.as_ref());
        let subject = AuthorizedClient { identity, client_id, speaks_for };
        let place = HubNames { device: &self.gateway, hosts: &self.hosts };
        Rights::read(&rules.authorizations, &subject, &place)
    }

    /// Returns true for an identity that state may be kept of: itself, a module of this gateway, a leaf device that is known
    /// here. False while what an earlier one has left is still being removed.
    pub fn is_here(&self, identity: &Identity) -> bool {
        let is_known = identity.device == self.gateway || self.devices.get(&identity.device).is_some();
        is_known && !self.removals.is_pending(identity)
    }

    /// Which of the devices or modules of its name an identity is; `None` when that is not known.
    pub fn generation(&self, of: &Identity) -> Option<Generation> {
        match &of.module {
            None => self.devices.generation(&of.device),
            Some(module) if of.device == self.gateway => {
                self.removals.modules().of_central(module).map(Generation::central)
            }
            Some(_) => None,
        }
    }

    /// Checks everybody who is connected: who may not stay is disconnected now, and so is who holds a subscription that
    /// it may not have any more.
    pub fn review(&self) {
        self.clients.review(|identity, login| self.authorize(identity, login));
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

#[cfg(test)]
mod tests {
    use edge_core::access::attestation::Attestation;
    use schemas::link::{Child, Children};
    use schemas::manifest::authorization::{Operation, Rule};

    use super::*;
    use crate::access::generations::Generations;
    use crate::state::State;

    fn child(id: &str, enabled: bool) -> Child {
        Child {
            device_id: id.parse().unwrap(),
            primary_key: "aw==".into(),
            secondary_key: String::new(),
            thumbprints: Vec::new(),
            is_ca_signed: false,
            enabled,
            generation: None,
        }
    }

    /// A client that was admitted, and what may have become of it since.
    fn client(name: &str) -> Identity {
        match name.strip_prefix("user:") {
            Some(user) => Identity::user(&user.parse().unwrap(), "panel 1").unwrap(),
            None => name.parse().unwrap(),
        }
    }

    async fn site(dir: &std::path::Path) -> (Authorizer, watch::Sender<Arc<Rules>>) {
        let state = State::open(dir).unwrap();
        std::fs::write(dir.join("module-key"), [7; 32]).unwrap();
        let (devices, users) =
            (Devices::load(state.clone()).unwrap(), Users::load(state.clone(), None).unwrap());
        let children = ["leaf", "blocked-here", "gone", "of-user"].map(|id| child(id, true));
        let children = children.into_iter().chain([child("blocked", false)]).collect();
        devices.take_list(Children { children, ..Children::default() }).unwrap().durable().await.unwrap();
        devices.block(&"blocked-here".parse().unwrap(), true).unwrap().durable().await.unwrap();
        let change =
            Children { is_difference: true, removed: vec!["gone".parse().unwrap()], ..Children::default() };
        devices.take_list(change).unwrap().durable().await.unwrap();
        devices.add("added".parse().unwrap(), &Attestation::Keys(vec![vec![1]]), 0).await.unwrap();
        for (name, device) in [
            ("free", None),
            ("speaker", Some("of-user")),
            ("of-blocked", Some("blocked")),
            ("of-gone", Some("gone")),
            ("removed", Some("of-user")),
        ] {
            let device = device.map(|device| device.parse().unwrap());
            users.add(name.parse().unwrap(), User { hash: "h".into(), device }).await.unwrap();
        }
        users.remove(&"removed".parse().unwrap()).await.unwrap();
        let rule =
            |operation, topic: &str| Rule { operations: vec![operation], resources: vec![topic.into()] };
        let everybody = Authorization {
            identities: vec!["{{iot:identity}}".into()],
            allow: vec![
                rule(Operation::Publish, "line/#"),
                rule(Operation::Publish, "of/{{mqtt:client_id}}"),
            ],
            deny: vec![rule(Operation::Publish, "line/secret")],
        };
        let rules = Rules { modules: ["filter".parse().unwrap()].into(), authorizations: vec![everybody] };
        let (rules, in_force) = watch::channel(Arc::new(rules));
        let authorizer = Authorizer {
            gateway: "gw".parse().unwrap(),
            hosts: Arc::new([]),
            module_keys: ModuleKeys::load(dir).unwrap(),
            devices,
            removals: Removals::load(
                state.clone(),
                users.clone(),
                Vec::new(),
                Generations::load(state.clone(), None),
            ),
            users,
            trust: watch::channel(Arc::default()).1,
            rules: in_force,
            clients: Clients::new(),
        };
        (authorizer, rules)
    }

    /// Every client, and whether it still is one.
    const CLIENTS: [(&str, bool); 15] = [
        ("leaf", true),
        ("added", true),
        ("of-user", true),
        ("blocked", false),
        ("blocked-here", false),
        ("gone", false),
        ("never-known", false),
        ("gw", false),
        ("gw/filter", true),
        ("gw/ghost", false),
        ("other/filter", false),
        ("user:free", true),
        ("user:speaker", true),
        ("user:of-blocked", true),
        ("user:removed", false),
    ];

    #[tokio::test]
    async fn messages_and_wills_are_decided_alike_for_every_client_and_whoever_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let (authorizer, _rules) = site(dir.path()).await;
        for (name, is_known) in CLIENTS {
            for (of, _) in CLIENTS {
                let expected = match name {
                    // A local user has no telemetry of its own.
                    "user:speaker" => of == "of-user",
                    _ if name.starts_with("user:") => false,
                    _ => is_known && of == name,
                };
                let decided = authorizer.may_send(&client(name), &client(of));
                assert_eq!(decided.is_ok(), expected, "{name} for {of}: {decided:?}");
            }
            for (topic, is_allowed) in [
                ("line/1", true),
                ("line/secret", false),
                ("other", false),
                // The state of a bridge needs no rule, and a client that is known.
                ("$SYS/broker/connection/account/bridge/state", true),
            ] {
                let decided = authorizer.may_publish(&client(name), topic);
                assert_eq!(decided.is_ok(), is_known && is_allowed, "{name} on {topic}: {decided:?}");
            }
        }
        // A client's own name in a rule, as it sent it.
        assert!(authorizer.may_publish(&client("user:free"), "of/panel 1").is_ok());
    }

    #[tokio::test]
    async fn a_will_is_void_when_its_module_or_its_rule_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (authorizer, rules) = site(dir.path()).await;
        let (module, leaf) = (client("gw/filter"), client("leaf"));
        assert!(
            authorizer.may_send(&module, &module).is_ok() && authorizer.may_publish(&leaf, "line/1").is_ok()
        );
        rules.send_replace(Arc::default());
        assert!(authorizer.may_send(&module, &module).is_err());
        assert!(authorizer.may_publish(&module, "line/1").is_err());
        assert!(authorizer.may_publish(&leaf, "line/1").is_err());
        assert!(authorizer.may_send(&leaf, &leaf).is_ok());
    }
}
