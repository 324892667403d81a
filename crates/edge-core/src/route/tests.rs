//! The routes through the interface of the table: which messages they take, where these go, and what is refused.

use std::collections::BTreeSet;

use std::cell::Cell;

use proptest::prelude::*;
use schemas::bag::PropertyBag;
use schemas::manifest::PRIORITY_DEFAULT;
use schemas::names::{DeviceId, Identity};
use schemas::twin::Twin;
use serde_json::json;

use super::table::{QueueClass, RouteTable, RouteText, Verdict};
use super::{Kind, Message, Sink};

fn table(routes: &[(&str, &str)]) -> RouteTable {
    let (table, refused) = RouteTable::parse(routes.iter().map(|(name, text)| (*name, *text)));
    assert!(refused.is_empty(), "{refused:?}");
    table
}

/// A message by whom it is from, its bag and its body; `topic` makes it a free one.
struct Sent {
    from: Identity,
    gateway: DeviceId,
    bag: PropertyBag,
    body: &'static [u8],
    topic: Option<&'static str>,
    twins_requested: Cell<u32>,
}

fn sent(from: &str, bag: &str, body: &'static str) -> Sent {
    Sent {
        from: from.parse().unwrap(),
        gateway: "gw".parse().unwrap(),
        bag: PropertyBag::parse(bag),
        body: body.as_bytes(),
        topic: None,
        twins_requested: Cell::new(0),
    }
}

