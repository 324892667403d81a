//! What each identity uses of what all clients of a server share, against its limits.
//!
//! An identity here is a device, a module, or a local user with all its client ids: a user cannot escape a limit by another
//! client id, nor any client by connecting again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_core::access::rate::Bucket;
use schemas::names::Identity;
use tokio::time::Instant;

use crate::settings::MqttServerSettings;

/// Identities that are remembered; beyond, those that use nothing are forgotten before another one is entered.
const REMEMBERED: usize = 4_096;
/// Seconds in which one second of waiting is forgiven: in the long run, publishers wait a tenth of the time for an identity.
const FORGIVEN_IN: u32 = 10;

/// Levels of a topic or filter that count nothing.
const LEVELS_FREE: usize = 8;
/// What each further level holds in memory: a node of a tree, with its map.
const LEVEL_BYTES: usize = 512;

/// What an identity has some of at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Connections,
    /// Sessions that outlive their connection.
    Sessions,
    /// Messages that it had retained.
    RetainedMessages,
    /// Their bytes.
    RetainedBytes,
    /// Bytes of filters, in all its sessions.
    SubscriptionBytes,
    /// Wills of its clients, from CONNECT until they are published or void.
    Wills,
    /// Their bytes.
    WillBytes,
    /// Bytes of the topics that its connections have given aliases.
    AliasBytes,
    /// Packet ids of QoS 2 messages that its clients have not released.
    UnreleasedIds,
}

impl Resource {
    const COUNT: usize = 9;
    const ALL: [Self; Self::COUNT] = [
        Self::Connections,
        Self::Sessions,
        Self::RetainedMessages,
        Self::RetainedBytes,
        Self::SubscriptionBytes,
        Self::Wills,
        Self::WillBytes,
        Self::AliasBytes,
        Self::UnreleasedIds,
    ];

    /// Its name in `[limits]`.
    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_identity",
            Self::Sessions => "sessions_per_identity",
            Self::RetainedMessages => "retained_messages_per_identity",
            Self::RetainedBytes => "retained_bytes_per_identity",
            Self::SubscriptionBytes => "subscription_bytes_per_identity",
            Self::Wills => "wills_per_identity",
            Self::WillBytes => "will_bytes_per_identity",
            Self::AliasBytes => "alias_bytes_per_identity",
            Self::UnreleasedIds => "unreleased_ids_per_identity",
        }
    }
}

/// What an identity does so many times in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Packets of any type.
    Packets,
    /// Messages that it publishes.
    Messages,
    /// Their bytes.
    Bytes,
    /// Filters that it subscribes to or gives up.
    Filters,
}

impl Rate {
    pub(crate) const COUNT: usize = 4;
}

/// An identity has as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit {} = {max} is reached", .resource.name())]
pub(crate) struct QuotaExceeded {
    pub resource: Resource,
    pub max: u64,
}

/// The limits of one identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long publishers may wait for space in the queues of the identity's sessions.
    pub publishers_wait: Duration,
    /// By [`Resource`].
    max: [u64; Resource::COUNT],
    /// By [`Rate`]; 0 for no limit.
    per_second: [u64; Rate::COUNT],
}

impl From<&MqttServerSettings> for Limits {
    fn from(settings: &MqttServerSettings) -> Self {
        let of = &settings.identity;
        Self {
            publishers_wait: settings.publishers_wait,
            max: Resource::ALL.map(|resource| match resource {
                Resource::Connections => of.connections_max,
                Resource::Sessions => of.sessions_max,
                Resource::RetainedMessages => of.retained_messages_max,
                Resource::RetainedBytes => of.retained_bytes_max,
                Resource::SubscriptionBytes => of.subscription_bytes_max,
                Resource::Wills => of.wills_max,
                Resource::WillBytes => of.will_bytes_max,
                Resource::AliasBytes => of.alias_bytes_max,
                Resource::UnreleasedIds => of.unreleased_ids_max,
            }),
            per_second: [
                of.packets_per_second,
                settings.messages_per_second,
                settings.bytes_per_second,
                of.filters_per_second,
            ],
        }
    }
}

