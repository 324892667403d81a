//! Plain MQTT clients of the floor on free topics, MQTT 3.1.1 and 5: paho 1.6 and 2, aiomqtt, MQTT.js, rumqttc,
//! and mosquitto's own.
//! Each library does the same things over TLS, some over WebSocket too, as a device of the gateway. To judge the tests themselves, let them run at a
//! broker that needs no account and no TLS: `LINESIDE_OTHER_BROKER=1883`.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use site_tests::STEP;
use site_tests::client::{Client, Kind};
use site_tests::process::run;
use site_tests::raw::Login;
use site_tests::site::Site;
use tokio::process::Command;

/// A library and the version of MQTT that it is to speak.
#[derive(Debug, Clone, Copy)]
struct Library {
    kind: Kind,
    script: &'static str,
    version: u8,
    /// Over WebSocket, on the gateway's HTTPS port.
    websockets: bool,
}

const fn library(kind: Kind, script: &'static str, version: u8) -> Library {
    Library { kind, script, version, websockets: false }
}

/// A gateway that stands alone with three devices on it, and the free topics below `plain/` open to them.
struct Floor {
    site: Site,
    devices: Vec<Login>,
}

impl Floor {
    async fn new(dir: &std::path::Path) -> Self {
        let mut site = Site::new(dir, "plain-gateway", false).unwrap();
        site.init_alone().await.unwrap();
        site.start_agent().await.unwrap();
        site.open_free_topics("plain/#").await.unwrap();
        let ids = ["plain-a", "plain-b", "plain-c"].map(str::to_owned);
        let mut devices = site.add_here(&ids).await.unwrap();
        devices.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        Self { site, devices }
    }

    /// Starts a client of a library as device `who`; `more` adds to how it connects.
    async fn start(&self, library: Library, who: usize, more: Value) -> Client {
        let login = &self.devices[who];
        let (user, password) = login.account.clone().unwrap();
        let mut how = json!({
            "port": if library.websockets { self.site.gateway_https } else { self.site.gateway_mqtts },
            "websockets": library.websockets, "ca": self.site.gateway_ca(), "version": library.version,
            "client_id": login.client_id, "user": user, "password": password, "clean": true,
        });
        if let Ok(port) = std::env::var("LINESIDE_OTHER_BROKER") {
            how["port"] = json!(port.parse::<u16>().unwrap());
            how.as_object_mut().unwrap().remove("ca");
        }
        how.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let log = self.site.dir.join(format!("{}.log", login.client_id));
        let mut client =
            Client::start(&login.client_id, library.kind.command(library.script).unwrap(), &log).unwrap();
        client.command(&how).await.unwrap();
        client
    }

    /// The same, connected: gives whether a session was present, where the library tells.
    async fn connected(&self, library: Library, who: usize, more: Value) -> (Client, Option<bool>) {
        let mut client = self.start(library, who, more).await;
        let connected = client.event("connected", STEP).await.unwrap();
        assert_eq!(connected["code"], 0, "{connected}");
        (client, connected["session_present"].as_bool())
    }
}

async fn subscribe(client: &mut Client, filter: &str, qos: u8) {
    client.command(&json!({"do": "subscribe", "filter": filter, "qos": qos})).await.unwrap();
    let answer = client.event("subscribed", STEP).await.unwrap();
    assert_eq!(answer["codes"], json!([qos]), "{filter}: {answer}");
}

async fn publish(client: &mut Client, topic: &str, payload: &str, qos: u8, retain: bool, properties: Value) {
    let command = json!({
        "do": "publish", "topic": topic, "payload": payload, "qos": qos, "retain": retain, "properties": properties,
    });
    client.command(&command).await.unwrap();
    client.event("published", STEP).await.unwrap();
}

async fn message(client: &mut Client, payload: &str) -> Value {
    client.event_where("message", STEP, |event| event["payload"] == payload).await.unwrap()
}

/// Nothing waits for a client but what is published now: anything else that the gateway had for it would come before.
async fn no_message_but_this(client: &mut Client, speaker: &mut Client, topic: &str, qos: u8) {
    publish(speaker, topic, "nothing else", qos, false, json!({})).await;
    let next = client.event("message", STEP).await.unwrap();
    assert_eq!(next["payload"], "nothing else", "an extra message: {next}");
}

