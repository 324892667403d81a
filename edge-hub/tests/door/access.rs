//! Who is there: proofs that end, and users that are no devices.

use edge_hub::door::DoorSettings;

use crate::site::{Mqtt, Seen, Site};

#[tokio::test]
async fn a_connection_ends_when_its_proof_does() {
    let mut site = Site::open(DoorSettings::default()).await;
    let mut options = site.options("d");
    options.set_credentials("hub/d/?api-version=1", "expired");
    let (client, _) = Mqtt::connect(options).await;
    client.closed().await;
    site.until_seen(Seen::Disconnected("d".into())).await;
    let held = site.mqtt("e").await;
    site.until_seen(Seen::Connected("e".into())).await;
    drop(held);
    site.close().await;
}

#[tokio::test]
async fn a_users_client_id_is_free_and_takes_over_no_device() {
    let mut site = Site::open(DoorSettings::default()).await;
    let mut device = site.mqtt("press-1").await;
    site.until_seen(Seen::Connected("press-1".into())).await;
    let mut options = site.options("press-1");
    options.set_credentials("plc", "password");
    options.set_clean_session(false);
    let (user, _) = Mqtt::connect(options).await;
    site.until_seen(Seen::Connected("$user:plc/press-1".into())).await;
    device.publish("devices/press-1/messages/events/", "still here").await;
    device.acknowledged().await;
    drop(user);
    let mut options = site.options("press-1");
    options.set_clean_session(false);
    let (_device, was_present) = Mqtt::connect(options.clone()).await;
    assert!(!was_present, "the session is the user's");
    options.set_credentials("plc", "password");
    assert!(Mqtt::connect(options).await.1);
    site.close().await;
}
