//! Identities of each kind that end in each way, in an order that a seed gives, each with a session, a twin, telemetry and a will:
//! the next one of the name finds nothing of it, and nobody ever hears its will. `LINESIDE_SEED` repeats a run.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const GATEWAY: &str = "life-generated";
const MODULE: &str = "caller";
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A device that central registered behind the gateway.
    Registered,
    /// A device that was added on the gateway.
    Added,
    /// A user of the gateway.
    User,
    /// A module of the gateway's manifest.
    Module,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replacement {
    /// It is removed while it is connected.
    Connected,
    /// As [`Replacement::Connected`], and the gateway is killed at once.
    Killed,
    /// It is removed and the next one made while the gateway is away.
    Away,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Registered, Self::Added, Self::User, Self::Module];

    /// Its identity's text, of which there is one at a time.
    fn name(self) -> String {
        match self {
            Self::Registered => "press".to_owned(),
            Self::Added => "pump".to_owned(),
            Self::User => "plc".to_owned(),
            Self::Module => format!("{GATEWAY}/{MODULE}"),
        }
    }

    /// What is made and removed on the gateway itself cannot be while it is away.
    fn replacements(self) -> &'static [Replacement] {
        match self {
            Self::Registered | Self::Module => {
                &[Replacement::Connected, Replacement::Killed, Replacement::Away]
            }
            Self::Added | Self::User => &[Replacement::Connected, Replacement::Killed],
        }
    }

    fn telemetry(self) -> Option<String> {
        match self {
            Self::User => None,
            Self::Module => Some(format!("devices/{GATEWAY}/modules/{MODULE}/messages/events/")),
            _ => Some(format!("devices/{}/messages/events/", self.name())),
        }
    }
}

struct World {
    site: Site,
    /// Of a leaf device, with another identity and key.
    like: LeafOptions,
    watcher: MqttOptions,
    /// The password of the user who is there.
    password: String,
    restarted: tokio::time::Instant,
}

impl World {
    async fn new(dir: &Path) -> Self {
        let site = site(dir, GATEWAY).await;
        let like = site.add_leaf("known", STEP).await.unwrap();
        let mut world = Self {
            site,
            like: like.clone(),
            watcher: MqttOptions::new("x", "x", 1),
            password: String::new(),
            restarted: tokio::time::Instant::now(),
        };
        world.assign(false).await;
        let watching = world.site.agent_json(&["user", "add", "watcher"]).await.unwrap();
        world.watcher = world.user("watcher", watching["password"].as_str().unwrap());
        world
    }

