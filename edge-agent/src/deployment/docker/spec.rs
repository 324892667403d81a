//! A module of the manifest as a request to the engine to create its container. Pure.
//!
//! The manifest's create options are passed through as they are; what the gateway must add is added, and nothing that the
//! operator wrote is taken away. Names, environment and mount are IoT Edge's, so that its module images run unchanged.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use edge_core::deploy::desired::DesiredModule;
use edge_core::deploy::transport::MQTT;
use schemas::names::ModuleId;
use serde_json::{Map, Value, json};

use super::{DockerError, LABEL_FINGERPRINT, LABEL_GATEWAY, LABEL_MODULE, LABEL_OWNERSHIP, ModuleContext};

/// Where a module finds the directory of its workload socket.
const WORKLOAD_DIR: &str = "/var/run/iotedge";
/// The version of the workload API that is served.
const API_VERSION: &str = "2018-06-28";
/// Processes and threads of one module: enough for large Java modules, too few to use up the host's.
const PIDS_MAX: i64 = 4096;
/// Bytes of one file of a module's log, as the engine writes them.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "3";

/// What the gateway knows of one module beside its manifest.
pub struct Own<'a> {
    pub generation_id: String,
    /// The directory with its workload socket, on the host.
    pub workload_dir: &'a Path,
}

/// The name of a module's container: the module's own, unless the engine does not take it.
///
/// The engine wants two characters or more, the first a letter or a digit. No module's name has a dot, so that the longer form
/// is nobody else's.
pub fn container_name(module: &ModuleId) -> Cow<'_, str> {
    let name = module.as_str();
    if name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("module.{name}"))
    }
}

/// The name of a container that replaces a module's, until that one is removed. No module's name has a dot.
pub fn replacement_name(module: &ModuleId) -> String {
    format!("{}.next", container_name(module))
}

/// The body of the engine's "create container": the create options as they are, with the gateway's own keys set.
///
/// Create options have the engine's spelling of each key that it knows ([`schemas::manifest::create_options`]), so that setting one never
/// makes a second.
///
/// # Errors
/// [`DockerError::CreateOptions`] when the manifest's options have another shape than the engine's.
pub fn container(
    module: &ModuleId,
    desired: &DesiredModule,
    context: &ModuleContext,
    own: &Own<'_>,
) -> Result<Map<String, Value>, DockerError> {
    if let Some(refused) = &desired.spec.create_options_refused {
        return Err(DockerError::CreateOptions { module: module.to_string(), why: refused.to_string() });
    }
    let mut body = desired.spec.create_options.clone();
    body.insert("Image".to_owned(), json!(desired.spec.image));
    let from_options = list(&mut body, "Env").drain(..);
    let variables = environment(from_options, module, desired, context, own);
    body.insert("Env".to_owned(), json!(variables));
    let labels = object(&mut body, "Labels");
    labels.insert(LABEL_GATEWAY.to_owned(), json!(context.gateway));
    labels.insert(LABEL_OWNERSHIP.to_owned(), json!(context.ownership));
    labels.insert(LABEL_MODULE.to_owned(), json!(module));
    labels.insert(LABEL_FINGERPRINT.to_owned(), json!(desired.fingerprint));

    let endpoints = body.get("NetworkingConfig").and_then(|networking| networking.get("EndpointsConfig"));
    let has_endpoints = endpoints.and_then(Value::as_object).is_some_and(|endpoints| !endpoints.is_empty());
    let host = object(&mut body, "HostConfig");
    limit(host);
    // As a mount and not as a bind's text: a path may hold a colon.
    let workload_dir = own.workload_dir.display().to_string();
    // Read-only: a socket is connected to all the same, and a module cannot put anything in the socket's place.
    list(host, "Mounts")
        .push(json!({"Type": "bind", "Source": workload_dir, "Target": WORKLOAD_DIR, "ReadOnly": true}));
    // With the host's own network the gateway is on loopback, and the engine refuses extra networks.
    let network_mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or_default();
    let gateway_address = if network_mode == "host" { "127.0.0.1" } else { "host-gateway" };
    let has_network = has_endpoints || !["", "default"].contains(&network_mode);
    // An address is not looked up.
    if context.hostname.parse::<std::net::IpAddr>().is_err() {
        list(host, "ExtraHosts").push(json!(format!("{}:{gateway_address}", context.hostname)));
    }
    if !has_network {
        host.insert("NetworkMode".to_owned(), json!(context.network));
        let endpoints = object(object(&mut body, "NetworkingConfig"), "EndpointsConfig");
        endpoints.insert(context.network.clone(), json!({"Aliases": [module]}));
    }
    Ok(body)
}

