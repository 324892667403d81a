//! The daemon is killed with SIGKILL again and again while numbered messages run from one real client to another, both with
//! a session that stays: at QoS 1 each arrives, at QoS 2 each arrives once, and what is retained or subscribed is still so.
//! `LINESIDE_SEED` repeats a run's moments, `LINESIDE_KILLS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rumqttc::{Event, MqttOptions, Outgoing, Packet, QoS};
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind};
use site_tests::patient;
use site_tests::raw::{self, Login};
use site_tests::site::Site;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

const TOPIC: &str = "kill/stream";
const RETAINED: &str = "kill/retained";
/// Messages that a publisher has in flight.
const WINDOW: u16 = 40;
/// A publisher sends one message in this time: paho, the subscriber, is away for a second or two after each kill and slow on a loaded
/// machine, and what its session keeps meanwhile has a bound (10,000 messages; beyond, the oldest gives way and is counted).
const PACE: Duration = Duration::from_millis(4);

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A gateway that stands alone, the devices `kill-pub`, `kill-rpub`, `kill-sub` and `kill-look`, and a retained message.
async fn gateway(dir: &std::path::Path) -> (Site, BTreeMap<String, Login>) {
    let mut site = Site::new(dir, "kill-gateway", false).unwrap();
    site.init_alone().await.unwrap();
    site.start_agent().await.unwrap();
    site.open_free_topics("kill/#").await.unwrap();
    let ids = ["kill-pub", "kill-rpub", "kill-sub", "kill-look"].map(str::to_owned);
    let logins = site.add_here(&ids).await.unwrap();
    let logins: BTreeMap<String, Login> =
        logins.into_iter().map(|login| (login.client_id.clone(), login)).collect();
    let mut stream = logins["kill-look"].open(site.gateway_mqtt).await.unwrap();
    let mut retained = raw::publish(RETAINED, 1, 1, b"kept");
    retained[0] |= 1;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &retained).await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0x4002_0001, "PUBACK");
    (site, logins)
}

/// A client that comes later still gets the retained message.
async fn is_retained(site: &Site, login: &Login) {
    let mut stream = login.open(site.gateway_mqtt).await.unwrap();
    raw::subscribed(&mut stream, RETAINED, 0).await.unwrap();
    let mut expected = raw::publish(RETAINED, 0, 0, b"kept");
    expected[0] |= 1;
    let mut got = vec![0; expected.len()];
    tokio::time::timeout(STEP, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, expected);
}

/// One end of the stream in paho.
async fn paho(site: &Site, login: &Login, end: &str, qos: u8) -> Client {
    let (user, password) = login.account.clone().unwrap();
    let command = Kind::PlainPython.command("paho_load.py").unwrap();
    let log = site.dir.join(format!("{}.log", login.client_id));
    let mut client = Client::start(&login.client_id, command, &log).unwrap();
    let how = json!({
        "end": end, "client_id": login.client_id, "user": user, "password": password,
        "port": site.gateway_mqtt, "topic": TOPIC, "qos": qos, "pace_secs": PACE.as_secs_f64(),
    });
    client.command(&how).await.unwrap();
    client
}

/// What publishes, and tells what was acknowledged.
enum Publisher {
    Paho(Box<Client>),
    Rumqttc { acknowledged: watch::Receiver<BTreeSet<u64>>, stop: watch::Sender<bool> },
}

