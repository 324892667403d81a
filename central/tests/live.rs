//! The live stream: each change once, over dropped connections and restarts, and no reader slows anybody.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::{Central, STEP, start};
use reqwest::Method;
use serde_json::{Value, json};

/// An event as it came.
#[derive(Debug, Clone)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// A reader of server-sent events.
struct Reader {
    response: reqwest::Response,
    /// What has come and was not given: a part of it may end within a character.
    bytes: Vec<u8>,
    /// The id of the last event, of the first lines too.
    last: String,
}

impl Reader {
    async fn open(central: &Central, token: &str, query: &str, last: Option<&str>) -> Self {
        let url = central.url(&format!("/api/ext/events{query}"));
        let mut request = central.http.get(url).header("Authorization", token);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = tokio::time::timeout(STEP, request.send()).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self { response, bytes: Vec::new(), last: String::new() };
        if last.is_none() {
            let first = reader.block().await.unwrap();
            assert!(first.contains("retry: "), "{first}");
            reader.last = first.split("id: ").nth(1).unwrap().trim().to_owned();
        }
        reader
    }

    /// The next lines up to an empty one; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|two| two == b"\n\n") {
                let rest = self.bytes.split_off(end + 2);
                let block = std::mem::replace(&mut self.bytes, rest);
                return Some(String::from_utf8(block).unwrap().trim_end_matches('\n').to_owned());
            }
            let chunk =
                tokio::time::timeout(STEP, self.response.chunk()).await.expect("nothing came").ok()??;
            self.bytes.extend_from_slice(&chunk);
        }
    }

    /// The next event; `None` at the end of the stream.
    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim_start_matches([':', ' ']).to_owned())
            };
            if let Some(data) = field("data") {
                let (name, id) = (field("event").unwrap(), field("id").unwrap());
                self.last.clone_from(&id);
                return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
            }
        }
    }

    /// The data of the next event that `pick` wants.
    async fn until(&mut self, pick: impl Fn(&Event) -> bool) -> Value {
        loop {
            let event = self.event().await.expect("the stream ended");
            if pick(&event) {
                return event.data;
            }
        }
    }

    /// The data of the next event of a name.
    async fn next(&mut self, name: &str) -> Value {
        self.until(|event| event.name == name).await
    }

    /// The state of a device, when it has the verdict.
    async fn verdict(&mut self, device: &str, verdict: &str) -> Value {
        let is_it = |event: &Event| {
            event.name == "state"
                && event.data["device"] == device
                && event.data["state"]["verdict"] == verdict
        };
        self.until(is_it).await["state"].clone()
    }
}

#[tokio::test]
async fn a_site_shows_how_each_device_is_from_its_registration_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut site = Reader::open(&central, &central.token, "", None).await;
    central.put("/api/devices/press-1", json!({})).await;
    let state = site.verdict("press-1", "unknown").await;
    assert_eq!((&state["connectivity"], &state["lifecycle"]), (&json!("never"), &json!("Registered")));
    assert_eq!((&state["since"], &state["reason"]), (&Value::Null, &json!("it has never connected")));

    let mut device = central.client("press-1").await;
    device.publish("devices/press-1/messages/events/", "{}").await;
    let state = site.verdict("press-1", "ok").await;
    assert_eq!((&state["connectivity"], &state["lifecycle"]), (&json!("connected"), &json!("Provisioned")));
    drop(device);
    let state = site.verdict("press-1", "offline").await;
    assert_eq!(state["connectivity"], "disconnected");
    assert!(state["since"].is_string());

    central.patch("/api/devices/press-1", json!({"enabled": false})).await;
    assert_eq!(site.verdict("press-1", "blocked").await["lifecycle"], "Blocked");
    central.patch("/api/devices/press-1", json!({"enabled": true})).await;
    site.verdict("press-1", "offline").await;

    // What is known of a device depends on its gateway.
    central.put("/api/devices/gw", json!({"type": ["iotEdge"]})).await;
    central.put("/api/devices/gw/relationships/r", json!({"name": "r", "target": "press-1"})).await;
    let state = site.verdict("press-1", "unknown").await;
    assert_eq!(state["reason"], "gateway `gw` is not connected");
    let mut gateway = central.client("gw").await;
    gateway.publish("devices/gw/messages/events/", "{}").await;
    site.verdict("press-1", "offline").await;
    drop(gateway);
    site.verdict("press-1", "unknown").await;

    central.ok(Method::DELETE, "/api/devices/press-1", None).await;
    let gone = site.until(|event| event.data["device"] == "press-1" && event.data["state"].is_null()).await;
    assert_eq!(gone, json!({"device": "press-1", "state": null}));
    central.end().await;
}

