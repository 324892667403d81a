//! How deep elements stand in each other, without recursion: a document can chain a hundred thousand.

use std::collections::BTreeMap;

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
    /// The first place on the way that one of its ways down leads back to.
    back_to: Option<usize>,
}

/// The height of each element. Edges to what is no node are of no depth.
pub fn heights<'e>(
    nodes: &BTreeMap<&'e str, &'e Element>,
    edges: impl Fn(&'e Element) -> Vec<Edge<'e>>,
) -> BTreeMap<&'e str, Height> {
    let mut heights: BTreeMap<&str, Height> = BTreeMap::new();
    let visit = |id: &'e str| Visit { id, edges: edges(nodes[id]), next: 0, levels: 0, back_to: None };
    for start in nodes.keys().copied() {
        if heights.contains_key(start) {
            continue;
        }
        // Position of each on the path.
        let mut open: BTreeMap<&str, usize> = BTreeMap::from([(start, 0)]);
        let mut path = vec![visit(start)];
        while let Some(last) = path.last() {
            let Some(edge) = last.edges.get(last.next).copied() else {
                if let Some(done) = path.pop() {
                    open.remove(done.id);
                    let back_to = done.back_to.filter(|place| *place <= path.len());
                    let height = back_to.map_or(Height::Levels(done.levels), |_| Height::InItself);
                    heights.insert(done.id, height);
                    // Every one between there and here is in itself too. Passed from one to the next, so that many ways back
                    // take no longer than one.
                    let place = path.len();
                    if let (Some(back_to), Some(above)) =
                        (back_to.filter(|back_to| *back_to < place), path.last_mut())
                    {
                        above.back_to = Some(above.back_to.map_or(back_to, |other| other.min(back_to)));
                    }
                }
                continue;
            };
            let known = edge.to.and_then(|id| nodes.get_key_value(id)).map(|(id, _)| *id);
            let below = match known {
                None => Some(0),
                Some(id) if open.contains_key(id) => {
                    let place = open[id];
                    if let Some(last) = path.last_mut() {
                        last.back_to = Some(last.back_to.map_or(place, |other| other.min(place)));
                    }
                    Some(0)
                }
                Some(id) => match heights.get(id) {
                    Some(Height::Levels(levels)) => Some(*levels),
                    // A height within a ring has no meaning, and the ring itself is reported: those above it need no second
                    // report.
                    Some(Height::InItself) => Some(0),
                    None => {
                        open.insert(id, path.len());
                        path.push(visit(id));
                        None
                    }
                },
            };
            if let (Some(below), Some(last)) = (below, path.last_mut()) {
                last.levels = last.levels.max(below + edge.weight);
                last.next += 1;
            }
        }
    }
    heights
}
