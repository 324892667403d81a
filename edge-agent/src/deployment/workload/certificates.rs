//! Certificates that a module asks its gateway for: to serve with, and to show who it is.
//!
//! Both are of the gateway's own authority, in the trust bundle of every module. A server certificate is good for the
//! names that the module wants, as in IoT Edge: which modules run is the operator's word. It is no proof of an identity,
//! because it may not be used by a client. An identity certificate names this module alone.

use std::time::Duration;

use edge_tls::error::TlsError;
use edge_tls::issue::{Authority, CertificateSpec, Issued, Purpose, issue};
use schemas::names::{DeviceId, ModuleId};

use super::server_name::ServerName;

/// How long a module's certificates are valid: they request new ones at each start and before the expiry in the answer.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Makes the certificates of this gateway's modules.
#[derive(Clone)]
pub struct ModuleCertificates {
    /// The gateway's own authority with its key.
    pub authority: Authority,
    pub gateway: DeviceId,
    /// The hub's name, as modules know it.
    pub hub_name: String,
}

impl ModuleCertificates {
    /// For a module's own server, good for `name` and for the module's name.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) fn server(&self, module: &ModuleId, name: &ServerName) -> Result<Issued, TlsError> {
        let mut names: Vec<String> = name.alternative_name().map(str::to_owned).into_iter().collect();
        names.push(module.to_string());
        names.dedup();
        let purpose = Purpose::Server;
        let spec = CertificateSpec {
            common_name: name.common_name(),
            names: &names,
            uris: &[],
            purpose,
            lifetime: LIFETIME,
            validity_max_secs: None,
        };
        issue(&self.authority, &spec)
    }

    /// For a module that shows who it is. Its URI is IoT Edge's.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) fn identity(&self, module: &ModuleId) -> Result<Issued, TlsError> {
        let uri = format!("azureiot://{}/devices/{}/modules/{module}", self.hub_name, self.gateway);
        let spec = CertificateSpec {
            common_name: module.as_str(),
            names: &[],
            uris: &[uri],
            purpose: Purpose::Client,
            lifetime: LIFETIME,
            validity_max_secs: None,
        };
        issue(&self.authority, &spec)
    }
}
