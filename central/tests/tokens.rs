//! The life of an API token: made, listed, used, expired, revoked; and what becomes of wrong ones.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::clock::now_ms;
use central::store::StoreError;
use central::token::Role;
use common::{STEP, start};
use reqwest::Method;
use schemas::timestamp::{parse_rfc3339, rfc3339};
use serde_json::{Value, json};

const ADMINISTRATOR: &str = "ca310b8d-2f4a-44e0-a36e-957c202cd8d4";
const OPERATOR: &str = "ae2c9854-393b-4f97-8c42-479d70ce626e";

/// IoT Central's administrator of an organization.
const ORGANIZATION_ADMINISTRATOR: &str = "c495eb57-eb18-489e-9802-62c474e5645c";

#[tokio::test]
async fn a_token_is_made_listed_used_and_revoked_in_iot_centrals_shape() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let before_ms = now_ms();
    let expiry = rfc3339(before_ms + 3_600_000);
    let path = "/api/apiTokens/line-1";
    let made = central.put(path, json!({"roles": [{"role": OPERATOR}], "expiry": expiry})).await;
    assert_eq!((&made["id"], &made["expiry"]), (&json!("line-1"), &json!(expiry)));
    assert_eq!((&made["roles"], &made["lastUsed"]), (&json!([{"role": OPERATOR}]), &Value::Null));
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("SharedAccessSignature sr=central%2Etest&sig="), "{token}");

    let (status, answer) = central.send_as(&token, Method::PUT, "/api/devices/d", Some(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    let used = central.until(path, |shown| parse_rfc3339(shown["lastUsed"].as_str()?)).await;
    assert!((before_ms..=now_ms()).contains(&used));
    let shown = central.get(path).await;
    assert!(shown.get("token").is_none(), "{shown}");
    let created = parse_rfc3339(shown["created"].as_str().unwrap()).unwrap();
    assert!((before_ms..=now_ms()).contains(&created));
    let listed = central.get("/api/apiTokens").await;
    let listed = listed["value"].as_array().unwrap();
    assert!(listed.contains(&shown) && listed.len() == 2, "{listed:?}");
    assert_eq!(central.send(Method::PUT, path, Some(json!({"roles": [{"role": "viewer"}]}))).await.0, 409);

    for role in [Role::Viewer, Role::Operator] {
        let other = central.new_token(role).await;
        for (method, path) in [
            (Method::GET, "/api/apiTokens"),
            (Method::GET, path),
            (Method::PUT, "/api/apiTokens/mine"),
            (Method::DELETE, path),
        ] {
            let body = (method == Method::PUT).then(|| json!({"roles": [{"role": ADMINISTRATOR}]}));
            assert_eq!(
                central.send_as(&other, method.clone(), path, body).await.0,
                403,
                "{role:?} {method} {path}"
            );
        }
    }
    assert_eq!(central.send(Method::DELETE, path, None).await.0, 204);
    assert_eq!(central.send_as(&token, Method::GET, "/api/devices/d", None).await.0, 401);
    assert_eq!(central.send(Method::DELETE, path, None).await.0, 404);
    central.end().await;
}

#[tokio::test]
async fn a_wrong_request_for_a_token_is_refused_by_its_field() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for (id, body, field) in [
        ("t", json!({}), "roles"),
        ("t", json!({"roles": []}), "roles"),
        ("t", json!({"roles": [{"role": "root"}]}), "roles.0.role"),
        ("t", json!({"roles": [{"role": "viewer", "organization": "seattle"}]}), "organization"),
        (
            "t",
            json!({"roles": [{"role": "viewer"}, {"role": "viewer", "organization": "Seattle"}]}),
            "organization",
        ),
        (
            "t",
            json!({"roles": [{"role": "viewer"}, {"role": ORGANIZATION_ADMINISTRATOR}]}),
            "roles.1.organization",
        ),
        ("t", json!({"roles": vec![json!({"role": "viewer"}); 51]}), "roles"),
        ("t", json!({"roles": [{"role": "viewer"}], "expiry": "soon"}), "expiry"),
        ("t", json!({"roles": [{"role": "viewer"}], "expiry": "2020-10-18T18:30:40.227Z"}), "expiry"),
        ("t", json!({"roles": [{"role": "viewer"}], "id": "u"}), "id"),
        ("a%20b", json!({"roles": [{"role": "viewer"}]}), "id"),
    ] {
        let (status, answer) =
            central.send(Method::PUT, &format!("/api/apiTokens/{id}"), Some(body.clone())).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 422 && message.contains(field), "{body}: {status} {answer}");
    }
    let body = json!({"roles": [{"role": "viewer"}]});
    let (status, answer) = central.send(Method::PUT, "/api/apiTokens/a%0Ab", Some(body)).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("InvalidPath")), "{answer}");
    assert_eq!(central.get("/api/apiTokens").await["value"].as_array().unwrap().len(), 1);
    for (role, shown) in [
        ("administrator", ADMINISTRATOR),
        ("builder", "344138e9-8de4-4497-8c54-5237e96d6aaf"),
        ("operator", OPERATOR),
        ("viewer", "viewer"),
    ] {
        let made = central.put(&format!("/api/apiTokens/{role}"), json!({"roles": [{"role": role}]})).await;
        assert_eq!(made["roles"][0]["role"], shown);
        let year = parse_rfc3339(made["expiry"].as_str().unwrap()).unwrap() - now_ms();
        assert!((364..=365).contains(&(year / 86_400_000)), "{made}");
    }
    central.end().await;
}

