//! mosquitto's bridges: how they connect, and the states that they leave.

use edge_core::access::authorization::Rights;
use edge_hub::settings::MqttServerSettings;
use rumqttc::{LastWill, MqttOptions, QoS, SubscribeReasonCode};

use crate::octets::{CLEAN, DISCONNECT, Octets, packet, publish_v4, text};
use crate::site::{Mqtt, Site};

/// CONNECT of a bridge with mosquitto's default settings: level 0x84, and a retained will of QoS 1 with its state.
fn connect_bridge(client_id: &str, user: &str, is_clean: bool) -> Vec<u8> {
    let flags = 0x80 | 0x40 | 0x20 | 0x08 | 0x04 | if is_clean { CLEAN } else { 0 };
    let will = text(&state(client_id));
    packet(
        0x10,
        &[
            &text("MQTT"),
            &[0x84, flags, 0, 0],
            &text(client_id),
            &will,
            &text("0"),
            &text(user),
            &text("secret"),
        ],
    )
}

fn state(bridge: &str) -> String {
    format!("$SYS/broker/connection/{bridge}/state")
}

fn of_user(site: &Site, client_id: &str) -> MqttOptions {
    let mut options = site.options(client_id);
    options.set_credentials("plc", "secret");
    options
}

/// A bridge that is connected and has told so.
async fn bridge(site: &Site, client_id: &str, user: &str) -> Octets {
    let mut bridge = Octets::open(site).await;
    bridge.send(&connect_bridge(client_id, user, true)).await;
    bridge.expect(b"\x20\x02\0\0").await;
    bridge.send(&publish_v4(0x33, &state(client_id), 1, "1")).await;
    bridge.expect(b"\x40\x02\0\x01").await;
    bridge
}

#[tokio::test]
async fn a_bridge_of_mosquitto_goes_on_at_once_and_its_own_account_alone_sees_its_state() {
    let site = Site::open(MqttServerSettings::default()).await;
    // The rules allow nothing: the state of a bridge needs none.
    *site.program.rights.lock().unwrap() = Some(Box::new(|_| Ok(Rights::default())));
    let bridge = bridge(&site, "plant.b1", "plc").await;
    let (mut own, _) = Mqtt::connect(of_user(&site, "panel")).await;
    let mut device = site.mqtt("d1").await;
    let granted = SubscribeReasonCode::Success(QoS::AtLeastOnce);
    for client in [&mut own, &mut device] {
        assert_eq!(client.subscribe("$SYS/broker/connection/#", QoS::AtLeastOnce).await, granted);
    }
    assert_eq!(own.message().await, (state("plant.b1"), "1".into(), QoS::AtLeastOnce));
    bridge.lost().await;
    assert_eq!(own.message().await, (state("plant.b1"), "0".into(), QoS::AtLeastOnce));
    // Retained for the next one of the account, of whichever filter.
    for filter in ["$SYS/broker/connection/plant.b1/state", "$SYS/broker/connection/+/state"] {
        let (mut later, _) = Mqtt::connect(of_user(&site, "later")).await;
        later.subscribe(filter, QoS::AtLeastOnce).await;
        assert_eq!(later.message().await.1, "0", "{filter}");
    }
    // A device whose bridge has the same name hears its own, and nothing before it.
    device.client.publish(state("plant.b1"), QoS::AtLeastOnce, true, "of d1").await.unwrap();
    assert_eq!(device.message().await, (state("plant.b1"), "of d1".into(), QoS::AtLeastOnce));
    let mut forger = site.mqtt("d2").await;
    for filter in ["$SYS/broker/connection/$user:plc/#", "$SYS/broker/connection/+/plant.b1/state"] {
        assert_eq!(forger.subscribe(filter, QoS::AtLeastOnce).await, granted);
    }
    assert_eq!(
        forger.subscribe("$share/g/$SYS/broker/connection/#", QoS::AtLeastOnce).await,
        SubscribeReasonCode::Failure
    );
    forger.client.publish(state("x"), QoS::AtLeastOnce, true, "of d2").await.unwrap();
    forger.subscribe(&state("x"), QoS::AtLeastOnce).await;
    assert_eq!(forger.message().await.1, "of d2", "the first that it hears is its own");
    site.close().await;
}

