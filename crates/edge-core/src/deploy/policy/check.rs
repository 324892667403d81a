//! Whether a manifest asks for more than a policy permits: each field of the create options, in each spelling that the engine takes.

use schemas::manifest::create_options::{fold, is_known};
use schemas::manifest::{ManifestError, ROOT};
use schemas::names::ModuleId;
use serde_json::{Map, Value};

use super::paths::{HostPaths, clean, is_within};
use super::{Permitted, Policy};
use crate::deploy::desired::{Desired, DesiredModule, registry_of};

impl Policy {
    /// Checks every module of a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] with the module and the field that ask for more than the policy permits.
    pub fn check(&self, desired: &Desired, host: &HostPaths<'_>) -> Result<(), ManifestError> {
        desired.modules.iter().try_for_each(|(name, module)| self.check_module(name, module, host))
    }

    /// As [`Policy::check`], for one module.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn check_module(
        &self,
        name: &ModuleId,
        module: &DesiredModule,
        host: &HostPaths<'_>,
    ) -> Result<(), ManifestError> {
        // Nothing is read of a host, nor refused for its shape, where everything is permitted.
        if *self == Self::default() {
            return Ok(());
        }
        let settings = format!("{ROOT}.$edgeAgent.properties.desired.modules.{name}.settings");
        let check = Check { policy: self, host };
        check.image(&Field { path: format!("{settings}.image"), key: "image" }, &module.spec.image)?;
        check.create_options(&format!("{settings}.createOptions"), &module.spec.create_options)
    }
}

/// The place of a value in the manifest.
struct Field<'a> {
    path: String,
    key: &'a str,
}

impl Field<'_> {
    fn below(&self, part: impl std::fmt::Display) -> Field<'_> {
        Field { path: format!("{}.{part}", self.path), key: self.key }
    }

    fn refused(&self, found: impl std::fmt::Display, setting: &str) -> ManifestError {
        ManifestError {
            path: self.path.clone(),
            found: format!("`{found}`"),
            allowed: format!("`[deploy.policy] {setting}` of this gateway does not permit it"),
        }
    }
}

/// Whether the engine takes a value as if it had been left out.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A value as text; what is no text as its JSON, which no list permits.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The elements of an array; any other value is its own only element.
fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Null => &[],
        other => std::slice::from_ref(other),
    }
}

fn member<'a>(members: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    members.iter().find(|(name, _)| fold(name) == key).map(|(_, value)| value)
}

fn member_text(members: &Map<String, Value>, key: &str) -> String {
    member(members, key).filter(|value| !value.is_null()).map(text).unwrap_or_default()
}

struct Check<'a> {
    policy: &'a Policy,
    host: &'a HostPaths<'a>,
}

type Checked = Result<(), ManifestError>;

