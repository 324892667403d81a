//! Who may ask for what: every operation of `/openapi.json`, by every role, with a token, with a session and with nothing.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::browser::{Browser, PASSWORD};
use common::described::concrete;
use common::{Central, STEP, start};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Administrator];

/// What an operation needs by docs/operating/api-access.md; `None`: nothing.
fn needed(method: &str, path: &str) -> Option<Role> {
    let is_below = |root: &str| path == root || path.starts_with(&format!("{root}/"));
    match (method, path) {
        ("get", "/openapi.json" | "/api/ext/health" | "/api/ext/setup") => None,
        ("post", "/api/ext/setup" | "/api/ext/session") => None,
        (_, "/api/ext/session") => Some(Role::Viewer),
        ("get", "/api/ext/audit") => Some(Role::Administrator),
        // One's own needs no role, and is tested with users.
        _ if is_below("/api/ext/users") || is_below("/api/users") || is_below("/api/apiTokens") => {
            Some(Role::Administrator)
        }
        ("get", path) if path.ends_with("/credentials") || path.ends_with("/attestation") => {
            Some(Role::Operator)
        }
        ("get", path) if path.starts_with("/api/enrollmentGroups/") => Some(Role::Operator),
        ("get", _) => Some(Role::Viewer),
        ("delete", _) => Some(Role::Administrator),
        _ => Some(Role::Operator),
    }
}

/// A user of a role, in a browser.
async fn user(central: &Central, role: Role) -> Browser {
    let name = role.as_str();
    let users = format!("/api/users/{name}");
    central.put(&users, json!({"type": "email", "email": name, "roles": [{"role": name}]})).await;
    let password = format!("/api/ext/users/{name}/password");
    central.ok(Method::POST, &password, Some(json!({"password": PASSWORD}))).await;
    central.sign_in(name, PASSWORD).await
}

/// The status alone: what streams has no end.
async fn status(request: RequestBuilder, method: &Method) -> u16 {
    let request = request.query(&[("api-version", "2022-10-31-preview")]).timeout(STEP);
    let request = if *method == Method::GET { request } else { request.json(&json!({})) };
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_operation_is_for_its_roles_whether_they_come_with_a_token_or_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.set_up(dir.path()).await;
    let (mut tokens, mut browsers) = (Vec::new(), Vec::new());
    for role in ROLES {
        tokens.push((role, central.new_token(role).await));
        browsers.push((role, user(&central, role).await));
    }
    let document = central.get("/openapi.json").await;
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        for (name, operation) in item.as_object().unwrap() {
            let (path, method) =
                (concrete(template), Method::from_bytes(name.to_uppercase().as_bytes()).unwrap());
            let needed = needed(name, template);
            let is_described_open = operation["security"].as_array().unwrap().is_empty();
            assert_eq!(needed.is_none(), is_described_open, "{name} {template}");
            let expect = |status: u16, role: Option<Role>, what: &str| {
                let what = format!("{name} {path} as {role:?} {what}: {status}");
                match needed {
                    _ if status >= 500 => assert_eq!(status, 503, "{what}"),
                    // Nothing is told but that the request is wrong.
                    None => assert_ne!(status, 403, "{what}"),
                    Some(_) if role.is_none() => assert_eq!(status, 401, "{what}"),
                    Some(_) if template == "/api/ext/session" && what.contains("token") => {
                        assert_eq!(status, 401, "{what}");
                    }
                    Some(needed) if role < Some(needed) => assert_eq!(status, 403, "{what}"),
                    Some(_) => assert!(![401, 403].contains(&status), "{what}"),
                }
            };
            let bare = central.http.request(method.clone(), central.url(&path));
            expect(status(bare, &method).await, None, "with nothing");
            for (role, token) in &tokens {
                let request = central.http.request(method.clone(), central.url(&path));
                let request = request.header("Authorization", token);
                expect(status(request, &method).await, Some(*role), "with a token");
            }
            for (role, browser) in &mut browsers {
                let request = browser.request(method.clone(), &path);
                expect(status(request, &method).await, Some(*role), "with a session");
                if (name.as_str(), template.as_str()) == ("delete", "/api/ext/session") {
                    *browser = central.sign_in(role.as_str(), PASSWORD).await;
                }
            }
            tried += 7;
        }
    }
    assert!(tried > 500, "{tried}");
    central.end().await;
}

/// What makes a request of a page of another site, or of a form, in place of one of the console.
#[derive(Debug, Clone, Copy)]
enum Foreign {
    Site,
    Neighbor,
    OldBrowser,
    Sandbox,
    Form,
    FormOfFiles,
    Text,
    NoType,
    AlmostJson,
}

const FOREIGN: [Foreign; 9] = [
    Foreign::Site,
    Foreign::Neighbor,
    Foreign::OldBrowser,
    Foreign::Sandbox,
    Foreign::Form,
    Foreign::FormOfFiles,
    Foreign::Text,
    Foreign::NoType,
    Foreign::AlmostJson,
];

impl Foreign {
    /// Its headers, and the status that such a request gets.
    fn headers(self) -> (&'static [(&'static str, &'static str)], u16) {
        const JSON: (&str, &str) = ("Content-Type", "application/json");
        match self {
            Self::Site => {
                (&[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), JSON], 403)
            }
            Self::Neighbor => {
                (&[("Origin", "https://other.central.test"), ("Sec-Fetch-Site", "same-site"), JSON], 403)
            }
            Self::OldBrowser => (&[("Origin", "https://evil.example"), JSON], 403),
            Self::Sandbox => (&[("Origin", "null"), JSON], 403),
            Self::Form => (&[("Content-Type", "application/x-www-form-urlencoded")], 415),
            Self::FormOfFiles => (&[("Content-Type", "multipart/form-data; boundary=x")], 415),
            Self::Text => (&[("Content-Type", "text/plain; application/json")], 415),
            Self::NoType => (&[], 415),
            Self::AlmostJson => (&[("Content-Type", "application/jsonx")], 415),
        }
    }
}

#[tokio::test]
async fn no_foreign_page_changes_anything_with_a_session_or_signs_anybody_in() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut browser = central.set_up(dir.path()).await;
    let cookie = format!("lineside_session={}", browser.cookie.clone().unwrap());
    let document = central.get("/openapi.json").await;
    let mut tried = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        for name in item.as_object().unwrap().keys().filter(|name| *name != "get") {
            for foreign in FOREIGN {
                let (headers, expected) = foreign.headers();
                let method = Method::from_bytes(name.to_uppercase().as_bytes()).unwrap();
                let mut request = central.http.request(method, central.url(&concrete(template)));
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request =
                    request.query(&[("api-version", "2022-10-31-preview")]).header("Cookie", &cookie);
                let answer = request.body("{}").timeout(STEP).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), expected, "{name} {template} by {foreign:?}");
                assert!(!answer.headers().contains_key("set-cookie"));
                assert!(!answer.headers().contains_key("access-control-allow-origin"));
                tried += 1;
            }
        }
    }
    assert!(tried > 250, "{tried}");
    assert!(browser.is_signed_in().await);
    // What the console sends is taken.
    let (status, answer) = browser.send(Method::PUT, "/api/devices/d", Some(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(browser.send(Method::DELETE, "/api/devices/d", None).await.0, 204);
    central.end().await;
}
