//! Clients that ask too much, or nothing, or nonsense, against the real daemon: its memory stays bounded, the others are
//! served, and it does not crash. `LINESIDE_OVERLOAD_SECS=60` makes the long form of what is timed (10 s otherwise).

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use site_tests::STEP;
use site_tests::bench::peer::pss_kb;
use site_tests::crowd::each;
use site_tests::probe::Probe;
use site_tests::raw::{self, Login};
use site_tests::site::Site;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a well-behaved device may wait meanwhile in nine of ten cases, on two cores that others use too; the probe gives up where it
/// is not served at all.
const SERVED: Duration = Duration::from_secs(5);
/// What the daemon may hold more than before, in kB: the queues of the clients that misbehave, and what the allocator keeps.
const GROWTH_KB_MAX: u64 = 32 * 1024;

fn length() -> Duration {
    let text = std::env::var("LINESIDE_OVERLOAD_SECS").unwrap_or_else(|_| "10".into());
    Duration::from_secs(text.parse().expect("LINESIDE_OVERLOAD_SECS is a number of seconds"))
}

/// A gateway that stands alone, `count` devices on it, and a probe that runs.
async fn gateway(dir: &std::path::Path, count: usize) -> (Site, Vec<Login>, Probe) {
    let mut site = Site::new(dir, "overload-gateway", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    site.open_free_topics("load/#").await.unwrap();
    let ids: Vec<String> = (0..count).map(|index| format!("crowd-{index:03}")).collect();
    let crowd = site.add_here(&ids).await.unwrap();
    let mut probes = site.add_here(&["probe-stays".into(), "probe-comes".into()]).await.unwrap();
    probes.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    let probe = Probe::start(site.gateway_mqtt, probes[1].clone(), probes[0].clone());
    (site, crowd, probe)
}

/// The daemon runs, holds little more than before, and has served the probe.
async fn is_unharmed(mut site: Site, probe: Probe, before_kb: u64) {
    let waited = probe.end().await.unwrap();
    let after_kb = pss_kb(site.agent_id().unwrap()).unwrap();
    println!("PSS {before_kb} kB before, {after_kb} kB after");
    let mostly = waited.mostly();
    assert!(mostly.iter().all(|waited| *waited < SERVED), "the probe waited {mostly:?}");
    assert!(after_kb < before_kb + GROWTH_KB_MAX, "PSS grew from {before_kb} to {after_kb} kB");
    site.end(true).await.unwrap();
}

/// Comes and goes `times` times, half of them with a DISCONNECT and half of them without.
async fn come_and_go(port: u16, login: &Login, times: usize) -> anyhow::Result<()> {
    for time in 0..times {
        let mut stream = login.open(port).await?;
        if time % 2 == 0 {
            stream.write_all(&[0xe0, 0]).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_connects_and_disconnects_leave_no_memory_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (site, crowd, probe) = gateway(dir.path(), 50).await;
    let port = site.gateway_mqtt;
    let visits =
        |times| each(crowd.clone(), move |login| async move { come_and_go(port, &login, times).await });
    // The first visits fill what is kept on purpose: the allocator's pools and each client's entry.
    visits(20).await.unwrap();
    let before_kb = pss_kb(site.agent_id().unwrap()).unwrap();
    let since = Instant::now();
    visits(200).await.unwrap();
    println!("10,000 connects and disconnects: {:.0}/s", 10_000.0 / since.elapsed().as_secs_f64());
    is_unharmed(site, probe, before_kb).await;
}

/// Publishes as fast as it is taken until the time is over or the gateway closes; gives how many went out.
async fn flood(port: u16, login: Login, topic: &str, qos: u8, until: Instant) -> u64 {
    let stream = login.open(port).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let answers = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    let packets: Vec<Vec<u8>> = (1..=100).map(|id| raw::publish(topic, qos, id, &[b'x'; 1024])).collect();
    let batch = packets.concat();
    let mut sent = 0;
    while Instant::now() < until {
        match tokio::time::timeout_at(until.into(), writer.write_all(&batch)).await {
            Ok(Ok(())) => sent += 100,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    answers.abort();
    sent
}

#[tokio::test]
async fn a_subscriber_that_never_reads_costs_a_bounded_queue_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (site, crowd, probe) = gateway(dir.path(), 6).await;
    let port = site.gateway_mqtt;
    let mut stalled = Vec::new();
    for (login, filter, qos) in [(&crowd[0], "load/#", 0), (&crowd[1], "load/acknowledged", 1)] {
        let mut stream = login.open(port).await.unwrap();
        raw::subscribed(&mut stream, filter, qos).await.unwrap();
        stalled.push(stream);
    }
    // One that reads, beside the one that does not.
    let mut reads = crowd[2].open(port).await.unwrap();
    raw::subscribed(&mut reads, "load/fast", 0).await.unwrap();
    let before_kb = pss_kb(site.agent_id().unwrap()).unwrap();

    let until = Instant::now() + length();
    let reading = tokio::spawn(async move {
        let (mut bytes, mut buffer) = (0, vec![0; 64 * 1024]);
        while let Ok(Ok(read @ 1..)) = tokio::time::timeout_at(until.into(), reads.read(&mut buffer)).await {
            bytes += read;
        }
        bytes / raw::publish("load/fast", 0, 0, &[b'x'; 1024]).len()
    });
    let (fast, acknowledged) = tokio::join!(
        flood(port, crowd[3].clone(), "load/fast", 0, until),
        flood(port, crowd[4].clone(), "load/acknowledged", 1, until),
    );
    let read = reading.await.unwrap();
    println!("sent {fast} at QoS 0 and {acknowledged} at QoS 1; the one that reads got {read}");
    assert!(fast > 1_000 && read > 1_000, "sent {fast}, read {read}");
    is_unharmed(site, probe, before_kb).await;
    drop(stalled);
}

/// Bytes that are no MQTT, or MQTT that says what it must not.
fn nonsense(random: &mut StdRng, login: &Login) -> Vec<u8> {
    let mut bytes = login.connect(0);
    let mut some = |length: usize| (0..length).map(|_| random.random::<u8>()).collect::<Vec<u8>>();
    match some(1)[0] % 8 {
        // Not even a CONNECT.
        0 => some(200),
        // A CONNECT with some bytes changed.
        1 => {
            let places = some(4);
            for place in places {
                let place = usize::from(place) % bytes.len();
                bytes[place] = bytes[place].wrapping_add(1 + place as u8 % 7);
            }
            bytes
        }
        // A length without an end, and one that promises 256 MB.
        2 => vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        3 => vec![0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4],
        // Proven, and then: nonsense, two CONNECTs, a topic with a wildcard, a packet that promises more than it may.
        4 => {
            bytes.extend(some(300));
            bytes
        }
        5 => {
            bytes.extend(login.connect(0));
            bytes
        }
        6 => {
            bytes.extend(raw::publish("load/#", 1, 0, b"x"));
            bytes
        }
        _ => {
            bytes.extend([0x32, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff]);
            bytes
        }
    }
}

#[tokio::test]
async fn malformed_packets_from_fifty_sockets_end_their_own_connections_and_no_others() {
    const SEED: u64 = 20_261_124;
    let dir = tempfile::tempdir().unwrap();
    let (site, crowd, probe) = gateway(dir.path(), 50).await;
    let port = site.gateway_mqtt;
    let before_kb = pss_kb(site.agent_id().unwrap()).unwrap();
    let until = Instant::now() + length() / 2;
    let numbered = crowd.into_iter().zip(SEED..).collect();
    let sent = each(numbered, move |(login, seed)| async move {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sent = 0;
        while Instant::now() < until {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            // The gateway may close before it has read everything.
            let _ = stream.write_all(&nonsense(&mut random, &login)).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(STEP, stream.read_to_end(&mut rest))
                .await
                .map_err(|_| anyhow::anyhow!("seed {seed}: the gateway did not close"))?;
            sent += 1;
        }
        Ok(sent)
    })
    .await
    .unwrap();
    println!("seed {SEED}: {} connections with malformed packets", sent.iter().sum::<u64>());
    is_unharmed(site, probe, before_kb).await;
}

#[tokio::test]
async fn silent_clients_are_let_go_and_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (site, _, probe) = gateway(dir.path(), 1).await;
    let before_kb = pss_kb(site.agent_id().unwrap()).unwrap();
    let mut silent = Vec::new();
    for port in [site.gateway_mqtt, site.gateway_mqtts] {
        for index in 0..100 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            // Every other one begins: a CONNECT, or a TLS record, that never ends.
            if index % 2 == 0 {
                let begun: &[u8] =
                    if port == site.gateway_mqtt { &[0x10, 100, 0, 4] } else { &[0x16, 3, 1, 2, 0, 1] };
                // It may have been let go already, if this machine was slow.
                let _ = stream.write_all(begun).await;
            }
            silent.push(stream);
        }
    }
    let since = Instant::now();
    each(silent, |mut stream| async move {
        let mut rest = Vec::new();
        // What matters is that it ends; a TLS alert may come before.
        let _ = tokio::time::timeout(STEP, stream.read_to_end(&mut rest))
            .await
            .map_err(|_| anyhow::anyhow!("a silent client was kept"))?;
        Ok(())
    })
    .await
    .unwrap();
    println!("200 silent clients were let go {:.1} s after they had come", since.elapsed().as_secs_f64());
    is_unharmed(site, probe, before_kb).await;
}
