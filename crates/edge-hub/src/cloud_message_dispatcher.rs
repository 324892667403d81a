//! Brings devices their cloud-to-device messages: in order, several at a time, each until it has ended.
//!
//! ```text
//! waits ── device listens ──► in flight ── PUBACK ──► delivered
//!   │  ◄── connection ended ──── │  (each time counts; the tenth is the last)
//!   ├── its time is over ──► expired
//!   └── over only if the machine was off as long as the wall clock says ──► held until its time is over, or the clock is set
//! ```
//!
//! Where messages are kept is the program's matter: it lends the dispatcher a [`CloudMessageSource`]. At most one round runs for each device;
//! the subscription of a device and a new message start one.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use edge_core::clock::lifetime::{Lifetime, LifetimeState};
use edge_core::cloud_message;
use edge_core::dialect::client::Subscribe;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use schemas::cloud_message::{CloudMessage, End};
use schemas::names::{DeviceId, Identity};
use schemas::topics;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::age_clock;
use crate::clients::Clients;
use crate::delivery::NotDelivered;
use crate::single_flight::SingleFlight;
use crate::tasks;

/// Messages on their way to one device at a time.
const WINDOW: usize = 16;
/// When a device is there but slow, how long until it is tried again.
const SLOW_DEVICE: Duration = Duration::from_secs(1);
/// The longest wait between two checks for messages whose time is over: a machine that slept wakes to it.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// A message that waits for its device.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingMessage {
    pub sequence: u64,
    /// How often it was given to the device in vain.
    pub attempts: u32,
    /// How long it waits, by [`age_clock::steady_ms`].
    pub lifetime: Lifetime,
    pub message: CloudMessage,
}

/// Where a program keeps cloud-to-device messages. A failure is logged by the program itself; the message then stays as it
/// was, and the next round finds it.
pub trait CloudMessageSource: Send + Sync + 'static {
    /// The messages of a device with sequences above `after`, oldest first, at most `limit`.
    fn waiting(
        &self,
        device: &DeviceId,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Vec<WaitingMessage>> + Send;

    /// A message has ended. The first end of a message counts.
    fn ended(&self, device: &DeviceId, sequence: u64, end: End) -> impl Future<Output = ()> + Send;

    /// A message was given to its device, and the connection ended before its acknowledgement.
    fn not_acknowledged(&self, device: &DeviceId, sequence: u64) -> impl Future<Output = ()> + Send;

    /// The devices for which messages wait here.
    fn devices(&self) -> impl Future<Output = Vec<DeviceId>> + Send;

    /// Every message whose time is over, of devices other than `busy`, and when the next one's is, by [`age_clock::steady_ms`].
    fn expired(
        &self,
        now_ms: u64,
        busy: &BTreeSet<DeviceId>,
    ) -> impl Future<Output = (Vec<(DeviceId, u64)>, Option<u64>)> + Send;
}

/// The dispatcher of one program. Cheap to clone.
pub struct CloudMessageDispatcher<M>(Arc<Inner<M>>);

impl<M> Clone for CloudMessageDispatcher<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<M> {
    store: Arc<M>,
    clients: Clients,
    /// Devices with a round under way. Bounded by the connected devices.
    passes: SingleFlight<DeviceId>,
    /// There may be a message whose time is over earlier than the next look.
    changed: Notify,
}

impl<M: CloudMessageSource> CloudMessageDispatcher<M> {
    /// A dispatcher who has not gone out yet.
    pub fn new(store: Arc<M>, clients: Clients) -> Self {
        Self(Arc::new(Inner { store, clients, passes: SingleFlight::default(), changed: Notify::new() }))
    }

    /// A message came for this device, or the device listens: what waits is delivered.
    pub fn wake(&self, device: &DeviceId) {
        self.0.changed.notify_one();
        let inbox = Identity::device(device.clone());
        if !self.0.clients.has_subscribed(&inbox, &Subscribe::Inbox { of: inbox.clone() }) {
            return;
        }
        if !self.0.passes.begin(device) {
            return;
        }
        let (dispatcher, device) = (self.clone(), device.clone());
        let recovering = (self.clone(), device.clone());
        // It ends by itself when nothing waits or the device is gone.
        tasks::spawn_recovering(
            None,
            "C2D messages of a device",
            async move { dispatcher.passes_of(device).await },
            move || {
                let (dispatcher, device) = recovering;
                dispatcher.0.passes.give_up(&device);
                // A new connection is given what waits.
                dispatcher
                    .0
                    .clients
                    .disconnect(&Identity::device(device), "its messages could not be delivered");
            },
        );
    }

