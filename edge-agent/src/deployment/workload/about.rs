//! What a gateway's workload sockets answer with.

use tokio::sync::watch;

use super::certificates::ModuleCertificates;
use crate::access::module_keys::ModuleKeys;
use crate::deployment::status::ReconcilerStatus;

/// What the modules' sockets answer with.
pub struct About {
    pub keys: ModuleKeys,
    /// The authorities that modules trust, PEM.
    pub trust_bundle: String,
    /// `None` where the gateway has not its authority's key.
    pub certificates: Option<ModuleCertificates>,
    pub reconciler: watch::Receiver<ReconcilerStatus>,
}