impl Sent {
    fn through<T>(&self, ask: impl FnOnce(&Message<'_>) -> T) -> T {
        let twin_of = |_: &Identity| {
            self.twins_requested.set(self.twins_requested.get() + 1);
            let mut twin = Twin::default();
            twin.desired.properties.insert("limit".into(), json!(30));
            twin.reported.properties.insert("mode".into(), json!("eco"));
            twin
        };
        let kind = match self.topic {
            Some(topic) => Kind::Free { topic },
            None => Kind::Telemetry,
        };
        ask(&Message::new(kind, &self.from, &self.gateway, &self.bag, self.body, &twin_of))
    }

    fn goes(&self, table: &RouteTable) -> Vec<String> {
        self.through(|message| table.targets(message).iter().map(|target| target.sink.to_string()).collect())
    }
}

#[test]
fn a_source_matches_by_segment() {
    // Sender and output, and then whether each source matches it.
    let senders = [("leaf", ""), ("leaf/cam", "o"), ("gw/cam", ""), ("gw/cam", "o"), ("gw/camera1", "p")];
    for (source, matches) in [
        ("/*", [true, true, true, true, true]),
        ("/", [true, true, true, true, true]),
        ("/messages", [true, true, true, true, true]),
        ("/messages/*", [true, true, true, true, true]),
        ("/MESSAGES/Modules/*", [false, false, true, true, true]),
        ("/messages/modules/cam", [false, false, true, true, false]),
        ("/messages/modules/CAM/*", [false, false, true, true, false]),
        ("/messages/modules/cam/outputs/*", [false, false, false, true, false]),
        ("/messages/modules/cam/outputs/O", [false, false, false, true, false]),
        ("/messages/modules/cam/outputs/p", [false, false, false, false, false]),
        ("/messages/modules/*/outputs/*", [false, false, false, true, true]),
        ("/messages/modules/*/outputs/p", [false, false, false, false, true]),
        ("/twinChangeNotifications", [false; 5]),
        ("/mqtt/#", [false; 5]),
    ] {
        let table = table(&[("r", &format!("FROM {source} INTO $upstream"))]);
        let found = senders.map(|(from, on)| {
            let bag = if on.is_empty() { String::new() } else { format!("%24.on={on}") };
            !sent(from, &bag, "").goes(&table).is_empty()
        });
        assert_eq!(found, matches, "{source}");
    }
}

/// The bag of a message from this output.
fn output(name: &str) -> String {
    let mut bag = PropertyBag::new();
    bag.set(schemas::bag::system::OUTPUT_NAME, name);
    bag.to_string()
}

#[test]
fn the_name_of_an_output_may_have_slashes_in_a_source() {
    let outputs = ["v1/sb", "v1", "v1/sb/x", "v2/sb", "v1sb", ""];
    for (source, matches) in [
        ("/messages/modules/m/outputs/v1/sb", [true, false, true, false, false, false]),
        ("/messages/modules/m/outputs/V1/SB/*", [true, false, true, false, false, false]),
        ("/messages/modules/m/outputs/v1", [true, true, true, false, false, false]),
        ("/messages/modules/m/outputs/v1/*", [true, true, true, false, false, false]),
        ("/messages/modules/m/outputs/*/sb", [true, false, true, true, false, false]),
        ("/messages/modules/*/outputs/v1/sb", [true, false, true, false, false, false]),
        ("/messages/modules/m/outputs/*", [true, true, true, true, true, false]),
    ] {
        let table = table(&[("r", &format!("FROM {source} INTO $upstream"))]);
        let found = outputs.map(|on| !sent("gw/m", &output(on), "").goes(&table).is_empty());
        assert_eq!(found, matches, "{source}");
    }
    for wrong in
        ["/messages/modules/m/outputs//sb", "/messages/modules/m/v1/sb", "/messages/modules/m/outputs/v*/sb"]
    {
        assert!(
            !RouteTable::parse([("r", format!("FROM {wrong} INTO $upstream").as_str())]).1.is_empty(),
            "{wrong}"
        );
    }
}

#[test]
fn a_star_behind_a_name_makes_a_prefix_of_it() {
    let senders =
        [("gw/cam", "o1"), ("gw/camera1", "o2"), ("gw/CAM2", "o1/x"), ("gw/ca", "o1"), ("leaf", "")];
    for (source, matches) in [
        ("/messages/modules/cam*", [true, true, true, false, false]),
        ("/messages/modules/cam*/", [true, true, true, false, false]),
        ("/messages/modules/cam", [true, false, false, false, false]),
        ("/messages/modules/cam/outputs/o*", [true, false, false, false, false]),
        ("/messages/modules/*/outputs/o1*", [true, false, true, true, false]),
        ("/messages/modules/*/outputs/o1/x*", [false, false, true, false, false]),
        ("/messages/modules*", [true, true, true, true, false]),
        ("/messages*", [true, true, true, true, true]),
        ("/messages/modules/cam/outputs*", [true, false, false, false, false]),
        // IoT Edge takes these, and no message has such a source.
        ("/modules/cam", [false; 5]),
        ("/modules/cam/outputs/o1", [false; 5]),
    ] {
        let table = table(&[("r", &format!("FROM {source} INTO $upstream"))]);
        let found = senders.map(|(from, on)| {
            let bag = if on.is_empty() { String::new() } else { output(on) };
            !sent(from, &bag, "").goes(&table).is_empty()
        });
        assert_eq!(found, matches, "{source}");
    }
}

proptest! {
    /// edgeHub compares the source's text with `/messages/modules/{module}/outputs/{output}/` by prefix.
    #[test]
    fn a_source_takes_the_outputs_whose_path_begins_with_it(
        source in prop::collection::vec("[abA]{1,2}", 1..5), output in prop::collection::vec("[abA]{1,2}", 1..5),
    ) {
        let (source, output) = (source.join("/"), output.join("/"));
        let table = table(&[("r", &format!("FROM /messages/modules/m/outputs/{source} INTO $upstream"))]);
        let bag = self::output(&output);
        let expected = format!("{output}/").to_lowercase().starts_with(&format!("{source}/").to_lowercase());
        prop_assert_eq!(!sent("gw/m", &bag, "").goes(&table).is_empty(), expected);
    }
}

#[test]
fn free_topics_are_taken_by_mqtt_filters_and_by_no_other_source() {
    let free = |topic| Sent { topic: Some(topic), ..sent("leaf", "", "21.5") };
    for (source, topic, expected) in [
        ("/mqtt/line1/+/temperature", "line1/press/temperature", true),
        ("/MQTT/line1/+/temperature", "line1/press/temperature", true),
        ("/mqtt/line1/+/temperature", "line1/press/pressure", false),
        ("/mqtt/line1/#", "line1", true),
        ("/mqtt/#", "anything/at/all", true),
        ("/mqtt/Line1/#", "line1/x", false),
        ("/mqtt//a", "/a", true),
        ("/*", "line1/x", false),
        ("/messages/*", "line1/x", false),
        ("/twinChangeNotifications", "line1/x", false),
    ] {
        let table = table(&[("r", &format!("FROM {source} INTO $upstream"))]);
        assert_eq!(!free(topic).goes(&table).is_empty(), expected, "{source} {topic}");
        assert_eq!(table.takes_free(), source.to_lowercase().starts_with("/mqtt/"), "{source}");
    }
    for (condition, expected) in [
        ("$topic = 'line1/press/t'", true),
        ("starts_with($topic, 'line1/')", true),
        ("$body > 20", true),
        ("$body < 20", false),
        ("$connectionDeviceId = 'leaf'", true),
        ("$body.t = 1", false),
    ] {
        let table = table(&[("r", &format!("FROM /mqtt/line1/# WHERE {condition} INTO $upstream"))]);
        assert_eq!(!free("line1/press/t").goes(&table).is_empty(), expected, "{condition}");
    }
}

#[test]
fn a_twin_change_comes_from_the_hub_and_is_selected_by_what_changed() {
    let (from, gateway): (Identity, DeviceId) = ("gw/cam".parse().unwrap(), "gw".parse().unwrap());
    let (patch, bag, twin_of) =
        (json!({"mode": "eco", "old": null}), PropertyBag::new(), |_: &Identity| Twin::default());
    let change = || Message::new(Kind::TwinChange { patch: &patch }, &from, &gateway, &bag, b"{}", &twin_of);
    for (route, expected) in [
        ("FROM /* INTO $upstream", true),
        ("FROM /messages/* INTO $upstream", false),
        ("FROM /messages/modules/* INTO $upstream", false),
        ("FROM /twinChangeNotifications INTO $upstream", true),
        ("FROM /twinchangenotifications/* WHERE $body.mode = 'eco' INTO $upstream", true),
        (
            "FROM /twinChangeNotifications WHERE twin_change_includes(properties.reported.mode) INTO $upstream",
            true,
        ),
        (
            "FROM /twinChangeNotifications WHERE twin_change_includes(properties.reported.old) INTO $upstream",
            false,
        ),
        ("FROM /twinChangeNotifications WHERE $connectionModuleId = '$edgeHub' INTO $upstream", true),
        ("FROM /twinChangeNotifications WHERE $rpSenderModuleId = 'cam' INTO $upstream", true),
    ] {
        let table = table(&[("r", route)]);
        assert_eq!(!table.targets(&change()).is_empty(), expected, "{route}");
        assert_eq!(table.takes_twin_changes(), !route.contains("/messages"), "{route}");
    }
}

#[test]
fn conditions_read_properties_body_and_twin_of_the_sender() {
    let hot = "%24.ct=application%2Fjson&%24.ce=utf-8&%24.mid=m1&line=4&%24odd=x&iothub-operation=op";
    let message = sent("gw/cam", hot, r#"{"t": 31, "tags": ["a"]}"#);
    for (condition, expected) in [
        ("$body.t > 30 AND line = '4'", true),
        ("$body.t > $twin.properties.desired.limit", true),
        ("$twin.reported.mode = 'eco'", true),
        ("IS_DEFINED($twin.tags.x)", false),
        ("$contentType = 'application/json' AND {$contentEncoding} = 'UTF-8'", false),
        ("lower({$contentEncoding}) = 'utf-8'", true),
        ("$messageId = 'm1' AND $.mid = 'm1' OR {$.mid} = 'm2'", true),
        ("$odd = 'x'", true),
        ("$operation = 'op' AND NOT IS_DEFINED(iothub-operation)", true),
        (
            "$connectionModuleId = 'cam' AND $connectionDeviceId = 'gw' AND $edgeHubOriginInterface = 'internal'",
            true,
        ),
        ("NOT IS_DEFINED($connectionModuleId)", false),
        ("IS_DEFINED($topic)", false),
    ] {
        let table = table(&[("r", &format!("FROM /* WHERE {condition} INTO $upstream"))]);
        assert_eq!(!message.goes(&table).is_empty(), expected, "{condition}");
    }
}

#[test]
fn a_message_that_no_condition_reads_is_not_parsed_and_its_twin_not_fetched() {
    let hot = "%24.ct=application%2Fjson&%24.ce=utf-8&line=4";
    let message = sent("gw/cam", hot, r#"{"t": 31}"#);
    let lazy = table(&[
        ("a", "FROM /messages/* WHERE line = '4' INTO $upstream"),
        ("b", "FROM /messages/* WHERE $body.t > 30 AND $twin.desired.limit = 30 INTO $upstream"),
        (
            "c",
            "FROM /messages/modules/other/* WHERE $body.t > 30 INTO BrokeredEndpoint('/modules/m/inputs/i')",
        ),
        (
            "d",
            "FROM /messages/* WHERE line = '5' AND $body.t > 30 INTO BrokeredEndpoint('/modules/m/inputs/i')",
        ),
    ]);
    message.through(|message| {
        assert_eq!(lazy.targets(message).len(), 1);
        assert!(!message.is_read());
    });
    assert_eq!(message.twins_requested.get(), 0);
    let eager = table(&[
        ("a", "FROM /messages/* WHERE $body.t > 30 AND $twin.desired.limit = 30 INTO $upstream"),
        (
            "b",
            "FROM /messages/* WHERE $body.t < $twin.desired.limit INTO BrokeredEndpoint('/modules/m/inputs/i')",
        ),
    ]);
    message.through(|message| {
        assert_eq!(eager.targets(message).len(), 1);
        assert!(message.is_read());
    });
    assert_eq!(message.twins_requested.get(), 1, "once for all routes");
}

#[test]
fn a_message_reaches_each_place_once_by_the_route_of_the_highest_priority() {
    let text =
        |query, priority, time_to_live_secs| RouteText { query, priority, time_to_live_secs, full: None };
    let (table, refused) = RouteTable::parse([
        ("plain", text("select * from /messages/* into $UPSTREAM", PRIORITY_DEFAULT, Some(9))),
        ("alarm", text("FROM /messages/* WHERE alarm = 'yes' INTO $upstream", 0, Some(60))),
        ("second", text("FROM /* INTO $upstream", 3, None)),
        ("also-second", text("FROM /messages/modules/* INTO $upstream", 3, Some(7))),
        ("blank", text("  ", 0, None)),
        ("in", text("FROM /*\n  INTO\tbrokeredendpoint( '/modules/filter/inputs/readings/' )", 5, None)),
        ("in-2", text("FROM /* INTO BrokeredEndpoint(\"modules/filter/inputs/other\")", 1, None)),
    ]);
    assert!(refused.is_empty(), "{refused:?}");
    let targets = |message: &Sent| {
        message.through(|message| {
            let target = |t: &super::Target<'_>| (t.sink.to_string(), t.class.priority, t.time_to_live_ms);
            table.targets(message).iter().map(target).collect::<Vec<_>>()
        })
    };
    let input = |input| format!("BrokeredEndpoint(\"/modules/filter/inputs/{input}\")");
    assert_eq!(
        targets(&sent("leaf", "alarm=yes", "")),
        [("$upstream".into(), 0, Some(60_000)), (input("other"), 1, None), (input("readings"), 5, None)]
    );
    assert_eq!(targets(&sent("leaf", "alarm=no", ""))[1], ("$upstream".into(), 3, None));
    let upstream = targets(&sent("gw/cam", "", "")).into_iter().find(|(sink, ..)| sink == "$upstream");
    assert_eq!(upstream, Some(("$upstream".into(), 3, Some(7000))), "of equal ones the first by name");
    let queues = table.queues();
    let priorities =
        |classes: BTreeSet<QueueClass>| classes.into_iter().map(|class| class.priority).collect::<Vec<_>>();
    assert_eq!(priorities(queues.upstream), [0, 3, PRIORITY_DEFAULT]);
    let modules: Vec<_> =
        queues.modules.into_iter().map(|(m, classes)| (m.to_string(), priorities(classes))).collect();
    assert_eq!(modules, [("filter".to_owned(), vec![1, 5])]);
}

#[test]
fn a_wrong_route_is_refused_by_name_with_its_place_and_the_others_hold() {
    let mut wrong = Vec::new();
    for (text, column, found) in [
        ("INTO $upstream", 1, "\"INTO\""),
        ("FROM", 5, "the end"),
        ("FROM /messages/*", 17, "the end of the route"),
        ("SELECT a FROM /* INTO $upstream", 8, "SELECT a"),
        ("FROM /* WHERE temperature > INTO $upstream", 29, "\"INTO\""),
        ("FROM /* WHERE INTO $upstream", 15, "\"INTO\""),
        ("FROM /* WHERE a = 'b'", 22, "the end of the route"),
        ("FROM /* WHERE a = 'b' THEN INTO $upstream", 23, "\"THEN\""),
        ("FROM /* WHERE a = 1) INTO $upstream", 20, "\")\""),
        ("FROM /* WHERE temperature > thirty() INTO $upstream", 29, "function `thirty`"),
        ("FROM /* WHERE twin_change_includes(reported.a) INTO $upstream", 9, "twin_change_includes"),
        ("FROM /* INTO $upstream WHERE a = 'b'", 14, "sink \"$upstream WHERE a = 'b'\""),
        ("FROM messages INTO $upstream", 6, "source \"messages\""),
        ("FROM /messages/modules/c*m INTO $upstream", 6, "source \"/messages/modules/c*m\""),
        (
            "FROM /messages/modules/cam*/outputs/o INTO $upstream",
            6,
            "source \"/messages/modules/cam*/outputs/o\"",
        ),
        ("FROM /messages//modules INTO $upstream", 6, "source \"/messages//modules\""),
        ("FROM /messages/modules/m/inputs/i INTO $upstream", 6, "source \"/messages/modules/m/inputs/i\""),
        ("FROM /twinChangeNotifications/x INTO $upstream", 6, "source \"/twinChangeNotifications/x\""),
        ("FROM /mqtt INTO $upstream", 6, "source \"/mqtt\""),
        ("FROM /mqtt/ INTO $upstream", 12, "filter \"\": it must not be empty"),
        ("FROM /mqtt/a# INTO $upstream", 12, "filter \"a#\": + and # must be a whole level"),
        ("FROM /mqtt/devices/+/x INTO $upstream", 12, "filter \"devices/+/x\" of a reserved topic"),
        ("FROM /mqtt/$SYS/# INTO $upstream", 12, "filter \"$SYS/#\" of a reserved topic"),
        ("FROM /* INTO", 13, "the end of the route"),
        ("FROM /* INTO upstream", 14, "sink \"upstream\""),
        ("FROM /* INTO $upstream extra", 14, "sink \"$upstream extra\""),
        ("FROM /* INTO BrokeredEndpoint(\"/modules/m\")", 14, r#"sink "BrokeredEndpoint(\"/modules/m\")""#),
        (
            "FROM /* INTO BrokeredEndpoint(/modules/m/inputs/i)",
            14,
            r#"sink "BrokeredEndpoint(/modules/m/inputs/i)""#,
        ),
        (
            "FROM /* INTO BrokeredEndpoint('/modules/$edgeHub/inputs/i')",
            14,
            r#"sink "BrokeredEndpoint('/modules/$edgeHub/inputs/i')""#,
        ),
        ("FROM /* INTO BrokeredEndpoint", 14, "sink \"BrokeredEndpoint\""),
    ] {
        let (table, refused) = RouteTable::parse([("bad", text), ("good", "FROM /* INTO $upstream")]);
        let [error] = &refused[..] else { panic!("{text}: {refused:?}") };
        assert_eq!(error.route, "bad");
        if (error.error.at.line, error.error.at.column, error.error.found.as_str()) != (1, column, found) {
            wrong.push(format!("{text}: {error}"));
        }
        assert_eq!(sent("leaf", "", "").goes(&table), ["$upstream"], "{text}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let (_, refused) =
        RouteTable::parse([("r", "FROM /messages/*\nWHERE a = 'b'\n  AND c >\nINTO $upstream")]);
    let message = refused[0].to_string();
    assert!(message.starts_with("route `r`: line 4, column 1: found \"INTO\"; write "), "{message}");
}

#[test]
fn a_route_says_what_it_makes_of_a_message_and_why() {
    let table = table(&[
        ("all", "FROM /messages/* INTO $upstream"),
        ("body", "FROM /* WHERE $body.t > 30 INTO BrokeredEndpoint('/modules/m/inputs/i')"),
        ("hot", "FROM /* WHERE t > 30 INTO BrokeredEndpoint('/modules/m/inputs/i')"),
        ("modules", "FROM /messages/modules/cam/outputs/* INTO $upstream"),
        ("twice", "FROM /* INTO $upstream"),
    ]);
    let explained: Vec<_> = sent("leaf", "t=21", "{}").through(|message| table.explain(message));
    let explained: Vec<_> =
        explained.iter().map(|t| (t.route.as_str(), t.verdict, t.reason.as_str())).collect();
    assert_eq!(
        explained,
        [
            ("all", Verdict::Matches, "it has no condition"),
            (
                "body",
                Verdict::Undefined,
                "`$body.t`: the message has no content type; $body needs application/json ($.ct)"
            ),
            ("hot", Verdict::False, "t is '21'"),
            ("modules", Verdict::OtherSource, "its source does not take telemetry of a leaf device"),
            ("twice", Verdict::Already, "a route before it leads there already"),
        ]
    );
}

#[test]
fn what_is_explained_is_what_is_done() {
    let table = table(&[
        ("a", "FROM /* WHERE line = 4 INTO $upstream"),
        ("b", "FROM /mqtt/# INTO $upstream"),
        ("c", "FROM /messages/* INTO BrokeredEndpoint('/modules/m/inputs/i')"),
    ]);
    for message in [
        sent("leaf", "line=4", ""),
        sent("leaf", "line=x", ""),
        Sent { topic: Some("t"), ..sent("l", "", "") },
    ] {
        message.through(|message| {
            let done: Vec<Sink> = table.targets(message).iter().map(|target| target.sink.clone()).collect();
            let explained =
                table.explain(message).into_iter().filter(|explained| explained.verdict == Verdict::Matches);
            assert_eq!(explained.map(|explained| explained.sink).collect::<Vec<_>>(), done);
        });
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?i)(select|from|where|into|\\*|/|/mqtt/|m|a = 'b'|and|\\+|#|\\$upstream|\\$body|BrokeredEndpoint|[()\"' ]|é){0,24}") {
        let _ = RouteTable::parse([("r", text.as_str())]);
    }
}
