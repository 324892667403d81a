//! Every way in which create options give power over the host, in every spelling that the engine takes.

use proptest::prelude::*;
use schemas::manifest::{Manifest, ManifestError};
use serde_json::{Map, Value, json};

use super::paths::HostPaths;
use super::*;
use crate::deploy::desired::Desired;

fn same(path: &str) -> Option<String> {
    Some(path.to_owned())
}

fn host() -> HostPaths<'static> {
    HostPaths { resolve: &same, engine_socket: "/srv/engine.sock".to_owned() }
}

fn only(items: &[&str]) -> Permitted {
    Permitted::Only(items.iter().map(|item| (*item).to_owned()).collect())
}

/// A policy that permits nothing but images of docker.io.
fn strict() -> Policy {
    Policy {
        privileged: false,
        host_mounts: only(&[]),
        docker_socket: false,
        host_namespaces: only(&[]),
        capabilities: only(&[]),
        devices: only(&[]),
        security_options: false,
        sysctls: only(&[]),
        runtimes: only(&[]),
        host_resources: false,
        registries: only(&["docker.io"]),
    }
}

/// The default with one setting of `from`.
fn with(setting: &str, from: &Policy, into: Policy) -> Policy {
    let mut policy = into;
    let from = from.clone();
    match setting {
        "privileged" => policy.privileged = from.privileged,
        "host_mounts" => policy.host_mounts = from.host_mounts,
        "docker_socket" => policy.docker_socket = from.docker_socket,
        "host_namespaces" => policy.host_namespaces = from.host_namespaces,
        "capabilities" => policy.capabilities = from.capabilities,
        "devices" => policy.devices = from.devices,
        "security_options" => policy.security_options = from.security_options,
        "sysctls" => policy.sysctls = from.sysctls,
        "runtimes" => policy.runtimes = from.runtimes,
        "host_resources" => policy.host_resources = from.host_resources,
        "registries" => policy.registries = from.registries,
        other => panic!("no such setting: {other}"),
    }
    policy
}

fn desired(image: &str, options: &Value) -> Desired {
    let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1",
        "modules": {"m": {"settings": {"image": image, "createOptions": options.to_string()}}}
    }}}});
    Desired::of(&Manifest::parse(manifest.to_string().as_bytes()).unwrap())
}

fn checked(policy: &Policy, options: &Value) -> Result<(), ManifestError> {
    policy.check(&desired("a:1", options), &host())
}

fn in_host(key: &str, value: Value) -> Value {
    json!({"HostConfig": {key: value}})
}

/// Key of `HostConfig`, its value, and the setting that alone permits it.
fn powers() -> Vec<(&'static str, Value, &'static str)> {
    let volume = |options: Value| {
        json!([{"Type": "volume", "Source": "v", "Target": "/x",
            "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": options}}}])
    };
    let device =
        |path: &str| json!([{"PathOnHost": path, "PathInContainer": "/x", "CgroupPermissions": "r"}]);
    vec![
        ("Privileged", json!(true), "privileged"),
        ("Privileged", json!("true"), "privileged"),
        ("Binds", json!(["/etc:/x"]), "host_mounts"),
        ("Binds", json!(["data:/y", "/etc:/x:ro"]), "host_mounts"),
        ("Mounts", json!([{"Type": "bind", "Source": "/etc", "Target": "/x"}]), "host_mounts"),
        ("Mounts", json!([{"Type": "volume", "Source": "/etc", "Target": "/x"}]), "host_mounts"),
        ("Mounts", volume(json!({"type": "none", "o": "bind", "device": "/etc"})), "host_mounts"),
        ("Mounts", volume(json!({"type": "tmpfs", "o": "ro,rbind", "device": "/etc"})), "host_mounts"),
        ("PidMode", json!("host"), "host_namespaces"),
        ("PidMode", json!("container:other"), "host_namespaces"),
        ("IpcMode", json!("host"), "host_namespaces"),
        ("IpcMode", json!("container:other"), "host_namespaces"),
        ("UTSMode", json!("host"), "host_namespaces"),
        ("UsernsMode", json!("host"), "host_namespaces"),
        ("CgroupnsMode", json!("host"), "host_namespaces"),
        ("NetworkMode", json!("host"), "host_namespaces"),
        ("NetworkMode", json!("container:other"), "host_namespaces"),
        ("NetworkMode", json!("0123456789ab"), "host_namespaces"),
        ("CapAdd", json!(["SYS_ADMIN"]), "capabilities"),
        ("CapAdd", json!(["ALL"]), "capabilities"),
        ("Devices", device("/dev/sda"), "devices"),
        ("DeviceRequests", json!([{"Driver": "cdi", "DeviceIDs": ["a"]}]), "devices"),
        ("DeviceCgroupRules", json!(["a *:* rwm"]), "devices"),
        ("SecurityOpt", json!(["seccomp=unconfined"]), "security_options"),
        ("SecurityOpt", json!(["no-new-privileges", "apparmor:unconfined"]), "security_options"),
        ("SecurityOpt", json!(["systempaths=unconfined"]), "security_options"),
        ("SecurityOpt", json!(["label=disable"]), "security_options"),
        ("SecurityOpt", json!(["writable-cgroups=true"]), "security_options"),
        ("MaskedPaths", json!([]), "security_options"),
        ("ReadonlyPaths", json!([]), "security_options"),
        ("Sysctls", json!({"net.core.somaxconn": "1"}), "sysctls"),
        ("Runtime", json!("nvidia"), "runtimes"),
        ("CgroupParent", json!("/"), "host_resources"),
        ("OomScoreAdj", json!(-1), "host_resources"),
        ("OomKillDisable", json!(true), "host_resources"),
        ("CpuRealtimeRuntime", json!(1), "host_resources"),
    ]
}