/// Every QoS from and to every QoS: the lower one holds, and each message comes once.
async fn qualities(floor: &Floor, library: Library) {
    let (mut hears, _) = floor.connected(library, 0, json!({})).await;
    let (mut speaker, _) = floor.connected(library, 1, json!({})).await;
    for granted in 0..=2 {
        subscribe(&mut hears, &format!("plain/to-{granted}/+"), granted).await;
        for sent in 0..=2 {
            let (topic, payload) = (format!("plain/to-{granted}/x"), format!("{sent} as {granted}"));
            publish(&mut speaker, &topic, &payload, sent, false, json!({})).await;
            let heard = message(&mut hears, &payload).await;
            assert_eq!(
                (&heard["topic"], &heard["qos"]),
                (&json!(topic), &json!(granted.min(sent))),
                "{heard}"
            );
            assert_eq!(heard["retain"], false, "{heard}");
        }
    }
    for qos in 0..=2 {
        no_message_but_this(&mut hears, &mut speaker, &format!("plain/to-{qos}/x"), qos).await;
    }
    hears.end(STEP).await.unwrap();
    speaker.end(STEP).await.unwrap();
}

/// A retained message waits for who comes later, and an empty one takes it away.
async fn retained(floor: &Floor, library: Library) {
    let (mut speaker, _) = floor.connected(library, 1, json!({})).await;
    publish(&mut speaker, "plain/state", "on", 1, true, json!({})).await;
    let (mut hears, _) = floor.connected(library, 0, json!({})).await;
    subscribe(&mut hears, "plain/state", 1).await;
    assert_eq!(message(&mut hears, "on").await["retain"], true);
    publish(&mut speaker, "plain/state", "", 1, true, json!({})).await;
    message(&mut hears, "").await;
    hears.end(STEP).await.unwrap();
    let (mut later, _) = floor.connected(library, 0, json!({})).await;
    subscribe(&mut later, "plain/state", 1).await;
    no_message_but_this(&mut later, &mut speaker, "plain/state", 1).await;
    later.end(STEP).await.unwrap();
    speaker.end(STEP).await.unwrap();
}

/// A connection that ends without a DISCONNECT publishes its will; one with a DISCONNECT does not.
async fn will(floor: &Floor, library: Library) {
    let (mut hears, _) = floor.connected(library, 0, json!({})).await;
    subscribe(&mut hears, "plain/will", 1).await;
    let will = |payload: &str| json!({"will": {"topic": "plain/will", "payload": payload, "qos": 1, "retain": false}});
    let (orderly, _) = floor.connected(library, 1, will("not to be seen")).await;
    orderly.end(STEP).await.unwrap();
    let (mut dies, _) = floor.connected(library, 1, will("it died")).await;
    dies.command(&json!({"do": "die"})).await.unwrap();
    assert_eq!(hears.event("message", STEP).await.unwrap()["payload"], "it died");
    hears.end(STEP).await.unwrap();
}

/// Messages for a client that is away wait for it, at QoS 1 and 2, each once and in order.
async fn session(floor: &Floor, library: Library) {
    let kept = json!({"clean": false});
    let (mut away, was_present) = floor.connected(library, 2, kept.clone()).await;
    assert_ne!(was_present, Some(true), "a session of an earlier test");
    subscribe(&mut away, "plain/away/1", 1).await;
    subscribe(&mut away, "plain/away/2", 2).await;
    away.end(STEP).await.unwrap();
    let (mut speaker, _) = floor.connected(library, 1, json!({})).await;
    for number in 0..10 {
        for qos in [1, 2] {
            let (topic, payload) = (format!("plain/away/{qos}"), format!("{number} at {qos}"));
            publish(&mut speaker, &topic, &payload, qos, false, json!({})).await;
        }
    }
    let (mut back, is_present) = floor.connected(library, 2, kept).await;
    assert_ne!(is_present, Some(false), "the session was lost");
    let (mut at_1, mut at_2) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let heard = back.event("message", STEP).await.unwrap();
        let list = if heard["qos"] == 1 { &mut at_1 } else { &mut at_2 };
        list.push(heard["payload"].as_str().unwrap().to_owned());
    }
    // Of one topic in the order of publishing; MQTT promises none between topics.
    for (qos, list) in [(1, at_1), (2, at_2)] {
        let sent: Vec<String> = (0..10).map(|number| format!("{number} at {qos}")).collect();
        assert_eq!(list, sent);
    }
    for qos in [1, 2] {
        no_message_but_this(&mut back, &mut speaker, &format!("plain/away/{qos}"), qos).await;
    }
    speaker.end(STEP).await.unwrap();
    back.end(STEP).await.unwrap();
    // A clean start ends the session, so that the next library finds none.
    let (clean, _) = floor.connected(library, 2, json!({})).await;
    clean.end(STEP).await.unwrap();
}

