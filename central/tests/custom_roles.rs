//! Roles that administrators make: what one is, who may give it, when it counts, and when it may be deleted.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::store::StoreError;
use central::token::Role;
use central_core::access::permission::Permission;
use common::browser::PASSWORD;
use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

const PATH: &str = "/api/ext/roles/night-shift";

/// A role that sees devices and no more.
fn watching() -> Value {
    json!({"displayName": "Night shift", "permissions": ["deviceInstances.view"]})
}

async fn refused(central: &Central, token: &str, method: Method, path: &str, body: Value) -> (u16, String) {
    let (status, answer) = central.send_as(token, method, path, Some(body)).await;
    (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
}

/// A token with a role, made by an administrator.
async fn token(central: &Central, name: &str, role: &str) -> String {
    let made = central.put(&format!("/api/apiTokens/{name}"), json!({"roles": [{"role": role}]})).await;
    made["token"].as_str().unwrap().to_owned()
}

async fn user(central: &Central, name: &str, role: &str) {
    let body = json!({"type": "email", "email": name, "roles": [{"role": role}]});
    central.put(&format!("/api/users/{name}"), body).await;
    let password = format!("/api/ext/users/{name}/password");
    central.ok(Method::POST, &password, Some(json!({"password": PASSWORD}))).await;
}

#[tokio::test]
async fn a_role_is_made_listed_changed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let built_in = central.get("/api/ext/roles").await["value"].as_array().unwrap().len();
    let made = central.put(PATH, watching()).await;
    let expected = json!({
        "id": "night-shift", "displayName": "Night shift", "isBuiltIn": false, "isOfOrganization": false,
        "permissions": ["deviceInstances.view"], "organization": "root",
    });
    assert_eq!(made, expected);
    // An id is the same in capital letters, and stays as it was made.
    assert_eq!(central.get("/api/ext/roles/NIGHT-SHIFT").await, expected);
    let listed = central.get("/api/ext/roles").await;
    assert_eq!(
        (listed["value"].as_array().unwrap().len(), &listed["value"][built_in]),
        (built_in + 1, &made)
    );
    let shown = json!({"id": "night-shift", "displayName": "Night shift"});
    assert_eq!(central.get("/api/roles/night-shift").await, shown);
    assert_eq!(central.get("/api/roles").await["value"][built_in], shown);

    let named = central.patch("/api/ext/roles/Night-Shift", json!({"displayName": "Night"})).await;
    assert_eq!((&named["id"], &named["displayName"]), (&made["id"], &json!("Night")));
    assert_eq!(named["permissions"], made["permissions"]);
    let more = json!({"permissions": ["deviceInstances.update", "deviceInstances.view"]});
    let changed = central.patch(PATH, more).await;
    assert_eq!(changed["permissions"], json!(["deviceInstances.view", "deviceInstances.update"]));
    assert_eq!(changed["displayName"], "Night");

    central.ok(Method::DELETE, PATH, None).await;
    for path in [PATH, "/api/roles/night-shift"] {
        assert_eq!(central.send(Method::GET, path, None).await.0, 404);
    }
    assert_eq!(central.send(Method::DELETE, PATH, None).await.0, 404);
    assert_eq!(central.send(Method::PATCH, PATH, Some(json!({}))).await.0, 404);

    // A row gets its end behind the answer.
    let have_ended = |page: &Value| {
        let rows = page["value"].as_array().unwrap();
        rows.iter().all(|row| !row["status"].is_null()).then(|| rows.clone())
    };
    let rows = central.until("/api/ext/audit?path=/api/ext/roles/night-shift", have_ended).await;
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind && row["status"] == 200).unwrap();
    assert_eq!(of("created")["after"]["displayName"], "Night shift");
    let changed = of("updated");
    assert_eq!(changed["before"], json!({"permissions": ["deviceInstances.view"]}), "the newest");
    assert_eq!(changed["after"], json!({"permissions": ["deviceInstances.view", "deviceInstances.update"]}));
    let deleted = rows.iter().find(|row| row["kind"] == "deleted" && row["status"] == 204).unwrap();
    assert_eq!(deleted["before"]["displayName"], "Night");
    central.end().await;
}

