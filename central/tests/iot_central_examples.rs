//! IoT Central's own examples, each sent to central: the status is the example's, and every field of the example's answer is in
//! central's, with the same type. What is otherwise stands in [`DIFFERENCES`], and paths that central lacks in
//! docs/operating/iot-central-paths.md.
//!
//! The examples are Microsoft's and not part of this repository (Azure/azure-rest-api-specs, specification/iotcentral, MIT). They are read
//! from `LINESIDE_IOT_CENTRAL_API`, or from `shared/data/iotcentral-openapi` beside this repository; without them the tests say that
//! they are skipped.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use central::clock;
use central::store::StoreError;
use central::store::commands::{self, Command};
use central::store::telemetry::{NewMessage, Writing};
use central::store::templates;
use central::store::twins::{self, Half};
use common::{Central, start};
use reqwest::Method;
use schemas::bag::PropertyBag;
use schemas::method::{MethodRequest, MethodResponse};
use schemas::names::Identity;
use schemas::twin::Section;
use serde_json::{Map, Value, json};

/// Where an answer is not the example's, and why. `path` is of a field in the answer; empty for the status.
struct Difference {
    example: &'static str,
    path: &'static str,
    why: &'static str,
}

const DIFFERENCES: [Difference; 5] = [
    Difference {
        example: "devicetemplates_create.json",
        path: "capabilityModel.extends",
        why: "a capability model is given back as it was written: IoT Central adds names and types to it",
    },
    Difference {
        example: "enrollmentgroups_list.json",
        path: "value.attestation.symmetricKey",
        why: "viewers read the list, and whoever has the keys enrols as anything; one group is read with its keys",
    },
    Difference {
        example: "modules_commands_send.json",
        path: "",
        why: "needs a gateway with the module; tests/tests/main_job.rs sends it, here it is answered with 404 for one that is away",
    },
    Difference {
        example: "users_list.json",
        path: "value",
        why: "its second user is a service principal of Azure's directory, which does not exist here",
    },
    Difference {
        example: "users_set_serviceprincipal.json",
        path: "",
        why: "service principals of Azure's directory do not exist here; programs have API tokens",
    },
];

/// Users have no etag here: the console and the command line change one field of a user at a time.
const WITHOUT_ETAG: &str = "/api/users";

/// Microsoft's folder; `None` where it is not there.
fn folder() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let named = std::env::var_os("LINESIDE_IOT_CENTRAL_API").map(PathBuf::from);
    let beside = ["..", "../.."].map(|up| root.join(up).join("shared/data/iotcentral-openapi"));
    let found = named.into_iter().chain(beside).find(|folder| folder.join("2022-07-31.json").exists());
    if found.is_none() {
        println!("skipped: IoT Central's OpenAPI is not here; LINESIDE_IOT_CENTRAL_API names its folder");
    }
    found
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A path without the names of its parameters.
fn shape(path: &str) -> String {
    path.split('/')
        .map(|segment| if segment.starts_with('{') { "{}" } else { segment })
        .collect::<Vec<_>>()
        .join("/")
}

/// central's operations, by method and shape of the path.
fn ours() -> BTreeMap<(String, String), Value> {
    let document = serde_json::to_value(central::api::described().1).unwrap();
    let paths = document["paths"].as_object().unwrap().clone();
    let operations = paths.into_iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap().clone();
        item.into_iter().map(move |(method, operation)| ((method, shape(&path)), operation))
    });
    operations.collect()
}

/// IoT Central's operations: method, path, description.
fn theirs(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters");
        operations.map(move |(method, operation)| (method.clone(), format!("/api{path}"), operation.clone()))
    });
    operations.collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Fields of the example that are missing or of another type, by their path.
