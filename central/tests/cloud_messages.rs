//! Cloud-to-device messages through the REST API, to a device at central's own listener and to a gateway on its link.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, Mqtt, start};
use reqwest::Method;
use rumqttc::{Packet, Publish};
use serde_json::{Value, json};

const SENT: &str = "/api/ext/devices/d/messages/devicebound";

async fn send(central: &Central, device: &str, body: Value) -> Value {
    central.ok(Method::POST, &format!("/api/ext/devices/{device}/messages/devicebound"), Some(body)).await
}

async fn states(central: &Central, path: &str) -> Vec<(String, String)> {
    let list = central.get(path).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list["value"].as_array().unwrap().iter().map(|m| (text(&m["messageId"]), text(&m["state"]))).collect()
}

async fn received(device: &mut Mqtt) -> Publish {
    device
        .next(|packet| match packet {
            Packet::Publish(publish) if publish.topic.contains("/devicebound/") => Some(publish),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn messages_wait_for_a_device_and_come_in_order_with_their_properties() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    let whole = json!({"messageId": "m 1", "correlationId": "c-1", "userId": "anna", "ack": "full",
        "expiryTime": "2099-01-01T00:00:00Z", "properties": {"line": "4/a", "plus": "1+1"}, "body": {"go": true}});
    let (status, refused) = central.send(Method::POST, SENT, Some(whole.clone())).await;
    assert_eq!(status, 422, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("expiryTime"), "{refused}");
    let mut whole = whole;
    whole.as_object_mut().unwrap().remove("expiryTime");
    let sent = send(&central, "d", whole).await;
    assert_eq!((&sent["state"], &sent["messageId"]), (&json!("queued"), &json!("m 1")));
    send(&central, "d", json!({"messageId": "m2", "bodyText": "plain", "ack": "negative"})).await;
    send(&central, "d", json!({"messageId": "m3", "bodyBase64": "AP8=", "ack": "positive"})).await;
    central.end().await;

    // They wait over a restart of central.
    let central = start(dir.path()).await;
    let mut device = central.client("d").await;
    device.subscribe("devices/d/messages/devicebound/#").await;
    let (one, two, three) =
        (received(&mut device).await, received(&mut device).await, received(&mut device).await);
    let bag = one.topic.strip_prefix("devices/d/messages/devicebound/").unwrap();
    let expiry = sent["expiryTime"].as_str().unwrap().replace(':', "%3A");
    assert_eq!(
        bag,
        format!(
            "%24.mid=m%201&%24.to=%2Fdevices%2Fd%2Fmessages%2Fdevicebound&%24.exp={expiry}&%24.cid=c-1&%24.uid=anna\
             &%24.ct=application%2Fjson&%24.ce=utf-8&iothub-ack=full&line=4%2Fa&plus=1%2B1"
        )
    );
    assert_eq!((&one.payload[..], one.qos), (&br#"{"go":true}"#[..], rumqttc::QoS::AtLeastOnce));
    assert_eq!((&two.payload[..], &three.payload[..]), (&b"plain"[..], &[0, 0xff][..]));
    let delivered = central
        .until(SENT, |list| {
            let all = list["value"].as_array().unwrap();
            all.iter().all(|m| m["state"] == "delivered").then_some(all.len())
        })
        .await;
    assert_eq!(delivered, 3);
    let feedback = central.get("/api/ext/messages/feedback").await;
    let outcomes: Vec<(&Value, &Value)> = feedback["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| (&record["originalMessageId"], &record["statusCode"]))
        .collect();
    assert_eq!(outcomes, [(&json!("m 1"), &json!("Success")), (&json!("m3"), &json!("Success"))]);

    // One that comes while the device listens.
    send(&central, "d", json!({"messageId": "m4", "bodyText": "now"})).await;
    assert_eq!(&received(&mut device).await.payload[..], b"now");
    central.end().await;
}

#[tokio::test]
async fn a_message_without_its_acknowledgement_comes_again_and_the_tenth_time_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    send(&central, "d", json!({"messageId": "poison", "ack": "full"})).await;
    for _ in 0..10 {
        let mut device = central.silent_client("d").await;
        device.subscribe("devices/d/messages/devicebound/#").await;
        received(&mut device).await;
        // Dropped without a word.
        drop(device);
        central.until("/api/ext/devices/d/status", |s| (s["connected"] == false).then_some(())).await;
    }
    let mut device = central.client("d").await;
    device.subscribe("devices/d/messages/devicebound/#").await;
    central.until(SENT, |list| (list["value"][0]["state"] == "deliveryCountExceeded").then_some(())).await;
    let feedback = central.get("/api/ext/messages/feedback").await;
    assert_eq!(feedback["value"][0]["statusCode"], "DeliveryCountExceeded");
    central.end().await;
}

#[tokio::test]
async fn the_bounds_are_iot_hubs_and_what_waits_can_expire_or_be_purged() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let refused = |device: &'static str, body: Value| {
        let central = &central;
        async move {
            let path = format!("/api/ext/devices/{device}/messages/devicebound");
            let (status, body) = central.send(Method::POST, &path, Some(body)).await;
            (status, body["error"]["code"].as_str().unwrap().to_owned())
        }
    };
    let unprocessable = (422, "UnprocessableContent".to_owned());
    assert_eq!(refused("nobody", json!({})).await, (404, "NotFound".into()));
    assert_eq!(refused("gw", json!({})).await, unprocessable);
    assert_eq!(refused("d", json!({"timeToLiveSecs": 0})).await, unprocessable);
    assert_eq!(refused("d", json!({"timeToLiveSecs": 172_801})).await, unprocessable);
    assert_eq!(refused("d", json!({"properties": {"$.x": ""}})).await, unprocessable);
    assert_eq!(refused("d", json!({"body": 1, "bodyText": "x"})).await, unprocessable);
    assert_eq!(refused("d", json!({"ack": "maybe"})).await, unprocessable);
    assert_eq!(refused("d", json!({"bodyText": "x".repeat(65_536)})).await, (413, "MessageTooLarge".into()));

    send(&central, "d", json!({"messageId": "short", "timeToLiveSecs": 1, "ack": "negative"})).await;
    central.until(SENT, |list| (list["value"][0]["state"] == "expired").then_some(())).await;
    for n in 0..50 {
        send(&central, "d", json!({"messageId": format!("m{n}")})).await;
    }
    assert_eq!(refused("d", json!({})).await, (403, "DeviceMaximumQueueDepthExceeded".into()));
    let purged = central.ok(Method::DELETE, SENT, None).await;
    assert_eq!(purged, json!({"deviceId": "d", "totalMessagesPurged": 50}));
    let states = states(&central, &format!("{SENT}?limit=100")).await;
    assert_eq!(states.len(), 51);
    assert!(states[1..].iter().all(|(_, state)| state == "purged"), "{states:?}");
    send(&central, "d", json!({})).await;
    let feedback = central.get("/api/ext/messages/feedback").await;
    assert_eq!(feedback["value"].as_array().unwrap().len(), 1);
    assert_eq!(feedback["value"][0]["statusCode"], "Expired");
    central.end().await;
}

#[tokio::test]
async fn a_gateway_gets_what_waits_once_it_listens_and_what_follows_and_its_report_ends_them() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    central.put("/api/devices/other", json!({"type": ["edge"]})).await;
    central.put("/api/devices/d", json!({})).await;
    send(&central, "d", json!({"messageId": "m1", "bodyText": "one"})).await;
    central.put("/api/devices/gw/relationships/r", json!({"target": "d"})).await;
    let mut gateway = central.client("gw").await;
    gateway.client.subscribe("$ls/#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (first, message) = gateway.message("$ls/message/d/").await;
    assert_eq!((&message["messageId"], &message["body"]), (&json!("m1"), &json!("b25l")));
    send(&central, "d", json!({"messageId": "m2", "ack": "full"})).await;
    let (second, _) = gateway.message("$ls/message/d/").await;
    let sequence = |topic: &str| topic.rsplit_once('/').unwrap().1.parse::<u64>().unwrap();
    assert!(sequence(&second) > sequence(&first));
    let path = SENT;
    central
        .until(path, |list| {
            list["value"].as_array().unwrap().iter().all(|m| m["state"] == "atGateway").then_some(())
        })
        .await;

    // The word of a gateway behind which the device does not stand is worth nothing.
    let mut stranger = central.client("other").await;
    stranger.publish(&first.replace("message", "settled"), r#"{"end":"delivered","atMs":5}"#).await;
    gateway.publish(&second.replace("message", "settled"), r#"{"end":"delivered","atMs":7}"#).await;
    gateway.publish(&second.replace("message", "settled"), r#"{"end":"expired","atMs":8}"#).await;
    assert_eq!(
        states(&central, path).await,
        [("m1".to_owned(), "atGateway".to_owned()), ("m2".to_owned(), "delivered".to_owned())]
    );

    // Purged while the gateway is away: it is told when it comes back, and not handed the message again.
    gateway.client.disconnect().await.unwrap();
    while gateway.events.poll().await.is_ok() {}
    central.ok(Method::DELETE, path, None).await;
    send(&central, "d", json!({"messageId": "m3"})).await;
    let mut gateway = central.client("gw").await;
    gateway.client.subscribe("$ls/#", rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (_, purges) = gateway.message("$ls/purges").await;
    assert_eq!(purges, json!({"purged": {"d": sequence(&first)}}));
    let (_, message) = gateway.message("$ls/message/d/").await;
    assert_eq!(message["messageId"], "m3");

    // Taken from behind the gateway, the device gets it at central's own listener.
    central.ok(Method::DELETE, "/api/devices/gw/relationships/r", None).await;
    let mut device = central.client("d").await;
    device.subscribe("devices/d/messages/devicebound/#").await;
    assert!(received(&mut device).await.topic.contains("%24.mid=m3"));
    central.end().await;
}
