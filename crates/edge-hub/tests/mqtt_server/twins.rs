//! Twin requests: asked and answered on `$iothub/twin/…`.

use edge_hub::settings::MqttServerSettings;
use rumqttc::QoS;
use schemas::topics;
use serde_json::{Value, json};

use crate::site::{Seen, Site};

#[tokio::test]
async fn reports_apply_in_order_and_the_twin_shows_them() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    d1.subscribe(topics::TWIN_RESPONSES, QoS::AtLeastOnce).await;
    for n in 1..=5 {
        d1.publish(&topics::twin_reported(&n.to_string()), &json!({ "n": n }).to_string()).await;
    }
    // The SDKs ask with a body of one space.
    d1.publish(&topics::twin_get("get"), " ").await;
    for n in 1..=5 {
        let (topic, body, _) = d1.message().await;
        assert_eq!((topic, &body[..]), (topics::twin_response(204, &n.to_string(), Some(n)), ""));
    }
    let (topic, body, qos) = d1.message().await;
    assert_eq!((topic, qos), (topics::twin_response(200, "get", None), QoS::AtLeastOnce));
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"desired": {"$version": 0}, "reported": {"$version": 5, "n": 5}})
    );
    site.close().await;
}

#[tokio::test]
async fn a_wrong_patch_is_answered_with_its_status_and_why() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    d1.subscribe(topics::TWIN_RESPONSES, QoS::AtMostOnce).await;
    for (body, status, says) in [
        ("[]".to_owned(), 400, "must be a JSON object"),
        (json!({"a.b": 1}).to_string(), 400, "twin key `a.b`"),
        (json!({"a": [1, null]}).to_string(), 400, "null in an array"),
        (json!({"a": "x".repeat(5_000)}).to_string(), 400, "4096 are allowed"),
        (json!({"a": vec!["x".repeat(4_000); 9]}).to_string(), 413, "bytes"),
    ] {
        d1.publish(&topics::twin_reported("r"), &body).await;
        let (topic, answer, qos) = d1.message().await;
        assert_eq!((topic, qos), (topics::twin_response(status, "r", None), QoS::AtMostOnce));
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["errorCode"], json!(status));
        assert!(answer["message"].as_str().unwrap().contains(says), "{answer}");
    }
    site.close().await;
}

#[tokio::test]
async fn a_desired_patch_goes_to_those_who_subscribed_with_its_version() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    let patch = json!({"rate": 5}).as_object().unwrap().clone();
    let who = "d1".parse().unwrap();
    site.clients.send_desired(&who, 1, &patch);
    d1.subscribe(topics::TWIN_DESIRED, QoS::AtMostOnce).await;
    site.until_seen(Seen::Subscribed("d1".into(), edge_core::dialect::client::Subscribe::TwinDesired)).await;
    site.clients.send_desired(&who, 2, &patch);
    let (topic, body, _) = d1.message().await;
    assert_eq!(topic, topics::twin_desired(2));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"rate": 5, "$version": 2}));
    site.close().await;
}

#[tokio::test]
async fn a_report_of_a_client_that_leaves_at_once_is_not_lost() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    d1.client.publish(topics::twin_reported("1"), QoS::AtMostOnce, false, r#"{"n":1}"#).await.unwrap();
    d1.client.disconnect().await.unwrap();
    while d1.packet().await.is_ok() {}
    site.until_seen(Seen::Disconnected("d1".into())).await;
    let mut again = site.mqtt("d1").await;
    again.subscribe(topics::TWIN_RESPONSES, QoS::AtMostOnce).await;
    again.publish(&topics::twin_get("1"), " ").await;
    assert!(again.message().await.1.contains(r#""n":1"#));
    site.close().await;
}
