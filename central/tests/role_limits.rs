//! What a custom role does not allow: parts of requests that do what another permission is for, and changes of people and tokens by
//! who may not make them, or not any more.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::store::StoreError;
use central_core::access::further::{ALWAYS, FURTHER, Further};
use central_core::access::permission::{Permission, Permissions};
use common::browser::{Browser, PASSWORD};
use common::{Central, STEP, start};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";
const THUMBPRINT: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

/// Makes a role or changes it.
async fn role(central: &Central, id: &str, permissions: Permissions) {
    let ids: Vec<&str> = permissions.iter().map(Permission::id).collect();
    let body = json!({"displayName": format!("Role {id}"), "permissions": ids});
    central.put(&format!("/api/ext/roles/{id}"), body).await;
}

/// A token with a role of these permissions and what they need, both of this name, in place of an earlier one.
async fn token(central: &Central, name: &str, permissions: &[Permission]) -> String {
    role(central, name, Permissions::of(permissions).with_needs()).await;
    let _ = central.send(Method::DELETE, &format!("/api/apiTokens/{name}"), None).await;
    let body = json!({"roles": [{"role": name}]});
    let made = central.put(&format!("/api/apiTokens/{name}"), body).await;
    made["token"].as_str().unwrap().to_owned()
}

/// A user with these roles, in a browser.
async fn user(central: &Central, name: &str, roles: &[&str]) -> Browser {
    central.put(&format!("/api/users/{name}"), person(name, roles)).await;
    let password = format!("/api/ext/users/{name}/password");
    central.ok(Method::POST, &password, Some(json!({"password": PASSWORD}))).await;
    central.sign_in(name, PASSWORD).await
}

fn person(email: &str, roles: &[&str]) -> Value {
    let roles: Vec<Value> = roles.iter().map(|role| json!({"role": role})).collect();
    json!({"type": "email", "email": email, "roles": roles})
}

/// The status and, of a refusal, its message.
async fn send(
    central: &Central,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, String) {
    let (status, answer) = central.send_as(token, method, path, body).await;
    (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// Changes rows of the store as damage would.
async fn in_store(central: &Central, statement: &'static str) {
    let work = central.started.store().submit(move |c| Ok::<_, StoreError>(c.execute(statement, [])?));
    assert_eq!(work.await.unwrap(), 1, "{statement}");
}

fn manifest() -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "sensor": {"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": "sensor:1", "createOptions": "{}"}}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}}}})
}

fn csv(column: &str, value: &str) -> Value {
    json!({"csv": format!("IOTC_DEVICEID,{column}\r\npress-9,{value}\r\n")})
}

/// A request for an operation, with a part that needs another permission, or without it.
fn request(operation: &str, part: &str, has_part: bool) -> (Method, String, Option<Value>) {
    let (method, path) = operation.split_once(' ').unwrap();
    let method: Method = method.parse().unwrap();
    let module = if part.contains("$edgeAgent") && has_part { "$edgeAgent" } else { "sensor" };
    let mut path = path
        .replace("{device_id}", "gw")
        .replace("{module_name}", module)
        .replace("{component_name}", "modules");
    let mut body = (method != Method::GET).then(|| json!({}));
    match part {
        "deploymentManifest" if has_part => body = Some(json!({"deploymentManifest": null})),
        "expand=deploymentManifest" if has_part => path += "?expand=deploymentManifest",
        "a module $edgeAgent or $edgeHub" if path.ends_with("/twin") => path += &format!("?module={module}"),
        "enabled of a device that waits for approval" if has_part => body = Some(json!({"enabled": true})),
        "csv with keys or thumbprints" if has_part => body = Some(csv("IOTC_SASKEY_PRIMARY", KEY)),
        "csv with keys or thumbprints" => body = Some(csv("IOTC_DEVICENAME", "Press 9")),
        "keys" if has_part => body = Some(json!({"keys": true})),
        "every request" => assert!(has_part),
        _ => assert!(!has_part || part.contains("$edgeAgent"), "{part} is not known here"),
    }
    (method, path, body)
}

