//! Who takes what others need: connections, descriptors, memory, log space, queues.

use std::time::{Duration, Instant};

use site_tests::STEP;
use site_tests::raw::{self, Login};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::target::{Limits, Target, connect_from, is_long, length};

/// Does `attack` again and again until the time is over; gives how often.
async fn until<F: Future<Output = ()>>(end: Instant, mut attack: impl FnMut() -> F) -> u64 {
    let mut times = 0;
    while Instant::now() < end {
        attack().await;
        times += 1;
    }
    times
}

#[tokio::test]
async fn a_device_that_breaks_the_rules_for_ever_does_not_fill_the_log() {
    let target = Target::start("publish to $x").await;
    let (port, login) = (target.site.gateway_mqtt, target.attacker.clone());
    let end = Instant::now() + length();
    let times = until(end, || async {
        let Ok(mut stream) = login.open(port).await else { return };
        let packets: Vec<u8> = (0..1_000).flat_map(|_| raw::publish("$x", 0, 0, b"x")).collect();
        // The gateway closes before it has read everything.
        let _ = stream.write_all(&packets).await;
        let _ = stream.read(&mut [0; 64]).await;
    })
    .await;
    println!("{times} connections with 1,000 forbidden messages each");
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn strangers_that_try_for_ever_do_not_fill_the_log() {
    let target = Target::start("unknown clients").await;
    let port = target.site.gateway_mqtt;
    let end = Instant::now() + length();
    let mut number = 0_u32;
    let times = until(end, || {
        number += 1;
        let account = Some((
            format!("localhost/nobody-{number}/?api-version=2021-04-12"),
            "SharedAccessSignature x".into(),
        ));
        let login = Login { client_id: format!("nobody-{number}"), account };
        async move {
            let Ok(mut stream) = connect_from([127, 0, 0, 9], port).await else { return };
            let _ = stream.write_all(&login.connect(0)).await;
            let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 4])).await;
        }
    })
    .await;
    println!("{times} CONNECTs of unknown clients");
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn half_open_connections_of_one_host_keep_no_device_out() {
    let target = Target::start("half-open connections").await;
    let ports = [target.site.gateway_mqtt, target.site.gateway_mqtts];
    let count = if is_long() { 4_000 } else { 600 };
    let mut held = Vec::new();
    for index in 0..count {
        // Refused ones are tried again by an attacker; they hold nothing.
        if let Ok(mut stream) = connect_from([127, 0, 0, 8], ports[index % 2]).await {
            let _ = stream.write_all(&[0x10, 100, 0, 4]).await;
            held.push(stream);
        }
    }
    tokio::time::sleep_until((Instant::now() + length()).into()).await;
    println!("{} half-open connections", held.len());
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn wrong_passwords_cost_bounded_memory_and_lock_nobody_else_out() {
    let target = Target::start("wrong passwords").await;
    let port = target.site.gateway_mqtt;
    target.site.agent_json(&["user", "add", "plc1"]).await.unwrap();
    let end = Instant::now() + length();
    let guessers: Vec<_> = (0..50)
        .map(|guesser| {
            tokio::spawn(async move {
                until(end, || async {
                    let account = Some(("plc1".to_owned(), format!("guess-{guesser}")));
                    let login = Login { client_id: format!("guess-{guesser}"), account };
                    let Ok(mut stream) = connect_from([127, 0, 0, 7], port).await else { return };
                    let _ = stream.write_all(&login.connect(0)).await;
                    let _ = tokio::time::timeout_at(end.into(), stream.read(&mut [0; 4])).await;
                })
                .await
            })
        })
        .collect();
    for guesser in guessers {
        guesser.await.unwrap();
    }
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn unfinished_requests_on_the_local_socket_cost_bounded_memory() {
    let target = Target::start("unfinished bodies on the control socket").await;
    let socket = target.site.agent_dir().join("edge-agent.sock");
    let mut held = Vec::new();
    for _ in 0..600 {
        let Ok(Ok(mut stream)) =
            tokio::time::timeout(Duration::from_secs(1), UnixStream::connect(&socket)).await
        else {
            break;
        };
        let head = b"POST /devices HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n";
        let body = vec![b' '; 1_000_000];
        let _ = tokio::time::timeout(Duration::from_millis(50), async {
            stream.write_all(head).await?;
            stream.write_all(&body).await
        })
        .await;
        held.push(stream);
    }
    println!("{} unfinished requests", held.len());
    drop(held);
    target.site.agent_json(&["status"]).await.unwrap();
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn half_requests_at_the_rest_api_starve_neither_gateways_nor_operators() {
    let target = Target::start("half requests at the REST API").await;
    let count = if is_long() { 3_000 } else { 1_000 };
    let mut held = Vec::new();
    for _ in 0..count {
        let opened = connect_from([127, 0, 0, 6], target.site.http.port());
        if let Ok(Ok(mut stream)) = tokio::time::timeout(Duration::from_millis(100), opened).await {
            let _ = stream.write_all(b"GET /api/devices HTTP/1.1\r\nHost: x\r\n").await;
            held.push(stream);
        }
    }
    println!("{} half requests", held.len());
    target.site.gateway_connected(STEP).await.unwrap();
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn a_subscriber_that_never_acknowledges_closes_no_publisher() {
    let target = Target::start("subscriber without PUBACKs").await;
    let port = target.site.gateway_mqtt;
    let mut slow = target.attacker.open(port).await.unwrap();
    raw::subscribed(&mut slow, "load/line", 1).await.unwrap();
    let publisher = target.site.add_leaf("publisher", Duration::ZERO).await.unwrap().login();
    target.site.leaves_known(std::slice::from_ref(&publisher)).await.unwrap();
    let mut stream = publisher.open(port).await.unwrap();
    // The fault as found closed publishers after 30 s.
    let end = Instant::now() + Duration::from_secs(if is_long() { 90 } else { 36 });
    let packet = raw::publish("load/line", 1, 1, &[b'x'; 4096]);
    let (mut sent, mut answer) = (0_u64, [0; 4]);
    while Instant::now() < end || sent <= 1_000 {
        assert!(Instant::now() < end + STEP, "only {sent} messages were acknowledged");
        stream.write_all(&packet).await.expect("the publisher stays connected");
        let answered = tokio::time::timeout(STEP, stream.read_exact(&mut answer)).await;
        answered.expect("the publisher is answered").expect("the publisher stays connected");
        sent += 1;
    }
    println!("{sent} messages acknowledged beside a subscriber that acknowledges none");
    target.held(Limits::default()).await.unwrap();
}

#[tokio::test]
async fn long_filters_and_many_sessions_of_one_identity_are_bounded() {
    let target = Target::start("filters and sessions of one identity").await;
    let port = target.site.gateway_mqtt;
    let answer = target.site.agent_json(&["user", "add", "many"]).await.unwrap();
    let password = answer["password"].as_str().unwrap().to_owned();
    let filter = format!("load/{}", "x".repeat(60_000));
    let packets: Vec<u8> =
        (0..100).flat_map(|number| raw::subscribe(&format!("{filter}{number}"), 1)).collect();
    let mut held = Vec::new();
    for number in 0..if is_long() { 300 } else { 40 } {
        let login =
            Login { client_id: format!("many-{number}"), account: Some(("many".into(), password.clone())) };
        let Ok(mut stream) = login.open(port).await else { continue };
        let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(&packets)).await;
        held.push(stream);
    }
    println!("{} connections with 100 filters of 60 kB each", held.len());
    target.held(Limits::default()).await.unwrap();
}