#[tokio::test]
async fn an_expired_token_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let expiry = rfc3339(now_ms() + 3_600_000);
    let made =
        central.put("/api/apiTokens/short", json!({"roles": [{"role": "viewer"}], "expiry": expiry})).await;
    let token = made["token"].as_str().unwrap();
    assert_eq!(central.send_as(token, Method::GET, "/api/devices", None).await.0, 200);
    // As time does it.
    let expire = central.started.store().submit(|c| {
        Ok::<_, StoreError>(c.execute("UPDATE tokens SET expires_ms = 1 WHERE name = 'short'", [])?)
    });
    assert_eq!(expire.await.unwrap(), 1);
    let (status, answer) = central.send_as(token, Method::GET, "/api/devices", None).await;
    assert_eq!(status, 401, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("`short`") && message.contains("expired"), "{message}");
    central.end().await;
}

#[tokio::test]
async fn who_sends_wrong_tokens_waits_and_who_sends_a_right_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let url = format!("{}?api-version=1.0", central.url("/api/devices"));
    let guess = |number: usize| {
        let request = central.http.get(&url).bearer_auth(format!("guess-{number}")).timeout(STEP);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let since = std::time::Instant::now();
    assert_eq!(guess(0).await, 401);
    assert!(since.elapsed().as_millis() >= 500, "{:?}", since.elapsed());

    // The right ones are answered while wrong ones come again and again; no more than an address may have connections.
    let is_over = std::cell::Cell::new(false);
    let guesses = futures_util::future::join_all((1..=60).map(async |number| {
        let mut statuses = Vec::new();
        while !is_over.get() {
            statuses.push(guess(number).await);
        }
        statuses
    }));
    let right = async {
        for _ in 0..5 {
            assert_eq!(central.send(Method::GET, "/api/devices", None).await.0, 200);
        }
        is_over.set(true);
    };
    let statuses = tokio::join!(guesses, right).0.concat();
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");

    // The quickest of many: a busy machine holds up some of them, and a wait all.
    let mut quickest = STEP;
    for _ in 0..20 {
        let since = std::time::Instant::now();
        assert_eq!(central.send(Method::GET, "/api/devices", None).await.0, 200);
        quickest = quickest.min(since.elapsed());
    }
    assert!(quickest.as_millis() < 500, "{quickest:?}");
    central.end().await;
}

#[tokio::test]
async fn roles_in_organizations_are_given_back_and_give_no_more_than_the_role_for_the_whole_site() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let roles = json!([
        {"role": ORGANIZATION_ADMINISTRATOR, "organization": "seattle"},
        {"role": "viewer"},
        {"role": ADMINISTRATOR, "organization": "redmond"},
    ]);
    let made = central.put("/api/apiTokens/t", json!({"roles": roles})).await;
    assert_eq!(made["roles"], roles);
    assert_eq!(central.get("/api/apiTokens/t").await["roles"], roles);
    let listed = central.get("/api/apiTokens").await;
    let listed = listed["value"].as_array().unwrap().iter().find(|token| token["id"] == "t").unwrap();
    assert_eq!(listed["roles"], roles);

    let line = made["token"].as_str().unwrap();
    assert_eq!(central.send_as(line, Method::GET, "/api/devices", None).await.0, 200);
    assert_eq!(central.send_as(line, Method::PUT, "/api/devices/d", Some(json!({}))).await.0, 403);
    // The next token of the name has none of them.
    central.ok(Method::DELETE, "/api/apiTokens/t", None).await;
    let made = central.put("/api/apiTokens/t", json!({"roles": [{"role": ADMINISTRATOR}]})).await;
    assert_eq!(made["roles"], json!([{"role": ADMINISTRATOR}]));
    assert_eq!(central.get("/api/apiTokens/t").await["roles"], made["roles"]);
    // The highest for the whole site counts.
    let two = json!({"roles": [{"role": "operator"}, {"role": "viewer"}]});
    let line = central.put("/api/apiTokens/two", two).await["token"].as_str().unwrap().to_owned();
    assert_eq!(central.send_as(&line, Method::PUT, "/api/devices/d", Some(json!({}))).await.0, 200);
    assert_eq!(central.send_as(&line, Method::DELETE, "/api/devices/d", None).await.0, 403);
    central.end().await;
}
