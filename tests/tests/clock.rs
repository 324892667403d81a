//! A gateway's clock is not proven: what is right but for the time is told to come back, not refused for good.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, SystemTime};

use edge_core::access::sas;
use schemas::timestamp::rfc3339;
use site_tests::STEP;
use site_tests::fake_clock::FakeClock;
use site_tests::five::Device;
use site_tests::process::run;
use site_tests::rest::eventually;
use site_tests::site::{KEY_HERE, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// CONNACK 5 makes Azure's Python SDK give up for good; 3 makes it try again.
#[tokio::test]
async fn a_right_token_that_this_clock_calls_expired_gets_connack_3_and_a_wrong_one_5() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "clock", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    let mut login = site.add_here(&["press-1".into()]).await.unwrap().remove(0);
    let token = |key: &[u8]| sas::token("localhost", &"press-1".parse().unwrap(), key, 946_684_800);
    for (key, code) in [(&KEY_HERE[..], 3), (b"guessed", 5)] {
        login.account.as_mut().unwrap().1 = token(key);
        let mut stream = TcpStream::connect(("127.0.0.1", site.gateway_mqtt)).await.unwrap();
        stream.write_all(&login.connect(0)).await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, code]);
    }
    site.end(false).await.unwrap();
}

/// The clock of a gateway without battery stands in 2000, is set right, runs ahead by 300 days and is set right again, all while the
/// daemon runs and central is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_by_a_wrong_clock_reaches_central_with_its_right_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "wrong-clock", false).unwrap();
    let clock = FakeClock::of_gateway(&mut site, dir.path()).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    site.start_agent().await.unwrap();
    let login = site.add_leaf("press-1", Duration::ZERO).await.unwrap().login();
    site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
    site.stop_central().await.unwrap();
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    let began = SystemTime::now();
    for offset in ["-9800d", "+0", "+300d", "+0"] {
        clock.set(offset).unwrap();
        device.publish("devices/press-1/messages/events/", "1").await.unwrap();
    }
    let ended = SystemTime::now();
    site.start_central().await.unwrap();
    let rest = site.rest().unwrap();
    let messages = eventually("the messages in central", STEP, || async {
        let messages = rest.messages("press-1").await?;
        Ok((messages.len() == 4).then_some(messages))
    })
    .await
    .unwrap();
    let secs = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (from, to) = (rfc3339((secs(began) - 6) * 1000), rfc3339((secs(ended) + 6) * 1000));
    for message in &messages {
        let time = message["enqueuedTime"].as_str().unwrap();
        assert!((&*from..=&*to).contains(&time), "{time} is not between {from} and {to}");
    }
    site.end(false).await.unwrap();
}

/// As an operator asks: the gateway's clock is two minutes ahead of central's, and is set right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_and_check_say_how_far_the_clock_is_from_centrals() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path(), "offset", false).unwrap();
    let clock = FakeClock::of_gateway(&mut site, dir.path()).unwrap();
    site.start_central().await.unwrap();
    site.init_gateway().await.unwrap();
    for (offset, ahead_ms, level) in [("+120", 120_000, "warn"), ("-90", -90_000, "warn"), ("+0", 0, "ok")] {
        // The clock is asked for at each start, and every ten minutes.
        clock.set(offset).unwrap();
        site.start_agent().await.unwrap();
        let measured = eventually("the offset against central", STEP, || async {
            let status = site.agent_json(&["status"]).await?;
            let clock = &status["upstream"]["clock"];
            Ok(clock["aheadMs"].as_i64().zip(clock["withinMs"].as_i64()))
        });
        let (measured, within) = measured.await.unwrap();
        // As well as it could be measured by a question and its answer, and what two programs' clocks of whole milliseconds may differ.
        assert!(
            (measured - ahead_ms).abs() <= within + 10,
            "{offset}: {measured} ms, measured to {within} ms"
        );
        let finding = finding(&site, "clock-offset").await;
        assert_eq!(finding["level"], level, "{finding}");
        // What was measured: on a machine that holds up the question or the answer, a clock that is right is a second off.
        let evidence = match measured {
            -999..=999 => "less than a second from central's",
            1000.. => "ahead of central's",
            _ => "behind central's",
        };
        assert!(finding["evidence"].as_str().unwrap().contains(evidence), "{finding}");
        site.stop_agent().await.unwrap();
    }
    site.end(false).await.unwrap();
}

async fn finding(site: &Site, id: &str) -> serde_json::Value {
    let (_, out, error) = run(&mut site.agent_command(&["check", "--json"]).unwrap()).await.unwrap();
    let findings: Vec<serde_json::Value> =
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    findings.into_iter().find(|finding| finding["id"] == id).unwrap_or_else(|| panic!("{out}"))
}
