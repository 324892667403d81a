//! Secrets are planted wherever central keeps something, and looked for in everything that a viewer may read.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::token::Role;
use common::{Central, STEP, start};
use reqwest::Method;
use schemas::redaction::REDACTED;
use serde_json::{Value, json};

/// Every planted secret begins so.
const SECRET: &str = "s3cr3t-";

/// Gives secrets that differ, and remembers them.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn next(&mut self) -> String {
        // Two digits more than are needed, so that none is the beginning of another one.
        let secret = format!("{SECRET}{:04}", self.0.len());
        self.0.push(secret.clone());
        secret
    }

    /// Forms that say themselves that they hold a secret.
    fn texts(&mut self) -> Vec<String> {
        vec![
            format!("HostName=h.example;DeviceId=d;SharedAccessKey={}", self.next()),
            format!("DefaultEndpointsProtocol=https;AccountName=a;AccountKey={}", self.next()),
            format!("SharedAccessSignature sr=h&sig={}&se=1", self.next()),
            format!("https://store.example/c?sv=1&sig={}", self.next()),
            format!("amqps://user:{}@broker.example/v", self.next()),
            format!("started with --api-key {}", self.next()),
            format!("Authorization: Bearer {}", self.next()),
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", self.next()),
            json!({"nested": {"password": self.next()}}).to_string(),
        ]
    }

    /// Fields and texts that hold secrets, side by side and deeper.
    fn properties(&mut self) -> Value {
        let mut properties = json!({"plain": "shown", "texts": self.texts()});
        for name in
            ["password", "apiKey", "ConnectionString", "db_pass", "sasToken", "deviceKey", "clientSecret"]
        {
            properties[name] = self.next().into();
            properties["deeper"][name] = json!({"a": [self.next()]});
        }
        properties["env"] = json!({"A": {"value": self.next()}});
        properties
    }

    fn manifest(&mut self) -> Value {
        let options = |secrets: &mut Self| {
            json!({"Env": [format!("MODE={}", secrets.next())], "Cmd": [secrets.next()], "Labels": {"l": secrets.next()},
                "HostConfig": {"LogConfig": {"Type": "splunk", "Config": {"splunk-url": secrets.next()}}}})
        };
        let module = |secrets: &mut Self, image: &str, options: Value| {
            let mut settings = json!({"image": image});
            settings.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            json!({"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "env": {"A": {"value": secrets.next()}}, "settings": settings})
        };
        let whole = options(self).to_string();
        let parts = options(self).to_string();
        let (first, second) = parts.split_at(parts.find(SECRET).unwrap() + 4);
        json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1",
                "runtime": {"type": "docker", "settings": {"registryCredentials": {"r": {
                    "address": "registry.example", "username": "robot", "password": self.next()}}}},
                "modules": {
                    "sensor": module(self, "sensor:1", json!({"createOptions": whole})),
                    "parts": module(self, "parts:1", json!({"createOptions": first, "createOptions01": second}))}}},
            "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {},
                "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}},
            "sensor": {"properties.desired": self.properties()}}})
    }
}

/// Names of telemetry and of commands; the first tells that its value is secret.
const NAMES: [&str; 3] = ["password", "texts", "connect"];

