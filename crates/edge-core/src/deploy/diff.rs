//! What one deployment changes of another, as lines for an operator. Names only: values may be secrets.

use std::collections::{BTreeMap, BTreeSet};

use schemas::manifest::start_order::line;
use schemas::manifest::{Manifest, Module};
use serde_json::Value;

/// One line for each difference; none when there is no difference.
pub fn diff(before: &Manifest, after: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    let (old, new) = (&before.edge_agent.modules, &after.edge_agent.modules);
    for (name, module) in new {
        match old.get(name) {
            None => lines.push(format!("module {name} added, image {}", module.image)),
            Some(former) => lines
                .extend(of_module(former, module).into_iter().map(|line| format!("module {name}: {line}"))),
        }
    }
    lines.extend(
        old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("module {name} removed")),
    );
    if before.edge_agent.registry_credentials != after.edge_agent.registry_credentials {
        lines.push("registry credentials changed".to_owned());
    }
    let (old, new) = (&before.edge_hub, &after.edge_hub);
    lines.extend(of_keys("route", &old.routes, &new.routes));
    if old.time_to_live_secs != new.time_to_live_secs {
        lines.push("time to live of messages changed".to_owned());
    }
    if old.authorizations != new.authorizations {
        lines.push("authorizations changed".to_owned());
    }
    lines
}

fn of_module(before: &Module, after: &Module) -> Vec<String> {
    let changed = |what: &str, old: &str, new: &str| (old != new).then(|| format!("{what} {old} -> {new}"));
    let order = |module: &Module| module.startup_order.to_string();
    let plain = [
        changed("image", &before.image, &after.image),
        changed("status", before.status.as_str(), after.status.as_str()),
        changed("restartPolicy", before.restart_policy.as_str(), after.restart_policy.as_str()),
        changed("imagePullPolicy", before.image_pull_policy.as_str(), after.image_pull_policy.as_str()),
        changed("startupOrder", &order(before), &order(after)),
        (before.start_after != after.start_after)
            .then(|| format!("startAfter [{}] -> [{}]", line(&before.start_after), line(&after.start_after))),
        changed("version", &before.version, &after.version),
    ];
    let env = of_keys("env", &before.env, &after.env);
    let options: Vec<String> = of_keys("createOptions", &options(before), &options(after)).collect();
    plain.into_iter().flatten().chain(env).chain(options).collect()
}

/// Create options one level into `HostConfig`, by their names.
fn options(module: &Module) -> BTreeMap<String, Value> {
    let mut options = BTreeMap::new();
    for (key, value) in &module.create_options {
        match value {
            Value::Object(members) if key == "HostConfig" => {
                options.extend(members.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())));
            }
            value => drop(options.insert(key.clone(), value.clone())),
        }
    }
    options
}

fn of_keys<'a, T: PartialEq>(
    what: &'a str,
    before: &'a BTreeMap<String, T>,
    after: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = String> + use<'a, T> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter_map(move |name| match (before.get(name), after.get(name)) {
        (None, Some(_)) => Some(format!("{what} {name} added")),
        (Some(_), None) => Some(format!("{what} {name} removed")),
        (Some(old), Some(new)) if old != new => Some(format!("{what} {name} changed")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(modules: Value, routes: Value) -> Manifest {
        let document = json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": routes}}
        }});
        Manifest::parse(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_difference_is_a_line_that_names_it_and_shows_no_value() {
        let before = manifest(
            json!({
                "a": {"env": {"KEY": {"value": "secret-1"}, "OLD": {"value": "x"}}, "settings": {"image": "a:1",
                    "createOptions": "{\"HostConfig\":{\"Memory\":1,\"Init\":true},\"User\":\"u\"}"}},
                "b": {"settings": {"image": "b:1"}},
                "c": {"settings": {"image": "c:1"}}
            }),
            json!({"up": "FROM /* INTO $upstream", "gone": "FROM /* INTO $upstream"}),
        );
        let after = manifest(
            json!({
                "a": {"restartPolicy": "always", "env": {"KEY": {"value": "secret-2"}, "NEW": {"value": "x"}},
                    "settings": {"image": "a:2", "createOptions": "{\"HostConfig\":{\"Memory\":2,\"Init\":true}}"}},
                "b": {"settings": {"image": "b:1"}},
                "d": {"settings": {"image": "d:1"}}
            }),
            json!({"up": {"route": "FROM /* INTO $upstream", "priority": 1}}),
        );
        assert_eq!(
            diff(&before, &after),
            [
                "module a: image a:1 -> a:2",
                "module a: restartPolicy on-unhealthy -> always",
                "module a: env KEY changed",
                "module a: env NEW added",
                "module a: env OLD removed",
                "module a: createOptions HostConfig.Memory changed",
                "module a: createOptions User removed",
                "module d added, image d:1",
                "module c removed",
                "route gone removed",
                "route up changed",
            ]
        );
        assert!(diff(&after, &after).is_empty());
    }
}
