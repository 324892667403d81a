//! What the live stream reads: changes since the last time become events.
//!
//! It reads states, not changes: of several changes of a device between two readings its state now is sent, once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rusqlite::Connection;
use schemas::body::decode;
use schemas::names::{DeviceId, Identity, ModuleId};
use schemas::timestamp::rfc3339;
use serde_json::{Map, Value, json};

use super::ring::EventKind;
use crate::diagnosis::device_states::DeviceStates;
use crate::store::changes::{self, Change, Changed};
use crate::store::telemetry_reading::{self, LiveMessage};
use crate::store::twins::{self, Half};
use crate::store::{Store, StoreError, commands, devices, grid};
use crate::telemetry::message_values::{Stamp, members};

/// States that are made at one moment.
const STATES_MAX: usize = 2000;
/// Names of one message in an event, the first ones.
const NAMES_MAX: usize = 200;
/// Bytes of their values.
const VALUES_BYTES_MAX: usize = 64 * 1024;
/// Devices whose last states are remembered, so that none is sent twice.
const REMEMBERED_MAX: usize = 200_000;

/// An event that is not numbered yet.
pub type NewEvent = (EventKind, DeviceId, String);

#[derive(Debug, Default)]
pub struct Found {
    /// Changes before these are not kept any more.
    pub has_gap: bool,
    /// In their order.
    pub events: Vec<NewEvent>,
}

/// How far has been read.
pub struct Reader {
    states: DeviceStates,
    /// The last change and the last message; `None` before the first reading.
    up_to: Option<(i64, i64)>,
    /// Devices of which something changed.
    due: HashSet<DeviceId>,
    /// Devices whose states are to be made: those, and the devices behind gateways among them.
    pending: BTreeSet<DeviceId>,
    /// Hashes of the states that were sent.
    last_hashes: HashMap<DeviceId, u64>,
}

/// What one reading of the store gives.
struct Moment {
    up_to: (i64, i64),
    has_gap: bool,
    states: Vec<(DeviceId, Value)>,
    /// Devices whose states are still to be made.
    pending: BTreeSet<DeviceId>,
    events: Vec<NewEvent>,
}

impl Reader {
    /// Begins with what changes after its first reading.
    pub fn new(states: DeviceStates) -> Self {
        Self {
            states,
            up_to: None,
            due: HashSet::new(),
            pending: BTreeSet::new(),
            last_hashes: HashMap::new(),
        }
    }

    /// Notes devices whose connections changed, as [`crate::gateway_sync::connections::Connections::take_changed`] gives them.
    pub fn note(&mut self, devices: HashSet<DeviceId>) {
        self.due.extend(devices);
    }

    /// Reads what changed. After an error the next reading begins where this one did.
    pub async fn read(&mut self, store: &Store, watched: Vec<DeviceId>) -> Result<Found, StoreError> {
        let (states, after) = (self.states.clone(), self.up_to);
        let (due, pending) = (self.due.clone(), self.pending.clone());
        let read =
            move |c: &Connection| Ok::<_, StoreError>(moment(c, &states, after, (due, pending), &watched)?);
        let moment = store.read(read).await?;
        (self.up_to, self.pending) = (Some(moment.up_to), moment.pending);
        self.due.clear();
        let mut found = Found { has_gap: moment.has_gap, events: Vec::new() };
        // To forget them only sends each state once more.
        if self.last_hashes.len() > REMEMBERED_MAX {
            self.last_hashes.clear();
        }
        for (device, state) in moment.states {
            let data = json!({"device": device, "state": state}).to_string();
            let mut hasher = DefaultHasher::new();
            data.hash(&mut hasher);
            let hash = hasher.finish();
            if self.last_hashes.insert(device.clone(), hash) != Some(hash) {
                found.events.push((EventKind::State, device, data));
            }
        }
        found.events.extend(moment.events);
        Ok(found)
    }
}

