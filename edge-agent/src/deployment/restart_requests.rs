//! Restarts of modules that somebody asks for: the command line, or a caller of `$edgeAgent`'s `RestartModule`.

use schemas::names::ModuleId;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the reconciler; beyond them a caller waits for a place.
const WAITING_MAX: usize = 64;

/// Asks the reconciler. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RestartRequests {
    sender: mpsc::Sender<RestartRequest>,
}

/// Stop the container of a module, if it runs, and start it.
#[derive(Debug)]
pub struct RestartRequest {
    pub module: ModuleId,
    /// Gets how it ended.
    pub answer: oneshot::Sender<Result<(), RestartError>>,
}

/// Why a module was not restarted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    #[error("the manifest in force has no module `{module}`")]
    NotInManifest { module: ModuleId },
    #[error("the manifest in force wants module `{module}` not to run")]
    NotToRun { module: ModuleId },
    #[error("module `{module}` has no container yet; `edge-agent status` tells why")]
    NoContainer { module: ModuleId },
    #[error("{why}")]
    Failed {
        /// The engine's error text.
        why: String,
    },
    #[error("the daemon is stopping, or no deployment is in force")]
    Stopping,
}

impl RestartRequests {
    /// The two ends.
    pub fn channel() -> (Self, mpsc::Receiver<RestartRequest>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { sender }, receiver)
    }

    /// Restarts a module and gives it all its restarts again. Ends when its container has been started; a caller that goes away
    /// before does not end the restart.
    ///
    /// # Errors
    /// [`RestartError`].
    pub async fn restart(&self, module: ModuleId) -> Result<(), RestartError> {
        let (answer, ended) = oneshot::channel();
        let request = RestartRequest { module, answer };
        self.sender.send(request).await.map_err(|_| RestartError::Stopping)?;
        ended.await.unwrap_or(Err(RestartError::Stopping))
    }
}