#[tokio::test]
async fn a_wrong_role_is_refused_by_its_field_and_built_in_ones_are_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put(PATH, watching()).await;
    let role = |name: &str, permissions: Value| json!({"displayName": name, "permissions": permissions});
    let views = || json!(["roles.view"]);
    let administrator = "ca310b8d-2f4a-44e0-a36e-957c202cd8d4";
    for (id, body, status, phrase) in [
        ("r", json!({}), 422, "displayName"),
        ("r", role("", views()), 422, "displayName"),
        ("r", role(&"x".repeat(149), views()), 422, "displayName"),
        ("r", role("a\nb", views()), 422, "displayName"),
        ("r", json!({"displayName": "R"}), 422, "permissions"),
        ("r", role("R", json!([])), 422, "permissions"),
        ("r", role("R", json!(["roles.view", "devices.view"])), 422, "permissions[1]: found `devices.view`"),
        ("r", json!({"displayName": "R", "permissions": ["roles.view"], "x": 1}), 422, "x"),
        ("r", json!({"displayName": "R", "permissions": ["roles.view"], "id": "s"}), 422, "id"),
        ("a%20b", role("R", views()), 422, "id"),
        (&"a".repeat(65), role("R", views()), 422, "id"),
        ("r", role("night SHIFT ", views()), 409, "night-shift"),
        ("r", role("administrator", views()), 409, "displayName"),
        ("r", role("Org Viewer", views()), 409, "displayName"),
        ("viewer", role("R", views()), 409, "built in"),
        ("Administrator", role("R", views()), 409, "built in"),
        (administrator, role("R", views()), 409, "built in"),
    ] {
        let path = format!("/api/ext/roles/{id}");
        let (found, message) = refused(&central, &central.token, Method::PUT, &path, body.clone()).await;
        assert!(found == status && message.contains(phrase), "{id} {body}: {found} {message}");
    }
    for method in [Method::PATCH, Method::DELETE] {
        let body = (method == Method::PATCH).then(|| json!({"displayName": "R"}));
        let path = format!("/api/ext/roles/{administrator}");
        assert_eq!(central.send(method, &path, body).await.0, 409);
    }
    // What a permission needs must be there, and the error names both.
    for permission in Permission::all() {
        let body = role("R", json!([permission.id()]));
        let (status, answer) = central.send(Method::PUT, "/api/ext/roles/r", Some(body)).await;
        match permission.needs().first() {
            None => assert_eq!(status, 200, "{answer}"),
            Some(needed) => {
                let message = answer["error"]["message"].as_str().unwrap();
                let expected = format!("{} needs {}", permission.id(), needed.id());
                assert!(status == 422 && message.contains(&expected), "{status} {message}");
            }
        }
    }
    central.end().await;
}

#[tokio::test]
async fn a_changed_role_counts_from_the_next_request_of_its_sessions_and_tokens_on() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    central.put(PATH, watching()).await;
    user(&central, "eve", "Night-Shift").await;
    assert_eq!(central.get("/api/users/eve").await["roles"], json!([{"role": "night-shift"}]));
    let token = token(&central, "t", "night-shift").await;
    let mut browser = central.sign_in("eve", PASSWORD).await;
    let session = browser.get("/api/ext/session").await.1["user"].clone();
    assert_eq!(
        (&session["role"], &session["roleName"], &session["permissions"]),
        (&json!("night-shift"), &json!("Night shift"), &json!(["deviceInstances.view"]))
    );
    let update = || Some(json!({"displayName": "D"}));
    for (permissions, status) in [
        (json!(["deviceInstances.view"]), 403),
        (json!(["deviceInstances.view", "deviceInstances.update"]), 200),
        (json!(["deviceInstances.view"]), 403),
    ] {
        central.patch(PATH, json!({"permissions": permissions})).await;
        assert_eq!(central.send_as(&token, Method::GET, "/api/devices/d", None).await.0, 200);
        assert_eq!(central.send_as(&token, Method::PATCH, "/api/devices/d", update()).await.0, status);
        assert_eq!(browser.get("/api/devices/d").await.0, 200, "the session goes on");
        assert_eq!(browser.send(Method::PATCH, "/api/devices/d", update()).await.0, status);
        assert_eq!(browser.get("/api/ext/session").await.1["user"]["permissions"], permissions);
    }
    central.patch(PATH, json!({"permissions": ["roles.view"]})).await;
    assert_eq!(central.send_as(&token, Method::GET, "/api/devices/d", None).await.0, 403);
    assert_eq!(browser.get("/api/devices/d").await.0, 403);
    // It stays over a restart.
    central.end().await;
    let central = start(dir.path()).await;
    assert_eq!(central.send_as(&token, Method::GET, "/api/devices/d", None).await.0, 403);
    assert_eq!(central.send_as(&token, Method::GET, "/api/roles", None).await.0, 200);
    central.end().await;
}