impl Publisher {
    /// rumqttc, which sends what was not acknowledged again after it has connected again.
    fn rumqttc(site: &Site, login: &Login, qos: QoS) -> Self {
        let (user, password) = login.account.clone().unwrap();
        let mut options = MqttOptions::new(&login.client_id, "127.0.0.1", site.gateway_mqtt);
        options.set_credentials(user, password).set_clean_session(false).set_inflight(WINDOW);
        let (client, mut events) = patient::client(options, 10);
        let (seen, acknowledged) = watch::channel(BTreeSet::new());
        let (stop, mut stopped) = watch::channel(false);
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for number in 1_u64.. {
                pace.tick().await;
                let publish = client.publish(TOPIC, qos, false, number.to_string());
                tokio::select! {
                    _ = stopped.changed() => return,
                    published = publish => if published.is_err() { return },
                }
            }
        });
        tokio::spawn(async move {
            let (mut next, mut in_progress) = (1, BTreeMap::new());
            loop {
                match events.poll().await {
                    // An identifier that is under way already is sent again after a new connection.
                    Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                        in_progress.entry(id).or_insert_with(|| {
                            next += 1;
                            next - 1
                        });
                    }
                    Ok(Event::Incoming(Packet::PubAck(rumqttc::PubAck { pkid })))
                    | Ok(Event::Incoming(Packet::PubComp(rumqttc::PubComp { pkid }))) => {
                        let Some(number) = in_progress.remove(&pkid) else { continue };
                        seen.send_modify(|seen| {
                            seen.insert(number);
                        });
                    }
                    Ok(_) => {}
                    Err(_) if seen.is_closed() => return,
                    // The daemon is away: a client waits before it knocks again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        Self::Rumqttc { acknowledged, stop }
    }

    /// Waits until some more were acknowledged.
    async fn progress(&mut self) {
        match self {
            Self::Paho(client) => {
                client.event("progress", STEP).await.unwrap();
            }
            Self::Rumqttc { acknowledged, .. } => {
                let goal = acknowledged.borrow().len() + 50;
                let wait = acknowledged.wait_for(|seen| seen.len() >= goal);
                tokio::time::timeout(STEP, wait).await.unwrap().unwrap();
            }
        }
    }

    /// Stops, waits for what is under way, and gives what was acknowledged.
    async fn stop(self) -> BTreeSet<u64> {
        match self {
            Self::Paho(mut client) => {
                client.command(&json!({"do": "stop"})).await.unwrap();
                let result = client.event("result", STEP).await.unwrap();
                client.end(STEP).await.unwrap();
                numbers(&result["acknowledged"])
            }
            Self::Rumqttc { mut acknowledged, stop } => {
                stop.send(true).unwrap();
                // Nothing is under way any more when for a while nothing is acknowledged.
                while tokio::time::timeout(Duration::from_secs(3), acknowledged.changed()).await.is_ok() {}
                acknowledged.borrow().clone()
            }
        }
    }
}

fn numbers(list: &Value) -> BTreeSet<u64> {
    list.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Kills the daemon under a stream; gives what was acknowledged, what arrived and what arrived twice.
async fn stream(
    site: &mut Site,
    logins: &BTreeMap<String, Login>,
    mut publisher: Publisher,
    mut subscriber: Client,
) -> (BTreeSet<u64>, BTreeSet<u64>, BTreeSet<u64>) {
    let seed = number_of("LINESIDE_SEED", u64::from(std::process::id()));
    println!("LINESIDE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..number_of("LINESIDE_KILLS", 5) {
        for _ in 0..random.random_range(1..4) {
            publisher.progress().await;
        }
        tokio::time::sleep(Duration::from_micros(random.random_range(0..30_000))).await;
        site.kill_agent().await.unwrap();
        site.start_agent().await.unwrap();
        let again = subscriber.event("connected", STEP).await.unwrap();
        assert_eq!((&again["code"], &again["session_present"]), (&json!(0), &json!(true)), "{again}");
        is_retained(site, &logins["kill-look"]).await;
    }
    publisher.progress().await;
    let acknowledged = publisher.stop().await;

    // What was acknowledged is on its way: it has arrived when nothing more does.
    let (mut arrived, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..120 {
        subscriber.command(&json!({"do": "report"})).await.unwrap();
        let report = subscriber.event("arrived", STEP).await.unwrap();
        (arrived, twice) = (numbers(&report["numbers"]), numbers(&report["twice"]));
        if acknowledged.is_subset(&arrived) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    subscriber.end(STEP).await.unwrap();
    (acknowledged, arrived, twice)
}

async fn killed(publisher: &str, qos: u8) {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, logins) = gateway(dir.path()).await;
    let mut subscriber = paho(&site, &logins["kill-sub"], "subscriber", qos).await;
    let first = subscriber.event("connected", STEP).await.unwrap();
    assert_eq!(first["session_present"], false, "a session of before");
    subscriber.event("ready", STEP).await.unwrap();
    let publishing = match publisher {
        "rumqttc" => {
            let qos = if qos == 1 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            Publisher::rumqttc(&site, &logins["kill-rpub"], qos)
        }
        _ => Publisher::Paho(Box::new(paho(&site, &logins["kill-pub"], "publisher", qos).await)),
    };
    let (acknowledged, arrived, twice) = stream(&mut site, &logins, publishing, subscriber).await;
    let lost: Vec<&u64> = acknowledged.difference(&arrived).collect();
    println!(
        "QoS {qos}, {publisher}: acknowledged {}, arrived {}, lost {}, twice {}",
        acknowledged.len(),
        arrived.len(),
        lost.len(),
        twice.len()
    );
    assert!(acknowledged.len() > 100, "only {} were acknowledged", acknowledged.len());
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(qos == 1 || twice.is_empty(), "twice at QoS 2: {twice:?}");
    site.end(true).await.unwrap();
}

#[tokio::test]
async fn qos_1_from_paho_arrives_at_least_once_over_kills_of_the_daemon() {
    killed("paho", 1).await;
}

#[tokio::test]
async fn qos_1_from_rumqttc_arrives_at_least_once_over_kills_of_the_daemon() {
    killed("rumqttc", 1).await;
}

#[tokio::test]
async fn qos_2_from_paho_arrives_exactly_once_over_kills_of_the_daemon() {
    killed("paho", 2).await;
}

#[tokio::test]
async fn qos_2_from_rumqttc_arrives_exactly_once_over_kills_of_the_daemon() {
    killed("rumqttc", 2).await;
}
