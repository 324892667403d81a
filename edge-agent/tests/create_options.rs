//! Create options on a real Docker Engine: the container that the daemon creates is the one that the engine makes of the same
//! options put to it directly. Containers are created and removed, never started.
//!
//! Needs the engine on /var/run/docker.sock, and the image of tests/docker.rs or /bin/busybox as one static file.

mod engine_socket;
mod idle_image;

use std::collections::BTreeMap;
use std::path::Path;

use edge_agent::deployment::docker::executor::create_container;
use edge_agent::deployment::docker::host_policy::HostPolicy;
use edge_agent::deployment::docker::spec::{Own, container};
use edge_agent::deployment::docker::{Engine, ModuleContext};
use edge_core::deploy::desired::Desired;
use idle_image::IMAGE;
use schemas::manifest::Manifest;
use schemas::names::ModuleId;
use serde_json::{Map, Value, json};
use test_needs::Need;

/// What these tests need of the machine.
const NEEDS: [Need; 2] = [Need::Docker, Need::File("/bin/busybox")];
const SOCKET: &str = "/var/run/docker.sock";
const NETWORK: &str = "lineside-test-options";
/// Containers that are made at the same time.
const AT_ONCE: usize = 8;

/// One request to the engine, and its answer's body.
fn engine(method: &str, path: &str, body: &str) -> Result<Value, String> {
    engine_socket::request(SOCKET, method, path, body)
}

/// Names of containers: what the daemon makes, and what the engine makes itself.
fn names(slot: usize) -> [String; 2] {
    ["ours", "direct"].map(|kind| format!("{NETWORK}-{kind}-{slot}"))
}

fn remove(slot: usize) {
    for name in names(slot) {
        let _never_made = engine("DELETE", &format!("/containers/{name}?force=1&v=1"), "");
    }
}

/// Removes what a run made, also one that was killed.
struct Clean;

impl Drop for Clean {
    fn drop(&mut self) {
        (0..=AT_ONCE).for_each(remove);
        let _never_made = engine("DELETE", &format!("/networks/{NETWORK}"), "");
        let _never_made = engine("DELETE", &format!("/volumes/{NETWORK}"), "");
    }
}

