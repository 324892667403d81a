//! Logins of clients, whatever protocol they speak: in their turn, with what is kept of those that are refused.

use std::sync::Arc;
use std::time::Duration;

use edge_core::access::enrolment;
use tokio::time::Instant;

use crate::clock;
use crate::clock::now_ms;
use crate::counts::count;
use crate::mqtt_server::MqttServer;
use crate::refusals::{Refusing, proof};
use crate::service::{Admitted, ConnectRequest, Refusal, Service};

/// Keeps a refusal for whoever asks why a client is not connected.
pub(crate) fn note_refusal<S: Service>(
    server: &MqttServer<S>,
    request: &ConnectRequest,
    protocol: &'static str,
    why: &str,
) {
    let identity = match request.user_name.as_deref() {
        Some(name) if !name.is_empty() && !name.contains('/') => format!("user {name}"),
        _ => request.client_id.clone(),
    };
    let proof = proof(request);
    let refusing = Refusing {
        identity: &identity,
        is_known: server.service.knows(request),
        address: request.peer.ip(),
        why,
        protocol,
        proof: proof.as_deref(),
    };
    server.refusals.note(now_ms(), refusing);
}

/// Has a CONNECT authenticated when it is its turn.
pub(crate) async fn authenticated<S: Service>(
    server: &Arc<MqttServer<S>>,
    request: ConnectRequest,
) -> Result<Admitted, Refusal> {
    if !server.service.is_guessable(&request) {
        let result = server.service.authenticate(request).await;
        if let Err(Refusal::NotAuthorized(_)) = result {
            count(&server.counts().logins_failed);
        }
        return result;
    }
    let address = request.peer.ip();
    let claimed = match request.user_name.as_deref() {
        // A local user's client id is free: another one does not make another identity of it.
        Some(name) if !name.contains('/') => format!("$user:{name}"),
        // Whoever guesses at the enrolment of a device shall not slow the device itself, which may long be there.
        Some(name) if enrolment::claim(&request.client_id, name).is_some() => {
            format!("$dps:{}", request.client_id)
        }
        _ => request.client_id.clone(),
    };
    server.attempts.turn(address, &claimed, server.counts()).await?;
    let result = server.service.authenticate(request).await;
    server.attempts.ended(address, &claimed, &result, server.counts());
    result
}

/// The instant of a time of the wall clock.
pub(crate) fn from_now(unix_secs: u64) -> Instant {
    // No connection lives for a year, and an `Instant` cannot hold every time that a token can name.
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + Duration::from_secs(unix_secs).saturating_sub(clock::since_epoch()).min(FAR)
}