fn moment(
    c: &Connection,
    states: &DeviceStates,
    after: Option<(i64, i64)>,
    (mut due, mut pending): (HashSet<DeviceId>, BTreeSet<DeviceId>),
    watched: &[DeviceId],
) -> rusqlite::Result<Moment> {
    let Some((last_change, last_message)) = after else {
        let up_to = (changes::last(c)?, telemetry_reading::last_id(c)?);
        return Ok(Moment { up_to, has_gap: false, states: Vec::new(), pending, events: Vec::new() });
    };
    let found = changes::since(c, last_change)?;
    let mut events = Vec::new();
    let mut seen = HashSet::new();
    for change in found.value {
        let is_agent_report = matches!(&change.what, Changed::Twin { module: Some(module), .. }
            if *module == ModuleId::edge_agent());
        if change.what == Changed::Registration || is_agent_report {
            due.insert(change.device.clone());
        }
        if watched.contains(&change.device) && seen.insert(change.clone()) {
            events.extend(change_event(c, change)?);
        }
    }
    let up_to_message = telemetry_reading::last_id(c)?;
    for device in watched {
        events.extend(messages(c, device, last_message, up_to_message)?);
    }
    for device in due {
        // What is known of those behind a gateway depends on it.
        pending.extend(devices::children_ids(c, &device)?);
        pending.insert(device);
    }
    let later = pending.iter().nth(STATES_MAX).cloned();
    let later = later.map(|first| pending.split_off(&first)).unwrap_or_default();
    let states = current_states(c, states, &pending)?;
    let up_to = (found.up_to, up_to_message);
    Ok(Moment { up_to, has_gap: found.has_gap, states, pending: later, events })
}

/// The state of each of these; null of one that is not registered.
fn current_states(
    c: &Connection,
    states: &DeviceStates,
    devices: &BTreeSet<DeviceId>,
) -> rusqlite::Result<Vec<(DeviceId, Value)>> {
    let mut found = HashMap::new();
    for device in grid::of_ids(c, devices)? {
        let state = states.of(c, &device)?;
        found.insert(device.id, json!(state));
    }
    let state = |device: &DeviceId| (device.clone(), found.remove(device).unwrap_or(Value::Null));
    Ok(devices.iter().map(state).collect())
}

fn change_event(c: &Connection, change: Change) -> rusqlite::Result<Option<NewEvent>> {
    let Change { device, what } = change;
    Ok(match what {
        Changed::Registration => None,
        Changed::Twin { module, is_reported } => {
            let of = Identity { device: device.clone(), module };
            let (half, section) =
                if is_reported { (Half::Reported, "reported") } else { (Half::Desired, "desired") };
            let version = twins::section(c, &of, half)?.section.version;
            let data = json!({"device": device, "module": of.module, "section": section, "version": version});
            Some((EventKind::Properties, device, data.to_string()))
        }
        Changed::Command { id } => commands::get(c, &id)?.map(|command| {
            let status = match &command.outcome {
                None if command.valid_until_ms.is_some() && command.taken_ms.is_none() => "waiting",
                None => "running",
                Some(Ok(_)) => "answered",
                Some(Err(_)) => "failed",
            };
            let code = command.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok()).map(|ok| ok.status);
            let data = json!({"device": device, "module": command.target.module, "id": id,
                "name": command.request.method_name, "status": status, "responseCode": code});
            (EventKind::Command, device, data.to_string())
        }),
    })
}

/// The newest messages of a device between two ids; the first tells how many before it were left out.
fn messages(c: &Connection, device: &DeviceId, after: i64, up_to: i64) -> rusqlite::Result<Vec<NewEvent>> {
    if after >= up_to {
        return Ok(Vec::new());
    }
    let (mut skipped, messages) = telemetry_reading::between(c, device, after, up_to)?;
    let mut events = Vec::with_capacity(messages.len());
    for message in messages {
        let data = telemetry_data(&message, std::mem::take(&mut skipped));
        events.push((EventKind::Telemetry, device.clone(), data.to_string()));
    }
    Ok(events)
}

