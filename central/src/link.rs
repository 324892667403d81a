//! What central tells gateways: the devices behind them, their desired sections, and what waits for those devices. All of it
//! when a gateway subscribes, and afterwards what changed.
//!
//! It is level-triggered. A change only notes *what* is to be told; the state is read when it is told, by one task for
//! each gateway, so that an older state never overtakes a newer one and many changes become one message. A gateway that
//! is away is told everything when it subscribes again.

use edge_core::error_chain::chain;
use edge_hub::tasks;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use edge_core::dialect::client::Subscribe;
use edge_core::dialect::link::LinkDown;
use edge_core::link::snapshot;
use edge_hub::delivery::NotDelivered;
use schemas::link::{
    CHILDREN_IN_PARTS, CentralTime, Child, Children, CommandDown, Desired, GENERATIONS, Purges,
};
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::twin::Section;

use crate::admission::Admission;
use crate::clock::now_ms;
use crate::error::ServiceError;
use crate::fleet::Fleet;
use crate::lookup::modules;
use crate::store::StoreError;
use crate::store::cloud_messages;
use crate::store::commands;
use crate::store::devices::{self, Device};
use crate::store::modules as module_generations;
use crate::store::telemetry;
use crate::store::twins::{self, Half};

/// What gateways are still to be told. Bounded by the registry: one entry for each thing that can be told.
#[derive(Debug, Default)]
pub struct Outbox(Mutex<HashMap<DeviceId, BTreeSet<Update>>>);

/// One thing to tell a gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Update {
    /// How far central has what its queues hold. First: it sends telemetry from there.
    Stored,
    /// The devices behind it: a gateway knows a device before it hears its desired section.
    Children,
    /// A device that stands behind it or did so.
    Child(DeviceId),
    Desired(Identity),
    /// The cloud-to-device messages that were taken back.
    Purges,
    /// Those of one device.
    Purge(DeviceId),
    /// A cloud-to-device message of a device, by its sequence: they are told in this order.
    Message(DeviceId, u64),
    /// A command that waits, by its row: they are told in this order.
    Command(u64),
}

/// What is told at once.
enum Batch {
    One(Update),
    Children(Vec<DeviceId>),
    Purges(Vec<DeviceId>),
}

/// Bytes of a list in one message. A gateway takes 8 MB, and puts each of the devices on its disk before it acknowledges.
const PART_BYTES_MAX: usize = 128 * 1024;
/// Devices whose changes are read at once.
const BATCH_MAX: usize = 500;

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, BTreeSet<Update>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes news; true when nobody tells this gateway anything yet, and the caller must start somebody who does.
    fn put(&self, gateway: &DeviceId, news: impl IntoIterator<Item = Update>) -> bool {
        let mut outbox = self.lock();
        let is_idle = !outbox.contains_key(gateway);
        outbox.entry(gateway.clone()).or_default().extend(news);
        is_idle
    }

    /// What to tell next: one thing, or changes of several devices; `None` ends the teller.
    fn next(&self, gateway: &DeviceId) -> Option<Batch> {
        let mut outbox = self.lock();
        let news = outbox.get_mut(gateway)?;
        let Some(first) = news.pop_first() else {
            outbox.remove(gateway);
            return None;
        };
        let more_of = |news: &mut BTreeSet<Update>, is_same: fn(&Update) -> bool| {
            let mut devices = Vec::new();
            while devices.len() + 1 < BATCH_MAX
                && news.first().is_some_and(is_same)
                && let Some(Update::Child(device) | Update::Purge(device)) = news.pop_first()
            {
                devices.push(device);
            }
            devices
        };
        Some(match first {
            Update::Child(device) => {
                let mut devices = more_of(news, |next| matches!(next, Update::Child(_)));
                devices.push(device);
                Batch::Children(devices)
            }
            Update::Purge(device) => {
                let mut devices = more_of(news, |next| matches!(next, Update::Purge(_)));
                devices.push(device);
                Batch::Purges(devices)
            }
            one => Batch::One(one),
        })
    }

    fn forget(&self, gateway: &DeviceId) {
        self.lock().remove(gateway);
    }
}