/// Generated: whoever has every permission but one, and those that need it, is refused exactly the part that the one is for.
#[tokio::test]
async fn each_part_with_a_permission_of_its_own_is_refused_to_who_has_all_others() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central
        .put("/api/devices/gw", json!({"type": ["iotEdge"], "deploymentManifest": {"data": manifest()}}))
        .await;
    for Further { part, permission, operations } in FURTHER {
        let without = |other: &Permission| !Permissions::of(&[*other]).with_needs().has(*permission);
        let others: Vec<Permission> = Permission::all().filter(without).collect();
        let name = permission.id().to_lowercase();
        let others = token(&central, &name, &others).await;
        for operation in *operations {
            in_store(&central, "UPDATE devices SET is_waiting = 1 WHERE id = 'gw'").await;
            let (method, path, body) = request(operation, part, true);
            let (status, message) = send(&central, &others, method.clone(), &path, body.clone()).await;
            let names_it = (*part == ALWAYS || message.contains(part)) && message.contains(permission.id());
            assert!(status == 403 && names_it, "{operation} with {part}: {status} {message}");
            let (status, _) = send(&central, &central.token, method, &path, body).await;
            assert!(![401, 403].contains(&status), "{operation} with {part} by an administrator: {status}");
            if *part != ALWAYS {
                let (method, path, body) = request(operation, part, false);
                let (status, message) = send(&central, &others, method, &path, body).await;
                assert!(![401, 403].contains(&status), "{operation} without {part}: {status} {message}");
            }
        }
    }
    central.end().await;
}

#[tokio::test]
async fn a_manifest_is_assigned_by_a_device_only_by_who_may_deploy() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/deploymentManifests/line", json!({"data": manifest()})).await;
    central.put("/api/devices/gw", json!({"type": ["iotEdge"], "deploymentManifest": {"id": "line"}})).await;
    let updates = token(&central, "updates", &[Permission::DeviceInstancesCreate]).await;
    let deploys =
        token(&central, "deploys", &[Permission::DeviceInstancesCreate, Permission::EdgeManifestsDeploy])
            .await;
    let full = "/api/devices/gw?expand=deploymentManifest";
    let before = central.get(full).await;
    for assignment in [json!({"id": "line"}), json!({"data": manifest()}), Value::Null] {
        for (method, path) in [
            (Method::PUT, "/api/devices/gw"),
            (Method::PATCH, "/api/devices/gw"),
            (Method::PUT, "/api/devices/new"),
        ] {
            let body = json!({"type": ["iotEdge"], "deploymentManifest": assignment});
            let (status, message) = send(&central, &updates, method.clone(), path, Some(body)).await;
            let names_it = message.contains("deploymentManifest") && message.contains("edgeManifests.deploy");
            assert!(status == 403 && names_it, "{method} {path} {assignment}: {status} {message}");
        }
    }
    assert_eq!(central.get(full).await, before, "nothing of the device has changed");
    assert_eq!(central.send(Method::GET, "/api/devices/new", None).await.0, 404);
    let renamed = json!({"displayName": "Gateway"});
    assert_eq!(send(&central, &updates, Method::PATCH, "/api/devices/gw", Some(renamed)).await.0, 200);
    let (status, _) = send(&central, &updates, Method::GET, full, None).await;
    assert_eq!(status, 403, "it sees no manifests");
    for assignment in [Value::Null, json!({"data": manifest()})] {
        let body = json!({"deploymentManifest": assignment});
        let (status, message) = send(&central, &deploys, Method::PATCH, full, Some(body)).await;
        assert_eq!(status, 200, "{message}");
    }
    central.end().await;
}

