//! The whole validation of a manifest, routes included.
//!
//! Two ways, because two people ask. Whoever gives a manifest (`apply`, central's API) can mend it: the first wrong route
//! refuses all of it, and nothing has changed. A gateway that receives one cannot: it takes the good routes and reports the
//! wrong ones (docs/decisions/0008-a-bad-route-alone-is-left-out.md).

use std::collections::BTreeMap;

use schemas::manifest::{Manifest, ManifestError, ROOT};

use super::desired::Desired;
use crate::route::{RouteError, RouteTable};

/// What a manifest wants, and the way its messages go.
///
/// # Errors
/// [`ManifestError`] for names of modules that routes cannot tell apart, and for the first route that cannot be read, with
/// its path.
pub fn check(manifest: &Manifest) -> Result<(Desired, RouteTable), ManifestError> {
    manifest.check_names()?;
    let (desired, table, refused) = take(manifest);
    match refused.into_values().next() {
        Some(refused) => Err(refused),
        None => Ok((desired, table)),
    }
}

/// As [`check`], without the routes that cannot be read, which are given beside, by name.
pub fn take(manifest: &Manifest) -> (Desired, RouteTable, BTreeMap<String, ManifestError>) {
    let hub = &manifest.edge_hub;
    let (table, wrong) = RouteTable::parse(hub.routes.iter().map(|(name, route)| (name.as_str(), route)));
    let table = table.into_inputs_of(manifest.edge_agent.modules.keys());
    let mut refused = hub.routes_refused.clone();
    refused.extend(wrong.into_iter().map(|wrong| (wrong.route.clone(), in_manifest(wrong))));
    (Desired::of(manifest), table, refused)
}

fn in_manifest(RouteError { route, error }: RouteError) -> ManifestError {
    ManifestError {
        path: format!("{ROOT}.$edgeHub.properties.desired.routes.{route}"),
        found: format!("{} at {}", error.found, error.at),
        allowed: error.allowed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn manifest(modules: &[&str], section: &str, routes: &[String]) -> Manifest {
        let module = |name: &&str| ((*name).to_owned(), json!({"settings": {"image": "a:1"}}));
        let modules: Map<String, Value> = modules.iter().map(module).collect();
        let routes: Map<String, Value> =
            routes.iter().enumerate().map(|(i, route)| (format!("r{i}"), json!(route))).collect();
        let document = json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": modules}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": routes}},
            section: {"properties.desired": {"limit": 1}},
        }});
        Manifest::parse(document.to_string().as_bytes()).unwrap()
    }

    fn input_of(module: &str) -> String {
        format!("FROM /messages/* INTO BrokeredEndpoint(\"/modules/{module}/inputs/i\")")
    }

    fn inputs(table: &RouteTable) -> Vec<String> {
        table.queues().modules.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn names_of_modules_that_differ_in_case_alone_are_refused_by_field() {
        let modules = "modulesContent.$edgeAgent.properties.desired.modules";
        for (names, section, refused) in [
            (&["cam", "filter"][..], "cam", None),
            (&["cam", "came"], "x", None),
            (
                &["CAM", "cam"],
                "x",
                Some(format!("{modules}.cam: found the module name \"cam\" beside \"CAM\"")),
            ),
            (
                &["a", "b2", "B2"],
                "x",
                Some(format!("{modules}.b2: found the module name \"b2\" beside \"B2\"")),
            ),
            (
                &["cam"],
                "Cam",
                Some("modulesContent.Cam: found the module name \"Cam\" beside \"cam\"".into()),
            ),
        ] {
            let checked = check(&manifest(names, section, &[])).map_err(|error| error.to_string());
            match refused {
                None => assert!(checked.is_ok(), "{names:?}: {checked:?}"),
                Some(refused) => assert!(checked.as_ref().unwrap_err().starts_with(&refused), "{checked:?}"),
            }
        }
    }

    #[test]
    fn a_sink_means_the_module_whose_name_it_has_then_one_that_differs_in_case() {
        for (names, sink, queue) in [
            (&["o3cam"][..], "O3Cam", "o3cam"),
            (&["O3Cam"], "o3CAM", "O3Cam"),
            (&["o3cam"], "o3cam", "o3cam"),
            // No module of the manifest: it may be one of another deployment.
            (&["o3cam"], "O3Camera", "O3Camera"),
            // What an earlier version put in force.
            (&["CAM", "cam"], "cam", "cam"),
            (&["CAM", "cam"], "CAM", "CAM"),
        ] {
            let (_, table, refused) = take(&manifest(names, "x", &[input_of(sink)]));
            assert!(refused.is_empty());
            assert_eq!(inputs(&table), [queue], "{names:?} {sink}");
        }
    }

    proptest! {
        #[test]
        fn whatever_capitals_a_sink_has_its_messages_wait_for_the_module(
            name in "[a-zA-Z][a-zA-Z0-9_-]{0,8}",
            capitals in prop::collection::vec(any::<bool>(), 9),
        ) {
            let spelled: String = name.chars().zip(&capitals)
                .map(|(c, is_upper)| if *is_upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect();
            let (_, table) = check(&manifest(&[&name], "x-y-z-of-another", &[input_of(&spelled), input_of(&name)])).unwrap();
            prop_assert_eq!(inputs(&table), [name.clone()]);
            let both = check(&manifest(&[&name, &spelled], "x-y-z-of-another", &[]));
            prop_assert_eq!(both.is_ok(), name == spelled);
        }
    }
}