/// A member that is an object; an empty one when it is left out or null.
fn object<'a>(members: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = members.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("create options of another shape were refused")
}

/// A member that is a list; an empty one when it is left out or null.
fn list<'a>(members: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = members.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("create options of another shape were refused")
}

/// Limits for what the create options leave open. They are not part of the fingerprint: a container that exists keeps what it
/// was created with, and is not created anew for them.
fn limit(host: &mut Map<String, Value>) {
    let pids_limit = host.entry("PidsLimit").or_insert(Value::Null);
    if pids_limit.is_null() {
        *pids_limit = json!(PIDS_MAX);
    }
    let log = object(host, "LogConfig");
    let is_unset = object(log, "Config").is_empty()
        && log.get("Type").and_then(Value::as_str).unwrap_or_default().is_empty();
    if is_unset {
        log.insert("Type".to_owned(), json!("json-file"));
    }
    // The settings are this driver's; another has limits, or none, of its own.
    if log.get("Type").and_then(Value::as_str) == Some("json-file") {
        let settings = object(log, "Config");
        settings.entry("max-size").or_insert_with(|| json!(LOG_FILE_SIZE));
        // The engine refuses a number of files without a size.
        if settings["max-size"] != "-1" {
            settings.entry("max-file").or_insert_with(|| json!(LOG_FILES));
        }
    }
    let is_privileged = host.get("Privileged") == Some(&Value::Bool(true));
    let options = list(host, "SecurityOpt");
    let says = |option: &Value| {
        option.as_str().and_then(|option| option.split(['=', ':']).next()) == Some("no-new-privileges")
    };
    // A privileged module already has what a set-user-id program could give it.
    if !is_privileged && !options.iter().any(says) {
        options.push(json!("no-new-privileges"));
    }
}