    fn user(&self, name: &str, password: &str) -> MqttOptions {
        let mut options = MqttOptions::new(format!("{name}-client"), "localhost", self.like.port);
        options.set_credentials(name, password).set_keep_alive(Duration::from_secs(30));
        let ca = trust(&std::fs::read(self.site.gateway_ca()).unwrap()).unwrap();
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(ca)));
        options
    }

    /// Assigns a manifest by which everybody may use free topics.
    async fn assign(&self, has_module: bool) {
        let hub = json!({
            "schemaVersion": "1.2",
            "routes": {"upstream": "FROM /messages/* INTO $upstream"},
            "mqttBroker": {"authorizations": [{
                "identities": ["{{iot:identity}}"],
                "allow": [{"operations": ["mqtt:publish", "mqtt:subscribe"], "resources": ["line/#"]}],
            }]},
        });
        assign(&self.site, GATEWAY, has_module.then_some(MODULE), hub).await;
    }

    async fn make(&mut self, kind: Kind) {
        match kind {
            Kind::Registered => drop(self.site.add_leaf("press", STEP).await.unwrap()),
            Kind::Added => {
                self.site.agent_json(&["device", "add", "pump", "--key", KEY]).await.unwrap();
            }
            Kind::User => {
                let user = self.site.agent_json(&["user", "add", "plc"]).await.unwrap();
                self.password = user["password"].as_str().unwrap().to_owned();
            }
            Kind::Module => self.assign(true).await,
        }
    }

    async fn remove(&self, kind: Kind) {
        match kind {
            Kind::Registered => deleted(&self.site, "/api/devices/press").await,
            Kind::Added => drop(self.site.agent_json(&["device", "remove", "pump"]).await.unwrap()),
            Kind::User => drop(self.site.agent_json(&["user", "remove", "plc"]).await.unwrap()),
            Kind::Module => self.assign(false).await,
        }
    }

    /// What the present one connects with.
    async fn options(&self, kind: Kind) -> MqttOptions {
        match kind {
            Kind::Registered => {
                use base64::Engine as _;
                let key = self.site.key("press").await.unwrap();
                let key = base64::engine::general_purpose::STANDARD.decode(key).unwrap();
                let of = LeafOptions { identity: "press".parse().unwrap(), key, ..self.like.clone() };
                of.client(10).1.mqtt_options
            }
            Kind::Added => {
                let of =
                    LeafOptions { identity: "pump".parse().unwrap(), key: vec![0; 32], ..self.like.clone() };
                of.client(10).1.mqtt_options
            }
            Kind::User => self.user("plc", &self.password),
            Kind::Module => module_options(&self.site, &self.like, &kind.name()).client(10).1.mqtt_options,
        }
    }

    /// The present one, as soon as it is let in. With the proof of an earlier one it is not.
    async fn connected(&self, kind: Kind, will: Option<LastWill>) -> Device {
        eventually(&format!("{kind:?} is let in"), STEP, || async {
            let mut options = self.options(kind).await;
            options.set_clean_session(false);
            if let Some(will) = &will {
                options.set_last_will(will.clone());
            }
            Ok(Device::once(options).await.ok())
        })
        .await
        .unwrap()
    }

    /// Has one of a kind, with all that it may leave behind.
    async fn leaves(&mut self, kind: Kind, will: LastWill) -> Device {
        self.make(kind).await;
        let mut device = self.connected(kind, Some(will)).await;
        device.subscribe("line/old/#").await.unwrap();
        if let Some(telemetry) = kind.telemetry() {
            device.subscribe("$iothub/twin/res/#").await.unwrap();
            device.subscribe("$iothub/methods/POST/#").await.unwrap();
            device.report(&json!({"serial": "old"})).await.unwrap();
            device.publish(&telemetry, r#"{"is":"old"}"#).await.unwrap();
        }
        device
    }

    async fn restart(&mut self) {
        self.site.start_agent().await.unwrap();
        self.restarted = tokio::time::Instant::now();
    }

    /// Ends the present one and makes the next; `old` is the connection of the present one.
    async fn replace(&mut self, kind: Kind, replacement: Replacement, mut old: Device) {
        let before = self.module_number();
        match replacement {
            Replacement::Connected => {
                self.remove(kind).await;
                while old.events.poll().await.is_ok() {}
                self.make(kind).await;
            }
            Replacement::Killed => {
                self.remove(kind).await;
                self.site.kill_agent().await.unwrap();
                drop(old);
                if matches!(kind, Kind::Registered | Kind::Module) {
                    self.make(kind).await;
                    self.restart().await;
                } else {
                    self.restart().await;
                    self.make(kind).await;
                }
            }
            Replacement::Away => {
                self.site.kill_agent().await.unwrap();
                drop(old);
                self.remove(kind).await;
                self.make(kind).await;
                self.restart().await;
            }
        }
        if kind == Kind::Module {
            // Until it hears of it, a gateway that was away takes the earlier one for the present one.
            eventually("the gateway knows the next module", STEP, || async {
                Ok((self.module_number() != before).then_some(()))
            })
            .await
            .unwrap();
        }
    }

    fn module_number(&self) -> Option<u64> {
        module_number(&self.site.dir, &Kind::Module.name())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_identity_of_any_kind_however_it_ended_is_found_by_the_next_of_its_name() {
    let seed =
        std::env::var("LINESIDE_SEED").map_or(u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("LINESIDE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cases: Vec<(Kind, Replacement)> = Kind::ALL
        .into_iter()
        .flat_map(|kind| kind.replacements().iter().map(move |replacement| (kind, *replacement)))
        .collect();
    cases.shuffle(&mut random);
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path()).await;
    let mut watcher = staying(world.watcher.clone()).await;
    watcher.subscribe("line/#").await.unwrap();

    for (number, (kind, replacement)) in cases.into_iter().enumerate() {
        let free = format!("line/gone/{number}");
        let topic = kind.telemetry().filter(|_| random.random()).unwrap_or(free);
        println!("{number}: {kind:?} ends {replacement:?}, with a will on {topic}");
        let will = LastWill::new(topic, r#"{"is":"will"}"#, QoS::AtLeastOnce, false);
        let old = world.leaves(kind, will).await;
        world.replace(kind, replacement, old).await;

        let mut next = world.connected(kind, None).await;
        assert!(!next.found_session, "{kind:?} {replacement:?}: the session of an earlier one");
        if let Some(telemetry) = kind.telemetry() {
            next.subscribe("$iothub/twin/res/#").await.unwrap();
            let twin = next.twin().await.unwrap();
            assert!(twin["reported"].get("serial").is_none(), "{kind:?} {replacement:?}: {twin}");
            assert_eq!(next.unasked().await.unwrap(), [""; 0], "{kind:?} {replacement:?}");
            next.publish(&telemetry, &json!({"is": "next", "n": number}).to_string()).await.unwrap();
        }
        next.publish(&format!("line/next/{number}"), "{}").await.unwrap();
        // Its session outlived the kills.
        watcher = staying(world.watcher.clone()).await;
        assert!(watcher.found_session);
        let heard = watcher.message_with("line/").await.unwrap().topic;
        assert_eq!(heard, format!("line/next/{number}"), "{kind:?} {replacement:?}");
        next.client.disconnect().await.unwrap();
        while next.events.poll().await.is_ok() {}
        world.remove(kind).await;
        gone(&world.site, kind).await;
    }
    // Wills of a gateway that was killed are due half a minute after its start.
    let late = tokio::time::timeout_at(world.restarted + Duration::from_secs(35), watcher.message()).await;
    assert!(late.is_err(), "the will of an earlier one: {late:?}");
    // Nor did one arrive as telemetry.
    let rest = world.site.rest().unwrap();
    for device in ["press", "pump", GATEWAY] {
        let messages = rest.messages(device).await.unwrap_or_default();
        assert!(messages.iter().all(|message| message["body"]["is"] != "will"), "{device}: {messages:?}");
    }
    world.site.end(false).await.unwrap();
}

/// Waits until the gateway knows that it is gone: the next case begins with nobody there.
async fn gone(site: &Site, kind: Kind) {
    match kind {
        Kind::Registered => gateway_knows(site, "press", false).await,
        Kind::Module => {
            eventually("the module has left the gateway", STEP, || async {
                let status = site.agent_json(&["status"]).await?;
                Ok(status["modules"].get(MODULE).is_none().then_some(()))
            })
            .await
            .unwrap();
        }
        Kind::Added | Kind::User => {}
    }
}
