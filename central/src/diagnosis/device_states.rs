//! The states of devices, of the facts of one moment: what is stored, and who is connected.

use std::sync::Arc;

use edge_hub::clients::Clients;
use rusqlite::Connection;
use schemas::names::{DeviceId, Identity};

use crate::diagnosis::device_state::{DeviceState, GatewayFacts, StateFacts};
use crate::diagnosis::gateway_report::{GatewayReport, ReportCache};
use crate::gateway_sync::connections::Connections;
use crate::store::grid::GridDevice;

/// Makes states. Cheap to clone.
#[derive(Clone)]
pub struct DeviceStates {
    clients: Clients,
    connections: Arc<Connections>,
    reports: Arc<ReportCache>,
}

impl DeviceStates {
    pub fn new(clients: Clients, connections: Arc<Connections>) -> Self {
        Self { clients, connections, reports: Arc::default() }
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Whether a gateway, or a device of central's own listener, is connected.
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        self.connections.since(&Identity::device(device.clone()), None).is_some()
    }

    /// What a gateway that was read by `c` reports, in short.
    pub fn report(&self, c: &Connection, gateway: &GridDevice) -> rusqlite::Result<GatewayReport> {
        self.reports.get(c, &gateway.id, gateway.generation, gateway.report_versions)
    }

    /// The state of a device that was read by `c`.
    pub fn of(&self, c: &Connection, device: &GridDevice) -> rusqlite::Result<DeviceState> {
        let identity = Identity::device(device.id.clone());
        let gateway = device.gateway.as_ref();
        let report = if device.is_gateway { Some(self.report(c, device)?) } else { None };
        let connections = &self.connections;
        let serving_gateway = gateway.map(|(id, is_enabled)| GatewayFacts {
            id: id.as_str(),
            is_connected: self.is_connected(id),
            is_enabled: *is_enabled,
        });
        Ok(DeviceState::of(&StateFacts {
            is_enabled: device.is_enabled,
            is_waiting: device.is_waiting,
            connected_since_ms: connections.since(&identity, gateway.map(|(id, _)| id)),
            last_seen_ms: device.last_seen_ms,
            gateway: serving_gateway,
            modules: report.as_ref().and_then(|report| report.modules),
            has_identity_conflict: self.clients.conflict(&identity).is_some(),
            error_finding: report.as_ref().and_then(|report| report.error_finding.as_deref()),
        }))
    }
}
