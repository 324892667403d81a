//! How a deployment fares, as upstream and an operator read it.

use std::collections::BTreeMap;

use edge_core::deploy::plan::{Plan, Reason, Waiting};
use schemas::names::ModuleId;
use schemas::status::code;

use crate::deployment::status::Outcome;

/// Whether everything is as wanted, and the outcome. `unfollowed` is why the engine's events are not followed; `is_still` whether no
/// step is due or being done.
pub(super) fn outcome(
    planned: &Plan,
    problems: &BTreeMap<ModuleId, String>,
    unfollowed: Option<String>,
    is_still: bool,
    is_fetching: bool,
) -> (bool, Outcome) {
    let is_well = |reason: &Reason| matches!(reason, Reason::Ended { code: 0 });
    let is_held = |reason: &Reason| matches!(reason, Reason::Condition(_));
    let is_settled = is_still && planned.waiting.iter().all(|waiting| is_well(&waiting.reason));
    let line = |Waiting { module, reason }: &Waiting| match problems.get(module) {
        Some(problem) => format!("module `{module}`: {problem}; waits {reason}"),
        None => format!("module `{module}`: {reason}"),
    };
    let (held, others): (Vec<_>, Vec<_>) = planned
        .waiting
        .iter()
        .filter(|waiting| !is_well(&waiting.reason))
        .partition(|waiting| is_held(&waiting.reason));
    let held: Vec<String> = held.into_iter().map(line).collect();
    let troubles: Vec<String> = unfollowed.into_iter().chain(others.into_iter().map(line)).collect();
    let outcome = if !troubles.is_empty() {
        let lines: Vec<String> = troubles.into_iter().chain(held).collect();
        Outcome { code: code::FAILED, description: lines.join("\n") }
    } else if is_settled {
        Outcome { code: code::SUCCESS, description: String::new() }
    } else if is_fetching {
        Outcome { code: code::UNKNOWN, description: "images are being pulled".into() }
    } else if held.is_empty() {
        Outcome { code: code::UNKNOWN, description: "under way".into() }
    } else {
        Outcome { code: code::UNKNOWN, description: held.join("\n") }
    };
    (is_settled, outcome)
}
