//! Input that is made to break its reader: too deep, too long, forged.

use reqwest::Method;
use serde_json::{Value, json};
use site_tests::raw::{self, Login};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::target::{Limits, Target};

/// Nested arrays, as text: a `Value` so deep could not be made here either.
fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

/// A request whose body is sent as it stands; gives the status.
async fn post(target: &Target, method: &str, path: &str, body: &str) -> u16 {
    let mut stream = TcpStream::connect(target.site.http).await.unwrap();
    let head = format!(
        "{method} {path}?api-version=2022-10-31-preview HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        target.site.http,
        target.site.token(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // central may refuse before it has read everything.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn deep_json_is_refused_at_every_api_and_both_programs_start_again() {
    let mut target = Target::start("deep JSON").await;
    let gateway = target.site.gateway.clone();
    for depth in [60, 100, 120, 124, 126, 127, 128, 200, 300, 10_000, 200_000] {
        let deep = nested(depth);
        let parts = vec!["a"; depth].join(".");
        let manifest = format!(
            r#"{{"displayName":"m","data":{{"modulesContent":{{"$edgeAgent":{{"properties.desired.{parts}":1}}}}}}}}"#
        );
        let places = [
            (
                "POST",
                "/api/devices/attacker/commands/x".to_owned(),
                format!(r#"{{"validFor":600,"request":{deep}}}"#),
            ),
            ("PATCH", "/api/devices/attacker/properties".to_owned(), format!(r#"{{"a":{deep}}}"#)),
            ("PUT", format!("/api/deploymentManifests/m{depth}"), manifest),
            ("PUT", format!("/api/devices/deep-{depth}"), format!(r#"{{"displayName":{deep}}}"#)),
        ];
        for (method, path, body) in places {
            let status = post(&target, method, &path, &body).await;
            // What is taken must be readable: that is tried below, after a restart.
            assert!((200..500).contains(&status), "{method} {path} with {depth} levels: {status}");
        }
        let mut stream = target.attacker.open(target.site.gateway_mqtt).await.unwrap();
        let patch = format!(r#"{{"a":{deep}}}"#);
        if patch.len() < 200_000 {
            let packet =
                raw::publish("$iothub/twin/PATCH/properties/reported/?$rid=1", 0, 0, patch.as_bytes());
            let _ = stream.write_all(&packet).await;
            let _ = stream.write_all(&raw::packet(0xe0, &[])).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    for path in ["/api/devices", "/api/deploymentManifests", "/api/devices/attacker/properties"] {
        target.site.rest().unwrap().get(path).await.unwrap();
    }
    let history = format!("/api/devices/{gateway}/properties");
    target.site.rest().unwrap().send(Method::GET, &history, None).await.unwrap();
    target.restart().await.unwrap();
    let properties: Value =
        target.site.rest().unwrap().get("/api/devices/attacker/properties").await.unwrap();
    assert!(properties.is_object());
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn nobody_writes_lines_of_their_own_into_the_log() {
    let target = Target::start("log forging").await;
    let port = target.site.gateway_mqtt;
    let forged = [
        "\n2026-01-01T00:00:00Z ERROR forged",
        "\r\nforged",
        "\u{1b}[2J forged",
        "\u{2028}forged",
        "\u{202e}degrof",
    ];
    for text in forged {
        let account = Some((
            format!("localhost/{text}/?api-version=2021-04-12"),
            format!("SharedAccessSignature {text}"),
        ));
        let login = Login { client_id: text.to_owned(), account };
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(&login.connect(0)).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let mut stream = target.attacker.open(port).await.unwrap();
        let topic = format!("devices/attacker/messages/{text}/");
        stream.write_all(&raw::publish(&topic, 1, 1, b"x")).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let body = json!({"displayName": text, "type": [text]});
        let path = "/api/devices/forged";
        target.site.rest().unwrap().send(Method::PUT, path, Some(&body)).await.unwrap();
    }
    for log in ["edge-agent.log", "central.log"] {
        let text = std::fs::read_to_string(target.site.dir.join(log)).unwrap();
        let is_raw = |c: char| {
            c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'))
        };
        assert!(!text.contains(is_raw), "{log} holds a control character");
        let is_forged = |line: &str| line.starts_with("2026-01-01T00:00:00Z") || line.starts_with("forged");
        assert!(!text.lines().any(is_forged), "{log} holds a forged line");
    }
    target.held(Limits::default()).await.unwrap();
}
