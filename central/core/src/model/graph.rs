//! How deep elements stand in each other, without recursion: a document can chain a hundred thousand.

use std::collections::{BTreeMap, BTreeSet};

use super::element::Element;

/// Leads from an element to one in it.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'e> {
    /// `None`: something without depth of its own.
    pub to: Option<&'e str>,
    pub weight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Height {
    /// The weight of the heaviest way down.
    Levels(usize),
    /// A way down leads back to it.
    InItself,
}

struct Visit<'e> {
    id: &'e str,
    edges: Vec<Edge<'e>>,
    next: usize,
    levels: usize,
}

/// The height of each element. Edges to what is no node are of no depth.
pub fn heights<'e>(
    nodes: &BTreeMap<&'e str, &'e Element>,
    edges: impl Fn(&'e Element) -> Vec<Edge<'e>>,
) -> BTreeMap<&'e str, Height> {
    let mut heights: BTreeMap<&str, Height> = BTreeMap::new();
    let visit = |id: &'e str| Visit { id, edges: edges(nodes[id]), next: 0, levels: 0 };
    for start in nodes.keys().copied() {
        if heights.contains_key(start) {
            continue;
        }
        let mut open: BTreeSet<&str> = BTreeSet::from([start]);
        let mut way = vec![visit(start)];
        while let Some(last) = way.last() {
            let Some(edge) = last.edges.get(last.next).copied() else {
                let done = way.pop().map(|visit| (visit.id, visit.levels));
                if let Some((id, levels)) = done {
                    open.remove(id);
                    heights.entry(id).or_insert(Height::Levels(levels));
                }
                continue;
            };
            let known = edge.to.and_then(|id| nodes.get_key_value(id)).map(|(id, _)| *id);
            let below = match known {
                None => Some(0),
                Some(id) if open.contains(id) => {
                    let round = way.iter().rev().map(|visit| visit.id);
                    for on_it in round {
                        heights.insert(on_it, Height::InItself);
                        if on_it == id {
                            break;
                        }
                    }
                    Some(0)
                }
                Some(id) => match heights.get(id) {
                    Some(Height::Levels(levels)) => Some(*levels),
                    Some(Height::InItself) => Some(0),
                    None => {
                        open.insert(id);
                        way.push(visit(id));
                        None
                    }
                },
            };
            if let (Some(below), Some(last)) = (below, way.last_mut()) {
                last.levels = last.levels.max(below + edge.weight);
                last.next += 1;
            }
        }
    }
    heights
}