impl Fleet {
    /// Tells a gateway of a device that stands behind it, has changed, or stands there no longer.
    pub(crate) fn tell_child(self: &Arc<Self>, gateway: &DeviceId, device: &DeviceId) {
        self.tell(gateway, [Update::Child(device.clone())]);
    }

    /// Tells a gateway the desired section of an identity.
    pub(crate) fn tell_desired(self: &Arc<Self>, gateway: &DeviceId, of: Identity) {
        self.tell(gateway, [Update::Desired(of)]);
    }

    /// Tells a gateway the messages of a device behind it.
    pub(crate) fn tell_messages(
        self: &Arc<Self>,
        gateway: &DeviceId,
        device: &DeviceId,
        sequences: impl IntoIterator<Item = u64>,
    ) {
        self.tell(gateway, sequences.into_iter().map(|sequence| Update::Message(device.clone(), sequence)));
    }

    /// Tells a gateway commands that wait.
    pub(crate) fn tell_commands(self: &Arc<Self>, gateway: &DeviceId, rows: impl IntoIterator<Item = u64>) {
        self.tell(gateway, rows.into_iter().map(Update::Command));
    }

    /// Tells a gateway which messages of a device were taken back.
    pub(crate) fn tell_purge(self: &Arc<Self>, gateway: &DeviceId, device: &DeviceId) {
        self.tell(gateway, [Update::Purge(device.clone())]);
    }

    /// Tells a gateway everything: it has just subscribed.
    pub(crate) fn tell_everything(self: &Arc<Self>, gateway: DeviceId) {
        let (fleet, recovering, of) = (self.clone(), self.clone(), gateway.clone());
        let everything = async move {
            match fleet.everything(gateway.clone()).await {
                Ok(news) => fleet.tell(&gateway, news),
                Err(error) => {
                    tracing::error!(%gateway, error = %chain(&error), "what the gateway must know could not be read");
                    fleet.tell_on_next_connection(gateway);
                }
            }
        };
        tasks::spawn_recovering(None, "state of a gateway", everything, move || {
            recovering.tell_on_next_connection(of);
        });
    }

    /// Ends the connection of a gateway that would wait for ever for what it must know: a new one asks again.
    fn tell_on_next_connection(&self, gateway: DeviceId) {
        self.outbox.forget(&gateway);
        self.clients.disconnect(&Identity::device(gateway), "central could not read its state");
    }

    async fn everything(&self, gateway: DeviceId) -> Result<Vec<Update>, ServiceError> {
        self.store
            .read(move |c| {
                let mut news = vec![
                    Update::Stored,
                    Update::Children,
                    Update::Desired(Identity::device(gateway.clone())),
                ];
                for module in modules(c, &gateway)? {
                    news.push(Update::Desired(Identity::module(gateway.clone(), module)));
                }
                news.extend(commands::waiting(c, &gateway)?.into_iter().map(Update::Command));
                for child in devices::children(c, &gateway)? {
                    news.extend(commands::waiting(c, &child.id)?.into_iter().map(Update::Command));
                    for sequence in cloud_messages::sequences(c, &child.id)? {
                        news.push(Update::Message(child.id.clone(), sequence));
                    }
                    news.push(Update::Desired(Identity::device(child.id)));
                }
                news.push(Update::Purges);
                Ok(news)
            })
            .await
    }