fn compare(expected: &Value, found: &Value, path: &str, wrong: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (name, value) in expected {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match found.get(name) {
                    None => wrong.push(path),
                    Some(found) => compare(value, found, &path, wrong),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for (index, value) in expected.iter().enumerate() {
                let path = if index == 0 { path.to_owned() } else { format!("{path}[{index}]") };
                // Lists are in another order here: any item that has all of it will do.
                let attempts = found.iter().map(|found| {
                    let mut missing = Vec::new();
                    compare(value, found, &path, &mut missing);
                    missing
                });
                match attempts.min_by_key(Vec::len) {
                    None => wrong.push(path),
                    Some(missing) => wrong.extend(missing),
                }
            }
        }
        (expected, found) if kind(expected) != kind(found) => wrong.push(path.to_owned()),
        _ => {}
    }
}

/// What the examples leave out between `<` and `>`.
struct Secrets {
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Secrets {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self { authority: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    fn fill(&self, body: &mut Value) {
        match body {
            Value::String(text) if text.starts_with('<') => {
                *text = match text.as_str() {
                    "<primary key>" | "<secondary key>" | "<endorsement key>" => STANDARD.encode([7; 32]),
                    "<base64-certificate>" => STANDARD.encode(self.authority.der()),
                    "<string representation of the certificate>" => self.authority.pem(),
                    other => panic!("{other}: no value is known for it"),
                };
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(item)),
            Value::Object(members) => members.values_mut().for_each(|value| self.fill(value)),
            _ => {}
        }
    }

    /// A certificate that proves who has the authority's key.
    fn proof(&self, code: &str) -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, code);
        let key = rcgen::KeyPair::generate().unwrap();
        STANDARD.encode(params.signed_by(&key, &self.authority).unwrap().der())
    }
}

fn manifest(module: &str) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            module: {"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "m:1", "createOptions": "{}"}}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}}}})
}

/// One example, and where it is sent.
struct Case<'a> {
    method: Method,
    template: &'a str,
    parameters: &'a Map<String, Value>,
    answer: Value,
}