/// Plants a secret in everything that can be written from outside.
async fn plant(central: &Central, secrets: &mut Secrets) {
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let name = format!("Press AccountKey={}", secrets.next());
    central.put("/api/devices/leaf", json!({"displayName": name})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "leaf"})).await;
    let name = format!("r https://u:{}@host", secrets.next());
    central.put("/api/devices/leaf-3", json!({})).await;
    central.put("/api/devices/gw/relationships/r2", json!({"target": "leaf-3", "name": name})).await;
    // This one stands alone, so that it may come to central itself.
    central.put("/api/devices/leaf-2", json!({})).await;
    central.put("/api/devices/gw-2", json!({"type": ["edge"]})).await;

    let name = format!("line password={}", secrets.next());
    let manifest = json!({"displayName": name, "data": secrets.manifest()});
    central.put("/api/deploymentManifests/line", manifest).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"id": "line"}})).await;
    for path in ["leaf", "gw/modules/sensor"] {
        central.patch(&format!("/api/devices/{path}/properties"), secrets.properties()).await;
    }
    let name = format!("group token={}", secrets.next());
    let key = format!("{}keykeykeykey", secrets.next());
    let keys = json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": STANDARD.encode(key)}});
    let group = json!({"displayName": name, "attestation": keys});
    central.put("/api/enrollmentGroups/g", group).await;

    let name = format!("template secret={}", secrets.next());
    let model = json!({"@id": "dtmi:site:press:model;1", "@type": "Interface", "contents": [],
        "comment": format!("password={}", secrets.next())});
    let template = json!({"@type": ["ModelDefinition", "DeviceModel"], "displayName": name,
        "@context": ["dtmi:iotcentral:context;2", "dtmi:dtdl:context;2"], "capabilityModel": model});
    central.put("/api/deviceTemplates/dtmi:site:press;1", template).await;

    let csv = format!("IOTC_DEVICEID\nno id AccountKey={}\n", secrets.next());
    let file = json!({"csv": csv, "fileName": format!("password={}", secrets.next())});
    central.ok(Method::POST, "/api/ext/devices/import", Some(file)).await;
    central.until("/api/ext/operations/1", |shown| (shown["state"] == "done").then_some(())).await;

    let mut device = central.client("leaf-2").await;
    let reported = json!({"reported": secrets.properties()});
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", reported["reported"].to_string()).await;
    for name in NAMES {
        let mut body = secrets.properties();
        if body.get(name).is_none() {
            body[name] = json!(secrets.texts());
        }
        device.publish("devices/leaf-2/messages/events/", body.to_string()).await;
    }
    let topic = format!("devices/leaf-2/messages/events/apiKey={}&a=b", secrets.next());
    device.publish(&topic, format!("not JSON: password={}", secrets.next())).await;
    drop(device);

    for target in ["leaf-2", "gw/modules/sensor", "leaf"] {
        for name in NAMES {
            let path = format!("/api/devices/{target}/commands/{name}");
            let plain = if name == "password" { json!(secrets.next()) } else { secrets.properties() };
            let (status, _) = central.send(Method::POST, &path, Some(json!({"request": plain}))).await;
            assert_eq!(status, 404, "it is not connected, which its history tells");
        }
    }
    for body in [
        json!({"body": secrets.properties()}),
        json!({"bodyBase64": STANDARD.encode(format!("pwd={}", secrets.next()))}),
    ] {
        let mut message = body;
        message["properties"] = json!({"token": secrets.next()});
        message["ack"] = json!("full");
        central.ok(Method::POST, "/api/ext/devices/leaf-2/messages/devicebound", Some(message)).await;
    }
}

/// Every GET that central describes, for everything that was planted.
async fn reads(central: &Central) -> BTreeSet<String> {
    let described = central.get("/openapi.json").await;
    let mut reads = BTreeSet::new();
    for (path, operations) in described["paths"].as_object().unwrap() {
        if operations.get("get").is_none() {
            continue;
        }
        let mut concrete = vec![path.clone()];
        for (parameter, values) in [
            ("{device_id}", &["gw", "leaf", "leaf-2", "none"][..]),
            ("{module_name}", &["$edgeAgent", "$edgeHub", "sensor", "parts"]),
            ("{relationship_id}", &["r", "r2"]),
            ("{telemetry_name}", &["password", "texts", "connect", "deeper", "env", "apiKey"]),
            ("{component_name}", &["texts", "password"]),
            ("{command_name}", &NAMES),
            ("{manifest_id}", &["line"]),
            ("{template_id}", &["dtmi:site:press;1"]),
            ("{operation_id}", &["1"]),
            ("{group_id}", &["g"]),
            ("{entry}", &["primary"]),
            ("{token_id}", &["t"]),
            ("{user_id}", &["u"]),
            ("{role_id}", &["viewer"]),
        ] {
            concrete = concrete
                .iter()
                .flat_map(|path| values.iter().map(|value| path.replace(parameter, value)))
                .collect();
        }
        for path in concrete {
            assert!(!path.contains('{'), "{path}");
            if path.ends_with("/twin") {
                reads.extend(
                    ["$edgeAgent", "sensor", "parts"].map(|module| format!("{path}?module={module}")),
                );
            }
            reads.insert(path);
        }
    }
    reads
}

/// What `token` gets: its bytes, and what stands in them as base64.
async fn read(central: &Central, token: &str, path: &str) -> (u16, String) {
    let separator = if path.contains('?') { '&' } else { '?' };
    let version = if path.starts_with("/api/ext/") { "" } else { "api-version=2022-07-31" };
    let url = format!("{}{separator}{version}", central.url(path));
    let request = central.http.get(url).timeout(STEP);
    let request = if path == "/status" {
        request.basic_auth("a", Some(token))
    } else {
        request.header("Authorization", token)
    };
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let mut text = common::text(response).await;
    let decoded: Vec<String> = text
        .split('"')
        .filter_map(|part| String::from_utf8(STANDARD.decode(part).ok()?).ok())
        .filter(|part| part.len() >= 8)
        .collect();
    text.push_str(&decoded.concat());
    (status, text)
}

