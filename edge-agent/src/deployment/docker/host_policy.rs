//! `[deploy.policy]` with what only this host knows: where its symbolic links lead.
//!
//! It is checked before a deployment is put in force, and again for each container just before it is created: a module that
//! may write to a permitted directory could have made a link in it meanwhile.

use std::io::ErrorKind;
use std::path::Path;

use edge_core::deploy::desired::{Desired, DesiredModule};
use edge_core::deploy::policy::Policy;
use edge_core::deploy::policy::paths::HostPaths;
use schemas::manifest::ManifestError;
use schemas::names::ModuleId;

use crate::config::Config;

/// The policy of this gateway.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    policy: Policy,
    engine_socket: String,
}

impl HostPolicy {
    /// As the configuration has it.
    pub fn new(config: &Config) -> Self {
        Self {
            policy: config.deploy.policy.clone(),
            engine_socket: config.docker.socket.to_string_lossy().into_owned(),
        }
    }

    fn host(&self) -> HostPaths<'_> {
        HostPaths { resolve: &resolve, engine_socket: self.engine_socket.clone() }
    }

    /// Checks all modules of a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] with the module and the field that the policy does not permit.
    pub fn check(&self, desired: &Desired) -> Result<(), ManifestError> {
        self.policy.check(desired, &self.host())
    }

    /// Checks one module.
    ///
    /// # Errors
    /// As [`HostPolicy::check`].
    pub fn check_module(&self, name: &ModuleId, module: &DesiredModule) -> Result<(), ManifestError> {
        self.policy.check_module(name, module, &self.host())
    }
}

