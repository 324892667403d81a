//! A module of the manifest as the engine is told to create it. Pure.
//!
//! The manifest's create options are passed through as they are; what the gateway must add is added, and nothing that the
//! operator wrote is taken away. Names, environment and mount are IoT Edge's, so that its module images run unchanged.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig,
};
use edge_core::deploy::desired::DesiredModule;
use schemas::names::ModuleId;
use serde_json::Value;

use super::{DockerError, LABEL_FINGERPRINT, LABEL_GATEWAY, LABEL_MARK, LABEL_MODULE, ModuleContext};

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
    /// Its generation id.
    pub generation_id: String,
    /// The directory with its workload socket, on the host.
    pub workload_dir: &'a Path,
}

/// The body of the engine's "create container".
///
/// # Errors
/// [`DockerError::CreateOptions`] when the manifest's options have another shape than the engine's.
pub fn container(
    module: &ModuleId,
    desired: &DesiredModule,
    context: &ModuleContext,
    own: &Own<'_>,
) -> Result<ContainerCreateBody, DockerError> {
    let options = Value::Object(desired.spec.create_options.clone());
    let mut body: ContainerCreateBody = serde_json::from_value(options)
        .map_err(|error| DockerError::CreateOptions { module: module.to_string(), why: error.to_string() })?;
    body.image = Some(desired.spec.image.clone());
    body.env = Some(environment(body.env.take(), module, desired, context, own));
    let labels = body.labels.get_or_insert_with(HashMap::new);
    labels.insert(LABEL_GATEWAY.to_owned(), context.gateway.to_string());
    labels.insert(LABEL_MARK.to_owned(), context.mark.clone());
    labels.insert(LABEL_MODULE.to_owned(), module.to_string());
    labels.insert(LABEL_FINGERPRINT.to_owned(), desired.fingerprint.clone());

    let host = body.host_config.get_or_insert_with(HostConfig::default);
    limit(host);
    // As a mount and not as a bind's text: a path may hold a colon.
    host.mounts.get_or_insert_with(Vec::new).push(Mount {
        typ: Some(MountType::BIND),
        source: Some(own.workload_dir.display().to_string()),
        target: Some(WORKLOAD_DIR.to_owned()),
        ..Mount::default()
    });
    // With the host's own network the gateway is on loopback, and the engine refuses extra networks.
    let is_on_host = host.network_mode.as_deref() == Some("host");
    let gateway_address = if is_on_host { "127.0.0.1" } else { "host-gateway" };
    host.extra_hosts.get_or_insert_with(Vec::new).push(format!("{}:{gateway_address}", context.hostname));
    let has_endpoints = body
        .networking_config
        .as_ref()
        .and_then(|n| n.endpoints_config.as_ref())
        .is_some_and(|e| !e.is_empty());
    let has_network = has_endpoints || host.network_mode.as_deref().is_some_and(|mode| mode != "default");
    if !has_network {
        host.network_mode = Some(context.network.clone());
        let endpoint =
            EndpointSettings { aliases: Some(vec![module.to_string()]), ..EndpointSettings::default() };
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(context.network.clone(), endpoint)])),
        });
    }
    Ok(body)
}

/// Limits for what the create options leave open. They are not part of the fingerprint: a container that exists keeps what it
/// was created with, and is not created anew for them.
fn limit(host: &mut HostConfig) {
    host.pids_limit.get_or_insert(PIDS_MAX);
    let log = host.log_config.get_or_insert_with(HostConfigLogConfig::default);
    let settings = log.config.get_or_insert_with(HashMap::new);
    if log.typ.as_deref().is_none_or(str::is_empty) && settings.is_empty() {
        log.typ = Some("json-file".to_owned());
    }
    // The settings are this driver's; another has limits, or none, of its own.
    if log.typ.as_deref() == Some("json-file") {
        settings.entry("max-size".to_owned()).or_insert_with(|| LOG_FILE_SIZE.to_owned());
        // The engine refuses a number of files without a size.
        if settings["max-size"] != "-1" {
            settings.entry("max-file".to_owned()).or_insert_with(|| LOG_FILES.to_owned());
        }
    }
    let options = host.security_opt.get_or_insert_with(Vec::new);
    let says = |option: &String| option.split(['=', ':']).next() == Some("no-new-privileges");
    // A privileged module already has what a set-user-id program could give it.
    if host.privileged != Some(true) && !options.iter().any(says) {
        options.push("no-new-privileges".to_owned());
    }
}

/// The manifest's variables, over them those of its create options (as IoT Edge merges them), over all the gateway's.
fn environment(
    from_options: Option<Vec<String>>,
    module: &ModuleId,
    desired: &DesiredModule,
    context: &ModuleContext,
    own: &Own<'_>,
) -> Vec<String> {
    let mut variables: BTreeMap<String, Option<String>> =
        desired.spec.env.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    for entry in from_options.into_iter().flatten() {
        match entry.split_once('=') {
            Some((name, value)) => variables.insert(name.to_owned(), Some(value.to_owned())),
            // Without `=` the engine removes a variable of the image.
            None => variables.insert(entry, None),
        };
    }
    let socket = format!("unix://{WORKLOAD_DIR}/{}", crate::workload::SOCKET);
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
    use crate::docker::host_policy::HostPolicy;
    use edge_core::deploy::desired::Desired;
    use schemas::manifest::Manifest;
    use serde_json::json;

    fn create(module: Value) -> Result<Value, DockerError> {
        let manifest = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "modules": {"m": module}
        }}}});
        let desired = Desired::of(&Manifest::parse(manifest.to_string().as_bytes()).unwrap());
        let context = ModuleContext {
            gateway: "gw".parse().unwrap(),
            hostname: "edge".into(),
            hub_name: "hub".into(),
            network: "net".into(),
            mark: "mark".into(),
            policy: HostPolicy::default(),
        };
        let id: ModuleId = "m".parse().unwrap();
        let own = Own { generation_id: "7".into(), workload_dir: Path::new("/data/workload/m") };
        container(&id, &desired.modules[&id], &context, &own).map(|body| serde_json::to_value(body).unwrap())
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
        for wanted in ["LEVEL=debug", "LINE=3", "GONE", "IOTEDGE_MODULEID=m", "IOTEDGE_GATEWAYHOSTNAME=edge"]
        {
            assert!(env.contains(&wanted), "{wanted} in {env:?}");
        }
        assert!(!env.contains(&"LEVEL=info") && !env.contains(&"IOTEDGE_MODULEID=thief"));
        let host = &body["HostConfig"];
        assert_eq!(host["Binds"], json!(["/srv:/srv:ro"]));
        let mount = &host["Mounts"][0];
        assert_eq!(
            (&mount["Source"], &mount["Target"]),
            (&json!("/data/workload/m"), &json!("/var/run/iotedge"))
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
    fn a_network_that_the_operator_chose_stays_and_wrong_options_are_told() {
        let body = create(json!({"settings": {
            "image": "a:1", "createOptions": r#"{"HostConfig":{"NetworkMode":"host"}}"#
        }}))
        .unwrap();
        assert_eq!(body["HostConfig"]["NetworkMode"], "host");
        assert_eq!(body["HostConfig"]["ExtraHosts"], json!(["edge:127.0.0.1"]));
        assert!(body.get("NetworkingConfig").is_none_or(Value::is_null));
        let error = create(json!({"settings": {"image": "a:1", "createOptions": r#"{"Env":"A=1"}"#}}));
        assert!(error.unwrap_err().to_string().starts_with("module `m`: settings.createOptions"));
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
