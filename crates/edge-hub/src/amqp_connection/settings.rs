//! What the AMQP engine offers to every client, and the limits of one connection.

use std::time::Duration;

use amqp::codec::symbol::Symbol;
use amqp::engine::settings::{Mechanism, MechanismKind, Settings};

use crate::settings::MqttServerSettings;

/// Identities of one connection: the SDK for C# pools 995 devices on one.
pub(super) const IDENTITIES_MAX: usize = 1_000;
/// Links of one identity. Of the SDK for C# it has up to 7, of which those for telemetry are one or two.
pub(super) const IDENTITY_LINKS_MAX: usize = 8;
/// Links to and from `$cbs` of one connection. SDKs have one pair.
pub(super) const CBS_LINKS_MAX: usize = 8;
/// Requests with tokens that a client may send before one of them is answered.
pub(super) const TOKENS_WINDOW: u32 = 32;
/// Logins of a connection that wait for their turn; beyond, nothing is read.
pub(super) const LOGINS_MAX: usize = 64;
/// Answers to token requests that wait for the client's credit; beyond, the oldest is dropped.
pub(super) const ANSWERS_MAX: usize = 64;
/// After a login that was refused, the next one of the connection waits so long: a connection tries 20 in a second at most.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Messages that a client may send on a link before one of them is answered; edgeHub's is as large.
pub(super) const TELEMETRY_WINDOW: u32 = 200;
/// Largest delivery: a batch of IoT Hub's size with its encoding. The SDK for C makes its batches as large as this allows.
pub(super) const DELIVERY_BYTES_MAX: u64 = 1_048_576;
/// The longest message with a token. Whoever sends one has proven nothing yet, and a token has a few hundred bytes.
pub(super) const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// The engine's settings at a server.
pub(crate) fn engine(server: &MqttServerSettings) -> Settings {
    let mechanism = |name, kind| Mechanism { name: Symbol::from_static(name), kind };
    Settings {
        container_id: "Lineside".to_owned(),
        mechanisms: vec![
            // As IoT Hub: who uses it authenticates by a token to `$cbs`.
            mechanism("MSSBCBS", MechanismKind::Anonymous),
            mechanism("PLAIN", MechanismKind::Plain),
            mechanism("ANONYMOUS", MechanismKind::Anonymous),
        ],
        sessions_max: u16::try_from(IDENTITIES_MAX + 24).expect("a small number"),
        links_max: IDENTITIES_MAX * IDENTITY_LINKS_MAX + CBS_LINKS_MAX,
        // Reading stops before a client has so many: none is refused.
        session_unsettled_max: server.pending_max + TELEMETRY_WINDOW as usize,
        handshake_timeout: server.connect_timeout,
        ..Settings::default()
    }
}
