//! Values in the store that cannot be read: every list and every link goes on without them.

#![allow(clippy::unwrap_used, reason = "a test says that a step failed by panicking where it failed")]

mod common;

use central::error::ServiceError;
use central::store::StoreError;
use reqwest::Method;
use serde_json::json;

/// Two rows of everything; the first of each is damaged, the second must stay visible.
const ROWS: &str = r#"
INSERT INTO manifests (id, display_name, data, revision) VALUES ('m1', 'm1', '{}', 1), ('m2', 'm2', '{}', 1);
INSERT INTO twins (device, module, section, version, properties, touched) VALUES
    ('d1', '', 'desired', 3, '{"a":1}', '{"a":[1,3]}'), ('d1', '', 'reported', 2, '{"b":1}', '{"b":[1,2]}'),
    ('d2', '', 'desired', 3, '{"a":1}', '{"a":[1,3]}'), ('gw', 'filter', 'desired', 1, '{"a":1}', '{}'),
    ('gw', '$edgeAgent', 'desired', 1, '{"modules":{"filter":{}}}', '{}');
INSERT INTO telemetry (device, module, enqueued_ms, received_ms, bag, body) VALUES
    ('d1', NULL, 1, 1, '{}', x'31'), ('d1', NULL, 2, 2, '{}', x'32'), ('gw', 'filter', 3, 3, '{}', x'33');
INSERT INTO commands (id, gateway, device, module, request, asked_ms, deadline_ms, ended_ms, outcome, valid_until_ms) VALUES
    ('c1', 'gw', 'd1', '', '{"methodName":"x","payload":null,"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}',
     1, 99999999999999, NULL, NULL, 99999999999999),
    ('c2', 'gw', 'd1', '', '{"methodName":"x","payload":null,"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}',
     1, 99999999999999, NULL, NULL, 99999999999999),
    ('c3', 'gw', 'd2', '', '{"methodName":"x","payload":null,"responseTimeoutInSeconds":30,"connectTimeoutInSeconds":0}',
     1, 2, 3, '{"Ok":{"status":200,"payload":null}}', NULL);
INSERT INTO enrollment_groups (id, display_name, enabled, is_edge, primary_key, secondary_key, revision, x509) VALUES
    ('g1', 'g1', 1, 0, 'aa==', 'aa==', 1, '{}'), ('g2', 'g2', 1, 0, 'aa==', 'aa==', 1, NULL);
INSERT INTO enrollments (device, group_id, operation_id, created_ms, updated_ms) VALUES ('d1', 'g1', 'o', 1, 1);
INSERT INTO losses (gateway, queue, device, module, cause, first, last, count, from_ms, until_ms, received_ms) VALUES
    ('gw', 'q', 'd1', '', 'expired', 1, 2, 2, 1, 2, 3), ('gw', 'q', 'd1', '', 'expired', 3, 4, 2, 1, 2, 3);
INSERT INTO loss_totals (gateway, queue, device, module, cause, count, from_ms, until_ms) VALUES
    ('gw', 'q', 'd1', '', 'expired', 4, 1, 2), ('gw', 'q', 'd2', '', 'expired', 4, 1, 2);
INSERT INTO users (id, name, role, created_ms) VALUES ('u0', 'u0', 'viewer', 1), ('u1', 'u1', 'viewer', 1);
INSERT INTO device_templates (id, display_name, document, revision) VALUES
    ('dtmi:a:t1;1', 't1', '{"@type":["ModelDefinition","DeviceModel"],"displayName":"t1","capabilityModel":{}}', 1),
    ('dtmi:a:t2;1', 't2', '{"@type":["ModelDefinition","DeviceModel"],"displayName":"t2","capabilityModel":{}}', 1);
INSERT INTO operations (id, kind, title, who, started_ms, total, done, failed) VALUES
    (1, 'importDevices', 'a.csv', 'u', 1, 2, 2, 1), (2, 'importDevices', 'b.csv', 'u', 1, 2, 2, 1);
INSERT INTO operation_faults (operation, line, device, why) VALUES (1, 2, 'd', 'w'), (2, 2, 'd', 'w'), (2, 3, 'e', 'w');
INSERT INTO cloud_properties (device, name, value, changed_ms) VALUES ('d1', 'owner', '"a"', 1), ('d1', 'size', '2', 1);
INSERT INTO overview_tiles (template, tiles) VALUES
    ('dtmi:a:t1;1', '[{"kind":"chart","name":"p"}]'), ('dtmi:a:t2;1', '[{"kind":"chart","name":"p"}]');
INSERT INTO roles (id, display_name, permissions) VALUES
    ('r1', 'R 1', '["roles.view"]'), ('r2', 'R 2', '["roles.view"]');