#[tokio::test]
async fn several_roles_allow_together_what_any_of_them_allows_and_in_an_organization_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put(PATH, watching()).await;
    let templates = json!({"displayName": "Templates", "permissions": ["deviceTemplates.view"]});
    central.put("/api/ext/roles/templates", templates).await;
    let roles = json!([
        {"role": "night-shift"},
        {"role": "templates", "organization": "seattle"},
        {"role": "night-shift"},
    ]);
    let made = central.put("/api/apiTokens/one", json!({"roles": roles})).await;
    assert_eq!(made["roles"], roles);
    assert_eq!(central.get("/api/apiTokens/one").await["roles"], roles);
    let one = made["token"].as_str().unwrap();
    assert_eq!(central.send_as(one, Method::GET, "/api/devices", None).await.0, 200);
    assert_eq!(central.send_as(one, Method::GET, "/api/deviceTemplates", None).await.0, 403);
    let both = json!({"roles": [{"role": "templates"}, {"role": "night-shift"}]});
    let both = central.put("/api/apiTokens/both", both).await["token"].as_str().unwrap().to_owned();
    for path in ["/api/devices", "/api/deviceTemplates"] {
        assert_eq!(central.send_as(&both, Method::GET, path, None).await.0, 200, "{path}");
    }
    let beside = json!({"roles": [{"role": "viewer"}, {"role": "night-shift"}]});
    let beside = central.put("/api/apiTokens/beside", beside).await["token"].as_str().unwrap().to_owned();
    assert_eq!(central.send_as(&beside, Method::GET, "/api/deploymentManifests", None).await.0, 200);
    for (roles, phrase) in [
        (json!([{"role": "templates", "organization": "seattle"}]), "none for the whole site"),
        (json!([{"role": "templates", "organization": "Seattle"}]), "roles.0.organization"),
        (json!([{"role": "viewer"}, {"role": "none"}]), "roles.1.role"),
    ] {
        let body = json!({"roles": roles});
        let (status, message) =
            refused(&central, &central.token, Method::PUT, "/api/apiTokens/x", body).await;
        assert!(status == 422 && message.contains(phrase), "{status} {message}");
    }
    // In an organization it is in use as well.
    let (status, answer) = central.send(Method::DELETE, "/api/ext/roles/templates", None).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 409 && message.contains("0 users and 2 API tokens"), "{status} {message}");
    central.end().await;
}

