//! Who receives what on free topics: one tree of filter levels, shared by all sessions of a door.
//!
//! ```text
//! line1 ─ + ─ temperature : [panel (QoS 1)]
//!       └ #               : [logger (QoS 0)]
//! ```
//!
//! A message walks down the tree by its topic, taking at each level the branch of that name, `+` and `#`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::clients::Connection;

/// The subscriptions to free topics.
#[derive(Debug, Default)]
pub(crate) struct Table {
    root: RwLock<Node>,
}

#[derive(Debug, Default)]
struct Node {
    branches: HashMap<Box<str>, Node>,
    subscribers: Vec<Subscriber>,
}

/// One who receives, and at which QoS at most.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    pub connection: Arc<Connection>,
    pub qos: u8,
}

impl Subscriber {
    fn is(&self, connection: &Connection) -> bool {
        self.connection.client.connection == connection.client.connection
    }
}

impl Table {
    /// Enters a well-formed filter; the same filter of the same connection is replaced.
    pub(crate) fn subscribe(&self, filter: &str, connection: &Arc<Connection>, qos: u8) {
        let mut node = &mut *self.root.write().unwrap_or_else(PoisonError::into_inner);
        for level in filter.split('/') {
            node = node.branches.entry(level.into()).or_default();
        }
        node.subscribers.retain(|s| !s.is(connection));
        node.subscribers.push(Subscriber { connection: connection.clone(), qos });
    }

    /// Takes a filter out, and the branches that nobody needs any more.
    pub(crate) fn unsubscribe(&self, filter: &str, connection: &Connection) {
        fn take_out(node: &mut Node, filter: Option<&str>, connection: &Connection) {
            let Some(filter) = filter else {
                return node.subscribers.retain(|s| !s.is(connection));
            };
            let (level, rest) = match filter.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (filter, None),
            };
            let Some(branch) = node.branches.get_mut(level) else { return };
            take_out(branch, rest, connection);
            if branch.branches.is_empty() && branch.subscribers.is_empty() {
                node.branches.remove(level);
            }
        }
        let mut root = self.root.write().unwrap_or_else(PoisonError::into_inner);
        take_out(&mut root, Some(filter), connection);
    }

    /// Who receives a message on this topic: each connection once, at the highest QoS of its filters that match.
    pub(crate) fn receivers(&self, topic: &str) -> Vec<Subscriber> {
        fn walk(node: &Node, topic: Option<&str>, is_first: bool, found: &mut Vec<Subscriber>) {
            // MQTT-4.7.2-1: a wildcard in the first level does not match a `$` topic.
            let is_wild = !(is_first && topic.is_some_and(|topic| topic.starts_with('$')));
            // `a/#` matches `a` too.
            if let Some(all) = node.branches.get("#").filter(|_| is_wild) {
                found.extend_from_slice(&all.subscribers);
            }
            let Some(topic) = topic else { return found.extend_from_slice(&node.subscribers) };
            let (level, rest) = match topic.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (topic, None),
            };
            if let Some(branch) = node.branches.get(level) {
                walk(branch, rest, false, found);
            }
            if let Some(branch) = node.branches.get("+").filter(|_| is_wild) {
                walk(branch, rest, false, found);
            }
        }
        let mut found = Vec::new();
        walk(&self.root.read().unwrap_or_else(PoisonError::into_inner), Some(topic), true, &mut found);
        if found.len() > 1 {
            found.sort_unstable_by_key(|s| (s.connection.client.connection, std::cmp::Reverse(s.qos)));
            found.dedup_by_key(|s| s.connection.client.connection);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Clients;
    use crate::service::Client;
    use edge_core::dialect::filter;
    use proptest::prelude::*;

    fn connection(number: u64) -> Arc<Connection> {
        let peer = "127.0.0.1:1".parse().unwrap();
        let identity = format!("d{number}").parse().unwrap();
        Clients::new().enter(Client { identity, connection: number, peer, login: Arc::default() }, Vec::new())
    }

    #[test]
    fn overlapping_filters_of_one_client_give_one_copy_at_the_highest_qos() {
        let (table, one, two) = (Table::default(), connection(1), connection(2));
        table.subscribe("a/#", &one, 0);
        table.subscribe("a/+", &one, 1);
        table.subscribe("a/b", &one, 0);
        table.subscribe("a/b", &two, 0);
        let found: Vec<_> =
            table.receivers("a/b").iter().map(|s| (s.connection.client.connection, s.qos)).collect();
        assert_eq!(found, [(1, 1), (2, 0)]);
    }

    #[test]
    fn a_table_without_subscribers_holds_nothing() {
        let (table, one) = (Table::default(), connection(1));
        for filter in ["a/b/c", "a/#", "+/b", "/"] {
            table.subscribe(filter, &one, 1);
        }
        for filter in ["a/b", "a/b/c", "a/#", "+/b", "/", "never/there"] {
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
            let connections: Vec<_> = (0..filters.len() as u64).map(connection).collect();
            for (filter, connection) in filters.iter().zip(&connections) {
                table.subscribe(filter, connection, 1);
            }
            let expected: Vec<u64> =
                (0..).zip(&filters).filter(|(_, f)| filter::matches(f, &topic)).map(|(n, _)| n).collect();
            let found: Vec<u64> = table.receivers(&topic).iter().map(|s| s.connection.client.connection).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
