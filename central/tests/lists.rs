//! Lists are filtered, ordered and given in pages as IoT Central does it.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use std::cmp::Ordering;

use common::{Central, start};
use reqwest::Method;
use serde_json::{Value, json};

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Names that sort in another order than their bytes would suggest to somebody, with what SQL and OData quote.
const NAMES: [&str; 6] = ["Press", "press", "it's", "a%b_c", "Größe", "press 10"];
const TEMPLATES: [&str; 2] = ["dtmi:site:press;1", "dtmi:site:oven;2"];
const ORGANIZATIONS: [&str; 2] = ["seattle", "redmond"];

/// The devices of a site in which every field has every value.
async fn devices(central: &Central) -> Vec<Value> {
    let mut numbers = Numbers(7);
    for n in 0..40 {
        let mut device = json!({
            "displayName": numbers.of(&NAMES),
            "enabled": numbers.below(3) > 0,
            "simulated": numbers.below(2) > 0,
        });
        if numbers.below(3) > 0 {
            device["template"] = numbers.of(&TEMPLATES).into();
        }
        if numbers.below(3) > 0 {
            device["organizations"] = json!([numbers.of(&ORGANIZATIONS)]);
        }
        if numbers.below(4) == 0 {
            device["type"] = json!(["iotEdge"]);
        }
        central.put(&format!("/api/devices/d{n}"), device).await;
    }
    pages(central, "/api/devices?maxpagesize=100", &[]).await
}

/// Everything on the pages of a list, each taken by the link of the one before as it stands.
async fn pages(central: &Central, path: &str, query: &[(&str, &str)]) -> Vec<Value> {
    let url = central.url(path);
    let query: Vec<(&str, &str)> =
        [("api-version", "2022-10-31-preview")].iter().chain(query).copied().collect();
    let mut request = central.http.get(url).query(&query);
    let mut all = Vec::new();
    for _ in 0..200 {
        let answer = request.header("Authorization", &central.token).send().await.unwrap();
        let status = answer.status();
        let page: Value = answer.json().await.unwrap();
        assert_eq!(status, 200, "{query:?}: {page}");
        all.extend(page["value"].as_array().unwrap().iter().cloned());
        let Some(next) = page["nextLink"].as_str() else { return all };
        request = central.http.get(next);
    }
    panic!("{query:?}: the pages have no end");
}

fn ids(devices: &[Value]) -> Vec<&str> {
    devices.iter().map(|device| device["id"].as_str().unwrap()).collect()
}

/// A field of a device as a filter sees it.
fn field(device: &Value, name: &str) -> Value {
    match name {
        "organizations" | "scopes" => device["organizations"][0].clone(),
        "type" => device["type"][0].clone(),
        name => device[name].clone(),
    }
}

/// Whether a device meets a filter.
type Holds = Box<dyn Fn(&Value) -> bool>;

/// A filter, and what it means, read from OData's own description.
fn condition(numbers: &mut Numbers, depth: usize) -> (String, Holds) {
    if depth > 0 && numbers.below(3) > 0 {
        let (left_text, left) = condition(numbers, depth - 1);
        if numbers.below(4) == 0 {
            return (format!("not ({left_text})"), Box::new(move |device| !left(device)));
        }
        let (right_text, right) = condition(numbers, depth - 1);
        return if numbers.below(2) == 0 {
            (
                format!("({left_text}) and ({right_text})"),
                Box::new(move |device| left(device) && right(device)),
            )
        } else {
            (format!("({left_text} or {right_text})"), Box::new(move |device| left(device) || right(device)))
        };
    }
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    if numbers.below(4) == 0 {
        let name = numbers.of(&["enabled", "Provisioned", "simulated"]);
        let (is_equal, flag) = (numbers.below(2) == 0, numbers.below(2) == 0);
        let operator = if is_equal { "eq" } else { "ne" };
        let of = name.to_lowercase();
        return (
            format!("{name} {operator} {flag}"),
            Box::new(move |device| (device[&of] == flag) == is_equal),
        );
    }
    let name = numbers.of(&["id", "displayName", "template", "scopes", "organizations", "type"]);
    let value = match name {
        "id" => ["d3", "d30", "d", "D3"][numbers.below(4)],
        "displayName" => numbers.of(&NAMES),
        "template" => numbers.of(&TEMPLATES),
        "type" => "iotEdge",
        _ => numbers.of(&ORGANIZATIONS),
    };
    if numbers.below(4) == 0 {
        let part: String = value.chars().take(3).collect();
        let form = numbers.below(3);
        let text = match form {
            0 => format!("indexof({name}, {}) ge 0", quoted(&part)),
            1 => format!("contains({name},{})", quoted(&part)),
            _ => format!("index({name},{}) eq 0", quoted(&part)),
        };
        let holds = move |device: &Value| {
            let found = field(device, name);
            found
                .as_str()
                .is_some_and(|text| if form == 2 { text.starts_with(&part) } else { text.contains(&part) })
        };
        return (text, Box::new(holds));
    }
    if name != "id" && numbers.below(5) == 0 {
        let is_equal = numbers.below(2) == 0;
        let operator = if is_equal { "eq" } else { "ne" };
        let text = format!("{name} {operator} null");
        return (text, Box::new(move |device| field(device, name).is_null() == is_equal));
    }
    let operator = numbers.of(&["eq", "ne", "lt", "le", "gt", "ge"]);
    let holds = move |device: &Value| {
        let found = field(device, name);
        let order = found.as_str().map(|text| text.as_bytes().cmp(value.as_bytes()));
        match operator {
            "eq" => order == Some(Ordering::Equal),
            "ne" => order != Some(Ordering::Equal),
            "lt" => order == Some(Ordering::Less),
            "le" => order.is_some_and(Ordering::is_le),
            "gt" => order == Some(Ordering::Greater),
            _ => order.is_some_and(Ordering::is_ge),
        }
    };
    (format!("{name} {operator} {}", quoted(value)), Box::new(holds))
}