INSERT INTO watermarks (gateway, queue, sequence) VALUES ('gw', 'q', 7), ('gw', 'r', 8);
INSERT INTO cloud_purges (device, up_to) VALUES ('d1', 1), ('d2', 1);
INSERT INTO cloud_feedback (device, message_id, settlement) VALUES
    ('d1', 'a', '{"end":"delivered","atMs":1}'), ('d1', 'b', '{"end":"delivered","atMs":1}');
"#;

/// Every list and every single thing that is not the damaged one.
const PATHS: &[&str] = &[
    "/api/devices",
    "/api/devices/d1",
    "/api/devices/gw",
    "/api/devices/gw/relationships",
    "/api/devices/d1/properties",
    "/api/devices/gw/modules",
    "/api/devices/d1/commands/x",
    "/api/devices/d2/commands/x",
    "/api/devices/d1/telemetry/t",
    "/api/deploymentManifests",
    "/api/deviceTemplates",
    "/api/deviceTemplates/dtmi:a:t2;1",
    "/api/ext/deviceTemplates",
    "/api/ext/deviceTemplates/dtmi:a:t2;1",
    "/api/ext/deviceTemplates/dtmi:a:t1;1/overview",
    "/api/ext/operations",
    "/api/ext/operations/2",
    "/api/enrollmentGroups",
    "/api/ext/devices/d1/status",
    "/api/ext/devices/gw/status",
    "/api/ext/devices/d1/messages",
    "/api/ext/devices/gw/messages",
    "/api/ext/devices/d1/twin",
    "/api/ext/devices/d1/losses",
    "/api/ext/devices/gw/losses/totals",
    "/api/ext/devices/d1/messages/devicebound",
    "/api/ext/messages/servicebound/feedback",
    "/api/ext/health",
    "/status",
    "/api/users",
    "/api/users/u1",
    "/api/roles",
    "/api/roles/r2",
    "/api/ext/roles",
    "/api/ext/roles/r2",
    "/api/ext/audit",
];

const TABLES: &[&str] = &[
    "devices",
    "relationships",
    "manifests",
    "device_templates",
    "operations",
    "operation_faults",
    "cloud_properties",
    "overview_tiles",
    "twins",
    "telemetry",
    "commands",
    "enrollment_groups",
    "enrollments",
    "losses",
    "loss_totals",
    "watermarks",
    "cloud_messages",
    "cloud_purges",
    "cloud_feedback",
    "users",
    "roles",
    "audit",
];

/// What stands in a column instead: no JSON, too deep to be read, no text.
fn damages() -> [String; 3] {
    ["'{broken'".into(), format!("'{}1{}'", "[".repeat(300), "]".repeat(300)), "x'00ff7f'".into()]
}