/// What `docker inspect` says of a container, without what differs from container to container.
fn inspected(name: &str) -> Value {
    let container = engine("GET", &format!("/containers/{name}/json"), "").expect("it was created");
    let id = container["Id"].as_str().expect("it has an id").to_owned();
    let mut host = container["HostConfig"].clone();
    let mut config = container["Config"].clone();
    if config["Hostname"].as_str().is_some_and(|hostname| id.starts_with(hostname)) {
        config["Hostname"] = Value::Null;
    }
    let without = |list: &mut Value, is_own: &dyn Fn(&Value) -> bool| {
        if let Some(items) = list.as_array_mut() {
            items.retain(|item| !is_own(item));
            if items.is_empty() {
                *list = Value::Null;
            }
        }
    };
    without(&mut config["Env"], &|entry| {
        let name = entry.as_str().unwrap_or_default().split('=').next().unwrap_or_default().to_owned();
        name.starts_with("IOTEDGE_") || ["ClientTransportType", "UpstreamProtocol"].contains(&&*name)
    });
    // The daemon merges variables by name; of one that is written twice the engine, too, uses the last value.
    if let Some(entries) = config["Env"].as_array() {
        let entries = entries.iter().filter_map(Value::as_str);
        let by_name: BTreeMap<&str, &str> =
            entries.map(|entry| (entry.split('=').next().unwrap_or_default(), entry)).collect();
        config["Env"] = by_name.into_values().collect();
    }
    without(&mut host["Mounts"], &|mount| mount["Target"] == "/var/run/iotedge");
    without(&mut host["ExtraHosts"], &|entry| entry.as_str().is_some_and(|entry| entry.starts_with("edge:")));
    without(&mut host["SecurityOpt"], &|option| option == "no-new-privileges");
    if let Some(labels) = config["Labels"].as_object_mut() {
        labels.retain(|label, _| !label.starts_with("lineside."));
    }
    for (key, ours, engines) in [
        ("PidsLimit", json!(4096), json!(null)),
        (
            "LogConfig",
            json!({"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}),
            json!({"Type": "json-file", "Config": {}}),
        ),
        ("NetworkMode", json!(NETWORK), json!("default")),
    ] {
        if host[key] == ours {
            host[key] = engines;
        }
    }
    let mut networks = container["NetworkSettings"]["Networks"].clone();
    for endpoint in networks.as_object_mut().into_iter().flat_map(Map::values_mut) {
        // The engine adds the container's short id.
        without(&mut endpoint["Aliases"], &|alias| alias.as_str().is_some_and(|alias| id.starts_with(alias)));
    }
    // Without a network of the user's own, ours is on the gateway's and the other on the engine's default.
    if host["NetworkMode"] == "default" {
        networks = Value::Null;
    }
    let mut mounts = container["Mounts"].clone();
    without(&mut mounts, &|mount| mount["Destination"] == "/var/run/iotedge");
    for mount in mounts.as_array_mut().into_iter().flatten() {
        // An anonymous volume's name is made for it.
        if mount["Name"].as_str().is_some_and(|name| name.len() == 64) {
            (mount["Name"], mount["Source"]) = (Value::Null, Value::Null);
        }
    }
    if let Some(mounts) = mounts.as_array_mut() {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    json!({"Config": config, "HostConfig": host, "Networks": networks, "Mounts": mounts})
}

/// What the daemon makes of create options.
async fn ours(create_options: &str, name: &str) -> Result<Value, String> {
    let settings = json!({"image": IMAGE, "createOptions": create_options});
    let document = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {
        "schemaVersion": "1.1", "modules": {name: {"settings": settings}}
    }}}});
    let manifest = Manifest::parse(document.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let module: ModuleId = name.parse().expect("the name is right");
    let context = ModuleContext {
        gateway: "gw".parse().expect("the id is right"),
        hostname: "edge".into(),
        hub_name: "hub".into(),
        network: NETWORK.into(),
        ownership: "mark".into(),
        policy: HostPolicy::default(),
    };
    let own = Own { generation_id: "1".into(), workload_dir: Path::new("/tmp") };
    let desired = Desired::of(&manifest);
    let body = container(&module, &desired.modules[&module], &context, &own).map_err(|e| e.to_string())?;
    let docker = Engine::new(SOCKET.into()).client().await.map_err(|error| error.to_string())?;
    match create_container(&docker, name, &body).await {
        Ok(()) => Ok(inspected(name)),
        Err(bollard::errors::Error::DockerResponseServerError { message, .. }) => Err(message),
        Err(error) => Err(error.to_string()),
    }
}

/// What the engine makes of them itself.
fn direct(create_options: &str, name: &str, version: &str) -> Result<Value, String> {
    let options: Value = serde_json::from_str(create_options).expect("the table's options are JSON");
    // As text, so that keys stay in their order and as often as they are written.
    let members = create_options.trim().strip_prefix('{').expect("they are an object").trim_start();
    let comma = if options == json!({}) { "" } else { "," };
    // The engine fills in defaults of a HostConfig only if there is one, and ours always has one.
    let body = format!("{{\"Image\":{IMAGE:?},\"HostConfig\":{{}}{comma}{members}");
    engine("POST", &format!("/v{version}/containers/create?name={name}"), &body)?;
    Ok(inspected(name))
}

