//! Routes, as they show in central: an alarm overtakes a backlog, what plain clients say on free topics arrives as telemetry, and so
//! do changes of twins; a retained flag is told. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::Duration;

use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::five::Device;
use site_tests::rest::eventually;
use site_tests::site::Site;

const BACKLOG: u64 = 500;

/// The messages of a device in the order in which central received them, when there are so many.
async fn messages(site: &Site, device: &str, count: usize) -> Vec<Value> {
    let rest = site.rest().unwrap().clone();
    eventually(&format!("{count} messages of {device}"), STEP, || async {
        let messages = rest.messages(device).await?;
        Ok((messages.len() >= count).then_some(messages))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn priorities_free_topics_and_twin_changes_arrive_in_central_as_their_routes_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "routes-gateway", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let login = site.add_leaf("routes-1", Duration::ZERO).await.unwrap().login();
    site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
    site.apply_hub(json!({
        "schemaVersion": "1.2",
        "routes": {
            "alarms": {"route": "FROM /messages/* WHERE kind = 'alarm' INTO $upstream", "priority": 0},
            "readings": {"route": "FROM /messages/* WHERE kind = 'reading' INTO $upstream", "priority": 9},
            "topics": "FROM /mqtt/line1/+/temperature WHERE $body > 20 INTO $upstream",
            "twins": "FROM /twinChangeNotifications INTO $upstream",
        },
        "mqttBroker": {"authorizations": [{
            "identities": ["routes-1"],
            "allow": [{"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["line1/#"]}],
        }]},
    }))
    .await
    .unwrap();
    site.stop_central().await.unwrap();

    // central is away: the alarm comes last and arrives first.
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    let topic = |kind: &str| format!("devices/routes-1/messages/events/kind={kind}");
    for n in 1..=BACKLOG {
        device.publish(&topic("reading"), json!({"n": n}).to_string()).await.unwrap();
    }
    device.publish_retained(&topic("alarm"), json!({"alarm": true}).to_string()).await.unwrap();
    // No route takes these two.
    device.publish(&topic("other"), "{}").await.unwrap();
    device.publish("line1/press/temperature", "19").await.unwrap();
    site.start_central().await.unwrap();
    let arrived = messages(&site, "routes-1", BACKLOG as usize + 1).await;
    assert_eq!(arrived.len() as u64, BACKLOG + 1);
    assert_eq!(arrived[0]["body"], json!({"alarm": true}), "an alarm overtakes a backlog");
    assert_eq!(arrived[0]["properties"]["mqtt-retain"], "true", "{}", arrived[0]);
    let order: Vec<u64> = arrived[1..].iter().filter_map(|message| message["body"]["n"].as_u64()).collect();
    assert_eq!(order, (1..=BACKLOG).collect::<Vec<_>>());
    assert_eq!(arrived[1]["properties"].get("mqtt-retain"), None);
    let status = site.agent_json(&["status"]).await.unwrap();
    assert_eq!(status["unrouted"]["bySender"], json!({"routes-1": 1}), "{status}");

    device.publish("line1/press/temperature", "21.5").await.unwrap();
    let free = messages(&site, "routes-1", BACKLOG as usize + 2).await.pop().unwrap();
    assert_eq!(
        (&free["body"], &free["properties"]["mqtt-topic"]),
        (&json!(21.5), &json!("line1/press/temperature"))
    );

    device.subscribe("$iothub/twin/res/#").await.unwrap();
    let patch = json!({"mode": "eco"});
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", patch.to_string()).await.unwrap();
    let change = eventually("the twin change in central", STEP, || async {
        let of_hub = site.rest()?.messages("routes-gateway").await?;
        Ok(of_hub.into_iter().find(|message| message["body"] == patch))
    })
    .await
    .unwrap();
    assert_eq!(change["module"], "$edgeHub");
    let properties = &change["properties"];
    assert_eq!(
        (&properties["$.schema"], &properties["$.cdid"]),
        (&json!("twinChangeNotification"), &json!("routes-1"))
    );
    site.end(false).await.unwrap();
}
