//! Wills beside free topics: as telemetry, and in the program's routes.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use edge_hub::settings::MqttServerSettings;
use rumqttc::{ConnectReturnCode, LastWill, MqttOptions, QoS};
use tempfile::TempDir;

use crate::octets::{CLEAN, Octets, connect_v5, text};
use crate::site::{Mqtt, Seen, Site};

fn with_will(site: &Site, client_id: &str, topic: &str) -> MqttOptions {
    let mut options = site.options(client_id);
    options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
    options
}

fn will_seen(of: &str, topic: &str, what: &str) -> Seen {
    Seen::Will(of.into(), topic.into(), what.into())
}

#[tokio::test]
async fn a_will_on_the_telemetry_topic_is_telemetry_that_says_what_it_is() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    drop(Mqtt::connect(with_will(&site, "d1", "devices/d1/messages/events/a=1")).await);
    site.until_seen(will_seen("d1", "", "a=1&iothub-MessageType=Will gone")).await;
    // A goodbye voids it.
    let (orderly, _) = Mqtt::connect(with_will(&site, "d1", "devices/d1/messages/events/")).await;
    orderly.closed_by_client().await;
    site.until_seen(Seen::Disconnected("d1".into())).await;
    // Its MQTT 5 properties stand in its bag.
    let properties = b"\x03\0\x04text\x26\0\x01k\0\x01v";
    let topic = "devices/d2/messages/events/";
    let rest = [&[properties.len() as u8][..], properties, &text(topic), &text("gone")].concat();
    let mut raw = Octets::open(&site).await;
    raw.send(&connect_v5("d2", CLEAN | 0x04, b"", &rest)).await;
    assert_eq!(raw.packet().await[3], 0);
    raw.lost().await;
    let seen = loop {
        match site.sees().await {
            Seen::Will(of, topic, what) => break (of, topic, what),
            Seen::Connected(_) | Seen::Disconnected(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(seen, ("d2".into(), String::new(), "%24.ct=text&k=v&iothub-MessageType=Will gone".into()));
    site.close().await;
}

#[tokio::test]
async fn a_will_goes_to_no_other_reserved_topic_and_speaks_for_nobody_else() {
    let site = Site::open(MqttServerSettings::default()).await;
    for topic in [
        "devices/other/messages/events/",
        "devices/d1/messages/devicebound/",
        "$iothub/twin/PATCH/properties/reported/?$rid=1",
        "$ls/hello",
    ] {
        let refused = Mqtt::refused(with_will(&site, "d1", topic)).await;
        assert_eq!(refused, ConnectReturnCode::NotAuthorized, "{topic}");
    }
    // Except a gateway, for the devices behind it.
    drop(Mqtt::connect(with_will(&site, "gw", "devices/d1/messages/events/")).await);
    site.close().await;
}

#[tokio::test]
async fn a_will_on_a_free_topic_goes_to_its_subscribers_and_to_the_routes() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    site.program.takes_free.store(true, Relaxed);
    let mut watcher = site.mqtt("watcher").await;
    watcher.subscribe("will/+", QoS::AtLeastOnce).await;
    drop(Mqtt::connect(with_will(&site, "d1", "will/d1")).await);
    assert_eq!(watcher.message().await.0, "will/d1");
    site.until_seen(will_seen("d1", "will/d1", "gone")).await;
    // A local user's client has its own identity there too.
    let mut options = with_will(&site, "esp 32", "will/user");
    options.set_credentials("plc", "password");
    drop(Mqtt::connect(options).await);
    assert_eq!(watcher.message().await.0, "will/user");
    site.until_seen(will_seen("$user:plc/esp%2032", "will/user", "gone")).await;
    site.close().await;
}

#[tokio::test]
async fn a_will_that_the_program_cannot_take_yet_is_in_the_journal_until_it_does() {
    let dir = TempDir::new().unwrap();
    let settings = MqttServerSettings { will_grace: Duration::ZERO, ..MqttServerSettings::default() };
    // The first server waits in vain for its program, so not for long.
    let finish_timeout = Duration::from_millis(100);
    let mut site = Site::open_in(dir.path(), MqttServerSettings { finish_timeout, ..settings.clone() }).await;
    site.program.takes_wills.store(false, Relaxed);
    drop(Mqtt::connect(with_will(&site, "d1", "devices/d1/messages/events/")).await);
    site.until_seen(Seen::Disconnected("d1".into())).await;
    site.close().await;
    let mut site = Site::open_in(dir.path(), settings.clone()).await;
    site.until_seen(will_seen("d1", "", "iothub-MessageType=Will gone")).await;
    site.close().await;
    // And no longer.
    let mut site = Site::open_in(dir.path(), settings).await;
    let _other = site.mqtt("d2").await;
    assert_eq!(site.sees().await, Seen::Connected("d2".into()));
    site.close().await;
}