impl Limits {
    /// Of all identities together. What is not limited here is limited where it is kept.
    fn of_all(settings: &MqttServerSettings) -> Self {
        let max = Resource::ALL.map(|resource| match resource {
            Resource::Wills => settings.wills_max,
            Resource::WillBytes => settings.will_bytes_max,
            _ => u64::MAX,
        });
        Self { publishers_wait: Duration::ZERO, max, per_second: [0; Rate::COUNT] }
    }
}

/// What a filter or a retained topic holds in memory beside its message, about: a deep one has a node for each level.
pub(crate) fn topic_bytes(topic: &str) -> usize {
    let levels = topic.bytes().filter(|byte| *byte == b'/').count() + 1;
    topic.len() + levels.saturating_sub(LEVELS_FREE) * LEVEL_BYTES
}

/// What a subscription holds in memory, about: its filter in the session, in the journal's state and in the table.
pub(crate) fn subscription_bytes(filter: &str) -> u64 {
    const OVERHEAD_BYTES: usize = 512;
    (OVERHEAD_BYTES + 2 * filter.len() + topic_bytes(filter)) as u64
}

/// What the identities of one server use.
#[derive(Debug)]
pub(crate) struct Quotas {
    /// What all of them use together, where that is counted here.
    pub all: Arc<Usage>,
    limits: Arc<Limits>,
    by_identity: Mutex<HashMap<Box<str>, Arc<Usage>>>,
}

/// What one identity uses.
#[derive(Debug)]
pub(crate) struct Usage {
    limits: Arc<Limits>,
    /// By [`Resource`].
    used: [AtomicU64; Resource::COUNT],
    /// `None` when publishers have not waited for it.
    waited: Mutex<Option<Box<Waited>>>,
    /// `None` when it has all that it may: an idle client has no memory for them.
    rates: Mutex<Option<Box<Rates>>>,
}

/// What is left of the rates of an identity.
#[derive(Debug)]
struct Rates {
    since: Instant,
    /// By [`Rate`]; `None` without a limit.
    buckets: [Option<Bucket>; Rate::COUNT],
}

impl Rates {
    fn now_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Something that an identity has; it is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Used {
    usage: Arc<Usage>,
    resource: Resource,
    amount: u64,
}

impl Used {
    pub(crate) fn amount(&self) -> u64 {
        self.amount
    }

    /// Not given back when this is dropped, but by who has it from now on.
    pub(crate) fn keep(mut self) {
        self.amount = 0;
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.usage.give_back(self.resource, self.amount);
    }
}

/// How long publishers have waited for an identity, less what is forgiven since.
#[derive(Debug)]
struct Waited {
    time: Duration,
    at: Instant,
}

impl Quotas {
    pub(crate) fn new(settings: &MqttServerSettings) -> Self {
        let all = Arc::new(Usage::new(Arc::new(Limits::of_all(settings))));
        Self { all, limits: Arc::new(Limits::from(settings)), by_identity: Mutex::default() }
    }

    /// The usage of the identity that has a session with this client id.
    pub(crate) fn of_session(&self, client_id: &str) -> Arc<Usage> {
        let user = Identity::of_session(client_id).filter(Identity::is_user);
        self.of(user.as_ref().map_or(client_id, |user| user.device.as_str()))
    }

    fn of(&self, identity: &str) -> Arc<Usage> {
        let mut by_identity = self.lock();
        if let Some(usage) = by_identity.get(identity) {
            return usage.clone();
        }
        if by_identity.len() >= REMEMBERED {
            let now = Instant::now();
            by_identity.retain(|_, usage| Arc::strong_count(usage) > 1 || !usage.is_idle(now));
        }
        let usage = Arc::new(Usage::new(self.limits.clone()));
        by_identity.insert(identity.into(), usage.clone());
        usage
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Usage>>> {
        self.by_identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    pub(crate) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, used: Default::default(), waited: Mutex::default(), rates: Mutex::default() }
    }

