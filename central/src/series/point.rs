//! Points, and how those of several sources become one series.

/// A value of a series at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When it was made, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When its message was accepted.
    pub enqueued_ms: u64,
    /// Whether its sender sent the time. Of two points of one stated time the later one corrects the other; points whose time is
    /// that of their messages are all kept, since many may come in one millisecond.
    pub is_stated: bool,
    /// `None`: the name had a value there that is no number.
    pub value: Option<f64>,
}

/// One series of several sources, each sorted by time; a later source corrects the earlier ones, and within one source a later point.
pub fn merge(sources: Vec<Vec<Point>>) -> Vec<Point> {
    let mut points: Vec<Point> = if sources.len() == 1 {
        sources.into_iter().next().unwrap_or_default()
    } else {
        sources.into_iter().flatten().collect()
    };
    // Stable: points of one time stay in the order of their sources. Runs that are sorted already are merged, not sorted.
    points.sort_by_key(|point| point.at_ms);
    correct(&mut points);
    points
}

/// Leaves out points that a later one of their time corrects. `points` are sorted by time.
fn correct(points: &mut Vec<Point>) {
    // Most series have no such pair, and need no copy.
    let has_twins = points.windows(2).any(|pair| pair[0].at_ms == pair[1].at_ms && pair[0].is_stated);
    let has_stated_twins =
        has_twins || points.windows(2).any(|pair| pair[0].at_ms == pair[1].at_ms && pair[1].is_stated);
    if !has_stated_twins {
        return;
    }
    let mut kept: Vec<Point> = Vec::with_capacity(points.len());
    for point in points.drain(..) {
        if point.is_stated {
            let same = kept.iter().rev().take_while(|earlier| earlier.at_ms == point.at_ms);
            if let Some(behind) = same.enumerate().find(|(_, earlier)| earlier.is_stated).map(|(n, _)| n) {
                let at = kept.len() - 1 - behind;
                kept.remove(at);
            }
        }
        kept.push(point);
    }
    *points = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(at_ms: u64, value: f64, is_stated: bool) -> Point {
        Point { at_ms, enqueued_ms: at_ms, is_stated, value: Some(value) }
    }

    #[test]
    fn a_later_source_corrects_a_stated_time_and_adds_to_one_that_is_the_messages() {
        let merged = merge(vec![
            vec![point(1, 1.0, true), point(2, 2.0, false), point(2, 3.0, true)],
            vec![point(0, 0.0, true), point(2, 4.0, false), point(2, 5.0, true)],
        ]);
        let values: Vec<(u64, f64)> =
            merged.iter().map(|point| (point.at_ms, point.value.unwrap())).collect();
        assert_eq!(values, [(0, 0.0), (1, 1.0), (2, 2.0), (2, 4.0), (2, 5.0)]);
    }

    #[test]
    fn merging_in_any_grouping_gives_what_a_map_by_time_gives() {
        let one = (0..20_u64, 0..100_u32, any::<bool>());
        proptest!(|(all in prop::collection::vec(one, 0..60), cuts in prop::collection::vec(0..60_usize, 0..6))| {
            let points: Vec<Point> =
                all.iter().map(|(at, value, stated)| point(*at, f64::from(*value), *stated)).collect();
            // The reference: in the order of arrival, by time, and of one time the last stated one.
            let mut expected: Vec<Point> = Vec::new();
            for at in 0..20 {
                let here: Vec<&Point> = points.iter().filter(|point| point.at_ms == at).collect();
                let last = here.iter().rposition(|point| point.is_stated);
                let kept = here.iter().enumerate().filter(|(n, point)| !point.is_stated || Some(*n) == last);
                expected.extend(kept.map(|(_, point)| **point));
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(points.len())).collect();
            cuts.extend([0, points.len()]);
            cuts.sort_unstable();
            let source = |pair: &[usize]| merge(vec![points[pair[0]..pair[1]].to_vec()].into_iter().map(|mut part| {
                part.sort_by_key(|point| point.at_ms);
                part
            }).collect());
            let sources: Vec<Vec<Point>> = cuts.windows(2).map(source).collect();
            prop_assert_eq!(merge(sources), expected);
        });
    }
}