#[tokio::test]
async fn a_devices_page_is_sent_its_messages_commands_and_properties() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for device in ["press-1", "press-2"] {
        central.put(&format!("/api/devices/{device}"), json!({})).await;
    }
    let mut page = Reader::open(&central, &central.token, "?device=press-1&device=press-3", None).await;
    let (mut device, mut other) = (central.client("press-1").await, central.client("press-2").await);
    other.publish("devices/press-2/messages/events/", r#"{"t": 9}"#).await;
    device.publish("devices/press-1/messages/events/%24.sub=pump", r#"{"t": 1.5, "on": true}"#).await;
    let event = page.next("telemetry").await;
    assert_eq!((&event["device"], &event["component"]), (&json!("press-1"), &json!("pump")));
    assert_eq!((&event["values"], &event["module"]), (&json!({"t": 1.5, "on": true}), &Value::Null));
    let stored = central.get("/api/ext/devices/press-1/messages").await;
    assert_eq!(event["message"], stored["value"][0]["id"]);
    assert_eq!(event["enqueuedAt"], stored["value"][0]["enqueuedTime"]);
    device.publish("devices/press-1/messages/events/", "no JSON").await;
    assert_eq!(page.next("telemetry").await["undecodable"], true);

    central.patch("/api/devices/press-1/properties", json!({"speed": 5})).await;
    let event = page.next("properties").await;
    assert_eq!(event, json!({"device": "press-1", "module": null, "section": "desired", "version": 1}));
    device.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", r#"{"speed": 5}"#).await;
    assert_eq!(page.next("properties").await["section"], "reported");

    let request = json!({"request": null, "responseTimeout": 300, "validFor": 600});
    let sent = central.ok(Method::POST, "/api/devices/press-1/commands/stop", Some(request)).await;
    let event = page.next("command").await;
    assert_eq!(
        (&event["id"], &event["name"], &event["status"]),
        (&sent["id"], &json!("stop"), &json!("waiting"))
    );
    device.subscribe("$iothub/methods/POST/#").await;
    let (topic, _) = device.message("$iothub/methods/POST/stop").await;
    let rid = topic.split("$rid=").nth(1).unwrap();
    device.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), "{}").await;
    let event = page.until(|event| event.name == "command" && event.data["status"] == "answered").await;
    assert_eq!((&event["id"], &event["responseCode"]), (&sent["id"], &json!(200)));

    let url = central.url(&format!("/api/ext/events?{}", "device=d&".repeat(200)));
    let again = central.http.get(url).header("Authorization", &central.token).send().await.unwrap();
    assert_eq!(again.status(), 200, "one device, named often");
    let many: String = (0..101).map(|n| format!("device=d{n}&")).collect();
    let (status, answer) = central.send(Method::GET, &format!("/api/ext/events?{many}"), None).await;
    assert_eq!(status, 400, "{answer}");
    central.end().await;
}

