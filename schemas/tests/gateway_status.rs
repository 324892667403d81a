//! `edge-agent status --json` keeps its names. The sample was written by the daemon before its status had a type, and filled in.

#![allow(clippy::unwrap_used)]

use schemas::gateway_status::GatewayStatus;
use serde_json::{Value, json};

fn sample() -> Value {
    serde_json::from_str(include_str!("data/gateway-status.json")).unwrap()
}

fn read(status: &Value) -> GatewayStatus {
    serde_json::from_value(status.clone()).unwrap()
}

/// Each member at any depth, as a path.
fn members(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(all) => {
            for (name, value) in all {
                let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                found.push(path.clone());
                members(value, &path, found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                members(item, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn what_is_written_has_the_names_and_values_of_the_sample() {
    assert_eq!(serde_json::to_value(read(&sample())).unwrap(), sample());
}

#[test]
fn a_status_without_any_one_of_its_members_is_read_with_the_others_as_they_are() {
    let mut all = Vec::new();
    members(&sample(), "", &mut all);
    assert!(all.len() > 150, "{}", all.len());
    for path in all {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/").replace("~0", "~");
        let mut older = sample();
        let parent = older.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().remove(&name);
        let mut written = serde_json::to_value(read(&older)).unwrap();
        // The member is absent (of a map) or has its default; everything else is as it was.
        let target = written.pointer_mut(path.rsplit_once('/').unwrap().0).unwrap().as_object_mut().unwrap();
        target.remove(&name);
        assert_eq!(written, older, "{path}");
    }
}

#[test]
fn members_of_a_newer_version_are_left_out() {
    let mut newer = sample();
    newer["new"] = json!({"a": [1]});
    newer["queues"][0]["new"] = json!(5);
    newer["upstream"]["budget"]["new"] = json!(null);
    assert_eq!(read(&newer), read(&sample()));
}