#[tokio::test]
async fn a_role_in_use_is_deleted_once_nobody_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put(PATH, watching()).await;
    user(&central, "u1", "night-shift").await;
    let (status, answer) = central.send(Method::DELETE, PATH, None).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 409 && message.contains("1 user and 0 API tokens;"), "{status} {message}");
    user(&central, "u2", "night-shift").await;
    token(&central, "t", "night-shift").await;
    let deleted = async || {
        let (status, answer) = central.send(Method::DELETE, PATH, None).await;
        (status, answer["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let (status, message) = deleted().await;
    assert!(status == 409 && message.contains("2 users and 1 API token;"), "{status} {message}");
    central.patch("/api/users/u1", json!({"roles": [{"role": "viewer"}]})).await;
    central.ok(Method::DELETE, "/api/users/u2", None).await;
    assert!(deleted().await.1.contains("0 users and 1 API token;"));
    central.ok(Method::DELETE, "/api/apiTokens/t", None).await;
    assert_eq!(deleted().await.0, 204);
    assert_eq!(central.get("/api/users/u1").await["roles"], json!([{"role": "viewer"}]));
    central.end().await;
}

#[tokio::test]
async fn nobody_gives_a_permission_that_they_do_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    user(&central, "admin-2", "administrator").await;
    let of_people =
        ["roles.view", "roles.manage", "users.view", "users.manage", "apiTokens.view", "apiTokens.create"];
    let people = json!({"displayName": "People", "permissions": of_people});
    central.put("/api/ext/roles/people", people).await;
    central.put(PATH, watching()).await;
    let people = token(&central, "people", "people").await;
    let session = |password: &str| json!({"password": password});
    let email = |role: &str| json!({"type": "email", "email": "eve", "roles": [{"role": role}]});
    for (method, path, body, lacked) in [
        (Method::PUT, "/api/ext/roles/mine", watching(), "deviceInstances.view"),
        (Method::PATCH, "/api/ext/roles/people", json!({"permissions": ["auditLog.view"]}), "auditLog.view"),
        // What it has stays what it has, and its name is given anew with it.
        (Method::PATCH, PATH, json!({"displayName": "Mine"}), "deviceInstances.view"),
        (Method::PUT, "/api/users/eve", email("administrator"), "deviceTemplates.view"),
        (Method::PUT, "/api/users/eve", email("night-shift"), "deviceInstances.view"),
        (Method::PATCH, "/api/users/admin-2", json!({"roles": [{"role": "viewer"}]}), "deviceTemplates.view"),
        (
            Method::PUT,
            "/api/apiTokens/mine",
            json!({"roles": [{"role": "operator"}]}),
            "deviceTemplates.view",
        ),
        (
            Method::PUT,
            "/api/apiTokens/mine",
            json!({"roles": [{"role": "people"}, {"role": "night-shift"}]}),
            "deviceInstances.view",
        ),
        // Whoever knows the password may do what the user may.
        (Method::POST, "/api/ext/users/admin-2/password", session("another horse battery"), "admin-2"),
    ] {
        let (status, message) = refused(&central, &people, method.clone(), path, body.clone()).await;
        assert!(status == 403 && message.contains(lacked), "{method} {path} {body}: {status} {message}");
    }
    for (method, path, body) in [
        (
            Method::PUT,
            "/api/ext/roles/mine",
            json!({"displayName": "Mine", "permissions": ["roles.view", "users.view"]}),
        ),
        (Method::PUT, "/api/users/eve", email("mine")),
        (Method::POST, "/api/ext/users/eve/password", session(PASSWORD)),
        (Method::PUT, "/api/users/eve", email("people")),
        (Method::PUT, "/api/apiTokens/other", json!({"roles": [{"role": "mine"}]})),
    ] {
        let (status, answer) = central.send_as(&people, method.clone(), path, Some(body)).await;
        assert!([200, 204].contains(&status), "{method} {path}: {status} {answer}");
    }
    // The administrator is as before.
    assert!(central.sign_in("admin-2", PASSWORD).await.is_signed_in().await);
    let operator = central.new_token(Role::Operator).await;
    assert_eq!(central.send_as(&operator, Method::PUT, PATH, Some(watching())).await.0, 403);
    central.end().await;
}

#[tokio::test]
async fn a_site_has_at_most_a_hundred_roles_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let body =
        |number: usize| json!({"displayName": format!("Role {number}"), "permissions": ["roles.view"]});
    for number in 0..100 {
        central.put(&format!("/api/ext/roles/r{number}"), body(number)).await;
    }
    let (status, message) =
        refused(&central, &central.token, Method::PUT, "/api/ext/roles/r100", body(100)).await;
    assert!(status == 409 && message.contains("100 roles"), "{status} {message}");
    central.put("/api/ext/roles/r7", body(7)).await;
    central.ok(Method::DELETE, "/api/ext/roles/r7", None).await;
    central.put("/api/ext/roles/r100", body(100)).await;
    assert_eq!(central.get("/api/ext/roles").await["value"].as_array().unwrap().len(), 107);
    central.end().await;
}

#[tokio::test]
async fn a_role_that_cannot_be_read_allows_nothing_and_is_healed_by_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put(PATH, watching()).await;
    let token = token(&central, "t", "night-shift").await;
    for damage in ["{broken", "[\"devices.view\"]", "7"] {
        let statement = format!("UPDATE roles SET permissions = '{damage}'");
        let work = central.started.store().submit(move |c| Ok::<_, StoreError>(c.execute(&statement, [])?));
        assert_eq!(work.await.unwrap(), 1);
        assert_eq!(central.send_as(&token, Method::GET, "/api/devices", None).await.0, 403, "{damage}");
        assert_eq!(central.get("/api/apiTokens/t").await["roles"], json!([{"role": "night-shift"}]));
        assert_eq!(central.get("/api/roles").await["value"].as_array().unwrap().len(), 7);
        central.put(PATH, watching()).await;
        assert_eq!(central.send_as(&token, Method::GET, "/api/devices", None).await.0, 200, "{damage}");
    }
    central.end().await;
}