#[tokio::test]
async fn keys_and_thumbprints_are_imported_only_by_who_may_set_them() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let creates = token(&central, "creates", &[Permission::DeviceInstancesCreate]).await;
    for (column, value) in [
        ("IOTC_SASKEY_PRIMARY", KEY.to_owned()),
        ("IOTC_SASKEY_PRIMARY,IOTC_SASKEY_SECONDARY", format!("{KEY},{KEY}")),
        ("IOTC_X509THUMBPRINT_PRIMARY", THUMBPRINT.to_owned()),
        // Also behind lines that cannot be read, and lines without any.
        ("IOTC_X509THUMBPRINT_PRIMARY", format!("\r\n,no id\r\npress-8,{THUMBPRINT}")),
    ] {
        for path in ["/api/ext/devices/import", "/api/ext/devices/import/preview"] {
            let (status, message) =
                send(&central, &creates, Method::POST, path, Some(csv(column, &value))).await;
            let names_it = message.contains("csv") && message.contains("connectivity.manageInstance");
            assert!(status == 403 && names_it, "{path} {column}: {status} {message}");
        }
    }
    assert_eq!(central.get("/api/ext/operations").await["value"], json!([]), "none was begun");
    // An empty column is no key, and a line that cannot be done sets none.
    let plain = csv("IOTC_SASKEY_PRIMARY,IOTC_SASKEY_SECONDARY", &format!(",\r\npress-8,,{KEY}"));
    let (status, message) =
        send(&central, &creates, Method::POST, "/api/ext/devices/import", Some(plain)).await;
    assert_eq!(status, 202, "{message}");
    central.end().await;
}

#[tokio::test]
async fn a_token_works_that_somebody_made_who_may_see_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let makes = token(&central, "makes", &[Permission::ApiTokensCreate]).await;
    let body = Some(json!({"roles": [{"role": "makes"}]}));
    let (status, made) = central.send_as(&makes, Method::PUT, "/api/apiTokens/made", body).await;
    assert_eq!(status, 200, "{made}");
    let line = made["token"].as_str().unwrap();
    let (status, shown) = central.send_as(line, Method::GET, "/api/apiTokens/made", None).await;
    assert_eq!((status, shown.get("token")), (200, None), "it is shown once");
    let audited = central.get("/api/ext/audit?path=/api/apiTokens/made").await.to_string();
    assert!(audited.contains("/api/apiTokens/made") && !audited.contains("sig="), "{audited}");
    central.end().await;
}

/// A request of which central has the head and waits for the body.
struct Half {
    stream: TcpStream,
    body: String,
}

impl Half {
    /// The interim answer says that the request was admitted.
    async fn begin(central: &Central, token: &str, (method, path, body): (&str, &str, Value)) -> Self {
        let mut stream = TcpStream::connect(central.started.http).await.unwrap();
        let body = body.to_string();
        let head = format!(
            "{method} {path}?api-version=2022-10-31-preview HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
        tokio::time::timeout(STEP, stream.read_exact(&mut interim)).await.unwrap().unwrap();
        assert!(interim.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&interim));
        Self { stream, body }
    }