/// Members of the body and a value of each that the engine takes.
fn body_members() -> Vec<(&'static str, Value)> {
    vec![
        ("Hostname", json!("press")),
        ("Domainname", json!("plant.example")),
        ("User", json!("1000:1000")),
        ("AttachStdin", json!(true)),
        ("AttachStdout", json!(true)),
        ("AttachStderr", json!(true)),
        ("ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
        ("Tty", json!(true)),
        ("OpenStdin", json!(true)),
        ("StdinOnce", json!(true)),
        ("Env", json!(["A=1", "B=x=y"])),
        ("Cmd", json!(["sleep", "1"])),
        ("Cmd", json!("sleep 1")),
        ("Entrypoint", json!(["/bin/busybox"])),
        ("Entrypoint", json!("/bin/busybox")),
        (
            "Healthcheck",
            json!({"Test": ["CMD", "true"], "Interval": 30_000_000_000_i64, "Timeout": 5_000_000_000_i64, "Retries": 3, "StartPeriod": 1_000_000_000}),
        ),
        ("Volumes", json!({"/data": {}})),
        ("WorkingDir", json!("/tmp")),
        ("NetworkDisabled", json!(true)),
        ("MacAddress", json!("02:42:ac:11:00:09")),
        ("OnBuild", json!(["RUN x"])),
        ("Labels", json!({"line": "1", "LINE": "2"})),
        ("StopSignal", json!("SIGINT")),
        ("StopTimeout", json!(30)),
        ("Shell", json!(["/bin/sh", "-c"])),
        ("Nonsense", json!({"a": [1, 2.5, null]})),
    ]
}

/// Members of `HostConfig`.
fn host_members() -> Vec<(&'static str, Value)> {
    let device =
        json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]);
    vec![
        ("Binds", json!(["/tmp:/host:ro", "lineside-test-options:/data"])),
        ("ContainerIDFile", json!("/tmp/cid")),
        ("LogConfig", json!({"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}})),
        ("LogConfig", json!({"Type": "none", "Config": {}})),
        ("NetworkMode", json!("host")),
        ("NetworkMode", json!("none")),
        ("NetworkMode", json!("bridge")),
        ("PortBindings", json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}]})),
        ("RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": 3})),
        ("AutoRemove", json!(true)),
        ("VolumeDriver", json!("local")),
        ("CapAdd", json!(["NET_ADMIN"])),
        ("CapAdd", json!("SYS_TIME")),
        ("CapDrop", json!(["ALL"])),
        ("CgroupnsMode", json!("host")),
        ("Dns", json!(["9.9.9.9"])),
        ("DnsOptions", json!(["ndots:1"])),
        ("DnsSearch", json!(["plant.example"])),
        ("ExtraHosts", json!(["plc:10.0.0.7"])),
        ("GroupAdd", json!(["dialout"])),
        ("IpcMode", json!("host")),
        ("OomScoreAdj", json!(500)),
        ("PidMode", json!("host")),
        ("Privileged", json!(true)),
        ("PublishAllPorts", json!(true)),
        ("ReadonlyRootfs", json!(true)),
        ("SecurityOpt", json!(["label=disable"])),
        ("SecurityOpt", json!(["no-new-privileges=false"])),
        ("StorageOpt", json!({})),
        ("Tmpfs", json!({"/run": "rw,noexec,size=65536k"})),
        ("UTSMode", json!("host")),
        ("UsernsMode", json!("host")),
        ("ShmSize", json!(134_217_728)),
        ("Sysctls", json!({"net.ipv4.ip_unprivileged_port_start": "0"})),
        ("Runtime", json!("runc")),
        ("Runtime", json!("nvidia")),
        ("Isolation", json!("default")),
        ("CpuShares", json!(512)),
        ("Memory", json!(67_108_864)),
        ("NanoCpus", json!(500_000_000)),
        ("CgroupParent", json!("/plant")),
        ("BlkioWeight", json!(300)),
        ("BlkioWeightDevice", json!([{"Path": "/dev/null", "Weight": 200}])),
        ("BlkioDeviceReadBps", json!([{"Path": "/dev/null", "Rate": 1_048_576}])),
        ("BlkioDeviceWriteBps", json!([{"Path": "/dev/null", "Rate": 1_048_576}])),
        ("BlkioDeviceReadIOps", json!([{"Path": "/dev/null", "Rate": 100}])),
        ("BlkioDeviceWriteIOps", json!([{"Path": "/dev/null", "Rate": 100}])),
        ("CpuPeriod", json!(100_000)),
        ("CpuQuota", json!(50_000)),
        ("CpuRealtimePeriod", json!(1_000_000)),
        ("CpusetCpus", json!("0")),
        ("CpusetMems", json!("0")),
        ("Devices", device),
        ("DeviceCgroupRules", json!(["c 189:* rmw"])),
        (
            "DeviceRequests",
            json!([{"Driver": "", "Count": -1, "DeviceIDs": null, "Capabilities": [["gpu"]], "Options": {}}]),
        ),
        ("KernelMemory", json!(8_388_608)),
        ("MemoryReservation", json!(33_554_432)),
        ("MemorySwap", json!(-1)),
        ("MemorySwappiness", json!(10)),
        ("OomKillDisable", json!(false)),
        ("PidsLimit", json!(100)),
        ("PidsLimit", json!(-1)),
        ("Ulimits", json!([{"Name": "nofile", "Soft": 1024, "Hard": 2048}])),
        ("CpuCount", json!(1)),
        ("CpuPercent", json!(50)),
        ("IOMaximumIOps", json!(9_007_199_254_740_993_u64)),
        ("IOMaximumBandwidth", json!(i64::MAX)),
        (
            "Mounts",
            json!([{"Type": "tmpfs", "Target": "/run", "TmpfsOptions": {"SizeBytes": 65_536, "Mode": 448}}]),
        ),
        (
            "Mounts",
            json!([{"Type": "bind", "Source": "/tmp", "Target": "/host", "ReadOnly": true, "BindOptions": {"Propagation": "rprivate"}}]),
        ),
        (
            "Mounts",
            json!([{"Type": "volume", "Source": "lineside-test-options", "Target": "/data", "VolumeOptions": {"NoCopy": true, "Labels": {"A": "1"}, "DriverConfig": {"Name": "local"}}}]),
        ),
        ("MaskedPaths", json!(["/proc/kcore"])),
        ("ReadonlyPaths", json!([])),
        ("Init", json!(true)),
        ("ConsoleSize", json!([24, 80])),
        ("Links", json!([])),
        ("Nonsense", json!(1)),
    ]
}