#[tokio::test]
async fn the_state_of_a_bridge_is_retained_over_a_restart_and_its_subscription_stays() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::open_in(dir.path(), MqttServerSettings::default()).await;
    let mut kept = of_user(&site, "kept");
    kept.set_clean_session(false);
    let (mut watcher, _) = Mqtt::connect(kept).await;
    watcher.subscribe("$SYS/broker/connection/+/state", QoS::AtLeastOnce).await;
    let _bridge = bridge(&site, "b1", "plc").await;
    assert_eq!(watcher.message().await.1, "1");
    watcher.closed_by_client().await;
    site.close().await;
    let site = Site::open_in(
        dir.path(),
        MqttServerSettings { will_grace: std::time::Duration::ZERO, ..MqttServerSettings::default() },
    )
    .await;
    let mut again = of_user(&site, "kept");
    again.set_clean_session(false);
    let (mut watcher, is_present) = Mqtt::connect(again).await;
    assert!(is_present);
    assert_eq!(
        watcher.message().await,
        (state("b1"), "0".into(), QoS::AtLeastOnce),
        "the will of the bridge"
    );
    site.close().await;
}

#[tokio::test]
async fn a_bridge_hears_no_message_of_its_own_and_sees_retain_flags_as_published() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut bridge = bridge(&site, "b1", "plc").await;
    bridge.send(&packet(0x82, &[&[0, 2], &text("line/#"), &[1]])).await;
    bridge.expect(b"\x90\x03\0\x02\x01").await;
    bridge.send(&publish_v4(0x32, "line/own", 3, "from the bridge")).await;
    bridge.expect(b"\x40\x02\0\x03").await;
    let mut other = site.mqtt("d1").await;
    other.client.publish("line/x", QoS::AtLeastOnce, true, "retained").await.unwrap();
    other.acknowledged().await;
    bridge.expect(&publish_v4(0x33, "line/x", 1, "retained")).await;
    site.close().await;
}

#[tokio::test]
async fn the_states_of_an_accounts_bridges_go_with_it() {
    let site = Site::open(MqttServerSettings::default()).await;
    let mut gone = bridge(&site, "b1", "plc").await;
    gone.send(&DISCONNECT).await;
    assert!(gone.rest().await.is_empty());
    let mut stays = site.mqtt("d1").await;
    stays.client.publish(state("b1"), QoS::AtLeastOnce, true, "of d1").await.unwrap();
    stays.acknowledged().await;
    site.clients.forget(|who| who.is_user(), "removed").await.unwrap();
    let (mut next, _) = Mqtt::connect(of_user(&site, "panel")).await;
    next.subscribe("$SYS/broker/connection/#", QoS::AtLeastOnce).await;
    next.client.publish(state("b2"), QoS::AtLeastOnce, false, "nothing before this").await.unwrap();
    assert_eq!(next.message().await.1, "nothing before this");
    stays.subscribe("$SYS/broker/connection/#", QoS::AtLeastOnce).await;
    assert_eq!(stays.message().await.1, "of d1");
    site.close().await;
}

#[tokio::test]
async fn a_will_below_bridges_states_of_anybody_is_kept_private_and_other_reserved_topics_are_refused() {
    let site = Site::open(MqttServerSettings::default()).await;
    for (topic, is_let_in) in [
        ("$SYS/broker/connection/b/state", true),
        ("$SYS/broker/connection/$user:plc/b/state", true),
        ("$SYS/broker/connection/", false),
        ("$SYS/broker/uptime", false),
        ("$SYS/broker/connections/b", false),
    ] {
        let mut options = site.options("d1");
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, true));
        if is_let_in {
            drop(Mqtt::connect(options).await);
        } else {
            Mqtt::refused(options).await;
        }
    }
    site.close().await;
}
