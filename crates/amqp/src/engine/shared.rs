//! What the sessions of a connection have in common.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::event::Event;
use super::outbox::Outbox;
use super::settings::Settings;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) outbox: Outbox,
    /// The application knows who the client is.
    pub(super) is_trusted: bool,
    /// Of one frame, or of one call of the application: taken before the next.
    pub(super) events: VecDeque<Event>,
    /// Channels of sessions that hold back outcomes, to be written together.
    pub(super) undisposed: BTreeSet<u16>,
    /// Links of all sessions.
    pub(super) links: usize,
    /// Links so far.
    pub(super) link_serial: u64,
    /// Bytes of deliveries that have begun and not ended.
    pub(super) partial_bytes: usize,
}

impl Shared {
    /// Links that may be attached now.
    pub(super) fn links_max(&self) -> usize {
        if self.is_trusted { self.settings.links_max } else { self.settings.untrusted_links_max }
    }

    /// Sessions that may have begun now.
    pub(super) fn sessions_max(&self) -> usize {
        let max =
            if self.is_trusted { self.settings.sessions_max } else { self.settings.untrusted_sessions_max };
        max.into()
    }

    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            outbox: Outbox::new(),
            is_trusted: false,
            events: VecDeque::new(),
            undisposed: BTreeSet::new(),
            links: 0,
            link_serial: 0,
            partial_bytes: 0,
        }
    }
}
