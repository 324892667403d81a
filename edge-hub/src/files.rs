//! How many files the process may have open: a connection is one, and the usual soft limit is 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// What a program has open besides its connections: logs, databases, the engine's socket, and connections that it makes.
const FILES_BESIDE: u64 = 500;

/// Raises the process's soft limit to its hard one, and says when even that is too low for so many connections.
pub(crate) fn allow(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let mut allowed = limit.current;
    if limit.current != limit.maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
            Ok(()) => allowed = limit.maximum,
            Err(error) => warn!(%error, "the limit of open files was not raised"),
        }
    }
    let wanted = connections_max as u64 + FILES_BESIDE;
    if let Some(allowed) = allowed.filter(|allowed| *allowed < wanted) {
        warn!(
            allowed,
            wanted,
            connections_max,
            "too few open files are allowed for all connections; raise LimitNOFILE or ulimit -n"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.maximum.map_or(1_024, |maximum| maximum.min(1_024));
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum: before.maximum }).unwrap();
        allow(10);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
