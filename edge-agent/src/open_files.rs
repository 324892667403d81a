//! How many files the daemon may have open, and for what.

use edge_hub::files::FileBudget;
use edge_hub::metrics::listener;

use crate::config::{Config, Kind};
use crate::control;
use crate::deployment::workload;

/// Open files of everything that is no client: about 60 after a start, three for each queue, one for each connection to Docker.
const FILES_RESERVED: u64 = 400;

/// How open files are shared: what keeps promises (disk, Docker, upstream, local sockets) comes before connections of clients.
pub(crate) fn file_budget(config: &Config) -> FileBudget {
    let local_sockets = control::CONNECTIONS_MAX + workload::CONNECTIONS_MAX + listener::CONNECTIONS_MAX;
    let leads_upstream =
        config.upstream.as_ref().is_some_and(|upstream| matches!(upstream.kind, Kind::IotHub(_)));
    FileBudget {
        reserved: FILES_RESERVED + local_sockets as u64,
        connections_max: config.listen.connections_max,
        files_per_connection: if leads_upstream { 2 } else { 1 },
    }
}