    /// Sends the body, and gives the status.
    async fn end(mut self) -> u16 {
        self.stream.write_all(self.body.as_bytes()).await.unwrap();
        let mut line = [0; "HTTP/1.1 200".len()];
        tokio::time::timeout(STEP, self.stream.read_exact(&mut line)).await.unwrap().unwrap();
        std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn who_was_revoked_while_a_request_arrived_gives_nobody_anything_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    user(&central, "eve", &["viewer"]).await;
    role(&central, "other", Permissions::of(&[Permission::RolesView])).await;
    let all: Vec<Permission> = Permission::all().collect();
    let mut hasty = token(&central, "hasty", &all).await;
    let requests = || {
        [
            ("PUT", "/api/users/mallory", person("mallory", &["administrator"])),
            ("PATCH", "/api/users/eve", json!({"roles": [{"role": "administrator"}]})),
            ("POST", "/api/ext/users/eve/password", json!({"password": "another horse battery"})),
            ("PUT", "/api/apiTokens/mallory", json!({"roles": [{"role": "administrator"}]})),
            ("PUT", "/api/ext/roles/mallory", json!({"displayName": "M", "permissions": ["roles.view"]})),
            ("PATCH", "/api/ext/roles/other", json!({"displayName": "Mine"})),
        ]
    };
    // Once the role has lost all but one permission, and once the token is revoked.
    for (status, method) in [(403, Method::PUT), (401, Method::DELETE)] {
        for request in requests() {
            let (_, path, _) = request;
            let half = Half::begin(&central, &hasty, request).await;
            if method == Method::PUT {
                role(&central, "hasty", Permissions::of(&[Permission::DeviceInstancesView])).await;
            } else {
                central.ok(Method::DELETE, "/api/apiTokens/hasty", None).await;
            }
            assert_eq!(half.end().await, status, "{path}");
            hasty = token(&central, "hasty", &all).await;
        }
    }
    for path in ["/api/users/mallory", "/api/apiTokens/mallory", "/api/ext/roles/mallory"] {
        assert_eq!(central.send(Method::GET, path, None).await.0, 404, "{path}");
    }
    assert_eq!(central.get("/api/ext/roles/other").await["displayName"], "Role other");
    assert_eq!(central.get("/api/users/eve").await["roles"], json!([{"role": viewer_id()}]));
    assert!(central.sign_in("eve", PASSWORD).await.is_signed_in().await, "the password is the old one");
    central.end().await;
}

/// As IoT Central's API shows the viewer's role.
fn viewer_id() -> &'static str {
    central::people::roles::of(central::token::Role::Viewer).id
}

#[tokio::test]
async fn another_name_to_sign_in_with_is_given_only_by_who_may_do_as_much() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let mut admin = user(&central, "admin-2", &["administrator"]).await;
    let people = token(&central, "people", &[Permission::UsersManage]).await;
    user(&central, "eve", &["people"]).await;
    for (method, body) in
        [(Method::PATCH, json!({"email": "lost"})), (Method::PUT, person("lost", &["people"]))]
    {
        let (status, message) = send(&central, &people, method, "/api/users/admin-2", Some(body)).await;
        assert!(status == 403 && message.contains("may do more"), "{status} {message}");
    }
    assert!(admin.is_signed_in().await);
    assert!(central.sign_in("admin-2", PASSWORD).await.is_signed_in().await);
    for (id, email) in [("admin-2", "admin-2"), ("eve", "eve-2")] {
        let body = Some(json!({"email": email}));
        let (status, message) =
            send(&central, &people, Method::PATCH, &format!("/api/users/{id}"), body).await;
        assert_eq!(status, 200, "{id}: {message}");
    }
    // One's own is one's own, and who may do everything renames anybody.
    let (status, answer) =
        admin.send(Method::PATCH, "/api/users/admin-2", Some(json!({"email": "admin-3"}))).await;
    assert_eq!(status, 200, "{answer}");
    central.patch("/api/users/admin-2", json!({"email": "admin-4"})).await;
    central.end().await;
}

