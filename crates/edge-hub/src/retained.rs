//! The retained messages of a server: a tree of topic levels, so that a filter finds what it matches without asking every
//! topic.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::message::Message;
use crate::quota::{QuotaExceeded, Resource, Usage, topic_bytes};
use mqtt::filter::split_level;

/// The bounds of what is retained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetainedMax {
    pub messages: usize,
    pub bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Retained {
    tree: RwLock<Tree>,
    max: RetainedMax,
}

#[derive(Debug, Default)]
struct Tree {
    root: Node,
    messages: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    branches: HashMap<Box<str>, Node>,
    message: Option<Kept>,
}

/// A retained message, and whose it is.
#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// `None` when that is not known.
    owner: Option<Arc<Usage>>,
}

impl Kept {
    fn size(&self) -> usize {
        size(&self.message)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(owner) = &self.owner {
            owner.give_back(Resource::RetainedMessages, 1);
            owner.give_back(Resource::RetainedBytes, self.size() as u64);
        }
    }
}

/// What a retained message holds in memory, about.
fn size(message: &Message) -> usize {
    message.size() + topic_bytes(message.topic()) - message.topic.len()
}

/// Why a message is not retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRetained {
    /// All identities together have as much as there may be.
    #[error("there are too many retained messages")]
    Full,
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

impl Retained {
    pub(crate) fn new(max: RetainedMax) -> Self {
        Self { tree: RwLock::default(), max }
    }

    /// Retains a message of this identity in place of the one on its topic.
    ///
    /// # Errors
    /// [`NotRetained`]: the one before stays.
    pub(crate) fn set(&self, message: &Arc<Message>, owner: Option<&Arc<Usage>>) -> Result<(), NotRetained> {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let before = tree.root.get(message.topic());
        let before_bytes = before.map_or(0, Kept::size);
        let messages = tree.messages + usize::from(before.is_none());
        let bytes = tree.bytes - before_bytes + size(message);
        if messages > self.max.messages || bytes > self.max.bytes {
            return Err(NotRetained::Full);
        }
        if let Some(owner) = owner {
            // What it replaces of its own is given back when it is dropped below.
            let own =
                before.filter(|before| before.owner.as_ref().is_some_and(|own| Arc::ptr_eq(own, owner)));
            let own_bytes = own.map_or(0, Kept::size);
            owner.replace(Resource::RetainedMessages, u64::from(own.is_some()), 1)?;
            let replaced = owner.replace(Resource::RetainedBytes, own_bytes as u64, size(message) as u64);
            if let Err(exceeded) = replaced {
                owner.give_back(Resource::RetainedMessages, 1);
                return Err(exceeded.into());
            }
        }
        (tree.messages, tree.bytes) = (messages, bytes);
        let mut node = &mut tree.root;
        for level in message.topic().split('/') {
            if !node.branches.contains_key(level) {
                node.branches.insert(level.into(), Node::default());
            }
            node = node.branches.get_mut(level).expect("it was just looked for, and put there");
        }
        node.message = Some(Kept { message: message.clone(), owner: owner.cloned() });
        Ok(())
    }

    /// Retains nothing on this topic any more; false when nothing was.
    pub(crate) fn clear(&self, topic: &str) -> bool {
        self.clear_if(topic, |_| true)
    }

    /// As [`Retained::clear`], when the message is such a one.
    pub(crate) fn clear_if(&self, topic: &str, is_such: impl Fn(&Message) -> bool) -> bool {
        fn take_out(node: &mut Node, topic: Option<&str>, is_such: &impl Fn(&Message) -> bool) -> usize {
            let Some(topic) = topic else {
                return node.message.take_if(|kept| is_such(&kept.message)).map_or(0, |kept| kept.size());
            };
            let (level, rest) = split_level(topic);
            let Some(branch) = node.branches.get_mut(level) else { return 0 };
            let bytes = take_out(branch, rest, is_such);
            if branch.branches.is_empty() && branch.message.is_none() {
                node.branches.remove(level);
            }
            bytes
        }
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let bytes = take_out(&mut tree.root, Some(topic), &is_such);
        tree.bytes -= bytes;
        tree.messages -= usize::from(bytes > 0);
        bytes > 0
    }