/// Values in the forms that manifests of the field have them in, beside the one of each member above.
fn forms() -> Vec<Value> {
    let host = |key: &str, value: Value| json!({"HostConfig": {key: value}});
    let ports = |key: &str, port: &str| host("PortBindings", json!({key: [{"HostPort": port}]}));
    let device = |cgroup: &str| json!({"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": cgroup});
    let mut all: Vec<Value> = ["rw", "z", "ro,rslave", "nocopy", "rw,Z", "ro,rprivate,z"]
        .map(|options| host("Binds", json!([format!("/tmp:/host:{options}")])))
        .to_vec();
    all.extend([
        host("Binds", json!(["/anonymous"])),
        host("Binds", json!([])),
        ports("80/tcp", "18080-18090"),
        ports("80-82/tcp", "18080-18082"),
        ports("80", "18080"),
        ports("80/sctp", ""),
        host("PortBindings", json!({"80/tcp": [{"HostIp": "::1", "HostPort": "1"}, {"HostPort": "2"}], "81/udp": null})),
        host("Devices", [device("r"), device("rw"), device("")].into_iter().collect()),
        host("Devices", json!([{"PathOnHost": "/dev/null"}])),
        host("DeviceRequests", json!([{"Driver": "nvidia", "DeviceIDs": ["0", "GPU-1"], "Capabilities": [["gpu", "compute"], ["utility"]]}])),
        host("Ulimits", json!([{"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "memlock", "Soft": -1, "Hard": -1}])),
        host("Tmpfs", json!({"/a": "", "/b": "size=1m,mode=1777"})),
        host("LogConfig", json!({"Type": "local", "Config": {"max-size": "5m"}})),
        host("LogConfig", json!({"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1", "compress": "false", "labels": "line"}})),
        host("Sysctls", json!({"net.core.somaxconn": "1024", "net.ipv4.tcp_syncookies": "0"})),
        host("ExtraHosts", json!(["plc:10.0.0.7", "plc:fe80::1", "host.docker.internal:host-gateway"])),
        host("Mounts", json!([{"Type": "volume", "Target": "/anonymous"}, {"Type": "tmpfs", "Target": "/t"}])),
        host("Mounts", json!([{"Type": "bind", "Source": "/tmp", "Target": "/h", "BindOptions": {"NonRecursive": true}, "Consistency": "cached"}])),
        host("RestartPolicy", json!({"Name": "unless-stopped"})),
        host("RestartPolicy", json!({"Name": "", "MaximumRetryCount": 0})),
        host("CapAdd", json!(["CAP_SYS_NICE", "sys_rawio", "ALL"])),
        host("IpcMode", json!("shareable")),
        host("CgroupnsMode", json!("private")),
        host("SecurityOpt", json!(["seccomp=unconfined", "apparmor=unconfined"])),
        host("ShmSize", json!(0)),
        host("Init", json!(false)),
        json!({"Healthcheck": {"Test": ["NONE"]}}),
        json!({"Healthcheck": {"Test": []}}),
        json!({"Healthcheck": {"Test": ["CMD-SHELL", "true || exit 1"], "Interval": 0}}),
        json!({"Env": ["EMPTY=", "A=1", "A=2"]}),
        json!({"Entrypoint": [], "Cmd": ["true"]}),
        json!({"Cmd": null, "Entrypoint": null, "Labels": null}),
        json!({"User": "", "WorkingDir": "", "StopTimeout": 0}),
        // Several networks at once are refused by engines before 25, by name of both.
        json!({"NetworkingConfig": {"EndpointsConfig": {NETWORK: {}, "bridge": {}}}, "HostConfig": {"NetworkMode": NETWORK}}),
        json!({"NetworkingConfig": {"EndpointsConfig": {NETWORK: null}}, "HostConfig": {"NetworkMode": NETWORK}}),
        json!({"NetworkingConfig": {"EndpointsConfig": {}}}),
        json!({"NetworkingConfig": {"EndpointsConfig": {"host": {}}}, "HostConfig": {"NetworkMode": "host"}}),
    ]);
    all
}

/// Where two answers differ.
fn difference(path: &str, ours: &Value, engines: &Value, lines: &mut Vec<String>) {
    match (ours, engines) {
        (Value::Object(own), Value::Object(theirs)) => {
            for key in own.keys().chain(theirs.keys().filter(|key| !own.contains_key(*key))) {
                difference(&format!("{path}/{key}"), &ours[key], &engines[key], lines);
            }
        }
        (ours, engines) if ours != engines => lines.push(format!("  {path}: {ours}, engine: {engines}")),
        _ => {}
    }
}

/// The engine's refusal with the networks it lists in alphabetical order: the engine lists them in the order of a Go map, which
/// differs from call to call.
fn in_order(refusal: String) -> String {
    const LIST: &str = "cannot be connected to network endpoints: ";
    let Some((start, networks)) = refusal.split_once(LIST) else { return refusal };
    let mut networks: Vec<&str> = networks.split(", ").collect();
    networks.sort_unstable();
    format!("{start}{LIST}{}", networks.join(", "))
}

/// Keys of Go's structs with another case; keys of the user's maps stay.
fn respelled(key: &str, value: &Value, spell: fn(&str) -> String) -> Value {
    const MAPS: [&str; 10] = [
        "Labels",
        "ExposedPorts",
        "Volumes",
        "StorageOpt",
        "Tmpfs",
        "Sysctls",
        "Config",
        "Options",
        "PortBindings",
        "EndpointsConfig",
    ];
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let is_users = MAPS.contains(&key);
                let spelled = if is_users { name.clone() } else { spell(name) };
                (spelled, respelled(if is_users { "" } else { name }, value, spell))
            });
            Value::Object(members.collect())
        }
        Value::Array(items) => items.iter().map(|item| respelled("", item, spell)).collect(),
        plain => plain.clone(),
    }
}