    /// Answers a gateway's question for the time; of several that come faster than they are answered, the newest.
    pub(crate) fn tell_time(self: &Arc<Self>, gateway: DeviceId, connection: u64, number: u64) {
        if !self.connections.asked_time(&gateway, connection, number) {
            return;
        }
        let (fleet, recovering, asking) = (self.clone(), self.clone(), gateway.clone());
        let answers = async move {
            let of = Identity::device(gateway.clone());
            while let Some(number) = fleet.connections.next_time_asked(&gateway) {
                let payload = json(&CentralTime { asks_time: number, now_ms: now_ms() });
                if let Err(why) = fleet.clients.send_link(&of, &LinkDown::Time, payload).await {
                    tracing::debug!(%gateway, %why, "gateway was not told the time");
                }
            }
        };
        tasks::spawn_recovering(None, "time for a gateway", answers, move || {
            // The next question begins anew.
            while recovering.connections.next_time_asked(&asking).is_some() {}
        });
    }

    fn tell(self: &Arc<Self>, gateway: &DeviceId, news: impl IntoIterator<Item = Update>) {
        if self.outbox.put(gateway, news) {
            let (fleet, recovering, of) = (self.clone(), self.clone(), gateway.clone());
            let told = fleet.teller(gateway.clone());
            tasks::spawn_recovering(None, "news for a gateway", told, move || {
                recovering.tell_on_next_connection(of);
            });
        }
    }

