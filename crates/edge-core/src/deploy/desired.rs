//! What a manifest wants to run, and how to know whether a container is already that.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemas::manifest::start_order::{self, StartPlace};
use schemas::manifest::{Manifest, Module, RegistryCredential};
use schemas::names::ModuleId;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The modules that shall exist on a gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    pub modules: BTreeMap<ModuleId, DesiredModule>,
    pub credentials: Vec<RegistryCredential>,
    /// The places in the start order of modules that earlier deployments had and this one has not: they are removed in the reverse
    /// order. One that is not known is removed at any time.
    pub leaving: BTreeMap<ModuleId, StartPlace>,
}

/// A module that shall exist.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredModule {
    /// As the manifest has it.
    pub spec: Module,
    /// See [`fingerprint`].
    pub fingerprint: String,
}

impl Desired {
    /// What this manifest wants.
    pub fn of(manifest: &Manifest) -> Self {
        let modules = manifest
            .edge_agent
            .modules
            .iter()
            .map(|(name, spec)| {
                (name.clone(), DesiredModule { fingerprint: fingerprint(spec), spec: spec.clone() })
            })
            .collect();
        let credentials = manifest.edge_agent.registry_credentials.values().cloned().collect();
        Self { modules, credentials, leaving: BTreeMap::new() }
    }

    /// The same, after a deployment that had modules at these places.
    #[must_use]
    pub fn after(mut self, former: BTreeMap<ModuleId, StartPlace>) -> Self {
        self.leaving = former;
        self.leaving.retain(|module, _| !self.modules.contains_key(module));
        self
    }

    /// The place of each module in the start order.
    pub fn start_places(&self) -> BTreeMap<&ModuleId, StartPlace> {
        start_order::places(self.modules.iter().map(|(id, target)| (id, &target.spec)))
    }

    /// Whether the first one of two modules that leave must be gone before the second one is stopped, because it started after it.
    pub fn leaves_before(&self, first: &ModuleId, second: &ModuleId) -> bool {
        match (self.leaving.get(first), self.leaving.get(second)) {
            (Some(place), Some(other)) => {
                place.startup_order > other.startup_order
                    || (place.startup_order == other.startup_order && place.after.contains(second))
            }
            _ => false,
        }
    }

    /// The same, of modules whose names were given before: no container of an earlier one is a later one's. 0: of a first one.
    #[must_use]
    pub fn of_generations(mut self, number: impl Fn(&ModuleId) -> u64) -> Self {
        for (name, module) in &mut self.modules {
            match number(name) {
                // The first module of a name keeps the plain fingerprint: an update of the daemon restarts nothing (decision
                // 0024).
                0 => {}
                number => module.fingerprint = format!("{}-{number}", module.fingerprint),
            }
        }
        self
    }

    /// The login for an image's registry: the first whose address names the same host, without regard to case.
    pub fn credential_for(&self, image: &str) -> Option<&RegistryCredential> {
        let host = registry_of(image);
        self.credentials.iter().find(|credential| {
            // Docker's own configuration names Docker Hub by a URL, https://index.docker.io/v1/.
            let address = credential.address.split_once("://").map_or(&*credential.address, |(_, rest)| rest);
            let address = address.split('/').next().unwrap_or_default();
            let is_hub = |host: &str| ["docker.io", "index.docker.io"].contains(&&*host.to_ascii_lowercase());
            address.eq_ignore_ascii_case(host) || (is_hub(address) && is_hub(host))
        })
    }
}

/// The host that an image comes from: its first part when that looks like a host, `docker.io` otherwise (Docker's rule, by
/// which capitals make a host too, because no repository's name has them).
pub(super) fn registry_of(image: &str) -> &str {
    let has_capitals = |host: &str| host.chars().any(char::is_uppercase);
    match image.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) || has_capitals(host) => host,
        _ => "docker.io",
    }
}

