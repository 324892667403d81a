//! What the console shows of connecting: where devices connect, and the line that joins a gateway.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{STEP, start};
use reqwest::Method;
use schemas::join::JoinToken;
use serde_json::{Value, json};

async fn ask(central: &common::Central, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = central.http.request(method, central.url(path)).header("Authorization", &central.token);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.timeout(STEP).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_gateways_line_holds_its_key_and_the_authority_that_the_connection_page_shows() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let (status, connection) = ask(&central, Method::GET, "/api/ext/connection", None).await;
    assert_eq!(status, 200);
    let authority = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    assert_eq!(connection["caPem"], authority);
    assert!(connection["mqttsPort"].is_u64() && connection["hostname"].is_string(), "{connection}");

    let put = "/api/devices/gw-1?api-version=2022-10-31-preview";
    assert_eq!(ask(&central, Method::PUT, put, Some(json!({"type": ["iotEdge"]}))).await.0, 200);
    let (status, body) = ask(&central, Method::POST, "/api/ext/devices/gw-1/join", None).await;
    assert_eq!(status, 200, "{body}");
    let join_token: JoinToken = body["line"].as_str().unwrap().parse().unwrap();
    let credentials = "/api/devices/gw-1/credentials?api-version=2022-10-31-preview";
    let (_, credentials) = ask(&central, Method::GET, credentials, None).await;
    assert!(
        join_token.upstream.to_string().contains(credentials["symmetricKey"]["primaryKey"].as_str().unwrap())
    );
    assert_eq!(join_token.ca_pem, authority);
    central.end().await;
}

#[tokio::test]
async fn a_device_has_no_line_that_joins_a_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let put = "/api/devices/press-1?api-version=2022-10-31-preview";
    assert_eq!(ask(&central, Method::PUT, put, Some(json!({}))).await.0, 200);
    let (status, body) = ask(&central, Method::POST, "/api/ext/devices/press-1/join", None).await;
    assert_eq!((status, body["error"]["code"].as_str()), (409, Some("Conflict")), "{body}");
    assert_eq!(ask(&central, Method::POST, "/api/ext/devices/nobody/join", None).await.0, 404);
    central.end().await;
}
