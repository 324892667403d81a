//! `edge-agent routes test`: where a message would go and why, asked of a manifest's routes and of nothing else.

use edge_core::route::{Kind, Message, RouteResult, RouteTable, Verdict, system_on_the_wire};
use schemas::bag::{PropertyBag, system};
use schemas::manifest::{PRIORITY_DEFAULT, WhenFull};
use schemas::names::{DeviceId, Identity, NameError};
use schemas::twin::Twin;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A message as it is written on the command line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Asked {
    /// `device`, or `device/module`.
    from: String,
    /// The output of a module.
    output: Option<String>,
    /// A free topic: then it is no telemetry.
    topic: Option<String>,
    /// A patch of reported properties: then it is a twin change.
    twin_change: Option<Map<String, Value>>,
    /// Application properties; numbers and booleans become text, as on the wire.
    #[serde(default)]
    properties: Map<String, Value>,
    /// System properties, by their names in conditions or on the wire.
    #[serde(default)]
    system_properties: Map<String, Value>,
    /// A text is the body as it is; anything else is its JSON.
    #[serde(default)]
    body: Value,
    #[serde(default)]
    twin: AskedTwin,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedTwin {
    #[serde(default)]
    desired: Map<String, Value>,
    #[serde(default)]
    reported: Map<String, Value>,
}

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("from")]
    From(#[source] NameError),
    #[error("{list}.{name}: write a text")]
    NoText { list: &'static str, name: String },
    #[error("systemProperties.{0}: there is no such property that a sender writes")]
    Property(String),
    #[error("topic, twinChange: write one of them")]
    TopicAndTwinChange,
}

/// What each route makes of a message, in the order in which they are evaluated. Without a gateway, a module is one of its own
/// device.
///
/// # Errors
/// [`AskError`].
pub(super) fn ask(
    table: &RouteTable,
    asked: &Asked,
    gateway: Option<DeviceId>,
) -> Result<Vec<RouteResult>, AskError> {
    let from: Identity = asked.from.parse().map_err(AskError::From)?;
    let gateway = gateway.unwrap_or_else(|| from.device.clone());
    let mut bag = PropertyBag::new();
    for (name, value) in &asked.properties {
        bag.set(
            name,
            text_of(value).ok_or_else(|| AskError::NoText { list: "properties", name: name.clone() })?,
        );
    }
    for (name, value) in &asked.system_properties {
        let wire = system_on_the_wire(name).ok_or_else(|| AskError::Property(name.clone()))?;
        bag.set(
            wire,
            text_of(value)
                .ok_or_else(|| AskError::NoText { list: "systemProperties", name: name.clone() })?,
        );
    }
    if let Some(output) = &asked.output {
        bag.set(system::OUTPUT_NAME, output);
    }
    let body = match &asked.body {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        json => json.to_string(),
    };
    let patch = asked.twin_change.clone().map(Value::Object);
    let kind = match (&asked.topic, &patch) {
        (Some(_), Some(_)) => return Err(AskError::TopicAndTwinChange),
        (Some(topic), None) => Kind::Free { topic },
        (None, Some(patch)) => Kind::TwinChange { patch },
        (None, None) => Kind::Telemetry,
    };
    let twin_of = |_: &Identity| {
        let mut twin = Twin::default();
        twin.desired.properties.clone_from(&asked.twin.desired);
        twin.reported.properties.clone_from(&asked.twin.reported);
        twin
    };
    Ok(table.explain(&Message::new(kind, &from, &gateway, &bag, body.as_bytes(), &twin_of)))
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

pub(super) fn to_json(told: &[RouteResult]) -> Value {
    let priority =
        |told: &RouteResult| Some(told.class.priority).filter(|priority| *priority != PRIORITY_DEFAULT);
    let goes: Vec<Value> = told
        .iter()
        .filter(|told| told.verdict == Verdict::Matches)
        .map(|told| {
            json!({
                "sink": told.sink.to_string(),
                "route": told.route,
                "priority": priority(told),
                "timeToLiveSecs": told.time_to_live_ms.map(|ms| ms / 1000),
                "full": told.class.full,
            })
        })
        .collect();
    let routes: Vec<Value> = told
        .iter()
        .map(|told| {
            json!({
                "name": told.route,
                "sink": told.sink.to_string(),
                "priority": priority(told),
                "verdict": told.verdict.to_string(),
                "reason": told.reason,
            })
        })
        .collect();
    json!({"goesTo": goes, "routes": routes})
}

pub(super) fn to_text(told: &[RouteResult]) -> String {
    let mut lines: Vec<String> = told
        .iter()
        .map(|told| format!("{:<24} {:<20} {}", told.route, told.verdict.to_string(), told.reason))
        .collect();
    lines.insert(0, format!("{:<24} {:<20} {}", "ROUTE", "VERDICT", "WHY"));
    let goes: Vec<&RouteResult> = told.iter().filter(|told| told.verdict == Verdict::Matches).collect();
    lines.push(String::new());
    if goes.is_empty() {
        lines.push("goes nowhere: it would be acknowledged and dropped".to_owned())
    } else {
        lines.extend(goes.iter().map(|told| {
            let priority = match told.class.priority {
                PRIORITY_DEFAULT => "without a priority".to_owned(),
                priority => format!("priority {priority}"),
            };
            let life = told.time_to_live_ms.map_or(String::new(), |ms| format!(", for {} s", ms / 1000));
            let full = match told.class.full {
                None => "",
                Some(WhenFull::DropOldest) => "; when its queue is full the oldest give way",
                Some(WhenFull::Refuse) => "; refused when its queue is full",
            };
            format!("goes to {} by `{}`, {priority}{life}{full}", told.sink, told.route)
        }))
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use edge_core::error_chain::chain;

    use super::*;

    fn ask_of(routes: &[(&str, &str)], message: Value) -> Result<Vec<RouteResult>, String> {
        let (table, refused) = RouteTable::parse(routes.iter().copied());
        assert!(refused.is_empty(), "{refused:?}");
        let asked = serde_json::from_value(message).map_err(|error| error.to_string())?;
        ask(&table, &asked, None).map_err(|error| chain(&error).to_string())
    }

    #[test]
    fn an_operator_sees_where_a_message_goes_and_why_not_elsewhere() {
        let routes = [
            ("all", "FROM /messages/* INTO $upstream"),
            (
                "hot",
                "FROM /messages/modules/sensor/outputs/t WHERE $body.t > $twin.desired.limit INTO BrokeredEndpoint('/modules/m/inputs/i')",
            ),
            ("topics", "FROM /mqtt/line1/# WHERE $body > 20 INTO $upstream"),
        ];
        let told = ask_of(
            &routes,
            json!({"from": "gw/sensor", "output": "t", "properties": {"line": 4}, "body": {"t": 31},
                "systemProperties": {"contentType": "application/json", "$.ce": "utf-8"}, "twin": {"desired": {"limit": 30}}}),
        )
        .unwrap();
        assert_eq!(
            to_text(&told).lines().collect::<Vec<_>>(),
            [
                "ROUTE                    VERDICT              WHY",
                "all                      matches              it has no condition",
                "hot                      matches              $body.t is 31, $twin.properties.desired.limit is 30",
                "topics                   other source         its source does not take telemetry of module `sensor` from output `t`",
                "",
                "goes to $upstream by `all`, without a priority",
                "goes to BrokeredEndpoint(\"/modules/m/inputs/i\") by `hot`, without a priority",
            ]
        );
        let told =
            ask_of(&routes, json!({"from": "leaf", "topic": "line1/press/t", "body": "21.5"})).unwrap();
        assert_eq!(
            to_json(&told)["goesTo"],
            json!([{"sink": "$upstream", "route": "topics", "priority": null, "timeToLiveSecs": null, "full": null}])
        );
        let told =
            ask_of(&routes, json!({"from": "leaf", "topic": "line1/press/t", "body": "warm"})).unwrap();
        assert_eq!(to_json(&told)["routes"][2]["verdict"], "condition undefined");
        assert!(to_text(&told).contains("goes nowhere"));
    }

    #[test]
    fn a_wrong_message_is_told_by_its_field() {
        for (message, found) in [
            (json!({"from": ""}), "from: "),
            (json!({"body": 1}), "from"),
            (json!({"from": "d", "payload": 1}), "payload"),
            (json!({"from": "d", "properties": {"a": {}}}), "properties.a"),
            (json!({"from": "d", "systemProperties": {"nosuch": "x"}}), "systemProperties.nosuch"),
            (json!({"from": "d", "topic": "t", "twinChange": {}}), "topic, twinChange"),
        ] {
            let error = ask_of(&[("r", "FROM /* INTO $upstream")], message.clone()).unwrap_err();
            assert!(error.contains(found), "{message}: {error}");
        }
    }
}