/// The overview and the causes of a silence are made of several things, of which each has a permission.
#[tokio::test]
async fn an_answer_made_of_many_things_has_only_those_that_its_reader_may_see() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    central.put("/api/devices/press-1", json!({})).await;
    let group = json!({"displayName": "Line 4", "attestation": {"type": "symmetricKey"}});
    central.put("/api/enrollmentGroups/line-4", group).await;
    user(&central, "hidden-user", &["viewer"]).await;
    let mut wrong = central.client_with_key("press-1", b"another key");
    assert!(wrong.events.poll().await.is_err());
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    central.put("/api/devices/press-2", json!({})).await;
    central.put("/api/devices/gw/relationships/r", json!({"name": "r", "target": "press-2"})).await;
    let mut gateway = central.client("gw").await;
    let refusal = json!({"identity": "press-2", "why": "the token is signed with another key", "from": "192.0.2.7",
        "protocol": "MQTT 5", "first": "2026-11-30T00:00:00Z", "last": "2026-11-30T00:00:00Z", "count": 3});
    let health = json!({"updated": "2026-11-30T00:00:00Z", "findings": [], "refusals": [refusal]});
    let report =
        json!({"$version": 1, "lastDesiredVersion": 1, "lastDesiredStatus": {"code": 200}, "health": health});
    gateway.publish("$ls/reported/gw/$edgeAgent", report.to_string()).await;
    let behind = "/api/ext/devices/press-2/why";
    central.until(behind, |answer| answer.to_string().contains("192.0.2.7").then_some(())).await;
    let devices = token(&central, "devices", &[Permission::DeviceInstancesView]).await;
    let connectivity =
        token(&central, "hidden-token", &[Permission::DeviceInstancesView, Permission::ConnectivityView])
            .await;
    let auditor =
        token(&central, "auditor", &[Permission::DeviceInstancesView, Permission::AuditLogView]).await;
    let why = "/api/ext/devices/press-1/why";
    central.until(why, |answer| (answer["causes"][0]["id"] == "wrong-key").then_some(())).await;
    for (token, sees_attempts, sees_people) in
        [(&devices, false, false), (&connectivity, true, false), (&auditor, false, true)]
    {
        let (_, answer) = central.send_as(token, Method::GET, behind, None).await;
        assert_eq!(answer.to_string().contains("192.0.2.7"), sees_attempts, "{answer}");
        for path in [why, "/api/ext/overview"] {
            let (status, answer) = central.send_as(token, Method::GET, path, None).await;
            assert_eq!(status, 200, "{path}: {answer}");
            let answer = answer.to_string();
            assert_eq!(answer.contains("wrong-key"), sees_attempts, "{path}: {answer}");
            if path == why {
                continue;
            }
            for name in ["/api/users/hidden-user", "/api/apiTokens/hidden-token", "/api/ext/roles/auditor"] {
                assert_eq!(answer.contains(name), sees_people, "{name}: {answer}");
            }
            for name in ["/api/devices/press-1", "/api/enrollmentGroups/line-4"] {
                assert!(answer.contains(name), "{name}: {answer}");
            }
        }
    }
    central.end().await;
}

/// Who takes away what others may do, to sign in as them once they may do it again.
#[tokio::test]
async fn nobody_takes_anything_from_who_may_do_more() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let people =
        [Permission::UsersManage, Permission::UsersDelete, Permission::RolesManage, Permission::RolesDelete];
    let people = token(&central, "people", &people).await;
    role(&central, "engineer", Permissions::of(&[Permission::DeviceInstancesView])).await;
    role(&central, "unused", Permissions::of(&[Permission::DeviceInstancesView])).await;
    user(&central, "admin-2", &["administrator"]).await;
    let narrow = json!({"displayName": "Role engineer", "permissions": ["roles.view"]});
    for target in [&["administrator"][..], &["builder", "people"], &["engineer"], &["people", "engineer"]] {
        let mut browser = user(&central, "eve", target).await;
        let requests = [
            (Method::PATCH, "/api/users/eve", json!({"roles": [{"role": "people"}]})),
            (Method::PUT, "/api/users/eve", person("eve", &["people"])),
            (Method::DELETE, "/api/users/eve", Value::Null),
            (Method::PATCH, "/api/ext/roles/engineer", json!({"permissions": ["roles.view"]})),
            (Method::PUT, "/api/ext/roles/engineer", narrow.clone()),
            (Method::PATCH, "/api/ext/roles/engineer", json!({"displayName": "Mine"})),
            (Method::DELETE, "/api/ext/roles/unused", Value::Null),
        ];
        for (method, path, body) in requests {
            let body = (!body.is_null()).then_some(body);
            let (status, message) = send(&central, &people, method.clone(), path, body).await;
            assert_eq!(status, 403, "{method} {path} of {target:?}: {message}");
            assert!(message.contains("only who"), "{message}");
        }
        assert!(browser.is_signed_in().await, "{target:?}");
    }
    assert_eq!(central.get("/api/ext/roles/engineer").await["displayName"], "Role engineer");
    // Who has all that somebody may do changes and removes it.
    user(&central, "eve", &["people"]).await;
    role(&central, "unused", Permissions::of(&[Permission::RolesView])).await;
    for (method, path, body) in [
        (Method::PATCH, "/api/ext/roles/unused", Some(json!({"displayName": "Mine"}))),
        (Method::DELETE, "/api/ext/roles/unused", None),
        (Method::PATCH, "/api/users/eve", Some(json!({"roles": [{"role": "people"}]}))),
        (Method::DELETE, "/api/users/eve", None),
    ] {
        let (status, message) = send(&central, &people, method.clone(), path, body).await;
        assert!(matches!(status, 200 | 204), "{method} {path}: {status} {message}");
    }
    central.end().await;
}