/// What MQTT 5 adds: properties arrive as they were sent, and a shared subscription gives each message to one.
async fn version_5(floor: &Floor, library: Library) {
    let (mut one, _) = floor.connected(library, 0, json!({})).await;
    let (mut other, _) = floor.connected(library, 2, json!({})).await;
    let (mut speaker, _) = floor.connected(library, 1, json!({})).await;
    subscribe(&mut one, "plain/request", 1).await;
    subscribe(&mut speaker, "plain/answer/b", 1).await;
    let properties = json!({
        "UserProperty": [["line", "1"], ["größe", "42 µm"]], "ContentType": "text/plain",
        "ResponseTopic": "plain/answer/b", "CorrelationData": "call-7",
    });
    publish(&mut speaker, "plain/request", "what is it?", 1, false, properties.clone()).await;
    let request = message(&mut one, "what is it?").await;
    assert_eq!(request["properties"], properties, "{request}");
    let answer = json!({"CorrelationData": request["properties"]["CorrelationData"]});
    let topic = request["properties"]["ResponseTopic"].as_str().unwrap();
    publish(&mut one, topic, "it is 42", 1, false, answer.clone()).await;
    assert_eq!(message(&mut speaker, "it is 42").await["properties"], answer);

    for client in [&mut one, &mut other] {
        subscribe(client, "$share/workers/plain/work", 1).await;
    }
    for number in 0..20 {
        publish(&mut speaker, "plain/work", &number.to_string(), 1, false, json!({})).await;
    }
    let (mut seen, mut by_one) = (BTreeSet::new(), 0);
    while seen.len() < 20 {
        let heard = tokio::select! {
            heard = one.event("message", STEP) => { by_one += 1; heard }
            heard = other.event("message", STEP) => heard,
        };
        let number: u64 = heard.unwrap()["payload"].as_str().unwrap().parse().unwrap();
        assert!(seen.insert(number), "{number} came twice");
    }
    assert!((1..20).contains(&by_one), "one of two workers got {by_one} of 20");
    for (client, topic) in [(&mut one, "plain/end/one"), (&mut other, "plain/end/other")] {
        subscribe(client, topic, 1).await;
        no_message_but_this(client, &mut speaker, topic, 1).await;
    }
    for client in [one, other, speaker] {
        client.end(STEP).await.unwrap();
    }
}

async fn everything(libraries: &[Library]) {
    let dir = tempfile::tempdir().unwrap();
    let mut floor = Floor::new(dir.path()).await;
    for library in libraries {
        println!("{library:?}");
        qualities(&floor, *library).await;
        retained(&floor, *library).await;
        will(&floor, *library).await;
        session(&floor, *library).await;
        if library.version == 5 {
            version_5(&floor, *library).await;
        }
    }
    floor.site.end(true).await.unwrap();
}

#[tokio::test]
async fn paho_2_works_whole_in_both_versions() {
    let paho = |version| library(Kind::PlainPython, "paho_client.py", version);
    everything(&[paho(4), paho(5)]).await;
}

#[tokio::test]
async fn paho_1_works_whole_in_both_versions() {
    let paho = |version| library(Kind::AzurePython, "paho_client.py", version);
    everything(&[paho(4), paho(5)]).await;
}

#[tokio::test]
async fn aiomqtt_works_whole_in_both_versions() {
    let aiomqtt = |version| library(Kind::PlainPython, "aiomqtt_client.py", version);
    everything(&[aiomqtt(4), aiomqtt(5)]).await;
}

#[tokio::test]
async fn mqtt_js_works_whole_in_both_versions() {
    let mqtt_js = |version| library(Kind::Node, "mqttjs_client.js", version);
    everything(&[mqtt_js(4), mqtt_js(5)]).await;
}