/// Follows the links of the part of a path that exists; the rest is appended as written.
fn resolve(path: &str) -> Option<String> {
    for existing in Path::new(path).ancestors() {
        match existing.canonicalize() {
            Ok(resolved) => {
                let rest = Path::new(path).strip_prefix(existing).ok()?;
                return resolved.join(rest).into_os_string().into_string().ok();
            }
            // A link to what does not exist yet leads where nobody can tell.
            Err(error) if error.kind() == ErrorKind::NotFound && !existing.is_symlink() => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_core::deploy::policy::Permitted;
    use schemas::manifest::Manifest;
    use schemas::manifest::create_options::is_known;
    use serde::Deserializer;
    use serde::de::Visitor;
    use serde_json::json;

    fn checked(policy: &HostPolicy, source: &str) -> Result<(), ManifestError> {
        let options = json!({"HostConfig": {"Binds": [format!("{source}:/x")]}}).to_string();
        let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "modules": {"m": {"settings": {"image": "a", "createOptions": options}}}
        }}}});
        policy.check(&Desired::of(&Manifest::parse(manifest.to_string().as_bytes()).unwrap()))
    }

    #[test]
    fn a_link_in_a_permitted_directory_is_checked_by_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name).display().to_string();
        std::fs::create_dir_all(root.join("free/deep")).unwrap();
        std::fs::create_dir(root.join("other")).unwrap();
        std::fs::write(root.join("docker.sock"), "").unwrap();
        for (link, target) in [
            ("free/out", "../other"),
            ("free/root", "/"),
            ("free/in", "deep"),
            ("free/gone", "/nowhere/at/all"),
            ("alias", "free"),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let permits = |mounts: Permitted, docker_socket: bool| HostPolicy {
            policy: Policy { host_mounts: mounts, docker_socket, ..Policy::default() },
            engine_socket: at("docker.sock"),
        };
        let listed = permits(Permitted::Only(vec![at("free")]), true);
        for path in ["free", "free/deep", "free/in", "free/not/yet", "alias/deep", "docker.sock"] {
            let found = checked(&listed, &at(path));
            // A path is judged as written too: what is not listed under its own name is not permitted.
            assert_eq!(found.is_ok(), path != "alias/deep", "{path}: {found:?}");
        }
        for path in
            ["free/out", "free/root", "free/gone", "free/gone/x", "free/../other", "free/in/../../other"]
        {
            assert!(checked(&listed, &at(path)).is_err(), "{path}");
        }
        let no_socket = permits(Permitted::All, false);
        for path in ["docker.sock", "", "free/root", "free/../docker.sock", "free/root/run"] {
            assert!(checked(&no_socket, &at(path)).is_err(), "{path}");
        }
        assert_eq!(checked(&no_socket, &at("free")), Ok(()));
    }

    /// Gives the names of a struct's fields, as they are in JSON, instead of a value.
    struct FieldNames<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for FieldNames<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend_from_slice(fields);
            Err(serde::de::Error::custom("only the names were wanted"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn field_names<T: for<'de> serde::Deserialize<'de>>() -> Vec<&'static str> {
        let mut names = Vec::new();
        assert!(T::deserialize(FieldNames(&mut names)).is_err());
        assert!(!names.is_empty());
        names
    }

    /// Fields that give no power over the host beyond its shared resources: memory, processors, ports, logs, names.
    const WITHOUT_POWER: &[&str] = &[
        "CpuShares",
        "Memory",
        "BlkioWeight",
        "BlkioWeightDevice",
        "BlkioDeviceReadBps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteIOps",
        "CpuPeriod",
        "CpuQuota",
        "CpusetCpus",
        "CpusetMems",
        "KernelMemoryTCP",
        "MemoryReservation",
        "MemorySwap",
        "MemorySwappiness",
        "NanoCpus",
        "NanoCPUs",
        "Init",
        "PidsLimit",
        "Ulimits",
        "CpuCount",
        "CpuPercent",
        "IOMaximumIOps",
        "IOMaximumBandwidth",
        "ContainerIDFile",
        "LogConfig",
        "PortBindings",
        "RestartPolicy",
        "AutoRemove",
        "ConsoleSize",
        "Annotations",
        "CapDrop",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "ExtraHosts",
        "GroupAdd",
        "Links",
        "PublishAllPorts",
        "ReadonlyRootfs",
        "StorageOpt",
        "Tmpfs",
        "ShmSize",
        "Isolation",
    ];

    #[test]
    fn every_field_that_the_daemon_passes_on_is_limited_or_known_to_give_no_power() {
        let strict: Policy = toml::from_str(
            "privileged = false\nhost_mounts = \"none\"\ndocker_socket = false\nhost_namespaces = \"none\"\n\
             capabilities = \"none\"\ndevices = \"none\"\nsecurity_options = false\nsysctls = \"none\"\n\
             runtimes = \"none\"\nhost_resources = false\n",
        )
        .unwrap();
        let policy = HostPolicy { policy: strict, engine_socket: "/run/docker.sock".to_owned() };
        let is_limited = |field: &str| {
            // For each type that a limited field has, a value that asks for more than a module's own.
            [json!(true), json!("host"), json!(-1), json!(1), json!(["/:/x"]), json!([{}]), json!({"a": "1"})]
                .into_iter()
                .any(|value| {
                    let options = json!({"HostConfig": {field: value}}).to_string();
                    let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
                        "schemaVersion": "1.1",
                        "modules": {"m": {"settings": {"image": "a", "createOptions": options}}}
                    }}}});
                    // What is of another type is refused before the policy is asked.
                    Manifest::parse(manifest.to_string().as_bytes())
                        .is_ok_and(|manifest| policy.check(&Desired::of(&manifest)).is_err())
                })
        };
        for field in field_names::<bollard::models::ContainerCreateBody>() {
            assert!(is_known(false, field), "{field} is not among the engine's types");
        }
        for field in field_names::<bollard::models::HostConfig>() {
            assert!(is_known(true, field), "HostConfig.{field} is not among the engine's types");
            let is_harmless = WITHOUT_POWER.contains(&field);
            assert_ne!(is_limited(field), is_harmless, "HostConfig.{field}");
        }
    }
}
