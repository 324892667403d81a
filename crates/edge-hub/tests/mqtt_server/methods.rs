//! Method calls: one request, one answer or the reason why there is none.

use edge_core::dialect::client::Subscribe;
use edge_hub::delivery::NotDelivered;
use edge_hub::settings::MqttServerSettings;
use rumqttc::QoS;
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::topics;
use serde_json::json;

use crate::site::{Seen, Site};

fn request(response_timeout: u64, connect_timeout: u64) -> MethodRequest {
    MethodRequest {
        method_name: "reboot".into(),
        payload: json!({"delay": 1}),
        response_timeout_in_seconds: response_timeout,
        connect_timeout_in_seconds: connect_timeout,
    }
}

#[tokio::test]
async fn a_call_waits_for_its_target_and_gets_the_answer() {
    let site = Site::open(MqttServerSettings::default()).await;
    let (clients, target) = (site.clients.clone(), "d1".parse().unwrap());
    let call = tokio::spawn(async move { clients.call(&target, &request(300, 300)).await });
    let mut d1 = site.mqtt("d1").await;
    d1.subscribe(topics::METHOD_CALLS, QoS::AtMostOnce).await;
    let (topic, body, _) = d1.message().await;
    assert_eq!(body, r#"{"delay":1}"#);
    let request_id = topic.strip_prefix("$iothub/methods/POST/reboot/?$rid=").unwrap();
    d1.publish(&topics::method_response(202, "another"), "{}").await;
    d1.publish(&topics::method_response(202, request_id), r#"{"done":true}"#).await;
    d1.acknowledged().await;
    d1.acknowledged().await;
    let answer = MethodResponse { status: 202, payload: json!({"done": true}) };
    assert_eq!(call.await.unwrap(), Ok(answer));
    site.close().await;
}

#[tokio::test]
async fn nobody_else_can_answer_a_call() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut d1 = site.mqtt("d1").await;
    let mut d2 = site.mqtt("d2").await;
    d1.subscribe(topics::METHOD_CALLS, QoS::AtLeastOnce).await;
    let (clients, target) = (site.clients.clone(), "d1".parse().unwrap());
    let call = tokio::spawn(async move { clients.call(&target, &request(300, 0)).await });
    let (topic, ..) = d1.message().await;
    let request_id = topic.rsplit_once('=').unwrap().1;
    d2.publish(&topics::method_response(666, request_id), "null").await;
    d2.acknowledged().await;
    d1.publish(&topics::method_response(200, request_id), "").await;
    d1.acknowledged().await;
    assert_eq!(call.await.unwrap().unwrap().status, 200);
    site.close().await;
}

#[tokio::test]
async fn a_call_without_an_answer_ends_by_its_deadline_and_one_to_nobody_at_once() {
    let site = Site::open(MqttServerSettings::default()).await;
    let target = "d1".parse().unwrap();
    let not_connected = Err(MethodFailure::NotConnected { target: "d1".into() });
    assert_eq!(site.clients.call(&target, &request(5, 0)).await, not_connected);
    let mut d1 = site.mqtt("d1").await;
    assert_eq!(site.clients.call(&target, &request(5, 0)).await, not_connected, "it does not listen");
    d1.subscribe(topics::METHOD_CALLS, QoS::AtLeastOnce).await;
    let no_answer = Err(MethodFailure::NoAnswer { target: "d1".into(), seconds: 1 });
    assert_eq!(site.clients.call(&target, &request(1, 0)).await, no_answer);
    site.close().await;
}

#[tokio::test]
async fn a_delivery_ends_with_the_clients_acknowledgement_or_with_the_reason() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    let module = "gw/filter".parse().unwrap();
    let topic = || "devices/gw/modules/filter/inputs/in/".to_owned();
    let deliver = |payload: &'static str| site.clients.deliver(&module, topic(), payload.into());
    assert_eq!(deliver("a").await, Err(NotDelivered::NotConnected));

    let mut options = site.options("gw/filter");
    options.set_manual_acks(true);
    let mut filter = crate::site::Mqtt::connect(options).await.0;
    // A free filter never covers a reserved topic.
    filter.subscribe("#", QoS::AtLeastOnce).await;
    assert_eq!(deliver("b").await, Err(NotDelivered::NotSubscribed));

    filter.subscribe(&topics::module_inputs(&module), QoS::AtLeastOnce).await;
    let (one, two) = (deliver("one"), deliver("two"));
    let mut received = Vec::new();
    while received.len() < 2 {
        if let rumqttc::Packet::Publish(publish) = filter.packet().await.unwrap() {
            received.push(publish);
        }
    }
    assert_eq!([&received[0].payload[..], &received[1].payload[..]], [b"one", b"two"]);
    filter.client.ack(&received[0]).await.unwrap();
    let pinging = tokio::spawn(async move {
        let _ = filter.packet().await;
    });
    assert_eq!(one.await, Ok(()));
    site.clients.disconnect(&module, "a test says so");
    assert_eq!(two.await, Err(NotDelivered::Gone));
    pinging.await.unwrap();
    let inbox = Subscribe::Inbox { of: module.clone() };
    assert!(!site.clients.has_subscribed(&module, &inbox));
    site.until_seen(Seen::Disconnected("gw/filter".into())).await;
    site.close().await;
}