#[tokio::test]
async fn a_value_that_cannot_be_read_in_any_column_stops_neither_a_list_nor_the_link() {
    let dir = tempfile::tempdir().unwrap();
    let central = common::start(dir.path()).await;
    central.put("/api/devices/gw", json!({"type": ["edge"]})).await;
    for device in ["d1", "d2"] {
        central.put(&format!("/api/devices/{device}"), json!({})).await;
        let path = format!("/api/devices/gw/relationships/to-{device}");
        central.put(&path, json!({"name": "r", "source": "gw", "target": device})).await;
        let send = format!("/api/ext/devices/{device}/messages/devicebound");
        for _ in 0..2 {
            central.ok(Method::POST, &send, Some(json!({"body": {"a": 1}, "ack": "full"}))).await;
        }
    }
    let store = central.started.store().clone();
    let rows = store.submit(|c| Ok::<_, StoreError>(c.execute_batch(ROWS)?));
    rows.await.unwrap();
    let (mut cases, mut turn) = (0, 0);
    for table in TABLES {
        let columns = store.read(move |c| {
            let mut statement = c.prepare(&format!("PRAGMA table_info({table})"))?;
            let names = statement.query_map([], |row| row.get::<_, String>("name"))?;
            Ok::<_, StoreError>(names.collect::<Result<Vec<_>, _>>()?)
        });
        for column in columns.await.unwrap() {
            // Broken text in every column, and the other two in turn.
            let [broken, deep, bytes] = damages();
            turn += 1;
            for damage in [broken, if turn % 2 == 0 { deep } else { bytes }] {
                let key = if *table == "devices" { "id = 'd1'" } else { "1" };
                // The first row: others of the table must stay visible. A constraint may keep the damage out.
                let damaged = {
                    let (table, column, damage) = (*table, column.clone(), damage.clone());
                    store.submit(move |c| {
                        c.execute_batch(&format!("CREATE TABLE kept AS SELECT * FROM {table}"))?;
                        let first = format!("SELECT {column} FROM {table} WHERE {key} LIMIT 1");
                        let update = format!(
                            "UPDATE OR FAIL {table} SET {column} = {damage} WHERE {key} AND {column} IS ({first})"
                        );
                        Ok::<_, StoreError>(c.execute(&update, [])?)
                    })
                };
                if damaged.await.is_err() {
                    continue;
                }
                let what = format!("{table}.{column} = {:.20}", damage);
                for path in PATHS {
                    let (status, body) = central.send(Method::GET, path, None).await;
                    assert!(status < 500, "{what}: {path}: {status} {body}");
                }
                let mut gateway = central.client("gw").await;
                gateway.subscribe("$ls/#").await;
                gateway.message("$ls/stored").await;
                gateway.message("$ls/children").await;
                // The last thing that a gateway is told of what stands in these tables, and it is still connected.
                gateway.publish("devices/gw/messages/events/", "{}").await;
                gateway.client.disconnect().await.unwrap();
                let back = {
                    let table = *table;
                    store.submit(move |c| {
                        c.execute_batch(&format!(
                            "DELETE FROM {table}; INSERT INTO {table} SELECT * FROM kept; DROP TABLE kept;"
                        ))?;
                        Ok::<_, ServiceError>(())
                    })
                };
                back.await.unwrap();
                cases += 1;
            }
        }
    }
    assert!(cases > 100, "{cases}");
    assert_eq!(central.get("/api/devices").await["value"].as_array().unwrap().len(), 3);
    assert!(central.get("/api/ext/health").await["unreadableRows"].as_u64().unwrap() > 20);
    // All at once, and a start.
    let all = store.submit(|c| {
        c.execute_batch(
            "UPDATE devices SET x509 = '{'; UPDATE manifests SET data = '{'; UPDATE telemetry SET bag = '{';
             UPDATE twins SET properties = '{', touched = '{'; UPDATE commands SET request = '{', outcome = NULL;
             UPDATE cloud_messages SET message = '{'; UPDATE cloud_feedback SET settlement = '{';
             UPDATE enrollment_groups SET x509 = '{';",
        )?;
        Ok::<_, StoreError>(())
    });
    all.await.unwrap();
    central.end().await;
    let central = common::start(dir.path()).await;
    for path in PATHS {
        let (status, body) = central.send(Method::GET, path, None).await;
        assert!(status < 500, "{path}: {status} {body}");
    }
    // Nothing is merged into what cannot be read; what is written whole heals it.
    let merge = central.send(Method::PATCH, "/api/devices/d1/properties", Some(json!({"c": 1}))).await;
    assert_eq!(merge.0, 409, "{}", merge.1);
    central.put("/api/devices/d1/properties", json!({"c": 1})).await;
    let twin = central.get("/api/ext/devices/d1/twin").await;
    assert_eq!(twin["desired"]["c"], 1, "{twin}");
    central.end().await;
}

/// A page that is short because rows were left out would be taken for the last one.
#[tokio::test]
async fn a_list_is_read_to_its_end_beside_rows_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let central = common::start(dir.path()).await;
    for id in ["d1", "d2", "d3", "d4", "d5", "d6"] {
        central.put(&format!("/api/devices/{id}"), json!({})).await;
        central.put(&format!("/api/apiTokens/{id}"), json!({"roles": [{"role": "viewer"}]})).await;
    }
    let store = central.started.store().clone();
    let damaged = store.submit(|c| {
        c.execute_batch(
            "INSERT INTO users (id, name, role, created_ms) SELECT 'u' || id, 'u' || id, 'viewer', 1 FROM devices;
             INSERT INTO manifests (id, display_name, data, revision) SELECT id, id, '{}', 1 FROM devices;
             UPDATE users SET role = '{' WHERE id IN ('ud2', 'ud3');
             UPDATE manifests SET data = '{' WHERE id IN ('d2', 'd3');
             UPDATE devices SET x509 = '{' WHERE id IN ('d2', 'd3');",
        )?;
        c.execute_batch("UPDATE tokens SET role = '{' WHERE name IN ('d2', 'd3')")?;
        Ok::<_, StoreError>(())
    });
    damaged.await.unwrap();
    for (path, left) in [
        ("/api/users", ["ud1", "ud4", "ud5", "ud6"]),
        ("/api/apiTokens", ["d1", "d4", "d5", "d6"]),
        ("/api/deploymentManifests", ["d1", "d4", "d5", "d6"]),
        ("/api/devices", ["d1", "d4", "d5", "d6"]),
    ] {
        let (mut ids, mut next) = (Vec::new(), Some(format!("{path}?$top=2")));
        while let Some(page) = next {
            let page = central.get(&page).await;
            ids.extend(
                page["value"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
            );
            let link = page["nextLink"].as_str();
            // The request adds the version itself.
            next = link.map(|link| {
                link[link.find("/api/").unwrap()..].replace("api-version=2022-10-31-preview&", "")
            });
        }
        let found: Vec<&str> = ids.iter().map(String::as_str).filter(|id| left.contains(id)).collect();
        assert_eq!(found, left, "{path}: {ids:?}");
    }
}
