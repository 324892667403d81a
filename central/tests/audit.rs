//! The audit log: a row for every change that is asked for, and none of its secrets.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::browser::{ADMIN, PASSWORD};
use common::described::concrete;
use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

/// The newest completed row of a path.
async fn row(central: &Central, method: &str, path: &str) -> Value {
    let query = format!("/api/ext/audit?path={path}");
    let find = |page: &Value| {
        let rows = page["value"].as_array()?;
        rows.iter()
            .find(|row| row["method"] == method && row["path"] == path && !row["status"].is_null())
            .cloned()
    };
    central.until(&query, find).await
}

#[tokio::test]
async fn every_change_that_is_described_leaves_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let document = central.get("/openapi.json").await;
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        for name in item.as_object().unwrap().keys().filter(|name| *name != "get") {
            let path = concrete(template);
            let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
            let body = match path.as_str() {
                // Open to everybody: only who was looked at leaves a row, or strangers would fill the log.
                "/api/ext/session" if method == Method::POST => {
                    Some(json!({"user": ADMIN, "password": "a wrong one"}))
                }
                "/api/ext/setup" => continue,
                _ => (method != Method::DELETE).then(|| json!({})),
            };
            let (status, _) = central.send(method.clone(), &path, body).await;
            let row = row(&central, method.as_str(), &path).await;
            assert_eq!(row["status"], status, "{name} {template}: {row}");
            assert!(row["at"].as_str().unwrap().ends_with('Z') && row["address"] == "127.0.0.1", "{row}");
            let is_token = row["whoKind"] == "token" && row["who"].as_str().unwrap().starts_with("token-");
            assert!(is_token || row["kind"] == "refused", "{name} {template}: {row}");
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
    central.end().await;
}

#[tokio::test]
async fn a_row_says_who_did_what_from_where_and_what_was_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut admin = central.set_up(dir.path()).await;
    let path = "/api/devices/press";
    admin.send(Method::PUT, path, Some(json!({"displayName": "Press"}))).await;
    let created = row(&central, "PUT", path).await;
    assert_eq!(
        (&created["kind"], &created["who"], &created["whoKind"]),
        (&json!("created"), &json!(ADMIN), &json!("user"))
    );
    assert_eq!((&created["before"], &created["after"]["displayName"]), (&Value::Null, &json!("Press")));
    assert_eq!(created["organization"], "root");

    central.patch(path, json!({"enabled": false})).await;
    let changed = row(&central, "PATCH", path).await;
    assert_eq!((&changed["kind"], &changed["whoKind"]), (&json!("updated"), &json!("token")));
    assert_eq!(
        (&changed["before"], &changed["after"]),
        (&json!({"enabled": true}), &json!({"enabled": false}))
    );

    let (status, _) = central.send(Method::PATCH, path, Some(json!({"enabled": "no"}))).await;
    let refused = central
        .until("/api/ext/audit?limit=1", |page| {
            Some(page["value"][0].clone()).filter(|row| row["status"] == status)
        })
        .await;
    assert_eq!((&refused["before"], &refused["after"]), (&Value::Null, &Value::Null), "nothing was changed");

    let viewer = central.new_token(Role::Viewer).await;
    assert_eq!(central.send_as(&viewer, Method::DELETE, path, None).await.0, 403);
    let refused = row(&central, "DELETE", path).await;
    assert_eq!((&refused["kind"], &refused["status"]), (&json!("refused"), &json!(403)));

    let command = format!("{path}/commands/stop");
    central.send(Method::POST, &command, Some(json!({"request": {"line": 1}, "validFor": "PT1H"}))).await;
    let entry = row(&central, "POST", &command).await;
    assert_eq!(entry["kind"], "command", "{entry}");

    admin.send(Method::DELETE, path, None).await;
    let deleted = central
        .until(&format!("/api/ext/audit?path={path}&who={ADMIN}"), |page| {
            page["value"]
                .as_array()?
                .iter()
                .find(|row| row["kind"] == "deleted" && !row["status"].is_null())
                .cloned()
        })
        .await;
    assert_eq!((&deleted["before"]["displayName"], &deleted["after"]), (&json!("Press"), &Value::Null));

    admin.send(Method::DELETE, "/api/ext/session", None).await;
    assert_eq!(row(&central, "DELETE", "/api/ext/session").await["kind"], "signOut");
    central.end().await;
}

#[tokio::test]
async fn sign_ins_and_refused_ones_are_there_and_what_a_stranger_typed_as_a_name_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let (status, _) = central
        .browser()
        .send(Method::POST, "/api/ext/setup", Some(json!({"code": "x", "user": "u", "password": PASSWORD})))
        .await;
    assert_eq!(status, 401);
    assert_eq!(row(&central, "POST", "/api/ext/setup").await["kind"], "refused");
    central.set_up(dir.path()).await;
    let kinds = |page: &Value| -> Vec<(String, String, u64)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows = page["value"].as_array().unwrap().iter();
        rows.map(|row| (text(&row["kind"]), text(&row["who"]), row["status"].as_u64().unwrap_or(0))).collect()
    };
    central.browser().sign_in("hunter2-my-password", "hunter2-my-password").await;
    central.browser().sign_in(ADMIN, "hunter3-wrong").await;
    central.sign_in(ADMIN, PASSWORD).await;
    let expected = [
        ("signIn".to_owned(), ADMIN.to_owned(), 200),
        ("refused".to_owned(), ADMIN.to_owned(), 401),
        ("refused".to_owned(), String::new(), 401),
        ("setup".to_owned(), ADMIN.to_owned(), 201),
        ("refused".to_owned(), String::new(), 401),
    ];
    let page = central
        .until("/api/ext/audit", |page| Some(page.clone()).filter(|page| kinds(page) == expected))
        .await;
    let text = page.to_string();
    assert!(!text.contains("hunter") && !text.contains(PASSWORD), "{text}");
    central.end().await;
}

#[tokio::test]
async fn pages_follow_each_other_and_wrong_questions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for number in 0..7 {
        central.put(&format!("/api/devices/d{number}"), json!({})).await;
    }
    let mut paths = Vec::new();
    let mut next = Value::Null;
    loop {
        let before = next.as_i64().map(|id| format!("&before={id}")).unwrap_or_default();
        let page = central.get(&format!("/api/ext/audit?limit=3&path=/api/devices/d{before}")).await;
        paths.extend(
            page["value"].as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap().to_owned()),
        );
        next = page["nextBefore"].clone();
        if next.is_null() {
            break;
        }
    }
    let expected: Vec<String> = (0..7).rev().map(|number| format!("/api/devices/d{number}")).collect();
    assert_eq!(paths, expected);
    for wrong in ["limit=0", "limit=501", "limit=x", "before=x", "since=1"] {
        assert_eq!(
            central.send(Method::GET, &format!("/api/ext/audit?{wrong}"), None).await.0,
            400,
            "{wrong}"
        );
    }
    for role in [Role::Viewer, Role::Operator] {
        let token = central.new_token(role).await;
        assert_eq!(central.send_as(&token, Method::GET, "/api/ext/audit", None).await.0, 403);
    }
    central.end().await;
}
