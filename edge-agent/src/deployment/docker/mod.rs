//! The Docker Engine: what runs ([`observe`]), how a module becomes a container ([`spec`]), what of the host it may have
//! ([`host_policy`]), whether this machine has what it needs ([`preflight`]), and one step of a plan done ([`executor`]).

pub mod executor;
pub mod host_policy;
pub mod logs;
pub mod observe;
pub mod preflight;
pub mod removal;
pub mod spec;

use std::path::PathBuf;
use std::time::Duration;

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
pub const LABEL_OWNERSHIP: &str = "lineside.mark";

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
    #[error("could not {doing}")]
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
    #[error("could not pull image {image}")]
    Pull { image: String, source: bollard::errors::Error },
    /// This machine lacks something that a module's container needs.
    #[error("module `{module}` needs {what}")]
    Unmet { module: String, what: String },
    /// Somebody changed a container's limits, and the engine has not set them back though it said so.
    #[error(
        "the limits of the container of module `{module}` were not set back; `docker rm -f` has it created anew"
    )]
    NotSetBack { module: String },
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

/// Parts of the engine's answers to a pull that another try does not change: the registry has no such image, or gives it to others
/// only, or this machine cannot hold or run it.
const PULL_REFUSED: [&str; 8] = [
    "manifest unknown",
    "not found",
    "does not exist",
    "denied",
    "unauthorized",
    "no matching manifest",
    "invalid reference",
    "no space left on device",
];
/// Parts of errors of an engine that is busy or ends.
const PASSING: [&str; 5] = ["shutting down", "shutdown", "context canceled", "deadline exceeded", "timeout"];

/// Whether another try has the same end as long as the manifest and this machine are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// It has: the engine, the registry or the policy refused what the manifest says.
    Final,
    /// The engine failed, and says with one code both that it cannot do this and that something is wrong with itself. If the next
    /// try, after the wait, fails in this way too, that is final (decision 0095).
    FinalIfRepeated,
    /// An engine or a registry that does not answer may answer later.
    Passing,
}

impl Finality {
    fn when(is_final: bool) -> Self {
        if is_final { Self::Final } else { Self::Passing }
    }
}

impl DockerError {
    /// What this error says of the next try.
    pub fn finality(&self) -> Finality {
        match self {
            Self::Away { .. }
            | Self::Silent { .. }
            | Self::RegistrySilent { .. }
            | Self::NotSetBack { .. }
            | Self::Host { .. } => Finality::Passing,
            Self::NameTaken { .. } | Self::Unmet { .. } | Self::CreateOptions { .. } | Self::Policy(_) => {
                Finality::Final
            }
            Self::Pull { source, .. } => {
                let answer = said(source).to_lowercase();
                // Of a host that has no address the resolver says "no such host", and some say "host not found".
                let is_refused = PULL_REFUSED.iter().any(|part| answer.contains(part));
                Finality::when(is_refused && !answer.contains("lookup "))
            }
            Self::Said { source, .. } => match source {
                bollard::errors::Error::DockerResponseServerError { status_code, message } => {
                    of_answer(*status_code, &message.to_lowercase())
                }
                _ => Finality::Passing,
            },
        }
    }

    /// Whether the engine answered that it failed, whatever was requested.
    pub fn is_engine_failure(&self) -> bool {
        matches!(self, Self::Said { source, .. } if is_engine_failure(source))
    }
}

/// What the engine answers within a time.
///
/// # Errors
/// [`DockerError::Silent`] when it has not answered by then; its own errors.
pub async fn answered_within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    let silent = |_| DockerError::Silent { seconds: limit.as_secs() };
    tokio::time::timeout(limit, answer).await.map_err(silent)?
}

/// What the engine's answer says of the next try.
fn of_answer(status_code: u16, message: &str) -> Finality {
    match status_code {
        404 => Finality::when(message.contains("image")),
        // The container is being removed, or changed by somebody else.
        409 => Finality::Passing,
        _ if PASSING.iter().any(|part| message.contains(part)) => Finality::Passing,
        500.. => Finality::FinalIfRepeated,
        _ => Finality::Final,
    }
}

/// Whether an error is the engine's answer that it failed.
fn is_engine_failure(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 500.., .. })
}

/// The engine's own text without what bollard puts around them.
fn said(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// What of the machine is the same for this process and for the engine: not everything where one of them runs in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedView {
    /// Files and devices.
    pub files: bool,
    /// Addresses and ports.
    pub ports: bool,
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

    /// What this process sees of the machine as the engine does. Nothing when that is not known.
    pub async fn shared_view(&self) -> SharedView {
        let engine =
            tokio::net::UnixStream::connect(&self.socket).await.and_then(|stream| stream.peer_cred());
        // Of a process in another namespace of process ids there is none.
        let Some(pid) = engine.ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0) else {
            return SharedView::default();
        };
        let is_same = |kind: &str| {
            let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
            let own = of("self");
            own.is_some() && own == of(&pid.to_string())
        };
        SharedView { files: is_same("mnt"), ports: is_same("net") }
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

/// What every container of this gateway gets.
#[derive(Debug, Clone)]
pub struct ModuleContext {
    pub gateway: DeviceId,
    /// The name under which modules reach it.
    pub hostname: String,
    /// The hub's name in their tokens.
    pub hub_name: String,
    /// The network they are on.
    pub network: String,
    /// What makes a container known as this gateway's ([`LABEL_OWNERSHIP`]).
    pub ownership: String,
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
            ownership: keys.ownership_token(),
            policy: HostPolicy::new(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_at_once_and_a_failure_of_the_engine_when_it_repeats() {
        for (code, message, expected) in [
            (400, "invalid reference format", Finality::Final),
            (403, "not permitted by the authorization plugin", Finality::Final),
            (404, "no such image: acme/a:1", Finality::Final),
            (404, "no such image: acme/timeout:1", Finality::Final),
            (404, "no such container: 1234", Finality::Passing),
            (409, "removal of container 1234 is already in progress", Finality::Passing),
            (500, "driver failed programming external connectivity", Finality::FinalIfRepeated),
            (500, "server is shutting down", Finality::Passing),
            (500, "context deadline exceeded", Finality::Passing),
            (503, "", Finality::FinalIfRepeated),
        ] {
            assert_eq!(of_answer(code, message), expected, "{code} {message}");
        }
    }
}
