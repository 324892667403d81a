//! Inspects the host: data directory, disk, memory, open files, addresses.

use std::path::Path;

use edge_core::health::facts::{DiskFacts, HostFacts, MemoryFacts, OpenFilesFacts, Probe};
use edge_hub::private_files::first_public;
use rustix::fs::{Access, StatVfsMountFlags};
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;

use super::files;
use super::inspect::{PROBE_TIMEOUT, blocking, within};
use crate::config::Config;
use crate::deployment::workload;
use crate::open_files::file_budget;

/// The kernel's word on memory.
const MEMINFO: &str = "/proc/meminfo";

pub(super) async fn gather(config: &Config) -> HostFacts {
    let dir = config.data_dir.clone();
    let used = blocking(move || usable(&dir));
    let dir = config.data_dir.clone();
    let public = blocking(move || match first_public(&dir, &[workload::DIR]) {
        Ok(found) => Probe::Found(found.map(|path| path.display().to_string())),
        Err(error) => files::of_io(&error.path, &error.source),
    });
    let (dir, keep_free_bytes) = (config.data_dir.clone(), config.buffer.keep_free_bytes);
    let disk = blocking(move || disk(&dir, keep_free_bytes));
    let (data_dir_use, public_file, disk, hostname_addresses) =
        tokio::join!(used, public, disk, resolve(&config.hostname));
    HostFacts {
        data_dir: config.data_dir.display().to_string(),
        data_dir_use,
        public_file,
        disk,
        memory: memory(&std::fs::read_to_string(MEMINFO).unwrap_or_default()),
        open_files: Probe::Found(open_files(config)),
        hostname: config.hostname.clone(),
        hostname_addresses,
        listeners: Probe::NotProbed,
    }
}

fn usable(dir: &Path) -> Probe<()> {
    if let Err(error) = std::fs::read_dir(dir) {
        return files::of_io(dir, &error);
    }
    match rustix::fs::access(dir, Access::WRITE_OK) {
        Ok(()) => Probe::Found(()),
        // The check of the disk has this one.
        Err(rustix::io::Errno::ROFS) => Probe::Found(()),
        Err(error) => files::of_io(dir, &error.into()),
    }
}

fn disk(dir: &Path, keep_free_bytes: u64) -> Probe<DiskFacts> {
    match rustix::fs::statvfs(dir) {
        Ok(stat) => Probe::Found(DiskFacts {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            keep_free_bytes,
            free_inodes: stat.f_favail,
            total_inodes: stat.f_files,
            is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        }),
        // `data-dir` says so.
        Err(rustix::io::Errno::NOENT) => Probe::NotProbed,
        Err(error) => files::of_io(dir, &error.into()),
    }
}

pub(super) fn memory(meminfo: &str) -> Probe<MemoryFacts> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    match (bytes("MemAvailable"), bytes("MemTotal")) {
        (Some(available_bytes), Some(total_bytes)) => {
            Probe::Found(MemoryFacts { available_bytes, total_bytes })
        }
        _ => Probe::NotProbed,
    }
}

/// By the limit of this process: the daemon's is the same where a service manager starts both by the same rules.
fn open_files(config: &Config) -> OpenFilesFacts {
    let allowed = getrlimit(Resource::Nofile).maximum;
    OpenFilesFacts {
        allowed,
        connections: file_budget(config).connections(allowed).ok(),
        connections_max: config.listen.connections_max,
    }
}

async fn resolve(hostname: &str) -> Probe<Vec<String>> {
    within(PROBE_TIMEOUT, async {
        match tokio::net::lookup_host((hostname, 0)).await {
            Ok(found) => {
                let mut addresses: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                addresses.dedup();
                addresses.truncate(4);
                Probe::Found(addresses)
            }
            Err(error) => Probe::Failed(error.to_string()),
        }
    })
    .await
}

/// What of `[listen]` cannot be listened on; checked when no daemon runs, which would hold them.
pub(super) async fn listeners(config: &Config) -> Probe<Vec<String>> {
    let mut busy = Vec::new();
    let listen = &config.listen;
    let all = [
        ("mqtts", Some(listen.mqtts)),
        ("https", listen.https),
        ("amqps", listen.amqps),
        ("mqtt", listen.mqtt),
    ];
    for (key, address) in all {
        let Some(address) = address else { continue };
        if let Err(error) = TcpListener::bind(address).await {
            busy.push(format!("[listen] {key} {address}: {error}"));
        }
    }
    Probe::Found(busy)
}
