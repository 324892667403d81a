//! What a server has of its clients before it serves them: their sessions, retained messages and wills, from the disk.
//!
//! They are opened first, because the program behind a server is made of parts that ask for its clients, and the server is
//! made of that program:
//!
//! ```text
//! Sessions::open ──► Clients ──► the program (a Service) ──► MqttServer::new
//! ```

use std::path::Path;
use std::sync::Arc;

use edge_buffer::OpenError;
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::broker::will::DueWill;
use crate::clients::Clients;
use crate::counts::add;
use crate::journal::{Journal, JournalMax};
use crate::settings::MqttServerSettings;

/// The sessions in one directory. Nothing expires and no will is published until a server has them.
pub struct Sessions {
    pub(crate) settings: MqttServerSettings,
    pub(crate) broker: Arc<Broker>,
    pub(crate) due_wills: mpsc::UnboundedReceiver<DueWill>,
    pub(crate) clients: Clients,
}

impl Sessions {
    /// Reads what `dir` holds, and keeps the directory from other programs.
    ///
    /// # Errors
    /// [`OpenError`] when `dir` cannot be used, or another program uses it.
    pub async fn open(dir: &Path, settings: MqttServerSettings) -> Result<Self, OpenError> {
        let max = JournalMax { bytes: settings.journal_bytes_max, keep_free_bytes: settings.keep_free_bytes };
        let recovered = Journal::open(dir, settings.journal_ledger_copy.as_deref(), max).await?;
        let (broker, due_wills) = Broker::restore(recovered.journal, &recovered.state, settings.clone());
        add(&broker.counts.records_skipped, recovered.skipped);
        let broker = Arc::new(broker);
        Ok(Self { settings, clients: Clients::of(broker.clone()), broker, due_wills })
    }

    /// Those who have these sessions.
    pub fn clients(&self) -> Clients {
        self.clients.clone()
    }
}