#[tokio::test]
async fn rumqttc_works_whole_in_both_versions() {
    let rumqttc = |version| library(Kind::Rust, "rumqttc_client", version);
    everything(&[rumqttc(4), rumqttc(5)]).await;
}

#[tokio::test]
async fn plain_clients_work_whole_over_websocket_in_both_versions() {
    let over = |kind, script, version| Library { websockets: true, ..library(kind, script, version) };
    everything(&[
        over(Kind::PlainPython, "paho_client.py", 4),
        over(Kind::PlainPython, "aiomqtt_client.py", 5),
        over(Kind::Node, "mqttjs_client.js", 5),
    ])
    .await;
}

/// `mosquitto_pub` or `mosquitto_sub` as a device, over TLS.
fn mosquitto(floor: &Floor, program: &str, who: usize, arguments: &[&str]) -> Command {
    let login = &floor.devices[who];
    let (user, password) = login.account.clone().unwrap();
    let mut command = Command::new(program);
    command.args(["-h", "localhost", "-p", &floor.site.gateway_mqtts.to_string(), "--cafile"]);
    command.arg(floor.site.gateway_ca()).args(["-i", &login.client_id, "-u", &user, "-P", &password]);
    command.args(arguments).kill_on_drop(true);
    command
}

/// Debian's mosquitto, bridged to the gateway with its default settings.
#[tokio::test]
async fn a_mosquitto_with_default_settings_bridges_to_the_gateway_and_its_state_is_its_users_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut floor = Floor::new(dir.path()).await;
    let added = floor.site.agent_json(&["user", "add", "floor1"]).await.unwrap();
    let password = added["password"].as_str().unwrap();
    let port = site_tests::port::free_port().unwrap();
    let conf = dir.path().join("mosquitto.conf");
    let text = format!(
        "user root\nlog_dest file {}\nlog_type all\nlistener {port} 127.0.0.1\nallow_anonymous true\nconnection gateway\naddress localhost:{}\nbridge_cafile {}\n\
         remote_username floor1\nremote_password {password}\nremote_clientid floor1.bridge\n\
         topic plain/up/# out 1\ntopic plain/down/# in 1\n",
        dir.path().join("mosquitto.log").display(),
        floor.site.gateway_mqtts,
        floor.site.gateway_ca().display(),
    );
    std::fs::write(&conf, text).unwrap();
    let mut broker = Command::new("mosquitto").arg("-c").arg(&conf).kill_on_drop(true).spawn().unwrap();
    let state = "$SYS/broker/connection/floor1.bridge/state";
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "localhost", "-p", &floor.site.gateway_mqtts.to_string(), "--cafile"]);
        command.arg(floor.site.gateway_ca()).args(["-u", "floor1", "-P", password, "-q", "1", "-W", "180"]);
        command.args(arguments).kill_on_drop(true);
        command
    };
    let (code, out, error) = run(&mut as_user(&["-t", state, "-C", "1"])).await.unwrap();
    assert_eq!((code, out.trim()), (0, "1"), "{error}");
    let attempts = std::fs::read_to_string(dir.path().join("mosquitto.log")).unwrap();
    let attempts = attempts.lines().filter(|line| line.contains("sending CONNECT")).count();
    assert_eq!(attempts, 1, "it was let in at the first attempt");
    // Up and down; what is retained is not lost to whoever listens later.
    let local = ["-p", &port.to_string()].map(str::to_owned);
    let publish = ["-q", "1", "-t", "plain/up/x", "-m", "up", "-r"];
    let (code, _, error) = run(Command::new("mosquitto_pub").args(&local).args(publish)).await.unwrap();
    assert_eq!(code, 0, "{error}");
    let heard = ["-V", "5", "-t", "plain/up/x", "-C", "1", "-W", "180"];
    let (code, out, error) = run(&mut mosquitto(&floor, "mosquitto_sub", 0, &heard)).await.unwrap();
    assert_eq!((code, out.trim()), (0, "up"), "{error}");
    let sent = ["-q", "1", "-t", "plain/down/x", "-m", "down", "-r"];
    let (code, _, error) = run(&mut mosquitto(&floor, "mosquitto_pub", 1, &sent)).await.unwrap();
    assert_eq!(code, 0, "{error}");
    let heard = ["-t", "plain/down/x", "-C", "1", "-W", "180"];
    let (code, out, error) = run(Command::new("mosquitto_sub").args(&local).args(heard)).await.unwrap();
    assert_eq!((code, out.trim()), (0, "down"), "{error}");
    // It is killed: its will says so to its own user, and to nobody else.
    broker.kill().await.unwrap();
    let (code, out, error) = run(&mut as_user(&["-t", "$SYS/broker/connection/#", "-C", "1"])).await.unwrap();
    assert_eq!(code, 0, "{error}");
    assert!(["0", "1"].contains(&out.trim()), "{out}");
    let other = ["-t", "$SYS/broker/connection/#", "-C", "1", "-W", "1"];
    let (_, out, _) = run(&mut mosquitto(&floor, "mosquitto_sub", 2, &other)).await.unwrap();
    assert_eq!(out.trim(), "");
    floor.site.end(true).await.unwrap();
}

