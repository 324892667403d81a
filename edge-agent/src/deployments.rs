//! From the desired twins of `$edgeAgent` and `$edgeHub` to the deployment in force.
//!
//! A manifest that is wrong changes nothing: the last good one stays in force, here and over a restart, and the error
//! is reported with the path of the field.

use std::collections::BTreeSet;
use std::sync::Arc;

use edge_core::deploy;
use schemas::manifest::{Manifest, ManifestError};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Section;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::deployer::Deployment;
use crate::front::Routing;
use crate::queues::Queues;
use crate::state::{Room, State, StateError};
use crate::twins::{DesiredChange, Twins};

const IN_FORCE: &str = "in-force";

/// The two sections of which a deployment is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sections {
    edge_agent: Section,
    edge_hub: Section,
}

/// The desired versions of which a deployment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of `$edgeAgent`.
    pub edge_agent: u64,
    /// Of `$edgeHub`.
    pub edge_hub: u64,
}

/// Whether the wanted deployment could be taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Judgement {
    /// The desired versions that were judged; `None` before there were any.
    pub versions: Option<Versions>,
    /// Why it is not in force.
    pub problem: Option<String>,
}

/// The deployment in force, for those who act on it.
pub struct Deployments {
    gateway: DeviceId,
    twins: Twins,
    state: State,
    queues: Arc<Queues>,
    in_force: std::sync::Mutex<Option<Sections>>,
    deployer: watch::Sender<Option<Arc<Deployment>>>,
    routing: watch::Sender<Arc<Routing>>,
    judgement: watch::Sender<Judgement>,
}

/// The receiving ends.
pub struct Outputs {
    /// For the deployer.
    pub deployer: watch::Receiver<Option<Arc<Deployment>>>,
    /// For the front door.
    pub routing: watch::Receiver<Arc<Routing>>,
    /// For the report.
    pub judgement: watch::Receiver<Judgement>,
}

impl Deployments {
    /// Puts the deployment in force that was in force last. Blocking: opens queues.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be read.
    pub fn load(
        gateway: DeviceId,
        twins: Twins,
        state: State,
        queues: Arc<Queues>,
    ) -> Result<(Self, Outputs), StateError> {
        let (deployer, deployer_out) = watch::channel(None);
        let (routing, routing_out) = watch::channel(Arc::default());
        let (judgement, judgement_out) = watch::channel(Judgement::default());
        let last: Option<Sections> =
            state.load(Room::Deployment)?.into_iter().find(|(key, _)| key == IN_FORCE).map(|(_, s)| s);
        let deployments = Self {
            gateway,
            twins,
            state,
            queues,
            in_force: std::sync::Mutex::new(None),
            deployer,
            routing,
            judgement,
        };
        if let Some(sections) = last
            && let Err(problem) = deployments.put_in_force(sections)
        {
            tracing::error!(problem, "the deployment that was in force cannot be taken up again");
        }
        deployments.consider();
        let outputs = Outputs { deployer: deployer_out, routing: routing_out, judgement: judgement_out };
        Ok((deployments, outputs))
    }

    fn identity(&self, module: ModuleId) -> Identity {
        Identity::module(self.gateway.clone(), module)
    }

    /// Looks at the desired twins and puts them in force if they are good. Blocking: opens queues.
    pub fn consider(&self) {
        let wanted = Sections {
            edge_agent: self.twins.get(&self.identity(ModuleId::edge_agent())).desired,
            edge_hub: self.twins.get(&self.identity(ModuleId::edge_hub())).desired,
        };
        if wanted.edge_agent.properties.is_empty() {
            return;
        }
        let version = wanted.edge_agent.version;
        let versions = Versions { edge_agent: version, edge_hub: wanted.edge_hub.version };
        let is_in_force =
            self.in_force.lock().expect("nothing panics while it holds it").as_ref() == Some(&wanted);
        let problem = match is_in_force {
            true => None,
            false => self.put_in_force(wanted.clone()).err(),
        };
        if let Some(problem) = &problem {
            tracing::error!(version, problem, "the deployment was refused; the one before it stays in force");
        } else if !is_in_force {
            tracing::info!(version, "deployment in force");
            self.state.put(Room::Deployment, IN_FORCE, &wanted).later();
        }
        self.judgement.send_replace(Judgement { versions: Some(versions), problem });
    }

    fn put_in_force(&self, sections: Sections) -> Result<(), String> {
        let manifest = Manifest::from_twins(&sections.edge_agent.properties, &sections.edge_hub.properties)
            .map_err(|error| error.to_string())?;
        let (desired, table) = deploy::check(&manifest).map_err(|error| error.to_string())?;
        let targets: BTreeSet<ModuleId> = table.inputs().into_iter().map(|(module, _)| module).collect();
        self.queues.route_to(&targets).map_err(|error| error.to_string())?;
        self.routing.send_replace(Arc::new(Routing {
            table: Some(table),
            modules: desired.modules.keys().cloned().collect(),
            time_to_live_ms: manifest.edge_hub.time_to_live_secs.map(|secs| secs.saturating_mul(1000)),
        }));
        let deployment = Deployment { desired, version: sections.edge_agent.version };
        self.deployer.send_replace(Some(Arc::new(deployment)));
        *self.in_force.lock().expect("nothing panics while it holds it") = Some(sections);
        Ok(())
    }

    /// Takes a manifest given on the gateway itself. It holds until central's changes. Gives `$edgeAgent`'s new desired
    /// version, and the changes of other modules' desired sections.
    ///
    /// # Errors
    /// [`ApplyError`] when the manifest is wrong or was not saved; nothing is in force then that was not before.
    pub async fn apply(
        self: &Arc<Self>,
        document: &Value,
    ) -> Result<(u64, Vec<(Identity, DesiredChange)>), ApplyError> {
        let text = document.to_string();
        let manifest = Manifest::parse(text.as_bytes())?;
        deploy::check(&manifest)?;
        let mut changes = Vec::new();
        for (module, properties) in Manifest::sections(document)? {
            let is_system = module.is_system();
            let identity = self.identity(module);
            let (change, saved) = self.twins.desired_from_here(&identity, properties);
            saved.durable().await?;
            if let (Some(change), false) = (change, is_system) {
                changes.push((identity, change));
            }
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.consider())
            .await
            .map_err(|error| ApplyError::Failed(error.to_string()))?;
        if let Some(problem) = self.judgement.borrow().problem.clone() {
            return Err(ApplyError::Failed(problem));
        }
        let version = self.twins.get(&self.identity(ModuleId::edge_agent())).desired.version;
        Ok((version, changes))
    }
}

/// Why a manifest was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is wrong; the message names the field.
    #[error(transparent)]
    Refused(#[from] ManifestError),
    /// It was not saved.
    #[error(transparent)]
    State(#[from] StateError),
    /// It could not be put in force.
    #[error("{0}")]
    Failed(String),
}
