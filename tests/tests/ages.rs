//! What waits ends by its age, and no start with a wrong clock makes it older: messages and commands, at central and at a gateway.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::time::{Duration, SystemTime};

use edge_core::access::sas;
use schemas::timestamp::rfc3339;
use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::fake_clock::FakeClock;
use site_tests::five::Device;
use site_tests::leaf::LeafOptions;
use site_tests::rest::eventually;
use site_tests::site::Site;

/// Devices for which things wait: one that is behind no gateway, and one whose gateway has taken them.
const DEVICES: [&str; 2] = ["own", "leaf"];

fn messages_path(device: &str) -> String {
    format!("/api/ext/devices/{device}/messages/devicebound")
}

fn commands_path(device: &str, command: &str) -> String {
    format!("/api/devices/{device}/commands/{command}")
}

/// What waits for an hour, and what is over after seconds: names of commands, and correlation ids of messages.
const HOUR: (&str, u64) = ("hour", 3600);
const SHORT: (&str, u64) = ("short", 5);

/// A site in which a message and a command wait for an hour for each of two devices that are away.
struct WaitingSite {
    site: Site,
    central_clock: FakeClock,
    agent_clock: FakeClock,
    leaf: LeafOptions,
}

/// Which program is started with a wrong clock.
#[derive(Debug, Clone, Copy)]
enum Program {
    Central,
    /// While central is away.
    Agent,
}

impl WaitingSite {
    async fn start(dir: &std::path::Path, gateway: &str) -> Self {
        let mut site = Site::new(dir, gateway, false).unwrap();
        let central_clock = FakeClock::of_central(&mut site, dir).unwrap();
        let agent_clock = FakeClock::of_gateway(&mut site, dir).unwrap();
        site.start_central().await.unwrap();
        site.init_gateway().await.unwrap();
        site.start_agent().await.unwrap();
        let leaf = site.add_leaf("leaf", Duration::ZERO).await.unwrap();
        site.rest().unwrap().put("/api/devices/own", &json!({"displayName": "own"})).await.unwrap();
        let waiting = Self { site, central_clock, agent_clock, leaf };
        for device in DEVICES {
            waiting.send(device, HOUR).await;
        }
        waiting.taken().await;
        waiting
    }

    /// Sends a message and a command that wait for so many seconds.
    async fn send(&self, device: &str, (name, seconds): (&str, u64)) {
        let rest = self.site.rest().unwrap();
        let message = json!({"bodyText": name, "correlationId": name, "timeToLiveSecs": seconds});
        rest.post(&messages_path(device), &message).await.unwrap();
        rest.post(&commands_path(device, name), &json!({"validFor": seconds})).await.unwrap();
    }

    /// Waits until the gateway has all that waits for its device; gives how much of that is for seconds. On a slow machine some of it may
    /// be over before the gateway has it.
    async fn taken(&self) -> usize {
        let waits = |row: &&Value| row["of"] == "leaf" && row.get("endedTime").is_none();
        let rows = self
            .until("the gateway has taken what waits", |rows| {
                rows.iter()
                    .filter(waits)
                    .all(|row| row["state"] == "atGateway" || row.get("takenTime").is_some())
            })
            .await;
        rows.iter().filter(waits).filter(|row| row["name"] == SHORT.0).count()
    }

