//! Closes one connection from wherever it is known.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use mqtt::codec::reason::Reason;

/// Closes one connection, from wherever.
#[derive(Debug)]
pub(crate) struct CloseHandle {
    closed: CancellationToken,
    /// In a box: few connections have one.
    why: OnceLock<Box<(String, Reason)>>,
}

impl CloseHandle {
    /// Of a connection that ends with `stop` at the latest. A session asks one token of its own, not one that all share: each
    /// question takes a lock.
    pub(crate) fn new(stop: &CancellationToken) -> Self {
        Self { closed: stop.child_token(), why: OnceLock::new() }
    }

    /// Closes the connection; the first reason stays.
    pub(crate) fn close(&self, why: &str, reason: Reason) {
        self.why.get_or_init(|| Box::new((why.to_owned(), reason)));
        self.closed.cancel();
    }

    /// Ends when [`CloseHandle::close`] was called, with the reason, or when everything stops: without one.
    pub(crate) async fn closed(&self) -> Option<(&str, Reason)> {
        self.closed.cancelled().await;
        self.why.get().map(|why| (why.0.as_str(), why.1))
    }
}