impl Case<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn path(&self) -> String {
        let segments = self.template.split('/').map(|segment| {
            let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
            name.map_or(segment, |name| self.parameter(name)).to_owned()
        });
        segments.collect::<Vec<_>>().join("/")
    }

    fn is_of(&self, part: &str) -> bool {
        self.template.contains(part)
    }

    /// Makes what the example speaks of.
    async fn arrange(&self, central: &Central, secrets: &Secrets) {
        if self.is_of("/devices") {
            self.arrange_device(central, secrets).await;
        }
        if self.is_of("/deviceTemplates") {
            self.arrange_templates(central).await;
        }
        if self.is_of("/relationships") {
            self.arrange_relationships(central).await;
        }
        if self.is_of("/enrollmentGroups") {
            self.arrange_group(central, secrets).await;
        }
        if self.is_of("/users") {
            self.arrange_user(central).await;
        }
        if self.is_of("/apiTokens") {
            let path = "/api/apiTokens/testtoken";
            central.send(Method::DELETE, path, None).await;
            if self.method != Method::PUT {
                let roles = json!([{"role": "ca310b8d-2f4a-44e0-a36e-957c202cd8d4"},
                    {"role": "c495eb57-eb18-489e-9802-62c474e5645c", "organization": "seattle"}]);
                central.put(path, json!({"roles": roles})).await;
            }
        }
    }

    async fn arrange_templates(&self, central: &Central) {
        for template in central.get("/api/deviceTemplates").await["value"].as_array().unwrap() {
            let path = format!("/api/deviceTemplates/{}", template["@id"].as_str().unwrap());
            central.send(Method::DELETE, &path, None).await;
        }
        if self.method == Method::PUT {
            return;
        }
        let mut made = match &self.answer["value"] {
            Value::Array(listed) => listed[0].clone(),
            _ if self.answer.is_null() => json!({"@type": ["ModelDefinition", "DeviceModel"],
                "capabilityModel": {"@id": "dtmi:contoso:model;1", "@type": "Interface"}}),
            _ => self.answer.clone(),
        };
        let id = made.as_object_mut().unwrap().remove("@id").unwrap_or_default();
        made.as_object_mut().unwrap().remove("etag");
        // The examples ask for another id than they are answered with.
        let requested = self.parameter("deviceTemplateId");
        let id = if requested.is_empty() { id.as_str().unwrap() } else { requested };
        central.put(&format!("/api/deviceTemplates/{id}"), made).await;
    }

    async fn arrange_user(&self, central: &Central) {
        // The last administrator cannot be removed.
        let user = |email: &str, role: &str| {
            let in_organization =
                json!({"role": "c495eb57-eb18-489e-9802-62c474e5645c", "organization": "seattle"});
            json!({"type": "email", "email": email, "roles": [{"role": role}, in_organization]})
        };
        central
            .put("/api/users/root", user("root@contoso.com", "ca310b8d-2f4a-44e0-a36e-957c202cd8d4"))
            .await;
        for id in ["abc", "123"] {
            central.send(Method::DELETE, &format!("/api/users/{id}"), None).await;
        }
        if self.method != Method::PUT {
            let (operator, id) = ("ae2c9854-393b-4f97-8c42-479d70ce626e", self.parameter("userId"));
            let id = if id.is_empty() { "abc" } else { id };
            central.put(&format!("/api/users/{id}"), user("alice@contoso.com", operator)).await;
        }
    }

    async fn arrange_device(&self, central: &Central, secrets: &Secrets) {
        if self.template == "/api/devices" {
            for device in self.answer["value"].as_array().unwrap() {
                let mut made = device.clone();
                made.as_object_mut().unwrap().remove("etag");
                let id = device["id"].as_str().unwrap();
                central.put(&format!("/api/devices/{id}"), made).await;
            }
            return;
        }
        let id = self.parameter("deviceId");
        let path = format!("/api/devices/{id}");
        central.send(Method::DELETE, &path, None).await;
        if self.template == "/api/devices/{deviceId}" && self.method == Method::PUT {
            return;
        }
        // The examples of devices write what the template of the other examples does not have.
        let forget = |c: &_| Ok::<_, StoreError>(templates::delete(c, "dtmi:contoso:testDeviceTemplate;1")?);
        central.started.store().submit(forget).await.unwrap();
        let device = json!({"template": "dtmi:contoso:testDeviceTemplate;1", "organizations": ["seattle"]});
        let gateway = json!({"type": ["iotEdge"]});
        let is_gateway = self.is_of("/modules") || self.is_of("/relationships");
        central.put(&path, if is_gateway { gateway } else { device }).await;
        let mut of: Identity = id.parse().unwrap();
        if self.is_of("/modules") {
            let modules = self.answer["value"].as_array().filter(|_| self.template.ends_with("/modules"));
            let names = modules.into_iter().flatten().map(|module| module["name"].as_str().unwrap());
            let name = Some(self.parameter("moduleName")).filter(|name| !name.is_empty());
            for name in names.chain(name) {
                central.patch(&path, json!({"deploymentManifest": {"data": manifest(name)}})).await;
                of = format!("{id}/{name}").parse().unwrap();
                self.report(central, of.clone(), json!({}), &format!("{path}/modules/{name}")).await;
            }
        }
        let root = if of.module.is_some() {
            format!("{path}/modules/{}", self.parameter("moduleName"))
        } else {
            path
        };
        if self.template.ends_with("/attestation") && self.method == Method::GET {
            let mut of = json!({"x509": {"clientCertificates": {"primary": {
                "certificate": "<string representation of the certificate>"}}}});
            secrets.fill(&mut of);
            central.put(&format!("{root}/attestation"), of).await;
        } else if self.template.ends_with("/components") {
            let named = self.answer["value"].as_array().unwrap().iter();
            let components: Map<String, Value> = named
                .map(|component| (component["name"].as_str().unwrap().to_owned(), json!({"__t": "c"})))
                .collect();
            self.report(central, of, components.into(), &root).await;
        } else if self.is_of("/properties") {
            let component = self.parameter("componentName");
            let shown = self.answer.clone();
            let shown = if self.is_of("/components") { json!({component: shown}) } else { shown };
            self.report(central, of, shown, &root).await;
        } else if self.is_of("/telemetry") {
            self.send_value(central, of).await;
        } else if self.is_of("/commands") && self.method == Method::GET {
            self.note_command(central, of).await;
        }
    }

    /// Writes and reports properties so that central shows them as the example does.
    async fn report(&self, central: &Central, of: Identity, shown: Value, root: &str) {
        let mut reported = Map::new();
        for (component, shown) in shown.as_object().unwrap() {
            let mut inner = Map::from_iter([("__t".to_owned(), json!("c"))]);
            let about = shown["$metadata"].as_object().cloned().unwrap_or_default();
            for (name, about) in &about {
                if let Some(desired) = about.get("desiredValue").filter(|_| self.method == Method::GET) {
                    let path = format!("{root}/components/{component}/properties");
                    central.patch(&path, json!({name: desired})).await;
                }
                // A value that is written and was never reported is shown as written.
                let value = shown.get(name).unwrap_or(&about["desiredValue"]);
                let acknowledged = json!({"value": value, "ac": about["ackCode"], "av": about["ackVersion"],
                    "ad": about["ackDescription"]});
                let value = if about.get("ackCode").is_some() { acknowledged } else { value.clone() };
                if !value.is_null() {
                    inner.insert(name.clone(), value);
                }
            }
            reported.insert(component.clone(), inner.into());
        }
        let write = move |c: &_| {
            let section = Section { version: 1, properties: reported };
            Ok::<_, StoreError>(twins::write(c, &of, Half::Reported, &section, clock::now_ms())?)
        };
        central.started.store().submit(write).await.unwrap();
    }

    async fn send_value(&self, central: &Central, from: Identity) {
        let component = self.parameter("componentName");
        let bag = if self.is_of("/components") { format!("%24.sub={component}") } else { String::new() };
        let body = json!({self.parameter("telemetryName"): self.answer["value"]}).to_string().into_bytes();
        let now_ms = clock::now_ms();
        let bag = PropertyBag::parse(&bag);
        let message = NewMessage {
            from,
            enqueued_ms: now_ms,
            received_ms: now_ms,
            bag,
            body,
            place: None,
            generation: None,
        };
        let insert = move |c: &_| {
            let mut writing = Writing::new(c)?;
            writing.insert(&message)?;
            writing.finish()?;
            Ok::<_, StoreError>(())
        };
        central.started.store().submit(insert).await.unwrap();
    }

    async fn note_command(&self, central: &Central, target: Identity) {
        let component = self.parameter("componentName");
        let name = self.parameter("commandName");
        let method_name =
            if self.is_of("/components") { format!("{component}*{name}") } else { name.to_owned() };
        let run = &self.answer["value"][0];
        let command = Command {
            id: uuid(),
            gateway: None,
            target,
            request: MethodRequest {
                method_name,
                payload: run["request"].clone(),
                response_timeout_in_seconds: 30,
                connect_timeout_in_seconds: 0,
            },
            requested_ms: clock::now_ms(),
            deadline_ms: clock::now_ms(),
            valid_until_ms: None,
            from_age_ms: clock::stamp_ms(),
            taken_ms: None,
            ended_ms: Some(clock::now_ms()),
            outcome: None,
        };
        let outcome = Ok(MethodResponse { status: 200, payload: run["response"].clone() });
        let insert = move |c: &_| {
            commands::insert(c, &command)?;
            Ok::<_, StoreError>(commands::end(c, &command.id, &outcome, clock::now_ms())?)
        };
        assert!(central.started.store().submit(insert).await.unwrap());
    }

    async fn arrange_relationships(&self, central: &Central) {
        for id in ["device2", "device3", "device4"] {
            central.send(Method::DELETE, &format!("/api/devices/{id}"), None).await;
            central.put(&format!("/api/devices/{id}"), json!({})).await;
        }
        if self.method == Method::PUT {
            return;
        }
        for (id, target) in [("relationship1", "device2"), ("relationship3", "device4")] {
            let path = format!("/api/devices/device1/relationships/{id}");
            central.put(&path, json!({"source": "device1", "target": target})).await;
        }
    }

    async fn arrange_group(&self, central: &Central, secrets: &Secrets) {
        let path = "/api/enrollmentGroups/myEnrollmentGroupId";
        central.send(Method::DELETE, path, None).await;
        if self.template == "/api/enrollmentGroups/{enrollmentGroupId}" && self.method == Method::PUT {
            return;
        }
        let kind = if self.is_of("/certificates") { "x509" } else { "symmetricKey" };
        let group = json!({"displayName": "My group", "type": "iot", "attestation": {"type": kind}});
        central.put(path, group).await;
        if self.is_of("/certificates") && self.method != Method::PUT {
            let mut certificate = json!({"verified": false, "certificate": "<base64-certificate>"});
            secrets.fill(&mut certificate);
            central.put(&format!("{path}/certificates/primary"), certificate).await;
        }
    }

    /// The body of the example, with what it leaves out.
    async fn body(&self, central: &Central, secrets: &Secrets) -> Option<Value> {
        let mut body = self.parameters.get("body").cloned()?;
        if self.template.ends_with("/verify") {
            let path = self.path().replace("/verify", "/generateVerificationCode");
            let code = central.ok(Method::POST, &path, None).await;
            return Some(json!({"certificate": secrets.proof(code["verificationCode"].as_str().unwrap())}));
        }
        secrets.fill(&mut body);
        Some(body)
    }

    async fn send(&self, central: &Central, secrets: &Secrets) -> (u16, Value) {
        self.arrange(central, secrets).await;
        let (path, body) = (self.path(), self.body(central, secrets).await);
        if !(self.is_of("/commands") && self.method == Method::POST && !self.is_of("/modules")) {
            return central.send(self.method.clone(), &path, body).await;
        }
        let mut device = central.client(self.parameter("deviceId")).await;
        device.subscribe("$iothub/methods/POST/#").await;
        let answer = async {
            let (topic, _) = device.message("$iothub/methods/POST/").await;
            let id = topic.split_once("$rid=").unwrap().1;
            device.publish(&format!("$iothub/methods/res/200/?$rid={id}"), "{}").await;
        };
        tokio::join!(central.send(self.method.clone(), &path, body), answer).0
    }
}

