//! What devices send is given back with every number as they wrote it, to those who see all of it and to those who do not.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::{Central, start};
use serde_json::{Value, json};

/// An answer as it is written.
async fn text(central: &Central, token: &str, path: &str) -> String {
    let url = format!("{}?api-version=2022-07-31", central.url(path));
    let answer = central.http.get(url).header("Authorization", token).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn numbers_of_messages_and_last_values_have_all_their_digits_for_every_role() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let mut leaf = central.client("leaf").await;
    let numbers = [
        "12345678901234567890123",
        "-9223372036854775809",
        "1.50",
        "0.1000",
        "-0",
        "1E+2",
        "18446744073709551616",
    ];
    for number in numbers {
        let body = format!(
            r#"{{"v": {number}, "deep": [{{"v":{number}}}], "password": "hunter2", "pin": {number}}}"#
        );
        leaf.publish("devices/leaf/messages/events/", body).await;
        // Messages of one sender that were made in the same millisecond are in the order of their arrival.
        central
            .until("/api/ext/devices/leaf/messages?limit=1000", |page| {
                page["value"].as_array().filter(|all| all.len() == sent(number, &numbers)).map(|_| ())
            })
            .await;
        for role in [Role::Administrator, Role::Operator, Role::Viewer] {
            let token = central.new_token(role).await;
            let page = text(&central, &token, "/api/ext/devices/leaf/messages").await;
            assert!(
                page.contains(&format!(r#""v": {number}, "deep": [{{"v":{number}}}]"#))
                    || role == Role::Viewer,
                "{page}"
            );
            let squeezed = page.replace(' ', "");
            assert!(squeezed.contains(&format!(r#""v":{number}"#)), "{role:?}: {page}");
            assert!(squeezed.contains(&format!(r#"[{{"v":{number}}}]"#)), "{role:?}: {page}");
            assert_eq!(page.contains("hunter2"), role != Role::Viewer, "{role:?}: {page}");
            let last = text(&central, &token, "/api/devices/leaf/telemetry/v").await;
            assert!(last.contains(&format!(r#""value":{number}}}"#)), "{role:?}: {last}");
        }
    }
    central.end().await;
}

/// How many messages there are once the one with this number is stored.
fn sent(number: &str, numbers: &[&str]) -> usize {
    1 + numbers.iter().position(|of| *of == number).unwrap()
}

#[tokio::test]
async fn a_body_that_is_no_json_to_everybody_is_shown_as_bytes_and_breaks_no_list() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    let mut leaf = central.client("leaf").await;
    let bodies: [&[u8]; 8] = [
        br#"{"huge": 1e999, "password": "hunter2"}"#,
        br#"{"half": "\ud800"}"#,
        br#"{"v": 01}"#,
        br#"{"v": 1-2}"#,
        b"[1 2]",
        b"\xff\xfe",
        b"",
        b"\xef\xbb\xbf{\"marked\": 1}",
    ];
    for body in bodies {
        leaf.publish("devices/leaf/messages/events/", body).await;
    }
    central
        .until("/api/ext/devices/leaf/messages", |page| {
            page["value"].as_array().filter(|all| all.len() == bodies.len()).map(|_| ())
        })
        .await;
    for role in [Role::Operator, Role::Viewer] {
        let token = central.new_token(role).await;
        let (status, page) =
            central.send_as(&token, reqwest::Method::GET, "/api/ext/devices/leaf/messages", None).await;
        assert_eq!(status, 200, "{page}");
        for (message, body) in page["value"].as_array().unwrap().iter().zip(bodies) {
            let is_json = body.starts_with(b"\xef");
            assert_eq!(message.get("body"), is_json.then(|| json!({"marked": 1})).as_ref(), "{message}");
            assert_eq!(message.get("bodyBase64").is_some(), !is_json, "{message}");
        }
        let (status, _) =
            central.send_as(&token, reqwest::Method::GET, "/api/devices/leaf/telemetry/half", None).await;
        assert_eq!(status, 404);
        let huge = text(&central, &token, "/api/devices/leaf/telemetry/huge").await;
        assert!(huge.ends_with(r#""value":1e999}"#), "{huge}");
        let (_, with_marker): (u16, Value) =
            central.send_as(&token, reqwest::Method::GET, "/api/devices/leaf/telemetry/marked", None).await;
        assert_eq!(with_marker["value"], 1);
    }
    central.end().await;
}