fn telemetry_data(message: &LiveMessage, skipped: u64) -> Value {
    let property = |name: &str| message.properties.get(name).map(|value| value.as_str().unwrap_or_default());
    let stamp = Stamp::new(message.enqueued_ms, message.received_ms, message.id).with(property);
    let mut data = Map::new();
    data.insert("device".into(), json!(message.from.device));
    data.insert("module".into(), json!(message.from.module));
    data.insert("component".into(), json!(stamp.component));
    data.insert("at".into(), rfc3339(stamp.order().at_ms).into());
    data.insert("enqueuedAt".into(), rfc3339(message.enqueued_ms).into());
    data.insert("message".into(), message.id.into());
    if skipped > 0 {
        data.insert("skipped".into(), skipped.into());
    }
    let text = decode(stamp.encoding, &message.body);
    let Some(found) = text.as_deref().and_then(members) else {
        data.insert("values".into(), json!({}));
        data.insert("undecodable".into(), true.into());
        return Value::Object(data);
    };
    let (mut values, mut bytes) = (Map::new(), 0);
    for (name, value) in found {
        bytes += name.len() + value.len();
        if values.len() == NAMES_MAX || bytes > VALUES_BYTES_MAX {
            data.insert("truncated".into(), true.into());
            break;
        }
        // Numbers that no double holds are sent as the nearest; the message has them as they were written.
        if let Ok(value) = serde_json::from_str::<Value>(value) {
            values.insert(name.into_owned(), value);
        }
    }
    data.insert("values".into(), values.into());
    Value::Object(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::bag::system;

    fn data(properties: Value, body: &[u8]) -> Value {
        let Value::Object(properties) = properties else { unreachable!("the test gives an object") };
        let message = LiveMessage {
            id: 7,
            from: "gw/m".parse().unwrap(),
            enqueued_ms: 1_800_000_000_000,
            received_ms: 1_800_000_000_000,
            properties,
            body: body.to_vec(),
        };
        telemetry_data(&message, 0)
    }

    #[test]
    fn a_message_is_reported_with_the_values_of_its_object_and_another_one_as_undecodable() {
        let event = data(json!({(system::COMPONENT): "pump"}), br#"{"t": 1.5, "on": true, "t": 2}"#);
        assert_eq!(event["values"], json!({"t": 2, "on": true}));
        assert_eq!(
            (&event["component"], &event["module"], &event["message"]),
            (&json!("pump"), &json!("m"), &json!(7))
        );
        assert_eq!(event["at"], "2027-01-15T08:00:00.000Z");
        for body in [&b"[1]"[..], b"7", b"{", b"", b"\xff\xfe{}"] {
            let event = data(json!({}), body);
            assert_eq!((&event["values"], &event["undecodable"]), (&json!({}), &json!(true)), "{body:?}");
        }
    }

    #[test]
    fn a_hostile_body_becomes_a_small_event() {
        let names: Map<String, Value> = (0..100_000).map(|n| (format!("n{n}"), n.into())).collect();
        let many = data(json!({}), Value::Object(names).to_string().as_bytes());
        let long = data(json!({}), json!({"a": 1, "b": "x".repeat(1_000_000)}).to_string().as_bytes());
        let name = data(json!({}), json!({"x".repeat(1_000_000): 1, "b": 2}).to_string().as_bytes());
        let deep =
            data(json!({}), format!("{{\"a\": {}1{}}}", "[".repeat(50_000), "]".repeat(50_000)).as_bytes());
        assert_eq!(
            (many["values"].as_object().unwrap().len(), &many["truncated"]),
            (NAMES_MAX, &json!(true))
        );
        assert_eq!((&long["values"], &long["truncated"]), (&json!({"a": 1}), &json!(true)));
        assert_eq!(name["values"], json!({"b": 2}));
        for event in [many, long, name, deep] {
            assert!(event.to_string().len() < 2 * VALUES_BYTES_MAX);
        }
    }
}