/// What a fingerprint says of which module of its name it is; see [`Desired::of_generations`].
pub fn generation_of(fingerprint: &str) -> u64 {
    fingerprint.split_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// SHA-256 in hex over what a container cannot change once it exists: image, create options and environment.
///
/// The restart policy, the pull policy, the order of starting and the manifest's `version` are left out: here they take
/// effect on the running container, where IoT Edge creates it anew. The order and the case of keys and how the manifest's text
/// was laid out make no difference.
pub fn fingerprint(module: &Module) -> String {
    // Containers from which an earlier version dropped a key are created anew once (decision 0034).
    let mut text = format!("lineside module {}\n", if was_cut(&module.create_options) { 2 } else { 1 });
    // Quoted as JSON: a line break or `=` in a value must not give two modules one text.
    let quoted = |text: &str| Value::from(text).to_string();
    let _ = writeln!(text, "{}", quoted(&module.image));
    for (name, value) in &module.env {
        let _ = writeln!(text, "{}={}", quoted(name), quoted(value));
    }
    canonical(&Value::Object(module.create_options.clone()), &mut text);
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// Whether create options have a key that daemons once did not pass on: a container made from them then lacks it, and is created
/// anew once.
fn was_cut(options: &Map<String, Value>) -> bool {
    const BODY: [&str; 6] = ["MacAddress", "Cpuset", "CpusetCpus", "CpuShares", "Memory", "VolumeDriver"];
    const HOST_CONFIG: [&str; 3] = ["KernelMemory", "KernelMemoryTCP", "Capabilities"];
    let host = options.get("HostConfig").and_then(Value::as_object);
    BODY.iter().any(|key| options.contains_key(*key))
        || host.is_some_and(|host| HOST_CONFIG.iter().any(|key| host.contains_key(*key)))
}

/// JSON with its keys in order, whichever order serde_json's maps keep in this build.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (key, value) in members {
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => {
            let _ = write!(text, "{plain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired(module: Value) -> Desired {
        let text = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"settings": {"registryCredentials": {
                "hub": {"username": "u", "password": "p", "address": "https://index.docker.io/v1/"},
                "own": {"username": "u", "password": "p", "address": "Registry.Example:5000"}
            }}},
            "modules": {"m": module}
        }}}});
        Desired::of(&Manifest::parse(text.to_string().as_bytes()).unwrap())
    }

    fn print(module: Value) -> String {
        desired(module).modules.into_values().next().unwrap().fingerprint
    }

    #[test]
    fn only_what_a_container_cannot_change_makes_another_fingerprint() {
        let options = r#"{"HostConfig": {"Memory": 1, "Binds": ["/a:/a"]}}"#;
        let base =
            json!({"settings": {"image": "a", "createOptions": options}, "env": {"A": {"value": "1"}}});
        let changed = |pointer: &str, value: Value| {
            let mut module = base.clone();
            match module.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => module[pointer.trim_start_matches('/')] = value,
            }
            print(module)
        };
        let same = print(base.clone());
        for (pointer, value) in [
            ("/settings/image", json!("a:latest")),
            ("/settings/createOptions", json!(r#"{"HostConfig":{"Binds":["/a:/a"],"Memory":1}}"#)),
            ("/env/A/value", json!(1)),
            ("/restartPolicy", json!("always")),
            ("/startupOrder", json!(3)),
            ("/version", json!("7")),
            ("/status", json!("stopped")),
            ("/imagePullPolicy", json!("never")),
        ] {
            assert_eq!(changed(pointer, value), same, "{pointer}");
        }
        for (pointer, value) in [
            ("/settings/image", json!("a:2")),
            ("/settings/createOptions", json!("{}")),
            ("/env/A/value", json!(2)),
            ("/env", json!({"B": {"value": "1"}})),
        ] {
            assert_ne!(changed(pointer, value), same, "{pointer}");
        }
    }

    #[test]
    fn a_fingerprint_stays_the_same_from_release_to_release() {
        // Another one would create every container on every gateway anew at the next update of the daemon.
        assert_eq!(
            print(json!({"settings": {"image": "acme/a:1"}})),
            "d2a6c60d28189be8ac2ebe108a086e1239c7833f7ef8ecf9171fefef38aa7f81"
        );
    }

    #[test]
    fn options_that_were_sent_whole_keep_their_fingerprint_and_those_that_were_cut_get_another() {
        // As it was made of the text before create options were read as the engine reads them.
        let former = |options: &str| {
            let mut text = String::from("lineside module 1\n\"a:latest\"\n");
            canonical(&serde_json::from_str(options).unwrap(), &mut text);
            Sha256::digest(text.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
        };
        for (options, is_same) in [
            ("{}", true),
            (r#"{"HostConfig":{"Binds":["/a:/a"],"Memory":67108864,"CapAdd":null,"Init":null}}"#, true),
            (
                r#"{"Labels":{"a":"1"},"ExposedPorts":{"80/tcp":{}},"NetworkingConfig":{"EndpointsConfig":{"host":{}}}}"#,
                true,
            ),
            (
                r#"{"HostConfig":{"LogConfig":{"Type":"","Config":{}},"PortBindings":{"80/tcp":[{"HostPort":"80"}]}},"Unknown":1}"#,
                true,
            ),
            (r#"{"hostConfig":{"Memory":67108864}}"#, false),
            (r#"{"HostConfig":{"runtime":"nvidia"}}"#, false),
            (r#"{"MacAddress":"02:42:ac:11:00:09"}"#, false),
            (r#"{"HostConfig":{"KernelMemory":1}}"#, false),
        ] {
            let now = print(json!({"settings": {"image": "a", "createOptions": options}}));
            assert_eq!(now == former(options), is_same, "{options}");
        }
        let of = |options: &str| print(json!({"settings": {"image": "a", "createOptions": options}}));
        assert_eq!(of("{hostconfig: {memory: '1',},}"), of(r#"{"HostConfig":{"Memory":1}}"#));
    }

    #[test]
    fn an_image_is_fetched_with_the_login_of_its_registry() {
        let desired = desired(json!({"settings": {"image": "a"}}));
        let address = |image: &str| desired.credential_for(image).map(|c| c.address.as_str());
        assert_eq!(address("nginx:1"), Some("https://index.docker.io/v1/"));
        assert_eq!(address("acme/a:1"), Some("https://index.docker.io/v1/"));
        assert_eq!(address("registry.example:5000/a:1"), Some("Registry.Example:5000"));
        assert_eq!(address("registry.example/a:1"), None);
    }
}
