//! A panic at work for one client is the end of that client's connection, and of nothing else.

use edge_hub::settings::MqttServerSettings;
use rumqttc::{AsyncClient, QoS};

use crate::site::{Mqtt, Seen, Site};

/// Every operation of a client that the program answers, with a program that panics at it.
#[tokio::test]
async fn a_panic_in_any_operation_ends_one_connection_and_its_client_comes_back() {
    let mut site = Site::open(MqttServerSettings::default()).await;
    site.program.takes_free.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut other = site.mqtt("other").await;
    site.until_seen(Seen::Connected("other".into())).await;
    for (topic, payload) in [
        ("devices/press-1/messages/events/", "panic"),
        ("devices/press-1/messages/events/", "panic later"),
        ("line/1", "panic"),
        ("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"panic":1}"#),
    ] {
        let mut options = site.options("press-1");
        options.set_clean_session(false);
        let (mut device, _) = Mqtt::connect(options.clone()).await;
        site.until_seen(Seen::Connected("press-1".into())).await;
        device.publish(topic, payload).await;
        while device.packet().await.is_ok() {}
        let (mut device, _) = Mqtt::connect(options).await;
        site.until_seen(Seen::Connected("press-1".into())).await;
        device.publish("devices/press-1/messages/events/", "again").await;
        device.acknowledged().await;
        drop(device);
        other.publish("devices/other/messages/events/", "beside").await;
        other.acknowledged().await;
    }
    let mut options = site.options("press-2");
    options.set_credentials("hub/press-2/?api-version=1", "panic");
    let (_client, mut events) = AsyncClient::new(options, 1);
    assert!(events.poll().await.is_err());
    other.client.publish("devices/other/messages/events/", QoS::AtLeastOnce, false, "beside").await.unwrap();
    other.acknowledged().await;
    site.close().await;
}