/// The manifest's variables, over [`MQTT`], over them those of its create options (as IoT Edge merges them), over all the gateway's.
fn environment(
    from_options: impl Iterator<Item = Value>,
    module: &ModuleId,
    desired: &DesiredModule,
    context: &ModuleContext,
    own: &Own<'_>,
) -> Vec<String> {
    let mut variables: BTreeMap<String, Option<String>> =
        desired.spec.env.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    for entry in from_options {
        let Value::String(entry) = entry else { continue };
        match entry.split_once('=') {
            Some((name, value)) => variables.insert(name.to_owned(), Some(value.to_owned())),
            // Without `=` the engine removes a variable of the image.
            None => variables.insert(entry, None),
        };
    }
    for (name, value) in MQTT {
        // .NET reads variables without regard to case.
        if !variables.keys().any(|written| written.eq_ignore_ascii_case(name)) {
            variables.insert(name.to_owned(), Some(value.to_owned()));
        }
    }
    let socket = format!("unix://{WORKLOAD_DIR}/{}", crate::deployment::workload::SOCKET);
    for (name, value) in [
        ("IOTEDGE_WORKLOADURI", socket.as_str()),
        ("IOTEDGE_DEVICEID", context.gateway.as_str()),
        ("IOTEDGE_MODULEID", module.as_str()),
        ("IOTEDGE_MODULEGENERATIONID", own.generation_id.as_str()),
        ("IOTEDGE_IOTHUBHOSTNAME", context.hub_name.as_str()),
        ("IOTEDGE_GATEWAYHOSTNAME", context.hostname.as_str()),
        ("IOTEDGE_AUTHSCHEME", "sasToken"),
        ("IOTEDGE_APIVERSION", API_VERSION),
    ] {
        variables.insert(name.to_owned(), Some(value.to_owned()));
    }
    variables
        .into_iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::docker::host_policy::HostPolicy;
    use edge_core::deploy::desired::Desired;
    use schemas::manifest::Manifest;
    use serde_json::json;

    fn create(module: Value) -> Result<Value, DockerError> {
        let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": {"m": module}
        }}}});
        created(&Manifest::parse(manifest.to_string().as_bytes()).unwrap())
    }

    fn created(manifest: &Manifest) -> Result<Value, DockerError> {
        let desired = Desired::of(manifest);
        let context = ModuleContext {
            gateway: "gw".parse().unwrap(),
            hostname: "edge".into(),
            hub_name: "hub".into(),
            network: "net".into(),
            ownership: "mark".into(),
            policy: HostPolicy::default(),
        };
        let id: ModuleId = "m".parse().unwrap();
        let own = Own { generation_id: "7".into(), workload_dir: Path::new("/data/workload/m") };
        container(&id, &desired.modules[&id], &context, &own).map(Value::Object)
    }

    #[test]
    fn what_the_operator_wrote_is_kept_and_what_the_gateway_needs_is_added() {
        let options = json!({
            "Env": ["LEVEL=debug", "GONE", "IOTEDGE_MODULEID=thief"],
            "Labels": {"line": "1"},
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "Binds": ["/srv:/srv:ro"], "ExtraHosts": ["plc:10.0.0.7"], "Memory": 67_108_864,
                "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "CapAdd": ["NET_RAW"],
                "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rw"}],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
            }
        });
        let body = create(json!({
            "settings": {"image": "acme/a:1", "createOptions": options.to_string()},
            "env": {"LEVEL": {"value": "info"}, "LINE": {"value": 3}}
        }))
        .unwrap();
        let env: Vec<&str> = body["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for expected in
            ["LEVEL=debug", "LINE=3", "GONE", "IOTEDGE_MODULEID=m", "IOTEDGE_GATEWAYHOSTNAME=edge"]
        {
            assert!(env.contains(&expected), "{expected} in {env:?}");
        }
        assert!(!env.contains(&"LEVEL=info") && !env.contains(&"IOTEDGE_MODULEID=thief"));
        let host = &body["HostConfig"];
        assert_eq!(host["Binds"], json!(["/srv:/srv:ro"]));
        let mount = &host["Mounts"][0];
        assert_eq!(
            (&mount["Source"], &mount["Target"], &mount["ReadOnly"]),
            (&json!("/data/workload/m"), &json!("/var/run/iotedge"), &json!(true))
        );
        assert_eq!(host["ExtraHosts"], json!(["plc:10.0.0.7", "edge:host-gateway"]));
        for kept in ["Memory", "PortBindings", "CapAdd", "LogConfig"] {
            assert_eq!(host[kept], options["HostConfig"][kept], "{kept}");
        }
        assert_eq!(host["Devices"][0]["PathInContainer"], "/dev/x");
        assert_eq!(body["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!((&body["Labels"]["line"], &body["Labels"][LABEL_MODULE]), (&json!("1"), &json!("m")));
        assert_eq!(body["NetworkingConfig"]["EndpointsConfig"]["net"]["Aliases"], json!(["m"]));
    }

    #[test]
    fn a_network_that_the_operator_chose_stays_and_wrong_options_are_reported() {
        let body = create(json!({"settings": {
            "image": "a:1", "createOptions": r#"{"HostConfig":{"NetworkMode":"host"}}"#
        }}))
        .unwrap();
        assert_eq!(body["HostConfig"]["NetworkMode"], "host");
        assert_eq!(body["HostConfig"]["ExtraHosts"], json!(["edge:127.0.0.1"]));
        assert!(body.get("NetworkingConfig").is_none_or(Value::is_null));
        let settings = json!({"image": "a:1", "createOptions": r#"{"Env":"A=1"}"#});
        let section = json!({"schemaVersion": "1.1", "modules": {"m": {"settings": settings}}});
        let manifest = Manifest::from_twins(section.as_object().unwrap(), &Map::new()).unwrap();
        let error = created(&manifest).unwrap_err().to_string();
        assert!(error.contains("settings.createOptions.Env: found a text; write an array"), "{error}");
    }

    #[test]
    fn a_key_in_any_case_is_read_and_set_without_a_second_spelling_of_it() {
        let body = create(json!({"settings": {"image": "a:1", "createOptions": r#"{
            "image": "other", "env": ["A=1"], "ENV": ["A=2"], "labels": {"line": "1"},
            "hostconfig": {"pidslimit": 9, "securityopt": ["label=disable"], "mounts": [], "extrahosts": ["a:10.0.0.1"],
                "logconfig": {"type": "local"}, "privileged": "True", "runtime": "nvidia"},
            "hostConfig": {"networkmode": "HOST", "PRIVILEGED": false, "networkMode": "host"}
        }"#}}))
        .unwrap();
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["Env", "HostConfig", "Image", "Labels"]);
        assert_eq!(body["Image"], "a:1");
        assert!(body["Env"].as_array().unwrap().contains(&json!("A=2")));
        assert_eq!((&body["Labels"]["line"], &body["Labels"][LABEL_MODULE]), (&json!("1"), &json!("m")));
        let mut host = body["HostConfig"].clone();
        assert_eq!(host["Mounts"].take()[0]["Target"], WORKLOAD_DIR);
        let expected = json!({
            "ExtraHosts": ["a:10.0.0.1", "edge:127.0.0.1"], "LogConfig": {"Type": "local", "Config": {}}, "Mounts": null,
            "NetworkMode": "host", "PidsLimit": 9, "Privileged": false, "Runtime": "nvidia",
            "SecurityOpt": ["label=disable", "no-new-privileges"]
        });
        assert_eq!(host, expected);
    }

    #[test]
    fn a_module_gets_mqtt_as_its_transport_unless_the_manifest_says_otherwise() {
        let environment = |module: Value| {
            let body = create(module).unwrap();
            let entries: Vec<String> = serde_json::from_value(body["Env"].clone()).unwrap();
            let is_one = |entry: &String| {
                let name = entry.split('=').next().unwrap_or_default().to_ascii_lowercase();
                ["clienttransporttype", "upstreamprotocol"].contains(&name.as_str())
            };
            entries.into_iter().filter(is_one).collect::<Vec<_>>()
        };
        let plain = json!({"image": "a:1"});
        assert_eq!(
            environment(json!({"settings": plain})),
            ["ClientTransportType=Mqtt_Tcp_Only", "UpstreamProtocol=Mqtt"]
        );
        let own = json!({"ClientTransportType": {"value": "Mqtt_WebSocket_Only"}, "UPSTREAMPROTOCOL": {"value": "MqttWs"}});
        assert_eq!(
            environment(json!({"settings": plain, "env": own})),
            ["ClientTransportType=Mqtt_WebSocket_Only", "UPSTREAMPROTOCOL=MqttWs"]
        );
        let options = r#"{"Env": ["ClientTransportType", "UpstreamProtocol="]}"#;
        assert_eq!(
            environment(json!({"settings": {"image": "a:1", "createOptions": options}})),
            ["ClientTransportType", "UpstreamProtocol="]
        );
    }

    #[test]
    fn every_name_that_iot_edge_takes_is_a_name_of_a_container_and_no_two_are_the_same() {
        let names = ["m", "_", "-", "_m", "-m", "module", "ab", "A1", "module_m", "module-m"];
        let containers: Vec<String> =
            names.map(|name| container_name(&name.parse().unwrap()).into_owned()).to_vec();
        assert_eq!(
            containers,
            [
                "module.m",
                "module._",
                "module.-",
                "module._m",
                "module.-m",
                "module",
                "ab",
                "A1",
                "module_m",
                "module-m"
            ]
        );
    }

    #[test]
    fn limits_hold_for_what_the_create_options_leave_open_and_for_nothing_else() {
        let of = |host: Value| {
            let options = json!({"HostConfig": host}).to_string();
            create(json!({"settings": {"image": "a:1", "createOptions": options}})).unwrap()["HostConfig"]
                .take()
        };
        let limited = json!({"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}});
        let host = create(json!({"settings": {"image": "a:1"}})).unwrap()["HostConfig"].take();
        assert_eq!(host["PidsLimit"], 4096);
        assert_eq!(host["LogConfig"], limited);
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
        for (key, written, made) in [
            ("PidsLimit", json!(0), json!(0)),
            ("PidsLimit", json!(-1), json!(-1)),
            ("PidsLimit", json!(9), json!(9)),
            ("LogConfig", json!({"Type": "json-file"}), limited.clone()),
            (
                "LogConfig",
                json!({"Type": "json-file", "Config": {"max-file": "9"}}),
                json!({"Type": "json-file", "Config": {"max-file": "9", "max-size": "10m"}}),
            ),
            (
                "LogConfig",
                json!({"Type": "json-file", "Config": {"max-size": "-1"}}),
                json!({"Type": "json-file", "Config": {"max-size": "-1"}}),
            ),
            ("LogConfig", json!({"Type": "journald"}), json!({"Type": "journald", "Config": {}})),
            ("LogConfig", json!({"Config": {"tag": "a"}}), json!({"Config": {"tag": "a"}})),
            ("SecurityOpt", json!(["no-new-privileges=false"]), json!(["no-new-privileges=false"])),
            ("SecurityOpt", json!(["no-new-privileges:false"]), json!(["no-new-privileges:false"])),
            ("SecurityOpt", json!(["label=disable"]), json!(["label=disable", "no-new-privileges"])),
        ] {
            let host = of(json!({key: written}));
            assert_eq!(host[key], made, "{key}");
        }
        assert_eq!(of(json!({"Privileged": true}))["SecurityOpt"], json!([]));
    }
}
