//! A metered link: telemetry that has used up its day waits on disk, a restart gives it no more, and commands go on.

use serde_json::json;
use site_tests::rest::eventually;
use site_tests::site::Site;

use crate::broker::{STEP, start};
use crate::publisher::publish;

/// Bytes of each message at least.
const PADDING: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetry_waits_on_disk_when_its_bytes_of_the_day_are_used_up_and_twins_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "up-budget", false).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    let text = std::fs::read_to_string(site.edge_toml()).unwrap();
    std::fs::write(
        site.edge_toml(),
        format!("{text}\n[upstream.budget]\ntelemetry_bytes = 60000\ncommands_bytes = 1000000\n"),
    )
    .unwrap();
    start(&mut site).await;
    let login = site.add_leaf("up-metered", std::time::Duration::ZERO).await.unwrap().login();
    site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
    publish(
        site.gateway_mqtt,
        &login,
        (0..100).map(|n| json!({"n": n, "pad": "x".repeat(PADDING)}).to_string()),
    )
    .await;

    let rest = site.rest().unwrap().clone();
    // What is on its way waits here and may have arrived: all of it is acknowledged when the two counts are all messages. And no further
    // one follows when there is no space left for the text of one.
    let used_up = async |site: &Site| {
        eventually("the budget is used up", STEP, || async {
            let status = site.agent_json(&["status"]).await?;
            let spent = status["upstream"]["budget"]["spent"]["telemetry"].clone();
            let waiting = status["queues"][0]["messages"].as_u64().unwrap_or(0);
            let arrived = rest.messages("up-metered").await?.len() as u64;
            let left = 60_000 - spent["bytes"].as_u64().unwrap_or(0).min(60_000);
            let is_settled = left < PADDING as u64 && waiting + arrived == 100;
            Ok(is_settled.then_some((spent, waiting, arrived)))
        })
        .await
        .unwrap()
    };
    let (spent, waiting, arrived) = used_up(&site).await;
    assert!(spent["bytes"].as_u64().unwrap() <= 60_000, "{spent}");
    assert!((40..=60).contains(&waiting), "{waiting} wait");

    site.kill_agent().await.unwrap();
    start(&mut site).await;
    site.gateway_connected(STEP).await.unwrap();
    let (_, waiting, _) = used_up(&site).await;
    assert_eq!(waiting, 100 - arrived, "a restart gives no second budget");

    // Commands and twins have bytes left: a method is answered and a desired property arrives while telemetry waits.
    let answer =
        rest.post("/api/devices/up-budget/commands/ping", &json!({"responseTimeout": 60})).await.unwrap();
    assert_eq!(answer["responseCode"], 200, "{answer}");
    rest.patch("/api/devices/up-metered/properties", &json!({"interval": 5})).await.unwrap();
    eventually("the desired property is at the gateway, and the cost of both is counted", STEP, || async {
        let status = site.agent_json(&["status"]).await?;
        let spent = &status["upstream"]["budget"]["spent"];
        let bytes = |cause: &str| spent[cause]["bytes"].as_u64().unwrap_or(0);
        Ok((bytes("commands") > 0 && bytes("twins") > 0).then_some(()))
    })
    .await
    .unwrap();
    let (_, waiting, _) = used_up(&site).await;
    assert_eq!(waiting, 100 - arrived, "telemetry waits for its next day");
    let out = site_tests::process::run(&mut site.agent_command(&["status"]).unwrap()).await.unwrap().1;
    assert!(out.contains("budget      telemetry:") && out.contains("budget      commands:"), "{out}");
    site.end(false).await.unwrap();
}