#[tokio::test]
async fn every_filter_and_order_gives_what_a_search_through_all_devices_gives_in_pages_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let devices = devices(&central).await;
    assert_eq!(devices.len(), 40);
    let mut numbers = Numbers(42);
    let mut found_some = 0;
    for round in 0..250 {
        let (filter, holds) = condition(&mut numbers, 3);
        let order =
            numbers.of(&["", "id", "displayName", "template", "enabled", "simulated", "scopes", "type"]);
        let direction = numbers.of(&["", " asc", " desc", " DESC"]);
        let size = numbers.of(&["1", "3", "7", "40", "100"]);
        let names = [["filter", "orderby", "maxpagesize"], ["$filter", "$orderby", "$top"]][round % 2];
        let orderby = format!("{order}{direction}");
        let mut query = vec![(names[0], filter.as_str()), (names[2], size)];
        if !order.is_empty() {
            query.push((names[1], orderby.as_str()));
        }
        let mut expected: Vec<Value> = devices.iter().filter(|device| holds(device)).cloned().collect();
        let key = |device: &Value| match field(device, order) {
            Value::String(text) => text,
            Value::Bool(flag) => u8::from(flag).to_string(),
            _ => String::new(),
        };
        expected.sort_by_cached_key(|device| (key(device), key_of_id(device)));
        if !order.is_empty() && direction.trim().eq_ignore_ascii_case("desc") {
            expected.reverse();
        }
        let found = pages(&central, "/api/devices", &query).await;
        assert_eq!(ids(&found), ids(&expected), "{query:?}");
        found_some += usize::from(!found.is_empty() && found.len() < devices.len());
    }
    assert!(found_some > 100, "only {found_some} filters took some devices and left others");
    central.end().await;
}

fn key_of_id(device: &Value) -> String {
    device["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn stored_manifests_are_filtered_and_ordered_too() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let data = json!({"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}}}});
    for (id, name, organization) in
        [("a", "Line 2", "seattle"), ("b", "Line 1", "seattle"), ("c", "Oven", "redmond")]
    {
        let body = json!({"displayName": name, "data": data, "organizations": [organization]});
        central.put(&format!("/api/deploymentManifests/{id}"), body).await;
    }
    for (filter, order, expected) in [
        ("scopes eq 'seattle'", "displayName", ["b", "a"].as_slice()),
        ("contains(displayName,'Line')", "id desc", &["b", "a"]),
        ("displayName ne 'Line 2'", "organizations", &["c", "b"]),
    ] {
        let query = [("filter", filter), ("orderby", order), ("maxpagesize", "1")];
        let found = pages(&central, "/api/deploymentManifests", &query).await;
        assert_eq!(ids(&found), expected, "{filter} {order}");
    }
    central.end().await;
}

#[tokio::test]
async fn what_a_list_does_not_support_is_refused_with_the_name_of_the_parameter() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for (query, words) in [
        ("maxpagesize=0", ["maxpagesize", "1 to 100"]),
        ("$maxpagesize=101", ["$maxpagesize", "1 to 100"]),
        ("$top=-1", ["$top", "invalid"]),
        ("maxpagesize=5&$top=5", ["$top", "maxpagesize"]),
        ("filter=enabled%20eq%201", ["filter", "true or false"]),
        ("$filter=nothing%20eq%201", ["filter", "organizations"]),
        ("filter=id%20eq%20%27a%27&$filter=id%20eq%20%27a%27", ["$filter", "beside filter"]),
        ("orderby=etag", ["orderby", "displayName"]),
        ("$orderby=id%20upwards", ["orderby", "`asc` or `desc`"]),
        ("orderby=id,displayName", ["orderby", "write one of"]),
        ("orderby=displayName&$skiptoken=d1", ["$skiptoken", "nextLink"]),
        ("orderby=enabled&$skiptoken=%5B%22a%22,%22b%22%5D", ["$skiptoken", "nextLink"]),
        ("search=a", ["search", "orderby"]),
    ] {
        let (status, refused) = central.send(Method::GET, &format!("/api/devices?{query}"), None).await;
        assert_eq!((status, &refused["error"]["code"]), (400, &json!("InvalidQuery")), "{query}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(words.iter().all(|word| message.contains(word)), "{query}: {message}");
    }
    // Lists that IoT Central does not filter either.
    for path in ["/api/apiTokens", "/api/enrollmentGroups"] {
        let (status, refused) = central.send(Method::GET, &format!("{path}?filter=x"), None).await;
        assert_eq!(status, 400, "{refused}");
        assert_eq!(central.send(Method::GET, &format!("{path}?maxpagesize=1"), None).await.0, 200);
    }
    central.end().await;
}
