//! Who receives what on free topics: one tree of filter levels, shared by all sessions of a server.
//!
//! ```text
//! line1 ─ + ─ temperature : [panel (QoS 1)], group "loggers": [a, b]
//!       └ #               : [logger (QoS 0)]
//! ```
//!
//! A message walks down the tree by its topic, taking at each level the branch of that name, `+` and `#`. What it finds
//! is a [`Route`], which holds for that topic until anybody subscribes or unsubscribes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::message::Share;
use crate::session_queue::SessionQueue;
use crate::subscription::Options;
use mqtt::filter::split_level;

/// The deepest free filter, and the deepest retained topic: the trees are walked level by level.
pub(crate) const LEVELS_MAX: usize = 128;

/// The subscriptions to free topics.
#[derive(Debug, Default)]
pub(crate) struct Table {
    root: RwLock<Node>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Node {
    branches: HashMap<Box<str>, Node>,
    subscribers: Vec<Subscriber>,
    groups: Vec<Arc<Group>>,
}

#[derive(Debug, Clone)]
struct Subscriber {
    session_queue: Arc<SessionQueue>,
    options: Options,
}

impl Subscriber {
    fn is(&self, session_queue: &SessionQueue) -> bool {
        self.session_queue.number == session_queue.number
    }
}

/// The members of a shared subscription, one of which receives each message.
#[derive(Debug)]
pub(crate) struct Group {
    pub share: Arc<Share>,
    members: Vec<Subscriber>,
    next: AtomicUsize,
}

impl Group {
    /// Every member with the way it is served, beginning with whose turn it is.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = Receiver> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.members.len()).map(move |n| {
            let member = &self.members[(first.wrapping_add(n)) % self.members.len()];
            Receiver::new(member.session_queue.clone(), member.options)
        })
    }
}

/// Who receives the messages on a topic.
#[derive(Debug, Default)]
pub(crate) struct Route {
    generation: u64,
    /// Each session once.
    pub receivers: Vec<Receiver>,
    pub groups: Vec<Arc<Group>>,
}

/// A session that receives, and how.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    pub session_queue: Arc<SessionQueue>,
    pub served: Served,
    /// How its own messages are served, where that differs: some of its filters have no-local.
    own: Option<Option<Box<Served>>>,
}

/// What all filters of a session that match come to: the highest QoS, and every identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    pub qos: u8,
    pub retain_as_published: bool,
    pub ids: Option<Arc<[u32]>>,
}

impl Served {
    fn by(options: Options) -> Self {
        let ids = options.id.map(|id| Arc::from([id]));
        Self { qos: options.qos, retain_as_published: options.retain_as_published, ids }
    }

    fn and(&self, other: &Self) -> Self {
        let ids = match (&self.ids, &other.ids) {
            (Some(some), Some(more)) => Some(some.iter().chain(more.iter()).copied().collect()),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        Self {
            qos: self.qos.max(other.qos),
            retain_as_published: self.retain_as_published || other.retain_as_published,
            ids,
        }
    }
}

impl Receiver {
    fn new(session_queue: Arc<SessionQueue>, options: Options) -> Self {
        let own = if options.no_local { Some(None) } else { None };
        Self { session_queue, served: Served::by(options), own }
    }

    /// How it is served a message of this publisher; `None` when it does not want it.
    pub(crate) fn serves(&self, publisher: u64) -> Option<&Served> {
        match &self.own {
            Some(own) if publisher == self.session_queue.number => own.as_deref(),
            _ => Some(&self.served),
        }
    }