    /// All messages and commands of both devices.
    async fn all(&self) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        for device in DEVICES {
            let commands = [HOUR, SHORT].map(|(name, _)| (commands_path(device, name), name));
            for (path, name) in commands.into_iter().chain([(messages_path(device), "")]) {
                let list = self.site.rest()?.get(&path).await?;
                for row in list["value"].as_array().into_iter().flatten() {
                    let mut row = row.clone();
                    let name = row["correlationId"].as_str().unwrap_or(name).to_owned();
                    (row["of"], row["name"]) = (json!(device), json!(name));
                    all.push(row);
                }
            }
        }
        Ok(all)
    }

    async fn until(&self, what: &str, has: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(what, STEP, || async {
            let all = self.all().await?;
            Ok(has(&all).then_some(all))
        })
        .await
        .unwrap()
    }

    /// How often a program has logged that something expired.
    fn expiries(&self, program: Program) -> usize {
        let log = match program {
            Program::Central => self.site.central_log(),
            Program::Agent => self.site.agent_log(),
        };
        log.lines().filter(|line| line.contains("expired before")).count()
    }

    /// Starts a program with its clock off, waits until it has ended what is really over, and sets the clock right.
    async fn start_with_clock(&mut self, program: Program, offset: &str) {
        let device = match program {
            Program::Central => "own",
            Program::Agent => "leaf",
        };
        // Not as central dates it, whose clock was wrong perhaps when the gateway connected.
        self.site.link_is(true, STEP).await.unwrap();
        let before = self.expiries(program);
        self.send(device, SHORT).await;
        let taken = self.taken().await;
        let over = match program {
            Program::Central => 2,
            Program::Agent => taken,
        };
        self.site.stop_central().await.unwrap();
        match program {
            Program::Central => {
                self.central_clock.set(offset).unwrap();
                self.site.start_central().await.unwrap();
            }
            Program::Agent => {
                self.site.kill_agent().await.unwrap();
                self.agent_clock.set(offset).unwrap();
                self.site.start_agent().await.unwrap();
            }
        }
        // The message and the command of seconds: what waits was looked at.
        eventually("the end of what is over", STEP, || async {
            Ok((self.expiries(program) >= before + over).then_some(()))
        })
        .await
        .unwrap();
        self.central_clock.set("+0").unwrap();
        self.agent_clock.set("+0").unwrap();
        if matches!(program, Program::Agent) {
            self.site.start_central().await.unwrap();
        }
    }

    /// What was to wait for an hour waits still, what was over has ended, and not in the future.
    async fn expect_waiting(&self, over: usize) {
        let all = self
            .until("all ends of what is over", |rows| {
                rows.iter().filter(|row| row.get("endedTime").is_some()).count() >= over
            })
            .await;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let now = rfc3339(u64::try_from(since_epoch.as_millis()).unwrap() + 1_000);
        for row in &all {
            match row.get("endedTime") {
                Some(ended) => {
                    assert_eq!(row["name"], SHORT.0, "{row}");
                    assert!(ended.as_str().unwrap() <= now.as_str(), "it is {now}: {row}");
                }
                None => assert_eq!(row["name"], HOUR.0, "{row}"),
            }
        }
        assert_eq!(all.len(), over + 2 * DEVICES.len());
    }

    /// The leaf comes, and gets the message that waited for it.
    async fn expect_delivery(mut self) {
        let login = self.leaf.login();
        self.site.leaves_known(std::slice::from_ref(&login)).await.unwrap();
        let mut device = Device::connect(&login, self.site.gateway_mqtt).await.unwrap();
        device.subscribe("devices/leaf/messages/devicebound/#").await.unwrap();
        assert_eq!(device.message().await.unwrap().1, HOUR.0.as_bytes());
        self.until("the delivery", |rows| rows.iter().any(|row| row["state"] == "delivered")).await;
        self.site.end(false).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_that_starts_once_with_its_clock_far_ahead_ends_no_message_and_no_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingSite::start(dir.path(), "ages-central").await;
    // Below the life of the test's API token.
    waiting.start_with_clock(Program::Central, "+300d").await;
    waiting.expect_waiting(2).await;
    waiting.expect_delivery().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_with_its_clock_far_ahead_while_central_is_away_ends_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingSite::start(dir.path(), "ages-gateway").await;
    waiting.start_with_clock(Program::Agent, "+400d").await;
    waiting.expect_waiting(2).await;
    waiting.expect_delivery().await;
}

/// Every kind of thing, each program, several clocks, one after the other on the same site: the wall clock's history grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_start_of_either_program_with_any_clock_ends_anything_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingSite::start(dir.path(), "ages-all").await;
    let mut over = 0;
    for offset in ["+61m", "-9800d", "+300d", "-2d", "+48h"] {
        for program in [Program::Central, Program::Agent] {
            eprintln!("{program:?} at {offset}");
            waiting.start_with_clock(program, offset).await;
            over += 2;
            waiting.expect_waiting(over).await;
        }
    }
    waiting.expect_delivery().await;
}

/// A gateway that was switched off for a minute, and starts with a wrong clock: nobody can say how long it was off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_over_while_the_machine_was_off_is_held_until_the_clock_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut waiting = WaitingSite::start(dir.path(), "ages-held").await;
    let site = &mut waiting.site;
    site.stop_central().await.unwrap();
    site.kill_agent().await.unwrap();
    let file = site.agent_dir().join("clock.json");
    let mut clock: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    clock["boot"] = json!("another");
    std::fs::write(&file, clock.to_string()).unwrap();
    waiting.agent_clock.set("+400d").unwrap();
    site.start_agent().await.unwrap();
    // A token that is good by the wrong clock too.
    let mut login = waiting.leaf.login();
    let expires = SystemTime::now() + Duration::from_secs(500 * 24 * 3600);
    let expires_secs = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    login.account.as_mut().unwrap().1 =
        sas::token("localhost", &waiting.leaf.identity, &waiting.leaf.key, expires_secs);
    let mut device = Device::connect(&login, site.gateway_mqtt).await.unwrap();
    device.subscribe("$iothub/methods/POST/#").await.unwrap();
    device.subscribe("devices/leaf/messages/devicebound/#").await.unwrap();
    eventually("the message is held", STEP, || async {
        Ok(site.agent_log().contains("cloud-to-device message held").then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {}", site.agent_log()));
    assert!(!site.agent_log().contains("expired before"));
    waiting.agent_clock.set("+0").unwrap();
    let topics = [device.message().await.unwrap().0, device.message().await.unwrap().0];
    assert!(topics.iter().any(|topic| topic.contains("/devicebound/")), "{topics:?}");
    assert!(topics.iter().any(|topic| topic.starts_with("$iothub/methods/POST/hour/")), "{topics:?}");
    site.end(false).await.unwrap();
}
