//! What operators arrange on the overview of a template's devices, over REST.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::token::Role;
use common::start;
use reqwest::Method;
use serde_json::{Value, json};

fn template(version: u32) -> Value {
    let model = json!({"@context": "dtmi:dtdl:context;2", "@id": format!("dtmi:plant:press:model;{version}"), "@type": "Interface",
        "contents": [{"@type": "Telemetry", "name": "pressure", "schema": "double"}]});
    json!({"@type": ["ModelDefinition", "DeviceModel"], "displayName": "Press", "capabilityModel": model})
}

#[tokio::test]
async fn an_overview_is_arranged_beside_its_template_and_a_new_version_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let central = start(dir.path()).await;
    let overview = |version: u32| format!("/api/ext/deviceTemplates/dtmi:plant:press;{version}/overview");
    assert_eq!(central.send(Method::GET, &overview(1), None).await.0, 404);
    central.put("/api/deviceTemplates/dtmi:plant:press;1", template(1)).await;
    let etag = central.get("/api/deviceTemplates/dtmi:plant:press;1").await["etag"].clone();
    assert_eq!(central.get(&overview(1)).await, json!({"tiles": [], "template": null}));

    let tiles = json!([
        {"kind": "kpi", "name": "pressure", "title": "Peak", "aggregate": "max"},
        {"kind": "chart", "name": "pressure"},
        {"kind": "state", "name": "mode", "component": "motor"},
        {"kind": "lastValue", "name": "not in the model"},
    ]);
    let stored = central.put(&overview(1), json!({"tiles": tiles})).await;
    assert_eq!(stored, json!({"tiles": tiles, "template": "dtmi:plant:press;1"}));
    assert_eq!(central.get(&overview(1)).await, stored);
    assert_eq!(
        central.get("/api/deviceTemplates/dtmi:plant:press;1").await["etag"],
        etag,
        "the template is another one"
    );

    central.put("/api/deviceTemplates/dtmi:plant:press;2", template(2)).await;
    assert_eq!(central.get(&overview(2)).await, stored, "a new version has the tiles of the one before");
    let own = json!([{"kind": "chart", "name": "pressure"}]);
    central.put(&overview(2), json!({"tiles": own})).await;
    assert_eq!(central.get(&overview(1)).await, stored, "an older version has those of a later one");
    assert_eq!(central.put(&overview(2), json!({"tiles": []})).await, stored);

    for (body, says) in [
        (json!({}), "tiles"),
        (json!({"tiles": [{"kind": "dial", "name": "a"}]}), "tiles[0].kind"),
        (json!({"tiles": [{"kind": "chart"}]}), "name"),
        (json!({"tiles": [{"kind": "chart", "name": ""}]}), "tiles.0.name"),
        (json!({"tiles": [{"kind": "chart", "name": "a", "aggregate": "max"}]}), "tiles.0.aggregate"),
        (json!({"tiles": vec![json!({"kind": "chart", "name": "a"}); 61]}), "found 61"),
    ] {
        let (status, answer) = central.send(Method::PUT, &overview(1), Some(body.clone())).await;
        assert!(status == 422 && answer.to_string().contains(says), "{body}: {status} {answer}");
    }
    let viewer = central.new_token(Role::Viewer).await;
    let put = Some(json!({"tiles": []}));
    assert_eq!(central.send_as(&viewer, Method::PUT, &overview(1), put).await.0, 403);
    assert_eq!(central.send_as(&viewer, Method::GET, &overview(1), None).await.0, 200);

    // Another template of the id begins with nothing.
    for version in [1, 2] {
        let path = format!("/api/deviceTemplates/dtmi:plant:press;{version}");
        central.ok(Method::DELETE, &path, None).await;
        central.put(&path, template(version)).await;
    }
    assert_eq!(central.get(&overview(2)).await["tiles"], json!([]));
    central.end().await;
}