fn uuid() -> String {
    let bytes: [u8; 16] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn every_public_example_of_a_path_that_exists_here_is_answered_as_iot_central_does() {
    let Some(folder) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let secrets = Secrets::new();
    let ours = ours();
    let (mut sent, mut wrong, mut met) = (0, Vec::new(), BTreeSet::new());
    for (method, template, operation) in theirs(&read(&folder.join("2022-07-31.json"))) {
        if !ours.contains_key(&(method.clone(), shape(&template))) {
            continue;
        }
        for example in operation["x-ms-examples"].as_object().unwrap().values() {
            let name = example["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
            let example = read(&folder.join("examples-2022-07-31").join(name));
            let (status, answer) = example["responses"].as_object().unwrap().iter().next().unwrap();
            let answer = answer.get("body").cloned().unwrap_or_default();
            let parameters = example["parameters"].as_object().unwrap();
            let method = method.to_uppercase().parse().unwrap();
            let case = Case { method, template: &template, parameters, answer };
            let (found, body) = case.send(&central, &secrets).await;
            sent += 1;
            let mut missing = Vec::new();
            if found.to_string() == *status {
                compare(&case.answer, &body, "", &mut missing);
            } else {
                missing.push(String::new());
            }
            for path in missing {
                let known = DIFFERENCES.iter().position(|known| {
                    known.example == name
                        && (known.path == path || (!known.path.is_empty() && path.starts_with(known.path)))
                });
                match known {
                    Some(known) => {
                        met.insert(known);
                    }
                    None => {
                        wrong.push(format!("{} {template} {name}: `{path}`: {found} {body}", case.method))
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(sent > 50, "only {sent} examples were sent");
    for (index, known) in DIFFERENCES.iter().enumerate() {
        assert!(
            met.contains(&index),
            "{} {}: no difference any more: {}",
            known.example,
            known.path,
            known.why
        );
    }
    println!("{sent} examples of IoT Central were sent");
    central.end().await;
}

#[test]
fn what_iot_central_lists_of_an_operation_is_here_too() {
    let Some(folder) = folder() else { return };
    let ours = ours();
    let mut wrong = Vec::new();
    for version in ["2022-07-31", "2022-10-31-preview"] {
        let document = read(&folder.join(format!("{version}.json")));
        for (method, path, operation) in theirs(&document) {
            let Some(found) = ours.get(&(method.clone(), shape(&path))) else { continue };
            if path.starts_with(WITHOUT_ETAG) {
                continue;
            }
            let parameters = operation["parameters"].as_array().into_iter().flatten().map(|parameter| {
                let name = parameter["$ref"].as_str().and_then(|name| name.rsplit('/').next());
                name.map_or(parameter, |name| &document["parameters"][name])
            });
            for parameter in parameters.filter(|of| of["in"] == "query" || of["in"] == "header") {
                let known = found["parameters"].as_array().into_iter().flatten();
                let is_known =
                    |known: &Value| known["in"] == parameter["in"] && known["name"] == parameter["name"];
                if !known.into_iter().any(is_known) {
                    wrong.push(format!(
                        "{version} {method} {path}: {} {}",
                        parameter["in"], parameter["name"]
                    ));
                }
            }
            for status in
                operation["responses"].as_object().unwrap().keys().filter(|status| *status != "default")
            {
                if found["responses"].get(status).is_none() {
                    wrong.push(format!("{version} {method} {path}: status {status}"));
                }
            }
            // An etag that IoT Central gives is given here, and is compared.
            let answer = operation["responses"]["200"]["schema"]["$ref"]
                .as_str()
                .and_then(|name| name.rsplit('/').next());
            let has_etag =
                answer.is_some_and(|name| !document["definitions"][name]["properties"]["etag"].is_null());
            let is_compared =
                found["responses"].get("304").is_some() || found["responses"].get("412").is_some();
            if has_etag && !is_compared {
                wrong.push(format!("{version} {method} {path}: etag"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page that lists what IoT Central has and central does not.
#[test]
fn the_page_of_paths_names_every_operation_of_iot_central_that_is_not_here_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating/iot-central-paths.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let listed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .filter(|cell| cell.starts_with('`'))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|quoted| quoted.contains(" /api/"))
        .collect();
    let ours = ours();
    for operation in &listed {
        let (method, path) = operation.split_once(' ').unwrap();
        let is_here = ours.contains_key(&(method.to_lowercase(), shape(path)));
        assert!(!is_here, "{operation} exists here; take it off the page");
    }
    let Some(folder) = folder() else { return };
    let mut missing = BTreeSet::new();
    for version in ["2022-07-31", "2022-10-31-preview"] {
        for (method, path, _) in theirs(&read(&folder.join(format!("{version}.json")))) {
            if !ours.contains_key(&(method.clone(), shape(&path))) {
                missing.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let unlisted: Vec<&String> =
        missing.iter().filter(|operation| !listed.contains(operation.as_str())).collect();
    assert!(unlisted.is_empty(), "not on the page: {unlisted:#?}");
    let unknown: Vec<&&str> = listed.iter().filter(|operation| !missing.contains(**operation)).collect();
    assert!(unknown.is_empty(), "on the page, and not in IoT Central: {unknown:?}");
}
