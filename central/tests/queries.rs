//! Query parameters and pages: what a path does not have is refused by its name, and `nextLink` is followed as it stands.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, start, start_with};
use reqwest::Method;
use serde_json::{Value, json};

/// Sends a request with nothing added to its address.
async fn send_to(central: &Central, method: Method, url: &str) -> (u16, Value) {
    let request = central.http.request(method, url).header("Authorization", &central.token).json(&json!({}));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

fn manifest() -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}}}})
}

#[tokio::test]
async fn every_list_is_read_to_its_end_by_its_links_as_they_stand_in_every_api_version() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for n in 0..5 {
        central.put(&format!("/api/devices/d-{n}"), json!({})).await;
        central.put(&format!("/api/deploymentManifests/m{n}"), json!({"data": manifest()})).await;
        let group = json!({"attestation": {"type": "symmetricKey"}});
        central.put(&format!("/api/enrollmentGroups/g-{n}"), group).await;
        central.put(&format!("/api/apiTokens/t-{n}"), json!({"roles": [{"role": "viewer"}]})).await;
    }
    let versions = [
        "1.0",
        "1.1-preview",
        "1.2-preview",
        "2022-05-31",
        "2022-06-30-preview",
        "2022-07-31",
        "2022-10-31-preview",
    ];
    for version in versions {
        for (list, id) in [
            ("devices", "d-4"),
            ("deploymentManifests", "m4"),
            ("enrollmentGroups", "g-4"),
            ("apiTokens", "t-4"),
        ] {
            let mut next = Some(central.url(&format!("/api/{list}?api-version={version}&$top=2")));
            let mut ids = Vec::new();
            while let Some(url) = next {
                let (status, page) = send_to(&central, Method::GET, &url).await;
                assert_eq!(status, 200, "{url}: {page}");
                for item in page["value"].as_array().unwrap() {
                    ids.push(item["id"].as_str().unwrap().to_owned());
                }
                next = page.get("nextLink").map(|link| link.as_str().unwrap().to_owned());
            }
            assert!(ids.len() >= 5 && ids.contains(&id.to_owned()), "{list}: {ids:?}");
            assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{list}: {ids:?}");
        }
    }
    central.end().await;
}

#[tokio::test]
async fn a_link_begins_with_the_public_address_when_one_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let public = |config: &mut central::config::Config| {
        config.http.public_url = Some("https://central.example.com/site/".into());
    };
    let central = start_with(dir.path(), public).await;
    central.put("/api/devices/d", json!({})).await;
    let page = central.get("/api/devices?$top=1").await;
    let link = page["nextLink"].as_str().unwrap();
    assert!(link.starts_with("https://central.example.com/site/api/devices?"), "{link}");
    central.end().await;
}

#[tokio::test]
async fn every_operation_refuses_a_parameter_that_it_does_not_have_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let described = central.get("/openapi.json").await;
    let mut operations = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        if !path.starts_with("/api/") {
            continue;
        }
        let mut concrete = path.clone();
        while let (Some(from), Some(to)) = (concrete.find('{'), concrete.find('}')) {
            let value = if &concrete[from..=to] == "{entry}" { "primary" } else { "x" };
            concrete.replace_range(from..=to, value);
        }
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            operations += 1;
            for wrong in ["$tpo=5", "%24tpo=5", "$tpo", "api-version=1.0&$tpo=5"] {
                let version = if wrong.contains("api-version") { "" } else { "&api-version=2022-07-31" };
                let url = central.url(&format!("{concrete}?{wrong}{version}"));
                let (status, answer) = send_to(&central, method.clone(), &url).await;
                let message = answer["error"]["message"].as_str().unwrap_or_default();
                assert_eq!(status, 400, "{method} {url}: {answer}");
                assert!(message.starts_with("$tpo:"), "{method} {url}: {answer}");
            }
            let url = central.url(&format!("{concrete}?api-version=1.0&api-version=1.0"));
            assert_eq!(send_to(&central, method.clone(), &url).await.0, 400, "{method} {url}");
            // A stream has no end that could be read.
            if path == "/api/ext/events" {
                continue;
            }
            // What is described passes; it may be refused for its value, by its name.
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                if parameter["in"] == "query" && name != "api-version" {
                    let url = central.url(&format!("{concrete}?{name}=1&api-version=1.0"));
                    let (_, answer) = send_to(&central, method.clone(), &url).await;
                    let message = answer["error"]["message"].as_str().unwrap_or_default();
                    assert!(!message.contains("no such parameter"), "{method} {url}: {answer}");
                }
            }
        }
    }
    assert!(operations > 40, "{operations}");
    let url = central.url("/api/ext/provisioning?api-version=2018-06-30");
    assert_eq!(
        send_to(&central, Method::GET, &url).await.0,
        400,
        "ours need no version, and take no wrong one"
    );
    central.end().await;
}