#[tokio::test]
async fn a_stream_goes_on_over_a_dropped_connection_and_says_to_resync_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press-1", json!({})).await;
    let mut device = central.client("press-1").await;
    let mut page = Reader::open(&central, &central.token, "?device=press-1", None).await;
    let mut values = Vec::new();
    for n in 0..60 {
        device.publish("devices/press-1/messages/events/", json!({"n": n}).to_string()).await;
        if n % 20 == 7 {
            // Some of it is read, some waits in the connection that is dropped now.
            values.push(page.next("telemetry").await["values"]["n"].as_i64().unwrap());
            let last = page.last.clone();
            drop(page);
            page = Reader::open(&central, &central.token, "?device=press-1", Some(&last)).await;
        }
    }
    while values.last() != Some(&59) {
        let event = page.event().await.unwrap();
        assert_ne!(event.name, "resync");
        if event.name == "telemetry" {
            assert!(event.id.contains('-'));
            values.push(event.data["values"]["n"].as_i64().unwrap());
        }
    }
    assert!(values.iter().copied().eq(0..60), "{values:?}");
    // Of a device that was not recorded nobody knows what was missed.
    let mut wider =
        Reader::open(&central, &central.token, "?device=press-1&device=d", Some(&page.last)).await;
    assert_eq!(wider.event().await.unwrap().name, "resync");

    let last = page.last.clone();
    drop(device);
    central.stop.cancel();
    // The end of central ends the stream.
    while page.event().await.is_some() {}
    central.end().await;
    let central = start(dir.path()).await;
    let mut page = Reader::open(&central, &central.token, "?device=press-1", Some(&last)).await;
    let first = page.event().await.unwrap();
    assert_eq!(first.name, "resync");
    assert_ne!(first.id.rsplit_once('-').unwrap().0, last.rsplit_once('-').unwrap().0);
    let mut device = central.client("press-1").await;
    device.publish("devices/press-1/messages/events/", r#"{"n": 60}"#).await;
    assert_eq!(page.next("telemetry").await["values"]["n"], 60);
    central.end().await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_slows_nobody_and_has_to_resync() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let mut devices = Vec::new();
    for n in 0..4 {
        central.put(&format!("/api/devices/d{n}"), json!({})).await;
        devices.push(central.client(&format!("d{n}")).await);
    }
    let query = "?device=d0&device=d1&device=d2&device=d3";
    let mut slow = Reader::open(&central, &central.token, query, None).await;
    let mut quick = Reader::open(&central, &central.token, "?device=d0", None).await;
    // More than the stream keeps and than the connection holds.
    let large = "x".repeat(60 * 1024);
    for n in 0..200 {
        for (of, device) in devices.iter_mut().enumerate() {
            let body = json!({"n": n, "large": large}).to_string();
            device.publish(&format!("devices/d{of}/messages/events/"), body).await;
        }
        if n % 10 == 9 {
            let is_it = |event: &Event| event.name == "telemetry" && event.data["values"]["n"] == n;
            loop {
                match quick.event().await {
                    Some(event) if is_it(&event) => break,
                    Some(_) => {}
                    // A stream lasts for some minutes, in which a busy machine may not be done.
                    None => {
                        quick =
                            Reader::open(&central, &central.token, "?device=d0", Some(&quick.last.clone()))
                                .await;
                    }
                }
            }
        }
    }
    // It may have been cut meanwhile, and comes again then.
    loop {
        match slow.event().await {
            Some(event) if event.name == "resync" => break,
            Some(_) => {}
            None => slow = Reader::open(&central, &central.token, query, Some(&slow.last.clone())).await,
        }
    }
    devices[3].publish("devices/d3/messages/events/", r#"{"n": -1}"#).await;
    slow.until(|event| event.data["values"]["n"] == -1).await;
    central.end().await;
}

#[tokio::test]
async fn a_viewers_stream_and_names_hide_what_only_operators_may_see() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press-1", json!({})).await;
    let viewer = central.new_token(Role::Viewer).await;
    let mut seen = Reader::open(&central, &viewer, "?device=press-1", None).await;
    let mut all = Reader::open(&central, &central.token, "?device=press-1", None).await;
    let mut device = central.client("press-1").await;
    let body = r#"{"apiKey": "hush-hush", "t": 1, "text": "SharedAccessKey=abcdefghijklmnopqrstuvwxyz="}"#;
    device.publish("devices/press-1/messages/events/", body).await;
    let event = seen.next("telemetry").await;
    assert_eq!(event["values"]["t"], 1);
    let text = event.to_string();
    assert!(!text.contains("hush") && !text.contains("abcdef"), "{text}");
    assert_eq!(all.next("telemetry").await["values"]["apiKey"], "hush-hush");

    let (status, names) = central.send_as(&viewer, Method::GET, "/api/ext/devices/press-1/names", None).await;
    assert_eq!(status, 200);
    assert!(!names.to_string().contains("hush"), "{names}");
    let names = central.get("/api/ext/devices/press-1/names").await;
    let named: Vec<(&str, &Value, bool)> = names["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| (name["name"].as_str().unwrap(), &name["value"], name["isNumber"].as_bool().unwrap()))
        .collect();
    assert_eq!(named[0], ("apiKey", &json!("hush-hush"), false));
    assert_eq!(named[1], ("t", &json!(1), true));
    assert_eq!(named.len(), 3);
    central.end().await;
}

#[tokio::test]
async fn a_chart_has_what_was_sent_at_once_and_after_a_restart_and_names_what_is_wrong_with_a_query() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press-1", json!({})).await;
    let mut device = central.client("press-1").await;
    for n in 0..30 {
        let topic = format!("devices/press-1/messages/events/%24.ctime=2026-05-01T10%3A{:02}%3A00Z", 29 - n);
        device.publish(&topic, json!({"t": n, "apiKey": 5}).to_string()).await;
    }
    let chart =
        "/api/ext/devices/press-1/series?name=t&name=none&from=2026-05-01T10:00:00Z&to=2026-05-01T11:00:00Z";
    let hourly = format!("{chart}&points=2");
    let (fine, coarse) = (central.get(chart).await, central.get(&hourly).await);
    assert_eq!((&fine["stepMs"], &fine["from"]), (&json!(10_000), &json!("2026-05-01T10:00:00.000Z")));
    let expected: Vec<f64> = (0..30).rev().map(f64::from).collect();
    assert_eq!(fine["series"][0]["last"], json!(expected));
    assert_eq!(
        fine["series"][1],
        json!({"name": "none", "t": [], "min": [], "avg": [], "max": [], "last": [], "count": []})
    );
    let column = |name: &str| coarse["series"][0][name][0].as_f64().unwrap();
    assert_eq!(["min", "avg", "max", "last", "count"].map(column), [0.0, 14.5, 29.0, 0.0, 30.0]);

    let viewer = central.new_token(Role::Viewer).await;
    let secret = "/api/ext/devices/press-1/series?name=apiKey";
    assert_eq!(central.send_as(&viewer, Method::GET, secret, None).await.0, 403);
    assert_eq!(central.send_as(&viewer, Method::GET, chart, None).await.0, 200);
    for (query, name) in [
        ("", "name"),
        ("name=a&points=1", "points"),
        ("name=a&points=5001", "points"),
        ("name=a&from=yesterday", "from"),
        ("name=a&from=5&to=5", "from"),
        ("name=a&to=99999999999999999", "to"),
        ("name=a&module=a/b", "module"),
    ] {
        let path = format!("/api/ext/devices/press-1/series?{query}");
        let (status, answer) = central.send(Method::GET, &path, None).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.starts_with(&format!("{name}:")), "{query}: {status} {answer}");
    }
    for query in
        ["name=a&from=0", "name=a&to=221845392000000&from=0", "name=t&from=1777629600000&to=1777629600001"]
    {
        central.get(&format!("/api/ext/devices/press-1/series?{query}")).await;
    }
    assert_eq!(central.send(Method::GET, "/api/ext/devices/none/series?name=a", None).await.0, 404);
    drop(device);
    central.end().await;
    let central = start(dir.path()).await;
    assert_eq!(central.get(chart).await, fine);
    assert_eq!(central.get(&hourly).await, coarse);
    central.end().await;
}