    /// Takes more of something.
    ///
    /// # Errors
    /// [`QuotaExceeded`] when the identity may not have so much; nothing is taken then.
    pub(crate) fn take(&self, resource: Resource, amount: u64) -> Result<(), QuotaExceeded> {
        self.replace(resource, 0, amount)
    }

    /// Takes more of something in place of what is given back soon after. What does not grow is taken in any case: what was
    /// there at a start may be beyond the limit.
    ///
    /// # Errors
    /// As [`Usage::take`].
    pub(crate) fn replace(&self, resource: Resource, before: u64, amount: u64) -> Result<(), QuotaExceeded> {
        let max = self.limits.max[resource as usize];
        let more = |used: u64| {
            let used = used.checked_add(amount)?;
            (amount <= before || used.saturating_sub(before) <= max).then_some(used)
        };
        let used = &self.used[resource as usize];
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(QuotaExceeded { resource, max }),
        }
    }

    /// Takes one of something that is given back by being dropped.
    ///
    /// # Errors
    /// As [`Usage::take`]; not when `is_replacement`.
    pub(crate) fn hold(
        self: &Arc<Self>,
        resource: Resource,
        is_replacement: bool,
    ) -> Result<Used, QuotaExceeded> {
        if is_replacement {
            self.add(resource, 1)
        } else {
            self.take(resource, 1)?
        }
        Ok(Used { usage: self.clone(), resource, amount: 1 })
    }

    /// Takes more of something, as [`Usage::replace`] does, that is given back by being dropped.
    ///
    /// # Errors
    /// As [`Usage::take`].
    pub(crate) fn hold_in_place_of(
        self: &Arc<Self>,
        resource: Resource,
        before: u64,
        amount: u64,
    ) -> Result<Used, QuotaExceeded> {
        self.replace(resource, before, amount)?;
        Ok(Used { usage: self.clone(), resource, amount })
    }

    /// What it has already, from before a restart; it is given back when that is dropped.
    pub(crate) fn hold_again(self: &Arc<Self>, resource: Resource, amount: u64) -> Used {
        self.add(resource, amount);
        Used { usage: self.clone(), resource, amount }
    }

    /// What it has already, from before a restart or in place of something that it gives back.
    pub(crate) fn add(&self, resource: Resource, amount: u64) {
        self.used[resource as usize].fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, resource: Resource, amount: u64) {
        let less = |used: u64| Some(used.saturating_sub(amount));
        let _ = self.used[resource as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    #[cfg(test)]
    pub(crate) fn used(&self, resource: Resource) -> u64 {
        self.used[resource as usize].load(Ordering::Relaxed)
    }

    /// How much of a rate a connection may add up before it counts it: what a millisecond allows. The buckets' clock has
    /// milliseconds, so that a client gains nothing by it.
    pub(crate) fn uncounted_max(&self, rate: Rate) -> u64 {
        match self.limits.per_second[rate as usize] {
            0 => u64::MAX,
            per_second => per_second / 1_000,
        }
    }

    /// Counts what the identity did, by [`Rate`]; gives until when it must wait before it does more.
    pub(crate) fn count(&self, done: [u64; Rate::COUNT]) -> Option<Instant> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let rates = rates.get_or_insert_with(|| {
            let buckets = self.limits.per_second.map(|per_second| Bucket::new(per_second, 0));
            Box::new(Rates { since: now, buckets })
        });
        let now_ms = rates.now_ms(now);
        let mut wait_ms = 0;
        for (bucket, count) in rates.buckets.iter_mut().zip(done) {
            if let Some(bucket) = bucket.as_mut().filter(|_| count > 0) {
                bucket.take(count, now_ms);
                wait_ms = wait_ms.max(bucket.wait_ms(now_ms));
            }
        }
        (wait_ms > 0).then(|| now + Duration::from_millis(wait_ms))
    }

    /// For how long publishers have waited, less what is forgiven by now.
    fn waited(&self, now: Instant) -> (MutexGuard<'_, Option<Box<Waited>>>, Duration) {
        let waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        let time = waited.as_ref().map_or(Duration::ZERO, |waited| {
            waited.time.saturating_sub(now.saturating_duration_since(waited.at) / FORGIVEN_IN)
        });
        (waited, time)
    }

    /// How much longer publishers may wait for this identity.
    pub(crate) fn wait_left(&self, now: Instant) -> Duration {
        self.limits.publishers_wait.saturating_sub(self.waited(now).1)
    }

    /// Publishers have waited for it.
    pub(crate) fn add_wait(&self, now: Instant, time: Duration) {
        let (mut waited, before) = self.waited(now);
        // What is beyond the limit is not held against it for ever.
        let time = (before + time).min(self.limits.publishers_wait);
        *waited = Some(Box::new(Waited { time, at: now }));
    }

    /// Forgets rates of which nothing is used.
    pub(crate) fn give_back_memory(&self, now: Instant) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take_if(|rates| {
            let now_ms = rates.now_ms(now);
            rates.buckets.iter_mut().flatten().all(|bucket| bucket.is_full(now_ms))
        });
    }

