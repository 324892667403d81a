//! The sensor's program at a small gateway: its readings, its interval and its method.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

#[path = "../../sdk/tests/gateway/mod.rs"]
mod gateway;

use gateway::{Gateway, Session};
use rumqttc::QoS;
use schemas::topics;
use serde_json::{Value, json};

/// The next reading's temperature; whatever else comes before it is passed over.
async fn temperature(session: &mut Session) -> f64 {
    loop {
        let publish = session.published().await;
        if publish.qos == QoS::AtLeastOnce {
            assert!(publish.topic.ends_with("%24.on=temperatureOutput"), "{}", publish.topic);
            session.acknowledge(&publish).await;
            let reading: Value = serde_json::from_slice(&publish.payload).unwrap();
            return reading["machine"]["temperature"].as_f64().unwrap();
        }
    }
}

/// The next publish that is not a reading.
async fn answer(session: &mut Session) -> (String, Value) {
    loop {
        let publish = session.published().await;
        if publish.qos == QoS::AtMostOnce {
            return (publish.topic, serde_json::from_slice(&publish.payload).unwrap());
        }
        session.acknowledge(&publish).await;
    }
}

async fn report(session: &mut Session) -> Value {
    let (topic, report) = answer(session).await;
    let id = topic.strip_prefix("$iothub/twin/PATCH/properties/reported/?$rid=").unwrap();
    session.publish(topics::twin_response(204, id, Some(2)), QoS::AtMostOnce, 0, "").await;
    report
}

#[tokio::test]
async fn readings_rise_past_25_degrees_at_the_interval_of_the_twin_and_a_reset_starts_again() {
    let gateway = Gateway::start().await;
    let sensor = gateway.run(env!("CARGO_BIN_EXE_simulated-sensor"));
    let mut session = gateway.welcome(json!({"$version": 1, "intervalMs": 50})).await;
    assert_eq!(report(&mut session).await["intervalMs"], 50);
    let mut hottest = 0.0_f64;
    for _ in 0..10 {
        hottest = hottest.max(temperature(&mut session).await);
    }
    assert!(hottest > 25.0, "{hottest}");

    session.publish(topics::method_call("reset", "r1"), QoS::AtMostOnce, 0, "{}").await;
    assert_eq!(
        answer(&mut session).await,
        ("$iothub/methods/res/200/?$rid=r1".to_owned(), json!({"reset": true}))
    );
    assert!(temperature(&mut session).await < 22.0);

    session.publish(topics::method_call("explode", "r2"), QoS::AtMostOnce, 0, "").await;
    let (topic, refusal) = answer(&mut session).await;
    assert_eq!(topic, "$iothub/methods/res/404/?$rid=r2");
    assert!(refusal["message"].as_str().unwrap().contains("`explode`"), "{refusal}");

    let patch = json!({"intervalMs": 10, "$version": 2}).to_string();
    session.publish(topics::twin_desired(2), QoS::AtMostOnce, 0, &patch).await;
    let kept = report(&mut session).await;
    assert_eq!(kept["intervalMs"], 50);
    assert!(kept["errors"]["intervalMs"].as_str().unwrap().starts_with("found 10;"), "{kept}");
    session.stop(sensor).await;
}
