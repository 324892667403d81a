//! What a module sees and a gateway gets, through connects, cuts and the end.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod gateway;

use std::time::Duration;

use gateway::Gateway;
use module_sdk::module::{Event, Module, SendError, TwinError};
use module_sdk::settings::Settings;
use rumqttc::{ConnAck, ConnectReturnCode, Packet, QoS};
use schemas::bag::PropertyBag;
use schemas::topics;
use serde_json::{Value, json};

async fn desired(module: &mut Module) -> (u64, Value) {
    match module.next().await {
        Event::Desired(desired) => (desired.version, Value::Object(desired.properties)),
        other => panic!("expected desired properties, found {other:?}"),
    }
}

async fn input(module: &mut Module) -> String {
    match module.next().await {
        Event::Input(input) => String::from_utf8(input.payload.to_vec()).unwrap(),
        other => panic!("expected an input, found {other:?}"),
    }
}

#[tokio::test]
async fn a_module_proves_itself_with_a_token_that_the_workload_api_signed() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = now();
    let mut gateway = Gateway::start().await;
    let _module = Module::start(gateway.settings());
    let (connect, _session) = gateway.accept().await;
    let login = connect.login.unwrap();
    assert_eq!(connect.client_id, "gw/filter");
    assert_eq!(login.username, "hub.example/gw/filter/?api-version=2021-04-12");
    assert!(!connect.clean_session);
    let signed = gateway.signed.recv().await.unwrap();
    let (resource, expiry) = signed.split_once('\n').unwrap();
    assert_eq!(resource, "hub.example%2Fdevices%2Fgw%2Fmodules%2Ffilter");
    assert_eq!(login.password, format!("SharedAccessSignature sr={resource}&sig=a%2Bb%2Fc%3D&se={expiry}"));
    let (first, last) = (begun + 3600, now() + 3600);
    assert!((first..=last).contains(&expiry.parse().unwrap()), "{expiry}: {first} to {last}");
}