    /// What a well-formed filter matches and is not expired.
    pub(crate) fn matching(&self, filter: &str, now_ms: u64) -> Vec<Arc<Message>> {
        fn add(node: &Node, found: &mut Vec<Arc<Message>>) {
            found.extend(node.message.as_ref().map(|kept| kept.message.clone()));
        }
        fn all(node: &Node, found: &mut Vec<Arc<Message>>) {
            add(node, found);
            node.branches.values().for_each(|branch| all(branch, found));
        }
        fn walk(node: &Node, filter: Option<&str>, is_first: bool, found: &mut Vec<Arc<Message>>) {
            let Some(filter) = filter else { return add(node, found) };
            let (level, rest) = split_level(filter);
            // MQTT-4.7.2-1: a wildcard in the first level does not match a `$` topic.
            let is_found = |name: &str| !(is_first && name.starts_with('$'));
            match level {
                // `a/#` matches `a` too.
                "#" => {
                    add(node, found);
                    let branches = node.branches.iter().filter(|(name, _)| is_found(name));
                    branches.for_each(|(_, branch)| all(branch, found));
                }
                "+" => {
                    let branches = node.branches.iter().filter(|(name, _)| is_found(name));
                    branches.for_each(|(_, branch)| walk(branch, rest, false, found));
                }
                level => {
                    if let Some(branch) = node.branches.get(level) {
                        walk(branch, rest, false, found);
                    }
                }
            }
        }
        let mut found = Vec::new();
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        walk(&tree.root, Some(filter), true, &mut found);
        drop(tree);
        found.retain(|message| !message.is_expired(now_ms));
        found
    }

    /// The topics whose messages are expired.
    pub(crate) fn expired(&self, now_ms: u64) -> Vec<Arc<Message>> {
        fn walk(node: &Node, now_ms: u64, found: &mut Vec<Arc<Message>>) {
            let expired = node.message.as_ref().filter(|kept| kept.message.is_expired(now_ms));
            found.extend(expired.map(|kept| kept.message.clone()));
            node.branches.values().for_each(|branch| walk(branch, now_ms, found));
        }
        let mut found = Vec::new();
        walk(&self.tree.read().unwrap_or_else(PoisonError::into_inner).root, now_ms, &mut found);
        found
    }
}

impl Node {
    fn get(&self, topic: &str) -> Option<&Kept> {
        let node = topic.split('/').try_fold(self, |node, level| node.branches.get(level))?;
        node.message.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use mqtt::filter;
    use proptest::prelude::*;

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            payload: Bytes::from_static(b"x"),
            qos: 0,
            retain: true,
            publisher: 0,
            expires_ms: None,
            properties: None,
        })
    }

    const MAX: RetainedMax = RetainedMax { messages: 100, bytes: 1 << 20 };

    #[test]
    fn beyond_the_bound_nothing_new_is_retained_and_what_is_there_may_still_change() {
        let retained = Retained::new(RetainedMax { messages: 1, bytes: 1 << 20 });
        assert!(retained.set(&message("a/b"), None).is_ok());
        assert_eq!(retained.set(&message("a"), None), Err(NotRetained::Full));
        assert!(retained.set(&message("a/b"), None).is_ok());
        assert!(retained.clear("a/b"));
        assert!(!retained.clear("a/b"));
        assert!(retained.set(&message("a"), None).is_ok());
        assert_eq!(retained.matching("#", 0).len(), 1);
    }

    proptest! {
        #[test]
        fn a_filter_finds_the_topics_that_it_matches(
            topics in proptest::collection::btree_set("[ab$]?(/[ab]?){0,3}", 1..12),
            filter in "(\\+|[ab$]|)(/(\\+|[ab]|)){0,3}(/#)?",
        ) {
            prop_assume!(!filter.is_empty());
            let retained = Retained::new(MAX);
            let topics: Vec<_> = topics.into_iter().filter(|t| !t.is_empty()).collect();
            for topic in &topics {
                prop_assert!(retained.set(&message(topic), None).is_ok());
            }
            let mut found: Vec<String> =
                retained.matching(&filter, 0).iter().map(|m| m.topic().to_owned()).collect();
            found.sort();
            let expected: Vec<_> = topics.iter().filter(|t| filter::matches(&filter, t)).cloned().collect();
            prop_assert_eq!(found, expected);
            for topic in &topics {
                prop_assert!(retained.clear(topic));
            }
            prop_assert!(retained.tree.read().unwrap().root.branches.is_empty());
            prop_assert_eq!(retained.tree.read().unwrap().bytes, 0);
        }
    }
}
