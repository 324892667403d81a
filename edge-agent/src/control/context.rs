//! The parts of the daemon that the control socket asks and commands.

use std::sync::Arc;

use edge_hub::clients::Clients;
use edge_hub::mqtt_server::MqttServer;
use schemas::names::DeviceId;
use tokio::sync::watch;

use crate::access::authorizer::Authorizer;
use crate::access::passwords::Passwords;
use crate::commands::Commands;
use crate::config::Upstream;
use crate::deployment::deployments::{Acceptance, Deployments};
use crate::deployment::docker::Engine;
use crate::deployment::restart_requests::RestartRequests;
use crate::deployment::status::{Deployment, ReconcilerStatus};
use crate::gateway_service::GatewayService;
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::messages::unrouted::Unrouted;
use crate::state::State;
use crate::upstream::meter::Meter;
use crate::upstream::status::LinkStatus;

/// What the requests of the command line are answered from.
pub struct Control {
    pub gateway: DeviceId,
    /// Its name for leaf devices and modules.
    pub hostname: String,
    /// The hub's name in connection strings of leaf devices.
    pub hub_name: String,
    pub clients: Clients,
    /// Leaf devices, local users, and what their clients may do.
    pub authorizer: Authorizer,
    /// Hashes passwords of new users.
    pub passwords: Passwords,
    pub deployments: Arc<Deployments>,
    /// Whether the wanted deployment is in force.
    pub acceptance: watch::Receiver<Acceptance>,
    /// What the containers do.
    pub reconciler: watch::Receiver<ReconcilerStatus>,
    pub queues: Arc<Queues>,
    /// What went into none of them.
    pub unrouted: Arc<Unrouted>,
    pub commands: Commands,
    /// The MQTT server, for its counts.
    pub server: Arc<MqttServer<GatewayService>>,
    pub quarantine: Arc<Quarantine>,
    /// What the daemon keeps.
    pub state: State,
    /// What the link has cost today.
    pub meter: Meter,
    pub upstream: Option<Upstream>,
    /// The link; `None` without an upstream.
    pub link: Option<watch::Receiver<LinkStatus>>,
    /// The manifest in force.
    pub deployment: watch::Receiver<Option<Arc<Deployment>>>,
    /// To restart modules by hand.
    pub restarts: RestartRequests,
    /// For the logs of modules.
    pub engine: Engine,
    /// CRC-32C of edge.toml when the daemon started.
    pub config_crc32c: u32,
}
