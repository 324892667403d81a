//! How many files the process may have open, and how many of them connections of clients may take; and what happens at the limit
//! on the size of one.
//!
//! A connection is one open file. What the process cannot do without (the queues on disk, the Docker Engine, the link
//! upstream, its own sockets) keeps a reserve that connections never touch.

use edge_core::error_chain::chain;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

/// Fewer connections than this are no service: the program refuses to start.
const CONNECTIONS_MIN: usize = 64;

/// Fewer files may be open than the program needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{allowed} files may be open, at least {needed} are needed; raise LimitNOFILE of the service or `ulimit -Hn`"
)]
pub struct TooFewFiles {
    /// The hard limit of the process.
    pub allowed: u64,
    /// The reserve and the fewest connections.
    pub needed: u64,
}

/// What open files are kept for, and what may be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBudget {
    /// Files that connections of clients never take.
    pub reserved: u64,
    /// Connections as the configuration has them, over all listeners.
    pub connections_max: usize,
    /// Files for each of them: two where a client's connection leads to one upstream.
    pub files_per_connection: u64,
}

impl FileBudget {
    /// How many connections may be open at once when `allowed` files may; `None` for no limit.
    ///
    /// # Errors
    /// [`TooFewFiles`] when not even the fewest connections fit beside the reserve.
    pub fn connections(&self, allowed: Option<u64>) -> Result<usize, TooFewFiles> {
        let Some(allowed) = allowed else { return Ok(self.connections_max) };
        let each = self.files_per_connection.max(1);
        let least = self.connections_max.min(CONNECTIONS_MIN);
        let fitting = allowed.saturating_sub(self.reserved) / each;
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        if fitting < least {
            return Err(TooFewFiles { allowed, needed: self.reserved + least as u64 * each });
        }
        Ok(self.connections_max.min(fitting))
    }

    /// Raises the process's soft limit to its hard one and gives how many connections may be open at once; says so in the log
    /// when they are fewer than configured.
    ///
    /// # Errors
    /// [`TooFewFiles`].
    pub fn claim(&self) -> Result<usize, TooFewFiles> {
        let allowed = raise();
        let connections = self.connections(allowed)?;
        if connections < self.connections_max {
            let needed = self.reserved + self.connections_max as u64 * self.files_per_connection.max(1);
            warn!(
                allowed,
                needed,
                connections_max = self.connections_max,
                connections,
                "connections are limited further: too few files may be open; raise LimitNOFILE or `ulimit -Hn`"
            );
        }
        Ok(connections)
    }
}

/// Raises the process's soft limit of open files to its hard one and gives it; `None` for no limit.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            warn!(error = %chain(&error), "raising the limit of open files failed");
            limit.current
        }
    }
}

/// From now on a write beyond the limit on the size of a file (`LimitFSIZE`, `ulimit -f`) fails as one to a full disk does. Without
/// this the kernel ends the process at the write (SIGXFSZ). To be called within a runtime, and after the open files were claimed: a
/// handler of signals takes some.
///
/// # Errors
/// When the system gives no handler of signals.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    // A handler stays for as long as the process, and nobody waits for this signal.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.maximum.map_or(1_024, |maximum| maximum.min(1_024));
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum: before.maximum }).unwrap();
        assert_eq!(raise(), before.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }

    proptest! {
        #[test]
        fn connections_never_touch_the_reserve_and_are_as_many_as_configured_when_they_fit(
            allowed in 0..100_000_u64,
            reserved in 0..5_000_u64,
            connections_max in 0..20_000_usize,
            files_per_connection in 1..3_u64,
        ) {
            let budget = FileBudget { reserved, connections_max, files_per_connection };
            match budget.connections(Some(allowed)) {
                Ok(connections) => {
                    prop_assert!(reserved + connections as u64 * files_per_connection <= allowed || connections == 0);
                    prop_assert!(connections >= connections_max.min(CONNECTIONS_MIN));
                    let all = reserved + connections_max as u64 * files_per_connection;
                    prop_assert_eq!(connections == connections_max, allowed >= all || connections_max == 0);
                }
                Err(few) => prop_assert!(few.needed > allowed),
            }
            prop_assert_eq!(budget.connections(None), Ok(connections_max));
        }
    }
}
