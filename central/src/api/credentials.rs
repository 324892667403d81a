//! The tokens and sessions of open streams: a stream ends when what opened it ends, whoever ended it.
//!
//! A change through this API is looked at as soon as it is made. The command line writes to the store beside a central that serves, so
//! the store is read every second too, while there is a stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use central_core::access::permission::Permissions;
use edge_core::error_chain::chain;
use edge_hub::tasks;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::people::authority::Credential;
use crate::store::{Store, StoreError};

/// How often the store is read.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Watched {
    credential: Credential,
    permissions: Permissions,
    ended: CancellationToken,
}

/// The credentials of open streams. Cheap to clone.
#[derive(Clone)]
pub(super) struct Credentials(Arc<Inner>);

struct Inner {
    store: Store,
    stop: CancellationToken,
    watched: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    is_running: bool,
    watched: HashMap<u64, Watched>,
}

impl Credentials {
    /// Of those in `store`.
    pub(super) fn new(store: Store, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner { store, stop, watched: Mutex::default(), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the store read now: a credential may have been changed.
    pub(super) fn may_have_changed(&self) {
        self.0.changed.notify_one();
    }

    /// Watches the credential that admitted a request with `permissions`.
    pub(super) fn watch(&self, credential: Credential, permissions: Permissions) -> Watch {
        let ended = CancellationToken::new();
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.watched.insert(id, Watched { credential, permissions, ended: ended.clone() });
        if !state.is_running {
            state.is_running = true;
            let credentials = self.clone();
            tasks::spawn_recovering(None, "credentials of streams", self.clone().run(), move || {
                credentials.end_all();
            });
        }
        drop(state);
        // It may have ended since it was asked for.
        self.may_have_changed();
        Watch { credentials: self.clone(), id, ended }
    }

    /// Ends every stream: nobody watches their credentials any more. Their readers come again.
    fn end_all(&self) {
        let mut state = self.state();
        state.is_running = false;
        state.watched.values().for_each(|watched| watched.ended.cancel());
    }

    /// Asks while anything is watched.
    async fn run(self) {
        loop {
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
                () = self.0.stop.cancelled() => return,
            }
            let snapshot: Vec<(u64, Credential, Permissions)> = {
                // Under the same lock as `watch`, which starts another task when none is running.
                let mut state = self.state();
                if state.watched.is_empty() {
                    state.is_running = false;
                    return;
                }
                let snapshot =
                    |(id, watched): (&u64, &Watched)| (*id, watched.credential.clone(), watched.permissions);
                state.watched.iter().map(snapshot).collect()
            };
            let now_ms = now_ms();
            let find_ended = move |c: &rusqlite::Connection| {
                let mut ended = Vec::new();
                for (id, credential, permissions) in snapshot {
                    // Changed permissions end the stream as well: what it sends was chosen for those that it began with.
                    if credential.permissions(c, now_ms)? != Some(permissions) {
                        ended.push(id);
                    }
                }
                Ok::<_, StoreError>(ended)
            };
            match self.0.store.read(find_ended).await {
                Ok(ended) => {
                    let state = self.state();
                    ended
                        .iter()
                        .filter_map(|id| state.watched.get(id))
                        .for_each(|watched| watched.ended.cancel());
                }
                // It is read again in a second.
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the credentials of open streams were not read");
                }
            }
        }
    }
}

/// A watched credential, until this is dropped.
pub(super) struct Watch {
    credentials: Credentials,
    id: u64,
    ended: CancellationToken,
}

impl Watch {
    /// Returns true if the credential has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until the credential ends.
    pub(super) async fn over(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.credentials.state().watched.remove(&self.id);
    }
}