    async fn passes_of(&self, device: DeviceId) {
        loop {
            let is_slow = self.pass(&device).await;
            if is_slow {
                tokio::time::sleep(SLOW_DEVICE).await;
            }
            if !self.0.passes.goes_on(&device, is_slow) {
                break;
            }
        }
        self.0.changed.notify_one();
    }

    /// Delivers what waits; ends when nothing does, or the device takes no more. True when it is only slow.
    async fn pass(&self, device: &DeviceId) -> bool {
        let (store, to) = (&self.0.store, Identity::device(device.clone()));
        let (mut queue, mut in_flight) = (VecDeque::new(), FuturesOrdered::new());
        let (mut after, mut is_all) = (0, false);
        let mut given_up = None;
        loop {
            if queue.is_empty() && !is_all && given_up.is_none() {
                queue.extend(store.waiting(device, after, WINDOW).await);
                is_all = queue.is_empty();
            }
            while given_up.is_none()
                && in_flight.len() < WINDOW
                && let Some(WaitingMessage { sequence, attempts, lifetime, message }) = queue.pop_front()
            {
                after = sequence;
                let state = age_clock::state_of(lifetime);
                if let Some(end) = cloud_message::end(state, attempts) {
                    self.ended(device, sequence, &message, end).await;
                    continue;
                }
                if state == LifetimeState::Unproven {
                    let message = &message.message_id;
                    info!(%device, message, "cloud-to-device message held: it may have expired while the machine was off");
                    continue;
                }
                let topic = topics::cloud_message(device, &cloud_message::bag(&message, device));
                let delivery = self.0.clients.deliver(&to, topic, message.body.clone().into());
                in_flight.push_back(async move { (sequence, message, delivery.await) });
            }
            match in_flight.next().await {
                Some((sequence, message, Ok(()))) => {
                    self.ended(device, sequence, &message, End::Delivered).await;
                }
                Some((sequence, message, Err(why))) => {
                    if why == NotDelivered::Gone {
                        store.not_acknowledged(device, sequence).await;
                    }
                    let message = &message.message_id;
                    info!(%device, message, %why, "cloud-to-device message not delivered yet");
                    // The others in flight are looked at too: some may have been acknowledged.
                    given_up.get_or_insert(why);
                }
                None if is_all || given_up.is_some() => return given_up == Some(NotDelivered::Busy),
                None => {}
            }
        }
    }

    async fn ended(&self, device: &DeviceId, sequence: u64, message: &CloudMessage, end: End) {
        let message = &message.message_id;
        match &end {
            End::Delivered => info!(%device, message, "cloud-to-device message delivered"),
            end => {
                warn!(%device, message, end = end.feedback_code(), "cloud-to-device message not delivered")
            }
        }
        self.0.store.ended(device, sequence, end).await;
    }

    /// Ends messages whose time is over while their devices are away, until `stop`.
    pub async fn expire(&self, stop: CancellationToken) {
        let mut settings = age_clock::settings();
        loop {
            let busy = self.0.passes.running();
            let now = age_clock::steady_ms();
            let (over, next) = self.0.store.expired(now, &busy).await;
            for (device, sequence) in over {
                warn!(%device, sequence, "cloud-to-device message expired before its device came");
                self.0.store.ended(&device, sequence, End::Expired).await;
            }
            let wait =
                next.map_or(CHECK_EVERY, |at| Duration::from_millis(at.saturating_sub(now)).min(CHECK_EVERY));
            tokio::select! {
                // At least a little: a message that could not be ended is not tried again in a whirl.
                () = tokio::time::sleep(wait.max(Duration::from_millis(10))) => {}
                () = self.0.changed.notified() => {}
                // What was held may be valid by the wall clock as it was set.
                _ = settings.changed() => for device in self.0.store.devices().await {
                    self.wake(&device);
                },
                () = stop.cancelled() => return,
            }
        }
    }
}