#[tokio::test]
async fn a_viewer_reads_no_secret_anywhere_and_an_operator_reads_every_one() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut secrets = Secrets::default();
    plant(&central, &mut secrets).await;
    assert!(secrets.0.len() > 200, "{}", secrets.0.len());
    let viewer = central.new_token(Role::Viewer).await;
    let operator = central.new_token(Role::Operator).await;
    let keys = central.get("/api/devices/leaf-2/credentials").await;
    let keys =
        ["primaryKey", "secondaryKey"].map(|name| keys["symmetricKey"][name].as_str().unwrap().to_owned());

    let reads = reads(&central).await;
    assert!(reads.len() > 100, "{}", reads.len());
    let (mut answered, mut redacted, mut shown_to_operator) = (0, 0, String::new());
    for path in &reads {
        let (status, text) = read(&central, &viewer, path).await;
        // A token has no session.
        assert_eq!(status == 401, path == "/api/ext/session", "{path}");
        assert!(status < 500, "{path}: {status} {text}");
        let found =
            text.find(SECRET).map(|at| text[at.saturating_sub(60)..].chars().take(100).collect::<String>());
        assert_eq!(found, None, "{path}");
        assert!(!keys.iter().any(|key| text.contains(key)), "{path}");
        answered += usize::from(status == 200);
        redacted += usize::from(text.contains(REDACTED));
        let (_, text) = read(&central, &operator, path).await;
        shown_to_operator.push_str(&text);
    }
    assert!(answered > 60 && redacted > 20, "{answered} {redacted}");
    // The audit log has what was written, before and after, for administrators; it is kept for longer than anything.
    let (mut before, mut rows) = (String::new(), 0);
    loop {
        let page = central.get(&format!("/api/ext/audit?limit=500{before}")).await;
        rows += page["value"].as_array().unwrap().len();
        let text = page.to_string();
        let found =
            text.find(SECRET).map(|at| text[at.saturating_sub(200)..].chars().take(300).collect::<String>());
        assert_eq!(found, None);
        assert!(!keys.iter().any(|key| text.contains(key)));
        let Some(next) = page["nextBefore"].as_i64() else { break };
        before = format!("&before={next}");
    }
    assert!(rows > 20, "{rows}");
    // The parts of create options are cut within a secret.
    let shown_to_operator = shown_to_operator.replace("\",\"createOptions01\":\"", "");
    // Each one was planted where it can be read; otherwise this test would say nothing of it.
    let lost: Vec<_> = secrets.0.iter().filter(|secret| !shown_to_operator.contains(*secret)).collect();
    assert_eq!(lost, Vec::<&String>::new());
    central.end().await;
}

#[tokio::test]
async fn a_viewer_still_sees_what_is_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    plant(&central, &mut Secrets::default()).await;
    let viewer = central.new_token(Role::Viewer).await;
    let get = async |path: &str| central.send_as(&viewer, Method::GET, path, None).await.1;
    let manifest = get("/api/deploymentManifests/line").await;
    let agent = &manifest["data"]["modulesContent"]["$edgeAgent"]["properties.desired"];
    assert_eq!(agent["modules"]["sensor"]["settings"]["image"], "sensor:1");
    assert_eq!(agent["runtime"]["settings"]["registryCredentials"]["r"]["address"], "registry.example");
    let properties = get("/api/devices/leaf/properties").await;
    assert_eq!(properties["plain"], "shown");
    let page = get("/api/devices?$top=1").await;
    assert!(page["nextLink"].as_str().unwrap().contains("skiptoken=gw"), "{page}");
    central.end().await;
}

#[tokio::test]
async fn what_a_viewer_read_cannot_be_written_back_and_the_secrets_stay() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    plant(&central, &mut Secrets::default()).await;
    let viewer = central.new_token(Role::Viewer).await;
    let manifest = "/api/deploymentManifests/line";
    for (path, write, field) in [
        (manifest, manifest, "registryCredentials.r.password"),
        ("/api/devices/leaf/properties", "/api/devices/leaf/properties", "password"),
        ("/api/devices/gw/modules/sensor/properties", "/api/devices/gw/modules/sensor/properties", "apiKey"),
        ("/api/devices/leaf", "/api/devices/leaf", "displayName"),
    ] {
        let before = central.get(path).await;
        let mut read = central.send_as(&viewer, Method::GET, path, None).await.1;
        if path.ends_with("properties") {
            read.as_object_mut().unwrap().remove("$metadata");
            read = json!({field: read[field]});
        }
        for method in [Method::PUT, Method::PATCH] {
            if path == manifest && method == Method::PATCH {
                continue;
            }
            let (status, answer) = central.send(method.clone(), write, Some(read.clone())).await;
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert_eq!(status, 422, "{method} {path}: {answer}");
            assert!(message.contains(REDACTED) && message.contains("secret"), "{message}");
            if path != manifest {
                assert!(message.starts_with(field), "{message}");
            }
        }
        assert_eq!(central.get(path).await, before, "{path}");
    }
    // An operator's copy goes back as it is.
    let data = central.get(manifest).await["data"].clone();
    central.put(manifest, json!({"data": data})).await;
    assert_eq!(central.get(manifest).await["data"], data);
    central.end().await;
}
