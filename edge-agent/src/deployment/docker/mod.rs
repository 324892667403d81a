//! The Docker Engine: what runs ([`observe`]), how a module becomes a container ([`spec`]), what of the host it may have
//! ([`host_policy`]), and one step of a plan done ([`apply`]).

pub mod executor;
pub mod host_policy;
pub mod logs;
pub mod observe;
pub mod spec;

use std::path::PathBuf;

use bollard::{API_DEFAULT_VERSION, Docker};
use schemas::manifest::ManifestError;
use schemas::names::DeviceId;

use self::host_policy::HostPolicy;
use crate::access::module_keys::ModuleKeys;
use crate::config::{Config, Upstream};

/// Label with the id of the gateway that owns a container. Containers without it are never looked at.
pub const LABEL_GATEWAY: &str = "lineside.gateway";
/// Label with the module's name.
pub const LABEL_MODULE: &str = "lineside.module";
/// Label with the fingerprint of what the container was made from.
pub const LABEL_FINGERPRINT: &str = "lineside.fingerprint";

/// Label with a text that only this gateway's daemon can make: labels of an image are its author's, and say nothing of whose
/// container it is.
pub const LABEL_MARK: &str = "lineside.mark";

/// Seconds that the engine may take to answer; IoT Edge's limit for its own engine calls.
const TIMEOUT_SECS: u64 = 300;

/// Why the engine did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    #[error("the Docker Engine does not answer on {socket}")]
    Away {
        socket: PathBuf,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("could not {doing}: {}", said(source))]
    Said { doing: String, source: bollard::errors::Error },
    #[error("the Docker Engine has not answered for {seconds} s; check its log, or restart it")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    #[error("the registry of image {image} has not answered for {seconds} s")]
    RegistrySilent {
        image: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Somebody else's container has the module's name.
    #[error(
        "the name `{name}` is already in use by a container that is not this gateway's; remove or rename it"
    )]
    NameTaken { name: String },
    /// The manifest's create options are none.
    #[error("module `{module}`: settings.createOptions: {why}")]
    CreateOptions { module: String, why: String },
    /// The gateway's policy does not permit what the module asks for.
    #[error(transparent)]
    Policy(#[from] ManifestError),
    /// The host said no.
    #[error("could not {doing}: {why}")]
    Host { doing: String, why: std::io::Error },
}

/// The engine's own text without what bollard puts around them.
fn said(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// Where the engine is. It may come and go.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine behind a socket; no request is sent yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A client that speaks a version of the API that both know.
    ///
    /// # Errors
    /// [`DockerError::Away`].
    pub async fn client(&self) -> Result<Docker, DockerError> {
        let away = |source| DockerError::Away { socket: self.socket.clone(), source };
        let path = self.socket.to_string_lossy();
        let client = Docker::connect_with_unix(&path, TIMEOUT_SECS, API_DEFAULT_VERSION).map_err(away)?;
        client.negotiate_version().await.map_err(away)
    }
}

/// What every container of this gateway is told.
#[derive(Debug, Clone)]
pub struct ModuleContext {
    pub gateway: DeviceId,
    /// The name under which modules reach it.
    pub hostname: String,
    /// The hub's name in their tokens.
    pub hub_name: String,
    /// The network they are on.
    pub network: String,
    /// What makes a container known as this gateway's ([`LABEL_MARK`]).
    pub mark: String,
    /// What modules may ask of this host.
    pub policy: HostPolicy,
}

impl ModuleContext {
    /// As the configuration has it.
    pub fn new(config: &Config, keys: &ModuleKeys) -> Self {
        let hub = config.upstream.as_ref().and_then(Upstream::hub_name);
        Self {
            gateway: config.device_id.clone(),
            hostname: config.hostname.clone(),
            hub_name: hub.unwrap_or(&config.hostname).to_owned(),
            network: config.docker.network.clone(),
            mark: keys.container_mark(),
            policy: HostPolicy::new(config),
        }
    }
}