fn camel(key: &str) -> String {
    let mut characters = key.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// Keys written twice, in this order.
const TWICE: [&str; 14] = [
    r#"{"HostConfig":{"Privileged":false,"privileged":true}}"#,
    r#"{"HostConfig":{"privileged":true,"Privileged":false}}"#,
    r#"{"HostConfig":{"Privileged":true,"privileged":null}}"#,
    r#"{"HostConfig":{"Memory":67108864},"hostConfig":{"CpuShares":512}}"#,
    r#"{"hostconfig":{"Memory":67108864,"Memory":134217728},"HostConfig":{"memory":33554432}}"#,
    r#"{"HostConfig":{"Binds":["/tmp:/a"],"binds":["/tmp:/b"]}}"#,
    r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/a"}],"mounts":[{"Target":"/x"}]}}"#,
    r#"{"Env":["A=1","B=2"],"env":["C=3"]}"#,
    r#"{"Labels":{"a":"1"},"labels":{"A":"2","a":"3"}}"#,
    r#"{"Labels":{"a":"1"},"LABELS":null}"#,
    r#"{"HostConfig":{"LogConfig":{"Type":"none"},"logConfig":null}}"#,
    r#"{"HostConfig":{"LogConfig":{"Config":{"max-size":"1m","max-file":"2"}},"logConfig":{"type":"json-file"}}}"#,
    r#"{"HostConfig":{"PidsLimit":7,"pidsLimit":null,"PIDSLIMIT":8}}"#,
    "{\"Ho\u{17f}tConfig\":{\"Bind\u{17f}\":[\"/tmp:/h\"]},\"wor\u{212a}ingdir\":\"/tmp\"}",
];

/// What IoT Edge takes and the engine would not, and the same as JSON.
const LOOSE: [(&str, &str); 12] = [
    ("", "{}"),
    ("null", "{}"),
    ("{'Tty':true}", r#"{"Tty":true}"#),
    ("{Tty:true,}", r#"{"Tty":true}"#),
    ("{/* a */Tty:true // b\n}", r#"{"Tty":true}"#),
    ("{HostConfig:{Privileged:'true'}}", r#"{"HostConfig":{"Privileged":true}}"#),
    ("{HostConfig:{Memory:'67108864'}}", r#"{"HostConfig":{"Memory":67108864}}"#),
    ("{HostConfig:{Memory:0x4000000}}", r#"{"HostConfig":{"Memory":67108864}}"#),
    (
        "{hostconfig:{portbindings:{'80/tcp':[{hostport:18080}]}}}",
        r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"18080"}]}}}"#,
    ),
    ("{Labels:{line:1,is:true}}", r#"{"Labels":{"line":"1","is":"true"}}"#),
    ("{StopTimeout:'30'}", r#"{"StopTimeout":30}"#),
    (
        "{HostConfig:{LogConfig:{Type:'json-file',Config:{'max-file':2,'max-size':'1m'}}}}",
        r#"{"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"max-file":"2","max-size":"1m"}}}}"#,
    ),
];

fn endpoint() -> Value {
    json!({"NetworkingConfig": {"EndpointsConfig": {NETWORK: {
        "Aliases": ["pump"], "IPAMConfig": {"IPv4Address": "172.31.250.9"}, "DriverOpts": {"a": "1"}
    }}}, "HostConfig": {"NetworkMode": NETWORK}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_container_is_what_the_engine_makes_of_the_same_create_options() {
    if !test_needs::has(&NEEDS) {
        return;
    }
    drop(Clean);
    let _clean = Clean;
    idle_image::make();
    let network = json!({"Name": NETWORK, "IPAM": {"Config": [{"Subnet": "172.31.250.0/24"}]}}).to_string();
    if engine("GET", &format!("/networks/{NETWORK}"), "").is_err() {
        engine("POST", "/networks/create", &network).expect("the network was made");
    }
    let docker = Engine::new(SOCKET.into()).client().await.expect("the engine answers");
    let version = docker.client_version().to_string();

    let whole = body_members().into_iter().map(|(key, value)| json!({key: value}));
    let host = host_members().into_iter().map(|(key, value)| json!({"HostConfig": {key: value}}));
    let all: Vec<Value> = whole
        .chain(host)
        .chain(forms())
        .chain([endpoint(), json!({"Memory": 67_108_864, "HostConfig": {}})])
        .collect();
    let spellings: [fn(&str) -> String; 4] =
        [str::to_owned, str::to_ascii_lowercase, str::to_ascii_uppercase, camel];
    let mut table: Vec<(String, String)> = Vec::new();
    for (index, options) in all.iter().enumerate() {
        // Every key as Docker writes it, and in one of the other spellings in turn.
        for spell in [spellings[0], spellings[1 + index % 3]] {
            let text = respelled("", options, spell).to_string();
            table.push((text.clone(), text));
        }
    }
    table.extend(TWICE.map(|text| (text.to_owned(), text.to_owned())));
    table.extend(LOOSE.map(|(loose, strict)| (loose.to_owned(), strict.to_owned())));
    assert!(table.len() >= 150, "{}", table.len());

    let mut created = 0;
    let mut differing = Vec::new();
    for part in table.chunks(AT_ONCE) {
        let mut pairs = tokio::task::JoinSet::new();
        for (slot, (text, strict)) in part.iter().cloned().enumerate() {
            let version = version.clone();
            pairs.spawn(async move {
                let [our_name, direct_name] = names(slot);
                let ours = ours(&text, &our_name).await.map_err(in_order);
                let engines = direct(&strict, &direct_name, &version).map_err(in_order);
                remove(slot);
                (text, ours, engines)
            });
        }
        for (text, ours, engines) in pairs.join_all().await {
            created += usize::from(ours.is_ok());
            if ours != engines {
                let mut lines = vec![text];
                difference("", &json!(ours), &json!(engines), &mut lines);
                differing.push(lines.join("\n"));
            }
        }
    }
    assert!(differing.is_empty(), "{} of {}:\n{}", differing.len(), table.len(), differing.join("\n"));
    // The engine of the test refuses a few, such as the runtime of a GPU that is not there: as it does directly.
    assert!(created * 10 >= table.len() * 9, "{created} of {}", table.len());
}

#[tokio::test]
async fn options_that_are_refused_say_which() {
    let [name, _] = names(AT_ONCE);
    let error = ours(r#"{"HostConfig": {"Memory": "much"}}"#, &name).await.unwrap_err();
    assert!(error.contains("createOptions.HostConfig.Memory: found a text; write an integer"), "{error}");
}
