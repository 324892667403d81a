//! How a device that enrols proved itself.

/// What central knows of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A token that only somebody with the key can make.
    Token {
        /// When it ends, in seconds since the Unix epoch.
        ends_at: u64,
    },
    /// The device signed with the certificate's key in a TLS handshake with central.
    Handshake,
    /// Certificates alone, which are public. That the device has the key, a gateway says.
    GatewayClaim,
}
