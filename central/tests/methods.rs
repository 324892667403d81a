//! Who may call a direct method at central: operators by the REST API, and nobody at the MQTT server. (A gateway's listener:
//! tests/tests/https.rs.)

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::start_with;
use edge_tls::config::client_config;
use reqwest::Method;
use rumqttc::{Event, Packet, QoS};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn operators_call_devices_by_the_api_and_nobody_calls_over_mqtt() {
    let dir = tempfile::tempdir().unwrap();
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let central = start_with(dir.path(), |config| config.mqtt.wss = Some(any)).await;
    for id in ["press-1", "press-2"] {
        central.put(&format!("/api/devices/{id}"), json!({})).await;
    }
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let mut device = central.client("press-1").await;
    device.subscribe("$iothub/methods/POST/#").await;
    tokio::spawn(async move {
        while let Ok(event) = device.events.poll().await {
            if let Event::Incoming(Packet::Publish(call)) = event {
                let request_id = call.topic.split("$rid=").nth(1).unwrap();
                let answer = format!("$iothub/methods/res/200/?$rid={request_id}");
                device.client.publish(answer, QoS::AtLeastOnce, false, call.payload).await.unwrap();
            }
        }
    });
    let echo = json!({"request": 1, "responseTimeout": 300});
    for (role, target, status) in [
        (Role::Operator, "press-1", 201),
        (Role::Administrator, "press-1", 201),
        (Role::Viewer, "press-1", 403),
        (Role::Operator, "press-2", 404),
        (Role::Operator, "nobody", 404),
        // Only its modules have methods.
        (Role::Operator, "gw", 404),
    ] {
        let token = central.new_token(role).await;
        let path = format!("/api/devices/{target}/commands/echo");
        let (found, answer) = central.send_as(&token, Method::POST, &path, Some(echo.clone())).await;
        assert_eq!(found, status, "{role:?} calls {target}: {answer}");
    }
    assert_eq!(
        central.send_as("Bearer x", Method::POST, "/api/devices/press-1/commands/echo", None).await.0,
        401
    );

    // The HTTPS listener speaks WebSocket and nothing else, whoever asks.
    let tls = client_config(&std::fs::read(dir.path().join("ca.pem")).unwrap()).unwrap();
    for path in ["/twins/press-1/methods", "/twins/gw/modules/m/methods?api-version=2019-10-01"] {
        let tcp = tokio::net::TcpStream::connect(central.started.wss.unwrap()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls.clone());
        let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nx-ms-edge-moduleId: gw/m\r\nContent-Length: 21\r\n\r\n\
             {{\"methodName\": \"echo\"}}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }

    // Over MQTT neither a device nor a gateway calls.
    for id in ["press-2", "gw"] {
        let mut caller = central.client(id).await;
        let topic = "$iothub/methods/POST/echo/?$rid=1";
        caller.client.publish(topic, QoS::AtLeastOnce, false, "1").await.unwrap();
        let closed = async { while caller.events.poll().await.is_ok() {} };
        tokio::time::timeout(common::STEP, closed)
            .await
            .unwrap_or_else(|_| panic!("{id} could publish a call"));
    }
    central.end().await;
}
