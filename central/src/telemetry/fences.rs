//! Connections of gateways of which nothing further is stored.

use std::collections::HashMap;

use schemas::names::DeviceId;

/// A gateway on one of its connections. Later connections have higher numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConnection {
    pub gateway: DeviceId,
    /// The connection's number, unique for as long as central runs.
    pub connection: u64,
}

/// Connections of which nothing further is stored, because something they brought was not: up to which number, by gateway.
///
/// A queue's watermark says that everything up to it is stored. If a later message of a connection were stored after an
/// earlier one failed, the watermark would cover the hole, and the gateway would delete what nobody has. The gateway
/// sends all of it again on its next connection.
#[derive(Debug, Default)]
pub(super) struct Fences(HashMap<DeviceId, u64>);

impl Fences {
    /// Nothing further is stored of this connection and earlier ones.
    pub(super) fn put(&mut self, of: &GatewayConnection) {
        let fence = self.0.entry(of.gateway.clone()).or_default();
        *fence = of.connection.max(*fence);
    }

    pub(super) fn holds(&self, of: &GatewayConnection) -> bool {
        self.0.get(&of.gateway).is_some_and(|fence| of.connection <= *fence)
    }
}
