//! What operators and devices write: routes, manifests, twin patches.

use edge_core::deploy::check::{check, take};
use edge_core::route::{Kind, Message, RouteTable};
use edge_core::twin;
use schemas::bag::PropertyBag;
use schemas::manifest::Manifest;
use schemas::names::{DeviceId, Identity};
use schemas::twin::{Section, Twin};
use serde_json::json;

/// A route in the first line and a message's body behind it: the route is refused by its name, or it says of any message
/// where it goes, and its reasons come to the same.
pub(crate) fn routes(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(text) = std::str::from_utf8(&data[..split]) else { return };
    let body = data.get(split + 1..).filter(|body| !body.is_empty()).unwrap_or(br#"{"a":[{"b":1.5}]}"#);
    let (table, refused) = RouteTable::parse([("line-1", text)]);
    for error in &refused {
        assert!(error.to_string().contains("line-1"), "{error}");
    }
    let (from, gateway): (Identity, DeviceId) =
        ("gw/filter".parse().expect("an identity"), "gw".parse().expect("a device id"));
    let bag = PropertyBag::parse("$.on=out1&$.ct=application%2Fjson&temp=21&x=");
    let twin_of = |_: &Identity| {
        let mut twin = Twin::default();
        twin.desired.properties.insert("limit".to_owned(), json!({"high": 30}));
        twin
    };
    for kind in
        [Kind::Telemetry, Kind::TwinChange { patch: &json!({"a": null}) }, Kind::Free { topic: "line1/a" }]
    {
        let message = Message::new(kind, &from, &gateway, &bag, body, &twin_of);
        let targets = table.targets(&message).len();
        assert!(targets <= 1 && (refused.is_empty() || targets == 0), "{text:?} gives {targets} targets");
        let _ = table.explain(&message);
    }
    let _ = table.queues();
}

/// A deployment manifest: read, or refused with the path of a field. What is wrong in its routes alone is told beside.
pub(crate) fn manifest(data: &[u8]) {
    match Manifest::parse(data) {
        Ok(manifest) => {
            let (_, _, refused) = take(&manifest);
            let is_wrong = !refused.is_empty() || manifest.check_names().is_err();
            assert_eq!(check(&manifest).is_err(), is_wrong);
        }
        Err(error) => assert!(!error.path.is_empty(), "{error}"),
    }
}

/// A reported patch: what is taken keeps the section within its bounds, leaves no null, and is the same when it is
/// applied again.
pub(crate) fn twin(data: &[u8]) {
    let Ok(patch) = twin::parse_patch(data) else { return };
    let mut section = Section::default();
    if twin::patch(&mut section, &patch).is_err() {
        assert_eq!(section, Section::default(), "a refused patch changed the section");
        return;
    }
    let once = section.clone();
    assert!(twin::patch(&mut section, &patch).is_ok(), "a patch that was taken is refused the second time");
    assert_eq!(section.properties, once.properties);
    let mut from_nothing = serde_json::Map::new();
    let difference = twin::difference(&from_nothing, &once.properties);
    twin::merge(&mut from_nothing, &difference);
    assert_eq!(from_nothing, once.properties, "the difference from nothing does not lead there");
}