/// Powers that need more than one setting.
fn powers_of_several() -> Vec<(&'static str, Value)> {
    let volume =
        |driver: Value| json!([{"Type": "volume", "Source": "v", "VolumeOptions": {"DriverConfig": driver}}]);
    vec![
        ("VolumesFrom", json!(["other"])),
        ("VolumeDriver", json!("plugin")),
        ("Mounts", json!([{"Type": "npipe", "Source": "a", "Target": "/x"}])),
        ("Binds", json!(["./etc:/x"])),
        ("Binds", json!(["/:/x"])),
        ("Binds", json!(["/proc/1/root:/x"])),
        ("Mounts", volume(json!({"Name": "plugin"}))),
        ("Mounts", volume(json!({"Options": {"type": "ext4", "device": "/dev/sda1"}}))),
        ("Mounts", volume(json!({"Options": {"type": "overlay", "o": "lowerdir=/", "device": "overlay"}}))),
    ]
}

/// What asks for nothing of the host.
fn harmless() -> Vec<(&'static str, Value)> {
    vec![
        ("Privileged", json!(false)),
        ("Privileged", Value::Null),
        ("Binds", json!(["data:/x", "/anonymous"])),
        ("Binds", Value::Null),
        ("Mounts", json!([{"Type": "tmpfs", "Target": "/x"}])),
        ("Mounts", json!([{"Type": "volume", "Source": "v", "Target": "/x"}])),
        (
            "Mounts",
            json!([{"Type": "volume", "Source": "v", "VolumeOptions": {"DriverConfig":
                {"Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}}}]),
        ),
        ("NetworkMode", json!("azure-iot-edge")),
        ("NetworkMode", json!("bridge")),
        ("NetworkMode", json!("none")),
        ("IpcMode", json!("shareable")),
        ("PidMode", json!("")),
        ("CapDrop", json!(["ALL"])),
        ("CapAdd", json!([])),
        ("SecurityOpt", json!(["no-new-privileges", "no-new-privileges:false"])),
        ("OomScoreAdj", json!(500)),
        ("MaskedPaths", Value::Null),
        ("Memory", json!(1)),
        ("PidsLimit", json!(-1)),
        ("Runtime", json!("runc")),
        ("PortBindings", json!({"80/tcp": [{"HostPort": "80"}]})),
    ]
}

#[test]
fn every_power_over_the_host_is_refused_by_its_setting_and_field_and_permitted_by_it_alone() {
    for (key, value, setting) in powers() {
        let options = in_host(key, value.clone());
        assert_eq!(checked(&Policy::default(), &options), Ok(()), "{key} {value}");
        let refused = checked(&strict(), &options).expect_err(&format!("{key} {value}"));
        let place = "modules.m.settings.createOptions.HostConfig.";
        assert!(refused.path.contains(&format!("{place}{key}")), "{refused}");
        let named = format!("[deploy.policy] {setting}` of");
        assert!(refused.allowed.contains(&named), "{key} {value}: {refused}");
        let one_strict = with(setting, &strict(), Policy::default());
        assert!(checked(&one_strict, &options).is_err(), "{key} {value}");
        let one_permitted = with(setting, &Policy::default(), strict());
        assert_eq!(checked(&one_permitted, &options), Ok(()), "{key} {value}");
    }
    for (key, value) in powers_of_several() {
        assert!(checked(&strict(), &in_host(key, value.clone())).is_err(), "{key} {value}");
        let no_socket = Policy { docker_socket: false, ..Policy::default() };
        assert!(checked(&no_socket, &in_host(key, value.clone())).is_err(), "{key} {value}");
        assert_eq!(checked(&Policy::default(), &in_host(key, value)), Ok(()), "{key}");
    }
    for (key, value) in harmless() {
        assert_eq!(checked(&strict(), &in_host(key, value.clone())), Ok(()), "{key} {value}");
    }
    for network in ["host", "container:other", "0123abcd"] {
        let options = json!({"NetworkingConfig": {"EndpointsConfig": {network: {}}}});
        assert!(checked(&strict(), &options).is_err(), "{network}");
    }
    for id in ["host", "0123abcd"] {
        let options = json!({"NetworkingConfig": {"EndpointsConfig": {"plant": {"networkID": id}}}});
        assert!(checked(&strict(), &options).is_err(), "{id}");
    }
    let usual = json!({"NetworkingConfig": {"EndpointsConfig": {"plant": {"NetworkID": ""}}}, "ExposedPorts": {"80/tcp": {}}});
    assert_eq!(checked(&strict(), &usual), Ok(()));
}

#[test]
fn a_key_that_nobody_knows_is_refused_only_where_the_policy_limits_anything() {
    for (options, is_permitted) in [
        (json!({"HostConfig": {"GiveHost": true}}), false),
        (json!({"HostConfig": {"GiveHost": {"path": "/"}}}), false),
        (json!({"GiveHost": "all"}), false),
        // Engines before 25 take it for that of HostConfig.
        (json!({"VolumeDriver": "plugin"}), false),
        (json!({"volumedriver": "plugin", "HostConfig": {}}), false),
        (json!({"HostConfig": {"GiveHost": null, "Other": [], "More": ""}}), true),
        (json!({"Memory": 1, "MacAddress": "02:42:ac:11:00:02", "Healthcheck": {"Test": ["NONE"]}}), true),
    ] {
        assert_eq!(checked(&strict(), &options).is_ok(), is_permitted, "{options}");
        assert_eq!(checked(&Policy::default(), &options), Ok(()), "{options}");
    }
}

/// What Go's decoder makes of two spellings, and so the engine, is what is checked.
#[test]
fn of_a_key_in_two_spellings_what_the_engine_makes_of_them_is_checked() {
    let is_allowed = |text: &str| {
        let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": {"m": {"settings": {"image": "a:1", "createOptions": text}}}
        }}}});
        let desired = Desired::of(&Manifest::parse(manifest.to_string().as_bytes()).unwrap());
        strict().check(&desired, &host()).is_ok()
    };
    for (text, is_permitted) in [
        (r#"{"HostConfig":{"Privileged":false,"privileged":true}}"#, false),
        (r#"{"HostConfig":{"privileged":true,"Privileged":false}}"#, true),
        (r#"{"HostConfig":{"Privileged":true,"privileged":null}}"#, false),
        (r#"{"HostConfig":{"Privileged":true},"hostConfig":{}}"#, false),
        (r#"{"HostConfig":{"Privileged":true},"hostConfig":null}"#, true),
        (r#"{"hostConfig":{"PidMode":"host"},"HostConfig":{"Memory":1}}"#, false),
        (r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc"}],"mounts":[{"Target":"/x"}]}}"#, false),
        (r#"{"HostConfig":{"Binds":["/etc:/x"],"binds":[]}}"#, true),
        (r#"{"HostConfig":{Privileged:'TRUE',}}"#, false),
        ("{\"HostConfig\":{\"Bind\u{17f}\":[\"/etc:/x\"]}}", false),
    ] {
        assert_eq!(is_allowed(text), is_permitted, "{text}");
    }
}

/// A key in another case, some of its letters as those that Go's decoder folds too.
fn respelled(key: &str, choices: &[u8]) -> String {
    let spell = |(index, c): (usize, char)| match (choices[index % choices.len()] % 3, c.to_ascii_lowercase())
    {
        (0, _) => c.to_ascii_uppercase(),
        (1, _) => c.to_ascii_lowercase(),
        (_, 's') => 'ſ',
        (_, 'k') => '\u{212a}',
        _ => c,
    };
    key.chars().enumerate().map(spell).collect()
}

fn respell_all(value: &Value, choices: &[u8]) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter();
            members.map(|(key, value)| (respelled(key, choices), respell_all(value, choices))).collect()
        }
        Value::Array(items) => items.iter().map(|item| respell_all(item, choices)).collect(),
        plain => plain.clone(),
    }
}

proptest! {
    #[test]
    fn no_spelling_of_a_key_and_no_neighbour_hides_a_power(
        choices in prop::collection::vec(any::<u8>(), 1..24),
        beside in prop::sample::subsequence(harmless(), 0..6),
    ) {
        let single = powers().into_iter().map(|(key, value, _)| (key, value));
        for (key, value) in single.chain(powers_of_several()) {
            let mut members: Map<String, Value> =
                beside.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
            members.remove(key);
            members.insert(key.to_owned(), value.clone());
            let options = respell_all(&json!({"HostConfig": members}), &choices);
            prop_assert!(checked(&strict(), &options).is_err(), "{options}");
            // Beside the harmless value under the plain key.
            let twice = json!({"HostConfig": {key: null, respelled(key, &[1]): value}});
            prop_assert!(checked(&strict(), &twice).is_err(), "{twice}");
        }
    }

    #[test]
    fn a_path_is_refused_however_it_is_written(
        detours in prop::collection::vec(prop::sample::select(vec!["", ".", "x/..", "x/y/../..", "x/./.."]), 1..4),
        target in prop::sample::select(vec![
            "/", "/run", "/var/run", "/run/docker.sock", "/var/run/docker.sock", "/run/containerd", "/srv",
            "/srv/engine.sock", "/proc/1/root", "/proc/self/cwd", "/dev/fd/3",
        ]),
    ) {
        let mut written = String::new();
        for (index, part) in target.split('/').enumerate() {
            if index > 0 {
                written.push('/');
                written.push_str(detours[index % detours.len()]);
                written.push('/');
            }
            written.push_str(part);
        }
        let policy = Policy { docker_socket: false, ..Policy::default() };
        for options in [
            in_host("Binds", json!([format!("{written}:/x")])),
            in_host("Mounts", json!([{"Type": "bind", "Source": written, "Target": "/x"}])),
            in_host("Mounts", json!([{"Type": "volume", "VolumeOptions": {"DriverConfig":
                {"Options": {"type": "none", "o": "bind", "device": written}}}}])),
        ] {
            let refused = checked(&policy, &options);
            let names_socket = refused.as_ref().is_err_and(|error| error.allowed.contains("docker_socket"));
            prop_assert!(names_socket, "{options}: {refused:?}");
        }
    }
}

#[test]
fn what_is_listed_is_permitted_with_what_is_below_it_and_nothing_beside_it() {
    let policy = Policy {
        host_mounts: only(&["/srv/data/", "/var/run/app"]),
        capabilities: only(&["cap_net_raw"]),
        devices: only(&["/dev/ttyUSB0", "/dev/snd"]),
        host_namespaces: only(&["network"]),
        sysctls: only(&["net.core.somaxconn"]),
        runtimes: only(&["nvidia"]),
        ..strict()
    };
    policy.validate().unwrap();
    let bind = |path: &str| in_host("Binds", json!([format!("{path}:/x")]));
    let device = |path: &str| in_host("Devices", json!([{"PathOnHost": path}]));
    for (is_permitted, options) in [
        (true, bind("/srv/data")),
        (true, bind("/srv/data/a/../b")),
        (true, bind("/run/app/x")),
        (false, bind("/srv")),
        (false, bind("/srv/database")),
        (false, bind("/srv/data/../other")),
        (true, device("/dev/ttyUSB0")),
        (true, device("/dev/snd/pcm")),
        (false, device("/dev/ttyUSB01")),
        (false, device("/dev")),
        (false, device("/dev/snd/../sda")),
        (true, in_host("CapAdd", json!(["NET_RAW", "CAP_NET_RAW", "net_raw"]))),
        (false, in_host("CapAdd", json!(["NET_RAW", "NET_ADMIN"]))),
        (false, in_host("CapAdd", json!(["ALL"]))),
        (true, in_host("NetworkMode", json!("host"))),
        (false, in_host("PidMode", json!("host"))),
        (true, in_host("Sysctls", json!({"net.core.somaxconn": "1"}))),
        (false, in_host("Sysctls", json!({"net.core.somaxconn": "1", "kernel.msgmax": "1"}))),
        (true, in_host("Runtime", json!("nvidia"))),
        (false, in_host("Runtime", json!("kata"))),
    ] {
        let found = checked(&policy, &options);
        assert_eq!(found.is_ok(), is_permitted, "{options}: {found:?}");
    }
    // The socket itself needs no entry beside its own setting; a directory above it does.
    let socket = Policy { docker_socket: true, ..strict() };
    assert_eq!(checked(&socket, &bind("/var/run/docker.sock")), Ok(()));
    assert!(checked(&socket, &bind("/run")).is_err());
}

#[test]
fn an_image_is_of_the_registry_that_the_engine_would_ask() {
    let refused = |registries: &[&str], image: &str| {
        let policy = Policy { registries: only(registries), ..Policy::default() };
        policy.check(&desired(image, &json!({})), &host()).is_err()
    };
    let digest = format!("sha256:{}", "a1".repeat(32));
    for (image, registry) in [
        ("ubuntu", "docker.io"),
        ("ubuntu:24.04", "index.docker.io"),
        ("acme/a", "docker.io"),
        ("DOCKER.IO/acme/a:1", "docker.io"),
        ("index.docker.io/acme/a", "docker.io"),
        ("localhost/x", "localhost"),
        ("localhost:5000/x", "localhost:5000"),
        ("Acme/a", "acme"),
        ("ghcr.io/acme/a:1", "GHCR.io"),
        (&format!("ghcr.io/acme/a@{digest}"), "ghcr.io"),
        (&format!("ubuntu@{digest}"), "docker.io"),
        ("registry.example:5000/acme/deep/a:1", "registry.example:5000"),
        ("docker.io.evil.example/a", "docker.io.evil.example"),
        ("[::1]:5000/a", "[::1]:5000"),
    ] {
        assert!(!refused(&[registry], image), "{image} is of {registry}");
        assert!(refused(&["other.example"], image), "{image}");
        let is_hub = ["docker.io", "index.docker.io"].contains(&registry);
        assert_eq!(refused(&["docker.io"], image), !is_hub, "{image}");
    }
    assert!(refused(&["registry.example"], "registry.example:5000/a"));
    // An id names whatever the engine has.
    assert!(refused(&["docker.io"], &digest));
    let mount = json!([{"Type": "image", "Source": "ghcr.io/a", "Target": "/x"}]);
    let policy = Policy { registries: only(&["docker.io"]), ..Policy::default() };
    assert!(checked(&policy, &in_host("Mounts", mount)).is_err());
}

#[test]
fn an_entry_that_means_nothing_is_refused_by_its_key() {
    let default = Policy::default();
    for (key, policy) in [
        ("host_mounts", Policy { host_mounts: only(&["srv"]), ..default.clone() }),
        ("devices", Policy { devices: only(&["ttyUSB0"]), ..default.clone() }),
        ("host_namespaces", Policy { host_namespaces: only(&["net"]), ..default.clone() }),
        ("registries", Policy { registries: only(&["ghcr.io/acme"]), ..default.clone() }),
        ("capabilities", Policy { capabilities: only(&["NET_RAW", "all"]), ..default.clone() }),
        ("sysctls", Policy { sysctls: only(&[""]), ..default.clone() }),
    ] {
        let error = policy.validate().unwrap_err().to_string();
        assert!(error.starts_with(&format!("[deploy.policy] {key}: found")), "{error}");
    }
    assert_eq!(strict().validate(), Ok(()));
}
