//! Ten thousand devices, as many as may stand behind one gateway, with the longest ids, each with a connection of its own: central
//! sees every one of them, one that comes and goes costs the link little, and after the link broke all of it is right again.
//!
//! The clients are bare sockets that said CONNECT. No containers needed.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::link::CHILDREN_MAX;
use serde_json::json;
use site_tests::STEP;
use site_tests::crowd::each;
use site_tests::leaf::LeafOptions;
use site_tests::raw::Login;
use site_tests::rest::{Rest, eventually};
use site_tests::site::Site;

/// How often one device comes and goes.
const FLAPS: u64 = 20;
/// What one coming or going may cost on the link: the id has 128 bytes, and a message of the link some more.
const BYTES_PER_EVENT_MAX: u64 = 600;

/// Registers a device behind the gateway; gives what it connects with.
async fn register(rest: Rest, gateway: String, port: u16, id: String) -> anyhow::Result<Login> {
    rest.put(&format!("/api/devices/{id}"), &json!({})).await?;
    let relationship = json!({"name": "downstream", "source": gateway, "target": id});
    // Ids of relationships are shorter than those of devices.
    let short = &id[id.len() - 5..];
    rest.put(&format!("/api/devices/{gateway}/relationships/to-{short}"), &relationship).await?;
    let credentials = rest.get(&format!("/api/devices/{id}/credentials")).await?;
    let key = credentials["symmetricKey"]["primaryKey"].as_str().unwrap_or_default();
    let options = LeafOptions {
        identity: id.parse()?,
        key: STANDARD.decode(key)?,
        hub_name: "localhost".into(),
        port,
        ca: None,
        interval: Duration::ZERO,
        padding: 0,
    };
    Ok(options.login())
}

/// The devices that central says are not connected.
async fn absent(rest: &Rest, ids: &[String]) -> BTreeSet<String> {
    let rest = rest.clone();
    let answers = each(ids.to_vec(), move |id| {
        let rest = rest.clone();
        async move { Ok((rest.get(&format!("/api/ext/devices/{id}/status")).await?["connected"] == true, id)) }
    });
    answers.await.unwrap().into_iter().filter(|(is_connected, _)| !is_connected).map(|(_, id)| id).collect()
}

async fn is_connected(rest: &Rest, id: &str, expected: bool) {
    eventually(&format!("{id}: connected is {expected}"), STEP, || async {
        let status = rest.get(&format!("/api/ext/devices/{id}/status")).await?;
        Ok((status["connected"] == expected).then_some(()))
    })
    .await
    .unwrap();
}

/// All bytes that the link has cost today.
async fn link_bytes(site: &Site) -> u64 {
    let status = site.agent_json(&["status"]).await.unwrap();
    let spent = status["upstream"]["budget"]["spent"].as_object().unwrap();
    spent.values().map(|spent| spent["bytes"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connected_devices_are_all_seen_and_one_that_flaps_costs_little() {
    edge_hub::files::raise();
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "crowded-gateway", false).unwrap();
    site.log_level = "warn,edge_agent=info,central=info";
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    let rest = site.rest().unwrap().clone();
    let began = Instant::now();
    let passed = |what: &str| println!("{:>5.1} s  {what}", began.elapsed().as_secs_f64());

    let ids: Vec<String> = (0..CHILDREN_MAX).map(|n| format!("{n:0>128}")).collect();
    let (gateway, port, of) = (site.gateway.clone(), site.gateway_mqtt, rest.clone());
    let register = move |id| register(of.clone(), gateway.clone(), port, id);
    let mut logins = each(ids.clone(), register).await.unwrap();
    logins.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    passed("devices registered");
    site.leaves_known(&logins).await.unwrap();
    passed("the gateway knows them");

    let connect = move |login: Login| async move { Ok((login.open(port).await?, login.client_id)) };
    let mut connections = each(logins.clone(), connect).await.unwrap();
    passed("devices connected");
    let all_seen = async |but: usize| {
        eventually("central sees all devices connected", STEP, || async {
            Ok((absent(&rest, &ids).await.len() == but).then_some(()))
        })
        .await
        .unwrap();
    };
    all_seen(0).await;
    passed("central sees all of them");

    let before = link_bytes(&site).await;
    let (flapping, id) = (logins[7].clone(), ids[7].clone());
    connections.retain(|(_, of)| *of != id);
    is_connected(&rest, &id, false).await;
    for _ in 1..FLAPS {
        let held = flapping.open(port).await.unwrap();
        is_connected(&rest, &id, true).await;
        drop(held);
        is_connected(&rest, &id, false).await;
    }
    let events = 2 * FLAPS - 1;
    let each_cost = (link_bytes(&site).await - before) / events;
    println!("{events} events of one of {CHILDREN_MAX} devices cost {each_cost} bytes of the link each");
    assert!(each_cost < BYTES_PER_EVENT_MAX, "{each_cost} bytes for one device that came or went");

    // The link breaks, and some come and go meanwhile.
    site.kill_central().await.unwrap();
    site.link_is(false, STEP).await.unwrap();
    connections.push((flapping.open(port).await.unwrap(), id.clone()));
    let gone: BTreeSet<String> = ids[100..110].iter().cloned().collect();
    connections.retain(|(_, of)| !gone.contains(of));
    let before = link_bytes(&site).await;
    site.start_central().await.unwrap();
    site.gateway_connected(STEP).await.unwrap();
    all_seen(gone.len()).await;
    assert_eq!(absent(&rest, &ids).await, gone);
    passed("after a reconnect central sees those that are connected, and no others");
    let cost = link_bytes(&site).await - before;
    println!(
        "a new connection of the link cost {} bytes for each of {CHILDREN_MAX} devices",
        cost / ids.len() as u64
    );
    assert_eq!(connections.len(), CHILDREN_MAX - gone.len());
    site.end(false).await.unwrap();
}
