//! The order in which modules are started: `startAfter` first, then `startupOrder`, then the name.
//!
//! IoT Edge knows `startupOrder` alone, which orders the attempts and waits for nothing. A module that names others in `startAfter`
//! starts after them whatever their `startupOrder` is.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ManifestError;
use super::types::{DesiredStatus, Module, RestartPolicy, StartCondition};
use crate::names::ModuleId;

/// Modules of a cycle that an error names; a longer one is cut in the middle.
const NAMED_MAX: usize = 20;

/// The place of a module among those that are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPlace {
    /// From 0; no other module of the manifest has the same.
    pub position: usize,
    /// The highest `startupOrder` of the module and of all that it starts after.
    pub startup_order: u32,
    /// The modules of the manifest that it names.
    pub after: BTreeSet<ModuleId>,
}

/// The place of each module. Of modules in a cycle, and of those that start after one, there is none: no [`super::Manifest`] has such
/// modules.
pub fn places<'a>(
    modules: impl Iterator<Item = (&'a ModuleId, &'a Module)>,
) -> BTreeMap<&'a ModuleId, StartPlace> {
    let all: BTreeMap<&ModuleId, &Module> = modules.collect();
    let mut missing: BTreeMap<&ModuleId, usize> = BTreeMap::new();
    let mut followers: BTreeMap<&ModuleId, Vec<&ModuleId>> = BTreeMap::new();
    for (id, module) in &all {
        let named = module.start_after.keys().filter(|other| all.contains_key(other));
        missing.insert(id, named.clone().count());
        named.for_each(|other| followers.entry(other).or_default().push(id));
    }
    let is_free =
        |(id, missing): (&&'a ModuleId, &usize)| (*missing == 0).then(|| (all[*id].startup_order, *id));
    let mut free: BTreeSet<(u32, &ModuleId)> = missing.iter().filter_map(is_free).collect();
    let mut places: BTreeMap<&ModuleId, StartPlace> = BTreeMap::new();
    while let Some((own_order, id)) = free.pop_first() {
        let after: BTreeSet<ModuleId> =
            all[id].start_after.keys().filter(|other| all.contains_key(other)).cloned().collect();
        let of_others = after.iter().filter_map(|other| places.get(other)).map(|place| place.startup_order);
        let startup_order = of_others.fold(own_order, u32::max);
        places.insert(id, StartPlace { position: places.len(), startup_order, after });
        for follower in followers.get(id).into_iter().flatten() {
            let missing = missing.get_mut(follower).expect("every module has a count");
            *missing -= 1;
            if *missing == 0 {
                free.insert((all[follower].startup_order, follower));
            }
        }
    }
    places
}

/// Modules each of which starts after the next one, and the last one after the first; `None` when there are none.
pub fn cycle(modules: &BTreeMap<ModuleId, Module>) -> Option<Vec<&ModuleId>> {
    let places = places(modules.iter());
    let is_left = |id: &&ModuleId| modules.contains_key(*id) && !places.contains_key(*id);
    let mut path: Vec<&ModuleId> = Vec::new();
    let mut positions: BTreeMap<&ModuleId, usize> = BTreeMap::new();
    let mut next = modules.keys().find(is_left)?;
    // Each that is left starts after one that is left, so the way comes back to a module that it has passed.
    loop {
        if let Some(first) = positions.insert(next, path.len()) {
            return Some(path.split_off(first));
        }
        path.push(next);
        next = modules[next].start_after.keys().find(is_left)?;
    }
}

/// `startAfter` of a module as one line: `migrate exited, store healthy`.
pub fn line(start_after: &BTreeMap<ModuleId, StartCondition>) -> String {
    let parts: Vec<String> =
        start_after.iter().map(|(other, condition)| format!("{other} {condition}")).collect();
    parts.join(", ")
}

/// Checks what `startAfter` says of the other modules.
pub(super) fn check(modules: &BTreeMap<ModuleId, Module>, path: &str) -> Result<(), ManifestError> {
    let refuse = |id: &ModuleId, other: &ModuleId, found: String, allowed: &str| {
        let path = format!("{path}.{id}.startAfter.{other}");
        Err(ManifestError { path, found, allowed: allowed.to_owned() })
    };
    for (id, module) in modules {
        for (other, condition) in &module.start_after {
            let Some(named) = modules.get(other) else {
                let found = format!("the module name \"{other}\"");
                return refuse(id, other, found, "name a module that this manifest has in `modules`");
            };
            // One that is not started itself waits for nothing.
            if module.status == DesiredStatus::Running && named.status == DesiredStatus::Stopped {
                let found = format!("\"{condition}\", and {other} has the status {}", named.status);
                let allowed = "give it the status running, or remove it from `startAfter`";
                return refuse(id, other, found, allowed);
            }
            // Every other policy starts a module again that ended with code 0.
            if *condition == StartCondition::Exited && named.restart_policy != RestartPolicy::Never {
                let found = format!("\"exited\", and {other} has the restartPolicy {}", named.restart_policy);
                return refuse(
                    id,
                    other,
                    found,
                    "give it the restartPolicy never, or write started or healthy",
                );
            }
        }
    }
    match cycle(modules).as_deref() {
        Some(cycle @ [first, rest @ ..]) => {
            let second = rest.first().unwrap_or(first);
            refuse(first, second, format!("the cycle {}", arrows(cycle)), "remove one of its `startAfter`")
        }
        _ => Ok(()),
    }
}

/// `a → b → a`
fn arrows(cycle: &[&ModuleId]) -> String {
    let mut names: Vec<String> = cycle.iter().chain(cycle.first()).map(ToString::to_string).collect();
    if names.len() > NAMED_MAX {
        let left_out = names.len() - NAMED_MAX;
        names.splice(NAMED_MAX / 2..NAMED_MAX / 2 + left_out, [format!("… {left_out} more …")]);
    }
    names.join(" → ")
}
