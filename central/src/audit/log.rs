//! How rows come into the audit log.

use edge_core::error_chain::chain;
use edge_hub::tasks;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};

use super::entry::{AuditLimits, ChangeOutcome, Entry};
use crate::store::{Store, StoreError, audit as rows};

/// A row that waits for its outcome.
pub struct Begun(BoxFuture<'static, Result<i64, StoreError>>);

/// The audit log of this site. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    limits: AuditLimits,
}

impl Audit {
    /// The log in `store`.
    pub fn new(store: Store, limits: AuditLimits) -> Self {
        Self { store, limits }
    }

    /// Submits the row of a change; what is submitted to the store after this call is not committed before it.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not take it: then the change must not be made.
    pub fn begin(&self, entry: Entry) -> Result<Begun, StoreError> {
        let limits = self.limits;
        let mut begun = self.store.submit(move |c| Ok::<_, StoreError>(rows::begin(c, &entry, &limits)?));
        // A row that the store rejects fails at once; one that it takes is not committed yet.
        match (&mut begun).now_or_never() {
            None => Ok(Begun(begun)),
            Some(Ok(id)) => Ok(Begun(ready(Ok(id)).boxed())),
            Some(Err(error)) => Err(error),
        }
    }

    /// Completes a row, behind the answer.
    pub fn end(&self, begun: Begun, outcome: ChangeOutcome) {
        let store = self.store.clone();
        tasks::spawn("outcome of an audit row", async move {
            let ended = async {
                let id = begun.0.await?;
                store.submit(move |c| Ok::<_, StoreError>(rows::end(c, id, &outcome)?)).await
            };
            if let Err(error) = ended.await {
                tracing::warn!(error = %chain(&error), "an audit row has no outcome");
            }
        });
    }

    /// Adds a whole row, behind the answer.
    pub fn note(&self, entry: Entry, status: u16) {
        let (limits, kind) = (self.limits, entry.kind);
        let outcome = ChangeOutcome { status, kind, is_own: false, before: None, after: None };
        let added = self.store.submit(move |c| Ok::<_, StoreError>(rows::add(c, &entry, &outcome, &limits)?));
        tasks::spawn("audit row", async move {
            if let Err(error) = added.await {
                tracing::warn!(error = %chain(&error), "an audit row was not written");
            }
        });
    }
}
