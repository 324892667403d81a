//! The last value of a name: the newest by the time of its message, exactly as it was written, of this device and no earlier one.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use common::{Central, start};
use reqwest::Method;
use serde_json::json;

/// The answer's text: a parsed one would hide what became of numbers.
async fn last(central: &Central, path: &str) -> (u16, String) {
    let url = central.url(&format!("{path}?api-version=2022-07-31"));
    let answer = central.http.get(url).header("Authorization", &central.token).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn the_newest_value_by_the_devices_time_is_given_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press-1", json!({})).await;
    let mut device = central.client("press-1").await;
    let topic = |bag: &str| format!("devices/press-1/messages/events/{bag}");
    for (bag, body) in [
        (
            "iothub-creation-time-utc=2026-05-01T10%3A00%3A03Z",
            br#"{"t": 12345678901234567890123.50}"#.to_vec(),
        ),
        ("%24.ctime=2026-05-01T10%3A00%3A01Z", br#"{"t": 1}"#.to_vec()),
        ("iothub-creation-time-utc=2026-05-01T10%3A00%3A02", br#"{"t": 2, "p": 4}"#.to_vec()),
        ("%24.ctime=2026-05-01T10%3A00%3A00Z&%24.sub=pump", br#"{"t": 9}"#.to_vec()),
        (
            "%24.ctime=2026-05-01T10%3A00%3A00Z&%24.ce=utf-16",
            r#"{"w": "ü"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
    ] {
        device.publish(&topic(bag), body).await;
    }
    let values = "/api/devices/press-1/telemetry";
    for (name, at, value) in [
        ("t", "2026-05-01T10:00:03.000Z", "12345678901234567890123.50"),
        ("p", "2026-05-01T10:00:02.000Z", "4"),
        ("w", "2026-05-01T10:00:00.000Z", "\"ü\""),
    ] {
        let expected = format!("{{\"timestamp\":\"{at}\",\"value\":{value}}}");
        assert_eq!(last(&central, &format!("{values}/{name}")).await, (200, expected));
    }
    // A time to come is not believed: the value would stay the newest until then.
    device.publish(&topic("%24.ctime=2199-01-01T00%3A00%3A00Z"), br#"{"t": 5}"#.to_vec()).await;
    device.publish(&topic(""), br#"{"t": 6}"#.to_vec()).await;
    assert!(last(&central, &format!("{values}/t")).await.1.ends_with("\"value\":6}"));

    drop(device);
    central.ok(Method::DELETE, "/api/devices/press-1", None).await;
    central.put("/api/devices/press-1", json!({})).await;
    assert_eq!(last(&central, &format!("{values}/t")).await.0, 404, "they were another device's");
    central.end().await;
}