    async fn teller(self: Arc<Self>, gateway: DeviceId) {
        while let Some(batch) = self.outbox.next(&gateway) {
            if !self.clients.is_connected(&Identity::device(gateway.clone())) {
                // A list of thousands is not read for nobody.
                self.give_up_telling(&gateway);
                return;
            }
            let messages = match self.messages(&gateway, batch).await {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::error!(%gateway, error = %chain(&error), "what the gateway must know could not be read");
                    self.tell_on_next_connection(gateway);
                    return;
                }
            };
            for (operation, payload) in messages {
                if !self.send(&gateway, operation, payload).await {
                    return;
                }
            }
        }
    }

    /// Forgets what was to be told on a connection that has ended, or does not listen: the gateway is told everything when it
    /// subscribes. One that has subscribed meanwhile, while its teller was still busy with the connection before, is told now.
    fn give_up_telling(self: &Arc<Self>, gateway: &DeviceId) {
        self.outbox.forget(gateway);
        if self.clients.has_subscribed(&Identity::device(gateway.clone()), &Subscribe::Link) {
            self.tell_everything(gateway.clone());
        }
    }

    /// Sends one message to a gateway, and notes what it has taken; false when it is not told any more on this connection.
    async fn send(self: &Arc<Self>, gateway: &DeviceId, operation: LinkDown, payload: Bytes) -> bool {
        let this = Identity::device(gateway.clone());
        if let Err(why) = self.clients.send_link(&this, &operation, payload).await {
            tracing::debug!(%gateway, %operation, %why, "gateway was not told");
            self.give_up_telling(gateway);
            if matches!(why, NotDelivered::Busy) {
                // It still listens, and would never learn what was left out.
                self.clients.disconnect(&this, "it takes too slowly what central tells it");
            }
            return false;
        }
        match operation {
            LinkDown::Message { sequence, .. } => self.note_taken(gateway.clone(), sequence).await,
            LinkDown::Command { command_id, .. } => {
                self.note_command_taken(gateway.clone(), command_id).await;
            }
            _ => {}
        }
        true
    }

    async fn note_taken(&self, gateway: DeviceId, sequence: u64) {
        let now_ms = now_ms();
        let noted = self
            .store
            .submit(move |c| Ok::<_, StoreError>(cloud_messages::taken(c, &gateway, sequence, now_ms)?))
            .await;
        if let Err(error) = noted {
            // The gateway knows the message when it is told again.
            tracing::warn!(sequence, error = %chain(&error), "that a gateway took a message was not stored");
        }
    }

    /// The messages for what is told, as the state is now.
    async fn messages(
        &self,
        gateway: &DeviceId,
        batch: Batch,
    ) -> Result<Vec<(LinkDown, Bytes)>, ServiceError> {
        let takes_parts = self.connections.link_version(gateway) >= CHILDREN_IN_PARTS;
        match batch {
            Batch::One(Update::Children) if takes_parts => self.all_children(gateway.clone()).await,
            Batch::Children(devices) if takes_parts => self.changed_children(gateway.clone(), devices).await,
            // The list must be whole: this gateway takes what is not in it for gone.
            Batch::Children(_) => Ok(self.message(gateway, Update::Children).await?.into_iter().collect()),
            Batch::One(Update::Purges) => self.purges(gateway.clone(), None).await,
            Batch::Purges(devices) => self.purges(gateway.clone(), Some(devices)).await,
            Batch::One(news) => Ok(self.message(gateway, news).await?.into_iter().collect()),
        }
    }

    async fn all_children(&self, gateway: DeviceId) -> Result<Vec<(LinkDown, Bytes)>, ServiceError> {
        self.store
            .read(move |c| {
                let children = devices::children(c, &gateway)?.into_iter().filter_map(child);
                let parts = snapshot::parts(now_ms(), children, PART_BYTES_MAX).into_iter();
                let messages = parts.map(|(part, children)| {
                    let children = Children { children, snapshot: Some(part), ..Children::default() };
                    (LinkDown::Children, json(&children))
                });
                Ok(messages.collect())
            })
            .await
    }

    async fn changed_children(
        &self,
        gateway: DeviceId,
        devices: Vec<DeviceId>,
    ) -> Result<Vec<(LinkDown, Bytes)>, ServiceError> {
        self.store
            .read(move |c| {
                let (mut children, mut removed) = (Vec::new(), Vec::new());
                for id in devices {
                    let device = devices::get(c, &id)?;
                    let behind = device.filter(|device| device.gateway.as_ref() == Some(&gateway));
                    match behind.and_then(child) {
                        Some(child) => children.push(child),
                        None => removed.push(id),
                    }
                }
                let change = Children { children, removed, is_difference: true, snapshot: None };
                Ok(vec![(LinkDown::Children, json(&change))])
            })
            .await
    }

    /// What was taken back of these devices, or of all.
    async fn purges(
        &self,
        gateway: DeviceId,
        devices: Option<Vec<DeviceId>>,
    ) -> Result<Vec<(LinkDown, Bytes)>, ServiceError> {
        self.store
            .read(move |c| {
                let purged: Vec<(DeviceId, u64)> = match devices {
                    None => cloud_messages::purges(c, &gateway)?.into_iter().collect(),
                    Some(devices) => {
                        let mut purged = Vec::new();
                        for device in devices {
                            // It may stand behind another gateway now.
                            let behind = devices::get(c, &device)?.and_then(|device| device.gateway);
                            if behind.as_ref() == Some(&gateway)
                                && let Some(up_to) = cloud_messages::purged(c, &device)?
                            {
                                purged.push((device, up_to));
                            }
                        }
                        purged
                    }
                };
                let parts = snapshot::split(purged, PART_BYTES_MAX).into_iter();
                let messages = parts
                    .filter(|part| !part.is_empty())
                    .map(|part| (LinkDown::Purges, json(&Purges { purged: part.into_iter().collect() })));
                Ok(messages.collect())
            })
            .await
    }

    /// The message for a piece of news as the state is now; `None` when there is nothing to say.
    async fn message(
        &self,
        gateway: &DeviceId,
        news: Update,
    ) -> Result<Option<(LinkDown, Bytes)>, ServiceError> {
        let gateway = gateway.clone();
        // An older gateway would take them for a property.
        let takes_generations = self.connections.link_version(&gateway) >= GENERATIONS;
        self.store
            .read(move |c| match news {
                Update::Stored => {
                    let stored = telemetry::stored(c, &gateway)?;
                    Ok(Some((LinkDown::Stored, json(&stored))))
                }
                Update::Children => {
                    let children = devices::children(c, &gateway)?.into_iter().filter_map(child).collect();
                    Ok(Some((LinkDown::Children, json(&Children { children, ..Children::default() }))))
                }
                // They come in batches.
                Update::Child(_) | Update::Purges | Update::Purge(_) => Ok(None),
                Update::Desired(of) => {
                    let stored = twins::section(c, &of, Half::Desired)?;
                    if stored.is_unreadable {
                        // The gateway keeps what it has; an empty section would take its modules away.
                        return Ok(None);
                    }
                    let section = stored.section;
                    // Version 0: no operator ever wanted anything, and the gateway's own empty section says so too.
                    if section.version == 0 {
                        return Ok(None);
                    }
                    let is_manifest = of.module == Some(ModuleId::edge_agent());
                    let generations = if is_manifest && takes_generations {
                        generations(c, &gateway, &section)?
                    } else {
                        BTreeMap::new()
                    };
                    let desired = Desired { section, generations };
                    Ok(Some((LinkDown::Desired(of), json(&desired))))
                }
                Update::Command(row) => {
                    let now_ms = now_ms();
                    let Some(command) = commands::waiting_at(c, row, now_ms)? else { return Ok(None) };
                    // Its device may stand behind another gateway now.
                    let carrier = devices::get(c, &command.target.device)?;
                    if carrier.as_ref().and_then(Device::carrier) != Some(&gateway) {
                        return Ok(None);
                    }
                    let left_ms = command.valid_until_ms.unwrap_or(now_ms).saturating_sub(now_ms);
                    let down = CommandDown {
                        request: command.request,
                        valid_for_in_seconds: Some(left_ms.div_ceil(1000)),
                    };
                    Ok(Some((
                        LinkDown::Command { command_id: command.id, target: command.target },
                        json(&down),
                    )))
                }
                Update::Message(device, sequence) => {
                    // It may have ended since, or its device stands behind another gateway now.
                    let stands_behind = devices::get(c, &device)?.and_then(|device| device.gateway);
                    let waits = cloud_messages::get(c, sequence)?.filter(|message| message.ended.is_none());
                    Ok(waits
                        .filter(|_| stands_behind.as_ref() == Some(&gateway))
                        .map(|stored| (LinkDown::Message { device, sequence }, json(&stored.message))))
                }
            })
            .await
    }
}

