//! The parts of the daemon that the link joins with central.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use edge_hub::clients::Clients;
use edge_hub::cloud_message_dispatcher::CloudMessageDispatcher;
use schemas::connection_string::ConnectionString;
use schemas::generation::Generation;
use schemas::link::{GENERATIONS, Loss};
use schemas::names::Identity;
use tokio::sync::watch;

use crate::access::authorizer::Authorizer;
use crate::access::enrolments::Enrolments;
use crate::c2d::cloud_message_store::CloudMessageStore;
use crate::commands::Commands;
use crate::deployment::deployments::Deployments;
use crate::messages::quarantine::Quarantine;
use crate::messages::queues::Queues;
use crate::messages::queues::destination::Queue;
use crate::messages::record;
use crate::messages::twins::Twins;
use crate::upstream::address::Address;
use crate::upstream::meter::Meter;
use crate::upstream::presence::PresenceChanges;
use crate::upstream::sent_updates::SentUpdates;
use crate::upstream::status::LinkStatus;

/// What the link to central takes from and gives to.
pub struct Uplink {
    /// The hub's name, the gateway's identity and its key.
    pub upstream: ConnectionString,
    pub address: Address,
    pub queues: Arc<Queues>,
    /// What central will not take.
    pub quarantine: Arc<Quarantine>,
    /// What the link may cost.
    pub meter: Meter,
    /// Desired and reported sections.
    pub twins: Twins,
    /// The leaf devices, and the authorizer of those that are connected.
    pub authorizer: Authorizer,
    pub deployments: Arc<Deployments>,
    pub commands: Commands,
    pub cloud_messages: CloudMessageStore,
    pub dispatcher: CloudMessageDispatcher<CloudMessageStore>,
    /// Devices that enrol themselves.
    pub enrolments: Enrolments,
    /// Who is connected here.
    pub clients: Clients,
    /// Who came or went.
    pub presence: PresenceChanges,
    /// Whether central can be reached.
    pub status: watch::Sender<LinkStatus>,
    /// Version of the link that central speaks, as it said on this connection or the one before.
    pub central_version: AtomicU32,
    /// What central has acknowledged and nothing else keeps.
    pub sent_updates: SentUpdates,
    /// central does not say which store it has.
    pub is_store_unnamed: AtomicBool,
}

impl Uplink {
    /// Returns true if central takes generations, which an older one would take for properties.
    pub(super) fn takes_generations(&self) -> bool {
        self.central_version.load(Ordering::Relaxed) >= GENERATIONS
    }

    /// Which of the devices or modules of its name an identity is now, for a central that takes that.
    pub(super) fn generation(&self, of: &Identity) -> Option<Generation> {
        self.takes_generations().then(|| self.authorizer.generation(of)).flatten()
    }

    /// Which of the devices of its name sent a message of a queue, for a central that takes that.
    pub(super) fn generation_of(&self, queue: &Queue, sequence: u64, payload: &Bytes) -> Option<Generation> {
        if !self.takes_generations() {
            return None;
        }
        let sender = Identity::of_session(&record::sender(payload)?)?;
        let now = || self.authorizer.generation(&sender);
        self.authorizer.removals.generations().of(&sender, queue, sequence, now)
    }

    /// Which of the senders of its name a loss is of; the earliest, where it is of more than one.
    pub(super) fn generation_of_loss(&self, name: &str, loss: &Loss) -> Option<Generation> {
        let sender = Identity::of_session(&loss.sender).filter(|_| self.takes_generations())?;
        let now = || self.authorizer.generation(&sender);
        let queues = self.queues.all();
        let log = name.split('.').next().unwrap_or_default();
        match queues.iter().find(|(_, queue)| queue.log.id().to_string() == log) {
            Some((_, queue)) => self.authorizer.removals.generations().of(&sender, queue, loss.first, now),
            // Of the quarantine, which tells it with the sender.
            None => loss.generation,
        }
    }
}
