//! What clients may do now, and who may not stay: authenticated when a client has come in, and again whenever the program says
//! that keys, blocks or rules have changed. It takes effect on the live connection at once.

use std::fmt::Display;
use std::sync::{Arc, PoisonError};

use edge_core::access::authorization::Rights;
use edge_core::dialect::client::Subscribe;
use schemas::names::Identity;
use tracing::info;

use crate::clients::{Clients, Connection};
use crate::service::Login;
use crate::table::split_share;
use mqtt::codec::reason::Reason;

impl Clients {
    /// Authorizes every connected client again. A client that may not stay is disconnected, and so is one that holds a
    /// subscription that it may not have any more.
    pub fn review<D: Display>(&self, authorize: impl Fn(&Identity, &Login) -> Result<Rights, D>) {
        for connection in self.all() {
            connection.review(&authorize);
        }
    }

    /// Authorizes one client again, if it is connected.
    pub fn review_one<D: Display>(
        &self,
        who: &Identity,
        authorize: impl Fn(&Identity, &Login) -> Result<Rights, D>,
    ) {
        if let Some(connection) = self.get(who) {
            connection.review(authorize);
        }
    }
}

impl Connection {
    /// Returns what this client may do now, and disconnects it if it may not stay. `authorize` runs under the lock of the
    /// rights: of two calls at once, the later result must win.
    pub(crate) fn authorize<D: Display>(
        &self,
        authorize: impl Fn(&Identity, &Login) -> Result<Rights, D>,
    ) -> Option<Arc<Rights>> {
        let mut rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        match authorize(&self.client.identity, &self.client.login) {
            Ok(now) => {
                let now = Arc::new(now);
                rights.clone_from(&now);
                Some(now)
            }
            Err(why) => {
                *rights = Arc::default();
                drop(rights);
                info!(client = %self.client.identity, peer = %self.client.peer, "client may not stay: {why}");
                self.end(&why.to_string(), Reason::NOT_AUTHORIZED);
                None
            }
        }
    }

    /// As [`Connection::authorize`]; also disconnects a client that holds a subscription that it may not have any more.
    fn review<D: Display>(&self, authorize: impl Fn(&Identity, &Login) -> Result<Rights, D>) {
        let Some(rights) = self.authorize(authorize) else { return };
        let held = self.session_queue.held().clone();
        if let Some(lost) = held.iter().find(|held| !may_hold(&rights, &held.meaning, &held.filter)) {
            let (client, filter) = (&self.client.identity, &lost.filter);
            info!(%client, %filter, "client may not have its subscription any more");
            self.end("the rules do not allow one of its subscriptions any more", Reason::NOT_AUTHORIZED);
        }
    }

    /// What the client may do on free topics now.
    pub(crate) fn rights(&self) -> Arc<Rights> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether the rules allow a subscription; those of the dialect need no rule.
fn may_hold(rights: &Rights, meaning: &Subscribe, filter: &str) -> bool {
    *meaning != Subscribe::Free
        || rights.may_subscribe(split_share(filter).map_or(filter, |(_, plain)| plain))
}
