//! Whether the upstream can be reached, and if not, who must act.

use edge_core::health::facts::LinkFailure;
use mqtt::client;

use crate::clock::now_ms;

/// Whether the upstream can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub is_connected: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    pub why: String,
    /// What kind of reason that is; `None` while it is connected or was never tried.
    pub failure: Option<LinkFailure>,
}

impl LinkStatus {
    /// Connected from now on.
    pub fn connected() -> Self {
        Self { is_connected: true, since_ms: now_ms(), why: String::new(), failure: None }
    }

    /// Not connected, for this reason; since when this status says so, if it does.
    pub fn away(&self, why: String, failure: LinkFailure) -> Self {
        let is_new = self.is_connected || self.why.is_empty();
        let since_ms = if is_new { now_ms() } else { self.since_ms };
        Self { is_connected: false, since_ms, why, failure: Some(failure) }
    }
}

/// Who must act when a connection to upstream fails in this way.
pub fn link_failure(error: &client::ConnectError) -> LinkFailure {
    use mqtt::codec::reason::Reason;
    match error {
        client::ConnectError::Tls(_) => LinkFailure::Untrusted,
        client::ConnectError::Refused {
            reason: Reason::NOT_AUTHORIZED | Reason::BAD_USER_NAME_OR_PASSWORD | Reason::BANNED,
            ..
        } => LinkFailure::NotAuthorized,
        _ => LinkFailure::Unreachable,
    }
}
