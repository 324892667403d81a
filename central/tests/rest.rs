//! The REST API over a real socket: IoT Central's paths, bodies, status codes and errors.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::start;
use reqwest::Method;
use serde_json::{Value, json};

fn manifest(image: &str) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {
            "sensor": {"version": "1", "type": "docker", "status": "running", "restartPolicy": "always",
                "settings": {"image": image, "createOptions": "{}"}}}}},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1",
            "routes": {"up": "FROM /messages/modules/sensor/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}}},
        "sensor": {"properties.desired": {"intervalMs": 1000}}}})
}

#[tokio::test]
async fn a_device_is_registered_read_changed_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let made = central.put("/api/devices/press-1", json!({"displayName": "Press 1"})).await;
    assert_eq!(made["displayName"], "Press 1");
    assert_eq!(
        (&made["enabled"], &made["provisioned"], &made["simulated"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert!(made.get("type").is_none(), "{made}");

    let keys = central.get("/api/devices/press-1/credentials").await;
    assert_eq!(keys["idScope"], central.get("/api/ext/provisioning").await["idScope"]);
    let primary = keys["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned();
    assert_ne!(keys["symmetricKey"]["secondaryKey"], primary.as_str());

    let read = central.get("/api/devices/press-1").await;
    central.put("/api/devices/press-1", read).await;
    let changed = central.patch("/api/devices/press-1", json!({"enabled": false})).await;
    assert_eq!((&changed["enabled"], &changed["displayName"]), (&json!(false), &json!("Press 1")));
    assert_ne!(changed["etag"], made["etag"]);
    assert_eq!(
        central.get("/api/devices/press-1/credentials").await["symmetricKey"]["primaryKey"],
        primary.as_str()
    );

    for n in 0..3 {
        central.put(&format!("/api/devices/gw-{n}"), json!({"type": ["edge"]})).await;
    }
    assert_eq!(central.get("/api/devices/gw-1").await["type"], json!(["iotEdge"]));
    let first = central.get("/api/devices?$top=3").await;
    let ids = |page: &Value| -> Vec<String> {
        page["value"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&first), ["gw-0", "gw-1", "gw-2"]);
    let next = central.http.get(first["nextLink"].as_str().unwrap()).header("Authorization", &central.token);
    let rest: Value = next.send().await.unwrap().json().await.unwrap();
    assert_eq!(ids(&rest), ["press-1"]);
    assert!(rest.get("nextLink").is_none());

    central.ok(Method::DELETE, "/api/devices/press-1", None).await;
    assert_eq!(central.send(Method::GET, "/api/devices/press-1", None).await.0, 404);
    central.end().await;
}

#[tokio::test]
async fn errors_have_iot_centrals_shape_and_name_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/leaf", json!({})).await;
    for (method, path, body, status, code, phrase) in [
        (Method::GET, "/api/devices/none", None, 404, "NotFound", "`none`"),
        (Method::PATCH, "/api/devices/none", Some(json!({})), 404, "NotFound", "`none`"),
        (Method::GET, "/api/nothing", None, 404, "NotFound", "openapi.json"),
        (Method::POST, "/api/devices", None, 405, "MethodNotAllowed", "method"),
        (Method::PUT, "/api/devices/a%20b", Some(json!({})), 400, "InvalidPath", "allowed are"),
        (
            Method::PUT,
            "/api/devices/x",
            Some(json!({"displayNme": "x"})),
            422,
            "UnprocessableContent",
            "displayNme",
        ),
        (
            Method::PUT,
            "/api/devices/x",
            Some(json!({"enabled": "yes"})),
            422,
            "UnprocessableContent",
            "enabled",
        ),
        (
            Method::PUT,
            "/api/devices/x",
            Some(json!({"type": ["toaster"]})),
            422,
            "UnprocessableContent",
            "toaster",
        ),
        (
            Method::PUT,
            "/api/devices/leaf",
            Some(json!({"type": ["edge"]})),
            422,
            "UnprocessableContent",
            "type",
        ),
        (Method::GET, "/api/devices?$top=1000", None, 400, "InvalidQuery", "$top"),
        (Method::GET, "/api/devices?$filter=x", None, 400, "InvalidQuery", "filter: found `x`"),
        (
            Method::PATCH,
            "/api/devices/leaf/properties",
            Some(json!({"a.b": 1})),
            422,
            "UnprocessableContent",
            "a.b",
        ),
        (Method::PATCH, "/api/devices/leaf/modules/m/properties", Some(json!({})), 404, "NotFound", "`m`"),
        (Method::GET, "/api/devices/leaf/telemetry/t", None, 404, "NotFound", "`t`"),
        (
            Method::PATCH,
            "/api/devices/leaf",
            Some(json!({"deploymentManifest": {"id": "m"}})),
            404,
            "NotFound",
            "`m`",
        ),
        (
            Method::POST,
            "/api/devices/leaf/commands/c",
            Some(json!({"responseTimeout": 1})),
            422,
            "UnprocessableContent",
            "responseTimeout",
        ),
        (
            Method::POST,
            "/api/devices/leaf/commands/c",
            Some(json!({"request": 1})),
            404,
            "DeviceNotConnected",
            "leaf",
        ),
    ] {
        let (found, answer) = central.send(method.clone(), path, body).await;
        let error = &answer["error"];
        assert_eq!((found, error["code"].as_str()), (status, Some(code)), "{method} {path}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(phrase), "{method} {path}: {answer}");
        assert!(error["requestId"].is_string() && error["time"].is_string(), "{answer}");
    }
    // The failed command stands in the history all the same.
    let history = central.get("/api/devices/leaf/commands/c").await;
    assert_eq!(history["value"].as_array().unwrap().len(), 1);
    assert!(history["value"][0]["error"].as_str().unwrap().contains("not connected"), "{history}");

    let broken = central.http.put(central.url("/api/devices/x?api-version=1.0")).body("{");
    let broken = broken.header("Authorization", &central.token).send().await.unwrap();
    assert_eq!(broken.status(), 400);
    let unversioned = central.http.get(central.url("/api/devices")).header("Authorization", &central.token);
    let unversioned = unversioned.send().await.unwrap();
    assert_eq!(unversioned.status(), 400);
    assert!(unversioned.text().await.unwrap().contains("api-version: found nothing"));
    central.end().await;
}

#[tokio::test]
async fn a_role_may_do_what_it_may_and_no_more_and_without_a_token_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/d", json!({})).await;
    let (viewer, operator) = (central.new_token(Role::Viewer).await, central.new_token(Role::Operator).await);
    for (token, method, path, status) in [
        (&viewer, Method::GET, "/api/devices/d", 200),
        (&viewer, Method::GET, "/api/devices/d/credentials", 403),
        (&viewer, Method::PUT, "/api/devices/d", 403),
        (&operator, Method::GET, "/api/devices/d/credentials", 200),
        (&operator, Method::PUT, "/api/devices/d", 200),
        (&operator, Method::DELETE, "/api/devices/d", 403),
        (&central.token, Method::DELETE, "/api/devices/d", 204),
        (&"SharedAccessSignature sr=x&sig=guess&skn=x&se=1".to_owned(), Method::GET, "/api/devices", 401),
        (&"nonsense".to_owned(), Method::GET, "/api/nothing", 401),
    ] {
        let body = (method == Method::PUT).then(|| json!({}));
        assert_eq!(central.send_as(token, method.clone(), path, body).await.0, status, "{method} {path}");
    }
    let bare = central.http.get(central.url("/api/devices?api-version=1.0")).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    let health = central.http.get(central.url("/api/ext/health")).send().await.unwrap();
    assert_eq!(health.status(), 200);
    central.end().await;
}

#[tokio::test]
async fn a_wrong_manifest_is_refused_by_its_field_and_a_right_one_becomes_twins() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    let path = "/api/deploymentManifests/line-1";
    for (pointer, wrong, phrase) in [
        (
            "/modulesContent/$edgeAgent/properties.desired/modules/sensor/status",
            json!("runing"),
            "sensor.status",
        ),
        ("/modulesContent/$edgeHub/properties.desired/routes/up", json!("FROM nowhere"), "routes.up"),
    ] {
        let mut data = manifest("sensor:1");
        *data.pointer_mut(pointer).unwrap() = wrong;
        let (status, answer) = central.send(Method::PUT, path, Some(json!({"data": data}))).await;
        assert_eq!(status, 422, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(phrase), "{answer}");
    }
    let stored = central.put(path, json!({"displayName": "Line 1", "data": manifest("sensor:1")})).await;
    assert_eq!((&stored["id"], &stored["data"]), (&json!("line-1"), &manifest("sensor:1")));

    let assigned = central.patch("/api/devices/gw", json!({"deploymentManifest": {"id": "line-1"}})).await;
    assert_eq!(assigned["deploymentManifest"], json!({"id": "line-1", "displayName": "Line 1"}));
    let twin = |module: &'static str| central.get(module);
    let agent = "/api/ext/devices/gw/twin?module=$edgeAgent";
    let first = twin(agent).await;
    assert_eq!(first["desired"]["modules"]["sensor"]["settings"]["image"], "sensor:1");
    assert_eq!(first["desired"]["$version"], 1);
    assert_eq!(central.get("/api/devices/gw/modules").await["value"][0]["name"], "sensor");

    // A module's property outlives an assignment that does not change its section, and versions grow only by changes.
    let properties = "/api/devices/gw/modules/sensor/properties";
    let shown = central.patch(properties, json!({"intervalMs": 200, "$metadata": {}})).await;
    assert_eq!(
        (&shown["intervalMs"], &shown["$metadata"]["intervalMs"]["desiredVersion"]),
        (&json!(200), &json!(2))
    );
    let mut without = manifest("sensor:2");
    without["modulesContent"].as_object_mut().unwrap().remove("sensor");
    central.put(path, json!({"data": without})).await;
    central.patch("/api/devices/gw", json!({"deploymentManifest": {"id": "line-1"}})).await;
    assert_eq!(twin(agent).await["desired"]["$version"], 2);
    assert_eq!(twin("/api/ext/devices/gw/twin?module=$edgeHub").await["desired"]["$version"], 1);
    assert_eq!(
        twin("/api/ext/devices/gw/twin?module=sensor").await["desired"],
        json!({"intervalMs": 200, "$version": 2})
    );
    let replaced = central.put(properties, json!({"limit": 5})).await;
    assert_eq!((&replaced["limit"], replaced.get("intervalMs")), (&json!(5), None));

    let (status, answer) = central
        .send(Method::PATCH, "/api/devices/gw/modules/$edgeAgent/properties", Some(json!({"modules": {}})))
        .await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(central.send(Method::DELETE, path, None).await.0, 409);
    central.end().await;
}

#[tokio::test]
async fn a_device_is_behind_one_gateway_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    for gateway in ["gw-1", "gw-2"] {
        central.put(&format!("/api/devices/{gateway}"), json!({"type": ["edge"]})).await;
    }
    central.put("/api/devices/leaf", json!({})).await;
    let request = json!({"name": "downstream", "source": "gw-1", "target": "leaf"});
    let path = "/api/devices/gw-1/relationships/to-leaf";
    let made = central.put(path, request.clone()).await;
    assert_eq!(made, json!({"id": "to-leaf", "name": "downstream", "source": "gw-1", "target": "leaf"}));
    assert_eq!(central.put(path, request.clone()).await, made, "again is the same");
    assert_eq!(central.get(path).await, made);
    assert_eq!(central.get("/api/ext/devices/leaf/status").await["gateway"], "gw-1");
    for (path, request, status, phrase) in [
        ("/api/devices/gw-2/relationships/r", json!({"target": "leaf"}), 409, "gw-1"),
        ("/api/devices/gw-2/relationships/r", json!({"target": "gw-1"}), 422, "gateway itself"),
        ("/api/devices/leaf/relationships/r", json!({"target": "gw-1"}), 422, "not a gateway"),
        ("/api/devices/gw-2/relationships/r", json!({"target": "none"}), 404, "`none`"),
        ("/api/devices/gw-2/relationships/r", request, 422, "source"),
    ] {
        let (found, answer) = central.send(Method::PUT, path, Some(request)).await;
        assert_eq!(found, status, "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(phrase), "{answer}");
    }
    central.ok(Method::DELETE, path, None).await;
    central.put("/api/devices/gw-2/relationships/r", json!({"target": "leaf"})).await;
    central.end().await;
}

#[tokio::test]
async fn every_described_path_answers_and_the_server_has_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let described = central.get("/openapi.json").await;
    assert_eq!(described["info"]["title"], "Lineside central");
    assert!(described["info"].get("contact").is_none(), "{}", described["info"]);
    let paths = described["paths"].as_object().unwrap();
    assert!(paths.len() > 15, "{paths:?}");
    for (path, operations) in paths {
        let concrete = path
            .replace("{device_id}", "d")
            .replace("{module_name}", "m")
            .replace("{component_name}", "c")
            .replace("{relationship_id}", "r")
            .replace("{telemetry_name}", "t")
            .replace("{command_name}", "c")
            .replace("{manifest_id}", "x")
            .replace("{template_id}", "dtmi:a:b;1")
            .replace("{group_id}", "g")
            .replace("{entry}", "primary")
            .replace("{operation_id}", "1")
            .replace("{token_id}", "t")
            .replace("{user_id}", "u")
            .replace("{role_id}", "viewer");
        assert!(!concrete.contains('{'), "{path}");
        for method in [Method::GET, Method::PUT, Method::PATCH, Method::POST, Method::DELETE] {
            let (status, answer) = central.send(method.clone(), &concrete, None).await;
            let is_described = operations.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(status != 405, is_described, "{method} {path}: {status} {answer}");
            let message = answer["error"]["message"].as_str().unwrap_or("");
            assert!(!message.contains("no such path"), "{method} {path}");
        }
    }
    for path in ["/api", "/api/", "/api/ext", "/api/nothing", "/assets/gone.js", "/api/devices/d/nothing"] {
        assert_eq!(central.send(Method::GET, path, None).await.0, 404, "{path}");
    }
    central.end().await;
}

#[tokio::test]
async fn the_status_page_requests_a_password_escapes_names_and_shows_the_fleet() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"], "displayName": "<script>&\"'"})).await;
    let bare = central.http.get(central.url("/status")).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert!(bare.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let page = central.http.get(central.url("/status")).basic_auth("anyone", Some(&central.token));
    let page = page.send().await.unwrap();
    assert_eq!(page.status(), 200);
    let html = page.text().await.unwrap();
    assert!(html.contains("&lt;script&gt;&amp;&quot;&#39;") && !html.contains("<script"), "{html}");
    central.end().await;
}