    /// Whether nothing is lost when it is forgotten.
    fn is_idle(&self, now: Instant) -> bool {
        self.give_back_memory(now);
        let has_rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.used.iter().all(|used| used.load(Ordering::Relaxed) == 0)
            && !has_rates
            && self.waited(now).1.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quotas() -> Quotas {
        Quotas::new(&MqttServerSettings::default())
    }

    proptest! {
        #[test]
        fn an_identity_has_what_it_took_and_did_not_give_back_and_never_more_than_it_may(
            steps in prop::collection::vec((0..Resource::COUNT, 0u64..3_000, any::<bool>()), 1..200),
        ) {
            let usage = Usage::new(Arc::new(Limits::from(&MqttServerSettings::default())));
            let mut expected = [0_u64; Resource::COUNT];
            for (index, amount, is_taken) in steps {
                let resource = Resource::ALL[index];
                let max = usage.limits.max[index];
                if is_taken {
                    let fits = expected[index] + amount <= max;
                    prop_assert_eq!(usage.take(resource, amount).is_ok(), fits);
                    expected[index] += if fits { amount } else { 0 };
                } else if amount <= expected[index] {
                    usage.give_back(resource, amount);
                    expected[index] -= amount;
                }
                prop_assert_eq!(usage.used[index].load(Ordering::Relaxed), expected[index]);
                prop_assert!(expected[index] <= max);
            }
        }
    }

    #[test]
    fn waiting_is_forgiven_at_a_tenth_of_its_pace() {
        let usage = quotas().of_session("d");
        let (now, seconds) = (Instant::now(), Duration::from_secs);
        assert_eq!(usage.wait_left(now), seconds(10));
        usage.add_wait(now, seconds(60));
        assert_eq!(usage.wait_left(now), Duration::ZERO);
        assert_eq!(usage.wait_left(now + seconds(20)), seconds(2));
        assert_eq!(usage.wait_left(now + seconds(620)), seconds(10));
    }

    #[test]
    fn the_client_ids_of_a_user_are_one_identity_and_those_of_devices_are_not() {
        let quotas = quotas();
        let same = |one: &str, other: &str| Arc::ptr_eq(&quotas.of_session(one), &quotas.of_session(other));
        assert!(same("$user:plc/a", "$user:plc/b"));
        assert!(!same("$user:plc/a", "$user:plc2/a") && !same("d1", "d2") && !same("gw/m1", "gw/m2"));
    }

    #[test]
    fn identities_that_use_nothing_are_forgotten_and_others_are_not() {
        let quotas = quotas();
        let held = quotas.of_session("held");
        quotas.of_session("waited-for").add_wait(Instant::now(), Duration::from_secs(1));
        for n in 0..3 * REMEMBERED {
            quotas.of_session(&format!("d{n}"));
        }
        assert!(quotas.lock().len() <= REMEMBERED);
        assert!(Arc::ptr_eq(&held, &quotas.of_session("held")));
        assert!(quotas.of_session("waited-for").wait_left(Instant::now()) < Duration::from_secs(10));
    }
}