/// How a credential ends.
#[derive(Debug, Clone, Copy)]
enum End {
    TokenDeleted,
    /// On central's machine, beside the running central.
    TokenRevoked,
    TokenExpired,
    SignedOut,
    UserDeleted,
    UserRoleChanged,
    PasswordSet,
}

const ENDS: [End; 7] = [
    End::TokenDeleted,
    End::TokenRevoked,
    End::TokenExpired,
    End::SignedOut,
    End::UserDeleted,
    End::UserRoleChanged,
    End::PasswordSet,
];

#[tokio::test]
async fn a_stream_ends_when_the_token_or_session_ends_that_opened_it_however_and_others_go_on() {
    const PASSWORD: &str = "a long password";
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/press-1", json!({})).await;
    let mut other = Reader::open(&central, &central.token, "", None).await;
    for end in ENDS {
        let is_token = matches!(end, End::TokenDeleted | End::TokenRevoked | End::TokenExpired);
        let name = format!("{end:?}").to_lowercase();
        let user = json!({"type": "email", "email": name, "roles": [{"role": "viewer"}]});
        let mut ending = if is_token {
            let now_ms = central::clock::now_ms();
            let parsed = name.parse().unwrap();
            let new = central::token::create("h", &parsed, Role::Viewer, now_ms, now_ms + 3_600_000);
            let line = new.line.clone();
            let insert = move |c: &_| {
                Ok::<_, central::store::StoreError>(central::store::tokens::insert(c, &new.hash, &new.grant)?)
            };
            central.started.store().submit(insert).await.unwrap();
            Reader::open(&central, &line, "", None).await
        } else {
            central.put(&format!("/api/users/{name}"), user.clone()).await;
            let password = json!({"password": PASSWORD});
            central.ok(Method::POST, &format!("/api/ext/users/{name}/password"), Some(password)).await;
            let mut browser = central.sign_in(&name, PASSWORD).await;
            let response =
                browser.request(Method::GET, "/api/ext/events").timeout(4 * STEP).send().await.unwrap();
            assert_eq!(response.status(), 200);
            if matches!(end, End::SignedOut) {
                assert_eq!(browser.send(Method::DELETE, "/api/ext/session", None).await.0, 204);
            }
            Reader { response, bytes: Vec::new(), last: String::new() }
        };
        match end {
            End::TokenDeleted => {
                central.ok(Method::DELETE, &format!("/api/apiTokens/{name}"), None).await;
            }
            End::TokenRevoked => {
                let revoke = move |c: &_| {
                    Ok::<_, central::store::StoreError>(central::store::tokens::delete(c, &name)?)
                };
                assert!(central.started.store().submit(revoke).await.unwrap());
            }
            End::TokenExpired => {
                // As time does it.
                let expire = move |c: &rusqlite::Connection| {
                    let changed = c.execute("UPDATE tokens SET expires_ms = 1 WHERE name = ?1", [name])?;
                    Ok::<_, central::store::StoreError>(changed)
                };
                assert_eq!(central.started.store().submit(expire).await.unwrap(), 1);
            }
            End::UserDeleted => {
                central.ok(Method::DELETE, &format!("/api/users/{name}"), None).await;
            }
            End::UserRoleChanged => {
                let mut user = user;
                user["roles"] = json!([{"role": "operator"}]);
                central.put(&format!("/api/users/{name}"), user).await;
            }
            End::PasswordSet => {
                let password = json!({"password": "another long password"});
                central.ok(Method::POST, &format!("/api/ext/users/{name}/password"), Some(password)).await;
            }
            End::SignedOut => {}
        }
        let ended = async { while ending.block().await.is_some() {} };
        tokio::time::timeout(STEP, ended).await.unwrap_or_else(|_| panic!("{end:?}: the stream goes on"));
    }
    central.patch("/api/devices/press-1", json!({"enabled": false})).await;
    other.verdict("press-1", "blocked").await;
    central.end().await;
}

#[tokio::test]
async fn one_viewer_takes_no_more_streams_than_its_share_and_leaves_the_rest_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let greedy = central.new_token(Role::Viewer).await;
    let open = async |token: &str| {
        let url = central.url("/api/ext/events");
        central.http.get(url).header("Authorization", token).send().await.unwrap()
    };
    let mut taken = Vec::new();
    let refused = loop {
        let response = open(&greedy).await;
        if response.status() != 200 {
            break response;
        }
        taken.push(response);
        assert!(taken.len() < 50, "one viewer has {} streams", taken.len());
    };
    assert_eq!(refused.status(), 429);
    let other = central.new_token(Role::Viewer).await;
    assert_eq!(open(&other).await.status(), 200);
    taken.pop();
    // Its place is free as soon as central sees that the connection has ended.
    let deadline = tokio::time::Instant::now() + STEP;
    while open(&greedy).await.status() != 200 {
        assert!(tokio::time::Instant::now() < deadline);
    }
    central.end().await;
}
