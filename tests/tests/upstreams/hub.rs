//! IoT Hub's own endpoint as upstream: one connection for each device that has a key, tested against central's listener, which
//! speaks the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use site_tests::process::run;
use site_tests::raw::Login;
use site_tests::rest::eventually;
use site_tests::site::Site;

use crate::broker::{STEP, set_upstream, start};
use crate::publisher::{of, publish, publish_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_with_keys_connect_to_the_hub_as_themselves_and_the_others_messages_are_the_gateways() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "up-hub", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    let rest = site.rest().unwrap().clone();
    let text = std::fs::read_to_string(site.edge_toml()).unwrap();
    let upstream = text.split("[upstream]\n").nth(1).unwrap().to_owned();
    set_upstream(&site, &format!("kind = \"iot-hub\"\n{upstream}"));
    start(&mut site).await;

    // The hub's devices, with the keys that they show at the gateway too; and one that the hub does not know.
    let mut logins: Vec<Login> =
        site.add_here(&["hub-a", "hub-b", "hub-unknown"].map(str::to_owned)).await.unwrap();
    let key = STANDARD.encode([7; 32]);
    for id in ["hub-a", "hub-b"] {
        rest.put(&format!("/api/devices/{id}"), &json!({"displayName": id})).await.unwrap();
        let keys = json!({"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}});
        rest.put(&format!("/api/devices/{id}/attestation"), &keys).await.unwrap();
    }
    // Whoever has no key goes up as the gateway, with its name.
    let (code, out, error) = run(&mut site
        .agent_command(&["device", "add", "hub-x509", "--x509-ca", "--password", "--json"])
        .unwrap())
    .await
    .unwrap();
    assert_eq!(code, 0, "{error}");
    let added: serde_json::Value = serde_json::from_str(&out).unwrap();
    let user = &added["user"];
    logins.push(Login {
        client_id: "hub-x509".into(),
        account: Some((
            user["name"].as_str().unwrap_or("hub-x509").to_owned(),
            user["password"].as_str().or(added["password"].as_str()).unwrap().to_owned(),
        )),
    });

    let numbers = |from: u32| (from..from + 20).map(|n| json!({"n": n}).to_string());
    publish_with(site.gateway_mqtt, of(&logins, "hub-a"), "line=4", numbers(0)).await;
    publish(site.gateway_mqtt, of(&logins, "hub-unknown"), ["{}".to_owned()]).await;
    publish(site.gateway_mqtt, of(&logins, "hub-b"), numbers(0)).await;
    publish(site.gateway_mqtt, of(&logins, "hub-x509"), [r#"{"x509":1}"#.to_owned()]).await;
    publish(site.gateway_mqtt, of(&logins, "hub-a"), numbers(20)).await;

    let telemetry = async |device: &str, count: usize| {
        eventually(&format!("{count} messages of {device} in the hub"), STEP, || async {
            let all = rest.messages(device).await?;
            Ok((all.len() >= count).then_some(all))
        })
        .await
        .unwrap()
    };
    let a = telemetry("hub-a", 40).await;
    assert_eq!(a.len(), 40);
    assert!(a.iter().any(|message| message["properties"]["line"] == "4"), "{:?}", a[0]);
    let mut ids: Vec<_> = a.iter().map(|message| message["properties"]["$.mid"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40, "each has an id that names it for ever");
    assert_eq!(telemetry("hub-b", 20).await.len(), 20);
    let own = telemetry("up-hub", 1).await;
    assert_eq!(own[0]["properties"]["lineside-device"], "hub-x509", "{own:?}");

    // The hub lets the gateway in and not a device that it does not know: that device keeps nobody waiting.
    eventually("the unknown device's message is in quarantine", STEP, || async {
        let list = site.agent_json(&["quarantine", "list"]).await?;
        Ok((list["count"] == 1 && list["messages"][0]["sender"] == "hub-unknown").then_some(()))
    })
    .await
    .unwrap();
    eventually("the queue is empty", STEP, || async {
        Ok((site.agent_json(&["status"]).await?["queues"][0]["messages"] == 0).then_some(()))
    })
    .await
    .unwrap();

    // The hub is killed and comes back: nothing is lost.
    site.kill_central().await.unwrap();
    publish(site.gateway_mqtt, of(&logins, "hub-b"), numbers(20)).await;
    site.link_is(false, STEP).await.unwrap();
    site.start_central().await.unwrap();
    telemetry("hub-b", 40).await;
    site.end(false).await.unwrap();
}