#[tokio::test]
async fn before_its_token_expires_a_module_leaves_in_order_and_comes_back_with_a_new_one() {
    let mut gateway = Gateway::start().await;
    let settings = Settings { token_valid: Duration::from_secs(2), ..gateway.settings() };
    let _module = Module::start(settings);
    let (_, mut session) = gateway.accept().await;
    session.write(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await;
    // On a busy machine it leaves before it has said all that it says first.
    loop {
        match session.packet().await {
            Some(Packet::Disconnect) => break,
            Some(_) => {}
            None => panic!("it left without a goodbye"),
        }
    }
    let (connect, _session) = gateway.accept().await;
    let expiry = |signed: String| signed.rsplit_once('\n').unwrap().1.parse::<u64>().unwrap();
    let (first, second) = (gateway.signed.recv().await.unwrap(), gateway.signed.recv().await.unwrap());
    assert!(connect.login.unwrap().password.ends_with(&format!("&se={}", expiry(second.clone()))));
    assert!(expiry(second) > expiry(first));
}

#[tokio::test]
async fn sending_ends_at_the_acknowledgement_and_what_a_cut_left_open_goes_out_again_in_order() {
    let gateway = Gateway::start().await;
    let module = Module::start(gateway.settings());
    let bag = PropertyBag::new();
    let sending = async {
        let (a, b, c) = tokio::join!(
            module.send("out", &bag, "a"),
            module.send("out", &bag, "b"),
            module.send("out", &bag, "c")
        );
        (a, b, c)
    };
    let answering = async {
        let mut session = gateway.welcome(json!({})).await;
        let first = session.published().await;
        assert_eq!(first.topic, "devices/gw/modules/filter/messages/events/%24.on=out");
        assert_eq!((first.qos, first.payload.as_ref()), (QoS::AtLeastOnce, b"a".as_slice()));
        session.acknowledge(&first).await;
        for expected in ["b", "c"] {
            assert_eq!(session.published().await.payload, expected);
        }
        drop(session);
        let mut session = gateway.welcome(json!({})).await;
        for expected in ["b", "c"] {
            let again = session.published().await;
            assert_eq!(again.payload, expected);
            session.acknowledge(&again).await;
        }
        session
    };
    let (sent, _session) = tokio::join!(sending, answering);
    assert_eq!(sent, (Ok(()), Ok(()), Ok(())));
}

#[tokio::test]
async fn an_input_is_acknowledged_when_the_next_event_is_requested_and_comes_again_after_a_cut() {
    let gateway = Gateway::start().await;
    let mut module = Module::start(gateway.settings());
    let me = "gw/filter".parse().unwrap();
    let topic = topics::module_input(&me, "readings", &PropertyBag::new());
    let mut session = gateway.welcome(json!({})).await;
    desired(&mut module).await;
    for (packet_id, payload) in [(7, "one"), (8, "two"), (9, "three")] {
        session.publish(topic.clone(), QoS::AtLeastOnce, packet_id, payload).await;
    }
    assert_eq!(input(&mut module).await, "one");
    assert_eq!(input(&mut module).await, "two");
    // Asking for "two" acknowledged "one".
    assert_eq!(session.packet().await, Some(Packet::PubAck(rumqttc::PubAck::new(7))));
    drop(session);

    let mut session = gateway.welcome(json!({"$version": 2})).await;
    for (packet_id, payload) in [(1, "two"), (2, "three")] {
        session.publish(topic.clone(), QoS::AtLeastOnce, packet_id, payload).await;
    }
    // "three" of the first connection is not told: it comes again, as the gateway's second "three" shows.
    assert_eq!(desired(&mut module).await.0, 2);
    assert_eq!(input(&mut module).await, "two");
    assert_eq!(input(&mut module).await, "three");
    assert_eq!(session.packet().await, Some(Packet::PubAck(rumqttc::PubAck::new(1))));
}

#[tokio::test]
async fn desired_properties_are_sent_whole_after_a_connect_and_after_a_patch() {
    let gateway = Gateway::start().await;
    let mut module = Module::start(gateway.settings());
    let mut session = gateway.welcome(json!({"$version": 4, "a": 1, "b": {"c": 1, "d": 2}})).await;
    assert_eq!(desired(&mut module).await, (4, json!({"a": 1, "b": {"c": 1, "d": 2}})));
    let patch = json!({"b": {"c": null}, "e": 5, "$version": 5}).to_string();
    session.publish(topics::twin_desired(5), QoS::AtMostOnce, 0, &patch).await;
    assert_eq!(desired(&mut module).await, (5, json!({"a": 1, "b": {"d": 2}, "e": 5})));
    drop(session);
    let _session = gateway.welcome(json!({"$version": 9, "a": 2})).await;
    assert_eq!(desired(&mut module).await, (9, json!({"a": 2})));
}

#[tokio::test]
async fn reports_give_the_new_version_or_the_gateways_words() {
    let gateway = Gateway::start().await;
    let module = Module::start(gateway.settings());
    let patch = json!({"intervalMs": 200});
    let requesting = async {
        let patch = patch.as_object().unwrap();
        (module.report(patch).await, module.report(patch).await, module.twin().await)
    };
    let answering = async {
        let mut session = gateway.welcome(json!({})).await;
        let mut answer = async |status, version, body: &str| {
            let request = session.published().await;
            let id = request.topic.rsplit_once('=').unwrap().1.to_owned();
            session.publish(topics::twin_response(status, &id, version), QoS::AtMostOnce, 0, body).await;
            request
        };
        let request = answer(204, Some(6), "").await;
        assert!(request.topic.starts_with("$iothub/twin/PATCH/properties/reported/?$rid="));
        assert_eq!(serde_json::from_slice::<Value>(&request.payload).unwrap(), patch);
        answer(400, None, r#"{"errorCode": 400, "message": "too large"}"#).await;
        answer(200, None, r#"{"desired": {"$version": 2}, "reported": {"$version": 6, "intervalMs": 200}}"#)
            .await;
        session
    };
    let ((first, second, twin), _session) = tokio::join!(requesting, answering);
    assert_eq!(first, Ok(6));
    assert_eq!(second, Err(TwinError::Refused { status: 400, message: "too large".into() }));
    let twin = twin.unwrap();
    assert_eq!((twin.reported.version, &twin.reported.properties["intervalMs"]), (6, &json!(200)));
}

#[tokio::test]
async fn a_method_is_answered_and_a_payload_that_is_not_json_never_reaches_the_module() {
    let gateway = Gateway::start().await;
    let mut module = Module::start(gateway.settings());
    let mut session = gateway.welcome(json!({})).await;
    desired(&mut module).await;
    for (id, payload) in [("r0", "{"), ("r1", r#"{"n": 1}"#), ("r2", "")] {
        session.publish(topics::method_call("reset", id), QoS::AtMostOnce, 0, payload).await;
    }
    for expected in [json!({"n": 1}), Value::Null] {
        match module.next().await {
            Event::Method(call) => {
                assert_eq!((call.name.as_str(), &call.payload), ("reset", &expected));
                call.answer(200, &json!({"reset": true})).await;
            }
            other => panic!("expected a method call, found {other:?}"),
        }
    }
    for (topic, payload) in [
        ("$iothub/methods/res/400/?$rid=r0", json!({"message": "the payload is not JSON"})),
        ("$iothub/methods/res/200/?$rid=r1", json!({"reset": true})),
        ("$iothub/methods/res/200/?$rid=r2", json!({"reset": true})),
    ] {
        let answer = session.published().await;
        assert_eq!(answer.topic, topic);
        assert_eq!(serde_json::from_slice::<Value>(&answer.payload).unwrap(), payload);
    }
}

#[tokio::test]
async fn a_gateway_that_refuses_or_is_away_is_tried_again() {
    let gateway = Gateway::start().await;
    let mut module = Module::start(gateway.settings());
    let (_, mut session) = gateway.accept().await;
    session.write(Packet::ConnAck(ConnAck::new(ConnectReturnCode::ServiceUnavailable, false))).await;
    let (_, session) = gateway.accept().await;
    drop(session);
    let _session = gateway.welcome(json!({"$version": 1})).await;
    assert_eq!(desired(&mut module).await.0, 1);
}

#[tokio::test]
async fn stopping_waits_for_what_is_in_flight_and_says_goodbye() {
    let gateway = Gateway::start().await;
    let module = Module::start(gateway.settings());
    let mut session = gateway.welcome(json!({})).await;
    let bag = PropertyBag::new();
    let last = {
        // Given up by its caller, and under way all the same.
        let mut send = std::pin::pin!(module.send("out", &bag, "last words"));
        tokio::select! {
            sent = &mut send => panic!("sent before it was acknowledged: {sent:?}"),
            last = session.published() => last,
        }
    };
    assert_eq!(last.payload, "last words");
    let stopping = tokio::spawn(module.stop());
    session.acknowledge(&last).await;
    assert_eq!(session.packet().await, Some(Packet::Disconnect));
    assert_eq!(session.packet().await, None);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_message_too_large_for_the_hub_is_refused_at_once() {
    let gateway = Gateway::start().await;
    let module = Module::start(gateway.settings());
    let sent = module.send("out", &PropertyBag::new(), vec![0; 256 * 1024]).await;
    assert!(matches!(sent, Err(SendError::TooLarge { bytes }) if bytes > 256 * 1024), "{sent:?}");
}