    fn join(&mut self, other: &Self) {
        if self.own.is_some() || other.own.is_some() {
            let own = |receiver: &Self| receiver.serves(receiver.session_queue.number).cloned();
            self.own = Some(match (own(self), own(other)) {
                (Some(one), Some(more)) => Some(Box::new(one.and(&more))),
                (one, more) => one.or(more).map(Box::new),
            });
        }
        self.served = self.served.and(&other.served);
    }
}

/// The group and the filter of `$share/{group}/{filter}`; `None` for any other filter.
pub(crate) fn split_share(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

impl Table {
    /// Enters a well-formed filter, `$share/...` included; the same filter of the same session is replaced. False when it
    /// was replaced.
    pub(crate) fn subscribe(
        &self,
        filter: &str,
        session_queue: &Arc<SessionQueue>,
        options: Options,
    ) -> bool {
        let (group, filter) = match split_share(filter) {
            Some((group, filter)) => (Some(group), filter),
            None => (None, filter),
        };
        let mut node = &mut *self.root.write().unwrap_or_else(PoisonError::into_inner);
        for level in filter.split('/') {
            if !node.branches.contains_key(level) {
                node.branches.insert(level.into(), Node::default());
            }
            node = node.branches.get_mut(level).expect("it was just looked for, and put there");
        }
        let subscriber = Subscriber { session_queue: session_queue.clone(), options };
        let is_new = match group {
            None => put(&mut node.subscribers, subscriber),
            Some(name) => match node.groups.iter_mut().find(|group| &*group.share.group == name) {
                Some(group) => {
                    let mut members = group.members.clone();
                    let is_new = put(&mut members, subscriber);
                    *group = group.with(members);
                    is_new
                }
                None => {
                    let share = Arc::new(Share { group: name.into(), filter: filter.into() });
                    let next = AtomicUsize::new(0);
                    node.groups.push(Arc::new(Group { share, members: vec![subscriber], next }));
                    true
                }
            },
        };
        self.generation.fetch_add(1, Ordering::Release);
        is_new
    }

    /// Takes a filter out, and the branches that nobody needs any more.
    pub(crate) fn unsubscribe(&self, filter: &str, session_queue: &SessionQueue) {
        fn take_out(
            node: &mut Node,
            filter: Option<&str>,
            group: Option<&str>,
            session_queue: &SessionQueue,
        ) {
            let Some(filter) = filter else {
                let Some(name) = group else { return node.subscribers.retain(|s| !s.is(session_queue)) };
                for group in node.groups.iter_mut().filter(|group| &*group.share.group == name) {
                    *group =
                        group.with(group.members.iter().filter(|s| !s.is(session_queue)).cloned().collect());
                }
                return node.groups.retain(|group| !group.members.is_empty());
            };
            let (level, rest) = split_level(filter);
            let Some(branch) = node.branches.get_mut(level) else { return };
            take_out(branch, rest, group, session_queue);
            if branch.branches.is_empty() && branch.subscribers.is_empty() && branch.groups.is_empty() {
                node.branches.remove(level);
            }
        }
        let (group, filter) = match split_share(filter) {
            Some((group, filter)) => (Some(group), filter),
            None => (None, filter),
        };
        let mut root = self.root.write().unwrap_or_else(PoisonError::into_inner);
        take_out(&mut root, Some(filter), group, session_queue);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Whether a route still holds.
    pub(crate) fn is_current(&self, route: &Route) -> bool {
        route.generation == self.generation.load(Ordering::Acquire)
    }

    /// Who receives a message on this topic: each session once, and each shared subscription once.
    pub(crate) fn route(&self, topic: &str) -> Route {
        fn find(node: &Node, route: &mut Route) {
            route
                .receivers
                .extend(node.subscribers.iter().map(|s| Receiver::new(s.session_queue.clone(), s.options)));
            route.groups.extend_from_slice(&node.groups);
        }
        fn walk(node: &Node, topic: Option<&str>, is_first: bool, route: &mut Route) {
            // MQTT-4.7.2-1: a wildcard in the first level does not match a `$` topic.
            let is_wild = !(is_first && topic.is_some_and(|topic| topic.starts_with('$')));
            // `a/#` matches `a` too.
            if let Some(all) = node.branches.get("#").filter(|_| is_wild) {
                find(all, route);
            }
            let Some(topic) = topic else { return find(node, route) };
            let (level, rest) = split_level(topic);
            if let Some(branch) = node.branches.get(level) {
                walk(branch, rest, false, route);
            }
            if let Some(branch) = node.branches.get("+").filter(|_| is_wild) {
                walk(branch, rest, false, route);
            }
        }
        let root = self.root.read().unwrap_or_else(PoisonError::into_inner);
        let mut route = Route { generation: self.generation.load(Ordering::Acquire), ..Route::default() };
        walk(&root, Some(topic), true, &mut route);
        drop(root);
        if route.receivers.len() > 1 {
            route.receivers.sort_by_key(|receiver| receiver.session_queue.number);
            route.receivers.dedup_by(|other, first| {
                let is_same = other.session_queue.number == first.session_queue.number;
                if is_same {
                    first.join(other);
                }
                is_same
            });
        }
        route
    }

    /// The members of one shared subscription.
    pub(crate) fn group(&self, share: &Share) -> Option<Arc<Group>> {
        let root = self.root.read().unwrap_or_else(PoisonError::into_inner);
        let mut node = &*root;
        for level in share.filter.split('/') {
            node = node.branches.get(level)?;
        }
        node.groups.iter().find(|group| group.share.group == share.group).cloned()
    }
}

impl Group {
    fn with(&self, members: Vec<Subscriber>) -> Arc<Self> {
        let next = AtomicUsize::new(self.next.load(Ordering::Relaxed));
        Arc::new(Self { share: self.share.clone(), members, next })
    }
}

fn put(subscribers: &mut Vec<Subscriber>, new: Subscriber) -> bool {
    match subscribers.iter_mut().find(|s| s.is(&new.session_queue)) {
        Some(old) => {
            *old = new;
            false
        }
        None => {
            subscribers.push(new);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Limits, Usage};
    use crate::session_queue::Keeps;
    use crate::settings::MqttServerSettings;
    use mqtt::filter;
    use proptest::prelude::*;

    fn session_queue(number: u64) -> Arc<SessionQueue> {
        let usage = Arc::new(Usage::new(Arc::new(Limits::from(&MqttServerSettings::default()))));
        let keeps = Keeps { messages: 0, bytes: 0 };
        Arc::new(SessionQueue::new(number, format!("d{number}"), false, keeps, usage))
    }

    fn qos(qos: u8) -> Options {
        Options { qos, ..Options::default() }
    }

    #[test]
    fn overlapping_filters_of_one_client_give_one_copy_at_the_highest_qos_with_every_identifier() {
        let (table, one, two) = (Table::default(), session_queue(1), session_queue(2));
        table.subscribe("a/#", &one, Options { id: Some(7), ..qos(0) });
        table.subscribe("a/+", &one, Options { id: Some(8), ..qos(1) });
        table.subscribe("a/b", &one, qos(0));
        table.subscribe("a/b", &two, qos(0));
        let found: Vec<_> = table
            .route("a/b")
            .receivers
            .iter()
            .map(|r| (r.session_queue.number, r.served.qos, r.served.ids.as_deref().map(<[u32]>::to_vec)))
            .collect();
        assert_eq!(found, [(1, 1, Some(vec![7, 8])), (2, 0, None)]);
    }

    #[test]
    fn a_filter_with_no_local_does_not_keep_another_filter_from_its_own_messages() {
        let (table, one) = (Table::default(), session_queue(1));
        table.subscribe("a", &one, Options { no_local: true, ..qos(2) });
        assert_eq!(table.route("a").receivers[0].serves(1), None);
        assert_eq!(table.route("a").receivers[0].serves(2).unwrap().qos, 2);
        table.subscribe("+", &one, qos(1));
        assert_eq!(table.route("a").receivers[0].serves(1).unwrap().qos, 1);
        assert_eq!(table.route("a").receivers[0].serves(2).unwrap().qos, 2);
    }

    #[test]
    fn the_members_of_a_group_take_turns() {
        let (table, one, two) = (Table::default(), session_queue(1), session_queue(2));
        table.subscribe("$share/g/a/+", &one, qos(1));
        table.subscribe("$share/g/a/+", &two, qos(1));
        let route = table.route("a/b");
        assert!(route.receivers.is_empty());
        let turns: Vec<u64> =
            (0..4).map(|_| route.groups[0].in_turn().next().unwrap().session_queue.number).collect();
        assert_eq!(turns, [1, 2, 1, 2]);
        table.unsubscribe("$share/g/a/+", &one);
        assert!(!table.is_current(&route));
        assert_eq!(table.route("a/b").groups[0].in_turn().count(), 1);
    }

    #[test]
    fn a_table_without_subscribers_holds_nothing() {
        let (table, one) = (Table::default(), session_queue(1));
        for filter in ["a/b/c", "a/#", "+/b", "/", "$share/g/x/y"] {
            table.subscribe(filter, &one, qos(1));
        }
        for filter in ["a/b", "a/b/c", "a/#", "+/b", "/", "never/there", "$share/g/x/y"] {
            table.unsubscribe(filter, &one);
        }
        assert!(table.root.read().unwrap().branches.is_empty());
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_the_filters_match(
            filters in proptest::collection::btree_set("(\\+|[ab$]|)(/(\\+|[ab]|)){0,3}(/#)?", 1..8),
            topic in "[ab$]?(/[ab]?){0,3}",
        ) {
            prop_assume!(!topic.is_empty());
            let filters: Vec<_> = filters.into_iter().filter(|f| !f.is_empty()).collect();
            let table = Table::default();
            let session_queues: Vec<_> = (0..filters.len() as u64).map(session_queue).collect();
            for (filter, session_queue) in filters.iter().zip(&session_queues) {
                table.subscribe(filter, session_queue, qos(1));
            }
            let expected: Vec<u64> =
                (0..).zip(&filters).filter(|(_, f)| filter::matches(f, &topic)).map(|(n, _)| n).collect();
            let found: Vec<u64> = table.route(&topic).receivers.iter().map(|r| r.session_queue.number).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
