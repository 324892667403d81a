//! What a manifest would do to a gateway, module by module, with the fields that make it so.
//!
//! Whether a container is replaced is decided by [`plan`], so a preview and the gateway agree. A container of which only the image is
//! known is compared by that; the rest is [`Effect::Unknown`].

use std::collections::BTreeSet;

use schemas::manifest::Module;
use schemas::manifest::start_order::line;
use schemas::names::ModuleId;
use serde_json::{Map, Value};

use super::desired::Desired;
use super::observed::Observed;
use super::plan::{Action, plan};
use super::restart::Restarts;

/// What would become of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePreview {
    pub module: ModuleId,
    pub effect: Effect,
    /// Fields that differ from those that its container was created with; empty when these are not known.
    pub fields: Vec<ChangedField>,
    /// Steps on the gateway, in order.
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It has no container yet.
    Create,
    /// A new container takes the place of the one that is there.
    Replace,
    /// Its container stays.
    ChangeInPlace,
    /// It is not in the manifest.
    Remove,
    Unchanged,
    /// It has a container, and it is not known what that was created from.
    Unknown,
}

/// A step of the gateway's executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Pull,
    Create,
    Start,
    Replace,
    Stop,
    Remove,
}

/// A field of a module that differs. Environment values and create options may hold secrets, so these have no values here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedField {
    /// From the module on: `settings.image`, `env.BATCH`.
    pub path: String,
    pub from: Option<String>,
    pub to: Option<String>,
    /// Whether it alone makes the gateway replace the container.
    pub is_replacing: bool,
}

/// What `next` would do to the modules of a gateway. `former` has the definitions that containers of `observed` were created from, with
/// the same fingerprints; a module that is observed and not in it has a container of which only the image is known.
pub fn preview(former: &Desired, observed: &Observed, next: &Desired, now_ms: u64) -> Vec<ModulePreview> {
    // The gateway gives each module all its chances again when a manifest arrives, so no waits are known here.
    let plan = plan(next, observed, &Restarts::default(), now_ms);
    let modules: BTreeSet<&ModuleId> = next.modules.keys().chain(observed.modules.keys()).collect();
    let preview = |module: &ModuleId| {
        let steps: Vec<Step> =
            plan.actions.iter().filter(|action| action.module() == module).filter_map(step).collect();
        let (was, target) = (former.modules.get(module), next.modules.get(module));
        let mut of =
            ModulePreview { module: module.clone(), effect: Effect::Unchanged, fields: Vec::new(), steps };
        match (target, observed.modules.get(module)) {
            (None, _) => of.effect = Effect::Remove,
            (Some(_), None) => of.effect = Effect::Create,
            (Some(target), Some(seen)) => match was {
                Some(was) => {
                    of.fields = changed_fields(&was.spec, &target.spec);
                    of.effect = effect(&of);
                }
                None if seen.image != target.spec.image => {
                    of.fields = vec![replacing_text("settings.image", &seen.image, &target.spec.image)];
                    of.effect = Effect::Replace;
                }
                None => of.effect = Effect::Unknown,
            },
        }
        // Steps that remain here are not caused by the manifest, or follow from a fingerprint that is not known.
        if matches!(of.effect, Effect::Unknown | Effect::Unchanged) {
            of.steps.clear();
        }
        of
    };
    modules.into_iter().map(preview).collect()
}

/// Of a module with a container whose definition is known.
fn effect(of: &ModulePreview) -> Effect {
    if of.steps.iter().any(|step| matches!(step, Step::Replace | Step::Create)) {
        Effect::Replace
    } else if of.fields.is_empty() {
        Effect::Unchanged
    } else {
        Effect::ChangeInPlace
    }
}

/// The step of an action, as far as an operator is to know it.
fn step(action: &Action) -> Option<Step> {
    match action {
        Action::Pull { .. } => Some(Step::Pull),
        Action::Create { .. } => Some(Step::Create),
        Action::Start { .. } | Action::Restart { .. } => Some(Step::Start),
        Action::Replace { .. } => Some(Step::Replace),
        Action::Stop { .. } => Some(Step::Stop),
        Action::Remove { .. } => Some(Step::Remove),
        // To prepare and to rename are parts of a replacement.
        _ => None,
    }
}

fn replacing_text(path: &str, from: &str, to: &str) -> ChangedField {
    ChangedField {
        path: path.to_owned(),
        from: Some(from.to_owned()),
        to: Some(to.to_owned()),
        is_replacing: true,
    }
}

/// The fields in which two definitions of a module differ, those that replace its container first.
pub fn changed_fields(was: &Module, target: &Module) -> Vec<ChangedField> {
    let mut fields = Vec::new();
    if was.image != target.image {
        fields.push(replacing_text("settings.image", &was.image, &target.image));
    }
    let hidden = |path: String| ChangedField { path, from: None, to: None, is_replacing: true };
    let names: BTreeSet<&String> = was.env.keys().chain(target.env.keys()).collect();
    fields.extend(
        names
            .into_iter()
            .filter(|name| was.env.get(*name) != target.env.get(*name))
            .map(|name| hidden(format!("env.{name}"))),
    );
    let mut paths = Vec::new();
    changed_paths("settings.createOptions", &was.create_options, &target.create_options, &mut paths);
    fields.extend(paths.into_iter().map(hidden));
    for (path, from, to) in [
        ("status", was.status.to_string(), target.status.to_string()),
        ("restartPolicy", was.restart_policy.to_string(), target.restart_policy.to_string()),
        ("imagePullPolicy", was.image_pull_policy.to_string(), target.image_pull_policy.to_string()),
        ("startupOrder", was.startup_order.to_string(), target.startup_order.to_string()),
        ("startAfter", line(&was.start_after), line(&target.start_after)),
        ("version", was.version.clone(), target.version.clone()),
    ] {
        if from != to {
            fields.push(ChangedField {
                path: path.to_owned(),
                from: Some(from),
                to: Some(to),
                is_replacing: false,
            });
        }
    }
    fields
}

/// The paths of the members in which two objects differ, as far down as both have objects.
fn changed_paths(path: &str, was: &Map<String, Value>, target: &Map<String, Value>, paths: &mut Vec<String>) {
    let keys: BTreeSet<&String> = was.keys().chain(target.keys()).collect();
    for key in keys {
        let path = format!("{path}.{key}");
        match (was.get(key), target.get(key)) {
            (Some(Value::Object(was)), Some(Value::Object(target))) => {
                changed_paths(&path, was, target, paths)
            }
            (was, target) if was != target => paths.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
