//! `edge-agent routes test`: where a message would go and why, asked of a manifest's routes and of nothing else.

use edge_core::route::{RouteResult, Verdict};
use schemas::manifest::{PRIORITY_DEFAULT, WhenFull};
use serde_json::{Value, json};

pub(super) fn to_json(results: &[RouteResult]) -> Value {
    let priority =
        |results: &RouteResult| Some(results.class.priority).filter(|priority| *priority != PRIORITY_DEFAULT);
    let goes: Vec<Value> = results
        .iter()
        .filter(|results| results.verdict == Verdict::Matches)
        .map(|results| {
            json!({
                "sink": results.sink.to_string(),
                "route": results.route,
                "priority": priority(results),
                "timeToLiveSecs": results.time_to_live_ms.map(|ms| ms / 1000),
                "full": results.class.full,
            })
        })
        .collect();
    let routes: Vec<Value> = results
        .iter()
        .map(|results| {
            json!({
                "name": results.route,
                "sink": results.sink.to_string(),
                "priority": priority(results),
                "verdict": results.verdict.to_string(),
                "reason": results.reason,
            })
        })
        .collect();
    json!({"goesTo": goes, "routes": routes})
}

pub(super) fn to_text(results: &[RouteResult]) -> String {
    let mut lines: Vec<String> = results
        .iter()
        .map(|results| {
            format!("{:<24} {:<20} {}", results.route, results.verdict.to_string(), results.reason)
        })
        .collect();
    lines.insert(0, format!("{:<24} {:<20} {}", "ROUTE", "VERDICT", "WHY"));
    let goes: Vec<&RouteResult> =
        results.iter().filter(|results| results.verdict == Verdict::Matches).collect();
    lines.push(String::new());
    if goes.is_empty() {
        lines.push("goes nowhere: it would be acknowledged and dropped".to_owned())
    } else {
        lines.extend(goes.iter().map(|results| {
            let priority = match results.class.priority {
                PRIORITY_DEFAULT => "without a priority".to_owned(),
                priority => format!("priority {priority}"),
            };
            let life = results.time_to_live_ms.map_or(String::new(), |ms| format!(", for {} s", ms / 1000));
            let full = match results.class.full {
                None => "",
                Some(WhenFull::DropOldest) => "; when its queue is full the oldest give way",
                Some(WhenFull::Refuse) => "; refused when its queue is full",
            };
            format!("goes to {} by `{}`, {priority}{life}{full}", results.sink, results.route)
        }))
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use edge_core::error_chain::chain;
    use edge_core::route::RouteTable;
    use edge_core::route::sample::SampleMessage;

    use super::*;

    fn ask_of(routes: &[(&str, &str)], message: Value) -> Result<Vec<RouteResult>, String> {
        let (table, refused) = RouteTable::parse(routes.iter().copied());
        assert!(refused.is_empty(), "{refused:?}");
        let sample: SampleMessage = serde_json::from_value(message).map_err(|error| error.to_string())?;
        sample.explain(&table, None).map_err(|error| chain(&error).to_string())
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
        let results = ask_of(
            &routes,
            json!({"from": "gw/sensor", "output": "t", "properties": {"line": 4}, "body": {"t": 31},
                "systemProperties": {"contentType": "application/json", "$.ce": "utf-8"}, "twin": {"desired": {"limit": 30}}}),
        )
        .unwrap();
        assert_eq!(
            to_text(&results).lines().collect::<Vec<_>>(),
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
        let results =
            ask_of(&routes, json!({"from": "leaf", "topic": "line1/press/t", "body": "21.5"})).unwrap();
        assert_eq!(
            to_json(&results)["goesTo"],
            json!([{"sink": "$upstream", "route": "topics", "priority": null, "timeToLiveSecs": null, "full": null}])
        );
        let results =
            ask_of(&routes, json!({"from": "leaf", "topic": "line1/press/t", "body": "warm"})).unwrap();
        assert_eq!(to_json(&results)["routes"][2]["verdict"], "condition undefined");
        assert!(to_text(&results).contains("goes nowhere"));
    }

    #[test]
    fn a_wrong_message_is_reported_by_its_field() {
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
