//! The SQL that brings a file from one version of the tables to the next.

mod of_gateways;
mod of_people;

/// Each step brings a file from the version before it to its own. A step that was released is never changed; a new one comes last.
pub(super) const STEPS: [&str; COUNT] = {
    let (first, then) = (of_gateways::STEPS, of_people::STEPS);
    let (mut all, mut at) = ([""; COUNT], 0);
    while at < COUNT {
        all[at] = if at < first.len() { first[at] } else { then[at - first.len()] };
        at += 1;
    }
    all
};

const COUNT: usize = of_gateways::STEPS.len() + of_people::STEPS.len();