/// The generations of the modules that a section of `$edgeAgent` names; 0 of one that was there before generations were kept.
fn generations(
    c: &rusqlite::Connection,
    gateway: &DeviceId,
    section: &Section,
) -> Result<BTreeMap<ModuleId, u64>, ServiceError> {
    let known = module_generations::generations(c, gateway)?;
    let named = section.properties.get("modules").and_then(serde_json::Value::as_object);
    let named = named.into_iter().flat_map(serde_json::Map::keys);
    let generation = |name: &String| {
        let module: ModuleId = name.parse().ok()?;
        let generation = known.get(&module).copied().unwrap_or(0);
        Some((module, generation))
    };
    Ok(named.filter_map(generation).collect())
}

/// A device as its gateway must know it; `None` for one that the gateway brought and holds the keys of.
fn child(device: Device) -> Option<Child> {
    let enabled = device.admission() == Admission::Admitted;
    let (primary_key, secondary_key) = match (&device.x509, device.keys) {
        // A gateway is not given keys that prove nothing.
        (Some(_), _) => (String::new(), String::new()),
        (None, Some(keys)) => (keys.primary, keys.secondary),
        // Its TPM would prove it, which gateways cannot check: nothing else does.
        (None, None) if device.endorsement_key.is_some() => (String::new(), String::new()),
        (None, None) => return None,
    };
    let x509 = device.x509.unwrap_or_default();
    Some(Child {
        device_id: device.id,
        primary_key,
        secondary_key,
        thumbprints: x509.thumbprints(),
        is_ca_signed: x509.is_ca_signed,
        enabled,
        generation: Some(device.attachment),
    })
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("the link's types have text keys only").into()
}
