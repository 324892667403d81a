//! Nothing is lost and nobody is overtaken while mosquitto and the daemon are killed again and again; what comes twice is
//! known by its place in the gateway's queue. `LINESIDE_FAULTS=1` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::broker::{Broker, STEP, gateway, is_now, observe, start};
use crate::publisher;

/// Lets the gateway through to the broker only while the looker is subscribed there: what mosquitto acknowledges to nobody
/// it forgets, and that would be no loss of ours.
async fn gate(to: u16, mut is_open: watch::Receiver<bool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let Ok((mut near, _)) = listener.accept().await else { return };
            if is_open.wait_for(|is_open| *is_open).await.is_err() {
                return;
            }
            let mut closes = is_open.clone();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = closes.wait_for(|is_open| !is_open) => {}
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_gets_every_message_in_order_while_it_and_the_daemon_are_killed() {
    let is_long = std::env::var_os("LINESIDE_FAULTS").is_some();
    let (rounds, each) = if is_long { (30, 4_000) } else { (3, 400) };
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(&dir.path().join("broker"), "require_certificate true").await;
    let (mut seen, mut there) = observe(broker.plain).await;
    let port = gate(broker.port, there.clone()).await;
    let mut site = gateway(&dir.path().join("site"), "up-kill", &broker.upstream(port, "")).await;
    let ids: Vec<String> = (0..4).map(|n| format!("press-{n}")).collect();
    let logins = site.add_here(&ids).await.unwrap();
    let publishers: Vec<_> = logins
        .iter()
        .map(|login| {
            let (port, login) = (site.gateway_mqtt, login.clone());
            tokio::spawn(
                async move { publisher::publish(port, &login, (0..each).map(|n| n.to_string())).await },
            )
        })
        .collect();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(random.random_range(200..900))).await;
        broker.kill().await;
        // The gate must be shut before there is a broker again, or the gateway would be there before the looker.
        is_now(&mut there, false).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        broker.run().await;
        is_now(&mut there, true).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(200..900))).await;
        site.kill_agent().await.unwrap();
        start(&mut site).await;
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut places, mut arrived, mut twice) = (BTreeSet::new(), 0, 0);
    let is_whole = |numbers: &BTreeMap<String, Vec<u64>>| {
        let whole = |numbers: &Vec<u64>| numbers.iter().collect::<BTreeSet<_>>().len() == each;
        numbers.len() == ids.len() && numbers.values().all(whole)
    };
    while !is_whole(&numbers) {
        let Ok(Some(message)) = tokio::time::timeout(STEP, seen.recv()).await else {
            let counts: Vec<_> =
                numbers.iter().map(|(id, n)| (id, n.iter().collect::<BTreeSet<_>>().len())).collect();
            panic!("lost: {counts:?} of {each} each arrived; {}", site.agent_log());
        };
        arrived += 1;
        if !places.insert(message.place()) {
            // Sent again after a cut: known by its place.
            twice += 1;
            continue;
        }
        let device = message.topic.strip_prefix("site/up-kill/").unwrap().to_owned();
        assert_eq!(message.properties["$.cdid"], device);
        numbers.entry(device).or_default().push(message.body.parse().unwrap());
    }
    for (device, numbers) in &numbers {
        // A publisher whose acknowledgement was lost with the daemon says its last message once more.
        assert!(numbers.is_sorted(), "{device}: {numbers:?}");
    }
    println!(
        "{rounds} SIGKILLs of mosquitto and of edge-agent: acknowledged {}, arrived {arrived}, lost 0, twice {twice}, each known by queue and sequence",
        each * ids.len()
    );
    assert_eq!(site.agent_json(&["quarantine", "list"]).await.unwrap()["count"], 0, "nobody is to blame");
    site.end(false).await.unwrap();
}
