//! The filter's program at a small gateway: what comes in, what goes out, and in which order.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

#[path = "../../sdk/tests/gateway/mod.rs"]
mod gateway;

use gateway::Gateway;
use rumqttc::{Packet, PubAck, QoS};
use schemas::bag::PropertyBag;
use schemas::topics;
use serde_json::{Value, json};

#[tokio::test]
async fn a_reading_above_the_limit_leaves_as_an_alarm_before_it_is_acknowledged_and_nonsense_is_let_go() {
    let gateway = Gateway::start().await;
    let filter = gateway.run(env!("CARGO_BIN_EXE_threshold-filter"));
    let mut session = gateway.welcome(json!({"$version": 1, "temperatureLimit": 40})).await;
    assert_eq!(
        session.reported().await,
        json!({"temperatureLimit": 40.0, "errors": {"temperatureLimit": null}})
    );

    let mut bag = PropertyBag::new();
    bag.set("line", "3");
    let topic = topics::module_input(&"gw/filter".parse().unwrap(), "readings", &bag);
    let hot = json!({"machine": {"temperature": 40.5, "pressure": 2}}).to_string();
    let mild = json!({"machine": {"temperature": 40, "pressure": 2}}).to_string();
    for (packet_id, payload) in [(1, "nonsense"), (2, &mild), (3, &hot)] {
        session.publish(topic.clone(), QoS::AtLeastOnce, packet_id, payload).await;
    }
    for packet_id in [1, 2] {
        assert_eq!(session.packet().await, Some(Packet::PubAck(PubAck::new(packet_id))));
    }
    let alarm = session.published().await;
    let bag = alarm.topic.strip_prefix("devices/gw/modules/filter/messages/events/").unwrap();
    let bag = PropertyBag::parse(bag);
    assert_eq!(
        (bag.get("MessageType"), bag.get("line"), bag.get("$.on")),
        (Some("Alarm"), Some("3"), Some("alarms"))
    );
    assert_eq!(alarm.payload, hot);
    session.acknowledge(&alarm).await;
    assert_eq!(session.packet().await, Some(Packet::PubAck(PubAck::new(3))));
    session.stop(filter).await;
}

#[tokio::test]
async fn a_limit_that_is_no_number_is_reported_as_wrong_and_the_old_one_kept() {
    let gateway = Gateway::start().await;
    let filter = gateway.run(env!("CARGO_BIN_EXE_threshold-filter"));
    let mut session = gateway.welcome(json!({"$version": 1})).await;
    assert_eq!(session.reported().await["temperatureLimit"], 25.0);
    let patch = json!({"temperatureLimit": "hot", "$version": 2}).to_string();
    session.publish(topics::twin_desired(2), QoS::AtMostOnce, 0, &patch).await;
    let report: Value = session.reported().await;
    assert_eq!(report["temperatureLimit"], 25.0);
    assert!(report["errors"]["temperatureLimit"].as_str().unwrap().contains(r#"found "hot""#), "{report}");
    session.stop(filter).await;
}