#[tokio::test]
async fn mosquitto_pub_and_sub_exchange_messages_in_both_versions() {
    let dir = tempfile::tempdir().unwrap();
    let mut floor = Floor::new(dir.path()).await;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            // Of each version its own topic: nothing that the other one retained is heard in place of a message at QoS 0.
            let (topic, filter) = (format!("plain/{version}/tool"), format!("plain/{version}/+"));
            let sent = ["-V", version, "-q", qos, "-t", &topic, "-m", qos, "-r"];
            let (code, _, error) = run(&mut mosquitto(&floor, "mosquitto_pub", 1, &sent)).await.unwrap();
            assert_eq!(code, 0, "{version} {qos}: {error}");
            // It is retained: so the one that comes later hears it, and nobody has to wait for a subscription.
            let heard = ["-V", version, "-q", qos, "-t", &filter, "-C", "1", "-W", "180", "-F", "%q %r %p"];
            let (code, out, error) = run(&mut mosquitto(&floor, "mosquitto_sub", 0, &heard)).await.unwrap();
            // What was sent at QoS 0 is not acknowledged: it may come after the subscription, and is not a retained one then.
            let out = if qos == "0" { out.replace("0 0 0", "0 1 0") } else { out };
            assert_eq!(
                (code, out.trim()),
                (0, format!("{qos} 1 {qos}").as_str()),
                "{version} {qos}: {error}"
            );
        }
        // A session that stays: subscribe, be away, and get what was told meanwhile.
        let mut kept = vec!["-V", version, "-c", "-q", "2", "-t", "plain/away/#"];
        if version == "mqttv5" {
            kept.extend(["-x", "600"]);
        }
        let once: Vec<&str> = kept.iter().copied().chain(["-E"]).collect();
        let (code, _, error) = run(&mut mosquitto(&floor, "mosquitto_sub", 2, &once)).await.unwrap();
        assert_eq!(code, 0, "{version}: {error}");
        for qos in ["1", "2"] {
            let sent = ["-V", version, "-q", qos, "-t", "plain/away/x", "-m", qos];
            let (code, _, error) = run(&mut mosquitto(&floor, "mosquitto_pub", 1, &sent)).await.unwrap();
            assert_eq!(code, 0, "{version}: {error}");
        }
        kept.extend(["-C", "2", "-W", "180"]);
        let (code, out, error) = run(&mut mosquitto(&floor, "mosquitto_sub", 2, &kept)).await.unwrap();
        assert_eq!((code, out.as_str()), (0, "1\n2\n"), "{version}: {error}");
        let clean = ["-V", version, "-q", "0", "-t", "plain/none", "-E"];
        run(&mut mosquitto(&floor, "mosquitto_sub", 2, &clean)).await.unwrap();
    }
    // What nobody may: another topic than the rule's. 5 tells why.
    let other = ["-V", "mqttv5", "-q", "1", "-t", "elsewhere", "-m", "x"];
    let (_, out, error) = run(&mut mosquitto(&floor, "mosquitto_pub", 1, &other)).await.unwrap();
    assert!(format!("{out}{error}").to_lowercase().contains("not authori"), "{out} {error}");
    floor.site.end(true).await.unwrap();
}