#[tokio::test]
async fn a_user_whose_role_cannot_be_read_may_do_everything_as_far_as_its_password_goes() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let people = token(&central, "people", &[Permission::UsersManage]).await;
    role(&central, "night-shift", Permissions::ALL).await;
    user(&central, "eve", &["people", "night-shift"]).await;
    in_store(&central, "UPDATE roles SET permissions = '{broken' WHERE id = 'night-shift'").await;
    let password = || Some(json!({"password": "another horse battery"}));
    for (method, path, body) in [
        (Method::POST, "/api/ext/users/eve/password", password()),
        (Method::PATCH, "/api/users/eve", Some(json!({"email": "lost"}))),
        // The same as what can be read of them: what cannot be read would be gone.
        (Method::PUT, "/api/users/eve", Some(person("eve", &["people"]))),
    ] {
        let (status, message) = send(&central, &people, method, path, body).await;
        assert!(status == 403 && message.contains("may do more"), "{path}: {status} {message}");
    }
    assert!(central.sign_in("eve", PASSWORD).await.is_signed_in().await);
    central.ok(Method::POST, "/api/ext/users/eve/password", password()).await;
    // Given by name, it would be given again once it is whole.
    role(&central, "night-shift", Permissions::of(&[Permission::RolesView])).await;
    let (status, message) =
        send(&central, &people, Method::POST, "/api/ext/users/eve/password", password()).await;
    assert_eq!(status, 204, "{message}");
    central.end().await;
}

#[tokio::test]
async fn roles_that_cannot_be_read_are_not_taken_away_with_another_change() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    role(&central, "night-shift", Permissions::of(&[Permission::DeviceInstancesView])).await;
    let mut browser = user(&central, "eve", &["night-shift"]).await;
    in_store(&central, "UPDATE users SET roles = '{broken' WHERE id = 'eve'").await;
    let renamed = || json!({"email": "eve-2"});
    let (status, message) =
        send(&central, &central.token, Method::PATCH, "/api/users/eve", Some(renamed())).await;
    assert!(status == 409 && message.contains("roles") && message.contains("`eve`"), "{status} {message}");
    assert_eq!(central.get("/api/users/eve").await["email"], "eve");
    assert_eq!(browser.get("/api/devices").await.0, 200, "the role is there");
    let whole = json!({"email": "eve-2", "roles": [{"role": "night-shift"}]});
    central.patch("/api/users/eve", whole.clone()).await;
    assert_eq!(central.get("/api/users/eve").await["roles"], whole["roles"]);
    central.patch("/api/users/eve", renamed()).await;
    assert_eq!(browser.get("/api/devices").await.0, 200);
    central.end().await;
}

#[tokio::test]
async fn the_same_roles_again_end_no_session_whatever_the_case_of_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    for id in ["a", "B", "c"] {
        role(&central, id, Permissions::of(&[Permission::RolesView])).await;
    }
    let mut browser = user(&central, "eve", &["a", "B", "c"]).await;
    for roles in [["a", "B", "c"], ["C", "b", "A"]] {
        central.put("/api/users/eve", person("eve", &roles)).await;
        assert!(browser.is_signed_in().await, "{roles:?}");
    }
    central.put("/api/users/eve", person("eve", &["a", "B"])).await;
    assert!(!browser.is_signed_in().await, "other roles");
    central.end().await;
}
