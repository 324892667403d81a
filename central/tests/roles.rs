//! Roles: which there are, who gets one, and what who lacks a permission learns.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::browser::PASSWORD;
use common::start;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn each_built_in_role_is_assigned_by_its_id_and_by_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    // The last administrator can be made no less.
    central.set_up(dir.path()).await;
    let listed = central.get("/api/roles").await;
    let names: Vec<&str> = listed["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["displayName"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["Administrator", "Builder", "Operator", "Viewer", "Org Admin", "Org Operator", "Org Viewer"]
    );
    for role in central.get("/api/ext/roles").await["value"].as_array().unwrap() {
        let id = role["id"].as_str().unwrap();
        assert_eq!(central.get(&format!("/api/ext/roles/{id}")).await, *role);
        let name = json!({"id": role["id"], "displayName": role["displayName"]});
        assert_eq!(central.get(&format!("/api/roles/{id}")).await, name);
        let body = |role: &str| json!({"type": "email", "email": "u", "roles": [{"role": role}]});
        let assigned = central.send(Method::PUT, "/api/users/u", Some(body(id))).await;
        if role["isOfOrganization"] == true {
            assert_eq!((assigned.0, role["permissions"].as_array().unwrap().len()), (422, 0), "{role}");
            let message = assigned.1["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("roles.0.organization"), "{message}");
            continue;
        }
        assert_eq!((assigned.0, &assigned.1["roles"]), (200, &json!([{"role": id}])), "{role}");
        let word = role["displayName"].as_str().unwrap().to_lowercase();
        assert_eq!(central.put("/api/users/u", body(&word)).await["roles"], json!([{"role": id}]));
        central.ok(Method::POST, "/api/ext/users/u/password", Some(json!({"password": PASSWORD}))).await;
        let session = central.sign_in("u", PASSWORD).await.get("/api/ext/session").await.1;
        assert_eq!(
            (&session["user"]["permissions"], &session["user"]["roleName"]),
            (&role["permissions"], &role["displayName"])
        );
    }
    central.end().await;
}

#[tokio::test]
async fn who_lacks_a_permission_learns_which_one_and_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let operator = central.new_token(Role::Operator).await;
    let (status, answer) = central.send_as(&operator, Method::DELETE, "/api/devices/d", None).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        status == 403
            && message.contains("deviceInstances.delete")
            && message.ends_with("Administrator, Builder"),
        "{message}"
    );
    assert_eq!(central.send_as(&operator, Method::GET, "/api/none", None).await.0, 404);
    assert_eq!(central.send_as(&operator, Method::DELETE, "/api/devices", None).await.0, 404);
    assert_eq!(central.send(Method::DELETE, "/api/devices", None).await.0, 405);
    central.end().await;
}
