//! What a server offers to every connection, and the limits of one.

use std::time::Duration;

use crate::codec::limits::ReadLimits;
use crate::codec::symbol::Symbol;

/// How a mechanism of SASL authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MechanismKind {
    /// Not at all: ANONYMOUS, and vendors' mechanisms that authenticate later, on a link.
    Anonymous,
    /// User name and password in the first response.
    Plain,
    /// By what the transport has shown, such as a client certificate.
    External,
}

/// A mechanism of SASL that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mechanism {
    /// As on the wire.
    pub name: Symbol,
    /// What is done for it.
    pub kind: MechanismKind,
}

/// Of a server; one for all of its connections.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the server in its open.
    pub container_id: String,
    /// In the server's order of preference.
    pub mechanisms: Vec<Mechanism>,
    /// A client may leave out SASL and begin with the header of AMQP.
    pub allows_bare_connections: bool,
    /// Largest frame in bytes that is taken; 512 at least.
    pub frame_bytes_max: u32,
    /// Largest frame of SASL in bytes; 512 at least.
    pub sasl_frame_bytes_max: u32,
    /// Of the values of one frame.
    pub read_limits: ReadLimits,
    /// Sessions at a time; 1 at least.
    pub sessions_max: u16,
    /// Links of one session at a time; 1 at least.
    pub session_links_max: u32,
    /// Links of all sessions at a time.
    pub links_max: usize,
    /// Sessions at a time before `Connection::trust`.
    pub untrusted_sessions_max: u16,
    /// Links of all sessions at a time before `Connection::trust`.
    pub untrusted_links_max: usize,
    /// Bytes of a link's name.
    pub link_name_bytes_max: usize,
    /// Transfers that a session takes before it is granted more.
    pub session_window: u32,
    /// Deliveries of a session in one direction that are not settled.
    pub session_unsettled_max: usize,
    /// Bytes of all deliveries of the connection that have begun and not ended.
    pub partial_bytes_max: usize,
    /// From the first byte to the client's open, and from close to close.
    pub handshake_timeout: Duration,
    /// Silence after which a client is given up. The client is promised half of it, as section 2.4.5 advises.
    pub idle_timeout: Duration,
    /// The shortest idle timeout of a client: shorter ones would cost more frames than messages.
    pub peer_idle_timeout_min: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            container_id: "server".to_owned(),
            mechanisms: vec![Mechanism {
                name: Symbol::from_static("ANONYMOUS"),
                kind: MechanismKind::Anonymous,
            }],
            allows_bare_connections: true,
            frame_bytes_max: 64 * 1024,
            sasl_frame_bytes_max: 8 * 1024,
            read_limits: ReadLimits::DEFAULT,
            sessions_max: 1024,
            session_links_max: 256,
            links_max: 8192,
            untrusted_sessions_max: 4,
            untrusted_links_max: 8,
            link_name_bytes_max: 1024,
            session_window: 2048,
            session_unsettled_max: 2048,
            partial_bytes_max: 4 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(480),
            peer_idle_timeout_min: Duration::from_secs(5),
        }
    }
}
