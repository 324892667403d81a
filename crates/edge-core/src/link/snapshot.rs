//! Lists on the link that grow with a site, cut into messages of bounded size.
//!
//! A list is sent as a snapshot when a connection begins and as changes afterwards. [`split`] cuts either by bytes; [`parts`]
//! numbers the parts of a snapshot; [`Assembly`] is the receiver's side and says, with the last part, what the snapshot named.
//!
//! # Guarantees
//! - No message has more than the given bytes of items, unless one item alone has more.
//! - The receiver applies each part when it arrives and holds no more than the keys that the snapshot has named.
//! - Nothing is removed by a snapshot of which a part is missing.

use std::collections::BTreeSet;

use schemas::link::SnapshotPart;
use serde::Serialize;

/// Bytes of items in one message: a tenth of the packets that both sides take, and little enough for what matters more not to
/// wait long behind it on a slow line.
pub const PART_BYTES_MAX: usize = 32 * 1024;

/// Cuts a list into parts of at most `bytes_max` bytes of JSON, in order; one empty part for an empty list.
///
/// # Panics
/// When an item has no JSON form.
pub fn split<T: Serialize>(items: impl IntoIterator<Item = T>, bytes_max: usize) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        // The comma too.
        let size = serde_json::to_vec(&item).expect("the link's types have a JSON form").len() + 1;
        if bytes + size > bytes_max && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        part.push(item);
        bytes += size;
    }
    if !part.is_empty() || parts.is_empty() {
        parts.push(part);
    }
    parts
}

/// The parts of a snapshot with their numbers.
pub fn parts<T: Serialize>(
    generation: u64,
    items: impl IntoIterator<Item = T>,
    bytes_max: usize,
) -> Vec<(SnapshotPart, Vec<T>)> {
    let parts = split(items, bytes_max);
    let last = parts.len() - 1;
    let numbered = parts.into_iter().enumerate().map(|(index, items)| {
        let part = u32::try_from(index).unwrap_or(u32::MAX);
        (SnapshotPart { generation, part, is_last: index == last }, items)
    });
    numbered.collect()
}

/// A part that does not follow the one before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("part {part} of snapshot {generation} does not follow what came before it")]
pub struct OutOfOrder {
    pub generation: u64,
    pub part: u32,
}

/// The receiver's side of one list on one connection.
#[derive(Debug)]
pub struct Assembly<K> {
    current: Option<Current<K>>,
}

#[derive(Debug)]
struct Current<K> {
    generation: u64,
    next: u32,
    named: BTreeSet<K>,
}

impl<K> Default for Assembly<K> {
    fn default() -> Self {
        Self { current: None }
    }
}

impl<K: Ord> Assembly<K> {
    /// Takes the next part, which names `keys`. With the last one it gives all that the snapshot has named: what is known
    /// beside them is gone.
    ///
    /// # Errors
    /// [`OutOfOrder`]; the snapshot is then given up, and removes nothing.
    pub fn take(
        &mut self,
        part: SnapshotPart,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Option<BTreeSet<K>>, OutOfOrder> {
        let SnapshotPart { generation, part, is_last } = part;
        let current = self.current.take();
        let mut current = match (part, current) {
            // A first part begins a new snapshot, whatever is left of one before: its sender has begun anew.
            (0, _) => Current { generation, next: 0, named: BTreeSet::new() },
            (_, Some(current)) if current.generation == generation && current.next == part => current,
            _ => return Err(OutOfOrder { generation, part }),
        };
        current.next = part.saturating_add(1);
        current.named.extend(keys);
        if is_last {
            return Ok(Some(current.named));
        }
        self.current = Some(current);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_of_any_list_are_bounded_and_name_exactly_the_list(
            items in prop::collection::vec("[a-z\\\\\"\u{e9}]{0,60}", 0..200), bytes_max in 1_usize..400,
        ) {
            let expected: BTreeSet<String> = items.iter().cloned().collect();
            let mut assembly = Assembly::default();
            let (mut order, mut named) = (Vec::new(), None);
            for (part, items) in parts(7, items.clone(), bytes_max) {
                prop_assert!(named.is_none(), "a part after the last");
                let bytes = serde_json::to_vec(&items).unwrap().len();
                prop_assert!(items.len() <= 1 || bytes <= bytes_max + 2, "{bytes}");
                order.extend(items.iter().cloned());
                named = assembly.take(part, items).unwrap();
            }
            prop_assert_eq!(order, items);
            prop_assert_eq!(named.unwrap(), expected);
        }
    }

    #[test]
    fn a_snapshot_with_a_missing_part_removes_nothing_and_a_new_one_replaces_it() {
        let part = |generation, part, is_last| SnapshotPart { generation, part, is_last };
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(part(1, 0, false), ["a"]), Ok(None));
        assert_eq!(assembly.take(part(1, 2, true), ["c"]), Err(OutOfOrder { generation: 1, part: 2 }));
        assert_eq!(assembly.take(part(1, 1, true), ["b"]), Err(OutOfOrder { generation: 1, part: 1 }));
        assert_eq!(assembly.take(part(2, 0, false), ["a"]), Ok(None));
        assert_eq!(assembly.take(part(3, 0, false), ["b"]), Ok(None));
        assert_eq!(assembly.take(part(3, 1, true), ["c"]), Ok(Some(BTreeSet::from(["b", "c"]))));
        assert_eq!(assembly.take(part(3, 2, true), ["e"]), Err(OutOfOrder { generation: 3, part: 2 }));
    }
}