impl Check<'_> {
    fn create_options(&self, path: &str, options: &Map<String, Value>) -> Checked {
        self.each_member(&Field { path: path.to_owned(), key: "createOptions" }, options, |field, value| {
            match (fold(field.key).as_str(), value) {
                ("hostconfig", Value::Object(members)) => self.each_member(field, members, |field, value| {
                    self.known(field, value, true)?;
                    self.host_config(field, value)
                }),
                ("networkingconfig", Value::Object(members)) => {
                    self.each_member(field, members, |field, value| self.endpoints(field, value))
                }
                // Engines before 25 read some members of HostConfig from here.
                (_, value) if is_known(true, field.key) => self.host_config(field, value),
                (_, value) => self.known(field, value, false),
            }
        })
    }

    /// A key of a newer engine could give any power. Unset it gives none.
    fn known(&self, field: &Field<'_>, value: &Value, is_in_host_config: bool) -> Checked {
        if is_known(is_in_host_config, field.key) || is_unset(value) {
            return Ok(());
        }
        Err(ManifestError {
            path: field.path.clone(),
            found: "a key that is not known here".to_owned(),
            allowed: "a gateway with `[deploy.policy]` takes only keys whose meaning it knows; leave it out"
                .to_owned(),
        })
    }

    /// Calls `check` for each member. Two keys that the engine takes for one are refused: which of them holds is not defined.
    fn each_member(
        &self,
        field: &Field<'_>,
        members: &Map<String, Value>,
        check: impl Fn(&Field<'_>, &Value) -> Checked,
    ) -> Checked {
        for (key, value) in members {
            let own = Field { path: field.below(key).path, key };
            if members.keys().filter(|other| fold(other) == fold(key)).count() > 1 {
                return Err(ManifestError {
                    path: own.path,
                    found: format!("`{key}` in more than one spelling"),
                    allowed: "write each key once".to_owned(),
                });
            }
            check(&own, value)?;
        }
        Ok(())
    }

    fn host_config(&self, field: &Field<'_>, value: &Value) -> Checked {
        let policy = self.policy;
        let only_if = |is_permitted: bool, setting: &str| {
            if is_permitted || is_unset(value) { Ok(()) } else { Err(field.refused(text(value), setting)) }
        };
        match fold(field.key).as_str() {
            "privileged" => only_if(policy.privileged, "privileged"),
            "binds" => self.each_text(field, value, |field, text| self.bind(field, text)),
            "mounts" => elements(value)
                .iter()
                .enumerate()
                .try_for_each(|(index, mount)| self.mount(&field.below(index), mount)),
            // The other container may have any path of the host mounted.
            "volumesfrom" => only_if(self.permits_every_mount(), "host_mounts"),
            "volumedriver" => only_if(self.permits_every_mount() || text(value) == "local", "host_mounts"),
            "pidmode" => self.namespace(field, value, "pid", &["private"]),
            "ipcmode" => self.namespace(field, value, "ipc", &["none", "private", "shareable"]),
            "utsmode" => self.namespace(field, value, "uts", &["private"]),
            "usernsmode" => self.namespace(field, value, "user", &["private"]),
            "cgroupnsmode" => self.namespace(field, value, "cgroup", &["private"]),
            "cgroup" => self.namespace(field, value, "cgroup", &[]),
            "networkmode" => match value {
                Value::Null => Ok(()),
                value => self.network(field, &text(value)),
            },
            "capadd" | "capabilities" => self.each_text(field, value, |field, name| {
                let is_it = |listed: &str| capability(listed) == capability(name);
                self.listed(field, name, policy.capabilities.contains(is_it), "capabilities")
            }),
            "devices" => elements(value)
                .iter()
                .enumerate()
                .try_for_each(|(index, device)| self.device(&field.below(index), device)),
            // These name drivers and numbers instead of paths, so no list of paths can permit some of them.
            "devicerequests" | "devicecgrouprules" => only_if(policy.devices.is_all(), "devices"),
            "securityopt" => self.each_text(field, value, |field, option| {
                // The engine takes both separators.
                let name = option.split(['=', ':']).next().unwrap_or_default();
                let is_permitted = policy.security_options || name == "no-new-privileges";
                self.listed(field, option, is_permitted, "security_options")
            }),
            // An empty list unmasks as well: only what is left out is the engine's default.
            "maskedpaths" | "readonlypaths" => {
                let is_permitted = policy.security_options || value.is_null();
                self.listed(field, &text(value), is_permitted, "security_options")
            }
            "sysctls" => match value.as_object() {
                Some(members) => members.keys().try_for_each(|name| {
                    let is_it = |listed: &str| listed == name;
                    self.listed(&field.below(name), name, policy.sysctls.contains(is_it), "sysctls")
                }),
                None => only_if(policy.sysctls.is_all(), "sysctls"),
            },
            "runtime" => {
                let name = text(value);
                let is_usual = ["runc", "io.containerd.runc.v2"].contains(&name.as_str());
                only_if(is_usual || policy.runtimes.contains(|listed| listed == name), "runtimes")
            }
            "oomscoreadj" => {
                // What is no number cannot be checked and counts as lowered.
                let is_lowered = value.as_f64().is_none_or(|score| score < 0.0);
                only_if(policy.host_resources || !is_lowered, "host_resources")
            }
            "cgroupparent" | "oomkilldisable" | "cpurealtimeruntime" | "cpurealtimeperiod" => {
                only_if(policy.host_resources, "host_resources")
            }
            _ => Ok(()),
        }
    }

    fn each_text(
        &self,
        field: &Field<'_>,
        value: &Value,
        check: impl Fn(&Field<'_>, &str) -> Checked,
    ) -> Checked {
        let mut texts = elements(value).iter().enumerate();
        texts.try_for_each(|(index, value)| check(&field.below(index), &text(value)))
    }

    fn listed(&self, field: &Field<'_>, found: &str, is_permitted: bool, setting: &str) -> Checked {
        if is_permitted { Ok(()) } else { Err(field.refused(found, setting)) }
    }

    fn namespace(&self, field: &Field<'_>, value: &Value, namespace: &str, own: &[&str]) -> Checked {
        let mode = text(value);
        let is_own = is_unset(value) || own.contains(&mode.as_str());
        let is_permitted = is_own || self.policy.host_namespaces.contains(|listed| listed == namespace);
        self.listed(field, &mode, is_permitted, "host_namespaces")
    }

    /// A network by its name. One by its id could be the host's: the engine knows networks by any part of their ids.
    fn network(&self, field: &Field<'_>, name: &str) -> Checked {
        let folded = name.trim().to_ascii_lowercase();
        let may_be_id = !folded.is_empty() && folded.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_foreign = folded == "host" || folded.starts_with("container:") || may_be_id;
        let is_permitted = !is_foreign || self.policy.host_namespaces.contains(|listed| listed == "network");
        self.listed(field, name, is_permitted, "host_namespaces")
    }

    fn endpoints(&self, field: &Field<'_>, value: &Value) -> Checked {
        let ("endpointsconfig", Value::Object(endpoints)) = (fold(field.key).as_str(), value) else {
            return Ok(());
        };
        endpoints.iter().try_for_each(|(name, endpoint)| {
            let field = field.below(name);
            self.network(&field, name)?;
            let Some(members) = endpoint.as_object() else { return Ok(()) };
            self.each_member(&field, members, |field, value| {
                // The engine prefers it to the network's name.
                let is_id = fold(field.key) == "networkid" && !is_unset(value);
                if is_id { self.network(field, &text(value)) } else { Ok(()) }
            })
        })
    }

    fn permits_every_mount(&self) -> bool {
        self.policy.host_mounts.is_all() && self.policy.docker_socket
    }

    /// `source:target[:options]`, where a source without a slash is the name of a volume.
    fn bind(&self, field: &Field<'_>, bind: &str) -> Checked {
        match bind.split_once(':') {
            Some((source, _)) if source.contains('/') => self.host_path(field, source),
            _ => Ok(()),
        }
    }

    fn mount(&self, field: &Field<'_>, mount: &Value) -> Checked {
        if self.permits_every_mount() && self.policy.registries.is_all() {
            return Ok(());
        }
        let Some(members) = mount.as_object() else {
            return Err(field.refused(mount, "host_mounts"));
        };
        self.each_member(field, members, |_, _| Ok(()))?;
        let source = member_text(members, "source");
        match member_text(members, "type").to_ascii_lowercase().as_str() {
            "tmpfs" => Ok(()),
            "image" => self.image(&field.below("Source"), &source),
            "bind" => self.host_path(&field.below("Source"), &source),
            "volume" => {
                if source.contains('/') {
                    self.host_path(&field.below("Source"), &source)?;
                }
                match member(members, "volumeoptions").and_then(Value::as_object) {
                    Some(options) => self.volume(&field.below("VolumeOptions"), options),
                    None => Ok(()),
                }
            }
            other => self.listed(&field.below("Type"), other, self.permits_every_mount(), "host_mounts"),
        }
    }

    /// A volume's driver can mount anything of the host; only a bind of one path and a tmpfs can be checked.
    fn volume(&self, field: &Field<'_>, options: &Map<String, Value>) -> Checked {
        self.each_member(field, options, |field, value| {
            let (true, Value::Object(driver)) = (fold(field.key) == "driverconfig", value) else {
                return Ok(());
            };
            self.each_member(field, driver, |_, _| Ok(()))?;
            let name = member_text(driver, "name");
            if self.permits_every_mount() {
                return Ok(());
            }
            if !["", "local"].contains(&name.as_str()) {
                return Err(field.below("Name").refused(name, "host_mounts"));
            }
            let Some(settings) = member(driver, "options").and_then(Value::as_object) else { return Ok(()) };
            let field = field.below("Options");
            self.each_member(&field, settings, |_, _| Ok(()))?;
            if settings.is_empty() {
                return Ok(());
            }
            let flags = member_text(settings, "o").to_ascii_lowercase();
            let device = member_text(settings, "device");
            if flags.split(',').any(|flag| ["bind", "rbind"].contains(&flag.trim())) {
                self.host_path(&field.below("device"), &device)
            } else if member_text(settings, "type") == "tmpfs" {
                Ok(())
            } else {
                Err(field.below("device").refused(device, "host_mounts"))
            }
        })
    }

    fn host_path(&self, field: &Field<'_>, path: &str) -> Checked {
        let policy = self.policy;
        if self.permits_every_mount() {
            return Ok(());
        }
        let Some(meant) = self.host.meanings(path) else {
            return Err(field.refused(path, "host_mounts"));
        };
        let sockets = self.host.sockets();
        // A directory above a socket contains the socket, so it is checked in this direction.
        if !policy.docker_socket
            && meant.iter().any(|path| sockets.iter().any(|socket| is_within(socket, path)))
        {
            return Err(field.refused(path, "docker_socket"));
        }
        // With `docker_socket = true` a socket need not be below one of `host_mounts`.
        let is_socket = meant.iter().all(|path| sockets.contains(path));
        self.listed(field, path, is_socket || self.are_below(&meant, &policy.host_mounts), "host_mounts")
    }

    fn device(&self, field: &Field<'_>, device: &Value) -> Checked {
        if self.policy.devices.is_all() {
            return Ok(());
        }
        let Some(members) = device.as_object() else { return Err(field.refused(device, "devices")) };
        self.each_member(field, members, |_, _| Ok(()))?;
        let path = member_text(members, "pathonhost");
        let meant = self.host.meanings(&path);
        let is_permitted = meant.is_some_and(|meant| self.are_below(&meant, &self.policy.devices));
        self.listed(&field.below("PathOnHost"), &path, is_permitted, "devices")
    }

    fn are_below(&self, meant: &[String], permitted: &Permitted) -> bool {
        let roots =
            // An operator may have written a link, or where it leads.
            || permitted.items().iter().flat_map(|root| [Some(clean(root)), self.host.resolved(root)]);
        permitted.is_all() || meant.iter().all(|path| roots().flatten().any(|root| is_within(path, &root)))
    }

    fn image(&self, field: &Field<'_>, image: &str) -> Checked {
        // The engine takes an id for an image that it has, wherever that came from.
        let hex = image.strip_prefix("sha256:").unwrap_or(image);
        let is_id = hex.len() >= 12 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let registry = registry_name(registry_of(image));
        let is_listed = self.policy.registries.contains(|listed| registry_name(listed) == registry);
        let is_permitted = self.policy.registries.is_all() || (is_listed && !is_id);
        self.listed(field, image, is_permitted, "registries")
    }
}

fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

fn registry_name(host: &str) -> String {
    match host.to_ascii_lowercase().as_str() {
        "index.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}
