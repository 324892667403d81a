//! Which images and volumes no deployment needs any more. Pure.
//!
//! Only images that this gateway pulled are ever removed: one that was on the machine before, or that an operator loaded, may not come
//! again. Of volumes only those without a name, which Docker makes for one container and never gives to another.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::desired::Desired;
use super::observed::{Observed, ObservedModule};

/// Images and volumes of this gateway's containers, each with the number of the last deployment that had it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifacts {
    /// By the engine's id; 0 for one that no container was seen to have.
    pub images: BTreeMap<String, u64>,
    pub volumes: BTreeMap<String, u64>,
}

/// What can be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    pub images: Vec<String>,
    pub volumes: Vec<String>,
}

impl Artifacts {
    /// Notes an image that this gateway pulled.
    pub fn pulled(&mut self, image_id: String) {
        // An image that is pulled again keeps the number of the deployment that had it.
        self.images.entry(image_id).or_insert(0);
    }

    /// Notes what the containers of a deployment have. Containers of an earlier one that are still there are not its own.
    pub fn seen(&mut self, number: u64, desired: &Desired, observed: &Observed) {
        let own = containers(observed).filter(|(module, seen)| {
            desired.modules.get(*module).is_some_and(|target| target.fingerprint == seen.fingerprint)
        });
        for (_, seen) in own {
            // Only images that this gateway pulled are in the map; others are never removed (decision 0081).
            if let Some(last) = self.images.get_mut(&seen.image_id) {
                *last = number;
            }
            for volume in &seen.anonymous_volumes {
                self.volumes.insert(volume.clone(), number);
            }
        }
    }

    /// What none of the deployments with these numbers had and no container has. `is_verified` says whether the latest one was
    /// verified: until then, images that no container has yet may be needed by another try.
    pub fn garbage(&self, needed: &BTreeSet<u64>, observed: &Observed, is_verified: bool) -> Garbage {
        let images: BTreeSet<&String> = containers(observed).map(|(_, seen)| &seen.image_id).collect();
        let volumes: BTreeSet<&String> =
            containers(observed).flat_map(|(_, seen)| &seen.anonymous_volumes).collect();
        let is_old = |number: u64| if number == 0 { is_verified } else { !needed.contains(&number) };
        let of = |kept: &BTreeMap<String, u64>, in_use: &BTreeSet<&String>| {
            let old = kept.iter().filter(|(name, number)| is_old(**number) && !in_use.contains(name));
            old.map(|(name, _)| name.clone()).collect()
        };
        Garbage { images: of(&self.images, &images), volumes: of(&self.volumes, &volumes) }
    }
}

fn containers(observed: &Observed) -> impl Iterator<Item = (&schemas::names::ModuleId, &ObservedModule)> {
    observed.modules.iter().chain(&observed.replacements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::manifest::Manifest;
    use serde_json::json;

    fn desired(image: &str) -> Desired {
        let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": {"m": {"settings": {"image": image}}}
        }}}});
        Desired::of(&Manifest::parse(document.to_string().as_bytes()).unwrap())
    }

    fn observed(desired: &Desired, id: &str) -> Observed {
        let (module, target) = desired.modules.first_key_value().unwrap();
        let seen = ObservedModule {
            image_id: format!("sha256:{id}"),
            anonymous_volumes: vec![format!("volume-{id}")],
            fingerprint: target.fingerprint.clone(),
            ..ObservedModule::default()
        };
        Observed { modules: [(module.clone(), seen)].into(), ..Observed::default() }
    }

    #[test]
    fn after_many_updates_only_what_the_last_verified_two_had_is_kept() {
        let mut artifacts = Artifacts::default();
        for number in 1..=6_u64 {
            let target = desired(&format!("m:{number}"));
            let seen = observed(&target, &number.to_string());
            artifacts.pulled(format!("sha256:{number}"));
            artifacts.seen(number, &target, &seen);
        }
        let now = observed(&desired("m:6"), "6");
        let garbage = artifacts.garbage(&[5, 6].into(), &now, true);
        assert_eq!(garbage.images, ["sha256:1", "sha256:2", "sha256:3", "sha256:4"]);
        assert_eq!(garbage.volumes, ["volume-1", "volume-2", "volume-3", "volume-4"]);
    }

    #[test]
    fn what_this_gateway_did_not_pull_what_a_container_has_and_what_is_still_tried_is_no_garbage() {
        let mut artifacts = Artifacts::default();
        let target = desired("m:1");
        artifacts.seen(1, &target, &observed(&target, "loaded"));
        assert!(artifacts.images.is_empty(), "the image was there before");
        let now = observed(&target, "loaded");
        assert_eq!(artifacts.garbage(&[9].into(), &now, true), Garbage::default(), "its container is there");
        artifacts.pulled("sha256:new".into());
        assert!(artifacts.garbage(&[1].into(), &now, false).images.is_empty());
        assert_eq!(artifacts.garbage(&[1].into(), &now, true).images, ["sha256:new"]);
    }

    #[test]
    fn a_container_of_the_deployment_before_is_not_counted_for_the_one_that_is_applied() {
        let mut artifacts = Artifacts::default();
        artifacts.pulled("sha256:old".into());
        let old = observed(&desired("m:1"), "old");
        artifacts.seen(1, &desired("m:1"), &old);
        artifacts.seen(2, &desired("m:2"), &old);
        assert_eq!(artifacts.images["sha256:old"], 1);
    }
}
